"""Whether a buffer holds what a rule's contents and regular expressions ask for, in Suricata's sense."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from engine.detect.signatures.rule import Content, Item, Pcre

MAX_STEPS: Final = 1_000  # tries of one rule on one buffer, after which it does not match
_END: Final = 1 << 40


@dataclass(slots=True)
class View:
    """A buffer to look at. `base`: bytes of its stream that lie before it, which offset and depth count from."""

    data: bytes
    base: int = 0
    low: bytes = field(default=b"", init=False)

    def bytes_for(self, item: Content) -> bytes:
        """The buffer, in lower case for a content without case."""
        if not item.nocase:
            return self.data
        self.low = self.low or self.data.lower()
        return self.low


def holds(items: Sequence[Item], view_of: Callable[[str], View | None]) -> bool:
    """Whether every item is satisfied; a relative item counts from the match before it in the same buffer."""
    by_buffer: dict[str, list[Item]] = {}
    for item in items:
        by_buffer.setdefault(item.buffer, []).append(item)
    for buffer, group in by_buffer.items():
        view = view_of(buffer)
        if view is None or not _Search(group, view).run():
            return False
    return True


class _Search:
    """Items of one buffer, with another try for earlier ones while a relative one behind them fails."""

    def __init__(self, items: Sequence[Item], view: View) -> None:
        self._items, self._view, self._steps = items, view, 0

    def run(self) -> bool:
        """True when all hold."""
        return self._from(0, 0)

    def _from(self, n: int, cursor: int) -> bool:
        """Items n and later, the last match having ended at `cursor`."""
        if n == len(self._items):
            return True
        item = self._items[n]
        if isinstance(item, Pcre):
            return self._pcre(item, n, cursor)
        low, high = self._window(item, cursor)
        data = self._view.bytes_for(item)
        if item.negated:
            return self._find(item, data, low, high) < 0 and self._from(n + 1, cursor)
        again = self._is_followed(n)
        while True:
            self._steps += 1
            at = self._find(item, data, low, high)
            if at < 0 or self._steps > MAX_STEPS:
                return False
            if self._from(n + 1, at + len(item.data)):
                return True
            if not again:
                return False
            low = at + 1

    def _is_followed(self, n: int) -> bool:
        """A relative item follows, so that another match of item n may do better."""
        for item in self._items[n + 1 :]:
            if item.relative:
                return True
            if not item.negated:
                return False
        return False

    def _pcre(self, item: Pcre, n: int, cursor: int) -> bool:
        data = self._view.data[cursor:] if item.relative else self._view.data
        found = item.regex.compiled.search(data)
        if item.negated:
            return found is None and self._from(n + 1, cursor)
        return found is not None and self._from(n + 1, found.end() + (cursor if item.relative else 0))

    def _window(self, item: Content, cursor: int) -> tuple[int, int]:
        """Where the content may lie: from, to."""
        size = len(self._view.data)
        if item.relative:
            distance = item.distance or 0
            low = max(0, cursor + distance)
            high = size if item.within is None else min(size, cursor + distance + item.within)
            return low, high
        base = self._view.base
        low = 0 if item.startswith else item.offset
        high = _END if item.depth is None else item.offset + item.depth
        if item.startswith:
            high = len(item.data)
        return max(0, low - base), min(size, high - base)

    @staticmethod
    def _find(item: Content, data: bytes, low: int, high: int) -> int:
        if high - low < len(item.data) or low < 0:
            return -1
        if item.endswith:
            at = len(data) - len(item.data)
            return at if low <= at and high == len(data) and data.endswith(item.data) else -1
        return data.find(item.data, low, high)
