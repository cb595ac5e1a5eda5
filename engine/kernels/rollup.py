"""Totals of packets while they pass: by second and kind of packet, and by minute and who talks.

Both are hash tables of records of eight int64 words, one cache line each, bounded and open addressed. What they are
emptied into are *additions*: a second or a minute may come more than once, and its rows add up.

Who talks is counted in two steps. A *run* is rows of one batch and one minute: the batch's addresses are numbered
already (`engine.kernels.address`), and there are 65,536 ports, so a run counts in arrays without any hashing; at its
end each key it met is added to the table once.
"""

import numpy as np

from engine import packets as k
from engine.constants import PROTO_TCP, PROTO_UDP
from engine.jit import helper, kernel, prefetch

# --- records of the table of seconds ----------------------------------------------------------------------------
(
    S_KEY,  # 0: free, else KEY_*
    S_SECOND, S_PACKETS, S_BYTES, S_PAYLOAD, S_FRAGMENTS, S_UNDECODABLE, S_SYNS, N_WORDS,
) = range(9)  # fmt: skip
# S_KEY: protocol (256 none) 9 bits, IP version (0 none, 1 four, 2 six) 2, EtherType + 1 (0 none) 17, application 16,
# source 8, in use 1.
KEY_VERSION, KEY_ETHERTYPE, KEY_APP, KEY_SOURCE, KEY_USED = 9, 11, 28, 44, 1 << 52
NO_PROTO = 256

# --- records of the table of talkers ----------------------------------------------------------------------------
(
    W_TAG,  # 0: free, else TAG_*
    W_HI, W_LO,  # the address; or 0 and the port
    W_SENT, W_SENT_BYTES,  # packets from an address; of a port, all
    W_RECEIVED, W_RECEIVED_BYTES,  # packets to it
    W_KEYS,  # of a rest: how many addresses sent | how many received << 32
) = range(8)  # fmt: skip
# W_TAG: in use 1 bit, is a port 1, what kind of key 2, source 8, minute since the epoch (signed).
TAG_PORT, TAG_KIND, TAG_SOURCE, TAG_MINUTE = 1, 2, 4, 12
IS_IPV4, IS_IPV6, IS_REST, IS_NONE = range(4)  # a port is IS_IPV4 or one of the latter two

PORTS = 1 << 17  # numbers of a port: 16 bits, then 1 for UDP

# --- state, int64[N_STATE] --------------------------------------------------------------------------------------
(
    T_ROW,  # first row not counted yet
    T_SECONDS, T_TALKERS,  # records in use
    T_HALF,  # which half of the table of talkers is in use
    T_LIMIT,  # so many talkers are pruned; 0 in an empty table
    T_MINUTE,  # of the run
    T_NO_IP, T_NO_IP_BYTES, T_NO_PORT, T_NO_PORT_BYTES,  # packets of the run without any
    T_NEWEST,  # latest second of any row counted since the caller set it
    T_SEED_A, T_SEED_B, T_SEED_C,  # odd multipliers of the hash, drawn at each start: nobody can aim at one chain
    T_WIDTHS,  # first of 64 counters, scratch
) = range(15)  # fmt: skip
N_STATE = T_WIDTHS + 64
DONE, SECONDS_FULL, TALKERS_FULL = range(3)
US_PER_SECOND, US_PER_MINUTE = 1_000_000, 60_000_000
_AHEAD = 6  # keys whose records are fetched early


@helper
def _mix(a, b, c, mask, state):
    h = np.uint64(a) * np.uint64(state[T_SEED_A]) + np.uint64(b) * np.uint64(state[T_SEED_B])
    h = (h ^ (h >> np.uint64(32)) ^ np.uint64(c)) * np.uint64(state[T_SEED_C])
    return np.int64((h >> np.uint64(29)) & np.uint64(mask))


