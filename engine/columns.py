"""A PacketBatch as an Arrow record batch, without copying a column."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from engine import packets as k
from engine.dissect import APP_NAMES
from engine.kernels import address as kernel
from engine.schema import Column
from engine.tables import arrow_schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SEEN_LIMIT = 1 << 20  # addresses remembered before `addresses` may repeat them
_NO_TEXTS = pa.array([], pa.string())


def _table_keys(slots: int) -> NDArray[np.uint64]:
    """Room for `keys`, with multipliers of its own."""
    keys: NDArray[np.uint64] = np.empty((slots + 2, 2), np.uint64)
    keys[slots:] = np.frombuffer(os.urandom(32), np.uint64).reshape(2, 2) | np.uint64(1)
    return keys


class AddressTable:
    """The hash table and its entries for one kind of column; see `engine.kernels.address`."""

    def __init__(self, rows: int, per_row: int) -> None:
        entries = rows * per_row
        slots = 1 << (2 * entries - 1).bit_length()
        self.keys = _table_keys(slots)
        self.tags: NDArray[np.int64] = np.zeros(slots, np.int64)
        self.found: NDArray[np.int32] = np.empty(slots, np.int32)
        self.entries: NDArray[np.uint64] = np.empty((2, entries), np.uint64)
        self.kinds: NDArray[np.uint8] = np.empty(entries, np.uint8)
        self.offsets: NDArray[np.int32] = np.empty(entries + 1, np.int32)
        self.text: NDArray[np.uint8] = np.empty(entries * kernel.MAX_TEXT, np.uint8)
        self.n: NDArray[np.int64] = np.zeros(1, np.int64)
        self.generation = 0

    def start(self) -> int:
        """The generation of a new batch: entries of earlier ones no longer count."""
        self.generation += 1
        self.n[0] = 0
        return self.generation

    def arrays(self) -> tuple[Any, ...]:
        """What the index kernels take, in their order."""
        return self.keys, self.tags, self.found, self.entries, self.kinds, self.n

    def dictionary(self) -> pa.StringArray:
        """The entries as text; valid until the next batch."""
        n = int(self.n[0])
        kernel.format_addresses(self.entries, self.kinds, n, self.offsets, self.text)
        text = pa.py_buffer(self.text[: self.offsets[n]])
        return pa.StringArray.from_buffers(n, pa.py_buffer(self.offsets[: n + 1]), text)


class Columns:
    """Turns batches into Arrow; owns the address tables of one thread. One instance per thread.

    `ips` holds the outer addresses of the last batch, numbered as its I_SRC_IP and I_DST_IP say.
    """

    def __init__(self, rows: int = k.ROWS_PER_BATCH) -> None:
        self.schema = arrow_schema("packets")
        # A column's dictionary is written with each row group, so the addresses that few rows have are kept apart.
        self.ips = AddressTable(rows, 2)
        self._rare_ips = AddressTable(rows, 2)  # inside tunnels, and of ARP
        self._macs = AddressTable(rows, 2)
        self._bits: NDArray[np.uint8] = np.zeros((k.N_GROUPS, (rows + 7) // 8), np.uint8)
        self._counts: NDArray[np.int64] = np.zeros(k.N_GROUPS, np.int64)
        self._zeros = pa.py_buffer(np.zeros(rows, np.int32))
        self._labels = {c.name: pa.array(c.labels) for c in k.PACKETS if isinstance(c.labels, tuple) and c.labels}
        self._apps = pa.array(APP_NAMES)
        self._seen_keys = _table_keys(_SEEN_LIMIT * 2)
        self._seen_tags: NDArray[np.int64] = np.zeros(_SEEN_LIMIT * 2, np.int64)
        self._seen_used: NDArray[np.int64] = np.zeros(1, np.int64)
        self._seen_generation = 1
        self._fresh: NDArray[np.int32] = np.empty(rows * 2, np.int32)
        self._dictionaries: dict[str, Any] = {}

    def number(self, batch: k.PacketBatch) -> None:
        """Number the batch's IP addresses: all that `new_addresses` and rollups need of it."""
        n, ips, rare = batch.count, self.ips, self._rare_ips
        kernel.pack_bits(batch.present, n, self._bits, self._counts)
        kernel.index_ips(
            batch.address, batch.present, batch.short[k.S_IP_VERSION], n, batch.int_, ips.start(), *ips.arrays()
        )  # fmt: skip
        generation = rare.start()
        if n == 0 or any(self._counts[g.bit_length() - 1] for g in (k.HAS_INNER_IP, k.HAS_ARP)):
            kernel.index_rare_ips(batch.address, batch.present, n, batch.int_, generation, *rare.arrays())
        self._dictionaries = {"ip": ips.dictionary(), "rare_ip": rare.dictionary()}

    def to_arrow(self, batch: k.PacketBatch) -> pa.RecordBatch:
        """The batch as Arrow; its buffers are the batch's own memory, valid until either is reused."""
        self.number(batch)
        n, macs = batch.count, self._macs
        kernel.index_macs(batch.address, batch.present, n, batch.int_, macs.start(), *macs.arrays())
        self._dictionaries |= {
            "mac": macs.dictionary(),
            "app": self._apps,
            "name": pa.array(batch.names, pa.string()),
            "frame_file": pa.array(batch.frame_files, pa.string()),
        }
        arrays = [self._array(c, batch, n) for c in k.PACKETS if c.stored]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _array(self, column: Column, batch: k.PacketBatch, n: int) -> pa.Array:
        if column.storage == "source":
            indices = pa.Array.from_buffers(pa.int32(), n, [None, self._zeros], null_count=0)
            return pa.DictionaryArray.from_arrays(indices, pa.array([batch.source]), safe=False)
        validity, nulls = None, 0
        if column.group:
            g = column.group.bit_length() - 1
            nulls = n - int(self._counts[g])
            validity = pa.py_buffer(self._bits[g]) if nulls else None
        kind = self.schema.field(column.name).type
        if column.storage == "bit":
            data: Any = self._bits[column.index.bit_length() - 1]
        elif column.storage == "float":
            data = (batch.entropy, batch.anomaly)[column.index]
        else:
            matrices: dict[str, Any] = {"short": batch.short, "int": batch.int_, "long": batch.long}
            data = matrices[column.storage][column.index]
        storage = kind.index_type if pa.types.is_dictionary(kind) else kind
        if nulls == n and storage is not kind:  # what is there may be an index of an earlier batch
            indices = pa.Array.from_buffers(storage, n, [validity, self._zeros], null_count=n)
            return pa.DictionaryArray.from_arrays(indices, _NO_TEXTS, safe=False)
        array = pa.Array.from_buffers(storage, n, [validity, pa.py_buffer(data)], null_count=nulls)
        if storage is kind:
            return array
        dictionary = (
            self._labels[column.name] if isinstance(column.labels, tuple) else self._dictionaries[column.labels]
        )
        return pa.DictionaryArray.from_arrays(array, dictionary, safe=False)

    def new_addresses(self, first_seen_us: int) -> pa.RecordBatch:
        """The addresses of the last batch that this run has not seen yet, for the `addresses` table."""
        if self._seen_used[0] >= _SEEN_LIMIT:
            self._seen_generation += 1
            self._seen_used[0] = 0
        texts = [self._unseen(self.ips, "ip"), self._unseen(self._rare_ips, "rare_ip")]
        found = pa.concat_arrays(texts)
        times = pa.array(np.full(len(found), first_seen_us, np.int64)).view(pa.timestamp("us"))
        return pa.RecordBatch.from_arrays([found, times], schema=arrow_schema("addresses"))

    def _unseen(self, table: AddressTable, name: str) -> pa.StringArray:
        """The addresses of a table that this run has not seen, from now on seen."""
        count = kernel.mark_new(
            table.entries, table.kinds, int(table.n[0]), self._seen_generation,
            self._seen_keys, self._seen_tags, _SEEN_LIMIT, self._seen_used, self._fresh,
        )  # fmt: skip
        return self._dictionaries[name].take(pa.array(self._fresh[:count]))
