"""`anomalies` and `anomaly_alerts`: how unusual packets were over time, and what a threshold would have raised.

The first is from `model_stats`, a row for each minute, and never from packets; the second plays the rule of
`[scoring] alert` over the packets that are as unusual.
"""

from __future__ import annotations

from typing import Any, Final

from analytics.watch.context import Context
from analytics.watch.registry import Param, question
from analytics.watch.statement import Statement
from analytics.watch.timerange import US
from engine import settings
from engine.config import ScoringConfig, parse_config
from engine.errors import ConfigError
from engine.model_row import EDGES, N_BINS

BOUNDS: Final = (0.0, *EDGES)  # of the bins, the lower ones
_THRESHOLDS: Final = (
    "_anomaly_thresholds($since, $until, false, "
    "coalesce((SELECT list(DISTINCT sensor) FROM {{model_stats}} WHERE {}), []::VARCHAR[]))"
)
_STEPS_S: Final = tuple(60 * n for n in (1, 2, 5, 10, 15, 30, 60, 120, 240, 360, 720, 1440))
_BUCKETS: Final = 180
_MOST: Final = 200_000  # packets that are played; a threshold that more reach is not one to alert on
THRESHOLD: Final = Param("threshold", 0.99, "A candidate", low=0, high=1)
# As engine.detect.packet_score and its cooldown have it: `alerts_per_hour` sources an hour, the first ones; an hour
# without such a packet ends the alert of a source.
_PLAYED: Final = """
WITH hits AS (
    SELECT sensor, src_ip, ts, date_trunc('hour', ts) AS hour FROM {packets}
    WHERE anomaly >= $threshold AND src_ip IS NOT NULL AND __WHERE__),
told AS (
    SELECT sensor, hour, src_ip, row_number() OVER (PARTITION BY sensor, hour ORDER BY min(ts), src_ip) AS place
    FROM hits GROUP BY sensor, hour, src_ip),
runs AS (
    SELECT told.sensor, src_ip, ts, place,
           lag(ts) OVER (PARTITION BY told.sensor, src_ip, place <= __MOST__ ORDER BY ts) AS last
    FROM hits JOIN told USING (sensor, hour, src_ip))
SELECT count(*) AS packets, count(DISTINCT src_ip) AS sources,
       count(*) FILTER (place <= __MOST__ AND (last IS NULL OR ts > last + INTERVAL 1 HOUR)) AS alerts,
       count(DISTINCT src_ip) FILTER (place > __MOST__) AS sources_not_told
FROM runs
"""


