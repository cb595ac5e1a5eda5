"""The row that says how a model did in a minute: what it scored, how high, and whether traffic still is what it learned."""

from __future__ import annotations

from typing import Final

from engine.schema import Column

# Bounds between the bins of anomalies. An anomaly is a share of training rows, so from 0.9 on each third bin is ten
# times rarer than the one before; the last one holds what no training row exceeded.
EDGES: Final = (
    0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999, 1.0,
)  # fmt: skip
N_BINS: Final = len(EDGES) + 1

MODEL_STATS: Final[tuple[Column, ...]] = (
    Column("ts", "timestamp", "UTC", "Start of the minute, by the packets' clock. A minute may have several rows: `scored`, `above`, `bins`, `not_learned` add up", "libpcap ts"),
    Column("source", "text", "", "Interface, or savefile path", "capture"),
    Column("model", "int64", "", "Version of the packet model, see `engine model list`; NULL while there is none", "engine", nullable=True),
    Column("model_sensor", "text", "", "Whose model: the sensor, with `.replay` behind it for savefiles", "engine"),
    Column("scored", "int64", "packets", "Packets that it gave an anomaly", "scoring"),
    Column("threshold", "float32", "", "`[scoring] threshold`", "configuration"),
    Column("above", "int64", "packets", "Scored packets whose anomaly is the threshold or more", "scoring"),
    Column("bins", "int64s", "packets", f"Scored packets by anomaly: below {EDGES[0]}, from there below {EDGES[1]}, and so on; bounds are {', '.join(map(str, EDGES))}", "scoring"),
    Column("top_anomaly", "float32", "", "The largest anomaly", "scoring", nullable=True),
    Column("top_frame_no", "int64", "", "frame_no of the first packet that had it", "scoring", nullable=True),
    Column("not_learned", "int64", "packets", "Packets kept out of the training rows, because an incident above low was open", "scoring"),
    Column("models_refused", "int64", "", "Versions that could not be used since the engine started: damaged, or of other features", "scoring"),
    Column("psi", "float32", "", "Population stability index of anomalies, `[scoring] drift_minutes` up to here against the training rows: below 0.1 the same, above 0.25 another; NULL of fewer than 1000 packets", "Siddiqi 2006", nullable=True),
    Column("worst_feature", "text", "", "The feature whose distribution changed most", "scoring", nullable=True),
    Column("worst_psi", "float32", "", "Its index", "scoring", nullable=True),
)
