"""Too much for one victim. Keyed by the victim: sources may be forged by the million."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.detect.finding import Finding
from engine.detect.rules.base import Parameters, Rule
from engine.detect.tick import Peaks, Tick
from engine.kernels import window_layout as w


@dataclass(frozen=True, slots=True, kw_only=True)
class SynFlood(Parameters):
    """SYNs to one host within a second, and the largest share of them that may complete the handshake.

    ntopng counts 256 a minute but ships the check disabled; 100 a second is beyond what clients of one host open
    without completing. Most SYNs must be for one port or from many sources: else it is a port scan.
    """

    syns_per_s: int = 100
    completed_share: float = 0.3
    sources: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class AckFlood(Parameters):
    """Segments of no connection to one host within a second, to which it sent nothing but RST: all empty ones, and
    those with data that it did answer so.

    A capture that begins in the middle shows some for every connection, once; 100 a second is not that.
    """

    segments_per_s: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpFlood(Parameters):
    """UDP datagrams to one host within a second, of which it answers at most a share; and what makes them a flood:
    many flows, ICMP errors of the victim, or very many packets. A one-way stream (video, voice) is a single flow.
    Many flows to as many ports are a flood only if they carry more than probes do, else a port scan.
    """

    packets_per_s: int = 100
    answered_share: float = 0.05
    flows: int = 50
    mean_payload_bytes: int = 100
    stream_packets_per_s: int = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class IcmpFlood(Parameters):
    """Echo requests to one host within a second, and whatever else of ICMPv6 is neither error nor reply (denial6 sends
    reports of listeners). ping sends 1, `ping -f` and hping hundreds; ntopng takes 250."""

    requests_per_s: int = 100


class Flood(Rule[Any]):
    """What floods have in common."""

    def finding(self, tick: Tick, n: int, count: int, proto: int, what: str, **evidence: Any) -> Finding:
        victim = tick.host(n)
        sources = int(tick.hosts[n, w.C_IN_PEERS])
        return Finding(
            ts=tick.ts, kind=self.name, severity="high", dst_ip=victim, proto=proto, count=count, source=tick.source,
            first_ts=tick.ts // 1_000_000 * 1_000_000 - 1_000_000 * (tick.ts % 1_000_000 == 0),
            why=f"{victim} got {count} {what} within a second",
            evidence={"per_s": count, "new_sources": sources, **evidence},
        )  # fmt: skip


class SynFloodRule(Flood):
    name = "syn_flood"
    parameters = SynFlood

    def may_find(self, peaks: Peaks) -> bool:
        return bool(peaks.hosts[w.C_IN_SYN] >= self.p.syns_per_s)

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        p = self.p
        tick = tick.of_hosts(w.C_IN_SYN, p.syns_per_s)
        h = tick.hosts
        syns, done = h[:, w.C_IN_SYN], h[:, w.C_IN_DONE]
        # A port with a majority of the votes has at least half of the SYNs, however they are mixed.
        one_port = h[:, w.C_TOP_VOTES] * 5 >= syns
        hit = (syns >= p.syns_per_s) & (done <= syns * p.completed_share)
        for n in np.flatnonzero(hit & (one_port | (h[:, w.C_IN_PEERS] >= p.sources))).tolist():
            yield self.finding(
                tick, n, int(syns[n]), 6, f"SYNs, {int(done[n])} of which became connections",
                completed=int(done[n]), threshold=p.syns_per_s, port=int(h[n, w.C_TOP_PORT]) & 0xFFFF,
            )  # fmt: skip


class AckFloodRule(Flood):
    name = "ack_flood"
    parameters = AckFlood

    def may_find(self, peaks: Peaks) -> bool:
        return bool(peaks.hosts[w.C_IN_STRAY] >= self.p.segments_per_s)

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        tick = tick.of_hosts(w.C_IN_STRAY, self.p.segments_per_s)
        h = tick.hosts
        for n in np.flatnonzero(h[:, w.C_IN_STRAY] >= self.p.segments_per_s).tolist():
            yield self.finding(
                tick, n, int(h[n, w.C_IN_STRAY]), 6, "TCP segments without a connection",
                threshold=self.p.segments_per_s, resets_sent=int(h[n, w.C_OUT_RST]),
            )  # fmt: skip


class UdpFloodRule(Flood):
    name = "udp_flood"
    parameters = UdpFlood

    def may_find(self, peaks: Peaks) -> bool:
        return bool(peaks.hosts[w.C_IN_UDP] >= self.p.packets_per_s)

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        p = self.p
        tick = tick.of_hosts(w.C_IN_UDP, p.packets_per_s)
        h = tick.hosts
        packets, answers = h[:, w.C_IN_UDP], h[:, w.C_OUT_UDP]
        hit = (packets >= p.packets_per_s) & (answers <= packets * p.answered_share)
        hit &= h[:, w.C_IN_DNS] * 2 < packets  # else it is a DNS flood
        flows = h[:, w.C_IN_UDP_FLOWS]
        heavy = h[:, w.C_IN_PAYLOAD] >= h[:, w.C_IN_PACKETS] * p.mean_payload_bytes
        probes = (flows >= p.flows) & ~heavy & (h[:, w.C_TOP_VOTES] * 5 < flows + h[:, w.C_IN_SYN])
        many = (flows >= p.flows) | (h[:, w.C_OUT_ERRORS] > 0) | (packets >= p.stream_packets_per_s)
        for n in np.flatnonzero(hit & many & ~probes).tolist():
            yield self.finding(
                tick, n, int(packets[n]), 17, f"UDP datagrams and sent {int(answers[n])}",
                answered=int(answers[n]), threshold=p.packets_per_s, flows=int(h[n, w.C_IN_UDP_FLOWS]),
            )  # fmt: skip


class IcmpFloodRule(Flood):
    name = "icmp_flood"
    parameters = IcmpFlood

    def may_find(self, peaks: Peaks) -> bool:
        return bool(peaks.hosts[w.C_IN_ECHO] >= self.p.requests_per_s)

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        tick = tick.of_hosts(w.C_IN_ECHO, self.p.requests_per_s)
        h = tick.hosts
        for n in np.flatnonzero(h[:, w.C_IN_ECHO] >= self.p.requests_per_s).tolist():
            proto = 58 if ":" in tick.host(n) else 1
            what = "ICMP requests"
            yield self.finding(tick, n, int(h[n, w.C_IN_ECHO]), proto, what, threshold=self.p.requests_per_s)
