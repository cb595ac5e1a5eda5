"""Merging of segments: nothing is lost, nothing comes twice, whoever looks and whenever it is killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import analytics
from analytics.compaction import compact
from analytics.listing import live_segments
from analytics.merge_jobs import Compactor, Done, Plan
from engine.config import LakeConfig
from engine.errors import StoreError
from engine.tables import arrow_schema
from engine.writer import TableWriter, init_lake, run_name
from tests.analytics.small_lake import NOON, make_lake, segment
from tests.lakes import packets_table, write_segment

AT_ONCE = Plan(older_s=0, grace_s=0, least=2)
HOURS = 8
FOLDER = "packets/sensor=s1/date=2026-11-24/hour=12"


def later() -> float:
    """A clock by which every hour of the tests is over."""
    return datetime(2027, 1, 1, tzinfo=UTC).timestamp()


def many(lake: Path, count: int = 20, rows: int = 5, first: int = 0, at: datetime = NOON) -> None:
    hour = at
    for i in range(first, first + count):
        at = hour + timedelta(seconds=i)
        start = int(at.replace(tzinfo=UTC).timestamp() * 1_000_000)
        packets = [
            {"ts": at + timedelta(milliseconds=n), "frame_no": i * rows + n, "src_ip": f"10.0.{i}.{n}"}
            for n in range(rows)
        ]
        segment(lake, "packets", packets, name=f"{start:016d}-{i}", at=hour)


def run(lake: Path, plan: Plan = AT_ONCE) -> Done:
    said: list[str] = []
    with Compactor(lake, plan, said.append, later) as compactor:
        compactor.begin()
        while compactor.advance():
            pass
        assert said == []
        return compactor.done


def counts(lake: Path) -> tuple[int, int]:
    with analytics.connect(lake, threads=1) as con:
        row = con.execute("SELECT count(*), count(DISTINCT (source, frame_no)) FROM packets").fetchone()
        assert row is not None
        return row


def test_merge__one_file_sorted_and_equal(tmp_path: Path) -> None:
    many(make_lake(tmp_path))
    segment(tmp_path, "packets", [{"ts": NOON + timedelta(seconds=2.5), "frame_no": 1000}], name="1-late")
    with analytics.connect(tmp_path) as con:
        before = con.execute("SELECT * FROM packets ORDER BY ts, frame_no").fetchall()
    done = run(tmp_path)
    assert (done.segments, done.merged, done.rows) == (21, 1, 101)
    (name,) = os.listdir(tmp_path / FOLDER)
    assert name.startswith("1-m21-")
    with analytics.connect(tmp_path) as con:
        assert con.execute("SELECT * FROM packets").fetchall() == before
    assert pq.read_table(tmp_path / FOLDER / name, partitioning=None)["ts"].to_pylist() == [row[0] for row in before]
    assert os.listdir(tmp_path / ".merging") == ["lock"]
    assert run(tmp_path).merged == 0


def test_merge__leaves_alone_what_is_large_new_or_strange(tmp_path: Path) -> None:
    many(make_lake(tmp_path), 3)
    many(tmp_path, 1, rows=3000, first=3)
    strange = pa.table({"ts": pa.array([NOON], pa.timestamp("us")), "from_the_future": [1]})
    pq.write_table(strange, tmp_path / FOLDER / "5-strange.parquet")
    (tmp_path / FOLDER / "6-damaged.parquet").write_bytes(b"PAR1 no")
    (tmp_path / FOLDER / "7-7.parquet.inprogress").write_bytes(b"half")
    large = Plan(older_s=0, grace_s=0, least=2, small_bytes=20_000)
    assert run(tmp_path, large).segments == 3
    names = os.listdir(tmp_path / FOLDER)
    assert len(names) == 5
    assert {"5-strange.parquet", "6-damaged.parquet", "7-7.parquet.inprogress"} < set(names)
    with Compactor(tmp_path, Plan(older_s=3600, grace_s=0, least=2), print) as young:
        assert young.begin() == 0


def test_merge__the_current_hour_only_when_it_has_many(tmp_path: Path) -> None:
    many(make_lake(tmp_path), 20)
    noon = NOON.replace(tzinfo=UTC).timestamp()
    within = noon + 1800
    for path in (tmp_path / FOLDER).iterdir():
        os.utime(path, (noon, noon))

    def begun(least: int) -> int:
        plan = Plan(older_s=600, grace_s=0, least=least)
        with Compactor(tmp_path, plan, print, lambda: within) as compactor:
            return compactor.begin()

    assert begun(21) == 0
    assert begun(20) == 1


def test_merge__files_of_about_the_size_asked_for(tmp_path: Path) -> None:
    many(make_lake(tmp_path), 20)
    size = sum(p.stat().st_size for p in (tmp_path / FOLDER).iterdir())
    done = run(tmp_path, Plan(older_s=0, grace_s=0, least=2, target_bytes=size // 4))
    assert 4 <= done.merged <= 6
    assert counts(tmp_path) == (100, 100)


def test_merge__segments_of_an_older_version_get_null(tmp_path: Path) -> None:
    segment(make_lake(tmp_path), "packets", [{"ttl": 1}], name="1-0")
    segment(tmp_path, "packets", [{}], name="2-0", without=("ttl", "entropy"))
    assert run(tmp_path).rows == 2
    with analytics.connect(tmp_path) as con:
        assert con.execute("SELECT ttl FROM packets").fetchall() == [(1,), (None,)]


def test_merge__row_groups_are_large_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analytics.merging.GROUP_ROWS", 300)
    monkeypatch.setattr("analytics.merging.HELD_ROWS", 600)
    table = packets_table(5000, 60, datetime(2026, 11, 24, 12, 30, tzinfo=UTC))
    make_lake(tmp_path)
    for i in range(50):  # each overlaps the next
        own, ahead = range(0 if i == 0 else i * 100, i * 100 + 100), range(i * 100 + 190, min(5000, i * 100 + 200))
        rows = {n for n in own if i == 0 or n % 100 < 90} | set(ahead)
        part = table.take(pa.array(sorted(rows)))
        write_segment(tmp_path, "packets", part, i, sensor="s1")
    run(tmp_path)
    (path,) = (tmp_path / FOLDER).iterdir()
    metadata = pq.read_metadata(path)
    assert metadata.num_rows == 5000
    ts = pq.read_table(path, partitioning=None)["ts"]
    assert ts.to_pylist() == table["ts"].to_pylist()
    assert metadata.num_row_groups <= 5000 / 300 + 2


def test_merge__rollups_are_added_up(tmp_path: Path) -> None:
    make_lake(tmp_path)
    second = {"packets": 1, "bytes": 60, "payload": 1, "fragments": 0, "undecodable": 1, "syns": 1, "proto": 6}
    for i in range(6):
        segment(tmp_path, "rollup_1s", [second, second | {"app": "dns"}], name=f"{i}-0")
        segment(tmp_path, "rollup_1m", [
            *({"dimension": "src_ip", "key": f"10.0.{i % 2}.{n}", "keys": 1, "packets": 1, "bytes": 100 + n + i}
              for n in range(80)),
            {"dimension": "src_ip", "key": None, "keys": 30, "packets": 30, "bytes": 300},
            {"dimension": "src_ip", "key": None, "keys": 0, "packets": 7, "bytes": 70},
        ], name=f"{i}-0")  # fmt: skip
    sums = "SELECT sum(packets), sum(bytes) FROM rollup_1m UNION ALL SELECT sum(packets), sum(bytes) FROM rollup_1s"
    with analytics.connect(tmp_path) as con:
        before = con.execute(sums).fetchall()
        run(tmp_path)
        assert con.execute(sums).fetchall() == before
        assert con.execute("SELECT app, packets, syns FROM rollup_1s").fetchall() == [("dns", 6, 6), (None, 6, 6)]
        rows = con.execute("SELECT key, keys, packets FROM rollup_1m ORDER BY key NULLS LAST, keys").fetchall()
    assert len(rows) == 102
    assert {keys for key, keys, _ in rows if key is not None} == {1}
    assert [row[1:] for row in rows[-2:]] == [(0, 42), (30 + 60, 180 + 60 * 3)]


def test_begin__a_writer_goes_on_in_the_directory(tmp_path: Path) -> None:
    """Segments begun before the swap, published after; and both before and after."""
    init_lake(tmp_path)
    config = LakeConfig(sensor="s1")
    writer = TableWriter(tmp_path, "packets", config, run_name())
    table = packets_table(4000, 60, datetime(2026, 11, 24, 12, 30, tzinfo=UTC))
    batches = [b.cast(arrow_schema("packets")) for b in table.to_batches(1000)]

    def write(batch: pa.RecordBatch, publish: bool = True) -> None:
        writer.append(batch)
        if publish:
            writer.publish()

    write(batches[0].slice(0, 500))
    write(batches[0].slice(500))
    with Compactor(tmp_path, AT_ONCE, print, later) as compactor:
        assert compactor.begin() == 1
        write(batches[1])
        write(batches[2].slice(0, 400), publish=False)
        assert counts(tmp_path)[0] == 2000
        compactor.advance()  # the swap
        assert counts(tmp_path)[0] == 2000
        write(batches[2].slice(400))
        write(batches[3])
        assert counts(tmp_path)[0] == 4000
        while compactor.advance():
            pass
    assert counts(tmp_path)[0] == 4000
    assert not list(tmp_path.rglob("*.inprogress"))
    assert run(tmp_path).rows == 4000


def test_lock__one_process_at_a_time(tmp_path: Path) -> None:
    make_lake(tmp_path)
    with Compactor(tmp_path, AT_ONCE, print), pytest.raises(StoreError, match="another process"):
        compact(tmp_path, AT_ONCE, print)


def test_unsupported__is_said_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr("analytics.merge_jobs.exchange", refuse)
    many(make_lake(tmp_path))
    said: list[str] = []
    with Compactor(tmp_path, AT_ONCE, said.append, later) as compactor:
        assert compactor.begin() == 1
        while compactor.advance():
            assert counts(tmp_path) == (100, 100)
        assert compactor.begin() == 0
    assert len(said) == 1
    assert counts(tmp_path) == (100, 100)
    assert len(os.listdir(tmp_path / FOLDER)) == 20


def test_deleted__by_the_operator_stays_deleted(tmp_path: Path) -> None:
    many(make_lake(tmp_path))
    with Compactor(tmp_path, AT_ONCE, lambda _: None, later) as compactor:
        compactor.begin()
        for path in (tmp_path / FOLDER).iterdir():
            path.unlink()
        (tmp_path / FOLDER).rmdir()
        assert counts(tmp_path) == (0, 0)
        while compactor.advance():
            pass
    assert counts(tmp_path) == (0, 0)


# --- readers while it runs -------------------------------------------------------------------------------------------
def _count_in_a_loop(lake: str, stop: Any, started: Any, result: Any) -> None:
    queries, wrong = 0, []
    with analytics.connect(lake, threads=1) as con:
        while not stop.is_set():
            row = con.execute("SELECT count(*), count(DISTINCT (source, frame_no)) FROM packets").fetchone()
            queries += 1
            started.set()
            if row != (20 * HOURS, 20 * HOURS):
                wrong.append(row)
    result.put((queries, wrong))


def test_readers__never_see_rows_twice_or_not_at_all(tmp_path: Path) -> None:
    """Readers count all the time while directories are merged one after the other."""
    make_lake(tmp_path)
    for hour in range(HOURS):
        many(tmp_path, 10, rows=2, first=10 * hour, at=NOON.replace(hour=hour))
    context = multiprocessing.get_context("spawn")
    stop, started, result = context.Event(), context.Event(), context.Queue()
    readers = [context.Process(target=_count_in_a_loop, args=(str(tmp_path), stop, started, result)) for _ in range(2)]
    for reader in readers:
        reader.start()
    assert started.wait(60)
    with Compactor(tmp_path, Plan(older_s=0, grace_s=1.0, least=2), print) as compactor:
        while compactor.begin(most=1):
            time.sleep(0.1)
            compactor.advance()
        while compactor.advance():
            time.sleep(0.01)
    stop.set()
    total = 0
    for _ in readers:
        queries, wrong = result.get(timeout=60)
        total += queries
        assert wrong == []
    for reader in readers:
        reader.join(60)
        assert reader.exitcode == 0
    assert len([p for p in tmp_path.rglob("*-m10-*.parquet") if ".merging" not in str(p)]) == HOURS
    assert total > 50


KILLED = """
import sys, time
from pathlib import Path
from analytics.merge_jobs import Compactor, Plan
with Compactor(Path(sys.argv[1]), Plan(older_s=0, grace_s=0.02, least=2, target_bytes=20_000), print) as c:
    print("go", flush=True)
    c.begin()
    while c.advance():
        time.sleep(0.002)
