"""Scoring every packet: our kernel beside scikit-learn's score_samples, on the same rows and the same forest.

    python -m benchmarks.forest [--capture FILE] [--json FILE]

One thread, CPU time, median of the runs. A capture's packets are decoded first, and repeated when they are fewer than
100,000. `generated` is a made mix of services and clients, `random` is random in every feature.
"ours" is the kernel; "with features" begins with the decoded rows and ends with the column. The candidate that lost,
a walk down the trees level by level over blocks of rows, is measured beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import IsolationForest
from threadpoolctl import threadpool_limits

from engine import packets as k
from engine.capture.savefile import SavefileSource
from engine.capture.source import ReadResult
from engine.decode import Decoder
from engine.forest import average_depth, flatten
from engine.jit import kernel
from engine.kernels.forest_steps import FEATURES
from engine.scoring import Scorer

BATCHES = (1_000, k.ROWS_PER_BATCH, 100_000)
ROWS = 100_000
TRAINING_ROWS = 50_000
TREES, SAMPLES = 100, 256
RUNS = 5
TARGET_ROWS_S, TARGET_RATIO, TARGET_DIFFERENCE = 1_000_000, 6, 1e-6


def rows_per_s(work: Callable[[], None], rows: int, runs: int = RUNS) -> float:
    """Median rows per second of CPU time."""
    work()
    rates = []
    for _ in range(runs):
        began = time.process_time_ns()
        work()
        rates.append(rows / (time.process_time_ns() - began) * 1e9)
    return statistics.median(rates)


# --- rows --------------------------------------------------------------------------------------------------------
def random_batch(rows: int) -> k.PacketBatch:
    """Every field the features are made of random over its range: no two rows alike."""
    random, p = np.random.default_rng(1), k.PacketBatch(rows)
    p.count = rows
    p.present[:] = k.HAS_IP | k.HAS_PROTO | k.HAS_PORTS | k.HAS_TCP | k.HAS_PAYLOAD | k.HAS_ENTROPY
    p.long[k.L_WIRELEN] = 2 ** random.uniform(5, 18, rows)
    p.long[k.L_PAYLOAD_LEN] = 2 ** random.uniform(0, 18, rows)
    p.entropy[:] = random.uniform(0, 8, rows)
    p.int_[k.I_SRC_PORT], p.int_[k.I_DST_PORT] = (2 ** random.uniform(0, 16, (2, rows))).astype(np.int32)
    p.short[k.S_PROTO], p.short[k.S_TTL], p.short[k.S_TCP_FLAGS] = random.integers(0, 256, (3, rows))
    return p


def generated_batch(rows: int) -> k.PacketBatch:
    """A mix like a small network's: a few services, clients that ask them, acknowledgements that are all alike."""
    random, p = np.random.default_rng(2), k.PacketBatch(rows)
    p.count = rows
    port = random.choice([443, 80, 53, 22, 123, 5353], rows, p=[0.55, 0.15, 0.15, 0.05, 0.05, 0.05])
    client, answers = random.integers(32_768, 61_000, 300)[random.integers(0, 300, rows)], random.random(rows) < 0.55
    is_tcp = (port == 443) | (port == 80) | (port == 22)
    length = np.where(random.random(rows) < 0.45, 0, np.where(answers, 1448, random.integers(20, 600, rows)))
    length = np.where(is_tcp, length, random.integers(30, 200, rows))
    p.present[:] = k.HAS_IP | k.HAS_PROTO | k.HAS_PORTS | k.HAS_PAYLOAD
    p.present[is_tcp] |= k.HAS_TCP
    p.present[length > 0] |= k.HAS_ENTROPY
    p.long[k.L_PAYLOAD_LEN], p.long[k.L_WIRELEN] = length, length + np.where(is_tcp, 66, 42)
    p.entropy[:] = np.where(port == 443, 7.8, 4.6) - random.exponential(0.15, rows)
    p.int_[k.I_SRC_PORT], p.int_[k.I_DST_PORT] = np.where(answers, port, client), np.where(answers, client, port)
    p.short[k.S_PROTO], p.short[k.S_TTL] = np.where(is_tcp, 6, 17), np.where(answers, 57, 64)
    p.short[k.S_TCP_FLAGS] = np.where(length > 0, 24, random.choice([16, 16, 16, 2, 18, 17], rows))
    return p


