"""`host`: what one host is, does, serves and asks for."""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from analytics.watch.answers.host_facts import alerts_of, located, names_of
from analytics.watch.answers.hosts import SIDES
from analytics.watch.context import Context
from analytics.watch.info import CLASS_SQL
from analytics.watch.registry import NotFound, Param, question
from analytics.watch.statement import Statement
from engine.errors import ConfigError

TOP: Final = 20
PEERS: Final = 500  # whose countries are counted
_TOTALS: Final = ("bytes_sent", "bytes_received", "packets", "flows", "failed", "peers", "clients", "servers")
_ANSWERED: Final = "outcome IN ('established', 'answered', 'reset')"
_CALLED: Final = """
SELECT name, source, sum(n)::BIGINT AS count FROM (
    SELECT lower(query) AS name, CASE WHEN 5353 IN (src_port, dst_port) THEN 'mDNS' ELSE 'DNS' END AS source, count(*) AS n
    FROM {dns} WHERE qtype IN ('A', 'AAAA') AND list_contains(answers, $ip) GROUP BY ALL
    UNION ALL SELECT lower(server_name), upper(app), count(*) FROM {flows}
    WHERE dst_ip = $ip AND server_name IS NOT NULL AND NOT _asks_names(app) GROUP BY ALL
    UNION ALL SELECT lower(host_name), 'DHCP', count(*) FROM {dhcp}
    WHERE host_name IS NOT NULL AND $ip IN (client_ip, assigned_ip, requested_ip) GROUP BY ALL
    UNION ALL SELECT lower(name), 'NBNS', count(*) FROM {nbns}
    WHERE name IS NOT NULL AND op = 'registration' AND src_ip = $ip GROUP BY ALL)
WHERE name IS NOT NULL GROUP BY ALL ORDER BY count DESC, name"""


def _ip(ctx: Context) -> str:
    try:
        return str(ipaddress.ip_address(ctx.p.ip.strip()))
    except ValueError:
        raise ConfigError(f"ip {ctx.p.ip[:60]!r} is no address; use one such as 10.0.0.7") from None


