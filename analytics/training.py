"""Train the model of a sensor's packets: rows on standard input, a version of the model in the lake.

    python -m analytics.training --lake DIR --sensor NAME [--trees N] [--samples N] < rows.npy

The engine starts it, as a process of its own: scikit-learn needs a second to load, as much memory as the engine itself
and, while it runs, the interpreter. It is here and not in the engine because the engine imports no scikit-learn; the
file, which `engine.models` defines, is all that the two share.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analytics.system import yield_to_others
from engine.drift import Baseline
from engine.errors import EngineError
from engine.forest import METHOD, VERSION, flatten
from engine.models import ENGINE, Model, ModelStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

PACKET: Final = "packet"  # the kind
_SEED = 1
_NICE = 10
_HELD_OUT: Final = 10  # each tenth row is not learned from, but what the model is judged by
_SHARES: Final = (0.5, 0.9, 0.99, 0.999)


def train(
    rows: NDArray[np.int16], trees: int = 100, samples: int = 256, span_us: tuple[int, int] = (0, 0),
    made_by: str = ENGINE, note: str = "",
) -> Model:  # fmt: skip
    """Grow an isolation forest on nine tenths of int16[n, n_features], n >= 2. The same rows give the same forest."""
    from sklearn.ensemble import IsolationForest

    if rows.ndim != 2 or len(rows) < 2:
        raise ValueError(f"{len(rows)} rows to train on; at least 2 are needed")
    began = time.process_time()
    held = np.arange(len(rows)) % _HELD_OUT == _HELD_OUT - 1
    learned = rows[~held]
    values = rows.astype(np.float32)
    model = IsolationForest(n_estimators=trees, max_samples=min(samples, len(learned)), random_state=_SEED, n_jobs=1)
    model.fit(values[~held])
    scores = -model.score_samples(values)
    forest = flatten([e.tree_ for e in model.estimators_], int(model.max_samples_), scores[~held])
    anomalies = forest.anomalies(scores)
    baseline = Baseline.learn(learned, anomalies[~held])
    metrics = _metrics(anomalies[held] if held.any() else anomalies, int(held.sum()))
    return Model(
        kind=PACKET, method=METHOD, features=forest.features, feature_version=VERSION, rows=len(learned),
        first_us=span_us[0], last_us=span_us[1], made_s=time.time(), made_by=made_by, note=note,
        parameters={"trees": trees, "samples": forest.samples, "seed": _SEED},
        metrics=metrics | {"training_cpu_s": round(time.process_time() - began, 3)},
        arrays={**forest.arrays(), **baseline.arrays()},
    )  # fmt: skip


def _metrics(anomalies: NDArray[np.float64], held_out: int) -> dict[str, Any]:
    """How held-out rows score: of a model that fits, a tenth is above 0.9, and so on."""
    above = {f"share_above_{share}": float((anomalies >= share).mean()) for share in _SHARES}
    return {"held_out_rows": held_out, "mean_anomaly": float(anomalies.mean()), **above}


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns 0, or 1 after one line on standard error."""
    parser = argparse.ArgumentParser(description="Train the model of a sensor's packets on rows from standard input.")
    parser.add_argument("--lake", type=Path, required=True, help="the model becomes its newest version")
    parser.add_argument("--sensor", required=True)
    parser.add_argument("--trees", type=int, default=100)
    parser.add_argument("--samples", type=int, default=256, help="rows that each tree is grown from")
    parser.add_argument("--first-us", type=int, default=0, help="time of the earliest row, microseconds UTC")
    parser.add_argument("--last-us", type=int, default=0, help="time of the latest row")
    options = parser.parse_args(arguments)
    yield_to_others(_NICE)
    try:
        rows = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
        model = train(rows, options.trees, options.samples, (options.first_us, options.last_us))
        ModelStore(options.lake, options.sensor, PACKET).add(model)
    except (OSError, ValueError, EOFError, MemoryError, EngineError) as error:
        sys.stderr.write(f"{str(error).splitlines()[0] if str(error) else type(error).__name__}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
