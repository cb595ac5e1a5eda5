"""The flow table: packets of a batch into flow records, in the order they came.

Open addressing over an index of int64 entries, `tag << 32 | slot + 1`, 0 when empty; the tag is the key's hash and
names the home position. Deleting shifts entries back, so there are no tombstones. Records never move. A record that
ends leaves the index at once and goes to the list of ended ones; its slot is used again only after the caller has
written it out, so that `slot_of` of the rows before stays true.

What comes out depends on the packets and their times only, never on how they were cut into batches.
"""

import numpy as np

from engine import flow_row as r
from engine import packets as k
from engine.constants import PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP
from engine.jit import helper, kernel, prefetch, u8
from engine.kernels.flow_apps import mark_row
from engine.kernels.flow_count import OF_B, TCP_ACK, TCP_SYN, WORD, count_packet, tcp_of
from engine.kernels.flow_key import (
    K_A_HI,
    K_A_LO,
    K_B_HI,
    K_B_LO,
    K_FLAGS,
    K_REST,
    K_TAG,
    KEY_FROM_B,
    KEY_ICMP,
    KEY_INNER,
    KEY_LATER,
    KEY_NONE,
    KEY_PORTS,
    fragment_hash,
    quoted_key,
)
from engine.kernels.patterns import match_payload

# Words of the state, int64[N_STATE].
(
    T_LIVE,  # records in the index
    T_FREE,  # slots on the free stack
    T_ENDED,  # slots on the list of ended records
    T_HIGH,  # one past the highest slot in use
    T_CLOCK,  # ns, time of the newest packet
    T_BEHIND,  # packets in a row that were far older than the clock
    T_SWEEP_AT,  # ns, when to look for idle flows next
    T_PACKETS,  # packets seen
    T_NEXT_ID,
    T_STARTED,  # flows begun
    T_EVICTED,
    T_TAPS,  # payloads to hand to parsers
    T_PEAK,  # most records that were in the index
    N_STATE,
) = range(14)
# Words of the limits, int64[N_LIMITS].
L_IDLE_NS, L_ACTIVE_NS, L_LINGER_NS, L_FLOWS, N_LIMITS = range(5)
# Rows of the taps, int64[N_TAP, rows]: row of the batch, record, bits of the applications that may be meant.
P_ROW, P_SLOT, P_CANDIDATES, P_FROM_CLIENT, N_TAP = range(5)
# Columns of the fragments, int64[power of two, N_FRAGMENT].
G_HASH, G_SLOT, G_FLOW_ID, G_TS, N_FRAGMENT = range(5)

# Why `follow` returned.
DONE, SWEEP, EVICT = range(3)

SWEEP_NS = 1_000_000_000
_LATEST_NS = 1 << 62  # the year 2116: a second later than that is still a number
_FAR_NS = 60_000_000_000
_BEHIND_MAX = 4096
_FRAGMENT_NS = 30_000_000_000
_NEVER = 1 << 62  # D_FIRST of a direction that has sent nothing
_FINS = r.STATE_FIN_CLIENT | r.STATE_FIN_SERVER
_RESETS = r.STATE_RST_CLIENT | r.STATE_RST_SERVER


