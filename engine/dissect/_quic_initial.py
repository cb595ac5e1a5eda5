"""Initial packets of QUIC: keys that anyone can compute, and what they protect (RFC 9001 5, RFC 9369 3)."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from hmac import digest
from typing import Any, Final

from engine.dissect.base import Malformed

INITIAL: Final = 0
RETRY: Final = 3
_V2: Final = 0x6B3343CF
_SALTS: Final = {
    "22": bytes.fromhex("7fbcdb0e7c66bbe9193a96cd21519ebd7a02644a"),
    "28": bytes.fromhex("c3eef712c72ebb5a11a7d2432bb46365bef9f502"),
    "29": bytes.fromhex("afbfec289993d24c9e9786f19c6111e04390a899"),
    "1": bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"),
    "2": bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"),
    "Q050": bytes.fromhex("504574efd066fe2f9d945cfcdbd3a7f0d3b56b45"),
    "T050": bytes.fromhex("7ff579e5acd072915580304c43a2367c60488310"),
    "T051": bytes.fromhex("7a4edef4e7ccee5fa4506c19124fc8ccda6e033d"),
}
# Frames of one packet that are read; real ones have up to some thirty.
_FRAMES: Final = 512
_PADDING: Final = re.compile(rb"\0*").match


@dataclass(slots=True)
class LongHeader:
    """A packet with a long header (RFC 9000 17.2); `number` is where the packet number lies, `end` where it ends."""

    kind: int
    version: int
    dcid: bytes
    scid: bytes
    start: int
    number: int
    end: int


def salt_of(version: int) -> bytes | None:
    """The salt of a version's Initial keys; None for one whose packets cannot be opened."""
    if version in (1, _V2):
        return _SALTS["1" if version == 1 else "2"]
    if version >> 8 == 0xFF0000:
        draft = version & 0xFF
        limits = ((20, ""), (22, "22"), (28, "28"), (32, "29"), (34, "1"))
        return _SALTS.get(next((name for last, name in limits if draft <= last), ""))
    if version >> 4 == 0xFACEB00:  # Facebook's mvfst
        return _SALTS["22" if version == 0xFACEB001 else "28"]
    return _SALTS.get(version.to_bytes(4, "big").decode("latin-1"))


def version_text(version: int) -> str:
    """A version by name: '1', '2', 'draft-29', 'Q046', or its number."""
    name = version.to_bytes(4, "big")
    if version >> 8 == 0xFF0000:
        return f"draft-{version & 0xFF}"
    if name[:1] in (b"Q", b"T") and name[1:].isdigit():
        return name.decode("ascii")
    return {1: "1", _V2: "2"}.get(version) or f"0x{version:08x}"


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of 1, 2, 4 or 8 bytes (RFC 9000 16), and where the next thing starts."""
    size = 1 << (data[at] >> 6)
    if at + size > len(data):
        raise Malformed("number reaches beyond the packet")
    return int.from_bytes(data[at : at + size], "big") & (1 << 8 * size - 2) - 1, at + size


def read_long_header(data: bytes, at: int, whole: bool = True) -> LongHeader:
    """The packet at `at` of a datagram."""
    first, version = struct.unpack_from(">BI", data, at)
    kind = first >> 4 & 3
    if version == _V2:
        kind = kind - 1 & 3  # RFC 9369 3.2
    here = at + 6
    dcid = data[here : here + data[at + 5]]
    here += len(dcid) + 1
    scid = data[here : here + data[here - 1]]
    here += len(scid)
    if len(dcid) > 20 or len(scid) > 20 or not first & 0x80:
        raise Malformed("no long header")
    if kind == RETRY:
        return LongHeader(kind, version, dcid, scid, at, here, len(data))
    if kind == INITIAL:
        token, here = varint(data, here)
        here += token
    size, here = varint(data, here)
    end = here + size
    if size < 20 or (whole and end > len(data)):  # room for the sample of header protection
        raise Malformed("packet reaches beyond the datagram")
    return LongHeader(kind, version, dcid, scid, at, here, end)


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label with an empty context (RFC 8446 7.1), for what fits into one block."""
    label = b"tls13 " + label
    return digest(secret, struct.pack(">HB", size, len(label)) + label + b"\0\1", "sha256")[:size]


