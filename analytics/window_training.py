"""Grow the isolation forest of windows: rows (.npy) on standard input, a model (`engine.models`) on standard output.

The engine starts it (`engine.detect.anomaly.forests`), because the engine imports no scikit-learn.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from analytics.system import yield_to_others
from engine.detect.anomaly.columns import NAMES, VERSION
from engine.detect.anomaly.forests import forest_arrays, read_rows
from engine.forest import METHOD, Forest, flatten
from engine.models import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NICE = 10
_TREES = 100
_SAMPLES = 256
_SEED = 1


def train(rows: NDArray[np.int16]) -> Forest:
    """Grow a forest on int16[n, columns], n >= 2. The same rows give the same one."""
    from sklearn.ensemble import IsolationForest

    values = rows.astype(np.float32)
    model = IsolationForest(
        n_estimators=_TREES, max_samples=min(_SAMPLES, len(rows)), random_state=_SEED, n_jobs=1
    ).fit(values)
    return flatten([e.tree_ for e in model.estimators_], int(model.max_samples_), -model.score_samples(values))


def main() -> int:
    """The command. Returns 0, or 1 after one line on standard error."""
    yield_to_others(_NICE)
    try:
        forest = train(read_rows(sys.stdin.buffer.read()))
        model = Model(
            kind="window", method=METHOD, features=NAMES, feature_version=VERSION, arrays=forest_arrays(forest)
        )
        sys.stdout.buffer.write(model.to_bytes())
    except (OSError, ValueError, EOFError, MemoryError) as error:
        sys.stderr.write(f"{str(error).splitlines()[0] if str(error) else type(error).__name__}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
