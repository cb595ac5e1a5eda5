"""MQTT 3.1, 3.1.1 and 5 (OASIS MQTT 3.1.1, 3.1): recognised by its CONNECT, which names the protocol and level."""

from __future__ import annotations

from engine.dissect._recognition import recogniser
from engine.dissect.base import TCP, Application, Flow, Message, Pattern

_NAMES = {b"\0\x04MQTT": (4, 5), b"\0\x06MQIsdp": (3,)}


def _check(flow: Flow, message: Message) -> bool:
    data = message.data
    at = 2
    while data[at - 1] & 0x80 and at < 5:  # remaining length, 1 to 4 bytes (2.2.3)
        at += 1
    for name, levels in _NAMES.items():
        if data[at : at + len(name)] == name:
            return data[at + len(name)] & 0x7F in levels  # the high bit is a bridge's
    return False


APPLICATION = Application(
    name="mqtt",
    meaning="Message Queuing Telemetry Transport",
    patterns=(
        Pattern(transport=TCP, value=b"\x10\0\0\x04MQTT", mask=b"\xff\x80\xff\xff\xff\xff\xff\xff"),
        Pattern(transport=TCP, value=b"\x10\x80\0\0\x04MQT", mask=b"\xff\x80\x80\xff\xff\xff\xff\xff"),
        Pattern(transport=TCP, value=b"\x10\0\0\x06MQIs", mask=b"\xff\x80\xff\xff\xff\xff\xff\xff"),
        Pattern(transport=TCP, value=b"\x10\x80\0\0\x06MQI", mask=b"\xff\x80\x80\xff\xff\xff\xff\xff"),
    ),
    parser=recogniser("mqtt", _check),
)