@helper
def _second(seconds, key, second, state):
    """Number of the record of a kind of packet in a second; the caller has made sure that there is room."""
    mask = seconds.shape[0] - 1
    s = _mix(key, second, 0, mask, state)
    while seconds[s, S_KEY] != 0:
        if seconds[s, S_KEY] == key and seconds[s, S_SECOND] == second:
            return s
        s = (s + 1) & mask
    seconds[s, S_KEY] = key
    seconds[s, S_SECOND] = second
    state[T_SECONDS] += 1
    return s


@helper
def _add(talkers, tag, hi, lo, sent, sent_bytes, received, received_bytes, keys, state):
    """Add to a talker's record. The caller has made sure that one is free."""
    slots = talkers.shape[0] >> 1
    first = state[T_HALF] * slots
    s = _mix(hi, lo, tag, slots - 1, state)
    while talkers[first + s, W_TAG] != 0:
        at = first + s
        if talkers[at, W_TAG] == tag and talkers[at, W_LO] == lo and talkers[at, W_HI] == hi:
            talkers[at, W_SENT] += sent
            talkers[at, W_SENT_BYTES] += sent_bytes
            talkers[at, W_RECEIVED] += received
            talkers[at, W_RECEIVED_BYTES] += received_bytes
            talkers[at, W_KEYS] += keys
            return
        s = (s + 1) & (slots - 1)
    at = first + s
    state[T_TALKERS] += 1
    talkers[at, W_TAG] = tag
    talkers[at, W_HI] = hi
    talkers[at, W_LO] = lo
    talkers[at, W_SENT] = sent
    talkers[at, W_SENT_BYTES] = sent_bytes
    talkers[at, W_RECEIVED] = received
    talkers[at, W_RECEIVED_BYTES] = received_bytes
    talkers[at, W_KEYS] = keys


@helper
def _width(value):
    """Number of bits of a value that is not negative."""
    n = 0
    while value > 0:
        value >>= 1
        n += 1
    return n


@helper
def _prune(talkers, state):
    """Make room: talkers stay in an eighth of the table at most, the lighter ones go into the rest of their minute.

    The other half of the array becomes the table, and this one is emptied.
    """
    slots = talkers.shape[0] >> 1
    old = state[T_HALF] * slots
    for b in range(64):
        state[T_WIDTHS + b] = 0
    for s in range(old, old + slots):
        if talkers[s, W_TAG] != 0 and (talkers[s, W_TAG] >> TAG_KIND) & 3 < IS_REST:
            state[T_WIDTHS + _width(max(talkers[s, W_SENT_BYTES], talkers[s, W_RECEIVED_BYTES]))] += 1
    room, bar = slots >> 3, 63
    while bar > 0 and state[T_WIDTHS + bar] <= room:
        room -= state[T_WIDTHS + bar]
        bar -= 1
    state[T_HALF] = 1 - state[T_HALF]
    state[T_TALKERS] = 0
    kinds = np.int64(3) << TAG_KIND
    for s in range(old, old + slots):
        tag, hi, lo, keys = talkers[s, W_TAG], talkers[s, W_HI], talkers[s, W_LO], talkers[s, W_KEYS]
        if tag == 0:
            continue
        sent, received = talkers[s, W_SENT], talkers[s, W_RECEIVED]
        sent_bytes, received_bytes = talkers[s, W_SENT_BYTES], talkers[s, W_RECEIVED_BYTES]
        if (tag >> TAG_KIND) & 3 < IS_REST and _width(max(sent_bytes, received_bytes)) <= bar:
            tag, hi, lo = (tag & ~kinds) | (IS_REST << TAG_KIND), np.int64(0), np.int64(0)
            keys = np.int64(sent > 0) | np.int64(received > 0) << 32
        _add(talkers, tag, hi, lo, sent, sent_bytes, received, received_bytes, keys, state)
        talkers[s, W_TAG] = 0
    state[T_LIMIT] = max(slots >> 1, state[T_TALKERS] + (slots >> 3))