"""


def test_kill__at_random_moments_leaves_the_lake_right(tmp_path: Path) -> None:
    many(make_lake(tmp_path))
    expected, kills = 100, 0
    choose = random.Random(1)
    for attempt in range(25):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(choose.uniform(0, 0.25))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.stdout.close()
        assert counts(tmp_path) == (expected, expected)
        if attempt % 3 == 0:
            many(tmp_path, 3, first=20 + attempt)
            expected += 15
    assert kills >= 8
    time.sleep(0.05)
    compact(tmp_path, Plan(older_s=0, grace_s=0.02, least=2), print)
    assert counts(tmp_path) == (expected, expected)
    assert os.listdir(tmp_path / ".merging") == ["lock"]
    assert live_segments(tmp_path, "packets")[-1].startswith(str(tmp_path / FOLDER))


# --- in a process of its own ----------------------------------------------------------------------------------------
APART = """
import sys
from pathlib import Path
from analytics.merge_jobs import Compactor, Plan
def merger():
    return Compactor(Path(sys.argv[1]), Plan(older_s=0, grace_s=0, least=2), print, lambda: 1.8e9)
with merger() as c:
    print(c.begin_apart(1), c.done.segments, len(c.jobs), c.begin_apart(1), c.done.segments, "duckdb" in sys.modules)
