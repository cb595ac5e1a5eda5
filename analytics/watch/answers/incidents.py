"""`alerts`, `alert` and `mutes`: the inbox, one incident, and what nobody wants to hear of."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

from analytics.watch import filters
from analytics.watch.answers import packet_rows
from analytics.watch.context import Context
from analytics.watch.registry import NotFound, Param, question
from analytics.watch.statement import Statement
from analytics.watch.timerange import US, Span
from engine.alert_row import SEVERITIES

STATES: Final = ("open", "acknowledged", "all")
_RANK: Final = "list_position(['low', 'medium', 'high', 'critical'], severity)"
_SHOWN: Final = (
    'incident_id AS id, kind, severity, confidence, status, active, src_ip, dst_ip, dst_port, domain, "count", why, '
    "first_seen, last_seen, acknowledged_by, notes, sensor, reported_by"
)
_IN_RANGE: Final = "last_seen >= $since AND first_seen < $until"
_NEWEST: Final = ("incident_id", "why", "status", "acknowledged_by", "dst_port", "domain", "sensor")
_SORTS: Final = {
    "severity": f"max({_RANK}) DESC, last_seen DESC", "last_seen": "last_seen DESC", "first_seen": "first_seen",
    "count": '"count" DESC, last_seen DESC', "kind": "kind, last_seen DESC",
}  # fmt: skip
PACKETS: Final = 50  # named by an alert
NEAR: Final = 20  # between its ends, where it names none
PAD_US: Final = 10 * US
LONGEST_US: Final = 6 * 3600 * US  # of the chart of an alert's traffic: its newest part
COUNTED: Final = 3_000_000  # packets that are counted one by one for it; of more, the flows


def _condition(ctx: Context, *names: str) -> tuple[str, dict[str, Any]]:
    """The filter and, of the page's own choices, those named."""
    where = ctx.where("alerts")
    parts, values = [where.sql], dict(where.values)
    chosen = {"status": "" if ctx.p.state == "all" else ctx.p.state, "severity": ctx.p.severity, "kind": ctx.p.kind}
    for name in names:
        if chosen[name]:
            parts.append(f"{name} = $of_{name}")
            values[f"of_{name}"] = chosen[name]
    return " AND ".join(parts), values


def statements(ctx: Context) -> dict[str, Statement]:
    sql, values = _condition(ctx, "status", "severity", "kind")
    step_us = ctx.span.step_s * US
    began = f"make_timestamp(epoch_us(greatest(first_seen, $since)) // {step_us} * {step_us})"
    return {
        "alerts": Statement(
            f"SELECT {_SHOWN} FROM alerts_between($since, $until) WHERE {sql} ORDER BY last_seen DESC, id", values),
        "timeline": Statement(
            f"SELECT {began} AS ts, severity, count(*) AS alerts FROM alerts_between($since, $until) WHERE {sql} "
            "GROUP BY ALL ORDER BY ts, severity", values),
    }  # fmt: skip


