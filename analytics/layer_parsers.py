"""Network, transport and tunnel headers for `analytics.layers`: each parser takes one layer and names the next.

A parser reads at `walk.at`, adds its layer, and returns the name of what follows, or None when that is not known. It
may raise anything of `layers.BAD_BYTES`: the rest is then `damaged`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dpkt import arp, esp, igmp, ip, ip6, sctp, tcp, udp

from analytics import layer_applications as applications
from analytics import layer_links as links
from analytics.layer_links import ETHERTYPES, ethertype
from analytics.layers import DamagedError, Field, Names, Walk, address, hex16, hexadecimal, mac, named
from engine import constants as c

Parser = Callable[[Walk], str | None]

_PROTOCOLS: Final = {
    c.PROTO_ICMP: "icmp", c.PROTO_IGMP: "igmp", c.PROTO_IPIP: "ipv4", c.PROTO_TCP: "tcp", c.PROTO_UDP: "udp",
    c.PROTO_IPV6: "ipv6", c.PROTO_GRE: "gre", c.PROTO_ESP: "esp", c.PROTO_AH: "ah", c.PROTO_ICMPV6: "icmpv6",
    c.PROTO_SCTP: "sctp", c.PROTO_UDPLITE: "udplite",
}  # fmt: skip
_EXTENSIONS: Final = {
    c.PROTO_HOPOPTS: "hop_by_hop", c.PROTO_ROUTING: "routing", c.PROTO_FRAGMENT: "fragment",
    c.PROTO_DSTOPTS: "destination_options", 135: "mobility",
}  # fmt: skip
_protocol = named({**c.PROTO_NAMES, **_EXTENSIONS})
_word = "0x{:08x}".format


# --- network ----------------------------------------------------------------------------------------------------------
_IPV4: Final[Names] = {
    "v": ("ip_version", str), "hl": ("ihl", str), "tos": ("tos", "0x{:02x}".format), "len": ("total_length", str),
    "id": ("identification", hex16), "rf": None, "df": ("dont_fragment", str), "mf": ("more_fragments", str),
    "offset": ("fragment_offset", lambda units: str(8 * units)), "p": ("proto", _protocol), "sum": ("checksum", hex16),
    "src": ("src_ip", address), "dst": ("dst_ip", address),
}  # fmt: skip
_IPV6: Final[Names] = {
    "v": ("ip_version", str), "fc": ("traffic_class", "0x{:02x}".format), "flow": ("flow_label", "0x{:05x}".format),
    "plen": ("payload_length", str), "nxt": ("next_header", _protocol), "hlim": ("ttl", str),
    "src": ("src_ip", address), "dst": ("dst_ip", address),
}  # fmt: skip
_ARP: Final[Names] = {
    "hrd": ("hardware_type", str), "pro": ("protocol_type", ethertype), "hln": ("hardware_length", str),
    "pln": ("protocol_length", str), "op": ("arp_op", named({1: "request", 2: "reply"})), "sha": ("sender_mac", mac),
    "spa": ("arp_src_ip", address), "tha": ("target_mac", mac), "tpa": ("arp_dst_ip", address),
}  # fmt: skip


def _ip(walk: Walk) -> str | None:
    return {4: "ipv4", 6: "ipv6"}.get(walk.number(walk.at, 1) >> 4, "ipv4")


def _ipv4(walk: Walk) -> str | None:
    at = walk.at
    values, fields = walk.fixed(ip.IP, _IPV4)
    size = values["hl"] * 4
    if values["v"] != 4 or size < 20:
        raise DamagedError
    walk.need(size)
    if size > 20:
        fields.append(Field("options", hexadecimal(walk.frame[at + 20 : at + size]), at + 20, at + size))
    if values["len"] >= size:  # 0 in packets that the sender's card cut into segments
        walk.narrow(values["len"])
    walk.add("ipv4", size, fields)
    return None if values["offset"] else _PROTOCOLS.get(values["p"])


def _ipv6(walk: Walk) -> str | None:
    values, fields = walk.fixed(ip6.IP6, _IPV6)
    if values["v"] != 6:
        raise DamagedError
    if values["plen"]:
        walk.narrow(40 + values["plen"])
    walk.add("ipv6", 40, fields)
    return _after_ipv6(values["nxt"])


def _after_ipv6(number: int) -> str | None:
    return _EXTENSIONS.get(number) or _PROTOCOLS.get(number)


def _extension(name: str) -> Parser:
    """An extension header of 8-byte units (RFC 8200 4.2)."""

    def parse(walk: Walk) -> str | None:
        following, size = walk.number(walk.at, 1), 8 * (walk.number(walk.at + 1, 1) + 1)
        fields = [walk.item("next_header", 0, 1, _protocol), walk.item("length", 1, 1)]
        if name == "routing":
            fields += [walk.item("routing_type", 2, 1), walk.item("segments_left", 3, 1)]
        walk.add(name, size, [*fields, walk.octets("data", len(fields), size)])
        return _after_ipv6(following)

    return parse


def _fragment(walk: Walk) -> str | None:
    word, following = walk.number(walk.at + 2, 2), walk.number(walk.at, 1)
    walk.need(8)
    walk.add("fragment", 8, [
        walk.item("next_header", 0, 1, _protocol), walk.item("fragment_offset", 2, 2, lambda w: str(w & 0xFFF8)),
        walk.item("more_fragments", 2, 2, lambda w: str(w & 1)), walk.item("identification", 4, 4, _word),
    ])  # fmt: skip
    return None if word & 0xFFF8 else _after_ipv6(following)


def _ah(walk: Walk) -> str | None:
    """RFC 4302."""
    following, size = walk.number(walk.at, 1), 4 * (walk.number(walk.at + 1, 1) + 2)
    if size < 12:
        raise DamagedError
    walk.add("ah", size, [
        walk.item("next_header", 0, 1, _protocol), walk.item("length", 1, 1), walk.item("spi", 4, 4, _word),
        walk.item("sequence", 8, 4), walk.octets("icv", 12, size),
    ])  # fmt: skip
    return _after_ipv6(following)


def _arp(walk: Walk) -> str | None:
    at = walk.need(8)
    if walk.frame[at + 4 : at + 6] == b"\x06\x04":
        walk.add("arp", 28, walk.fixed(arp.ARP, _ARP)[1])
        return None
    size = 8 + 2 * (walk.frame[at + 4] + walk.frame[at + 5])
    walk.need(size)
    walk.add("arp", size, [Field("arp_op", str(walk.number(at + 6, 2)), at + 6, at + 8)])
    return None


# --- transport and tunnels --------------------------------------------------------------------------------------------
_TCP: Final[Names] = {
    "sport": ("src_port", str), "dport": ("dst_port", str), "seq": ("tcp_seq", str), "ack": ("tcp_ack", str),
    "off": ("data_offset", str), "flags": ("tcp_flags", lambda bits: f"{bits & 255} ({tcp_flags(bits)})"),
    "win": ("tcp_window", str), "sum": ("checksum", hex16), "urp": ("urgent_pointer", str),
}  # fmt: skip
_UDP: Final[Names] = {
    "sport": ("src_port", str),
    "dport": ("dst_port", str),
    "ulen": ("length", str),
    "sum": ("checksum", hex16),
}
_TCP_OPTIONS: Final = {2: "mss", 3: "window_scale", 4: "sack_permitted", 5: "sack", 8: "timestamps", 34: "fast_open"}


def tcp_flags(bits: int) -> str:
    """The names of the flags that are set."""
    return (
        " ".join(n for i, n in enumerate(("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")) if bits >> i & 1)
        or "none"
    )


def _tcp(walk: Walk) -> str | None:
    at = walk.at
    values, fields = walk.fixed(tcp.TCP, _TCP)
    size = values["off"] * 4
    if size < 20:
        raise DamagedError
    walk.need(size)
    fields += _tcp_options(walk, at + 20, at + size)
    walk.add("tcp", size, fields)
    return applications.over_tcp(walk, values["sport"], values["dport"])


def _tcp_options(walk: Walk, at: int, end: int) -> list[Field]:
    """RFC 9293 3.1. What does not add up is shown as it is."""
    fields = []
    while at < end:
        kind = walk.frame[at]
        if kind < 2:  # end of the list, no operation
            fields.append(Field("option", "end" if kind == 0 else "nop", at, at + 1 if kind else end))
            at = at + 1 if kind else end
            continue
        size = walk.frame[at + 1] if at + 1 < end else 0
        if size < 2 or at + size > end:
            fields.append(Field("options", hexadecimal(walk.frame[at:end]), at, end))
            break
        data = walk.frame[at + 2 : at + size]
        value = (
            f"{data[:4].hex()} {data[4:].hex()}"
            if kind == 8
            else str(int.from_bytes(data, "big"))
            if size < 5
            else data.hex()
        )
        fields.append(Field(_TCP_OPTIONS.get(kind, f"option_{kind}"), value if data else "yes", at, at + size))
        at += size
    return fields


def _udp(walk: Walk) -> str | None:
    values, fields = walk.fixed(udp.UDP, _UDP)
    if values["ulen"] >= 8:
        walk.narrow(values["ulen"])
    walk.add("udp", 8, fields)
    ports = (values["dport"], values["sport"])
    tunnels = {c.PORT_VXLAN: "vxlan", c.PORT_GENEVE: "geneve", c.PORT_GTPU: "gtpu"}
    tunnel = next((tunnels[p] for p in ports if p in tunnels), None)
    return tunnel or applications.over_udp(walk, *ports)


def _udplite(walk: Walk) -> str | None:
    """RFC 3828: the length is that of the checksum's coverage."""
    _, fields = walk.fixed(udp.UDP, {**_UDP, "ulen": ("checksum_coverage", str)})
    walk.add("udplite", 8, fields)
    return None


