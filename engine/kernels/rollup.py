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
    W_HI, W_LO, W_PACKETS, W_BYTES,
    W_KEYS,  # how many keys the record stands for
) = range(6)  # fmt: skip
# W_TAG: in use 1 bit, dimension 2, what kind of key 2, source 8, minute since the epoch (signed).
TAG_DIMENSION, TAG_KIND, TAG_SOURCE, TAG_MINUTE = 1, 3, 5, 13
DIMENSIONS = ("src_ip", "dst_ip", "port")
BY_SRC, BY_DST, BY_PORT = range(3)
IS_IPV4, IS_IPV6, IS_REST, IS_NONE = range(4)  # a port is an IS_IPV4 of its number and protocol; rest and none add up

PORTS = 1 << 17  # numbers of a port: 16 bits, then 1 for UDP

# --- state, int64[N_STATE] --------------------------------------------------------------------------------------
(
    T_ROW,  # first row not counted yet
    T_SECONDS, T_TALKERS,  # records in use
    T_MINUTE,  # of the run
    T_ENTRIES, T_PORTS,  # addresses and ports that the run met
    T_NONE_IP_PACKETS, T_NONE_IP_BYTES, T_NONE_PORT_PACKETS, T_NONE_PORT_BYTES,  # of the run: packets without any
    T_NEWEST,  # latest second of this call
    N_STATE,
) = range(12)  # fmt: skip
DONE, SECONDS_FULL, TALKERS_FULL = range(3)
US_PER_MINUTE = 60_000_000


@helper
def _mix(a, b, c, mask):
    h = (np.uint64(a) ^ (np.uint64(b) * np.uint64(0x9E3779B97F4A7C15))) * np.uint64(0xD6E8FEB86659FD93)
    h = (h ^ (h >> np.uint64(32)) ^ np.uint64(c)) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64((h >> np.uint64(29)) & np.uint64(mask))


@helper
def _second(seconds, key, second, state):
    """Number of the record of a kind of packet in a second; the caller has made sure that there is room."""
    mask = seconds.shape[0] - 1
    s = _mix(key, second, 0, mask)
    while seconds[s, S_KEY] != 0:
        if seconds[s, S_KEY] == key and seconds[s, S_SECOND] == second:
            return s
        s = (s + 1) & mask
    seconds[s, S_KEY] = key
    seconds[s, S_SECOND] = second
    state[T_SECONDS] += 1
    return s


@helper
def _add(talkers, tag, hi, lo, packets, size, keys, state):
    """Add to a talker's record. There must be a free one."""
    mask = talkers.shape[0] - 1
    s = _mix(hi, lo, tag, mask)
    while talkers[s, W_TAG] != 0:
        if talkers[s, W_TAG] == tag and talkers[s, W_HI] == hi and talkers[s, W_LO] == lo:
            talkers[s, W_PACKETS] += packets
            talkers[s, W_BYTES] += size
            if (tag >> TAG_KIND) & 3 == IS_REST:
                talkers[s, W_KEYS] += keys
            return
        s = (s + 1) & mask
    state[T_TALKERS] += 1
    talkers[s, W_TAG] = tag
    talkers[s, W_HI] = hi
    talkers[s, W_LO] = lo
    talkers[s, W_PACKETS] = packets
    talkers[s, W_BYTES] = size
    talkers[s, W_KEYS] = keys


@helper
def _prune(talkers, kept, state):
    """Make room: the lightest talkers go into the rest of their minute, so that at most an eighth of the table stays.

    Args:
        kept: int64[slots / 2, 8], scratch.
    """
    slots = talkers.shape[0]
    width = np.zeros(64, np.int64) if False else kept[kept.shape[0] - 8 :]  # 64 counters at the scratch's end
    for b in range(64):
        width[b >> 3, b & 7] = 0
    for s in range(slots):
        if talkers[s, W_TAG] != 0 and (talkers[s, W_TAG] >> TAG_KIND) & 3 < IS_REST:
            b = _width(talkers[s, W_BYTES])
            width[b >> 3, b & 7] += 1
    most, bar = slots >> 3, 63
    while bar >= 0 and width[bar >> 3, bar & 7] <= most:
        most -= width[bar >> 3, bar & 7]
        bar -= 1
    n = 0
    for s in range(slots):  # those that stay first: what is added below must find its place in an emptied table
        tag = talkers[s, W_TAG]
        if tag != 0 and ((tag >> TAG_KIND) & 3 >= IS_REST or _width(talkers[s, W_BYTES]) > bar):
            for w in range(W_KEYS + 1):
                kept[n, w] = talkers[s, w]
            n += 1
            talkers[s, W_TAG] = 0
    light = 0
    for s in range(slots):  # the light ones of a group follow each other rarely: they are summed where they belong
        tag = talkers[s, W_TAG]
        if tag != 0:
            for w in range(W_KEYS + 1):
                talkers[light, w] = talkers[s, w]
            light += 1
    return n, light


@helper
def _width(value):
    """Number of bits of a positive value."""
    n = 0
    while value > 0:
        value >>= 4
        n += 4
    return min(n, 63)
