"""Windows: what each host, pair of hosts and (host, port) did lately, counted packet by packet in the order they came.

Hosts have counters of the running second, five seconds and minute, in and out; pairs (client, server) and targets
(client, protocol and port) have those of this minute and the one before, so that what straddles a boundary is seen.
Attempts (the first packet of a flow that asks for something) wait in a ring until they are answered, refused, or a
second old. Everything is bounded: rows that were quiet longest make room (`window_tables`).

The clock is the packets': it never runs backwards, except that it is set back when thousands of packets in a row are
far behind it; packets that come late count as now. So the outcome depends on the packets only, never on batches:
`follow` stops where half a second ends and lets the caller look at the tables.
"""

import numpy as np

from engine import packets as k
from engine.constants import PROTO_ICMP, PROTO_ICMPV6, PROTO_UDP
from engine.jit import helper, kernel, prefetch
from engine.kernels.window_flows import begin_flow, count_hosts, count_segment
from engine.kernels.window_layout import (
    B_ANSWERED,
    B_DONE,
    B_WAITS,
    BEHIND_MAX,
    C_OUT_ERRORS,
    DONE,
    F_BITS,
    F_CLIENT,
    F_FLOW,
    F_PAIR,
    F_PAIR_ID,
    F_WAITS,
    FAR_NS,
    H_COUNTERS,
    LATEST_NS,
    MISSING,
    N_HOST,
    N_PAIR,
    N_TRACK,
    P_COUNTERS,
    P_EPOCH,
    P_ID,
    PROBE_SYN,
    Q_BYTES_UP,
    Q_PACKETS_UP,
    Q_STARTS,
    Q_UP,
    RESET,
    S_BEHIND,
    S_CLOCK,
    S_HALF,
    S_PACKETS,
    S_SLOW_HEAD,
    SETTLED,
    TICK,
    TICK_NS,
    W_FLOW,
    W_PORT,
    W_STATE,
    W_TYPE,
    WAITING,
)  # fmt: skip
from engine.kernels.window_outcomes import expire, note_unreachable, settle, wait_for
from engine.kernels.window_payload import note_arp, note_label, read_payload
from engine.kernels.window_rows import host_row, pair_row, touch_pair
from engine.kernels.window_tables import WAYS, find_or_oldest, mix, set_of


@helper
def advance(ts, state):
    """The clock moves on to `ts`. True when it had to be set back."""
    ts = max(0, min(ts, LATEST_NS))
    if ts > state[S_CLOCK]:
        state[S_CLOCK] = ts
        state[S_BEHIND] = 0
    elif ts < state[S_CLOCK] - FAR_NS:
        state[S_BEHIND] += 1
        if state[S_BEHIND] > BEHIND_MAX:
            state[S_CLOCK] = ts
            state[S_BEHIND] = 0
            return True
    else:
        state[S_BEHIND] = 0
    return False


@kernel
def hash_hosts(address, short, present, count, source, seeds, hashes):
    """Hashes of the (inner) source and destination of rows 0 to count - 1, 0 without an IP header.

    Args: address, short, present: as in PacketBatch. seeds: uint64[3], odd. hashes: uint64[2, rows], written.
    """
    for i in range(count):
        flags = np.int64(present[i])
        if flags & k.HAS_IP == 0:
            hashes[0, i] = hashes[1, i] = 0
            continue
        a = k.A_INNER_SRC_HI if flags & k.HAS_INNER_IP else k.A_SRC_HI
        v6 = flags & k.IS_INNER_IPV6 != 0 if flags & k.HAS_INNER_IP else short[k.S_IP_VERSION, i] == 6
        salt = np.uint64(source * 2 + (1 if v6 else 0)) << np.uint64(33)
        hashes[0, i] = mix(address[a, i] + salt, address[a + 1, i], seeds)
        hashes[1, i] = mix(address[a + 2, i] + salt, address[a + 3, i], seeds)


@helper
def _fetch(i, count, slot_of, flows, hashes, host_tags, hosts, pairs, state):
    """Bring nearer what a few rows later will be read."""
    if i + 8 < count:
        prefetch(host_tags, set_of(host_tags, hashes[0, i + 8]) * WAYS)
        prefetch(host_tags, set_of(host_tags, hashes[1, i + 8]) * WAYS)
        prefetch(flows, np.int64(slot_of[i + 8]) * N_TRACK)
    if i + 4 < count:
        second = state[S_HALF] >> 1
        slot = np.int64(slot_of[i + 4])
        if slot >= 0:
            at = flows[slot, F_PAIR] * N_PAIR
            prefetch(pairs, at)
            prefetch(pairs, at + P_COUNTERS + Q_UP)
        for side in range(2):
            h = hashes[side, i + 4]
            if h == 0:
                continue
            row, known = find_or_oldest(host_tags, h, second)
            at = row * N_HOST
            prefetch(hosts, at)
            prefetch(hosts, at + H_COUNTERS + 8 * side)
            if not known:
                prefetch(hosts, at + H_COUNTERS + 8 * (1 - side))
                prefetch(hosts, at + H_COUNTERS + 16)
                prefetch(hosts, at + H_COUNTERS + 24)