@question(
    "alerts", "The inbox of alerts",
    params=(
        Param("state", "open", "Which", choices=STATES),
        Param("severity", "", "Only this one", choices=("", *SEVERITIES)),
        Param("kind", "", "Only this kind"),
        Param("group", True, "Also by kind, source and destination"),
        Param("sort", "severity", "Order of the groups", choices=tuple(_SORTS)),
        Param("offset", 0, "Rows to pass over", low=0, high=20_000),
        Param("limit", 200, "Rows of a page", low=0, high=1000),
    ),
    statements=statements, refresh_s=1,
)  # fmt: skip
def alerts(ctx: Context) -> dict[str, Any]:
    """rows: {id, kind, severity, confidence, status, active, src_ip, dst_ip, dst_port, domain, count, why, first_seen,
    last_seen, acknowledged_by, notes, sensor, reported_by: []}, newest first; total; groups: {kind, src_ip, dst_ip,
    severity, alerts, count, first_seen, last_seen, open, active, notes, ids: [[at most 100, newest first]], and of the
    newest one incident_id, why, status, acknowledged_by, dst_port, domain, sensor: []}, at most 500; states: {open,
    acknowledged}, severities: {critical, high, medium, low}, kinds: {kind, count: []}: counts in range and filter, as
    if nothing else was chosen of the same; timeline: {start_s, step_s, and of each severity that
    there is: []}: alerts that began.
    """
    ctx.lake.alerts(ctx.con)
    sql, values = _condition(ctx, "status", "severity", "kind")
    chosen = f"mem.alerts WHERE {_IN_RANGE} AND {sql}"
    rows = ctx.columns(
        f"SELECT {_SHOWN} FROM {chosen} ORDER BY last_seen DESC, id LIMIT {int(ctx.p.limit)} "
        f"OFFSET {int(ctx.p.offset)}", **values,
    )  # fmt: skip
    rows["confidence"] = [None if c is None else round(c, 3) for c in rows["confidence"]]
    states, severities = _counts(ctx, "status", ("severity", "kind")), _counts(ctx, "severity", ("status", "kind"))
    kinds = _counts(ctx, "kind", ("status", "severity"))
    answer = {
        "rows": rows, "total": ctx.one(f"SELECT count(*) FROM {chosen}", **values)[0],
        "states": {name: states.get(name, 0) for name in STATES[:2]},
        "severities": {name: severities.get(name, 0) for name in reversed(SEVERITIES)},
        "kinds": {"kind": list(kinds), "count": list(kinds.values())},
        "timeline": _timeline(ctx, chosen, values),
    }  # fmt: skip
    if ctx.p.group:
        newest = ", ".join(f"arg_max({n}, (last_seen, incident_id)) AS {n}" for n in _NEWEST)
        answer["groups"] = ctx.columns(
            f"SELECT kind, src_ip, dst_ip, arg_max(severity, {_RANK}) AS severity, count(*) AS alerts, "
            '(sum("count"))::BIGINT AS count, min(first_seen) AS first_seen, max(last_seen) AS last_seen, '
            "count(*) FILTER (status = 'open') AS open, bool_or(active) AS active, sum(notes)::BIGINT AS notes, "
            f"list(incident_id ORDER BY last_seen DESC, incident_id DESC)[:100] AS ids, {newest} "
            f"FROM (SELECT * FROM {chosen}) GROUP BY kind, src_ip, dst_ip "
            f"ORDER BY {_SORTS[ctx.p.sort]}, kind, src_ip, dst_ip LIMIT 500", **values,
        )  # fmt: skip
    return answer


def _counts(ctx: Context, column: str, chosen: tuple[str, ...]) -> dict[str, int]:
    """How many there are of each value of a column, the most frequent first."""
    sql, values = _condition(ctx, *chosen)
    return dict(ctx.rows(
        f"SELECT {column}, count(*) FROM mem.alerts WHERE {_IN_RANGE} AND {sql} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 100",
        **values))  # fmt: skip


def _timeline(ctx: Context, chosen: str, values: dict[str, Any]) -> dict[str, Any]:
    """An alert that began before the range counts in its first bucket."""
    start, step, n = ctx.span.first_bucket_s, ctx.span.step_s, ctx.span.buckets()
    series = {name: [0] * n for name in SEVERITIES}
    for severity, at, count in ctx.rows(
        f"SELECT severity, greatest(0, (epoch_us(first_seen) // 1000000 - {start}) // {step}) AS at, count(*) "
        f"FROM {chosen} GROUP BY 1, 2", **values,
    ):  # fmt: skip
        if severity in series and n:
            series[severity][min(int(at), n - 1)] += count
    return {"start_s": start, "step_s": step, **{name: counts for name, counts in series.items() if any(counts)}}


@question("alert", "One alert", params=(Param("id", None, "Its id", required=True),), ranged=False, filtered=False,
          by_role=True, refresh_s=1)  # fmt: skip
def alert(ctx: Context) -> dict[str, Any]:
    """alert: every column of the view `alerts` by name, `evidence` as an object; history: {ts, event, actor, severity,
    count, note: []}, oldest first; scope: {filter, start, end}: its packets and flows, start and end in microseconds;
    packets: rows as of `packets`: those it names that are still in the lake, else (named false) the first between its
    ends; traffic: {start_s, step_s, unit (packets or flows), values: []} between its ends, or null; related: {id, kind,
    severity, status, src_ip, dst_ip, first_seen: []}, other alerts of its source or destination.
    """
    ctx.lake.alerts(ctx.con)
    found = ctx.columns("SELECT * FROM mem.alerts WHERE incident_id = $id", id=ctx.p.id)
    if not found["incident_id"]:
        raise NotFound(f"alert {ctx.p.id[:60]!r} is not in the lake")
    one = {name: values[0] for name, values in found.items()}
    one["flow_ids"] = [str(f) for f in one["flow_ids"] or []]
    one["evidence"] = _told(one["evidence"], packet_rows.may_see_payload(ctx.role))
    history = ctx.columns(
        'SELECT ts, event, actor, severity, "count", note FROM alert_events WHERE incident_id = $id '
        "ORDER BY ts, revision LIMIT 2000", id=ctx.p.id,
    )  # fmt: skip
    related = ctx.columns(
        "SELECT incident_id AS id, kind, severity, status, src_ip, dst_ip, first_seen FROM mem.alerts "
        "WHERE incident_id <> $id AND (src_ip IN ($src, $dst) OR dst_ip IN ($src, $dst)) "
        "ORDER BY last_seen DESC, id LIMIT 20",
        id=ctx.p.id, src=one["src_ip"], dst=one["dst_ip"],
    )  # fmt: skip
    near = _near(ctx, one)
    packets, named = _evidence(near, one)
    return {
        "alert": one, "history": history, "packets": packets, "named": named, "related": related,
        "scope": {"filter": near.filter.text, "start": near.span.start_us, "end": near.span.end_us},
        "traffic": _traffic(near) if near.filter else None,
    }  # fmt: skip


