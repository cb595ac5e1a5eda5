"""What is not an attack by itself but worth a look: low severity, and nothing while the usual is being learned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from engine.detect.finding import Finding
from engine.detect.rules.base import Parameters, Recent, Rule, port_of
from engine.detect.rules.exfiltration import is_own
from engine.detect.tick import Peaks, Tick
from engine.kernels import window_layout as w

_GAP_US: Final = 60_000_000  # longer silences teach nothing: the clock may have jumped
# Assigned to protocols that people read: FTP, telnet, SMTP, HTTP, POP3, IMAP, IRC (IANA).
_CLEAR: Final = (21, 23, 25, 80, 110, 143, 6667)


@dataclass(frozen=True, slots=True, kw_only=True)
class HighEntropy(Parameters):
    """Random payload (bits per byte) of at least so many bytes within 60 to 120 s that a client sends to a port of a
    protocol in clear, in which that protocol was not recognised. Images and archives come inside HTTP, SMTP or FTP.
    """

    entropy: float = 7.5
    least_bytes: int = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFlood(Parameters):
    """Attempts of one host within a second, and hosts that it asked for the first time in that second: worms and
    stateless scanners. A busy resolver or proxy asks thousands, but mostly the same."""

    attempts_per_s: int = 1000
    peers_per_s: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class NewHost(Parameters):
    """An address of a private network that was never seen, once `learn_s` have been seen (an hour: most of what is on
    has spoken). More than `most_per_s` at a time are a flood's forged sources, not hosts."""

    learn_s: float = 3600.0
    most_per_s: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TooLittleTraffic(Parameters):
    """Packets in the last `for_s`, as a share of the usual: a mirror port or a link that went away looks like peace.
    The usual is a mean over about ten minutes, known after `learn_s`, and counts from `usual_per_s`."""

    share: float = 0.02
    for_s: float = 60.0
    learn_s: float = 600.0
    usual_per_s: float = 20.0


class HighEntropyRule(Rule[HighEntropy]):
    name = "high_entropy"
    parameters = HighEntropy

    def may_find(self, peaks: Peaks) -> bool:
        return peaks.pairs[w.Q_RAW_UP] >= self.p.least_bytes

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        q, p = tick.pairs, self.p
        entropy = q[:, w.Q_RAW_ENTROPY] / np.maximum(q[:, w.Q_RAW_N], 1) / w.ENTROPY_UNIT
        for n in np.flatnonzero((q[:, w.Q_RAW_UP] >= p.least_bytes) & (entropy >= p.entropy)).tolist():
            _, port = port_of(tick.pair_word(n, w.P_RAW_PORT))
            if port not in _CLEAR:
                continue
            src, dst = tick.pair(n)
            yield Finding(
                ts=tick.ts, kind=self.name, severity="low", src_ip=src, dst_ip=dst, dst_port=port, proto=6,
                count=int(q[n, w.Q_RAW_N]), source=tick.source,
                why=f"{src} sends {entropy[n]:.1f} bits per byte to {dst} port {port}, where text is usual",
                evidence={
                    "entropy": round(float(entropy[n]), 2), "threshold": p.entropy, "bytes": int(q[n, w.Q_RAW_UP]),
                },
            )  # fmt: skip


class SourceFloodRule(Rule[SourceFlood]):
    name = "source_flood"
    parameters = SourceFlood

    def may_find(self, peaks: Peaks) -> bool:
        return peaks.hosts[w.C_ATTEMPTS] >= self.p.attempts_per_s and peaks.hosts[w.C_PEERS] >= self.p.peers_per_s

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        tick = tick.of_hosts(w.C_ATTEMPTS, self.p.attempts_per_s)
        h, p = tick.hosts, self.p
        hit = (h[:, w.C_ATTEMPTS] >= p.attempts_per_s) & (h[:, w.C_PEERS] >= p.peers_per_s)
        for n in np.flatnonzero(hit).tolist():
            attempts, peers = int(h[n, w.C_ATTEMPTS]), int(h[n, w.C_PEERS])
            yield Finding(
                ts=tick.ts, kind=self.name, severity="high", src_ip=tick.host(n), count=attempts, source=tick.source,
                why=f"{tick.host(n)} began {attempts} flows within a second, with {peers} hosts not asked before",
                evidence={"per_s": attempts, "threshold": p.attempts_per_s, "new_peers": peers},
            )  # fmt: skip


class NewHostRule(Rule[NewHost]):
    name = "new_host"
    parameters = NewHost

    def __init__(self, p: NewHost) -> None:
        super().__init__(p)
        self._known: Recent[bool] = Recent(65_536)
        self.forget()

    def forget(self) -> None:
        self._last = 0
        self._learned_s = 0.0

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        self._learned_s += min(max(0, tick.ts - self._last), _GAP_US) / 1e6 if self._last else 0.0
        self._last = tick.ts
        if not 0 < tick.peaks.new_hosts <= self.p.most_per_s:
            return
        tick = tick.of_hosts(w.C_OUT_PACKETS, 1)
        first = tick.windows.hosts[tick.host_rows, w.H_FIRST]
        new = np.flatnonzero((first // 1000 >= tick.ts - 1_000_000) & (tick.hosts[:, w.C_OUT_PACKETS] > 0))
        for n in new.tolist():
            address = tick.host(n)
            if self._known.get(address) or not is_own(address):
                continue
            self._known.put(address, True)
            if self._learned_s >= self.p.learn_s:
                yield Finding(
                    ts=tick.ts, kind=self.name, severity="low", src_ip=address, source=tick.source,
                    why=f"{address} was not seen before",
                    evidence={"known_hosts": len(self._known)},
                )  # fmt: skip


class TooLittleTrafficRule(Rule[TooLittleTraffic]):
    name = "too_little_traffic"
    parameters = TooLittleTraffic

    def __init__(self, p: TooLittleTraffic) -> None:
        super().__init__(p)
        self.forget()

    def forget(self) -> None:
        self._began = self._last = self._packets = 0
        self._usual = 0.0

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        if tick.ts - self._last < self.p.for_s * 1e6:
            return
        packets, span = int(tick.windows.state[w.S_PACKETS]), (tick.ts - self._last) / 1e6
        now = (packets - self._packets) / span
        first = not self._last
        self._last, self._packets = tick.ts, packets
        self._began = self._began or tick.ts
        if first or span > self.p.for_s * 10:  # or the clock jumped
            return
        usual = self._usual
        if usual >= self.p.usual_per_s and tick.ts - self._began >= self.p.learn_s * 1e6 and now < usual * self.p.share:
            yield Finding(
                ts=tick.ts, kind=self.name, severity="low", source=tick.source, count=int(span),
                why=f"{now:.1f} packets a second in the last {span:.0f} s; {usual:.0f} are usual",
                evidence={"per_s": round(now, 2), "usual_per_s": round(usual, 1), "share": self.p.share},
            )  # fmt: skip
            return
        self._usual += (now - usual) * min(1.0, span / 600) if usual else now
