"""Scorers of windows as a model (`engine.models`): one array name for each length and array, `5.median`."""

from __future__ import annotations

from typing import Any

from engine.anomaly_config import LENGTHS, AnomalyConfig
from engine.detect.anomaly.columns import NAMES, VERSION
from engine.detect.anomaly.scorers import METHODS, Scorer, arrays_of, scorer_from
from engine.errors import ConfigError
from engine.models import Model

KIND = "window"


def model_of(
    scorers: dict[int, Scorer], config: AnomalyConfig, span_us: tuple[int, int], counts: dict[str, int] | None = None
) -> Model:
    """What is kept; thresholds, rows of each length and what else was counted stand in the metrics, for people."""
    metrics: dict[str, Any] = dict(counts or {})
    for length, scorer in scorers.items():
        metrics |= {f"threshold_{length}s": round(scorer.threshold, 4), f"rows_{length}s": scorer.rows}
    return Model(
        kind=KIND, method=config.method, features=NAMES, feature_version=VERSION,
        rows=sum(s.rows for s in scorers.values()), first_us=span_us[0], last_us=span_us[1], metrics=metrics,
        parameters={
            "lengths": list(scorers), "per_hour": config.per_hour, "learn_minutes": config.learn_minutes,
            "margin": config.margin,
        },
        arrays={f"{n}.{name}": array for n, scorer in scorers.items() for name, array in arrays_of(scorer).items()},
    )  # fmt: skip


def scorers_of(model: Model) -> dict[int, Scorer]:
    """The scorers by length. Raises ConfigError, one line, for a model of other columns, damaged or foreign."""
    where = f"model {model.where or model.number}"
    if model.kind != KIND or model.method not in METHODS:
        raise ConfigError(f"{where} is of kind {model.kind}, method {model.method[:40]}; give one of kind {KIND}")
    if (model.features, model.feature_version) != (NAMES, VERSION):
        raise ConfigError(
            f"{where} judges other columns of windows than this engine; delete it, a new one is learned by itself"
        )
    parts: dict[int, dict[str, Any]] = {}
    for name, array in model.arrays.items():
        length, _, part = name.partition(".")
        if not length.isdigit() or int(length) not in LENGTHS:
            raise ConfigError(f"{where} is damaged (array {name[:40]}); delete it, a new one is learned by itself")
        parts.setdefault(int(length), {})[part] = array
    try:
        return {length: scorer_from(model.method, arrays) for length, arrays in parts.items()}
    except ConfigError as error:
        raise ConfigError(f"{where} is damaged ({error}); delete it, a new one is learned by itself") from None
