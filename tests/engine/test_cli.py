"""The command as users meet it: what it says when something is wrong, what it costs to start, what is documented."""

from __future__ import annotations

import argparse
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.cli import _parser
from tests.builders import ethernet, ipv4, udp
from tests.commands import ENGINE, ROOT, Running, engine
from tests.savefiles import pcap_bytes


def refused(*words: str | Path, **options: object) -> str:
    """Run a command that must be refused: exit code 2, one line, no traceback."""
    done = engine(*words, **options)
    lines = [line for line in done.stderr.splitlines() if line.startswith("engine: ")]
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_help__imports_nothing_heavy() -> None:
    code = "import sys, engine.cli; engine.cli._parser().format_help(); print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"numpy", "numba", "pyarrow", "sklearn", "duckdb", "dash", "engine.packets", "engine.jit"}


def test_help__is_cheap() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert engine("--help").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.4  # CPU, not wall time


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    action = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def test_readme__names_every_command_and_option() -> None:
    text = (ROOT / "README.md").read_text() + (ROOT / "docs" / "operations.md").read_text()
    for name, parser in _subparsers(_parser()).items():
        assert f"engine {name}" in text
        for action in parser._actions:
            for option in action.option_strings:
                if option not in ("-h", "--help"):
                    assert option in text, f"{name} {option} is not documented"


def test_readme__commands_that_it_shows_exist() -> None:
    known = _subparsers(_parser())
    shown = re.findall(r"\bengine ([a-z]+)", (ROOT / "README.md").read_text())
    assert {name for name in shown if name not in ("in", "becomes")} <= set(known)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["run", "--iface", "nosuch0", "--no-dashboard"], ["nosuch0"]),
        (["run", "--snaplen", "3"], ["snaplen", "3"]),
        (["run", "--buffer", "0"], ["buffer", "0"]),
        (["replay", "/nonexistent.pcap"], ["/nonexistent.pcap", "no such file"]),
        (["replay", "FILE", "--speed", "fast"], ["--speed", "fast"]),
        (["replay", "FILE", "--filter", "tcp prot 80"], ["tcp prot 80"]),
        (["replay", "FILE", "--sensor", "a/b"], ["sensor", "a/b"]),
        (["sql", "SELEC 1"], ["SELEC"]),
        (["sql", "SELECT nocolumn FROM packets"], ["nocolumn"]),
        (["geoip", "use", "/nonexistent.mmdb"], ["/nonexistent.mmdb"]),
        (["geoip", "use"], ["PATH"]),
        (["config", "--config", "/nonexistent.toml"], ["/nonexistent.toml"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_cli__bad_input_is_one_line(words: list[str], parts: list[str], tmp_path: Path, savefile: Path) -> None:
    lake = tmp_path / "lake"
    if words[0] in ("sql", "geoip"):
        assert engine("replay", savefile, "--lake", lake).returncode == 0
    given = [str(savefile) if w == "FILE" else w for w in words]
    if words[0] != "config":
        given += ["--lake", str(lake)]
    line = refused(*given)
    for part in parts:
        assert part in line


@pytest.fixture
def savefile(tmp_path: Path) -> Path:
    path = tmp_path / "some.pcap"
    path.write_bytes(pcap_bytes([ethernet(ipv4(udp(), 17))] * 50))
    return path


def test_cli__port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert port in refused("run", "--port", port, "--lake", tmp_path / "lake")


def test_cli__lake_that_is_a_file(tmp_path: Path, savefile: Path) -> None:
    (tmp_path / "lake").write_text("not a directory")
    assert str(tmp_path / "lake") in refused("replay", savefile, "--lake", tmp_path / "lake")


def test_cli__missing_lake_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "no") in refused("sql", "SELECT 1", "--lake", tmp_path / "no")
    assert str(tmp_path / "no") in refused("dashboard", "--lake", tmp_path / "no")


def test_replay__a_refused_file_does_not_stop_the_others(tmp_path: Path, savefile: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.write_text("this is not a capture")
    line = refused("replay", foreign, savefile, "--lake", tmp_path / "lake")
    assert str(foreign) in line
    done = engine(
        "sql", "SELECT source, count(*) AS n FROM packets GROUP BY 1", "--format", "csv", "--lake", tmp_path / "lake"
    )
    assert done.stdout.splitlines()[1] == f"{savefile},50"


def test_replay__truncated_file_is_a_warning(tmp_path: Path, savefile: Path) -> None:
    savefile.write_bytes(savefile.read_bytes()[:-5])
    done = engine("replay", savefile, "--lake", tmp_path / "lake")
    assert done.returncode == 0
    assert "warning" in done.stderr
    assert "49 whole frames" in done.stderr


def test_replay__standard_input(tmp_path: Path, savefile: Path) -> None:
    with savefile.open("rb") as file:
        assert engine("replay", "-", "--lake", tmp_path / "lake", stdin=file).returncode == 0
    assert "50" in engine("sql", "SELECT count(*) FROM packets", "--lake", tmp_path / "lake").stdout


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_replay__full_disk_is_one_line_and_keeps_what_was_published(tmp_path: Path) -> None:
    big = tmp_path / "big.pcap"
    big.write_bytes(pcap_bytes([ethernet(ipv4(udp(os.urandom(400)), 17)) for _ in range(20_000)]))
    small = tmp_path / "small"
    small.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        files = [big] * 20
        line = refused("replay", *files, "--lake", small / "lake", "--speed", "200000", "--frames", "off")
        assert "no space left" in line
        shown = engine("sql", "SELECT count(*) FROM packets", "--lake", small / "lake")
        assert shown.returncode == 0, shown.stderr
    finally:
        subprocess.run(["umount", small], check=True)


def test_replay__a_signal_while_kernels_compile_ends_it_at_once(tmp_path: Path, savefile: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    running = Running([], ["replay", savefile, "--lake", tmp_path / "lake"], tmp_path / "log", env=environment)
    running.wait_for("compiling the kernels")
    began = time.monotonic()
    assert running.stop(signal.SIGINT) == 0
    assert time.monotonic() - began < 5
    assert "stopped before" in running.log.read_text()


def test_replay__waiting_for_a_pipe_can_be_stopped(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    running = Running([], ["replay", pipe, "--lake", tmp_path / "lake"], tmp_path / "log")
    time.sleep(2)
    began = time.monotonic()
    assert running.stop(signal.SIGINT) == 0
    assert time.monotonic() - began < 5


def test_replay__closed_standard_error_does_not_stop_it(tmp_path: Path, savefile: Path) -> None:
    command = [*ENGINE, "replay", savefile, "/nonexistent", "--lake", tmp_path / "lake"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stderr is not None
        process.stderr.close()
        assert process.wait(60) == 2
    assert "50" in engine("sql", "SELECT count(*) FROM packets", "--lake", tmp_path / "lake").stdout


def test_replay__same_file_twice_and_a_name_that_is_not_utf_8(tmp_path: Path, savefile: Path) -> None:
    strange = os.fsdecode(os.fsencode(tmp_path) + b"/w\xff\xfeird.pcap")
    Path(strange).write_bytes(savefile.read_bytes())
    assert engine("replay", savefile, savefile, strange, "--lake", tmp_path / "lake").returncode == 0
    query = "SELECT source, sum(received)::INT, sum(rows)::INT FROM capture_stats GROUP BY 1 ORDER BY 2"
    shown = engine("sql", query, "--format", "csv", "--lake", tmp_path / "lake").stdout.splitlines()[1:]
    assert shown == [f"{tmp_path}/w\\xff\\xfeird.pcap,50,50", f"{savefile},100,100"]
