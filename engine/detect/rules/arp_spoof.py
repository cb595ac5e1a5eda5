"""A second Ethernet address claims an IP address whose owner is there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from engine.detect.finding import Finding
from engine.detect.rules.base import Parameters, Recent, Rule
from engine.detect.tick import Peaks, Tick, address_text
from engine.kernels import window_layout as w


@dataclass(frozen=True, slots=True, kw_only=True)
class ArpSpoof(Parameters):
    """Claims by another Ethernet address towards a third host within `within_s`, while the first owner was heard in
    the last `owner_s`. Poisoning is repeated every second or two, since victims ask again. An address that really
    moves (fail-over) is announced to itself, which does not count, and its first owner is silent.
    """

    claims: int = 2
    within_s: float = 12.0
    owner_s: float = 300.0


def mac_text(mac: int) -> str:
    return ":".join(f"{mac >> shift & 0xFF:02x}" for shift in range(40, -1, -8))


class ArpSpoofRule(Rule[ArpSpoof]):
    name = "arp_spoof"
    parameters = ArpSpoof

    def __init__(self, p: ArpSpoof) -> None:
        super().__init__(p)
        self._claims: Recent[list[int]] = Recent(4096)

    def forget(self) -> None:
        self._claims.clear()

    def may_find(self, peaks: Peaks) -> bool:
        return peaks.arps > 0

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        for event in tick.arps.tolist():
            ip, owner, rival, ts = event[w.E_IP], event[w.E_MAC], event[w.E_RIVAL], event[w.E_TS]
            if ts - event[w.E_ASKED] > self.p.owner_s * 1e9:
                continue
            times = self._claims.get((ip, rival)) or self._claims.put((ip, rival), [])
            times[:] = [*[t for t in times if ts - t <= self.p.within_s * 1000000000.0][-63:], ts]
            if len(times) < self.p.claims:
                continue
            known = tick.windows.address_of_mac(rival, ip)
            attacker = address_text(0, known, 0) if known is not None else None
            claimed, target = address_text(0, ip, 0), address_text(0, event[w.E_TARGET], 0)
            yield Finding(
                ts=ts // 1000, kind=self.name, severity="high", src_ip=attacker, dst_ip=None if attacker else claimed,
                count=len(times), first_ts=times[0] // 1000, source=tick.source,
                why=f"{mac_text(rival)} ({attacker or 'address unknown'}) claims {claimed}, which {mac_text(owner)} "
                f"has, towards {target}",
                evidence={
                    "claimed_ip": claimed, "owner_mac": mac_text(owner), "rival_mac": mac_text(rival), "target": target,
                    "claims": len(times), "threshold": self.p.claims,
                },
            )  # fmt: skip
