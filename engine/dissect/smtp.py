"""SMTP (RFC 5321): who sent mail for whom to whom, what the server said to it, and whether TLS hid the rest.

A row is a mail, or a connection without one. Bodies and secrets are not kept.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Any, Final

from engine.dissect._lines import Lines, is_reply, reply_of
from engine.dissect.base import TCP, Application, Flow, Message, Pattern, Verdict, column, text_of

_PORTS: Final = (25, 24, 26, 587, 2525)
_PENDING: Final = 64  # commands without reply
_RECIPIENTS: Final = 100
_HEAD_LINES: Final = 500
_FIELD: Final = 998  # RFC 5322 2.1.1
_HELLO: Final = re.compile(rb"(?i)(?:EHLO|HELO|LHLO)(?:[ \t]|\Z)")
_PATH: Final = re.compile(rb"(?i)(?:FROM|TO):\s*(?:<([^>]*)>?|(\S+))")
_ENHANCED: Final = re.compile(rb"([245]\.\d{1,3}\.\d{1,3})(?:\s|\Z)")
_MECHANISM: Final = re.compile(rb"[A-Za-z0-9_-]{1,20}")
_CHARSET: Final = re.compile(  # the decoders that a mail may choose
    r"(?i)(?:utf-?8|us-ascii|iso-8859-\d{1,2}|windows-\d{3,4}|cp\d{3,4}|koi8-[ru]|gb2312|gbk|gb18030|big5|shift_jis"
    r"|iso-2022-jp|iso-2022-kr|euc-jp|euc-kr|ks_c_5601-1987|)\Z"
)
_FIELDS: Final = {b"subject": "subject", b"from": "header_from", b"to": "header_to", b"message-id": "message_id"}
_COMMANDS: Final = frozenset((
    b"EHLO", b"HELO", b"LHLO", b"MAIL", b"RCPT", b"DATA", b"BDAT", b"RSET", b"VRFY", b"EXPN", b"HELP", b"NOOP",
    b"QUIT", b"AUTH", b"STARTTLS", b"ETRN", b"TURN", b"XCLIENT", b"XFORWARD", b"BURL",
))  # fmt: skip


class _Parser:
    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._sides = (Lines(), Lines())
        self._server: bool | None = None  # `from_client` of the server's messages, from what they say
        self._session: dict[str, Any] = {"starttls": False}
        self._mail: dict[str, Any] = {}
        self._pending: deque[bytes] = deque()
        self._content = ""  # "head" or "body" while the client sends a mail
        self._field = b""  # field of the head that the next line may continue
        self._lines = 0
        self._secret = False  # the client's lines are an authentication exchange
        self._ts = 0
        self._open = False  # something is not in a row yet
        self._told = False  # there was a row

    def feed(self, message: Message) -> Verdict:
        """Take a segment in and read its lines."""
        if not self._flow.app:
            if not _is_smtp(message.data, self._flow):
                return Verdict.FOREIGN
            self._flow.app = "smtp"
            self._server = message.from_client if is_reply(message.data) else not message.from_client
        side = self._sides[message.from_client]
        server = message.from_client == self._server
        self._ts = self._ts or message.ts
        side.add(message.seq, message.data, message.ts)
        while True:
            ready = side.ready(anything=side.stuck)
            closing = not ready and bool(side.buffer) and (side.stuck or not message.whole)
            while (line := side.next_line(closing)) is not None:
                if server:
                    if self._reply(line):
                        self._emit()
                        return Verdict.RELEASE
                else:
                    self._client(line, message.ts)
            if not ready and not closing:
                return Verdict.MORE

    def finish(self) -> None:
        """Emit the mail or connection that is open."""
        self._emit()

    def _client(self, line: bytes, ts: int) -> None:
        """A line of the client: a command (RFC 5321 4.1.1), or part of a mail."""
        if self._content:
            if line[:11].upper() != b"MAIL FROM:<":
                self._mail_line(line)
                return
            self._content = ""  # the reply to the last mail was not seen
        if self._secret:
            self._secret = line[:10].upper() != b"MAIL FROM:"
            if self._secret:
                return
        verb, _, rest = line.partition(b" ")
        verb = verb.upper().strip()
        if verb not in _COMMANDS:
            return
        self._open = True
        if len(self._pending) < _PENDING:
            self._pending.append(verb)
        if verb in (b"EHLO", b"HELO", b"LHLO"):
            self._session["helo"] = text_of(rest.strip(), 256)
        elif verb == b"MAIL":
            if "mail_from" in self._mail:
                self._emit()
            self._ts, self._open = ts, True
            self._mail["mail_from"] = _path(rest)
        elif verb == b"RCPT":
            recipients = self._mail.setdefault("rcpt_to", [])
            if len(recipients) < _RECIPIENTS:
                recipients.append(_path(rest))
        elif verb == b"AUTH":
            found = _MECHANISM.match(rest)
            self._session["auth"] = found[0].decode().upper() if found else None
            self._secret = True
        elif verb in (b"DATA", b"BDAT"):
            self._data(verb, rest)
        elif verb == b"RSET" and "mail_from" in self._mail:
            self._emit()

    def _data(self, verb: bytes, rest: bytes) -> None:
        """A mail, or a chunk of it (RFC 3030), comes."""
        self._content = "body" if "head" in self._mail else "head"
        self._mail["head"] = True
        self._lines, self._field = 0, b""
        if verb == b"BDAT" and self._pending:
            self._pending[-1] = b"LAST" if rest.upper().rstrip().endswith(b"LAST") else b"BDAT"

    def _mail_line(self, line: bytes) -> None:
        """A line of the mail; its head is kept in part (RFC 5322 3.6)."""
        if line == b".":
            self._content = ""
        if self._content != "head":
            return
        self._lines += 1
        if not line or self._lines > _HEAD_LINES:
            self._content = "body"
        elif line[:1] in (b" ", b"\t"):
            value = self._mail.get(self._field.decode())
            if isinstance(value, bytes) and len(value) < _FIELD:
                self._mail[self._field.decode()] = value + b" " + line.strip()
        else:
            name, _, value = line.partition(b":")
            key = _FIELDS.get(name.strip().lower(), "")
            self._field = b"" if key in self._mail else key.encode()
            if self._field:
                self._mail[key] = value.strip()

    def _reply(self, line: bytes) -> bool:
        """A line of the server; True when it starts TLS (RFC 3207 4)."""
        reply = reply_of(line)
        if reply is None:
            return False
        code, last, text = reply
        if code == 220 and "banner" not in self._session and not self._pending:
            self._session["banner"] = text_of(text)
        self._open = True
        if not last:
            return False
        enhanced = _ENHANCED.match(text)
        self._mail["reply_code"], self._mail["enhanced_code"] = code, enhanced[1].decode() if enhanced else None
        if code == 354:
            while self._pending and self._pending.popleft() != b"DATA":
                pass
            self._pending.appendleft(b"LAST")
            return False
        command = self._pending.popleft() if self._pending else b""
        if command in (b"LAST", b"DATA", b"BDAT"):
            self._content = ""
            self._sides[not self._server].discard()  # a line of the mail without its end
        if command == b"LAST":
            self._emit()
        elif command in (b"DATA", b"BDAT"):  # refused, or one chunk of several
            if command == b"DATA":
                self._mail.pop("head", None)
        elif command == b"AUTH":
            if code == 334:
                self._pending.appendleft(b"AUTH")
            else:
                self._secret = False
                self._session["auth_ok"] = code == 235
        elif command == b"STARTTLS" and code == 220:
            self._session["starttls"] = True
            return True
        return False

    def _emit(self) -> None:
        """A row of what is open; what follows the last mail (QUIT) is none."""
        told = self._told and "mail_from" not in self._mail and not self._session["starttls"]
        if not self._open or told:
            return
        mail, self._mail, self._open, self._told = self._mail, {}, False, True
        mail.pop("head", None)
        for name in _FIELDS.values():
            if isinstance(value := mail.get(name), bytes):
                mail[name] = _decoded(value)
        self._flow.emit(ts=self._ts, **self._session, **mail)


def _is_smtp(data: bytes, flow: Flow) -> bool:
    """A greeting that says so or comes from a port of SMTP, or a client's greeting."""
    if is_reply(data):
        line = data[:512].partition(b"\n")[0].upper()
        known = flow.dst_port in _PORTS or flow.src_port in _PORTS
        return line[:3] == b"220" and (b"SMTP" in line or (known and b"FTP" not in line))
    return _HELLO.match(data) is not None or data[:10].upper() == b"MAIL FROM:"


