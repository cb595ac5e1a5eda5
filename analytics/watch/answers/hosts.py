"""`hosts`, `places` and `graph`: who is there, where, and who talks to whom. One of them: `host.py`."""

from __future__ import annotations

from typing import Any, Final

from analytics.geoip import read_settings
from analytics.watch.answers import traffic
from analytics.watch.answers.host_facts import NAMES, alerted, alerts_of, located, names_of
from analytics.watch.context import Context
from analytics.watch.mirror import HOSTS
from analytics.watch.registry import Param, question
from analytics.watch.statement import Statement

SORTS: Final = (
    "bytes", "bytes_sent", "bytes_received", "packets", "flows", "failed", "peers", "first_seen", "last_seen", "alerts",
    "ip",
)  # fmt: skip
EDGES: Final = 150
COUNTRIES: Final = 250
CITIES: Final = 200
SIDES: Final = """
    SELECT src_ip AS ip, dst_ip AS peer, true AS client, dst_port AS port, proto, app, src_bytes AS sent,
           dst_bytes AS received, src_packets + dst_packets AS packets, part, %(n)s AS n, ts,
           end_ts, outcome IN ('established', 'answered', 'reset') AS answered, src_mac AS mac
    FROM {flows} WHERE %(client)s
    UNION ALL
    SELECT dst_ip, src_ip, false, dst_port, proto, app, dst_bytes, src_bytes, src_packets + dst_packets, part, %(n)s, ts,
           end_ts, outcome IN ('established', 'answered', 'reset'), dst_mac
    FROM {flows} WHERE %(server)s"""


_PAIRS: Final = """
    SELECT src_ip, dst_ip, sum(src_bytes) AS sent, sum(dst_bytes) AS received, sum(src_packets + dst_packets) AS packets,
           count(*) FILTER (part = 1) AS flows,
           count(*) FILTER (part = 1 AND outcome NOT IN ('established', 'answered', 'reset')) AS failed,
           min(ts) AS first_seen, max(end_ts) AS last_seen
    FROM {flows} WHERE %s GROUP BY src_ip, dst_ip"""
_KEPT_PAIRS: Final = """
    SELECT src_ip, dst_ip, sum(sent) AS sent, sum(bytes - sent) AS received, sum(packets) AS packets, sum(flows) AS flows,
           sum(failed) AS failed, make_timestamp(-max(before)) AS first_seen, make_timestamp(max(ended)) AS last_seen
    FROM %s WHERE %s GROUP BY src_ip, dst_ip"""


def _summed(ctx: Context, pairs: str = "") -> Statement:
    """A row per host: sums of both sides of its flows. `pairs`: what they are summed from, else the flows themselves."""
    where = ctx.where("flows")
    return Statement(
        f"""WITH pairs AS ({pairs or _PAIRS % where.sql})
        SELECT ip, sum(sent)::BIGINT AS bytes_sent, sum(received)::BIGINT AS bytes_received,
               sum(sent + received)::BIGINT AS bytes, sum(packets)::BIGINT AS packets, sum(flows)::BIGINT AS flows,
               sum(failed)::BIGINT AS failed, count(DISTINCT peer) AS peers,
               min(first_seen) AS first_seen, max(last_seen) AS last_seen
        FROM (SELECT src_ip AS ip, dst_ip AS peer, sent, received, packets, flows, failed, first_seen, last_seen FROM pairs
              UNION ALL
              SELECT dst_ip, src_ip, received, sent, packets, flows, 0, first_seen, last_seen FROM pairs)
        WHERE peer IS NOT NULL GROUP BY ip""", where.values,
    )  # fmt: skip


def _kept(ctx: Context) -> tuple[str, float]:
    """Pairs of the range that are kept in memory, as a table expression, and the share that is read so far; ("", 1) if
    the range or the filter asks for more than is kept."""
    if not ctx.span.live or not ctx.filter.only("sensor"):
        return "", 1.0
    source, loaded = traffic.source(ctx, HOSTS)
    return source, loaded


def _now(ctx: Context) -> tuple[Statement, float]:
    """The sums for an answer: from what is kept if it can be. And the share of it that is read so far."""
    source, loaded = _kept(ctx)
    return _summed(ctx, _KEPT_PAIRS % (source, ctx.where("flows").sql) if source else ""), loaded


def _order(ctx: Context) -> str:
    return f"{ctx.p.sort if ctx.p.sort in SORTS else 'bytes'} {'DESC' if ctx.p.order == 'desc' else 'ASC'}, ip"


