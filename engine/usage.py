"""What the engine itself uses: CPU time of its threads by stage, how full its batches and the kernel's rings get.

Threads tell it, the publish thread writes it down in `capture_stats`, about every second.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from typing import Final

STAGES: Final = ("capture", "decode", "analyse", "publish")
CPU: Final = tuple(f"cpu_{stage}_us" for stage in (*STAGES, "other"))  # columns of capture_stats
PEAKS: Final = ("pool_fill", "ring_frames")  # the highest of an interval: these do not add up


class Usage:
    """Totals since the start, and peaks since they were last taken. A peak that is told while they are taken may be
    missing: what is full stays so for longer than that.
    """

    def __init__(self) -> None:
        self._threads: dict[tuple[str, int], int] = {}
        self._written = dict.fromkeys(CPU, 0)
        self._fill = 0.0
        self._waiting: dict[str, int] = {}

    def tick(self, stage: str) -> None:
        """The calling thread works at that stage; its CPU time so far counts there. About 0.6 us."""
        self._threads[stage, threading.get_ident()] = time.thread_time_ns()

    def filled(self, share: float) -> None:
        """The part of the pool's batches that is not free, 0 to 1."""
        self._fill = max(self._fill, share)

    def waiting(self, source: str, frames: int) -> None:
        """Frames of a source that wait in the kernel's ring."""
        self._waiting[source] = max(self._waiting.get(source, 0), frames)

    def peaks(self, source: str) -> dict[str, int]:
        """Columns of a source's row."""
        return {"pool_fill": round(100 * self._fill), "ring_frames": self._waiting.get(source, 0)}

    def cpu(self) -> dict[str, int]:
        """Microseconds by column since they were last written."""
        total = self._totals()
        return {name: max(0, total[name] - self._written[name]) for name in CPU}

    def written(self, cpu: dict[str, int]) -> None:
        """A row has these; what comes next counts from here."""
        for name, us in cpu.items():
            self._written[name] += us
        self._fill = 0.0
        self._waiting.clear()

    def _totals(self) -> dict[str, int]:
        sums: defaultdict[str, int] = defaultdict(int)
        for (stage, _), ns in list(self._threads.items()):
            sums[f"cpu_{stage}_us"] += ns // 1000
        sums["cpu_other_us"] = time.process_time_ns() // 1000 - sum(sums.values())
        return sums
