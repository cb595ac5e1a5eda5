"""IMAP (RFC 9051): recognised by the server's greeting; a login ends it, STARTTLS releases the flow (6.2.1)."""

from __future__ import annotations

import re

from engine.dissect._recognition import on_port
from engine.dissect.base import TCP, Application, Flow, Message, Pattern, Verdict

_GREETING = re.compile(rb"(?i)\* (?:OK|PREAUTH|BYE)[ \r\n]")
_COMMAND = re.compile(
    rb"(?i)([^\x00-\x20(){%*\"\\\x7f-\xff]{1,32}) "
    rb"(CAPABILITY|NOOP|LOGOUT|STARTTLS|AUTHENTICATE|LOGIN|ID|ENABLE|SELECT)(?=[ \r\n])"
)


class _Parser:
    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._tag = b""  # of the client's STARTTLS

    def feed(self, message: Message) -> Verdict:
        """A greeting that says so or comes from IMAP's port, or a command there; then what becomes of STARTTLS."""
        data = message.data[:1024]
        known = on_port(self._flow, 143)
        command = _COMMAND.match(data)
        if not self._flow.app:
            if not (_GREETING.match(data) and (known or b"IMAP" in data.upper())) and not (known and command):
                return Verdict.FOREIGN
            self._flow.app = "imap"
        verb = command[2].upper() if command else b""
        if verb in (b"LOGIN", b"AUTHENTICATE", b"SELECT"):
            return Verdict.DONE
        if command and verb == b"STARTTLS":
            self._tag = command[1]
        elif self._tag and data.startswith(self._tag + b" "):
            return Verdict.RELEASE if data[len(self._tag) + 1 :][:2].upper() == b"OK" else Verdict.MORE
        return Verdict.MORE

    def finish(self) -> None:
        """Nothing is kept."""


APPLICATION = Application(
    name="imap",
    meaning="Internet Message Access Protocol",
    patterns=(
        Pattern(transport=TCP, value=b"* OK ", follow=4),
        Pattern(transport=TCP, value=b"* PREAUT"),
        # Tags are the client's choice: short messages on the port are handed over until it logs in.
        Pattern(transport=TCP, ports=(143,), length=(6, 512)),
    ),
    parser=_Parser,
)