class _Host:
    """The statements about one host, within the filter."""

    def __init__(self, ctx: Context) -> None:
        self.ip = _ip(ctx)
        where = ctx.where("flows")
        self.where, self.values = where.sql, {**where.values, "ip": self.ip}
        self.flows, self.inside = "{flows}", self.where  # where the rows are, and which of them
        self.added_up = False

    @property
    def sides(self) -> str:
        given = {"client": f"src_ip = $ip AND {self.inside}", "server": f"dst_ip = $ip AND {self.inside}"}
        return (SIDES % {**given, "n": "n" if self.added_up else "1"}).replace("{flows}", self.flows)

    def gather(self, ctx: Context) -> None:
        """Read its flows once for all statements but the timeline; those that differ in nothing they tell become one."""
        ctx.run(self.statement(
            "CREATE OR REPLACE TEMP TABLE of_host AS SELECT src_ip, dst_ip, dst_port, proto, app, server_name, outcome, "
            "if(part = 1, 1, 2) AS part, count(*) AS n, sum(src_bytes) AS src_bytes, sum(dst_bytes) AS dst_bytes, "
            "sum(src_packets) AS src_packets, sum(dst_packets) AS dst_packets, min(ts) AS ts, max(end_ts) AS end_ts, "
            "_at_highest(src_mac, end_ts) AS src_mac, _at_highest(dst_mac, end_ts) AS dst_mac FROM {flows} "
            f"WHERE (src_ip = $ip OR dst_ip = $ip) AND {self.where} GROUP BY 1, 2, 3, 4, 5, 6, 7, 8"
        ))  # fmt: skip
        self.flows, self.inside, self.added_up = "of_host", "true", True

    def count(self, condition: str) -> str:
        """How many flows are so."""
        if self.added_up:
            return f"coalesce(sum(n) FILTER ({condition}), 0)::BIGINT"
        return f"count(*) FILTER ({condition})"

    @property
    def app(self) -> str:
        """The application of most flows."""
        return "_at_highest(app, n)" if self.added_up else "mode(app ORDER BY app)"

    def statement(self, sql: str) -> Statement:
        return Statement(sql, self.values)

    def peers(self) -> Statement:
        return self.statement(
            f"SELECT peer AS ip, sum(sent)::BIGINT AS bytes_sent, sum(received)::BIGINT AS bytes_received, "
            f"sum(sent + received)::BIGINT AS bytes, {self.count('part = 1')} AS flows, max(end_ts) AS last_seen "
            f"FROM ({self.sides}) GROUP BY peer ORDER BY bytes DESC, peer"
        )

    def ports(self, *, client: bool) -> Statement:
        side, other = ("src_ip", "dst_ip") if client else ("dst_ip", "src_ip")
        answered = "" if client else f"AND {_ANSWERED}"
        return self.statement(
            f"SELECT dst_port AS port, proto, {self.app} AS app, count(DISTINCT {other}) AS peers, "
            f"{self.count('part = 1')} AS flows, {self.count(f'part = 1 AND NOT {_ANSWERED}')} AS failed, "
            f"sum(src_bytes + dst_bytes)::BIGINT AS bytes FROM {self.flows} WHERE {side} = $ip AND dst_port IS NOT NULL "
            f"{answered} AND {self.inside} GROUP BY dst_port, proto ORDER BY bytes DESC, port, proto"
        )

    def protocols(self) -> Statement:
        name = CLASS_SQL.replace("ethertype", "NULL::INTEGER")
        return self.statement(
            f"SELECT {name} AS class, {self.count('part = 1')} AS flows, sum(src_bytes + dst_bytes)::BIGINT AS bytes "
            f"FROM {self.flows} WHERE (src_ip = $ip OR dst_ip = $ip) AND {self.inside} GROUP BY ALL ORDER BY bytes DESC, class"
        )

    def called(self) -> Statement:
        return Statement(_CALLED, {"ip": self.ip})

    def asked(self) -> Statement:
        """Names that it asked for: of servers, in DNS and in handshakes."""
        return self.statement(
            f"SELECT lower(server_name) AS name, {self.app} AS app, {self.count('part = 1')} AS flows, "
            f"sum(src_bytes + dst_bytes)::BIGINT AS bytes FROM {self.flows} WHERE src_ip = $ip AND server_name IS NOT NULL "
            f"AND {self.inside} GROUP BY ALL ORDER BY flows DESC, name"
        )

    def alerts(self, ctx: Context, table: str) -> Statement:
        return Statement(
            f"SELECT incident_id AS id, kind, severity, status, why, src_ip, dst_ip, first_seen, last_seen FROM {table} "
            f"WHERE (src_ip = $ip OR dst_ip = $ip) AND last_seen >= $since AND first_seen < $until AND "
            f"{ctx.of_sensor('alerts')} ORDER BY last_seen DESC",
            {"ip": self.ip},
        )

    def timeline(self, ctx: Context) -> Statement:
        """Bytes by bucket; those of a flow count evenly over its time."""
        span = ctx.span
        return Statement(
            f"""WITH chosen AS (
                SELECT greatest(epoch_us(ts), $first) // 1000000 // $step * $step AS b0,
                       least(epoch_us(end_ts), $last) // 1000000 // $step * $step AS b1,
                       CASE WHEN src_ip = $ip THEN src_bytes ELSE dst_bytes END AS sent,
                       CASE WHEN src_ip = $ip THEN dst_bytes ELSE src_bytes END AS received
                FROM flows WHERE end_ts >= $since AND ts < $until AND (src_ip = $ip OR dst_ip = $ip)
                      AND {self.where}),
            parts AS (
                SELECT unnest(range(b0, b1 + 1, $step)) AS b, sent, received, (b1 - b0) // $step + 1 AS n
                FROM chosen WHERE b1 >= b0)
            SELECT b AS bucket_s, sum(sent / n)::BIGINT AS bytes_sent, sum(received / n)::BIGINT AS bytes_received
            FROM parts GROUP BY b ORDER BY b""",
            {**self.values, "step": span.step_s, "first": span.start_us, "last": span.end_us - 1},
        )  # fmt: skip


def host_statements(ctx: Context) -> dict[str, Statement]:
    one = _Host(ctx)
    connections = one.statement(
        "SELECT * EXCLUDE (src_head, dst_head) FROM {flows} WHERE (src_ip = $ip OR dst_ip = $ip) "
        f"AND {one.where} ORDER BY ts"
    )
    who = Statement("SELECT * FROM hosts_between($since, $until) WHERE ip = $ip", {"ip": one.ip})
    return {
        "connections": connections, "who": who, "timeline": one.timeline(ctx), "serves": one.ports(client=False),
        "uses": one.ports(client=True), "peers": one.peers(), "protocols": one.protocols(), "called": one.called(),
        "asked": one.asked(), "alerts": one.alerts(ctx, "alerts"),
    }  # fmt: skip


@question("host", "One host", params=(Param("ip", None, "Its address", required=True),), statements=host_statements,
          refresh_s=2)  # fmt: skip
