"""STUN and TURN (RFC 8489 5): recognised by its cookie and length. Media may follow in the flow, so it is released."""

from __future__ import annotations

from engine.dissect.base import TCP, UDP, Application, Flow, Message, Pattern, Verdict

_COOKIE = b"\x21\x12\xa4\x42"


class _Parser:
    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def feed(self, message: Message) -> Verdict:
        """One message decides; what else was recognised in the flow stays its name."""
        data = message.data
        length = int.from_bytes(data[2:4], "big")
        fits = length + 20 == len(data) if message.whole and self._flow.proto == UDP else length + 20 >= len(data) // 8
        if self._flow.app not in ("", "stun"):
            return Verdict.RELEASE
        if data[0] & 0xC0 or length % 4 or data[4:8] != _COOKIE or len(data) < 20 or not fits:
            return Verdict.FOREIGN if not self._flow.app else Verdict.RELEASE
        self._flow.app = "stun"
        return Verdict.RELEASE

    def finish(self) -> None:
        """Nothing is kept."""


APPLICATION = Application(
    name="stun",
    meaning="Session Traversal Utilities for NAT, and TURN",
    patterns=tuple(
        Pattern(
            transport=transport,
            value=b"\0\0\0\0" + _COOKIE,
            mask=b"\xc0\0\0\x03\xff\xff\xff\xff",
            length=(20, 65_535),
        )
        for transport in (UDP, TCP)
    ),
    parser=_Parser,
)
