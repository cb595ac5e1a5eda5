"""Pages of all packets of a range by their number: number to segment, row group and row, without any query.

Packets are numbered from 0 in the order of their segments' times, or of their own where segments overlap. How many rows a
row group has, and of which times, is in its segment's footer; each is read once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from analytics.watch.answers.footers import FOOTERS_OF_ALL, Group
from analytics.watch.answers.packet_rows import READ
from analytics.watch.context import Context, plain

MOST_MERGED: Final = 4_000_000  # rows whose times are put in order for a page


@dataclass(frozen=True, slots=True)
class Part:
    """A row group with rows in the range: which of its rows those are, and between which times (microseconds) they lie."""

    path: str
    group: int
    rows: slice | np.ndarray[Any, Any]
    count: int
    low: int
    high: int


class Unordered(Exception):  # noqa: N818 — names what is the case
    """More segments overlap in time than can be put in order for a page."""


def page(ctx: Context, row: int, limit: int, *, newest_first: bool = False) -> tuple[list[dict[str, Any]], int]:
    """Rows `row` to `row + limit - 1` of the range, and how many rows there are in all. Raises Unordered."""
    parts, ordered = _parts(ctx)
    total = sum(part.count for part in parts)
    first, last = (total - row - limit, total - row) if newest_first else (row, row + limit)
    rows = _in_order(parts, max(0, first), last) if ordered else _merged(parts, max(0, first), min(last, total))
    if newest_first:
        rows.reverse()
    return rows, total


def _in_order(parts: list[Part], first: int, last: int) -> list[dict[str, Any]]:
    """Rows `first` to `last - 1` of parts that follow each other."""
    rows: list[dict[str, Any]] = []
    at = 0
    for part in parts:
        low, high = max(first, at) - at, min(last, at + part.count) - at
        if low < high:
            try:
                with pq.ParquetFile(part.path) as file:
                    rows += _rows(file, part, np.arange(low, high))
            except (OSError, pa.ArrowException):  # merged or retired a moment ago: the next page sees the rest
                pass
        at += part.count
    return rows


def _merged(parts: list[Part], first: int, last: int) -> list[dict[str, Any]]:
    """The same of parts that overlap in time, as those of several sensors do: the numbers are those of the order of time.

    How many rows come before a time is known within what the parts around it hold; only of these the times are read.
    Raises Unordered when those are too many.
    """
    if first >= last:
        return []
    counts = np.array([part.count for part in parts])
    low, high = np.array([part.low for part in parts]), np.array([part.high for part in parts])
    edges = np.unique(np.r_[low, high + 1])

    def before(times: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Rows of the parts that `times` are before, at each edge."""
        order = np.argsort(times)
        sums: np.ndarray[Any, Any] = np.r_[0, np.cumsum(counts[order])]
        return sums[np.searchsorted(times[order], edges)]

    since = edges[before(low) <= first][-1]  # at most `first` rows are older
    until = edges[before(high) >= last][0]  # at least `last` rows are
    near = np.flatnonzero((low < until) & (high >= since))
    if counts[near].sum() > MOST_MERGED:
        raise Unordered
    passed = int(counts[high < since].sum())
    keys = [_keys(parts[i].path, parts[i].group) for i in near]
    columns = [[keys[n][k][parts[i].rows] for n, i in enumerate(near)] for k in range(3)]
    of = np.repeat(np.arange(len(near)), counts[near])
    own = np.concatenate([np.arange(n) for n in counts[near]])
    ts, nanos, frame = (np.concatenate(column) for column in columns)
    order = np.lexsort((of, frame, nanos, ts))[first - passed : last - passed]
    rows: dict[int, dict[str, Any]] = {}
    for n, i in enumerate(near):
        places = order[of[order] == n]
        if not len(places):
            continue
        chosen = own[places]
        some = np.sort(chosen)
        with pq.ParquetFile(parts[i].path) as file:
            found = dict(zip(some.tolist(), _rows(file, parts[i], some), strict=True))
        rows |= {int(place): found[int(one)] for place, one in zip(places, chosen, strict=True)}
    return [rows[int(place)] for place in order]


@lru_cache(maxsize=64)  # pages that follow each other are of the same row groups
def _keys(path: str, group: int) -> tuple[np.ndarray[Any, Any], ...]:
    """Times in microseconds, their nanoseconds and frame numbers of a row group."""
    with pq.ParquetFile(path) as file:
        table = file.read_row_group(group, columns=["ts", "ts_nanos", "frame_no"])
    return tuple(
        table.column(name).combine_chunks().cast(pa.int64()).to_numpy(zero_copy_only=False)
        for name in ("ts", "ts_nanos", "frame_no")
    )


