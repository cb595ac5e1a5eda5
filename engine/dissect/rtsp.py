"""RTSP (RFC 2326 6.1, RFC 7826): recognised by the version in its first line."""

from __future__ import annotations

import re

from engine.dissect._recognition import recogniser
from engine.dissect.base import TCP, Application, Flow, Message, Pattern

_START = re.compile(
    rb"RTSP/[12]\.0 \d{3} |[A-Z_]{3,16} (?:rtsps?://[^ \r\n]{1,2048}|\*|/[^ \r\n]{0,2048}) RTSP/[12]\.0\r?\n"
)
_METHODS = (b"DESCRIBE", b"SETUP ", b"PLAY ", b"PAUSE ", b"ANNOUNCE", b"TEARDOWN", b"OPTIONS ", b"GET_PARA", b"RTSP/")


def _check(flow: Flow, message: Message) -> bool:
    return _START.match(message.data) is not None


APPLICATION = Application(
    name="rtsp",
    meaning="Real Time Streaming Protocol",
    patterns=tuple(Pattern(transport=TCP, value=value) for value in _METHODS),
    parser=recogniser("rtsp", _check),
)
