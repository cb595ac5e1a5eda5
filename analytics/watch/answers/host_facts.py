"""What is known of hosts besides their traffic: where they are, what they are called, which alerts name them."""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa

from analytics.watch.context import Context

_GRAVEST: Final = "arg_max(severity, list_position(['low', 'medium', 'high', 'critical'], severity))"

# The name most used for each address: of DNS answers, and what clients asked it for.
NAMES: Final = """SELECT ip, arg_max(name, n) AS name FROM (
    SELECT ip, name, count(*) AS n FROM (
        SELECT unnest(answers) AS ip, lower(query) AS name FROM {dns} WHERE qtype IN ('A', 'AAAA')
        UNION ALL
        SELECT dst_ip, lower(server_name) FROM {flows} WHERE server_name IS NOT NULL AND NOT _asks_names(app))
    WHERE name IS NOT NULL GROUP BY ip, name) GROUP BY ip"""


def alerted(table: str) -> str:
    """Incidents of the range by host, in a table of incidents: `alerts`, or what is kept of it in memory."""
    overlap = "last_seen >= $since AND first_seen < $until"
    return f"""SELECT ip, count(*) AS alerts, {_GRAVEST} AS severity FROM (
        SELECT src_ip AS ip, incident_id, severity FROM {table} WHERE {overlap}
        UNION SELECT dst_ip, incident_id, severity FROM {table} WHERE {overlap}) WHERE ip IS NOT NULL GROUP BY ip"""


def located(ctx: Context, ips: list[str], *names: str) -> dict[str, list[Any]]:
    """Columns of `geo` for addresses."""
    found = ctx.lake.locator.locate(pa.array(ips, pa.string()))
    return {name: found.field(name).to_pylist() for name in names or ("scope", "country", "country_name", "as_org")}


def names_of(ctx: Context, ips: list[str]) -> dict[str, str]:
    """The name of each address that has one."""
    return dict(ctx.rows(f"SELECT * FROM ({NAMES}) WHERE list_contains($ips, ip)", ips=ips))


def alerts_of(ctx: Context) -> dict[str, tuple[int, str]]:
    """How many incidents of the range name each host, and the gravest severity of them."""
    ctx.lake.alerts(ctx.con)
    return {row[0]: (row[1], row[2]) for row in ctx.rows(alerted("mem.alerts"))}
