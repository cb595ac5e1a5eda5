"""Models that keep themselves: a sample of the rows, a process that trains on it, scores with what it wrote.

scikit-learn is never imported here: a process of `analytics.training` gets the sample on its standard input, lowers its
own priority, writes `<lake>/.models/sensor=<name>/packets.npz` and ends. It runs with the rights the engine has left.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import numpy as np

from engine.config import ScoringConfig
from engine.errors import ConfigError
from engine.forest import Forest
from engine.packets import ROWS_PER_BATCH, PacketBatch
from engine.scoring import Reservoir, Scorer
from engine.segment_file import make_directories

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TRAINING_S: Final = 300.0  # a trainer that takes longer is stopped
_RETRY_S: Final = 600.0  # after one has failed
_ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def model_path(lake: Path, sensor: str) -> Path:
    """Where the model of a sensor's packets is kept."""
    return lake / ".models" / f"sensor={sensor}" / "packets.npz"


class Trainer:
    """The process that trains. It is given rows in memory, so that nothing but the model is ever on disk."""

    def __init__(self, model: Path, config: ScoringConfig, rows: NDArray[np.int16], span_us: tuple[int, int]) -> None:
        """Start it. Raises OSError."""
        make_directories(model.parent)
        command = [
            sys.executable, "-m", "analytics.training", "--model", str(model), "--trees", str(config.trees),
            "--samples", str(config.samples), "--first-us", str(span_us[0]), "--last-us", str(span_us[1]),
        ]  # fmt: skip
        with contextlib.ExitStack() as on_failure, _memory_file("rows") as sample:
            self._said = on_failure.enter_context(_memory_file("said"))
            np.save(sample, rows)
            sample.seek(0)
            self._process = subprocess.Popen(
                command, stdin=sample, stdout=subprocess.DEVNULL, stderr=self._said,
                start_new_session=True,  # Ctrl-C is the engine's to handle
                env={**os.environ, **_ONE_THREAD},
            )  # fmt: skip
            on_failure.pop_all()
        self._started = time.monotonic()

    def outcome(self) -> str | None:
        """None while it runs, then empty when it has written the model, else what went wrong in one line."""
        code = self._process.poll()
        if code is None:
            if time.monotonic() - self._started < _TRAINING_S:
                return None
            self.close()
            return f"took more than {_TRAINING_S:.0f} s"
        self._said.seek(0)
        last = self._said.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
        self.close()
        return "" if code == 0 else last or f"ended with code {code}"

    def wait(self) -> None:
        """Until it has ended, or has had its time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_TRAINING_S)

    def close(self) -> None:
        """Stop it, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._said.close()


def _memory_file(name: str) -> IO[bytes]:
    return os.fdopen(os.memfd_create(name), "w+b")


class ScoringLoop:
    """Everything about scores, for the thread that sees each batch: it samples, has models trained, and scores.

    Args:
        report: told in one line what the operator should know; its first argument is "warning".
        patient: wait for the first model instead of leaving rows unscored meanwhile. For replays: a file waits, and
            the same file then gets the same scores.

    Attributes:
        scored: rows that got a score so far.
    """

    def __init__(
        self, lake: Path, sensor: str, config: ScoringConfig, report: Callable[[str, str], None],
        patient: bool = False, rows: int = ROWS_PER_BATCH,
    ) -> None:  # fmt: skip
        self._config = config
        self._report = report
        self._path = model_path(lake, sensor)
        self._trainer: Trainer | None = None
        self._not_before = 0.0
        self.patient = patient
        self.scored = 0
        if config.enabled:
            self._scorer = Scorer(rows=rows)
            self._reservoir = Reservoir(config.training_rows)
            if self._path.exists():
                self._load()

    @property
    def forest(self) -> Forest | None:
        """The model in use."""
        return self._scorer.forest if self._config.enabled else None

    def take(self, packets: PacketBatch, score: bool = True) -> None:
        """Learn from the rows and, unless told not to, score them as far as there is a model."""
        if not self._config.enabled:
            return
        self._reservoir.offer(self._scorer.fill(packets), packets)
        self._attend()
        if score and self._scorer.forest is not None:
            self._scorer.score_filled(packets)
            self.scored += packets.count

    def close(self) -> None:
        """Stop a trainer that runs. A model it has finished stays for the next start."""
        if self._trainer is not None:
            self._trainer.close()
            self._trainer = None

    # --- training ------------------------------------------------------------------------------------------------

    def _attend(self) -> None:
        """Start a trainer when one is due, and take over what it has finished."""
        if self._trainer is None and self._is_due():
            try:
                self._trainer = Trainer(self._path, self._config, self._reservoir.rows, self._reservoir.span_us)
            except OSError as error:
                self._fail(f"cannot start: {error.strerror or error}")
            self._reservoir.restart()  # the next model learns from what comes after
            if self._trainer is not None and self.patient and self._scorer.forest is None:
                self._trainer.wait()
        outcome = self._trainer.outcome() if self._trainer is not None else None
        if outcome is not None:
            self._trainer = None
            if outcome:
                self._fail(outcome)
            else:
                self._load()

    def _is_due(self) -> bool:
        config, forest = self._config, self._scorer.forest
        if self._reservoir.seen < config.first_after_rows or time.monotonic() < self._not_before:
            return False
        if forest is None:
            return True
        return config.retrain_minutes > 0 and time.time() - forest.made_s >= config.retrain_minutes * 60

    def _load(self) -> None:
        try:
            self._scorer.forest = Forest.load(self._path)
        except ConfigError as error:
            self._report("warning", str(error))

    def _fail(self, why: str) -> None:
        self._not_before = time.monotonic() + _RETRY_S
        until = "packets have no score" if self._scorer.forest is None else "the earlier model goes on"
        self._report("warning", f"training of the anomaly model: {why}; {until}, next try in {_RETRY_S / 60:.0f} min")
