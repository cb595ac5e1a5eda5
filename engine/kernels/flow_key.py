"""Which flow a packet belongs to: the key, in the same order for both directions, and its hash.

A key is one row of int64[rows + 1, N_KEY]; the last row is scratch for the header that an ICMP error quotes.
The hash is multilinear with multipliers drawn at each start, so that nobody outside can aim at one chain of the table.
"""

import numpy as np

from engine import flow_row as r
from engine import packets as k
from engine.constants import PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP
from engine.jit import be16, be32, be64, helper, kernel, u8

K_A_HI, K_A_LO, K_B_HI, K_B_LO, K_REST, K_TAG, K_FLAGS, _, N_KEY = range(9)  # one cache line
N_SEEDS = 6

# K_FLAGS
KEY_NONE = 1  # no IP header: no flow
KEY_FROM_B = 2  # sent by endpoint B
KEY_INNER = 4  # the inner packet of a tunnel
KEY_LATER = 8  # a later fragment: the ports are in another packet
KEY_PORTS = 16
KEY_ICMP = 32

_NO_COUNTERPART = -1


@helper
def icmp_counterpart(proto, kind):
    """The ICMP type that answers `kind` (or that it answers), -1 when there is none.

    Source: Community ID 1.0, table of two-way ICMP and ICMPv6 types."""
    if proto == PROTO_ICMP:
        if kind == 8:
            return 0
        if kind == 0:
            return 8
        if kind == 13 or kind == 15 or kind == 17:
            return kind + 1
        if kind == 14 or kind == 16 or kind == 18:
            return kind - 1
        if kind == 10:
            return 9
        if kind == 9:
            return 10
        return _NO_COUNTERPART
    if kind == 128 or kind == 130 or kind == 133 or kind == 135 or kind == 139 or kind == 144:
        return kind + 1
    if kind == 129 or kind == 131 or kind == 134 or kind == 136 or kind == 140 or kind == 145:
        return kind - 1
    return _NO_COUNTERPART


@helper
def _put_key(keys, i, kind, src_hi, src_lo, dst_hi, dst_lo, src_port, dst_port, rest, seeds):
    """Write row `i`: the lower (address, port) is endpoint A. Addresses are uint64, the rest int64."""
    swap = False
    if src_hi != dst_hi:
        swap = src_hi > dst_hi
    elif src_lo != dst_lo:
        swap = src_lo > dst_lo
    else:
        swap = src_port > dst_port
    if swap:
        src_hi, src_lo, dst_hi, dst_lo = dst_hi, dst_lo, src_hi, src_lo
        src_port, dst_port = dst_port, src_port
        kind |= KEY_FROM_B
    rest |= src_port | dst_port << r.REST_PORT_B
    keys[i, K_A_HI] = np.int64(src_hi)
    keys[i, K_A_LO] = np.int64(src_lo)
    keys[i, K_B_HI] = np.int64(dst_hi)
    keys[i, K_B_LO] = np.int64(dst_lo)
    keys[i, K_REST] = rest
    keys[i, K_FLAGS] = kind
    keys[i, K_TAG] = _tag(src_hi, src_lo, dst_hi, dst_lo, np.uint64(rest), seeds)


@helper
def _tag(a_hi, a_lo, b_hi, b_lo, rest, seeds):
    """31 bits of the hash."""
    h = seeds[5] + a_hi * seeds[0] + a_lo * seeds[1] + b_hi * seeds[2] + b_lo * seeds[3] + rest * seeds[4]
    h ^= h >> np.uint64(32)
    h *= np.uint64(0xD6E8FEB86659FD93)
    return np.int64(h >> np.uint64(33))


@helper
def tag_of(records, slot, seeds):
    """The tag of a record's key."""
    return _tag(
        np.uint64(records[slot, r.R_A_HI]), np.uint64(records[slot, r.R_A_LO]), np.uint64(records[slot, r.R_B_HI]),
        np.uint64(records[slot, r.R_B_LO]), np.uint64(records[slot, r.R_REST]), seeds,
    )  # fmt: skip


