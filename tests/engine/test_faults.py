"""Faults of the machine, real ones, while `engine run` captures from a wire: a disk filled to its last block, silence,
a second engine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import analytics
from tests.commands import ENGINE as ENGINE_HERE
from tests.commands import Running, engine
from tests.netns import Wire, ip
from tests.savefiles import pcap_bytes

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
        time.sleep(0.05)


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
        until(lambda: any("no rows committed" in text for text in problems(lake)))  # told once a second
        state = engine("status", "--json", "--lake", lake)
        found = json.loads(state.stdout)
        assert state.returncode == found["exit_code"] == 1
        assert found["engines"][0]["pid"] == running.process.pid
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


# --- interfaces ------------------------------------------------------------------------------------------------------


def started(wire: Wire, lake: Path, log: Path, *words: str | Path, **options: Any) -> Running:
    given: list[str | Path] = ["run", "--iface", wire.capture, "--lake", lake, "--sensor", "s1", *words]
    running = Running(["ip", "netns", "exec", wire.here], given, log, **options)
    running.wait_for("Ctrl-C stops", 200)
    return running


def problems(lake: Path) -> list[str]:
    return list(json.loads(engine("status", "--json", "--lake", lake).stdout)["problems"])


def balanced(lake: Path) -> tuple[int, int, int]:
    """Frames received, rows, and everything lost, of the books; rows are those that are there."""
    losses = "kernel_drops + drop_unread_at_stop + drop_not_written + drop_rows_shed"
    received, lost = (one(lake, f"SELECT sum({what}) FROM capture_stats") for what in ("received", losses))
    rows = one(lake, "SELECT count(*) FROM packets")
    assert one(lake, "SELECT sum(rows) FROM capture_stats") == rows
    assert received == rows + lost
    return received, rows, lost


@pytest.mark.timeout(240)
def test_interface__down_and_up_again_goes_on_and_removed_ends_the_run(wire: Wire, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    running = started(wire, lake, tmp_path / "log", "--no-dashboard")
    try:
        wire.transmit([FRAME] * 20)
        until(lambda: one(lake, "SELECT count(*) FROM packets WHERE src_ip = '10.0.0.1'") == 20)
        ip("-n", wire.here, "link", "set", wire.capture, "down")
        running.wait_for("went down; capture goes on when it is up again")
        until(lambda: f"interface {wire.capture}: is down" in problems(lake))
        ip("-n", wire.here, "link", "set", wire.capture, "up")
        running.wait_for(f"interface {wire.capture} is up again")
        wire.transmit([FRAME] * 30)
        until(lambda: one(lake, "SELECT count(*) FROM packets WHERE src_ip = '10.0.0.1'") == 50)
        ip("-n", wire.here, "link", "del", wire.capture)
        assert running.process.wait(20) == 1  # not 0: a service manager starts it again
    finally:
        running.kill()
    assert "no interface is left to capture on" in running.log.read_text()
    assert balanced(lake)[2] == 0


@pytest.mark.timeout(240)
def test_interface__one_of_two_removed_and_the_other_goes_on(wire: Wire, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    ip("-n", wire.here, "link", "add", "other0", "type", "veth", "peer", "name", "other1")
    ip("-n", wire.here, "link", "set", "other0", "up")
    running = started(wire, lake, tmp_path / "log", "--iface", "other0", "--no-dashboard")
    try:
        ip("-n", wire.here, "link", "del", "other0")
        running.wait_for("interface other0: The interface disappeared")
        wire.transmit([FRAME] * 30)
        until(lambda: one(lake, "SELECT count(*) FROM packets WHERE src_ip = '10.0.0.1'") == 30)
        assert "interface other0: capture has ended" in problems(lake)
        assert running.stop(signal.SIGINT) == 0
    finally:
        running.kill()


# --- processes beside the engine -------------------------------------------------------------------------------------


def beside(running: Running) -> dict[str, int]:
    """What the engine has started, by its module."""
    found = {}
    for task in Path(f"/proc/{running.process.pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            with contextlib.suppress(OSError, ValueError):
                words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
                found[words[words.index("-m") + 1]] = int(child)
    return found


@pytest.mark.timeout(300)
def test_kill__whatever_runs_beside_is_started_again_and_capture_goes_on(wire: Wire, tmp_path: Path) -> None:
    lake, rule, config = tmp_path / "lake", tmp_path / "rule.sql", tmp_path / "c.toml"
    rule.write_text("SELECT ts, src_ip, dst_ip, 'seen' AS why FROM flows WHERE dst_port = 1")
    config.write_text(
        f'[[rules.sql]]\nname = "mine"\nfile = "{rule}"\n[ship]\nurl = "{tmp_path / "there"}"\n'
        '[[notify.targets]]\nname = "hook"\nurl = "json://127.0.0.1:9/"\n[geo]\nipinfo = true\n'
    )
    (tmp_path / "there").mkdir()
    environment = os.environ | {"PACKETLAKE_IPINFO_TOKEN": "none"}  # it is not asked: all addresses are private
    ip("-n", wire.here, "link", "set", "lo", "up")
    running = started(wire, lake, tmp_path / "log", "--port", "0", "--config", config, env=environment)
    expected = {
        "webui", "analytics.compaction", "analytics.rule_process", "analytics.ship", "analytics.ipinfo",
        "engine.notify.process",
    }  # fmt: skip
    try:
        until(lambda: expected <= set(beside(running)), 60)
        before = beside(running)
        for name in expected:
            os.kill(before[name], signal.SIGKILL)
        wire.transmit([FRAME] * 40)
        until(lambda: one(lake, "SELECT count(*) FROM packets WHERE src_ip = '10.0.0.1'") == 40)

        def again() -> bool:
            now = beside(running)
            return expected <= set(now) and all(now[name] != before[name] for name in expected)

        until(again, 90)
        address = (lake / ".dashboard" / "address").read_text().strip().rpartition(":")[2]
        code = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{address}/healthz').status)"
        answer = wire.run(ENGINE_HERE[0], "-c", code, timeout=60)
        assert answer.stdout.strip() == "200", answer.stderr
        assert running.stop(signal.SIGINT) == 0
    finally:
        running.kill()
    log = running.log.read_text()
    assert log.count("ended with code -9; starting it again") >= 5
    assert balanced(lake)[2] == 0


# --- the disk --------------------------------------------------------------------------------------------------------


@pytest.fixture
def block(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """An ext4 of 64 MiB in a file, and that file."""
    image, path = tmp_path / "disk.img", tmp_path / "disk"
    path.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    made = os.geteuid() == 0 and not subprocess.run(["mkfs.ext4", "-q", "-F", image], capture_output=True).returncode
    if not made or subprocess.run(["mount", "-o", "loop", image, path], capture_output=True).returncode:
        pytest.skip("needs root, mkfs.ext4 and loop devices")
    yield path, image
    subprocess.run(["fsfreeze", "-u", path], capture_output=True, check=False)
    subprocess.run(["umount", "-l", path], check=True)


@pytest.mark.timeout(240)
def test_disk__that_hangs_holds_rows_back_and_loses_none(wire: Wire, block: tuple[Path, Path], tmp_path: Path) -> None:
    disk, _ = block
    lake, config = disk / "lake", tmp_path / "c.toml"
    config.write_text(CONFIG)
    running = started(wire, lake, tmp_path / "log", "--no-dashboard", "--config", config)
    try:
        wire.transmit([FRAME] * 50)
        until(lambda: one(lake, "SELECT count(*) FROM packets") == 50)
        subprocess.run(["fsfreeze", "-f", disk], check=True)
        deadline = time.monotonic() + 30
        while "no rows committed" not in running.log.read_text() and time.monotonic() < deadline:
            wire.transmit([FRAME] * 20)
            time.sleep(0.2)
        subprocess.run(["fsfreeze", "-u", disk], check=True)
        running.wait_for("no rows committed for 5 s")
        running.wait_for("no rows committed: over")
        assert running.stop(signal.SIGINT) == 0
    finally:
        running.kill()
    received, rows, lost = balanced(lake)
    assert (received, lost) == (rows, 0)
    assert rows > 150


@pytest.mark.timeout(240)
def test_disk__that_turns_read_only_is_counted_and_ends_in_order(
    wire: Wire, block: tuple[Path, Path], tmp_path: Path
) -> None:
    """As ext4 does it after an error of the disk."""
    disk, image = block
    lake, config = disk / "lake", tmp_path / "c.toml"
    config.write_text(CONFIG)
    subprocess.run(["mount", "-o", "remount,errors=remount-ro", disk], check=True)
    device = subprocess.run(["findmnt", "-no", "SOURCE", disk], capture_output=True, text=True, check=True).stdout
    fault = Path("/sys/fs/ext4") / Path(device.strip()).name / "trigger_fs_error"
    running = started(wire, lake, tmp_path / "log", "--no-dashboard", "--config", config)
    try:
        wire.transmit([FRAME] * 50)
        until(lambda: one(lake, "SELECT count(*) FROM packets") == 50)
        time.sleep(2.5)
        fault.write_text("a fault of the disk")
        deadline = time.monotonic() + 30
        while "no rows committed" not in running.log.read_text() and time.monotonic() < deadline:
            wire.transmit([FRAME] * 20)
            time.sleep(0.2)
        running.wait_for("read-only file system")
        running.wait_for("no rows committed for 5 s")
        assert one(lake, "SELECT count(*) FROM packets") == 50
        assert running.stop(signal.SIGINT) == 0
    finally:
        running.kill()
    found = re.search(r"received ([0-9,]+);.* not written ([0-9,]+)", running.log.read_text())
    assert found is not None
    received, lost = (int(text.replace(",", "")) for text in found.groups())
    assert received == 50 + lost > 70
    subprocess.run(["umount", disk], check=True)
    subprocess.run(["e2fsck", "-fy", image], capture_output=True, check=False)
    subprocess.run(["mount", "-o", "loop", image, disk], check=True)
    assert balanced(lake) == (50, 50, 0)


@pytest.mark.timeout(240)
def test_lake__deleted_underneath_goes_on_as_a_new_one(wire: Wire, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    running = started(wire, lake, tmp_path / "log", "--no-dashboard")
    try:
        wire.transmit([FRAME] * 50)
        until(lambda: one(lake, "SELECT count(*) FROM packets WHERE src_ip = '10.0.0.1'") == 50)
        while lake.exists():
            subprocess.run(["rm", "-rf", lake], capture_output=True, check=False)
            if "was deleted" in running.log.read_text():
                break
        running.wait_for("was deleted; it goes on as a new one")
        wire.transmit([FRAME] * 40)
        until(lambda: one(lake, "SELECT count(*) FROM packets WHERE src_ip = '10.0.0.1'") >= 40)
        assert problems(lake) == []
        assert one(lake, "SELECT count(*) FROM alerts") == 0
        second = wire.run(*ENGINE_HERE, *map(str, ["run", "--iface", wire.capture, "--lake", lake, "--sensor", "s1"]))
        assert second.returncode == 2
        assert running.stop(signal.SIGINT) == 0
    finally:
        running.kill()


@pytest.mark.timeout(300)
def test_power__cut_at_any_moment_leaves_whole_segments(wire: Wire, block: tuple[Path, Path], tmp_path: Path) -> None:
    """What the block device holds at a moment is what a power cut would leave: nothing that was not synced is there."""
    disk, image = block
    lake, config = disk / "lake", tmp_path / "c.toml"
    config.write_text(CONFIG.replace('mode = "off"', "limit_bytes = 16777216"))
    running = started(wire, lake, tmp_path / "log", "--no-dashboard", "--config", config)
    cuts = []
    try:
        for cut in range(4):
            for _ in range(8 + cut):
                wire.transmit([FRAME] * 20)
                time.sleep(0.13)
            shown = one(lake, "SELECT count(*) FROM packets")  # readers saw so many before the cut
            cuts.append((shown, tmp_path / f"cut{cut}.img"))
            subprocess.run(["cp", "--sparse=always", image, cuts[-1][1]], check=True)
        assert running.stop(signal.SIGINT) == 0
    finally:
        running.kill()
    for shown, left in cuts:
        place = left.with_suffix("")
        place.mkdir()
        subprocess.run(["mount", "-o", "loop", left, place], check=True)
        try:
            rows = one(place / "lake", "SELECT count(*) FROM (SELECT * FROM packets) WHERE wirelen > 0")
            assert rows >= shown > 0
            assert one(place / "lake", "SELECT sum(rows) FROM capture_stats") <= rows
            assert engine("status", "--lake", place / "lake").returncode == 2
            done = engine("export", tmp_path / f"{left.stem}.pcap", "--lake", place / "lake")
            assert done.returncode == 0 or "deleted from the ring" in done.stderr  # raw frames are not synced
        finally:
            subprocess.run(["umount", place], check=True)


# --- memory, clock ---------------------------------------------------------------------------------------------------


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Path]:
    """A control group with a memory limit to set, of either version."""
    name = f"packetlake-test-{os.getpid()}"
    for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        path = Path(root) / name
        with contextlib.suppress(OSError):
            path.mkdir()
            if (path / limit).exists():
                yield path / limit
                until(lambda p=path: _gone(p))  # type: ignore[misc] # its processes end
                return
            path.rmdir()
    pytest.skip("needs root and a memory controller")


def _gone(path: Path) -> bool:
    with contextlib.suppress(OSError):
        path.rmdir()
    return not path.exists()


@pytest.mark.timeout(300)
def test_memory__short_of_it_the_dashboard_goes_and_capture_stays(wire: Wire, group: Path, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    enter = f'echo $$ > {group.parent / "cgroup.procs"}; exec "$@"'
    prefix = ["bash", "-c", enter, "bash", "ip", "netns", "exec", wire.here]
    words: list[str | Path] = ["run", "--iface", wire.capture, "--lake", lake, "--port", "0", "--sensor", "s1"]
    running = Running(prefix, words, tmp_path / "log")
    try:
        running.wait_for("Ctrl-C stops", 200)
        until(lambda: "webui" in beside(running), 60)
        dashboard = beside(running)["webui"]
        until(lambda: Path(f"/proc/{dashboard}/oom_score_adj").read_text().strip() == "500", 60)
        time.sleep(3)  # it has loaded what it needs
        most = sum(_resident(int(pid)) for pid in (group.parent / "cgroup.procs").read_text().split()) + (600 << 20)
        while True:
            try:
                group.write_text(str(most))
                break
            except OSError:  # it cannot be so little yet
                most += 16 << 20
        hogs = subprocess.Popen([*prefix[:4], ENGINE_HERE[0], "-c", HOGS], start_new_session=True)
        try:
            until(lambda: not _resident(dashboard), 60)
        finally:
            group.write_text(str(4 << 30))
            os.killpg(hogs.pid, signal.SIGKILL)
            hogs.wait()
        running.wait_for("the dashboard ended with code -9")
        wire.transmit([FRAME] * 40)
        until(lambda: one(lake, "SELECT count(*) FROM packets WHERE src_ip = '10.0.0.1'") == 40)
        assert running.stop(signal.SIGINT) == 0
    finally:
        running.kill()
    assert balanced(lake)[2] == 0


HOGS = """
import os, time
os.fork(), os.fork(), os.fork()
taken = []
while True:
    taken.append(bytearray(b"x" * (1 << 20)))
    time.sleep(0.1)
