"""MySQL and MariaDB (MySQL Internals, "Protocol::HandshakeV10"): recognised by the server's greeting.

A client that asks for TLS (SSLRequest) ends what can be read.
"""

from __future__ import annotations

import re

from engine.dissect.base import TCP, Application, Flow, Message, Pattern, Verdict

_VERSION = re.compile(rb"[0-9]{1,2}\.[0-9]{1,3}[\x20-\x7e]{0,60}\0")
_SSL = 0x0800


class _Parser:
    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def feed(self, message: Message) -> Verdict:
        """The greeting, then the client's answer to it."""
        data = message.data
        if self._flow.app == "mysql":
            asks = data[3] == 1 and len(data) == 36 and int.from_bytes(data[4:8], "little") & _SSL
            return Verdict.RELEASE if asks else Verdict.DONE
        size = int.from_bytes(data[:3], "little")
        fits = 30 <= size <= 512 and (size + 4 == len(data) or not message.whole)
        if not fits or data[3:5] != b"\0\x0a" or not _VERSION.match(data, 5):
            return Verdict.FOREIGN
        self._flow.app = "mysql"
        return Verdict.MORE

    def finish(self) -> None:
        """Nothing is kept."""


APPLICATION = Application(
    name="mysql",
    meaning="MySQL database",
    patterns=(
        Pattern(transport=TCP, value=b"\0\0\0\0\x0a", mask=b"\0\xfc\xff\xff\xff", length=(34, 516)),
        Pattern(transport=TCP, value=b"\0\0\0\x01", mask=b"\0\xfc\xff\xff", length=(36, 1024), ports=(3306, 3307)),
        Pattern(transport=TCP, value=b"\x20\0\0\x01", length=(36, 36)),
    ),
    parser=_Parser,
)
