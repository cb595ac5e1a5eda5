"""What the model in use does, minute by minute: rows of `model_stats`, and a word when traffic has become another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engine.drift import CHANGED, N_EDGES, Baseline
from engine.kernels import forest_steps as q
from engine.kernels import score_counts as kernel
from engine.model_row import EDGES, N_BINS
from engine.packets import L_TS, PacketBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BIN_OF: Final = np.searchsorted(np.array(EDGES), np.arange(q.GRAIN + 1) / q.GRAIN, "right").astype(np.uint8)
_NO_MINUTE: Final = -(1 << 40)
_US_PER_MINUTE: Final = 60_000_000
_SOURCES: Final = 64  # counted at once; of more, the oldest is passed on early
_LOOKED_AT: Final = 512  # rows of a batch whose features are counted
Rows = list[dict[str, Any]]


def _counts() -> NDArray[np.int64]:
    state = np.zeros(kernel.N_COUNTS, np.int64)
    state[kernel.C_MINUTE], state[kernel.C_TOP] = _NO_MINUTE, -1
    return state


@dataclass(slots=True, eq=False)
class _Minute:
    """What is counted of one source's minute."""

    state: NDArray[np.int64] = field(default_factory=_counts)
    bins: NDArray[np.int64] = field(default_factory=lambda: np.zeros(N_BINS, np.int64))
    not_learned: int = 0


