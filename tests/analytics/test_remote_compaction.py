"""Compaction of a destination: every row once for every reader, at every step and wherever it is killed."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest

import analytics
from analytics.merge_jobs import Compactor, Plan
from analytics.ship import remote, remote_compaction
from analytics.ship.destination import Destination
from analytics.ship.remote_compaction import RemoteCompactor
from analytics.ship.remote_retention import RemoteRetention
from analytics.ship.shipper import Shipper
from analytics.watch.watch import Watch
from engine.errors import StoreError
from engine.ship_config import ShipConfig
from tests.analytics.small_lake import NOON, make_lake, segment
from tests.analytics.test_ship import books, packets
from tests.commands import ROOT, engine
from tests.s3 import BUCKET, serving

CHANGES = ("put", "delete", "copy")


class Killed(BaseException):
    """As by a signal: nothing of ours catches it."""


def shipped_lake(folder: Path, url: str) -> None:
    """Three objects of each of two sensors."""
    lake = make_lake(folder)
    with Shipper(lake, ShipConfig(url=url), pytest.fail) as shipper:
        for number in range(3):
            packets(lake, number, sensor="s1")
            packets(lake, 10 + number, sensor="s2")
            shipper.take()
            shipper.round()


@pytest.fixture
def there(tmp_path: Path) -> Path:
    made = tmp_path / "there"
    made.mkdir()
    shipped_lake(tmp_path / "lake", str(made))
    return made


def compactor(url: str, **how: Any) -> RemoteCompactor:
    how = {"grace_s": 0.0, "settle_s": 0.0, "over_s": 0.0, "wait": lambda _: None} | how
    return RemoteCompactor(url, lambda _: None, **how)


def changes(made: RemoteCompactor, monkeypatch: pytest.MonkeyPatch, then: Callable[[], None]) -> None:
    """Have `then` called after each change that the compactor makes at the destination."""
    for name in CHANGES:
        usual = getattr(made.destination, name)

        def change(*given: Any, usual: Any = usual) -> None:
            usual(*given)
            then()

        monkeypatch.setattr(made.destination, name, change)


def objects(url: str, table: str = "packets") -> list[str]:
    return sorted(item.place for item in Destination(url).list(table))


def left_over(there: Path) -> list[str]:
    return [str(p) for d in (".retired", ".compact") for p in (there / d).rglob("*") if p.is_file()]


def test_compact__a_reader_sees_every_row_once_after_every_step(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = books(there), list[Any]()
    made = compactor(str(there))
    changes(made, monkeypatch, lambda: seen.append(books(there)))
    done = made.compact()
    assert done.objects >= 6
    assert len(objects(str(there))) == 2
    assert len(seen) > 10
    assert all(now == before for now in seen)
    assert left_over(there) == []
    assert compactor(str(there)).compact().objects == 0


def test_compact__a_dashboard_that_stays_counts_every_packet_once(
    tmp_path: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, noon = make_lake(tmp_path / "rollups"), NOON.replace(tzinfo=UTC).timestamp()
    with Shipper(lake, ShipConfig(url=str(there)), pytest.fail) as shipper:
        for number in range(4):
            sums = dict.fromkeys(("payload", "fragments", "undecodable", "syns"), 0)
            row = {"ts": NOON + timedelta(minutes=number), "source": "eth0", "packets": 10, "bytes": 1000, **sums}
            segment(lake, "rollup_1s", [row], name=f"{int(noon + 60 * number) * 10**6:016d}-{number}", sensor="s3")
            shipper.take()
            shipper.round()
    now, seen = [noon + 300.0], list[Any]()
    watch = Watch(there, clock=lambda: now[0])

    def look() -> None:
        now[0] += 2
        seen.append([watch.answer("overview", range_text=text)["kpi"]["packets"] for text in ("15m", "6h")])

    try:
        look()
        made = compactor(str(there))
        changes(made, monkeypatch, look)
        made.compact()
        look()
    finally:
        watch.close()
    assert len(objects(str(there), "rollup_1s")) == 1
    assert seen == [[40, 40]] * len(seen)


def test_compact__killed_after_any_step_the_next_one_goes_on(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = books(there)
    monkeypatch.setattr(remote_compaction, "CLAIM_S", 0.0)
    monkeypatch.setattr(RemoteCompactor, "_renew", _renew_without_age)
    steps, undone = 0, 0
    while True:
        place = tmp_path / f"killed-{steps}"
        shutil.copytree(there, place)
        left = [steps]

        def step(left: list[int] = left) -> None:
            if not left[0]:
                raise Killed
            left[0] -= 1

        made = compactor(str(place))
        with monkeypatch.context() as patched:
            changes(made, patched, step)
            try:
                made.compact()
                break
            except Killed:
                pass
        assert books(place) == before, f"killed after step {steps}"
        undone += compactor(str(place)).compact().undone
        assert books(place) == before, f"recovered after step {steps}"
        assert (len(objects(str(place))), left_over(place)) == (2, []), f"step {steps}"
        steps += 1
        shutil.rmtree(place)
    assert steps > 20
    assert undone > 0


def _renew_without_age(self: RemoteCompactor) -> None:
    self.destination.put(b"{}", f".compact/claims/{self._id}")


def test_compact__one_at_a_time(there: Path) -> None:
    Destination(str(there)).put(b"{}", ".compact/claims/other")
    with pytest.raises(StoreError, match="another process compacts it"):
        compactor(str(there)).compact()
    old = time.time() - 2 * remote_compaction.CLAIM_S
    os.utime(there / ".compact/claims/other", (old, old))
    assert compactor(str(there)).compact().merged
    with Compactor(there, Plan(), pytest.fail):  # `engine compact` or `engine retain`
        done = engine("job", "compact", "--lake", there)
    assert done.returncode == 2
    assert "another process merges its segments" in done.stderr.splitlines()[-1]
    done = engine("job", "compact", "--lake", there)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "no objects are due")


def test_compact__a_process_that_slept_too_long_gives_up(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, before = compactor(str(there)), books(there)
    usual = made.destination.copy

    def copy(*given: Any) -> None:
        made._renewed -= remote_compaction.CLAIM_S
        usual(*given)

    monkeypatch.setattr(made.destination, "copy", copy)
    with pytest.raises(StoreError, match="held up"):
        made.compact()
    assert books(there) == before
    assert compactor(str(there)).compact().undone
    assert books(there) == before


def test_compact__damaged_objects_and_hours_that_go_on_are_left_alone(there: Path) -> None:
    first = next(iter(sorted(there.glob("packets/sensor=s1/*/*/*.parquet"))))
    first.write_bytes(first.read_bytes()[:-1] + b"?")
    assert compactor(str(there), over_s=3600.0).compact().objects == 0
    compactor(str(there)).compact()
    assert len(list(there.glob("packets/sensor=s1/*/*/*.parquet"))) == 3
    assert len(list(there.glob("packets/sensor=s2/*/*/*.parquet"))) == 1


def test_retention__counts_nothing_twice_and_deletes_what_was_made(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(there)
    size = sum(item.size for item in Destination(url).list("packets/sensor=s1"))
    size += sum(i.size for t in ("addresses", "flows") for i in Destination(url).list(f"{t}/sensor=s1"))
    limit = RemoteRetention(Destination(url), ShipConfig(url=url, keep_gib=(size + 1) / (1 << 30)))
    made, due = compactor(url), list[str]()
    changes(made, monkeypatch, lambda: due.extend(limit.round(["s1"], "x", time.time())))
    made.compact()
    assert due == []
    rule, now = RemoteRetention(Destination(url), ShipConfig(url=url, keep_days=1)), time.time()
    assert len(rule.round(["s1"], "x", now + 2 * 86_400)) >= 1
    rule.round(["s1"], "x", now + 2 * 86_400 + 400)
    assert objects(url, "packets/sensor=s1") == []
    assert len(objects(url, "packets/sensor=s2")) == 1


def test_compact__what_retention_takes_meanwhile_does_not_come_back(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(there)
    rule = RemoteRetention(Destination(url), ShipConfig(url=url, keep_days=1))
    made, usual = compactor(url), RemoteCompactor._tell

    def tell(self: RemoteCompactor, jobs: Any) -> None:
        usual(self, jobs)
        rule.round(["s1"], "x", time.time() + 2 * 86_400)

    monkeypatch.setattr(made, "_tell", lambda jobs: tell(made, jobs))
    made.compact()
    with analytics.connect(there) as con:
        assert con.execute("SELECT sensor, count(*) FROM packets GROUP BY 1").fetchall() == [("s2", 9)]


def test_compact__an_object_store_and_a_reader_that_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path / "s3") as store, _environment(store.environment, monkeypatch):
        monkeypatch.setattr(remote, "LOOK_S", 0.0)
        url = f"s3://{BUCKET}/compacted"
        shipped_lake(tmp_path / "lake", url)
        with analytics.connect(url) as con:

            def look() -> None:
                seen.append(con.execute("SELECT count(*), count(DISTINCT (sensor, frame_no)) FROM packets").fetchall())

            seen = list[Any]()
            look()
            made = compactor(url)
            changes(made, monkeypatch, look)
            made.compact()
            assert set(map(tuple, seen)) == {((18, 18),)}
        assert len(objects(url)) == 2
        assert [i.place for d in (".retired", ".compact") for i in Destination(url).list(d)] == []
        rule, now = RemoteRetention(Destination(url), ShipConfig(url=url, keep_days=1)), time.time()
        rule.round(["s1", "s2"], "x", now + 2 * 86_400)
        rule.round(["s1", "s2"], "x", now + 2 * 86_400 + 400)
        assert objects(url) == []
        done = engine("job", "compact", "--lake", url, env=dict(store.environment))
        assert (done.returncode, done.stderr) == (0, "no objects are due\n")


@contextlib.contextmanager
def _environment(values: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, values[name])
    yield


@pytest.mark.skipif(
    importlib.util.find_spec("pyspark") is None or not shutil.which("java"),
    reason="no Spark here: pip install -e '.[engines]', and Java 17",
)
def test_compact__merged_by_executors_of_spark(there: Path) -> None:
    before = books(there)
    code = (
        "import sys; from functools import partial; from analytics.jobs import _make_on_spark\n"
        "from analytics.ship.remote_compaction import RemoteCompactor\n"
        "run = partial(_make_on_spark, sys.argv[1], 'local-cluster[2,1,1024]')\n"
        "print(RemoteCompactor(sys.argv[1], print, grace_s=0, settle_s=0, over_s=0, run=run).compact().merged)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, there], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) >= 2
    assert books(there) == before
    assert (len(objects(str(there))), left_over(there)) == (2, [])


@pytest.mark.parametrize(
    ("words", "part"),
    [(("--since", "1d"), "takes no --since"), (("--rows", "5000"), "takes no --rows"), ((), "does not exist")],
)
def test_bad_input__is_one_line(there: Path, words: tuple[str, ...], part: str) -> None:
    done = engine("job", "compact", "--lake", there if words else "/nonexistent", *words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert part in done.stderr