@kernel
def follow(
    arena, short, int_, long, address, entropy, present, slot_of, hashes, first, count, source, apps,
    flows, host_tags, hosts, host_list, pair_tags, pairs, pair_list, target_tags, targets, target_list,
    waits, slow, seen, arp_tags, arps, arp_events, seeds, state,
):  # fmt: skip
    """Count rows `first` to count - 1. Returns (row reached, DONE, TICK or RESET).

    Args:
        arena, short, int_, long, address, entropy, present: as in FrameBatch and PacketBatch.
        slot_of: int32[rows], the record of each row in the flow table. hashes: uint64[2, rows] of `hash_hosts`.
        source: number of the batch's source. apps: int64[1], number of the application ssh.
        flows: int64[slots, N_TRACK]. *_tags: int64[sets, 8]. hosts, pairs, targets, arps: int64[8 * sets, words].
        *_list: int32[rows of the table], rows touched in this second. waits, slow: int64[power of two, N_WAIT].
        seen: int64[sets, 8]. arp_events: int64[events, N_ARP_EVENT]. seeds: uint64[3]. state: see above.
    """
    for i in range(first, count):
        _fetch(i, count, slot_of, flows, hashes, host_tags, hosts, pairs, state)
        if advance(long[k.L_TS, i] * 1000 + np.int64(short[k.S_TS_NANOS, i]), state):
            return i, RESET
        if state[S_HALF] == MISSING:
            state[S_HALF] = state[S_CLOCK] // TICK_NS
        expire(flows, waits, slow, pair_tags, pairs, pair_list, host_tags, hosts, host_list, target_tags, targets,
                target_list, seen, seeds, state)  # fmt: skip
        if state[S_CLOCK] // TICK_NS != state[S_HALF]:
            return i, TICK
        state[S_PACKETS] += 1
        flags = np.int64(present[i])
        slot = np.int64(slot_of[i])
        if slot < 0:
            if flags & k.HAS_ARP:
                note_arp(
                    i,
                    flags & k.HAS_MAC != 0,
                    short,
                    address,
                    source,
                    arp_tags,
                    arps,
                    arp_events,
                    target_tags,
                    targets,
                    target_list,
                    seen,
                    seeds,
                    state,
                )
            continue
        inner = flags & k.HAS_INNER_IP != 0
        a = k.A_INNER_SRC_HI if inner else k.A_SRC_HI
        v6 = flags & k.IS_INNER_IPV6 != 0 if inner else short[k.S_IP_VERSION, i] == 6
        meta = (1 if v6 else 0) | source << 1
        s_hi, s_lo = np.int64(address[a, i]), np.int64(address[a + 1, i])
        d_hi, d_lo = np.int64(address[a + 2, i]), np.int64(address[a + 3, i])
        hs, hd = hashes[0, i], hashes[1, i]
        src = host_row(hs, s_hi, s_lo, meta, host_tags, hosts, host_list, state)
        dst = host_row(hd, d_hi, d_lo, meta, host_tags, hosts, host_list, state)
        proto = np.int64(0)
        if flags & (k.HAS_INNER_PROTO if inner else k.HAS_PROTO):
            proto = np.int64(short[k.S_INNER_PROTO if inner else k.S_PROTO, i])
        sport = dport = np.int64(-1)
        if flags & (k.HAS_INNER_PORTS if inner else k.HAS_PORTS):
            p = k.I_INNER_SRC_PORT if inner else k.I_SRC_PORT
            sport, dport = np.int64(int_[p, i]), np.int64(int_[p + 1, i])
        tcp = np.int64(-1)
        if flags & (k.HAS_INNER_TCP if inner else k.HAS_TCP):
            tcp = np.int64(short[k.S_INNER_TCP_FLAGS if inner else k.S_TCP_FLAGS, i]) & 0x3F
        icmp = np.int64(-1)
        if flags & (k.HAS_INNER_ICMP if inner else k.HAS_ICMP):
            icmp = np.int64(short[k.S_INNER_ICMP_TYPE if inner else k.S_ICMP_TYPE, i])
        payload = np.int64(0)
        if flags & (k.HAS_INNER_PAYLOAD if inner else k.HAS_PAYLOAD):
            payload = long[k.L_INNER_PAYLOAD_LEN if inner else k.L_PAYLOAD_LEN, i]
        wire = long[k.L_WIRELEN, i]
        count_hosts(src, dst, wire, payload, proto, dport, icmp, entropy[i] if flags & k.HAS_ENTROPY else -1.0, hosts)

        flow = long[k.L_FLOW_ID, i]
        begins = flows[slot, F_FLOW] != flow
        if begins:
            begin_flow(
                slot, flow, src, dst, hs, hd, s_hi, s_lo, d_hi, d_lo, meta, proto, sport, dport, tcp, icmp, flows,
                hosts, pair_tags, pairs, waits, seen, seeds, state,
            )  # fmt: skip
        bits = flows[slot, F_BITS]
        from_client = flows[slot, F_CLIENT] == np.int64(hs)
        pair = flows[slot, F_PAIR]
        if pair >= 0 and pairs[pair, P_ID] != flows[slot, F_PAIR_ID]:  # it had to make room: count it anew
            if from_client:
                pair = pair_row(hs, hd, s_hi, s_lo, d_hi, d_lo, meta, pair_tags, pairs, seeds, state)
            else:
                pair = pair_row(hd, hs, d_hi, d_lo, s_hi, s_lo, meta, pair_tags, pairs, seeds, state)
            flows[slot, F_PAIR], flows[slot, F_PAIR_ID] = pair, pairs[pair, P_ID]
        if pair >= 0:
            if (state[S_HALF] >> 1) // 60 != pairs[pair, P_EPOCH]:
                touch_pair(pair, pairs, pair_list, state)
            down = 0 if from_client else 1
            pairs[pair, P_COUNTERS + Q_PACKETS_UP + down] += 1
            pairs[pair, P_COUNTERS + Q_BYTES_UP + down] += wire
            if begins and bits & B_WAITS:
                pairs[pair, P_COUNTERS + Q_STARTS] += 1
        out = np.int64(-1)  # 0 answered, 1 refused
        if tcp >= 0:
            bits, out = count_segment(slot, tcp, payload, from_client, bits, src, dst, dport, hosts)
            if pair >= 0 and bits & B_DONE and flows[slot, F_BITS] & B_DONE == 0:
                wait_for(slow, S_SLOW_HEAD, flow, slot, pair, pairs, proto << 16 | dport, PROBE_SYN, state)
        elif not from_client and (proto == PROTO_UDP or icmp == 0 or icmp == 129):
            if bits & B_ANSWERED == 0:
                out = np.int64(0)
                bits |= B_ANSWERED
        flows[slot, F_BITS] = bits
        if out >= 0 and bits & B_WAITS:
            flows[slot, F_BITS] = bits & ~B_WAITS
            at = flows[slot, F_WAITS]
            if waits[at, W_FLOW] == flow and waits[at, W_STATE] == WAITING:
                waits[at, W_STATE] = SETTLED
                settle(pair, waits[at, W_PORT], waits[at, W_TYPE], out == 1, out == 1, pair_tags, pairs, pair_list,
                        host_tags, hosts, host_list, target_tags, targets, target_list, seen, seeds, state)  # fmt: skip
        if payload > 0 and flags & k.IS_LATER_FRAGMENT == 0:
            start, end = np.int64(int_[k.I_PAYLOAD, i]), np.int64(int_[k.I_PAYLOAD_END, i])
            app = np.int64(short[k.S_APP, i]) if flags & k.HAS_APP else np.int64(0)
            if dport == 53 and proto == PROTO_UDP:
                note_label(arena, start, end, src, hosts)
            if pair >= 0:
                read_payload(
                    arena, start, end, payload, slot, pair, from_client, proto, app, apps[0], icmp,
                    dport if from_client else sport,
                    entropy[i] if flags & k.HAS_ENTROPY else -1.0, flows, pairs, pair_list, state,
                )  # fmt: skip
            if (icmp == 3 and proto == PROTO_ICMP) or (icmp == 1 and proto == PROTO_ICMPV6):
                hosts[src, H_COUNTERS + C_OUT_ERRORS] += 1
                note_unreachable(
                    arena, start, end, source, flows, pair_tags, pairs, pair_list, host_tags, hosts, host_list,
                    target_tags, targets, target_list, seen, seeds, state,
                )  # fmt: skip
    return count, DONE


@kernel
def pass_time(
    now, flows, host_tags, hosts, host_list, pair_tags, pairs, pair_list, target_tags, targets, target_list, waits,
    slow, seen, seeds, state,
):  # fmt: skip
    """No packet came until `now` (ns): judge what waited. Arguments as `follow`."""
    state[S_CLOCK] = max(state[S_CLOCK], min(now, LATEST_NS))
    expire(flows, waits, slow, pair_tags, pairs, pair_list, host_tags, hosts, host_list, target_tags, targets,
            target_list, seen, seeds, state)  # fmt: skip
