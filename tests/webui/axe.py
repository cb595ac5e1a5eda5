"""axe, the accessibility checker: out of a wheel that pip fetches once, kept beside pytest's cache; else tests skip."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.commands import ROOT

WHEEL = "axe-playwright-python==0.1.8"  # only for the script in it: where tests run there is pip, and seldom npm
KEPT = ROOT / f".pytest_cache/{WHEEL}.js"


def source() -> str:
    """The script."""
    if not KEPT.exists():
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
            try:
                subprocess.run(command, check=True, capture_output=True, timeout=120)
            except (OSError, subprocess.SubprocessError) as error:
                pytest.skip(f"axe-core cannot be fetched: {error}")
            [wheel] = Path(folder).iterdir()
            with zipfile.ZipFile(wheel) as archive:
                KEPT.parent.mkdir(exist_ok=True)
                KEPT.write_bytes(archive.read("axe_playwright_python/axe.min.js"))
    return KEPT.read_text(encoding="utf-8")


def findings(page: Any) -> list[str]:
    """Serious and critical findings on the page as it stands, one line each."""
    page.evaluate(source())
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
    found = page.evaluate("rules => axe.run(document, rules)", rules)
    return [
        f"{v['id']}: {n['target'][0]} ({n['failureSummary'].splitlines()[-1].strip()})"
        for v in found["violations"]
        if v["impact"] in ("serious", "critical")
        for n in v["nodes"]
    ]


def check(page: Any) -> None:
    """Fails the test on serious findings."""
    found = findings(page)
    assert found == [], "\n".join(found)
