"""Redis (its documentation, "RESP protocol spec"): recognised by a command, which is an array of strings."""

from __future__ import annotations

import re

from engine.dissect._recognition import recogniser
from engine.dissect.base import TCP, Application, Flow, Message, Pattern

_COMMAND = re.compile(rb"\*[1-9]\d{0,5}\r\n\$(\d{1,2})\r\n([A-Za-z][A-Za-z.|-]{1,40})\r\n")


def _check(flow: Flow, message: Message) -> bool:
    found = _COMMAND.match(message.data)
    return found is not None and int(found[1]) == len(found[2])


APPLICATION = Application(
    name="redis",
    meaning="Redis key-value store",
    patterns=(
        Pattern(transport=TCP, value=b"*0\r\n$", mask=b"\xff\xf0\xff\xff\xff"),
        Pattern(transport=TCP, value=b"*00\r\n$", mask=b"\xff\xf0\xf0\xff\xff\xff"),
    ),
    parser=recogniser("redis", _check),
)
