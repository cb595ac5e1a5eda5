"""Scores: equal to scikit-learn's, the same however rows are cut into batches; models that train, persist and fail."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest

from analytics.training import train
from engine import packets as k
from engine.config import ScoringConfig
from engine.drift import Baseline
from engine.errors import ConfigError
from engine.forest import Forest, average_depth, flatten
from engine.jit import is_compiled
from engine.kernels import forest as kernel
from engine.kernels import forest_steps as q
from engine.kernels import score_counts as counts
from engine.models import ModelStore
from engine.score_stats import ScoreStats
from engine.scoring import Reservoir, Scorer, WindowSample
from engine.scoring_loop import KIND, ScoringLoop
from tests import builders as b
from tests.builders import ethernet, fill, ipv4, ipv6, tcp, udp
from tests.commands import ROOT

N = len(q.FEATURES)
CONFIG = ScoringConfig(trees=10, samples=64, training_rows=1000, first_after_rows=1000)


def random_rows(rows: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 32_768, (rows, N)).astype(np.int16)


def packet_batch(rows: int, seed: int = 1) -> k.PacketBatch:
    """Rows as a decoder could leave them, and old bytes where nothing is present."""
    random, p = np.random.default_rng(seed), k.PacketBatch(rows)
    p.short[:] = random.integers(0, 256, p.short.shape)
    p.int_[:] = random.integers(0, 65_536, p.int_.shape)
    p.long[:] = random.integers(0, 262_145, p.long.shape)
    p.long[k.L_TS] = 1_700_000_000_000_000 + np.arange(rows)
    p.entropy[:] = random.uniform(0, 8, rows)
    p.present[:] = random.integers(0, 1 << 22, rows)
    p.count = rows
    return p


def fit(rows: np.ndarray, trees: int = 20, samples: int = 256) -> tuple[IsolationForest, Forest]:
    values = rows.astype(np.float32)
    model = IsolationForest(n_estimators=trees, max_samples=min(samples, len(rows)), random_state=3).fit(values)
    scores = -model.score_samples(values)
    return model, flatten([e.tree_ for e in model.estimators_], int(model.max_samples_), scores)


def score(forest: Forest, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(anomalies, raw scores)"""
    scorer, out = Scorer(forest, rows=max(1, len(rows))), np.zeros(len(rows), np.float32)
    scorer.score_features(np.ascontiguousarray(rows.T), len(rows), out)
    return out, scorer.raw[: len(rows)].copy()


# --- features ----------------------------------------------------------------------------------------------------
def octaves(value: int) -> int:
    """The scale in integers: -1 is 0; 1024 steps from one power of two to the next, rounded down."""
    value += 2
    octave = value.bit_length() - 1
    return octave * 1024 + ((value << 10) >> octave) - 1024


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.integers(-1, 4000), st.integers(-1, 2**24 - 2)), min_size=2, max_size=50))
def test_octaves__bits_of_a_float_are_the_integer_scale(values: list[int]) -> None:
    p = k.PacketBatch(len(values))
    p.long[k.L_WIRELEN] = values
    p.count = len(values)
    assert Scorer(rows=len(values)).fill(p)[0].tolist() == [octaves(v) for v in values]


def test_octaves__extremes_stay_within_the_scale_and_in_order() -> None:
    values = [-(2**63), -1, 0, 1, 2, 2045, 2046, 65_535, 2**24, 2**31 - 1, 2**31, 2**62]
    p = k.PacketBatch(len(values))
    p.long[k.L_WIRELEN] = values
    p.count = len(values)
    scale = Scorer(rows=len(values)).fill(p)[0].tolist()
    assert scale == sorted(scale)
    assert scale[:7] == [0, 0, 1024, 1536, 2048, octaves(2045), octaves(2046)]
    assert scale[-1] == 31_743


def test_features__of_decoded_packets() -> None:
    six, arp, ping = ethernet(ipv6(udp(), 17), 0x86DD), ethernet(b.arp(), 0x0806), ethernet(ipv4(b.icmp(), 1))
    frames = [ethernet(ipv4(tcp())), six, arp, ping, b""]
    decoder, rows, columns = b.decoder()
    batch = decoder.decode(fill(frames), rows)
    features = Scorer().fill(batch)[:, : len(frames)].T.tolist()
    table = columns.to_arrow(batch).to_pylist()
    for got, row in zip(features, table, strict=True):
        small = [0 if row[name] is None else row[name] + 1 for name in ("proto", "ttl", "tcp_flags")]
        entropy = 0 if row["entropy"] is None else int((row["entropy"] + 1) * 2048 + 0.5)
        sizes = [octaves(-1 if row[n] is None else row[n]) for n in ("wirelen", "payload_len", "src_port", "dst_port")]
        assert got == [sizes[0], sizes[1], entropy, sizes[2], sizes[3], *small]
    assert features[2][1:] == [0] * 7  # ARP: absent is 0 throughout