def captured_batch(path: str, rows: int) -> k.PacketBatch:
    """The first packets of a capture; a short one is repeated."""
    frames, some, decoder, p = k.FrameBatch(), k.PacketBatch(), Decoder(), k.PacketBatch(rows)
    source, result = SavefileSource(path), None
    source.open()
    while p.count < rows and result is not ReadResult.END:
        frames.clear()
        result = source.read(frames)
        decoder.decode(frames, some)
        n = min(some.count, rows - p.count)
        copy_rows(some, p, 0, p.count, n)
        p.count += n
    source.close()
    have = p.count
    while 0 < p.count < rows:
        n = min(have, rows - p.count)
        copy_rows(p, p, 0, p.count, n)
        p.count += n
    return p


def copy_rows(source: k.PacketBatch, target: k.PacketBatch, first: int, at: int, n: int) -> None:
    for name in ("short", "int_", "long", "entropy", "present"):
        getattr(target, name)[..., at : at + n] = getattr(source, name)[..., first : first + n]


# --- the design that lost ----------------------------------------------------------------------------------------
@kernel
def walk(features, count, first, levels, nodes, depths, factor, at, total, out):
    """Scores by going down the trees, level by level, over blocks of rows. A leaf leads to itself.

    Args:
        features: int16[n_features, >= count]. first, levels: uint32[n_trees], root and depth of each tree.
        nodes: uint32[n, 3]: feature, threshold, left child (the right one is next). depths: int32[n].
        at: uint32[block], total: int32[block], scratch. out: float32[>= count], written.
    """
    for begin in range(0, count, at.shape[0]):
        rows = min(at.shape[0], count - begin)
        for r in range(rows):
            total[r] = 0
        for t in range(first.shape[0]):
            for r in range(rows):
                at[r] = first[t]
            for _ in range(levels[t]):
                for r in range(rows):
                    n = at[r]
                    at[r] = nodes[n, 2] + (1 if features[nodes[n, 0], begin + r] > np.int64(nodes[n, 1]) else 0)
            for r in range(rows):
                total[r] += depths[at[r]]
        for r in range(rows):
            out[begin + r] = np.exp2(total[r] * factor)


def walk_arrays(model: IsolationForest) -> tuple[Any, ...]:
    """(first, levels, nodes, depths, factor, at, total) for `walk`: nodes breadth-first."""
    nodes: list[list[int]] = []
    depths: list[float] = []
    first, levels = [], []
    for estimator in model.estimators_:
        tree, base, order, level = estimator.tree_, len(nodes), [0], [0]
        first.append(base)
        for at, node in enumerate(order):
            if tree.children_left[node] < 0:
                nodes.append([0, 32767, base + at])
                depths.append(level[at] + average_depth(int(tree.n_node_samples[node])))
            else:
                nodes.append([int(tree.feature[node]), int(np.floor(tree.threshold[node])), base + len(order)])
                depths.append(0.0)
                order += [tree.children_left[node], tree.children_right[node]]
                level += [level[at] + 1] * 2
        levels.append(max(level))
    units = 2.0**20
    factor = -1 / (units * len(first) * average_depth(int(model.max_samples_)))
    integers = [np.array(a, np.uint32) for a in (first, levels, nodes)]
    scratch = np.zeros(256, np.uint32), np.zeros(256, np.int32)
    return (*integers, np.rint(np.array(depths) * units).astype(np.int32), factor, *scratch)


