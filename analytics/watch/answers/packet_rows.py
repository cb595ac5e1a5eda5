"""Packets as rows to show. In the order of time, from either end, without ever sorting more than a slice of time."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Final

import pyarrow as pa

from analytics.watch.answers.footers import FOOTERS_OF_ALL
from analytics.watch.context import Context
from analytics.watch.info import info_text, protocol_name
from analytics.watch.registry import ROLES, may
from analytics.watch.statement import Statement
from analytics.watch.timerange import US
from engine.errors import ConfigError

READ: Final = (
    "ts", "ts_nanos", "source", "frame_no", "wirelen", "src_ip", "dst_ip", "arp_src_ip", "arp_dst_ip", "src_mac",
    "dst_mac", "proto", "ethertype", "src_port", "dst_port", "app", "tcp_flags", "icmp_type", "icmp_code", "arp_op",
    "server_name", "payload_len", "is_fragment", "encap", "inner_src_ip", "inner_dst_ip", "status", "flow_id",
    "anomaly", "sensor", "caplen", "frame_file", "frame_offset",
)  # fmt: skip
SHOWN: Final = (
    "ts", "src", "dst", "proto", "app", "sport", "dport", "len", "info", "flow", "anomaly", "sensor", "source", "frame",
)  # fmt: skip
KEY: Final = ("ts", "ts_nanos", "frame_no", "sensor", "source")  # what orders packets, and tells one from another
BUDGET_S: Final = 0.25  # how long a page searches; what it has not reached by then, the next page does
FIRST_GROUPS: Final = 2  # row groups of the first slice; each next has twice as many
_COLUMNS: Final = ", ".join(READ)


def shown(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Rows with the columns READ as columns SHOWN. `ts` in microseconds, `proto` a name, `frame` the frame_no."""
    out: dict[str, list[Any]] = {name: [] for name in SHOWN}
    for r in rows:
        values = (
            r["ts"], r["src_ip"] or r["arp_src_ip"] or r["src_mac"], r["dst_ip"] or r["arp_dst_ip"] or r["dst_mac"],
            protocol_name(r["proto"], r["ethertype"]), r["app"], r["src_port"], r["dst_port"], r["wirelen"],
            info_text(r), None if r["flow_id"] is None else str(r["flow_id"]), None if r["anomaly"] is None else round(r["anomaly"], 3), r["sensor"],
            r["source"], r["frame_no"],
        )  # fmt: skip
        for name, value in zip(SHOWN, values, strict=True):
            out[name].append(value)
    return out


def search(
    ctx: Context, limit: int, cursor: str | None, *, newest_first: bool
) -> tuple[list[dict[str, Any]], str | None, bool]:
    """Up to `limit` rows after the cursor. Returns them, the next cursor, and whether the range was searched to its end.

    The range is looked at slice by slice, each in two steps: the keys of the rows wanted, then their columns, because
    a sort of wide rows would read every column of all (800 times slower).
    """
    low, high = ctx.span.start_us, ctx.span.end_us
    after = _parse(cursor) if cursor else None
    if after is not None:
        low, high = (low, min(high, after[0] + 1)) if newest_first else (max(low, after[0]), high)
    rows: list[dict[str, Any]] = []
    began, groups = time.monotonic(), FIRST_GROUPS
    while low < high and len(rows) < limit:
        started = time.monotonic()
        since, until = _slice(ctx, low, high, groups, newest_first)
        inside = replace(ctx, span=replace(ctx.span, start_us=since, end_us=until))
        part = read(inside, limit - len(rows), newest_first=newest_first, after=after)
        rows += part
        if len(rows) < limit:
            low, high = (low, since) if newest_first else (until, high)
            groups *= 2
            now = time.monotonic()
            if now - began + 2 * (now - started) > BUDGET_S:  # the next slice takes twice as long as this one
                break
    if len(rows) >= limit:
        return rows, _cursor(rows[-1]), False
    done = low >= high
    edge = f"{high - 1}" if newest_first else f"{low}"
    return rows, None if done else f"{edge}:{999 if newest_first else -1}:{(1 << 62) if newest_first else -1}::", done