def host(ctx: Context) -> dict[str, Any]:
    """ip; verdict: one sentence; about: {scope, country, country_name, city, as_org, asn, mac, name, first_seen,
    last_seen}; totals: {bytes_sent, bytes_received, packets, flows, failed, peers, countries, clients, servers};
    timeline: {start_s, step_s, sent_bps: [], received_bps: [], exact}; serves and uses: {port, proto, app, peers, flows,
    failed, bytes: []}, ports it answers on, and asks others on; peers: {ip, name, scope, country, bytes_sent,
    bytes_received, bytes, flows, last_seen, alerts, severity: []}; protocols: {class, flows, bytes: []}; called: {name, source,
    count: []}, what it is called and who says so; asked: {name, app, flows, bytes: []}, servers it named; alerts: {id,
    kind, severity, status, why, src_ip, dst_ip, first_seen, last_seen: []}. From flows; `exact` is false because a
    flow's bytes count evenly over its time. The filter restricts all but names it is called, and alerts by sensor only.
    """
    one = _Host(ctx)
    one.gather(ctx)
    total = ctx.one(one.statement(
        "SELECT coalesce(sum(sent), 0)::BIGINT, coalesce(sum(received), 0)::BIGINT, coalesce(sum(packets), 0)::BIGINT, "
        f"{one.count('part = 1')}, {one.count('part = 1 AND client AND NOT answered')}, count(DISTINCT peer), "
        "count(DISTINCT peer) FILTER (NOT client AND answered), count(DISTINCT peer) FILTER (client AND answered), "
        f"min(ts), max(end_ts), _at_highest(mac, end_ts) FROM ({one.sides})"))  # fmt: skip
    totals = dict(zip(_TOTALS, total, strict=False))
    ctx.lake.alerts(ctx.con)
    alerts = _first(ctx, one.alerts(ctx, "mem.alerts"), 100)
    if not totals["packets"] and not alerts["id"]:
        known = ctx.rows("SELECT min(first_seen) FROM addresses WHERE ip = $ip HAVING count(*) > 0", ip=one.ip)
        if not known:
            raise NotFound(f"host {one.ip} is not in the lake")
    peers = _first(ctx, one.peers(), PEERS)
    place = located(ctx, [*peers["ip"], one.ip], "scope", "country", "country_name", "city", "as_org", "asn")
    totals["countries"] = len({c for c in place["country"][:-1] if c})
    shown = {name: column[:TOP] for name, column in peers.items()}
    called, by_host = names_of(ctx, [*shown["ip"], one.ip]), alerts_of(ctx)
    shown |= {name: place[name][: len(shown["ip"])] for name in ("scope", "country")}
    shown |= {"name": [called.get(p) for p in shown["ip"]], "alerts": [by_host.get(p, (0,))[0] for p in shown["ip"]],
              "severity": [by_host.get(p, (0, None))[1] for p in shown["ip"]]}  # fmt: skip
    about = {name: column[-1] for name, column in place.items()}
    # Behind a router every address has the router's MAC: it says something of hosts on this link only.
    about |= {"mac": total[10] if about["scope"] in ("private", "link_local") else None, "name": called.get(one.ip),
              "first_seen": total[8], "last_seen": total[9]}  # fmt: skip
    serves = _first(ctx, one.ports(client=False), TOP)
    return {
        "ip": one.ip, "verdict": _verdict(about["scope"], totals, alerts, serves), "about": about, "totals": totals,
        "timeline": _timeline(ctx, one), "serves": serves, "uses": _first(ctx, one.ports(client=True), TOP),
        "peers": shown, "protocols": _first(ctx, one.protocols(), TOP), "called": _first(ctx, one.called(), TOP),
        "asked": _first(ctx, one.asked(), TOP), "alerts": alerts,
    }  # fmt: skip


def _first(ctx: Context, statement: Statement, most: int) -> dict[str, list[Any]]:
    return ctx.columns(Statement(f"{statement.sql} LIMIT {most}", statement.values))


def _verdict(
    scope: str | None, totals: dict[str, Any], alerts: dict[str, list[Any]], serves: dict[str, list[Any]]
) -> str:
    kind = {"private": "Internal host", "public": "External host", "link_local": "Host of this link",
            "multicast": "Group", "loopback": "Loopback address"}.get(scope or "", "Address")  # fmt: skip
    count = sum(status == "open" for status in alerts["status"])
    parts = [f"{count} open alert{'' if count == 1 else 's'}" if count else "no open alerts"]
    if totals["peers"]:
        talked = f"talked to {totals['peers']} peer{'' if totals['peers'] == 1 else 's'}"
        n = totals["countries"]
        parts.append(talked + (f" in {n} countr{'y' if n == 1 else 'ies'}" if n else ""))
    else:
        parts.append("no connection that began in this range")
    if totals["clients"]:
        on = ", ".join(
            f"{app or 'port'} {port}" for app, port in zip(serves["app"][:2], serves["port"][:2], strict=True)
        )
        parts.append(
            f"serves {totals['clients']} client{'' if totals['clients'] == 1 else 's'}" + (f" ({on})" if on else "")
        )
    if totals["flows"] and totals["failed"] > totals["flows"] / 2:
        parts.append(f"{totals['failed']} of {totals['flows']} connections failed")
    return f"{kind}, {', '.join(parts)}."


def _timeline(ctx: Context, one: _Host) -> dict[str, Any]:
    count, step = ctx.span.buckets(), ctx.span.step_s
    sent, received = [0] * count, [0] * count
    for bucket, out, back in ctx.rows(one.timeline(ctx)):
        at = (bucket - ctx.span.first_bucket_s) // step
        if 0 <= at < count:
            sent[at], received[at] = round(8 * out / step), round(8 * back / step)
    start = ctx.span.first_bucket_s
    return {"start_s": start, "step_s": step, "sent_bps": sent, "received_bps": received, "exact": False}
