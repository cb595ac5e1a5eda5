"""Echo requests that carry something else every time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from engine.detect.finding import Finding
from engine.detect.rules.base import Parameters, Rule
from engine.detect.tick import Peaks, Tick
from engine.kernels import window_layout as w


@dataclass(frozen=True, slots=True, kw_only=True)
class IcmpTunnel(Parameters):
    """Echo requests of a pair whose content or length differs from the one before, within 60 to 120 s, and their mean
    payload. ping, fping and monitors repeat the same bytes beyond the first 16, in which they keep the time.
    """

    changes: int = 15
    mean_payload_bytes: int = 32


class IcmpTunnelRule(Rule[IcmpTunnel]):
    name = "icmp_tunnel"
    parameters = IcmpTunnel

    def may_find(self, peaks: Peaks) -> bool:
        return peaks.pairs[w.Q_ECHO_CHANGES] >= self.p.changes

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        q = tick.pairs
        hit = q[:, w.Q_ECHO_CHANGES] >= self.p.changes
        hit &= q[:, w.Q_ECHO_BYTES] >= q[:, w.Q_ECHO_N] * self.p.mean_payload_bytes
        for n in np.flatnonzero(hit).tolist():
            src, dst = tick.pair(n)
            changes, packets, size = (int(q[n, c]) for c in (w.Q_ECHO_CHANGES, w.Q_ECHO_N, w.Q_ECHO_BYTES))
            yield Finding(
                ts=tick.ts, kind=self.name, severity="high", src_ip=src, dst_ip=dst, proto=1, count=packets,
                first_ts=tick.window_start(tick.pair_word(n, w.P_FIRST)), source=tick.source,
                why=f"{changes} of {packets} echo requests from {src} to {dst} carried other bytes than the one before",
                evidence={"changes": changes, "threshold": self.p.changes, "packets": packets, "payload_bytes": size},
            )  # fmt: skip
