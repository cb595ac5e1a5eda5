"""Rollups: what a dashboard asks about packets, added up while they pass.

    rollup_1s    packets, bytes and so on by second, protocol and application: exact
    rollup_1m    by minute the heaviest addresses and ports; a row without a key holds the rest, so that sums are exact

Rows are additions: a second or minute has several rows of the same kind when packets came late, or when the minute was
not over yet. Sums over rows are always right: for each source and dimension they are the packets of `packets`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from engine import packets as k
from engine.columns import AddressTable
from engine.dissect import APP_NAMES
from engine.kernels import address
from engine.kernels import rollup as kernel
from engine.tables import arrow_schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[np.int64]

Emit = Callable[[str, pa.RecordBatch], None]
TOP: Final = 100  # keys of each dimension, source and minute that keep their own row
TALKERS_EVERY_S: Final = 10.0  # between rows of the same minute
_SECONDS: Final = 1 << 12  # records of the table
_TALKERS: Final = 1 << 16
_SOURCES: Final = 256
_QUIET_S: Final = 1.5  # without packets for so long, the newest second is over
_ENDED: Final = np.iinfo(np.int64).max
_NEVER: Final = np.iinfo(np.int64).min


class Rollups:
    """Adds packets up. For one thread. Memory is bounded: about 12 MB.

    Args:
        rows: most rows of a batch.
        top: see TOP.
    """

    def __init__(
        self, rows: int = k.ROWS_PER_BATCH, top: int = TOP, slots: tuple[int, int] = (_SECONDS, _TALKERS)
    ) -> None:
        self._top = top
        self._seconds: Words = np.zeros((slots[0], kernel.N_WORDS), np.int64)
        self._talkers: Words = np.zeros((2 * slots[1], kernel.N_WORDS), np.int64)
        self._counts: Words = np.zeros((2 * rows, 4), np.int64)
        self._met: NDArray[np.int32] = np.zeros(2 * rows, np.int32)
        self._ports: Words = np.zeros((kernel.PORTS, 2), np.int64)
        self._ports_met: NDArray[np.int32] = np.zeros(kernel.PORTS, np.int32)
        self._state: Words = np.zeros(kernel.N_STATE, np.int64)
        self._state[kernel.T_SEED_A : kernel.T_SEED_C + 1] = np.frombuffer(os.urandom(24), np.int64) | 1
        self._sources: list[str] = []
        self._newest: Words = np.full(_SOURCES, _NEVER, np.int64)  # second of each source
        self._waiting: list[tuple[str, pa.RecordBatch]] = []
        self._taken_at = self._talkers_at = time.monotonic()

    def take(self, packets: k.PacketBatch, ips: AddressTable) -> None:
        """Count the rows of a batch.

        Args:
            packets: decoded, with flows and applications.
            ips: `Columns.ips` after `Columns.to_arrow(packets)`: the outer addresses that the batch's rows number.
        """
        if not packets.count:
            return
        self._taken_at = time.monotonic()
        source = self._number(packets.source)
        state = self._state
        state[kernel.T_ROW], state[kernel.T_NEWEST] = 0, _NEVER
        p = packets
        while True:
            code = kernel.count_rows(
                p.short, p.int_, p.long, p.present, p.count, source, ips.entries, ips.kinds, self._counts, self._met,
                self._ports, self._ports_met, self._seconds, self._talkers, state,
            )  # fmt: skip
            if code == kernel.DONE:
                break
            if code == kernel.SECONDS_FULL:
                self._take_seconds(everything=True)
            else:
                self._take_talkers()
        newest = int(state[kernel.T_NEWEST])
        before = int(self._newest[source])
        self._newest[source] = newest if before == _ENDED else max(before, newest)

    def _number(self, name: str) -> int:
        if name not in self._sources:
            if len(self._sources) == _SOURCES:
                self._take_seconds(everything=True)
                self._take_talkers()
                self._sources.clear()
                self._newest[:] = _NEVER
            self._sources.append(name)
        return self._sources.index(name)

    def end_source(self, name: str) -> None:
        """A source will send no more: its newest second is over."""
        if name in self._sources:
            self._newest[self._sources.index(name)] = _ENDED

    def flush(self, emit: Emit, everything: bool = False) -> None:
        """Hand over the rows of seconds that are over, and now and then those of talkers.

        Args:
            emit: takes the table's name and its rows.
            everything: also the newest seconds and all talkers, as at the end of a run.
        """
        now = time.monotonic()
        everything = everything or now - self._taken_at >= _QUIET_S
        if self._state[kernel.T_SECONDS]:
            self._take_seconds(everything)
        if self._state[kernel.T_TALKERS] and (everything or now - self._talkers_at >= TALKERS_EVERY_S):
            self._talkers_at = now
            self._take_talkers()
        waiting, self._waiting = self._waiting, []
        for table, rows in waiting:
            emit(table, rows)

    # --- tables to rows ------------------------------------------------------------------------------------------

    def _take_seconds(self, everything: bool) -> None:
        """Rows of the seconds that are over; the others stay."""
        used = self._seconds[self._seconds[:, kernel.S_KEY] != 0]
        source = used[:, kernel.S_KEY] >> kernel.KEY_SOURCE & 0xFF
        over = np.full(len(used), True) if everything else used[:, kernel.S_SECOND] < self._newest[source]
        if not over.any():
            return
        self._seconds[:, kernel.S_KEY] = 0
        self._seconds[:, kernel.S_PACKETS :] = 0
        self._state[kernel.T_SECONDS] = 0
        kernel.put_back(used[~over], self._seconds, self._state)
        done = used[over]
        done = done[np.lexsort((done[:, kernel.S_KEY], done[:, kernel.S_SECOND]))]
        self._waiting.append(("rollup_1s", _second_rows(done, self._sources)))

    def _take_talkers(self) -> None:
        """Rows of all talkers: the heaviest of each group, and one for the rest."""
        half = np.split(self._talkers, 2)[self._state[kernel.T_HALF]]
        used = half[half[:, kernel.W_TAG] != 0]
        half[:, kernel.W_TAG] = 0
        self._state[kernel.T_TALKERS] = self._state[kernel.T_LIMIT] = 0
        if len(used):
            rows = heaviest(_by_dimension(used), self._top)
            self._waiting.append(("rollup_1m", _talker_rows(rows, self._sources)))

    def warm_up(self, packets: k.PacketBatch, ips: AddressTable) -> None:
        """Compile the kernels: on an empty batch."""
        p = packets
        kernel.count_rows(
            p.short, p.int_, p.long, p.present, 0, 0, ips.entries, ips.kinds, self._counts, self._met,
            self._ports, self._ports_met, self._seconds, self._talkers, self._state,
        )  # fmt: skip
        kernel.put_back(self._seconds[:0].copy(), self._seconds, self._state)


def _times(values: Words) -> pa.Array:
    return pa.array(values).view(pa.timestamp("us"))


def _texts(numbers: Words, texts: list[str], absent: NDArray[np.bool_] | None = None) -> pa.Array:
    """Text by its number; NULL where `absent`."""
    return pa.DictionaryArray.from_arrays(pa.array(numbers.astype(np.int32), mask=absent), pa.array(texts, pa.string()))


def _second_rows(records: Words, sources: list[str]) -> pa.RecordBatch:
    """Records of the table of seconds as rows of `rollup_1s`."""
    key = records[:, kernel.S_KEY]
    proto, app = key & 0x1FF, key >> kernel.KEY_APP & 0xFFFF
    version, ethertype = key >> kernel.KEY_VERSION & 3, key >> kernel.KEY_ETHERTYPE & 0x1FFFF
    schema = arrow_schema("rollup_1s")
    arrays: list[Any] = [
        _times(records[:, kernel.S_SECOND] * kernel.US_PER_SECOND),
        _texts(key >> kernel.KEY_SOURCE & 0xFF, sources),
        pa.array((2 + 2 * version).astype(np.int16), mask=version == 0),
        pa.array(proto.astype(np.int16), mask=proto == kernel.NO_PROTO),
        pa.array((ethertype - 1).astype(np.int32), mask=ethertype == 0),
        _texts(app, list(APP_NAMES), app == 0),
        *(pa.array(np.ascontiguousarray(records[:, word])) for word in range(kernel.S_PACKETS, kernel.N_WORDS)),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


# --- talkers: int64[n, N_COLUMNS], a row per dimension, key and minute ------------------------------------------------
DIMENSIONS: Final = ("src_ip", "dst_ip", "port")
C_MINUTE, C_SOURCE, C_DIMENSION, C_KIND, C_HI, C_LO, C_KEYS, C_PACKETS, C_BYTES, N_COLUMNS = range(10)


def _by_dimension(records: Words) -> Words:
    """Records of the table of talkers as rows: what an address sent, what it received, what had a port."""
    tag = records[:, kernel.W_TAG]
    kind, port = tag >> kernel.TAG_KIND & 3, tag >> kernel.TAG_PORT & 1 == 1
    parts = []
    for dimension, (packets, shift) in enumerate(((kernel.W_SENT, 0), (kernel.W_RECEIVED, 32), (kernel.W_SENT, 0))):
        chosen = (port == (DIMENSIONS[dimension] == "port")) & (records[:, packets] > 0)
        some = records[chosen]
        rows = np.empty((len(some), N_COLUMNS), np.int64)
        rows[:, C_MINUTE], rows[:, C_SOURCE] = tag[chosen] >> kernel.TAG_MINUTE, tag[chosen] >> kernel.TAG_SOURCE & 0xFF
        rows[:, C_DIMENSION], rows[:, C_KIND] = dimension, kind[chosen]
        rows[:, C_HI : C_LO + 1] = some[:, kernel.W_HI : kernel.W_LO + 1]
        rows[:, C_KEYS] = np.where(kind[chosen] < kernel.IS_REST, 1, some[:, kernel.W_KEYS] >> shift & 0xFFFFFFFF)
        rows[:, C_PACKETS : C_BYTES + 1] = some[:, packets : packets + 2]
        parts.append(rows)
    return np.concatenate(parts)


def heaviest(rows: Words, top: int) -> Words:
    """The `top` keys of each minute, source and dimension that have most bytes; the others summed into one rest."""
    is_key = rows[:, C_KIND] < kernel.IS_REST
    groups = (~is_key, rows[:, C_SOURCE], rows[:, C_DIMENSION], rows[:, C_MINUTE])
    order = np.lexsort((rows[:, C_LO], rows[:, C_HI], -rows[:, C_BYTES], *groups))
    rows, is_key = rows[order], is_key[order]
    begins = np.flatnonzero(np.r_[True, (rows[1:, :C_KIND] != rows[:-1, :C_KIND]).any(axis=1)])
    group = np.repeat(np.arange(len(begins)), np.diff(np.r_[begins, len(rows)]))
    rank = np.arange(len(rows)) - begins[group]
    rest = (is_key & (rank >= top)) | (rows[:, C_KIND] == kernel.IS_REST)
    with_rest, which = np.unique(group[rest], return_inverse=True)
    sums = np.zeros((len(with_rest), N_COLUMNS), np.int64)
    sums[:, :C_KIND] = rows[begins[with_rest], :C_KIND]
    sums[:, C_KIND] = kernel.IS_REST
    for column in (C_KEYS, C_PACKETS, C_BYTES):
        np.add.at(sums[:, column], which, rows[rest, column])
    return np.concatenate([rows[~rest], sums])


def _talker_rows(rows: Words, sources: list[str]) -> pa.RecordBatch:
    """Rows of talkers as rows of `rollup_1m`."""
    rows = rows[np.lexsort((-rows[:, C_BYTES], rows[:, C_DIMENSION], rows[:, C_SOURCE], rows[:, C_MINUTE]))]
    arrays = [
        _times(rows[:, C_MINUTE] * kernel.US_PER_MINUTE),
        _texts(rows[:, C_SOURCE], sources),
        _texts(rows[:, C_DIMENSION], list(DIMENSIONS)),
        _keys(rows),
        *(pa.array(np.ascontiguousarray(rows[:, column])) for column in (C_KEYS, C_PACKETS, C_BYTES)),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema("rollup_1m"))


def _keys(rows: Words) -> pa.Array:
    """The keys as text: an address, or as in '443 tcp'; NULL for a rest."""
    is_key = rows[:, C_KIND] < kernel.IS_REST
    port = is_key & (rows[:, C_DIMENSION] == DIMENSIONS.index("port"))
    ip = is_key & ~port
    entries = np.ascontiguousarray(rows[ip, C_HI : C_LO + 1].T).view(np.uint64)
    kinds = rows[ip, C_KIND].astype(np.uint8)
    n = len(kinds)
    offsets, text = np.zeros(n + 1, np.int32), np.empty(max(1, n) * address.MAX_TEXT, np.uint8)
    address.format_addresses(entries, kinds, n, offsets, text)
    texts = np.full(len(rows), None, object)
    texts[ip] = pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(text)).to_pylist()
    texts[port] = [f"{p & 0xFFFF} {'udp' if p >> 16 else 'tcp'}" for p in rows[port, C_LO].tolist()]
    return pa.array(texts, pa.string()).dictionary_encode()
