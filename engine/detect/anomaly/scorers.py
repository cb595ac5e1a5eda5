"""How far a window is from the usual: three methods, all learned from the same rows.

MaxZ: the largest (x - median) / (99.5 % quantile - median) over the columns. HBOS: the sum over the columns of -log2 of
the share of rows that fell into the same bin (Goldstein and Dengel 2012). Isolation forest: Liu, Ting and Zhou 2008.
None assumes a distribution, and the words that explain an alert are the medians and quantiles, whatever the method.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from engine.detect.anomaly.columns import COLUMNS, value_of
from engine.detect.anomaly.forests import forest_arrays, forest_from, raw_scores, to_int16
from engine.errors import ConfigError
from engine.forest import Forest

if TYPE_CHECKING:
    from numpy.typing import NDArray

METHODS: Final = ("maxz", "hbos", "iforest")
# How far above the largest score that may be told a score must be, when the operator does not say. A sum over columns
# (HBOS) varies more than the largest of them, and a forest's average hardly grows beyond what it was grown from.
MARGINS: Final = {"maxz": 1.2, "hbos": 1.25, "iforest": 1.0}
_QUANTILE: Final = 0.995
_LEAST_SPREAD: Final = 1.0  # an octave, a bit: below it a difference is none
_BINS: Final = 20
_LEAST_SCORE: Final = {"maxz": 1.5}


class Reason(NamedTuple):
    """A column that is far from usual: its value, median and 99.5 % quantile, and how many spreads it is above."""

    column: int
    value: float
    usual: float
    high: float
    times: float


@dataclass(frozen=True, slots=True, eq=False)
class Scorer:
    """What was learned of the windows of one length."""

    method: str
    median: NDArray[np.float64]
    high: NDArray[np.float64]
    threshold: float
    rows: int
    extra: dict[str, NDArray[Any]] = field(default_factory=dict)  # of hbos: `edges`, `costs`
    forest: Forest | None = None

    def scores(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Of each row; what is above `threshold` is unusual."""
        if self.method == "hbos":
            return _hbos(x, self.extra["edges"], self.extra["costs"])
        if self.method == "iforest":
            assert self.forest is not None
            return raw_scores(self.forest, to_int16(x))
        return np.asarray(self._spreads(x).max(axis=1), np.float64)

    def reasons(self, row: NDArray[np.float32], most: int = 3) -> list[Reason]:
        """The columns that are furthest above their usual, the furthest first."""
        times = self._spreads(row[None])[0]
        at = [int(c) for c in np.argsort(-times, kind="stable")[:most] if times[c] > 1] or [int(times.argmax())]
        return [
            Reason(c, value_of(c, row[c]), value_of(c, self.median[c]), value_of(c, self.high[c]), float(times[c]))
            for c in at
        ]

    def with_threshold(self, threshold: float) -> Scorer:
        return replace(self, threshold=threshold)

    def _spreads(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray((x - self.median) / np.maximum(self.high - self.median, _LEAST_SPREAD))


def fit(method: str, rows: NDArray[np.float32], forest: Forest | None = None) -> Scorer:
    """Learn from float32[n, columns]; the threshold is still to be set. `forest`: of the same rows, for iforest."""
    median, high = np.median(rows, axis=0).astype(np.float64), np.quantile(rows.astype(np.float64), _QUANTILE, axis=0)
    extra = _histograms(rows) if method == "hbos" else {}
    return Scorer(method, median, high, np.inf, len(rows), extra, forest)


def threshold_of(method: str, peak: float, margin: float) -> float:
    """What a score must exceed, `peak` being the largest that may be told of the rows learned from; 0 is the method's
    own margin."""
    return max(peak * (margin or MARGINS[method]), _LEAST_SCORE.get(method, 0.0))


def _histograms(rows: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    edges = np.linspace(rows.min(axis=0), rows.max(axis=0) + 1e-6, _BINS + 1, axis=1).astype(np.float64)
    costs = np.empty((rows.shape[1], _BINS + 1))
    for c in range(rows.shape[1]):
        counts = np.histogram(rows[:, c], edges[c])[0]
        shares = (np.append(counts, 0) + 0.5) / (len(rows) + (_BINS + 1) / 2)
        costs[c] = -np.log2(shares)
    return {"edges": edges, "costs": costs}


def _hbos(x: NDArray[np.float32], edges: NDArray[np.float64], costs: NDArray[np.float64]) -> NDArray[np.float64]:
    total = np.zeros(len(x))
    for c in range(x.shape[1]):
        at = np.searchsorted(edges[c], x[:, c], "right") - 1
        outside = (at < 0) | (at >= _BINS)
        beyond = np.maximum(x[:, c] - edges[c, -1], 0.0)  # octaves above anything seen
        total += np.where(outside, costs[c, _BINS] + beyond, costs[c, np.clip(at, 0, _BINS - 1)])
    return total


# --- arrays of models (`engine.models`): what comes from a file is checked here --------------------------------------
def arrays_of(scorer: Scorer) -> dict[str, NDArray[Any]]:
    """What a model keeps of a scorer."""
    forest = forest_arrays(scorer.forest) if scorer.forest is not None else {}
    threshold = np.array([scorer.threshold, scorer.rows], np.float64)
    return {"median": scorer.median, "high": scorer.high, "threshold": threshold, **scorer.extra, **forest}


def scorer_from(method: str, arrays: dict[str, NDArray[Any]]) -> Scorer:
    """The scorer again. Raises ConfigError, a few words, when the arrays do not fit."""
    n = len(COLUMNS)
    shapes: dict[str, tuple[int, ...]] = {"median": (n,), "high": (n,), "threshold": (2,)}
    if method == "hbos":
        shapes |= {"edges": (n, _BINS + 1), "costs": (n, _BINS + 1)}
    for name, shape in shapes.items():
        array = arrays.get(name)
        if array is None or array.shape != shape or array.dtype != np.float64 or not np.isfinite(array).all():
            raise ConfigError(f"array {name} is missing or damaged")
    if method == "hbos" and (np.diff(arrays["edges"], axis=1) < 0).any():
        raise ConfigError("array edges is damaged")
    forest = forest_from(arrays) if method == "iforest" else None
    threshold, rows = arrays["threshold"].tolist()
    extra = {k: arrays[k] for k in ("edges", "costs")} if method == "hbos" else {}
    return Scorer(method, arrays["median"], arrays["high"], threshold, int(rows), extra, forest)
