"""Shannon entropy of bytes, exact, at the speed of memory.

H = log2(n) - (1/n) * sum over byte values of c * log2(c), c the count of each value (Shannon 1948, section 6).
"""

import numpy as np

from engine.jit import be64, helper, kernel, u8

# Below this length the sum is kept up to date byte by byte; above, four histograms let four counts run at once.
_SMALL = 384
N_LOG = 4096  # counts below this are looked up


def log_tables() -> np.ndarray:
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
    """Sum of c * log2(c). Eight bytes come with one load; neighbours count in different histograms, since a second
    increment of the same counter would wait for the first."""
    i = start
    while i + 8 <= end:
        word = np.uint64(be64(buf, i))
        _count(histogram, 0, word >> np.uint64(56))
        _count(histogram, 256, word >> np.uint64(48))
        _count(histogram, 512, word >> np.uint64(40))
        _count(histogram, 768, word >> np.uint64(32))
        _count(histogram, 0, word >> np.uint64(24))
        _count(histogram, 256, word >> np.uint64(16))
        _count(histogram, 512, word >> np.uint64(8))
        _count(histogram, 768, word)
        i += 8
    while i < end:
        histogram[u8(buf, i)] += np.uint32(1)
        i += 1
    total = 0.0
    if end - start < N_LOG:
        odd = 0.0  # two sums: an addition need not wait for the one before
        for b in range(0, 256, 2):
            total += logs[0, _counted(histogram, b)]
            odd += logs[0, _counted(histogram, b + 1)]
        total += odd
    else:
        for b in range(256):
            c = _counted(histogram, b)
            total += logs[0, c] if c < N_LOG else c * np.log2(c)
    histogram[:] = 0
    return total


@helper
def _count(histogram, base, word):
    histogram[base + np.int64(word & np.uint64(255))] += np.uint32(1)


@helper
def _counted(histogram, b):
    return np.int64(histogram[b] + histogram[256 + b] + histogram[512 + b] + histogram[768 + b])


@kernel
def entropies(buf, start, end, logs, histogram, out):
    """Entropy of each buf[start[i]:end[i]] into float32 out[i]; NaN where empty. The batch form, for benchmarks."""
    for i in range(start.shape[0]):
        if end[i] > start[i]:
            out[i] = entropy_of(buf, start[i], end[i], logs, histogram)
        else:
            out[i] = np.nan
