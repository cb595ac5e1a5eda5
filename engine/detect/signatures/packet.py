"""What rules ask of a packet's header, read from the columns for one row."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engine import packets as k
from engine.detect.signatures.networks import Addresses
from engine.detect.signatures.rule import Rule
from engine.dissect import APP_NAMES
from engine.kernels.payloads import ESTABLISHED, FROM_CLIENT

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Packet:
    """One row, of the inner packet where a tunnel carries one. Numbers are -1 where there is none."""

    row: int
    proto: int
    src: int
    dst: int
    is_v6: bool
    src_port: int | None
    dst_port: int | None
    tcp_flags: int
    icmp_type: int
    icmp_code: int
    payload_len: int
    app: str
    side: int
    ts: int
    frame_no: int
    flow_id: int

    @property
    def src_ip(self) -> str:
        return address_text(self.src, self.is_v6)

    @property
    def dst_ip(self) -> str:
        return address_text(self.dst, self.is_v6)

    @property
    def server_port(self) -> int | None:
        return self.dst_port if self.side & FROM_CLIENT or not self.side else self.src_port


def address_text(number: int, is_v6: bool) -> str:
    """An address as in the tables (RFC 5952)."""
    if is_v6:
        return socket.inet_ntop(socket.AF_INET6, number.to_bytes(16, "big"))
    return socket.inet_ntop(socket.AF_INET, struct.pack(">I", number & 0xFFFFFFFF))


def read_packet(p: k.PacketBatch, i: int, side: int) -> Packet:
    """Row `i` of a batch."""
    flags = int(p.present[i])
    inner = flags & k.HAS_INNER_IP != 0
    a = k.A_INNER_SRC_HI if inner else k.A_SRC_HI
    port = k.I_INNER_SRC_PORT if inner else k.I_SRC_PORT
    has_ports = flags & (k.HAS_INNER_PORTS if inner else k.HAS_PORTS)
    has_proto = flags & (k.HAS_INNER_PROTO if inner else k.HAS_PROTO)
    has_tcp = flags & (k.HAS_INNER_TCP if inner else k.HAS_TCP)
    has_icmp = flags & (k.HAS_INNER_ICMP if inner else k.HAS_ICMP)
    has_payload = flags & (k.HAS_INNER_PAYLOAD if inner else k.HAS_PAYLOAD)
    short, address = p.short[:, i].tolist(), p.address[a : a + 4, i].tolist()
    icmp_type = k.S_INNER_ICMP_TYPE if inner else k.S_ICMP_TYPE
    return Packet(
        row=i,
        proto=short[k.S_INNER_PROTO if inner else k.S_PROTO] if has_proto else -1,
        src=address[0] << 64 | address[1],
        dst=address[2] << 64 | address[3],
        is_v6=flags & k.IS_INNER_IPV6 != 0 if inner else short[k.S_IP_VERSION] == 6,
        src_port=int(p.int_[port, i]) if has_ports else None,
        dst_port=int(p.int_[port + 1, i]) if has_ports else None,
        tcp_flags=short[k.S_INNER_TCP_FLAGS if inner else k.S_TCP_FLAGS] if has_tcp else -1,
        icmp_type=short[icmp_type] if has_icmp else -1,
        icmp_code=short[icmp_type + 1] if has_icmp else -1,
        payload_len=int(p.long[k.L_INNER_PAYLOAD_LEN if inner else k.L_PAYLOAD_LEN, i]) if has_payload else 0,
        app=APP_NAMES[short[k.S_APP]] if flags & k.HAS_APP else "",
        side=side,
        ts=int(p.long[k.L_TS, i]),
        frame_no=int(p.long[k.L_FRAME_NO, i]),
        flow_id=int(p.long[k.L_FLOW_ID, i]) if flags & k.HAS_FLOW else 0,
    )


def header_fits(rule: Rule, p: Packet) -> bool:
    """Whether the packet is one that the rule's header, flow and packet options admit."""
    if rule.protos and p.proto not in rule.protos:
        return False
    if rule.app and p.app != rule.app:
        return False
    if rule.to_server is not None and rule.to_server != bool(p.side & FROM_CLIENT):
        return False
    if rule.established is not None and rule.established != bool(p.side & ESTABLISHED):
        return False
    if rule.dsize is not None and not rule.dsize.low <= p.payload_len <= rule.dsize.high:
        return False
    if rule.itype is not None and not rule.itype.low <= p.icmp_type <= rule.itype.high:
        return False
    if rule.icode is not None and not rule.icode.low <= p.icmp_code <= rule.icode.high:
        return False
    if rule.flags is not None and (p.tcp_flags < 0 or not rule.flags.hold(p.tcp_flags)):
        return False
    return _way_fits(rule, p, False) or (rule.both_ways and _way_fits(rule, p, True))


