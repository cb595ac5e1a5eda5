"""The application stage: payloads that match a pattern go to the parser of their flow, within a budget of CPU time.

Parsers are Python and read the first messages of a flow, or every message of a protocol that is all messages (DNS).
What the budget does not allow is counted as missed. Open parsers are bounded: beyond the limit the oldest is finished.
"""

from __future__ import annotations

import socket
import struct
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import dpkt
import numpy as np

from engine import flow_row as r
from engine import packets as k
from engine.dissect import APP_NAMES, APPLICATIONS
from engine.dissect.base import Application, Flow, Message, Parser, Verdict
from engine.kernels import flow as kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What a parser raises when it cannot read a message.
UNREADABLE: Final = (ValueError, LookupError, ArithmeticError, struct.error, dpkt.UnpackError)
_NUMBER_OF: Final = {name: number for number, name in enumerate(APP_NAMES)}
_MAX_OPEN: Final = 16_384
_REJECTIONS: Final = 4  # after so many messages that only looked like a protocol, a flow is left alone
_BURST_S: Final = 0.5
_CHECK_EVERY: Final = 16  # messages between two looks at the CPU clock


class Names:
    """Server names as small numbers. Bounded: names that no flow carries any more make room for new ones."""

    def __init__(self, capacity: int = 1 << 18) -> None:
        self.capacity = capacity
        self._texts: list[str] = [""]
        self._numbers: dict[str, int] = {}
        self._spare: list[int] = []

    def number(self, text: str) -> int:
        """The name's number; 0 when there is no room for another."""
        known = self._numbers.get(text)
        if known is not None:
            return known
        if self._spare:
            number = self._spare.pop()
            self._texts[number] = text
        elif len(self._texts) < self.capacity:
            number = len(self._texts)
            self._texts.append(text)
        else:
            return 0
        self._numbers[text] = number
        return number

    def texts(self, numbers: NDArray[Any]) -> list[str]:
        """The names of some numbers."""
        return [self._texts[n] for n in numbers.tolist()]

    def is_full(self, wanted: int) -> bool:
        """True when `wanted` more names may not fit."""
        return len(self._numbers) + wanted >= self.capacity

    def make_room(self, records: NDArray[np.int64]) -> None:
        """Forget the names that none of the records carries."""
        used = set(np.unique(records[records[:, r.R_FLOW_ID] != 0, r.R_NAME]).tolist())
        self._numbers = {text: number for text, number in self._numbers.items() if number in used}
        self._spare = [n for n in range(1, len(self._texts)) if n not in used]


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
    """

    def __init__(self, budget: float = 1.0, known: Sequence[Application] = APPLICATIONS) -> None:
        self.known = known
        self._budget = budget
        self._credit_s = _BURST_S * budget
        self._refilled = time.monotonic()
        self._used = 0.0
        self._open: dict[int, _Reading] = {}
        self._rows: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._seen: defaultdict[str, int] = defaultdict(int)
        self._counts = ApplicationCounts()

    def read(
        self, taps: NDArray[np.int64], frames: k.FrameBatch, packets: k.PacketBatch, row_0: int,
        records: NDArray[np.int64], names: Names,
    ) -> bool:  # fmt: skip
        """Hand the payloads of `taps` (int64[N_TAP, n], see `kernels.flow`) to their parsers, in order.

        What they find goes into the records: the application, the server name, and since which packet (row_0 is the
        number of row 0). Returns whether anything was found.
        """
        found = False
        rows = taps[kernel.P_ROW]
        starts, stops = packets.int_[k.I_PAYLOAD, rows].tolist(), packets.int_[k.I_PAYLOAD_END, rows].tolist()
        times = packets.long[k.L_TS, rows].tolist()
        inner = packets.present[rows] & np.uint32(k.HAS_INNER_IP) != 0
        sequences = np.where(inner, packets.long[k.L_INNER_SEQ, rows], packets.long[k.L_TCP_SEQ, rows]).tolist()
        lengths = np.where(
            inner, packets.long[k.L_INNER_PAYLOAD_LEN, rows], packets.long[k.L_PAYLOAD_LEN, rows]
        ).tolist()
        arena = memoryview(frames.arena)  # type: ignore[arg-type]
        for n, (row, slot, candidates, from_client) in enumerate(zip(*taps.tolist(), strict=True)):
            if n % _CHECK_EVERY == 0 and not self._has_credit(n == 0):
                self._counts.missed += len(starts) - n
                break
            reading = self._open.get(slot)
            if reading is None:
                if records[slot, r.R_STATE] & r.STATE_APP_DONE:
                    continue
                reading = self._begin(slot, records)
            start, stop = starts[n], stops[n]
            data = bytes(arena[start:stop])
            message = Message(data, times[n], bool(from_client), sequences[n], stop - start == lengths[n])
            self._counts.messages += 1
            done = self._hand_over(reading, message, candidates)
            if not reading.noted:
                found |= _note(reading, records[slot], row_0 + row, names)
            if done:
                records[slot, r.R_STATE] |= r.STATE_APP_DONE
                del self._open[slot]
        return found

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
            self._finish(self._open.pop(oldest))
        reading = self._open[slot] = _Reading(_facts(records[slot, : r.R_LAST].tolist()))
        return reading

    def _hand_over(self, reading: _Reading, message: Message, candidates: int) -> bool:
        """Feed the flow's parser, or find one among the candidates. True when nothing more of the flow is wanted."""
        if reading.parser is not None:
            verdict = self._feed(reading, message)
            if verdict is not Verdict.MORE:
                self._finish(reading)
            return verdict is Verdict.DONE
        for number, application in enumerate(self.known):
            if not candidates >> number & 1:
                continue
            reading.application, reading.parser = application, application.parser(reading.flow)
            verdict = self._feed(reading, message)
            if verdict is not Verdict.MORE:
                self._finish(reading)
            if verdict is not Verdict.FOREIGN:
                return verdict is Verdict.DONE
        reading.rejected += bool(candidates)
        return reading.rejected >= _REJECTIONS and not reading.flow.app

    def _feed(self, reading: _Reading, message: Message) -> Verdict:
        assert reading.parser is not None
        try:
            verdict = reading.parser.feed(message)
        except UNREADABLE:
            claimed = reading.application is not None and reading.flow.app in reading.application.names
            self._counts.bad += claimed
            verdict = Verdict.MORE if claimed else Verdict.FOREIGN
        self._collect(reading)
        return verdict

    def _finish(self, reading: _Reading) -> None:
        if reading.parser is not None:
            try:
                reading.parser.finish()
            except UNREADABLE:
                self._counts.bad += 1
            self._collect(reading)
            reading.parser = None

    def _collect(self, reading: _Reading) -> None:
        """Take the rows over, with the flow's own columns."""
        f = reading.flow
        if f.rows and reading.application is not None:
            own = {
                "flow_id": f.flow_id, "src_ip": f.src_ip, "src_port": f.src_port, "dst_ip": f.dst_ip,
                "dst_port": f.dst_port,
            }  # fmt: skip
            self._rows[reading.application.name] += [row | own for row in f.rows]
        f.rows.clear()

    def finish(self, slots: NDArray[np.int32], records: NDArray[np.int64], names: Names) -> None:
        """The flows of these records have ended, except those of which only a part has."""
        if not self._open:
            return
        ended = (records[slots, r.R_STATE] >> r.STATE_ENDED & 0xF) - 1
        for slot in slots[ended != r.END_ACTIVE].tolist():
            reading = self._open.pop(slot, None)
            if reading is not None:
                self._finish(reading)

    def new_rows(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """Rows by table since the last call; `take_rows` hands over the same rows once more."""
        fresh = [(table, rows[self._seen[table] :]) for table, rows in self._rows.items()]
        for table, rows in self._rows.items():
            self._seen[table] = len(rows)
        return [(table, rows) for table, rows in fresh if rows]

    @property
    def waiting(self) -> int:
        """Rows since the last `take_rows`, of the table that has most."""
        return max(map(len, self._rows.values()), default=0)

    def take_rows(self) -> dict[str, list[dict[str, Any]]]:
        """Rows by table since the last call."""
        rows, self._rows = self._rows, defaultdict(list)
        self._seen.clear()
        return rows

    def take_counts(self) -> ApplicationCounts:
        """Messages since the last call."""
        counts, self._counts = self._counts, ApplicationCounts()
        return counts


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