def step_of(seconds: float) -> int:
    """Seconds of a bucket: minutes, so many that the chart has at most 180."""
    return next(
        (step for step in _STEPS_S if seconds / step <= _BUCKETS), -(-int(seconds) // _BUCKETS // 86_400) * 86_400
    )


def scoring_of(ctx: Context) -> ScoringConfig:
    """What the lake's engine is configured to, else the usual."""
    path = settings.last_file(ctx.lake.path)
    try:
        return parse_config(path.read_text(encoding="utf-8"), path.name).scoring
    except (OSError, ValueError, ConfigError):
        return ScoringConfig()


def _minutes(ctx: Context) -> Statement:
    step_us = step_of(ctx.span.seconds) * US
    sums = ", ".join(f"sum(bins[{n}])::BIGINT" for n in range(1, N_BINS + 1))
    return Statement(
        f"SELECT make_timestamp(epoch_us(ts) // {step_us} * {step_us}) AS ts, sum(scored)::BIGINT AS scored, sum(above)::BIGINT AS above, "
        "max(top_anomaly) AS highest, max(psi) AS psi, "
        "_at_highest(worst_feature, worst_psi) AS worst_feature, sum(not_learned)::BIGINT AS not_learned, "
        f"_at_highest(model, ts) AS model, _at_highest(model_sensor, ts) AS model_sensor, [{sums}] AS bins "
        f"FROM {{model_stats}} WHERE {ctx.of_sensor('model_stats')} GROUP BY 1 ORDER BY 1"
    )


def statements(ctx: Context) -> dict[str, Statement]:
    return {"minutes": _minutes(ctx), "thresholds": Statement(f"SELECT * FROM {_thresholds(ctx)}")}


def _thresholds(ctx: Context) -> str:
    """As the view `anomaly_threshold`, of the range and the sensors."""
    if not ctx.filter.about("sensor"):
        return "anomaly_threshold_between($since, $until)"
    return _THRESHOLDS.format(ctx.of_sensor("model_stats"))


@question("anomalies", "What was unusual", params=(THRESHOLD,), statements=statements, refresh_s=5)
def anomalies(ctx: Context) -> dict[str, Any]:
    """minutes: {ts, scored, p50, p90, p99, highest, above, psi, worst_feature: []}, buckets of step_s from start_s on,
    those without packets left out; threshold, alert, alerts_per_hour: as configured; thresholds: {threshold, packets, share,
    usual_share, minutes, packets_per_hour: []}, packets that were that unusual; would: {threshold, packets, minutes,
    packets_per_hour}, of the candidate (at the bound of a bin at or below it); totals: {scored, above, not_learned,
    highest, psi, worst_feature, psi_ts}, the newest index; model: version, model_sensor. Quantiles are lower
    bounds of bins. Of a filter, what it says of sensors counts.
    """
    ctx.sensors_alone()
    rows = ctx.columns(_minutes(ctx))
    bins = rows.pop("bins")
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        rows[name] = [_quantile(counts, share) for counts in bins]
    thresholds = ctx.columns(f"SELECT * FROM {_thresholds(ctx)}")
    below = [i for i, t in enumerate(thresholds["threshold"]) if t is not None and t <= ctx.p.threshold]
    would = {name: (thresholds[name][below[-1]] if below else 0) for name in ("packets", "minutes", "packets_per_hour")}
    newest: dict[str, Any] = {name: (rows.pop(name) or [None])[-1] for name in ("model", "model_sensor")}
    indexed = [i for i, psi in enumerate(rows["psi"]) if psi is not None]
    totals: dict[str, Any] = {name: sum(rows[name]) for name in ("scored", "above", "not_learned")}
    totals["highest"] = max((h for h in rows["highest"] if h is not None), default=None)
    for name, column in (("psi", "psi"), ("worst_feature", "worst_feature"), ("psi_ts", "ts")):
        totals[name] = rows[column][indexed[-1]] if indexed else None
    config = scoring_of(ctx)
    return {
        "step_s": step_of(ctx.span.seconds), "start_s": ctx.span.start_us // US, "minutes": rows, "totals": totals,
        "threshold": config.threshold, "thresholds": thresholds,
        "would": {"threshold": ctx.p.threshold, **would}, "model": newest["model"],
        "model_sensor": newest["model_sensor"], "alerts_per_hour": config.alerts_per_hour, "alert": config.alert,
    }  # fmt: skip


def _quantile(counts: list[int | None], share: float) -> float | None:
    """The lower bound of the bin that this share of the packets does not exceed."""
    wanted, below = share * sum(c or 0 for c in counts), 0
    for bound, count in zip(BOUNDS, counts, strict=True):
        below += count or 0
        if below >= wanted > 0:
            return bound
    return None


def reached(ctx: Context, threshold: float) -> int:
    """How many packets of the range and the sensors, other terms or not, reach the bin of the threshold."""
    rows = ctx.rows(
        f"SELECT packets FROM {_thresholds(ctx)} WHERE threshold <= $t ORDER BY threshold DESC LIMIT 1",
        t=threshold,
    )
    return int(rows[0][0] or 0) if rows else 0


def _played(ctx: Context) -> Statement:
    where = ctx.where("packets")
    sql = _PLAYED.replace("__WHERE__", where.sql).replace("__MOST__", str(scoring_of(ctx).alerts_per_hour))
    return Statement(sql, {"threshold": ctx.p.threshold, **where.values})


@question("anomaly_alerts", "What a threshold would have raised", params=(THRESHOLD,), refresh_s=5,
          statements=lambda ctx: {"alerts": _played(ctx)})  # fmt: skip
def anomaly_alerts(ctx: Context) -> dict[str, Any]:
    """threshold; packets that reach it; alerts that they would have been; their sources; sources_not_told: because of
    the limit of sources an hour, alerts_per_hour. Null where more than 200,000 packets reach it (too_many)."""
    answer: dict[str, Any] = dict.fromkeys(("packets", "sources", "alerts", "sources_not_told"))
    answer |= {"threshold": ctx.p.threshold, "alerts_per_hour": scoring_of(ctx).alerts_per_hour, "too_many": False}
    if reached(ctx, ctx.p.threshold) > _MOST:
        return answer | {"too_many": True}
    found = ctx.columns(_played(ctx))
    return answer | {name: values[0] for name, values in found.items()}
