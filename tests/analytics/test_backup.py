"""Backups: of a lake in use, complete or refused, again only what is new, and back as it was."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

import analytics
from analytics import backup as backups
from analytics.backup import FOLDER, MANIFEST, backup, restore
from analytics.merge_jobs import Compactor, Plan
from engine.errors import ConfigError, StoreError
from tests.analytics.small_lake import NOON, make_lake, segment
from tests.commands import ROOT, engine

ROWS = 5


def many(lake: Path, count: int, first: int = 0) -> None:
    for n in range(first, first + count):
        rows = [{"frame_no": n * ROWS + i, "src_ip": f"10.0.0.{n % 250}"} for i in range(ROWS)]
        segment(lake, "packets", rows, name=f"{n:016d}-0", at=NOON + timedelta(hours=n % 3))


def count(lake: Path) -> tuple[int, int]:
    with analytics.connect(lake, threads=1) as con:
        row = con.execute("SELECT count(*), count(DISTINCT frame_no) FROM packets").fetchone()
        assert row is not None
        return row[0], row[1]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    lake = make_lake(tmp_path / "lake")
    many(lake, 12)
    (lake / "frames" / "sensor=s1").mkdir(parents=True)
    (lake / "frames" / "sensor=s1" / "1-1.pcap").write_bytes(b"raw frames")
    (lake / ".settings").mkdir(mode=0o700)
    (lake / ".settings" / "engine.toml").write_text("# secret\n")
    (lake / ".settings" / "engine.toml").chmod(0o600)
    for name in (".engines", ".notify", ".merging"):
        (lake / name).mkdir(exist_ok=True)
        (lake / name / "now").write_text("of a process")
    return lake


def tree(lake: Path) -> dict[str, tuple[bytes, int, int]]:
    paths = [p for p in lake.rglob("*") if p.is_file()]
    return {str(p.relative_to(lake)): (p.read_bytes(), p.stat().st_mode, p.stat().st_mtime_ns) for p in paths}


def test_backup__is_a_lake_and_comes_back_as_it_was(lake: Path, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    done = backup(lake, target)
    expected = {p: f for p, f in tree(lake).items() if p.split("/")[0] not in (".engines", ".notify", ".merging")}
    assert done.files == len(expected)
    assert {p: f for p, f in tree(target).items() if not p.startswith(FOLDER)} == expected
    assert count(target) == (60, 60)
    assert (target / ".settings").stat().st_mode & 0o777 == 0o700
    back = tmp_path / "back"
    assert restore(target, back).damaged == ()
    assert tree(back) == expected
    assert count(back) == (60, 60)


def test_again__copies_what_is_new_and_forgets_what_has_gone(lake: Path, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    files = backup(lake, target).files
    many(lake, 2, first=12)
    next((lake / "packets" / "sensor=s1").rglob("*0000-0.parquet")).unlink()
    (lake / "frames" / "sensor=s1" / "1-1.pcap").write_bytes(b"raw frames and more")
    done = backup(lake, target)
    assert (done.files, done.kept, done.removed) == (3, files - 2, 1)
    assert count(target) == (65, 65)
    back = tmp_path / "back"
    assert restore(target, back).damaged == ()
    assert (back / "frames" / "sensor=s1" / "1-1.pcap").read_bytes() == b"raw frames and more"
    done = backup(lake, tmp_path / "small", frames=False)
    assert not (tmp_path / "small" / "frames").exists()


def test_merge__that_is_open_gives_every_row_once(lake: Path, tmp_path: Path) -> None:
    now = time.time()
    with Compactor(lake, Plan(older_s=0, grace_s=5, least=2), print, lambda: now) as compactor:
        assert compactor.begin()
        backup(lake, tmp_path / "open")
        now += 6
        compactor.advance()
        backup(lake, tmp_path / "swapped")
    assert count(tmp_path / "open") == count(tmp_path / "swapped") == (60, 60)
    assert len(list((tmp_path / "swapped" / "packets" / "sensor=s1").rglob("*.parquet"))) == 3


def test_in_use__what_merges_and_writes_meanwhile_is_no_trouble(lake: Path, tmp_path: Path) -> None:
    """Each backup holds the rows of one moment: at least those of before, at most those of after, none twice."""
    stop = threading.Event()

    def work() -> None:
        first = 12
        with Compactor(lake, Plan(older_s=0, grace_s=0.05, least=2), print) as compactor:
            while not stop.is_set():
                many(lake, 4, first=first)
                first += 4
                compactor.begin()
                compactor.advance()
                time.sleep(0.01)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(6):
            least = count(lake)[0]
            backup(lake, tmp_path / "backup")
            rows, distinct = count(tmp_path / "backup")
            assert rows == distinct
            assert least <= rows <= count(lake)[0]
    finally:
        stop.set()
        worker.join()


def test_kill__an_incomplete_backup_is_refused_and_the_next_one_completes_it(lake: Path, tmp_path: Path) -> None:
    target, killed, choose = tmp_path / "backup", 0, random.Random(3)
    many(lake, 200, first=20)
    code = (
        "import sys; from pathlib import Path; from analytics.backup import backup; print('go', flush=True); "
        "backup(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(lake), str(target)], stdout=subprocess.PIPE, cwd=ROOT
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(choose.uniform(0, 0.1))
        process.kill()
        process.wait()
        process.stdout.close()
        if (target / FOLDER / MANIFEST).exists():
            shutil.rmtree(target)
        else:
            killed += 1
            with pytest.raises(ConfigError, match="no complete backup"):
                restore(target, tmp_path / "back")
    assert killed >= 3
    backup(lake, target)
    restore(target, tmp_path / "back")
    assert count(tmp_path / "back") == count(lake) == (1060, 1060)
    assert not list(target.rglob("*.inprogress"))


def test_restore__damage_is_named_and_the_rest_comes_back(lake: Path, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    backup(lake, target)
    first, second = sorted((target / "packets" / "sensor=s1").rglob("*.parquet"))[:2]
    first.write_bytes(first.read_bytes()[:-1] + b"X")
    second.unlink()
    done = engine("restore", target, "--lake", tmp_path / "back")
    assert done.returncode == 1
    assert done.stderr.count("damaged in the backup") == 2
    assert str(first.relative_to(target)) in done.stderr
    assert count(tmp_path / "back") == (50, 50)


def test_errors__one_line_and_nothing_is_touched(lake: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("x")
    with pytest.raises(ConfigError, match="holds something else"):
        backup(lake, full)
    with pytest.raises(ConfigError, match="in the lake itself"):
        backup(lake, lake / "packets" / "copy")
    target = tmp_path / "backup"
    backup(lake, target)
    with pytest.raises(ConfigError, match="there already"):
        restore(target, lake)
    with backups._alone(target), pytest.raises(StoreError, match="another process"):
        backup(lake, target)
    manifest = target / FOLDER / MANIFEST
    sound = manifest.read_text()
    for text in ("{", "[]", '{"files": {"a": 1}}', '{"files": {"../../etc/passwd": [1, "x", 2]}}'):
        manifest.write_text(text)
        with pytest.raises(ConfigError, match="no complete backup"):
            restore(target, tmp_path / "back")
    manifest.write_text(sound)
    done = engine("backup", target, "--lake", tmp_path / "nowhere")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.root
def test_full__one_line_and_the_manifest_is_missing(lake: Path, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root to mount a small file system")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=True)
    try:
        done = engine("backup", small / "backup", "--lake", lake)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "no space left" in done.stderr
        assert not (small / "backup" / FOLDER / MANIFEST).exists()
    finally:
        subprocess.run(["umount", str(small)], check=True)