def test_features__old_bytes_of_absent_fields_do_not_show() -> None:
    batch, other = packet_batch(3000), packet_batch(3000, seed=2)
    other.present[:] = batch.present
    for bits, arrays in (
        (k.HAS_PAYLOAD, [(batch.long[k.L_PAYLOAD_LEN], other.long[k.L_PAYLOAD_LEN])]),
        (k.HAS_ENTROPY, [(batch.entropy, other.entropy)]),
        (k.HAS_PROTO, [(batch.short[k.S_PROTO], other.short[k.S_PROTO])]),
        (k.HAS_IP, [(batch.short[k.S_TTL], other.short[k.S_TTL])]),
        (k.HAS_TCP, [(batch.short[k.S_TCP_FLAGS], other.short[k.S_TCP_FLAGS])]),
        (k.HAS_PORTS, [(batch.int_[at], other.int_[at]) for at in (k.I_SRC_PORT, k.I_DST_PORT)]),
    ):
        for ours, theirs in arrays:
            theirs[:] = np.where(batch.present & bits, ours, theirs)
    other.long[k.L_WIRELEN] = batch.long[k.L_WIRELEN]
    assert np.array_equal(Scorer(rows=3000).fill(batch), Scorer(rows=3000).fill(other))
    assert Scorer(rows=3000).fill(batch).min() >= 0


# --- scores ------------------------------------------------------------------------------------------------------
def _constant(rows: np.ndarray) -> np.ndarray:
    rows[:, ::2] = 7
    return rows


CASES: dict[str, tuple[np.ndarray, int]] = {
    "random": (random_rows(3000), 256),
    "constant features": (_constant(random_rows(2000)), 256),
    "duplicated rows": (np.repeat(random_rows(5), 400, axis=0), 256),
    "all rows alike": (np.full((500, N), 9, np.int16), 256),
    "two values": ((random_rows(1000) > 20_000).astype(np.int16), 64),
    "extremes": (np.where(random_rows(1000) & 1, 32_767, 0).astype(np.int16), 256),
    "neighbours": ((random_rows(2000) % 3 + 16_383).astype(np.int16), 256),
    "two rows": (random_rows(2), 2),
    "many samples": (random_rows(3000), 1024),
}


@pytest.mark.parametrize("case", CASES)
def test_scores__equal_those_of_scikit_learn(case: str) -> None:
    rows, samples = CASES[case]
    model, forest = fit(rows, samples=samples)
    edges = np.array([[0] * N, [32_767] * N, [-32_768] * N], np.int16)
    probe = np.concatenate([rows[:1500], random_rows(1500, seed=9), edges])
    anomalies, raw = score(forest, probe)
    assert np.abs(raw + model.score_samples(probe.astype(np.float32))).max() < 1e-6
    assert anomalies.min() >= 0
    assert anomalies.max() <= 1


def test_average_depth__as_in_the_paper() -> None:
    from sklearn.ensemble._iforest import _average_path_length

    sizes = [*range(1, 300), 1024, 10**6]
    assert np.allclose([average_depth(n) for n in sizes], _average_path_length(np.array(sizes)), rtol=1e-14)