@kernel
def find_keys(short, int_, address, present, count, source, seeds, keys):
    """The keys of rows 0 to count - 1; of the inner packet where a tunnel carries one.

    Args:
        short, int_, address, present: as in PacketBatch. source: number of the batch's source, 0 to 255.
        seeds: uint64[N_SEEDS], the first five odd. keys: int64[> count, N_KEY], written.
    """
    for i in range(count):
        flags = np.int64(present[i])
        if flags & k.HAS_IP == 0:
            keys[i, K_FLAGS] = KEY_NONE
            keys[i, K_TAG] = 0
            continue
        rest = source << r.REST_SOURCE
        rest |= (np.int64(short[k.S_VLAN, i]) if flags & k.HAS_VLAN else r.NO_VLAN) << r.REST_VLAN
        a, p = k.A_SRC_HI, k.I_SRC_PORT
        kind = np.int64(0)
        proto = np.int64(0)
        icmp = np.int64(-1)
        code = np.int64(0)
        if flags & k.HAS_INNER_IP:
            a = k.A_INNER_SRC_HI
            p = k.I_INNER_SRC_PORT
            kind = np.int64(KEY_INNER)
            v6 = flags & k.IS_INNER_IPV6 != 0
            if flags & k.HAS_INNER_PROTO:
                proto = np.int64(short[k.S_INNER_PROTO, i])
            if flags & k.HAS_INNER_PORTS:
                kind |= KEY_PORTS
            if flags & k.HAS_INNER_ICMP:
                icmp = np.int64(short[k.S_INNER_ICMP_TYPE, i])
                code = np.int64(short[k.S_INNER_ICMP_CODE, i])
        else:
            v6 = short[k.S_IP_VERSION, i] == 6
            if flags & k.HAS_PROTO:
                proto = np.int64(short[k.S_PROTO, i])
            if flags & k.HAS_PORTS:
                kind |= KEY_PORTS
            if flags & k.IS_LATER_FRAGMENT:
                kind |= KEY_LATER
            if flags & k.HAS_ICMP:
                icmp = np.int64(short[k.S_ICMP_TYPE, i])
                code = np.int64(short[k.S_ICMP_CODE, i])
        src_port = np.int64(0)
        dst_port = np.int64(0)
        if kind & KEY_PORTS:
            src_port = np.int64(int_[p, i])
            dst_port = np.int64(int_[p + 1, i])
        elif icmp >= 0:
            kind |= KEY_ICMP
            src_port, dst_port = _icmp_ports(proto, icmp, code)
        rest |= proto << r.REST_PROTO
        if v6:
            rest |= 1 << r.REST_V6
        _put_key(
            keys, i, kind, address[a, i], address[a + 1, i], address[a + 2, i], address[a + 3, i],
            src_port, dst_port, rest, seeds,
        )  # fmt: skip


@helper
def _icmp_ports(proto, kind, code):
    """What stands for the ports: request and reply of a pair fold into one flow, other messages go one way."""
    other = icmp_counterpart(proto, kind)
    return kind, (other if other >= 0 else code)


@helper
def quoted_key(buf, p, end, rest, seeds, keys):
    """Write the key of the packet that an ICMP error quotes at `p` into the last row; False when it is cut off.

    `rest`: K_REST of the error itself: VLAN and source are taken from it. Source: RFC 792, RFC 4443 3.1.
    """
    scratch = keys.shape[0] - 1
    if end - p < 28:
        return False
    rest &= ~((1 << r.REST_VLAN) - 1 | 1 << r.REST_V6)
    zero = np.uint64(0)
    src_hi = dst_hi = zero
    if u8(buf, p) >> 4 == 4:
        proto = u8(buf, p + 9)
        src_lo = np.uint64(be32(buf, p + 12))
        dst_lo = np.uint64(be32(buf, p + 16))
        at = p + (u8(buf, p) & 0x0F) * 4
        if at - p < 20:
            return False
    elif u8(buf, p) >> 4 == 6 and end - p >= 48:
        proto = u8(buf, p + 6)
        src_hi = np.uint64(be64(buf, p + 8))
        src_lo = np.uint64(be64(buf, p + 16))
        dst_hi = np.uint64(be64(buf, p + 24))
        dst_lo = np.uint64(be64(buf, p + 32))
        rest |= 1 << r.REST_V6
        at = p + 40
    else:
        return False
    if end - at < 4:
        return False
    src_port = np.int64(0)
    dst_port = np.int64(0)
    if proto == PROTO_TCP or proto == PROTO_UDP or proto == PROTO_SCTP:
        src_port = be16(buf, at)
        dst_port = be16(buf, at + 2)
    elif proto == PROTO_ICMP or proto == PROTO_ICMPV6:
        src_port, dst_port = _icmp_ports(proto, u8(buf, at), u8(buf, at + 1))
    rest |= proto << r.REST_PROTO
    _put_key(keys, scratch, np.int64(0), src_hi, src_lo, dst_hi, dst_lo, src_port, dst_port, rest, seeds)
    return True


@helper
def fragment_hash(keys, i, identification, seeds):
    """64 bits that name the datagram of a fragment: addresses, protocol, VLAN, source and identification.

    Source: RFC 791 3.2, RFC 8200 4.5."""
    direction = keys[i, K_FLAGS] & KEY_FROM_B
    rest = np.uint64(keys[i, K_REST] & ~0xFFFFFFFF) ^ np.uint64(identification << 2 | direction)
    a_lo, b_lo = np.uint64(keys[i, K_A_LO]), np.uint64(keys[i, K_B_LO])
    h = seeds[5] + np.uint64(keys[i, K_A_HI]) * seeds[0] + a_lo * seeds[1]
    h += np.uint64(keys[i, K_B_HI]) * seeds[2] + b_lo * seeds[3] + rest * seeds[4]
    h ^= h >> np.uint64(32)
    return np.int64(h * np.uint64(0xD6E8FEB86659FD93))
