"""DNS (RFC 1035), multicast DNS (RFC 6762) and LLMNR (RFC 4795): who asks for which name, and what came back.

A query waits for its answer: same flow, same id, same question. mDNS has no such pairs: questions and answers are rows
of their own, an answer one row per name and type it tells about. How messages are written is in `_dns_message.py`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final, NamedTuple

from engine.dissect._dns_message import (
    HEADER,
    OPCODES,
    PAIR,
    RCODES,
    Owned,
    class_text,
    read_answers,
    read_name,
    read_owned,
    skip_name,
    type_text,
)
from engine.dissect._dns_stream import UNREADABLE, Found, Splitter, fits, is_dns
from engine.dissect.base import TCP, UDP, Application, Flow, Message, Pattern, Verdict, column

_MAX_PENDING = 64  # queries of a flow that wait for an answer
_MAX_QUESTIONS = 32  # read of one message
_NOTHING: Final[list[Owned]] = [(None, 0, [], None)]


class _Query(NamedTuple):
    ts: int
    id: int
    name: str | None
    qtype: int | None
    qclass: int
    flags: int
    size: int | None


class _Parser:
    __slots__ = ("_app", "_flow", "_group", "_known", "_pending", "_streams")

    def __init__(self, flow: Flow) -> None:
        ports = (flow.src_port, flow.dst_port)
        self._flow = flow
        self._app = "dns"
        if 53 not in ports:
            self._app = "llmnr" if 5355 in ports else "mdns" if 5353 in ports and flow.proto == UDP else "dns"
        self._known = 53 in ports or self._app != "dns"
        self._group = self._app == "mdns" or (self._app == "llmnr" and flow.dst_ip.startswith(("224.", "ff")))
        self._pending: dict[bytes, _Query] = {}
        self._streams: dict[bool, Splitter] = {}

    def feed(self, message: Message) -> Verdict:
        if self._flow.proto != TCP:
            return self._take(message.data, message.ts, message.whole)
        stream = self._streams.get(message.from_client)
        if stream is None:
            stream = self._streams[message.from_client] = Splitter(self._known)
        messages = stream.add(message)
        if not (self._flow.app or stream.in_step or messages):
            return Verdict.FOREIGN
        return self._take_all(messages)

    def finish(self) -> None:
        for stream in self._streams.values():
            with suppress(*UNREADABLE):
                self._take_all(stream.finish())
        for query in self._pending.values():
            self._row(query)
        self._pending.clear()

    def _take_all(self, messages: Found) -> Verdict:
        """Messages of a connection; one that cannot be read does not keep the next from being read."""
        fault: Exception | None = None
        for data, ts, whole in messages:
            try:
                if self._take(data, ts, whole) is Verdict.FOREIGN:
                    return Verdict.FOREIGN
            except UNREADABLE as error:
                fault = error
        if fault is not None:
            raise fault
        return Verdict.MORE

    def _take(self, data: bytes, ts: int, whole: bool) -> Verdict:
        """One message (RFC 1035 4.1)."""
        ident, flags, questions, answers, authority, additional = HEADER.unpack_from(data)
        if not self._flow.app and not (is_dns(data, len(data), whole, self._known) and self._is_possible()):
            return Verdict.FOREIGN
        if not flags & 0x8000:
            self._ask(data, ts, ident, flags, questions, whole)
        elif self._app == "mdns":
            self._tell(data, ts, ident, flags, (questions, answers, authority, additional), whole)
        else:
            self._answer(data, ts, ident, flags, (questions, answers, authority + additional), whole)
        return Verdict.MORE

    def _is_possible(self) -> bool:
        """False on the port of NetBIOS names, whose messages have the same header (RFC 1002 4.2.1)."""
        return self._known or 137 not in (self._flow.src_port, self._flow.dst_port)

    def _ask(self, data: bytes, ts: int, ident: int, flags: int, questions: int, whole: bool) -> None:
        """A query: its questions wait for their answers, except those to a group, whose answers are other flows."""
        pos = 12
        for _ in range(min(questions, _MAX_QUESTIONS) or 1):
            start = pos
            name, qtype, qclass, pos = _question(data, pos, whole) if questions else (None, None, 1, pos)
            self._flow.server_name = name or self._flow.server_name
            self._flow.app = self._app
            query = _Query(ts, ident, name, qtype, qclass, flags, len(data) if whole else None)
            if self._group:
                self._row(query)
                continue
            key = data[:2] + data[start:pos].lower()
            before = self._pending.pop(key, None)
            if before is None and len(self._pending) >= _MAX_PENDING:
                before = self._pending.pop(next(iter(self._pending)))
            if before is not None:
                self._row(before)
            self._pending[key] = query

    def _answer(self, data: bytes, ts: int, ident: int, flags: int, counts: tuple[int, int, int], whole: bool) -> None:
        """An answer, with the query that it belongs to if there is one."""
        questions, answers, others = counts
        # Bytes equal to those of a waiting query need not be read again. A label may have a zero in it: then not found.
        pos = data.find(b"\0", 12) + 5
        query = self._pending.pop(data[:2] + data[12:pos].lower(), None) if questions == 1 and pos > 16 else None
        if query is None:
            pos = 12
            if questions:
                query, pos = self._own_question(data, ts, ident, flags, questions, whole)
            else:
                waiting = next((key for key, q in self._pending.items() if q.id == ident), b"")
                query = self._pending.pop(waiting, None) or _Query(ts, ident, None, None, 1, flags, None)
        self._flow.app = self._app
        texts, ttl_min, high = read_answers(data, pos, answers, others)
        code = flags & 15 | high
        latency = ts - query.ts
        self._flow.emit(
            ts=query.ts,
            query=query.name,
            qtype=None if query.qtype is None else type_text(query.qtype),
            qclass=class_text(query.qclass),
            opcode=_opcode(flags),
            rcode=RCODES.get(code) or f"RCODE{code}",
            answered=True,
            answers=texts or None,
            answer_count=answers,
            ttl_min=ttl_min,
            latency_us=latency if latency >= 0 and not query.flags & 0x8000 else None,
            authoritative=flags & 0x0400 != 0,
            truncated=flags & 0x0200 != 0,
            recursion_desired=query.flags & 0x0100 != 0,
            recursion_available=flags & 0x0080 != 0,
            authentic_data=flags & 0x0020 != 0,
            request_bytes=query.size,
            response_bytes=len(data) if whole else None,
            id=ident,
        )

    def _own_question(
        self, data: bytes, ts: int, ident: int, flags: int, questions: int, whole: bool
    ) -> tuple[_Query, int]:
        """The query waiting for the question that an answer repeats, or one made from it; where its records begin."""
        name, qtype, qclass, pos = _question(data, 12, whole)
        query = self._pending.pop(data[:2] + data[12:pos].lower(), None)
        if query is None:
            self._flow.server_name = name or self._flow.server_name
            query = _Query(ts, ident, name, qtype, qclass, flags, None)
        try:
            for _ in range(min(questions, _MAX_QUESTIONS) - 1):
                pos = skip_name(data, pos) + 4
        except UNREADABLE:
            pos = len(data)
        return query, pos

    def _row(self, query: _Query) -> None:
        """A query without an answer."""
        mask = 0x7FFF if self._app == "mdns" else 0xFFFF  # the top bit asks for a unicast answer (RFC 6762 5.4)
        self._flow.emit(
            ts=query.ts,
            query=query.name,
            qtype=None if query.qtype is None else type_text(query.qtype),
            qclass=class_text(query.qclass & mask),
            opcode=_opcode(query.flags),
            answered=None if self._group else False,
            truncated=query.flags & 0x0200 != 0,
            recursion_desired=query.flags & 0x0100 != 0,
            request_bytes=query.size,
            id=query.id,
        )

    def _tell(
        self, data: bytes, ts: int, ident: int, flags: int, counts: tuple[int, int, int, int], whole: bool
    ) -> None:
        """An answer of multicast DNS (RFC 6762 6): a row for each name and type that it has records of."""
        questions, answers, authority, additional = counts
        pos = 12
        for _ in range(min(questions, _MAX_QUESTIONS)):
            pos = skip_name(data, pos) + 4
        owned = read_owned(data, pos, answers + authority + additional)
        self._flow.app = self._app
        code = flags & 15
        for name, kind, texts, ttl_min in owned or _NOTHING:
            self._flow.emit(
                ts=ts,
                query=name,
                qtype=None if name is None else type_text(kind),
                opcode=_opcode(flags),
                rcode=RCODES.get(code) or f"RCODE{code}",
                answered=True,
                answers=texts or None,
                answer_count=answers,
                ttl_min=ttl_min,
                authoritative=flags & 0x0400 != 0,
                truncated=flags & 0x0200 != 0,
                response_bytes=len(data) if whole else None,
                id=ident,
            )


def _question(data: bytes, pos: int, whole: bool) -> tuple[str | None, int | None, int, int]:
    """Name, type, class and the end of a question (RFC 1035 4.1.2).

    What the capture cut off is None, None and 1. So is the first question of a message if it cannot be read though the
    header is right: names made to break readers should be seen.
    """
    name: str | None = None
    try:
        name, end = read_name(data, pos)
        qtype, qclass = PAIR.unpack_from(data, end)
    except UNREADABLE:
        if whole and (pos > 12 or not fits(data, len(data))):
            raise
        return name, None, 1, len(data)
    return name, qtype, qclass, end + 4


def _opcode(flags: int) -> str | None:
    number = flags >> 11 & 15
    return (OPCODES.get(number) or f"opcode{number}") if number else None


APPLICATION = Application(
    name="dns",
    variants=("mdns", "llmnr"),
    meaning="Domain Name System; multicast DNS and LLMNR: a row per question with its answer",
    patterns=(
        Pattern(transport=UDP, ports=(53, 5353, 5355), length=(12, 65_535)),
        # On any port, after the id: an ordinary query with one question and no answers; an answer to one question.
        Pattern(
            transport=UDP,
            value=bytes.fromhex("0000 0000 0001 0000"),
            mask=bytes.fromhex("0000 FECF FFFF FFFF"),
            length=(18, 4096),
        ),
        Pattern(
            transport=UDP,
            value=bytes.fromhex("0000 8000 0001 0000"),
            mask=bytes.fromhex("0000 F840 FFFF FFC0"),
            length=(18, 65_535),
        ),
        Pattern(transport=TCP, ports=(53, 5355)),
        # The same after the length: of a query below 512, of an answer below 16,384.
        Pattern(
            transport=TCP,
            value=bytes.fromhex("0000 0000 0000 0001"),
            mask=bytes.fromhex("FE00 0000 FECF FFFF"),
            follow=2,
        ),
        Pattern(
            transport=TCP,
            value=bytes.fromhex("0000 0000 8000 0001"),
            mask=bytes.fromhex("C000 0000 F840 FFFF"),
            follow=12,
        ),
    ),
    parser=_Parser,
    columns=(
        column(
            "query",
            "text",
            "",
            "Name asked for, '.' is the root; in an mDNS answer the name told about; NULL if unreadable",
            "RFC 1035 4.1.2",
        ),
        column("qtype", "text", "", "Record type: A, AAAA, PTR, HTTPS, TYPE65400", "RFC 1035 4.1.2"),
        column("qclass", "text", "", "Class if it is not IN", "RFC 1035 4.1.2"),
        column("opcode", "text", "", "Kind of message if it is not a query: notify, update", "RFC 1035 4.1.1"),
        column("rcode", "text", "", "NOERROR, NXDOMAIN, SERVFAIL; NULL without an answer", "RFC 1035 4.1.1, RFC 6891"),
        column(
            "answered", "bool", "", "An answer was seen; NULL for a question to a group, answered elsewhere", "engine"
        ),
        column(
            "answers", "texts", "", "Addresses, names and texts of the answer section, the first 32", "RFC 1035 4.1.3"
        ),
        column("answer_count", "int32", "records", "Answers there are, as the header says", "RFC 1035 4.1.1"),
        column("ttl_min", "int64", "s", "Lowest time to live of the answers", "RFC 1035 4.1.3"),
        column("latency_us", "int64", "us", "From the query to its answer", "libpcap ts"),
        column("authoritative", "bool", "", "The server is an authority for the name (AA)", "RFC 1035 4.1.1"),
        column("truncated", "bool", "", "Message cut to fit, to be asked again over TCP (TC)", "RFC 1035 4.1.1"),
        column("recursion_desired", "bool", "", "The client wants recursion (RD)", "RFC 1035 4.1.1"),
        column("recursion_available", "bool", "", "The server offers recursion (RA)", "RFC 1035 4.1.1"),
        column("authentic_data", "bool", "", "The server checked DNSSEC signatures (AD)", "RFC 4035 3.1.6"),
        column("request_bytes", "int32", "bytes", "Length of the query; NULL if cut by the capture", "payload"),
        column("response_bytes", "int32", "bytes", "Length of the answer; NULL if cut by the capture", "payload"),
        column("id", "int32", "", "Transaction number", "RFC 1035 4.1.1"),
    ),
)