def _way_fits(rule: Rule, p: Packet, turned: bool) -> bool:
    src, dst, src_port, dst_port = (
        (p.dst, p.src, p.dst_port, p.src_port) if turned else (p.src, p.dst, p.src_port, p.dst_port)
    )
    return (
        rule.src_ports.holds(src_port)
        and rule.dst_ports.holds(dst_port)
        and rule.src.holds(src, p.is_v6)
        and rule.dst.holds(dst, p.is_v6)
    )


def candidate_rows(rule: Rule, p: k.PacketBatch, sides: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The rows that a rule without anything to search for may be about, by whole columns."""
    n = p.count
    present = p.present[:n]
    inner = present & np.uint32(k.HAS_INNER_IP) != 0
    keep = present & np.uint32(k.HAS_FLOW) != 0
    if rule.protos:
        proto = np.where(inner, p.short[k.S_INNER_PROTO, :n], p.short[k.S_PROTO, :n])
        keep &= np.isin(proto, sorted(rule.protos))
    if rule.flags is not None:
        flags = np.where(inner, p.short[k.S_INNER_TCP_FLAGS, :n], p.short[k.S_TCP_FLAGS, :n]) & rule.flags.mask
        wanted = rule.flags.wanted
        hits = {
            "+": flags & wanted == wanted, "*": flags & wanted != 0, "!": flags & wanted == 0, "=": flags == wanted
        }  # fmt: skip
        keep &= hits[rule.flags.mode]
    if rule.itype is not None:
        itype = np.where(inner, p.short[k.S_INNER_ICMP_TYPE, :n], p.short[k.S_ICMP_TYPE, :n])
        keep &= (itype >= rule.itype.low) & (itype <= rule.itype.high)
    if rule.to_server is not None:
        keep &= (sides[:n] & FROM_CLIENT != 0) == rule.to_server
    if rule.established is not None:
        keep &= (sides[:n] & ESTABLISHED != 0) == rule.established
    for side, networks in enumerate((rule.src, rule.dst)):
        if not networks.any and not rule.both_ways:
            keep &= _may_hold(networks, p, inner, 2 * side)
    return np.flatnonzero(keep)


def _may_hold(networks: Addresses, p: k.PacketBatch, inner: NDArray[np.bool_], word: int) -> NDArray[np.bool_]:
    """The rows whose address may be in the set; every IPv6 row may."""
    n = len(inner)
    is_v6: NDArray[np.bool_] = np.where(
        inner, p.present[:n] & np.uint32(k.IS_INNER_IPV6) != 0, p.short[k.S_IP_VERSION, :n] == 6
    )
    low = k.A_SRC_LO + word
    value = np.where(inner, p.address[k.A_INNER_SRC_LO + word, :n], p.address[low, :n]).astype(np.int64)
    if not networks.v4:
        return is_v6
    starts, ends = np.array(networks.v4, np.int64).T
    at = np.searchsorted(starts, value, side="right") - 1
    is_v6 |= (at >= 0) & (ends[np.maximum(at, 0)] >= value)
    return is_v6
