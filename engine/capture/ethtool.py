"""What a network card's driver says of itself, asked by ioctl: linux/ethtool.h. Virtual ones often say nothing."""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from typing import Final

_SIOCETHTOOL: Final = 0x8946
_GET_RING: Final = 0x10
# Offloads that hand frames over as they never were on the wire: the command that asks, and the name for `ethtool -K`.
_OFFLOADS: Final = {"gro": 0x2B, "gso": 0x23, "tso": 0x1E}
_GET_FLAGS: Final = 0x25
_FLAG_LRO: Final = 1 << 15


def offloads(name: str) -> list[str]:
    """Those that are on and change what is captured, as `ethtool -K` names them."""
    found = [word for word, command in _OFFLOADS.items() if _value(name, command)]
    return found + (["lro"] if (_value(name, _GET_FLAGS) or 0) & _FLAG_LRO else [])


def receive_ring(name: str) -> tuple[int, int] | None:
    """(Entries in use, most that are possible) of the card's receive ring."""
    words = _ask(name, array.array("I", [_GET_RING] + [0] * 8))
    return None if words is None or not words[1] else (words[5], words[1])


def _value(name: str, command: int) -> int | None:
    words = _ask(name, array.array("I", [command, 0]))
    return None if words is None else words[1]


def _ask(name: str, words: array.array[int]) -> array.array[int] | None:
    """The structure as the driver filled it in, None when it cannot."""
    request = struct.pack("16sP16x", name.encode()[:15], words.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            fcntl.ioctl(s, _SIOCETHTOOL, request)
        except OSError:
            return None
    return words
