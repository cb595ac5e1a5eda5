"""Rows of `model_stats`: exact however batches are cut; drift that rises when traffic changes, and not before."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from analytics.training import train
from engine import packets as k
from engine.config import ScoringConfig
from engine.detect.packet_score import PacketScores
from engine.drift import CHANGED, Baseline, psi
from engine.explain import Explainer, explain
from engine.forest import Forest, average_depth
from engine.kernels import forest_steps as q
from engine.model_row import EDGES, N_BINS
from engine.models import Model
from engine.score_stats import ScoreStats
from engine.scoring import Scorer
from tests.engine.test_scoring import fit, packet_batch, random_rows, score

MINUTE = 60_000_000
START = 28_333_333 * MINUTE


def scored(times: list[int], anomalies: np.ndarray, source: str = "eth0", first_frame: int = 1) -> k.PacketBatch:
    n = len(times)
    batch = packet_batch(n)
    batch.source = source
    batch.long[k.L_TS] = times
    batch.long[k.L_FRAME_NO] = np.arange(first_frame, first_frame + n)
    batch.anomaly[:] = np.round(anomalies * q.GRAIN) / q.GRAIN
    return batch


def stats_of(batches: list[k.PacketBatch], threshold: float = 0.9) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    stats = ScoreStats("s", threshold, 10, rows.extend, lambda *_: None)
    for batch in batches:
        stats.take(batch, np.zeros((len(q.FEATURES), batch.count), np.int16))
    stats.flush()
    return rows


def test_rows__count_every_packet_in_its_minute() -> None:
    random = np.random.default_rng(1)
    anomalies, times = random.uniform(0, 1, 3000) ** 0.2, START + np.sort(random.integers(0, 5 * MINUTE, 3000))
    anomalies[:50] = 1.0
    batch = scored(times.tolist(), anomalies)
    rows, values = stats_of([batch]), batch.anomaly[:3000].astype(float)
    assert [r["ts"] for r in rows] == [START + n * MINUTE for n in range(5)]
    for row in rows:
        mine = values[(times >= row["ts"]) & (times < row["ts"] + MINUTE)]
        frames = np.flatnonzero((times >= row["ts"]) & (times < row["ts"] + MINUTE)) + 1
        bounds = [0, *EDGES, 2]
        assert row["bins"] == [int(((mine >= a) & (mine < b)).sum()) for a, b in itertools.pairwise(bounds)]
        assert row["scored"] == len(mine) == sum(row["bins"])
        assert row["above"] == (mine >= 0.9).sum()
        assert row["top_anomaly"] == mine.max()
        assert row["top_frame_no"] == frames[mine.argmax()]
        assert (row["source"], row["model_sensor"], row["model"], row["not_learned"]) == ("eth0", "s", None, 0)
    assert len(rows[0]["bins"]) == N_BINS


def test_rows__do_not_depend_on_how_batches_are_cut() -> None:
    random = np.random.default_rng(2)
    times, anomalies = (START + np.sort(random.integers(0, 3 * MINUTE, 500))).tolist(), random.uniform(0, 1, 500)
    whole = stats_of([scored(times, anomalies)])
    for size in (1, 7, 100):
        parts = [
            scored(times[at : at + size], anomalies[at : at + size], first_frame=at + 1) for at in range(0, 500, size)
        ]
        assert stats_of(parts) == whole


def test_rows__late_packets_count_as_now_and_older_savefiles_as_themselves() -> None:
    times = [START + 2 * MINUTE, START + MINUTE, START + 2 * MINUTE + 5, START - 100 * MINUTE, START - 100 * MINUTE]
    rows = stats_of([scored(times, np.full(5, 0.5))])
    assert [(r["ts"], r["scored"]) for r in rows] == [(START + 2 * MINUTE, 3), (START - 100 * MINUTE, 2)]
    extremes = [-(2**62), 2**62, -(2**62)]
    assert sum(r["scored"] for r in stats_of([scored(extremes, np.full(3, 0.5))])) == 3


def test_rows__of_any_number_of_sources_stay_bounded_and_exact() -> None:
    batches = [scored([START] * 3, np.full(3, 0.95), source=f"file{n}") for n in range(200)]
    rows = stats_of([*batches, *batches])
    assert sum(r["scored"] for r in rows) == sum(r["above"] for r in rows) == 1200
    assert {r["source"] for r in rows} == {f"file{n}" for n in range(200)}


def test_tick__passes_on_minutes_that_are_over() -> None:
    rows: list[dict[str, Any]] = []
    stats = ScoreStats("s", 0.9, 10, rows.extend, lambda *_: None)
    stats.take(scored([START + 5], np.full(1, 0.5)), np.zeros((len(q.FEATURES), 1), np.int16))
    stats.tick(START + MINUTE - 1)
    assert rows == []
    stats.tick(START + MINUTE)
    assert [r["scored"] for r in rows] == [1]


# --- drift -------------------------------------------------------------------------------------------------------
def traffic(rows: int, seed: int, other_every: int = 10) -> np.ndarray:
    """Features of clients that talk to one port, and now and then to any."""
    random = np.random.default_rng(seed)
    made = np.zeros((rows, len(q.FEATURES)), np.int16)
    made[:, q.F_WIRELEN] = random.choice([6000, 7000, 10_400], rows)
    made[:, q.F_ENTROPY] = random.normal(12_000, 1500, rows).clip(0, 32_767)
    made[:, q.F_SRC_PORT] = random.integers(15_000, 16_384, rows)
    made[:, q.F_DST_PORT] = np.where(np.arange(rows) % other_every, 9000, random.integers(1, 9000, rows))
    made[:, q.F_PROTOCOL], made[:, q.F_TTL] = 7, random.choice([65, 129], rows)
    return made


def minutes_of(model: Model, parts: list[np.ndarray], said: list[str]) -> list[dict[str, Any]]:
    """A minute of each part's rows, in batches of 500."""
    rows: list[dict[str, Any]] = []
    stats, scorer = ScoreStats("s", 0.99, 2, rows.extend, lambda *t: said.append(": ".join(t))), Scorer(rows=500)
    scorer.forest = Forest.of(model)
    stats.use(7, Baseline.of(model))
    for minute, part in enumerate(parts):
        for at in range(0, len(part), 500):
            some = np.ascontiguousarray(part[at : at + 500].T)
            batch = scored([START + minute * MINUTE] * some.shape[1], np.zeros(some.shape[1]))
            scorer.score_features(some, batch.count, batch.anomaly)
            stats.take(batch, some)
    stats.flush()
    return rows


