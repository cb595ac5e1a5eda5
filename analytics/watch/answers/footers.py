"""Row groups of segments of packets: how many rows each has, and of which times. Each footer is read once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

import pyarrow.parquet as pq

from analytics.watch.context import plain

FOOTERS: Final = 20_000  # kept: about 200 bytes a row group


@dataclass(frozen=True, slots=True)
class Group:
    """A row group: rows, and first and last time in microseconds (None when the footer does not say)."""

    rows: int
    low: int | None
    high: int | None


class Footers:
    """Row groups by segment. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, list[Group]] = OrderedDict()

    def of(self, path: str) -> list[Group]:
        with self._lock:
            found = self._known.get(path)
        if found is None:
            found = _read_footer(path)
            with self._lock:
                self._known[path] = found
                while len(self._known) > FOOTERS:
                    self._known.popitem(last=False)
        return found


FOOTERS_OF_ALL: Final = Footers()


def _read_footer(path: str) -> list[Group]:
    metadata = pq.read_metadata(path)
    if not metadata.num_row_groups:
        return []
    at = metadata.schema.names.index("ts")
    groups = []
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        stats = group.column(at).statistics
        known = stats is not None and stats.has_min_max
        low, high = (int(_us(v)) if known else None for v in ((stats.min, stats.max) if known else (0, 0)))
        groups.append(Group(group.num_rows, low, high))
    return groups


def _us(value: Any) -> int:
    return int(plain(value)) if not isinstance(value, int) else value
