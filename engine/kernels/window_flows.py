"""What a packet says about its flow: who asks whom for what, and what the answer is."""

import numpy as np

from engine.constants import PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP
from engine.jit import helper
from engine.kernels.window_layout import (
    ACK,
    B_ANSWERED,
    B_CLOSED,
    B_DONE,
    B_PAYLOAD,
    B_SYN,
    B_SYN_ACK,
    B_TYPE,
    B_WAITS,
    C_ATTEMPTS,
    C_IN_ATTEMPTS,
    C_IN_BYTES,
    C_IN_DNS,
    C_IN_DONE,
    C_IN_ECHO,
    C_IN_PACKETS,
    C_IN_PAYLOAD,
    C_IN_PEERS,
    C_IN_STRAY,
    C_IN_SYN,
    C_IN_UDP,
    C_IN_UDP_FLOWS,
    C_NEW_PEERS,
    C_OUT_BYTES,
    C_OUT_ENTROPY,
    C_OUT_ENTROPY_N,
    C_OUT_PACKETS,
    C_OUT_PAYLOAD,
    C_OUT_RST,
    C_OUT_SYN,
    C_OUT_SYN_ACK,
    C_OUT_UDP,
    C_PEERS,
    C_PORTS,
    C_TOP_PORT,
    C_TOP_VOTES,
    DETAIL_PER_S,
    ENTROPY_UNIT,
    F_BITS,
    F_CLIENT,
    F_FLOW,
    F_PAIR,
    F_PAIR_ID,
    F_WAITS,
    FIN,
    H_COUNTERS,
    LONG_GAP_MS,
    N_TRACK,
    P_FIRST,
    P_GAP_SQUARES,
    P_GAP_SUM,
    P_ID,
    P_LAST,
    P_START_PORT,
    P_STARTS,
    PROBE_ECHO,
    PROBE_FIN,
    PROBE_NONE,
    PROBE_NULL,
    PROBE_SYN,
    PROBE_UDP,
    PROBE_XMAS,
    RST,
    S_CLOCK,
    S_HALF,
    S_HEAD,
    SYN,
    URG,
)  # fmt: skip
from engine.kernels.window_outcomes import wait_for
from engine.kernels.window_rows import pair_row
from engine.kernels.window_tables import KNOWN, mix, note


@helper
def count_hosts(src, dst, wire, payload, proto, dport, icmp, entropy, hosts):
    s, d = src, dst
    at = H_COUNTERS
    hosts[s, at + C_OUT_PACKETS] += 1
    hosts[s, at + C_OUT_BYTES] += wire
    hosts[s, at + C_OUT_PAYLOAD] += payload
    hosts[d, at + C_IN_PACKETS] += 1
    hosts[d, at + C_IN_BYTES] += wire
    hosts[d, at + C_IN_PAYLOAD] += payload
    if entropy >= 0:
        hosts[s, at + C_OUT_ENTROPY] += np.int64(entropy * ENTROPY_UNIT)
        hosts[s, at + C_OUT_ENTROPY_N] += 1
    if proto == PROTO_UDP:
        hosts[s, at + C_OUT_UDP] += 1
        hosts[d, at + C_IN_UDP] += 1
        if dport == 53:
            hosts[d, at + C_IN_DNS] += 1
    elif icmp == 8 or (icmp >= 128 and icmp != 129 and icmp != 136):
        # Whatever is no error and no reply, below an authentication header too. Source: RFC 4443 2.1.
        hosts[d, at + C_IN_ECHO] += 1


@helper
def _probe(proto, sport, dport, tcp, icmp, d_hi, d_lo, meta):
    """What kind of attempt a flow's first packet is."""
    if tcp >= 0:
        if tcp & (SYN | ACK | RST) == SYN:
            return PROBE_SYN
        if tcp & (SYN | ACK | RST) == 0:
            if tcp == 0:
                return PROBE_NULL
            if tcp == FIN:
                return PROBE_FIN
            if tcp & (FIN | URG) == FIN | URG:
                return PROBE_XMAS
        return PROBE_NONE
    # To a group or to everybody on the link: nobody has to answer.
    many = (d_hi >> 56) & 0xFF == 0xFF if meta & 1 else d_lo >> 28 >= 0xE or d_lo & 0xFF == 0xFF
    if many:
        return PROBE_NONE
    if proto == PROTO_UDP:  # traceroute counts its hops in these ports and expects no answer from them
        return PROBE_UDP if not (33434 <= dport <= 33625) else PROBE_NONE
    if (icmp == 8 and proto == PROTO_ICMP) or (icmp == 128 and proto == PROTO_ICMPV6):
        return PROBE_ECHO
    return PROBE_NONE


@helper
def _note_start(pair, port, pairs, state):
    """A connection of the pair begins: how regularly do they?"""
    gap = (state[S_CLOCK] - pairs[pair, P_LAST]) // 1_000_000
    if pairs[pair, P_STARTS] == 0 or gap > LONG_GAP_MS:
        pairs[pair, P_STARTS] = pairs[pair, P_GAP_SUM] = pairs[pair, P_GAP_SQUARES] = 0
    else:
        pairs[pair, P_GAP_SUM] += gap
        pairs[pair, P_GAP_SQUARES] += gap * gap
    pairs[pair, P_STARTS] += 1
    pairs[pair, P_LAST] = state[S_CLOCK]
    pairs[pair, P_START_PORT] = port


