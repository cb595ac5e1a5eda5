"""Rows that kernels wrote about messages: as Arrow for the lake, as mappings for who looks at single rows.

What the words of a row mean is said in `engine.kernels.app_*`; texts are made once per distinct number.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import pyarrow as pa

from engine.columns import AddressTable
from engine.dissect._dns_message import RCODES, class_text, type_text
from engine.dissect._handshake import version_text
from engine.kernels import app_dns as d
from engine.kernels import app_hello as h
from engine.kernels import app_http as p
from engine.kernels import app_rows as kernel
from engine.tables import arrow_schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS: Final = 8192  # of a chunk, at most


def _code(text: Callable[[int], str | None]) -> tuple[str, Callable[[int], str | None]]:
    return "code", text


# By table and column: the word, and how it is read: "int" (MISSING is NULL), "bool" and "text" (negative is NULL),
# "texts", or a number and what it is called. Columns that are not named are NULL.
_Spec = dict[str, tuple[int, Any]]
_VERSION: Final = _code(version_text)
_HELLO: Final[_Spec] = {
    "version": (h.H_VERSION, _VERSION), "client_version": (h.H_CLIENT_VERSION, _VERSION), "sni": (h.H_SNI, "text"),
    "alpn": (h.H_ALPN, "text"), "alpn_offered": (h.H_OFFERED, "texts"), "ja3": (h.H_JA3, "text"),
    "ja4": (h.H_JA4, "text"), "ja3s": (h.H_JA3S, "text"), "ja4s": (h.H_JA4S, "text"),
    "cipher": (h.H_CIPHER, _code("0x{:04x}".format)), "resumed": (h.H_RESUMED, "bool"),
    "early_data": (h.H_EARLY, "bool"),
}  # fmt: skip
_SPECS: Final[dict[str, _Spec]] = {
    "dns": {
        "query": (d.D_QUERY, "text"), "qtype": (d.D_QTYPE, _code(type_text)), "qclass": (d.D_QCLASS, _code(class_text)),
        "rcode": (d.D_RCODE, _code(lambda n: RCODES.get(n) or f"RCODE{n}")), "answered": (d.D_ANSWERED, "bool"),
        "answers": (d.D_ANSWERS, "texts"), "answer_count": (d.D_COUNT, "int"), "ttl_min": (d.D_TTL, "int"),
        "latency_us": (d.D_LATENCY, "int"), "authoritative": (d.D_AUTHORITATIVE, "bool"),
        "truncated": (d.D_TRUNCATED, "bool"), "recursion_desired": (d.D_DESIRED, "bool"),
        "recursion_available": (d.D_AVAILABLE, "bool"), "authentic_data": (d.D_AUTHENTIC, "bool"),
        "request_bytes": (d.D_REQUEST, "int"), "response_bytes": (d.D_RESPONSE, "int"), "id": (d.D_ID, "int"),
    },
    "tls": _HELLO,
    "quic": {
        **{name: how for name, how in _HELLO.items() if name != "client_version"},
        "version": (kernel.W_V6, _code(lambda _: "1")), "user_agent": (h.H_AGENT, "text"), "dcid": (h.H_DCID, "text"),
        "scid": (h.H_SCID, "text"),
    },
    "http": {
        "method": (p.P_METHOD, "text"), "host": (p.P_HOST, "text"), "path": (p.P_PATH, "text"),
        "user_agent": (p.P_AGENT, "text"), "referer": (p.P_REFERER, "text"), "status": (p.P_STATUS, "int"),
        "content_type": (p.P_TYPE, "text"), "request_bytes": (p.P_REQUEST, "int"),
        "content_length": (p.P_LENGTH, "int"), "version": (p.P_VERSION, _code(lambda n: f"{n // 10}.{n % 10}")),
        "server": (p.P_SERVER, "text"), "has_credentials": (p.P_VERSION, "false"), "latency_us": (p.P_LATENCY, "int"),
    },
}  # fmt: skip


@lru_cache
def _schema(table: str) -> pa.Schema:
    return arrow_schema(table)


class Addresses:
    """The distinct addresses of some rows. One instance per thread."""

    def __init__(self, rows: int = ROWS) -> None:
        self._table = AddressTable(rows, 2)
        self._out: NDArray[np.int32] = np.zeros((2, rows), np.int32)

    def texts(self, words: NDArray[np.int64]) -> tuple[pa.Array, pa.Array]:
        """Clients and servers of at most ROWS rows."""
        known, n = self._indexed(words), len(words)
        return known.take(pa.array(self._out[0, :n])), known.take(pa.array(self._out[1, :n]))

    def lists(self, words: NDArray[np.int64]) -> tuple[list[str], list[str]]:
        """The same as Python has it."""
        known, n = self._indexed(words).to_pylist(), len(words)
        src, dst = ([known[at] for at in side] for side in self._out[:, :n].tolist())
        return src, dst

    def _indexed(self, words: NDArray[np.int64]) -> pa.Array:
        table = self._table
        kernel.index_addresses(words, table.start(), *table.arrays(), self._out)
        return table.dictionary()


class MessageRows:
    """Rows of one table. `words`: int64[n, N_ROW], n up to ROWS; `text`: uint8, what their spans are of."""

    def __init__(self, table: str, words: NDArray[np.int64], text: NDArray[np.uint8], addresses: Addresses) -> None:
        self.table, self.words, self._text, self._addresses = table, words, text, addresses
        self._spec = _SPECS[table]
        self._lists: dict[str, list[Any]] = {}

    def __len__(self) -> int:
        return len(self.words)

    @property
    def orders(self) -> list[int]:
        """The place of each row among all, rising."""
        orders: list[int] = self.words[:, kernel.W_ORDER].tolist()
        return orders

    def to_arrow(self, addresses: Addresses | None = None) -> pa.RecordBatch:
        """The rows as the lake has them; `addresses` of the thread that asks, if it is not the one that made them."""
        schema = _schema(self.table)
        flow = self._flow_columns(addresses or self._addresses)
        arrays = [flow[f.name] if f.name in flow else self._array(f.name, f.type) for f in schema]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def column(self, name: str) -> list[Any]:
        """A column as Python has it; times are microseconds."""
        found = self._lists.get(name)
        if found is None:
            if name == "ts":
                found = self.words[:, kernel.W_TS].tolist()
            elif name in self._spec:
                found = self._values(name)
            elif name in ("src_port", "dst_port"):
                ports = self.words[:, kernel.W_PORTS]
                found = (ports >> 16 if name == "src_port" else ports & 0xFFFF).tolist()
            elif name == "flow_id":
                found = self.words[:, kernel.W_FLOW].tolist()
            elif name in ("src_ip", "dst_ip"):
                self._lists["src_ip"], self._lists["dst_ip"] = self._addresses.lists(self.words)
                return self._lists[name]
            else:
                found = [None] * len(self)
            self._lists[name] = found
        return found

    def dicts(self, columns: Sequence[str]) -> list[dict[str, Any]]:
        """The rows with these columns only."""
        return [dict(zip(columns, row, strict=True)) for row in zip(*map(self.column, columns), strict=True)]

    def _values(self, name: str) -> list[Any]:
        """A column of the messages; Arrow needs a quarter of a microsecond a value."""
        word, how = self._spec[name]
        values = self.words[:, word]
        if how == "int":
            return [None if n == kernel.MISSING else n for n in values.tolist()]
        if how == "text":
            ends, data = self._gathered(word, values)
            if data.size == 0 or data.max() < 0x80:  # else a character is not a byte
                text, at = data.tobytes().decode("ascii"), ends.tolist()
                there = (values >= 0).tolist()
                return [text[a:b] if some else None for a, b, some in zip(at, at[1:], there, strict=False)]
        found: list[Any] = self._array(name, _schema(self.table).field(name).type).to_pylist()
        return found

    @cached_property
    def names(self) -> list[str]:
        """Columns there are."""
        return list(_schema(self.table).names)

    def _flow_columns(self, addresses: Addresses) -> dict[str, pa.Array]:
        words, ports = self.words, self.words[:, kernel.W_PORTS]
        src, dst = addresses.texts(words)
        return {
            "ts": pa.array(words[:, kernel.W_TS]).view(pa.timestamp("us")),
            "flow_id": pa.array(words[:, kernel.W_FLOW]),
            "src_ip": src,
            "src_port": pa.array((ports >> 16).astype(np.int32)),
            "dst_ip": dst,
            "dst_port": pa.array((ports & 0xFFFF).astype(np.int32)),
        }

    def _array(self, name: str, kind: pa.DataType) -> pa.Array:
        word, how = self._spec.get(name, (0, "null"))
        if how == "null":
            return pa.nulls(len(self), kind)
        values = self.words[:, word]
        if how == "false":
            return pa.array(np.zeros(len(self), bool))
        if how == "int":
            return pa.array(values, mask=values == kernel.MISSING).cast(kind)
        if how == "bool":
            return pa.array(values == 1, mask=values < 0)
        if how == "text":
            return self._texts(word, values)
        if how == "texts":
            return self._text_lists(word, values)
        numbers, index = np.unique(values, return_inverse=True)
        known = pa.array([None if n == kernel.MISSING else how[1](n) for n in numbers.tolist()], pa.string())
        return known.take(pa.array(index.reshape(-1)))

    def _gathered(self, word: int, spans: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """(where each text begins and the last one ends, their bytes)."""
        offsets = np.zeros(len(spans) + 1, np.int32)
        np.cumsum(np.where(spans < 0, 0, spans & 0xFFFF), out=offsets[1:])
        out = np.empty(int(offsets[-1]), np.uint8)
        kernel.gather_texts(self.words, word, self._text, offsets, out)
        return offsets, out

    def _texts(self, word: int, spans: NDArray[np.int64]) -> pa.Array:
        offsets, out = self._gathered(word, spans)
        buffers = [_validity(spans), pa.py_buffer(offsets), pa.py_buffer(out)]
        return pa.Array.from_buffers(pa.string(), len(spans), buffers)

    def _text_lists(self, word: int, spans: NDArray[np.int64]) -> pa.Array:
        count, size = kernel.count_items(self.words, word, self._text)
        starts, offsets = np.zeros(len(spans) + 1, np.int32), np.zeros(count + 1, np.int32)
        out = np.empty(size, np.uint8)
        kernel.gather_lists(self.words, word, self._text, starts, offsets, out)
        items = pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(out))
        buffers = [_validity(spans), pa.py_buffer(starts)]
        return pa.Array.from_buffers(pa.list_(pa.string()), len(spans), buffers, children=[items])


def merged(parts: Sequence[MessageRows]) -> Iterator[MessageRows]:
    """The same rows in fewer parts."""
    waiting: list[MessageRows] = []
    for part in parts:
        if waiting and sum(map(len, waiting)) + len(part) > ROWS:
            yield _joined(waiting)
            waiting = []
        waiting.append(part)
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[MessageRows]) -> MessageRows:
    first = parts[0]
    if len(parts) == 1:
        return first
    spans = [word for word, how in _SPECS[first.table].values() if how in ("text", "texts")]
    words = np.concatenate([part.words for part in parts])
    sizes = [len(part._text) for part in parts]
    shift = np.repeat(np.cumsum([0, *sizes[:-1]]) << 16, [len(part) for part in parts])[:, None]
    words[:, spans] += np.where(words[:, spans] >= 0, shift, 0)
    return MessageRows(first.table, words, np.concatenate([part._text for part in parts]), first._addresses)


def _validity(spans: NDArray[np.int64]) -> pa.Buffer | None:
    if not len(spans) or spans.min() >= 0:
        return None
    return pa.py_buffer(np.packbits(spans >= 0, bitorder="little"))


class Row(Mapping[str, Any]):
    """One of the rows; a column is made for all of them when one is asked for it."""

    __slots__ = ("_at", "_rows")

    def __init__(self, rows: MessageRows, at: int) -> None:
        self._rows, self._at = rows, at

    def __getitem__(self, name: str) -> Any:
        return self._rows.column(name)[self._at]

    def get(self, name: str, default: Any = None) -> Any:
        """The column's value; of one that there is not, None."""
        return self._rows.column(name)[self._at]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows.names)

    def __len__(self) -> int:
        return len(self._rows.names)


