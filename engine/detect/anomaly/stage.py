"""The stage that learns what windows of hosts are usual here, and tells of those that are far from it.

Everything is decided by the windows in their order and by findings with their times, never by where a batch ends:
windows wait until what parsers and signatures say of the same seconds is known. A replay begins with the model of
windows that replays into this lake have left, if there is one; else it learns from the capture's beginning and tells
nothing meanwhile.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from engine.anomaly_config import AnomalyConfig
from engine.detect.anomaly import columns
from engine.detect.anomaly.forests import Trainer
from engine.detect.anomaly.holding import Held
from engine.detect.anomaly.learning import Sample, peak_of
from engine.detect.anomaly.model import model_of, scorers_of
from engine.detect.anomaly.scorers import Reason, Scorer, fit, threshold_of
from engine.detect.finding import Finding
from engine.detect.tick import Ended, Tick, address_text
from engine.errors import ConfigError, EngineError
from engine.kernels import window_layout as w
from engine.models import Follower, Model, ModelStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

KIND: Final = "anomaly"
SETTLE_US: Final = 5_000_000  # so long after a window findings about it may come
COOLDOWN_US: Final = 300_000_000  # findings of a host within it are one incident (`engine.detect.incidents`)
_AGAIN_US: Final = 10_000_000
_KEYS: Final = 16_384
_NO_ATTEMPTS: Final = 1 << 40  # packets alone decide
_FIRST_S: Final = 60  # of a capture: every host is new to every other, which is never so again
_ODD_ROWS: Final = 10  # of unusual windows one in ten is learned: a change for good becomes usual, but slowly


class Waiting(NamedTuple):
    """Windows of one length that ended: of each host its address (H_HI, H_LO, H_META), source and columns."""

    start: int  # seconds
    length_s: int
    hosts: NDArray[np.int64]
    sources: list[str]
    x: NDArray[np.float32]

    @property
    def end_us(self) -> int:
        return (self.start + self.length_s) * 1_000_000


class AnomalyStage:
    """For one thread.

    Args:
        store: where models are kept; None: nowhere.
        patient: wait for a forest's trainer, and look for a model only at the start: a replay is then repeatable.

    Attributes:
        learned, not_learned: windows that taught, or did not because of an open incident or being unusual.
        told, over_budget: incidents, and those that the budget did not allow.
    """

    def __init__(
        self, config: AnomalyConfig, store: ModelStore | None = None,
        report: Callable[[str, str], None] | None = None, patient: bool = True,
    ) -> None:  # fmt: skip
        self._config = config
        self._report = report or (lambda _level, _text: None)
        self._patient = patient
        self._samples = {length: Sample(config.rows) for length in config.lengths}
        self._scorers: dict[int, Scorer] = {}
        self._version = 0
        self._store = store
        self._follower: Follower[dict[int, Scorer]] | None = None
        if config.model:
            self._scorers = scorers_of(Model.read(Path(config.model).expanduser()))
        elif store is not None:
            self._follower = Follower(store, scorers_of, self._report)
            self._follow()
        self._trainers: dict[int, Trainer] = {}
        self.learned = self.not_learned = self.told = self.over_budget = 0
        self.forget()

    def forget(self) -> None:
        """Every source has ended: what comes next may be of another time. Models stay."""
        for sample in self._samples.values():
            sample.clear()
        self._learned_s = 0
        self._began_s: int | None = None
        self._span_us = (0, 0)
        self._waiting: deque[Waiting] = deque()
        self._held = Held()
        self._said: OrderedDict[tuple[str | None, str | None], list[int]] = OrderedDict()
        self._opened: deque[int] = deque()
        self._odd = 0

    def hold(self, finding: Finding) -> None:
        """Something was found: its addresses teach nothing for a while, and need no second alert."""
        self._held.add(finding)

    def look(self, tick: Tick, ended: list[Ended]) -> None:
        """Take the windows that ended with this tick."""
        hosts = tick.windows.hosts
        for window in ended:
            if window.length_s not in self._samples:
                continue
            rows = window.busy(columns.LEAST_PACKETS, _NO_ATTEMPTS)
            # In the order in which the hosts appeared: that of the rows is the hash's, which is another at each start.
            rows = rows[np.argsort(hosts[rows, w.H_ID], kind="stable")]
            counters = window.counters_of(rows)
            sent = counters[:, w.C_OUT_PACKETS] >= columns.LEAST_PACKETS
            known = hosts[rows[sent]][:, [w.H_HI, w.H_LO, w.H_META]]
            names = {meta: tick.windows.source_name(meta >> 1) for meta in np.unique(known[:, 2]).tolist()}
            sources = [names[meta] for meta in known[:, 2].tolist()]
            x = columns.matrix(counters[sent])
            self._waiting.append(Waiting(window.start, window.length_s, known, sources, x))

    def settle(self, now_us: int | None) -> Iterator[Finding]:
        """Judge the windows of which everything is known now (None: at the end), and learn from them."""
        while self._waiting and (now_us is None or self._waiting[0].end_us + SETTLE_US <= now_us):
            window = self._waiting.popleft()
            self._began_s = window.start if self._began_s is None else self._began_s
            if window.start < self._began_s + _FIRST_S:
                continue
            if len(window.x):
                yield from self._window(window)
            if window.length_s != min(self._samples):
                continue
            self._learned_s += window.length_s
            if self._trainers and not any(t.running for t in self._trainers.values()):
                self._adopt_forests()
            elif self._learning and not self._trainers and self._learned_s >= self._config.learn_minutes * 60:
                self._learn()
            if not self._patient:
                self._follow()

    def close(self) -> None:
        """Stop what still trains."""
        for trainer in self._trainers.values():
            trainer.close()

    # --- one window --------------------------------------------------------------------------------------------------
    @property
    def _learning(self) -> bool:
        return not (self._config.model or (self._config.frozen and self._scorers))

    def _window(self, window: Waiting) -> Iterator[Finding]:
        held = self._held.among(window.hosts[:, 1], window.start * 1_000_000, window.end_us + SETTLE_US)
        scorer = self._scorers.get(window.length_s)
        odd = np.zeros(len(window.x), bool)
        if scorer is not None:
            scores = scorer.scores(window.x)
            odd = scores > scorer.threshold
            chosen = np.flatnonzero(odd & ~held)
            for n in chosen[np.argsort(-scores[chosen], kind="stable")].tolist():
                yield from self._tell(window, n, float(scores[n]), scorer)
        if self._learning:
            self._take(window, held, odd)

    def _take(self, window: Waiting, held: NDArray[np.bool_], odd: NDArray[np.bool_]) -> None:
        """Learn from what no incident is about."""
        teaches = ~held & ~odd
        for n in np.flatnonzero(odd & ~held).tolist():
            self._odd += 1
            teaches[n] = self._odd % _ODD_ROWS == 0
        hosts = window.hosts[:, 0] ^ window.hosts[:, 1]
        self._samples[window.length_s].offer(window.x[teaches], hosts[teaches], window.start)
        self.learned += int(teaches.sum())
        self.not_learned += int((~teaches).sum())
        self._span_us = self._span_us[0] or window.start * 1_000_000, window.end_us

    def _tell(self, window: Waiting, n: int, score: float, scorer: Scorer) -> Iterator[Finding]:
        address = address_text(*window.hosts[n].tolist())
        reasons = scorer.reasons(window.x[n])
        # RSTs are sent by whom a scan asks, and by forgers whose SYNs are answered: the next column tells which.
        telling = next((r for r in reasons if columns.NAMES[r.column] != "out_rst"), reasons[0])
        suffered = columns.COLUMNS[telling.column].suffered
        src, dst = (None, address) if suffered else (address, None)
        if not self._may_tell((src, dst), window.end_us):
            return
        evidence: dict[str, Any] = {
            "score": round(score, 2), "threshold": round(scorer.threshold, 2), "method": scorer.method,
            "window_s": window.length_s, "model": self._version, "windows_learned": scorer.rows,
        }  # fmt: skip
        for reason in reasons:
            name = columns.COLUMNS[reason.column].name
            evidence |= {name: reason.value, f"{name}_usual": reason.usual, f"{name}_rarely_above": reason.high}
        yield Finding(
            ts=window.end_us, kind=KIND, severity="low", src_ip=src, dst_ip=dst, confidence=0.3,
            first_ts=window.start * 1_000_000, source=window.sources[n], evidence=evidence,
            why=f"{address} in {window.length_s} s: {'; '.join(_words(r) for r in reasons)}",
        )  # fmt: skip

    def _may_tell(self, key: tuple[str | None, str | None], ts: int) -> bool:
        """One finding of a host in ten seconds; a new host only within the budget of the hour."""
        said = self._said.get(key)
        if said is not None and ts - said[1] <= COOLDOWN_US:
            said[1] = ts
            if ts - said[0] < _AGAIN_US:
                return False
            said[0] = ts
            return True
        while self._opened and self._opened[0] <= ts - 3_600_000_000:
            self._opened.popleft()
        if len(self._opened) >= self._config.per_hour:
            self.over_budget += 1
            return False
        self._opened.append(ts)
        self.told += 1
        self._said[key] = [ts, ts]
        self._said.move_to_end(key)
        if len(self._said) > _KEYS:
            self._said.popitem(last=False)
        return True

    # --- models ------------------------------------------------------------------------------------------------------
    def _follow(self) -> None:
        """Use the version that is to be used now."""
        found = self._follower.poll() if self._follower is not None else None
        if found is not None and self._follower is not None:
            self._scorers, self._version = found, self._follower.number

    def _learn(self) -> None:
        """A model of what was seen; lengths of which there was too little wait for the next time."""
        ready = [length for length, sample in self._samples.items() if len(sample) >= self._config.least_rows]
        if not ready:
            return
        if self._config.method != "iforest":
            self._adopt({n: fit(self._config.method, self._samples[n].rows()[0]) for n in ready})
            return
        try:
            self._trainers = {length: Trainer(self._samples[length].rows()[0]) for length in ready}
        except OSError as error:
            self._report("warning", f"training of the windows' forest cannot start: {error.strerror or error}")
            self._next_interval()
        if self._patient and self._trainers:
            self._adopt_forests()

    def _adopt_forests(self) -> None:
        trainers, self._trainers = self._trainers, {}
        try:
            self._adopt({
                length: fit("iforest", self._samples[length].rows()[0], trainer.forest())
                for length, trainer in trainers.items()
            })  # fmt: skip
        except ConfigError as error:
            self._report("warning", f"{error}; the earlier model goes on")
            for trainer in trainers.values():
                trainer.close()
            self._next_interval()

    def _adopt(self, fitted: dict[int, Scorer]) -> None:
        """Set the thresholds by the budget, keep the model and use it, unless an operator chose another."""
        made = {}
        for length, scorer in fitted.items():
            rows, episodes, share = self._samples[length].rows()
            hours = (self._span_us[1] - self._span_us[0]) / 3.6e9
            allowed = int(self._config.per_hour * hours * share / len(fitted))
            made[length] = scorer.with_threshold(
                threshold_of(scorer.method, peak_of(scorer.scores(rows), episodes, allowed), self._config.margin)
            )
        number = 0
        if self._store is not None:
            try:
                counts = {
                    "learned": self.learned, "not_learned": self.not_learned, "told": self.told,
                    "over_budget": self.over_budget,
                }  # fmt: skip
                number = self._store.add(model_of(made, self._config, self._span_us, counts))
            except EngineError as error:
                self._report("warning", f"{error}; the model of windows is used but not kept")
        if self._follower is None or not self._follower.chosen:
            self._scorers, self._version = made, number
            if self._follower is not None and number:
                self._follower.number = number
        self._next_interval()

    def _next_interval(self) -> None:
        for sample in self._samples.values():
            sample.turn()
        self._learned_s = 0


def _words(reason: Reason) -> str:
    values = reason.value, reason.usual, reason.high
    value, usual, high = (f"{v:,.0f}" if v == int(v) else f"{v:,.1f}" for v in values)
    return f"{value} {columns.COLUMNS[reason.column].words} (usual {usual}, rarely above {high})"