def test_drift__rises_on_other_traffic_and_not_on_the_same() -> None:
    said: list[str] = []
    model = train(traffic(10_000, 1), 50, 256)
    same = [traffic(3000, seed) for seed in range(2, 8)]
    rows = minutes_of(model, same, said)
    assert all(0 <= r["psi"] < 0.1 for r in rows)
    assert all(r["worst_psi"] < 0.1 for r in rows)
    assert {r["model"] for r in rows} == {7}
    assert said == []
    for changed, feature in ((traffic(3000, 9, other_every=1), "dst_port"), (traffic(3000, 9), "entropy")):
        if feature == "entropy":
            changed[:, q.F_ENTROPY] = np.random.default_rng(1).integers(17_000, 19_000, 3000)
        said.clear()
        rows = minutes_of(model, [*same, changed, changed, changed], said)
        assert rows[5]["psi"] < 0.1
        assert rows[-1]["psi"] > CHANGED
        assert rows[-1]["worst_feature"] == feature
        assert len(said) == 1, said  # once, not each minute
        assert feature in said[0]
        assert "anomaly model 7" in said[0]
    assert minutes_of(model, [traffic(900, 2)], said)[0].get("psi") is None  # too few say nothing


def test_drift__less_of_a_usual_value_shows_as_well() -> None:
    then = traffic(10_000, 1, other_every=2)
    baseline = Baseline.learn(then, np.linspace(0, 0.999, len(then)))
    column = then[:, q.F_DST_PORT]
    half = column[np.random.default_rng(1).permutation(len(column))[:5000]]
    for now, low, high in ((column[column != 9000], 0.25, 9), (half, -0.001, 0.01)):
        bins = np.searchsorted(baseline.edges[q.F_DST_PORT], now, "left")
        assert low <= psi(baseline.shares[q.F_DST_PORT], np.bincount(bins, minlength=21)) < high


# --- why ---------------------------------------------------------------------------------------------------------
def test_explain__contributions_add_up_to_the_score() -> None:
    for rows, samples in ((random_rows(2000), 256), (traffic(2000, 3), 64), (np.full((300, 8), 5, np.int16), 64)):
        forest = fit(rows, samples=samples)[1]
        explainer = Explainer(forest)
        probe = np.concatenate([rows[:100], random_rows(100, seed=5)])
        found = explainer.explain(probe)
        assert np.abs(2.0 ** (found.sum(axis=1) - explainer.base) - score(forest, probe)[1]).max() < 1e-6
        assert np.array_equal(found, explain(forest, probe))


