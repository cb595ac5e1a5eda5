"""SIP (RFC 3261) over UDP and TCP: who calls whom, and what was said to it. A row is a message."""

from __future__ import annotations

import re
from typing import Any, Final

from engine.dissect._segments import Segments, distance
from engine.dissect.base import TCP, UDP, Application, Flow, Message, Pattern, Verdict, column, text_of

_MAX_HEAD: Final = 16_384
_LINES: Final = 256
_BODY: Final = 1 << 20
_END: Final = re.compile(rb"\n\r?\n")
_METHOD: Final = re.compile(rb"[A-Z][A-Z0-9_.!%*+`'~-]{0,31}\Z")
_VERSION: Final = re.compile(rb"SIP/2\.\d\Z")
_STATUS: Final = re.compile(rb"SIP/2\.\d +(\d{3})(?!\d)")
_START: Final = re.compile(rb"[A-Z][A-Z0-9_.!%*+`'~-]{0,31} |SIP/2\.|[A-Z]{1,16}\Z")
_COLUMNS: Final = ("from_uri", "to_uri", "call_id", "cseq", "user_agent", "content_type")
# Names and compact forms (RFC 3261 7.3.3).
_FIELDS: Final = {
    b"from": "from_uri", b"f": "from_uri", b"to": "to_uri", b"t": "to_uri", b"call-id": "call_id", b"i": "call_id",
    b"cseq": "cseq", b"user-agent": "user_agent", b"server": "server", b"content-type": "content_type",
    b"c": "content_type", b"content-length": "length", b"l": "length",
}  # fmt: skip


class _Side(Segments):
    """One direction of a TCP connection, and where the body of the last message ends."""

    __slots__ = ("body_end",)

    def __init__(self) -> None:
        super().__init__()
        self.body_end: int | None = None


class _Parser:
    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._sides = (_Side(), _Side())

    def feed(self, message: Message) -> Verdict:
        """Take a datagram or segment in."""
        if self._flow.proto == UDP:
            return self._datagram(message)
        side = self._sides[message.from_client]
        side.add(message.seq, message.data, message.ts)
        while side.ready(anything=side.stuck):
            verdict = self._read(side)
            if verdict is not Verdict.MORE:
                return verdict
        if side.buffer and (side.stuck or not message.whole):
            self._take(side, len(side.buffer))
            side.discard()
        return Verdict.MORE

    def finish(self) -> None:
        """Read what is left of heads that were not completed."""
        for side in self._sides:
            if side.buffer:
                self._take(side, len(side.buffer))
                side.discard()

    def _datagram(self, message: Message) -> Verdict:
        """One message in one datagram (RFC 3261 18)."""
        head = message.data[:_MAX_HEAD].lstrip(b"\r\n")
        end = _END.search(head)
        row = _parse(head[: end.end()] if end else head)
        if row is None:
            return Verdict.MORE if self._flow.app else Verdict.FOREIGN
        self._tell(row, message.ts)
        return Verdict.MORE

    def _read(self, side: _Side) -> Verdict:
        """Messages of a stream have a Content-Length (RFC 3261 18.3)."""
        while side.buffer:
            if side.body_end is not None:
                left = distance(side.body_end, side.position)
                if left > 0:
                    del side.buffer[:left]
            blank = len(side.buffer) - len(side.buffer.lstrip(b"\r\n"))  # keep-alive (RFC 5626 4.4.1)
            del side.buffer[:blank]
            if not side.buffer:
                break
            if not _START.match(side.buffer):
                side.discard()
                return Verdict.MORE if self._flow.app else Verdict.FOREIGN
            end = _END.search(side.buffer, 0, _MAX_HEAD)
            if end is None and len(side.buffer) < _MAX_HEAD:
                break
            if not self._take(side, end.end() if end else _MAX_HEAD):
                side.discard()
                return Verdict.MORE if self._flow.app else Verdict.FOREIGN
        return Verdict.MORE

    def _take(self, side: _Side, end: int) -> bool:
        """Read the head that ends at `end`; False when it is not SIP."""
        row = _parse(bytes(side.buffer[:end]))
        if row is None:
            return False
        length = row["length"]
        side.consume(end)
        side.body_end = (side.position + length) & 0xFFFF_FFFF if length <= _BODY else None
        self._tell(row, side.ts)
        return True

    def _tell(self, row: dict[str, Any], ts: int) -> None:
        del row["length"]
        self._flow.app = "sip"
        self._flow.emit(ts=ts, **row)


