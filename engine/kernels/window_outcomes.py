"""What became of attempts: answered, refused, or nothing for a second."""

import numpy as np

from engine.constants import PROTO_TCP, PROTO_UDP
from engine.jit import (
    be16,
    be32,
    be64,
    helper,
    u8,
)  # fmt: skip
from engine.kernels.window_layout import (
    B_CLOSED,
    B_HEAD,
    B_PAYLOAD,
    B_SERVED,
    C_ANSWERED,
    C_IN_FAILED,
    C_REFUSED,
    C_UNANSWERED,
    F_BITS,
    F_FLOW,
    GRACE_NS,
    H_COUNTERS,
    N_PAIR_COUNTERS,
    P_C_HASH,
    P_C_HI,
    P_C_LO,
    P_COUNTERS,
    P_ID,
    P_META,
    P_PORT,
    P_S_HASH,
    P_S_HI,
    P_S_LO,
    P_SLOW_PORT,
    PROBE_ECHO,
    PROBE_SYN,
    PROBE_UDP,
    Q_ANSWERED,
    Q_FAILED,
    Q_PORTS,
    Q_REFUSED,
    Q_SLOW,
    Q_SYN,
    S_CLOCK,
    S_HALF,
    S_HEAD,
    S_OVERRUN,
    S_SLOW_HEAD,
    S_SLOW_TAIL,
    S_TAIL,
    SLOW_NS,
    STALE_NS,
    T_FAILED,
    T_FAILED_OLD,
    T_LAST_HI,
    T_LAST_LO,
    T_TRIED,
    T_TRIED_OLD,
    W_FLOW,
    W_PAIR,
    W_PAIR_ID,
    W_PORT,
    W_SLOT,
    W_STATE,
    W_TS,
    W_TYPE,
    WAITING,
)  # fmt: skip
from engine.kernels.window_rows import add_distinct, host_row, target_row, touch_pair
from engine.kernels.window_tables import find, mix, note


@helper
def settle(pair, port, kind, failed, refused, pair_tags, pairs, pair_list, host_tags, hosts, host_list,
            target_tags, targets, target_list, seen, seeds, state):  # fmt: skip
    """An attempt of the pair came out: count it for the pair, the client's target and the hosts."""
    epoch = (state[S_HALF] >> 1) // 60
    ch, sh = np.uint64(pairs[pair, P_C_HASH]), np.uint64(pairs[pair, P_S_HASH])
    touch_pair(pair, pairs, pair_list, state)
    q = P_COUNTERS
    target, th = target_row(
        ch, pairs[pair, P_C_HI], pairs[pair, P_C_LO], pairs[pair, P_META], port, target_tags, targets, target_list,
        seeds, state,
    )  # fmt: skip
    add_distinct(targets, target, T_TRIED, T_TRIED_OLD, note(seen, mix(th, sh, seeds), epoch))
    if failed:
        both = mix(ch, sh ^ np.uint64(port), seeds) ^ np.uint64(0x5555)
        add_distinct(pairs, pair, q + Q_PORTS, q + N_PAIR_COUNTERS + Q_PORTS, note(seen, both, epoch))
        pairs[pair, q + Q_FAILED] += 1
        pairs[pair, q + Q_REFUSED] += 1 if refused else 0
        pairs[pair, P_PORT] = port
        if PROBE_SYN <= kind <= PROBE_ECHO:
            pairs[pair, q + Q_SYN + kind - PROBE_SYN] += 1
        add_distinct(targets, target, T_FAILED, T_FAILED_OLD, note(seen, mix(th, ~sh, seeds), epoch))
        targets[target, T_LAST_HI], targets[target, T_LAST_LO] = pairs[pair, P_S_HI], pairs[pair, P_S_LO]
    else:
        pairs[pair, q + Q_ANSWERED] += 1
    client, server = find(host_tags, ch), find(host_tags, sh)
    if client >= 0:
        client = host_row(
            ch, pairs[pair, P_C_HI], pairs[pair, P_C_LO], pairs[pair, P_META], host_tags, hosts, host_list, state
        )
        hosts[client, H_COUNTERS + (C_ANSWERED if not failed else (C_REFUSED if refused else C_UNANSWERED))] += 1
    if failed and server >= 0:
        server = host_row(
            sh, pairs[pair, P_S_HI], pairs[pair, P_S_LO], pairs[pair, P_META], host_tags, hosts, host_list, state
        )
        hosts[server, H_COUNTERS + C_IN_FAILED] += 1


