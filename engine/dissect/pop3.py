"""POP3 (RFC 1939): recognised by the server's greeting or a command of its own; STLS releases the flow (RFC 2595 4).

A row is a password in clear, which is not kept.
"""

from __future__ import annotations

import re

from engine.dissect._recognition import on_port
from engine.dissect.base import TCP, Application, Flow, Message, Pattern, Verdict, column, text_of

_PORT = 110
_GREETING = re.compile(rb"\+OK[^\n]*?(?:POP-?3|<[^<>@\s]{1,128}@[^<>@\s]{1,128}>)", re.IGNORECASE)  # or APOP's time
_OWN = re.compile(rb"(?i)(?:CAPA\r?\n|STLS\r?\n|APOP \S+ [0-9a-f]{32}\r?\n)")
_COMMAND = re.compile(rb"(?i)(USER|PASS|APOP|AUTH|STAT|CAPA|STLS|LIST|UIDL|RETR)(?=[ \r\n])")
_PLAIN = (b"PLAIN", b"LOGIN")  # of SASL's mechanisms: the password as it is (RFC 5034)


class _Parser:
    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._asked = False  # the client's last command was STLS
        self._user: str | None = None

    def feed(self, message: Message) -> Verdict:
        """What says POP3, or is on its port; then what becomes of STLS. A login ends the reading."""
        data = message.data[:512]
        if not self._flow.app:
            known = on_port(self._flow, _PORT) and (data[:3] == b"+OK" or _COMMAND.match(data))
            if not known and not _GREETING.match(data) and not _OWN.match(data):
                return Verdict.FOREIGN
            self._flow.app = "pop3"
        command = _COMMAND.match(data)
        if command:
            verb = command[1].upper()
            self._asked = verb == b"STLS"
            argument = data.partition(b"\n")[0][4:].strip()
            if verb == b"USER":
                self._user = text_of(argument, 256)
            elif message.from_client and (verb == b"PASS" or (verb == b"AUTH" and argument.upper() in _PLAIN)):
                self._flow.emit(ts=message.ts, user=self._user, password_sent=True)
            return Verdict.DONE if verb in (b"PASS", b"APOP", b"STAT", b"RETR") else Verdict.MORE
        if self._asked and data[:3] == b"+OK":
            return Verdict.RELEASE
        return Verdict.MORE

    def finish(self) -> None:
        """Nothing is kept."""


APPLICATION = Application(
    name="pop3",
    meaning="Post Office Protocol, version 3",
    patterns=(
        Pattern(transport=TCP, value=b"+OK", mask=b"\xff\xdf\xdf"),
        *(
            Pattern(transport=TCP, value=value, mask=b"\xdf\xdf\xdf\xdf" + b"\xff" * (len(value) - 4), ports=ports)
            for value, ports in (
                (b"CAPA", ()), (b"STLS", ()), (b"APOP ", ()), (b"USER ", (_PORT,)), (b"PASS ", (_PORT,)),
                (b"AUTH", (_PORT,)), (b"STAT", (_PORT,)), (b"LIST", (_PORT,)), (b"UIDL", (_PORT,)),
            )
        ),
    ),
    parser=_Parser,
    columns=(
        column("user", "text", "", "User name; NULL when it was not captured", "RFC 1939 7"),
        column("password_sent", "bool", "", "A password was sent in clear; it is not kept", "RFC 1939 7"),
    ),
)  # fmt: skip