@helper
def _tag(port, kind, source, minute):
    return 1 | port << TAG_PORT | kind << TAG_KIND | source << TAG_SOURCE | minute << TAG_MINUTE


@helper
def _settle(entries, kinds, counts, met, n_met, ports, ports_met, n_ports, source, talkers, state):
    """Add what a run has counted to the table, and clear the run."""
    minute = state[T_MINUTE]
    half, mask = state[T_HALF] * (talkers.shape[0] >> 1), (talkers.shape[0] >> 1) - 1
    for j in range(n_met):
        if j + _AHEAD < n_met:
            n = np.int64(met[j + _AHEAD])
            tag = _tag(0, np.int64(kinds[n]), source, minute)
            place = _mix(np.int64(entries[0, n]), np.int64(entries[1, n]), tag, mask, state)
            prefetch(talkers, (half + place) * N_WORDS)
        if state[T_TALKERS] >= state[T_LIMIT]:
            _prune(talkers, state)
        n = np.int64(met[j])
        tag = _tag(0, np.int64(kinds[n]), source, minute)
        hi, lo = np.int64(entries[0, n]), np.int64(entries[1, n])
        _add(talkers, tag, hi, lo, counts[n, 0], counts[n, 1], counts[n, 2], counts[n, 3], 0, state)
        for word in range(4):
            counts[n, word] = 0
    for j in range(n_ports):
        n = np.int64(ports_met[j])
        if state[T_TALKERS] >= state[T_LIMIT]:
            _prune(talkers, state)
        _add(talkers, _tag(1, IS_IPV4, source, minute), 0, n, ports[n, 0], ports[n, 1], 0, 0, 0, state)
        ports[n, 0] = 0
        ports[n, 1] = 0
    n, size = state[T_NO_IP], state[T_NO_IP_BYTES]
    if n:
        _add(talkers, _tag(0, IS_NONE, source, minute), 0, 0, n, size, n, size, 0, state)
    n, size = state[T_NO_PORT], state[T_NO_PORT_BYTES]
    if n:
        _add(talkers, _tag(1, IS_NONE, source, minute), 0, 0, n, size, 0, 0, 0, state)
    for word in range(T_NO_IP, T_NO_PORT_BYTES + 1):
        state[word] = 0


@helper
def _kind_key(short, int_, i, flags, source):
    """S_KEY of a row."""
    key = KEY_USED | source << KEY_SOURCE
    if flags & np.uint32(k.HAS_APP):
        key |= np.int64(short[k.S_APP, i]) << KEY_APP
    if flags & np.uint32(k.HAS_IP):
        key |= np.int64(2 if short[k.S_IP_VERSION, i] == 6 else 1) << KEY_VERSION
    elif flags & np.uint32(k.HAS_ETHERTYPE):
        key |= (np.int64(int_[k.I_ETHERTYPE, i]) + 1) << KEY_ETHERTYPE
    return key | (np.int64(short[k.S_PROTO, i]) if flags & np.uint32(k.HAS_PROTO) else NO_PROTO)


