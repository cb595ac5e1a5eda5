"""Many requests to one server that are begun and not completed: they hold its connections."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from engine.detect.finding import Finding
from engine.detect.rules.base import Parameters, Rule, port_of
from engine.detect.tick import Peaks, Tick
from engine.kernels import window_layout as w


@dataclass(frozen=True, slots=True, kw_only=True)
class Slowloris(Parameters):
    """Connections of one host to another, opened within 60 to 120 s, in which 5 s after the handshake a request has
    begun, no head has ended (an empty line) and the server has said nothing. Browsers open six at most per server and
    send heads in one piece; a slow server has got whole heads.
    """

    connections: int = 20


class SlowlorisRule(Rule[Slowloris]):
    name = "slowloris"
    parameters = Slowloris

    def may_find(self, peaks: Peaks) -> bool:
        return peaks.pairs[w.Q_SLOW] >= self.p.connections

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        for n in np.flatnonzero(tick.pairs[:, w.Q_SLOW] >= self.p.connections).tolist():
            src, dst = tick.pair(n)
            _, port = port_of(tick.pair_word(n, w.P_SLOW_PORT))
            slow = int(tick.pairs[n, w.Q_SLOW])
            yield Finding(
                ts=tick.ts, kind=self.name, severity="high", src_ip=src, dst_ip=dst, dst_port=port, proto=6, count=slow,
                first_ts=tick.window_start(tick.pair_word(n, w.P_FIRST)), source=tick.source,
                why=f"{src} holds {slow} connections to {dst} port {port} with requests that it does not complete",
                evidence={"connections": slow, "threshold": self.p.connections},
            )  # fmt: skip
