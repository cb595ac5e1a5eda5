"""Many patterns over many payloads in one call: Hyperscan, or RE2 where it has no wheel.

A scanner is a filter. It names every (pattern, piece) that may match, and few that do not; what it names is decided by
looking at the piece alone, the same way for both engines. So pieces may lie side by side in one buffer, and both
engines give the same hits.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from engine.detect.signatures.regex import Regex, literal_regex, re2_options
from engine.detect.signatures.syntax import Refused
from engine.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STOP_AFTER: Final = 128  # matches, then look whether they are all of one piece
_TOO_MANY: Final = 32  # of one piece: RE2 says which patterns they are of
_CHUNK_BYTES: Final = 1 << 16
_SET_MEMORY: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a scanner looks for: bytes (`caseless`: ASCII letters of either case) or a regular expression."""

    literal: bytes = b""
    caseless: bool = False
    regex: Regex | None = None

    def text(self) -> tuple[str, bool, bool]:
        """(expression, caseless, dotall)."""
        if self.regex is not None:
            return self.regex.filter, self.regex.caseless, self.regex.dotall
        return literal_regex(self.literal), self.caseless, False


class Scanner(Protocol):
    """Finds candidates."""

    name: str

    def scan(self, data: memoryview, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
        """Candidates as int64[2, n]: pattern and piece, each pair once, by piece.

        Args:
            data: the buffer. starts, ends: where its pieces lie, in order, with a line feed before and after each.
        """


def make_scanner(patterns: Sequence[Pattern], engine: str = "auto") -> Scanner:
    """A scanner by the engine named, or by the faster one there is. No pattern may match empty text."""
    if engine not in ("auto", "hyperscan", "re2"):
        raise ConfigError(f"signatures.engine = {engine!r} is unknown: use auto, hyperscan or re2")
    if engine == "hyperscan" or (engine == "auto" and importlib.util.find_spec("hyperscan")):
        try:
            return HyperscanScanner(patterns)
        except ImportError:
            if engine == "hyperscan":
                raise ConfigError("signatures.engine = 'hyperscan': it is not installed here; use auto") from None
    return Re2Scanner(patterns)


def refused_patterns(patterns: Sequence[Pattern], engine: str = "auto") -> dict[int, str]:
    """Why an engine cannot take some of the patterns, by number; one after the other only if all together fail."""
    try:
        make_scanner(patterns, engine)
    except Refused:
        refused = {}
        for number, pattern in enumerate(patterns):
            try:
                make_scanner([pattern], engine)
            except Refused as reason:
                refused[number] = str(reason)
        return refused
    return {}


class HyperscanScanner:
    """One call over the buffer; the GIL is free except while a match is noted."""

    name = "hyperscan"

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        import hyperscan

        self._lengths = np.array([len(p.literal) for p in patterns], np.int64)
        self._stopped = hyperscan.ScanTerminated
        self._database = _compile(patterns)
        self._one_piece = Re2Scanner(patterns)  # Hyperscan's "report once" would double the time to compile

    def scan(self, data: memoryview, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
        """See Scanner."""
        if not len(starts) or not len(self._lengths):
            return np.empty((2, 0), np.int64)
        found: list[tuple[int, int]] = []  # pattern, and where it ends in `data`, or -1 - piece
        at, last = int(starts[0]) - 1, int(ends[-1]) + 1
        while at < last:
            at = self._scan_from(data, at, last, starts, ends, found)
        if not found:
            return np.empty((2, 0), np.int64)
        pattern, end = np.array(found, np.int64).T
        named = end < 0
        piece = np.where(named, -1 - end, np.minimum(np.searchsorted(ends, end), len(ends) - 1))
        inside = named | ((end - self._lengths[pattern] >= starts[piece]) & (end <= ends[piece]))
        return _pairs(pattern[inside], piece[inside], len(self._lengths))

    def _scan_from(
        self, data: memoryview, at: int, last: int, starts: NDArray[np.int64], ends: NDArray[np.int64],
        found: list[tuple[int, int]],
    ) -> int:  # fmt: skip
        """Scan from `at`; returns where to go on."""
        new: list[tuple[int, int]] = []

        def note(pattern: int, start: int, end: int, flags: int, context: object) -> bool:
            new.append((pattern, end))
            return len(new) >= _STOP_AFTER

        if self._run(data[at:last], note):
            found += [(p, at + end) for p, end in new]
            return last
        piece = int(np.searchsorted(ends, at + new[-1][1]))
        if piece >= len(ends):
            found += [(p, at + end) for p, end in new]
            return last
        first, stop = int(starts[piece]), int(ends[piece])
        found += [(p, at + end) for p, end in new if at + end < first]
        if sum(at + end >= first for _, end in new) < _TOO_MANY:
            return first - 1  # once more from the start of this piece, with room for all of its matches
        found += [(p, -piece - 1) for p in self._one_piece.match(data[first - 1 : stop + 1])]
        return stop

    def _run(self, data: memoryview, note: Any) -> bool:
        """False when `note` has stopped it."""
        try:
            self._database.scan(data, match_event_handler=note)
        except self._stopped:
            return False
        return True


def _compile(patterns: Sequence[Pattern]) -> Any:
    import hyperscan

    flags, texts = [], []
    for pattern in patterns:
        text, caseless, dotall = pattern.text()
        texts.append(text.encode())
        flags.append(
            hyperscan.HS_FLAG_MULTILINE
            | (hyperscan.HS_FLAG_CASELESS if caseless else 0)
            | (hyperscan.HS_FLAG_DOTALL if dotall else 0)
        )
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    try:
        if texts:
            database.compile(expressions=texts, ids=list(range(len(texts))), elements=len(texts), flags=flags)
    except hyperscan.error as error:
        raise Refused(f"Hyperscan refuses its pattern: {error}") from None
    return database


class Re2Scanner:
    """One call per 64 KiB, one per piece where that names anything."""

    name = "re2"

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        import re2

        self._n = len(patterns)
        self._set = re2.Set.SearchSet(re2_options(_SET_MEMORY))
        for pattern in patterns:
            text, caseless, dotall = pattern.text()
            try:
                self._set.Add(("(?m" + "i" * caseless + "s" * dotall + ")" + text).encode())
            except re2.error:
                raise Refused("RE2 refuses its pattern") from None
        self._set.Compile()

    def match(self, data: memoryview) -> list[int]:
        """The patterns that match in one piece, given with the line feeds around it."""
        return list(self._set.Match(data) or ())

    def scan(self, data: memoryview, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
        """See Scanner."""
        out: list[tuple[int, int]] = []
        first = 0
        while first < len(starts) and self._n:
            after = int(np.searchsorted(ends, starts[first] + _CHUNK_BYTES))
            after = max(first + 1, min(after, len(starts)))
            if self._set.Match(data[int(starts[first]) - 1 : int(ends[after - 1]) + 1]):
                for piece in range(first, after):
                    whole = data[int(starts[piece]) - 1 : int(ends[piece]) + 1]
                    out += [(pattern, piece) for pattern in self.match(whole)]
            first = after
        if not out:
            return np.empty((2, 0), np.int64)
        pattern, piece = np.array(out, np.int64).T
        return _pairs(pattern, piece, self._n)


def _pairs(pattern: NDArray[np.int64], piece: NDArray[Any], n: int) -> NDArray[np.int64]:
    """Each pair once, by piece."""
    keys = np.unique(piece * n + pattern)
    return np.stack((keys % n, keys // n))
