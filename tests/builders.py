"""Frames made byte by byte, so that tests say what is on the wire and not how a library sees it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from engine.columns import Columns
from engine.decode import Decoder
from engine.packets import (
    F_CAPLEN,
    F_LINK_TYPE,
    F_OFFSET,
    F_TS_NS,
    F_WIRELEN,
    FrameBatch,
    PacketBatch,
)

DST_MAC = bytes.fromhex("0a1b2c3d4e5f")
SRC_MAC = bytes.fromhex("020000c0ffee")
SRC4, DST4 = bytes([10, 1, 2, 3]), bytes([192, 0, 2, 200])
SRC6 = bytes.fromhex("20010db8000000000000000000000001")
DST6 = bytes.fromhex("fe80000000000000021122fffe334455")
TEXT = b"the quick brown fox"


# --- link ---------------------------------------------------------------------------------------------------------
def ethernet(payload: bytes, kind: int = 0x0800, src: bytes = SRC_MAC, dst: bytes = DST_MAC) -> bytes:
    return dst + src + struct.pack(">H", kind) + payload


def ieee8023(payload: bytes, llc: bytes) -> bytes:
    """IEEE 802.3: a length where Ethernet II has the EtherType, then LLC."""
    return ethernet(llc + payload, len(llc) + len(payload))


def snap(kind: int, oui: int = 0) -> bytes:
    return b"\xaa\xaa\x03" + oui.to_bytes(3, "big") + struct.pack(">H", kind)


def tag(vid: int, kind: int, payload: bytes, priority: int = 0) -> bytes:
    """What follows the EtherType of a VLAN: tag control information, EtherType, payload."""
    return struct.pack(">HH", priority << 13 | vid, kind) + payload


def mpls(labels: Sequence[int], payload: bytes) -> bytes:
    last = len(labels) - 1
    return b"".join(struct.pack(">I", v << 12 | (i == last) << 8 | 64) for i, v in enumerate(labels)) + payload


def pppoe(payload: bytes, protocol: bytes = b"\x00\x21") -> bytes:
    return struct.pack(">BBHH", 0x11, 0, 7, len(payload) + len(protocol)) + protocol + payload


def sll(payload: bytes, kind: int = 0x0800) -> bytes:
    return struct.pack(">HHH8sH", 0, 1, 6, SRC_MAC, kind) + payload


def sll2(payload: bytes, kind: int = 0x0800) -> bytes:
    return struct.pack(">HHIHBB8s", kind, 0, 3, 1, 0, 6, SRC_MAC) + payload


def null(payload: bytes, family: int = 2, order: str = "<") -> bytes:
    return struct.pack(order + "I", family) + payload


def arp(op: int = 1, sender: bytes = SRC4, target: bytes = DST4) -> bytes:
    return struct.pack(">HHBBH", 1, 0x0800, 6, 4, op) + SRC_MAC + sender + bytes(6) + target


# --- network ------------------------------------------------------------------------------------------------------
def ipv4(
    payload: bytes,
    proto: int = 17,
    *,
    total: int | None = None,
    ihl: int | None = None,
    version: int = 4,
    options: bytes = b"",
    fragment: int = 0,
    ttl: int = 64,
    src: bytes = SRC4,
    dst: bytes = DST4,
) -> bytes:
    """`fragment` is the word of flags and offset: 0x2000 more fragments, 0x4000 don't, low 13 bits in 8 bytes."""
    words = 5 + len(options) // 4 if ihl is None else ihl
    length = 20 + len(options) + len(payload) if total is None else total
    head = struct.pack(">BBHHHBBH", version << 4 | words, 0, length, 1, fragment, ttl, proto, 0)
    return head + src + dst + options + payload


def ipv6(
    payload: bytes,
    following: int = 17,
    *,
    length: int | None = None,
    version: int = 6,
    hops: int = 64,
    src: bytes = SRC6,
    dst: bytes = DST6,
) -> bytes:
    size = len(payload) if length is None else length
    return struct.pack(">IHBB", version << 28, size, following, hops) + src + dst + payload


def extension(following: int, payload: bytes, units: int = 1) -> bytes:
    """Hop-by-hop, destination options or routing header of `units` * 8 bytes."""
    return bytes([following, units - 1]) + bytes(units * 8 - 2) + payload


def fragment6(following: int, payload: bytes, offset: int = 0, more: bool = False) -> bytes:
    return struct.pack(">BBHI", following, 0, offset << 3 | more, 7) + payload


def ah(following: int, payload: bytes) -> bytes:
    return struct.pack(">BBHII", following, 4, 0, 1, 1) + bytes(12) + payload


