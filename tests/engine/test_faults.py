"""Faults of the machine, real ones, while `engine run` captures from a wire: a disk filled to its last block, silence,
a second engine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import analytics
from tests.commands import ENGINE as ENGINE_HERE
from tests.commands import Running, engine
from tests.netns import Wire

pytestmark = pytest.mark.root
FRAME = bytes.fromhex("020000000001 020000000002 0800 45000054 00004000 4001 0000 0a000001 0a000002") + bytes(64)
CONFIG = """
[frames]
mode = "off"
[retention]
enabled = false
[watchdog]
no_packets_s = 2.0
no_rows_s = 5.0
[scoring]
enabled = false
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", path]).returncode:
        pytest.skip("needs root to mount a small file system")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def fill(path: Path) -> None:
    """To the last block."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(fd, bytes(4096))
    os.close(fd)


def until(what: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def one(lake: Path, sql: str) -> int:
    with analytics.connect(lake, threads=1) as con:
        row = con.execute(sql).fetchone()
        assert row is not None
        return int(row[0] or 0)


@pytest.mark.timeout(180)
def test_disk_full__loss_is_counted_and_it_recovers_by_itself(wire: Wire, disk: Path, tmp_path: Path) -> None:
    lake, config = disk / "lake", tmp_path / "c.toml"
    config.write_text(CONFIG)
    words: list[str | Path] = ["run", "--iface", wire.capture, "--lake", lake, "--no-dashboard", "--sensor", "s1"]
    words += ["--config", config]
    running = Running(["ip", "netns", "exec", wire.here], words, tmp_path / "log")
    try:
        running.wait_for("Ctrl-C stops")
        running.wait_for(f"no packets on {wire.capture} for 2 s")
        second = wire.run(*ENGINE_HERE, *map(str, words), timeout=120)
        assert second.returncode == 2
        assert f"process {running.process.pid} captures as sensor s1" in second.stderr.splitlines()[-1]

        state_file = lake / ".settings" / "upkeep.json"
        until(state_file.exists)
        killed = int(json.loads(state_file.read_text())["pid"])
        os.kill(killed, signal.SIGKILL)  # what merges and deletes; it comes back, see the end

        wire.transmit([FRAME] * 200)
        until(lambda: one(lake, "SELECT count(*) FROM packets") == 200)
        fill(disk / "foreign")
        deadline = time.monotonic() + 30
        while "no rows committed" not in running.log.read_text() and time.monotonic() < deadline:
            wire.transmit([FRAME] * 50)
            time.sleep(0.25)
        state = engine("status", "--json", "--lake", lake)
        found = json.loads(state.stdout)
        assert state.returncode == found["exit_code"] == 1
        assert found["engines"][0]["pid"] == running.process.pid
        assert any("no rows committed" in text for text in found["problems"])
        assert one(lake, "SELECT count(*) FROM packets") == 200
        assert running.process.poll() is None

        (disk / "foreign").unlink()
        wire.transmit([FRAME] * 100)
        until(lambda: one(lake, "SELECT count(*) FROM packets") > 200)
        running.wait_for("no rows committed: over")
        running.wait_for("ended with code -9; starting it again")
        until(lambda: json.loads(state_file.read_text())["pid"] != killed, 40)
        time.sleep(1.2)
        assert running.stop(signal.SIGINT) == 0
    finally:
        running.kill()
    rows = one(lake, "SELECT count(*) FROM packets")
    assert one(lake, "SELECT sum(rows) FROM capture_stats") == rows >= 300
    lost = one(lake, "SELECT sum(drop_not_written) FROM capture_stats")
    assert lost > 100
    assert one(lake, "SELECT sum(received) FROM capture_stats") == rows + lost
    assert "no space left" in running.log.read_text()
    assert one(lake, "SELECT count(*) FROM alerts WHERE kind = 'capture_silent'") >= 1
    assert engine("status", "--lake", lake).returncode == 2
