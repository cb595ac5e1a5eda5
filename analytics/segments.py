"""Which segment files of a table can hold rows of a time window, found without opening any of them.

A live capture publishes a segment every second or so: thousands of files an hour. Opening one costs 0.3 ms, so a
window of five minutes must not touch the others. Three things are known without opening a file: the hour in its
directory, the time of its first row in its name, and that its last row is not newer than its modification time.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Final

from analytics.listing import retired_segments
from analytics.ship.names import shipped

SEGMENT_NAME: Final = re.compile(r"(\d+)-.*\.parquet")
NANOSECONDS_FROM: Final = 10**17  # a start at or above this is in nanoseconds; as microseconds it is the year 5138
SETTLE_NS: Final = 2_000_000_000  # a directory changed this recently may change again within its time stamp's grain
HOUR_S: Final = 3600


@dataclass(frozen=True, slots=True)
class Segment:
    """One published file. Times are seconds since the epoch; no row is older than `start` or newer than `written`."""

    path: str
    start: float
    written: float


def partition_hour(partition: str) -> int | None:
    """Seconds since the epoch at which `sensor=/date=/hour=` begins; None for a directory of another name."""
    _, _, rest = partition.partition("/")
    date, _, hour = rest.partition("/")
    return _hour(date, hour)


@lru_cache(8192)  # parsing costs 45 us, and the dashboard lists the same months each second
def _hour(date_name: str, hour_name: str) -> int | None:
    """Seconds since the epoch at which the partition begins."""
    try:
        at = datetime.strptime(f"{date_name} {hour_name} +0000", "date=%Y-%m-%d hour=%H %z")
    except ValueError:
        return None
    return int(at.timestamp())


class SegmentIndex:
    """The files of one table. Published files never change, so each is looked at once; not thread-safe."""

    def __init__(self, lake: Path, table: str) -> None:
        self.lake, self.table, self.root = lake, table, lake / table
        self._listed: dict[str, tuple[int, int, dict[str, Segment]]] = {}  # directory: (its mtime, when listed, files)

    def within(self, start: float, end: float) -> list[Segment]:
        """The segments that can hold rows of [start, end], newest first.

        The writer cuts segments at the hour. The hour before is looked at too: rows of a batch may be a little out
        of order.
        """
        gone = self.retired()
        found = [
            segment
            for hour, directory in self._partitions()
            if start - 2 * HOUR_S < hour <= end
            for segment in self._files(directory)
            if segment.written >= start and segment.start <= end and segment.path not in gone
        ]
        return sorted(found, key=lambda s: s.start, reverse=True)

    def newest(self) -> Segment | None:
        """The segment with the latest first row, or None in a lake without rows."""
        best: Segment | None = None
        gone = self.retired()
        for hour, directory in sorted(self._partitions(), reverse=True):
            if best is not None and hour + HOUR_S <= best.start:
                break
            for segment in self._files(directory):
                if segment.start > 0 and (best is None or segment.start > best.start) and segment.path not in gone:
                    best = segment
        return best

    def retired(self) -> set[str]:
        """Paths of segments that are about to be deleted; asked before a directory is listed."""
        return {f"{self.root}/{place}" for place in retired_segments(self.lake, self.table)}

    def _partitions(self) -> Iterator[tuple[int, str]]:
        for sensor in _names(self.root):
            for date in _names(f"{self.root}/{sensor}"):
                if date == "date=1970-01-01":
                    continue  # the segments without rows that give an empty lake its columns
                for hour in _names(f"{self.root}/{sensor}/{date}"):
                    begins = _hour(date, hour)
                    if begins is not None:
                        yield begins, f"{self.root}/{sensor}/{date}/{hour}"

    def _files(self, directory: str) -> list[Segment]:
        try:
            changed = os.stat(directory).st_mtime_ns
        except FileNotFoundError:
            self._listed.pop(directory, None)
            return []
        before = self._listed.get(directory)
        if before is not None and before[0] == changed and changed + SETTLE_NS < before[1]:
            return list(before[2].values())
        known = before[2] if before is not None else {}
        now: dict[str, Segment] = {}
        listed_at = time.time_ns()
        for name in _names(directory):
            match = SEGMENT_NAME.fullmatch(name)
            if match is None:
                continue  # `.inprogress` and whatever else is not published
            segment = known.get(name) or _segment(f"{directory}/{name}", int(match[1]))
            if segment is not None:
                now[name] = segment
        self._listed[directory] = (changed, listed_at, now)
        return list(now.values())


def _names(directory: Path | str) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _segment(path: str, start: int) -> Segment | None:
    try:
        written = os.stat(path).st_mtime
    except FileNotFoundError:  # compacted or retired since it was listed
        return None
    begins = start / (1e9 if start >= NANOSECONDS_FROM else 1e6)
    if (promised := shipped(os.path.basename(path))) is not None:  # by a sensor whose clock may be ahead of ours
        return Segment(path, begins, max(written, promised.end / 1e6))
    # A savefile may come from a clock ahead of ours: then the modification time bounds nothing.
    return Segment(path, begins, written if written >= begins else float("inf"))
