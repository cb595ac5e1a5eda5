"""What a tunnel carries: where the inner packet starts, and what it starts with."""

from engine.constants import (
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_TEB,
    PORT_GENEVE,
    PORT_GTPU,
    PORT_VXLAN,
    PROTO_GRE,
    PROTO_IPIP,
    PROTO_IPV6,
    PROTO_UDP,
)
from engine.jit import be16, helper, u8
from engine.kernels.fields import DST_PORT, LATER_FRAGMENT, NOTHING, PAYLOAD, PAYLOAD_LEN, PRESENT, SRC_PORT, UPPER
from engine.kernels.link import ip_by_version
from engine.packets import (
    ENCAP_6IN4,
    ENCAP_GENEVE,
    ENCAP_GRE,
    ENCAP_GTPU,
    ENCAP_IPIP,
    ENCAP_VXLAN,
    HAS_PAYLOAD,
    HAS_PORTS,
)


@helper
def find_tunnel(buf, end, f):
    """Look for a tunnel behind the decoded headers. Returns (encap or NOTHING, first inner byte, its EtherType)."""
    if f[PRESENT] & HAS_PAYLOAD == 0 or f[LATER_FRAGMENT]:  # the tunnel's header is in the first fragment
        return NOTHING, 0, NOTHING
    p = f[PAYLOAD]
    proto = f[UPPER]
    if proto == PROTO_IPIP:
        return ENCAP_IPIP, p, ETHERTYPE_IPV4
    if proto == PROTO_IPV6:
        return ENCAP_6IN4, p, ETHERTYPE_IPV6
    if proto == PROTO_GRE:
        return _gre(buf, end, f)
    if proto == PROTO_UDP and f[PRESENT] & HAS_PORTS and end - p >= 8:
        if f[DST_PORT] == PORT_VXLAN:  # RFC 7348 5: the I flag must be set
            if u8(buf, p) & 0x08:
                return ENCAP_VXLAN, p + 8, ETHERTYPE_TEB
        elif f[DST_PORT] == PORT_GENEVE:  # RFC 8926 3.4: version 0, options in words
            if u8(buf, p) >> 6 == 0:
                return ENCAP_GENEVE, p + 8 + (u8(buf, p) & 0x3F) * 4, be16(buf, p + 2)
        elif f[DST_PORT] == PORT_GTPU or f[SRC_PORT] == PORT_GTPU:
            return _gtpu(buf, p, end)
    return NOTHING, 0, NOTHING


@helper
def _gre(buf, end, f):
    """RFC 2784 and 2890: checksum, key and sequence number are there as the flags say; version 1 (RFC 2637) is PPP.

    The row's payload moves behind the optional fields. ERSPAN has Ethernet behind a header of its own.
    """
    start = f[PAYLOAD] - 4
    flags = be16(buf, start)
    kind = be16(buf, start + 2)
    if flags & 0x4000:  # source routing (RFC 1701), long gone
        return ENCAP_GRE, start, NOTHING
    size = 4 + (4 if flags & 0x8000 else 0) + (4 if flags & 0x2000 else 0) + (4 if flags & 0x1000 else 0)
    if flags & 0x0007 == 1 and flags & 0x0080:
        size += 4
    if size - 4 > f[PAYLOAD_LEN]:
        return ENCAP_GRE, start, NOTHING
    f[PAYLOAD] = start + size
    f[PAYLOAD_LEN] -= size - 4
    if flags & 0x0007 != 0:
        return ENCAP_GRE, start + size, NOTHING
    if kind == 0x88BE:  # ERSPAN: type I has no header, type II (sequence number present) 8 bytes
        return ENCAP_GRE, start + size + (8 if flags & 0x1000 else 0), ETHERTYPE_TEB
    return ENCAP_GRE, start + size, kind


@helper
def _gtpu(buf, p, end):
    """3GPP TS 29.281 5.1: version 1, message 255 is a user packet; extension headers chain by their last byte."""
    flags = u8(buf, p)
    if flags >> 5 != 1 or flags & 0x10 == 0 or u8(buf, p + 1) != 255:
        return NOTHING, 0, NOTHING
    at = p + 8
    if flags & 0x07:
        if end - at < 4:
            return ENCAP_GTPU, at, NOTHING
        following = u8(buf, at + 3) if flags & 0x04 else 0
        at += 4
        steps = 0
        while following != 0 and steps < 8:
            if end - at < 4:
                return ENCAP_GTPU, at, NOTHING
            size = u8(buf, at) * 4
            if size == 0 or end - at < size:
                return ENCAP_GTPU, at, NOTHING
            following = u8(buf, at + size - 1)
            at += size
            steps += 1
    if end - at < 1:
        return ENCAP_GTPU, at, NOTHING
    return ENCAP_GTPU, at, ip_by_version(buf, at)
