"""One host calls the same address outside again and again, in steps, and nobody else does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engine.detect.finding import Finding
from engine.detect.rules.base import Parameters, Recent, Rule, port_of
from engine.detect.rules.exfiltration import is_own
from engine.detect.tick import Peaks, Tick
from engine.kernels import window_layout as w
from engine.kernels.window_ticks import X_GAP_SUM, X_STARTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_POPULAR_US = 3_600_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Beacon(Parameters):
    """Connections of one host to an address outside, for how long, and the largest deviation of the gaps between them
    as a share of their mean.

    Jitter of 30 % deviates by 17 % when evenly spread, 30 % when normally; people's connections come in bursts and
    deviate by more than 100 %. Updaters and monitors are as regular, so an address that more than `clients` hosts call
    does not count (RITA takes prevalence the same way), nor do gaps below `gap_s`, in which requests of one page come.
    """

    connections: int = 10
    for_s: float = 60.0
    deviation: float = 0.35
    gap_s: float = 2.0
    clients: int = 1


class BeaconRule(Rule[Beacon]):
    name = "beacon"
    parameters = Beacon

    def __init__(self, p: Beacon) -> None:
        super().__init__(p)
        # To count the clients of a server costs 0.2 ms: not again before a pair has a tenth more connections, nor, of a
        # server that has many, within an hour.
        self._popular: Recent[int] = Recent()  # by address: when it was found to have many, microseconds
        self._judged = np.zeros((0, 2), np.int64)  # by row: the pair, and its connections when it was looked at last

    def forget(self) -> None:
        self._popular.clear()
        self._judged[:] = 0

    def may_find(self, peaks: Peaks) -> bool:
        return peaks.pairs[X_STARTS] >= self.p.connections and peaks.pairs[X_GAP_SUM] >= self.p.for_s * 1000

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        p, pairs = self.p, tick.windows.pairs
        enough = np.flatnonzero(pairs[tick.pair_rows, w.P_STARTS] >= max(p.connections, 2))
        rows = tick.pair_rows[enough]
        gaps, total = pairs[rows, w.P_STARTS] - 1, pairs[rows, w.P_GAP_SUM]
        mean = total / gaps
        deviation = np.sqrt(np.maximum(0.0, pairs[rows, w.P_GAP_SQUARES] / gaps - mean * mean)) / np.maximum(mean, 1e-9)
        regular = (total >= p.for_s * 1000) & (mean >= p.gap_s * 1000) & (deviation <= p.deviation)
        for i in self._new(np.flatnonzero(regular), rows, pairs).tolist():
            n = int(enough[i])
            src, dst = tick.pair(n)
            if is_own(dst) or not is_own(src):
                continue
            _, port = port_of(tick.pair_word(n, w.P_START_PORT))
            found = self._popular.get(dst)
            if found is not None and abs(tick.ts - found) < _POPULAR_US:
                continue
            clients = tick.windows.clients_of(int(rows[i]))
            if clients > p.clients:
                self._popular.put(dst, tick.ts)
                continue
            yield Finding(
                ts=tick.ts, kind=self.name, severity="medium", src_ip=src, dst_ip=dst, dst_port=port, proto=6,
                count=int(gaps[i]) + 1, first_ts=tick.ts - int(total[i]) * 1000, source=tick.source,
                why=f"{src} called {dst} port {port} {int(gaps[i]) + 1} times, every {mean[i] / 1000:.1f} s give or "
                f"take {deviation[i]:.0%}; no other host did",
                evidence={
                    "connections": int(gaps[i]) + 1, "threshold": p.connections,
                    "mean_gap_s": round(float(mean[i]) / 1000, 2), "deviation": round(float(deviation[i]), 3),
                    "usual_deviation": 1.0, "clients": clients,
                },
            )  # fmt: skip

    def _new(self, at: NDArray[np.intp], rows: NDArray[np.int32], pairs: NDArray[np.int64]) -> NDArray[np.intp]:
        """Those of `at`, indices of `rows`, that have a tenth more connections than when they were looked at last, or
        began a new series."""
        if len(self._judged) != len(pairs):
            self._judged = np.zeros((len(pairs), 2), np.int64)
        now, before = pairs[rows[at, None], [w.P_ID, w.P_STARTS]], self._judged[rows[at]]
        more = now[:, 1] - before[:, 1]
        new = (now[:, 0] != before[:, 0]) | (more * 10 >= before[:, 1]) | (more < 0)
        chosen: NDArray[np.intp] = at[new]
        self._judged[rows[chosen]] = now[new]
        return chosen
