"""A share of one core's time, as the application stage has: what it does not allow is counted as missed."""

from __future__ import annotations

import time
from typing import Final

_BURST_S: Final = 0.5
_CHECK_EVERY: Final = 8


class Budget:
    """`share` of one core, averaged over half a second; 1 or more: no limit."""

    def __init__(self, share: float) -> None:
        self._share = self._full_share = share
        self._credit_s = _BURST_S * share
        self._refilled = time.monotonic()
        self._used = 0.0
        self._n = 0

    def limit(self, part: float) -> None:
        """Allow this part of the share, 0 to 1, until told otherwise; where there is no limit there is none."""
        if self._full_share < 1:
            self._share = part * self._full_share

    def begin(self) -> None:
        """Work begins: what this thread did since the last look is not charged."""
        if self._share < 1:
            now = time.monotonic()
            self._credit_s = min(_BURST_S * self._share, self._credit_s + (now - self._refilled) * self._share)
            self._refilled, self._used = now, time.thread_time()

    def allows(self) -> bool:
        """True while there is credit; looks at the clock now and then."""
        if self._share >= 1:
            return True
        self._n += 1
        if self._n % _CHECK_EVERY == 0:
            self.charge()
        return self._credit_s > 0

    def charge(self) -> None:
        """Take off what was used."""
        if self._share < 1:
            used = time.thread_time()
            self._credit_s -= used - self._used
            self._used = used
