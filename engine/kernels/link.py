"""From the link layer to the first IP or ARP header, through whatever is stacked between."""

from engine.constants import (
    ETHERTYPE_ARP,
    ETHERTYPE_CISCO_META,
    ETHERTYPE_ETAG,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_MIN,
    ETHERTYPE_MPLS,
    ETHERTYPE_MPLS_MULTICAST,
    ETHERTYPE_NSH,
    ETHERTYPE_PBB,
    ETHERTYPE_PPPOE_SESSION,
    ETHERTYPE_QINQ,
    ETHERTYPE_QINQ_OLD,
    ETHERTYPE_TEB,
    ETHERTYPE_VLAN,
    LINKTYPE_ETHERNET,
    LINKTYPE_IPV4,
    LINKTYPE_IPV6,
    LINKTYPE_LINUX_SLL,
    LINKTYPE_LINUX_SLL2,
    LINKTYPE_LOOP,
    LINKTYPE_NULL,
    LINKTYPE_RAW,
    LINKTYPE_RAW_BSD,
    LINKTYPE_RAW_OPENBSD,
    PPP_IPV4,
    PPP_IPV6,
)
from engine.jit import be16, be32, be64, helper, u8
from engine.kernels.fields import (
    DEPTH,
    DST_MAC,
    ETHERTYPE,
    MAX_DEPTH,
    NOTHING,
    PRESENT,
    SRC_MAC,
    STATUS,
    VLAN,
    VLAN_INNER,
)
from engine.packets import HAS_ETHERTYPE, HAS_MAC, HAS_VLAN, HAS_VLAN_INNER, TOO_DEEP, TRUNCATED_LINK, UNSUPPORTED_LINK


@helper
def parse_link(buf, p, end, link_type, f):
    """Decode link headers at `p`. Returns (next header, its EtherType or NOTHING); sets f[STATUS] on failure."""
    if link_type == LINKTYPE_ETHERNET:
        return parse_ethernet(buf, p, end, f)
    if link_type == LINKTYPE_LINUX_SLL:
        if end - p < 16:
            return _cut(p, f)
        return _after_cooked(buf, p + 16, end, be16(buf, p + 14), f)
    if link_type == LINKTYPE_LINUX_SLL2:
        if end - p < 20:
            return _cut(p, f)
        return _after_cooked(buf, p + 20, end, be16(buf, p), f)
    if link_type == LINKTYPE_NULL or link_type == LINKTYPE_LOOP:
        if end - p < 4:
            return _cut(p, f)
        return p + 4, _family(be32(buf, p))
    if link_type == LINKTYPE_RAW or link_type == LINKTYPE_RAW_BSD or link_type == LINKTYPE_RAW_OPENBSD:
        if end - p < 1:
            return _cut(p, f)
        return p, ip_by_version(buf, p)
    if link_type == LINKTYPE_IPV4:
        return p, ETHERTYPE_IPV4
    if link_type == LINKTYPE_IPV6:
        return p, ETHERTYPE_IPV6
    f[STATUS] = UNSUPPORTED_LINK
    return p, NOTHING


@helper
def _cut(p, f):
    f[STATUS] = TRUNCATED_LINK
    return p, NOTHING


@helper
def ip_by_version(buf, p):
    """The EtherType that the version nibble at `p` stands for."""
    version = u8(buf, p) >> 4
    if version == 4:
        return ETHERTYPE_IPV4
    if version == 6:
        return ETHERTYPE_IPV6
    return NOTHING


@helper
def _family(word):
    """BSD address family in either byte order: AF_INET is 2 everywhere, AF_INET6 differs by system."""
    if word >= 0x10000:
        word = (word >> 24) | ((word >> 8) & 0xFF00)
    if word == 2:
        return ETHERTYPE_IPV4
    if word == 10 or word == 24 or word == 28 or word == 30:
        return ETHERTYPE_IPV6
    return NOTHING


@helper
def _after_cooked(buf, p, end, protocol, f):
    """What follows a Linux cooked header (LINKTYPE_LINUX_SLL): an EtherType, or 4 for 802.2 LLC."""
    if protocol == 4:
        p, kind = parse_llc(buf, p, end, f)
        return parse_tags(buf, p, end, kind, False, f)
    if protocol < ETHERTYPE_MIN:
        return p, NOTHING
    f[ETHERTYPE] = protocol
    f[PRESENT] |= HAS_ETHERTYPE
    return parse_tags(buf, p, end, protocol, True, f)


@helper
def parse_ethernet(buf, p, end, f):
    """Ethernet II or IEEE 802.3 with LLC. The first header of a frame sets MACs and tags, see `fields`."""
    if end - p < 14:
        return _cut(p, f)
    outermost = f[PRESENT] & HAS_MAC == 0
    kind = be16(buf, p + 12)
    if outermost:
        f[DST_MAC] = (be64(buf, p) >> 16) & 0xFFFFFFFFFFFF
        f[SRC_MAC] = be64(buf, p + 4) & 0xFFFFFFFFFFFF
        f[PRESENT] |= HAS_MAC
        if kind >= ETHERTYPE_MIN:
            f[ETHERTYPE] = kind
            f[PRESENT] |= HAS_ETHERTYPE
    p += 14
    if kind < ETHERTYPE_MIN:
        p, kind = parse_llc(buf, p, end, f)
        outermost = False
    return parse_tags(buf, p, end, kind, outermost, f)


