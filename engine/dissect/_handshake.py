"""What TLS, DTLS and QUIC share: the two hello messages (RFC 8446 4.1) and the pieces they arrive in.

Lengths that an extension claims for its parts are cut to the extension; lengths of the message itself must hold.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from engine.dissect.base import Malformed, text_of

CLIENT_HELLO: Final = 1
SERVER_HELLO: Final = 2
CERTIFICATE: Final = 11
# The longest message that is put together, and how many extensions and names in it are read.
MESSAGE_LIMIT: Final = 32_768
_EXTENSIONS: Final = 256
_NAMES: Final = 32
# Values that only keep servers tolerant (RFC 8701 2).
GREASE: Final = frozenset(0x0A0A + 0x1010 * n for n in range(16))
# The random of a ServerHello that is a HelloRetryRequest (RFC 8446 4.1.3).
_RETRY: Final = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
_VERSIONS: Final = {
    0x0002: "SSL 2.0", 0x0300: "SSL 3.0", 0x0301: "TLS 1.0", 0x0302: "TLS 1.1", 0x0303: "TLS 1.2", 0x0304: "TLS 1.3",
    0x0100: "DTLS 1.0", 0xFEFF: "DTLS 1.0", 0xFEFD: "DTLS 1.2", 0xFEFC: "DTLS 1.3",
}  # fmt: skip
_PAIR: Final = struct.Struct(">HH").unpack_from


@dataclass(slots=True)
class ClientHello:
    """What a client offers (RFC 8446 4.1.2). Lists hold GREASE too. `whole` is false when the end was not seen."""

    version: int = 0
    session: bytes = b""
    ciphers: tuple[int, ...] = ()
    extensions: list[int] = field(default_factory=list)
    has_sni: bool = False
    sni: str = ""
    alpn: list[bytes] = field(default_factory=list)
    groups: tuple[int, ...] = ()
    formats: bytes = b""
    signatures: tuple[int, ...] = ()
    versions: tuple[int, ...] = ()
    transport: bytes = b""
    early_data: bool = False
    whole: bool = False

    @property
    def highest(self) -> int:
        """The highest number offered (RFC 8446 4.2.1); DTLS counts downwards."""
        offered = [v for v in self.versions if v not in GREASE] or [self.version]
        return min(offered) if offered[0] >= 0xFE00 else max(offered)

    @property
    def best(self) -> int:
        """The latest version offered: TLS 1.3 is later than its drafts, whose numbers are higher."""
        return 0x0304 if 0x0304 in self.versions else self.highest


@dataclass(slots=True)
class ServerHello:
    """What the server chose (RFC 8446 4.1.3)."""

    version: int = 0  # as in the message
    chosen: int = 0  # supported_versions, or the same
    session: bytes = b""
    cipher: int = 0
    extensions: list[int] = field(default_factory=list)
    alpn: bytes = b""
    retry: bool = False
    resumed: bool = False  # it took the client's pre-shared key
    whole: bool = False

    @property
    def hides_certificate(self) -> bool:
        """From TLS 1.3 on the certificate is encrypted."""
        return self.chosen == 0xFEFC or 0x0304 <= self.chosen < 0xFE00


def version_text(version: int) -> str:
    """A protocol version by name: 'TLS 1.2'."""
    if version >> 8 == 0x7F:
        return f"TLS 1.3 draft {version & 0xFF}"
    return _VERSIONS.get(version) or f"0x{version:04x}"


def parse_client_hello(body: bytes, datagram: bool = False, partial: bool = False) -> ClientHello:
    """A ClientHello without its handshake header; of a `partial` one, the fields before its end.

    DTLS has a cookie after the session (RFC 6347 4.2.1).
    """
    hello = ClientHello()
    try:
        _read_client_hello(hello, body, datagram)
        hello.whole = not partial
    except (IndexError, Malformed, struct.error):
        if not partial:
            raise
    return hello


def _read_client_hello(hello: ClientHello, body: bytes, datagram: bool) -> None:
    version = body[0] << 8 | body[1]
    if version >> 8 not in (0x03, 0xFE, 0x01, 0x7F):
        raise Malformed("no ClientHello")
    hello.version = version
    at = 35 + body[34]
    hello.session = body[35:at]
    if datagram:
        at += 1 + body[at]
    size = body[at] << 8 | body[at + 1]
    at += 2
    if size & 1:
        raise Malformed("odd list of ciphers")
    hello.ciphers = struct.unpack_from(f">{size >> 1}H", body, at)
    at += size
    at += 1 + body[at]  # compression methods
    if at == len(body):
        return  # before RFC 3546 there were no extensions
    for kind, start, stop in _extensions(body, at):
        hello.extensions.append(kind)
        reader = _CLIENT_EXTENSIONS.get(kind)
        if reader is not None:
            reader(hello, body[start:stop])


def _extensions(body: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """Kind, start and end of each extension (RFC 8446 4.2); raises after those that are whole."""
    end = at + 2 + (body[at] << 8 | body[at + 1])
    last = min(end, len(body))
    at += 2
    for _ in range(_EXTENSIONS):
        if end - at < 4 and end <= len(body):
            return
        kind, size = _PAIR(body, at)
        at += 4 + size
        if at > last:
            break
        yield kind, at - size, at
    raise Malformed("extensions reach beyond the message")


def _numbers(data: bytes, at: int, size: int) -> tuple[int, ...]:
    """16-bit numbers: what is there of `size` bytes."""
    count = min(size, len(data) - at) >> 1
    return struct.unpack_from(f">{count}H", data, at) if count > 0 else ()


def _list16(data: bytes) -> tuple[int, ...]:
    return _numbers(data, 2, data[0] << 8 | data[1]) if len(data) >= 2 else ()


def _names(data: bytes) -> list[bytes]:
    """A ProtocolNameList (RFC 7301 3.1)."""
    at = 2
    names: list[bytes] = []
    while at < len(data) and len(names) < _NAMES:
        stop = at + 1 + data[at]
        names.append(data[at + 1 : stop])
        at = stop
    return names


def _sni(hello: ClientHello, data: bytes) -> None:
    """RFC 6066 3: the first name of the list, if it is a host name."""
    hello.has_sni = True
    if len(data) > 5 and data[2] == 0:
        hello.sni = text_of(data[5 : 5 + (data[3] << 8 | data[4])], 255)


def _groups(hello: ClientHello, data: bytes) -> None:
    hello.groups = _list16(data)


def _formats(hello: ClientHello, data: bytes) -> None:
    hello.formats = data[1 : 1 + data[0]] if data else b""


def _signatures(hello: ClientHello, data: bytes) -> None:
    hello.signatures = _list16(data)


def _alpn(hello: ClientHello, data: bytes) -> None:
    hello.alpn = _names(data)


def _versions(hello: ClientHello, data: bytes) -> None:
    hello.versions = _numbers(data, 1, data[0]) if data else ()


def _early_data(hello: ClientHello, data: bytes) -> None:
    hello.early_data = True


def _transport(hello: ClientHello, data: bytes) -> None:
    hello.transport = data


_CLIENT_EXTENSIONS: Final = {
    0x0000: _sni, 0x000A: _groups, 0x000B: _formats, 0x000D: _signatures, 0x0010: _alpn, 0x002A: _early_data,
    0x002B: _versions, 0x0039: _transport, 0xFFA5: _transport,  # RFC 9001 8.2 and its drafts
}  # fmt: skip


def parse_server_hello(body: bytes, partial: bool = False) -> ServerHello:
    """A ServerHello or HelloRetryRequest without its handshake header; of a `partial` one, what is before its end."""
    hello = ServerHello()
    try:
        _read_server_hello(hello, body)
        hello.whole = not partial
    except (IndexError, Malformed, struct.error):
        if not partial:
            raise
    return hello


def _read_server_hello(hello: ServerHello, body: bytes) -> None:
    version = body[0] << 8 | body[1]
    if version >> 8 not in (0x03, 0xFE, 0x01, 0x7F):
        raise Malformed("no ServerHello")
    if 0x7F00 < version <= 0x7F15:  # drafts of TLS 1.3 up to 21 had neither session nor compression here
        cipher, at = 34, 36
    else:
        cipher = 35 + body[34]
        at = cipher + 3
    hello.cipher = body[cipher] << 8 | body[cipher + 1]
    hello.session, hello.retry = body[35:cipher], body[2:34] == _RETRY
    hello.version = hello.chosen = version
    if at > len(body):
        raise Malformed("ServerHello ends early")
    for kind, start, stop in _extensions(body, at) if at < len(body) else ():
        hello.extensions.append(kind)
        if kind == 0x002B and stop - start == 2:
            hello.chosen = body[start] << 8 | body[start + 1]
        elif kind == 0x0010:
            hello.alpn = next(iter(_names(body[start:stop])), b"")
        elif kind == 0x0029:
            hello.resumed = True


class Pieces:
    """Bytes that arrive in pieces with offsets: CRYPTO frames of QUIC, fragments of DTLS. Bounded.

    `data` is what is there from offset 0 without a gap; bytes already there win.
    """

    __slots__ = ("_late", "_limit", "_room", "data")

    def __init__(self, limit: int = MESSAGE_LIMIT) -> None:
        self.data = bytearray()
        self._limit = self._room = limit  # of what is kept, of that what may wait for a gap to close
        self._late: dict[int, bytes] = {}

    def add(self, offset: int, piece: bytes) -> None:
        """Take a piece in."""
        if offset + len(piece) > self._limit:
            return
        if offset > len(self.data):
            more = len(piece) - len(self._late.get(offset, b""))
            if 0 < more <= self._room and len(self._late) < 256:
                self._late[offset] = piece
                self._room -= more
            return
        self.data += piece[len(self.data) - offset :]
        if self._late:
            self._join()

    def _join(self) -> None:
        for offset in sorted(self._late):
            if offset > len(self.data):
                break
            piece = self._late.pop(offset)
            self._room += len(piece)
            self.data += piece[len(self.data) - offset :]
