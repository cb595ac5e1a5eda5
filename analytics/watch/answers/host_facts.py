"""What is known of hosts besides their traffic: where they are, what they are called, which alerts name them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, Final

import pyarrow as pa

from analytics.watch.context import Context

_GRAVEST: Final = "arg_max(severity, list_position(['low', 'medium', 'high', 'critical'], severity))"

# The name most used for each address: of DNS answers, and what clients asked it for.
NAMES: Final = """SELECT ip, _at_highest(name, n) AS name FROM (
    SELECT ip, name, count(*) AS n FROM (
        SELECT unnest(answers) AS ip, lower(query) AS name FROM {dns} WHERE qtype IN ('A', 'AAAA')
        UNION ALL
        SELECT dst_ip, lower(server_name) FROM {flows} WHERE server_name IS NOT NULL AND NOT _asks_names(app))
    WHERE name IS NOT NULL GROUP BY ip, name) GROUP BY ip"""

# The same for some addresses: everything else is left out before it is added up.
NAMES_OF: Final = """SELECT ip, _at_highest(name, n) AS name FROM (
    SELECT ip, name, count(*) AS n FROM (
        SELECT unnest(answers) AS ip, lower(query) AS name FROM {dns} WHERE qtype IN ('A', 'AAAA')
        UNION ALL
        SELECT dst_ip, lower(server_name) FROM {flows} WHERE server_name IS NOT NULL AND NOT _asks_names(app))
    WHERE name IS NOT NULL AND ip IN (SELECT unnest($ips)) GROUP BY ip, name) GROUP BY ip"""
NAMES_S: Final = 60.0
RANGES: Final = 32
MOST_NAMES: Final = 20_000


def alerted(ctx: Context, table: str) -> str:
    """Incidents of the range and its sensors by host, in a table of incidents: `alerts`, or what is kept of it in memory."""
    overlap = f"last_seen >= $since AND first_seen < $until AND {ctx.of_sensor('alerts')}"
    return f"""SELECT ip, count(*) AS alerts, {_GRAVEST} AS severity FROM (
        SELECT src_ip AS ip, incident_id, severity FROM {table} WHERE {overlap}
        UNION SELECT dst_ip, incident_id, severity FROM {table} WHERE {overlap}) WHERE ip IS NOT NULL GROUP BY ip"""


def located(ctx: Context, ips: list[str], *names: str) -> dict[str, list[Any]]:
    """Columns of `geo` for addresses."""
    found = ctx.lake.locator.locate(pa.array(ips, pa.string()))
    return {name: found.field(name).to_pylist() for name in names or ("scope", "country", "country_name", "as_org")}


class _Names:
    """Names by address for each range that was asked about. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[Any, ...], tuple[float, dict[str, str | None]]] = OrderedDict()

    def get(self, key: tuple[Any, ...], now: float) -> dict[str, str | None]:
        """Of a live range they hold for a while: names change more slowly than it moves."""
        with self._lock:
            made, found = self._known.get(key, (now, {}))
            return dict(found) if 0 <= now - made < NAMES_S else {}

    def put(self, key: tuple[Any, ...], now: float, names: dict[str, str | None]) -> None:
        with self._lock:
            made, found = self._known.get(key, (now, {}))
            if not 0 <= now - made < NAMES_S or len(found) > MOST_NAMES:
                made, found = now, {}
            self._known[key] = made, found | names
            self._known.move_to_end(key)
            while len(self._known) > RANGES:
                self._known.popitem(last=False)


_KNOWN: Final = _Names()


def names_of(ctx: Context, ips: list[str]) -> dict[str, str]:
    """The name of each address that has one. In a live range at most NAMES_S old."""
    key = (str(ctx.lake.path), ctx.span.seconds if ctx.span.live else (ctx.span.start_us, ctx.span.end_us))
    known = _KNOWN.get(key, ctx.now) if ctx.span.live else {}
    missing = [ip for ip in dict.fromkeys(ips) if ip not in known]
    if missing:
        found = dict.fromkeys(missing) | dict(ctx.rows(NAMES_OF, ips=missing))
        known |= found
        _KNOWN.put(key, ctx.now, found)
    return {ip: name for ip in ips if (name := known.get(ip)) is not None}


def alerts_of(ctx: Context) -> dict[str, tuple[int, str]]:
    """How many incidents of the range name each host, and the gravest severity of them."""
    ctx.lake.alerts(ctx.con)
    return {row[0]: (row[1], row[2]) for row in ctx.rows(alerted(ctx, "mem.alerts"))}