"""


def test_apart__the_same_and_nothing_stays(tmp_path: Path) -> None:
    many(make_lake(tmp_path))
    sums = dict.fromkeys(("packets", "bytes", "payload", "fragments", "undecodable", "syns"), 1)
    for name in ("1-1", "2-2"):
        segment(tmp_path, "rollup_1s", [{"ts": NOON, "source": "eth0", **sums}], name=name)
    done = subprocess.run([sys.executable, "-c", APART, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "20", "1", "1", "22", "False"]
    assert run(tmp_path).merged == 0
    assert counts(tmp_path) == (100, 100)


def test_apart__killed_it_is_one_line_and_the_next_round_does_it(tmp_path: Path) -> None:
    many(make_lake(tmp_path))
    (tmp_path / FOLDER / "8-pipe.parquet").symlink_to(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe")  # reading it waits for ever: time to kill whoever does
    with Compactor(tmp_path, AT_ONCE, print, later) as compactor:
        killer = threading.Thread(target=_kill_next_child, args=(_children(),))
        killer.start()
        with pytest.raises(StoreError, match=r"merging was killed by signal 9; trying again later$"):
            compactor.begin_apart(1)
        killer.join()
    (tmp_path / FOLDER / "8-pipe.parquet").unlink()
    with Compactor(tmp_path, AT_ONCE, print, later) as compactor:
        assert compactor.begin_apart(1) == 1
        while compactor.advance():
            pass
        assert compactor.done.segments == 20
    assert counts(tmp_path) == (100, 100)


def test_apart__told_to_end_it_leaves_no_answer_and_that_is_one_line(tmp_path: Path) -> None:
    class Ended(Compactor):
        def begin(self, most: int = 1) -> int:
            os._exit(0)  # what `main` does on SIGTERM

    make_lake(tmp_path)
    with Ended(tmp_path, AT_ONCE, print) as compactor, pytest.raises(StoreError, match="merging failed; trying again"):
        compactor.begin_apart(1)


def _children() -> set[str]:
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())


def _kill_next_child(before: set[str]) -> None:
    """Kill the first child that is not one of those, when it has begun to read."""
    for _ in range(600):
        time.sleep(0.05)
        for child in _children() - before:
            time.sleep(0.3)
            os.kill(int(child), signal.SIGKILL)
            return


# --- the commands ----------------------------------------------------------------------------------------------------
def test_main__stops_with_its_parent(tmp_path: Path) -> None:
    make_lake(tmp_path)
    code = (
        "import subprocess, sys, os, time\n"
        "p = subprocess.Popen([sys.executable, '-m', 'analytics.compaction', '--lake', sys.argv[1], '--with-parent',"
        " str(os.getpid())])\nprint(p.pid, flush=True)\ntime.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    deadline = time.monotonic() + 30
    while not (tmp_path / ".merging" / "lock").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert os.sched_getscheduler(child) == os.SCHED_IDLE
    parent.kill()
    parent.wait()
    parent.stdout.close()
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()