def _icmp(walk: Walk) -> str | None:
    """RFC 792."""
    kind = walk.number(walk.at, 1)
    fields = _icmp_fields(walk)
    if kind in (0, 8, 13, 14):
        fields += [walk.item("identifier", 4, 2), walk.item("sequence", 6, 2)]
    elif kind == 5:
        fields.append(walk.octets("gateway", 4, 8, address))
    elif kind == 3:
        fields.append(walk.item("next_hop_mtu", 6, 2))
    walk.need(8)
    walk.add("icmp", 8, fields)
    return "ipv4" if kind in (3, 4, 5, 11, 12) else None


def _icmpv6(walk: Walk) -> str | None:
    """RFC 4443; neighbour discovery RFC 4861."""
    kind = walk.number(walk.at, 1)
    fields = _icmp_fields(walk)
    size = 24 if kind in (135, 136, 137) else 8
    if kind in (128, 129):
        fields += [walk.item("identifier", 4, 2), walk.item("sequence", 6, 2)]
    elif kind == 2:
        fields.append(walk.item("mtu", 4, 4))
    elif size == 24:
        fields.append(walk.octets("target", 8, 24, address))
    walk.need(size)
    walk.add("icmpv6", size, fields)
    return "ipv6" if 1 <= kind <= 4 else None