class ScoreStats:
    """Counts the rows of batches. For one thread; memory is bounded.

    Args:
        sensor: whose model it is. threshold: anomalies from here on are counted as above.
        drift_minutes: that are compared with training rows.
        emit: takes rows of `model_stats`. report: told once a model that traffic is not what it learned any more.

    Attributes:
        refused: versions that could not be used; whoever knows sets it.
    """

    def __init__(
        self, sensor: str, threshold: float, drift_minutes: int, emit: Callable[[Rows], None],
        report: Callable[[str, str], None],
    ) -> None:  # fmt: skip
        self._sensor = sensor
        self._threshold = threshold
        self._least = int(np.ceil(threshold * q.GRAIN))
        self._drift_minutes = drift_minutes
        self._emit = emit
        self._report = report
        self._minutes: dict[str, _Minute] = {}
        self._recent: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}  # minute: bins, features, all sources
        self._model = 0
        self._baseline: Baseline | None = None
        self._told = False
        self.refused = 0

    def set_threshold(self, threshold: float) -> None:
        """Anomalies from here on are counted as above, from now on."""
        if threshold != self._threshold:
            self.flush()
            self._threshold = threshold
            self._least = int(np.ceil(threshold * q.GRAIN))

    def use(self, model: int, baseline: Baseline) -> None:
        """Another model scores from now on."""
        self.flush()
        self._model, self._baseline, self._told = model, baseline, False
        self._recent.clear()

    def take(self, packets: PacketBatch, features: NDArray[np.int16]) -> None:
        """Count a batch that was scored."""
        at, count = 0, packets.count
        while at < count:
            one = self._minute_of(packets.source)
            begin, at = at, kernel.count_scores(
                packets.anomaly, packets.long, at, count, _BIN_OF, self._least, one.state, one.bins
            )  # fmt: skip
            if at > begin:
                self._count_features(features, begin, at, one)
            if at < count:
                self._pass_on(packets.source)
                one = self._minute_of(packets.source)
                one.state[kernel.C_MINUTE] = packets.long[L_TS, at] // _US_PER_MINUTE

    def _count_features(self, features: NDArray[np.int16], begin: int, end: int, one: _Minute) -> None:
        if self._baseline is not None:
            stride = 1 + (end - begin) // _LOOKED_AT
            counts = self._recent_of(int(one.state[kernel.C_MINUTE]))[1]
            first = begin + int(one.state[kernel.C_ROWS]) % stride  # another phase each time
            kernel.count_features(features, first, end, stride, self._baseline.edges, counts)

    def not_learned(self, packets: PacketBatch) -> None:
        """A batch was kept out of the training rows. Call it after `take`."""
        if not packets.count:
            return
        one = self._minute_of(packets.source)
        minute = int(packets.long[L_TS, packets.count - 1]) // _US_PER_MINUTE
        if not one.state[kernel.C_ROWS] and one.state[kernel.C_MINUTE] != minute:
            self._pass_on(packets.source)
            one = self._minute_of(packets.source)
            one.state[kernel.C_MINUTE] = minute
        one.not_learned += packets.count

    def tick(self, now_us: int) -> None:
        """While nothing is captured: pass on the minutes that are over."""
        for source in [s for s, one in self._minutes.items() if one.state[kernel.C_MINUTE] < now_us // _US_PER_MINUTE]:
            self._pass_on(source)

    def flush(self) -> None:
        """Pass everything on."""
        for source in list(self._minutes):
            self._pass_on(source)

    def warm_up(self, packets: PacketBatch, features: NDArray[np.int16]) -> None:
        """Compile what has not been. `packets` must be empty."""
        edges, counts = np.zeros((len(features), N_EDGES), np.int16), self._recent_of(0)[1]
        kernel.count_scores(packets.anomaly, packets.long, 0, 0, _BIN_OF, 0, _counts(), np.zeros(N_BINS, np.int64))
        kernel.count_features(features, 0, 0, 1, edges, counts)

    # --- minutes to rows ---------------------------------------------------------------------------------------------

    def _minute_of(self, source: str) -> _Minute:
        one = self._minutes.get(source)
        if one is None:
            if len(self._minutes) >= _SOURCES:
                self._pass_on(next(iter(self._minutes)))
            one = self._minutes[source] = _Minute()
        return one

    def _recent_of(self, minute: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if minute not in self._recent:
            for old in [m for m in self._recent if not minute - self._drift_minutes < m <= minute]:
                del self._recent[old]
            shape = (len(q.FEATURES), N_EDGES + 1)
            self._recent[minute] = np.zeros(N_BINS, np.int64), np.zeros(shape, np.int64)
        return self._recent[minute]

    def _pass_on(self, source: str) -> None:
        one = self._minutes.pop(source)
        minute, scored = int(one.state[kernel.C_MINUTE]), int(one.state[kernel.C_ROWS])
        if not scored and not one.not_learned:
            return
        top = int(one.state[kernel.C_TOP])
        row: dict[str, Any] = {
            "ts": minute * _US_PER_MINUTE, "source": source, "model": self._model or None,
            "model_sensor": self._sensor, "scored": scored,
            "threshold": self._threshold, "above": int(one.state[kernel.C_ABOVE]), "bins": one.bins.tolist(),
            "top_anomaly": top / q.GRAIN if scored else None,
            "top_frame_no": int(one.state[kernel.C_TOP_FRAME]) if scored else None,
            "not_learned": one.not_learned, "models_refused": self.refused,
        }  # fmt: skip
        if scored:
            self._recent_of(minute)[0][:] += one.bins
            row |= self._drift()
        self._emit([row])

    def _drift(self) -> dict[str, Any]:
        bins, features = (sum(counts) for counts in zip(*self._recent.values(), strict=True))
        found = None if self._baseline is None else self._baseline.compare(np.asarray(bins), np.asarray(features))
        if found is None:
            return {}
        index, of_features = found
        worst = int(of_features.argmax())
        if index > CHANGED and not self._told:
            self._told = True
            self._report(
                "warning",
                f"anomaly model {self._model}: traffic is not what it learned any more (stability index "
                f"{index:.2f}, above {CHANGED}; most of all {q.FEATURES[worst]}); `engine model show` has the figures, "
                "`engine model train` learns anew",
            )
        return {"psi": index, "worst_feature": q.FEATURES[worst], "worst_psi": float(of_features[worst])}