def _path(rest: bytes) -> str:
    """The mailbox of MAIL FROM:<a> or RCPT TO:<a> (RFC 5321 4.1.2)."""
    found = _PATH.match(rest)
    return text_of((found[1] if found[1] is not None else found[2]) if found else rest, 320)


def _decoded(value: bytes) -> str:
    """A field's text, encoded words decoded (RFC 2047)."""
    text = text_of(value, _FIELD)
    if "=?" not in text:
        return text
    from email.errors import HeaderParseError
    from email.header import decode_header

    try:
        parts = decode_header(text)
        if not all(_CHARSET.match(charset or "") for _, charset in parts):
            return text
        whole = "".join(p if isinstance(p, str) else p.decode(c or "ascii", "replace") for p, c in parts)
    except (HeaderParseError, LookupError, ValueError):
        return text
    return text_of(whole.encode("utf-8", "replace"), _FIELD)


def _command(name: bytes, follow: int = 1) -> Pattern:
    """A command at the start of a payload, in either case."""
    value = name[:8]
    mask = bytes(0xDF if c.isalpha() else 0xFF for c in value.decode())
    return Pattern(transport=TCP, value=value, mask=mask, follow=follow)


APPLICATION = Application(
    name="smtp",
    meaning="Simple Mail Transfer Protocol",
    patterns=(
        Pattern(transport=TCP, value=b"220 ", follow=1),
        Pattern(transport=TCP, value=b"220-", follow=3),
        # Replies: three digits and a space or hyphen.
        Pattern(transport=TCP, value=b"000 ", mask=b"\xf8\xf0\xf0\xf2", ports=_PORTS),
        Pattern(transport=TCP, value=b"250 "),
        Pattern(transport=TCP, value=b"250-"),
        Pattern(transport=TCP, value=b"354 "),
        Pattern(transport=TCP, value=b"235 "),
        Pattern(transport=TCP, value=b"334 "),
        Pattern(transport=TCP, value=b"535 "),
        Pattern(transport=TCP, value=b"550 "),
        Pattern(transport=TCP, value=b"550-"),
        Pattern(transport=TCP, value=b"554 "),
        *(_command(name) for name in (b"EHLO ", b"HELO ", b"LHLO ", b"STARTTLS", b"AUTH ", b"RSET\r\n", b"QUIT\r\n")),
        *(_command(name, 4) for name in (b"MAIL FROM", b"RCPT TO:", b"DATA\r\n", b"BDAT ")),
    ),
    parser=_Parser,
    columns=(
        column("banner", "text", "", "The server's greeting, first line", "RFC 5321 4.2"),
        column("helo", "text", "", "How the client named itself", "RFC 5321 4.1.1.1"),
        column("mail_from", "text", "", "Envelope sender; empty for a bounce", "RFC 5321 4.1.1.2"),
        column("rcpt_to", "texts", "", "Envelope recipients, at most 100", "RFC 5321 4.1.1.3"),
        column("starttls", "bool", "", "The connection went on in TLS", "RFC 3207"),
        column("auth", "text", "", "Authentication mechanism that the client asked for", "RFC 4954"),
        column("auth_ok", "bool", "", "The server accepted the authentication; NULL without answer", "RFC 4954 4"),
        column("subject", "text", "", "Subject of the mail, decoded", "RFC 5322 3.6.5"),
        column("header_from", "text", "", "From of the mail, decoded", "RFC 5322 3.6.2"),
        column("header_to", "text", "", "To of the mail, decoded", "RFC 5322 3.6.3"),
        column("message_id", "text", "", "Message-ID of the mail", "RFC 5322 3.6.4"),
        column("reply_code", "int16", "", "Code of the last reply", "RFC 5321 4.2"),
        column("enhanced_code", "text", "", "Enhanced status code of the last reply", "RFC 3463"),
    ),
)
