"""Shannon entropy of bytes, exact, at the speed of memory.

H = log2(n) - (1/n) * sum over byte values of c * log2(c), c the count of each value (Shannon 1948, section 6).
"""

import numpy as np

from engine.jit import helper, kernel, u8

# Below this length the sum is kept up to date byte by byte; above, four histograms let four counts run at once.
_SMALL = 384
N_LOG = 4096  # counts below this are looked up


def log_tables():
    """float64[2, N_LOG]: row 0 c * log2(c), row 1 its increase from c to c + 1."""
    c = np.arange(N_LOG + 1, dtype=np.float64)
    x = np.zeros(N_LOG + 1)
    x[1:] = c[1:] * np.log2(c[1:])
    return np.ascontiguousarray(np.stack([x[:-1], np.diff(x)]))


@helper
def entropy_of(buf, start, end, logs, histogram):
    """Entropy in bits per byte of buf[start:end], end > start.

    Args:
        buf: uint8[n]. start, end: within it.
        logs: float64[2, N_LOG] from `log_tables`.
        histogram: uint32[1024], all zero; zero again on return.
    """
    n = end - start
    if n < _SMALL:
        total = 0.0
        for i in range(start, end):
            b = u8(buf, i)
            c = np.int64(histogram[b])
            total += logs[1, c]
            histogram[b] = c + 1
        for i in range(start, end):
            histogram[u8(buf, i)] = 0
    else:
        total = _sum_large(buf, start, end, logs, histogram)
    value = np.log2(n) - total / n
    return value if value > 0.0 else 0.0


@helper
def _sum_large(buf, start, end, logs, histogram):
    i = start
    while i + 4 <= end:
        histogram[u8(buf, i)] += 1
        histogram[256 + u8(buf, i + 1)] += 1
        histogram[512 + u8(buf, i + 2)] += 1
        histogram[768 + u8(buf, i + 3)] += 1
        i += 4
    while i < end:
        histogram[u8(buf, i)] += 1
        i += 1
    total = 0.0
    for b in range(256):
        c = (
            np.int64(histogram[b])
            + np.int64(histogram[256 + b])
            + np.int64(histogram[512 + b])
            + np.int64(histogram[768 + b])
        )
        if c < N_LOG:
            total += logs[0, c]
        else:
            total += c * np.log2(c)
    histogram[:] = 0
    return total


@kernel
def entropies(buf, start, end, logs, histogram, out):
    """Entropy of each buf[start[i]:end[i]] into float32 out[i]; NaN where empty. The batch form, for benchmarks."""
    for i in range(start.shape[0]):
        if end[i] > start[i]:
            out[i] = entropy_of(buf, start[i], end[i], logs, histogram)
        else:
            out[i] = np.nan