@helper
def expire(flows, waits, slow, pair_tags, pairs, pair_list, host_tags, hosts, host_list, target_tags, targets,
            target_list, seen, seeds, state):  # fmt: skip
    """Judge the attempts that waited long enough, and requests that should be complete by now."""
    clock = state[S_CLOCK]
    size = waits.shape[0]
    while state[S_TAIL] < state[S_HEAD]:
        at = state[S_TAIL] & (size - 1)
        full = state[S_HEAD] - state[S_TAIL] >= size
        if waits[at, W_TS] + GRACE_NS > clock and not full:
            break
        state[S_TAIL] += 1
        if waits[at, W_STATE] == WAITING and clock - waits[at, W_TS] < STALE_NS:
            state[S_OVERRUN] += 1 if full else 0
            pair = waits[at, W_PAIR]
            if pairs[pair, P_ID] == waits[at, W_PAIR_ID]:
                settle(pair, waits[at, W_PORT], waits[at, W_TYPE], True, False, pair_tags, pairs, pair_list, host_tags,
                        hosts, host_list, target_tags, targets, target_list, seen, seeds, state)  # fmt: skip
    size = slow.shape[0]
    while state[S_SLOW_TAIL] < state[S_SLOW_HEAD]:
        at = state[S_SLOW_TAIL] & (size - 1)
        full = state[S_SLOW_HEAD] - state[S_SLOW_TAIL] >= size
        if slow[at, W_TS] + SLOW_NS > clock and not full:
            break
        state[S_SLOW_TAIL] += 1
        slot, pair = slow[at, W_SLOT], slow[at, W_PAIR]
        if not full and clock - slow[at, W_TS] < STALE_NS and flows[slot, F_FLOW] == slow[at, W_FLOW]:
            bits = flows[slot, F_BITS]
            if (
                bits & (B_PAYLOAD | B_SERVED | B_HEAD | B_CLOSED) == B_PAYLOAD
                and pairs[pair, P_ID] == slow[at, W_PAIR_ID]
            ):
                touch_pair(pair, pairs, pair_list, state)
                pairs[pair, P_COUNTERS + Q_SLOW] += 1
                pairs[pair, P_SLOW_PORT] = slow[at, W_PORT]


@helper
def wait_for(ring, head, flow, slot, row, pairs, port, kind, state):
    at = state[head] & (ring.shape[0] - 1)
    ring[at, W_TS] = state[S_CLOCK]
    ring[at, W_FLOW], ring[at, W_SLOT], ring[at, W_STATE] = flow, slot, WAITING
    ring[at, W_PAIR], ring[at, W_PAIR_ID], ring[at, W_PORT], ring[at, W_TYPE] = row, pairs[row, P_ID], port, kind
    state[head] += 1
    return at


@helper
def note_unreachable(arena, p, end, source, flows, pair_tags, pairs, pair_list, host_tags, hosts, host_list,
                 target_tags, targets, target_list, seen, seeds, state):  # fmt: skip
    """The attempt that an ICMP error quotes was refused. Source: RFC 792, RFC 4443 3.1."""
    if end - p < 28:
        return
    zero = np.uint64(0)
    s_hi = d_hi = zero
    if u8(arena, p) >> 4 == 4:
        at = p + (u8(arena, p) & 0x0F) * 4
        if at - p < 20:
            return
        proto, v6 = u8(arena, p + 9), 0
        s_lo, d_lo = np.uint64(be32(arena, p + 12)), np.uint64(be32(arena, p + 16))
    elif u8(arena, p) >> 4 == 6 and end - p >= 48:
        at = p + 40
        proto, v6 = u8(arena, p + 6), 1
        s_hi, s_lo = np.uint64(be64(arena, p + 8)), np.uint64(be64(arena, p + 16))
        d_hi, d_lo = np.uint64(be64(arena, p + 24)), np.uint64(be64(arena, p + 32))
    else:
        return
    if end - at < 4:
        return
    salt = np.uint64(source * 2 + v6) << np.uint64(33)
    ch, sh = mix(s_hi + salt, s_lo, seeds), mix(d_hi + salt, d_lo, seeds)
    pair = find(pair_tags, mix(ch, sh, seeds))
    if pair < 0:
        return
    kind, port = PROBE_ECHO, proto << 16
    if proto == PROTO_TCP or proto == PROTO_UDP:
        kind = PROBE_SYN if proto == PROTO_TCP else PROBE_UDP
        port |= be16(arena, at + 2)
    settle(pair, port, kind, True, True, pair_tags, pairs, pair_list, host_tags, hosts, host_list, target_tags,
            targets, target_list, seen, seeds, state)  # fmt: skip
