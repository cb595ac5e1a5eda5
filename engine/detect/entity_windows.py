"""Windows of pairs (client and server) and of ports (what one host asks of many) as rows of the lake.

Their counters are of whole minutes. A window of a second or five is what they grew by since the last one ended; such
windows lie within a minute, so a counter of another minute or row begins at nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engine.anomaly_config import WindowsConfig
from engine.detect.rules.base import port_of
from engine.detect.tick import Ended, Tick, address_text
from engine.kernels import window_layout as w
from engine.window_row import LEAST_PAIR_ATTEMPTS, LEAST_PAIR_PACKETS, LEAST_PORT_HOSTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

Rows = list[dict[str, Any]]
_PAIR: Final = tuple(
    w.P_COUNTERS + q
    for q in (
        w.Q_PACKETS_UP, w.Q_PACKETS_DOWN, w.Q_BYTES_UP, w.Q_BYTES_DOWN, w.Q_UP, w.Q_DOWN, w.Q_STARTS, w.Q_ANSWERED,
        w.Q_REFUSED, w.Q_FAILED, w.Q_PORTS, w.Q_RAW_ENTROPY, w.Q_RAW_N,
    )
)  # fmt: skip
_PORT: Final = (w.T_TRIED, w.T_FAILED)
_LEAST_GAPS: Final = 3


class Growth:
    """What counters of a table grew by within windows of one length."""

    def __init__(self, length_s: int, columns: tuple[int, ...], id_at: int, epoch_at: int) -> None:
        self._length_s, self._columns = length_s, np.array(columns)
        self._id_at, self._epoch_at = id_at, epoch_at
        self._before: NDArray[np.int64] | None = None  # id, minute, counters

    def of(
        self, table: NDArray[np.int64], known: NDArray[np.bool_], start_s: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows in use whose counters may have grown in the window that began then, and by how much."""
        minute = start_s // 60
        rows = np.flatnonzero((table[:, self._epoch_at] == minute) & known)
        now = table[np.ix_(rows, self._columns)]
        grown = now
        if self._length_s < 60:
            if self._before is None:
                self._before = np.zeros((len(table), 2 + len(self._columns)), np.int64)
            before = self._before[rows]
            same = (before[:, 0] == table[rows, self._id_at]) & (before[:, 1] == minute)
            grown = now - np.where(same[:, None], before[:, 2:], 0)
            self._before[rows, 0], self._before[rows, 1] = table[rows, self._id_at], minute
            self._before[rows, 2:] = now
        return rows, grown


class EntityWindows:
    """For one thread. `emit` takes rows of the tables pair_windows and port_windows."""

    def __init__(self, config: WindowsConfig, emit: Callable[[str, Rows], None]) -> None:
        self._emit = emit
        self._most = config.most_rows
        self._pairs = {n: Growth(n, _PAIR, w.P_ID, w.P_EPOCH) for n in config.pairs}
        self._ports = {n: Growth(n, _PORT, w.T_ID, w.T_EPOCH) for n in config.ports}

    def look(self, tick: Tick, ended: list[Ended]) -> None:
        """Make the rows of the windows that ended with this tick."""
        for window in ended:
            length, start = window.length_s, window.start
            if length in self._pairs:
                rows, grown = self._pairs[length].of(tick.windows.pairs, tick.windows.known_pairs, start)
                packets = grown[:, 0] + grown[:, 1]
                enough = (packets >= LEAST_PAIR_PACKETS[length]) | (grown[:, 6] >= LEAST_PAIR_ATTEMPTS[length])
                chosen = self._busiest(enough, packets, tick.windows.pairs[rows, w.P_ID])
                self._pass("pair_windows", [_pair(tick, window, rows[n], grown[n].tolist()) for n in chosen])
            if length in self._ports:
                rows, grown = self._ports[length].of(tick.windows.targets, tick.windows.known_targets, start)
                hosts = grown.max(axis=1)
                chosen = self._busiest(hosts >= LEAST_PORT_HOSTS[length], hosts, tick.windows.targets[rows, w.T_ID])
                self._pass("port_windows", [_port(tick, window, rows[n], grown[n].tolist()) for n in chosen])

    def _busiest(self, enough: NDArray[np.bool_], by: NDArray[np.int64], ids: NDArray[np.int64]) -> list[int]:
        """In the order in which they appeared: that of the rows is the hash's, which is another at each start."""
        chosen = np.flatnonzero(enough)
        if len(chosen) > self._most:
            chosen = chosen[np.lexsort((ids[chosen], -by[chosen]))[: self._most]]
        return chosen[np.argsort(ids[chosen])].tolist()  # type: ignore[no-any-return]

    def _pass(self, table: str, rows: Rows) -> None:
        if rows:
            self._emit(table, rows)


def _pair(tick: Tick, window: Ended, row: int, grown: list[int]) -> dict[str, Any]:
    pair = tick.windows.pairs[row]
    meta = int(pair[w.P_META])
    starts = int(pair[w.P_STARTS])
    _, port = port_of(int(pair[w.P_START_PORT])) if starts else (0, None)
    failed, entropy, entropies = grown[9], grown[11], grown[12]
    gap = deviation = None
    if starts > _LEAST_GAPS:
        gaps = starts - 1
        gap = int(pair[w.P_GAP_SUM]) / gaps / 1000
        spread = math.sqrt(max(0.0, int(pair[w.P_GAP_SQUARES]) / gaps / 1e6 - gap * gap))
        deviation = spread / gap if gap else None
    return {
        "ts": window.start * 1_000_000, "window_s": window.length_s,
        "source": tick.windows.source_name(meta >> 1),
        "src_ip": address_text(int(pair[w.P_C_HI]), int(pair[w.P_C_LO]), meta),
        "dst_ip": address_text(int(pair[w.P_S_HI]), int(pair[w.P_S_LO]), meta), "dst_port": port,
        "packets": grown[0], "packets_back": grown[1], "bytes": grown[2], "bytes_back": grown[3],
        "payload": grown[4], "payload_back": grown[5], "attempts": grown[6], "answered": grown[7],
        "refused": grown[8], "unanswered": failed - grown[8], "failed_ports": max(0, grown[10]),
        "entropy": entropy / entropies / w.ENTROPY_UNIT if entropies else None,
        "gap_s": gap, "gap_variation": deviation,
    }  # fmt: skip


def _port(tick: Tick, window: Ended, row: int, grown: list[int]) -> dict[str, Any]:
    target = tick.windows.targets[row]
    meta, word = int(target[w.T_META]), int(target[w.T_PORT])
    proto, port = (None, None) if word == w.PORT_ARP else port_of(word)
    return {
        "ts": window.start * 1_000_000, "window_s": window.length_s,
        "source": tick.windows.source_name(meta >> 1),
        "src_ip": address_text(int(target[w.T_HI]), int(target[w.T_LO]), meta), "proto": proto, "dst_port": port,
        "hosts": max(0, *grown), "failed_hosts": max(0, grown[1]),
    }  # fmt: skip
