"""The systemd unit: sound, hardened, and enough to capture with: an account of its own and two capabilities."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

import analytics
from engine import sandbox, service
from tests.builders import ethernet, ipv4, udp
from tests.commands import ROOT, Running, engine
from tests.netns import Wire

UID = 64_123  # of nobody on this machine, as DynamicUser would choose one


def value(unit: str, name: str) -> str:
    [found] = re.findall(rf"^{name}=(.*)$", unit, re.M)
    return str(found)


def test_unit__starts_this_engine_with_these_options(tmp_path: Path) -> None:
    config = tmp_path / "a b%.toml"
    config.write_text("")
    done = engine("service", "--iface", "eth0", "--iface", "eth1", "--config", config, "--port", "9000")
    assert done.returncode == 0
    words = shlex.split(value(done.stdout, "ExecStart").replace("%%", "%"))
    assert words[:4] == [sys.executable, "-m", "engine", "run"]
    assert words[4:] == [
        "--lake", "/var/lib/packetlake/lake", "--iface", "eth0", "--iface", "eth1", "--config", str(config),
        "--port", "9000",
    ]  # fmt: skip
    assert not re.search(r"(?<!%)%(?![%SC])", done.stdout)
    config.write_text("[capture]\nsnaplen = -1\n")
    done = engine("service", "--config", config)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_unit__systemd_takes_it_and_calls_it_little_exposed(tmp_path: Path) -> None:
    path = tmp_path / "packetlake.service"
    path.write_text(engine("service").stdout)
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    words = ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd does not judge files")
    assert done.returncode == 0, done.stdout[-300:]


@pytest.fixture
def elsewhere(tmp_path: Path) -> list[str]:
    """The words that start a Python of the same version which every account may run, with our packages."""
    python = "/usr/bin/python3"
    version = subprocess.run([python, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True)
    if version.stdout.strip() != str(sys.version_info[:2]):
        pytest.skip(f"{python} is another version")
    packages = sysconfig.get_paths()["purelib"]
    for path in (packages, ROOT):
        if subprocess.run(["test", "-r", str(path)], user=UID, group=UID, extra_groups=[]).returncode:
            pytest.skip(f"an account cannot read {path}")
    return ["env", f"PYTHONPATH={packages}:{ROOT}", python]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_run__with_the_rights_of_the_unit(wire: Wire, tmp_path: Path, elsewhere: list[str]) -> None:
    """Never root, and without any right once the interface is open."""
    from engine.jit import CACHE_DIR

    base = Path("/var/tmp") / f"packetlake-service-{os.getpid()}"  # pytest's own directory is closed to others
    cache = base / "cache" / "packetlake"
    try:
        cache.parent.mkdir(parents=True)
        if CACHE_DIR is not None:
            shutil.copytree(CACHE_DIR, cache / CACHE_DIR.name)
        for path in (base, *base.rglob("*")):
            os.chown(path, UID, UID)
            path.chmod(0o700)
        unit = service.unit([wire.capture], None, 0, dashboard=True)
        names = value(unit, "AmbientCapabilities").lower().split()
        granted = ",".join(f"+{name.removeprefix('cap_')}" for name in names)
        prefix = [
            "ip", "netns", "exec", wire.here, "setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups",
            f"--inh-caps=-all,{granted}", f"--ambient-caps=-all,{granted}", f"--bounding-set=-all,{granted}",
            "--no-new-privs", "env", f"HOME={base}", f"XDG_CACHE_HOME={base / 'cache'}",
        ]  # fmt: skip
        words = shlex.split(value(unit, "ExecStart"))[3:]
        words[words.index("--lake") + 1] = str(base / "lake")
        running = Running(prefix, words, tmp_path / "log", start=[*elsewhere, "-m", "engine"])
        try:
            running.wait_for("Ctrl-C stops", 280)
            state = sandbox.state(running.process.pid)  # each of the words before it has become the next
            assert state["Uid"].split() == [str(UID)] * 4
            assert {int(state[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {0}
            wire.transmit([ethernet(ipv4(udp()))] * 10)
            time.sleep(2)
            assert running.stop(signal.SIGTERM) == 0
        finally:
            running.kill()
        with analytics.connect(base / "lake") as con:
            assert con.execute("SELECT count(*) FROM packets WHERE proto = 17").fetchone() == (10,)
    finally:
        shutil.rmtree(base, ignore_errors=True)
