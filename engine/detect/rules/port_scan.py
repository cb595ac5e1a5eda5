"""One host tries many ports of another that do not answer as a service would."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from engine.detect.finding import Finding
from engine.detect.rules.base import PROTOCOLS, Parameters, Rule, port_of
from engine.detect.tick import Peaks, Tick
from engine.kernels import window_layout as w

_TYPES: Final = ("syn", "udp", "fin", "xmas", "null")


@dataclass(frozen=True, slots=True, kw_only=True)
class PortScan(Parameters):
    """Distinct ports of one host that refused or did not answer, within 60 to 120 s.

    Between Maltrail's 10 and the 15 of Zeek's scan script. Failures only, so busy clients of many services do not
    count; at one port a second it is reached in 13 s. A host with a few services down refuses a handful of ports.
    Of segments that no TCP sends (without flags, FIN alone, FIN with URG) to ports that refuse or keep silent, few are
    enough: they are made to slip by.
    """

    distinct_ports: int = 12
    odd_ports: int = 3


class PortScanRule(Rule[PortScan]):
    name = "port_scan"
    parameters = PortScan

    def may_find(self, peaks: Peaks) -> bool:
        q = peaks.pairs
        odd = q[w.Q_PORTS] >= self.p.odd_ports and q[w.Q_XMAS] + q[w.Q_NULL] > 0
        return bool(q[w.Q_PORTS] >= self.p.distinct_ports or odd)

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        q = tick.pairs
        odd = q[:, w.Q_FIN] + q[:, w.Q_XMAS] + q[:, w.Q_NULL]
        odd_hit = (odd >= self.p.odd_ports) & (q[:, w.Q_PORTS] >= self.p.odd_ports)
        odd_hit &= odd > q[:, w.Q_FIN]  # a lone FIN also ends a connection that nobody remembers
        for n in np.flatnonzero((q[:, w.Q_PORTS] >= self.p.distinct_ports) | odd_hit).tolist():
            pair = q[n].tolist()
            by_type = pair[w.Q_SYN : w.Q_SYN + len(_TYPES)]
            technique = _TYPES[by_type.index(max(by_type))]
            ports, failed, refused = pair[w.Q_PORTS], pair[w.Q_FAILED], pair[w.Q_REFUSED]
            src, dst = tick.pair(n)
            proto, _ = port_of(tick.pair_word(n, w.P_PORT))
            yield Finding(
                ts=tick.ts, kind=self.name, severity="medium", src_ip=src, dst_ip=dst, proto=proto, count=failed,
                first_ts=tick.window_start(tick.pair_word(n, w.P_FIRST)), source=tick.source,
                why=f"{src} tried {ports} ports of {dst} that did not open ({technique} scan, {refused} refused, "
                f"{pair[w.Q_ANSWERED]} answered)",
                evidence={
                    "ports": ports, "threshold": self.p.distinct_ports, "technique": technique, "refused": refused,
                    "answered": pair[w.Q_ANSWERED], "protocol": PROTOCOLS.get(proto, str(proto)),
                },
            )  # fmt: skip
