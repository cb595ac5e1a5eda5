"""Link-layer headers and what is stacked on them, for `analytics.layers`. The same rules as in `layer_parsers`."""

from __future__ import annotations

from typing import Final

from dpkt import ethernet, sll, sll2

from analytics.layers import Names, Walk, hex16, mac, named
from engine import constants as c

LINKS: Final = {
    c.LINKTYPE_ETHERNET: "ethernet", c.LINKTYPE_LINUX_SLL: "sll", c.LINKTYPE_LINUX_SLL2: "sll2",
    c.LINKTYPE_NULL: "null", c.LINKTYPE_LOOP: "null", c.LINKTYPE_RAW: "ip", c.LINKTYPE_RAW_BSD: "ip",
    c.LINKTYPE_RAW_OPENBSD: "ip", c.LINKTYPE_IPV4: "ipv4", c.LINKTYPE_IPV6: "ipv6",
}  # fmt: skip
ETHERTYPES: Final = {
    c.ETHERTYPE_IPV4: "ipv4", c.ETHERTYPE_IPV6: "ipv6", c.ETHERTYPE_ARP: "arp", c.ETHERTYPE_VLAN: "vlan",
    c.ETHERTYPE_QINQ: "vlan", c.ETHERTYPE_QINQ_OLD: "vlan", c.ETHERTYPE_MPLS: "mpls",
    c.ETHERTYPE_MPLS_MULTICAST: "mpls", c.ETHERTYPE_PPPOE_SESSION: "pppoe", c.ETHERTYPE_TEB: "ethernet",
}  # fmt: skip
ethertype = named(ETHERTYPES, "0x{:04x}")
_PACKET_TYPE: Final = named({0: "to us", 1: "broadcast", 2: "multicast", 3: "to someone else", 4: "from us"})
_ETHERNET: Final[Names] = {"dst": ("dst_mac", mac), "src": ("src_mac", mac), "type": ("ethertype", ethertype)}
_LENGTH: Final[Names] = {**_ETHERNET, "type": ("length", str)}


def _ethernet(walk: Walk) -> str | None:
    kind = walk.number(walk.at + 12, 2)
    _, fields = walk.fixed(ethernet.Ethernet, _ETHERNET if kind >= c.ETHERTYPE_MIN else _LENGTH)
    walk.add("ethernet", 14, fields)
    if kind >= c.ETHERTYPE_MIN:
        return ETHERTYPES.get(kind)
    walk.narrow(kind)
    return "llc"


def _llc(walk: Walk) -> str | None:
    """IEEE 802.2, with SNAP (RFC 1042)."""
    at = walk.need(3)
    octet = "0x{:02x}".format
    fields = [walk.item("dsap", 0, 1, octet), walk.item("ssap", 1, 1, octet), walk.item("control", 2, 1, octet)]
    saps = walk.frame[at : at + 3]
    if saps != b"\xaa\xaa\x03":
        walk.add("llc", 3, fields)
        return "ipv4" if saps == b"\x06\x06\x03" else None
    kind = walk.number(at + 6, 2)
    walk.add("llc", 8, [*fields, walk.octets("oui", 3, 6), walk.item("ethertype", 6, 2, ethertype)])
    return ETHERTYPES.get(kind)


def _vlan(walk: Walk) -> str | None:
    """IEEE 802.1Q."""
    kind = walk.number(walk.at + 2, 2)
    walk.add("vlan", 4, [
        walk.item("pcp", 0, 2, lambda tag: str(tag >> 13)), walk.item("dei", 0, 2, lambda tag: str(tag >> 12 & 1)),
        walk.item("vlan", 0, 2, lambda tag: str(tag & 0xFFF)), walk.item("ethertype", 2, 2, ethertype),
    ])  # fmt: skip
    return ETHERTYPES.get(kind) if kind >= c.ETHERTYPE_MIN else "llc"


def _mpls(walk: Walk) -> str | None:
    """One label (RFC 3032). What follows the last is not named, see `_skip_labels` of the decoder."""
    is_last = walk.number(walk.at + 2, 1) & 1
    walk.add("mpls", 4, [
        walk.item("label", 0, 3, lambda word: str(word >> 4)),
        walk.item("traffic_class", 2, 1, lambda octet: str(octet >> 1 & 7)),
        walk.item("bottom_of_stack", 2, 1, lambda octet: str(octet & 1)), walk.item("ttl", 3, 1),
    ])  # fmt: skip
    if not is_last:
        return "mpls"
    nibble = walk.number(walk.at, 1) >> 4
    if nibble == 0:  # a pseudowire's control word (RFC 4385)
        walk.need(4)
        walk.add("control_word", 4, [])
    return "ip" if nibble in (4, 6) else None if nibble == 1 else "ethernet"


def _pppoe(walk: Walk) -> str | None:
    """RFC 2516, with the PPP protocol that follows, one or two bytes (RFC 1661 6.5)."""
    length = walk.number(walk.at + 4, 2)
    width = 1 if walk.number(walk.at + 6, 1) & 1 else 2
    protocol = walk.number(walk.at + 6, width)
    fields = [
        walk.item("code", 1, 1), walk.item("session_id", 2, 2), walk.item("length", 4, 2),
        walk.item("ppp_protocol", 6, width, hex16),
    ]  # fmt: skip
    walk.narrow(6 + length)
    walk.add("pppoe", 6 + width, fields)
    return {c.PPP_IPV4: "ipv4", c.PPP_IPV6: "ipv6"}.get(protocol)


_COOKED: Final[Names] = {
    "type": ("packet_type", _PACKET_TYPE), "hrd": ("arphrd_type", str), "hlen": ("address_length", str),
    "hdr": ("address", mac), "ethtype": ("ethertype", ethertype), "mbz": None, "intindex": ("interface_index", str),
}  # fmt: skip


def _sll(walk: Walk) -> str | None:
    values, fields = walk.fixed(sll.SLL, _COOKED)
    walk.add("sll", 16, fields)
    return "llc" if values["ethtype"] == 4 else ETHERTYPES.get(values["ethtype"])


def _sll2(walk: Walk) -> str | None:
    values, fields = walk.fixed(sll2.SLL2, _COOKED)
    walk.add("sll2", 20, fields)
    return "llc" if values["ethtype"] == 4 else ETHERTYPES.get(values["ethtype"])


def _null(walk: Walk) -> str | None:
    """BSD null and loop: an address family, in either byte order."""
    family = walk.number(walk.at, 4)
    if family >= 0x10000:
        family = int.from_bytes(family.to_bytes(4, "big"), "little")
    walk.add("null", 4, [walk.item("family", 0, 4, lambda _: str(family))])
    return "ipv4" if family == 2 else "ipv6" if family in (10, 24, 28, 30) else None


PARSERS: Final = {
    "ethernet": _ethernet, "llc": _llc, "vlan": _vlan, "mpls": _mpls, "pppoe": _pppoe, "sll": _sll, "sll2": _sll2,
    "null": _null,
}  # fmt: skip
