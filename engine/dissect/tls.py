"""TLS (RFC 8446, RFC 5246) on TCP and DTLS (RFC 6347, RFC 9147) on UDP: who talks to whom, and with which software.

Records are taken apart (RFC 8446 5.1), the handshake messages in them put together and given to the connection. Who
the client is, is said by the ClientHello and not by who sent first.
"""

from __future__ import annotations

import struct
from typing import Final

from engine.dissect._connection import COLUMNS, Connection
from engine.dissect._dtls import Datagrams
from engine.dissect._handshake import CLIENT_HELLO, MESSAGE_LIMIT, SERVER_HELLO
from engine.dissect.base import (
    TCP,
    UDP,
    Application,
    Flow,
    Malformed,
    Message,
    Parser,
    Pattern,
    Stream,
    Verdict,
)

_CCS: Final = 20
_ALERT: Final = 21
_HANDSHAKE: Final = 22
_RECORD: Final = struct.Struct(">BHH").unpack_from
# Plaintext and what TLS 1.2 may add to it (RFC 5246 6.2.3).
_RECORD_LIMIT: Final = 16_384 + 2_048
# When to give up waiting for the other side: messages in all, and messages of encrypted data among them.
_PATIENCE: Final = 64
_DATA_PATIENCE: Final = 8
_HELD: Final = 16


class _Side:
    """One direction of a connection. Its stream starts with a segment that starts a hello; earlier ones wait."""

    __slots__ = ("at", "ended", "held", "messages", "stream")

    def __init__(self) -> None:
        self.stream = Stream(MESSAGE_LIMIT + 4096)
        self.held: list[Message] = []
        self.at = 0  # start of the first record not yet read
        self.messages = bytearray()  # of the handshake, not yet complete
        self.ended = False  # nothing more in clear


