"""What the lake holds on disk: each file's size and when it was written, without opening any."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from analytics.listing import SUFFIX, names_in, partitions
from analytics.segments import SETTLE_NS
from engine.alert_row import OPERATORS
from engine.dissect import APPLICATIONS
from engine.tables import TABLES

FRAMES: Final = "frames"
# What retention treats alike, in the order in which it is given up when the disk is full.
KINDS: Final[dict[str, tuple[str, ...]]] = {
    FRAMES: (),
    "packets": ("packets",),
    "applications": tuple(a.name for a in APPLICATIONS if a.columns),
    "flows": ("flows", "addresses"),
    "windows": ("windows", "pair_windows", "port_windows"),
    "rollups": ("rollup_1s", "rollup_1m", "capture_stats", "model_stats"),
    "alerts": ("alert_events",),
}
assert {table for tables in KINDS.values() for table in tables} == set(TABLES)
_BLOCK: Final = 512  # of st_blocks, whatever the file system's own is


@dataclass(frozen=True, slots=True, order=True)
class Held:
    """A file: `written`, seconds since the epoch; `place`, relative to its table; `size`, bytes it takes on disk."""

    written: float
    table: str
    place: str
    size: int


class Inventory:
    """The files of one lake. A directory that has not changed is not looked into again. For one thread."""

    def __init__(self, lake: Path) -> None:
        self.lake = lake
        self._known: dict[str, tuple[int, int, list[Held]]] = {}  # directory: (its mtime, when listed, files)

    def of(self, kind: str) -> list[Held]:
        """The files of a kind of tables, the oldest first. What is not history is left out: the empty segments that
        a lake begins with, and what operators said."""
        if kind == FRAMES:
            found = list(self._frames())
        else:
            found = [held for table in KINDS[kind] for held in self._table(table)]
        return sorted(found)

    def _table(self, table: str) -> Iterator[Held]:
        for partition in partitions(self.lake / table):
            if not partition.startswith(("sensor=none/", f"sensor={OPERATORS}/")):
                yield from self._directory(table, partition, SUFFIX)

    def _frames(self) -> Iterator[Held]:
        for sensor in names_in(self.lake / FRAMES):
            yield from self._directory(FRAMES, sensor, ".pcap", grows=True)

    def _directory(self, table: str, place: str, suffix: str, grows: bool = False) -> list[Held]:
        directory = f"{self.lake}/{table}/{place}"
        try:
            changed = os.stat(directory).st_mtime_ns
        except OSError:
            self._known.pop(directory, None)
            return []
        before = self._known.get(directory)
        if before is not None and not grows and before[0] == changed and changed + SETTLE_NS < before[1]:
            return before[2]
        listed_at = time.time_ns()
        names = [name for name in names_in(directory) if name.endswith(suffix)]
        found = [held for name in names if (held := _held(self.lake, table, f"{place}/{name}")) is not None]
        self._known[directory] = changed, listed_at, found
        return found


def _held(lake: Path, table: str, place: str) -> Held | None:
    try:
        status = os.lstat(f"{lake}/{table}/{place}")
    except OSError:  # merged or deleted a moment ago
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return Held(status.st_mtime, table, place, status.st_blocks * _BLOCK)
