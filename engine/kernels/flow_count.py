"""One packet into the record of its flow: counters, sizes, gaps, TCP flags, handshake and retransmissions."""

import numpy as np

from engine import flow_row as r
from engine import packets as k
from engine.jit import helper
from engine.kernels.flow_key import KEY_FROM_B, KEY_ICMP, KEY_INNER, KEY_LATER

OF_B = r.N_COMMON + r.N_DIRECTION  # where the words of endpoint B begin
WORD = 0xFFFFFFFF
TCP_FIN, TCP_SYN, TCP_RST, TCP_ACK = 0x01, 0x02, 0x04, 0x10
_ENTROPY_UNIT = 1 << 20


@helper
def tcp_of(short, long, i, kind, flags):
    """(flags, sequence number) of a packet with a TCP header, else (0, 0)."""
    if kind & KEY_INNER:
        if flags & k.HAS_INNER_TCP:
            return np.int64(short[k.S_INNER_TCP_FLAGS, i]), long[k.L_INNER_SEQ, i]
    elif flags & k.HAS_TCP:
        return np.int64(short[k.S_TCP_FLAGS, i]), long[k.L_TCP_SEQ, i]
    return np.int64(0), np.int64(0)


@helper
def count_packet(short, long, address, entropy, i, ts, kind, flags, slot, records):
    """Add row `i` to its flow. Returns where the words of its direction begin."""
    bits = records[slot, r.R_STATE]
    from_client = (kind & KEY_FROM_B != 0) == (bits & r.STATE_CLIENT_B != 0)
    d = OF_B if kind & KEY_FROM_B else r.N_COMMON
    n = records[slot, d + r.D_PACKETS]
    if n == 0 and records[slot, r.N_COMMON + OF_B - d + r.D_PACKETS] == 0:  # the first of this part
        records[slot, r.R_START] = ts
        bits = _first_packet(short, i, kind, flags, bits)
    if n == 0:
        records[slot, d + r.D_FIRST] = ts
        if flags & k.HAS_MAC:
            records[slot, d + r.D_MAC] = np.int64(address[k.A_SRC_MAC, i])
    else:
        gap = min(max(ts - records[slot, d + r.D_LAST], 0) // 1000, WORD)
        records[slot, d + r.D_GAPS] = _widen(records[slot, d + r.D_GAPS], gap)
    wirelen = long[k.L_WIRELEN, i]
    records[slot, d + r.D_PACKETS] = n + 1
    records[slot, d + r.D_BYTES] += wirelen
    records[slot, d + r.D_SIZES] = _widen(records[slot, d + r.D_SIZES], min(wirelen, WORD))
    records[slot, d + r.D_LAST] = ts
    records[slot, r.R_LAST] = max(records[slot, r.R_LAST], ts)
    if not from_client:
        bits |= r.STATE_ANSWERED
    if flags & k.HAS_ENTROPY:  # fixed point: the sum does not depend on the order of additions
        records[slot, d + r.D_ENTROPY] += np.int64(np.float64(entropy[i]) * _ENTROPY_UNIT)
        records[slot, d + r.D_COUNTS] += 1 << 16
    payload = np.int64(0)
    if kind & KEY_INNER:
        if flags & k.HAS_INNER_PAYLOAD:
            payload = long[k.L_INNER_PAYLOAD_LEN, i]
    elif flags & k.HAS_PAYLOAD:
        payload = long[k.L_PAYLOAD_LEN, i]
    if payload:
        records[slot, d + r.D_PAYLOAD] += payload
    if flags & (k.HAS_INNER_TCP if kind & KEY_INNER else k.HAS_TCP) and kind & KEY_LATER == 0:
        tcp, seq = tcp_of(short, long, i, kind, flags)
        bits = _count_tcp(tcp, seq, payload, ts, from_client, bits, slot, d, records)
    records[slot, r.R_STATE] = bits
    return d


@helper
def _widen(range_, value):
    """A smallest << 32 | largest pair that includes the value."""
    return min(range_ >> 32 & WORD, value) << 32 | max(range_ & WORD, value)


@helper
def _first_packet(short, i, kind, flags, bits):
    """Note the tunnel and the ICMP type of a part's first packet."""
    bits &= ~(0xF << r.STATE_ENCAP | 0xFFFF << r.STATE_ICMP_TYPE)
    if flags & k.HAS_ENCAP:
        bits |= (np.int64(short[k.S_ENCAP, i]) + 1) << r.STATE_ENCAP
    if kind & KEY_ICMP:
        inner = kind & KEY_INNER
        icmp = np.int64(short[k.S_INNER_ICMP_TYPE if inner else k.S_ICMP_TYPE, i])
        code = np.int64(short[k.S_INNER_ICMP_CODE if inner else k.S_ICMP_CODE, i])
        bits |= icmp << r.STATE_ICMP_TYPE | code << (r.STATE_ICMP_TYPE + 8)
    return bits


@helper
def _signed(difference):
    """A difference of sequence numbers, -2**31 to 2**31 - 1 (RFC 9293 3.4)."""
    return ((difference + 0x80000000) & WORD) - 0x80000000


@helper
def _count_tcp(tcp, seq, payload, ts, from_client, bits, slot, d, records):
    """Flags, handshake, retransmitted segments. Returns the state bits."""
    records[slot, d + r.D_FLAGS] |= tcp & 0xFF
    occupied = payload + (1 if tcp & TCP_SYN else 0) + (1 if tcp & TCP_FIN else 0)
    expected = records[slot, d + r.D_NEXT_SEQ]
    following = (seq + occupied) & WORD
    if expected == r.MISSING:
        records[slot, d + r.D_NEXT_SEQ] = following
    else:
        ahead = _signed(seq - expected)
        keep_alive = ahead == -1 and payload <= 1 and tcp & (TCP_SYN | TCP_FIN) == 0  # RFC 9293 3.8.4
        if ahead < 0 and occupied > 0 and not keep_alive and tcp & TCP_RST == 0:
            records[slot, d + r.D_FLAGS] += 1 << 8
        if _signed(following - expected) > 0:
            records[slot, d + r.D_NEXT_SEQ] = following
    if from_client:
        if tcp & (TCP_SYN | TCP_ACK) == TCP_SYN:
            bits |= r.STATE_SYN
            records[slot, r.R_ISN] = seq
            if bits & r.STATE_SYN_ACK == 0:
                records[slot, r.R_SYN_NS] = ts
        elif (
            tcp & (TCP_SYN | TCP_ACK | TCP_RST) == TCP_ACK
            and bits & (r.STATE_SYN_ACK | r.STATE_ACKED) == r.STATE_SYN_ACK
        ):
            bits |= r.STATE_ACKED
            if bits & r.STATE_SYN:
                records[slot, r.R_RTT_NS] = ts - records[slot, r.R_SYN_NS]
        bits |= (r.STATE_FIN_CLIENT if tcp & TCP_FIN else 0) | (r.STATE_RST_CLIENT if tcp & TCP_RST else 0)
    else:
        if tcp & (TCP_SYN | TCP_ACK) == TCP_SYN | TCP_ACK:
            bits |= r.STATE_SYN_ACK
        bits |= (r.STATE_FIN_SERVER if tcp & TCP_FIN else 0) | (r.STATE_RST_SERVER if tcp & TCP_RST else 0)
    return bits
