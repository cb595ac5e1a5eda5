"""Pages of all packets of a range by their number: number to segment, row group and row, without any query.

Packets are numbered from 0 in the order of their segments' times. How many rows a row group has, and of which times, is
in its segment's footer; each is read once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from analytics.watch.answers.footers import FOOTERS_OF_ALL, Group
from analytics.watch.answers.packet_rows import READ
from analytics.watch.context import Context, plain


@dataclass(frozen=True, slots=True)
class Part:
    """A row group with rows in the range: which of its rows those are."""

    path: str
    group: int
    rows: slice | np.ndarray[Any, Any]
    count: int


class Unordered(Exception):  # noqa: N818 — names what is the case
    """Segments overlap in time, as those of two sensors do: their rows' numbers are not the order of time."""


def page(ctx: Context, row: int, limit: int, *, newest_first: bool = False) -> tuple[list[dict[str, Any]], int]:
    """Rows `row` to `row + limit - 1` of the range, and how many rows there are in all. Raises Unordered."""
    parts, ordered = _parts(ctx)
    if not ordered:
        raise Unordered
    total = sum(part.count for part in parts)
    first, last = (total - row - limit, total - row) if newest_first else (row, row + limit)
    rows: list[dict[str, Any]] = []
    at = 0
    for part in parts:
        low, high = max(first, at) - at, min(last, at + part.count) - at
        if low < high:
            try:
                with pq.ParquetFile(part.path) as file:
                    rows += _rows(file, part, low, high)
            except (OSError, pa.ArrowException):  # merged or retired a moment ago: the next page sees the rest
                pass
        at += part.count
    if newest_first:
        rows.reverse()
    return rows, total


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
                part = Part(path, i, slice(0, group.rows), group.rows) if whole else _inside(path, i, start, end)
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
                part = Part(path, i, slice(0, group.rows), group.rows) if inside else _inside(path, i, start, end)
                rows += _rows(file, part, max(0, part.count - (limit - len(rows))), part.count)
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
    if count and chosen[-1] - chosen[0] + 1 == count:
        return Part(path, group, slice(int(chosen[0]), int(chosen[-1]) + 1), count)
    return Part(path, group, chosen, count)


def _rows(file: pq.ParquetFile, part: Part, first: int, last: int) -> list[dict[str, Any]]:
    """Rows `first` to `last - 1` of the part."""
    names = [name for name in READ if name in file.schema_arrow.names]
    table = file.read_row_group(part.group, columns=names)
    if isinstance(part.rows, slice):
        table = table.slice(part.rows.start + first, last - first)
    else:
        table = table.take(part.rows[first:last])
    # Arrow of the part only: a slice of a dictionary keeps the whole dictionary, which is shared and not copied.
    columns = {name: table.column(name).to_pylist() for name in names}
    missing = dict.fromkeys(name for name in READ if name not in columns)
    sensor = part.path.split("/sensor=")[-1].split("/")[0]
    return [
        {**{name: plain(columns[name][i]) for name in names}, **missing, "sensor": sensor}
        for i in range(table.num_rows)
    ]
