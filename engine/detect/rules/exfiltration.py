"""Much goes out to the internet in a form that no known application has."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from engine.detect.finding import Finding
from engine.detect.rules.base import Parameters, Rule, port_of
from engine.detect.tick import Peaks, Tick
from engine.kernels import window_layout as w

# RFC 1918, 6598, 3927, 4193, 4291.
_OWN: Final = tuple(
    ipaddress.ip_network(n)
    for n in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "fc00::/7",
        "fe80::/10",
    )
)


@lru_cache(4096)
@lru_cache(8192)
def is_own(address: str) -> bool:
    """An address that is not routed on the internet."""
    ip = ipaddress.ip_address(address)
    return any(ip in network for network in _OWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exfiltration(Parameters):
    """Payload that one host sends to an address outside within 60 to 120 s, over TCP connections that were seen from
    their start and in which no application was recognised; how random it looks (encrypted or compressed: random bytes
    in packets of 1 kB have 7.8 bits per byte, text 4 to 5); and how little comes back.

    Uploads of people are TLS, SSH, HTTP or QUIC. 150 kB of an unknown protocol is more than telemetry sends.
    `volume_bytes` holds for recognised applications too (Slips: 500 MB).
    """

    unknown_bytes: int = 150_000
    unknown_entropy: float = 7.2
    answer_share: float = 0.1
    volume_bytes: int = 500_000_000


class ExfiltrationRule(Rule[Exfiltration]):
    name = "exfiltration"
    parameters = Exfiltration

    def may_find(self, peaks: Peaks) -> bool:
        return peaks.pairs[w.Q_RAW_UP] >= self.p.unknown_bytes or peaks.pairs[w.Q_UP] >= self.p.volume_bytes

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        q, p = tick.pairs, self.p
        raw, up, down = q[:, w.Q_RAW_UP], q[:, w.Q_UP], q[:, w.Q_DOWN]
        entropy = q[:, w.Q_RAW_ENTROPY] / np.maximum(q[:, w.Q_RAW_N], 1) / w.ENTROPY_UNIT
        unknown = (raw >= p.unknown_bytes) & (entropy >= p.unknown_entropy) & (down <= raw * p.answer_share)
        volume = (up >= p.volume_bytes) & (down <= up * p.answer_share)
        for n in np.flatnonzero(unknown | volume).tolist():
            src, dst = tick.pair(n)
            if is_own(dst) or not is_own(src):
                continue
            _, port = port_of(tick.pair_word(n, w.P_RAW_PORT))
            sent = int(raw[n] if unknown[n] else up[n])
            form = f"of no known application ({entropy[n]:.1f} bits per byte)" if unknown[n] else "of payload"
            yield Finding(
                ts=tick.ts, kind=self.name, severity="high", src_ip=src, dst_ip=dst, dst_port=port, proto=6,
                count=max(1, int(q[n, w.Q_RAW_N])),
                first_ts=tick.window_start(tick.pair_word(n, w.P_FIRST)), source=tick.source,
                why=f"{src} sent {sent:,} bytes {form} to {dst} port {port} and got {int(down[n]):,}",
                evidence={
                    "bytes": sent, "threshold": p.unknown_bytes if unknown[n] else p.volume_bytes,
                    "entropy": round(float(entropy[n]), 2), "bytes_back": int(down[n]),
                },
            )  # fmt: skip
