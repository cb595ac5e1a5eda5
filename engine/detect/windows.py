"""The windows of one thread: the tables that `engine.kernels.windows` counts in, and what a tick leaves in them."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from engine.dissect import APP_NAMES
from engine.kernels import window_layout as w
from engine.kernels import window_tables
from engine.kernels import windows as kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.packets import FrameBatch, PacketBatch

_EVENTS: Final = 256
_SOURCES: Final = 256


def address_text(hi: int, lo: int, meta: int) -> str:
    """An address as in the other tables (RFC 5952); `meta`: bit 0 says IPv6."""
    if meta & 1:
        return socket.inet_ntop(socket.AF_INET6, struct.pack(">qq", hi, lo))
    return socket.inet_ntop(socket.AF_INET, struct.pack(">I", lo & 0xFFFFFFFF))


@dataclass(slots=True)
class Tick:
    """What was touched in half a second, at its end. Rules read it; nothing of it may be kept.

    `hosts`: int64[n, N_COUNTERS] of the running second, `host_rows` their rows. `pairs`: int64[n, N_PAIR_COUNTERS] of
    this minute and the last together, `pair_rows`; `targets`: rows of int64[n, N_TARGET]. `arps`: events.
    """

    ts: int  # microseconds, the packets' clock
    source: str
    windows: Windows
    host_rows: NDArray[np.int64]
    hosts: NDArray[np.int64]
    pair_rows: NDArray[np.int64]
    pairs: NDArray[np.int64]
    targets: NDArray[np.int64]
    arps: NDArray[np.int64]

    def host(self, n: int) -> str:
        """Address of the n-th host."""
        row = self.windows.hosts[self.host_rows[n]]
        return address_text(int(row[w.H_HI]), int(row[w.H_LO]), int(row[w.H_META]))

    def host_word(self, n: int, word: int) -> int:
        """A word of the n-th host's row."""
        return int(self.windows.hosts[self.host_rows[n], word])

    def pair(self, n: int) -> tuple[str, str]:
        """Client and server of the n-th pair."""
        row = self.windows.pairs[self.pair_rows[n]]
        meta = int(row[w.P_META])
        client = address_text(int(row[w.P_C_HI]), int(row[w.P_C_LO]), meta)
        return client, address_text(int(row[w.P_S_HI]), int(row[w.P_S_LO]), meta)

    def pair_word(self, n: int, word: int) -> int:
        """A word of the n-th pair's row."""
        return int(self.windows.pairs[self.pair_rows[n], word])

    def window_start(self, first_ns: int) -> int:
        """Microseconds: the later of a row's beginning and that of the last minute."""
        return max(first_ns // 1000, (self.ts // 60_000_000 - 1) * 60_000_000)


class Ended(NamedTuple):
    """The hosts' windows of one length that ended: `start` in seconds, their rows, int64[n, N_COUNTERS]."""

    start: int
    length_s: int
    rows: NDArray[np.int64]
    counters: NDArray[np.int64]


class Windows:
    """Counts batches; calls `on_tick` where half a second of the packets' clock ends. One instance per thread.

    Args:
        slots: of the flow table. hosts, pairs, targets: rows, powers of two. rows: of a batch.
        waits: attempts that may wait for an answer, a power of two.
    """

    def __init__(
        self, slots: int, on_tick: Callable[[Tick, bool, list[Ended]], None], rows: int, hosts: int = 1 << 16,
        pairs: int = 1 << 16, targets: int = 1 << 16, waits: int = 1 << 16,
    ) -> None:  # fmt: skip
        self._on_tick = on_tick
        self._flows = np.zeros((slots, w.N_TRACK), np.int64)
        self._host_tags, self.hosts, self._host_list = _table(hosts, w.N_HOST)
        self._pair_tags, self.pairs, self._pair_list = _table(pairs, w.N_PAIR)
        self._target_tags, self.targets, self._target_list = _table(targets, w.N_TARGET)
        self._arp_tags, self.arps, _ = _table(1 << 12, w.N_ARP)
        self._arp_events = np.zeros((_EVENTS, w.N_ARP_EVENT), np.int64)
        self._waits = np.zeros((waits, w.N_WAIT), np.int64)
        self._slow = np.zeros((waits, w.N_WAIT), np.int64)
        self._seen = np.zeros((1 << 17, window_tables.WAYS), np.int64)
        self._hashes = np.zeros((2, rows), np.uint64)
        self._seeds = np.frombuffer(os.urandom(24), np.uint64) | np.uint64(1)
        self._apps = np.array([APP_NAMES.index("ssh")], np.int64)
        self.state = np.zeros(w.N_STATE, np.int64)
        self._sources: dict[str, int] = {}
        self._source = ""
        self.clear()

    @property
    def sources(self) -> list[str]:
        """Those that have sent and not ended."""
        return list(self._sources)

    def clients_of(self, row: int) -> int:
        """How many hosts are known as clients of the server of a pair."""
        pairs, pair = self.pairs, self.pairs[row]
        same = (pairs[:, w.P_S_LO] == pair[w.P_S_LO]) & (pairs[:, w.P_S_HI] == pair[w.P_S_HI])
        same &= (self._pair_tags.reshape(-1) != 0) & (pairs[:, w.P_STARTS] > 0)
        return len(np.unique(pairs[same, w.P_C_HASH]))

    def address_of_mac(self, mac: int, other_than: int) -> int | None:
        """An IPv4 address that was claimed first by this Ethernet address; None when it is not known by another."""
        arps = self.arps
        known = (self._arp_tags.reshape(-1) != 0) & (arps[:, w.A_MAC] == mac) & (arps[:, w.A_IP] != other_than)
        return int(arps[known, w.A_IP][0]) if known.any() else None

    @property
    def evicted(self) -> int:
        """Rows that made room for others."""
        return int(self.state[w.S_EVICTED])

    @property
    def bound_bytes(self) -> int:
        """The memory that the tables are bounded to; only rows in use are ever touched."""
        return sum(v.nbytes for v in vars(self).values() if isinstance(v, np.ndarray))

    def clear(self) -> None:
        """Forget everything, the clock too."""
        state = self.state
        keep = state[w.S_ID], state[w.S_TICK] + 1, state[w.S_EVICTED], state[w.S_OVERRUN], state[w.S_PACKETS]
        state[:] = 0
        state[w.S_ID], state[w.S_TICK], state[w.S_EVICTED], state[w.S_OVERRUN], state[w.S_PACKETS] = keep
        state[w.S_CLOCK] = state[w.S_HALF] = w.MISSING
        for tags in (self._host_tags, self._pair_tags, self._target_tags, self._arp_tags, self._seen):
            tags.fill(0)

    def take(self, frames: FrameBatch, packets: PacketBatch, slot_of: NDArray[np.int32]) -> None:
        """Count the rows of a batch that the flow table has followed; `slot_of` is its record of each row."""
        p, state = packets, self.state
        self._source = p.source
        if p.source not in self._sources:
            used = set(self._sources.values())
            self._sources[p.source] = next((n for n in range(_SOURCES) if n not in used), _SOURCES - 1)
        source = self._sources[p.source]
        kernel.hash_hosts(p.address, p.short, p.present, p.count, source, self._seeds, self._hashes)
        first = 0
        while True:
            first, why = kernel.follow(
                frames.arena, p.short, p.int_, p.long, p.address, p.entropy, p.present, slot_of, self._hashes, first,
                p.count, source, self._apps, self._flows, self._host_tags, self.hosts, self._host_list,
                self._pair_tags, self.pairs, self._pair_list, self._target_tags, self.targets, self._target_list,
                self._waits, self._slow, self._seen, self._arp_tags, self.arps, self._arp_events, self._seeds, state,
            )  # fmt: skip
            if why == w.DONE:
                return
            if why == w.RESET:
                clock = int(state[w.S_CLOCK])
                self._end_tick(None)
                self.clear()
                state[w.S_CLOCK] = clock
            else:
                self._end_tick(int(state[w.S_CLOCK]) // w.TICK_NS)

    def source_name(self, number: int) -> str:
        """The source of a row, whose H_META, P_META or T_META >> 1 is its number."""
        return next((name for name, n in self._sources.items() if n == number), self._source)

    def pass_time(self, now_ns: int) -> None:
        """While no packet comes: judge what waits, as of `now_ns`."""
        state = self.state
        if state[w.S_HALF] == w.MISSING or now_ns // w.TICK_NS <= state[w.S_HALF]:
            return
        self._pass_time(now_ns)
        self._end_tick(int(state[w.S_CLOCK]) // w.TICK_NS)

    def _pass_time(self, now_ns: int) -> None:
        state = self.state
        kernel.pass_time(
            now_ns, self._flows, self._host_tags, self.hosts, self._host_list, self._pair_tags, self.pairs,
            self._pair_list, self._target_tags, self.targets, self._target_list, self._waits, self._slow, self._seen,
            self._seeds, state,
        )  # fmt: skip

    def end_source(self, name: str) -> None:
        """No more packets of the source; the next one may be of another time."""
        if name in self._sources:
            self._source = name
            if self.state[w.S_HALF] != w.MISSING:
                if len(self._sources) == 1:  # what has no answer by now gets none: captures end with their last packet
                    self._pass_time(int(self.state[w.S_CLOCK]) + w.GRACE_NS)
                self._end_tick(None)
            del self._sources[name]
            if not self._sources:
                self.clear()

    def warm_up(self, frames: FrameBatch, packets: PacketBatch) -> None:
        """Compile what has not been; `packets` must be empty."""
        self.take(frames, packets, np.zeros(len(self._host_list), np.int32))
        self.state[w.S_HALF] = self.state[w.S_CLOCK] = 0
        self.pass_time(w.TICK_NS)
        self.clear()

    def _end_tick(self, following: int | None) -> None:
        """Show what the tick touched; `following` is the half second that begins, None at an end."""
        state = self.state
        host_rows = self._host_list[: state[w.S_HOSTS]].astype(np.int64)
        pair_rows = self._pair_list[: state[w.S_PAIRS]].astype(np.int64)
        at = w.P_COUNTERS
        both = self.pairs[pair_rows, at : at + 2 * w.N_PAIR_COUNTERS]
        tick = Tick(
            (int(state[w.S_HALF]) + 1) * (w.TICK_NS // 1000)
            if following is not None
            else int(state[w.S_CLOCK]) // 1000,
            self._source,
            self,
            host_rows,
            self.hosts[host_rows, w.H_COUNTERS : w.H_COUNTERS + w.N_COUNTERS],
            pair_rows,
            both[:, : w.N_PAIR_COUNTERS] + both[:, w.N_PAIR_COUNTERS :],
            self.targets[self._target_list[: state[w.S_TARGETS]]],
            self._arp_events[: state[w.S_ARPS]],
        )
        old = int(state[w.S_HALF]) >> 1
        new = None if following is None else following >> 1
        self._on_tick(tick, new != old, [] if new == old else self._ended(old, new))
        state[w.S_HOSTS] = state[w.S_PAIRS] = state[w.S_TARGETS] = state[w.S_ARPS] = 0
        state[w.S_TICK] += 1
        if following is not None:
            state[w.S_HALF] = following

    def _ended(self, old: int, new: int | None) -> list[Ended]:
        """The windows that end with second `old` when `new` begins."""
        ended = []
        tags = self._host_tags.reshape(-1)
        quiet = np.where(tags == 0, 1 << 16, (old - tags) & 0xFFFF)
        for level, length in enumerate(w.LEVEL_S):
            if new is not None and old // length == new // length:
                continue
            rows = np.flatnonzero(quiet < length)
            rows = rows[self.hosts[rows, w.H_SECOND] // length == old // length]
            counters = self.hosts[rows, w.H_COUNTERS : w.H_COUNTERS + w.N_COUNTERS]
            if level:
                at = w.H_COUNTERS + level * w.N_COUNTERS
                counters += self.hosts[rows, at : at + w.N_COUNTERS]
            ended.append(Ended(old // length * length, length, rows, counters))
        return ended


def _table(rows: int, words: int) -> tuple[Any, Any, Any]:
    """Tags, rows and a list of touched rows."""
    return (
        np.zeros((rows // window_tables.WAYS, window_tables.WAYS), np.int64),
        np.zeros((rows, words), np.int64),
        np.zeros(rows, np.int32),
    )
