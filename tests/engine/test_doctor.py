"""`engine doctor`: each fault that it names is there, and the command beside it mends it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from engine.capture import ethtool
from engine.checks import ADVICE, OK, PROBLEM
from tests.analytics.small_lake import make_lake
from tests.commands import ENGINE, engine
from tests.netns import Wire, ip

Checks = dict[str, dict[str, str]]


def checks(*words: str | Path, wire: Wire | None = None) -> tuple[int, Checks]:
    command = [*map(str, words), "--json"]
    done = engine("doctor", *command) if wire is None else wire.run(*ENGINE, "doctor", *command)
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    return done.returncode, {check["what"]: check for check in found}


def test_text__has_a_command_for_each_finding_and_the_exit_code_says_whether(tmp_path: Path) -> None:
    done = engine("doctor", "--iface", "lo", "--lake", tmp_path / "lake")
    lines = done.stdout.splitlines()
    findings = [n for n, line in enumerate(lines) if line.startswith((ADVICE, PROBLEM))]
    assert done.returncode == (1 if findings else 0)
    assert all("-> " in lines[n + 1] for n in findings)
    assert len(lines) - len(findings) >= 12
    assert not (tmp_path / "lake").exists()
    assert list(tmp_path.iterdir()) == []  # what it tried the disk with has gone


def test_bad_input__one_line(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[capture]\nsnaplen = 0\n")
    done = engine("doctor", "--config", config)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    code, found = checks("--iface", "nosuch0", "--lake", tmp_path / "lake")
    assert code == 1
    assert "does not exist" in found["interface nosuch0"]["found"]


def test_port__in_use_by_another(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        config.write_text(f"[web]\nport = {port}\n")
        _, found = checks("--config", config, "--lake", tmp_path / "lake")
        assert found[f"port {port}"]["level"] == PROBLEM
    _, found = checks("--config", config, "--lake", tmp_path / "lake")
    assert found[f"port {port}"]["level"] == OK


def test_geoip__missing_and_damaged(tmp_path: Path) -> None:
    lake = make_lake(tmp_path / "lake")
    assert checks("--lake", lake)[1]["GeoIP"]["level"] == ADVICE
    (lake / ".settings").mkdir()
    damaged = tmp_path / "city.mmdb"
    damaged.write_bytes(b"no database")
    (lake / ".settings" / "geoip.json").write_text(json.dumps({"database": str(damaged)}))
    assert "damaged" in checks("--lake", lake)[1]["GeoIP"]["found"]


def test_lake__of_a_newer_format(tmp_path: Path) -> None:
    lake = make_lake(tmp_path / "lake")
    (lake / "lake.json").write_text('{"format": 99}')
    code, found = checks("--lake", lake)
    assert (code, found["lake"]["level"]) == (1, PROBLEM)


@pytest.mark.root
def test_interface__down_and_up_again_by_the_command(wire: Wire, tmp_path: Path) -> None:
    what = f"interface {wire.capture}"
    ip("-n", wire.here, "link", "set", wire.capture, "down")
    _, found = checks("--iface", wire.capture, "--lake", tmp_path / "lake", wire=wire)
    assert found[what]["level"] == PROBLEM
    assert wire.run(*found[what]["remedy"].split()).returncode == 0
    _, found = checks("--iface", wire.capture, "--lake", tmp_path / "lake", wire=wire)
    assert found[what]["level"] == OK


@pytest.mark.root
@pytest.mark.skipif(shutil.which("ethtool") is None, reason="needs ethtool")
def test_offloads__as_ethtool_says_and_off_by_the_command(wire: Wire, tmp_path: Path) -> None:
    what = f"interface {wire.capture}: offloads"
    assert what not in checks("--iface", wire.capture, "--lake", tmp_path / "lake", wire=wire)[1]
    assert wire.run("ethtool", "-K", wire.capture, "gro", "on").returncode == 0
    with wire.inside():
        assert "gro" in ethtool.offloads(wire.capture)
    _, found = checks("--iface", wire.capture, "--lake", tmp_path / "lake", wire=wire)
    assert "gro" in found[what]["found"]
    assert wire.run(*found[what]["remedy"].split()).returncode == 0
    assert what not in checks("--iface", wire.capture, "--lake", tmp_path / "lake", wire=wire)[1]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_disk__full_and_read_only(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", disk], check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        _, found = checks("--lake", disk / "lake")
        assert found["disk: speed"]["level"] == PROBLEM  # it does not hold what is written to try it
        (disk / "foreign").write_bytes(bytes(8_200_000))
        _, found = checks("--lake", disk / "lake")
        assert found["disk"]["level"] == PROBLEM
        assert "engine retain" in found["disk"]["remedy"]
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        code, found = checks("--lake", disk / "lake")
        assert (code, found["lake"]["level"]) == (1, PROBLEM)
        subprocess.run(found["lake"]["remedy"].split(), check=True)
        assert checks("--lake", disk / "lake")[1]["lake"]["level"] == OK
    finally:
        subprocess.run(["umount", disk], check=True)
