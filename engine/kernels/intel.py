"""Which packets have an address of a list. Addresses are intervals; a bitmap says where there is none."""

import numpy as np

from engine import packets as k
from engine.jit import helper, kernel

# IPv4: one bit per /24. IPv6: one bit per hash of a /32.
BITS_V4 = 1 << 24
BITS_V6 = 1 << 20
# Rows of the hits, int64[N_HIT, n]: row of the batch, entry, 0 the source or 1 the destination, 1 inside a tunnel.
H_ROW, H_ENTRY, H_SIDE, H_INNER, N_HIT = range(5)


@helper
def bit_v6(hi):
    """The bit of an IPv6 address in its bitmap."""
    return np.int64(hi >> np.uint64(32)) * 0x5851F42D >> 11 & 0xFFFFF  # fits 63 bits


@helper
def _find_v4(lo, bits, index, starts, ends):
    """The interval that holds the address, or -1."""
    value = np.int64(lo)
    cell = value >> 8
    if np.int64(bits[cell >> 3]) >> (cell & 7) & 1 == 0:
        return np.int64(-1)
    low = np.int64(index[value >> 16])
    high = np.int64(index[(value >> 16) + 1])
    while low < high:  # first interval that begins after the address
        middle = (low + high) >> 1
        if starts[middle] <= value:
            low = middle + 1
        else:
            high = middle
    if low > 0 and ends[low - 1] >= value:
        return low - 1
    return np.int64(-1)


@helper
def _find_v6(hi, lo, bits, ranges):
    cell = bit_v6(hi)
    if np.int64(bits[cell >> 3]) >> (cell & 7) & 1 == 0:
        return np.int64(-1)
    low = np.int64(0)
    high = np.int64(ranges.shape[1])
    while low < high:
        middle = (low + high) >> 1
        if ranges[0, middle] < hi or (ranges[0, middle] == hi and ranges[1, middle] <= lo):
            low = middle + 1
        else:
            high = middle
    if low > 0 and (ranges[2, low - 1] > hi or (ranges[2, low - 1] == hi and ranges[3, low - 1] >= lo)):
        return low - 1
    return np.int64(-1)


@kernel
def match_addresses(
    short, address, present, first, count, bits4, index4, starts4, ends4, entries4, bits6, ranges6, entries6, hits
):
    """Find listed addresses in rows `first` to count - 1. Returns (hits written, row reached): it stops when full.

    Args:
        short, address, present: as in PacketBatch.
        bits4: uint8[BITS_V4 / 8]. index4: int32[65537], first interval that begins in or after each /16.
        starts4, ends4: int64[n], disjoint intervals in order. entries4: int32[n], whose they are.
        bits6: uint8[BITS_V6 / 8]. ranges6: uint64[4, m], first and last address as high and low halves, in order.
        entries6: int32[m]. hits: int64[N_HIT, h], h >= 4, written.
    """
    n = np.int64(0)
    room = hits.shape[1] - 4
    for i in range(first, count):
        flags = np.int64(present[i])
        if flags & k.HAS_IP == 0:
            continue
        if n > room:
            return n, i
        for inner in range(2):
            if inner:
                if flags & k.HAS_INNER_IP == 0:
                    break
                v6 = flags & k.IS_INNER_IPV6 != 0
                a = k.A_INNER_SRC_HI
            else:
                v6 = short[k.S_IP_VERSION, i] == 6
                a = k.A_SRC_HI
            for side in range(2):
                if v6:
                    at = _find_v6(address[a + 2 * side, i], address[a + 2 * side + 1, i], bits6, ranges6)
                    entry = np.int64(entries6[at]) if at >= 0 else np.int64(-1)
                else:
                    at = _find_v4(address[a + 2 * side + 1, i], bits4, index4, starts4, ends4)
                    entry = np.int64(entries4[at]) if at >= 0 else np.int64(-1)
                if entry >= 0:
                    hits[H_ROW, n] = i
                    hits[H_ENTRY, n] = entry
                    hits[H_SIDE, n] = side
                    hits[H_INNER, n] = inner
                    n += 1
    return n, np.int64(count)
