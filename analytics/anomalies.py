"""The most unusual packets, and which of their features made them so.

    top_packets(con, lake, "2026-11-24 12:00", "2026-11-24 13:00", limit=20)

Anomalies over time, and what a threshold would have raised, are SQL: `anomaly_minutes`, `anomaly_threshold`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from analytics.packet_features import COLUMNS, features_of
from analytics.training import PACKET
from engine.errors import ConfigError
from engine.explain import Explainer
from engine.forest import Forest
from engine.models import ModelStore

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

_SHOWN: Final = ("ts", "ts_nanos", "sensor", "source", "frame_no", "src_ip", "dst_ip", "app", "flow_id", "anomaly")
# Where the bins of `model_stats` say that enough packets lie, so that Parquet passes over what lies below.
_FLOOR: Final = "SELECT max(threshold) FROM anomaly_threshold_between(?::TIMESTAMP, ?::TIMESTAMP) WHERE packets >= ?"
_TOP: Final = f"""
SELECT {", ".join((*_SHOWN, *COLUMNS))} FROM table_between('packets', ?::TIMESTAMP, ?::TIMESTAMP)
WHERE anomaly >= ? ORDER BY anomaly DESC, ts, ts_nanos, frame_no LIMIT ?
"""  # noqa: S608 — names of columns
_MODELS: Final = """
SELECT sensor, source, ts, model_sensor, max(model) FROM table_between('model_stats', ?::TIMESTAMP, ?::TIMESTAMP)
WHERE model IS NOT NULL GROUP BY ALL
"""


def top_packets(
    con: DuckDBPyConnection, lake: str | Path, since: Any = None, until: Any = None, limit: int = 20
) -> list[dict[str, Any]]:
    """The packets of a range (UTC; None leaves a side open) with the largest anomalies, largest first.

    Each has `features`: name, value (None where the packet has none) and contribution of each, those that made it more
    unusual first. Contributions above 0 did, below 0 they made it more usual; see `engine.explain`. The list is empty
    where the model that scored the packet is not there any more.
    """
    ((floor,),) = con.execute(_FLOOR, [since, until, limit]).fetchall()
    found: pa.Table = con.sql(_TOP, params=[since, until, floor or 0.0, limit]).to_arrow_table()
    if found.num_rows < limit and floor:  # the minutes of the bins reach beyond the range
        found = con.sql(_TOP, params=[since, until, 0.0, limit]).to_arrow_table()
    scored = con.execute(_MODELS, [since, until]).fetchall()
    models = {(sensor, source, ts): (of, number) for sensor, source, ts, of, number in scored}
    rows: list[dict[str, Any]] = found.to_pylist()
    features = features_of(found)
    for n, row in enumerate(rows):
        of = models.get((row["sensor"], row["source"], row["ts"].replace(second=0, microsecond=0)))
        explainer = explainer_of(Path(lake).expanduser(), *of) if of is not None else None
        contributions = explainer.explain(features[n : n + 1])[0].tolist() if explainer is not None else []
        told = [
            {"name": name, "value": row[name], "contribution": round(value, 4)}
            for name, value in zip(COLUMNS, contributions, strict=False)
        ]
        row["features"] = sorted(told, key=lambda f: -f["contribution"])
    return rows


@lru_cache(maxsize=8)
def explainer_of(lake: Path, sensor: str, number: int) -> Explainer | None:
    """Of a version, which never changes. None when it is gone, damaged or of another version of the engine."""
    try:
        return Explainer(Forest.of(ModelStore(lake, sensor, PACKET).load(number)))
    except ConfigError:
        return None
