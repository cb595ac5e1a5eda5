"""IPsec ESP (RFC 4303): recognised by its IP protocol number, so that its high entropy is read in context."""

from __future__ import annotations

from engine.dissect.base import Application, Flow, Message, Verdict


class _Parser:
    """Never asked: ESP has no messages that can be read."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def feed(self, message: Message) -> Verdict:
        return Verdict.FOREIGN

    def finish(self) -> None:
        """Nothing is open."""


APPLICATION = Application(
    name="esp",
    meaning="IPsec Encapsulating Security Payload",
    patterns=(),
    parser=_Parser,
    encrypted=True,
    protos=(50,),
)
