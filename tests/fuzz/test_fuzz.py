"""The short form of every target. The long one: `python -m tests.fuzz`, CONTRIBUTING.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT
from tests.fuzz.__main__ import OFFLINE, Report, run_inputs
from tests.fuzz.coverage import Coverage
from tests.fuzz.inputs import TARGETS


@pytest.mark.parametrize("name", sorted(TARGETS.keys() - OFFLINE))
def test_inputs__nothing_but_what_is_promised(name: str, tmp_path: Path) -> None:
    report = Report(name, tmp_path)
    assert run_inputs(report, name, 30.0, 4711, None, 250) == 0, [p.read_text() for p in tmp_path.glob("*.txt")]


def command(target: str, tmp_path: Path, *options: str) -> str:
    words = [sys.executable, "-m", "tests.fuzz", target, *options, "--seed", "4711", "--findings", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    return done.stdout


@pytest.mark.timeout(1200)
def test_chain__every_index_checked(tmp_path: Path) -> None:
    """From frames to rows, in a process whose kernels are compiled with checks."""
    said = command("chain", tmp_path, "--seconds", "5")
    assert " executions" in said
    assert "0 findings" in said


def test_inputs__without_a_network(tmp_path: Path) -> None:
    """libpcap looks names up: filters are compiled where nobody can be asked."""
    said = command("bpf", tmp_path, "--seconds", "30", "--most", "250")
    if "left out" in said:
        pytest.skip(said)
    assert "0 findings" in said


def test_finding__is_kept_once_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("self", tmp_path)
    for _ in range(2):
        try:
            raise IndexError("list index out of range")
        except IndexError as error:
            kept = report.finding(error)
    assert report.count == 1
    assert kept is None
    assert capsys.readouterr().out.count("FOUND self: IndexError") == 1
    assert "IndexError" in next(tmp_path.glob("self-*.txt")).read_text()


def test_coverage__new_lines_are_new_once() -> None:
    from engine.detect.intel_lists import classify

    coverage = Coverage(str(ROOT / "engine"))
    assert coverage.run(lambda: classify("192.0.2.1"))
    assert not coverage.run(lambda: classify("192.0.2.2"))
    assert coverage.run(lambda: classify("evil.example"))
    assert coverage.size > 5
