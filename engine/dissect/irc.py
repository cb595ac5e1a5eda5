"""IRC (RFC 2812 3.1): recognised by a client's registration, NICK and USER, or by a server's message on its ports."""

from __future__ import annotations

import re

from engine.dissect._recognition import on_port
from engine.dissect.base import TCP, Application, Flow, Message, Pattern, Verdict

_PORTS = (194, *range(6660, 6670), 7000)
_NICK = re.compile(rb"(?:CAP LS[^\n]{0,64}\n)?(?:PASS [^\r\n]{1,256}\r?\n)?NICK :?[^\s:]{1,64}\r?\n")
_USER = re.compile(
    rb"(?:NICK [^\r\n]{1,64}\r?\n)?USER [^ \r\n]{1,64} [^ \r\n]{1,256} [^ \r\n]{1,256} :?[^\r\n]{1,256}\r?\n"
)
_SERVER = re.compile(rb"(?::[^ \r\n]{1,256} )?(?:NOTICE (?:AUTH|\*|\S{1,64}) :|00[1-4] \S{1,64} :|PING :)")


class _Parser:
    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._nick = False

    def feed(self, message: Message) -> Verdict:
        """NICK alone is not enough on other ports: USER must follow."""
        data = message.data[:1024]
        nick = _NICK.match(data)
        user = _USER.match(data, nick.end() if nick else 0)
        both = user is not None and (nick is not None or self._nick or data.startswith(b"NICK "))
        if both or (on_port(self._flow, *_PORTS) and (nick or user or _SERVER.match(data))):
            self._flow.app = "irc"
            return Verdict.DONE
        if nick is None:
            return Verdict.FOREIGN
        self._nick = True
        return Verdict.MORE

    def finish(self) -> None:
        """Nothing is kept."""


APPLICATION = Application(
    name="irc",
    meaning="Internet Relay Chat",
    patterns=(
        Pattern(transport=TCP, value=b"NICK ", follow=1),
        Pattern(transport=TCP, value=b"CAP LS"),
        Pattern(transport=TCP, value=b"USER ", ports=_PORTS),
        Pattern(transport=TCP, value=b"PASS ", ports=_PORTS),
        Pattern(transport=TCP, value=b":", ports=_PORTS),
        Pattern(transport=TCP, value=b"NOTICE "),
    ),
    parser=_Parser,
)