def test_scores__do_not_depend_on_the_batch_or_the_thread() -> None:
    forest = fit(random_rows(2000))[1]
    rows = random_rows(5000, seed=4)
    whole = score(forest, rows)
    for size in (1, 7, 1000, q.BLOCK - 1, q.BLOCK, q.BLOCK + 1):
        cut = rows if size > 7 else rows[:60]
        parts = [score(forest, cut[at : at + size]) for at in range(0, len(cut), size)]
        for place in (0, 1):
            assert np.array_equal(np.concatenate([p[place] for p in parts]), whole[place][: len(cut)]), size
    shuffled = np.random.default_rng(1).permutation(len(rows))
    assert np.array_equal(score(forest, rows[shuffled])[0], whole[0][shuffled])
    results: dict[int, np.ndarray] = {}
    threads = [threading.Thread(target=lambda i=i: results.update({i: score(forest, rows)[0]})) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(np.array_equal(r, whole[0]) for r in results.values())


def test_scores__rows_behind_the_count_are_left_alone() -> None:
    forest = fit(random_rows(500))[1]
    scorer, out = Scorer(forest, rows=50), np.full(50, 7, np.float32)
    scorer.raw[:] = 7
    scorer.score_features(np.ascontiguousarray(random_rows(50).T), 20, out)
    assert (out[20:] == 7).all()
    assert (scorer.raw[20:] == 7).all()
    assert (out[:20] <= 1).all()


def test_scores__more_rows_than_the_scorer_was_made_for_are_refused() -> None:
    scorer = Scorer(fit(random_rows(500))[1], rows=99)
    with pytest.raises(ValueError, match="100 rows for a scorer made for 99"):
        scorer.score(packet_batch(100))
    with pytest.raises(ValueError, match="100 rows"):
        scorer.score_features(np.ascontiguousarray(random_rows(100).T), 100, np.zeros(100, np.float32))


def test_anomaly__is_the_share_of_training_rows_below_and_rises_with_the_score() -> None:
    rows = random_rows(20_000)
    forest = fit(rows, trees=50)[1]
    anomalies, raw = score(forest, rows)
    order = np.argsort(raw, kind="stable")
    assert (np.diff(anomalies[order]) >= 0).all()
    expected = np.searchsorted(np.sort(raw), raw) / len(raw)
    assert np.abs(anomalies - expected).max() < 0.01
    assert 0.985 < np.quantile(anomalies, 0.99) < 0.995
    assert set(np.unique(anomalies * q.GRAIN % 1)) == {0.0}


def test_anomaly__of_training_rows_that_are_all_alike_is_low_and_of_others_high() -> None:
    rows = np.full((1000, N), 500, np.int16)
    rows[:20] = random_rows(20)
    anomalies, _ = score(fit(rows)[1], rows)
    assert (anomalies[20:] == 0).all()
    assert anomalies[:20].min() > 0.9


# --- the stage ---------------------------------------------------------------------------------------------------
def test_column__is_null_without_a_model_and_the_scores_with_one() -> None:
    frames = [ethernet(ipv4(udp(sport=1000 + i))) for i in range(50)]
    decoder, rows, columns = b.decoder()
    scorer = Scorer()
    batch = decoder.decode(fill(frames), rows)
    before = batch.present.copy()
    scorer.score(batch)
    assert np.array_equal(batch.present, before)
    assert columns.to_arrow(batch)["anomaly"].null_count == 50
    scorer.forest = fit(np.ascontiguousarray(scorer.fill(batch)[:, :50].T))[1]
    scorer.score(batch)
    column = columns.to_arrow(batch)["anomaly"]
    assert column.null_count == 0
    assert column.to_pylist() == batch.anomaly[:50].tolist()
    assert np.array_equal(batch.present[:50] & ~np.uint32(k.HAS_ANOMALY), before[:50])
    scorer.forest = None  # the next batch in the same memory has no scores again
    scorer.score(decoder.decode(fill(frames), rows))
    assert columns.to_arrow(batch)["anomaly"].null_count == 50


def offered(batches: list[k.PacketBatch], capacity: int) -> Reservoir:
    reservoir, scorer = Reservoir(capacity), Scorer(rows=4000)
    for batch in batches:
        reservoir.offer(scorer.fill(batch), batch)
    return reservoir


def test_reservoir__keeps_everything_while_there_is_room() -> None:
    batch = packet_batch(3000)
    reservoir = offered([batch], 4000)
    assert reservoir.seen == len(reservoir.rows) == 3000
    assert np.array_equal(reservoir.rows, Scorer(rows=3000).fill(batch).T)
    assert reservoir.span_us == (1_700_000_000_000_000, 1_700_000_000_002_999)
    reservoir.restart()
    assert (reservoir.seen, len(reservoir.rows), reservoir.span_us) == (0, 0, (0, 0))


def test_reservoir__each_row_has_the_same_chance_and_the_same_rows_give_the_same_sample() -> None:
    batches = []
    for number in range(50):
        batch = packet_batch(4000)
        batch.present[:] = k.HAS_PROTO
        batch.short[k.S_PROTO] = number
        batches.append(batch)
    first, again = offered(batches, 10_000), offered(batches, 10_000)
    assert np.array_equal(first.rows, again.rows)
    assert first.seen == 200_000
    counts = np.bincount(first.rows[:, q.F_PROTOCOL] - 1, minlength=50)
    assert counts.sum() == 10_000
    assert ((counts - 200) ** 2 / 200).sum() < 100  # chi-square, 49 degrees: beyond 85 once in a thousand


def test_window__holds_the_rows_of_its_minutes_only() -> None:
    sample, scorer = WindowSample(600, 6), Scorer(rows=4000)
    assert (sample.seen, len(sample.rows), sample.span_us) == (0, 0, (0, 0))

    def offer(minute: int, protocol: int, rows: int) -> None:
        batch = packet_batch(rows)
        batch.present[:] = k.HAS_PROTO
        batch.short[k.S_PROTO] = protocol
        batch.long[k.L_TS] = (28_333_333 + minute) * 60_000_000
        sample.offer(scorer.fill(batch), batch)

    def shares() -> dict[int, int]:
        values, counts = np.unique(sample.rows[:, q.F_PROTOCOL] - 1, return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))

    for minute in range(12):
        offer(minute, minute, 1000)
    assert shares() == dict.fromkeys(range(6, 12), 100)
    assert sample.seen == 6000
    assert sample.span_us == (28_333_339 * 60_000_000, 28_333_344 * 60_000_000)
    offer(11, 99, 3000)  # three quarters of the last minute, a third of the window
    assert abs(shares()[99] - 75) < 25
    assert len(sample.rows) <= 600
    offer(14, 50, 1000)  # two minutes without a packet have gone too
    assert set(shares()) == {9, 10, 11, 99, 50}
    offer(500, 51, 10)
    assert shares() == {51: 10}
    offer(3, 52, 10)  # another savefile, older
    assert shares() == {52: 10}


