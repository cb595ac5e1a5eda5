"""FTP's control connection (RFC 959): who logged in, which files moved, and whether TLS hid the rest.

A row is a command that concerns a login or files, with its final reply. Passwords are not kept.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from engine.dissect._lines import Lines, is_reply, reply_of
from engine.dissect.base import TCP, Application, Flow, Message, Pattern, Verdict, column, text_of

_PORTS: Final = (21, 2121, 8021)
_OTHERS: Final = (25, 110, 587, 2525, 6667)  # USER and PASS mean something else there, as does a greeting with 220
_PENDING: Final = 64  # commands without reply
_KEPT: Final = frozenset((
    b"PASS", b"AUTH", b"RETR", b"STOR", b"STOU", b"APPE", b"DELE", b"RNFR", b"RNTO", b"MKD", b"XMKD", b"RMD", b"XRMD",
    b"LIST", b"NLST", b"MLSD", b"CWD", b"SITE", b"PORT", b"EPRT",
))  # fmt: skip
_LOGIN_REPLIES: Final = (b"331", b"332", b"230", b"232", b"530")


class _Command:
    """A command that waits for its reply."""

    __slots__ = ("row", "ts", "verb")

    def __init__(self, verb: bytes, argument: bytes, ts: int) -> None:
        self.verb, self.ts = verb, ts
        secret = verb in (b"PASS", b"USER", b"ACCT")
        self.row: dict[str, Any] = {
            "ts": ts,
            "command": text_of(verb, 16),
            "argument": None if secret or not argument else text_of(argument, 1024),
        }


class _Parser:
    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._sides = (Lines(), Lines())
        self._server: bool | None = None  # `from_client` of the server's messages, from what they say
        self._session: dict[str, Any] = {"banner": None, "user": None, "password_sent": False}
        self._pending: deque[_Command] = deque()
        self._ts = 0
        self._told = False  # there was a row
        self._long = 0  # code of a reply of several lines

    def feed(self, message: Message) -> Verdict:
        """Take a segment in and read its lines."""
        if not self._flow.app:
            verdict = self._recognise(message)
            if verdict is Verdict.FOREIGN:
                return verdict
        server = message.from_client == self._server
        self._ts = self._ts or message.ts
        side = self._sides[message.from_client]
        side.add(message.seq, message.data, message.ts)
        while True:
            ready = side.ready(anything=side.stuck)
            closing = not ready and bool(side.buffer) and (side.stuck or not message.whole)
            while (line := side.next_line(closing)) is not None:
                if not server:
                    self._command(line, message.ts)
                elif self._reply(line, message.ts):
                    return Verdict.RELEASE
            if not ready and not closing:
                return Verdict.MORE

    def finish(self) -> None:
        """Emit the commands that got no reply, or the connection if it had none."""
        if not self._flow.app:
            return
        while self._pending:
            self._emit(self._pending.popleft())
        if not self._told:
            self._flow.emit(ts=self._ts, **self._session)

    def _recognise(self, message: Message) -> Verdict:
        """A greeting or a command is enough where FTP is usual or named; USER elsewhere needs the server's answer."""
        data = message.data
        if is_reply(data):
            line = data[:512].partition(b"\n")[0].upper()
            sure = data[:3] == b"220" and b"SMTP" not in line and (b"FTP" in line or _on(self._flow, _PORTS))
            sure = sure or (self._server == message.from_client and data[:3] in _LOGIN_REPLIES)
            server = message.from_client
        elif self._server is None:
            verb = data[:9].partition(b" ")[0].strip().upper()
            named = data[:8].upper() in (b"AUTH TLS", b"AUTH SSL")
            sure = named or (verb in (b"USER", b"FEAT", b"SYST", b"PASV", b"EPSV") and _on(self._flow, _PORTS))
            server = not message.from_client
            if not sure and (verb != b"USER" or _on(self._flow, _OTHERS) or data.count(b" ") != 1):
                return Verdict.FOREIGN
        else:
            sure, server = False, not message.from_client
        if self._server is not None and server != self._server:
            return Verdict.FOREIGN
        if not sure and is_reply(data):
            return Verdict.FOREIGN
        if not sure and message.from_client == server:
            return Verdict.FOREIGN
        self._server = server
        if sure:
            self._flow.app = "ftp"
        return Verdict.MORE

    def _command(self, line: bytes, ts: int) -> None:
        """A line of the client (RFC 959 4.1); telnet's interrupts may be before it."""
        verb, _, argument = line.lstrip(b"\xff\xf4\xf2\xfb\xfc\xfd\xfe").partition(b" ")
        verb, argument = verb.upper(), argument.strip()
        if not verb.isalpha() or len(verb) > 8:
            return
        if verb == b"USER":
            self._session["user"] = text_of(argument, 256)
            self._session["password_sent"] = False
        elif verb == b"PASS":
            self._session["password_sent"] = True
        if len(self._pending) >= _PENDING:
            self._emit(self._pending.popleft())
        self._pending.append(_Command(verb, argument, ts))

    def _reply(self, line: bytes, ts: int) -> bool:
        """A line of the server (RFC 959 4.2); True when it starts TLS (RFC 4217 4)."""
        reply = reply_of(line)
        if reply is None or (self._long and reply[0] != self._long):
            return False
        code, last, text = reply
        if code == 220 and self._session["banner"] is None and not self._pending:
            self._session["banner"] = text_of(text)
        self._long = 0 if last else code
        if not last or code < 200 or not self._pending:
            return False
        command = self._pending.popleft()
        command.row["reply_code"] = code
        command.row["latency_us"] = max(ts - command.ts, 0)
        self._emit(command)
        return command.verb == b"AUTH" and code == 234

    def _emit(self, command: _Command) -> None:
        """A row, if analysts want the command; a refused one before the login too."""
        if command.verb in _KEPT:
            self._told = True
            self._flow.emit(**command.row, **self._session)


