"""Whether traffic still is what a model learned: distributions then and now, by the population stability index.

PSI = sum over bins of (now - then) * ln(now / then). By convention below 0.1 is the same, above 0.25 another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from engine.errors import ConfigError
from engine.model_row import EDGES, N_BINS
from engine.models import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_EDGES: Final = 20  # of each feature
CHANGED: Final = 0.25
LEAST_ROWS: Final = 1_000  # fewer say nothing: the index of two samples of one population is about bins / rows
_FLOOR: Final = 1e-4  # a bin that is empty on one side counts for this share


def psi(then: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    """The index of shares then and counts now."""
    before = np.maximum(then, _FLOOR)
    now = np.maximum(counts / max(1, int(counts.sum())), _FLOOR)
    return float(((now - before) * np.log(now / before)).sum())


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """Distributions of the rows that a model learned from.

    Attributes:
        scores: float64[N_BINS], shares of their anomalies in the bins of `model_stats`.
        edges: int16[n_features, N_EDGES], see `engine.kernels.score_counts`. shares: float64[n_features, N_EDGES + 1].
    """

    scores: NDArray[np.float64]
    edges: NDArray[np.int16]
    shares: NDArray[np.float64]

    @staticmethod
    def learn(rows: NDArray[np.int16], anomalies: NDArray[np.float64]) -> Baseline:
        """Of training rows, int16[n, n_features], and their anomalies, float[n]."""
        edges = np.stack([_edges(column) for column in rows.T])
        numbers = [np.searchsorted(e, column, "left") for e, column in zip(edges, rows.T, strict=True)]
        shares = np.stack([np.bincount(n, minlength=N_EDGES + 1) / len(rows) for n in numbers])
        bins = np.searchsorted(np.array(EDGES), anomalies, "right")
        return Baseline(np.bincount(bins, minlength=N_BINS) / len(rows), edges, shares)

    def arrays(self) -> dict[str, NDArray[np.float64] | NDArray[np.int16]]:
        """What a model file keeps of it; `of` reads it back."""
        return {"score_shares": self.scores, "feature_edges": self.edges, "feature_shares": self.shares}

    @staticmethod
    def of(model: Model) -> Baseline:
        """Raises ConfigError, one line."""
        n = len(model.features)
        try:
            found = Baseline(*(model.arrays[a] for a in ("score_shares", "feature_edges", "feature_shares")))
            types = [found.scores.dtype.name, found.edges.dtype.name, found.shares.dtype.name]
            shapes = (found.scores.shape, found.edges.shape, found.shares.shape)
            fits = types == ["float64", "int16", "float64"] and shapes == ((N_BINS,), (n, N_EDGES), (n, N_EDGES + 1))
            fits = fits and all(a.min() >= 0 and a.max() <= 1 for a in (found.scores, found.shares))
        except (KeyError, TypeError):
            fits = False
        if not fits or (np.diff(found.edges) < 0).any():
            raise ConfigError(f"model {model.where} is damaged (distributions); train a new one: `engine model train`")
        return found

    def compare(self, bins: NDArray[np.int64], features: NDArray[np.int64]) -> tuple[float, NDArray[np.float64]] | None:
        """(index of the anomalies, index of each feature), or None of too few rows."""
        if bins.sum() < LEAST_ROWS:
            return None
        return psi(self.scores, bins), np.array([psi(s, c) for s, c in zip(self.shares, features, strict=True)])


def _edges(column: NDArray[np.int16]) -> NDArray[np.int16]:
    """Bounds between tenths of the values, and below each of them once more: so a value that many rows have (a port, a
    flag) is a bin of its own, and less of it shows as well as more."""
    ordered = np.sort(column)
    tenths = ordered[np.arange(1, 11) * (len(ordered) - 1) // 10].astype(np.int32)
    edges = np.unique(np.concatenate([tenths, np.maximum(tenths - 1, -32_768)]))
    return np.pad(edges, (0, N_EDGES - len(edges)), constant_values=32_767).astype(np.int16)
