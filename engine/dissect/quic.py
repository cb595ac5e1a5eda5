"""QUIC versions 1 (RFC 9000, 9001) and 2 (RFC 9369), their drafts, and Google's own before them.

Initial packets are opened with the keys that everyone can compute; the hellos in them are those of TLS 1.3.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from engine.dissect._connection import COLUMNS as TLS_COLUMNS
from engine.dissect._connection import Connection
from engine.dissect._handshake import ClientHello, Pieces
from engine.dissect._quic_initial import (
    INITIAL,
    Keys,
    LongHeader,
    crypto_frames,
    read_long_header,
    salt_of,
    varint,
    version_text,
)
from engine.dissect.base import UDP, Application, Flow, Malformed, Message, Pattern, Verdict, column, text_of

_FROM_TLS: Final = ("sni", "alpn", "alpn_offered", "ja3", "ja4", "ja3s", "ja4s", "cipher", "resumed", "early_data")
# Bounds: bytes of hellos, datagrams looked at, packets of one datagram, sets of keys tried without success.
_HELLO_LIMIT: Final = 16_384
_PATIENCE: Final = 32
_PACKETS: Final = 8
_ATTEMPTS: Final = 6
_USER_AGENT: Final = 0x3129  # Google's transport parameter


class _Parser:
    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._connection = Connection(flow, "quic", "q")
        self._version = 0
        self._client: bool | None = None  # `from_client` of who sent what the client's keys open
        self._first: LongHeader | None = None  # the client's first Initial packet
        self._keys: dict[bool, Keys] = {}  # by side: True is the client's
        self._crypto = {True: Pieces(_HELLO_LIMIT), False: Pieces(_HELLO_LIMIT)}
        self._read = {True: 0, False: 0}
        self._seen = 0
        self._failed = 0
        self._google: dict[str, str] = {}  # of a hello before TLS

    def feed(self, message: Message) -> Verdict:
        """Take a datagram in; done as soon as both hellos are read."""
        data = message.data
        if not self._recognise(data, message.whole):
            return Verdict.MORE if self._flow.app else Verdict.FOREIGN
        self._connection.ts = self._connection.ts or message.ts
        self._connection.begin()
        self._seen += 1
        if salt_of(self._version) is None:
            self._take_google(data)
        elif message.whole:
            self._take_datagram(data, message.from_client)
        if self._connection.complete or self._google or self._seen >= _PATIENCE:
            self.finish()
            return Verdict.DONE
        return Verdict.MORE

    def finish(self) -> None:
        """One row per connection, with no more than its version when nothing could be opened."""
        connection = self._connection
        if connection.emitted or not connection.sure:
            return
        connection.emitted = True
        for client, pieces in self._crypto.items():
            rest = pieces.data[self._read[client] :]
            if len(rest) > 4:
                connection.partial(rest[0], bytes(rest[4:]))
        known = connection.columns()
        row: dict[str, Any] = {name: known.get(name) for name in _FROM_TLS}
        if connection.client is not None:
            row["user_agent"] = _user_agent(connection.client)
        if self._first is not None:
            row |= {"dcid": self._first.dcid.hex(), "scid": self._first.scid.hex()}
        self._flow.emit(ts=connection.ts, **row | self._google, version=version_text(self._version))

    def _recognise(self, data: bytes, whole: bool) -> bool:
        """By the version and a header that fits the datagram."""
        if data[0] & 0x80:
            version = int.from_bytes(data[1:5], "big")
        elif data[0] & 0xC9 == 0x09:  # Google's up to Q043: flags, 8 bytes of connection, version
            version = int.from_bytes(data[9:13], "big")
            if data[9:10] != b"Q":
                return False
        else:
            return False
        name = version.to_bytes(4, "big")
        google = name[:1] == b"Q" and name[1:].isdigit()
        if salt_of(version) is None:
            if not google:
                return False
        else:
            try:
                read_long_header(data, 0, whole)
            except (IndexError, Malformed, struct.error):
                return False
        self._version = self._version or version
        return True

    def _take_datagram(self, data: bytes, from_client: bool) -> None:
        """Its packets, one after the other (RFC 9000 12.2)."""
        at = 0
        for _ in range(_PACKETS):
            if at + 7 > len(data) or not data[at] & 0x80 or self._connection.complete:
                return
            try:
                packet = read_long_header(data, at)
                if packet.kind == INITIAL:
                    self._take_initial(data, packet, from_client)
            except (IndexError, Malformed, struct.error):
                return
            at = packet.end

    def _take_initial(self, data: bytes, packet: LongHeader, from_client: bool) -> None:
        is_client = self._client is None or from_client is self._client
        frames = self._open(data, packet, is_client)
        if frames is None:
            return
        if is_client and self._first is None:
            self._client, self._first = from_client, packet
        if b"CHLO" in frames and self._version >> 24 == ord("Q"):
            self._take_google(frames)
            return
        crypto = self._crypto[is_client]
        for offset, piece in crypto_frames(frames):
            crypto.add(offset, piece)
        self._take_messages(is_client)

    def _open(self, data: bytes, packet: LongHeader, is_client: bool) -> bytes | None:
        """With the side's keys; else with new ones: after a Retry (RFC 9001 5.2), or of a new version (RFC 9368)."""
        keys = self._keys.get(is_client)
        if keys is not None and keys.version == packet.version:
            frames = keys.open(data, packet)
            if frames is not None or not is_client or keys.dcid == packet.dcid:
                return frames
        if self._failed >= _ATTEMPTS:
            return None
        dcid = packet.dcid if is_client else self._keys[True].dcid
        keys = Keys(packet.version, dcid, is_client)
        frames = keys.open(data, packet)
        if frames is None:
            self._failed += 1
            return None
        self._keys[is_client] = keys
        if is_client:
            self._keys.pop(False, None)
        else:
            self._version = packet.version  # what the server speaks is agreed
        return frames

    def _take_messages(self, is_client: bool) -> None:
        data = self._crypto[is_client].data
        while len(data) - self._read[is_client] >= 4:
            at = self._read[is_client]
            stop = at + 4 + int.from_bytes(data[at + 1 : at + 4], "big")
            if len(data) < stop:
                return
            self._read[is_client] = stop
            self._connection.handshake(data[at], bytes(data[at + 4 : stop]), is_client)

    def _take_google(self, data: bytes) -> None:
        """The tags of Google's client hello, where it is not encrypted: name, agent and protocol."""
        tags = _google_tags(data)
        if not tags:
            return
        names = {"sni": b"SNI\0", "user_agent": b"UAID", "alpn": b"ALPN"}
        self._google = {name: text_of(tags[tag], 255) for name, tag in names.items() if tags.get(tag)}
        self._flow.server_name = self._google.get("sni") or self._flow.server_name


