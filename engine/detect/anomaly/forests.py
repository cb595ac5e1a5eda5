"""Isolation forests over windows: trained in a process of scikit-learn's own, scored by the packets' kernel."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

from engine.detect.anomaly.columns import NAMES, VERSION
from engine.errors import ConfigError
from engine.forest import METHOD, Forest
from engine.kernels import forest as kernel
from engine.kernels import forest_steps as q
from engine.models import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SCALE: Final = 1024.0  # a forest cuts whole numbers: 1024 an octave
_PREFIX: Final = "forest_"
_TRAINING_S: Final = 120.0  # a trainer that takes longer is stopped
_ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def to_int16(x: NDArray[np.float32]) -> NDArray[np.int16]:
    """Features of a forest, int16[columns, n], of float32[n, columns]."""
    return np.ascontiguousarray(np.clip(np.rint(x * _SCALE), -32767, 32767).astype(np.int16).T)


def raw_scores(forest: Forest, features: NDArray[np.int16]) -> NDArray[np.float64]:
    """The scores of the paper, 0 to 1, of int16[columns, n]."""
    count = features.shape[1]
    raw, out = np.zeros(count, np.float32), np.zeros(count, np.float32)
    kernel.score(
        features, count, forest.steps, forest.starts, forest.depths, forest.table, forest.factor, forest.lowest,
        forest.per_cell, np.zeros((len(features), q.BLOCK), np.int16), np.zeros((q.SLOTS, q.BLOCK), np.int16),
        np.zeros(q.BLOCK, np.int32), np.zeros(q.BLOCK, np.float64), raw, out,
    )  # fmt: skip
    return raw.astype(np.float64)


def forest_arrays(forest: Forest) -> dict[str, NDArray[Any]]:
    """What a model of windows keeps of a forest."""
    samples = {"samples": np.array([forest.samples], np.int64)}
    return {_PREFIX + name: array for name, array in {**forest.arrays(), **samples}.items()}


def forest_from(arrays: dict[str, NDArray[Any]]) -> Forest:
    """The forest again. Raises ConfigError."""
    parts = {name.removeprefix(_PREFIX): array for name, array in arrays.items() if name.startswith(_PREFIX)}
    samples = parts.pop("samples", None)
    if samples is None or samples.shape != (1,):
        raise ConfigError("array samples is missing")
    parameters = {"samples": int(samples[0])}
    model = Model(
        kind="window", method=METHOD, features=NAMES, feature_version=VERSION, parameters=parameters, arrays=parts
    )
    return Forest.of(model, NAMES, VERSION)


class Trainer:
    """The process that grows a forest: `analytics.window_training`. Rows go in and the model comes out in memory."""

    def __init__(self, rows: NDArray[np.float32]) -> None:
        """Start it. Raises OSError."""
        with _memory_file("rows") as sample:
            np.save(sample, to_int16(rows).T)
            sample.seek(0)
            self._model, self._said = _memory_file("model"), _memory_file("said")
            self._process = subprocess.Popen(
                [sys.executable, "-m", "analytics.window_training"], stdin=sample, stdout=self._model,
                stderr=self._said, start_new_session=True, env={**os.environ, **_ONE_THREAD},
            )  # fmt: skip

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def forest(self) -> Forest:
        """Wait for its end. Raises ConfigError, one line."""
        try:
            code = self._process.wait(_TRAINING_S)
        except subprocess.TimeoutExpired:
            self.close()
            raise ConfigError(f"training of the windows' forest took more than {_TRAINING_S:.0f} s") from None
        self._model.seek(0)
        self._said.seek(0)
        data, said = self._model.read(), self._said.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
        self.close()
        if code:
            raise ConfigError(f"training of the windows' forest: {said or f'ended with code {code}'}")
        return forest_from(Model.from_bytes(data, "of the windows' trainer").arrays)

    def close(self) -> None:
        """Stop it, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._model.close()
        self._said.close()


def _memory_file(name: str) -> IO[bytes]:
    return os.fdopen(os.memfd_create(name), "w+b")


def read_rows(data: bytes) -> NDArray[np.int16]:
    """The trainer's input: int16[n, columns]. Raises ValueError."""
    rows = np.load(io.BytesIO(data), allow_pickle=False)
    if rows.ndim != 2 or rows.shape[1] != len(NAMES) or rows.dtype != np.int16:
        raise ValueError("rows of another form")
    return rows  # type: ignore[no-any-return]
