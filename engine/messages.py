"""The memory of the kernels that read messages (`engine.kernels.app_read`), and what leaves it.

One `Messages` belongs to the thread of its flow table. It is bounded: flows with an entry, rows and texts until the
next call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from engine import flow_row as r
from engine import packets as k
from engine.dissect import APP_NAMES
from engine.dissect.base import Application, Message
from engine.kernels import app_hash, app_hello, app_http, app_quic, app_read, flow
from engine.kernels import app_rows as kernel
from engine.kernels.app_aes import make_tables
from engine.message_rows import ROWS, Addresses, MessageRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.server_names import Names

_ENTRIES: Final = 16_384
_TEXT_BYTES: Final = 4 << 20
_CACHED_NAMES: Final = 4096
_READ: Final = ("dns", "tls", "http", "quic")  # in the order of app_read's protocols


class Messages:
    """Reads messages of usual form; hands the others over, with what came before them.

    Args:
        known: the protocols looked for, those that kernels read among them.
    """

    def __init__(self, known: Sequence[Application]) -> None:
        entries = _ENTRIES
        numbers = {application.name: n for n, application in enumerate(known)}
        self.tables = {numbers[name]: name for name in _READ if name in numbers}
        self._protocols: NDArray[np.int64] = np.array(
            [[numbers.get(name, -1), APP_NAMES.index(name)] for name in _READ], np.int64
        )
        self._owner: NDArray[np.int32] = np.zeros(0, np.int32)
        self._entries: NDArray[np.int64] = np.zeros((entries, kernel.N_ENTRY), np.int64)
        self._slabs: NDArray[np.uint8] = np.zeros(entries * kernel.SLAB, np.uint8)
        self._free: NDArray[np.int32] = np.arange(entries - 1, -1, -1, dtype=np.int32)
        self._words: NDArray[np.int64] = np.zeros((ROWS, kernel.N_ROW), np.int64)
        self._text: NDArray[np.uint8] = np.zeros(_TEXT_BYTES, np.uint8)
        self._names: NDArray[np.int64] = np.zeros((k.ROWS_PER_BATCH, kernel.N_NAME), np.int64)
        self._cache: NDArray[np.int64] = np.zeros((_CACHED_NAMES, kernel.N_CACHED), np.int64)
        self._cached: NDArray[np.uint8] = np.zeros(_CACHED_NAMES * kernel.NAME_BYTES, np.uint8)
        self._rest: NDArray[np.int64] = np.zeros(0, np.int64)
        self._scratch: NDArray[np.uint8] = np.zeros(1 << 16, np.uint8)
        self._w: NDArray[np.int64] = np.zeros(app_hash.N_HASH, np.int64)
        self._x: NDArray[np.int64] = np.zeros(app_hello.N_HELLO, np.int64)
        self._g: NDArray[np.int64] = np.zeros(app_http.N_HEAD, np.int64)
        self._q: NDArray[np.int64] = np.zeros(app_quic.N_QUIC, np.int64)
        self._tables = make_tables()
        self._state: NDArray[np.int64] = np.zeros(kernel.N_STATE, np.int64)
        self._state[kernel.T_FREE] = entries
        self._names_of = 0  # generation of the names in the cache
        self._addresses = Addresses()
        self._rows: list[MessageRows] = []  # for which there was no more room

    def read(
        self, taps: NDArray[np.int64], frames: k.FrameBatch, packets: k.PacketBatch, row_0: int, order: int,
        records: NDArray[np.int64], names: Names,
    ) -> tuple[list[int], bool]:  # fmt: skip
        """Read the taps in order. Returns those for Python, `tap | (entry + 1) << 32`, and whether anything was found.

        `order` is the place of the first tap among all messages.
        """
        state, count = self._begin(taps.shape[1], records, order, names), taps.shape[1]
        state[kernel.T_PACKET] = row_0
        state[kernel.T_MESSAGES] = state[kernel.T_FOUND] = first = 0
        while first < count:
            first = app_read.read_taps(
                frames.arena, packets.int_, packets.long, packets.present, taps, first, count, records, self._owner,
                self._protocols, self._entries, self._slabs, self._free, self._words, self._text, self._names,
                self._cache, self._cached, self._rest, self._scratch, self._w, self._x, self._g, self._q,
                self._tables, state,
            )  # fmt: skip
            self._number_names(records, names)
            if first < count:
                self._set_apart()
        return self._rest[: state[kernel.T_REST]].tolist(), bool(state[kernel.T_FOUND])

    def end(
        self, slots: NDArray[np.int32], order: int, records: NDArray[np.int64], names: Names
    ) -> list[int]:  # fmt: skip
        """The flows at `slots` have ended. Returns those that Python must end, `place in slots | (entry + 1) << 32`."""
        state, first = self._begin(len(slots), records, order, names), 0
        while first < len(slots):
            first = app_read.end_flows(
                slots, first, len(slots), records, self._owner, self._protocols, self._entries, self._slabs,
                self._free, self._words, self._text, self._scratch, self._w, self._x, self._q, self._rest, state,
            )  # fmt: skip
            if first < len(slots):
                self._set_apart()
        rest: list[int] = self._rest[: state[kernel.T_REST]].tolist()
        return rest

    def warm_up(self, frames: k.FrameBatch, packets: k.PacketBatch, records: NDArray[np.int64], names: Names) -> None:
        """Compile the kernels: each runs once on nothing."""
        self._begin(0, records, 0, names)
        app_read.read_taps(
            frames.arena, packets.int_, packets.long, packets.present, np.zeros((flow.N_TAP, 0), np.int64), 0, 0,
            records, self._owner, self._protocols, self._entries, self._slabs, self._free, self._words, self._text,
            self._names, self._cache, self._cached, self._rest, self._scratch, self._w, self._x, self._g,
            self._q, self._tables, self._state,
        )  # fmt: skip
        app_read.end_flows(
            np.zeros(0, np.int32), 0, 0, records, self._owner, self._protocols, self._entries, self._slabs, self._free,
            self._words, self._text, self._scratch, self._w, self._x, self._q, self._rest, self._state,
        )  # fmt: skip
        for table in self.tables.values():
            MessageRows(table, self._words[:0], self._text, self._addresses).to_arrow()

    @property
    def read_last(self) -> int:
        """Messages of the last `read` that needed no Python."""
        return int(self._state[kernel.T_MESSAGES])

    def kept(self, entry: int) -> tuple[int, Iterator[Message]]:
        """Number of the application that an entry is of, and the messages in it."""
        words = self._entries[entry]
        return int(self._protocols[words[kernel.E_APP], app_read.TABLE]), self._messages(entry)

    def _messages(self, entry: int) -> Iterator[Message]:
        words = self._entries[entry].tolist()
        for n in range(words[kernel.E_COUNT]):
            at = kernel.E_MESSAGE + n * kernel.M_WORDS
            ts, side, seq, start, length = words[at : at + kernel.M_WORDS]
            first = entry * kernel.SLAB + start
            yield Message(self._slabs[first : first + length].tobytes(), ts, bool(side), seq)

    def words_of(self, entry: int) -> list[int]:
        """What else the entry says, see `app_http`."""
        words: list[int] = self._entries[entry].tolist()
        return words

    def release(self, entry: int) -> None:
        """The entry is not needed any more."""
        self._free[self._state[kernel.T_FREE]] = entry
        self._state[kernel.T_FREE] += 1

    def claim(self, slot: int) -> None:
        """A parser reads the flow."""
        self._owner[slot] = kernel.PYTHON

    def leave(self, slot: int) -> None:
        """No parser reads the flow any more."""
        self._owner[slot] = kernel.NOBODY

    def _begin(self, count: int, records: NDArray[np.int64], order: int, names: Names) -> NDArray[np.int64]:
        if len(self._owner) < len(records):
            self._owner = np.zeros(len(records), np.int32)
        if len(self._rest) < count:
            self._rest = np.zeros(max(count, k.ROWS_PER_BATCH), np.int64)
        if len(self._names) < count:
            self._names = np.zeros((count, kernel.N_NAME), np.int64)
        if self._names_of != names.generation:
            self._names_of = names.generation
            self._cache[:] = 0
        self._state[kernel.T_REST] = self._state[kernel.T_NAMES] = 0
        self._state[kernel.T_ORDER] = order
        return self._state

    def _number_names(self, records: NDArray[np.int64], names: Names) -> None:
        """Number the names that the cache does not have."""
        state = self._state
        fresh = self._names[: state[kernel.T_NAMES]]
        if not len(fresh):
            return
        starts, lengths = fresh[:, kernel.N_SPAN] >> 16, fresh[:, kernel.N_SPAN] & 0xFFFF
        raw = self._text[: state[kernel.T_TEXT]].tobytes()
        numbers = np.array(
            [
                names.number(raw[at : at + n].decode("ascii"))
                for at, n in zip(starts.tolist(), lengths.tolist(), strict=True)
            ]
        )
        slots, places = fresh[:, kernel.N_SLOT], fresh[:, kernel.N_PLACE]
        records[slots, r.R_NAME] = numbers
        records[slots, r.R_NAME_SINCE] = fresh[:, kernel.N_PACKET]
        self._cache[places] = np.stack((fresh[:, kernel.N_HASH], numbers, lengths), axis=1)
        within = np.minimum(starts[:, None] + np.arange(kernel.NAME_BYTES), len(self._text) - 1)
        self._cached.reshape(-1, kernel.NAME_BYTES)[places] = self._text[within]
        state[kernel.T_FOUND] += len(fresh)
        state[kernel.T_NAMES] = 0

    def take_rows(self) -> list[MessageRows]:
        """The rows since the last call."""
        self._set_apart()
        rows, self._rows = self._rows, []
        return rows

    def _set_apart(self) -> None:
        """Make room for more rows."""
        state = self._state
        count = int(state[kernel.T_ROWS])
        if count:
            words, text = self._words[:count], self._text[: state[kernel.T_TEXT]].copy()
            for table, name in self.tables.items():
                mine = words[words[:, kernel.W_TABLE] == table]
                if len(mine):
                    self._rows.append(MessageRows(name, mine, text, self._addresses))
        state[kernel.T_ROWS] = state[kernel.T_TEXT] = 0