class _Segments:
    """The parser for TCP."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._connection = Connection(flow, "tls", "t")
        self._sides = {True: _Side(), False: _Side()}
        self._client: bool | None = None  # `from_client` of who sent the ClientHello
        self._messages = 0
        self._data = 0

    def feed(self, message: Message) -> Verdict:
        """Take a segment in; done as soon as the row is."""
        side = self._sides[message.from_client]
        if not side.stream.data and not _starts_hello(message.data):
            if not self._messages:
                return self._mid_stream(message.data)
            self._hold(side, message)
        elif not side.ended:
            self._connection.ts = self._connection.ts or message.ts
            for one in (message, *side.held):
                side.stream.add(one.seq, one.data)
            side.held.clear()
            self._read(side, message.from_client)
            if not message.whole:
                self._end(side, message.from_client)
        self._messages += 1
        self._data += message.data[:2] == b"\x17\x03"
        if self._is_over():
            self.finish()
            return Verdict.DONE if self._connection.sure else self._other_protocol()
        return Verdict.MORE

    def finish(self) -> None:
        """What was seen of a message before the end counts too."""
        for from_client, side in self._sides.items():
            if not self._connection.complete and not side.ended:
                for message in sorted(side.held, key=lambda m: m.seq):
                    side.stream.add(message.seq, message.data)
                self._read(side, from_client)
                self._end(side, from_client)
        self._connection.close()

    def _is_over(self) -> bool:
        return (
            self._connection.complete
            or all(side.ended for side in self._sides.values())
            or self._messages >= _PATIENCE
            or self._data >= _DATA_PATIENCE
            or (not self._connection.sure and any(side.ended for side in self._sides.values()))
        )

    def _hold(self, side: _Side, message: Message) -> None:
        """A segment of the other side that does not start with its hello: it overtook it, or there is only an alert."""
        if message.data[:1] == b"\x15" and len(message.data) == 7:
            self._connection.take_alert(message.data[5:7])
        elif len(side.held) < _HELD and not side.ended:
            side.held.append(message)

    def _mid_stream(self, data: bytes) -> Verdict:
        """Records before any hello: a chain of them that fits is TLS, one header alone is not enough."""
        headers, fits = _chain(data)
        if headers and (fits or headers > 1):
            self._flow.app = "tls"
            return Verdict.DONE
        if headers and self._data:  # the second segment that starts so
            self._flow.app = "tls"
            return Verdict.DONE
        self._data += 1
        if headers and not self._flow.app:
            return Verdict.MORE
        return self._other_protocol()

    def _other_protocol(self) -> Verdict:
        """After STARTTLS or CONNECT the flow has a name already."""
        return Verdict.RELEASE if self._flow.app else Verdict.FOREIGN

    def _read(self, side: _Side, from_client: bool) -> None:
        """Take whole records out of the stream (RFC 8446 5.1)."""
        data = side.stream.data
        while not side.ended and len(data) - side.at >= 5:
            kind, version, size = _RECORD(data, side.at)
            if not 20 <= kind <= 24 or version >> 8 != 3 or size > _RECORD_LIMIT:
                side.ended = True
                return
            body, stop = side.at + 5, side.at + 5 + size
            if not self._connection.sure:
                if not _starts_hello(data[side.at : side.at + 11]) and not side.messages:
                    side.ended = True
                    return
                if size >= 6 and len(data) >= side.at + 11 and not side.messages:
                    self._connection.begin()
            if len(data) < stop:
                side.ended = side.stream.full
                return
            side.at = stop
            if kind == _HANDSHAKE:
                side.messages += data[body:stop]
                self._take_messages(side, from_client)
            else:
                self._other_record(side, kind, data[body:stop], from_client)

    def _take_messages(self, side: _Side, from_client: bool) -> None:
        """Handshake messages share records or are spread over them (RFC 8446 5.1)."""
        messages, at = side.messages, 0
        while len(messages) - at >= 4:
            kind, size = messages[at], int.from_bytes(messages[at + 1 : at + 4], "big")
            if size > MESSAGE_LIMIT:
                side.ended = True
                break
            stop = at + 4 + size
            if len(messages) < stop:
                break
            if kind in (CLIENT_HELLO, SERVER_HELLO):
                self._client = from_client is (kind == CLIENT_HELLO)
            try:
                self._connection.handshake(kind, bytes(messages[at + 4 : stop]), from_client is self._client)
            except (Malformed, IndexError, struct.error):
                side.ended = True
            at = stop
        del messages[:at]

    def _other_record(self, side: _Side, kind: int, body: bytearray, from_client: bool) -> None:
        """After ChangeCipherSpec all is encrypted (RFC 5246 7.1), except after a HelloRetryRequest."""
        connection = self._connection
        if kind == _ALERT:
            connection.take_alert(body)
        elif kind != _CCS or (connection.server is not None and not connection.server.retry):
            side.ended = True
            connection.settled |= from_client is not self._client

    def _end(self, side: _Side, from_client: bool) -> None:
        """Nothing more comes: read what is there of the last record and the last message."""
        rest = side.stream.data[side.at :]
        if rest[:1] == b"\x16" and not side.ended:
            side.messages += rest[5:]
            self._take_messages(side, from_client)
            if len(side.messages) > 4:
                self._connection.partial(side.messages[0], bytes(side.messages[4:]))
        side.ended = True


def _starts_hello(data: bytes | bytearray) -> bool:
    """A handshake record with a hello in it, as far as both are there (RFC 8446 5.1, 4)."""
    if data[:2] != b"\x16\x03"[: len(data)]:
        return False
    size = data[3] << 8 | data[4] if len(data) >= 5 else 0
    here = min(size, len(data) - 5)  # of the hello
    return (
        (len(data) < 3 or data[2] <= 4)
        and (len(data) < 5 or 0 < size <= _RECORD_LIMIT)
        and (here < 1 or data[5] in (CLIENT_HELLO, SERVER_HELLO))
        and (here < 2 or data[6] == 0)
        and (here < 5 or data[9] in (0x03, 0x7F))
    )


def _chain(data: bytes) -> tuple[int, bool]:
    """How many record headers follow each other, and whether the last record ends with the payload.

    None if it starts with an alert or a ChangeCipherSpec, which are too short to be sure.
    """
    if data[0] not in (22, 23):
        return 0, False
    at = count = 0
    while at + 5 <= len(data) and count < 16:
        kind, version, size = _RECORD(data, at)
        if not 20 <= kind <= 23 or not 0x0300 <= version <= 0x0304 or not 0 < size <= _RECORD_LIMIT:
            return 0, False
        at += 5 + size
        count += 1
    return count, at == len(data)


def _parser(flow: Flow) -> Parser:
    return Datagrams(flow) if flow.proto == UDP else _Segments(flow)


APPLICATION = Application(
    name="tls",
    meaning="TLS on TCP and DTLS on UDP: one row per handshake",
    patterns=(
        # A handshake record: hellos, and whatever of a flight starts a segment. A flight is some 10 segments long.
        Pattern(transport=TCP, value=b"\x16\x03\x00", mask=b"\xff\xff\xfc", follow=12),
        # The same, from senders that put less into a segment.
        Pattern(transport=TCP, value=b"\x16\x03", length=(2, 2), follow=12),
        Pattern(transport=TCP, value=b"\x16", length=(1, 1), follow=12),
        # An alert in clear.
        Pattern(transport=TCP, value=b"\x15\x03\x00\x00\x02", mask=b"\xff\xff\xfc\xff\xff", length=(7, 7)),
        # Encrypted data: asked for once where no hello was seen.
        Pattern(transport=TCP, value=b"\x17\x03\x00", mask=b"\xff\xff\xfc", length=(22, 1 << 30)),
        # Any DTLS record of versions 1.0 to 1.3.
        Pattern(transport=UDP, value=b"\x14\xfe\xfc", mask=b"\xfc\xff\xfc", length=(14, 65_535)),
        Pattern(transport=UDP, value=b"\x14\x01\x00", mask=b"\xfc\xff\xff", length=(14, 65_535)),
    ),
    parser=_parser,
    columns=COLUMNS,
    variants=("dtls",),
    encrypted=True,
)
