"""What findings say, made safe to keep: bounded, in JSON, without characters that move a cursor or hide text.

Evidence comes from packets, so whoever sends them chooses its text.
"""

from __future__ import annotations

import json
import math
import unicodedata
from typing import Any, Final

_KEYS: Final = 40  # names of one finding
_ITEMS: Final = 20  # of a list
_CHARS: Final = 500  # of a text
_DEPTH: Final = 3
_BYTES: Final = 16_384  # of the whole
_BIG: Final = 1 << 62
FIRST: Final = "first"
PEAK: Final = "peak"
ALL: Final = "all"
_TEXTS: Final = 10  # different ones of a name


def clean(text: str, limit: int = _CHARS) -> str:
    """On one line, and as it looks: control, format and surrogate characters become a middle dot."""
    if not text.isprintable():
        text = "".join(map(_seen, text[: limit + 1]))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _seen(c: str) -> str:
    return c if c.isprintable() else " " if unicodedata.category(c) == "Zs" else "·"


class Evidence:
    """The numbers of an incident: of each name the newest; the first, the largest and all texts, where they differ."""

    __slots__ = ("_first", "_newest", "_peak", "_texts")

    def __init__(self, values: dict[str, Any]) -> None:
        self._newest: dict[str, Any] = {}
        self._first: dict[str, Any] = {}
        self._peak: dict[str, int | float] = {}
        self._texts: dict[str, dict[str, None]] = {}
        self.add(values)

    def add(self, values: dict[str, Any]) -> None:
        """Take the values of a finding. Beyond 40 names, new ones are left out."""
        newest, first, peak = self._newest, self._first, self._peak
        for name, value in values.items():
            if name not in newest:
                if len(newest) >= _KEYS:
                    continue
                first[name] = value
            newest[name] = value
            if (kind := type(value)) is int or kind is float:
                before = peak.get(name)
                if before is None or value > before:
                    peak[name] = value
            elif kind is str:
                texts = self._texts.setdefault(name, {})
                if len(texts) < _TEXTS:
                    texts[value] = None

    def text(self) -> str:
        """All of it as one JSON object."""
        whole = {_name(name): _tame(value) for name, value in self._newest.items()}
        first = {_name(n): _tame(v) for n, v in self._first.items() if v != self._newest[n]}
        peak = {_name(n): _tame(v) for n, v in self._peak.items() if v != self._newest[n]}
        texts = {_name(n): [clean(t) for t in found] for n, found in self._texts.items() if len(found) > 1}
        whole |= {name: part for name, part in ((FIRST, first), (PEAK, peak), (ALL, texts)) if part}
        text = _json(whole)
        if len(text) <= _BYTES:
            return text
        return _json({n: v for n, v in whole.items() if isinstance(v, int | float)} | {"cut": len(text)})


def _name(name: object) -> str:
    text = clean(str(name), 64)
    return f"{text}_" if text in (FIRST, PEAK, ALL) else text


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _tame(value: Any, depth: int = _DEPTH) -> Any:
    """The value as JSON has it, within bounds."""
    if hasattr(value, "item") and not isinstance(value, str | bytes | dict | list | tuple):  # numpy's scalars
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -_BIG < value < _BIG else clean(hex(value), 80)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, bytes):
        return clean(value[:_CHARS].decode("latin-1"))
    if depth and isinstance(value, dict):
        return {clean(str(k), 64): _tame(v, depth - 1) for k, v in list(value.items())[:_ITEMS]}
    if depth and isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [_tame(v, depth - 1) for v in items[:_ITEMS]]
    return clean(str(value))
