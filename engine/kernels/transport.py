"""Transport headers: ports, TCP fields, ICMP types, and where the payload lies."""

from engine.constants import (
    PROTO_DCCP,
    PROTO_ESP,
    PROTO_GRE,
    PROTO_ICMP,
    PROTO_ICMPV6,
    PROTO_IGMP,
    PROTO_NO_NEXT,
    PROTO_SCTP,
    PROTO_TCP,
    PROTO_UDP,
    PROTO_UDPLITE,
)
from engine.jit import be16, be32, helper, u8
from engine.kernels.fields import (
    DST_PORT,
    ICMP_CODE,
    ICMP_TYPE,
    IP_END,
    LATER_FRAGMENT,
    PAYLOAD,
    PAYLOAD_LEN,
    PRESENT,
    SRC_PORT,
    STATUS,
    TCP_ACK,
    TCP_FLAGS,
    TCP_SEQ,
    TCP_WINDOW,
    UPPER,
    UPPER_AT,
)
from engine.packets import BAD_TRANSPORT, HAS_ICMP, HAS_PAYLOAD, HAS_PORTS, HAS_TCP, IS_FRAGMENT, TRUNCATED_TRANSPORT


@helper
def parse_transport(buf, end, f):
    """Decode the header f[UPPER] at f[UPPER_AT]. Reads stop at `end` and at the IP packet's own end, so padding of
    short Ethernet frames is never taken for data."""
    p = f[UPPER_AT]
    proto = f[UPPER]
    if end > f[IP_END]:
        end = f[IP_END]
    if f[LATER_FRAGMENT]:
        _set_payload(p, f)
    elif proto == PROTO_TCP:
        _parse_tcp(buf, p, end, f)
    elif proto == PROTO_UDP:
        _parse_udp(buf, p, end, f)
    elif proto == PROTO_ICMP or proto == PROTO_ICMPV6:
        _parse_icmp(buf, p, end, f)
    elif proto == PROTO_SCTP:  # RFC 9260 3.1
        _parse_ports(buf, p, end, 12, f)
    elif proto == PROTO_UDPLITE:  # RFC 3828 3.1
        _parse_ports(buf, p, end, 8, f)
    elif proto == PROTO_DCCP:  # RFC 4340 5.1, the data offset counts words
        if _parse_ports(buf, p, end, 12, f) and u8(buf, p + 4) >= 3:
            _set_payload(p + u8(buf, p + 4) * 4, f)
    elif proto == PROTO_ESP:  # RFC 4303 2: SPI and sequence number, the rest is encrypted
        _whole_header(p, end, 8, f)
    elif proto == PROTO_GRE:
        _whole_header(p, end, 4, f)  # moved behind the optional fields by `tunnel`
    elif proto == PROTO_IGMP:
        if end - p < 8:
            f[STATUS] = TRUNCATED_TRANSPORT if end < f[IP_END] else BAD_TRANSPORT
    elif proto != PROTO_NO_NEXT:
        _set_payload(p, f)


@helper
def _set_payload(p, f):
    """The payload starts at `p` and ends where IP says."""
    if p > f[IP_END]:
        f[STATUS] = BAD_TRANSPORT
        return
    f[PAYLOAD] = p
    f[PAYLOAD_LEN] = f[IP_END] - p
    f[PRESENT] |= HAS_PAYLOAD


@helper
def _whole_header(p, end, length, f):
    """True, with the payload behind it, when `length` bytes of header were captured."""
    if end - p < length:
        f[STATUS] = TRUNCATED_TRANSPORT if end < f[IP_END] else BAD_TRANSPORT
        return False
    _set_payload(p + length, f)
    return True


@helper
def _parse_ports(buf, p, end, length, f):
    """Two ports first, as all transports with ports have them; then `length` bytes of header in all."""
    if end - p >= 4:
        f[SRC_PORT] = be16(buf, p)
        f[DST_PORT] = be16(buf, p + 2)
        f[PRESENT] |= HAS_PORTS
    return _whole_header(p, end, length, f)


@helper
def _parse_tcp(buf, p, end, f):
    """RFC 9293 3.1."""
    if not _parse_ports(buf, p, end, 20, f):
        if end - p >= 16:
            _tcp_fields(buf, p, f)
            if (u8(buf, p + 12) >> 4) * 4 >= 20:
                _set_payload(p + (u8(buf, p + 12) >> 4) * 4, f)
        return
    _tcp_fields(buf, p, f)
    header = (u8(buf, p + 12) >> 4) * 4
    if header < 20 or p + header > f[IP_END]:
        f[STATUS] = BAD_TRANSPORT
        f[PRESENT] &= ~HAS_PAYLOAD
        return
    _set_payload(p + header, f)
    if p + header > end:
        f[STATUS] = TRUNCATED_TRANSPORT


@helper
def _tcp_fields(buf, p, f):
    f[TCP_SEQ] = be32(buf, p + 4)
    f[TCP_ACK] = be32(buf, p + 8)
    f[TCP_FLAGS] = u8(buf, p + 13)
    f[TCP_WINDOW] = be16(buf, p + 14)
    f[PRESENT] |= HAS_TCP


@helper
def _parse_udp(buf, p, end, f):
    """RFC 768. A length of 0 is a jumbogram's or left to offload; a fragment's length is the whole datagram's."""
    if not _parse_ports(buf, p, end, 8, f):
        if end - p >= 6 and end < f[IP_END]:
            length = be16(buf, p + 4)
            if length == 0 or f[PRESENT] & IS_FRAGMENT:
                _set_payload(p + 8, f)
            elif length >= 8 and p + length <= f[IP_END]:
                _set_payload(p + 8, f)
                f[PAYLOAD_LEN] = length - 8
        return
    length = be16(buf, p + 4)
    if length == 0 or f[PRESENT] & IS_FRAGMENT:
        return
    if length < 8 or p + length > f[IP_END]:
        f[STATUS] = BAD_TRANSPORT
        return
    f[PAYLOAD_LEN] = length - 8


@helper
def _parse_icmp(buf, p, end, f):
    """RFC 792, RFC 4443 2.1: type, code, checksum, four bytes that depend on the type; then the payload."""
    if end - p >= 2:
        f[ICMP_TYPE] = u8(buf, p)
        f[ICMP_CODE] = u8(buf, p + 1)
        f[PRESENT] |= HAS_ICMP
    _whole_header(p, end, 8, f)