def list_statement(ctx: Context) -> Statement:
    """The list as a table of the lake's views alone."""
    hosts = _summed(ctx)
    columns = "ip, name, scope, country, as_org, bytes_sent, bytes_received, bytes, packets, flows, failed, peers"
    return Statement(
        f"""SELECT {columns}, first_seen, last_seen, coalesce(alerts, 0) AS alerts, severity
        FROM (SELECT *, unnest(_geo(ip)) FROM ({hosts.sql})) LEFT JOIN ({NAMES}) USING (ip)
        LEFT JOIN ({alerted(ctx, "alerts")}) USING (ip) ORDER BY {_order(ctx)}""", hosts.values,
    )  # fmt: skip


@question(
    "hosts", "Hosts of the range",
    params=(
        Param("sort", "bytes", "Column", choices=SORTS), Param("order", "desc", "Direction", choices=("desc", "asc")),
        Param("offset", 0, "Rows to pass over", low=0, high=100_000),
        Param("limit", 100, "Rows of a page", low=1, high=1000),
    ),
    statements=lambda ctx: {"hosts": list_statement(ctx)},
)  # fmt: skip
def hosts(ctx: Context) -> dict[str, Any]:
    """rows: {ip, bytes_sent, bytes_received, bytes, packets, flows, failed, peers, first_seen, last_seen, scope, country
    (two letters), country_name, as_org, name, alerts, severity: []}; total; bytes: of all connections.

    Sums are of flows that began in the range and ended, or were cut after five minutes; in a live range without a filter
    they begin with a whole minute (a whole hour when it is longer than two). `name` is what DNS or clients
    called it, `alerts` those of the range that name it, `severity` the gravest of them; loaded: share of the range that
    is counted so far, 0 to 1.
    """
    ctx.lake.alerts(ctx.con)
    page, loaded = _now(ctx)
    rows = ctx.columns(Statement(
        f"""SELECT hosts.*, coalesce(alerts, 0) AS alerts, severity, count(*) OVER () AS total_,
               (sum(bytes_sent) OVER ())::BIGINT AS bytes_
        FROM ({page.sql}) AS hosts LEFT JOIN ({alerted(ctx, "mem.alerts")}) USING (ip)
        ORDER BY {_order(ctx)} LIMIT {int(ctx.p.limit)} OFFSET {int(ctx.p.offset)}""", page.values,
    ))  # fmt: skip
    total, size = rows.pop("total_"), rows.pop("bytes_")
    rows |= located(ctx, rows["ip"])
    names = names_of(ctx, rows["ip"])
    rows["name"] = [names.get(ip) for ip in rows["ip"]]
    return {
        "rows": rows,
        "total": total[0] if total else 0,
        "bytes": size[0] if size else 0,
        "loaded": round(loaded, 3),
    }


# --- map -------------------------------------------------------------------------------------------------------------


def _placed(found: Statement, of: str, more: str = "") -> Statement:
    return Statement(
        f"""SELECT {of}, count(*) AS hosts, sum(bytes_sent)::BIGINT AS bytes_sent,
               sum(bytes_received)::BIGINT AS bytes_received, sum(bytes)::BIGINT AS bytes{more}
        FROM ({found.sql}) WHERE scope = 'public' GROUP BY ALL
        ORDER BY bytes DESC, 1""", found.values,
    )  # fmt: skip


def _located(hosts: Statement) -> Statement:
    return Statement(f"SELECT *, unnest(_geo(ip)) FROM ({hosts.sql})", hosts.values)


def place_statements(ctx: Context, found: Statement | None = None) -> dict[str, Statement]:
    """The lists, of hosts and where they are."""
    found, places = found or _located(_summed(ctx)), "country, country_name, iso3"
    return {
        "countries": _placed(found, places),
        "cities": _placed(found, f"city, {places}", ", avg(latitude) AS lat, avg(longitude) AS lon"),
    }


