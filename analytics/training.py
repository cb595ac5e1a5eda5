"""Train the model of a sensor's packets: rows on standard input, a forest in a file.

    python -m analytics.training --model FILE [--trees N] [--samples N] < rows.npy

The engine starts it, as a process of its own: scikit-learn needs a second to load, as much memory as the engine itself
and, while it runs, the interpreter. It is here and not in the engine because the engine imports no scikit-learn; the
file, which `engine.forest` defines, is all that the two share.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import EngineError
from engine.forest import Forest, flatten

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SEED = 1
_NICE = 10


def train(
    rows: NDArray[np.int16], trees: int = 100, samples: int = 256, span_us: tuple[int, int] = (0, 0)
) -> Forest:  # fmt: skip
    """Grow an isolation forest on int16[n, n_features], n >= 2. The same rows give the same forest."""
    from sklearn.ensemble import IsolationForest

    if rows.ndim != 2 or len(rows) < 2:
        raise ValueError(f"{len(rows)} rows to train on; at least 2 are needed")
    values = rows.astype(np.float32)
    model = IsolationForest(n_estimators=trees, max_samples=min(samples, len(rows)), random_state=_SEED, n_jobs=1)
    model.fit(values)
    scores = -model.score_samples(values)
    return flatten([e.tree_ for e in model.estimators_], int(model.max_samples_), scores, span_us, time.time())


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns 0, or 1 after one line on standard error."""
    parser = argparse.ArgumentParser(description="Train the model of a sensor's packets on rows from standard input.")
    parser.add_argument("--model", type=Path, required=True, help="file to write")
    parser.add_argument("--trees", type=int, default=100)
    parser.add_argument("--samples", type=int, default=256, help="rows that each tree is grown from")
    parser.add_argument("--first-us", type=int, default=0, help="time of the earliest row, microseconds UTC")
    parser.add_argument("--last-us", type=int, default=0, help="time of the latest row")
    options = parser.parse_args(arguments)
    os.nice(_NICE)
    try:
        rows = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
        forest = train(rows, options.trees, options.samples, (options.first_us, options.last_us))
        forest.save(options.model)
    except (OSError, ValueError, EOFError, MemoryError, EngineError) as error:
        sys.stderr.write(f"{options.model}: {str(error).splitlines()[0] if str(error) else type(error).__name__}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
