"""Packets that pass the filter by time: what their chart shows, and what says where the n-th of them is.

A list that jumps to any of its rows needs to know which rows are where. One scan counts them by bucket; a page is then a
search in the few buckets that hold its rows, however many rows there are.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, Final

from analytics.watch.answers import packet_rows
from analytics.watch.context import Context
from analytics.watch.info import CLASS_SQL, CLASSES
from analytics.watch.statement import Statement
from analytics.watch.timerange import US

KEPT: Final = 64  # counts, of about 20 kB each


@dataclass(frozen=True, slots=True)
class Counts:
    """Packets by bucket of the span: `total[i]` those of start_s + i * step_s seconds, `line` the same by class."""

    start_s: int
    step_s: int
    total: list[int]
    line: dict[str, list[int]]

    @property
    def packets(self) -> int:
        return sum(self.total)


class _Known:
    """Counts by what was asked and of which segments. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: OrderedDict[tuple[Any, ...], Counts] = OrderedDict()

    def get(self, key: tuple[Any, ...]) -> Counts | None:
        with self._lock:
            found = self._counts.get(key)
            if found is not None:
                self._counts.move_to_end(key)
            return found

    def put(self, key: tuple[Any, ...], counts: Counts) -> None:
        with self._lock:
            self._counts[key] = counts
            while len(self._counts) > KEPT:
                self._counts.popitem(last=False)


_KNOWN: Final = _Known()


def statement(ctx: Context) -> Statement:
    """Packets that pass the filter, by second of the bucket's start and class."""
    where = ctx.where("packets")
    return Statement(
        f"SELECT epoch_us(ts) // 1000000 // {ctx.span.step_s} * {ctx.span.step_s} AS start_s, {CLASS_SQL} AS class, "
        f"count(*) AS packets FROM {{packets}} WHERE {where.sql} GROUP BY 1, 2 ORDER BY 1, 2", where.values,
    )  # fmt: skip


def of(ctx: Context) -> Counts:
    """Of the span and filter. Segments that begin after the span do not count: a growing lake asks once."""
    files = [path for path in ctx.lake.files("packets", ctx.span) if _starts(path) < ctx.span.end_us]
    listed = hashlib.blake2b("\n".join(files).encode(), digest_size=16).digest()
    key = (str(ctx.lake.path), ctx.span.start_us, ctx.span.end_us, ctx.filter.text, listed)
    found = _KNOWN.get(key)
    if found is None:
        found = _count(ctx)
        _KNOWN.put(key, found)
    return found


def _starts(path: str) -> int:
    name = path.rpartition("/")[2].partition("-")[0]
    return int(name) if name.isdecimal() else 0


def _count(ctx: Context) -> Counts:
    first, step = ctx.span.first_bucket_s, ctx.span.step_s
    size = max(1, -(-(-(-ctx.span.end_us // US) - first) // step))
    total, line = [0] * size, {name: [0] * size for name in CLASSES}
    for start_s, kind, packets in ctx.rows(statement(ctx)):
        at = (start_s - first) // step
        total[at] += packets
        line[kind][at] += packets
    return Counts(first, step, total, {name: values for name, values in line.items() if any(values)})


def page(ctx: Context, row: int, limit: int, *, newest_first: bool) -> list[dict[str, Any]]:
    """Rows `row` to `row + limit - 1` of those that pass the filter, in the order of time."""
    counts = of(ctx)
    size = len(counts.total)
    passed, first, last, left = 0, None, 0, 0
    for i in reversed(range(size)) if newest_first else range(size):
        n = counts.total[i]
        if n and passed + n > row:
            if first is None:
                first, left = i, row - passed
            last = i
            if passed + n >= row + limit:
                break
        passed += n
    if first is None:
        return []
    low, high = min(first, last), max(first, last) + 1
    begin = max(ctx.span.start_us, (counts.start_s + low * counts.step_s) * US)
    end = min(ctx.span.end_us, (counts.start_s + high * counts.step_s) * US)
    inside = replace(ctx, span=replace(ctx.span, start_us=begin, end_us=end))
    return packet_rows.read(inside, limit, newest_first=newest_first, skip=left)
