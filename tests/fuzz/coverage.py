"""Which lines an input reaches, and in which order: what tells an input that is worth keeping."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

_SIZE = 1 << 16


class Coverage:
    """Pairs of lines, one after the other, in files below the given directories; as a map of 65,536 places."""

    def __init__(self, *below: str) -> None:
        self._below = below
        self._wanted: dict[CodeType, int] = {}
        self._seen = bytearray(_SIZE)
        self._now: set[int] = set()

    def run(self, call: Callable[[], object]) -> bool:
        """True when the call has reached something new; also when it raises, after `raise_again` was asked."""
        self._now.clear()
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            call()
        finally:
            sys.settrace(before)
        return self.fresh()

    def fresh(self) -> bool:
        """Whether the last run reached what none before it has; it is known from then on."""
        new = [place for place in self._now if not self._seen[place]]
        for place in new:
            self._seen[place] = 1
        return bool(new)

    @property
    def size(self) -> int:
        return _SIZE - self._seen.count(0)

    def _enter(self, frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        base = self._wanted.get(code)
        if base is None:
            base = (
                hash((code.co_filename, code.co_name, code.co_firstlineno))
                if code.co_filename.startswith(self._below)
                else 0
            )
            self._wanted[code] = base
        if not base:
            return None
        last = 0
        note = self._now.add

        def line(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal last
            if event == "line":
                here = (base ^ frame.f_lineno * 0x9E3779B1) & 0xFFFF
                note(here ^ last)
                last = here >> 1
            return line

        return line
