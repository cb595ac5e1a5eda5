"""`unusual_windows` and `unusual_packets`: what was unusual, and which of its features made it so."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from analytics.anomalies import explainer_of
from analytics.packet_features import COLUMNS as FEATURES
from analytics.packet_features import features_of
from analytics.watch.answers import packet_rows
from analytics.watch.answers.anomalies import THRESHOLD, reached
from analytics.watch.context import Context, plain
from analytics.watch.registry import Param, question
from analytics.watch.statement import Statement, literal
from analytics.watch.timerange import US
from engine.detect.anomaly.columns import COLUMNS, LEAST_PACKETS, VERSION, value_of
from engine.errors import ConfigError
from engine.models import Model, ModelStore

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WINDOW: Final = "window"
_REASONS: Final = 3
_SLACK_US: Final = 10 * US  # between a window and the alert about the same: findings end before what they are about
_LEAST_SPREAD: Final = 1.0  # as engine.detect.anomaly.scorers
_LEAST_SCORE: Final = 1.5  # for models of other methods, whose thresholds are on another scale
_LITTLE: Final = 4096  # as engine.detect.anomaly.columns
_SQL: Final = {
    "dns_names": "log2(1 + coalesce(dns_names, 0))", "dns_entropy": "coalesce(dns_entropy, 0)", "entropy": "coalesce(entropy, 0)",
    "upload": f"greatest(0, log2((out_payload + {_LITTLE}) / (in_payload + {_LITTLE})))",
}  # fmt: skip
_SCANNED: Final = 5_000_000  # packets that are looked through; of more, the minutes that have most of what is asked
_MINUTES: Final = 10
_KEY: Final = ("src_ip", "arp_src_ip", "dst_ip", "arp_dst_ip", "proto", "ethertype", "dst_port")
_ORDER: Final = "ts, ts_nanos, frame_no, source, sensor"
_READ: Final = tuple(dict.fromkeys((*packet_rows.READ, *FEATURES)))

# --- windows of hosts ------------------------------------------------------------------------------------------------


def _model(ctx: Context, sensor: str) -> Model | None:
    """The sensor's model of windows that is in use; what replays learned where it has none of its own."""
    for name in (sensor, f"{sensor}.replay"):
        store = ModelStore(ctx.lake.path, name, WINDOW)
        for number in store.newest_first():
            try:
                model = store.load(number)
            except ConfigError:
                continue
            if (model.features, model.feature_version) == (tuple(c.name for c in COLUMNS), VERSION):
                return replace(model, sensor=name)
    return None


def _usual(model: Model, length: int) -> tuple[NDArray[np.float64], NDArray[np.float64], float] | None:
    """Median and 99.5 % quantile of each column, and the score from which a window is unusual."""
    median, high, threshold = (model.arrays.get(f"{length}.{part}") for part in ("median", "high", "threshold"))
    if median is None or high is None or threshold is None:
        return None
    return median, high, float(threshold[0]) if model.method == "maxz" else _LEAST_SCORE


def _models(ctx: Context) -> dict[str, Model]:
    sensors = [
        name for (name,) in ctx.rows("SELECT DISTINCT sensor FROM {windows} WHERE sensor IS NOT NULL ORDER BY 1")
    ]
    return {name: model for name in sensors[:16] if (model := _model(ctx, name)) is not None}


def _scored(ctx: Context, models: dict[str, Model]) -> Statement:
    """MaxZ of busy windows: how many times the usual spread above the median its furthest column is. Of each host and
    minute the furthest above the threshold, and how many were."""
    where = ctx.where("windows")
    parts = []
    for sensor, model in models.items():
        for length in (1, 5, 60):
            usual = _usual(model, length)
            if usual is None:
                continue
            median, high, threshold = usual
            spreads = ", ".join(
                f"({_SQL.get(c.name) or f'log2(1 + {c.name})'} - {m:.6g}) / {max(h - m, _LEAST_SPREAD):.6g}"
                for c, m, h in zip(COLUMNS, median.tolist(), high.tolist(), strict=True)
            )
            parts.append(
                f"SELECT *, [{spreads}] AS spreads, {threshold:.6g} AS threshold FROM {{windows}} "
                f"WHERE sensor = {literal(sensor)} AND window_s = {length} AND out_packets >= {LEAST_PACKETS} AND {where.sql}"
            )
    names = ", ".join(c.name for c in COLUMNS if c.name != "upload")
    return Statement(
        "SELECT ts, window_s, sensor, ip, round(list_max(spreads), 2) AS score, round(threshold, 2) AS threshold, "
        "count(*) OVER minute AS windows, "
        f"{literal([c.name for c in COLUMNS])}[list_position(spreads, list_max(spreads))] AS most_unusual, {names}, "
        f"round({_SQL['upload']}, 2) AS upload, spreads FROM ({' UNION ALL '.join(parts)}) "
        "WHERE list_max(spreads) > threshold "
        "WINDOW minute AS (PARTITION BY sensor, ip, date_trunc('minute', ts)) "
        "QUALIFY row_number() OVER (PARTITION BY sensor, ip, date_trunc('minute', ts) "
        "ORDER BY list_max(spreads) / threshold DESC, window_s, ts) = 1 "
        "ORDER BY list_max(spreads) / threshold DESC, ts, ip",
        where.values,
    ) if parts else Statement("SELECT ts, window_s, sensor, ip FROM {windows} WHERE false")  # fmt: skip


