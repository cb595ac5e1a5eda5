"""`hosts`, `places` and `graph`: who is there, where, and who talks to whom. One of them: `host.py`."""

from __future__ import annotations

from typing import Any, Final

from analytics.geoip import read_settings
from analytics.watch.answers.host_facts import NAMES, alerted, alerts_of, located, names_of
from analytics.watch.context import Context
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
           dst_bytes AS received, src_packets + dst_packets AS packets, part, ts, end_ts,
           outcome IN ('established', 'answered', 'reset') AS answered, src_mac AS mac
    FROM {flows} WHERE %(client)s
    UNION ALL
    SELECT dst_ip, src_ip, false, dst_port, proto, app, dst_bytes, src_bytes, src_packets + dst_packets, part, ts, end_ts,
           outcome IN ('established', 'answered', 'reset'), dst_mac
    FROM {flows} WHERE %(server)s"""


def _summed(ctx: Context) -> Statement:
    """A row per host: sums of both sides of its flows."""
    where = ctx.where("flows")
    sides = SIDES % {"client": where.sql, "server": where.sql}
    return Statement(
        f"""SELECT ip, sum(sent)::BIGINT AS bytes_sent, sum(received)::BIGINT AS bytes_received,
               sum(sent + received)::BIGINT AS bytes, sum(packets)::BIGINT AS packets, count(*) FILTER (part = 1) AS flows,
               count(*) FILTER (part = 1 AND client AND NOT answered) AS failed, count(DISTINCT peer) AS peers,
               min(ts) AS first_seen, max(end_ts) AS last_seen
        FROM ({sides}) WHERE peer IS NOT NULL GROUP BY ip""", where.values,
    )  # fmt: skip


def _order(ctx: Context) -> str:
    return f"{ctx.p.sort if ctx.p.sort in SORTS else 'bytes'} {'DESC' if ctx.p.order == 'desc' else 'ASC'}, ip"


def list_statement(ctx: Context) -> Statement:
    """The list as a table of the lake's views alone."""
    hosts = _summed(ctx)
    columns = "ip, name, scope, country, as_org, bytes_sent, bytes_received, bytes, packets, flows, failed, peers"
    return Statement(
        f"""SELECT {columns}, first_seen, last_seen, coalesce(alerts, 0) AS alerts, severity
        FROM (SELECT *, unnest(_geo(ip)) FROM ({hosts.sql})) LEFT JOIN ({NAMES}) USING (ip)
        LEFT JOIN ({alerted("alerts")}) USING (ip) ORDER BY {_order(ctx)}""", hosts.values,
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

    Sums are of flows that began in the range and ended, or were cut after five minutes. `name` is what DNS or clients
    called it, `alerts` those of the range that name it, `severity` the gravest of them.
    """
    ctx.lake.alerts(ctx.con)
    page = _summed(ctx)
    rows = ctx.columns(Statement(
        f"""SELECT hosts.*, coalesce(alerts, 0) AS alerts, severity, count(*) OVER () AS total_,
               (sum(bytes_sent) OVER ())::BIGINT AS bytes_
        FROM ({page.sql}) AS hosts LEFT JOIN ({alerted("mem.alerts")}) USING (ip)
        ORDER BY {_order(ctx)} LIMIT {int(ctx.p.limit)} OFFSET {int(ctx.p.offset)}""", page.values,
    ))  # fmt: skip
    total, size = rows.pop("total_"), rows.pop("bytes_")
    rows |= located(ctx, rows["ip"])
    names = names_of(ctx, rows["ip"])
    rows["name"] = [names.get(ip) for ip in rows["ip"]]
    return {"rows": rows, "total": total[0] if total else 0, "bytes": size[0] if size else 0}


# --- map -------------------------------------------------------------------------------------------------------------


def _placed(ctx: Context, of: str, more: str = "") -> Statement:
    found = _summed(ctx)
    return Statement(
        f"""SELECT {of}, count(*) AS hosts, sum(bytes_sent)::BIGINT AS bytes_sent,
               sum(bytes_received)::BIGINT AS bytes_received, sum(bytes)::BIGINT AS bytes{more}
        FROM (SELECT *, unnest(_geo(ip)) FROM ({found.sql})) WHERE scope = 'public' GROUP BY ALL
        ORDER BY bytes DESC, 1""", found.values,
    )  # fmt: skip


def place_statements(ctx: Context) -> dict[str, Statement]:
    places = "country, country_name, iso3"
    return {
        "countries": _placed(ctx, places),
        "cities": _placed(ctx, f"city, {places}", ", avg(latitude) AS lat, avg(longitude) AS lon"),
    }


@question("places", "Where hosts are", statements=place_statements, refresh_s=5)
def places(ctx: Context) -> dict[str, Any]:
    """countries: {country, country_name, iso3, hosts, bytes_sent, bytes_received, bytes: []}, sums of the hosts there;
    cities: {city, country, country_name, iso3, hosts, bytes_sent, bytes_received, bytes, lat, lon: []};
    unlocated, internal: {hosts, bytes}, public addresses that the database does not know, and all others;
    database: whether there is one; attribution, link.
    """
    settings = read_settings(ctx.lake.path)
    found = place_statements(ctx)
    lists = {}
    for name, most in (("countries", COUNTRIES), ("cities", CITIES)):
        lists[name] = ctx.columns(Statement(f"{found[name].sql} LIMIT {most}", found[name].values))
    hosts = _summed(ctx)
    sums = ctx.one(Statement(
        f"""SELECT count(*) FILTER (scope = 'public' AND country IS NULL),
               coalesce(sum(bytes) FILTER (scope = 'public' AND country IS NULL), 0)::BIGINT,
               count(*) FILTER (scope <> 'public'), coalesce(sum(bytes) FILTER (scope <> 'public'), 0)::BIGINT
        FROM (SELECT *, unnest(_geo(ip)) FROM ({hosts.sql}))""", hosts.values,
    ))  # fmt: skip
    known = [i for i, code in enumerate(lists["countries"]["country"]) if code]
    placed = [i for i, lat in enumerate(lists["cities"]["lat"]) if lat is not None]
    return {
        "countries": {name: [column[i] for i in known] for name, column in lists["countries"].items()},
        "cities": {name: [column[i] for i in placed] for name, column in lists["cities"].items()},
        "unlocated": {"hosts": sums[0], "bytes": sums[1]}, "internal": {"hosts": sums[2], "bytes": sums[3]},
        "database": bool(settings.database), "attribution": settings.attribution, "link": settings.link,
    }  # fmt: skip


# --- graph -----------------------------------------------------------------------------------------------------------


def edge_statement(ctx: Context) -> Statement:
    where = ctx.where("flows")
    return Statement(
        "SELECT least(src_ip, dst_ip) AS a, greatest(src_ip, dst_ip) AS b, sum(src_bytes + dst_bytes)::BIGINT AS bytes, "
        "count(*) FILTER (part = 1) AS flows, mode(app) AS app, "
        "count(*) FILTER (outcome NOT IN ('established', 'answered', 'reset')) AS failed "
        f"FROM {{flows}} WHERE {where.sql} GROUP BY ALL ORDER BY bytes DESC, a, b", where.values,
    )  # fmt: skip


@question("graph", "Who talks to whom", params=(Param("limit", EDGES, "Edges", low=1, high=EDGES),),
          statements=lambda ctx: {"edges": edge_statement(ctx)})  # fmt: skip
def graph(ctx: Context) -> dict[str, Any]:
    """nodes: {ip, bytes, scope, country, name, alerts, severity: []}; edges: {a, b, bytes, flows, app, failed: []}, the
    heaviest; hidden: edges that are not shown; bytes: of all edges, shown or not."""
    page = edge_statement(ctx)
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
    return {"nodes": nodes, "edges": edges, "hidden": hidden, "bytes": size[0] if size else 0}
