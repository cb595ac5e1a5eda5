"""Sums of the range by time, class, address, port and pair: from rollups if the filter allows, else from packets if
they are few enough, else from flows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from analytics import destinations
from analytics.watch.context import Context
from analytics.watch.info import CLASS_SQL, CLASSES
from analytics.watch.mirror import PAIRS, SECONDS, TALKERS
from analytics.watch.statement import Statement
from analytics.watch.timerange import US, Span

MOST_PACKETS: Final = 3_000_000  # packets of the range up to which they are counted one by one
LINE_FIELDS: Final = ("proto", "app", "sensor")  # what rollup_1s knows
LIST_FIELDS: Final = ("sensor",)  # what rollup_1m and the pairs know
Lists = dict[str, dict[str, list[Any]]]
_DIMENSIONS: Final = {"src_ip": "sources", "dst_ip": "destinations", "port": "ports"}
_PORT: Final = """CASE WHEN proto IN (6, 17) THEN least(src_port, dst_port) ||
    CASE proto WHEN 6 THEN ' tcp' ELSE ' udp' END END"""
_LOCATED: Final = destinations.ADDRESSES


@dataclass(slots=True)
class Traffic:
    """`line`: (bucket_s, class, packets, bytes). `located`: (destination, packets, bytes), the heaviest. `recent`: mean
    packets and bytes a second of the last seconds before an end; None where that is not known."""

    line: list[tuple[Any, ...]]
    lists: Lists
    located: list[tuple[Any, ...]]
    line_basis: str
    basis: str
    packets: int = 0
    bytes: int = 0
    undecodable: int = 0
    loaded: float = 1.0
    recent: Callable[[int, int], tuple[float, float] | None] = field(default=lambda _end, _seconds: None)


def of(ctx: Context, top: int) -> Traffic:
    """Everything about the range and filter of the context."""
    by_rollup = ctx.filter.only(*LINE_FIELDS)
    got = _seconds(ctx) if by_rollup else None
    if ctx.filter.only(*LIST_FIELDS) and got is not None:
        _from_rollups(ctx, got, top)
        return got
    few = _estimate(ctx, got) <= MOST_PACKETS
    found = _from_packets(ctx, top) if few else _from_flows(ctx, top)
    if got is None:
        return found
    got.lists, got.located, got.basis = found.lists, found.located, found.basis
    return got


# --- rollups ---------------------------------------------------------------------------------------------------------


def _seconds(ctx: Context) -> Traffic:
    """Line and totals from rollup_1s."""
    rolled, loaded = source(ctx, SECONDS)
    where = ctx.where("rollup_1s")
    rows = ctx.rows(
        f"SELECT s // $step * $step AS b, {CLASS_SQL} AS class, sum(packets)::BIGINT, sum(bytes)::BIGINT, "
        f"sum(undecodable)::BIGINT FROM {rolled} WHERE {where.sql} GROUP BY 1, 2 ORDER BY 1",
        step=ctx.span.step_s, **where.values,
    )  # fmt: skip

    def recent(end_s: int, seconds: int) -> tuple[float, float] | None:
        if not ctx.span.live:
            return None
        short = replace(ctx.span, start_us=(end_s - 60) * US)
        fine, _ = source(ctx, SECONDS, short)
        sums = ctx.one(
            f"SELECT coalesce(sum(packets), 0)::BIGINT, coalesce(sum(bytes), 0)::BIGINT FROM {fine} "
            f"WHERE s >= $first AND s < $last AND {where.sql}", first=end_s - seconds, last=end_s, **where.values,
        )  # fmt: skip
        return sums[0] / seconds, sums[1] / seconds

    return Traffic(
        [row[:4] for row in rows], {}, [], "rollup", "rollup", sum(r[2] for r in rows), sum(r[3] for r in rows),
        sum(r[4] for r in rows), loaded, recent,
    )  # fmt: skip


def source(ctx: Context, shape: Any, span: Span | None = None) -> tuple[str, float]:
    """Rows of the shape in the range, from its first bucket on, as a table expression; and the share read so far."""
    span = span or ctx.span
    found = ctx.lake.mirror(shape, span)
    end_s = -(-span.end_us // US)
    if found is not None:
        table, grain, share = found
        first = min(span.first_bucket_s, span.start_us // US) // grain * grain
        return f"(SELECT * FROM {table} WHERE s >= {first} AND s < {end_s})", share
    keys = ", ".join(f"{sql} AS {name}" for name, _, sql in shape.keys)
    sums = ", ".join(f"{sql} AS {name}" for name, sql in shape.sums)
    # A range in the past: a minute that it touches counts whole.
    grain = shape.fine_s * US
    return (
        f"(SELECT epoch_us({shape.time}) // 1000000 AS s, {keys}, {sums} FROM {shape.table} "
        f"WHERE {shape.time} >= make_timestamp({span.start_us // grain * grain}) "
        f"AND {shape.time} < make_timestamp({span.end_us}))"
    ), 1.0


def _from_rollups(ctx: Context, got: Traffic, top: int) -> None:
    talkers, loaded = source(ctx, TALKERS)
    where = ctx.where("rollup_1m")
    rows = ctx.rows(
        "SELECT dimension, key, packets, bytes, n FROM (SELECT dimension, key, sum(packets)::BIGINT AS packets, "
        "sum(bytes)::BIGINT AS bytes, row_number() OVER (PARTITION BY dimension ORDER BY sum(bytes) DESC, key) AS n "
        f"FROM {talkers} WHERE key IS NOT NULL AND {where.sql} GROUP BY dimension, key) "
        f"WHERE n <= CASE dimension WHEN 'dst_ip' THEN {_LOCATED} ELSE {int(top)} END ORDER BY n", **where.values,
    )  # fmt: skip
    by_dimension: dict[str, list[tuple[Any, ...]]] = {name: [] for name in _DIMENSIONS}
    for dimension, *row in rows:
        by_dimension.setdefault(dimension, []).append(tuple(row))
    got.lists = {shown: _list(by_dimension[name][:top]) for name, shown in _DIMENSIONS.items()}
    got.located = [row[:3] for row in by_dimension["dst_ip"]]
    pairs, pairs_loaded = source(ctx, PAIRS)
    rows = ctx.rows(
        "SELECT a_ip, b_ip, sum(packets)::BIGINT, sum(bytes)::BIGINT FROM "
        f"{pairs} WHERE {where.sql} GROUP BY a_ip, b_ip ORDER BY 4 DESC, 1, 2 LIMIT {int(top)}", **where.values,
    )  # fmt: skip
    got.lists["conversations"] = _pairs(rows)
    got.loaded = min(got.loaded, loaded, pairs_loaded)


def _estimate(ctx: Context, got: Traffic | None) -> int:
    """Packets of the range that a count would look at."""
    if got is not None:
        return got.packets
    rolled, _ = source(ctx, SECONDS)
    row = ctx.one(f"SELECT coalesce(sum(packets), 0)::BIGINT FROM {rolled} WHERE {ctx.of_sensor('rollup_1s')}")
    return int(row[0])


# --- packets, flows --------------------------------------------------------------------------------------------------


def _from_packets(ctx: Context, top: int) -> Traffic:
    where = ctx.where("packets")
    rows = ctx.rows(
        f"""
        WITH chosen AS (
            SELECT epoch_us(ts) // 1000000 // $step * $step AS b, {CLASS_SQL} AS class, wirelen, src_ip, dst_ip,
                   {_PORT} AS port, least(src_ip, dst_ip) AS a_ip, greatest(src_ip, dst_ip) AS b_ip,
                   status NOT IN ('ok', 'not_ip') AS bad
            FROM {{packets}} WHERE {where.sql})
        SELECT g, b, class, k, k2, packets, size, bad
        FROM (SELECT *, row_number() OVER (PARTITION BY g ORDER BY size DESC, k, k2) AS place FROM (
            SELECT grouping(b, src_ip, dst_ip, port, a_ip) AS g, b, class, coalesce(src_ip, dst_ip, port, a_ip) AS k,
                   b_ip AS k2, count(*) AS packets, sum(wirelen)::BIGINT AS size, count(*) FILTER (bad) AS bad
            FROM chosen GROUP BY GROUPING SETS ((b, class), (src_ip), (dst_ip), (port), (a_ip, b_ip))))
        WHERE g = 15 OR place <= $most ORDER BY size DESC
        """,
        step=ctx.span.step_s, most=_LOCATED, **where.values,
    )  # fmt: skip
    return _grouped(rows, top, "packets")


def _from_flows(ctx: Context, top: int) -> Traffic:
    """From flows that ended or were cut in the range. Their packets count evenly over their time, so the line is near
    and not exact, and what is still open is missing."""
    where = ctx.where("flows")
    rows = ctx.rows(
        f"""
        WITH chosen AS MATERIALIZED (
            SELECT greatest(epoch_us(ts), $first) // 1000000 // $step * $step AS b0,
                   least(epoch_us(end_ts), $last) // 1000000 // $step * $step AS b1, {_class_of_flow()} AS class,
                   src_ip, dst_ip, {_PORT} AS port, src_packets, src_bytes, dst_packets, dst_bytes
            FROM flows WHERE end_ts >= $since AND ts < $until AND {where.sql}),
        parts AS (
            SELECT unnest(range(b0, b1 + 1, $step)) AS b, class, (b1 - b0) // $step + 1 AS n,
                   src_packets + dst_packets AS packets, src_bytes + dst_bytes AS bytes FROM chosen WHERE b1 >= b0),
        sides AS (
            SELECT src_ip AS s, dst_ip AS d, src_packets AS packets, src_bytes AS bytes FROM chosen
            UNION ALL SELECT dst_ip, src_ip, dst_packets, dst_bytes FROM chosen),
        whole AS (
            SELECT src_ip, dst_ip, port, src_packets + dst_packets AS packets, src_bytes + dst_bytes AS bytes FROM chosen),
        sums AS (
            SELECT 15 AS g, b, class, NULL AS k, NULL AS k2, sum(packets / n)::BIGINT AS packets,
                   sum(bytes / n)::BIGINT AS size FROM parts GROUP BY b, class
            UNION ALL SELECT 23, NULL, NULL, s, NULL, sum(packets)::BIGINT, sum(bytes)::BIGINT FROM sides GROUP BY s
            UNION ALL SELECT 27, NULL, NULL, d, NULL, sum(packets)::BIGINT, sum(bytes)::BIGINT FROM sides GROUP BY d
            UNION ALL SELECT 29, NULL, NULL, port, NULL, sum(packets)::BIGINT, sum(bytes)::BIGINT FROM whole GROUP BY port
            UNION ALL SELECT 30, NULL, NULL, least(src_ip, dst_ip), greatest(src_ip, dst_ip), sum(packets)::BIGINT,
                   sum(bytes)::BIGINT FROM whole GROUP BY 4, 5)
        SELECT g, b, class, k, k2, packets, size, 0 AS bad
        FROM (SELECT *, row_number() OVER (PARTITION BY g ORDER BY size DESC, k, k2) AS place FROM sums)
        WHERE g = 15 OR place <= $most ORDER BY size DESC
        """,
        step=ctx.span.step_s, most=_LOCATED, first=ctx.span.start_us, last=ctx.span.end_us - 1, **where.values,
    )  # fmt: skip
    return _grouped(rows, top, "flows")


def _class_of_flow() -> str:
    """Flows are of IP: there is no EtherType to look at."""
    return CLASS_SQL.replace("ethertype", "NULL::INTEGER")


def _grouped(rows: list[tuple[Any, ...]], top: int, basis: str) -> Traffic:
    """`g` is DuckDB's grouping(b, src_ip, dst_ip, port, a_ip): the bit of what a row is of is 0."""
    sets: dict[int, list[tuple[Any, ...]]] = {15: [], 23: [], 27: [], 29: [], 30: []}
    for row in rows:
        sets[row[0]].append(row)
    line = [(r[1], r[2], r[5], r[6]) for r in sets[15]]
    keyed = {g: [(r[3], r[5], r[6]) for r in sets[g] if r[3] is not None] for g in (23, 27, 29)}
    lists = {name: _list(keyed[g][:top]) for name, g in (("sources", 23), ("destinations", 27), ("ports", 29))}
    lists["conversations"] = _pairs([(r[3], r[4], r[5], r[6]) for r in sets[30] if r[3] is not None][:top])
    return Traffic(
        line, lists, keyed[27], basis, basis, sum(r[2] for r in line), sum(r[3] for r in line),
        sum(r[7] for r in sets[15]),
    )  # fmt: skip


