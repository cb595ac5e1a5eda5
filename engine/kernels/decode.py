"""One pass over a batch: frames in, columns out."""

import numpy as np

from engine import packets as k
from engine.constants import ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, LINKTYPE_ETHERNET
from engine.jit import helper, kernel
from engine.kernels import fields as x
from engine.kernels.entropy import entropy_of
from engine.kernels.link import parse_link, parse_tags
from engine.kernels.network import parse_arp, parse_ipv4, parse_ipv6
from engine.kernels.plain import NOT_PLAIN, decode_plain
from engine.kernels.transport import parse_transport
from engine.kernels.tunnel import find_tunnel


@kernel
def decode_frames(
    arena, frames, first_frame_no, count, short, int_, long, address, entropy, present, f, g, logs, histogram, totals
):
    """Decode `count` frames into rows 0 to count - 1.

    Args:
        arena, frames: as in FrameBatch. Every offset + caplen lies within the arena.
        first_frame_no: number of frame 0.
        short, int_, long, address, entropy, present: as in PacketBatch, written.
        f, g: int64[N_FIELDS], scratch for the frame and for what a tunnel in it carries.
        logs, histogram: as in `entropy.entropy_of`.
        totals: int64[2], written: undecodable rows, sum of wirelen in bytes.
    """
    undecodable = 0
    wire_bytes = 0
    for i in range(count):
        p = frames[k.F_OFFSET, i]
        end = p + frames[k.F_CAPLEN, i]
        wirelen = frames[k.F_WIRELEN, i]
        link_type = frames[k.F_LINK_TYPE, i]
        flags = NOT_PLAIN
        if link_type == LINKTYPE_ETHERNET:
            flags = decode_plain(arena, p, end, i, short, int_, long, address)
        if flags != NOT_PLAIN:
            start = np.int64(int_[k.I_PAYLOAD, i])
            stop = np.int64(int_[k.I_PAYLOAD_END, i])
        else:
            flags, start, stop = _decode_any(arena, p, end, wirelen, link_type, f, g, i, short, int_, long, address)
            if f[x.STATUS] > k.NOT_IP:
                undecodable += 1
        if stop > start:
            entropy[i] = entropy_of(arena, start, stop, logs, histogram)
            flags |= k.HAS_ENTROPY
        present[i] = flags

        ts = frames[k.F_TS_NS, i]
        microseconds = ts // 1000
        long[k.L_TS, i] = microseconds
        short[k.S_TS_NANOS, i] = ts - microseconds * 1000
        long[k.L_FRAME_NO, i] = first_frame_no + i
        long[k.L_WIRELEN, i] = wirelen
        int_[k.I_CAPLEN, i] = end - p
        wire_bytes += wirelen
    totals[0] = undecodable
    totals[1] = wire_bytes


@helper
def _decode_any(buf, p, end, wirelen, link_type, f, g, i, short, int_, long, address):
    """Any frame, through the scratch records. Returns (groups that became valid, captured payload's start, stop)."""
    f[x.PRESENT] = 0
    f[x.DEPTH] = 0
    f[x.WIRE_END] = p + wirelen
    _decode_frame(buf, p, end, link_type, f)
    flags = f[x.PRESENT]
    start = stop = 0
    if flags & k.HAS_PAYLOAD:
        payload_end = f[x.PAYLOAD] + f[x.PAYLOAD_LEN]
        # The carrier's own end, so that padding behind it is never taken for an inner packet.
        inner = _decode_tunnel(buf, min(end, payload_end), f, g, i, short, int_, long, address)
        start = f[x.PAYLOAD]
        stop = min(end, start + f[x.PAYLOAD_LEN])
        long[k.L_PAYLOAD_LEN, i] = f[x.PAYLOAD_LEN]
        if inner & k.HAS_INNER_IP == 0:  # else the flow table looks at the inner packet's
            int_[k.I_PAYLOAD, i] = start
            int_[k.I_PAYLOAD_END, i] = stop
        flags |= inner
    if flags & k.IS_FRAGMENT:
        int_[k.I_FRAGMENT, i] = f[x.FRAGMENT_ID]
        flags |= k.IS_LATER_FRAGMENT if f[x.LATER_FRAGMENT] else 0
    _store(f, flags, i, short, int_, long, address)
    return flags, start, stop


@helper
def _decode_frame(buf, p, end, link_type, f):
    """Link layer, first IP header, its transport header. Sets f[STATUS]."""
    f[x.STATUS] = k.NOT_IP
    p, kind = parse_link(buf, p, end, link_type, f)
    _decode_packet(buf, p, end, kind, f)


@helper
def _decode_packet(buf, p, end, kind, f):
    if kind == ETHERTYPE_IPV4:
        parse_ipv4(buf, p, end, f)
    elif kind == ETHERTYPE_IPV6:
        parse_ipv6(buf, p, end, f)
    else:
        if kind == ETHERTYPE_ARP:
            parse_arp(buf, p, end, f)
        return
    if f[x.STATUS] == k.OK:
        parse_transport(buf, end, f)


