"""Models as files: kept to the bit, foreign and damaged ones refused in one line, chosen and followed by many."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analytics.training import train
from engine.drift import Baseline
from engine.errors import ConfigError, StoreError
from engine.forest import Forest
from engine.kernels import forest_steps as q
from engine.models import ENGINE, KEEP, Follower, Model, ModelStore, stores

N = len(q.FEATURES)


def random_rows(rows: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 32_768, (rows, N)).astype(np.int16)


@pytest.fixture(scope="module")
def forest_model() -> Model:
    return train(random_rows(1000), 5, 64, (5, 9), note="a note")


def quantiles(**changes: Any) -> Model:
    """A model of another kind, as scorers of windows have them."""
    given: dict[str, Any] = {
        "kind": "window", "method": "maxz", "features": ("packets", "peers"), "rows": 10,
        "arrays": {"median": np.array([1.5, 2.5]), "top": np.arange(6, dtype=np.int32).reshape(2, 3)},
        "metrics": {"false_per_hour": 0.5},
    }  # fmt: skip
    return Model(**(given | changes))


def packed(header: dict[str, Any] | bytes, payload: bytes = b"") -> bytes:
    """A file whose checksum is right, whatever is in it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = text + b"\n" + payload
    return b"packetlake-model 1 " + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


# --- the file ----------------------------------------------------------------------------------------------------
def test_file__keeps_every_bit(forest_model: Model) -> None:
    for model in (forest_model, quantiles(), quantiles(arrays={}), quantiles(arrays={"none": np.zeros((0, 3))})):
        read = Model.from_bytes(model.to_bytes(), "here")
        for f in fields(Model):
            if f.name not in ("arrays", "where"):
                assert getattr(read, f.name) == getattr(model, f.name), f.name
        assert list(read.arrays) == list(model.arrays)
        for name, array in model.arrays.items():
            assert np.array_equal(read.arrays[name], array)
            assert (read.arrays[name].dtype, read.arrays[name].shape) == (array.dtype, array.shape)
            assert read.arrays[name].flags.writeable
        assert read.to_bytes() == model.to_bytes()


def test_file__its_second_line_tells_a_person_everything(forest_model: Model) -> None:
    told = json.loads(forest_model.to_bytes().split(b"\n")[1])
    assert told["features"] == list(q.FEATURES)
    assert (told["rows"], told["first_us"], told["last_us"], told["note"]) == (900, 5, 9, "a note")
    assert told["parameters"] == {"trees": 5, "samples": 64, "seed": 1}
    assert told["metrics"]["held_out_rows"] == 100
    assert 0.3 < told["metrics"]["mean_anomaly"] < 0.7
    assert told["metrics"]["share_above_0.5"] > told["metrics"]["share_above_0.9"]
    assert told["metrics"]["training_cpu_s"] > 0
    assert told["engine_version"]


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_file__any_damage_is_refused(tmp_path: Path, forest_model: Model) -> None:
    whole, random, path = forest_model.to_bytes(), np.random.default_rng(1), tmp_path / "m.model"
    for number in range(200):
        data = bytearray(whole)
        if number % 2:
            data = data[: random.integers(0, len(data))]
        else:
            data[random.integers(0, len(data))] ^= int(random.integers(1, 256))
        path.write_bytes(data)
        assert str(path) in refused(lambda: Model.read(path))
    for data in (b"", b"\x80\x04K\x01.", b"PK\3\4", b"packetlake-model 1 ", b"packetlake-model 2 0\n{}"):
        path.write_bytes(data)
        refused(lambda: Model.read(path))
    with path.open("wb") as file:
        file.truncate(65 << 20)
    assert "larger than 64 MiB" in refused(lambda: Model.read(path))
    assert "no such file" in refused(lambda: Model.read(tmp_path / "missing"))
    assert "directory" in refused(lambda: Model.read(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"rows": "many"}, {"rows": True}, {"made_s": 1e999}, {"made_s": None}, {"kind": "../../etc"}, {"kind": ""},
        {"features": ["a\nb"]}, {"features": [1]}, {"features": "wirelen"}, {"metrics": []}, {"more": 1},
        {"arrays": [{"name": "a", "dtype": "object", "shape": [1]}]},
        {"arrays": [{"name": "a", "dtype": "int64", "shape": [1 << 62]}]},
        {"arrays": [{"name": "a", "dtype": "int64", "shape": [-1]}]},
        {"arrays": [{"name": "a", "dtype": "int64", "shape": [0.5]}]},
        {"arrays": [{"name": "a", "dtype": "int64", "shape": [1 << 31, 0, 1 << 31, 7, 7]}]},
        {"arrays": [{"name": "a", "dtype": "uint8", "shape": [4]}, {"name": "a", "dtype": "uint8", "shape": [4]}]},
        {"arrays": [{"name": "a", "dtype": "uint8", "shape": [7]}]},
        {"arrays": [{"name": "a", "dtype": "uint8", "shape": [9]}]},
        {"arrays": [{}]}, {"arrays": None}, {"arrays": 5},
    ],
    ids=str,
)  # fmt: skip
def test_file__a_right_checksum_proves_nothing(change: dict[str, Any]) -> None:
    header = quantiles(arrays={"a": np.zeros(8, np.uint8)}).header()
    assert Model.from_bytes(packed(header, bytes(8))).kind == "window"
    assert "damaged" in refused(lambda: Model.from_bytes(packed(header | change, bytes(8)), "here"))