"""


def _resident(pid: int) -> int:
    """Bytes of its own, 0 once it is gone."""
    with contextlib.suppress(OSError, IndexError):
        text = Path(f"/proc/{pid}/status").read_text()
        return int(text.partition("RssAnon:")[2].split()[0]) << 10
    return 0


@pytest.mark.timeout(120)
def test_clock__stepped_forward_and_back_misplaces_nothing(tmp_path: Path) -> None:
    """As the kernel would stamp frames while somebody sets the clock: a day forward, two days back, and right again."""
    start, frames, when = 1_790_000_000, [], []
    for step in (0, 86_400, -86_400, 0):
        for n in range(50):
            frames.append(FRAME)
            when.append(start + step + n)
    path = tmp_path / "stepped.pcap"
    data = bytearray(pcap_bytes(frames))
    at = 24
    for seconds in when:
        data[at : at + 4] = seconds.to_bytes(4, "little")
        at += 16 + len(FRAME)
    path.write_bytes(data)
    lake = tmp_path / "lake"
    assert engine("replay", path, "--lake", lake).returncode == 0
    assert balanced(lake) == (200, 200, 0)
    assert one(lake, "SELECT sum(src_packets + dst_packets) FROM flows") == 200
    assert one(lake, "SELECT count(*) FROM packets WHERE date = ts::DATE") == 200
    assert one(lake, "SELECT count(DISTINCT date) FROM packets") == 3
    assert one(lake, "SELECT count(*) FROM flows WHERE duration_s NOT BETWEEN 0 AND 60") == 0
