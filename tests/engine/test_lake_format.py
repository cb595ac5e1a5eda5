"""What a lake says of its layout, and one engine for each sensor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import analytics
from analytics.merge_jobs import Compactor, Plan
from engine import lake_format
from engine.errors import StoreError
from engine.sensor_lock import SensorLock, engines
from engine.writer import init_lake
from tests.commands import ROOT


def test_init__writes_it_down_and_older_lakes_are_taken_as_they_are(tmp_path: Path) -> None:
    init_lake(tmp_path)
    found = json.loads((tmp_path / "lake.json").read_text())
    assert found["format"] == lake_format.FORMAT
    (tmp_path / "lake.json").unlink()
    with analytics.connect(tmp_path) as con:
        assert con.execute("SELECT count(*) FROM packets").fetchone() == (0,)
    init_lake(tmp_path)
    assert json.loads((tmp_path / "lake.json").read_text()) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"format": 2, "made_by": "9.9"}', "format 2, made by '9.9'"),
        ('{"format": 0}', "format 0"),
        ("{", "damaged"), ("[]", "damaged"), ('{"format": "x"}', "damaged"), ("", "damaged"),
        ("[" * 100_000, "damaged"), ('{"format": 1e999}', "damaged"),
    ],
)  # fmt: skip
def test_newer_or_damaged__refused_by_whoever_reads_or_writes(tmp_path: Path, text: str, said: str) -> None:
    init_lake(tmp_path)
    (tmp_path / "lake.json").write_text(text)
    before = sorted(p for p in tmp_path.rglob("*"))
    for act in (
        lambda: init_lake(tmp_path),
        lambda: analytics.connect(tmp_path),
        lambda: Compactor(tmp_path, Plan(), print).__enter__(),
    ):
        with pytest.raises(StoreError, match=said) as caught:
            act()
        assert "\n" not in str(caught.value)
    assert sorted(p for p in tmp_path.rglob("*")) == before


def test_migration__step_by_step_and_again_after_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init_lake(tmp_path)
    steps: list[int] = []

    def second(_: Path) -> None:
        steps.append(2)

    def third(_: Path) -> None:
        steps.append(3)
        if steps.count(3) == 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(lake_format, "FORMAT", 3)
    monkeypatch.setattr(lake_format, "MIGRATIONS", {2: second, 3: third})
    with pytest.raises(StoreError, match="no space left"):
        init_lake(tmp_path)
    assert lake_format.check(tmp_path) == 2
    init_lake(tmp_path)
    assert steps == [2, 3, 3]
    assert lake_format.check(tmp_path) == 3


HOLD = "import sys; from pathlib import Path; from engine.sensor_lock import SensorLock\n"
HOLD += "lock = SensorLock(Path(sys.argv[1]), 's1', ['eth0']); print('held', flush=True); sys.stdin.read()"


def test_sensor__the_second_engine_is_refused_until_the_first_dies(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert first.stdout is not None
    assert first.stdin is not None
    try:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=f"process {first.pid} captures as sensor s1") as caught:
            SensorLock(tmp_path, "s1", ["eth0"])
        assert "\n" not in str(caught.value)
        other = SensorLock(tmp_path, "s2", ["eth1"])
        assert [(e.sensor, e.running, e.pid) for e in engines(tmp_path)] == [
            ("s1", True, first.pid), ("s2", True, os.getpid()),
        ]  # fmt: skip
        other.tell(["no packets on eth1 for 5 s or more"], {})
        assert engines(tmp_path)[1].wrong == ("no packets on eth1 for 5 s or more",)
        other.close()
    finally:
        first.kill()
        first.wait()
        first.stdin.close()
        first.stdout.close()
    dead, ended = engines(tmp_path)
    assert (dead.running, dead.ended) == (False, None)
    assert not ended.running
    assert ended.ended is not None
    SensorLock(tmp_path, "s1", ["eth0"]).close()


def test_engines__what_stands_there_is_no_reason_to_fail(tmp_path: Path) -> None:
    assert engines(tmp_path) == []
    folder = tmp_path / ".engines"
    folder.mkdir()
    for name, text in (("sensor=a", "{"), ("sensor=b", "[]"), ("sensor=c", '{"pid": null, "sources": 3}'), ("x", "")):
        (folder / name).write_text(text)
    assert [(e.sensor, e.running, e.pid, e.sources) for e in engines(tmp_path)] == [
        (name, False, 0, ()) for name in "abc"
    ]
