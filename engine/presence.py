"""What a running engine leaves in its lake for others, once a second: that it is there, its counters, what is wrong.

In a thread of its own: a disk that hangs must not keep whoever watches the capture from saying so.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from engine.errors import EngineError
from engine.log import report
from engine.metrics import SourceTotals
from engine.sensor_lock import SensorLock
from engine.writer import init_lake

EVERY_S: Final = 1.0


class Presence:
    """Tells from now on, as long as the process lives."""

    def __init__(self, lake: Path, lock: SensorLock) -> None:
        self._lake, self._lock = lake, lock
        self._wrong: list[str] = []
        self._totals: Mapping[str, SourceTotals] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)
        self._thread.start()

    def tell(self, wrong: list[str], totals: Mapping[str, SourceTotals]) -> None:
        """What to tell from the next second on: what is wrong, and the totals by source. Never waits."""
        self._wrong, self._totals = wrong, totals

    def close(self) -> None:
        """An orderly end. The lock goes with the process when the disk hangs."""
        self._closing.set()
        self._thread.join(EVERY_S)
        if not self._thread.is_alive():
            self._lock.close()

    def _run(self) -> None:
        while not self._closing.wait(EVERY_S):
            self._lock.tell(self._wrong, self._totals)
            if not self._lock.is_there():
                self._make_again()

    def _make_again(self) -> None:
        """The lake was deleted: have readers find a lake, and other engines us, as soon as it can be made again."""
        with contextlib.suppress(EngineError):  # the disk may have gone, too: rows that cannot be written are counted
            init_lake(self._lake)
            self._lock.take_again()
            report("warning", f"lake {self._lake} was deleted; it goes on as a new one")
