"""Isolation forests over packets: features of rows, samples of them, and scores (Liu, Ting, Zhou 2008).

A feature is an integer from 0 to 32,767 (int16), which float32 and float64 hold exactly. scikit-learn trains on these
numbers, and `x <= threshold` there is `x <= floor(threshold)` here: every row takes the same way through every tree.

| feature     | of                                       | scale                     |
|-------------|------------------------------------------|---------------------------|
| wirelen     | length of the frame in bytes             | octaves                   |
| payload_len | bytes above the transport header         | octaves                   |
| entropy     | of the captured payload, bits per byte   | 2048 steps a bit          |
| src_port    |                                          | octaves                   |
| dst_port    |                                          | octaves                   |
| protocol    | number above IP                          | as is                     |
| ttl         | hops: another system, another way        | as is                     |
| tcp_flags   | a SYN, a FIN scan, a reset               | as is                     |

A tree cuts a feature at a random place of its range. On the scale of the numbers themselves nearly all cuts of a port
would fall above 1024, so counts and ports are on a scale of octaves: 1024 steps from each power of two to the next,
linear in between (exact below 2046). Absent is 0, and lies one octave, one bit or one below the least that is present.
"""

import numpy as np

from engine import packets as k
from engine.jit import helper, kernel
from engine.kernels import forest_steps as q

R_SEEN, R_RANDOM, N_RESERVOIR = range(3)  # state of a reservoir

_ONE = 127 << 23  # float32 1.0
_MOST = (1 << 31) - 512


@helper
def _octaves(value):
    """-1 and up to the scale of octaves: 0 for -1, 1024 for 0, 2048 for 2, 31744 at 2**31. The bits of a float."""
    return (np.float32(np.int32(value) + np.int32(2)).view(np.int32) - np.int32(_ONE)) >> np.int32(13)


@kernel
def fill_features(short, int_, long, entropy, present, count, features):
    """Features of the first `count` rows.

    Args:
        short, int_, long, entropy, present: as in PacketBatch.
        features: int16[8, >= count], written.
    """
    wirelen, payload_len, entropies = features[q.F_WIRELEN], features[q.F_PAYLOAD_LEN], features[q.F_ENTROPY]
    src_port, dst_port, protocol = features[q.F_SRC_PORT], features[q.F_DST_PORT], features[q.F_PROTOCOL]
    ttl, tcp_flags = features[q.F_TTL], features[q.F_TCP_FLAGS]
    lengths, payloads, sources, targets = (
        long[k.L_WIRELEN],
        long[k.L_PAYLOAD_LEN],
        int_[k.I_SRC_PORT],
        int_[k.I_DST_PORT],
    )
    protocols, ttls, flags = short[k.S_PROTO], short[k.S_TTL], short[k.S_TCP_FLAGS]
    # One column after the other: each loop is vectorised. An absent slot holds old bytes, which nobody looks at.
    for i in range(count):
        wirelen[i] = _octaves(min(max(lengths[i], -1), _MOST))
    for i in range(count):
        value = payloads[i]
        payload_len[i] = _octaves(min(max(value, -1), _MOST) if present[i] & k.HAS_PAYLOAD else -1)
    for i in range(count):
        value = entropy[i]
        bits = value if present[i] & k.HAS_ENTROPY else np.float32(-1.0)
        entropies[i] = np.int32((bits + np.float32(1.0)) * np.float32(2048.0) + np.float32(0.5))
    for i in range(count):
        value = np.int32(sources[i])
        src_port[i] = _octaves(value if present[i] & k.HAS_PORTS else np.int32(-1))
    for i in range(count):
        value = np.int32(targets[i])
        dst_port[i] = _octaves(value if present[i] & k.HAS_PORTS else np.int32(-1))
    for i in range(count):
        value = protocols[i] + np.int32(1)
        protocol[i] = value if present[i] & k.HAS_PROTO else np.int32(0)
    for i in range(count):
        value = ttls[i] + np.int32(1)
        ttl[i] = value if present[i] & k.HAS_IP else np.int32(0)
    for i in range(count):
        value = flags[i] + np.int32(1)
        tcp_flags[i] = value if present[i] & k.HAS_TCP else np.int32(0)