@kernel
def follow(
    arena, short, int_, long, address, entropy, present, first, count,
    keys, records, index, free, ended, slot_of, fragments, taps, patterns, buckets, encrypted, names, app_of_proto,
    seeds, limits, state,
):  # fmt: skip
    """Account rows `first` to count - 1 to their flows. Returns (row reached, DONE, SWEEP or EVICT).

    Args:
        arena, short, int_, long, address, entropy, present: as in FrameBatch and PacketBatch; L_FLOW_ID and HAS_FLOW
            are written.
        keys: int64[rows + 1, N_KEY] from `flow_key.find_keys` of the same rows.
        records: int64[slots, N_WORDS]. index: int64[power of two]. free, ended: int32[slots], stacks.
        slot_of: int32[rows], written: the record of each row, -1 without one.
        fragments: int64[power of two, N_FRAGMENT]. taps: int64[N_TAP, rows], appended.
        patterns, buckets: as in `patterns.match_payload`. encrypted, names: as in `flow_apps.mark_row`.
        app_of_proto: int16[256], the application that an IP protocol is, 0 none.
        seeds: uint64[N_SEEDS]. limits, state: see above.
    """
    mask = index.shape[0] - 1
    for i in range(first, count):
        _fetch(i, count, keys, records, index, mask)
        kind = keys[i, K_FLAGS]
        if kind & KEY_NONE:
            slot_of[i] = -1
            state[T_PACKETS] += 1
            continue
        ts = long[k.L_TS, i] * 1000 + np.int64(short[k.S_TS_NANOS, i])
        if _sweep_is_due(ts, state):
            return i, SWEEP
        flags = np.int64(present[i])
        slot = np.int64(-1)
        if kind & KEY_LATER:
            slot = _flow_of_fragment(keys, i, np.int64(int_[k.I_FRAGMENT, i]), ts, records, fragments, seeds)
        if slot < 0:
            at, slot = _find(keys, i, records, index, mask)
            tcp, seq = tcp_of(short, long, i, kind, flags)
            if slot >= 0 and _is_over(slot, at, kind, tcp, seq, ts, records, index, ended, limits, state):
                slot = np.int64(-1)
            if slot < 0:
                if state[T_LIVE] >= limits[L_FLOWS]:
                    return i, EVICT
                slot = _begin(keys, i, tcp, records, index, mask, free, app_of_proto, state)
            elif ts - records[slot, (OF_B if kind & KEY_FROM_B else r.N_COMMON) + r.D_FIRST] > limits[L_ACTIVE_NS]:
                _end_part(slot, records, free, ended, state)
            if flags & k.IS_FRAGMENT and flags & k.IS_LATER_FRAGMENT == 0:
                _note_fragment(keys, i, np.int64(int_[k.I_FRAGMENT, i]), ts, slot, records, fragments, seeds)
        d = count_packet(short, long, address, entropy, i, ts, kind, flags, slot, records)
        if flags & (k.HAS_INNER_PAYLOAD if kind & KEY_INNER else k.HAS_PAYLOAD) and kind & KEY_LATER == 0:
            start, end = np.int64(int_[k.I_PAYLOAD, i]), np.int64(int_[k.I_PAYLOAD_END, i])
            if end > start:
                _look(arena, start, end, i, kind, long, slot, d, records, taps, patterns, buckets, state)
                if kind & KEY_ICMP and _is_unreachable(short, i, kind, keys[i, K_REST]):
                    if quoted_key(arena, start, end, keys[i, K_REST], seeds, keys):
                        _, refused = _find(keys, keys.shape[0] - 1, records, index, mask)
                        if refused >= 0:
                            records[refused, r.R_STATE] |= r.STATE_UNREACHABLE
        slot_of[i] = slot
        long[k.L_FLOW_ID, i] = records[slot, r.R_FLOW_ID]
        present[i] = np.uint32(flags | k.HAS_FLOW)
        if records[slot, r.R_STATE] >> r.STATE_APP:
            mark_row(i, slot, state[T_PACKETS], short, int_, present, records, encrypted, names)
        state[T_PACKETS] += 1
    return count, DONE


@helper
def _fetch(i, count, keys, records, index, mask):
    """Bring nearer what a few rows later will be read: first the index entry, then the record it names."""
    if i + 8 < count:
        prefetch(index, keys[i + 8, K_TAG] & mask)
    if i + 3 < count:
        guess = ((index[keys[i + 3, K_TAG] & mask] & WORD) - 1) * r.N_WORDS
        prefetch(records, guess)
        side = guess + (OF_B if keys[i + 3, K_FLAGS] & KEY_FROM_B else r.N_COMMON)
        prefetch(records, side)
        prefetch(records, side + 8)