@pytest.mark.parametrize("text", [b"", b"[]", b"nonsense", b"[" * 100_000, b"{}", b"\xff", b"x" * (2 << 20)])
def test_file__a_header_that_is_none(text: bytes) -> None:
    assert "damaged" in refused(lambda: Model.from_bytes(packed(text), "here"))


# --- a forest in it ----------------------------------------------------------------------------------------------
def test_forest__scores_as_before(forest_model: Model) -> None:
    from tests.engine.test_scoring import score

    again = Model.from_bytes(forest_model.to_bytes())
    rows = random_rows(100, seed=2)
    assert np.array_equal(score(Forest.of(forest_model), rows)[0], score(Forest.of(again), rows)[0])


def test_forest__of_other_features_or_another_version_is_refused(forest_model: Model) -> None:
    for change in ({"features": (*q.FEATURES, "more")}, {"feature_version": 99}, {"method": "hbos"}):
        said = refused(lambda c=change: Forest.of(replace(forest_model, where="here", **c)))  # type: ignore[misc]
        assert "train a new one" in said
        assert "here" in said


def test_forest__what_the_kernel_could_not_run_is_refused(forest_model: Model) -> None:
    arrays = forest_model.arrays
    steps, starts, depths, table = (arrays[n] for n in ("steps", "starts", "depths", "table"))

    def bad(**changes: np.ndarray | None) -> None:
        kept = {name: array for name, array in (arrays | changes).items() if array is not None}
        assert "damaged" in refused(lambda: Forest.of(replace(forest_model, arrays=kept)))

    for column, value in ((q.Q_KIND, 4), (q.Q_FEATURE, N), (q.Q_TO, q.SLOTS), (q.Q_LEFT, -1), (q.Q_RIGHT, 9999)):
        wrong = steps.copy()
        wrong[-1, column] = value
        bad(steps=wrong)
    unwritten = steps.copy()
    unwritten[0] = [q.NODE_NODE, 0, 0, 0, 1, 2]
    bad(steps=unwritten)
    bad(steps=steps.astype(np.int32))
    bad(steps=steps[:, :5])
    bad(steps=None)
    bad(starts=starts[:-1])
    bad(starts=starts[::-1].copy())
    bad(starts=np.zeros(0, np.int64))
    bad(depths=np.full_like(depths, 2**30))
    bad(table=table[:-1])
    bad(table=table * 2)
    bad(table=np.full_like(table, np.nan))
    bad(scale=np.array([np.nan, 0.0, 1.0]))
    bad(scale=np.array([0.0, 1.0]))
    bad(scale=np.array([0.0, 0.0, 1.0]))
    for parameters in ({}, {"samples": "x"}, {"samples": None}, {"samples": 1e999}, {"samples": 1}, {"samples": 10**9}):
        refused(lambda p=parameters: Forest.of(replace(forest_model, parameters=p)))  # type: ignore[misc]


def test_baseline__damaged_distributions_are_refused(forest_model: Model) -> None:
    arrays = forest_model.arrays
    for name in ("score_shares", "feature_edges", "feature_shares"):
        for wrong in (arrays[name][:-1], arrays[name].astype(np.float32), arrays[name][..., ::-1] * 3 + 1):
            refused(lambda n=name, w=wrong: Baseline.of(replace(forest_model, arrays=arrays | {n: w})))  # type: ignore[misc]


# --- the versions ------------------------------------------------------------------------------------------------
def test_store__numbers_versions_and_forgets_those_that_engines_made(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, "s", "window")
    assert (store.numbers(), store.chosen(), store.newest_first()) == ([], None, [])
    assert store.add(quantiles(made_by="ann")) == 1
    for number in range(2, KEEP + 6):
        assert store.add(quantiles(rows=number)) == number
        if number == 4:
            store.choose(3)
    assert store.numbers() == [1, 3, *range(6, KEEP + 6)]  # Ann's and the chosen one stay
    assert store.newest_first()[:2] == [3, KEEP + 5]
    model = store.load(7)
    assert (model.rows, model.number, model.sensor, model.made_by) == (7, 7, "s", ENGINE)
    assert time.time() - model.made_s < 60
    assert sorted(os.listdir(store.folder)) == sorted([*(store.path(n).name for n in store.numbers()), "use"])
    assert [(s.sensor, s.kind) for s in stores(tmp_path)] == [("s", "window")]


