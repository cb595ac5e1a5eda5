"""Parsers of protocols that are only recognised: a function says whether a message is one of theirs."""

from __future__ import annotations

from collections.abc import Callable

from engine.dissect.base import Flow, Message, Parser, Verdict

Check = Callable[[Flow, Message], bool]


class _Recogniser:
    """The first message decides."""

    def __init__(self, flow: Flow, name: str, check: Check) -> None:
        self._flow, self._name, self._check = flow, name, check

    def feed(self, message: Message) -> Verdict:
        """Name the flow, or say that it is not ours."""
        if not self._check(self._flow, message):
            return Verdict.FOREIGN
        self._flow.app = self._name
        return Verdict.DONE

    def finish(self) -> None:
        """Nothing is kept."""


def recogniser(name: str, check: Check) -> Callable[[Flow], Parser]:
    """The `parser` of an Application that needs one message and no state."""

    def make(flow: Flow) -> Parser:
        return _Recogniser(flow, name, check)

    return make


def on_port(flow: Flow, *ports: int) -> bool:
    """True when the flow uses one of the ports."""
    return flow.dst_port in ports or flow.src_port in ports