def _icmp_fields(walk: Walk) -> list[Field]:
    return [walk.item("icmp_type", 0, 1), walk.item("icmp_code", 1, 1), walk.item("checksum", 2, 2, hex16)]


def _igmp(walk: Walk) -> str | None:
    _, fields = walk.fixed(igmp.IGMP, {"sum": ("checksum", hex16), "group": ("group", address)})
    walk.add("igmp", 8, fields)
    return None


def _esp(walk: Walk) -> str | None:
    _, fields = walk.fixed(esp.ESP, {"spi": ("spi", _word), "seq": ("sequence", str)})
    walk.add("esp", 8, fields)
    return None


def _sctp(walk: Walk) -> str | None:
    names: Names = {
        "sport": ("src_port", str),
        "dport": ("dst_port", str),
        "vtag": ("verification_tag", _word),
        "sum": ("checksum", _word),
    }
    walk.add("sctp", 12, walk.fixed(sctp.SCTP, names)[1])
    return None


def _gre(walk: Walk) -> str | None:
    """RFC 2784 and 2890; version 1 (PPTP, RFC 2637) has a PPP frame that is not read."""
    flags, kind = walk.number(walk.at, 2), walk.number(walk.at + 2, 2)
    fields = [walk.item("flags", 0, 2, hex16), walk.item("protocol_type", 2, 2, ethertype)]
    size = 4
    acknowledges = 0x0080 if flags & 7 == 1 else 0
    for bit, name in ((0x8000, "checksum"), (0x2000, "key"), (0x1000, "sequence"), (acknowledges, "acknowledgment")):
        if flags & bit:
            fields.append(walk.item(name, size, 4, _word))
            size += 4
    if flags & 0x4000:  # source routes (RFC 1701) are not read
        raise DamagedError
    walk.add("gre", size, fields)
    return None if flags & 7 else ETHERTYPES.get(kind)


def _vxlan(walk: Walk) -> str | None:
    """RFC 7348."""
    walk.need(8)
    walk.add("vxlan", 8, [walk.item("flags", 0, 1, "0x{:02x}".format), walk.item("vni", 4, 3)])
    return "ethernet"


def _geneve(walk: Walk) -> str | None:
    """RFC 8926."""
    size, kind = 8 + 4 * (walk.number(walk.at, 1) & 63), walk.number(walk.at + 2, 2)
    fields = [walk.item("ethertype", 2, 2, ethertype), walk.item("vni", 4, 3), walk.octets("options", 8, size)]
    walk.add("geneve", size, fields)
    return ETHERTYPES.get(kind)


def _gtpu(walk: Walk) -> str | None:
    """3GPP TS 29.281 5, with its chain of extension headers."""
    at = walk.need(8)
    flags, message = walk.frame[at], walk.frame[at + 1]
    fields = [
        walk.item("flags", 0, 1, "0x{:02x}".format), walk.item("message_type", 1, 1), walk.item("length", 2, 2),
        walk.item("teid", 4, 4, _word),
    ]  # fmt: skip
    size = 8
    if flags & 7:
        following = walk.number(at + 11, 1)
        size = 12
        while flags & 4 and following:
            units = walk.number(at + size, 1)
            if units == 0:
                raise DamagedError
            following = walk.number(at + size + 4 * units - 1, 1)
            size += 4 * units
        fields.append(walk.octets("extensions", 8, size))
    walk.add("gtpu", size, fields)
    return "ip" if message == 255 else None


PARSERS: Final[dict[str, Parser]] = {
    **links.PARSERS, "ip": _ip, "ipv4": _ipv4, "ipv6": _ipv6, "fragment": _fragment, "ah": _ah, "arp": _arp,
    **{name: _extension(name) for name in ("hop_by_hop", "routing", "destination_options", "mobility")},
    "tcp": _tcp, "udp": _udp, "udplite": _udplite, "icmp": _icmp, "icmpv6": _icmpv6, "igmp": _igmp, "esp": _esp,
    "sctp": _sctp, "gre": _gre, "vxlan": _vxlan, "geneve": _geneve, "gtpu": _gtpu, **applications.PARSERS,
}  # fmt: skip
