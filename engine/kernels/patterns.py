"""Which application protocols a payload may belong to, by its first eight bytes."""

import numpy as np

from engine.jit import be64, helper, u8

# Columns of the patterns, int64[n, N_PATTERN]. They stand in order of transport and first byte; one whose first byte
# is masked stands in each of the 256 places.
P_VALUE, P_MASK, P_PORT, P_MIN, P_MAX, P_BIT, P_FOLLOW, P_NEED, N_PATTERN = range(9)


@helper
def match_payload(buf, start, end, length, transport, port_a, port_b, patterns, buckets):
    """(bits of the applications that match, most packets to follow).

    Args:
        buf: uint8[n]. start, end: the captured payload, start < end. length: bytes on the wire.
        transport: 0 TCP, 1 UDP. port_a, port_b: of the flow, in any order.
        patterns: int64[n, N_PATTERN]. buckets: int64[513], where each transport's first byte begins.
    """
    bucket = transport * 256 + u8(buf, start)
    row = buckets[bucket]
    stop = buckets[bucket + 1]
    hits = np.int64(0)
    follow = np.int64(0)
    if row == stop:
        return hits, follow
    captured = end - start
    if captured >= 8:
        word = be64(buf, start)
    else:
        word = np.int64(0)
        for i in range(captured):
            word |= u8(buf, start + i) << (56 - 8 * i)
    while row < stop:
        if (
            word & patterns[row, P_MASK] == patterns[row, P_VALUE]
            and patterns[row, P_MIN] <= length <= patterns[row, P_MAX]
            and captured >= patterns[row, P_NEED]
            and (patterns[row, P_PORT] == 0 or patterns[row, P_PORT] == port_a or patterns[row, P_PORT] == port_b)
        ):
            hits |= patterns[row, P_BIT]
            follow = max(follow, patterns[row, P_FOLLOW])
        row += 1
    return hits, follow