# --- measuring ---------------------------------------------------------------------------------------------------
def measure(name: str, packets: k.PacketBatch) -> dict[str, Any]:
    """Both on the same rows. Raises SystemExit when scores differ, or depend on the batch."""
    rows = packets.count
    scorer = Scorer(rows=rows)
    features = np.ascontiguousarray(scorer.fill(packets)[:, :rows])
    values = np.ascontiguousarray(features.T.astype(np.float32))
    training = np.random.default_rng(3).choice(rows, min(rows, TRAINING_ROWS), replace=False)
    model = IsolationForest(n_estimators=TREES, max_samples=SAMPLES, random_state=1, n_jobs=1).fit(values[training])
    scores = -model.score_samples(values[training])
    scorer.forest = flatten([e.tree_ for e in model.estimators_], int(model.max_samples_), scores)
    reference, out = -model.score_samples(values), np.zeros(rows, np.float32)
    walked, arrays = np.zeros(rows, np.float32), walk_arrays(model)

    scorer.score_features(features, rows, out)
    whole = out.copy(), scorer.raw.copy()
    row: dict[str, Any] = {
        "distinct": len(np.unique(values, axis=0)) / rows,
        "steps_per_tree": len(scorer.forest.steps) / TREES,
        "difference": float(np.abs(whole[1] - reference).max()),
        "batches": {},
    }
    for size in BATCHES:
        parts = [np.ascontiguousarray(features[:, a : a + size]) for a in range(0, rows, size)]

        def ours(parts: list[np.ndarray] = parts, size: int = size) -> None:
            for number, part in enumerate(parts):
                scorer.score_features(part, part.shape[1], out[number * size :])

        def theirs(size: int = size) -> None:
            for a in range(0, rows, size):
                model.score_samples(values[a : a + size])

        def walking(parts: list[np.ndarray] = parts, size: int = size) -> None:
            for number, part in enumerate(parts):
                walk(part, part.shape[1], *arrays, walked[number * size :])

        row["batches"][str(size)] = {
            "ours_rows_s": rows_per_s(ours, rows),
            "walk_rows_s": rows_per_s(walking, rows),
            "sklearn_rows_s": rows_per_s(theirs, rows),
        }
        if not np.array_equal(out, whole[0]) or np.abs(walked - whole[1]).max() > TARGET_DIFFERENCE:
            raise SystemExit(f"{name}: scores depend on the size of the batch ({size} rows)")
    row["with_features_rows_s"] = rows_per_s(lambda: scorer.score(packets), rows)

    def fill() -> None:
        scorer.fill(packets)

    row["features_rows_s"] = rows_per_s(fill, rows)
    best = max(b["sklearn_rows_s"] for b in row["batches"].values())
    row["ratio"] = row["batches"][str(k.ROWS_PER_BATCH)]["ours_rows_s"] / best
    return row


def report(name: str, row: dict[str, Any]) -> None:
    print(f"{name}: {row['distinct']:.0%} of rows distinct, {row['steps_per_tree']:.0f} inner nodes a tree")
    for size, b in row["batches"].items():
        print(
            f"  batches of {int(size):>7,}   ours {b['ours_rows_s']:>12,.0f}   walk {b['walk_rows_s']:>12,.0f}   "
            f"scikit-learn {b['sklearn_rows_s']:>10,.0f} rows/s"
        )
    print(
        f"  {row['ratio']:.1f} times scikit-learn at its best batch (goal {TARGET_RATIO}); largest difference "
        f"{row['difference']:.1e} (goal {TARGET_DIFFERENCE:.0e})"
    )
    print(
        f"  from decoded rows to the column {row['with_features_rows_s']:,.0f} rows/s, of which features "
        f"{1e9 / row['features_rows_s']:.1f} ns a row; load {os.getloadavg()[0]:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Rows scored per second of CPU time, beside scikit-learn.")
    parser.add_argument("--capture", action="append", default=[], help="also with the packets of this capture")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    print(f"{TREES} trees of {SAMPLES} samples, {len(FEATURES)} features, one thread (goal {TARGET_ROWS_S:,} rows/s)")
    figures: dict[str, Any] = {}
    batches = {"random": random_batch(ROWS), "generated": generated_batch(ROWS)}
    batches |= {path: captured_batch(path, ROWS) for path in options.capture}
    with threadpool_limits(1):
        for name, packets in batches.items():
            figures[name] = measure(name, packets)
            report(name, figures[name])
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
