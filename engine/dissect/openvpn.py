"""OpenVPN (its doxygen, "Network protocol"): a client's reset whose session the server's answer names.

Without tls-crypt the server's first packet acknowledges the client's by its session id, which is random: that is
reliable. With tls-crypt nothing but the opcodes is readable, and such a flow is not recognised.
"""

from __future__ import annotations

from engine.dissect.base import TCP, UDP, Application, Flow, Message, Pattern, Verdict

_CLIENT_RESET = 7 << 3  # P_CONTROL_HARD_RESET_CLIENT_V2, key 0
_SERVER_RESET = 8 << 3


class _Parser:
    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._session = b""
        self._from_client = True

    def feed(self, message: Message) -> Verdict:
        """Two packets, one of each side."""
        data = message.data
        if self._flow.proto == TCP:  # a length before each packet
            if int.from_bytes(data[:2], "big") != len(data) - 2:
                return Verdict.FOREIGN
            data = data[2:]
        if data[0] == _CLIENT_RESET and len(data) >= 14 and any(data[1:9]):
            self._session, self._from_client = data[1:9], message.from_client
            return Verdict.MORE
        answers = self._session and message.from_client != self._from_client
        if data[0] == _SERVER_RESET and answers and self._session in data[9:]:
            self._flow.app = "openvpn"
            return Verdict.DONE
        return Verdict.FOREIGN

    def finish(self) -> None:
        """Nothing is kept."""


APPLICATION = Application(
    name="openvpn",
    meaning="OpenVPN tunnel",
    patterns=(
        Pattern(transport=UDP, value=bytes((_CLIENT_RESET,)), length=(14, 128)),
        Pattern(transport=UDP, value=bytes((_SERVER_RESET,)), length=(26, 128)),
        Pattern(transport=TCP, value=bytes((0, 0, _CLIENT_RESET)), mask=b"\xff\x80\xff", length=(16, 130)),
        Pattern(transport=TCP, value=bytes((0, 0, _SERVER_RESET)), mask=b"\xff\x80\xff", length=(28, 130)),
    ),
    parser=_Parser,
    encrypted=True,
)