def total(ctx: Context) -> int:
    """How many rows the range has."""
    return sum(part.count for part in _parts(ctx)[0])


def _parts(ctx: Context) -> tuple[list[Part], bool]:
    """Row groups with rows in the range, in the order of their segments' times, and whether that is their rows'."""
    start, end = ctx.span.start_us, ctx.span.end_us
    parts: list[Part] = []
    ordered, reached = True, start
    for path in ctx.lake.files("packets", ctx.span):
        try:
            for i, group in enumerate(FOOTERS_OF_ALL.of(path)):
                if group.low is None or group.high is None:  # its footer does not say
                    parts.append(_inside(path, i, start, end))
                    ordered = False
                    continue
                if group.high < start or group.low >= end:
                    continue
                whole = start <= group.low and group.high < end
                part = (
                    Part(path, i, slice(0, group.rows), group.rows, group.low, group.high)
                    if whole
                    else _inside(path, i, start, end)
                )
                if part.count:
                    ordered = ordered and reached <= max(group.low, start)
                    reached = max(reached, group.high)
                    parts.append(part)
        except (OSError, pa.ArrowException):  # merged or retired a moment ago, or damaged
            continue
    return parts, ordered


def newest(ctx: Context, limit: int) -> list[dict[str, Any]]:
    """The newest rows of the range, newest first: from the last row groups of the newest segments."""
    start, end = ctx.span.start_us, ctx.span.end_us
    rows: list[dict[str, Any]] = []
    for path in reversed(ctx.lake.files("packets", ctx.span)):
        try:
            groups = FOOTERS_OF_ALL.of(path)
        except (OSError, pa.ArrowException):
            continue
        high = max((g.high for g in groups if g.high is not None), default=None)
        if len(rows) >= limit and high is not None and high < rows[limit - 1]["ts"]:
            break
        rows += _tail(path, groups, limit, start, end)
        rows.sort(key=lambda r: (r["ts"], r["ts_nanos"], r["frame_no"]), reverse=True)
        del rows[limit:]
    return rows


def _tail(path: str, groups: list[Group], limit: int, start: int, end: int) -> list[dict[str, Any]]:
    """Up to `limit` rows from the end of a segment."""
    rows: list[dict[str, Any]] = []
    try:
        with pq.ParquetFile(path) as file:
            for i in reversed(range(len(groups))):
                group = groups[i]
                if len(rows) >= limit:
                    break
                if group.low is not None and group.high is not None and (group.high < start or group.low >= end):
                    continue
                inside = group.low is not None and group.high is not None and start <= group.low and group.high < end
                part = (
                    Part(path, i, slice(0, group.rows), group.rows, start, end - 1)
                    if inside
                    else _inside(path, i, start, end)
                )
                rows += _rows(file, part, np.arange(max(0, part.count - (limit - len(rows))), part.count))
    except (OSError, pa.ArrowException):  # merged or retired a moment ago, or damaged
        return rows
    return rows


@lru_cache(maxsize=256)  # the first and the last row group of a range that is paged through
def _inside(path: str, group: int, start: int, end: int) -> Part:
    """Which rows of a row group are in the range. Raises what pyarrow does."""
    with pq.ParquetFile(path) as file:
        times = file.read_row_group(group, columns=["ts"]).column("ts").cast(pa.int64()).to_numpy()
    chosen = np.flatnonzero((times >= start) & (times < end))
    count = len(chosen)
    low, high = (int(times[chosen].min()), int(times[chosen].max())) if count else (start, start)
    if count and chosen[-1] - chosen[0] + 1 == count:
        return Part(path, group, slice(int(chosen[0]), int(chosen[-1]) + 1), count, low, high)
    return Part(path, group, chosen, count, low, high)


def _rows(file: pq.ParquetFile, part: Part, places: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    """Rows of the part by their places in it, ascending."""
    names = [name for name in READ if name in file.schema_arrow.names]
    table = file.read_row_group(part.group, columns=names)
    if isinstance(part.rows, slice) and len(places) and places[-1] - places[0] + 1 == len(places):
        table = table.slice(part.rows.start + int(places[0]), len(places))
    else:
        table = table.take(part.rows.start + places if isinstance(part.rows, slice) else part.rows[places])
    # Arrow of the part only: a slice of a dictionary keeps the whole dictionary, which is shared and not copied.
    columns = {name: table.column(name).to_pylist() for name in names}
    missing = dict.fromkeys(name for name in READ if name not in columns)
    sensor = part.path.split("/sensor=")[-1].split("/")[0]
    return [
        {**{name: plain(columns[name][i]) for name in names}, **missing, "sensor": sensor}
        for i in range(table.num_rows)
    ]
