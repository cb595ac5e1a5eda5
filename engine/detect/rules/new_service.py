"""A host answers on a port that it never answered on before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from engine.detect.finding import Finding
from engine.detect.rules.base import PROTOCOLS, Parameters, Recent, Rule, port_of
from engine.detect.rules.exfiltration import is_own
from engine.detect.tick import Peaks, Tick
from engine.kernels import window_layout as w


@dataclass(frozen=True, slots=True, kw_only=True)
class NewService(Parameters):
    """A TCP port below `below_port` (IANA's dynamic ports begin at 49152, Linux takes 32768 for clients) on which a
    host of a private network completes connections, when the host itself has been known for `learn_s`: by then its
    services have been asked for. More than `most_per_s` at a time are told as so many; the rest is learned in silence.
    """

    learn_s: float = 3600.0
    below_port: int = 32_768
    most_per_s: int = 5


class NewServiceRule(Rule[NewService]):
    name = "new_service"
    parameters = NewService

    def __init__(self, p: NewService) -> None:
        super().__init__(p)
        self._hosts: Recent[int] = Recent(16_384)
        self._services: Recent[bool] = Recent(65_536)

    def forget(self) -> None:
        self._hosts.clear()
        self._services.clear()

    def may_find(self, peaks: Peaks) -> bool:
        return peaks.pairs[w.Q_ANSWERED] > 0

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        q, at = tick.pairs, tick.windows.pairs[tick.pair_rows]
        # Of a pair with failures the port of the last connection may be one of those.
        answered = (q[:, w.Q_ANSWERED] > 0) & (q[:, w.Q_FAILED] == 0) & (at[:, w.P_STARTS] > 0)
        told = 0
        for n in np.flatnonzero(answered).tolist():
            proto, port = port_of(int(at[n, w.P_START_PORT]))
            service = int(at[n, w.P_META]), int(at[n, w.P_S_HI]), int(at[n, w.P_S_LO]), proto, port
            if port is None or port >= self.p.below_port or self._services.get(service):
                continue
            client, server = tick.pair(n)
            if not is_own(server):
                continue
            self._services.put(service, True)
            since = self._hosts.get(server)
            if since is None:
                since = self._hosts.put(server, tick.ts)
            if tick.ts - since < self.p.learn_s * 1e6 or told >= self.p.most_per_s:
                continue
            told += 1
            yield Finding(
                ts=tick.ts, kind=self.name, severity="low", dst_ip=server, dst_port=port, proto=proto,
                source=tick.source,
                why=f"{server} answers on port {port} {PROTOCOLS.get(proto, proto)}, which it did not before",
                evidence={"port": port, "first_client": client, "known_for_s": (tick.ts - since) // 1_000_000},
            )  # fmt: skip
