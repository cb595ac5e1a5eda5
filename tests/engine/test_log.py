"""What the operator is told: text for people, objects for programs, priorities for the journal, no link to sign in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.metrics import TOTAL_FIELDS
from tests.builders import ethernet, ipv4, udp
from tests.commands import ENGINE, ROOT, Running, engine
from tests.netns import Wire
from tests.savefiles import pcap_bytes


@pytest.fixture
def savefile(tmp_path: Path) -> Path:
    path = tmp_path / "three.pcap"
    path.write_bytes(pcap_bytes([ethernet(ipv4(udp(sport=1000 + n))) for n in range(3)]))
    return path


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_json__every_line_is_an_object_and_the_summary_has_its_numbers(savefile: Path, tmp_path: Path) -> None:
    done = engine("replay", savefile, tmp_path / "none.pcap", "--lake", tmp_path / "lake", "--log", "json")
    assert done.returncode == 2
    said = objects(done.stderr)
    for line in said:
        assert datetime.now(UTC) - datetime.fromisoformat(line["time"]) < timedelta(minutes=5)
        assert line["process"] == "engine"
        assert "\n" not in line["text"]
    [refused] = [line for line in said if line["level"] != "info"]
    assert "none.pcap" in refused["text"]
    assert not refused["text"].startswith("engine: ")
    [source] = [line for line in said if line.get("source", "").endswith("three.pcap")]
    assert (source["received"], source["rows"]) == (3, 3)
    assert set(TOTAL_FIELDS) < set(source)
    wrong = engine("replay", savefile, "--idle", "-1", "--log", "json")
    assert [line["level"] for line in objects(wrong.stderr)] == ["error"]


def test_journal__lines_have_priorities_when_systemd_reads_them(savefile: Path, tmp_path: Path) -> None:
    log = tmp_path / "journal"
    with log.open("w") as file:
        status = os.fstat(file.fileno())
        command = [*ENGINE, "replay", str(savefile), str(tmp_path / "none.pcap"), "--lake", str(tmp_path / "lake")]
        stream = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        subprocess.run(command, stderr=file, cwd=ROOT, env=os.environ | stream, check=False)
    lines = log.read_text().splitlines()
    assert lines
    assert all(line[:3] in ("<3>", "<4>", "<6>") for line in lines)
    assert [line[:3] for line in lines if "none.pcap" in line and "received" not in line] == ["<3>"]
    done = subprocess.run(
        [*command, "--user", "nobody-of-this-name"], capture_output=True, text=True, cwd=ROOT, check=False,
        env=os.environ | {"JOURNAL_STREAM": "1:2"},
    )  # fmt: skip
    assert not done.stderr.startswith("<")  # the journal of the shell that started us, not ours


def test_json__of_a_live_run_and_of_the_processes_beside_it(wire: Wire, tmp_path: Path) -> None:
    lake, config = tmp_path / "lake", tmp_path / "engine.toml"
    config.write_text(f"[ship]\nurl = {str(tmp_path / 'gone' / 'there')!r}\n")
    prefix = ["ip", "netns", "exec", wire.here]
    words = ["run", "--iface", wire.capture, "--lake", lake, "--log", "json", "--config", config, "--port", "0"]
    running = Running(prefix, words, tmp_path / "log")
    try:
        running.wait_for("Ctrl-C stops")
        said = running.wait_for('"process": "analytics.ship"')
        assert running.stop(signal.SIGINT) == 0
    finally:
        running.kill()
    said = (tmp_path / "log").read_text()
    lines = objects(said)
    [dashboard] = [line["text"] for line in lines if line["text"].startswith("dashboard: ")]
    assert "token" not in said
    assert "engine link" in dashboard
    assert {line["level"] for line in lines if line["process"] == "analytics.ship"} == {"warning"}


def test_text__a_closed_standard_error_is_no_reason_to_fail(savefile: Path, tmp_path: Path) -> None:
    words = ["replay", str(savefile), "--lake", str(tmp_path / "lake")]
    script = f"exec {sys.executable} -m engine {' '.join(words)} 2>&-"
    assert subprocess.run(["bash", "-c", script], cwd=ROOT, check=False).returncode == 0
