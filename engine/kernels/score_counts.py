"""Counts over scored packets: how their anomalies and their features are distributed, minute by minute."""

import numpy as np

from engine import packets as k
from engine.jit import kernel
from engine.kernels import forest_steps as q

(
    C_MINUTE,  # since the epoch; what is counted belongs to it
    C_ROWS,
    C_ABOVE,  # of those, anomalies from the threshold on
    C_TOP,  # largest anomaly in grains, and the frame_no of the first packet that had it
    C_TOP_FRAME,
    N_COUNTS,
) = range(6)
_US_PER_MINUTE = 60_000_000
_BACK = 60  # minutes: rows so much earlier are of another savefile, others are late and count as now


@kernel
def count_scores(anomaly, long, first, count, bin_of, least, state, bins):
    """Count rows from `first` on, up to the first of another minute.

    Args:
        anomaly: float32[>= count], multiples of 1 / GRAIN from 0 to 1. long: as in PacketBatch.
        bin_of: uint8[GRAIN + 1]. Number of the bin of each anomaly. least: of the threshold, in grains.
        state: int64[N_COUNTS], bins: int64[n_bins]; added to.

    Returns:
        The row that belongs to another minute, or `count`.
    """
    for i in range(first, count):
        minute = long[k.L_TS, i] // _US_PER_MINUTE
        if minute > state[C_MINUTE] or minute < state[C_MINUTE] - _BACK:
            return i
        grains = np.int64(anomaly[i] * np.float32(q.GRAIN) + np.float32(0.5))
        bins[bin_of[grains]] += 1
        state[C_ROWS] += 1
        if grains >= least:
            state[C_ABOVE] += 1
        if grains > state[C_TOP]:
            state[C_TOP], state[C_TOP_FRAME] = grains, long[k.L_FRAME_NO, i]
    return count


@kernel
def count_features(features, first, count, stride, edges, counts):
    """Count every `stride`-th row from `first` on, for `stride` rows.

    Args:
        features: int16[n_features, >= count].
        edges: int16[n_features, n_edges], ascending. A value is in the bin whose number is how many edges are below it.
        counts: int64[n_features, n_edges + 1], added to.
    """
    for f in range(features.shape[0]):
        for i in range(first, count, stride):
            value, low, high = features[f, i], 0, edges.shape[1]
            while low < high:
                middle = (low + high) >> 1
                if edges[f, middle] < value:
                    low = middle + 1
                else:
                    high = middle
            counts[f, low] += stride
