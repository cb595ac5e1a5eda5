"""What a tick leaves in the tables, read in one pass: the greatest of each counter, and windows that ended."""

import numpy as np

from engine.jit import helper, kernel, prefetch
from engine.kernels.window_layout import (
    C_ATTEMPTS,
    C_IN_ATTEMPTS,
    C_IN_PACKETS,
    C_OUT_PACKETS,
    H_COUNTERS,
    H_FIRST,
    H_SECOND,
    N_COUNTERS,
    N_HOST,
    N_PAIR_COUNTERS,
    P_COUNTERS,
    P_GAP_SUM,
    P_STARTS,
    T_FAILED,
    T_FAILED_OLD,
    T_TRIED,
    T_TRIED_OLD,
)  # fmt: skip
from engine.kernels.window_rows import in_first_second
from engine.kernels.window_tables import WAYS

# Words of the peaks of pairs after their counters, and of those of targets.
X_STARTS, X_GAP_SUM, N_PAIR_PEAKS = N_PAIR_COUNTERS, N_PAIR_COUNTERS + 1, N_PAIR_COUNTERS + 2
X_FAILED, X_TRIED, N_TARGET_PEAKS = range(3)


@kernel
def host_peaks(hosts, touched, count, since_ns, peaks):
    """The greatest value of each counter of the running second among the hosts of a tick.

    Args:
        hosts: int64[rows, N_HOST]. touched: int32[rows], the first `count` are the tick's rows.
        peaks: int64[N_COUNTERS], written.

    Returns: how many of them were first seen at `since_ns` or later, and sent something.
    """
    peaks[:] = 0
    new = 0
    for n in range(count):
        if n + 8 < count:
            ahead = np.int64(touched[n + 8]) * N_HOST
            for line in range(0, H_COUNTERS + N_COUNTERS, 8):
                prefetch(hosts, ahead + line)
        row = np.int64(touched[n])
        for c in range(N_COUNTERS):
            peaks[c] = max(peaks[c], hosts[row, H_COUNTERS + c])
        new += hosts[row, H_FIRST] >= since_ns and hosts[row, H_COUNTERS + C_OUT_PACKETS] > 0
    return new


@kernel
def pair_peaks(pairs, touched, count, peaks):
    """The same of pairs: counters of both minutes together, connections and the sum of the gaps between them (ms).

    Args: pairs: int64[rows, N_PAIR]. touched, count: as above. peaks: int64[N_PAIR_PEAKS], written.
    """
    peaks[:] = 0
    for n in range(count):
        row = np.int64(touched[n])
        for c in range(N_PAIR_COUNTERS):
            at = P_COUNTERS + c
            peaks[c] = max(peaks[c], pairs[row, at] + pairs[row, at + N_PAIR_COUNTERS])
        peaks[X_STARTS] = max(peaks[X_STARTS], pairs[row, P_STARTS])
        peaks[X_GAP_SUM] = max(peaks[X_GAP_SUM], pairs[row, P_GAP_SUM])


@kernel
def target_peaks(targets, touched, count, peaks):
    """The same of targets: hosts that failed, and hosts tried. peaks: int64[N_TARGET_PEAKS], written."""
    peaks[:] = 0
    for n in range(count):
        row = np.int64(touched[n])
        peaks[X_FAILED] = max(peaks[X_FAILED], targets[row, T_FAILED] + targets[row, T_FAILED_OLD])
        peaks[X_TRIED] = max(peaks[X_TRIED], targets[row, T_TRIED] + targets[row, T_TRIED_OLD])


@kernel
def ended_rows(tags, hosts, level, length, old, least_packets, least_attempts, out):
    """Rows whose window of `length` seconds ended with second `old`, in which enough happened.

    Args:
        tags: int64[sets, 8]. hosts: int64[rows, N_HOST]. level: 0 to 2, `length` is LEVEL_S[level].
        least_packets, least_attempts: either is enough; 0 for all rows. out: int32[rows], written.

    Returns: their number.
    """
    n = 0
    for at in range(tags.shape[0]):
        for way in range(WAYS):
            tag = tags[at, way]
            row = at * WAYS + way
            if tag == 0 or (old - tag) & 0xFFFF >= length or hosts[row, H_SECOND] // length != old // length:
                continue
            packets, attempts = _window_size(row, 0, hosts)
            if level > 0 and not in_first_second(row, hosts):
                more_packets, more_attempts = _window_size(row, level, hosts)
                packets += more_packets
                attempts += more_attempts
            if packets >= least_packets or attempts >= least_attempts:
                out[n] = row
                n += 1
    return n


@helper
def _window_size(row, level, hosts):
    """(packets of both directions, attempts of both)."""
    at = H_COUNTERS + level * N_COUNTERS
    packets = hosts[row, at + C_OUT_PACKETS] + hosts[row, at + C_IN_PACKETS]
    return packets, hosts[row, at + C_ATTEMPTS] + hosts[row, at + C_IN_ATTEMPTS]


@kernel
def window_counters(hosts, rows, level, out):
    """Counters of the windows of `rows`: of the running second, and of the seconds before it of level 1 or 2.

    Args: hosts: int64[rows, N_HOST]. rows: int64[n]. out: int64[n, N_COUNTERS], written.
    """
    for n in range(rows.shape[0]):
        row = rows[n]
        add = level > 0 and not in_first_second(row, hosts)
        at = H_COUNTERS + (level * N_COUNTERS if add else 0)
        for c in range(N_COUNTERS):
            out[n, c] = hosts[row, H_COUNTERS + c] + (hosts[row, at + c] if add else 0)