def _on(flow: Flow, ports: tuple[int, ...]) -> bool:
    return flow.dst_port in ports or flow.src_port in ports


def _command(name: bytes) -> Pattern:
    """A command at the start of a payload, in either case."""
    mask = bytes(0xDF if c.isalpha() else 0xFF for c in name.decode())
    return Pattern(transport=TCP, value=name, mask=mask)


APPLICATION = Application(
    name="ftp",
    meaning="File Transfer Protocol, control connection",
    patterns=(
        Pattern(transport=TCP, value=b"220 ", follow=1),
        Pattern(transport=TCP, value=b"220-", follow=3),
        # Where FTP is usual: replies, and commands of three letters or more.
        Pattern(transport=TCP, value=b"000 ", mask=b"\xf8\xf0\xf0\xf2", ports=_PORTS, follow=1),
        Pattern(transport=TCP, value=b"@@@", mask=b"\xc0\xc0\xc0", ports=_PORTS, follow=1),
        *(Pattern(transport=TCP, value=code + b" ") for code in _LOGIN_REPLIES),
        *(
            Pattern(transport=TCP, value=code)
            for code in (b"150 ", b"226 ", b"227 ", b"229 ", b"234 ", b"250 ", b"550 ")
        ),
        *(_command(name) for name in (b"USER ", b"PASS ", b"AUTH TLS", b"AUTH SSL", b"RETR ", b"STOR ", b"APPE ")),
        *(_command(name) for name in (b"STOU", b"DELE ", b"RNFR ", b"RNTO ", b"MKD ", b"RMD ", b"LIST", b"NLST")),
        *(_command(name) for name in (b"CWD ", b"SITE ", b"PASV\r\n", b"EPSV", b"TYPE ", b"QUIT\r\n")),
    ),
    parser=_Parser,
    columns=(
        column("banner", "text", "", "The server's greeting, first line", "RFC 959 5.4"),
        column("user", "text", "", "User name", "RFC 959 4.1.1"),
        column("password_sent", "bool", "", "A password was sent in clear; it is not kept", "RFC 959 4.1.1"),
        column(
            "command", "text", "", "Login (PASS, AUTH) or file command; NULL: the connection had none", "RFC 959 4.1"
        ),
        column("argument", "text", "", "File name or other argument as sent; never a password", "RFC 959 4.1"),
        column("reply_code", "int16", "", "Code of the final reply; NULL without one", "RFC 959 4.2"),
        column("latency_us", "int64", "us", "From the command to the final reply (226: the file has moved)", "engine"),
    ),
)