# --- the loop ----------------------------------------------------------------------------------------------------
def store(lake: Path) -> ModelStore:
    return ModelStore(lake, "s", KIND)


def make_loop(lake: Path, said: list[str], config: ScoringConfig = CONFIG, patient: bool = True) -> ScoringLoop:
    return ScoringLoop(lake, "s", config, lambda level, text: said.append(f"{level}: {text}"), patient, rows=4000)


def test_loop__trains_scores_and_starts_with_the_model_the_next_time(tmp_path: Path) -> None:
    said: list[str] = []
    loop, batch = make_loop(tmp_path, said), packet_batch(900)
    loop.take(batch)
    assert loop.forest is None
    assert not (batch.present & k.HAS_ANOMALY).any()
    loop.take(batch)
    assert loop.forest is not None
    assert (loop.forest.trees, loop.forest.samples, loop.forest.rows) == (10, 64, 900)  # a tenth is held out
    assert (loop.forest.first_us, loop.forest.last_us) == (batch.long[k.L_TS, 0], batch.long[k.L_TS, -1])
    assert (batch.present & k.HAS_ANOMALY).all()
    first, batch.present[:] = batch.anomaly.copy(), 0
    loop.take(batch, score=False)
    assert not batch.present.any()
    assert loop.scored == 900
    loop.close()
    assert [p.name for p in store(tmp_path).folder.iterdir()] == ["000001.model"]

    again, other = make_loop(tmp_path, said), packet_batch(900)
    again.take(other)
    assert np.array_equal(other.anomaly, first)
    assert said == []


def test_loop__live_rows_do_not_wait_for_the_trainer(tmp_path: Path) -> None:
    said: list[str] = []
    loop, batch = make_loop(tmp_path, said, patient=False), packet_batch(2000)
    loop.take(batch)
    assert loop.forest is None
    deadline = time.monotonic() + 60
    while loop.forest is None and time.monotonic() < deadline:
        time.sleep(0.05)
        loop.take(batch)
    assert loop.forest is not None
    loop.close()
    assert said == []