@question("unusual_windows", "Windows of hosts that were unusual", params=(Param("limit", 100, "Rows", low=1, high=500),),
          statements=lambda ctx: {"windows": _scored(ctx, _models(ctx))}, refresh_s=5)  # fmt: skip
def unusual_windows(ctx: Context) -> dict[str, Any]:
    """rows: of each host and minute the most unusual window {ts, window_s, sensor, ip, score, threshold, windows (that
    were unusual in that minute), alert (id of one of that host and time, or null), kind (its), reasons: [[{name, words,
    value, usual, high, times}]]: []}, the furthest above the threshold first; total windows and hosts; models:
    {sensor, of, number, method, rows, first, last: []}, what is usual. Only windows busy enough for a row are judged.
    """
    models = _models(ctx)
    told = {
        "sensor": list(models), "of": [m.sensor for m in models.values()], "number": [m.number for m in models.values()],
        "method": [m.method for m in models.values()], "rows": [m.rows for m in models.values()],
        "first": [m.first_us for m in models.values()], "last": [m.last_us for m in models.values()],
    }  # fmt: skip
    scored = _scored(ctx, models)
    counted = Statement(
        f"WITH scored AS MATERIALIZED ({scored.sql}) SELECT *, (sum(windows) OVER ())::BIGINT AS total, "
        f"(SELECT count(DISTINCT ip) FROM scored) AS hosts FROM scored LIMIT {int(ctx.p.limit)}",
        scored.values,
    )
    found = ctx.columns(counted) if models else {}
    names = ("ts", "window_s", "sensor", "ip", "score", "threshold", "windows")
    rows: dict[str, list[Any]] = {name: found.get(name, []) for name in names}
    rows |= {"reasons": [], "alert": [], "kind": []}
    alerts = _alerts(ctx) if rows["ts"] else []
    for n, (ts, length, sensor, ip) in enumerate(zip(*(rows[name] for name in names[:4]), strict=True)):
        usual = _usual(models[sensor], length)
        assert usual is not None
        row = {c.name: found[c.name][n] for c in COLUMNS}
        rows["reasons"].append(_reasons(row, found["spreads"][n], usual))
        alert = _about(alerts, ip, ts, ts + length * US)
        rows["alert"].append(alert[0])
        rows["kind"].append(alert[1])
    total, hosts = (found[name][0] if rows["ts"] else 0 for name in ("total", "hosts"))
    return {"rows": rows, "total": total, "hosts": hosts, "models": told}


def _about(alerts: list[tuple[Any, ...]], ip: str, start: int, end: int) -> tuple[Any, ...]:
    """The gravest alert of that host near it; of several the one with which it has most in common."""
    near = [a for a in alerts if ip in a[2:4] and a[4] < end + _SLACK_US and a[5] >= start - _SLACK_US]
    return max(near, key=lambda a: (a[6], min(a[5], end) - max(a[4], start)), default=(None, None))


def _reasons(row: dict[str, Any], spreads: list[float], usual: Any) -> list[dict[str, Any]]:
    order = sorted(range(len(COLUMNS)), key=lambda c: -spreads[c])
    at = [c for c in order[:_REASONS] if spreads[c] > 1] or order[:1]
    return [
        {
            "name": COLUMNS[c].name, "words": COLUMNS[c].words, "value": row[COLUMNS[c].name],
            "usual": value_of(c, usual[0][c]), "high": value_of(c, usual[1][c]), "times": round(spreads[c], 2),
        }
        for c in at
    ]  # fmt: skip


def _alerts(ctx: Context) -> list[tuple[Any, ...]]:
    """Alerts of the range: id, kind, ends, times and how grave they are."""
    ctx.lake.alerts(ctx.con)
    return ctx.rows(
        "SELECT incident_id, kind, src_ip, dst_ip, first_seen, last_seen, "
        "list_position(['low', 'medium', 'high', 'critical'], severity) FROM mem.alerts "
        "WHERE last_seen >= $since AND first_seen < $until ORDER BY last_seen DESC LIMIT 5000"
    )


