"""The windows of one thread: the tables that `engine.kernels.windows` counts in, and what a tick leaves in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engine.detect.tick import Ended, Peaks, Tick
from engine.dissect import APP_NAMES
from engine.kernels import window_layout as w
from engine.kernels import window_tables, window_ticks
from engine.kernels import windows as kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.packets import FrameBatch, PacketBatch

_EVENTS: Final = 256
_SOURCES: Final = 256


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
        self._ended_list = np.zeros(hosts, np.int32)
        self._peaks = [
            np.zeros(n, np.int64) for n in (w.N_COUNTERS, window_ticks.N_PAIR_PEAKS, window_ticks.N_TARGET_PEAKS)
        ]
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
        rows = np.flatnonzero(self.known_pairs)
        for word in (w.P_S_LO, w.P_S_HI):  # the first leaves few for what follows
            rows = rows[pairs[rows, word] == pair[word]]
        return len(np.unique(pairs[rows[pairs[rows, w.P_STARTS] > 0], w.P_C_HASH]))

    @property
    def known_pairs(self) -> NDArray[np.bool_]:
        """Which rows of `pairs` are in use."""
        return np.asarray(self._pair_tags.reshape(-1) != 0)

    @property
    def known_targets(self) -> NDArray[np.bool_]:
        """Which rows of `targets` are in use."""
        return np.asarray(self._target_tags.reshape(-1) != 0)

    def pairs_in(self, minute: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of the pairs that sent something in a minute, this one or the last, and their counters of it."""
        epochs, at = self.pairs[:, w.P_EPOCH], w.P_COUNTERS
        known = self.known_pairs & ((epochs == minute) | (epochs == minute + 1))
        rows = np.flatnonzero(known)
        both = self.pairs[rows, at : at + 2 * w.N_PAIR_COUNTERS]
        now, last = both[:, : w.N_PAIR_COUNTERS], both[:, w.N_PAIR_COUNTERS :]
        counters = np.where((epochs[rows] == minute)[:, None], now, last)
        sent = counters[:, w.Q_PACKETS_UP] + counters[:, w.Q_PACKETS_DOWN] > 0
        return rows[sent], counters[sent]

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
        for ended in self._ended(59, 60):
            ended.counters_of(ended.rows)
        self.clear()

    def _end_tick(self, following: int | None) -> None:
        """Show what the tick touched; `following` is the half second that begins, None at an end."""
        state = self.state
        host_rows = self._host_list[: state[w.S_HOSTS]]
        pair_rows = self._pair_list[: state[w.S_PAIRS]]
        target_rows = self._target_list[: state[w.S_TARGETS]]
        ts = int(state[w.S_CLOCK]) // 1000
        if following is not None:
            ts = (int(state[w.S_HALF]) + 1) * (w.TICK_NS // 1000)
        peaks = self._peaks_of(len(host_rows), len(pair_rows), len(target_rows), ts)
        tick = Tick(
            ts, self._source, self, peaks, host_rows, pair_rows, target_rows, self._arp_events[: state[w.S_ARPS]]
        )
        old = int(state[w.S_HALF]) >> 1
        new = None if following is None else following >> 1
        self._on_tick(tick, new != old, [] if new == old else self._ended(old, new))
        state[w.S_HOSTS] = state[w.S_PAIRS] = state[w.S_TARGETS] = state[w.S_ARPS] = 0
        state[w.S_TICK] += 1
        if following is not None:
            state[w.S_HALF] = following

    def _peaks_of(self, hosts: int, pairs: int, targets: int, ts: int) -> Peaks:
        of_hosts, of_pairs, of_targets = self._peaks
        new = window_ticks.host_peaks(self.hosts, self._host_list, hosts, (ts - 1_000_000) * 1000, of_hosts)
        window_ticks.pair_peaks(self.pairs, self._pair_list, pairs, of_pairs)
        window_ticks.target_peaks(self.targets, self._target_list, targets, of_targets)
        return Peaks(of_hosts.tolist(), of_pairs.tolist(), of_targets.tolist(), int(self.state[w.S_ARPS]), new)

    def _ended(self, old: int, new: int | None) -> list[Ended]:
        """The windows that end with second `old` when `new` begins."""
        return [
            Ended(old // length * length, length, self, old)
            for length in w.LEVEL_S
            if new is None or old // length != new // length
        ]

    def ended_rows(self, ended: Ended, least_packets: int, least_attempts: int) -> NDArray[np.int64]:
        """See `Ended.busy`."""
        level = w.LEVEL_S.index(ended.length_s)
        n = window_ticks.ended_rows(
            self._host_tags, self.hosts, level, ended.length_s, ended.last, least_packets, least_attempts,
            self._ended_list,
        )  # fmt: skip
        return self._ended_list[:n].astype(np.int64)


def _table(rows: int, words: int) -> tuple[Any, Any, Any]:
    """Tags, rows and a list of touched rows."""
    return (
        np.zeros((rows // window_tables.WAYS, window_tables.WAYS), np.int64),
        np.zeros((rows, words), np.int64),
        np.zeros(rows, np.int32),
    )
