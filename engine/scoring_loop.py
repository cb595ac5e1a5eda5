"""Models that keep themselves: a sample of the rows, a process that trains on it, scores with what it wrote.

scikit-learn is never imported here: a process of `analytics.training` gets the sample on its standard input, lowers its
own priority, adds a version to `<lake>/models` and ends. It runs with the rights the engine has left. Which version is
in use is looked up every two seconds, so that operators may train, choose and bring models while the engine runs.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

from engine.config import ScoringConfig
from engine.drift import Baseline
from engine.forest import Forest
from engine.models import Follower, Model, ModelStore
from engine.packets import ROWS_PER_BATCH, PacketBatch
from engine.score_stats import ScoreStats
from engine.scoring import Reservoir, Scorer, WindowSample

if TYPE_CHECKING:
    from numpy.typing import NDArray

KIND: Final = "packet"
_TRAINING_S: Final = 300.0  # a trainer that takes longer is stopped
_RETRY_S: Final = 600.0  # after one has failed
_LOOK_S: Final = 2.0  # for other models
_STOPGAP: Final = 10  # times `first_after_rows` kept out of learning, and no model: then one of all packets, for now
_ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Trainer:
    """The process that trains. It is given rows in memory, so that nothing but the model is ever on disk."""

    def __init__(
        self, lake: Path, sensor: str, config: ScoringConfig, rows: NDArray[np.int16], span_us: tuple[int, int]
    ) -> None:
        """Start it. Raises OSError."""
        command = [
            sys.executable, "-m", "analytics.training", "--lake", str(lake), "--sensor", sensor,
            "--trees", str(config.trees), "--samples", str(config.samples),
            "--first-us", str(span_us[0]), "--last-us", str(span_us[1]),
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


def _usable(model: Model) -> tuple[Forest, Baseline]:
    """Raises ConfigError for a model that this engine cannot use."""
    return Forest.of(model), Baseline.of(model)


class ScoringLoop:
    """Everything about scores, for the thread that sees each batch: it samples, has models trained, and scores.

    Args:
        report: told in one line what the operator should know; its first argument is "warning" or "note".
        patient: wait for the first model instead of leaving rows unscored meanwhile. For replays: a file waits, and
            the same file then gets the same scores.
        emit: takes rows of `model_stats`.

    Attributes:
        scored: rows that got a score so far.
    """

    def __init__(
        self, lake: Path, sensor: str, config: ScoringConfig, report: Callable[[str, str], None],
        patient: bool = False, rows: int = ROWS_PER_BATCH,
        emit: Callable[[list[dict[str, Any]]], None] = lambda _rows: None,
    ) -> None:  # fmt: skip
        self._lake, self._sensor = lake, sensor
        self._config = config
        self._report = report
        self._trainer: Trainer | None = None
        self._not_before = self._look_at = 0.0
        self._kept_out = 0  # rows, while there is no model
        self._stopgap = False  # the model in use learned during an incident
        self._since = 0  # rows learned from since the last training began
        self.patient = patient
        self.scored = 0
        if config.enabled:
            self._scorer = Scorer(rows=rows)
            self._sample = (
                Reservoir(config.training_rows)
                if config.training == "reservoir"
                else WindowSample(config.training_rows, config.window_minutes)
            )
            self._models = Follower(ModelStore(lake, sensor, KIND), _usable, report)
            drift = (lambda _level, _text: None) if patient else report  # the first minutes of a file are not the rest
            self.stats = ScoreStats(sensor, config.threshold, config.drift_minutes, emit, drift)
            self._follow()

    def configure(self, config: ScoringConfig) -> None:
        """From now on, with this threshold."""
        if self._config.enabled:
            self.stats.set_threshold(config.threshold)

    @property
    def forest(self) -> Forest | None:
        """The model in use."""
        return self._scorer.forest if self._config.enabled else None

    @property
    def model(self) -> int:
        """Its version, 0 for none."""
        return self._models.number if self._config.enabled else 0

    @property
    def features(self) -> NDArray[np.int16]:
        """Of the last batch: int16[n_features, rows]."""
        return self._scorer.features

    def take(self, packets: PacketBatch, score: bool = True, learn: bool = True) -> None:
        """Learn from the rows and, unless told not to, score them as far as there is a model."""
        if not self._config.enabled:
            return
        features = self._scorer.fill(packets)
        learned = learn or self._must_learn(packets.count)
        if learned:
            self._sample.offer(features, packets)
            self._since += packets.count
        self._attend()
        if score and self._scorer.forest is not None:
            self._scorer.score_filled(packets)
            self.scored += packets.count
            self.stats.take(packets, features)
        if not learned:
            self.stats.not_learned(packets)

    def tick(self, now_us: int) -> None:
        """While nothing is captured; `now_us` is the machine's clock."""
        if self._config.enabled:
            self.stats.tick(now_us)
            self._attend()

    def close(self) -> None:
        """Stop a trainer that runs, and pass on what was counted. A model that is finished stays for the next start."""
        if self._config.enabled:
            self.stats.flush()
        if self._trainer is not None:
            self._trainer.close()
            self._trainer = None

    # --- training ------------------------------------------------------------------------------------------------

    def _attend(self) -> None:
        """Start a trainer when one is due, and take over what it has finished or an operator has chosen."""
        if self._trainer is None and self._is_due():
            try:
                self._trainer = Trainer(self._lake, self._sensor, self._config, self._sample.rows, self._sample.span_us)
            except OSError as error:
                self._fail(f"cannot start: {error.strerror or error}")
            self._since = 0
            self._stopgap = self._stopgap and self._scorer.forest is None
            self._sample.restart()  # the next model learns from what comes after
            if self._trainer is not None and self.patient and self._scorer.forest is None:
                self._trainer.wait()
        outcome = self._trainer.outcome() if self._trainer is not None else None
        if outcome is not None:
            self._trainer = None
            if outcome:
                self._fail(outcome)
            else:
                self._follow()
        elif self._trainer is None and time.monotonic() >= self._look_at:
            before = self._models.number
            if self._follow():
                instead = f", in place of {before}" if before else ""
                self._report("note", f"anomaly model {self._models.number} is in use{instead}")

    def _is_due(self) -> bool:
        config, forest = self._config, self._scorer.forest
        if self._since < config.first_after_rows or time.monotonic() < self._not_before:
            return False
        if self._sample.seen < config.first_after_rows:  # a window may have lost what it had
            return False
        if forest is None:
            return True
        old = self._stopgap or time.time() - forest.made_s >= config.retrain_minutes * 60
        return old and config.retrain_minutes > 0 and not self._models.chosen

    def _follow(self) -> bool:
        """Use the version that is to be used. True when it is another one than before."""
        self._look_at = time.monotonic() + _LOOK_S
        found = self._models.poll()
        self.stats.refused = self._models.refused
        if found is None:
            return False
        self._scorer.forest, baseline = found
        self.stats.use(self._models.number, baseline)
        return True

    def _must_learn(self, count: int) -> bool:
        """Learn during an incident: where there always is one, a model of everything is better than none at all.

        The next one learns without, as soon as enough such packets have come.
        """
        if self._scorer.forest is not None:
            return False
        self._kept_out += count
        if self._kept_out < _STOPGAP * self._config.first_after_rows:
            return False
        if not self._stopgap:
            self._stopgap = True
            self._sample.restart()
            self._since = 0
            self._report(
                "note", "no anomaly model yet, and an incident above low is always open: the first learns all the same"
            )
        return True

    def _fail(self, why: str) -> None:
        self._not_before = time.monotonic() + _RETRY_S
        until = "packets have no score" if self._scorer.forest is None else "the earlier model goes on"
        self._report("warning", f"training of the anomaly model: {why}; {until}, next try in {_RETRY_S / 60:.0f} min")
