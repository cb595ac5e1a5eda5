"""Retention: the oldest go, in the declared order, and no reader notices, whenever it is killed."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import analytics
from analytics import retention as module
from analytics.compaction import compact, retain
from analytics.inventory import KINDS, Inventory
from analytics.listing import live_segments
from analytics.merge_jobs import Compactor, Plan
from analytics.retention import AGE, SIZE, SPACE, Retention, Space
from analytics.segments import SegmentIndex
from engine.errors import ConfigError, StoreError
from engine.retention_config import GIB, RetentionConfig, left_settings
from tests.analytics.small_lake import NOON, make_lake, segment
from tests.commands import engine

NOW = time.time() + 1000
DAY = 86_400
ROWS = 5


def aged(lake: Path, table: str, days: float, number: int = 0, at: Any = NOON, **row: Any) -> Path:
    """A segment with ROWS rows, written so many days ago."""
    rows = [
        {"frame_no": number * ROWS + n, "ts": at + timedelta(milliseconds=number * ROWS + n)} | row for n in range(ROWS)
    ]
    path = segment(lake, table, rows, name=f"{number:016d}-{number}", at=at)
    os.utime(path, (NOW - days * DAY,) * 2)
    return path


def ring_file(lake: Path, days: float, size: int, number: int = 0) -> Path:
    path = lake / "frames" / "sensor=s1" / f"{number:019d}-abc{number:06d}.pcap"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (NOW - days * DAY,) * 2)
    return path


def keeper(lake: Path, grace_s: float = 0, said: list[str] | None = None, **limits: Any) -> Retention:
    config = RetentionConfig(**({"min_free_gib": 0.0} | limits))
    return Retention(lake, config, grace_s, (said if said is not None else []).append, lambda: NOW)


def count(lake: Path, table: str = "packets") -> int:
    with analytics.connect(lake, threads=1) as con:
        row = con.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert row is not None
        return int(row[0])


def everything(lake: Path) -> None:
    """One segment of each kind, 10 days old, and a file of the ring."""
    make_lake(lake)
    ring_file(lake, 10, 40_000)
    for tables in KINDS.values():
        for table in tables[:1]:
            path = lake / table / "sensor=s1/date=2026-11-24/hour=12/1-1.parquet"
            path.parent.mkdir(parents=True)
            path.write_bytes(b"x" * 20_000)
            os.utime(path, (NOW - 10 * DAY,) * 2)


def test_kinds__an_age_for_each() -> None:
    config = RetentionConfig()
    ages = [config.days(kind) for kind in KINDS]
    assert ages == sorted(ages)
    assert ages[0] > 0


def test_age__what_is_older_goes_after_the_grace(tmp_path: Path) -> None:
    make_lake(tmp_path)
    old, young = aged(tmp_path, "packets", 31), aged(tmp_path, "packets", 29, 1)
    flows = aged(tmp_path, "flows", 31)
    kept = keeper(tmp_path, grace_s=300)
    [cut] = kept.round()
    os.utime(next((tmp_path / ".retired").iterdir()), (NOW - 299,) * 2)
    kept.finish()
    assert (cut.kind, cut.reason, len(cut.files)) == ("packets", AGE, 1)
    assert old.exists()
    assert count(tmp_path) == ROWS
    assert str(old) not in live_segments(tmp_path, "packets")
    index = SegmentIndex(tmp_path, "packets")
    assert [s.path for s in index.within(0, 1e11)] == [str(young)]
    os.utime(next((tmp_path / ".retired").iterdir()), (NOW - 301,) * 2)
    kept.finish()
    assert not old.exists()
    assert young.exists()
    assert flows.exists()
    assert not kept.waiting
    assert count(tmp_path) == ROWS
    assert kept.round() == []


def test_age__by_writing_not_by_the_packets_clock(tmp_path: Path) -> None:
    make_lake(tmp_path)
    replayed = aged(tmp_path, "packets", 1, at=NOON.replace(year=2001))
    forged = aged(tmp_path, "packets", 31, at=NOON.replace(year=2099))
    keeper(tmp_path).round()
    keeper(tmp_path).finish()
    assert replayed.exists()
    assert not forged.exists()


def test_size__the_oldest_go_until_it_is_kept(tmp_path: Path) -> None:
    make_lake(tmp_path)
    paths = [aged(tmp_path, "packets", 10 - n, n) for n in range(6)]
    size = sum(p.stat().st_blocks * 512 for p in paths)
    kept = keeper(tmp_path, packets_gib=size / 2 / GIB + 1e-9)
    [cut] = kept.round()
    kept.finish()
    assert cut.reason == SIZE
    assert [p.exists() for p in paths] == [False] * 3 + [True] * 3
    assert count(tmp_path) == 3 * ROWS


def test_size__across_the_tables_of_a_kind(tmp_path: Path) -> None:
    make_lake(tmp_path)
    old, new = aged(tmp_path, "addresses", 9, ip="10.0.0.1"), aged(tmp_path, "flows", 1)
    kept = keeper(tmp_path, flows_gib=new.stat().st_blocks * 512 / GIB)
    kept.round()
    kept.finish()
    assert not old.exists()
    assert new.exists()


def short_by(monkeypatch: pytest.MonkeyPatch, missing: int) -> None:
    """As on a disk where so many bytes are missing now (without filling one: `test_disk_full` does)."""
    monkeypatch.setattr(Retention, "space", property(lambda _: Space(1 << 40, 1 << 30, (1 << 30) + missing)))


def test_space__frames_first_alerts_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(tmp_path)
    sizes = {kind: sum(h.size for h in Inventory(tmp_path).of(kind)) for kind in KINDS}
    assert all(sizes.values())
    missing, expected = 0, []
    for kind, size in sizes.items():
        short_by(monkeypatch, missing + 1)
        expected.append(kind)
        plan = keeper(tmp_path).plan()
        assert [(cut.kind, cut.reason) for cut in plan] == [(k, SPACE) for k in expected]
        missing += size


def test_space__what_waits_for_its_deletion_counts_as_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_lake(tmp_path)
    for n in range(4):
        aged(tmp_path, "packets", 10 - n, n)
    short_by(monkeypatch, 1)
    kept = keeper(tmp_path, grace_s=3000)
    assert [len(cut.files) for cut in kept.round()] == [1]
    assert kept.round() == []
    assert count(tmp_path) == 3 * ROWS


def test_space__acute_shortens_the_grace_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_lake(tmp_path)
    path = aged(tmp_path, "packets", 1)
    monkeypatch.setattr(Retention, "space", property(lambda _: Space(1 << 40, 1, 1 << 30)))
    said: list[str] = []
    kept = Retention(tmp_path, RetentionConfig(), 300, said.append)
    kept.round()
    assert path.exists()
    for note in (tmp_path / ".retired").iterdir():
        os.utime(note, (time.time() - module.ACUTE_GRACE_S,) * 2)
    kept.round()
    assert not path.exists()
    assert sum("nearly full" in line for line in said) == 1


def test_kept__what_operators_said_and_the_empty_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_lake(tmp_path)
    mute = tmp_path / "alert_events/sensor=operator/date=2026-11-24/hour=12/1-1.parquet"
    mute.parent.mkdir(parents=True)
    mute.write_bytes(b"x" * 5000)
    os.utime(mute, (0, 0))
    short_by(monkeypatch, 1 << 40)
    assert keeper(tmp_path, alerts_days=1.0).plan() == []


def test_clock__set_back_begins_the_grace_anew(tmp_path: Path) -> None:
    make_lake(tmp_path)
    path = aged(tmp_path, "packets", 40)
    kept = keeper(tmp_path, grace_s=300)
    kept.round()
    [note] = (tmp_path / ".retired").iterdir()
    os.utime(note, (NOW + DAY,) * 2)
    kept.finish()
    assert path.exists()
    assert note.stat().st_mtime == pytest.approx(NOW)


def test_off__deletes_nothing_but_finishes_what_was_begun(tmp_path: Path) -> None:
    make_lake(tmp_path)
    first = aged(tmp_path, "packets", 40)
    keeper(tmp_path).round()
    second = aged(tmp_path, "packets", 40, 1)
    for note in (tmp_path / ".retired").iterdir():
        os.utime(note, (NOW - 1,) * 2)
    keeper(tmp_path, enabled=False).round()
    assert not first.exists()
    assert second.exists()


def test_compact__finishes_what_was_begun(tmp_path: Path) -> None:
    make_lake(tmp_path)
    first = aged(tmp_path, "packets", 40)
    keeper(tmp_path, grace_s=3000).round()
    second = aged(tmp_path, "packets", 40, 1)
    compact(tmp_path, Plan(grace_s=0), print)
    assert not first.exists()
    assert second.exists()
    assert count(tmp_path) == ROWS


def test_undeletable__is_one_error_and_no_endless_wait(tmp_path: Path) -> None:
    make_lake(tmp_path)
    path = aged(tmp_path, "packets", 0)
    os.utime(path, (time.time() - 40 * DAY,) * 2)
    hindrance = path.parent / "9-9.parquet"
    hindrance.mkdir()
    keeper(tmp_path).round()
    [note] = (tmp_path / ".retired").iterdir()
    note.write_text(json.dumps([str(hindrance.relative_to(tmp_path / "packets"))]))
    with pytest.raises(StoreError, match="9-9"):
        retain(tmp_path, RetentionConfig(), 0, lambda _: None)
    compact(tmp_path, Plan(grace_s=0), lambda _: None)


def test_directories__of_hours_long_over_go_when_empty(tmp_path: Path) -> None:
    make_lake(tmp_path)
    path = aged(tmp_path, "packets", 40)
    busy = aged(tmp_path, "flows", 400)
    unfinished = busy.with_name("1-1.parquet.inprogress")
    unfinished.write_bytes(b"half")
    kept = keeper(tmp_path)
    kept.round()
    kept.finish()
    assert not path.parent.parent.exists()
    assert path.parent.parent.parent.exists()
    assert unfinished.exists()


def test_merging__neither_disturbs_the_other(tmp_path: Path) -> None:
    make_lake(tmp_path)
    for n in range(4):
        aged(tmp_path, "packets", 40 + n, n)
    plan = Plan(older_s=0, grace_s=0, least=2)
    with Compactor(tmp_path, plan, print, lambda: NOW) as compactor:
        assert compactor.begin() == 1
        assert keeper(tmp_path).plan() == []
        while compactor.advance():
            assert count(tmp_path) == 4 * ROWS
        aged(tmp_path, "packets", 1, 5)
        aged(tmp_path, "packets", 1, 6)
        kept = keeper(tmp_path, grace_s=300)
        assert [len(cut.files) for cut in kept.round()] == [1]  # the merged one, as old as its youngest part
        assert compactor.begin() == 0
        assert count(tmp_path) == 2 * ROWS


@pytest.mark.parametrize(
    "text", ["", "{", "7", "[1]", '["../../../../victim"]', '["{victim}"]', '["//{victim}"]', '{"a": 1}']
)
def test_note__damaged_harms_nothing(tmp_path: Path, text: str) -> None:
    lake = make_lake(tmp_path / "lake")
    (tmp_path / "victim").write_text("mine")
    aged(lake, "packets", 1)
    (lake / ".retired").mkdir()
    note = lake / ".retired" / "packets@1"
    note.write_text(text.replace("{victim}", str(tmp_path / "victim")))
    os.utime(note, (NOW - 1000,) * 2)
    assert count(lake) == ROWS
    keeper(lake).round()
    assert not note.exists()
    assert (tmp_path / "victim").read_text() == "mine"
    assert count(lake) == ROWS


def test_disk_full__to_the_last_block_is_helped(tmp_path: Path) -> None:
    """A real file system, where not even a note can be written."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk]).returncode:
        pytest.skip("needs root to mount a small file system")
    try:
        make_lake(disk)
        old = [aged(disk, "packets", 10 - n, n) for n in range(6)]
        segment(disk, "flows", [{}] * ROWS)
        with contextlib.suppress(OSError), open(disk / "foreign", "wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        said: list[str] = []
        wanted = old[0].stat().st_blocks * 512 + 1
        kept = Retention(disk, RetentionConfig(min_free_percent=100 * wanted / (4 << 20)), 300, said.append)
        assert kept.space.free == 0
        kept.round()
        assert any("the disk is full" in line for line in said)
        assert [p.exists() for p in old] == [False, False, True, True, True, True]
        assert kept.space.free >= wanted
        assert kept.round() == []
        assert (count(disk), count(disk, "flows")) == (4 * ROWS, ROWS)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


# --- readers while it runs, and while it is killed -------------------------------------------------------------------
GRACE_S = 1.0
SHAPE = "count(*), count(DISTINCT frame_no), min(frame_no), max(frame_no)"


def read_in_a_loop(lake: str, slowly: bool, stop: Any, started: Any, result: Any) -> None:
    """Count; rows must be whole segments, the newest without a gap. A slow reader opens late what it has listed."""
    queries, wrong = 0, list[str]()
    with analytics.connect(lake, threads=1) as con:
        while not stop.is_set():
            began = time.monotonic()
            try:
                if slowly:
                    paths = live_segments(Path(lake), "packets")
                    time.sleep(GRACE_S / 3)
                    row = con.execute(f"SELECT {SHAPE} FROM read_parquet($paths)", {"paths": paths}).fetchone()
                else:
                    row = con.execute(f"SELECT {SHAPE} FROM packets").fetchone()
                    time.sleep(0.01)
            except Exception as error:  # noqa: BLE001 — whatever a reader sees is what is tested
                if time.monotonic() - began < GRACE_S:  # else the machine was too slow for what is promised
                    wrong.append(str(error))
                continue
            queries += 1
            started.set()
            rows, distinct, first, last = row or (0, 0, 0, 0)
            if rows != distinct or rows % ROWS or (rows and rows != last - first + 1):
                wrong.append(str(row))
    result.put((queries, wrong[:5]))


KILLED = """
import sys, time
from pathlib import Path
from analytics.merge_jobs import Compactor, Plan
from analytics.retention import Retention
from engine.retention_config import RetentionConfig, GIB
config = RetentionConfig(min_free_gib=0.0, packets_gib=float(sys.argv[2]) / GIB)
lake = Path(sys.argv[1])
print("loaded", flush=True)
with Compactor(lake, Plan(older_s=0, grace_s=1.0, least=4, target_bytes=40_000), print) as c:
    r = Retention(lake, config, 1.0, lambda text: print(text, file=sys.stderr))
    print("go", flush=True)
    while True:
        r.round()
        c.advance()
        c.begin(most=2)
        print("round", flush=True)
        time.sleep(0.01)
"""


def kill_at_random(lake: Path, kills: int, seed: int) -> tuple[int, int]:
    """Kill retention and merging so often while two readers count. Returns queries, and segments ever written."""
    make_lake(lake)
    choose, number = random.Random(seed), 0
    context = multiprocessing.get_context("spawn")
    stop, started, result = context.Event(), context.Event(), context.Queue()

    def more(n: int) -> None:
        nonlocal number
        for _ in range(n):
            hour = NOON + timedelta(hours=number // 12)
            rows = [{"frame_no": number * ROWS + i, "ts": hour} for i in range(ROWS)]
            segment(lake, "packets", rows, name=f"{number:016d}-{number}", at=hour)
            number += 1
            time.sleep(0.005)  # the clock of the file system is coarse, and the order goes by it

    more(30)
    size = sum(p.stat().st_blocks * 512 for p in (lake / "packets" / "sensor=s1").rglob("*.parquet"))
    readers = [
        context.Process(target=read_in_a_loop, args=(str(lake), slowly, stop, started, result))
        for slowly in (False, True)
    ]
    for reader in readers:
        reader.start()
    try:
        assert started.wait(60)
        done = 0
        # One interpreter, forked at each turn: starting one costs a hundred times what is tested.
        while done < kills:
            process = subprocess.Popen([sys.executable, "-c", FORKING, KILLED, str(lake), str(size)],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            for _ in range(kills - done):
                process.stdin.write(f"{choose.uniform(0.005, 0.2)}\n")
                process.stdin.flush()
                more(choose.randrange(0, 4))
                assert process.stdout.readline() == "killed\n"
                done += 1
            process.stdin.close()
            assert process.wait(10) == 0
            process.stdout.close()
    finally:
        stop.set()
    queries = 0
    for _ in readers:
        n, wrong = result.get(timeout=60)
        queries += n
        assert wrong == []
    for reader in readers:
        reader.join(60)
    time.sleep(GRACE_S)
    with Compactor(lake, Plan(older_s=0, grace_s=0, least=2), print) as compactor:
        while compactor.advance():
            pass
        kept = Retention(lake, RetentionConfig(enabled=False), 0, print)
        kept.finish()
        assert not kept.waiting
    return queries, number


FORKING = """
import os, signal, sys, time
from analytics.merge_jobs import Compactor, Plan
from analytics.merging import merge
from analytics.retention import Retention
code = compile(sys.argv[1], "killed", "exec")
sys.argv = ["killed", *sys.argv[2:]]
print("ready", flush=True)
for line in sys.stdin:
    ear, mouth = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(mouth, 1)
        exec(code, {"__name__": "killed"})
    os.close(mouth)
    text = b""
    while b"go" not in text:
        got = os.read(ear, 100)
        assert got, "it ended by itself"
        text += got
    time.sleep(float(line))
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    os.close(ear)
    print("killed", flush=True)
"""


def test_kill__no_reader_sees_an_error_and_the_books_balance(tmp_path: Path) -> None:
    queries, written = kill_at_random(tmp_path, int(os.environ.get("PACKETLAKE_KILLS", "60")), seed=7)
    with analytics.connect(tmp_path, threads=1) as con:
        row = con.execute(
            "SELECT count(*), count(DISTINCT frame_no), min(frame_no), max(frame_no) FROM packets"
        ).fetchone()
    assert row is not None
    rows, distinct, first, last = row
    assert rows == distinct == last - first + 1
    assert last == written * ROWS - 1  # the newest are all there,
    assert first > 0  # and the oldest went
    assert not list((tmp_path / "packets").rglob("*.inprogress"))
    assert queries > 50


# --- commands --------------------------------------------------------------------------------------------------------
def test_retain__dry_run_and_real(tmp_path: Path) -> None:
    make_lake(tmp_path)
    path = aged(tmp_path, "packets", 0)
    os.utime(path, (time.time() - 40 * DAY,) * 2)
    other = ["--lake", str(tmp_path), "--grace", "0"]
    assert engine("retain", "--dry-run", *other).stdout.startswith("packets: 1 files")
    assert path.exists()
    settings = tmp_path / ".settings" / "running.toml"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text("[retention]\npackets_days = 50.0\n")
    assert (
        engine("retain", *other).stdout == "nothing is beyond the limits\n"
    )  # what the engine keeps, the command does
    config = tmp_path / "c.toml"
    config.write_text("[retention]\npackets_days = 35\n")
    with Compactor(tmp_path, Plan(), print):
        refused = engine("retain", "--config", config, *other)
        assert refused.returncode == 2
        assert "another process" in refused.stderr.splitlines()[-1]
    assert path.exists()
    assert engine("retain", "--config", config, *other).stdout.startswith("packets: 1 files")
    assert not path.exists()


@pytest.mark.parametrize(
    "text", ["packets_days = -1.0", "packets_gib = nan", "min_free_percent = 91.0", "flows_days = inf", "nothing = 1"]
)
def test_settings__refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / ".settings").mkdir()
    (tmp_path / ".settings" / "running.toml").write_text(f"[retention]\n{text}\n")
    with pytest.raises(ConfigError, match=text.partition(" ")[0]):
        left_settings(tmp_path)


def test_main__a_process_beside_the_engine(tmp_path: Path) -> None:
    make_lake(tmp_path)
    path = aged(tmp_path, "packets", 0)
    os.utime(path, (time.time() - 40 * DAY,) * 2)
    given = json.dumps({"packets_days": 30.0, "min_free_gib": 0.0})
    process = subprocess.Popen(
        [sys.executable, "-m", "analytics.compaction", "--lake", str(tmp_path), "--every", "1", "--retention", given],
        stdin=subprocess.DEVNULL,
    )
    try:
        deadline, state = time.monotonic() + 30, tmp_path / ".settings" / "upkeep.json"
        while not state.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        found = json.loads(state.read_text())
        assert found["deleted"]["packets"][0] == 1
        assert found["pid"] == process.pid
        assert count(tmp_path) == 0
        assert path.exists()  # a query may still read it
        recent = aged(tmp_path, "packets", 0, 1)
        os.utime(recent, (time.time() - 20 * DAY,) * 2)
        (tmp_path / ".settings" / "running.toml").write_text("[retention]\npackets_days = 10.0\nmin_free_gib = 0.0\n")
        while json.loads(state.read_text())["deleted"]["packets"][0] == 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert count(tmp_path) == 0
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