@helper
def _decode_tunnel(buf, end, f, g, i, short, int_, long, address):
    """Store what a tunnel carries into the inner columns of row `i`; returns the groups that became valid."""
    encap, p, kind = find_tunnel(buf, end, f)
    if encap == x.NOTHING:
        return 0
    short[k.S_ENCAP, i] = encap
    flags = k.HAS_ENCAP
    if p > end:
        return flags
    g[x.PRESENT] = 0
    g[x.STATUS] = k.NOT_IP
    g[x.DEPTH] = f[x.DEPTH]
    g[x.WIRE_END] = f[x.PAYLOAD] + f[x.PAYLOAD_LEN]
    p, kind = parse_tags(buf, p, end, kind, False, g)
    _decode_packet(buf, p, end, kind, g)
    if g[x.PRESENT] & k.HAS_IP:
        address[k.A_INNER_SRC_HI, i] = g[x.SRC_HI]
        address[k.A_INNER_SRC_LO, i] = g[x.SRC_LO]
        address[k.A_INNER_DST_HI, i] = g[x.DST_HI]
        address[k.A_INNER_DST_LO, i] = g[x.DST_LO]
        flags |= k.HAS_INNER_IP | (k.IS_INNER_IPV6 if g[x.IP_VERSION] == 6 else 0)
    if g[x.PRESENT] & k.HAS_PROTO:
        short[k.S_INNER_PROTO, i] = g[x.PROTO]
        flags |= k.HAS_INNER_PROTO
    if g[x.PRESENT] & k.HAS_PORTS:
        int_[k.I_INNER_SRC_PORT, i] = g[x.SRC_PORT]
        int_[k.I_INNER_DST_PORT, i] = g[x.DST_PORT]
        flags |= k.HAS_INNER_PORTS
    if g[x.PRESENT] & k.HAS_TCP:
        short[k.S_INNER_TCP_FLAGS, i] = g[x.TCP_FLAGS]
        long[k.L_INNER_SEQ, i] = g[x.TCP_SEQ]
        long[k.L_INNER_ACK, i] = g[x.TCP_ACK]
        flags |= k.HAS_INNER_TCP
    if g[x.PRESENT] & k.HAS_ICMP:
        short[k.S_INNER_ICMP_TYPE, i] = g[x.ICMP_TYPE]
        short[k.S_INNER_ICMP_CODE, i] = g[x.ICMP_CODE]
        flags |= k.HAS_INNER_ICMP
    if g[x.PRESENT] & k.HAS_PAYLOAD:
        long[k.L_INNER_PAYLOAD_LEN, i] = g[x.PAYLOAD_LEN]
        int_[k.I_PAYLOAD, i] = g[x.PAYLOAD]
        int_[k.I_PAYLOAD_END, i] = min(end, g[x.PAYLOAD] + g[x.PAYLOAD_LEN])
        flags |= k.HAS_INNER_PAYLOAD
    return flags


@helper
def _store(f, flags, i, short, int_, long, address):
    """Copy the groups that are present from the scratch record to row `i`."""
    short[k.S_STATUS, i] = f[x.STATUS]
    if flags & k.HAS_MAC:
        address[k.A_SRC_MAC, i] = f[x.SRC_MAC]
        address[k.A_DST_MAC, i] = f[x.DST_MAC]
    if flags & k.HAS_ETHERTYPE:
        int_[k.I_ETHERTYPE, i] = f[x.ETHERTYPE]
    if flags & k.HAS_VLAN:
        short[k.S_VLAN, i] = f[x.VLAN]
        short[k.S_VLAN_INNER, i] = f[x.VLAN_INNER]
    if flags & k.HAS_IP:
        short[k.S_IP_VERSION, i] = f[x.IP_VERSION]
        short[k.S_TTL, i] = f[x.TTL]
        short[k.S_PROTO, i] = f[x.PROTO]
        address[k.A_SRC_HI, i] = f[x.SRC_HI]
        address[k.A_SRC_LO, i] = f[x.SRC_LO]
        address[k.A_DST_HI, i] = f[x.DST_HI]
        address[k.A_DST_LO, i] = f[x.DST_LO]
    if flags & k.HAS_PORTS:
        int_[k.I_SRC_PORT, i] = f[x.SRC_PORT]
        int_[k.I_DST_PORT, i] = f[x.DST_PORT]
    if flags & k.HAS_TCP:
        short[k.S_TCP_FLAGS, i] = f[x.TCP_FLAGS]
        int_[k.I_TCP_WINDOW, i] = f[x.TCP_WINDOW]
        long[k.L_TCP_SEQ, i] = f[x.TCP_SEQ]
        long[k.L_TCP_ACK, i] = f[x.TCP_ACK]
    if flags & k.HAS_ICMP:
        short[k.S_ICMP_TYPE, i] = f[x.ICMP_TYPE]
        short[k.S_ICMP_CODE, i] = f[x.ICMP_CODE]
    if flags & k.HAS_ARP:
        short[k.S_ARP_OP, i] = f[x.ARP_OP]
        address[k.A_ARP_SRC, i] = f[x.ARP_SRC]
        address[k.A_ARP_DST, i] = f[x.ARP_DST]


def scratch() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What `decode_frames` needs besides batches: (f, g, histogram, totals)."""
    return (
        np.zeros(x.N_FIELDS, np.int64),
        np.zeros(x.N_FIELDS, np.int64),
        np.zeros(1024, np.uint32),
        np.zeros(2, np.int64),
    )
