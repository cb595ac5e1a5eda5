"""`state`: what stands in the frame of every page. Tiny, asked every second."""

from __future__ import annotations

from typing import Any, Final

from analytics.watch import capture_state
from analytics.watch.context import Context
from analytics.watch.registry import question
from analytics.watch.statement import Statement
from engine.alert_row import SEVERITIES

OPEN: Final = """
SELECT severity, count(*) FROM mem.alerts WHERE status = 'open' AND {} GROUP BY severity
"""


def open_alerts(ctx: Context) -> dict[str, int]:
    """Open alerts of any time by severity."""
    ctx.lake.alerts(ctx.con)
    found = dict(ctx.rows(OPEN.format(ctx.of_sensor("alerts"))))
    return {severity: found.get(severity, 0) for severity in reversed(SEVERITIES)}


def statements(ctx: Context) -> dict[str, Statement]:
    return {
        "capture": Statement(
            "SELECT source, max(ts) AS last, sum(received) AS received, sum(kernel_drops) AS kernel_drops, "
            f"sum(interface_drops) AS interface_drops FROM {{capture_stats}} WHERE {ctx.of_sensor('capture_stats')} "
            "GROUP BY source ORDER BY last DESC"
        ),
        "alerts": Statement(
            f"SELECT severity, count(*) AS alerts FROM alerts WHERE status = 'open' AND {ctx.of_sensor('alerts')} "
            "GROUP BY severity"
        ),
    }


@question("state", "How the capture is doing", statements=statements)
def state(ctx: Context) -> dict[str, Any]:
    """capture: {state: live|stopped|none, sources: [name], sensors: [name], pps, bps, fill, last, age_s};
    minute: {pct, lost, seen, by_cause: {counter: frames}}, losses of the last 60 s;
    alerts: {critical, high, medium, low}, open ones of any time; sensors: [name], all that wrote into the lake; now.
    Of a filter, what it says of sensors counts.

    pps, bps and fill (percent of the engine's batches in use, at most) are None unless live. `age_s` is how old the newest counters are.
    """
    ctx.sensors_alone()
    source, loaded = capture_state.stats_source(ctx)
    return {
        "now": int(ctx.now * 1_000_000),
        "capture": capture_state.sources(ctx, source),
        "minute": capture_state.drops(ctx, source, int(ctx.now) - 60),
        "alerts": open_alerts(ctx),
        "sensors": ctx.lake.sensors(),
        "loaded": round(loaded, 3),
    }
