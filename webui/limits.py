"""How often somebody may try to sign in: after a few failures each further one must wait twice as long.

Counted by address and by user name, in this process. A successful login forgets both counts; nothing ever locks
the owner out for good, since `engine link` opens the dashboard from the command line.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

FREE: Final = 5  # failures before one has to wait
FORGET_S: Final = 15 * 60
MAX_KEYS: Final = 10_000  # the one that failed longest ago is forgotten


class LoginLimit:
    """Failures by key."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()  # key -> failures, time of the last
        self._lock = threading.Lock()

    def wait_s(self, *keys: str) -> float:
        """Seconds until the next attempt is allowed, 0 for now."""
        now = self._clock()
        with self._lock:
            return max(0.0, *(self._until(key, now) - now for key in keys))

    def failed(self, *keys: str) -> None:
        """Note a failure."""
        now = self._clock()
        with self._lock:
            for key in keys:
                count, at = self._failed.pop(key, (0, now))
                self._failed[key] = (1 if now - at > FORGET_S else count + 1), now
            while len(self._failed) > MAX_KEYS:
                self._failed.popitem(last=False)

    def passed(self, *keys: str) -> None:
        """Forget the failures."""
        with self._lock:
            for key in keys:
                self._failed.pop(key, None)

    def _until(self, key: str, now: float) -> float:
        count, at = self._failed.get(key, (0, now))
        return now if count < FREE or now - at > FORGET_S else at + min(FORGET_S, 2.0 ** min(20, count - FREE))
