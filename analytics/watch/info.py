"""What a packet is, in a word and in a line of text."""

from __future__ import annotations

from typing import Any, Final

from engine.constants import ETHERTYPE_ARP, PROTO_NAMES

FLAG_NAMES: Final = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")  # RFC 9293 3.1, bit 0 to 7
ETHERTYPE_NAMES: Final = {ETHERTYPE_ARP: "ARP", 0x88CC: "LLDP", 0x888E: "EAPOL", 0x88F7: "PTP", 0x8809: "LACP"}
ICMP_NAMES: Final = {  # IANA ICMP type numbers
    0: "echo reply", 3: "destination unreachable", 5: "redirect", 8: "echo request", 11: "time exceeded",
    12: "parameter problem", 13: "timestamp request", 14: "timestamp reply",
}  # fmt: skip
ICMPV6_NAMES: Final = {  # IANA ICMPv6 type numbers
    1: "destination unreachable", 2: "packet too big", 3: "time exceeded", 4: "parameter problem", 128: "echo request",
    129: "echo reply", 130: "listener query", 131: "listener report", 133: "router solicitation",
    134: "router advertisement", 135: "neighbor solicitation", 136: "neighbor advertisement", 137: "redirect",
    143: "listener report v2",
}  # fmt: skip

# Classes of the charts: by application where it is known, else by protocol. The order is that of the stack.
CLASSES: Final = ("TLS", "QUIC", "HTTP", "DNS", "SSH", "ICMP", "TCP", "UDP", "ARP", "Other")
CLASS_SQL: Final = f"""CASE WHEN app IN ('tls', 'dtls') THEN 'TLS' WHEN app = 'quic' THEN 'QUIC'
    WHEN app IN ('http', 'http2', 'ssdp') THEN 'HTTP' WHEN app IN ('dns', 'mdns', 'llmnr', 'nbns') THEN 'DNS'
    WHEN app = 'ssh' THEN 'SSH' WHEN proto IN (1, 58) THEN 'ICMP' WHEN proto = 6 THEN 'TCP' WHEN proto = 17 THEN 'UDP'
    WHEN ethertype = {ETHERTYPE_ARP} THEN 'ARP' ELSE 'Other' END"""


def protocol_name(proto: int | None, ethertype: int | None) -> str:
    """What the packet is called: the transport protocol, or what the frame carries instead of IP."""
    if proto is not None:
        return PROTO_NAMES.get(proto, f"IP {proto}")
    if ethertype is None:
        return "802.3"
    return ETHERTYPE_NAMES.get(ethertype, f"0x{ethertype:04x}")


def info_text(row: dict[str, Any]) -> str:
    """One line about a packet: flags, type, tunnel, and how far decoding got when it did not get to the end."""
    parts = []
    if row["tcp_flags"] is not None:
        parts.append(" ".join(n for bit, n in enumerate(FLAG_NAMES) if row["tcp_flags"] >> bit & 1) or "no flags")
    if row["icmp_type"] is not None:
        names = ICMPV6_NAMES if row["proto"] == 58 else ICMP_NAMES
        code = f", code {row['icmp_code']}" if row["icmp_code"] else ""
        parts.append(names.get(row["icmp_type"], f"type {row['icmp_type']}") + code)
    if row["arp_op"] is not None:
        parts.append({1: "who has", 2: "reply"}.get(row["arp_op"], f"operation {row['arp_op']}"))
    if row["server_name"]:
        parts.append(row["server_name"])
    if row["payload_len"]:
        parts.append(f"{row['payload_len']} B payload")
    if row["is_fragment"]:
        parts.append("fragment")
    if row["encap"] is not None:
        inner = f" {row['inner_src_ip']} → {row['inner_dst_ip']}" if row["inner_src_ip"] is not None else ""
        parts.append(row["encap"] + inner)
    if row["status"] not in ("ok", "not_ip"):
        parts.append(row["status"].replace("_", " "))
    return ", ".join(parts)
