"""IPv4, IPv6 with its extension headers, and ARP."""

from engine.constants import (
    PROTO_AH,
    PROTO_DSTOPTS,
    PROTO_FRAGMENT,
    PROTO_HOPOPTS,
    PROTO_NO_NEXT,
    PROTO_ROUTING,
)
from engine.jit import be16, be32, be64, helper, u8
from engine.kernels.fields import (
    ARP_DST,
    ARP_OP,
    ARP_SRC,
    DST_HI,
    DST_LO,
    FRAGMENT_ID,
    IP_END,
    IP_VERSION,
    LATER_FRAGMENT,
    MAX_EXTENSIONS,
    PRESENT,
    PROTO,
    SRC_HI,
    SRC_LO,
    STATUS,
    TTL,
    UPPER,
    UPPER_AT,
    WIRE_END,
)
from engine.packets import (
    BAD_NETWORK,
    HAS_ARP,
    HAS_IP,
    HAS_PROTO,
    IS_FRAGMENT,
    OK,
    TOO_DEEP,
    TRUNCATED_NETWORK,
)


@helper
def parse_ipv4(buf, p, end, f):
    """IPv4 header (RFC 791 3.1). Sets f[STATUS]; on OK f[UPPER] at f[UPPER_AT] is what the packet carries."""
    if end - p < 20:
        f[STATUS] = TRUNCATED_NETWORK
        return
    header = (u8(buf, p) & 0x0F) * 4
    if u8(buf, p) >> 4 != 4 or header < 20:
        f[STATUS] = BAD_NETWORK
        return
    f[IP_VERSION] = 4
    f[SRC_HI] = 0
    f[SRC_LO] = be32(buf, p + 12)
    f[DST_HI] = 0
    f[DST_LO] = be32(buf, p + 16)
    f[TTL] = u8(buf, p + 8)
    f[PROTO] = u8(buf, p + 9)
    f[PRESENT] |= HAS_IP | HAS_PROTO
    fragment = be16(buf, p + 6)
    if fragment & 0x3FFF:  # more fragments, or an offset
        f[PRESENT] |= IS_FRAGMENT
        f[FRAGMENT_ID] = be16(buf, p + 4)
    f[LATER_FRAGMENT] = 1 if fragment & 0x1FFF else 0
    total = be16(buf, p + 2)
    if total == 0:  # left to the network card by segmentation offload: to the end of the frame
        total = f[WIRE_END] - p
    f[IP_END] = p + total
    if total < header:
        f[STATUS] = BAD_NETWORK
        return
    if end - p < header:
        f[STATUS] = TRUNCATED_NETWORK
        return
    f[STATUS] = OK
    f[UPPER] = f[PROTO]
    f[UPPER_AT] = p + header
    _skip_ah(buf, end, f)


@helper
def parse_ipv6(buf, p, end, f):
    """IPv6 header (RFC 8200 3) and its chain of extension headers."""
    if end - p < 40:
        f[STATUS] = TRUNCATED_NETWORK
        return
    if u8(buf, p) >> 4 != 6:
        f[STATUS] = BAD_NETWORK
        return
    f[IP_VERSION] = 6
    f[SRC_HI] = be64(buf, p + 8)
    f[SRC_LO] = be64(buf, p + 16)
    f[DST_HI] = be64(buf, p + 24)
    f[DST_LO] = be64(buf, p + 32)
    f[TTL] = u8(buf, p + 7)
    f[LATER_FRAGMENT] = 0
    f[PRESENT] |= HAS_IP
    length = be16(buf, p + 4)
    following = u8(buf, p + 6)
    if length == 0 and following != PROTO_NO_NEXT:  # offload, or a jumbogram (RFC 2675)
        f[IP_END] = f[WIRE_END]
    else:
        f[IP_END] = p + 40 + length
    f[STATUS] = OK
    _skip_extensions(buf, p + 40, end, following, f)


@helper
def _skip_extensions(buf, p, end, following, f):
    """RFC 8200 4: hop-by-hop, routing and destination options, fragment; then AH, which stays the protocol.

    Where the chain is cut off, the protocol is the last one it named."""
    depth = 0
    f[PRESENT] |= HAS_PROTO
    f[PROTO] = following
    while (
        following == PROTO_HOPOPTS
        or following == PROTO_ROUTING
        or following == PROTO_DSTOPTS
        or following == PROTO_FRAGMENT
    ):
        if f[LATER_FRAGMENT]:  # the rest of the chain is in the first fragment
            break
        depth += 1
        if depth > MAX_EXTENSIONS:
            f[STATUS] = TOO_DEEP
            return
        if p + 8 > f[IP_END]:
            f[STATUS] = BAD_NETWORK
            return
        if end - p < 8:
            f[STATUS] = TRUNCATED_NETWORK
            return
        if following == PROTO_FRAGMENT:
            length = 8
            fragment = be16(buf, p + 2)
            if fragment & 0xFFF9:  # offset, or the M bit; an atomic fragment (RFC 6946) is whole
                f[PRESENT] |= IS_FRAGMENT
                f[FRAGMENT_ID] = (be32(buf, p + 4) ^ 0x80000000) - 0x80000000
            if fragment & 0xFFF8:
                f[LATER_FRAGMENT] = 1
        else:
            length = (u8(buf, p + 1) + 1) * 8
        following = u8(buf, p)
        f[PROTO] = following
        p += length
        if p > f[IP_END]:
            f[STATUS] = BAD_NETWORK
            return
    f[UPPER] = following
    f[UPPER_AT] = p
    _skip_ah(buf, end, f)


@helper
def _skip_ah(buf, end, f):
    """Authentication header (RFC 4302 2): the transport header behind it is in clear."""
    if f[UPPER] != PROTO_AH or f[LATER_FRAGMENT]:
        return
    p = f[UPPER_AT]
    if p + 12 > f[IP_END]:
        f[STATUS] = BAD_NETWORK
        return
    if end - p < 12:
        f[STATUS] = TRUNCATED_NETWORK
        return
    p += (u8(buf, p + 1) + 2) * 4
    if p > f[IP_END]:
        f[STATUS] = BAD_NETWORK
        return
    f[UPPER] = u8(buf, f[UPPER_AT])
    f[UPPER_AT] = p


@helper
def parse_arp(buf, p, end, f):
    """ARP for IPv4 over Ethernet-like hardware (RFC 826). Other address sizes are a whole frame without a row field."""
    if end - p < 8:
        f[STATUS] = TRUNCATED_NETWORK
        return
    hardware = u8(buf, p + 4)
    if be16(buf, p + 2) != 0x0800 or u8(buf, p + 5) != 4:
        return
    if end - p < 8 + 2 * hardware + 8:
        f[STATUS] = TRUNCATED_NETWORK
        return
    f[ARP_OP] = be16(buf, p + 6) & 0x7FFF
    f[ARP_SRC] = be32(buf, p + 8 + hardware)
    f[ARP_DST] = be32(buf, p + 12 + 2 * hardware)
    f[PRESENT] |= HAS_ARP