@helper
def _sweep_is_due(ts, state):
    """Advance the clock. One that ran ahead (hostile times) is set back when packets stay far behind it."""
    ts = min(ts, _LATEST_NS)
    if ts > state[T_CLOCK]:
        state[T_CLOCK] = ts
        state[T_BEHIND] = 0
    elif ts < state[T_CLOCK] - _FAR_NS:
        state[T_BEHIND] += 1
        if state[T_BEHIND] > _BEHIND_MAX:
            state[T_CLOCK] = ts
            state[T_SWEEP_AT] = ts + SWEEP_NS
            state[T_BEHIND] = 0
    else:
        state[T_BEHIND] = 0
    return state[T_CLOCK] >= state[T_SWEEP_AT]


# --- finding, beginning, ending ------------------------------------------------------------------------------------
@helper
def _find(keys, i, records, index, mask):
    """(position, slot) of the key; slot -1 when it is not there."""
    tag = keys[i, K_TAG]
    at = tag & mask
    while index[at] != 0:
        entry = index[at]
        if entry >> 32 == tag:
            slot = (entry & WORD) - 1
            if (
                records[slot, r.R_REST] == keys[i, K_REST]
                and records[slot, r.R_A_LO] == keys[i, K_A_LO]
                and records[slot, r.R_B_LO] == keys[i, K_B_LO]
                and records[slot, r.R_A_HI] == keys[i, K_A_HI]
                and records[slot, r.R_B_HI] == keys[i, K_B_HI]
            ):
                return at, slot
        at = (at + 1) & mask
    return at, np.int64(-1)


@helper
def is_closed(bits):
    """Both sides have sent FIN, or one has sent RST."""
    return bits & _FINS == _FINS or bits & _RESETS != 0


@helper
def quiet_reason(bits):
    """Why a flow ended that went quiet."""
    if bits & _RESETS:
        return r.END_RESET
    return r.END_CLOSED if bits & _FINS == _FINS else r.END_IDLE


@helper
def _is_over(slot, at, kind, tcp, seq, ts, records, index, ended, limits, state):
    """End the flow found when this packet begins another: it was quiet too long, the clock was set back by as much, or
    this is a SYN of its own."""
    bits = records[slot, r.R_STATE]
    closed = is_closed(bits)
    quiet = ts - records[slot, r.R_LAST]
    if quiet > (limits[L_LINGER_NS] if closed else limits[L_IDLE_NS]) or quiet < -limits[L_IDLE_NS]:
        reason = quiet_reason(bits)
    elif tcp & (TCP_SYN | TCP_ACK) == TCP_SYN and (bits & r.STATE_SYN == 0 or records[slot, r.R_ISN] != seq):
        reason = quiet_reason(bits) if closed else r.END_REUSED
    else:
        return False
    end_flow(slot, at, reason, records, index, ended, state)
    return True


@helper
def end_flow(slot, at, reason, records, index, ended, state):
    """Take the record at index position `at` out of the table and put it on the list of ended ones."""
    records[slot, r.R_STATE] |= np.int64(reason + 1) << r.STATE_ENDED
    ended[state[T_ENDED]] = slot
    state[T_ENDED] += 1
    state[T_LIVE] -= 1
    mask = index.shape[0] - 1
    # Entries behind the hole that may not be found past it move into it (Knuth, TAOCP 6.4, algorithm R).
    hole = at
    probe = (at + 1) & mask
    while index[probe] != 0:
        home = (index[probe] >> 32) & mask
        if (probe - home) & mask >= (probe - hole) & mask:
            index[hole] = index[probe]
            hole = probe
        probe = (probe + 1) & mask
    index[hole] = 0


@helper
def _take_slot(free, state):
    state[T_FREE] -= 1
    slot = np.int64(free[state[T_FREE]])
    if slot >= state[T_HIGH]:
        state[T_HIGH] = slot + 1
    return slot


