"""Isolation forests over packets: features of rows, samples of them, scores (Liu, Ting, Zhou 2008).

A feature is an integer from 0 to 32,767 (int16), which float32 and float64 hold exactly. scikit-learn trains on these
very numbers, and its `x <= threshold` is `x <= floor(threshold)` here: each row takes the same way through each tree.

| feature     | what it tells                                          | scale            | absent when       |
|-------------|--------------------------------------------------------|------------------|-------------------|
| wirelen     | frames of unusual size                                 | octaves of bytes | never             |
| payload_len | data where there is none, none where there is          | octaves of bytes | no transport      |
| entropy     | text, compressed, encrypted                            | 2048 a bit       | no payload        |
| src_port    | which service answers, which ports clients take        | octaves          | no ports          |
| dst_port    | which service is asked                                 | octaves          | no ports          |
| protocol    | number above IP                                        | as it is, + 1    | no IP             |
| ttl         | another system, another distance                       | as it is, + 1    | no IP             |
| tcp_flags   | SYN, RST, FIN where the others acknowledge             | as it is, + 1    | no TCP            |

A tree cuts a feature at a random place between its extremes. On the scale of the numbers themselves 63 of 64 cuts of a
port would fall above 1024; so ports and lengths are on a scale of octaves, 1024 steps from each power of two to the
next and linear in between (from 2046 on some numbers share a step). Absent is 0, which lies an octave, a bit or one
below the least that can be present. On the labelled captures that raised the area under the ROC curve, averaged over
kinds of attack, from 0.66 (six features as numbers) to 0.76; ttl and tcp_flags raised it to 0.84. The TCP window, the
ICMP type and the EtherType did not raise it.
"""

import numpy as np

from engine import packets as k
from engine.jit import helper, kernel
from engine.kernels import forest_steps as q

R_SEEN, R_RANDOM, N_RESERVOIR = range(3)  # state of a reservoir

_ONE = 127 << 23  # float32 1.0
_MOST = (1 << 31) - 512  # + 2 is still below 2**31 as a float32
_WORD = 0xFFFFFFFF


@helper
def _octaves(value):
    """The scale of octaves: -1 becomes 0, 0 becomes 1024, 2 becomes 2048, 2**31 would be 31,744. It is read off the
    exponent and the first ten bits of the fraction of a float32."""
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
    else the left one's. That decides every node for every row, about 100 where a walk down the tree meets 8, but
    without a branch or an indexed load, 16 or 32 rows to an instruction. Sums are of integers, and every row passes
    through the same instructions: its outcome does not depend on its place in the batch or on the rows beside it.

    Args:
        features: int16[n_features, >= count].
        steps: int16[n_steps, N_STEP], children before parents; a tree's last step is its root.
        starts: int64[n_trees + 1]. First step of each tree.
        depths: int32[n_leaves]. Depth of each leaf plus c(rows in it), in units that `factor` knows.
        table: float64[CELLS + 2]. Anomaly by score, from `lowest` in cells of 1 / `per_cell`; linear in between.
        factor: -1 / (units * n_trees * c(samples)), so that 2 ** (sum * factor) is the score of the paper.
        block: int16[n_features, BLOCK]. slots: int16[SLOTS, BLOCK]. total: int32[BLOCK]. wide: float64[BLOCK].
            Scratch. Each should begin with a cache line (64 bytes): else wide loads cross two, at a third of the speed.
        raw: float32[>= count], written. The score, 0 to 1: what IsolationForest.score_samples negates.
        out: float32[>= count], written. The anomaly, 0 to 1.
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
            share = table[cell] + (at - cell) * (table[cell + 1] - table[cell])
            out[first + r] = np.floor(share * q.GRAIN + 0.5) / q.GRAIN


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

    Source: Vitter 1985, algorithm R, with Marsaglia's xorshift64 (2003). After 2**32 rows, newer ones are favoured.
    """
    capacity = np.uint64(rows.shape[0])
    seen, random = state[R_SEEN], state[R_RANDOM]
    for i in range(count):
        at = seen
        seen += np.uint64(1)
        if at >= capacity:
            random ^= random << np.uint64(13)
            random ^= random >> np.uint64(7)
            random ^= random << np.uint64(17)
            at = (random >> np.uint64(32)) * min(seen, np.uint64(_WORD)) >> np.uint64(32)
            if at >= capacity:
                continue
        for f in range(features.shape[0]):
            rows[np.int64(at), f] = features[f, i]
    state[R_SEEN], state[R_RANDOM] = seen, random
