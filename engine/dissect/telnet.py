"""Telnet (RFC 854, RFC 855): recognised by the negotiation of options that opens it."""

from __future__ import annotations

from engine.dissect._recognition import on_port, recogniser
from engine.dissect.base import TCP, Application, Flow, Message, Pattern

_IAC, _SE, _SB, _WILL, _DONT = 0xFF, 0xF0, 0xFA, 0xFB, 0xFE
_HIGHEST = 49  # of the options in IANA's registry that are used; 255 is the extended list


def _negotiations(data: bytes) -> tuple[int, int]:
    """How many commands with an option the message begins with, and where they end."""
    at = count = 0
    while count < 64 and data[at : at + 1] == b"\xff" and at + 2 < len(data) and data[at + 2] <= _HIGHEST:
        if _WILL <= data[at + 1] <= _DONT:
            at += 3
        elif data[at + 1] == _SB:
            end = data.find(bytes((_IAC, _SE)), at + 3)
            if end < 0:
                break
            at = end + 2
        else:
            break
        count += 1
    return count, at


def _check(flow: Flow, message: Message) -> bool:
    """Elsewhere than on its port: nothing but negotiation, and more than a byte order mark or an audio frame has."""
    count, end = _negotiations(message.data)
    if on_port(flow, 23):
        return count >= 1
    return (count >= 2 or (count == 1 and len(message.data) == 3)) and end == len(message.data) and message.whole


APPLICATION = Application(
    name="telnet",
    meaning="Telnet terminal",
    patterns=(Pattern(transport=TCP, value=b"\xff\xf8\0", mask=b"\xff\xf8\xc0", length=(3, 1 << 30)),),
    parser=recogniser("telnet", _check),
)
