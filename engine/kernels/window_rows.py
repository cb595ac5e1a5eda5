"""Rows of the windows' tables: found or made, moved on to the running second or minute."""

import numpy as np

from engine.jit import helper
from engine.kernels.window_layout import (
    H_COUNTERS,
    H_FIRST,
    H_HASH,
    H_HI,
    H_ID,
    H_LISTED,
    H_LO,
    H_META,
    H_SECOND,
    N_COUNTERS,
    N_PAIR,
    N_PAIR_COUNTERS,
    N_TARGET,
    P_C_HASH,
    P_C_HI,
    P_C_LO,
    P_COUNTERS,
    P_EPOCH,
    P_FIRST,
    P_ID,
    P_LISTED,
    P_META,
    P_S_HASH,
    P_S_HI,
    P_S_LO,
    S_CLOCK,
    S_EVICTED,
    S_HALF,
    S_HOSTS,
    S_ID,
    S_PAIRS,
    S_TARGETS,
    S_TICK,
    SECOND_NS,
    T_EPOCH,
    T_FAILED,
    T_FAILED_OLD,
    T_FIRST,
    T_HI,
    T_ID,
    T_LISTED,
    T_LO,
    T_META,
    T_PORT,
    T_TRIED,
    T_TRIED_OLD,
)  # fmt: skip
from engine.kernels.window_tables import (
    KNOWN,
    MOVED,
    claim,
    mix,
)  # fmt: skip


@helper
def host_row(h, hi, lo, meta, tags, hosts, touched, state):
    """The host's row, its counters moved on to the running second."""
    second = state[S_HALF] >> 1
    row, new, evicted = claim(tags, h, second)
    if new:
        state[S_EVICTED] += 1 if evicted else 0
        listed = hosts[row, H_LISTED]
        for w in range(H_COUNTERS + N_COUNTERS):  # five seconds and minute: `_roll` begins them
            hosts[row, w] = 0
        state[S_ID] += 1
        hosts[row, H_HI], hosts[row, H_LO], hosts[row, H_META] = hi, lo, meta
        hosts[row, H_ID], hosts[row, H_FIRST] = state[S_ID], state[S_CLOCK]
        hosts[row, H_SECOND], hosts[row, H_LISTED], hosts[row, H_HASH] = second, listed, np.int64(h)
    elif hosts[row, H_SECOND] != second:
        _roll(row, second, hosts)
    if hosts[row, H_LISTED] != state[S_TICK]:
        hosts[row, H_LISTED] = state[S_TICK]
        touched[state[S_HOSTS]] = row  # a row is listed once a tick: there is room for all
        state[S_HOSTS] += 1
    return row


@helper
def _roll(row, second, hosts):
    """Add the ended second to five seconds and minute, or begin those anew."""
    old = hosts[row, H_SECOND]
    keep = np.int64(0 if in_first_second(row, hosts) else -1)
    hosts[row, H_SECOND] = second
    five = np.int64(-1 if old // 5 == second // 5 else 0)
    minute = np.int64(-1 if old // 60 == second // 60 else 0)
    for c in range(N_COUNTERS):
        at = H_COUNTERS + c
        value = hosts[row, at]
        hosts[row, at] = 0
        hosts[row, at + N_COUNTERS] = ((hosts[row, at + N_COUNTERS] & keep) + value) & five
        hosts[row, at + 2 * N_COUNTERS] = ((hosts[row, at + 2 * N_COUNTERS] & keep) + value) & minute


@helper
def in_first_second(row, hosts):
    """True until `_roll` has begun the row's five seconds and minute: before, their words are an earlier host's."""
    return hosts[row, H_FIRST] // SECOND_NS == hosts[row, H_SECOND]


@helper
def pair_row(ch, sh, c_hi, c_lo, s_hi, s_lo, meta, tags, pairs, seeds, state):
    row, new, evicted = claim(tags, mix(ch, sh, seeds), (state[S_HALF] >> 1))
    if new:
        state[S_EVICTED] += 1 if evicted else 0
        listed = pairs[row, P_LISTED]
        for w in range(N_PAIR):
            pairs[row, w] = 0
        state[S_ID] += 1
        pairs[row, P_C_HI], pairs[row, P_C_LO] = c_hi, c_lo
        pairs[row, P_S_HI], pairs[row, P_S_LO] = s_hi, s_lo
        pairs[row, P_META], pairs[row, P_ID], pairs[row, P_LISTED] = meta, state[S_ID], listed
        pairs[row, P_C_HASH], pairs[row, P_S_HASH] = np.int64(ch), np.int64(sh)
        pairs[row, P_FIRST] = state[S_CLOCK]
        pairs[row, P_EPOCH] = (state[S_HALF] >> 1) // 60
    return row


@helper
def touch_pair(row, pairs, touched, state):
    """Something happened to the pair that rules look at: list it for this second, on to the running minute."""
    second = state[S_HALF] >> 1
    epoch = second // 60
    old = pairs[row, P_EPOCH]
    if old != epoch:
        pairs[row, P_EPOCH] = epoch
        for c in range(P_COUNTERS, P_COUNTERS + N_PAIR_COUNTERS):
            pairs[row, c + N_PAIR_COUNTERS] = pairs[row, c] if epoch == old + 1 else 0
            pairs[row, c] = 0
    if pairs[row, P_LISTED] != state[S_TICK]:
        pairs[row, P_LISTED] = state[S_TICK]
        touched[state[S_PAIRS]] = row
        state[S_PAIRS] += 1


@helper
def target_row(ch, hi, lo, meta, port, tags, targets, touched, seeds, state):
    h = mix(ch, np.uint64(port) + np.uint64(1 << 40), seeds)
    second = state[S_HALF] >> 1
    epoch = second // 60
    row, new, evicted = claim(tags, h, second)
    if new:
        state[S_EVICTED] += 1 if evicted else 0
        listed = targets[row, T_LISTED]
        for w in range(N_TARGET):
            targets[row, w] = 0
        state[S_ID] += 1
        targets[row, T_HI], targets[row, T_LO], targets[row, T_META] = hi, lo, meta
        targets[row, T_PORT], targets[row, T_ID], targets[row, T_LISTED] = port, state[S_ID], listed
        targets[row, T_EPOCH], targets[row, T_FIRST] = epoch, state[S_CLOCK]
    elif targets[row, T_EPOCH] != epoch:
        last = targets[row, T_EPOCH] + 1 == epoch
        targets[row, T_FAILED_OLD] = targets[row, T_FAILED] if last else 0
        targets[row, T_TRIED_OLD] = targets[row, T_TRIED] if last else 0
        targets[row, T_FAILED] = targets[row, T_TRIED] = 0
        targets[row, T_EPOCH] = epoch
    if targets[row, T_LISTED] != state[S_TICK]:
        targets[row, T_LISTED] = state[S_TICK]
        touched[state[S_TARGETS]] = row
        state[S_TARGETS] += 1
    return row, h


@helper
def add_distinct(table, row, at, old, what):
    """Count a distinct value that `note` said `what` of."""
    if what != KNOWN:
        table[row, at] += 1
    if what == MOVED and table[row, old] > 0:
        table[row, old] -= 1