def test_explain__base_is_the_average_depth_of_the_rows_that_trees_were_grown_from() -> None:
    rows = random_rows(2000)
    model, forest = fit(rows)
    depths = [
        np.average(
            [average_depth(n) for n in tree.n_node_samples[leaves]] + _depths(tree)[leaves],
            weights=tree.n_node_samples[leaves],
        )
        for tree, leaves in ((e.tree_, e.tree_.children_left < 0) for e in model.estimators_)
    ]
    # Cuts that change no score are left out of a forest, and with them how many rows were on each side.
    assert abs(Explainer(forest).base - np.mean(depths) / average_depth(256)) < 1e-4


def _depths(tree: Any) -> np.ndarray:
    depths = np.zeros(tree.node_count)
    for node in range(tree.node_count):
        for child in (tree.children_left[node], tree.children_right[node]):
            if child >= 0:
                depths[child] = depths[node] + 1
    return depths


def test_explain__names_the_feature_that_is_unusual() -> None:
    rows, odd_ones = traffic(5000, 1), ((q.F_TTL, 255), (q.F_WIRELEN, 31_000), (q.F_PROTOCOL, 200), (q.F_TCP_FLAGS, 40))
    for n, (feature, value) in enumerate(odd_ones):  # each in one of two hundred rows
        rows[n::200, feature] = value
    forest = fit(rows, trees=100)[1]
    for feature, value in odd_ones:
        odd = rows[7].copy()
        odd[feature] = value
        assert explain(forest, odd[None, :])[0].argmax() == feature


# --- alerts on single packets --------------------------------------------------------------------------------------
def unusual(sources: list[int], at_us: int = START) -> k.PacketBatch:
    batch = packet_batch(len(sources))
    batch.long[k.L_TS], batch.long[k.L_FRAME_NO] = at_us, np.arange(1, len(sources) + 1)
    batch.anomaly[:] = 0.9999
    batch.present[:] |= k.HAS_IP
    batch.short[k.S_IP_VERSION] = 4
    batch.address[k.A_SRC_HI], batch.address[k.A_SRC_LO] = 0, sources
    return batch


@pytest.fixture(scope="module")
def forest() -> Forest:
    return fit(traffic(1000, 1))[1]


def test_packet_score__is_low_and_one_finding_a_source_within_its_budget(forest: Forest) -> None:
    scores = PacketScores(ScoringConfig(alert=True, threshold=0.999, alerts_per_hour=3))
    features = np.ascontiguousarray(random_rows(500).T)
    batch = unusual([(10 << 24) + n for n in (1, 1, 2, *range(3, 300), 1)])
    found = scores.take(batch, features, forest, 7)
    assert [(f.src_ip, f.count, f.kind, f.severity) for f in found] == [
        ("10.0.0.1", 3, "packet_score", "low"), ("10.0.0.2", 1, "packet_score", "low"),
        ("10.0.0.3", 1, "packet_score", "low"),
    ]  # fmt: skip
    assert found[0].packets == (1, 2, 301)
    assert (found[0].evidence["model"], found[0].evidence["sources_not_told"]) == (7, 296)
    assert set(found[0].evidence["features"]) <= set(q.FEATURES)
    assert "scores 0.9999" in found[0].why
    again = scores.take(unusual([(10 << 24) + 2, (10 << 24) + 77]), features, forest, 7)
    assert [f.src_ip for f in again] == ["10.0.0.2"]  # goes on; others have to wait for the next hour
    later = scores.take(unusual([(10 << 24) + 77], START + 3_600_000_000), features, forest, 7)
    assert [f.src_ip for f in later] == ["10.0.0.77"]


def test_packet_score__below_the_threshold_and_without_an_address_is_nothing(forest: Forest) -> None:
    scores = PacketScores(ScoringConfig(alert=True, threshold=0.999))
    batch = unusual([1, 2])
    batch.anomaly[0], batch.present[1] = 0.998, 0
    assert scores.take(batch, np.ascontiguousarray(random_rows(2).T), forest, 1) == []


def test_packet_score__six_is_shown_as_six(forest: Forest) -> None:
    batch = unusual([1])
    batch.short[k.S_IP_VERSION] = 6
    scores = PacketScores(ScoringConfig(alert=True))
    assert scores.take(batch, np.ascontiguousarray(random_rows(1).T), forest, 1)[0].src_ip == "::1"
    batch.address[k.A_SRC_HI] = 0xFE80 << 48  # above the signed half
    assert scores.take(batch, np.ascontiguousarray(random_rows(1).T), forest, 1)[0].src_ip == "fe80::1"