@helper
def _vote(host, port, hosts):
    """Which port most of what comes asks for: if one has a majority, it is this one (Boyer and Moore 1981)."""
    at = H_COUNTERS
    if hosts[host, at + C_TOP_VOTES] == 0:
        hosts[host, at + C_TOP_PORT] = port
    hosts[host, at + C_TOP_VOTES] += 1 if hosts[host, at + C_TOP_PORT] == port else -1


@helper
def begin_flow(slot, flow, src, dst, hs, hd, s_hi, s_lo, d_hi, d_lo, meta, proto, sport, dport, tcp, icmp, flows, hosts,
           pair_tags, pairs, waits, seen, seeds, state):  # fmt: skip
    """The first packet of a flow: who is the client, and what does it ask for."""
    for w in range(N_TRACK):
        flows[slot, w] = 0
    back = False
    if tcp >= 0:
        if tcp & SYN:
            back = tcp & ACK != 0
        else:
            back = sport < 1024 and sport < dport
    elif proto == PROTO_UDP:
        back = sport < 1024 and dport >= 1024
    flows[slot, F_FLOW] = flow
    flows[slot, F_CLIENT] = np.int64(hd if back else hs)
    at = H_COUNTERS
    kind = PROBE_NONE if back else _probe(proto, sport, dport, tcp, icmp, d_hi, d_lo, meta)
    if kind != PROBE_NONE:
        hosts[src, at + C_ATTEMPTS] += 1
        hosts[dst, at + C_IN_ATTEMPTS] += 1
        if kind == PROBE_UDP:
            hosts[dst, at + C_IN_UDP_FLOWS] += 1
            _vote(dst, proto << 16 | dport, hosts)
        if hosts[dst, at + C_IN_ATTEMPTS] > DETAIL_PER_S:  # a flood: who sent it does not matter any more
            hosts[dst, at + C_IN_PEERS] += 1
            flows[slot, F_PAIR] = -1
            return
    if back:
        pair = pair_row(hd, hs, d_hi, d_lo, s_hi, s_lo, meta, pair_tags, pairs, seeds, state)
    else:
        pair = pair_row(hs, hd, s_hi, s_lo, d_hi, d_lo, meta, pair_tags, pairs, seeds, state)
    flows[slot, F_PAIR], flows[slot, F_PAIR_ID] = pair, pairs[pair, P_ID]
    if kind == PROBE_NONE:
        return
    flows[slot, F_BITS] = kind << B_TYPE | B_WAITS
    port = proto << 16 | (dport if dport >= 0 else 0)
    if kind == PROBE_SYN:
        _note_start(pair, port, pairs, state)
    flows[slot, F_WAITS] = wait_for(waits, S_HEAD, flow, slot, pair, pairs, port, kind, state)
    epoch = (state[S_HALF] >> 1) // 60
    if note(seen, mix(hs, hd, seeds) ^ np.uint64(0x1111), epoch) != KNOWN:
        hosts[src, at + C_PEERS] += 1
        hosts[dst, at + C_IN_PEERS] += 1
        hosts[src, at + C_NEW_PEERS] += 1 if pairs[pair, P_FIRST] == state[S_CLOCK] else 0
    if note(seen, mix(hs, np.uint64(port), seeds) ^ np.uint64(0x2222), epoch) != KNOWN:
        hosts[src, at + C_PORTS] += 1


@helper
def count_segment(slot, tcp, payload, from_client, bits, src, dst, dport, hosts):
    """(bits of the flow, outcome of its attempt: 0 answered, 1 refused, -1 none) after a segment."""
    at = H_COUNTERS
    out = np.int64(-1)
    if tcp & RST:
        hosts[src, at + C_OUT_RST] += 1
        if not from_client and bits & (B_SYN | B_ANSWERED | B_PAYLOAD) == B_PAYLOAD:
            hosts[src, at + C_IN_STRAY] += 1  # data of no connection, as the receiver says
    if from_client:
        if tcp & (SYN | ACK) == SYN:
            bits |= B_SYN
            hosts[src, at + C_OUT_SYN] += 1
            hosts[dst, at + C_IN_SYN] += 1
            _vote(dst, PROTO_TCP << 16 | dport, hosts)
        elif tcp & (ACK | RST) == ACK:
            if bits & B_SYN:
                if bits & B_DONE == 0:
                    bits |= B_DONE
                    hosts[dst, at + C_IN_DONE] += 1
                    if bits & B_ANSWERED == 0:  # the other direction is not captured
                        bits |= B_ANSWERED
                        out = np.int64(0)
            elif payload == 0 and tcp & FIN == 0 and bits & B_ANSWERED == 0:
                hosts[dst, at + C_IN_STRAY] += 1
    else:
        if tcp & (SYN | ACK) == SYN | ACK:
            bits |= B_SYN_ACK
            hosts[src, at + C_OUT_SYN_ACK] += 1
        if bits & B_ANSWERED == 0:
            if tcp & RST:
                out = np.int64(1)
            else:
                out = np.int64(0)
                bits |= B_ANSWERED
    if tcp & (FIN | RST):
        bits |= B_CLOSED
    return bits, out
