"""A host sends much more out to the internet than it ever did: exfiltration by what is usual for the host itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from engine.detect.finding import Finding
from engine.detect.rules.base import Parameters, Recent, Rule
from engine.detect.tick import Tick, address_text
from engine.kernels import window_layout as w

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MINUTE: Final = 60_000_000
_DAY_MINUTES: Final = 1440
# RFC 1918, 6598, 3927: (prefix, length) as numbers.
_OWN4: Final = ((0x0A, 8), (0xAC1, 12), (0xC0A8, 16), (0x6440 >> 6, 10), (0xA9FE, 16))


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusualUpload(Parameters):
    """Payload that a host of a private network sends to addresses outside within a minute: at least `least_bytes`,
    `factor` times the most that it sent in any minute before (what is a day old counts half), and `share` times what
    it got back. The host must have been seen to talk to the outside in `learn_minutes` minutes.
    """

    least_bytes: int = 20_000_000
    factor: float = 5.0
    share: float = 2.0
    learn_minutes: int = 60


class _Host:
    __slots__ = ("minutes", "most", "updated")

    def __init__(self) -> None:
        self.most, self.minutes, self.updated = 0.0, 0, 0


class UnusualUploadRule(Rule[UnusualUpload]):
    name = "unusual_upload"
    parameters = UnusualUpload

    def __init__(self, p: UnusualUpload) -> None:
        super().__init__(p)
        self._hosts: Recent[_Host] = Recent(16_384)
        self._minute = 0

    def forget(self) -> None:
        self._hosts.clear()
        self._minute = 0

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        minute, ended = (tick.ts - 1) // _MINUTE, self._minute
        if minute == ended:
            return
        self._minute = minute
        rows, q = tick.windows.pairs_in(ended)
        at = tick.windows.pairs[rows]
        out = own_addresses(at[:, w.P_C_HI], at[:, w.P_C_LO], at[:, w.P_META])
        out &= ~own_addresses(at[:, w.P_S_HI], at[:, w.P_S_LO], at[:, w.P_META])
        at, q = at[out], q[out]
        if not len(at):
            return
        clients, which = np.unique(at[:, [w.P_META, w.P_C_HI, w.P_C_LO]], axis=0, return_inverse=True)
        which = which.reshape(-1)
        up = np.bincount(which, q[:, w.Q_UP], len(clients))
        down = np.bincount(which, q[:, w.Q_DOWN], len(clients))
        for n in np.argsort(clients[:, 2], kind="stable").tolist():
            key = tuple(clients[n].tolist())
            host = self._hosts.get(key) or self._hosts.put(key, _Host())
            faded = host.most * 0.5 ** (max(0, ended - host.updated) / _DAY_MINUTES)
            unusual = up[n] >= max(self.p.least_bytes, faded * self.p.factor, down[n] * self.p.share)
            if unusual and host.minutes >= self.p.learn_minutes:
                mine = which == n
                yield self._finding(tick, at[mine], q[mine], int(up[n]), int(down[n]), faded)
            host.most, host.updated = max(faded, float(up[n])), ended
            host.minutes += 1

    def _finding(
        self, tick: Tick, pairs: NDArray[np.int64], q: NDArray[np.int64], up: int, down: int, usual: float
    ) -> Finding:
        most = pairs[q[:, w.Q_UP].argmax()]
        meta = int(most[w.P_META])
        src = address_text(int(most[w.P_C_HI]), int(most[w.P_C_LO]), meta)
        dst = address_text(int(most[w.P_S_HI]), int(most[w.P_S_LO]), meta)
        return Finding(
            ts=self._minute * _MINUTE, kind="exfiltration", severity="medium", src_ip=src, dst_ip=dst,
            first_ts=(self._minute - 1) * _MINUTE, source=tick.windows.source_name(meta >> 1), count=len(pairs),
            why=f"{src} sent {up:,} bytes out in a minute, most of it to {dst}; it never sent more than {usual:,.0f}",
            evidence={"bytes": up, "usual_most": round(usual), "bytes_back": down, "destinations": len(pairs)},
        )  # fmt: skip


def own_addresses(hi: NDArray[np.int64], lo: NDArray[np.int64], meta: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which addresses are not routed on the internet, as `exfiltration.is_own`, or are groups or broadcast."""
    v6 = meta & 1 == 1
    ip = lo & 0xFFFFFFFF
    own4 = ip >> 28 >= 0xE
    for prefix, bits in _OWN4:
        own4 |= ip >> (32 - bits) == prefix
    own6 = ((hi >> 57) & 0x7F == 0x7E) | ((hi >> 54) & 0x3FF == 0x3FA) | ((hi >> 56) & 0xFF == 0xFF)
    return np.where(v6, own6, own4)