def _slice(ctx: Context, low: int, high: int, groups: int, newest_first: bool) -> tuple[int, int]:
    """The part of [low, high) that the next so many row groups begin in."""
    files = ctx.lake.files("packets", replace(ctx.span, start_us=low, end_us=high))
    found: list[int] = []
    for path in reversed(files) if newest_first else files:
        try:
            known = FOOTERS_OF_ALL.of(path)
        except (OSError, pa.ArrowException):  # merged or retired a moment ago, or damaged: the query will see
            continue
        found += [group.low for group in known if group.low is not None and low < group.low < high]
        if len(found) >= groups:
            break
    found.sort(reverse=newest_first)
    if len(found) < groups:
        return low, high
    return (found[groups - 1], high) if newest_first else (low, found[groups - 1])


def read(
    ctx: Context, limit: int, *, newest_first: bool, after: tuple[Any, ...] | None = None, skip: int = 0
) -> list[dict[str, Any]]:
    """Rows of the span that pass the filter, after a key or so many rows."""
    where = ctx.where("packets")
    order = ", ".join(f"{name} {'DESC' if newest_first else 'ASC'}" for name in KEY)
    side, bound = ("<" if newest_first else ">"), dict(where.values)
    condition = where.sql
    if after is not None:
        condition += f" AND ts {side}= make_timestamp($k0) AND (ts {side} make_timestamp($k0) OR ({', '.join(KEY[1:])}) {side} ($k1, $k2, $k3, $k4))"
        bound |= {f"k{i}": value for i, value in enumerate(after)}
    keys = ctx.rows(
        Statement(
            f"SELECT epoch_us(ts), ts_nanos, frame_no, sensor, source FROM {{packets}} WHERE {condition} "
            f"ORDER BY {order} LIMIT {int(limit)} OFFSET {int(skip)}", bound,
        )
    )  # fmt: skip
    if not keys:
        return []
    times = sorted({key[0] for key in keys})
    wanted = set(keys)
    narrow = replace(ctx, span=replace(ctx.span, start_us=times[0], end_us=times[-1] + 1))
    # Rows of the same times, filter or not: the filter's columns need not be read again.
    result = narrow.columns(Statement(f"SELECT {_COLUMNS} FROM {{packets}} WHERE {_times(times)}"))
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for values_of in zip(*result.values(), strict=True):
        row = dict(zip(READ, values_of, strict=True))
        key = tuple(row[name] for name in KEY)
        if key in wanted:
            found[key] = row
    return [found[key] for key in keys if key in found]


def _times(times: list[int]) -> str:
    """A condition that is cheap for near times, and exact for far ones."""
    if len(times) > 256 or times[-1] - times[0] < US:
        return "true"
    return f"epoch_us(ts) IN ({', '.join(map(str, times))})"


def _cursor(row: dict[str, Any]) -> str:
    return ":".join(str(row[name]) for name in KEY)


def _parse(cursor: str) -> tuple[Any, ...]:
    """Raises ConfigError."""
    parts = cursor.split(":", 4)
    try:
        if len(parts) != 5 or any(len(p) > 20 for p in parts[:3]):
            raise ValueError(cursor)
        ts, nanos, number = map(int, parts[:3])
        if not all(abs(n) < 1 << 62 or n == 1 << 62 for n in (ts, nanos, number)):
            raise ValueError(cursor)
    except ValueError:
        raise ConfigError(f"cursor {cursor[:60]!r} is none that an answer gave; ask without it") from None
    return ts, nanos, number, parts[3], parts[4]


def severities(ctx: Context) -> dict[str, str]:
    """The highest severity of the alerts that name a flow, by the flow's number."""
    ctx.lake.alerts(ctx.con)
    rows = ctx.rows(
        "SELECT f, max_by(severity, list_position(['low', 'medium', 'high', 'critical'], severity)) FROM "
        "(SELECT unnest(flow_ids) AS f, severity FROM mem.alerts WHERE last_seen >= $since AND first_seen < $until) "
        "GROUP BY f"
    )
    return {str(flow): severity for flow, severity in rows}


def may_see_payload(role: str) -> bool:
    """Whether the role may see what packets carry."""
    return may(role, ROLES[1])