# --- packets ---------------------------------------------------------------------------------------------------------


def _grouped(ctx: Context, limit: int) -> Statement:
    """The most unusual packet of each source, destination and port, and how many reach the threshold."""
    where = ctx.where("packets")
    packed = ", ".join(f"{name} := {name}" for name in _READ)
    return Statement(
        f"SELECT count(*) AS packets, max(anomaly) AS highest, arg_max(struct_pack({packed}), (anomaly, {_ORDER})) AS one "
        f"FROM {{packets}} WHERE anomaly >= $threshold AND {where.sql} "
        "GROUP BY coalesce(src_ip, arp_src_ip), coalesce(dst_ip, arp_dst_ip), proto, ethertype, dst_port "
        f"ORDER BY highest DESC, packets DESC, one LIMIT {limit}",
        {"threshold": ctx.p.threshold, **where.values},
    )


def _listed(ctx: Context) -> dict[str, Statement]:
    where = ctx.where("packets")
    return {"packets": Statement(
        f"SELECT ts, source, frame_no, anomaly, src_ip, dst_ip, app, {', '.join(FEATURES)}, flow_id FROM {{packets}} "
        f"WHERE anomaly >= $threshold AND {where.sql} ORDER BY anomaly DESC, ts, frame_no LIMIT 10000",
        {"threshold": ctx.p.threshold, **where.values})}  # fmt: skip


@question("unusual_packets", "The most unusual packets", params=(THRESHOLD, Param("limit", 20, "Rows", low=1, high=100)),
          statements=_listed, refresh_s=5)  # fmt: skip
def unusual_packets(ctx: Context) -> dict[str, Any]:
    """rows: those of `packets`, and packets (that reach the threshold from the same source to the same destination and
    port), features: [[{name, value, contribution}]], above 0 they made it unusual: []; the most unusual one of each
    first; minutes: how many of the range were looked through, those with most, or null for all."""
    spans = [ctx.span]
    if reached(ctx, 0.0) > _SCANNED:
        worst = ctx.rows(
            "SELECT ts, sum(list_extract(bins, bin)) AS n FROM {model_stats}, "
            "(SELECT unnest(range(1, len(_anomaly_bounds()) + 1)) AS bin) WHERE list_extract(_anomaly_bounds(), bin) >= $t "
            f"GROUP BY ts HAVING n > 0 ORDER BY n DESC, ts LIMIT {_MINUTES}", t=ctx.p.threshold,
        )  # fmt: skip
        spans = [replace(ctx.span, start_us=ts, end_us=ts + 60 * US) for ts, _ in worst]
    found: dict[tuple[Any, ...], tuple[int, dict[str, Any]]] = {}
    for span in spans:
        for packets, _, one in replace(ctx, span=span).run(_grouped(ctx, ctx.p.limit)).fetchall():
            key = tuple(one[n] for n in _KEY)
            before = found.get(key, (0, one))
            found[key] = before[0] + packets, max(before[1], one, key=lambda r: float(r["anomaly"]))
    chosen = sorted(found.values(), key=lambda f: (-f[1]["anomaly"], -f[0]))[: ctx.p.limit]
    read = [{name: plain(value) for name, value in one.items()} for _, one in chosen]
    rows = packet_rows.shown(read)
    rows["anomaly"] = [round(float(one["anomaly"]), 5) for _, one in chosen]
    rows["packets"] = [packets for packets, _ in chosen]
    rows["features"] = _contributions(ctx, [one for _, one in chosen])
    return {"rows": rows, "minutes": None if spans == [ctx.span] else len(spans)}


def _contributions(ctx: Context, rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Of each row, what its features added; empty where the model that scored it is gone."""
    import pyarrow as pa

    if not rows:
        return []
    models = {
        (sensor, source, ts): (of, number)
        for sensor, source, ts, of, number in ctx.rows(
            "SELECT sensor, source, ts, model_sensor, max(model) FROM {model_stats} WHERE model IS NOT NULL GROUP BY ALL"
        )
    }
    features = features_of(pa.Table.from_pylist([{name: row[name] for name in FEATURES} for row in rows]))
    told = []
    for n, row in enumerate(rows):
        minute = plain(row["ts"]) // (60 * US) * 60 * US
        of = models.get((row["sensor"], row["source"], minute))
        explainer = None if of is None else explainer_of(ctx.lake.path, *of)
        added = [] if explainer is None else explainer.explain(features[n : n + 1])[0].tolist()
        pairs = zip(FEATURES, added, strict=False)
        told.append(sorted(
            ({"name": name, "value": plain(row[name]), "contribution": round(value, 4)} for name, value in pairs),
            key=lambda f: -f["contribution"],
        ))  # fmt: skip
    return told