@helper
def _clear_direction(slot, base, records):
    for w in range(r.N_DIRECTION):
        records[slot, base + w] = 0
    records[slot, base + r.D_FIRST] = _NEVER
    records[slot, base + r.D_SIZES] = WORD << 32
    records[slot, base + r.D_GAPS] = WORD << 32


@helper
def _end_part(slot, records, free, ended, state):
    """Copy the record of a long-lived flow for the row of this part, and count from zero in the record itself."""
    copy = _take_slot(free, state)
    for w in range(r.N_WORDS):
        records[copy, w] = records[slot, w]
    records[copy, r.R_STATE] |= np.int64(r.END_ACTIVE + 1) << r.STATE_ENDED
    # Where the flow goes on and when it was cut: its application may be recognised in this very batch.
    records[copy, r.R_ISN] = slot
    records[copy, r.R_SYN_NS] = state[T_PACKETS]
    ended[state[T_ENDED]] = copy
    state[T_ENDED] += 1
    records[slot, r.R_PART] += 1
    for d in (r.N_COMMON, OF_B):
        next_seq, mac = records[slot, d + r.D_NEXT_SEQ], records[slot, d + r.D_MAC]
        left = records[slot, d + r.D_COUNTS] & 0xFF00
        _clear_direction(slot, d, records)
        records[slot, d + r.D_NEXT_SEQ] = next_seq
        records[slot, d + r.D_MAC] = mac
        records[slot, d + r.D_COUNTS] = left


@helper
def _begin(keys, i, tcp, records, index, mask, free, app_of_proto, state):
    """A new record for the key, at the end of its chain. The client is chosen here."""
    tag = keys[i, K_TAG]
    at = tag & mask
    while index[at] != 0:
        at = (at + 1) & mask
    slot = _take_slot(free, state)
    index[at] = tag << 32 | (slot + 1)
    records[slot, r.R_A_HI] = keys[i, K_A_HI]
    records[slot, r.R_A_LO] = keys[i, K_A_LO]
    records[slot, r.R_B_HI] = keys[i, K_B_HI]
    records[slot, r.R_B_LO] = keys[i, K_B_LO]
    records[slot, r.R_REST] = keys[i, K_REST]
    records[slot, r.R_FLOW_ID] = state[T_NEXT_ID]
    for w in range(r.R_STATE, r.N_COMMON):
        records[slot, w] = 0
    app = np.int64(app_of_proto[keys[i, K_REST] >> r.REST_PROTO & 0xFF])
    records[slot, r.R_STATE] = _first_state(keys[i, K_FLAGS], keys[i, K_REST], tcp) | app << r.STATE_APP
    records[slot, r.R_LAST] = r.MISSING
    records[slot, r.R_PART] = 1
    records[slot, r.R_RTT_NS] = r.MISSING
    for d in (r.N_COMMON, OF_B):
        _clear_direction(slot, d, records)
        records[slot, d + r.D_NEXT_SEQ] = r.MISSING
        records[slot, d + r.D_MAC] = r.MISSING
    state[T_NEXT_ID] += 1
    state[T_STARTED] += 1
    state[T_LIVE] += 1
    state[T_PEAK] = max(state[T_PEAK], state[T_LIVE])
    return slot


@helper
def _first_state(kind, rest, tcp):
    """The client sent first; unless that was a SYN-ACK, or the middle of a connection from a well-known port."""
    client_b = kind & KEY_FROM_B != 0
    bits = np.int64(r.STATE_ICMP if kind & KEY_ICMP else 0)
    if kind & KEY_PORTS:
        bits |= r.STATE_PORTS
        if rest >> r.REST_PROTO & 0xFF == PROTO_TCP:
            sender, receiver = rest & 0xFFFF, rest >> r.REST_PORT_B & 0xFFFF
            if client_b:
                sender, receiver = receiver, sender
            if tcp & TCP_SYN:
                client_b = client_b != (tcp & TCP_ACK != 0)
            elif sender < 1024 and sender < receiver:
                client_b = not client_b
    return bits | (r.STATE_CLIENT_B if client_b else 0)


