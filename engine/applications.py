"""The application stage: payloads that match a pattern go to the parser of their flow, within a budget of CPU time.

Messages of the commonest protocols in their usual form are read by kernels (`engine.messages`), all others by parsers
in Python: the first messages of a flow, or every message of a protocol that is all messages (SNMP). What the budget
does not allow parsers is counted as missed. Open parsers are bounded: beyond the limit the oldest is finished.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import dpkt
import numpy as np

from engine import flow_row as r
from engine import packets as k
from engine.dissect import APP_NAMES, APPLICATIONS, http
from engine.dissect.base import Application, Flow, Message, Parser, Verdict
from engine.kernels import flow as kernel
from engine.message_rows import AppRows
from engine.messages import Messages
from engine.server_names import Names

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What a parser raises when it cannot read a message.
UNREADABLE: Final = (ValueError, LookupError, ArithmeticError, struct.error, dpkt.UnpackError)
_NUMBER_OF: Final = {name: number for number, name in enumerate(APP_NAMES)}
_MAX_OPEN: Final = 16_384
_REJECTIONS: Final = 4  # after so many messages that only looked like a protocol, a flow is left alone
_BURST_S: Final = 0.5
_CHECK_EVERY: Final = 16  # messages between two looks at the CPU clock
_TAP: Final = 0xFFFFFFFF


@dataclass(slots=True)
class ApplicationCounts:
    """What happened since the last `take_counts`."""

    messages: int = 0
    missed: int = 0
    bad: int = 0


@dataclass(slots=True)
class _Reading:
    """A flow that parsers look at."""

    flow: Flow
    application: Application | None = None
    parser: Parser | None = None
    rejected: int = 0
    noted: bool = False  # application and server name are in the flow's record


class Applications:
    """Runs the parsers. One instance per thread.

    Args:
        budget: share of one core's time that parsers may use, averaged over half a second; 1 or more: no limit.
        known: the protocols looked for.
        kernels: False: parsers in Python read everything, for tests that compare.
    """

    def __init__(self, budget: float = 1.0, known: Sequence[Application] = APPLICATIONS, kernels: bool = True) -> None:
        self.known = known
        self._dns = sum(1 << n for n, application in enumerate(known) if application.name == "dns")
        self._budget = self._full_budget = budget
        self._credit_s = _BURST_S * budget
        self._refilled = time.monotonic()
        self._used = 0.0
        self._open: dict[int, _Reading] = {}
        self._fast = Messages(known) if kernels else None
        self._fresh: defaultdict[str, AppRows] = defaultdict(AppRows)  # not shown to the detection yet
        self._rows: defaultdict[str, AppRows] = defaultdict(AppRows)
        self._order = 0  # messages and ends of flows so far
        self._counts = ApplicationCounts()

    def read(
        self, taps: NDArray[np.int64], frames: k.FrameBatch, packets: k.PacketBatch, row_0: int,
        records: NDArray[np.int64], names: Names,
    ) -> bool:  # fmt: skip
        """Hand the payloads of `taps` (int64[N_TAP, n], see `kernels.flow`) to their parsers, in order.

        What they find goes into the records: the application, the server name, and since which packet (row_0 is the
        number of row 0). Returns whether anything was found.
        """
        count, order = taps.shape[1], self._order
        self._order += count
        has_credit = self._has_credit(True)
        found, rest = False, list(range(count))
        if self._fast is not None:
            taps = np.ascontiguousarray(taps)
            rest, found = self._fast.read(taps, frames, packets, row_0, order, records, names)
            self._counts.messages += self._fast.read_last
        for n, tap in enumerate(rest):
            if n % _CHECK_EVERY == 0 and n:
                has_credit = self._has_credit(False)
            slot = int(taps[kernel.P_SLOT, tap & _TAP])
            reading = self._open.get(slot)
            if tap >> 32:
                reading = self._take_over(slot, (tap >> 32) - 1, records)
            if not has_credit:
                self._counts.missed += 1
                continue
            if reading is None:
                if records[slot, r.R_STATE] & r.STATE_APP_DONE:
                    continue
                reading = self._begin(slot, records)
            message, row, candidates = _message(taps[:, tap & _TAP].tolist(), frames, packets)
            if not reading.parser and reading.flow.app == "dns":  # the kernel has read it so far
                candidates = self._dns
            self._counts.messages += 1
            done = self._hand_over(reading, message, candidates, order + (tap & _TAP))
            if not reading.noted:
                found |= _note(reading, records[slot], row_0 + row, names)
            if done:
                records[slot, r.R_STATE] |= r.STATE_APP_DONE
                self._forget(slot)
        return found

    def _take_over(self, slot: int, entry: int, records: NDArray[np.int64]) -> _Reading:
        """Go on in Python with a flow that a kernel has read so far."""
        assert self._fast is not None
        reading = self._begin(slot, records)
        number, messages = self._fast.kept(entry)
        application = reading.application = self.known[number]
        if application.name == "http":
            reading.parser = http.resume(reading.flow, self._fast.words_of(entry), next(messages, None))
        else:
            reading.parser = application.parser(reading.flow)
            for message in messages:
                with contextlib.suppress(*UNREADABLE):
                    reading.parser.feed(message)
        self._fast.release(entry)
        return reading

    def _forget(self, slot: int) -> None:
        self._open.pop(slot, None)
        if self._fast is not None:
            self._fast.leave(slot)

    def limit(self, part: float) -> None:
        """Parsers get this part of their budget, 0 to 1, until told otherwise; where there is none they stay free."""
        if self._full_budget < 1:
            self._budget = part * self._full_budget

    def _has_credit(self, fresh: bool) -> bool:
        """True while there is CPU time left. Charges what this thread used since the last call, or begins to count."""
        if self._budget >= 1:
            return True
        used = time.thread_time()
        if fresh:
            now = time.monotonic()
            self._credit_s = min(_BURST_S * self._budget, self._credit_s + (now - self._refilled) * self._budget)
            self._refilled = now
        else:
            self._credit_s -= used - self._used
        self._used = used
        return self._credit_s > 0

    def _begin(self, slot: int, records: NDArray[np.int64]) -> _Reading:
        if len(self._open) >= _MAX_OPEN:
            oldest = next(iter(self._open))
            self._finish(self._open[oldest], self._order)
            self._forget(oldest)
        if self._fast is not None:
            self._fast.claim(slot)
        reading = self._open[slot] = _Reading(_facts(records[slot, : r.R_LAST].tolist()))
        return reading

    def _hand_over(self, reading: _Reading, message: Message, candidates: int, order: int) -> bool:
        """Feed the flow's parser, or find one among the candidates. True when nothing more of the flow is wanted."""
        if reading.parser is not None:
            verdict = self._feed(reading, message, order)
            if verdict is not Verdict.MORE:
                self._finish(reading, order)
            return verdict is Verdict.DONE
        for number, application in enumerate(self.known):
            if not candidates >> number & 1:
                continue
            reading.application, reading.parser = application, application.parser(reading.flow)
            verdict = self._feed(reading, message, order)
            if verdict is not Verdict.MORE:
                self._finish(reading, order)
            if verdict is not Verdict.FOREIGN:
                return verdict is Verdict.DONE
        reading.rejected += bool(candidates)
        return reading.rejected >= _REJECTIONS and not reading.flow.app

    def _feed(self, reading: _Reading, message: Message, order: int) -> Verdict:
        assert reading.parser is not None
        try:
            verdict = reading.parser.feed(message)
        except UNREADABLE:
            claimed = reading.application is not None and reading.flow.app in reading.application.names
            self._counts.bad += claimed
            verdict = Verdict.MORE if claimed else Verdict.FOREIGN
        self._collect(reading, order)
        return verdict

    def _finish(self, reading: _Reading, order: int) -> None:
        if reading.parser is not None:
            try:
                reading.parser.finish()
            except UNREADABLE:
                self._counts.bad += 1
            self._collect(reading, order)
            reading.parser = None

    def _collect(self, reading: _Reading, order: int) -> None:
        """Take the rows over, with the flow's own columns."""
        f = reading.flow
        if f.rows and reading.application is not None:
            own = {
                "flow_id": f.flow_id, "src_ip": f.src_ip, "src_port": f.src_port, "dst_ip": f.dst_ip,
                "dst_port": f.dst_port,
            }  # fmt: skip
            self._fresh[reading.application.name].add([row | own for row in f.rows], order)
        f.rows.clear()

    def finish(self, slots: NDArray[np.int32], records: NDArray[np.int64], names: Names) -> None:
        """The flows of these records have ended, except those of which only a part has."""
        order = self._order
        self._order += len(slots)
        if self._fast is None:
            ended = (records[slots, r.R_STATE] >> r.STATE_ENDED & 0xF) - 1
            rest = np.flatnonzero(ended != r.END_ACTIVE).tolist() if self._open else []
        else:
            rest = self._fast.end(slots, order, records, names)
        for place in rest:
            slot = int(slots[place & _TAP])
            if place >> 32:
                self._take_over(slot, (place >> 32) - 1, records)
            reading = self._open.get(slot)
            if reading is not None:
                self._finish(reading, order + (place & _TAP))
                self._forget(slot)

    def new_rows(self) -> list[tuple[str, AppRows]]:
        """Rows by table since the last call; `take_rows` hands over the same rows once more."""
        self._gather()
        fresh, self._fresh = self._fresh, defaultdict(AppRows)
        for table, some in fresh.items():
            self._rows[table].extend(some)
        return [(table, some) for table, some in fresh.items() if len(some)]

    @property
    def waiting(self) -> int:
        """Rows since the last `take_rows`, of the table that has most."""
        self._gather()
        tables = {*self._rows, *self._fresh}
        return max((len(self._rows[table]) + len(self._fresh[table]) for table in tables), default=0)

    def _gather(self) -> None:
        """Put the rows of kernels beside those of parsers."""
        if self._fast is not None:
            for rows in self._fast.take_rows():
                self._fresh[rows.table].read.append(rows)

    def take_rows(self) -> dict[str, AppRows]:
        """Rows by table since the last call."""
        self.new_rows()
        rows, self._rows = self._rows, defaultdict(AppRows)
        return rows

    def warm_up(self, frames: k.FrameBatch, packets: k.PacketBatch, records: NDArray[np.int64], names: Names) -> None:
        """Compile what reads messages."""
        if self._fast is not None:
            self._fast.warm_up(frames, packets, records, names)

    def take_counts(self) -> ApplicationCounts:
        """Messages since the last call."""
        counts, self._counts = self._counts, ApplicationCounts()
        return counts


