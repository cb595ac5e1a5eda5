"""PostgreSQL (manual, "Message Formats"): recognised by a client's first message, of any port."""

from __future__ import annotations

from engine.dissect.base import TCP, Application, Flow, Message, Pattern, Verdict

_TLS = (b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30")  # SSLRequest, GSSENCRequest


class _Parser:
    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def feed(self, message: Message) -> Verdict:
        """A request for encryption, which may be refused; or the start of a session in clear."""
        data = message.data
        size = int.from_bytes(data[:4], "big")
        fits = size == len(data) if message.whole else size >= len(data)
        if fits and size == 8 and data[4:8] in _TLS:
            self._flow.app = "postgres"
            return Verdict.RELEASE
        if fits and data[4:8] == b"\0\x03\0\0" and b"user\0" in data[8:]:
            self._flow.app = "postgres"
            return Verdict.DONE
        return Verdict.MORE if self._flow.app else Verdict.FOREIGN

    def finish(self) -> None:
        """Nothing is kept."""


APPLICATION = Application(
    name="postgres",
    meaning="PostgreSQL database",
    patterns=(
        *(Pattern(transport=TCP, value=b"\0\0\0\x08" + code, length=(8, 8)) for code in _TLS),
        Pattern(transport=TCP, value=b"\0\0\0\0\0\x03\0\0", mask=b"\xff\xff\0\0\xff\xff\xff\xff", length=(16, 4096)),
    ),
    parser=_Parser,
)
