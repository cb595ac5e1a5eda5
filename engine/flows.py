"""The flow stage: packets of a batch to flows, ended flows to rows.

One `FlowTable` belongs to one thread. It is bounded: `FlowsConfig.max_flows` records of 384 bytes, of which only those
in use are ever touched, and an index. At the limit the flows that were quiet longest are ended early and counted.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from engine import flow_row as r
from engine import packets as k
from engine.applications import Applications
from engine.columns import AddressTable
from engine.dissect import APP_NAMES, ENCRYPTED
from engine.kernels import community, flow, flow_apps, flow_end, flow_gather, flow_key
from engine.patterns import compile_patterns
from engine.schema import Column
from engine.server_names import Names
from engine.tables import arrow_schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.config import FlowsConfig

_CHUNK: Final = 16_384  # most rows of a record batch
_BUFFERS: Final = 3  # of rows that wait to be written
_SOURCES: Final = 256
_FRAGMENTS: Final = 4096
_ID_EPOCH_S: Final = 1_704_067_200  # 2024-01-01
_ENCRYPTED: Final = np.array([name in ENCRYPTED for name in APP_NAMES], np.uint8)


def first_flow_id() -> int:
    """Where the numbers of a run begin: its start in milliseconds, times 2**22. It would have to see four million new
    flows per millisecond to reach the numbers of the next run."""
    return (time.time_ns() // 1_000_000 - _ID_EPOCH_S * 1000) << 22 | 1


def _words(rows: int, words: int) -> NDArray[np.int64]:
    """Zeros, int64[rows, words], in huge pages where the system grants them: random look-ups then miss the TLB less.

    It begins with a page, so that each record of a multiple of 64 bytes lies in as few cache lines as it can."""
    size = max(rows * words * 8, mmap.PAGESIZE)
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.int64, rows * words).reshape(rows, words)


@dataclass(slots=True)
class FlowCounts:
    """What happened since the last `take_counts`."""

    flows: int = 0
    evicted: int = 0


class FlowTable:
    """Accounts every packet with an IP header to a flow.

    Args:
        emit: takes the rows of ended flows when many wait, or at `flush`; they are given back with `release`, by any
            thread.
        applications: reads payloads that match a pattern; None for none.
        seeds: of the hash, for tests; drawn at random otherwise.
    """

    def __init__(
        self, config: FlowsConfig, emit: Callable[[FlowRows], None], applications: Applications | None = None,
        rows: int = k.ROWS_PER_BATCH, first_id: int | None = None,
    ) -> None:  # fmt: skip
        self._emit = emit
        self.applications = applications
        self.names = Names()
        # A batch may end as many flows as it has rows before their slots are free again, and cut as many parts.
        slots = config.max_flows + 2 * rows
        self.records = _words(slots, r.N_WORDS)
        self._index = _words(1 << (2 * config.max_flows - 1).bit_length(), 1).reshape(-1)
        self._free: NDArray[np.int32] = np.arange(slots - 1, -1, -1, dtype=np.int32)
        self._ended: NDArray[np.int32] = np.zeros(slots, np.int32)
        self.slot_of: NDArray[np.int32] = np.zeros(rows, np.int32)
        self._keys = _words(rows + 1, flow_key.N_KEY)
        self._fragments: NDArray[np.int64] = np.zeros((_FRAGMENTS, flow.N_FRAGMENT), np.int64)
        self._taps: NDArray[np.int64] = np.zeros((flow.N_TAP, rows), np.int64)
        self._patterns, self._buckets = compile_patterns(applications.known if applications else ())
        self._app_of_proto = np.zeros(256, np.int16)
        for application in applications.known if applications else ():
            self._app_of_proto[list(application.protos)] = APP_NAMES.index(application.name)
        self._seeds = np.frombuffer(os.urandom(8 * flow_key.N_SEEDS), np.uint64) | np.uint64(1)
        self._limits = np.zeros(flow.N_LIMITS, np.int64)
        self._limits[flow.L_IDLE_NS] = int(config.idle_s * 1e9)
        self._limits[flow.L_ACTIVE_NS] = int(config.active_s * 1e9)
        self._limits[flow.L_LINGER_NS] = int(config.linger_s * 1e9)
        self._limits[flow.L_FLOWS] = config.max_flows
        self._state = np.zeros(flow.N_STATE, np.int64)
        self._state[flow.T_FREE] = slots
        self._state[flow.T_CLOCK] = r.MISSING
        self._state[flow.T_SWEEP_AT] = r.MISSING
        self._state[flow.T_NEXT_ID] = first_flow_id() if first_id is None else first_id
        self._bins = np.zeros(1024, np.int64)
        names = flow_apps.N_HEAD + max(rows, self.names.capacity)
        self._names: NDArray[np.int64] = np.zeros((3, names), np.int64)
        self._sources: dict[str, int] = {}
        self._told = FlowCounts()
        self._spare: queue.SimpleQueue[FlowRows] = queue.SimpleQueue()
        for _ in range(_BUFFERS):
            self._spare.put(FlowRows(self._spare))
        self._rows = self._spare.get()

    # --- packets ------------------------------------------------------------------------------------------------

    def follow(self, frames: k.FrameBatch, packets: k.PacketBatch) -> None:
        """Give each row its flow and application, and emit the flows that ended before or with it."""
        p, state = packets, self._state
        if self.names.is_full(p.count):
            self.flush()  # rows that wait refer to names
            self.names.make_room(self.records[: state[flow.T_HIGH]])
        source = self._source_number(p.source)
        flow_key.find_keys(p.short, p.int_, p.address, p.present, p.count, source, self._seeds, self._keys)
        self._names[0, flow_apps.N_NAMES] = 0
        self._names[0, flow_apps.N_BATCH] += 1
        first = 0
        while True:
            state[flow.T_TAPS] = 0
            row_0 = int(state[flow.T_PACKETS]) - first
            stop, why = flow.follow(
                frames.arena, p.short, p.int_, p.long, p.address, p.entropy, p.present, first, p.count,
                self._keys, self.records, self._index, self._free, self._ended, self.slot_of, self._fragments,
                self._taps, self._patterns, self._buckets, _ENCRYPTED, self._names, self._app_of_proto, self._seeds,
                self._limits, state,
            )  # fmt: skip
            if state[flow.T_TAPS] and self.applications is not None:
                taps = self._taps[:, : state[flow.T_TAPS]]
                if self.applications.read(taps, frames, packets, row_0, self.records, self.names):
                    flow_apps.mark_rows(
                        p.short, p.int_, p.present, self.slot_of, first, stop, row_0, self.records, _ENCRYPTED,
                        self._names,
                    )  # fmt: skip
            if why == flow.SWEEP:
                self._sweep()
            elif why == flow.EVICT:
                flow_end.evict(self.records, self._index, self._ended, self._seeds, self._bins, state)
            self._settle()
            if why == flow.DONE:
                break
            first = stop
        names = self._names[0, flow_apps.N_HEAD :]
        packets.names = self.names.texts(names[: self._names[0, flow_apps.N_NAMES]])

    def _source_number(self, name: str) -> int:
        """A small number for the source, kept until `end_source`."""
        if name not in self._sources:
            used = set(self._sources.values())
            self._sources[name] = next((n for n in range(_SOURCES) if n not in used), _SOURCES - 1)
        return self._sources[name]

    def _sweep(self) -> None:
        flow_end.sweep(self.records, self._index, self._ended, self._seeds, self._limits, self._state)

    # --- time and ends ------------------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> None:
        """While no packet comes: end what is quiet too long at `now_ns`. For live capture, whose clock is real."""
        if now_ns >= self._state[flow.T_SWEEP_AT] and self._state[flow.T_LIVE]:
            self._state[flow.T_CLOCK] = max(now_ns, int(self._state[flow.T_CLOCK]))
            self._sweep()
            self._settle()

    def end_source(self, name: str) -> None:
        """A source has ended: so have its flows, and the next one may be of another time."""
        if name not in self._sources:
            return
        flow_end.end_source(self.records, self._index, self._ended, self._seeds, self._sources[name], self._state)
        self._settle()
        self.flush()  # while the number still means this source
        del self._sources[name]
        if not self._sources:
            self._state[flow.T_CLOCK] = r.MISSING
            self._state[flow.T_SWEEP_AT] = r.MISSING

    def close(self) -> None:
        """End everything."""
        for name in list(self._sources):
            self.end_source(name)

    def _settle(self) -> None:
        """Write out the ended records and give their slots back."""
        count = int(self._state[flow.T_ENDED])
        if not count:
            return
        if self.applications is not None:
            self.applications.finish(self._ended[:count], self.records, self.names)
        done = 0
        while done < count:
            done += self._rows.add(self.records, self._ended[done:count])
            if done < count:
                self.flush()
        flow_end.release(self.records, self._free, self._ended, self._state)

    def flush(self) -> None:
        """Emit the rows of ended flows that are waiting."""
        if self._rows.count:
            self._rows.seal(self.names, self._sources)
            self._emit(self._rows)
            self._rows = self._spare.get()  # waits while all of them are being written

    def warm_up(self, frames: k.FrameBatch, packets: k.PacketBatch) -> None:
        """Compile what has not been: everything here runs once on nothing. `packets` must be empty."""
        self.follow(frames, packets)
        self._sweep()
        arrays = self.records, self._index, self._ended, self._seeds
        flow_end.evict(*arrays, self._bins, self._state)
        flow_end.end_source(*arrays, 0, self._state)
        flow_end.release(self.records, self._free, self._ended, self._state)
        p = packets
        flow_apps.mark_rows(p.short, p.int_, p.present, self.slot_of, 0, 0, 0, self.records, _ENCRYPTED, self._names)
        if self.applications is not None:
            self.applications.warm_up(frames, packets, self.records, self.names)
        self._rows.add(self.records, self._ended[:0])
        self._rows.seal(self.names, {})
        self._rows.to_arrow()
        self._rows.clear()

    # --- what it tells -------------------------------------------------------------------------------------------

    def take_counts(self) -> FlowCounts:
        """Flows begun and evicted since the last call."""
        now = FlowCounts(int(self._state[flow.T_STARTED]), int(self._state[flow.T_EVICTED]))
        counts = FlowCounts(now.flows - self._told.flows, now.evicted - self._told.evicted)
        self._told = now
        return counts

    @property
    def live(self) -> int:
        """Flows in the table now."""
        return int(self._state[flow.T_LIVE])

    @property
    def peak(self) -> int:
        """Most flows that were in the table at once."""
        return int(self._state[flow.T_PEAK])

    @property
    def bound_bytes(self) -> int:
        """Memory the table can come to use."""
        return sum(a.nbytes for a in (self.records, self._index, self._free, self._ended, self._keys))


class FlowRows:
    """Rows of ended flows as columns. One thread gathers and seals them, then another may turn them into Arrow."""

    def __init__(self, home: queue.SimpleQueue[FlowRows]) -> None:
        self._home = home
        self.count = 0
        self._names = pa.array([], pa.string())
        self._name_of: NDArray[np.int64] = np.zeros(0, np.int64)
        self._source_names = pa.array([], pa.string())
        self.schema = arrow_schema("flows")
        self._columns = [c for c in r.FLOWS if c.stored]
        self._out: NDArray[np.int64] = np.zeros((r.N_OUT, _CHUNK), np.int64)
        self._floats: NDArray[np.float32] = np.zeros((4, _CHUNK), np.float32)
        self._heads: NDArray[np.uint8] = np.zeros((2, _CHUNK * r.HEAD_BYTES), np.uint8)
        self._head_offsets: NDArray[np.int32] = np.zeros((2, _CHUNK + 1), np.int32)
        self._indexes: NDArray[np.int32] = np.zeros((4, _CHUNK), np.int32)
        self._ids: NDArray[np.uint8] = np.zeros(_CHUNK * community.ID_BYTES, np.uint8)
        self._id_offsets = np.arange(_CHUNK + 1, dtype=np.int32) * community.ID_BYTES
        self._scratch = np.zeros(85, np.int64), np.zeros(64, np.int64)
        self._ips, self._macs = AddressTable(_CHUNK, 2), AddressTable(_CHUNK, 2)
        self._apps = pa.array(APP_NAMES)
        self._ips.start()
        self._macs.start()

    def add(self, records: NDArray[np.int64], slots: NDArray[np.int32]) -> int:
        """Append as many of the records as there is room for. Returns how many."""
        n = min(len(slots), _CHUNK - self.count)
        ips, macs = self._ips, self._macs
        flow_gather.gather(records, slots, n, self.count, self._out, self._floats, self._heads, self._head_offsets)
        community.community_ids(records, slots, n, self.count, *self._scratch, self._ids)
        for index, table in ((flow_gather.index_flow_ips, ips), (flow_gather.index_flow_macs, macs)):
            index(records, slots, n, self.count, self._indexes, table.generation, *table.arrays())
        self.count += n
        return n

    def seal(self, names: Names, sources: dict[str, int]) -> None:
        """Look up what numbers stand for, before they come to mean something else."""
        name_ids, self._name_of = np.unique(self._out[r.O_NAME, : self.count], return_inverse=True)
        self._names = pa.array(names.texts(name_ids), pa.string())
        by_number = [""] * _SOURCES
        for name, number in sources.items():
            by_number[number] = name
        self._source_names = pa.array(by_number)

    def to_arrow(self) -> pa.RecordBatch:
        """The sealed rows as a record batch, valid until `release`."""
        dictionaries = {
            "ip": self._ips.dictionary(),
            "mac": self._macs.dictionary(),
            "app": self._apps,
            "name": self._names,
            "source": self._source_names,
        }
        arrays = [self._array(c, self.count, dictionaries) for c in self._columns]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def clear(self) -> None:
        """Forget the rows."""
        self.count = 0
        self._ips.start()
        self._macs.start()

    def release(self) -> None:
        """The rows have been written: the flow table may use this memory again."""
        self.clear()
        self._home.put(self)

    def _array(self, column: Column, n: int, dictionaries: dict[str, Any]) -> pa.Array:
        at = column.index
        if column.storage == "community":
            return pa.StringArray.from_buffers(n, pa.py_buffer(self._id_offsets[: n + 1]), pa.py_buffer(self._ids))
        if column.storage == "head":
            offsets = self._head_offsets[at, : n + 1]
            data = pa.Array.from_buffers(
                pa.binary(), n, [None, pa.py_buffer(offsets), pa.py_buffer(self._heads[at])], null_count=0
            )
            return pa.compute.if_else(pa.array(offsets[1:] > offsets[:-1]), data, None)
        if column.storage == "float":
            return pa.array(self._floats[at, :n], from_pandas=True)
        if column.storage in ("ip", "mac"):
            values = self._indexes[at + (2 if column.storage == "mac" else 0), :n]
            index = pa.array(values, mask=values < 0)
            return pa.DictionaryArray.from_arrays(index, dictionaries[column.storage])
        return self._word(column, self._out[at, :n], dictionaries)

    def _word(self, column: Column, values: NDArray[np.int64], dictionaries: dict[str, Any]) -> pa.Array:
        """A column that is a row of the gathered words."""
        if column.storage == "encrypted":
            return pa.array(_ENCRYPTED[values].astype(bool), mask=values == 0)
        if column.storage in ("app", "name"):
            index = pa.array((values if column.storage == "app" else self._name_of).astype(np.int32), mask=values == 0)
            return pa.DictionaryArray.from_arrays(index, dictionaries[column.storage])
        if column.storage == "source":
            return pa.DictionaryArray.from_arrays(pa.array(values.astype(np.int32)), dictionaries["source"])
        mask = values == r.MISSING if column.nullable else None
        if column.labels:
            return pa.DictionaryArray.from_arrays(pa.array(values.astype(np.int32), mask=mask), pa.array(column.labels))
        kind = self.schema.field(column.name).type
        return pa.array(values, mask=mask).cast(kind)
