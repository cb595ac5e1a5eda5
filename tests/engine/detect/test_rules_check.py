"""`engine rules check`: what is used, what is refused, the exit code."""

from __future__ import annotations

from pathlib import Path

from engine.detect.signatures.loader import STARTER
from tests.commands import engine


def test_rules_check__every_rule_used_is_success() -> None:
    done = engine("rules", "check", str(STARTER))
    assert done.returncode == 0, done.stderr
    assert "0 refused" in done.stdout


def test_rules_check__a_refused_rule_is_named(tmp_path: Path) -> None:
    path = tmp_path / "my.rules"
    path.write_text('alert tcp any any -> any any (msg:"It"; content:"a"; flowbits:set,x; sid:7;)\n')
    done = engine("rules", "check", str(path))
    assert done.returncode == 2
    assert f"{path}:1: sid 7 (It) refused: keyword flowbits is not supported" in done.stdout


def test_rules_check__a_missing_file_is_one_line() -> None:
    done = engine("rules", "check", "/nowhere.rules")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "/nowhere.rules" in done.stderr
