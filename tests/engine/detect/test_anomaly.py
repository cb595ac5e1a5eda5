"""Unknown behaviour: learned from windows, told with reasons, within a budget, never from what an incident is about."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.anomaly_config import AnomalyConfig
from engine.detect.anomaly.columns import NAMES, matrix
from engine.detect.anomaly.holding import Held
from engine.detect.anomaly.learning import Sample, peak_of
from engine.detect.anomaly.model import model_of, scorers_of
from engine.detect.anomaly.scorers import METHODS, fit
from engine.detect.anomaly.stage import AnomalyStage
from engine.detect.finding import Finding
from engine.errors import ConfigError
from engine.kernels import window_layout as w
from engine.models import Model, ModelStore
from tests.detecting import SYN, Rig, seconds, tcp_frame, udp_frame
from tests.flowing import Timed

CONFIG = AnomalyConfig(learn_minutes=2, least_rows=60, lengths=(5,), rows=1000, per_hour=1)
ODD = "10.0.0.77"


def config_of(method: str) -> AnomalyConfig:
    """In a few minutes of eleven hosts the one server is as odd to a forest or a sum as anything can be."""
    return CONFIG if method == "maxz" else replace(CONFIG, method=method, margin=0.8, per_hour=50)


@lru_cache
def ordinary(until_s: int = 280) -> list[Timed]:
    """Ten hosts that each ask a server a few things in five seconds, and are answered."""
    random_ = random.Random(1)
    timed: list[Timed] = []
    for at in range(0, until_s, 5):
        for host in range(1, 11):
            for n in range(random_.randint(5, 9)):
                when, port = at + 4.5 * random_.random(), 20_000 + (at + n) % 9
                data = bytes(random_.randrange(256) for _ in range(random_.randint(20, 60)))
                timed.append((when, udp_frame(f"10.0.0.{host}", "10.0.1.1", port, 7000, data)))
                timed.append((when + 0.001, udp_frame("10.0.1.1", f"10.0.0.{host}", 7000, port, data)))
    return timed


def odd(at: float, host: str = ODD, servers: int = 12) -> list[Timed]:
    """One host asks many servers on many ports, and gets answers: no rule is about it."""
    timed: list[Timed] = []
    for n in range(15 * servers):
        when, server = at + n * 0.02, f"10.0.2.{n % servers + 1}"
        timed.append((when, udp_frame(host, server, 30_000 + n, 7000 + n // servers, bytes(400))))
        timed.append((when + 0.001, udp_frame(server, host, 7000 + n // servers, 30_000 + n, b"ok")))
    return timed


def run(stage: AnomalyStage, *parts: list[Timed], cuts: Any = ()) -> list[Finding]:
    timed = sorted([*ordinary(), *(frame for part in parts for frame in part)], key=lambda t: t[0])
    return Rig(apps=False, anomaly=stage).send(timed, cuts)


def unknown(found: list[Finding]) -> list[Finding]:
    return [f for f in found if f.kind == "anomaly"]


@pytest.mark.parametrize("method", METHODS)
def test_odd_host__is_told_after_the_usual_is_known(method: str) -> None:
    config = config_of(method)
    assert all(seconds(f) > 180 for f in unknown(run(AnomalyStage(config), odd(90))))  # 60 s pass, 120 s teach
    found = unknown(run(AnomalyStage(config), odd(220)))
    assert (ODD, None) in {(f.src_ip, f.dst_ip) for f in found}
    assert {f.severity for f in found} == {"low"}
    if method == "maxz":
        assert len(found) == 1
        assert found[0].ts - found[0].first_ts == 5_000_000
        assert 220 <= seconds(found[0]) <= 230
        assert "180 connections and requests begun (usual 0, rarely above 0)" in found[0].why
        assert found[0].evidence["ports"] > 10
        assert found[0].evidence["score"] > found[0].evidence["threshold"]


def test_ordinary_traffic__is_not_told() -> None:
    stage = AnomalyStage(CONFIG)
    assert unknown(run(stage)) == []
    assert stage.learned > 300
    assert stage.told == stage.over_budget == 0


def test_cutting__changes_nothing() -> None:
    count = len(ordinary()) + len(odd(220))
    expected = unknown(run(AnomalyStage(CONFIG), odd(220)))
    random_ = random.Random(2)
    for size in (1, 40):
        cuts = sorted(random_.sample(range(count), size))
        assert unknown(run(AnomalyStage(CONFIG), odd(220), cuts=cuts)) == expected
    assert expected


def test_budget__holds_more_hosts_back_and_counts_them() -> None:
    stage = AnomalyStage(CONFIG)
    found = unknown(run(stage, *(odd(220 + 2 * n, f"10.0.0.{200 + n}") for n in range(3))))
    assert len({f.src_ip for f in found}) == 1
    assert stage.told == 1
    assert stage.over_budget >= 2


def test_host_in_an_incident__is_not_told_again_and_teaches_nothing() -> None:
    scan = [(215 + n * 0.01, tcp_frame(ODD, "10.0.1.1", 5000, 100 + n, SYN)) for n in range(60)]
    stage = AnomalyStage(CONFIG)
    found = run(stage, scan, odd(220))
    assert "port_scan" in {f.kind for f in found}
    assert [f for f in unknown(found) if ODD in (f.src_ip, f.dst_ip)] == []
    assert stage.not_learned > 0


def test_scan_while_learning__leaves_the_scanner_out_of_what_is_usual() -> None:
    scans = [(n * 0.05, tcp_frame(ODD, "10.0.1.2", 5000, 100 + n % 2000, SYN)) for n in range(2800)]
    stage = AnomalyStage(CONFIG)
    run(stage, scans)
    scorer = stage._scorers[5]
    assert scorer.high[NAMES.index("ports")] < 4  # octaves; the scanner asks for 100 in five seconds


# --- models -----------------------------------------------------------------------------------------------------------
def learned(folder: Path, method: str = "maxz") -> tuple[ModelStore, AnomalyConfig]:
    config = config_of(method)
    store = ModelStore(folder, "s", "window")
    run(AnomalyStage(config, store))
    return store, config


@pytest.mark.parametrize("method", METHODS)
def test_model__is_kept_and_used_from_the_start(tmp_path: Path, method: str) -> None:
    store, config = learned(tmp_path, method)
    assert store.numbers() == [1]
    stage = AnomalyStage(replace(config, frozen=True), store)
    found = unknown(run(stage, odd(75)))
    assert ODD in {f.src_ip for f in found}
    assert found[0].evidence["model"] == 1
    assert (stage.learned, store.numbers()) == (0, [1])
    model = store.load(1)
    assert (model.kind, model.method, model.features) == ("window", method, NAMES)
    assert model.metrics["threshold_5s"] > 0
    again = scorers_of(model)[5]
    rows = np.random.default_rng(1).random((50, len(NAMES)), np.float32) * 12
    assert np.allclose(again.scores(rows), stage._scorers[5].scores(rows))


def test_model__of_a_file_that_the_configuration_names(tmp_path: Path) -> None:
    store, config = learned(tmp_path)
    stage = AnomalyStage(replace(config, model=str(store.path(1))))
    assert len(unknown(run(stage, odd(75)))) == 1
    with pytest.raises(ConfigError, match="no such file"):
        AnomalyStage(replace(config, model=str(tmp_path / "none")))


def test_model__an_operators_choice_stays(tmp_path: Path) -> None:
    store, config = learned(tmp_path)
    store.choose(1)
    stage = AnomalyStage(config, store)
    run(stage)
    assert store.numbers() == [1, 2]
    assert stage._version == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features": ("a", "b")}, "judges other columns"),
        ({"feature_version": 9}, "judges other columns"),
        ({"kind": "packet"}, "of kind packet"),
        ({"method": "other"}, "method other"),
        ({"arrays": {"5.median": np.zeros(3)}}, "array median"),
        ({"arrays": {"x.median": np.zeros(3)}}, "array x.median"),
    ],
)
def test_model__that_does_not_fit_is_one_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    store, _ = learned(tmp_path)
    with pytest.raises(ConfigError, match=said) as error:
        scorers_of(replace(store.load(1), **change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", METHODS)
def test_model__with_any_array_missing_or_not_finite_is_refused(tmp_path: Path, method: str) -> None:
    store, _ = learned(tmp_path, method)
    model = store.load(1)
    for name, array in model.arrays.items():
        less = {k: v for k, v in model.arrays.items() if k != name}
        bad = {name: np.full_like(array, np.nan)} if array.dtype == np.float64 else {name: array[:0]}
        for arrays in (less, model.arrays | bad):
            with pytest.raises(ConfigError):
                scorers_of(replace(model, arrays=arrays))


def test_damaged_file__is_said_and_learning_begins_anew(tmp_path: Path) -> None:
    store, config = learned(tmp_path)
    data = bytearray(store.path(1).read_bytes())
    data[-5] ^= 1
    store.path(1).write_bytes(data)
    said: list[str] = []
    stage = AnomalyStage(config, store, lambda _, text: said.append(text))
    assert len(unknown(run(stage, odd(220)))) == 1
    assert len(said) == 1
    assert "damaged" in said[0]


# --- parts ------------------------------------------------------------------------------------------------------------
def test_sample__is_even_and_bounded() -> None:
    sample = Sample(100)
    for n in range(50):
        x = np.full((20, len(NAMES)), n, np.float32)
        sample.offer(x, np.arange(20), n * 5)
    rows, episodes, share = sample.rows()
    assert (len(rows), share) == (100, 0.1)
    assert 15 < rows[:, 0].mean() < 34  # of 0 to 49
    assert len(episodes) == 100
    sample.turn()
    sample.offer(np.full((20, len(NAMES)), 99, np.float32), np.arange(20), 500)
    assert len(sample) == 120
    sample.turn()
    assert len(sample) == 20


@pytest.mark.parametrize(("allowed", "peak"), [(0, 9.0), (1, 7.0), (2, 5.0), (9, 5.0)])
def test_peak__leaves_the_highest_episodes_out(allowed: int, peak: float) -> None:
    assert peak_of(np.array([9.0, 8.0, 7.0, 5.0]), np.array([1, 1, 2, 3]), allowed) == peak


def test_columns__are_octaves_of_counts_and_shares() -> None:
    counters = np.zeros((1, w.N_COUNTERS), np.int64)
    counters[0, [w.C_OUT_PACKETS, w.C_DNS_LABELS, w.C_DNS_ENTROPY]] = 7, 4, 8 * 1024
    row = dict(zip(NAMES, matrix(counters)[0].tolist(), strict=True))
    assert (row["out_packets"], row["dns_entropy"], row["entropy"], row["upload"]) == (3.0, 2.0, 0.0, 0.0)


@pytest.mark.parametrize("method", ["maxz", "hbos"])
def test_scores__grow_with_distance_and_rows_all_alike_are_allowed(method: str) -> None:
    rows = np.zeros((200, len(NAMES)), np.float32)
    scorer = fit(method, rows)
    near, far = rows[:1].copy(), rows[:1].copy()
    near[0, 3], far[0, 3] = 2, 9
    assert scorer.scores(rows)[0] < scorer.scores(near)[0] < scorer.scores(far)[0]
    assert scorer.reasons(far[0])[0].column == 3
    model = model_of({5: scorer.with_threshold(1.0)}, CONFIG, (0, 1))
    assert Model.from_bytes(model.to_bytes()).metrics["rows_5s"] == 200


@pytest.mark.parametrize(
    "values",
    [{"method": "x"}, {"lengths": ()}, {"lengths": (7,)}, {"per_hour": -1}, {"learn_minutes": 0}, {"rows": 10}],
)
def test_configuration__is_checked(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"anomaly.{next(iter(values))}"):
        AnomalyConfig(**values)


def test_held__any_text_as_an_address_and_bounded() -> None:
    held = Held()
    for text in ("not an address", "fe80::1%eth0", "10.0.0.999", "::", "\0", "10.0.0.7"):
        held.add(Finding(ts=1_000_000_000, kind="x", severity="high", why="", src_ip=text))
    low = np.array([0x0A000007, 0x0A000008], np.int64)
    assert held.among(low, 1_000_000_000, 1_005_000_000).tolist() == [True, False]
    assert held.among(low, 1_299_000_000, 1_304_000_000).tolist() == [True, False]
    assert held.among(low, 1_301_000_000, 1_306_000_000).tolist() == [False, False]
    held.add(Finding(ts=2_000_000_000, kind="x", severity="low", why="", src_ip="10.0.0.8"))
    assert held.among(low, 2_000_000_000, 2_005_000_000).tolist() == [False, False]