def _parse(head: bytes) -> dict[str, Any] | None:
    """The columns of a message, and the length of its body; None when it is not SIP (RFC 3261 7)."""
    lines = head.split(b"\n", _LINES)
    start = lines[0].rstrip(b"\r \t")
    method, _, rest = start.partition(b" ")
    uri, _, version = rest.rpartition(b" ")
    row: dict[str, Any] = {"method": None, "request_uri": None, "status": None, "length": 0}
    status = _STATUS.match(start)
    if _VERSION.match(version) and _METHOD.match(method) and (uri := uri.strip()):
        row["method"], row["request_uri"] = method.decode(), text_of(uri)
    elif status is not None:
        row["status"] = int(status[1])
    else:
        return None
    values = _fields(lines)
    length = values.pop("length", b"")
    if length.isdigit() and len(length) < 10:
        row["length"] = int(length)
    server = values.pop("server", b"")
    if server:
        values.setdefault("user_agent", server)
    for name in _COLUMNS:
        row[name] = text_of(values[name]) if name in values else None
    return row


def _fields(lines: list[bytes]) -> dict[str, bytes]:
    """The kept fields; the first of a name counts, folded lines are put together (RFC 3261 7.3.1)."""
    values: dict[str, bytes] = {}
    last = ""
    for line in lines[1:_LINES]:
        if line[:1] in (b" ", b"\t"):
            if last:
                values[last] += b" " + line.strip()
            continue
        name, _, value = line.partition(b":")
        key = _FIELDS.get(name.strip().lower(), "")
        last = key if key not in values else ""
        if last:
            values[key] = value.strip()
    return values


# RFC 3261, 3262, 3265, 3311, 3428, 3515, 3903, 6086.
_METHODS: Final = (
    b"INVITE ", b"ACK ", b"BYE ", b"CANCEL ", b"OPTIONS ", b"REGISTER", b"PRACK ", b"SUBSCRIB", b"NOTIFY ", b"PUBLISH ",
    b"INFO ", b"REFER ", b"MESSAGE ", b"UPDATE ", b"SIP/2.0 ",
)  # fmt: skip

APPLICATION = Application(
    name="sip",
    meaning="Session Initiation Protocol",
    patterns=(
        *(Pattern(transport=UDP, value=value) for value in _METHODS),
        *(Pattern(transport=TCP, value=value, follow=3) for value in _METHODS),
        # Any method of three capitals or more, where SIP is usual.
        Pattern(transport=UDP, value=b"@@@", mask=b"\xe0\xe0\xe0", ports=(5060, 5070, 5080)),
    ),
    parser=_Parser,
    columns=(
        column("method", "text", "", "Method of a request", "RFC 3261 7.1"),
        column("request_uri", "text", "", "Request-URI", "RFC 3261 7.1"),
        column("status", "int16", "", "Status code of a response", "RFC 3261 7.2"),
        column("from_uri", "text", "", "From, as sent", "RFC 3261 20.20"),
        column("to_uri", "text", "", "To, as sent", "RFC 3261 20.39"),
        column("call_id", "text", "", "Call-ID", "RFC 3261 20.8"),
        column("cseq", "text", "", "CSeq: number and method; responses have those of their request", "RFC 3261 20.16"),
        column("user_agent", "text", "", "User-Agent, or Server of a response", "RFC 3261 20.41"),
        column("content_type", "text", "", "Content-Type", "RFC 3261 20.15"),
    ),
)