def initial_secret(version: int, dcid: bytes, from_client: bool) -> bytes:
    """The secret of one side (RFC 9001 5.2)."""
    salt = salt_of(version)
    if salt is None:
        raise Malformed("keys of this version are not known")
    return _expand(digest(salt, dcid, "sha256"), b"client in" if from_client else b"server in", 32)


class Keys:
    """What opens the Initial packets of one side."""

    __slots__ = ("_aead", "_header", "_iv", "dcid", "version")

    def __init__(self, version: int, dcid: bytes, from_client: bool) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.ciphers.algorithms import AES
        from cryptography.hazmat.primitives.ciphers.modes import ECB

        secret = initial_secret(version, dcid, from_client)
        prefix = b"quicv2 " if version == _V2 else b"quic "
        self.version, self.dcid = version, dcid
        self._aead: Any = AESGCM(_expand(secret, prefix + b"key", 16))
        self._iv = int.from_bytes(_expand(secret, prefix + b"iv", 12), "big")
        header = AES(_expand(secret, prefix + b"hp", 16))
        self._header: Any = Cipher(header, ECB()).encryptor()  # noqa: S305 — RFC 9001 5.4.3 says so

    def open(self, data: bytes, packet: LongHeader) -> bytes | None:
        """The frames of a packet (RFC 9001 5.3, 5.4); None when the keys do not fit."""
        from cryptography.exceptions import InvalidTag

        number = packet.number
        mask = self._header.update(data[number + 4 : number + 20])
        if len(mask) < 16 or packet.end > len(data):
            return None
        first = data[packet.start] ^ mask[0] & 0x0F
        size = (first & 3) + 1
        plain = int.from_bytes(data[number : number + size], "big") ^ int.from_bytes(mask[1 : 1 + size], "big")
        header = bytes((first,)) + data[packet.start + 1 : number] + plain.to_bytes(size, "big")
        nonce = (self._iv ^ plain).to_bytes(12, "big")  # early numbers fit into what is sent of them
        try:
            frames: bytes = self._aead.decrypt(nonce, data[number + size : packet.end], header)
        except InvalidTag:
            return None
        return frames


def crypto_frames(frames: bytes) -> list[tuple[int, bytes]]:
    """Offset and data of the CRYPTO frames among those that an Initial packet may hold (RFC 9000 17.2.2, 19.6)."""
    found: list[tuple[int, bytes]] = []
    at = 0
    for _ in range(_FRAMES):
        if frames[at : at + 1] == b"\0":
            padding = _PADDING(frames, at)
            at = padding.end() if padding else at + 1
        if at >= len(frames):
            break
        kind, at = varint(frames, at)
        if kind == 0x06:
            offset, at = varint(frames, at)
            size, at = varint(frames, at)
            found.append((offset, frames[at : at + size]))
            at += size
        elif kind in (0x02, 0x03):
            at = _skip_ack(frames, at, 3 if kind == 0x03 else 0)
        elif kind != 0x01:  # CONNECTION_CLOSE, or nothing that may be here
            break
    return found


def _skip_ack(frames: bytes, at: int, more: int) -> int:
    """Largest, delay, count, first range, `count` pairs and the ECN counts (RFC 9000 19.3)."""
    _, at = varint(frames, at)
    _, at = varint(frames, at)
    count, at = varint(frames, at)
    if count > len(frames):
        raise Malformed("more ranges than bytes")
    for _ in range(1 + 2 * count + more):
        _, at = varint(frames, at)
    return at
