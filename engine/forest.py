"""A trained isolation forest: what the scoring kernel needs, and how a model (`engine.models`) holds it.

The trainer is a process of `analytics` with scikit-learn; the engine reads only what that has written. What comes from
a file is checked step by step: the kernel checks no index.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from engine.errors import ConfigError
from engine.kernels import forest_steps as q
from engine.models import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

METHOD: Final = "isolation_forest"
VERSION: Final = 1  # of the features, their scales and the steps
_ARRAYS: Final = {"steps": np.int16, "starts": np.int64, "depths": np.int32, "table": np.float64}
_MOST_SAMPLES: Final = 1 << 16
_EULER: Final = 0.577215664901532860606512090082402431


class Tree(Protocol):
    """A fitted tree as scikit-learn keeps it (`estimator.tree_`): arrays by node, -1 for no child."""

    children_left: NDArray[np.int64]
    children_right: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    n_node_samples: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """Arrays and numbers as `engine.kernels.forest.score` takes them, and where they come from.

    Attributes:
        samples: rows each tree was grown from. rows: those they were drawn from, `first_us` to `last_us` (UTC).
        made_s: seconds since the epoch when training ended.
    """

    steps: NDArray[np.int16]
    starts: NDArray[np.int64]
    depths: NDArray[np.int32]
    table: NDArray[np.float64]
    factor: float
    lowest: float
    per_cell: float
    samples: int
    rows: int
    first_us: int
    last_us: int
    made_s: float
    features: tuple[str, ...] = q.FEATURES

    @property
    def trees(self) -> int:
        return len(self.starts) - 1

    def anomalies(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores of the paper (0 to 1) to anomalies, as the kernel does it."""
        at = np.clip((scores - self.lowest) * self.per_cell, 0.0, q.CELLS)
        cell = at.astype(np.int64)
        shares = self.table[cell] + (at - cell) * (self.table[cell + 1] - self.table[cell])
        return np.asarray(np.floor(shares * q.GRAIN + 0.5) / q.GRAIN)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a model file keeps of it; `of` reads it back."""
        return {name: getattr(self, name) for name in _ARRAYS} | {
            "scale": np.array([self.factor, self.lowest, self.per_cell], np.float64),
        }

    @staticmethod
    def of(model: Model, features: tuple[str, ...] = q.FEATURES, version: int = VERSION) -> Forest:
        """Read and check a model. Raises ConfigError in one line when it is damaged or was made for other features."""
        where = f"model {model.where or model.number}"
        if (model.method, model.feature_version, model.features) != (METHOD, version, features):
            raise ConfigError(
                f"{where} is of method {model.method[:40]} with features {', '.join(model.features)[:200]} (version "
                f"{model.feature_version}), which this engine does not have; train a new one: `engine model train`"
            )
        try:
            arrays = {name: np.ascontiguousarray(model.arrays[name]) for name in _ARRAYS}
            factor, lowest, per_cell = model.arrays["scale"].tolist()
            samples = int(model.parameters["samples"])
            forest = Forest(
                **arrays, factor=factor, lowest=lowest, per_cell=per_cell, samples=samples, rows=model.rows,
                first_us=model.first_us, last_us=model.last_us, made_s=model.made_s, features=features,
            )  # fmt: skip
            problem = _problem(forest)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            problem = type(error).__name__
        if problem:
            raise ConfigError(f"{where} is damaged ({problem}); train a new one: `engine model train`")
        return forest


def _problem(forest: Forest) -> str:
    """What in the arrays the kernel could not run safely, or empty."""
    if any(getattr(forest, name).dtype != dtype for name, dtype in _ARRAYS.items()):
        return "types of arrays"
    shapes = [getattr(forest, name).ndim for name in _ARRAYS]
    if shapes != [2, 1, 1, 1] or forest.steps.shape[1] != q.N_STEP or forest.table.shape != (q.CELLS + 2,):
        return "shapes of arrays"
    numbers = np.array([forest.factor, forest.lowest, forest.per_cell, forest.made_s, *forest.table])
    if not np.isfinite(numbers).all() or forest.table.min() < 0 or forest.table.max() > 1 or forest.factor >= 0:
        return "numbers"
    if not 2 <= forest.samples <= _MOST_SAMPLES:
        return "samples"
    starts = forest.starts.tolist()
    if len(starts) < 2 or starts[0] != 0 or starts[-1] != len(forest.steps) or np.diff(forest.starts).min() < 1:
        return "bounds of trees"
    if abs(forest.depths.astype(np.int64)).max(initial=0) * forest.trees >= 1 << 31:
        return "depths"
    steps, leaves, features = forest.steps.tolist(), len(forest.depths), len(forest.features)
    if all(_tree_runs(steps[a:b], leaves, features) for a, b in itertools.pairwise(starts)):
        return ""
    return "steps of a tree"


def _tree_runs(steps: list[list[int]], leaves: int, features: int) -> bool:
    """Every operand of every step is a leaf, or a slot that a step of this tree has filled; and none is overwritten."""
    filled: set[int] = set()
    for kind, feature, _, to, left, right in steps:
        if not (0 <= kind <= q.NODE_NODE and 0 <= feature < features and 0 <= to < q.SLOTS):
            return False
        slots = [s for s, is_slot in ((left, kind & q.NODE_LEAF), (right, kind & q.LEAF_NODE)) if is_slot]
        numbers = [n for n, is_leaf in ((left, not kind & q.NODE_LEAF), (right, not kind & q.LEAF_NODE)) if is_leaf]
        if to in slots or not filled.issuperset(slots) or any(not 0 <= n < leaves for n in numbers):
            return False
        filled.add(to)
    return True


# --- from trees to steps ---------------------------------------------------------------------------------------------
def flatten(
    trees: Iterable[Tree], samples: int, scores: NDArray[np.float64], span_us: tuple[int, int] = (0, 0),
    made_s: float = 0.0,
) -> Forest:  # fmt: skip
    """A forest of scikit-learn's trees.

    Args:
        samples: rows each tree was grown from, at least 2 (scikit-learn's `max_samples_`).
        scores: of the training rows, 0 to 1 (`-score_samples`); their quantiles map scores to anomalies.
        span_us: first and last time in the training rows. made_s: now.
    """
    steps: list[list[int]] = []
    starts = [0]
    leaves: dict[float, int] = {}
    deepest = 0.0
    for tree in trees:
        deepest += _Steps(tree, steps, leaves).deepest
        starts.append(len(steps))
    # The finest units that are a power of two and in which the sum over all trees fits into 31 bits.
    units = 2.0 ** math.floor(math.log2((2**31 - 1) / (deepest + len(starts))))
    lowest, per_cell, table = _table(scores)
    return Forest(
        np.array(steps, np.int16).reshape(-1, q.N_STEP), np.array(starts, np.int64),
        np.rint(np.array(list(leaves)) * units).astype(np.int32), table,
        -1 / (units * (len(starts) - 1) * average_depth(samples)), lowest, per_cell,
        samples, len(scores), *span_us, made_s,
    )  # fmt: skip


def average_depth(rows: int) -> float:
    """c(n): depth of an average leaf in a tree grown from n rows (Liu, Ting, Zhou 2008, equation 1)."""
    if rows <= 2:
        return float(rows == 2)
    return 2.0 * (math.log(rows - 1.0) + _EULER) - 2.0 * (rows - 1.0) / rows


class _Steps:
    """The steps of one tree, appended to `steps`. Leaves that count for the same depth share a number in `leaves`."""

    def __init__(self, tree: Tree, steps: list[list[int]], leaves: dict[float, int]) -> None:
        self._left, self._right = tree.children_left.tolist(), tree.children_right.tolist()
        self._feature = tree.feature.tolist()
        # For integers, x <= 7.9 is x <= 7.
        self._threshold = np.clip(np.floor(tree.threshold), -32768, 32767).astype(int).tolist()
        self._rows = tree.n_node_samples.tolist()
        self._steps, self._leaves = steps, leaves
        self._free = list(range(q.SLOTS - 1, -1, -1))
        self._wait = [0] * len(self._left)  # slots that deciding what is below the node takes
        for node in range(len(self._left) - 1, -1, -1):  # children come behind their parents
            if self._left[node] >= 0:
                a, b = self._wait[self._left[node]], self._wait[self._right[node]]
                self._wait[node] = max(1, a + 1 if a == b else max(a, b))
        self.deepest = 0.0
        is_slot, outcome = self._decide(0, 0)
        if not is_slot:  # all rows were alike: a tree without a cut
            steps.append([q.LEAF_LEAF, 0, 0, self._free[-1], outcome, outcome])

    def _decide(self, node: int, depth: int) -> tuple[bool, int]:
        """Append the steps of what is below `node`. Returns (True, its slot) or (False, number of a leaf)."""
        if self._left[node] < 0:
            value = depth + average_depth(self._rows[node])
            self.deepest = max(self.deepest, value)
            return False, self._leaves.setdefault(value, len(self._leaves))
        left, right = self._left[node], self._right[node]
        if self._wait[left] >= self._wait[right]:  # the needier first: while it runs, nothing else waits
            (left_waits, a), (right_waits, b) = self._decide(left, depth + 1), self._decide(right, depth + 1)
        else:
            (right_waits, b), (left_waits, a) = self._decide(right, depth + 1), self._decide(left, depth + 1)
        if not left_waits and not right_waits and a == b:  # both sides end alike: nothing to decide
            return False, a
        to = self._free.pop()
        kind = (q.NODE_LEAF if left_waits else 0) | (q.LEAF_NODE if right_waits else 0)
        self._steps.append([kind, self._feature[node], self._threshold[node], to, a, b])
        self._free += [slot for waits, slot in ((left_waits, a), (right_waits, b)) if waits]
        return True, to


def _table(scores: NDArray[np.float64]) -> tuple[float, float, NDArray[np.float64]]:
    """(lowest, cells per unit of score, shares): for scores from the lowest to just above the highest, at equal
    distances, the share of training scores below. Linear in between, it is their distribution, and never falls."""
    ordered = np.sort(scores)
    lowest = float(ordered[0])
    cell = max(float(ordered[-1]) - lowest, 1e-3) / (q.CELLS - 1)
    shares = np.searchsorted(ordered, lowest + cell * np.arange(q.CELLS + 2), "left") / len(ordered)
    shares[q.CELLS :] = 1.0
    return lowest, 1 / cell, np.ascontiguousarray(shares, np.float64)
