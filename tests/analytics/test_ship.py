"""Shipping to a directory: every row arrives once, whatever merging, crashes, a full spool and other sensors do."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import analytics
from analytics.merge_jobs import Compactor, Plan
from analytics.segments import SegmentIndex
from analytics.ship.destination import Destination
from analytics.ship.names import matches, shipped
from analytics.ship.remote_retention import RemoteRetention
from analytics.ship.shipper import Shipper
from analytics.ship.state import State
from engine import __version__
from engine.errors import StoreError
from engine.ship_config import ShipConfig
from tests.analytics.small_lake import NOON, make_lake, segment
from tests.commands import ENGINE, ROOT, engine
from tests.lakes import write_lake

AT_ONCE = Plan(older_s=0, grace_s=0, least=2)


def later() -> float:
    """A clock by which every hour of the tests is over."""
    return datetime(2027, 1, 1, tzinfo=UTC).timestamp()


def packets(lake: Path, number: int, rows: int = 3, sensor: str = "s1") -> int:
    """A segment of its own second; its rows are known by frame_no. Returns how many rows."""
    at = NOON + timedelta(seconds=number)
    values = [{"ts": at, "frame_no": number * 1000 + n, "src_ip": f"10.0.0.{n}"} for n in range(rows)]
    start = int(at.replace(tzinfo=UTC).timestamp() * 1_000_000)
    segment(lake, "packets", values, name=f"{start:016d}-{number}", sensor=sensor)
    return rows


def books(lake: Path | str) -> dict[str, tuple[Any, ...]]:
    """What a lake holds, so that a row too many or too few shows."""
    with analytics.connect(lake, threads=1) as con:

        def one(sql: str) -> tuple[Any, ...]:
            return con.execute(sql).fetchall()[0]

        sums = "count(*), count(DISTINCT (sensor, frame_no)), sum(frame_no), sum(wirelen)"
        return {
            "packets": one(f"SELECT {sums} FROM packets"),
            "stats": one("SELECT count(*), sum(received), sum(rows), sum(kernel_drops) FROM capture_stats"),
            "addresses": one("SELECT count(*), count(DISTINCT ip) FROM addresses"),
        }  # fmt: skip


def config(there: Path, **values: Any) -> ShipConfig:
    there.mkdir(exist_ok=True)
    return ShipConfig(url=str(there), **values)


def ship(lake: Path, there: Path, **values: Any) -> State:
    said: list[str] = []
    with Shipper(lake, config(there, **values), said.append) as shipper:
        shipper.round()
        assert said == []
        return shipper.state


def test_ship__every_table_arrives_once_and_whole(tmp_path: Path) -> None:
    lake, there = tmp_path / "lake", tmp_path / "there"
    write_lake(lake, 20_000, 40, datetime(2026, 11, 24, 12, 0, 20, tzinfo=UTC), kernel_drops=7)  # two hours
    there.mkdir()
    done = engine("ship", lake, there)
    assert done.returncode == 0, done
    assert books(there) == books(lake)
    objects = list(there.rglob("*.parquet"))
    assert 0 < len(objects) <= 8  # many segments have become few
    for path in objects:
        promised = shipped(path.name)
        assert promised is not None
        assert matches(path.read_bytes(), promised)
    again = engine("ship", lake, there)
    assert "0 objects with 0 rows shipped" in again.stderr
    assert sorted(there.rglob("*.parquet")) == sorted(objects)
    assert not list((lake / ".ship" / "spool").rglob("*.parquet"))


def test_ship__what_comes_later_is_all_that_goes(tmp_path: Path) -> None:
    lake, there = make_lake(tmp_path / "lake"), tmp_path / "there"
    packets(lake, 1)
    assert ship(lake, there).shipped_rows == 3
    packets(lake, 2, rows=5)
    state = ship(lake, there)
    assert (state.shipped_objects, state.shipped_rows) == (2, 8)  # counters go on
    assert state.dates == {"2026-11-24": 2}
    assert books(there) == books(lake)


@pytest.mark.parametrize("seed", range(6))
def test_ship__merging_at_any_moment_neither_loses_nor_doubles(tmp_path: Path, seed: int) -> None:
    """Random steps of a capture, a merger, a shipper, and of processes that are killed between any two of them."""
    lake, there, chance = make_lake(tmp_path / "lake"), tmp_path / "there", random.Random(seed)
    said: list[str] = []
    number = total = 0
    shipper = Shipper(lake, config(there), said.append)
    shipper.__enter__()
    compactor = Compactor(lake, AT_ONCE, said.append, later)
    compactor.__enter__()
    try:
        for _ in range(60):
            step = chance.choice(("write", "write", "take", "ship", "begin", "advance", "kill shipper", "kill merger"))
            if step == "write":
                for _ in range(chance.randint(1, 4)):
                    number += 1
                    total += packets(lake, number)
            elif step == "take":
                shipper.take()
            elif step == "ship":
                shipper.take()
                shipper.round()
            elif step == "begin":
                compactor.begin()
            elif step == "advance":
                compactor.advance()
            elif step == "kill shipper":
                shipper.__exit__()
                shipper = Shipper(lake, config(there), said.append)
                shipper.__enter__()
            else:
                compactor.__exit__()
                compactor = Compactor(lake, AT_ONCE, said.append, later)
                compactor.__enter__()
            assert books(lake)["packets"][:2] == (total, total)
            there_now = _count(there)
            assert there_now[0] == there_now[1] <= total
        while compactor.advance():
            pass
        shipper.take()
        shipper.round()
    finally:
        shipper.__exit__()
        compactor.__exit__()
    assert said == []
    assert books(there)["packets"] == books(lake)["packets"]
    assert books(there)["packets"][0] == total


def _count(there: Path) -> tuple[int, int]:
    if not list(there.rglob("*.parquet")):
        return 0, 0
    rows, distinct, *_ = books(there)["packets"]
    return rows, distinct


def test_ship__segments_of_a_merge_that_began_before_are_left_to_its_result(tmp_path: Path) -> None:
    lake, there = make_lake(tmp_path / "lake"), tmp_path / "there"
    for number in range(6):
        packets(lake, number)
    said: list[str] = []
    with Shipper(lake, config(there), said.append) as shipper:  # takes the first six
        with Compactor(lake, AT_ONCE, said.append, later) as compactor:
            packets(lake, 6)
            packets(lake, 7)
            assert compactor.begin() == 1  # taken and not taken, apart
            shipper.take()
            shipper.round()
            assert books(there)["packets"][0] == 18  # 6 and 7 come as one, later
            while compactor.advance():
                pass
        shipper.take()
        shipper.round()
    assert books(there) == books(lake)
    assert len(list((lake / "packets/sensor=s1").rglob("*-m*.parquet"))) == 2


def test_ship__killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    lake, there = tmp_path / "lake", tmp_path / "there"
    write_lake(lake, 30_000, 30, datetime(2026, 11, 24, 12, 30, tzinfo=UTC), segment_s=0.2)
    there.mkdir()
    for wait in (0.1, 0.3, 0.5, 0.7, 0.9, 1.1):
        process = subprocess.Popen([*ENGINE, "ship", str(lake), str(there)], cwd=ROOT, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not (lake / ".ship").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(wait)  # any moment will do; which one it is proves nothing by itself
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert engine("ship", lake, there).returncode == 0
    assert books(there) == books(lake)


def test_limit__what_does_not_fit_is_counted_to_the_row(tmp_path: Path) -> None:
    lake, there, said = make_lake(tmp_path / "lake"), tmp_path / "there", list[str]()
    there.mkdir()
    small = config(there, spool_gib=0.001)
    rows = 60_000
    write_lake(lake, rows, 30, datetime(2026, 11, 24, 12, 30, tzinfo=UTC))
    with Shipper(lake, small, said.append) as shipper:
        assert shipper.state.lost_segments == 0  # the lake has them: they take no room
        for path in [*lake.glob("packets/*/*/*/*.parquet")]:
            if "sensor=none" not in str(path):
                path.unlink()
        shipper.take()
        lost = shipper.state.lost_rows
        assert 0 < lost < rows
        assert len(said) == 1
        assert "the spool is full" in said[0]
        shipper.round()
    assert books(there)["packets"][0] == rows - lost
    kept = json.loads((lake / ".ship" / "state.json").read_text())
    assert kept["lost_rows"] == lost
    assert sum(p.stat().st_size for p in there.rglob("packets/**/*.parquet")) < 1.2 * small.spool_gib * (1 << 30)


def test_owner__two_lakes_cannot_ship_as_one_sensor(tmp_path: Path) -> None:
    one, other, there = make_lake(tmp_path / "one"), make_lake(tmp_path / "other"), tmp_path / "there"
    packets(one, 1)
    packets(other, 2)
    ship(one, there)
    done = engine("ship", other, there)
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert "another lake ships as sensor s1 already; give --sensor NAME" in line
    assert books(there)["packets"][0] == 3
    packets(one, 3)
    ship(one, there)  # the first goes on
    assert books(there)["packets"][0] == 6


def test_owner__two_sensors_of_one_lake_and_another_lake(tmp_path: Path) -> None:
    one, other, there = make_lake(tmp_path / "one"), make_lake(tmp_path / "other"), tmp_path / "there"
    packets(one, 1, sensor="a")
    packets(one, 1, sensor="b")
    packets(other, 1, sensor="c")
    assert ship(one, there).sensors == ["a", "b"]
    ship(other, there)
    with analytics.connect(there) as con:
        found = con.execute("SELECT sensor, count(*) FROM packets GROUP BY ALL ORDER BY ALL").fetchall()
    assert found == [("a", 3), ("b", 3), ("c", 3)]


def test_ship__one_process_at_a_time(tmp_path: Path) -> None:
    lake, there = make_lake(tmp_path / "lake"), tmp_path / "there"
    with (
        Shipper(lake, config(there), print),
        pytest.raises(StoreError, match="another process ships"),
        Shipper(lake, config(there), print),
    ):
        pass


def test_ship__another_destination_gets_everything(tmp_path: Path) -> None:
    lake = make_lake(tmp_path / "lake")
    packets(lake, 1)
    ship(lake, tmp_path / "a")
    packets(lake, 2)
    ship(lake, tmp_path / "b")
    assert books(tmp_path / "b") == books(lake)


def test_ship__only_the_tables_that_are_named(tmp_path: Path) -> None:
    lake, there = tmp_path / "lake", tmp_path / "there"
    write_lake(lake, 1_000, 5, datetime(2026, 11, 24, 12, 30, tzinfo=UTC))
    ship(lake, there, tables=("capture_stats",))
    assert {path.parts[-5] for path in there.rglob("*.parquet")} == {"capture_stats"}


def test_ship__a_damaged_segment_is_said_and_the_others_go(tmp_path: Path) -> None:
    lake, there, said = make_lake(tmp_path / "lake"), tmp_path / "there", list[str]()
    packets(lake, 1)
    (lake / "packets/sensor=s1/date=2026-11-24/hour=12/1795000000000000-9.parquet").write_bytes(b"PAR1 no")
    with Shipper(lake, config(there), said.append) as shipper:
        shipper.round()
        shipper.round()
    assert len(said) == 1
    assert "cannot be read and is not shipped" in said[0]
    assert books(there)["packets"][0] == 3


def test_ship__a_segment_of_a_newer_version_goes_as_it_is(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lake, there = make_lake(tmp_path / "lake"), tmp_path / "there"
    packets(lake, 1)
    path = next((lake / "packets/sensor=s1").rglob("*.parquet"))
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.append_column("color", pa.array(["red"] * 3)), path)
    ship(lake, there)
    copy = next((there / "packets").rglob("*.parquet"))
    assert copy.read_bytes() == path.read_bytes()


def test_retention__the_oldest_go_in_two_steps(tmp_path: Path) -> None:
    lake, there = make_lake(tmp_path / "lake"), tmp_path / "there"
    packets(lake, 1)
    ship(lake, there)
    packets(lake, 2)
    ship(lake, there)
    first, second = sorted(there.glob("packets/*/*/*/*.parquet"))
    now = time.time()
    os.utime(first, (now - 3 * 86_400, now - 3 * 86_400))
    rule = RemoteRetention(Destination(str(there)), config(there, keep_days=2))
    assert len(rule.round(["s1"], "x", now)) == 1
    assert first.exists()
    assert books(there)["packets"][0] == 3  # already out of every new listing
    assert rule.round(["s1"], "x", now + 100) == []
    assert len(rule.round(["s1"], "x", now + 400)) == 1
    assert not first.exists()
    assert second.exists()
    assert not list((there / ".retired").iterdir())
    ship(lake, there)
    assert books(there)["packets"][0] == 3  # what was deleted is not shipped again


def test_retention__by_size_leaves_other_lakes_alone(tmp_path: Path) -> None:
    lake, other, there = make_lake(tmp_path / "lake"), make_lake(tmp_path / "other"), tmp_path / "there"
    packets(lake, 1, sensor="a")
    packets(other, 1, sensor="b")
    ship(lake, there)
    ship(other, there)
    rule = RemoteRetention(Destination(str(there)), config(there, keep_gib=1e-9))
    gone = rule.round(["a"], "x", time.time())
    assert [place.split("/")[1] for place in gone] == ["sensor=a"]


def test_index__a_sensor_with_a_fast_clock_is_found_by_its_own_times(tmp_path: Path) -> None:
    """The modification time of its objects is before their last rows."""
    lake, there = make_lake(tmp_path / "lake"), tmp_path / "there"
    packets(lake, 1)
    packets(lake, 50)
    ship(lake, there)
    path = next(there.glob("packets/*/*/*/*.parquet"))
    start = NOON.replace(tzinfo=UTC).timestamp()
    os.utime(path, (start + 10, start + 10))
    assert [s.path for s in SegmentIndex(there, "packets").within(start + 40, start + 60)] == [str(path)]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://key:secret@bucket/x", "an s3:// URL holds no keys"),
        ("s3://bucket?endpoint=x", "an s3:// URL holds no keys"),
        ("s3://B/x", "needs the name of a bucket"),
        ("s3://bucket/../x", "a prefix has no .."),
        ("https://secret@host/x", "segments cannot go to https://..."),
        ("", "names no place"),
    ],
)
def test_url__what_cannot_be_a_destination(tmp_path: Path, url: str, said: str) -> None:
    lake = make_lake(tmp_path / "lake")
    for words in (("ship", lake, url), ("run", "--ship", url, "--lake", lake, "--no-dashboard", "--iface", "lo")):
        done = engine(*words)
        assert done.returncode == 2
        assert said in done.stderr
        assert "secret" not in done.stderr
        assert "Traceback" not in done.stderr


def test_destination__one_line_for_what_is_wrong(tmp_path: Path) -> None:
    lake, there = make_lake(tmp_path / "lake"), tmp_path / "there"
    packets(lake, 1)
    done = engine("ship", lake, there)
    assert (done.returncode, "there is no such directory" in done.stderr.splitlines()[-1]) == (2, True)
    there.mkdir()
    (there / "lake.json").write_text('{"format": 99}')
    done = engine("ship", lake, there)
    assert (done.returncode, "has format 99" in done.stderr.splitlines()[-1]) == (2, True)
    done = engine("run", "--ship", lake, "--lake", lake, "--no-dashboard", "--iface", "lo")
    assert (done.returncode, "that is the lake itself" in done.stderr.splitlines()[-1]) == (2, True)


def test_fleet__a_row_for_each_sensor_with_its_rate_losses_and_shipping(tmp_path: Path) -> None:
    there = tmp_path / "there"
    for number, sensor in enumerate(("a", "b"), 1):
        lake = make_lake(tmp_path / sensor)
        rows = [
            {"ts": NOON + timedelta(seconds=n), "received": 60 * number, "rows": 60 * number - 1, "interface_drops": 2}
            for n in range(60)
        ]
        segment(lake, "capture_stats", rows, name="1795608000000000-1", sensor=sensor)
        ship(lake, there)
    segment(there, "capture_stats", [{"ts": NOON}], name="1795608000000000-1", sensor="here")
    (state,) = [p for p in (there / ".fleet/lakes").iterdir() if '"a"' in p.read_text()]
    said = json.loads(state.read_text())
    state.write_text(json.dumps(said | {"at": said["at"] + 100, "lost_rows": 7, "problem": "gone"}))
    written = state.stat().st_mtime
    with analytics.connect(there) as con:
        found = con.execute(
            "SELECT sensor, packets_per_s, received, lost, version, not_shipped, problem FROM "
            "fleet_between('2026-11-24', '2026-11-25')"
        ).fetchall()
        assert found == [
            ("a", 60.0, 3600, 180, __version__, 7, "gone"),
            ("b", 120.0, 7200, 180, __version__, 0, None),
            ("here", 0.0, 1, 0, None, None, None),
        ]
        (clock,) = con.execute("SELECT clock_s FROM fleet_between('2026-11-24', NULL) WHERE sensor = 'a'").fetchall()
        assert clock[0] == pytest.approx(said["at"] + 100 - written, abs=0.1)  # 100 s ahead of the store
        assert con.execute("SELECT sensor FROM fleet WHERE lag_s = 0").fetchall() == [
            ("a",),
            ("b",),
        ]  # silent for a day


def test_status__tells_how_shipping_is(tmp_path: Path) -> None:
    lake, there = make_lake(tmp_path / "lake"), tmp_path / "there"
    packets(lake, 1)
    ship(lake, there)
    told = engine("status", "--lake", lake)
    assert f"shipping to {there}: 3 rows" in told.stdout
    assert "waiting: 0 files" in told.stdout
