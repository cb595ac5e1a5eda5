"""IKE versions 1 and 2 (RFC 2408 3.1, RFC 7296 3.1): recognised by its header, whose length field must be right."""

from __future__ import annotations

from engine.dissect._recognition import on_port, recogniser
from engine.dissect.base import UDP, Application, Flow, Message, Pattern

# Exchange types: RFC 2408 3.1 with RFC 2409 (1 to 5, 32, 33), RFC 7296 3.1 and later (34 to 44).
_EXCHANGES = {1: (*range(6), 6, 32, 33), 2: tuple(range(34, 45))}


def _check(flow: Flow, message: Message) -> bool:
    data = message.data
    if data[:4] == b"\0\0\0\0" and on_port(flow, 4500):  # the non-ESP marker (RFC 3948 2.2)
        data = data[4:]
    version, exchange = data[17] >> 4, data[18]
    length = int.from_bytes(data[24:28], "big")
    fits = length == len(data) if message.whole else length >= len(data)
    return fits and length >= 28 and any(data[:8]) and data[17] & 15 == 0 and exchange in _EXCHANGES.get(version, ())


APPLICATION = Application(
    name="ike",
    meaning="Internet Key Exchange (IPsec)",
    patterns=(
        Pattern(transport=UDP, ports=(500,), length=(28, 65_535)),
        Pattern(transport=UDP, ports=(4500,), value=b"\0\0\0\0", length=(32, 65_535)),
    ),
    parser=recogniser("ike", _check),
    encrypted=True,
)
