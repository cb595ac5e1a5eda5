"""Kerberos 5 (RFC 4120 5.4, 5.9, 7.2): recognised by the tag of a message, its version and its type, which agree."""

from __future__ import annotations

from engine.dissect._recognition import recogniser
from engine.dissect.base import TCP, UDP, Application, Flow, Message, Pattern

_TYPES = {0x6A: 10, 0x6B: 11, 0x6C: 12, 0x6D: 13, 0x7E: 30}  # AS-REQ, AS-REP, TGS-REQ, TGS-REP, KRB-ERROR


def _skip(data: bytes, at: int) -> int:
    """Where the content of the BER element at `at` begins."""
    size = data[at + 1]
    return at + 2 + (size & 0x7F if size & 0x80 else 0)


def _check(flow: Flow, message: Message) -> bool:
    data = message.data[4:] if flow.proto == TCP else message.data  # a length is before it (7.2.2)
    kind = _TYPES.get(data[0])
    at = _skip(data, 0)
    if kind is None or data[at] != 0x30:
        return False
    at = _skip(data, at)
    first = 0xA1 if data[0] in (0x6A, 0x6C) else 0xA0  # a request's fields are numbered from 1
    return data[at : at + 10] == bytes((first, 3, 2, 1, 5, first + 1, 3, 2, 1, kind))


APPLICATION = Application(
    name="kerberos",
    meaning="Kerberos authentication",
    patterns=(
        *(Pattern(transport=UDP, value=bytes((tag,)), ports=(88,), length=(20, 65_535)) for tag in _TYPES),
        *(
            Pattern(transport=TCP, value=bytes((0, 0, 0, 0, tag)), mask=b"\xff\xfe\0\0\xff", ports=(88,))
            for tag in _TYPES
        ),
    ),
    parser=recogniser("kerberos", _check),
)
