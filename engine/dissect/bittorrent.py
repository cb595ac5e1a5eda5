"""BitTorrent (BEP 3): the handshake of peers; and the queries of its distributed hash table (BEP 5)."""

from __future__ import annotations

from engine.dissect._recognition import recogniser
from engine.dissect.base import TCP, UDP, Application, Flow, Message, Pattern


def _check(flow: Flow, message: Message) -> bool:
    data = message.data
    if flow.proto == TCP:
        return data[:20] == b"\x13BitTorrent protocol"
    return data[:11] in (b"d1:ad2:id20", b"d1:rd2:id20") and (data[-1:] == b"e" or not message.whole)


APPLICATION = Application(
    name="bittorrent",
    meaning="BitTorrent peers and hash table",
    patterns=(
        Pattern(transport=TCP, value=b"\x13BitTorr", length=(20, 1 << 30)),
        Pattern(transport=UDP, value=b"d1:ad2:i"),
        Pattern(transport=UDP, value=b"d1:rd2:i"),
    ),
    parser=recogniser("bittorrent", _check),
)