class AppRows(Sequence[dict[str, Any]]):
    """Rows of one application's table in the order of their messages: those of a parser, and those of kernels."""

    def __init__(self) -> None:
        self.parsed: list[dict[str, Any]] = []
        self.orders: list[int] = []  # of `parsed`
        self.read: list[MessageRows] = []

    def add(self, rows: list[dict[str, Any]], order: int) -> None:
        """Rows that a parser made of one message."""
        self.parsed += rows
        self.orders += [order] * len(rows)

    def extend(self, other: AppRows) -> None:
        """Later rows."""
        self.parsed += other.parsed
        self.orders += other.orders
        self.read += other.read

    def __len__(self) -> int:
        return len(self.parsed) + sum(map(len, self.read))

    @cached_property
    def _all(self) -> list[dict[str, Any]]:
        # To who reads a row, both kinds are the same.
        return self._in_order([cast("dict[str, Any]", Row(rows, at)) for rows in self.read for at in range(len(rows))])

    def with_columns(self, columns: Sequence[str]) -> list[dict[str, Any]]:
        """The same rows, of which these columns will be asked: faster than row by row."""
        return self._in_order([row for rows in self.read for row in rows.dicts(columns)])

    def _in_order(self, read: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Parsers' rows and those of `read`."""
        if not self.parsed:
            return read
        orders = [order for rows in self.read for order in rows.orders]
        both = zip(self.orders, self.parsed, strict=True), zip(orders, read, strict=True)
        return [row for _, row in heapq.merge(*both, key=itemgetter(0))]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._all if self.read else self.parsed)

    def __getitem__(self, at: Any) -> Any:
        return (self._all if self.read else self.parsed)[at]
