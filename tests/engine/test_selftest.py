"""`engine selftest`: everything is found, offline and live; and what is not found is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import selftest
from benchmarks.wire import usable
from tests.commands import engine


def test_offline__everything_is_found() -> None:
    done = engine("selftest", timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    for scene in selftest.scenes():
        assert f"\n{scene.kind} " in done.stdout
    assert "WRONG" not in done.stdout
    assert "MISSING" not in done.stdout


def test_offline__a_rule_turned_off_is_named(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[rules.dns_tunnel]\nenabled = false\n[frames]\nmode = 'off'\n")
    done = engine("selftest", "--config", config, timeout=200)
    assert done.returncode == 1
    [missing] = [line for line in done.stdout.splitlines() if "MISSING" in line]
    assert missing.startswith("dns_tunnel ")
    assert "WRONG    0 frames exported" in done.stdout
    config.write_text("[rules.dns_tunnel]\nnames = 'x'\n")
    done = engine("selftest", "--config", config)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.root
@pytest.mark.skipif(bool(usable()), reason="needs root and network namespaces")
@pytest.mark.timeout(300)
def test_live__everything_is_found() -> None:
    before = set(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else set()
    done = engine("selftest", "--live", timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(os.listdir("/run/netns")) <= before
