"""`flows` and `flow`: connections, their parts added up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from analytics.watch.answers import packet_pages, packet_rows
from analytics.watch.context import Context
from analytics.watch.filters import Filter, Term
from analytics.watch.info import CLASS_SQL, CLASSES, protocol_name
from analytics.watch.registry import NotFound, Param, question
from analytics.watch.statement import Statement
from analytics.watch.timerange import US
from engine.dissect import APPLICATIONS
from engine.tables import APPLICATION_TABLES

MOST_PACKETS: Final = 8_000_000  # of a range in which those of flows are looked for

# Parts of a flow that began in the range, added up, as the view `connections` does; with fewer columns, so that a page
# opens fewer of them.
_SUMS: Final = """
SELECT min(ts) AS ts, max(end_ts) AS end_ts, flow_id, sensor, any_value(source) AS source,
       any_value(src_ip) AS src_ip, any_value(src_port) AS src_port, any_value(dst_ip) AS dst_ip,
       any_value(dst_port) AS dst_port, any_value(proto) AS proto, any_value(community_id) AS community_id,
       arg_max(app, part) AS app,
       arg_max(server_name, part) AS server_name, arg_max(outcome, part) AS outcome,
       arg_max(end_reason, part) AS end_reason,
       sum(src_packets)::BIGINT AS src_packets, sum(dst_packets)::BIGINT AS dst_packets,
       sum(src_bytes)::BIGINT AS src_bytes, sum(dst_bytes)::BIGINT AS dst_bytes,
       sum(src_packets + dst_packets)::BIGINT AS packets, sum(src_bytes + dst_bytes)::BIGINT AS bytes,
       (epoch_us(max(end_ts)) - epoch_us(min(ts))) / 1000000 AS duration_s, min(rtt_us) AS rtt_us, count(*) AS parts