@kernel
def count_rows(
    short, int_, long, present, count, source, entries, kinds, counts, met, ports, ports_met, seconds, talkers, state
):
    """Count the rows from state[T_ROW] to count - 1. Returns DONE, or which table has to be emptied to go on.

    Args:
        short, int_, long, present: of a PacketBatch whose I_SRC_IP and I_DST_IP number `entries`.
        source: int64, below 256.
        entries: uint64[2, n], kinds: uint8[n], see `engine.kernels.address`.
        counts: int64[>= n, 4], zero: packets and bytes from, to an address. met: int32[>= n].
        ports: int64[PORTS, 2], zero: packets and bytes. ports_met: int32[PORTS].
        seconds: int64[a power of two, N_WORDS]. talkers: int64[twice a power of two, N_WORDS], of which one half is in
            use. state: int64[N_STATE].
    """
    minute_from, minute_to, second_from, second_to = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    second, last_key, s = np.int64(0), np.int64(0), np.int64(0)
    n_met, n_ports = np.int64(0), np.int64(0)
    code = DONE
    state[T_LIMIT] = max(state[T_LIMIT], talkers.shape[0] >> 2)
    i = state[T_ROW]
    while i < count:
        ts = long[k.L_TS, i]
        if ts < minute_from or ts >= minute_to:
            _settle(entries, kinds, counts, met, n_met, ports, ports_met, n_ports, source, talkers, state)
            n_met, n_ports = np.int64(0), np.int64(0)
            if state[T_TALKERS] >= talkers.shape[0] >> 2:
                _prune(talkers, state)
                if state[T_TALKERS] >= talkers.shape[0] >> 3:  # the rests of that many minutes
                    code = TALKERS_FULL
                    break
            state[T_MINUTE] = ts // US_PER_MINUTE
            minute_from = state[T_MINUTE] * US_PER_MINUTE
            minute_to = minute_from + US_PER_MINUTE
        if ts < second_from or ts >= second_to:
            second = ts // US_PER_SECOND
            second_from = second * US_PER_SECOND
            second_to = second_from + US_PER_SECOND
            state[T_NEWEST] = max(state[T_NEWEST], second)
            last_key = 0
        flags = present[i]
        key = _kind_key(short, int_, i, flags, source)
        if key != last_key:
            if state[T_SECONDS] >= seconds.shape[0] >> 1:
                code = SECONDS_FULL
                break
            s = _second(seconds, key, second, state)
            last_key = key
        size = long[k.L_WIRELEN, i]
        seconds[s, S_PACKETS] += 1
        seconds[s, S_BYTES] += size
        if flags & np.uint32(k.HAS_PAYLOAD):
            seconds[s, S_PAYLOAD] += long[k.L_PAYLOAD_LEN, i]
        if flags & np.uint32(k.IS_FRAGMENT):
            seconds[s, S_FRAGMENTS] += 1
        if short[k.S_STATUS, i] > k.NOT_IP:
            seconds[s, S_UNDECODABLE] += 1
        if flags & np.uint32(k.HAS_TCP) and short[k.S_TCP_FLAGS, i] & 0x12 == 0x02:
            seconds[s, S_SYNS] += 1
        if flags & np.uint32(k.HAS_IP):
            for side in range(2):
                n = np.int64(int_[k.I_SRC_IP + side, i])
                if counts[n, 0] + counts[n, 2] == 0:
                    met[n_met] = n
                    n_met += 1
                counts[n, 2 * side] += 1
                counts[n, 2 * side + 1] += size
        else:
            state[T_NO_IP] += 1
            state[T_NO_IP_BYTES] += size
        proto = key & 0x1FF
        if flags & np.uint32(k.HAS_PORTS) and (proto == PROTO_TCP or proto == PROTO_UDP):
            n = np.int64(min(int_[k.I_SRC_PORT, i], int_[k.I_DST_PORT, i])) | np.int64(proto == PROTO_UDP) << 16
            if ports[n, 0] == 0:
                ports_met[n_ports] = n
                n_ports += 1
            ports[n, 0] += 1
            ports[n, 1] += size
        else:
            state[T_NO_PORT] += 1
            state[T_NO_PORT_BYTES] += size
        i += 1
    _settle(entries, kinds, counts, met, n_met, ports, ports_met, n_ports, source, talkers, state)
    state[T_ROW] = i
    return code


@kernel
def put_back(records, seconds, state):
    """Put records of seconds that are not over into the emptied table.

    Args:
        records: int64[n, N_WORDS]. seconds, state: as in `count_rows`; words after S_SECOND are zero.
    """
    for i in range(records.shape[0]):
        s = _second(seconds, records[i, S_KEY], records[i, S_SECOND], state)
        for word in range(S_PACKETS, N_WORDS):
            seconds[s, word] = records[i, word]