# --- transport ----------------------------------------------------------------------------------------------------
def tcp(
    payload: bytes = TEXT,
    sport: int = 40000,
    dport: int = 443,
    *,
    seq: int = 0xFEDCBA98,
    ack: int = 0x89ABCDEF,
    flags: int = 0x18,
    window: int = 0xFFF0,
    options: bytes = b"",
    offset: int | None = None,
) -> bytes:
    words = 5 + len(options) // 4 if offset is None else offset
    return struct.pack(">HHIIBBHHH", sport, dport, seq, ack, words << 4, flags, window, 0, 0) + options + payload


def udp(payload: bytes = TEXT, sport: int = 5353, dport: int = 53, length: int | None = None) -> bytes:
    return struct.pack(">HHHH", sport, dport, 8 + len(payload) if length is None else length, 0) + payload


def sctp(payload: bytes = TEXT) -> bytes:
    return struct.pack(">HHII", 2905, 36412, 1, 2) + payload


def dccp(payload: bytes = TEXT, words: int = 4) -> bytes:
    return struct.pack(">HHBBHBBH", 5001, 5002, words, 0, 0, 0, 0, 0) + bytes(words * 4 - 12) + payload


def icmp(payload: bytes = TEXT, kind: int = 8, code: int = 0) -> bytes:
    return struct.pack(">BBHI", kind, code, 0, 0x00010002) + payload


def igmp() -> bytes:
    return struct.pack(">BBH4s", 0x16, 0, 0, bytes([224, 0, 0, 251]))


def esp(payload: bytes = TEXT) -> bytes:
    return struct.pack(">II", 0xC0FFEE, 1) + payload


def dns_query(name: str, number: int = 1, kind: int = 1) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack(">HHHHHH", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)


# --- tunnels ------------------------------------------------------------------------------------------------------
def gre(payload: bytes, kind: int = 0x0800, *, csum: bool = False, key: bool = False, seq: bool = False) -> bytes:
    flags = csum << 15 | key << 13 | seq << 12
    return struct.pack(">HH", flags, kind) + bytes(4 * (csum + key + seq)) + payload


def vxlan(inner_frame: bytes, flags: int = 8) -> bytes:
    return udp(struct.pack(">II", flags << 24, 42 << 8) + inner_frame, 55555, 4789)


def geneve(payload: bytes, kind: int = 0x6558, options: bytes = b"") -> bytes:
    return udp(struct.pack(">BBHI", len(options) // 4, 0, kind, 42 << 8) + options + payload, 55555, 6081)


def gtpu(packet: bytes, *, extensions: bytes = b"", message: int = 255) -> bytes:
    """`extensions` begins with the type of the first one."""
    middle = bytes(3) + extensions if extensions else b""
    return udp(
        struct.pack(">BBHI", 0x34 if extensions else 0x30, message, len(middle + packet), 9) + middle + packet,
        2152,
        2152,
    )


# --- through the engine -------------------------------------------------------------------------------------------
_decoder: list[Any] = []


def decoder() -> tuple[Decoder, PacketBatch, Columns]:
    """The decoder of this process; its memory is reused, as in the engine."""
    if not _decoder:
        _decoder.extend((Decoder(), PacketBatch(), Columns()))
    return _decoder[0], _decoder[1], _decoder[2]


def fill(
    frames: Sequence[bytes], link_type: int = 1, wirelens: Sequence[int] | None = None, poison: int = 0, gap: int = 64
) -> FrameBatch:
    """Frames in an arena whose other bytes are `poison`."""
    size = sum(map(len, frames)) + gap * (len(frames) + 1)
    batch = FrameBatch(rows=max(1, len(frames)), arena_bytes=size)
    batch.arena[:] = poison
    at = gap
    for i, frame in enumerate(frames):
        batch.arena[at : at + len(frame)] = np.frombuffer(frame, np.uint8)
        batch.frames[F_TS_NS, i] = 1_700_000_000_123_456_789 + i
        batch.frames[F_OFFSET, i] = at
        batch.frames[F_CAPLEN, i] = len(frame)
        batch.frames[F_WIRELEN, i] = len(frame) if wirelens is None else wirelens[i]
        batch.frames[F_LINK_TYPE, i] = link_type
        at += len(frame) + gap
    batch.count = len(frames)
    batch.source = "test"
    return batch


def decode(
    frames: Sequence[bytes], link_type: int = 1, wirelens: Sequence[int] | None = None, poison: int = 0
) -> list[dict[str, Any]]:
    """The frames' rows, as the lake would show them."""
    work, rows, columns = decoder()
    out: list[dict[str, Any]] = []
    for at in range(0, len(frames), rows.present.shape[0]):
        stop = at + rows.present.shape[0]
        batch = fill(frames[at:stop], link_type, wirelens[at:stop] if wirelens else None, poison)
        batch.first_frame_no = at + 1
        out += columns.to_arrow(work.decode(batch, rows)).to_pylist()
    return out


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema with text instead of dictionaries."""
    return pa.schema([(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in schema])
