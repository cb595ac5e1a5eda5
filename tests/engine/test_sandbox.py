"""The walls that a run puts around itself, proved by trying, on this kernel."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from engine import sandbox
from engine.config import EngineConfig
from tests.commands import ROOT, Running, engine
from tests.netns import Wire

needs_landlock = pytest.mark.skipif(sandbox.landlock_abi() < 4, reason="this kernel has no Landlock with TCP rules")


def tried(tmp_path: Path, code: str) -> dict[str, str]:
    """What came of each `try_(name, call)` in a process that has confined itself to a lake."""
    (tmp_path / "lake").mkdir(exist_ok=True)
    (tmp_path / "outside").mkdir(exist_ok=True)
    (tmp_path / "outside" / "secret").write_text("secret")
    start = f"""
        import ctypes, errno, os, socket, subprocess, sys
        from pathlib import Path
        from engine.config import EngineConfig
        from engine.run import confine
        lake, outside = Path({str(tmp_path / "lake")!r}), Path({str(tmp_path / "outside")!r})
        libc = ctypes.CDLL(None, use_errno=True)
        os.environ["TMPDIR"] = str(lake)
        confine(EngineConfig(), lake, [], connect=False)

        def call(name, *words):
            if getattr(libc, name)(*words) == -1:
                raise OSError(ctypes.get_errno(), name)

        def try_(what, function):
            try:
                function()
                print(what, "done")
            except OSError as error:
                print(what, errno.errorcode[error.errno])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(start) + textwrap.dedent(code)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return dict(line.split() for line in done.stdout.splitlines())


@needs_landlock
def test_files__only_those_of_the_run(tmp_path: Path) -> None:
    got = tried(
        tmp_path,
        """
        try_("write", lambda: (lake / "a").write_text("x"))
        try_("rename", lambda: (lake / "a").rename(lake / "b"))
        try_("outside-write", lambda: (outside / "a").write_text("x"))
        try_("outside-read", lambda: (outside / "secret").read_text())
        try_("outside-list", lambda: os.listdir(outside))
        try_("outside-remove", lambda: (outside / "secret").unlink())
        try_("outside-link", lambda: os.link(lake / "b", outside / "b"))
        try_("home", lambda: os.listdir(Path.home()))
        try_("etc-write", lambda: Path("/etc/packetlake-test").write_text("x"))
        try_("library", lambda: Path(os.__file__).read_text())
        """,
    )
    assert {name for name, what in got.items() if what == "done"} == {"write", "rename", "library"}
    assert set(got.values()) <= {"done", "EACCES", "EXDEV"}


@needs_landlock
def test_programs__of_the_system_but_not_of_the_lake(tmp_path: Path) -> None:
    got = tried(
        tmp_path,
        """
        import shutil
        (lake / "dropped").write_bytes(Path(shutil.which("true")).read_bytes())
        (lake / "dropped").chmod(0o755)
        try_("python", lambda: subprocess.run([sys.executable, "-c", "import engine, analytics, duckdb"], check=True))
        try_("dropped", lambda: subprocess.run([lake / "dropped"], check=True))
        """,
    )
    assert got == {"python": "done", "dropped": "EACCES"}


@needs_landlock
def test_network__no_connections_and_no_listening(tmp_path: Path) -> None:
    got = tried(
        tmp_path,
        """
        try_("connect", lambda: socket.create_connection(("127.0.0.1", 9), 2))
        try_("listen", lambda: socket.create_server(("127.0.0.1", 0)))
        """,
    )
    assert got == {"connect": "EACCES", "listen": "EACCES"}


@pytest.mark.skipif(os.uname().machine not in ("x86_64", "aarch64"), reason="numbers of calls are not known")
def test_calls__dangerous_ones_are_refused_in_every_thread(tmp_path: Path) -> None:
    got = tried(
        tmp_path,
        """
        import threading
        try_("unshare", lambda: call("unshare", 0x10000000))
        try_("ptrace", lambda: call("ptrace", 0, 0, 0, 0))
        try_("mount", lambda: call("mount", b"none", b"/mnt", b"tmpfs", 0, None))
        try_("chroot", lambda: call("chroot", b"/"))
        try_("keyctl", lambda: call("syscall", 250 if os.uname().machine == "x86_64" else 219, 0, -3, 0))
        other = threading.Thread(target=lambda: try_("thread", lambda: call("unshare", 0x10000000)))
        other.start()
        other.join()
        """,
    )
    assert got == dict.fromkeys(("unshare", "ptrace", "mount", "chroot", "keyctl", "thread"), "EPERM")


@needs_landlock
def test_named_files__may_be_replaced_but_a_home_is_not_opened(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "mine.rules").write_text("")
    code = f"""
        import os
        from pathlib import Path
        from engine.config import parse_config
        from engine.run import confine
        os.environ["HOME"] = {str(tmp_path)!r}
        (Path.home() / "list.txt").write_text("a")
        text = '[signatures]\\nfiles = ["{rules}/mine.rules"]\\n[intel]\\nlists = ["{tmp_path}/list.txt"]'
        config = parse_config(text, "t")
        lake = Path({str(tmp_path / "lake")!r})
        lake.mkdir()
        os.environ["TMPDIR"] = str(lake)
        confine(config, lake, [], connect=True)
        print((Path({str(rules)!r}) / "mine.rules").read_text() == "", (Path.home() / "list.txt").read_text())
        print(os.listdir({str(rules)!r}))
        try:
            os.listdir(Path.home())
        except PermissionError:
            print("closed")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["True a", "['mine.rules']", "closed"]


def processes(pid: int) -> list[int]:
    """A process and all it has started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += processes(int(child))
    return found


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@needs_landlock
def test_run__every_process_is_powerless(tmp_path: Path, wire: Wire) -> None:
    """Capture, dashboard and merger: no capability, no way to more, filtered calls."""
    words = ["run", "--iface", wire.capture, "--lake", tmp_path / "lake", "--port", "0", "--no-login"]
    running = Running(["ip", "netns", "exec", wire.here], words, tmp_path / "log")
    try:
        running.wait_for("Ctrl-C stops", 300)
        deadline = time.monotonic() + 60
        while len(pids := processes(running.process.pid)) < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(pids) >= 3
        for pid in pids:
            state = sandbox.state(pid)
            for task in Path(f"/proc/{pid}/task").iterdir():
                thread = sandbox.state(f"{pid}/task/{task.name}")
                assert (thread["Seccomp"], thread["NoNewPrivs"]) == ("2", "1"), state["Name"]
                assert {int(thread[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {0}
    finally:
        running.kill()


def test_switch__off_is_off(tmp_path: Path) -> None:
    """It is a setting that is validated and on by default."""
    config = tmp_path / "off.toml"
    config.write_text("[security]\nsandbox = false\n")
    done = engine("config", "--config", config)
    assert "sandbox = false" in done.stdout
    assert EngineConfig().security.sandbox
