"""Drives one parser by hand: bytes in, rows out, with the exceptions that base.py allows and no others."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from engine.dissect.base import TCP, UDP, Application, Flow, Message, Pattern, Verdict
from tests.dissecting import matches

ALLOWED = (ValueError, IndexError, struct.error)
C, S = True, False  # who speaks


class Talk:
    """A flow of one application, fed by hand; sequence numbers count up unless given."""

    def __init__(self, application: Application, dst_port: int = 80, proto: int = TCP) -> None:
        self.flow = Flow(proto, "192.0.2.1", "192.0.2.2", 40000, dst_port)
        self.application, self.parser = application, application.parser(self.flow)
        self.seq = {C: 1000, S: 0xFFFF_FF00}  # the server's wraps soon
        self.ts = 0
        self.verdict = Verdict.MORE

    def say(self, side: bool, data: bytes, seq: int | None = None, whole: bool = True, gap_us: int = 10) -> Verdict:
        """One message; an allowed exception is a verdict too."""
        self.ts += gap_us
        at = self.seq[side] if seq is None else seq
        if seq is None:
            self.seq[side] = (at + len(data)) & 0xFFFF_FFFF
        try:
            self.verdict = self.parser.feed(Message(data, self.ts, side, 0 if self.flow.proto == UDP else at, whole))
        except ALLOWED:
            self.verdict = Verdict.MORE if self.flow.app else Verdict.FOREIGN
        if self.verdict is Verdict.FOREIGN:
            assert not self.flow.app, "FOREIGN after the flow was named"
        assert self.flow.app in ("", *self.application.names)
        return self.verdict

    def rows(self) -> list[dict[str, Any]]:
        """End the flow; its rows, whose columns must be the application's and whose values bounded."""
        self.parser.finish()
        names = {c.name: c.type for c in self.application.columns} | {"ts": "timestamp"}
        for row in self.flow.rows:
            assert row.keys() <= names.keys()
            assert isinstance(row["ts"], int)
            for name, value in row.items():
                _check(names[name], value)
        return self.flow.rows


def _check(kind: str, value: Any) -> None:
    if value is None:
        return
    if kind == "text":
        assert isinstance(value, str)
        assert len(value) <= 4 * 2048
        assert value.isprintable()
    elif kind == "texts":
        assert isinstance(value, list)
        assert len(value) <= 128
        for one in value:
            _check("text", one)
    elif kind == "bool":
        assert isinstance(value, bool)
    else:
        assert isinstance(value, int)
        assert abs(value) < 1 << (15 if kind == "int16" else 31 if kind == "int32" else 63)


def talk(application: Application, *messages: tuple[bool, bytes], port: int = 80, proto: int = TCP) -> Talk:
    """A conversation that is over when the parser says so; the flow is not ended."""
    conversation = Talk(application, port, proto)
    for side, data in messages:
        if conversation.say(side, data) in (Verdict.RELEASE, Verdict.DONE, Verdict.FOREIGN):
            break
    return conversation


def begins(application: Application, data: bytes, port: int = 40001, proto: int = TCP) -> bool:
    """True when a pattern hands the payload over."""
    return any(matches(p, proto, (40000, port), data, len(data)) for p in application.patterns)


def check_patterns(patterns: Iterable[Pattern]) -> None:
    """What the kernel can compare."""
    for p in patterns:
        assert p.transport in (TCP, UDP)
        assert len(p.value) <= 8
        assert len(p.mask) in (0, len(p.value))
        assert all(v & m == v for v, m in zip(p.value, p.mask, strict=False)), p
        assert 0 <= p.length[0] <= p.length[1]


def survives_truncation(
    application: Application, messages: list[tuple[bool, bytes]], port: int, proto: int = TCP
) -> None:
    """Each message of a conversation cut at every length, whole or cut by the capture; the rest as it was."""
    for i, (side, data) in enumerate(messages):
        for n in range(1, len(data)):
            for whole in (True, False):
                one = talk(application, *messages[:i], port=port, proto=proto)
                if one.verdict is Verdict.MORE and one.say(side, data[:n], whole=whole) is Verdict.MORE:
                    for later in messages[i + 1 :]:
                        if one.say(*later) is not Verdict.MORE:
                            break
                one.rows()