def _told(text: str | None, payload: bool) -> dict[str, Any]:
    """Evidence as an object; what packets carried only to those who may see it."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return {"text": text} if payload else {}
    if not payload:
        for part in (found, *(found.get(name) for name in ("first", "peak", "all"))):
            if isinstance(part, dict):
                part.pop("payload", None)
    return found


def _near(ctx: Context, one: dict[str, Any]) -> Context:
    """Its time, with a margin on both sides, and a filter of its ends."""
    first, last = one["first_seen"], one["last_seen"]
    pad = max(PAD_US, (last - first) // 8)
    span = Span(first - pad, last + pad, False, 1)
    ends = [f"host={ip}" for ip in (one["src_ip"], one["dst_ip"]) if ip]
    return replace(ctx, span=span, filter=filters.parse(" ".join(ends)))


def _evidence(near: Context, one: dict[str, Any]) -> tuple[dict[str, list[Any]], bool]:
    """The packets that it names; whether it names any that are there."""
    numbers = [n for n in one["packets"] or [] if isinstance(n, int)][:PACKETS]
    if numbers and one["source"]:
        rows = near.columns(
            f"SELECT {', '.join(packet_rows.READ)} FROM {{packets}} WHERE source = $source AND "
            f"list_contains($numbers, frame_no) ORDER BY ts, frame_no LIMIT {PACKETS}",
            source=one["source"], numbers=numbers,
        )  # fmt: skip
        if rows["ts"]:
            return packet_rows.shown([dict(zip(rows, v, strict=True)) for v in zip(*rows.values(), strict=True)]), True
    if not near.filter:
        return packet_rows.shown([]), False
    begun = replace(near, span=replace(near.span, start_us=one["first_seen"]))
    return packet_rows.shown(packet_rows.search(begun, NEAR, None, newest_first=False)[0]), False


def _traffic(near: Context) -> dict[str, Any]:
    """What went between its ends, before, meanwhile and after."""
    span = replace(near.span, start_us=max(near.span.start_us, near.span.end_us - LONGEST_US))
    start, end = span.start_us // US, -(-span.end_us // US)
    step = max(1, -(-(end - start) // 60))
    near = replace(near, span=span)
    [(around,)] = near.rows("SELECT coalesce(sum(packets), 0)::BIGINT FROM {rollup_1s}")
    table = "packets" if around <= COUNTED else "flows"
    where = near.where(table)
    values = [0] * (-(-(end - start) // step))
    for at, count in near.rows(
        f"SELECT (epoch_us(ts) // 1000000 - {start}) // {step} AS at, count(*) FROM {{{table}}} WHERE {where.sql} "
        "GROUP BY 1", **where.values,
    ):  # fmt: skip
        values[min(max(0, int(at)), len(values) - 1)] += count
    return {"start_s": start, "step_s": step, "unit": table, "values": values}


@question("mutes", "Mutes that hold", ranged=False, filtered=False, refresh_s=2,
          statements=lambda _: {"mutes": Statement("SELECT * FROM mutes WHERE active ORDER BY muted_at DESC")})  # fmt: skip
def mutes(ctx: Context) -> dict[str, Any]:
    """rows: {kind, src_ip, dst_ip, muted_at, muted_until (null: until taken back), muted_by, note: []}."""
    return {"rows": ctx.columns(
        "SELECT kind, src_ip, dst_ip, muted_at, muted_until, muted_by, note FROM mutes WHERE active ORDER BY muted_at DESC")}  # fmt: skip
