"""One host asks many for the same: a port, an echo, or by ARP who has an address."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from engine.detect.finding import Finding
from engine.detect.rules.base import PROTOCOLS, Parameters, Rule, port_of
from engine.detect.tick import Peaks, Tick, address_text
from engine.kernels import window_layout as w
from engine.kernels.window_ticks import X_FAILED, X_TRIED


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSweep(Parameters):
    """Distinct hosts that refused or did not answer on one port, within 60 to 120 s; and their share of all tried.

    25 is what Zeek ships (Maltrail 10, ntopng 32). The share tells a sweep from a peer-to-peer client, of whose peers
    some 40 % are gone: networks are mostly empty, and hosts found by asking rarely have the service. Over UDP such
    clients may try only dead ones on a port that many use, so ports from 1024 need more there.
    """

    distinct_hosts: int = 25
    distinct_hosts_udp_high: int = 100
    failed_share: float = 0.65


@dataclass(frozen=True, slots=True, kw_only=True)
class PingSweep(Parameters):
    """Distinct hosts that did not answer an echo request within 60 to 120 s, or asked at all when most answer.

    A monitor pings its own servers, of which few are down at once; Slips takes 5, which a lost uplink exceeds. One of
    more than 32 servers is to be excepted by its address.
    """

    distinct_hosts: int = 15
    distinct_answering: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ArpScan(Parameters):
    """Distinct addresses that one host asks for by ARP, within 60 to 120 s.

    A host talks to a few neighbours; a router asks for those that it is sent packets for. Slips takes 5 in 30 s.
    """

    distinct_addresses: int = 30


def _last(target: np.ndarray) -> str:
    return address_text(int(target[w.T_LAST_HI]), int(target[w.T_LAST_LO]), int(target[w.T_META]))


class HostSweepRule(Rule[HostSweep]):
    name = "host_sweep"
    parameters = HostSweep

    def may_find(self, peaks: Peaks) -> bool:
        return peaks.targets[X_FAILED] >= min(self.p.distinct_hosts, self.p.distinct_hosts_udp_high)

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        t = tick.targets
        failed, tried = t[:, w.T_FAILED] + t[:, w.T_FAILED_OLD], t[:, w.T_TRIED] + t[:, w.T_TRIED_OLD]
        proto = t[:, w.T_PORT] >> 16
        high = (proto == 17) & (t[:, w.T_PORT] & 0xFFFF >= 1024)
        least = np.where(high, self.p.distinct_hosts_udp_high, self.p.distinct_hosts)
        hit = (failed >= least) & (failed >= tried * self.p.failed_share)
        for n in np.flatnonzero(hit & ((proto == 6) | (proto == 17))).tolist():
            src = address_text(int(t[n, w.T_HI]), int(t[n, w.T_LO]), int(t[n, w.T_META]))
            number, port = port_of(int(t[n, w.T_PORT]))
            name = f"{port} {PROTOCOLS[number]}"
            yield Finding(
                ts=tick.ts, kind=self.name, severity="medium", src_ip=src, dst_port=port, proto=number,
                count=int(failed[n]), first_ts=tick.window_start(int(t[n, w.T_FIRST])), source=tick.source,
                why=f"{src} tried port {name} of {tried[n]} hosts, {failed[n]} of which refused or did not answer",
                evidence={
                    "hosts": int(tried[n]), "failed": int(failed[n]), "threshold": int(least[n]), "port": name,
                    "last": _last(t[n]),
                },
            )  # fmt: skip


class PingSweepRule(Rule[PingSweep]):
    name = "ping_sweep"
    parameters = PingSweep

    def may_find(self, peaks: Peaks) -> bool:
        return peaks.targets[X_FAILED] >= self.p.distinct_hosts or peaks.targets[X_TRIED] >= self.p.distinct_answering

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        t = tick.targets
        failed, tried = t[:, w.T_FAILED] + t[:, w.T_FAILED_OLD], t[:, w.T_TRIED] + t[:, w.T_TRIED_OLD]
        proto = t[:, w.T_PORT] >> 16
        hit = (failed >= self.p.distinct_hosts) | (tried >= self.p.distinct_answering)
        for n in np.flatnonzero(hit & ((proto == 1) | (proto == 58))).tolist():
            src = address_text(int(t[n, w.T_HI]), int(t[n, w.T_LO]), int(t[n, w.T_META]))
            yield Finding(
                ts=tick.ts, kind=self.name, severity="medium", src_ip=src, proto=int(proto[n]), count=int(tried[n]),
                first_ts=tick.window_start(int(t[n, w.T_FIRST])), source=tick.source,
                why=f"{src} pinged {tried[n]} hosts, {failed[n]} of which did not answer",
                evidence={
                    "hosts": int(tried[n]), "failed": int(failed[n]), "threshold": self.p.distinct_hosts,
                    "last": _last(t[n]),
                },
            )  # fmt: skip


class ArpScanRule(Rule[ArpScan]):
    name = "arp_scan"
    parameters = ArpScan

    def may_find(self, peaks: Peaks) -> bool:
        return peaks.targets[X_FAILED] >= self.p.distinct_addresses

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        t = tick.targets
        asked = t[:, w.T_FAILED] + t[:, w.T_FAILED_OLD]
        hit = (t[:, w.T_PORT] == w.PORT_ARP) & (asked >= self.p.distinct_addresses)
        for n in np.flatnonzero(hit).tolist():
            src = address_text(int(t[n, w.T_HI]), int(t[n, w.T_LO]), int(t[n, w.T_META]))
            yield Finding(
                ts=tick.ts, kind=self.name, severity="medium", src_ip=src, count=int(asked[n]),
                first_ts=tick.window_start(int(t[n, w.T_FIRST])), source=tick.source,
                why=f"{src} asked by ARP for {asked[n]} addresses",
                evidence={"addresses": int(asked[n]), "threshold": self.p.distinct_addresses, "last": _last(t[n])},
            )  # fmt: skip
