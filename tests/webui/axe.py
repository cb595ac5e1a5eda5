"""axe, the accessibility checker: fetched from npm once, kept beside pytest's cache; without it tests skip visibly."""

from __future__ import annotations

import subprocess
import tarfile
from typing import Any

import pytest

from tests.commands import ROOT

VERSION = "4.14.1"
KEPT = ROOT / ".pytest_cache" / f"axe-{VERSION}.js"


def source() -> str:
    """The script."""
    if not KEPT.exists():
        KEPT.parent.mkdir(exist_ok=True)
        try:
            done = subprocess.run(["npm", "pack", "--silent", f"axe-core@{VERSION}"], cwd=KEPT.parent, check=True,
                                  capture_output=True, text=True, timeout=120)  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"axe-core cannot be fetched: {error}")
        package = KEPT.parent / done.stdout.split()[-1]
        with tarfile.open(package) as archive:
            KEPT.write_bytes(archive.extractfile("package/axe.min.js").read())
        package.unlink()
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
