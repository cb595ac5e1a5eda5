"""WireGuard (whitepaper, 5.4): recognised by type and exact length; data alone by the counter of one receiver."""

from __future__ import annotations

from engine.dissect.base import UDP, Application, Flow, Message, Pattern, Verdict

_HANDSHAKE = {1: 148, 2: 92, 3: 64}
_STEP = 1024  # data packets that may be lost or out of order between two


class _Parser:
    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._last: dict[bool, tuple[bytes, int]] = {}

    def feed(self, message: Message) -> Verdict:
        """A message of the handshake decides; two of the data messages of one direction do too."""
        data, length = message.data, len(message.data)
        kind = data[0]
        if data[1:4] != b"\0\0\0" or not message.whole:
            return Verdict.FOREIGN
        if _HANDSHAKE.get(kind) == length:
            return self._sure()
        if kind != 4 or length < 32 or length % 16:
            return Verdict.FOREIGN
        receiver, counter = data[4:8], int.from_bytes(data[8:16], "little")
        before = self._last.get(message.from_client)
        if before is None:
            self._last[message.from_client] = receiver, counter
            return Verdict.MORE
        if before[0] == receiver and before[1] != counter and abs(counter - before[1]) <= _STEP:
            return self._sure()
        return Verdict.FOREIGN

    def finish(self) -> None:
        """Nothing is kept."""

    def _sure(self) -> Verdict:
        self._flow.app = "wireguard"
        return Verdict.DONE


APPLICATION = Application(
    name="wireguard",
    meaning="WireGuard tunnel",
    patterns=(
        *(Pattern(transport=UDP, value=bytes((k, 0, 0, 0)), length=(n, n)) for k, n in _HANDSHAKE.items()),
        Pattern(transport=UDP, value=b"\x04\0\0\0", length=(32, 65_535)),
    ),
    parser=_Parser,
    encrypted=True,
)
