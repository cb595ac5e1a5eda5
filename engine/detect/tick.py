"""What a tick of the windows shows to rules: rows that were touched, their greatest values, windows that ended."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from engine.kernels import window_layout as w
from engine.kernels import window_ticks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.detect.windows import Windows

_FEW: Final = 1024  # hosts of a tick


@lru_cache(8192)
def address_text(hi: int, lo: int, meta: int) -> str:
    """An address as in the other tables (RFC 5952); `meta`: bit 0 says IPv6."""
    if meta & 1:
        return socket.inet_ntop(socket.AF_INET6, struct.pack(">qq", hi, lo))
    return socket.inet_ntop(socket.AF_INET, struct.pack(">I", lo & 0xFFFFFFFF))


class Peaks(NamedTuple):
    """The greatest values of a tick: where they are below what a rule asks for, it need not look.

    `hosts` by C_*, `pairs` by Q_* and `window_ticks.X_STARTS` and so on, `targets` by X_FAILED, X_TRIED; `arps`: how
    many events; `new_hosts`: how many were first seen in the last second and sent something.
    """

    hosts: list[int]
    pairs: list[int]
    targets: list[int]
    arps: int
    new_hosts: int


@dataclass
class Tick:
    """What was touched in half a second, at its end. Rules read it; nothing of it may be kept.

    `hosts`: int64[n, N_COUNTERS] of the running second, `host_rows` their rows. `pairs`: int64[n, N_PAIR_COUNTERS] of
    this minute and the last together, `pair_rows`; `targets`: rows of int64[n, N_TARGET]. They are gathered when a
    rule reads them first. `arps`: events.
    """

    ts: int  # microseconds, the packets' clock
    source: str
    windows: Windows
    peaks: Peaks
    host_rows: NDArray[np.int32]
    pair_rows: NDArray[np.int32]
    target_rows: NDArray[np.int32]
    arps: NDArray[np.int64]

    def of_hosts(self, counter: int, least: float) -> Tick:
        """The same of hosts only in which a counter is at least so much: with many hosts, most need not be gathered."""
        if len(self.host_rows) < _FEW:
            return self
        enough = self.windows.hosts[self.host_rows, w.H_COUNTERS + counter] >= least
        return replace(self, host_rows=self.host_rows[enough])

    @cached_property
    def hosts(self) -> NDArray[np.int64]:
        counters: NDArray[np.int64] = self.windows.hosts[self.host_rows, w.H_COUNTERS : w.H_COUNTERS + w.N_COUNTERS]
        return counters

    @cached_property
    def pairs(self) -> NDArray[np.int64]:
        at, n = w.P_COUNTERS, w.N_PAIR_COUNTERS
        both = self.windows.pairs[self.pair_rows, at : at + 2 * n]
        counters: NDArray[np.int64] = both[:, :n] + both[:, n:]
        return counters

    @cached_property
    def targets(self) -> NDArray[np.int64]:
        targets: NDArray[np.int64] = self.windows.targets[self.target_rows]
        return targets

    def host(self, n: int) -> str:
        """Address of the n-th host."""
        row = self.windows.hosts[self.host_rows[n]]
        return address_text(int(row[w.H_HI]), int(row[w.H_LO]), int(row[w.H_META]))

    def host_word(self, n: int, word: int) -> int:
        """A word of the n-th host's row."""
        return int(self.windows.hosts[self.host_rows[n], word])

    def pair(self, n: int) -> tuple[str, str]:
        """Client and server of the n-th pair."""
        c_hi, c_lo, s_hi, s_lo, meta = self.windows.pairs[self.pair_rows[n], : w.P_META + 1].tolist()
        return address_text(c_hi, c_lo, meta), address_text(s_hi, s_lo, meta)

    def pair_word(self, n: int, word: int) -> int:
        """A word of the n-th pair's row."""
        return int(self.windows.pairs[self.pair_rows[n], word])

    def window_start(self, first_ns: int) -> int:
        """Microseconds: the later of a row's beginning and that of the last minute."""
        return max(first_ns // 1000, (self.ts // 60_000_000 - 1) * 60_000_000)


@dataclass
class Ended:
    """The hosts' windows of one length that ended: `start` in seconds. Nothing of it may be kept beyond the tick.

    All hosts that sent or got something: `anomaly.stage` learns from the quiet ones too.
    """

    start: int
    length_s: int
    windows: Windows
    last: int  # the second that ended

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Rows of all of them."""
        return self.windows.ended_rows(self, 0, 0)

    @cached_property
    def counters(self) -> NDArray[np.int64]:
        """Theirs, int64[n, N_COUNTERS]."""
        return self.counters_of(self.rows)

    def busy(self, least_packets: int, least_attempts: int) -> NDArray[np.int64]:
        """Rows of those in which there were so many packets (both directions) or attempts: a few of the many."""
        return self.windows.ended_rows(self, least_packets, least_attempts)

    def counters_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64[n, N_COUNTERS] of the windows of those rows."""
        out = np.empty((len(rows), w.N_COUNTERS), np.int64)
        window_ticks.window_counters(self.windows.hosts, rows, w.LEVEL_S.index(self.length_s), out)
        return out