@pytest.mark.parametrize(
    ("age_s", "minutes", "chosen", "again"),
    [(30, 1, False, False), (61, 1, False, True), (10**7, 0, False, False), (61, 1, True, False)],
    ids=["young", "old", "frozen", "chosen"],
)
def test_loop__trains_again_when_the_model_is_old(
    tmp_path: Path, age_s: int, minutes: int, chosen: bool, again: bool
) -> None:
    store(tmp_path).add(replace(train(random_rows(500), 3, 16), made_s=time.time() - age_s))
    if chosen:
        store(tmp_path).choose(1)
    loop = make_loop(tmp_path, [], replace(CONFIG, retrain_minutes=minutes))
    batch = packet_batch(2000)
    deadline = time.monotonic() + (60 if again else 1)
    while loop.forest is not None and loop.forest.trees == 3 and time.monotonic() < deadline:
        loop.take(batch)
        assert (batch.present & k.HAS_ANOMALY).all()  # by the old one, until the new one is there
        time.sleep(0.05)
    assert loop.forest is not None
    assert (loop.forest.trees, loop.model) == ((10, 2) if again else (3, 1))
    loop.close()


def test_loop__follows_what_operators_add_and_choose(tmp_path: Path) -> None:
    said: list[str] = []
    loop, batch = make_loop(tmp_path, said), packet_batch(100)

    def wait_for(model: int) -> None:
        deadline = time.monotonic() + 10
        while loop.model != model and time.monotonic() < deadline:
            loop.take(batch, learn=False)
            time.sleep(0.1)
        assert loop.model == model

    for trees in (3, 4):
        store(tmp_path).add(train(random_rows(500), trees, 16))
        wait_for(trees - 2)
        assert loop.forest is not None
        assert loop.forest.trees == trees
    store(tmp_path).choose(1)
    deadline = time.monotonic() + 10
    while loop.model != 1 and time.monotonic() < deadline:
        loop.tick(0)  # while nothing is captured
        time.sleep(0.1)
    assert loop.model == 1
    store(tmp_path).add(train(random_rows(500), 5, 16))
    store(tmp_path).choose(None)
    wait_for(3)
    loop.close()
    assert said == [
        "note: anomaly model 1 is in use", "note: anomaly model 2 is in use, in place of 1",
        "note: anomaly model 1 is in use, in place of 2", "note: anomaly model 3 is in use, in place of 1",
    ]  # fmt: skip


