"""How fast savefiles are replayed."""

from __future__ import annotations

import time

from engine.capture.savefile import NEVER_NS, SavefileSource
from engine.errors import ConfigError

_STEP_S = 0.005


class Pace:
    """`max` (no limit), `recorded` (as the timestamps say), or a number of packets per second."""

    def __init__(self, speed: str = "max") -> None:
        self.speed = speed
        self.pps = 0.0
        if speed not in ("max", "recorded"):
            try:
                self.pps = float(speed)
            except ValueError:
                self.pps = 0.0
            if not 0 < self.pps < 1e12:
                raise ConfigError(f"--speed {speed!r} is wrong: use max, recorded, or packets per second such as 1000")
        self._started = 0.0
        self._first_ns: int | None = None

    def begin(self) -> None:
        """A new file starts now."""
        self._started = time.monotonic()
        self._first_ns = None

    def allow(self, source: SavefileSource) -> float:
        """Set what the next read may take; returns seconds to wait before it."""
        if self.speed == "max":
            return 0.0
        elapsed = time.monotonic() - self._started
        if self.pps:
            due = int(elapsed * self.pps)
            source.limit(frames=due - source.counters().received)
            return _STEP_S
        if self._first_ns is None:
            self._first_ns = source.next_ns
        if self._first_ns is None:
            source.limit(until_ns=NEVER_NS)  # looks at the first frame without taking it
            return 0.0
        source.limit(until_ns=self._first_ns + int(elapsed * 1e9))
        return _STEP_S