@kernel
def score(features, count, steps, starts, depths, table, factor, lowest, per_cell, block, slots, total, wide, raw, out):
    """Score the first `count` rows.

    Rows are taken in blocks, and every loop runs over whole blocks. A tree's inner nodes are decided from the leaves
    up, each for all rows at once: where a row goes right it takes over the leaf that the right child has found for it,
    else the left one's. That decides every node for every row, 100 where a walk down the tree meets 8, but without a
    branch or an indexed load, 16 or 32 rows to an instruction. Sums are of integers. The outcome of a row therefore
    does not depend on its place in the batch or on the rows beside it.

    Args:
        features: int16[n_features, >= count].
        steps: int16[n_steps, N_STEP], children before parents; a tree's last step is its root.
        starts: int64[n_trees + 1]. First step of each tree.
        depths: int32[n_leaves]. Depth of each leaf plus c(rows in it), in units that `factor` knows.
        table: float64[q.CELLS + 2]. Anomaly by score, from `lowest` in cells of 1 / `per_cell`; linear in between.
        factor: -1 / (units * n_trees * c(samples)), so that 2 ** (sum * factor) is the score of the paper.
        block: int16[n_features, q.BLOCK]. slots: int16[SLOTS, q.BLOCK]. total: int32[q.BLOCK]. wide: float64[q.BLOCK].
            Scratch; it should begin with a cache line (64 bytes).
        raw: float32[>= count], written. The score, 0 to 1: what IsolationForest.score_samples negates.
        out: float32[>= count], written. The anomaly.
    """
    for first in range(0, count, q.BLOCK):
        rows = min(q.BLOCK, count - first)
        for f in range(features.shape[0]):
            column, values = block[f], features[f]
            for r in range(rows):
                column[r] = values[first + r]
        for r in range(q.BLOCK):
            total[r] = 0
        for t in range(starts.shape[0] - 1):
            _decide(starts[t], starts[t + 1], steps, block, slots)
            leaves = slots[steps[starts[t + 1] - 1, q.Q_TO]]
            for r in range(q.BLOCK):
                total[r] += depths[np.uint16(leaves[r])]
        for r in range(q.BLOCK):
            wide[r] = np.exp2(total[r] * factor)
        for r in range(rows):
            raw[first + r] = wide[r]
            at = min(max((wide[r] - lowest) * per_cell, 0.0), np.float64(q.CELLS))
            cell = np.int64(at)
            out[first + r] = table[cell] + (at - cell) * (table[cell + 1] - table[cell])


@helper
def _decide(begin, end, steps, block, slots):
    """Run the steps of a tree over the block. A loop for each kind: what is in it is known outside of it."""
    for s in range(begin, end):
        x, above, to = block[steps[s, q.Q_FEATURE]], steps[s, q.Q_THRESHOLD], slots[steps[s, q.Q_TO]]
        left, right = steps[s, q.Q_LEFT], steps[s, q.Q_RIGHT]
        kind = steps[s, q.Q_KIND]
        if kind == q.LEAF_LEAF:
            for r in range(q.BLOCK):
                to[r] = right if x[r] > above else left
        elif kind == q.NODE_NODE:
            lefts, rights = slots[left], slots[right]
            for r in range(q.BLOCK):
                a, b = lefts[r], rights[r]
                to[r] = b if x[r] > above else a
        elif kind == q.LEAF_NODE:
            rights = slots[right]
            for r in range(q.BLOCK):
                b = rights[r]
                to[r] = b if x[r] > above else left
        else:
            lefts = slots[left]
            for r in range(q.BLOCK):
                a = lefts[r]
                to[r] = right if x[r] > above else a


@kernel
def sample(features, count, state, rows):
    """Offer the first `count` rows to a reservoir, which holds each row seen so far with the same chance.

    Args:
        features: int16[n_features, >= count].
        state: uint64[N_RESERVOIR]: rows seen, and the random state, never 0.
        rows: int16[capacity, n_features], written. The first min(seen, capacity) are valid.

    Source: Vitter 1985, algorithm R; random numbers: xorshift64* (Vigna 2016), scaled as in Lemire 2019.
    """
    capacity = np.uint64(rows.shape[0])
    seen, random = state[R_SEEN], state[R_RANDOM]
    for i in range(count):
        at = seen
        seen += np.uint64(1)
        if at >= capacity:
            random ^= random >> np.uint64(12)
            random ^= random << np.uint64(25)
            random ^= random >> np.uint64(27)
            # 32 random bits times the rows seen (below 2**32 by contract of the caller): a place among them.
            at = ((random * np.uint64(0x2545F4914F6CDD1D)) >> np.uint64(32)) * seen >> np.uint64(32)
            if at >= capacity:
                continue
        for f in range(features.shape[0]):
            rows[np.int64(at), f] = features[f, i]
    state[R_SEEN], state[R_RANDOM] = seen, random