FROM {flows} WHERE """


# What each column is of the parts of a flow.
_SORTED: Final = {
    "ts": "min(ts)", "end_ts": "max(end_ts)", "duration_s": "epoch_us(max(end_ts)) - epoch_us(min(ts))",
    "bytes": "sum(src_bytes + dst_bytes)", "packets": "sum(src_packets + dst_packets)", "src_bytes": "sum(src_bytes)",
    "dst_bytes": "sum(dst_bytes)", "src_ip": "any_value(src_ip)", "dst_ip": "any_value(dst_ip)",
    "dst_port": "any_value(dst_port)", "app": "arg_max(app, part)", "server_name": "arg_max(server_name, part)",
    "outcome": "arg_max(outcome, part)", "rtt_us": "min(rtt_us)",
}  # fmt: skip


def page_statement(ctx: Context) -> Statement:
    where = ctx.where("flows")
    order = "DESC" if ctx.p.order == "desc" else "ASC"
    sql = f"{_SUMS}{where.sql} GROUP BY flow_id, sensor ORDER BY {_SORTED[ctx.p.sort]} {order} NULLS LAST, flow_id"
    return Statement(sql, where.values)


def statements(ctx: Context) -> dict[str, Statement]:
    return {"flows": page_statement(ctx)}


@question(
    "flows", "Connections that began in the range",
    params=(
        Param("sort", "ts", "Column", choices=tuple(_SORTED)), Param("order", "desc", "Direction", choices=("desc", "asc")),
        Param("offset", 0, "Rows to pass over", low=0, high=100_000),
        Param("limit", 100, "Rows of a page", low=1, high=1000),
    ),
    statements=statements,
)  # fmt: skip
def flows(ctx: Context) -> dict[str, Any]:
    """rows: {ts, end_ts, flow_id, sensor, source, src_ip, src_port, dst_ip, dst_port, proto (number), community_id, app,
    server_name, outcome, end_reason, src_packets, dst_packets, src_bytes, dst_bytes, packets, bytes, duration_s, rtt_us,
    parts, name (of app, or proto), severity (of an alert that names it), anomaly (the highest of its packets; null where
    there are none scored, or the range has too many packets to look): []};
    total: connections that pass the filter; bytes, packets: of all of them. A connection is listed once it has ended,
    or its first five minutes are over.
    """
    where = ctx.where("flows")
    order = f"{_SORTED[ctx.p.sort]} {'DESC' if ctx.p.order == 'desc' else 'ASC'} NULLS LAST, flow_id"
    # First which flows, by the columns that say so; then all columns of these alone.
    keys = ctx.rows(
        f"""
        WITH found AS (
            SELECT flow_id, sensor, {_SORTED[ctx.p.sort]} AS sorted_, sum(src_bytes + dst_bytes) AS b,
                   sum(src_packets + dst_packets) AS p FROM {{flows}} WHERE {where.sql} GROUP BY flow_id, sensor)
        SELECT flow_id::VARCHAR AS flow, sensor, count(*) OVER (), (sum(b) OVER ())::BIGINT, (sum(p) OVER ())::BIGINT FROM found
        ORDER BY sorted_ {"DESC" if ctx.p.order == "desc" else "ASC"} NULLS LAST, flow_id, sensor
        LIMIT {int(ctx.p.limit)} OFFSET {int(ctx.p.offset)}
        """,
        **where.values,
    )
    totals = keys[0][2:] if keys else (0, 0, 0)
    if not keys and ctx.p.offset:  # past the end: the sums had no row to stand in
        totals = (
            ctx.one(f"SELECT count(DISTINCT flow_id) FROM {{flows}} WHERE {where.sql}", **where.values)[0],
            None,
            None,
        )
    rows = ctx.columns(
        f"{_SUMS}flow_id IN ({', '.join(key[0] for key in keys) or 'NULL'}) AND {where.sql} "
        f"GROUP BY flow_id, sensor ORDER BY {order}", **where.values,
    )  # fmt: skip
    alerts = packet_rows.severities(ctx)
    scores = _anomalies(ctx, rows)
    rows["name"] = [app or protocol_name(proto, None) for app, proto in zip(rows["app"], rows["proto"], strict=True)]
    rows["severity"] = [alerts.get(flow) for flow in rows["flow_id"]]
    rows["anomaly"] = [scores.get(flow) for flow in rows["flow_id"]]
    return {"rows": rows, "total": totals[0], "bytes": totals[1], "packets": totals[2]}


def _anomalies(ctx: Context, rows: dict[str, list[Any]]) -> dict[str, float]:
    """The highest anomaly of the packets of these flows that are in the range."""
    if not rows["ts"]:
        return {}
    end = min(ctx.span.end_us, max(rows["end_ts"]) + 1)
    inside = replace(ctx, span=replace(ctx.span, start_us=max(ctx.span.start_us, min(rows["ts"])), end_us=end))
    if packet_pages.total(inside) > MOST_PACKETS:
        return {}
    found = inside.rows(
        "SELECT flow_id::VARCHAR, round(max(anomaly), 3) FROM {packets} "
        "WHERE flow_id IN (SELECT unnest($flows)) GROUP BY 1",
        flows=[int(flow) for flow in rows["flow_id"]],
    )  # fmt: skip
    return dict(found)


def timeline_statement(ctx: Context) -> Statement:
    where = ctx.where("flows")
    return Statement(
        f"SELECT epoch_us(ts) // 1000000 // {ctx.span.step_s} * {ctx.span.step_s} AS start_s, {CLASS_SQL} AS class, "
        "count(*) AS flows FROM (SELECT *, NULL::INTEGER AS ethertype FROM {flows}) "
        f"WHERE part = 1 AND {where.sql} GROUP BY 1, 2 ORDER BY 1, 2", where.values,
    )  # fmt: skip


@question(
    "flow_count", "How many connections began, over time", statements=lambda ctx: {"timeline": timeline_statement(ctx)},
)  # fmt: skip
def flow_count(ctx: Context) -> dict[str, Any]:
    """timeline: {start_s, step_s, series: {class: []}}, connections that began in each step."""
    first, step = ctx.span.first_bucket_s, ctx.span.step_s
    size = max(1, -(-(-(-ctx.span.end_us // US) - first) // step))
    series: dict[str, list[int]] = {name: [0] * size for name in CLASSES}
    for start_s, name, flows_ in ctx.rows(timeline_statement(ctx)):
        series[name][(start_s - first) // step] += flows_
    seen = {name: values for name, values in series.items() if any(values)}
    return {"timeline": {"start_s": first, "step_s": step, "series": seen}}


@question(
    "flow", "One connection",
    params=(Param("flow_id", 0, "Its number", low=-(1 << 63), high=(1 << 63) - 1, required=True),
            Param("limit", 100, "Packets to list", low=0, high=1000)),
    filtered=False, by_role=True, refresh_s=5,
    statements=lambda ctx: {"parts": Statement(
        "SELECT * EXCLUDE (src_head, dst_head) FROM {flows} WHERE flow_id = $flow ORDER BY part", {"flow": ctx.p.flow_id})},
)  # fmt: skip
def flow(ctx: Context) -> dict[str, Any]:
    """parts: every column of `flows` by name, a value per part (src_head and dst_head, the first bytes of payload, for
    operators only); applications: {table: {column: []}}, its rows in tables such as dns and http;
    packets: rows as of `packets`, oldest first; alerts: {id, kind, severity, why: []} that name it.

    The range must hold its beginning.
    """
    hidden = "" if packet_rows.may_see_payload(ctx.role) else " EXCLUDE (src_head, dst_head)"
    parts = ctx.columns(
        f"SELECT *{hidden} FROM {{flows}} WHERE flow_id = $flow ORDER BY part LIMIT 1000",
        flow=ctx.p.flow_id,
    )
    if not parts["ts"]:
        raise NotFound(f"flow {ctx.p.flow_id} began outside the range, is still open, or was retired")
    apps = {a for a in parts["app"] if a}
    tables = {
        name: ctx.columns(f"SELECT * FROM {{{name}}} WHERE flow_id = $flow ORDER BY ts LIMIT 200", flow=ctx.p.flow_id)
        for name in APPLICATION_TABLES
        if _table_of(apps, name)
    }
    inside = replace(ctx, filter=Filter((Term("flow", "=", (ctx.p.flow_id,)),)), span=replace(
        ctx.span, start_us=min(parts["ts"]), end_us=max(parts["end_ts"]) + 1))  # fmt: skip
    rows = packet_rows.search(inside, ctx.p.limit, None, newest_first=False)[0] if ctx.p.limit else []
    ctx.lake.alerts(ctx.con)
    named = ctx.columns(
        "SELECT incident_id AS id, kind, severity, why FROM mem.alerts WHERE list_contains(flow_ids, $flow)",
        flow=ctx.p.flow_id,
    )
    return {
        "parts": parts, "applications": {name: t for name, t in tables.items() if t["ts"]},
        "packets": packet_rows.shown(rows), "alerts": named,
    }  # fmt: skip


def _table_of(apps: set[str], table: str) -> bool:
    """Whether flows of these applications may have rows there; dtls has its in tls, mdns in dns."""
    return any(a.name == table and apps & set(a.names) for a in APPLICATIONS)
