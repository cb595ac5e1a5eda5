"""The project's own rules, checked by tools: style, types, layers, and what must not stand in it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.commands import ROOT


@pytest.mark.parametrize(
    "words",
    [
        [sys.executable, "-m", "ruff", "check", "."],
        [sys.executable, "-m", "ruff", "format", "--check", "."],
        [sys.executable, "-m", "mypy"],
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
    ],
    ids=["ruff-check", "ruff-format", "mypy", "import-linter"],
)
def test_project__tools_find_nothing(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_project__kernels_import_numba_only_through_jit() -> None:
    for path in (ROOT / "engine").rglob("*.py"):
        if path.name != "jit.py":
            assert not re.search(r"^\s*(import|from) (numba|llvmlite)", path.read_text(), re.M), path


def test_project__every_dashboard_graph_keeps_data_here() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "webui").rglob("*.py"))
    assert text.count("dcc.Graph(") <= text.count("config=")
    assert "showSendToCloud" in text
