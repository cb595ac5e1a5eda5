"""HTTP/1 (RFC 9110, RFC 9112): who asked which server for what, and the answer. SSDP is HTTP in UDP datagrams.

Only heads are read. Where a body ends is known from its length, so that text in bodies is not taken for a head.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from typing import Final

from engine.dissect._http_head import MAX_HEAD, Head, head_end, impossible, parse, start_of
from engine.dissect._segments import Segments, distance
from engine.dissect.base import TCP, UDP, Application, Flow, Message, Parser, Pattern, Verdict, column

_QUEUE: Final = 64  # requests waiting for their responses
_BODY: Final = 1 << 30  # a longer body cannot be told from the previous one by sequence numbers
_CHUNKS: Final = 256
_ENTRY: Final = 3  # first word of a kernel's entry, see `resume`
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[^\n]{0,256}\n")


class _Request:
    """A request that waits for its response."""

    __slots__ = ("answered", "method", "row", "ts")

    def __init__(self, ts: int, head: Head) -> None:
        self.ts, self.method, self.answered = ts, head.method, False
        self.row = head.request_columns()


class _Side(Segments):
    """One direction: where the body of the last head ends, and what that head was."""

    __slots__ = ("body_end", "head_ts", "request")

    def __init__(self) -> None:
        super().__init__()
        self.body_end: int | None = None  # sequence number after the last message, when it is known
        self.head_ts = 0
        self.request: _Request | None = None

    def must_wait(self, seq: int, data: bytes) -> bool:
        """Where the next head begins is known, this is after it and no head: part of one whose start is late."""
        return self.body_end is not None and distance(seq, self.body_end) > 0 and start_of(data) is None


class _Parser:
    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._queue: deque[_Request] = deque()
        self._sides = (_Side(), _Side())
        self._asked = False  # a request has been seen

    def feed(self, message: Message) -> Verdict:
        """Take a segment in and read the heads that are complete with it."""
        if self._flow.proto == UDP:
            return self._datagram(message)
        side = self._sides[message.from_client]
        side.add(message.seq, message.data, message.ts)
        verdict = self._read(side)
        if verdict is Verdict.MORE and (side.stuck or (side.buffer and not message.whole)):
            return self._close(side)
        return verdict

    def finish(self) -> None:
        """Emit the requests that got no response, and heads that were not completed."""
        for side in self._sides:
            self._close(side)
        while self._queue:
            self._flow.emit(**self._queue.popleft().row)

    def _datagram(self, message: Message) -> Verdict:
        """One datagram is one message; who answers is another flow (UPnP Device Architecture 2.0, 1.3)."""
        head = parse(message.data[:MAX_HEAD])
        if head is None:
            return Verdict.FOREIGN if not self._flow.app else Verdict.MORE
        self._flow.app = "ssdp"
        row = head.request_columns() if head.method else head.response_columns()
        self._flow.emit(ts=message.ts, **row)
        return Verdict.MORE

    def _read(self, side: _Side, anything: bool = False) -> Verdict:
        """Read heads while there are bytes."""
        while side.ready(anything):
            while side.buffer:
                self._skip_body(side)
                begin = start_of(side.buffer)
                end = 0 if begin is None else head_end(side.buffer, begin)
                if begin is None or (not end and impossible(side.buffer, begin)):  # a body, or not HTTP
                    side.discard()
                    if not self._flow.app:
                        return Verdict.FOREIGN
                    break
                if not end:
                    break  # wait for the rest
                verdict = self._take(side, end)
                if verdict is not Verdict.MORE:
                    return verdict
        return Verdict.MORE

    def _close(self, side: _Side) -> Verdict:
        """The head in the buffer will not be completed: read its whole lines, and go on with what was held."""
        while True:
            if side.buffer:
                whole = side.buffer.rfind(b"\n") + 1
                verdict = self._take(side, whole or len(side.buffer))
                side.discard()
                if verdict is not Verdict.MORE:
                    return verdict
            verdict = self._read(side, anything=True)
            if verdict is not Verdict.MORE or not side.buffer:
                return verdict

    def _skip_body(self, side: _Side) -> None:
        """Drop the bytes that belong to the body of the previous message."""
        if side.body_end is None:
            return
        left = distance(side.body_end, side.position)
        if left <= 0:
            return
        if side.request is not None:
            over = side.request.answered  # the server did not wait for the body, or there was none
        else:
            over = not self._asked or (bool(self._queue) and self._queue[0].ts > side.head_ts)
        if not over or start_of(side.buffer) is None:
            del side.buffer[:left]

    def _take(self, side: _Side, end: int) -> Verdict:
        """Read the head that ends at `end`."""
        began, lost = side.ts, side.body_end is not None and distance(side.position, side.body_end) > 0
        head = parse(bytes(side.buffer[: min(end, MAX_HEAD)]))
        if head is None:
            side.discard()
            return Verdict.MORE if self._flow.app else Verdict.FOREIGN
        if head.version == "2.0" and head.method == "PRI":  # RFC 9113 3.4
            self._flow.app = "http2"
            return Verdict.DONE
        self._flow.app = "http"
        side.consume(end)
        side.head_ts = began
        if head.method:
            self._request(side, head)
            return Verdict.MORE
        return self._response(side, head, lost)

    def _request(self, side: _Side, head: Head) -> None:
        request = side.request = _Request(side.head_ts, head)
        request.row["ts"] = side.head_ts
        self._asked = True
        if not self._flow.server_name:
            self._flow.server_name = head.server_name()
        if len(self._queue) >= _QUEUE:
            self._flow.emit(**self._queue.popleft().row)
        self._queue.append(request)
        self._expect_body(side, head, 0 if head.length is None and not head.chunked else head.length)

    def _response(self, side: _Side, head: Head, lost: bool) -> Verdict:
        """Responses come in the order of the requests (RFC 9112 9.3.2)."""
        side.request = None
        if 100 <= head.status < 200 and head.status != 101:  # interim: the response is still to come
            self._expect_body(side, head, 0)
            return Verdict.MORE
        if not self._queue:
            asking = self._sides[0 if side is self._sides[1] else 1]
            if asking.buffer:  # it was answered, so the rest of it was sent, and not captured
                self._close(asking)
        if lost and len(self._queue) > 1:  # between the last response and this one there was another
            self._flow.emit(**self._queue.popleft().row)
        method, row = "", {"ts": side.head_ts, **head.response_columns()}
        if self._queue:
            request = self._queue.popleft()
            request.answered, method = True, request.method
            row |= {"ts": request.ts, "version": request.row["version"]}
            if side.head_ts >= request.ts:
                row["latency_us"] = side.head_ts - request.ts
            row = request.row | row
        self._flow.emit(**row)
        if head.status == 101 or (method == "CONNECT" and 200 <= head.status < 300):
            return Verdict.RELEASE  # RFC 9110 9.3.6, 15.2.2
        bodyless = method == "HEAD" or head.status in (204, 304)
        self._expect_body(side, head, 0 if bodyless else head.length)
        return Verdict.MORE

    def _expect_body(self, side: _Side, head: Head, length: int | None) -> None:
        """Note where the next head begins (RFC 9112 6.3)."""
        if head.chunked and length != 0:
            length = _chunked_length(side.buffer)
        if length is None or length > _BODY:
            side.body_end = None
            side.discard()
        else:
            side.body_end = (side.position + length) & 0xFFFF_FFFF


def resume(flow: Flow, entry: Sequence[int], request: Message | None) -> Parser:
    """A parser that goes on where a kernel was, whose entry this is (`engine.kernels.app_http`): each side's next
    sequence number, end of its body, time of its last head and segment; then what became of the last request."""
    parser = _Parser(flow)
    for at, side in enumerate(parser._sides, _ENTRY):
        side._next = entry[at] if entry[at] >= 0 else None
        side.body_end = entry[at + 2] if entry[at + 2] >= 0 else None
        side.head_ts, side.ts = entry[at + 4], entry[at + 6]
    state = entry[_ENTRY + 8]
    if state:
        parser._asked = True
        head = parse(request.data) if request is not None else None
        asked = _Request(entry[_ENTRY + 5], head or Head("GET", b"/", 0, "1.1", {}))
        parser._sides[1].request = asked
        if head is None:
            asked.answered = True
        else:
            asked.row["ts"] = asked.ts
            parser._queue.append(asked)
    return parser


def _chunked_length(buffer: bytearray) -> int | None:
    """Bytes of a chunked body that ends within the buffer (RFC 9112 7.1)."""
    at = 0
    for _ in range(_CHUNKS):
        size = _CHUNK.match(buffer, at)
        if size is None:
            return None
        length = int(size[1], 16)
        if not length:
            end = head_end(buffer, size.start())  # trailers
            return end or None
        at = size.end() + length + 2
    return None


def _requests() -> tuple[Pattern, ...]:
    """Methods of RFC 9110 and PATCH; WebDAV (RFC 4918, 3253, 5323, 5842); UPnP events; RPC over HTTP; caches."""
    names = (
        "GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "CONNECT", "TRACE",
        "PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH", "MERGE", "CHECKOUT",
        "MKACTIVITY", "SUBSCRIBE", "UNSUBSCRIBE", "NOTIFY", "RPC_IN_DATA", "RPC_OUT_DATA", "PURGE",
    )  # fmt: skip
    return tuple(Pattern(transport=TCP, value=f"{name} "[:8].encode(), follow=5) for name in names)


APPLICATION = Application(
    name="http",
    meaning="Hypertext Transfer Protocol, version 1",
    variants=("ssdp", "http2"),
    patterns=(
        Pattern(transport=TCP, value=b"HTTP/1.", follow=2),
        *_requests(),
        Pattern(transport=TCP, value=b"PRI * HT"),
        # Any method of three capitals or more, where HTTP is usual; its version is checked by the parser.
        Pattern(
            transport=TCP,
            value=b"@@@",
            mask=b"\xe0\xe0\xe0",
            ports=(80, 3128, 5985, 8000, 8008, 8080, 8081, 8088, 8888),
            follow=2,
        ),
        Pattern(transport=UDP, value=b"M-SEARCH"),
        Pattern(transport=UDP, value=b"NOTIFY *"),
        Pattern(transport=UDP, value=b"HTTP/1.", ports=(1900,)),
    ),
    parser=_Parser,
    columns=(
        column("method", "text", "", "Method; NULL for a response whose request was not captured", "RFC 9110 9"),
        column("host", "text", "", "Host as sent, or the authority of the target where it is missing", "RFC 9110 7.2"),
        column("path", "text", "", "Request target as sent, without a password; cut after 2048 bytes", "RFC 9112 3.2"),
        column("user_agent", "text", "", "User-Agent", "RFC 9110 10.1.5"),
        column("referer", "text", "", "Referer", "RFC 9110 10.1.3"),
        column("status", "int16", "", "Final status code; NULL without response", "RFC 9110 15"),
        column("content_type", "text", "", "Media type of the response, lower case, no parameters", "RFC 9110 8.3"),
        column("request_bytes", "int64", "bytes", "Content-Length of the request", "RFC 9110 8.6"),
        column("content_length", "int64", "bytes", "Content-Length of the response", "RFC 9110 8.6"),
        column("version", "text", "", "Version of the request, or of a response alone", "RFC 9112 2.3"),
        column("server", "text", "", "Server", "RFC 9110 10.2.4"),
        column("auth_scheme", "text", "", "Authentication scheme sent by the client, or `other`", "RFC 9110 11.4"),
        column("has_credentials", "bool", "", "A password was sent in clear: Basic, or in the target", "RFC 7617"),
        column("latency_us", "int64", "us", "From the request's first packet to the response's", "engine"),
    ),
)  # fmt: skip