# --- payload -------------------------------------------------------------------------------------------------------
@helper
def _look(arena, start, end, i, kind, long, slot, d, records, taps, patterns, buckets, state):
    """Keep the first bytes of the direction, and hand the payload to parsers where it matches a pattern."""
    counts = records[slot, d + r.D_COUNTS]
    have = counts & 0xFF
    if have < r.HEAD_BYTES:
        stop = min(end, start + r.HEAD_BYTES - have)
        for at in range(start, stop):
            records[slot, d + r.D_HEAD + (have >> 3)] |= u8(arena, at) << (8 * (have & 7))
            have += 1
        counts = counts & ~0xFF | have
        records[slot, d + r.D_COUNTS] = counts
    rest = records[slot, r.R_REST]
    proto = rest >> r.REST_PROTO & 0xFF
    if (
        records[slot, r.R_STATE] & r.STATE_APP_DONE
        or (proto != PROTO_TCP and proto != PROTO_UDP)
        or kind & KEY_PORTS == 0
    ):
        return
    length = long[k.L_INNER_PAYLOAD_LEN, i] if kind & KEY_INNER else long[k.L_PAYLOAD_LEN, i]
    hits, more = match_payload(
        arena, start, end, length, 0 if proto == PROTO_TCP else 1, rest & 0xFFFF, rest >> r.REST_PORT_B & 0xFFFF,
        patterns, buckets,
    )  # fmt: skip
    left = counts >> 8 & 0xFF
    if hits:
        left = max(left, 1 + more)
    if left > 0:
        records[slot, d + r.D_COUNTS] = counts & ~0xFF00 | (left - 1) << 8
        n = state[T_TAPS]
        taps[P_ROW, n] = i
        taps[P_SLOT, n] = slot
        taps[P_CANDIDATES, n] = hits
        taps[P_FROM_CLIENT, n] = 1 if (d == OF_B) == (records[slot, r.R_STATE] & r.STATE_CLIENT_B != 0) else 0
        state[T_TAPS] = n + 1


@helper
def _is_unreachable(short, i, kind, rest):
    """An ICMP error that says no for the receiver: port or protocol unreachable, prohibited (RFC 792, 1812, 4443)."""
    inner = kind & KEY_INNER
    icmp = np.int64(short[k.S_INNER_ICMP_TYPE if inner else k.S_ICMP_TYPE, i])
    code = np.int64(short[k.S_INNER_ICMP_CODE if inner else k.S_ICMP_CODE, i])
    proto = rest >> r.REST_PROTO & 0xFF
    if proto == PROTO_ICMP:
        return icmp == 3 and (code == 2 or code == 3 or code == 9 or code == 10 or code == 13)
    return proto == PROTO_ICMPV6 and icmp == 1 and (code == 1 or code == 4 or code == 5 or code == 6)


@helper
def _flow_of_fragment(keys, i, identification, ts, records, fragments, seeds):
    """The record that the first fragment of this datagram was counted in, -1 when it is not known any more."""
    h = fragment_hash(keys, i, identification, seeds)
    at = h & (fragments.shape[0] - 1)
    slot = fragments[at, G_SLOT]
    if (
        fragments[at, G_HASH] == h
        and fragments[at, G_FLOW_ID] == records[slot, r.R_FLOW_ID]
        and records[slot, r.R_STATE] >> r.STATE_ENDED & 0xF == 0
        and abs(ts - fragments[at, G_TS]) < _FRAGMENT_NS
    ):
        return slot
    return np.int64(-1)


@helper
def _note_fragment(keys, i, identification, ts, slot, records, fragments, seeds):
    h = fragment_hash(keys, i, identification, seeds)
    at = h & (fragments.shape[0] - 1)
    fragments[at, G_HASH] = h
    fragments[at, G_SLOT] = slot
    fragments[at, G_FLOW_ID] = records[slot, r.R_FLOW_ID]
    fragments[at, G_TS] = ts
