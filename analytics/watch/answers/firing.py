"""`firing`: how often each kind of alert has come lately, for whoever sets the thresholds."""

from __future__ import annotations

from typing import Any, Final

from analytics.watch.context import Context
from analytics.watch.registry import question
from analytics.watch.statement import Statement
from analytics.watch.timerange import US

DAYS: Final = 7
DAY_US: Final = 86_400 * US
_SQL: Final = """
SELECT kind, count(*) AS alerts, min(first_seen) AS first, max(last_seen) AS last FROM {table}
WHERE first_seen >= {since} GROUP BY kind ORDER BY alerts DESC
"""


def statements(_: Context) -> dict[str, Statement]:
    since = f"now()::TIMESTAMP - INTERVAL {DAYS} DAYS"
    return {"kinds": Statement(_SQL.format(table="alerts", since=since))}


@question(
    "firing", "Alerts by kind in the last seven days", statements=statements, ranged=False, filtered=False, refresh_s=10
)
def firing(ctx: Context) -> dict[str, Any]:
    """kinds: {kind, alerts, first, last}, most frequent first; days: how long there have been alerts to count, at most
    seven and at least one."""
    ctx.lake.alerts(ctx.con)
    since = round((ctx.now - DAYS * 86_400) * US)
    kinds = ctx.columns(_SQL.format(table="mem.alerts", since="make_timestamp($since)"), since=since)
    first = min(kinds["first"], default=None)
    age = 0.0 if first is None else (ctx.now * US - first) / DAY_US
    return {"kinds": kinds, "days": round(min(float(DAYS), max(1.0, age)), 2)}