def test_store__a_missing_or_foreign_version_cannot_be_chosen(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, "s", "packet")
    refused(lambda: store.choose(1))
    store.add(quantiles())
    assert "of kind window" in refused(lambda: store.choose(1))
    store.choose(None)
    for text in ("x", "-1", "", "1e3", "²"):
        (store.folder / "use").write_text(text)
        assert store.chosen() is None
    (store.folder / "use").write_text("17")  # removed since
    assert store.newest_first() == [1]


def test_store__what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("in the way")
    with pytest.raises(StoreError, match="cannot write") as caught:
        ModelStore(tmp_path, "s", "packet").add(quantiles())
    assert "\n" not in str(caught.value)


def _add(lake: Path, who: str) -> None:
    for _ in range(5):
        ModelStore(lake, "s", "window").add(quantiles(made_by=who))


def test_store__many_may_add_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    people = [context.Process(target=_add, args=(tmp_path, who)) for who in ("ann", "bob", "cy")]
    for process in people:
        process.start()
    for process in people:
        process.join()
    store = ModelStore(tmp_path, "s", "window")
    assert store.numbers() == list(range(1, 16))
    assert sorted(store.load(n).made_by for n in store.numbers()) == ["ann"] * 5 + ["bob"] * 5 + ["cy"] * 5


def _add_for_ever(lake: Path) -> None:
    while True:
        ModelStore(lake, "s", "window").add(quantiles(arrays={"a": np.zeros(200_000)}))


def test_store__a_writer_may_be_killed_at_any_moment(tmp_path: Path) -> None:
    store, context = ModelStore(tmp_path, "s", "window"), multiprocessing.get_context("spawn")
    for number in range(3):
        process = context.Process(target=_add_for_ever, args=(tmp_path,))
        process.start()
        deadline = time.monotonic() + 60
        while len(store.numbers()) < 3 * (number + 1) and time.monotonic() < deadline:
            time.sleep(0.001)
        process.kill()
        process.join()
        assert all(store.load(n).arrays["a"].sum() == 0 for n in store.numbers())
    left = store.folder / ".0123456789abcdef.inprogress"
    left.write_bytes(b"half")
    store.add(quantiles())
    assert left.exists()  # somebody may still write it
    os.utime(left, (1, 1))
    store.add(quantiles())
    assert not left.exists()


# --- who follows them --------------------------------------------------------------------------------------------
def rows_of(model: Model) -> int:
    if model.rows == 13:
        raise ConfigError("13 brings bad luck")
    return model.rows


def test_follower__goes_on_with_the_last_good_one(tmp_path: Path) -> None:
    said: list[str] = []
    store = ModelStore(tmp_path, "s", "window")
    follower = Follower(store, rows_of, lambda level, text: said.append(f"{level}: {text}"))
    assert (follower.poll(), follower.number) == (None, 0)
    store.add(quantiles(rows=1))
    assert (follower.poll(), follower.number) == (1, 1)
    assert follower.poll() is None
    store.add(quantiles(rows=13))
    for _ in range(3):
        assert (follower.poll(), follower.number) == (None, 1)
    assert said == ["warning: 13 brings bad luck"]
    store.path(3).write_bytes(b"cut")
    assert (follower.poll(), follower.number, follower.refused) == (None, 1, 2)
    assert len(said) == 2
    store.add(quantiles(rows=4))
    assert (follower.poll(), follower.number, follower.chosen) == (4, 4, False)
    store.choose(1)
    assert (follower.poll(), follower.number, follower.chosen) == (1, 1, True)
    store.add(quantiles(rows=5))
    assert follower.poll() is None
    store.choose(None)
    assert (follower.poll(), follower.number) == (5, 5)
    assert len(said) == 2
    fresh = Follower(store, rows_of, lambda *_: None)
    store.path(5).write_bytes(store.path(5).read_bytes()[:-1])
    assert (fresh.poll(), fresh.number) == (4, 4)


def test_follower__a_settled_directory_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ModelStore(tmp_path, "s", "window")
    store.add(quantiles(rows=1))
    follower = Follower(store, rows_of, lambda *_: None)
    os.utime(store.folder, (1, 1))
    assert follower.poll() == 1
    listed: list[int] = []
    monkeypatch.setattr(store, "newest_first", lambda: listed.append(1) or [])
    assert follower.poll() is None
    assert listed == []
    os.utime(store.folder, (2, 2))
    follower.poll()
    assert listed == [1]
