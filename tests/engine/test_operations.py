"""What operators do around the command: pipes that close, nohup, empty variables, somebody else's lake."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import time
from pathlib import Path
from random import Random

import pytest

from engine.companions import new_link
from engine.errors import ConfigError
from tests.commands import ENGINE, ROOT, Running, engine
from tests.savefiles import pcap_bytes

FRAMES = [bytes(range(60)) for _ in range(5000)]


@pytest.mark.parametrize("command", ["config", "interfaces"])
def test_output__reader_that_has_seen_enough_is_no_error(command: str) -> None:
    with subprocess.Popen([*ENGINE, command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        assert (process.wait(60), said) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["config"], ["interfaces"]])
def test_output__full_disk_is_one_line(words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*ENGINE, *words], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "no space left" in done.stderr
    assert done.stderr.count("\n") == 1


def test_streams__closed_ones_do_not_stop_a_command(tmp_path: Path) -> None:
    savefile, lake = tmp_path / "a.pcap", tmp_path / "lake"
    savefile.write_bytes(pcap_bytes(FRAMES))
    for words in (["replay", savefile, "--lake", lake], ["sql", "SELECT 1", "--lake", lake]):
        done = subprocess.run(["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *ENGINE, *map(str, words)], cwd=ROOT)
        assert done.returncode == 0


def test_lake__empty_name_is_refused() -> None:
    done = engine("sql", "SELECT 1", "--lake", "")
    assert done.returncode == 2
    assert "--lake ''" in done.stderr


def test_replay__under_nohup_the_end_of_the_terminal_does_not_stop_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    words = ["replay", pipe, "--lake", tmp_path / "lake"]
    running = Running(["sh", "-c", 'trap "" HUP; exec "$@"', "sh"], words, tmp_path / "log")
    try:
        with pipe.open("wb") as file:  # it is reading now
            running.process.send_signal(signal.SIGHUP)
            time.sleep(0.3)
            file.write(pcap_bytes(FRAMES))
        assert running.process.wait(60) == 0
    finally:
        running.kill()
    assert "5,000 packets" in running.log.read_text()


def test_replay__summary_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    savefile = tmp_path / "a.pcap"
    savefile.write_bytes(pcap_bytes(FRAMES))
    lake = tmp_path / "it's a lake; ok"
    done = engine("replay", savefile, "--lake", lake)
    hint = done.stderr.rpartition("engine sql --lake ")[2].strip().removesuffix(")")
    assert subprocess.run(["sh", "-c", f"cd {hint}"], check=False).returncode == 0


def test_replay__stopped_while_a_compressed_pipe_is_silent(tmp_path: Path) -> None:
    random = Random(1)
    part = gzip.compress(pcap_bytes(random.randbytes(1000) for _ in range(1000)))
    running = Running([], ["replay", "-", "--lake", tmp_path / "lake"], tmp_path / "log", stdin=subprocess.PIPE)
    assert running.process.stdin is not None
    try:
        running.process.stdin.write(part[:-20])
        running.process.stdin.flush()
        time.sleep(2)
        assert running.stop(signal.SIGINT) == 0
    finally:
        running.kill()
        running.process.stdin.close()
    said = running.log.read_text()
    assert "Fatal" not in said
    query = "SELECT sum(received)::INT > 0, sum(received - rows - drop_unread_at_stop)::INT FROM capture_stats"
    assert engine("sql", query, "--format", "csv", "--lake", tmp_path / "lake").stdout.split()[-1] == "true,0", said


def test_dashboard__of_a_lake_that_is_not_ours_says_who_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_lake: Path, _user: str) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("webui.auth.issue_token", forbidden)
    with pytest.raises(ConfigError, match="owner"):
        new_link(tmp_path)
