"""LDAP (RFC 4511 4.1.1): recognised by a bind, a search or their answers; StartTLS ends what can be read (4.14).

A row is a simple bind with a password, which is not kept.
"""

from __future__ import annotations

from engine.dissect.base import TCP, UDP, Application, Flow, Message, Pattern, Verdict, column, text_of

_BIND, _BOUND, _SEARCH, _FOUND, _DONE, _EXTENDED, _EXTENDED_DONE = 0x60, 0x61, 0x63, 0x64, 0x65, 0x77, 0x78
_STARTTLS = b"1.3.6.1.4.1.1466.20037"


class _Parser:
    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._tls = False

    def feed(self, message: Message) -> Verdict:
        """One message that is whole in its structure decides."""
        found = _operation(message.data, message.whole)
        if found is None:
            return Verdict.MORE if self._flow.app else Verdict.FOREIGN
        tag, body = found
        if self._tls and tag == _EXTENDED_DONE:
            return Verdict.RELEASE if body[:3] == b"\x0a\x01\0" else Verdict.DONE
        starts = tag == _EXTENDED and _STARTTLS in body[:64]
        if not starts and not _fits(tag, body):
            return Verdict.MORE if self._flow.app else Verdict.FOREIGN
        self._flow.app, self._tls = "ldap", starts
        if tag == _BIND and message.from_client:
            self._bind(body, message.ts)
        return Verdict.MORE if starts else Verdict.DONE

    def _bind(self, body: bytes, ts: int) -> None:
        """A name and a password of some length is a simple bind with authentication (4.2, RFC 4513 5.1.3)."""
        _, name, length = _header(body, 3)
        tag, _, secret = _header(body, name + length)
        if tag == 0x80 and secret:
            self._flow.emit(ts=ts, user=text_of(body[name : name + length], 256), password_sent=True)

    def finish(self) -> None:
        """Nothing is kept."""


def _header(data: bytes, at: int) -> tuple[int, int, int]:
    """Tag, start and length of the BER element at `at` (X.690 8.1)."""
    tag, size = data[at], data[at + 1]
    if size < 0x80:
        return tag, at + 2, size
    octets = size & 0x7F
    if not 1 <= octets <= 4:
        raise ValueError("length of LDAP element")
    return tag, at + 2 + octets, int.from_bytes(data[at + 2 : at + 2 + octets], "big")


def _operation(data: bytes, whole: bool) -> tuple[int, bytes] | None:
    """Tag and content of the operation: SEQUENCE { INTEGER id, [APPLICATION n] ... }."""
    tag, at, size = _header(data, 0)
    if tag != 0x30 or size < 5:
        return None
    tag, number, digits = _header(data, at)
    if tag != 0x02 or not 1 <= digits <= 4:
        return None
    tag, body, length = _header(data, number + digits)
    if tag & 0xE0 != 0x60 or body + length > at + size:
        return None
    return tag, data[body : body + length]


def _fits(tag: int, body: bytes) -> bool:
    """A bind names its version and the way to authenticate, a search its scope, an answer its result code."""
    if tag == _BIND:
        if body[:2] != b"\x02\x01" or body[2] not in (2, 3) or body[3] != 0x04:
            return False
        _, name, length = _header(body, 3)
        return body[name + length] in (0x80, 0xA3, 0x8A, 0x89)  # simple, SASL, Microsoft's two
    if tag == _SEARCH:
        _, name, length = _header(body, 0)
        rest = body[name + length :]
        return body[0] == 0x04 and rest[:2] == b"\x0a\x01" and rest[2] <= 3 and rest[3:5] == b"\x0a\x01"
    if tag in (_BOUND, _DONE):
        return body[:2] == b"\x0a\x01" and body[3] == 0x04
    return False


def _patterns(transport: int, ports: tuple[int, ...] = ()) -> tuple[Pattern, ...]:
    """LDAPMessage with lengths of 1 byte, 2 bytes (82) and, as Windows writes them, 4 bytes (84)."""
    return (
        Pattern(transport=transport, value=b"\x30\0\x02\0", mask=b"\xff\x80\xff\xf8", length=(7, 65_535), ports=ports),
        Pattern(
            transport=transport, value=b"\x30\x81\0\x02\0", mask=b"\xff\xff\0\xff\xf8", length=(8, 1 << 20), ports=ports
        ),
        Pattern(
            transport=transport,
            value=b"\x30\x82\0\0\x02\0",
            mask=b"\xff\xff\0\0\xff\xf8",
            length=(9, 1 << 20),
            ports=ports,
        ),
        Pattern(
            transport=transport,
            value=b"\x30\x84\0\0\0\0\x02\0",
            mask=b"\xff\xff\xff\0\0\0\xff\xf8",
            length=(11, 1 << 20),
            ports=ports,
        ),
    )


APPLICATION = Application(
    name="ldap",
    meaning="Lightweight Directory Access Protocol",
    patterns=(*_patterns(TCP), *_patterns(UDP, (389, 3268))),
    parser=_Parser,
    columns=(
        column("user", "text", "", "Name that the client binds as", "RFC 4511 4.2"),
        column("password_sent", "bool", "", "A password was sent in clear; it is not kept", "RFC 4513 5.1.3"),
    ),
)
