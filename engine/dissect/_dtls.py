"""DTLS (RFC 6347, RFC 9147): records in datagrams, handshake messages in fragments."""

from __future__ import annotations

import struct
from typing import Final

from engine.dissect._connection import Connection
from engine.dissect._handshake import CLIENT_HELLO, SERVER_HELLO, Pieces
from engine.dissect.base import Flow, Malformed, Message, Verdict

_ALERT: Final = 21
_HANDSHAKE: Final = 22
_RECORD: Final = struct.Struct(">BHHHIH").unpack_from
_FRAGMENT: Final = struct.Struct(">BBHHBHBH").unpack_from
_HEADER: Final = 13
_RECORD_LIMIT: Final = 16_384 + 2_048
_VERSIONS: Final = (0xFEFF, 0xFEFD, 0xFEFC, 0x0100)  # the last is a draft that Cisco's AnyConnect speaks
# Bounds: records read of a datagram, messages put together at once, datagrams looked at.
_RECORDS: Final = 32
_MESSAGES: Final = 16
_PATIENCE: Final = 64


class Datagrams:
    """The parser for UDP."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._connection = Connection(flow, "dtls", "d")
        self._messages: dict[tuple[bool, int, int, int], Pieces] = {}  # by side, number, kind, size
        self._client: bool | None = None
        self._seen = 0
        self._encrypted = 0

    def feed(self, message: Message) -> Verdict:
        """Take a datagram in; done as soon as the row is."""
        records = _records(message.data, message.whole)
        if not records:
            return Verdict.MORE if self._flow.app else Verdict.FOREIGN
        connection = self._connection
        connection.ts = connection.ts or message.ts
        connection.begin()
        self._seen += 1
        for kind, epoch, body in records:
            if epoch:
                self._encrypted += 1
                connection.settled |= message.from_client is not self._client
            elif kind == _HANDSHAKE:
                self._fragments(body, message.from_client)
            elif kind == _ALERT:
                connection.take_alert(body)
        mid_stream = self._encrypted and connection.client is None and connection.server is None
        if connection.complete or mid_stream or self._seen >= _PATIENCE or self._encrypted >= 8:
            self.finish()
            return Verdict.DONE
        return Verdict.MORE

    def finish(self) -> None:
        """What was seen of a hello counts too."""
        if not self._connection.complete:
            for (_, _, kind, _), pieces in self._messages.items():
                self._connection.partial(kind, bytes(pieces.data))
        self._connection.close()

    def _fragments(self, body: bytes, from_client: bool) -> None:
        """Handshake messages or fragments of them, one after the other (RFC 6347 4.2.2)."""
        at = 0
        while at + 12 <= len(body):
            kind, high, low, number, start_high, start_low, size_high, size_low = _FRAGMENT(body, at)
            size, start, here = high << 16 | low, start_high << 16 | start_low, size_high << 16 | size_low
            at += 12 + here
            if start + here > size:
                return
            key = (from_client, number, kind, size)
            if key not in self._messages:
                if len(self._messages) == _MESSAGES:
                    return
                self._messages[key] = Pieces()
            pieces = self._messages[key]
            pieces.add(start, body[at - here : at])
            if len(pieces.data) == size:
                del self._messages[key]
                self._take(kind, bytes(pieces.data), from_client)

    def _take(self, kind: int, message: bytes, from_client: bool) -> None:
        if kind in (CLIENT_HELLO, SERVER_HELLO):
            self._client = from_client is (kind == CLIENT_HELLO)
        try:
            self._connection.handshake(kind, message, from_client is self._client)
        except (Malformed, IndexError, struct.error):
            return  # as if it had not come


def _records(data: bytes, whole: bool) -> list[tuple[int, int, bytes]]:
    """Kind, epoch and body of each record; none unless they fill the datagram (RFC 6347 4.1)."""
    at = 0
    found: list[tuple[int, int, bytes]] = []
    while at + _HEADER <= len(data) and len(found) < _RECORDS:
        kind, version, epoch, _, _, size = _RECORD(data, at)
        if not 20 <= kind <= 23 or version not in _VERSIONS or not 0 < size <= _RECORD_LIMIT:
            # Encrypted records of DTLS 1.3 have a header of their own (RFC 9147 4).
            return found if found and data[at] >> 5 == 1 else []
        at += _HEADER
        found.append((kind, epoch, data[at : at + size]))
        at += size
    return found if not whole or at == len(data) or len(found) == _RECORDS else []