def _list(rows: list[tuple[Any, ...]]) -> dict[str, list[Any]]:
    return {"key": [r[0] for r in rows], "packets": [r[1] for r in rows], "bytes": [r[2] for r in rows]}


def _pairs(rows: list[tuple[Any, ...]]) -> dict[str, list[Any]]:
    return {name: [r[i] for r in rows] for i, name in enumerate(("a", "b", "packets", "bytes"))}


def statements(ctx: Context) -> dict[str, Statement]:
    """The lists as SQL. With a filter: of packets."""
    where = ctx.where("packets")
    found: dict[str, Statement] = {}
    for dimension, name in _DIMENSIONS.items():
        key = _PORT if dimension == "port" else dimension
        if ctx.filter.only(*LIST_FIELDS):
            by_rollup = ctx.filter.where("rollup_1m")
            sql = (
                f"SELECT key, sum(packets)::BIGINT AS packets, sum(bytes)::BIGINT AS bytes FROM {{rollup_1m}} "
                f"WHERE dimension = $dimension AND key IS NOT NULL AND {by_rollup.sql} GROUP BY key ORDER BY bytes DESC, key"
            )
            found[name] = Statement(sql, {**by_rollup.values, "dimension": dimension})
        else:
            sql = (
                f"SELECT {key} AS key, count(*) AS packets, sum(wirelen)::BIGINT AS bytes FROM {{packets}} "
                f"WHERE {where.sql} GROUP BY ALL HAVING key IS NOT NULL ORDER BY bytes DESC, key"
            )
            found[name] = Statement(sql, where.values)
    flows = ctx.filter.where("flows")
    found["conversations"] = Statement(
        "SELECT least(src_ip, dst_ip) AS a, greatest(src_ip, dst_ip) AS b, sum(packets)::BIGINT AS packets, "
        f"sum(bytes)::BIGINT AS bytes FROM {{flows}} WHERE {flows.sql} GROUP BY ALL ORDER BY bytes DESC, a, b",
        flows.values,
    )
    return found


def by_class(ctx: Context) -> tuple[int, int, dict[str, list[int]]]:
    """Packets of the range by step and class, from the rollups: first second, seconds of a step, and the counts."""
    first, step = ctx.span.first_bucket_s, ctx.span.step_s
    size = max(1, -(-(-(-ctx.span.end_us // US) - first) // step))
    series: dict[str, list[int]] = {}
    for start_s, name, packets, _ in _seconds(ctx).line:
        at = (start_s - first) // step
        if 0 <= at < size:
            series.setdefault(name, [0] * size)[at] += packets
    return first, step, {name: series[name] for name in CLASSES if name in series}