def test_loop__does_not_learn_when_told(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = []
    loop = ScoringLoop(tmp_path, "s", CONFIG, lambda *_: None, patient=True, rows=4000, emit=rows.extend)
    bad, good = packet_batch(3000, seed=1), packet_batch(1500, seed=2)
    for batch in (bad, good):
        batch.short[k.S_PROTO] = 6 if batch is good else 17
        batch.present[:] |= k.HAS_PROTO
    loop.take(bad, learn=False)
    assert loop.forest is None  # nothing to learn from
    loop.take(good)
    assert loop.forest is not None
    assert loop.forest.rows == 900
    loop.take(bad, learn=False)
    assert (bad.present & k.HAS_ANOMALY).all()
    loop.close()
    assert sum(int(str(r["not_learned"])) for r in rows) == 6000
    assert sum(int(str(r["scored"])) for r in rows) == loop.scored == 4500
    model = store(tmp_path).load(1)
    edges = model.arrays["feature_edges"][q.F_PROTOCOL]
    assert set(edges.tolist()) == {6, 7, 32_767}  # all of them TCP


def test_loop__learns_during_endless_incidents_until_it_knows_better(tmp_path: Path) -> None:
    said: list[str] = []
    loop, bad, good = make_loop(tmp_path, said), packet_batch(3000, seed=1), packet_batch(3000, seed=2)
    for batch in (bad, good):
        batch.short[k.S_PROTO] = 6 if batch is good else 17
        batch.present[:] |= k.HAS_PROTO
    taken = 0
    while loop.forest is None:
        loop.take(bad, learn=False)
        taken += 3000
        assert taken <= 20 * CONFIG.first_after_rows
    assert taken > 9 * CONFIG.first_after_rows
    assert len(said) == 1
    assert "learns all the same" in said[0]
    loop.take(bad, learn=False)
    deadline = time.monotonic() + 30
    while loop.model < 2 and time.monotonic() < deadline:  # not before an hour, were the first one clean
        loop.take(good)
        time.sleep(0.05)
    loop.close()
    assert set(store(tmp_path).load(2).arrays["feature_edges"][q.F_PROTOCOL].tolist()) == {6, 7, 32_767}


def test_loop__a_failing_trainer_is_one_line(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "models").write_text("in the way")
    loop, batch = make_loop(tmp_path, said), packet_batch(2000)
    for _ in range(5):
        loop.take(batch)
    loop.close()
    assert len(said) == 1
    assert str(tmp_path / "models") in said[0]
    assert "directory" in said[0]
    assert "next try in 10 min" in said[0]
    assert "\n" not in said[0]
    assert not (batch.present & k.HAS_ANOMALY).any()


def test_loop__what_cannot_be_started_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    loop, batch = make_loop(tmp_path, said), packet_batch(2000)
    loop.take(batch)
    loop.take(batch)
    loop.close()
    assert len(said) == 1
    assert "cannot start: No such file" in said[0]


def test_loop__a_damaged_model_is_replaced(tmp_path: Path) -> None:
    said: list[str] = []
    store(tmp_path).folder.mkdir(parents=True)
    store(tmp_path).path(7).write_bytes(b"packetlake-model 1 0000\nnothing")
    loop = make_loop(tmp_path, said)
    assert len(said) == 1
    assert "damaged" in said[0]
    loop.take(packet_batch(2000))
    assert loop.model == 8
    assert loop.stats.refused == 1
    loop.close()
    assert len(said) == 1


def test_loop__close_stops_the_trainer(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, [], patient=False)
    loop.take(packet_batch(2000))
    assert loop._trainer is not None
    process = loop._trainer._process
    loop.close()
    assert process.returncode == -9
    loop.close()


def test_loop__disabled_does_nothing(tmp_path: Path) -> None:
    loop, batch = make_loop(tmp_path, [], ScoringConfig(enabled=False)), packet_batch(100)
    loop.take(batch)
    loop.close()
    assert loop.forest is None
    assert not (batch.present & k.HAS_ANOMALY).any()
    assert list(tmp_path.iterdir()) == []


# --- the trainer -------------------------------------------------------------------------------------------------
def run_trainer(lake: Path, data: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [
        sys.executable, "-m", "analytics.training", "--lake", str(lake), "--sensor", "s", "--trees", "5",
        "--samples", "32",
    ]  # fmt: skip
    return subprocess.run(command, input=data, capture_output=True, cwd=ROOT)


def test_trainer__takes_rows_from_a_pipe_and_gives_the_same_model_for_the_same_rows(tmp_path: Path) -> None:
    rows = random_rows(400)
    np.save(tmp_path / "rows.npy", rows)
    done = run_trainer(tmp_path / "lake", (tmp_path / "rows.npy").read_bytes())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    made, again = store(tmp_path / "lake").load(1), train(rows, 5, 32)
    for name, array in again.arrays.items():
        assert np.array_equal(made.arrays[name], array), name


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x93NUMPY\1\0"])
def test_trainer__bad_input_is_one_line(tmp_path: Path, data: bytes) -> None:
    done = run_trainer(tmp_path, data)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_trainer__refuses_too_few_rows() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        train(random_rows(1))


def test_engine__never_loads_scikit_learn() -> None:
    code = "import sys, engine.scoring_loop, engine.warmup; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("values", [{"trees": 0}, {"samples": 15}, {"training_rows": 1}, {"first_after_rows": 0},
                                    {"retrain_minutes": -1}, {"training": "all"}, {"window_minutes": 0},
                                    {"threshold": 0.0}, {"threshold": float("nan")}, {"alerts_per_hour": -1},
                                    {"drift_minutes": 0}])  # fmt: skip
def test_config__out_of_range_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"scoring.{next(iter(values))}"):
        ScoringConfig(**values)


def test_kernels__are_compiled_for_one_layout(tmp_path: Path) -> None:
    if not is_compiled():
        pytest.skip("nothing is compiled")
    from engine.warmup import warm_up

    warm_up()
    model = train(random_rows(300), 3, 16)
    store(tmp_path).add(model)
    for one in (model, store(tmp_path).load(1)):
        Scorer(Forest.of(one)).score(packet_batch(100))
        Scorer(Forest.of(one), rows=100).score(packet_batch(100))
        stats = ScoreStats("s", 0.9, 1, lambda _rows: None, lambda *_: None)
        stats.use(1, Baseline.of(one))
        stats.take(packet_batch(100), Scorer(rows=100).fill(packet_batch(100)))
    offered([packet_batch(100)], 50)
    kernels = (kernel.fill_features, kernel.score, kernel.sample, counts.count_scores, counts.count_features)
    assert [len(f.signatures) for f in kernels] == [1] * 5
