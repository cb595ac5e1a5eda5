"""Community ID v1: a flow's name that other tools compute too.

`1:` and the base64 of SHA-1 over seed, addresses, protocol, a zero and ports, the lower endpoint first.
Source: https://github.com/corelight/community-id-spec; SHA-1 FIPS 180-4; base64 RFC 4648.
"""

from engine import flow_row as r
from engine.constants import PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP
from engine.jit import helper, kernel
from engine.kernels.flow_key import icmp_counterpart

ID_BYTES = 30
_WORD = 0xFFFFFFFF


@helper
def _rotate(x, n):
    return (x << n | x >> (32 - n)) & _WORD


@helper
def _sha1(w):
    """SHA-1 of one block: the message's 16 words in w[0:16]; digest in w[80:85]. `w`: int64[85]."""
    for t in range(16, 80):
        w[t] = _rotate(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1)
    a, b, c, d, e = 0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0
    for t in range(80):
        if t < 20:
            f, constant = (b & c) | (~b & _WORD & d), 0x5A827999
        elif t < 40:
            f, constant = b ^ c ^ d, 0x6ED9EBA1
        elif t < 60:
            f, constant = (b & c) | (b & d) | (c & d), 0x8F1BBCDC
        else:
            f, constant = b ^ c ^ d, 0xCA62C1D6
        following = (_rotate(a, 5) + f + e + constant + w[t]) & _WORD
        a, b, c, d, e = following, a, _rotate(b, 30), c, d
    w[80] = (0x67452301 + a) & _WORD
    w[81] = (0xEFCDAB89 + b) & _WORD
    w[82] = (0x98BADCFE + c) & _WORD
    w[83] = (0x10325476 + d) & _WORD
    w[84] = (0xC3D2E1F0 + e) & _WORD


@helper
def _put(message, at, value, count):
    """The `count` low bytes of value, most significant first."""
    for n in range(count):
        message[at + n] = (value >> (8 * (count - 1 - n))) & 0xFF
    return at + count


@helper
def _put_address(message, at, hi, lo, v6):
    if v6:
        at = _put(message, at, hi, 8)
        return _put(message, at, lo, 8)
    return _put(message, at, lo, 4)


@helper
def _put_flow(message, records, slot):
    """The bytes that are hashed, without the seed. Returns where they end."""
    rest = records[slot, r.R_REST]
    bits = records[slot, r.R_STATE]
    proto = rest >> r.REST_PROTO & 0xFF
    port_a, port_b = rest & 0xFFFF, rest >> r.REST_PORT_B & 0xFFFF
    swap = False
    if bits & r.STATE_ICMP:
        kind = bits >> r.STATE_ICMP_TYPE & 0xFF
        if icmp_counterpart(proto, kind) < 0:  # goes one way: sender first, whatever the addresses
            swap = bits & r.STATE_CLIENT_B != 0
    v6 = rest >> r.REST_V6 & 1
    a_hi, a_lo = records[slot, r.R_A_HI], records[slot, r.R_A_LO]
    b_hi, b_lo = records[slot, r.R_B_HI], records[slot, r.R_B_LO]
    if swap:
        a_hi, a_lo, b_hi, b_lo = b_hi, b_lo, a_hi, a_lo
        port_a, port_b = port_b, port_a
    at = _put_address(message, 2, a_hi, a_lo, v6)
    at = _put_address(message, at, b_hi, b_lo, v6)
    at = _put(message, at, proto, 1)
    at = _put(message, at, 0, 1)
    ported = proto == PROTO_TCP or proto == PROTO_UDP or proto == PROTO_SCTP
    if (ported and bits & r.STATE_PORTS) or (bits & r.STATE_ICMP and (proto == PROTO_ICMP or proto == PROTO_ICMPV6)):
        at = _put(message, at, port_a, 2)
        at = _put(message, at, port_b, 2)
    return at


@helper
def _base64(value):
    if value < 26:
        return value + 65
    if value < 52:
        return value + 71
    if value < 62:
        return value - 4
    return 43 if value == 62 else 47


@kernel
def community_ids(records, slots, count, first, w, message, text):
    """The Community ID of each of `count` records, from row `first` of the text on.

    Args:
        records: int64[slots, N_WORDS]. slots: int32[>= count].
        w: int64[85], message: int64[64], scratch.
        text: uint8[rows * ID_BYTES], written: ID_BYTES for each.
    """
    for n in range(count):
        message[:] = 0
        length = _put_flow(message, records, slots[n])
        message[length] = 0x80
        for t in range(15):
            w[t] = message[4 * t] << 24 | message[4 * t + 1] << 16 | message[4 * t + 2] << 8 | message[4 * t + 3]
        w[15] = length * 8
        _sha1(w)
        at = (first + n) * ID_BYTES
        text[at] = 49
        text[at + 1] = 58
        at += 2
        for block in range(7):
            bit = 24 * block  # four digits of six bits each, from the digest's bits 24 * block on
            word = w[80 + bit // 32] << 32
            if bit // 32 < 4:
                word |= w[81 + bit // 32]
            group = word >> (40 - bit % 32) & 0xFFFFFF
            for digit in range(4):
                text[at + digit] = _base64(group >> (18 - 6 * digit) & 63)
            at += 4
        text[at - 1] = 61  # 20 bytes leave one digit of padding