@helper
def parse_llc(buf, p, end, f):
    """IEEE 802.2 LLC: SNAP (RFC 1042) with an EtherType, or the IP SAP; anything else carries no IP."""
    if end - p < 3:
        return _cut(p, f)
    saps = be16(buf, p)
    if saps == 0xAAAA and u8(buf, p + 2) == 0x03:
        if end - p < 8:
            return _cut(p, f)
        oui = be32(buf, p + 2) & 0xFFFFFF
        if oui == 0 or oui == 0x0000F8:
            return p + 8, be16(buf, p + 6)
        return p, NOTHING
    if saps == 0x0606 and u8(buf, p + 2) == 0x03:
        return p + 3, ETHERTYPE_IPV4
    return p, NOTHING


@helper
def parse_tags(buf, p, end, kind, outermost, f):
    """Follow tags and shims (VLAN, MPLS, PPPoE, PBB, E-TAG, Cisco metadata, NSH, bridged Ethernet) until IP, ARP or
    something else. `outermost` is true while only VLAN tags of the frame's own Ethernet header came before."""
    while f[DEPTH] < MAX_DEPTH:
        f[DEPTH] += 1
        step = 0  # bytes before the EtherType of what follows
        if kind == ETHERTYPE_IPV4 or kind == ETHERTYPE_IPV6 or kind == ETHERTYPE_ARP:
            return p, kind
        if kind == ETHERTYPE_VLAN or kind == ETHERTYPE_QINQ or kind == ETHERTYPE_QINQ_OLD:
            step = 2
            if outermost and end - p >= 4:
                _keep_vlan(be16(buf, p) & 0x0FFF, f)
        else:
            outermost = False
            if kind == ETHERTYPE_TEB:
                step = 12
            elif kind == ETHERTYPE_PBB:  # 4 bytes of I-TAG, then the customer's addresses
                step = 16
            elif kind == ETHERTYPE_ETAG or kind == ETHERTYPE_CISCO_META:
                step = 6
            elif kind == ETHERTYPE_MPLS or kind == ETHERTYPE_MPLS_MULTICAST:
                p, kind = _skip_labels(buf, p, end, f)
            elif kind == ETHERTYPE_PPPOE_SESSION:
                p, kind = _parse_pppoe(buf, p, end, f)
            elif kind == ETHERTYPE_NSH:
                p, kind = _parse_nsh(buf, p, end, f)
            else:
                return p, kind
        if step:
            if end - p < step + 2:
                return _cut(p, f)
            kind = be16(buf, p + step)
            p += step + 2
            if kind < ETHERTYPE_MIN:
                p, kind = parse_llc(buf, p, end, f)
    f[STATUS] = TOO_DEEP
    return p, NOTHING


@helper
def _keep_vlan(vid, f):
    if f[PRESENT] & HAS_VLAN == 0:
        f[VLAN] = vid
        f[PRESENT] |= HAS_VLAN
    elif f[PRESENT] & HAS_VLAN_INNER == 0:
        f[VLAN_INNER] = vid
        f[PRESENT] |= HAS_VLAN_INNER


@helper
def _skip_labels(buf, p, end, f):
    """MPLS label stack (RFC 3032). What follows is not named: a nibble of 4 or 6 is IP, 0 a pseudowire control word
    (RFC 4385) before Ethernet, anything else Ethernet."""
    while f[DEPTH] < MAX_DEPTH:
        f[DEPTH] += 1
        if end - p < 4:
            return _cut(p, f)
        bottom = u8(buf, p + 2) & 1
        p += 4
        if bottom:
            if end - p < 1:
                return _cut(p, f)
            kind = ip_by_version(buf, p)
            if kind != NOTHING:
                return p, kind
            if u8(buf, p) >> 4 == 0:
                return p + 4, ETHERTYPE_TEB
            if u8(buf, p) >> 4 == 1:  # associated channel (RFC 5586), no user traffic
                return p, NOTHING
            return p, ETHERTYPE_TEB
    f[STATUS] = TOO_DEEP
    return p, NOTHING


@helper
def _parse_pppoe(buf, p, end, f):
    """PPPoE session stage (RFC 2516): 6 bytes, then a PPP protocol of one or two bytes (RFC 1661 6.5)."""
    if end - p < 8:
        return _cut(p, f)
    p += 6
    if u8(buf, p) & 1:
        protocol = u8(buf, p)
        p += 1
    else:
        protocol = be16(buf, p)
        p += 2
    if protocol == PPP_IPV4:
        return p, ETHERTYPE_IPV4
    if protocol == PPP_IPV6:
        return p, ETHERTYPE_IPV6
    return p, NOTHING


@helper
def _parse_nsh(buf, p, end, f):
    """Network service header (RFC 8300): length in words in the low 6 bits of byte 1, next protocol in byte 3."""
    if end - p < 8:
        return _cut(p, f)
    length = (u8(buf, p + 1) & 0x3F) * 4
    following = u8(buf, p + 3)
    if length < 8 or end - p < length:
        return _cut(p, f)
    p += length
    if following == 1:
        return p, ETHERTYPE_IPV4
    if following == 2:
        return p, ETHERTYPE_IPV6
    if following == 3:
        return p, ETHERTYPE_TEB
    return p, NOTHING