def _message(tap: list[int], frames: k.FrameBatch, packets: k.PacketBatch) -> tuple[Message, int, int]:
    """The payload of a tap, its row, and the applications that may be meant."""
    row, _, candidates, from_client = tap
    inner = bool(packets.present[row] & np.uint32(k.HAS_INNER_IP))
    start, stop = int(packets.int_[k.I_PAYLOAD, row]), int(packets.int_[k.I_PAYLOAD_END, row])
    length = int(packets.long[k.L_INNER_PAYLOAD_LEN if inner else k.L_PAYLOAD_LEN, row])
    seq = int(packets.long[k.L_INNER_SEQ if inner else k.L_TCP_SEQ, row])
    data = frames.arena[start:stop].tobytes()
    return (
        Message(data, int(packets.long[k.L_TS, row]), bool(from_client), seq, stop - start == length),
        row,
        candidates,
    )


def _note(reading: _Reading, record: NDArray[np.int64], packet: int, names: Names) -> bool:
    """Write what is known of the flow into its record, application and name as first recognised. True if new."""
    flow = reading.flow
    known_app, known_name = int(record[r.R_STATE]) >> r.STATE_APP != 0, record[r.R_NAME] != 0
    new_app, new_name = bool(flow.app) and not known_app, bool(flow.server_name) and not known_name
    if new_app:
        record[r.R_STATE] |= _NUMBER_OF[flow.app] << r.STATE_APP
        record[r.R_APP_SINCE] = packet
    if new_name:
        record[r.R_NAME] = names.number(flow.server_name)
        record[r.R_NAME_SINCE] = packet
    reading.noted = (known_app or new_app) and (known_name or new_name)
    return new_app or new_name


def _facts(record: list[int]) -> Flow:
    """What a parser is told about its flow."""
    rest = record[r.R_REST]
    v6 = rest >> r.REST_V6 & 1
    a = _text(record[r.R_A_HI], record[r.R_A_LO], v6), rest & 0xFFFF
    b = _text(record[r.R_B_HI], record[r.R_B_LO], v6), rest >> r.REST_PORT_B & 0xFFFF
    client, server = (b, a) if record[r.R_STATE] & r.STATE_CLIENT_B else (a, b)
    return Flow(
        rest >> r.REST_PROTO & 0xFF, client[0], server[0], client[1], server[1], record[r.R_FLOW_ID],
        APP_NAMES[record[r.R_STATE] >> r.STATE_APP],
    )  # fmt: skip


def _text(hi: int, lo: int, v6: int) -> str:
    """An address as in the other tables (RFC 5952)."""
    if v6:
        return socket.inet_ntop(socket.AF_INET6, struct.pack(">qq", hi, lo))
    return socket.inet_ntop(socket.AF_INET, struct.pack(">I", lo & 0xFFFFFFFF))