@question("places", "Where hosts are", statements=place_statements, refresh_s=5)
def places(ctx: Context) -> dict[str, Any]:
    """countries: {country, country_name, iso3, hosts, bytes_sent, bytes_received, bytes: []}, sums of the hosts there;
    cities: {city, country, country_name, iso3, hosts, bytes_sent, bytes_received, bytes, lat, lon: []};
    unlocated, internal: {hosts, bytes}, public addresses that the database does not know, and all others;
    database: whether there is one; attribution, link.
    """
    settings = read_settings(ctx.lake.path)
    hosts, loaded = _now(ctx)
    once = _located(hosts)  # the lists and the sums are of the same rows
    ctx.run(Statement(f"CREATE OR REPLACE TEMP TABLE located_hosts AS {once.sql}", once.values))
    found = place_statements(ctx, Statement("FROM located_hosts"))
    lists = {}
    for name, most in (("countries", COUNTRIES), ("cities", CITIES)):
        lists[name] = ctx.columns(Statement(f"{found[name].sql} LIMIT {most}", found[name].values))
    sums = ctx.one(
        """SELECT count(*) FILTER (scope = 'public' AND country IS NULL),
               coalesce(sum(bytes) FILTER (scope = 'public' AND country IS NULL), 0)::BIGINT,
               count(*) FILTER (scope <> 'public'), coalesce(sum(bytes) FILTER (scope <> 'public'), 0)::BIGINT
        FROM located_hosts"""
    )
    known = [i for i, code in enumerate(lists["countries"]["country"]) if code]
    placed = [i for i, lat in enumerate(lists["cities"]["lat"]) if lat is not None]
    return {
        "countries": {name: [column[i] for i in known] for name, column in lists["countries"].items()},
        "cities": {name: [column[i] for i in placed] for name, column in lists["cities"].items()},
        "unlocated": {"hosts": sums[0], "bytes": sums[1]}, "internal": {"hosts": sums[2], "bytes": sums[3]},
        "database": bool(settings.database), "attribution": settings.attribution, "link": settings.link,
        "loaded": round(loaded, 3),
    }  # fmt: skip


# --- graph -----------------------------------------------------------------------------------------------------------


def edge_statement(ctx: Context) -> Statement:
    where = ctx.where("flows")
    return Statement(f"{_EDGES % (_FLOW_SUMS, '{flows}', where.sql)} ORDER BY bytes DESC, a, b", where.values)


_EDGES: Final = """
    SELECT a, b, sum(bytes)::BIGINT AS bytes, sum(flows)::BIGINT AS flows, _at_highest(app, parts) AS app,
           sum(failed)::BIGINT AS failed
    FROM (SELECT least(src_ip, dst_ip) AS a, greatest(src_ip, dst_ip) AS b, app, %s
          FROM %s WHERE %s GROUP BY 1, 2, 3)
    GROUP BY a, b"""
_FLOW_SUMS: Final = (
    "sum(src_bytes + dst_bytes) AS bytes, count(*) FILTER (part = 1) AS flows, count(*) AS parts, "
    "count(*) FILTER (outcome NOT IN ('established', 'answered', 'reset')) AS failed"
)
_KEPT_SUMS: Final = "sum(bytes) AS bytes, sum(flows) AS flows, sum(parts) AS parts, sum(failed_parts) AS failed"


@question("graph", "Who talks to whom", params=(Param("limit", EDGES, "Edges", low=1, high=EDGES),),
          statements=lambda ctx: {"edges": edge_statement(ctx)})  # fmt: skip
def graph(ctx: Context) -> dict[str, Any]:
    """nodes: {ip, bytes, scope, country, name, alerts, severity: []}; edges: {a, b, bytes, flows, app, failed: []}, the
    heaviest; hidden: edges that are not shown; bytes: of all edges, shown or not."""
    source, loaded = _kept(ctx)
    where = ctx.where("flows")
    page = Statement(_EDGES % (_KEPT_SUMS, source, where.sql), where.values) if source else edge_statement(ctx)
    edges = ctx.columns(Statement(
        f"SELECT *, count(*) OVER () AS total_, (sum(bytes) OVER ())::BIGINT AS bytes_ FROM ({page.sql}) "
        f"ORDER BY bytes DESC, a, b LIMIT {int(ctx.p.limit)}", page.values))  # fmt: skip
    total, size = edges.pop("total_"), edges.pop("bytes_")
    sizes: dict[str, int] = {}
    for a, b, one in zip(edges["a"], edges["b"], edges["bytes"], strict=True):
        sizes[a] = sizes.get(a, 0) + one
        sizes[b] = sizes.get(b, 0) + one
    ips = list(sizes)
    place, alerts, names = located(ctx, ips, "scope", "country"), alerts_of(ctx), names_of(ctx, ips)
    nodes = {"ip": ips, "bytes": [sizes[ip] for ip in ips], **place, "name": [names.get(ip) for ip in ips],
             "alerts": [alerts.get(ip, (0,))[0] for ip in ips], "severity": [alerts.get(ip, (0, None))[1] for ip in ips]}  # fmt: skip
    hidden = (total[0] if total else 0) - len(edges["a"])
    return {
        "nodes": nodes,
        "edges": edges,
        "hidden": hidden,
        "bytes": size[0] if size else 0,
        "loaded": round(loaded, 3),
    }
