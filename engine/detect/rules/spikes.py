"""Many more packets a second than usual: of the whole sensor, or to one host. Low: backups and updates do it too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from engine.detect.finding import Finding
from engine.detect.rules.base import Parameters, Recent, Rule
from engine.detect.tick import Tick
from engine.kernels import window_layout as w

_USUAL_S: Final = 600.0  # the usual is a mean over about ten minutes
_GAP_S: Final = 10.0  # a longer silence: the clock jumped


@dataclass(frozen=True, slots=True, kw_only=True)
class PpsSpike(Parameters):
    """Packets a second that count as a spike: `factor` times the usual, for `for_s` seconds in a row, and at least
    `sensor_floor` on the whole sensor or `host_floor` to one host. A gigabit download is 80,000 a second for as long
    as it takes, so a floor below what your hosts do every day makes this rule noisy. Known after `learn_s`.
    """

    factor: float = 5.0
    for_s: int = 3
    sensor_floor: int = 50_000
    host_floor: int = 50_000
    learn_s: float = 60.0


class _Usual:
    """What came in the seconds before, and how many in a row were spikes."""

    __slots__ = ("last_s", "row", "seconds", "usual")

    def __init__(self, second: float) -> None:
        self.usual, self.last_s, self.row, self.seconds = 0.0, second - 1, 0, 0

    def spike(self, second: float, rate: float, floor: int, factor: float, learned: bool) -> int:
        """Note a second; returns how many spikes in a row there were. Spikes teach slowly: else the third is usual."""
        passed = second - self.last_s
        self.last_s = second
        self.seconds += 1
        spike = learned and rate >= floor and rate >= self.usual * factor
        self.row = self.row + 1 if spike and passed <= 1.5 else int(spike)
        weight = 0.1 / _USUAL_S if spike else max(passed / _USUAL_S, 1 / self.seconds)
        self.usual += (rate - self.usual) * min(1.0, weight)
        return self.row


class PpsSpikeRule(Rule[PpsSpike]):
    name = "pps_spike"
    parameters = PpsSpike

    def __init__(self, p: PpsSpike) -> None:
        super().__init__(p)
        self._hosts: Recent[_Usual] = Recent(4096)
        self.forget()

    def forget(self) -> None:
        self._hosts.clear()
        self._sensor: _Usual | None = None
        self._began = self._packets = self._at = 0

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        if not second:
            return
        now, before, packets = tick.ts / 1e6, self._at / 1e6, int(tick.windows.state[w.S_PACKETS])
        rate = (packets - self._packets) / max(1.0, now - before)
        self._packets, self._at = packets, tick.ts
        if self._sensor is None or now - before > _GAP_S:
            self._sensor, self._began = _Usual(now), tick.ts
            return
        learned = tick.ts - self._began >= self.p.learn_s * 1e6
        usual = self._sensor.usual
        if self._sensor.spike(now, rate, self.p.sensor_floor, self.p.factor, learned) >= self.p.for_s:
            yield self._finding(tick, None, rate, usual)
        yield from self._victims(tick, now, learned)

    def _victims(self, tick: Tick, now: float, learned: bool) -> Iterable[Finding]:
        """Hosts below floor / factor are not remembered: whatever reaches the floor is a spike for them."""
        tick = tick.of_hosts(w.C_IN_PACKETS, self.p.host_floor / self.p.factor)
        rates = tick.hosts[:, w.C_IN_PACKETS]
        for n in np.flatnonzero(rates * self.p.factor >= self.p.host_floor).tolist():
            key = tick.host_word(n, w.H_META), tick.host_word(n, w.H_HI), tick.host_word(n, w.H_LO)
            host = self._hosts.get(key) or self._hosts.put(key, _Usual(now))
            usual, rate = host.usual, float(rates[n])
            if host.spike(now, rate, self.p.host_floor, self.p.factor, learned) >= self.p.for_s:
                yield self._finding(tick, tick.host(n), rate, usual)

    def _finding(self, tick: Tick, victim: str | None, rate: float, usual: float) -> Finding:
        where = f"{victim} got" if victim else "the sensor saw"
        return Finding(
            ts=tick.ts, kind=self.name, severity="low", dst_ip=victim, source=tick.source, count=int(rate),
            why=f"{where} {rate:,.0f} packets a second for {self.p.for_s} s; {usual:,.0f} are usual",
            evidence={"per_s": round(rate), "usual_per_s": round(usual, 1), "factor": self.p.factor},
        )  # fmt: skip