def _google_tags(data: bytes) -> dict[bytes, bytes]:
    """Tag, count, and pairs of tag and end of value, then the values; numbers are little-endian (QUIC Crypto, 2016)."""
    at = data.find(b"CHLO")
    if at < 0 or at + 8 > len(data):
        return {}
    count = int.from_bytes(data[at + 4 : at + 6], "little")
    values = at + 8 + 8 * count
    tags: dict[bytes, bytes] = {}
    last = 0
    for i in range(min(count, 128)):
        pair = data[at + 8 + 8 * i : at + 16 + 8 * i]
        end = int.from_bytes(pair[4:], "little")
        if len(pair) < 8 or end < last or values + end > len(data):
            break
        tags[pair[:4]] = data[values + last : values + end]
        last = end
    return tags


def _user_agent(hello: ClientHello) -> str | None:
    """From the transport parameters (RFC 9000 18), of which at most 64 are looked at."""
    data, at = hello.transport, 0
    try:
        for _ in range(64):
            kind, at = varint(data, at)
            size, at = varint(data, at)
            if kind == _USER_AGENT:
                return text_of(data[at : at + size], 255)
            at += size
    except (IndexError, Malformed):
        pass
    return None


def _initial(version: bytes, mask: bytes, first: int) -> Pattern:
    """An Initial packet; the fixed bit may be either (RFC 9287)."""
    return Pattern(transport=UDP, value=bytes((first,)) + version, mask=b"\xb0" + mask, length=(40, 65_535))


APPLICATION = Application(
    name="quic",
    meaning="QUIC: one row per connection",
    patterns=(
        _initial(b"\x00\x00\x00\x01", b"\xff\xff\xff\xff", 0x80),
        _initial(b"\x6b\x33\x43\xcf", b"\xff\xff\xff\xff", 0x90),
        _initial(b"\xff\x00\x00\x00", b"\xff\xff\xff\xc0", 0x80),
        _initial(b"\xfa\xce\xb0\x00", b"\xff\xff\xff\xf0", 0x80),
        _initial(b"T050", b"\xff\xff\xff\xfe", 0x80),
        # Google's: any packet with a long header, and up to Q043 those that name the version.
        Pattern(transport=UDP, value=b"\x80Q000", mask=b"\x80\xff\xff\xf0\xf0", length=(40, 65_535)),
        Pattern(transport=UDP, value=b"\x09", mask=b"\xc9", ports=(80, 443), length=(40, 65_535)),
    ),
    parser=_Parser,
    columns=(
        column("version", "text", "", "1, 2, draft-29, Q046 and so on: the server's, else the client's", "RFC 9000 15"),
        *(c for c in TLS_COLUMNS if c.name in _FROM_TLS),
        column("user_agent", "text", "", "Software that the client names", "transport parameter 0x3129, UAID"),
        column("dcid", "text", "", "Connection ID that the client made up for the server, hexadecimal", "RFC 9000 7.2"),
        column("scid", "text", "", "The client's own connection ID, hexadecimal", "RFC 9000 7.2"),
    ),
    encrypted=True,
)
