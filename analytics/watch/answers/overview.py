"""`overview`: the first page. Without a filter from rollups alone, however many packets there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from analytics import destinations
from analytics.watch import capture_state
from analytics.watch.answers import packet_pages, packet_rows, traffic
from analytics.watch.answers.traffic import Traffic
from analytics.watch.context import Context
from analytics.watch.info import CLASS_SQL, CLASSES
from analytics.watch.registry import Param, question
from analytics.watch.statement import Statement
from analytics.watch.timerange import SETTLE_S, US

RATE_S: Final = 3  # "now" is the mean of so many whole seconds
MARKS: Final = 40  # alerts marked on the timeline, the gravest first


@dataclass(frozen=True, slots=True)
class _Line:
    """Sums by bucket: packets and bytes by class."""

    count: int
    packets: dict[str, list[int]]
    sizes: dict[str, list[int]]


def statements(ctx: Context) -> dict[str, Statement]:
    where = ctx.where("packets")
    seconds = ctx.filter.where("rollup_1s")
    step = {"step": ctx.span.step_s}
    if ctx.filter.only("proto", "app", "sensor"):
        line = Statement(
            f"SELECT epoch_us(ts) // 1000000 // $step * $step AS bucket_s, {CLASS_SQL} AS class, "
            f"sum(packets)::BIGINT AS packets, sum(bytes)::BIGINT AS bytes FROM {{rollup_1s}} WHERE {seconds.sql} "
            "GROUP BY ALL ORDER BY ALL", {**seconds.values, **step},
        )  # fmt: skip
    else:
        line = Statement(
            f"SELECT epoch_us(ts) // 1000000 // $step * $step AS bucket_s, {CLASS_SQL} AS class, count(*) AS packets, "
            f"sum(wirelen)::BIGINT AS bytes FROM {{packets}} WHERE {where.sql} GROUP BY ALL ORDER BY ALL",
            {**where.values, **step},
        )
    mix = f"SELECT class, sum(packets)::BIGINT AS packets, sum(bytes)::BIGINT AS bytes FROM ({line.sql}) GROUP BY class"
    lists = traffic.statements(ctx)
    places = lists["destinations"]
    countries = (
        "SELECT g.iso3, g.country_name AS country, sum(d.packets)::BIGINT AS packets, sum(d.bytes)::BIGINT AS bytes "
        f"FROM ({places.sql}) d JOIN geo g ON g.ip = d.key WHERE g.scope = 'public' GROUP BY ALL ORDER BY bytes DESC, iso3"
    )
    newest = (
        "SELECT ts, ts_nanos, source, frame_no, src_ip, src_port, dst_ip, dst_port, proto, app, server_name, tcp_flags, "
        f"wirelen FROM {{packets}} WHERE {where.sql} ORDER BY ts DESC, ts_nanos DESC, frame_no DESC LIMIT $tail"
    )
    return {
        "timeline": line,
        "mix": Statement(f"{mix} ORDER BY bytes DESC, class", line.values),
        **lists,
        "countries": Statement(countries, places.values),
        "recent": Statement(newest, {**where.values, "tail": max(1, ctx.p.tail)}),
    }


@question(
    "overview", "What is on the wire",
    params=(
        Param("tail", 40, "Newest packets to list", low=0, high=200),
        Param("top", 10, "Rows of each list", low=1, high=50),
    ),
    statements=statements,
)  # fmt: skip
def overview(ctx: Context) -> dict[str, Any]:
    """kpi: {pps, bps (now), pps_mean, bps_mean, pps_peak, bps_peak, packets, bytes, flows, undecodable,
    drops: {pct, lost, seen, by_cause}, alerts: {severity: alerts of the range}};
    timeline: {start_s, step_s, classes: [name], pps: [[per bucket]] by class, bps: [[...]], total_pps: [], total_bps: [],
    dropped: [frames]}; the sparklines are its totals;
    marks: {t: [], severity: [], kind: [], id: []}; mix: {class: [], packets: [], bytes: []};
    sources, destinations, ports: {key: [], packets: [], bytes: []}; conversations: {a: [], b: [], packets, bytes};
    countries: {iso3: [], name: [], packets: [], bytes: [], countries, cities: {name: [], lat: [], lon: [], bytes: []},
    located, private, unlocated (bytes), database, attribution, link}; recent: rows as of `packets`; basis: {timeline: rollup|packets|flows, lists: same};
    last: newest packet; loaded: share of the range that is counted so far, 0 to 1 (the next answer has more).
    """
    got = traffic.of(ctx, ctx.p.top)
    line = _line(ctx, got)
    counters, read = capture_state.stats_source(ctx)
    # Losses have no addresses: of a filter only what it says of sensors counts.
    lost = capture_state.drops(ctx, counters)
    flows, dropped = _counters(ctx, counters, line.count)
    marks, severities = _alerts(ctx)
    answer = {
        "kpi": _kpi(ctx, got, line) | {"flows": flows, "drops": lost, "alerts": severities},
        "timeline": _timeline(ctx, line) | {"dropped": dropped},
        "marks": marks,
        "mix": _mix(got),
        **{name: got.lists[name] for name in ("sources", "destinations", "ports", "conversations")},
        "countries": destinations.by_country(ctx.lake.locator, ctx.lake.path, got.located, got.bytes),
        "basis": {"timeline": got.line_basis, "lists": got.basis},
        "loaded": round(min(got.loaded, read), 3),
    }
    recent = _recent(ctx) if ctx.p.tail else None
    return answer | {"recent": recent, "last": recent["ts"][0] if recent and recent["ts"] else None}


def _recent(ctx: Context) -> dict[str, list[Any]]:
    """The newest packets that pass the filter, newest first; fewer than asked for if they are rare."""
    if ctx.filter:
        rows = packet_rows.search(ctx, ctx.p.tail, None, newest_first=True)[0]
    else:
        rows = packet_pages.newest(ctx, ctx.p.tail)
    out = packet_rows.shown(rows)
    return {name: out[name] for name in ("ts", "src", "dst", "proto", "app", "sport", "dport", "len", "info")}


def _line(ctx: Context, got: Traffic) -> _Line:
    count = ctx.span.buckets()
    packets = {name: [0] * count for name in CLASSES}
    sizes = {name: [0] * count for name in CLASSES}
    first = ctx.span.first_bucket_s
    for bucket_s, name, n, size in got.line:
        at = (bucket_s - first) // ctx.span.step_s
        if 0 <= at < count:
            packets[name][at] += n
            sizes[name][at] += size
    return _Line(count, packets, sizes)


def _timeline(ctx: Context, line: _Line) -> dict[str, Any]:
    step = ctx.span.step_s
    shown = [name for name in CLASSES if any(line.packets[name])]

    def rates(values: list[int], factor: int) -> list[int | float]:
        return [_short(v * factor / step) for v in values]

    return {
        "start_s": ctx.span.first_bucket_s,
        "step_s": step,
        "classes": shown,
        "pps": [rates(line.packets[name], 1) for name in shown],
        "bps": [rates(line.sizes[name], 8) for name in shown],
        "total_pps": rates([sum(v) for v in zip(*line.packets.values(), strict=True)], 1),
        "total_bps": rates([sum(v) for v in zip(*line.sizes.values(), strict=True)], 8),
    }


def _short(value: float) -> int | float:
    """Three digits are all that a chart can show."""
    if value >= 1000:
        digits = len(str(int(value))) - 3
        return int(round(value, -digits))
    return int(value) if value == int(value) else round(value, 1)


def _mix(got: Traffic) -> dict[str, list[Any]]:
    sums = {name: [0, 0] for name in CLASSES}
    for _, name, n, size in got.line:
        sums[name][0] += n
        sums[name][1] += size
    shown = [name for name in CLASSES if sums[name][0]]
    return {"class": shown, "packets": [sums[n][0] for n in shown], "bytes": [sums[n][1] for n in shown]}


def _kpi(ctx: Context, got: Traffic, line: _Line) -> dict[str, Any]:
    totals = [sum(v) for v in zip(*line.packets.values(), strict=True)]
    sizes = [sum(v) for v in zip(*line.sizes.values(), strict=True)]
    step, seconds = ctx.span.step_s, max(line.count * ctx.span.step_s, 1)
    now = got.recent(int(ctx.span.end_us // US - (SETTLE_S if ctx.span.live else 0)), RATE_S)
    return {
        "pps": None if now is None else round(now[0], 1),
        "bps": None if now is None else round(now[1] * 8),
        "pps_mean": round(sum(totals) / seconds, 1),
        "bps_mean": round(8 * sum(sizes) / seconds),
        "pps_peak": round(max(totals, default=0) / step, 1),
        "bps_peak": round(8 * max(sizes, default=0) / step),
        "packets": got.packets,
        "bytes": got.bytes,
        "undecodable": got.undecodable,
    }


def _counters(ctx: Context, source: str, count: int) -> tuple[int, list[int]]:
    """Flows that began, and frames lost by bucket."""
    rows = ctx.rows(
        f"SELECT s // $step * $step, sum(flows)::BIGINT, sum({' + '.join(capture_state.CAUSES)})::BIGINT "
        f"FROM {source} GROUP BY 1", step=ctx.span.step_s,
    )  # fmt: skip
    dropped = [0] * count
    for bucket_s, _, lost in rows:
        at = (bucket_s - ctx.span.first_bucket_s) // ctx.span.step_s
        if 0 <= at < count:
            dropped[at] = lost
    return sum(row[1] for row in rows), dropped


def _alerts(ctx: Context) -> tuple[dict[str, list[Any]], dict[str, int]]:
    """Marks, and counts by severity, of the incidents that overlap the range."""
    ctx.lake.alerts(ctx.con)
    where = ctx.filter.without("proto").where("alerts")  # most alerts are of no single protocol
    rows = ctx.rows(
        f"SELECT first_seen, severity, kind, incident_id FROM mem.alerts "
        f"WHERE last_seen >= $since AND first_seen < $until AND {where.sql} "
        "ORDER BY list_position(['critical', 'high', 'medium', 'low'], severity), first_seen DESC",
        **where.values,
    )
    severities: dict[str, int] = {"critical": 0, "high": 0, "medium": 0, "low": 0}
    for row in rows:
        severities[row[1]] = severities.get(row[1], 0) + 1
    shown = rows[:MARKS]
    names = ("t", "severity", "kind", "id")
    return {name: [row[i] for row in shown] for i, name in enumerate(names)}, severities
