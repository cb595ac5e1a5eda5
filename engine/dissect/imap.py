"""IMAP (RFC 9051): recognised by the server's greeting; a login ends it, STARTTLS releases the flow (6.2.1).

A row is a password in clear, which is not kept.
"""

from __future__ import annotations

import re

from engine.dissect._recognition import on_port
from engine.dissect.base import TCP, Application, Flow, Message, Pattern, Verdict, column, text_of

_GREETING = re.compile(rb"(?i)\* (?:OK|PREAUTH|BYE)[ \r\n]")
_COMMAND = re.compile(
    rb"(?i)([^\x00-\x20(){%*\"\\\x7f-\xff]{1,32}) "
    rb"(CAPABILITY|NOOP|LOGOUT|STARTTLS|AUTHENTICATE|LOGIN|ID|ENABLE|SELECT)(?=[ \r\n])"
)
_USER = re.compile(rb"\"?((?:\\.|[^\"\s])*)")  # an atom, or what is quoted up to its first blank


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
            argument = data[command.end() :].strip() if command else b""
            plain = verb == b"AUTHENTICATE" and argument[:5].upper() in (b"PLAIN", b"LOGIN")
            if message.from_client and (plain or (verb == b"LOGIN" and argument)):
                name = None if plain or argument[:1] == b"{" else _USER.match(argument)  # a literal comes later
                user = text_of(name[1], 256) if name else None
                self._flow.emit(ts=message.ts, user=user or None, password_sent=True)
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
    columns=(
        column("user", "text", "", "User name of LOGIN; NULL for AUTHENTICATE", "RFC 9051 6.2.3"),
        column("password_sent", "bool", "", "A password was sent in clear; it is not kept", "RFC 9051 6.2"),
    ),
)
