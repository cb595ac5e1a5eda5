"""A slow decoder on dpkt for the plain cases, to hold the kernels against."""

from __future__ import annotations

import ipaddress
from typing import Any

import dpkt

_TRANSPORTS = {dpkt.ip.IP_PROTO_TCP, dpkt.ip.IP_PROTO_UDP, dpkt.ip.IP_PROTO_ICMP, dpkt.ip.IP_PROTO_ICMP6}


def reference(frame: bytes) -> dict[str, Any] | None:
    """Columns that dpkt gives for Ethernet, VLAN, IPv4 or IPv6, and TCP, UDP or ICMP; None where it does not follow."""
    try:
        eth = dpkt.ethernet.Ethernet(frame)
    except (dpkt.UnpackError, dpkt.NeedData, AttributeError, IndexError):
        return None
    kind = int.from_bytes(frame[12:14], "big")
    tags = getattr(eth, "vlan_tags", [])
    ip = eth.data
    if kind not in (0x0800, 0x86DD, 0x8100) or len(tags) > 2 or not isinstance(ip, dpkt.ip.IP | dpkt.ip6.IP6):
        return None
    row: dict[str, Any] = {
        "src_mac": eth.src.hex(":"),
        "dst_mac": eth.dst.hex(":"),
        "ethertype": kind,
        "vlan": tags[0].id if tags else None,
        "vlan_inner": tags[1].id if len(tags) > 1 else None,
        "ip_version": ip.v,
        "src_ip": str(ipaddress.ip_address(ip.src)),
        "dst_ip": str(ipaddress.ip_address(ip.dst)),
    }
    later = False
    if isinstance(ip, dpkt.ip.IP):
        if ip.v != 4 or ip.hl < 5 or ip.len < ip.hl * 4 or ip.p not in _TRANSPORTS:
            return None
        later = ip.offset > 0
        row |= {"ttl": ip.ttl, "proto": ip.p, "is_fragment": bool(ip.mf) or later}
        room = ip.len - ip.hl * 4
    else:
        if ip.v != 6 or ip.nxt not in _TRANSPORTS or ip.plen == 0:
            return None
        row |= {"ttl": ip.hlim, "proto": ip.nxt, "is_fragment": False}
        room = ip.plen
    if later:
        return row | {"payload_len": room, "src_port": None, "tcp_seq": None, "icmp_type": None}
    return _transport(ip.data, room, row)


def _transport(part: Any, room: int, row: dict[str, Any]) -> dict[str, Any] | None:
    if isinstance(part, dpkt.tcp.TCP) and row["proto"] == 6:
        if part.off < 5 or part.off * 4 > room:
            return None
        return row | {
            "src_port": part.sport,
            "dst_port": part.dport,
            "tcp_seq": part.seq,
            "tcp_ack": part.ack,
            "tcp_flags": part.flags & 0xFF,
            "tcp_window": part.win,
            "payload_len": room - part.off * 4,
            "status": "ok",
        }
    if isinstance(part, dpkt.udp.UDP) and row["proto"] == 17:
        if not 8 <= part.ulen <= room or row["is_fragment"]:
            return None
        return row | {"src_port": part.sport, "dst_port": part.dport, "payload_len": part.ulen - 8, "status": "ok"}
    if isinstance(part, dpkt.icmp.ICMP | dpkt.icmp6.ICMP6) and room >= 8:
        return row | {"icmp_type": part.type, "icmp_code": part.code, "payload_len": room - 8}
    return None


def shannon(data: bytes) -> float:
    """Entropy in bits per byte, from the definition."""
    import numpy as np

    counts = np.bincount(np.frombuffer(data, np.uint8))
    p = counts[counts > 0] / len(data)
    return float(-(p * np.log2(p)).sum()) if len(p) > 1 else 0.0
