"""Rights are given up for good, by every thread; the lake goes to the account that writes it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.capture import privileges
from engine.capture.privileges import Account, choose_account, prepare_lake, runtime_paths
from engine.errors import ConfigError, StoreError

needs_root = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
NOBODY = pwd.getpwnam("nobody")
ROOT_DIR = Path(__file__).parents[3]


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that every account can reach (tmp_path is closed to others)."""
    path = Path(f"/tmp/plpriv{os.getpid()}")
    path.mkdir(mode=0o755)
    yield path
    shutil.rmtree(path)


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new process, since rights do not come back."""
    lines = "import os, socket, threading, time\nfrom pathlib import Path\nfrom engine.capture import privileges as p\n"
    return subprocess.run(
        [sys.executable, "-c", lines + textwrap.dedent(code)], capture_output=True, text=True, cwd=ROOT_DIR, timeout=60,
        env={**{k: v for k, v in os.environ.items() if not k.startswith("SUDO_")}, **environment},
    )  # fmt: skip


STATUS = """
for task in Path('/proc/self/task').iterdir():
    for line in (task / 'status').read_text().splitlines():
        if line.startswith(('Cap', 'NoNewPrivs', 'Uid', 'Gid', 'Groups')):
            print(line.replace('\\t', ' '))
"""


def assert_powerless(output: str) -> None:
    for line in output.splitlines():
        if line.startswith("Cap"):
            assert int(line.split()[1], 16) == 0, line
    assert output.count("CapEff") >= 2, "the first thread and one started after the drop"
    assert output.count("NoNewPrivs: 1") == output.count("CapEff")


AFTER = "threading.Thread(target=time.sleep, args=(5,), daemon=True).start()\n" + STATUS


class TestDrop:
    pytestmark = needs_root

    def test_drop__to_nobody(self) -> None:
        done = run("print(p.drop(p._lookup('nobody')))\n" + AFTER + "\nprint('capture', p.can_capture())")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("running as nobody without capabilities\n")
        assert_powerless(done.stdout)
        assert f"Uid: {' '.join([str(NOBODY.pw_uid)] * 4)}" in done.stdout
        assert f"Gid: {' '.join([str(NOBODY.pw_gid)] * 4)}" in done.stdout
        assert "capture False" in done.stdout

    def test_drop__keeping_uid_0_keeps_no_capability(self) -> None:
        done = run(
            "print(p.drop(p.Account(0, 0, (), 'root', '/root', 'nobody cannot read /x')))\n" + AFTER + "\n"
            "print('capture', p.can_capture())\nprint('sub', os.popen('grep CapPrm /proc/self/status').read())"
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("keeps uid 0 without any capability because nobody cannot read /x; files of root")
        assert_powerless(done.stdout)
        assert "capture False" in done.stdout
        assert "sub CapPrm:\t0000000000000000" in done.stdout  # a program started by uid 0 gains nothing either

    def test_drop__there_is_no_way_back(self) -> None:
        done = run("p.drop(p._lookup('nobody'))\ntry: os.setuid(0)\nexcept PermissionError: print('refused')")
        assert done.stdout == "refused\n"

    def test_drop__a_thread_that_keeps_rights_is_found(self) -> None:
        done = run(
            "threading.Thread(target=time.sleep, args=(5,), daemon=True).start()\n"
            "try: p.drop(p.Account(0, 0, (), 'root', '/root', 'x'))\nexcept Exception as e: print(type(e).__name__, e)"
        )
        assert done.stdout.startswith("CaptureError thread ")
        assert "CapPrm, CapEff" in done.stdout
        assert "\n" not in done.stdout.strip()

    def test_drop__threads_that_exist_already_follow_to_another_uid(self) -> None:
        done = run(
            "threading.Thread(target=time.sleep, args=(5,), daemon=True).start()\n"
            "print(p.drop(p._lookup('nobody')))\n" + STATUS.replace("'Cap'", "'CapInh', 'CapPrm', 'CapEff', 'CapAmb'")
        )
        assert done.stdout.startswith("running as nobody without capabilities\n"), done.stderr
        assert_powerless(done.stdout)

    def test_drop__with_numpy_and_one_blas_thread(self) -> None:
        done = run("import engine.packets\nprint(p.drop(p._lookup('nobody')))", OPENBLAS_NUM_THREADS="1")
        assert done.stdout == "running as nobody without capabilities\n", done.stderr

    def test_drop__capture_goes_on_afterwards(self) -> None:
        done = run(
            """
            from engine.capture.live import LiveSource
            from engine.config import CaptureConfig
            from engine.packets import FrameBatch
            source = LiveSource('lo', CaptureConfig(snaplen=2048)); source.open()
            p.drop(p._lookup('nobody'))
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', 0))
            s.sendto(b'x', s.getsockname())
            b = FrameBatch(rows=100, arena_bytes=1 << 20); time.sleep(.3); source.read(b)
            print(b.count >= 1, source.counters().received >= 1); source.close()
            """,
            OPENBLAS_NUM_THREADS="1",
            NUMBA_DISABLE_JIT="0",
        )
        assert done.stdout == "True True\n", done.stderr

    def test_drop__not_root_at_all(self) -> None:
        done = run(
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "a = p.choose_account(None, [], Path('/tmp/x')); print(a.uid); print(p.drop(a)); print(p.can_capture())\n"
        )
        assert done.stdout == "65534\nrunning as nobody without capabilities\nFalse\n", done.stderr


@pytest.fixture
def reachable_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that `nobody` can start; the one that runs the tests may lie in root's home."""
    for path in (sys.executable, "/usr/bin/python3"):
        try:
            subprocess.run([path, "-c", ""], user="nobody", group=NOBODY.pw_gid, extra_groups=[], check=True, cwd="/")
        except (OSError, subprocess.CalledProcessError):
            continue
        monkeypatch.setattr(sys, "executable", path)
        return
    pytest.skip("no Python that the account nobody can run")


@pytest.mark.usefixtures("reachable_python")
class TestChooseAccount:
    pytestmark = needs_root

    def test_choose__python_out_of_reach(self, open_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", str(open_dir / "python"))
        monkeypatch.delenv("SUDO_UID", raising=False)
        assert f"account nobody cannot run {open_dir}/python" in choose_account(None, [], open_dir / "lake").reason

    def test_choose__unknown_user(self) -> None:
        with pytest.raises(ConfigError, match="--user nosuchuser: no such account"):
            choose_account("nosuchuser", [], Path("/tmp/x"))

    def test_choose__named_user(self, open_dir: Path) -> None:
        account = choose_account("nobody", [], open_dir / "lake")
        assert (account.uid, account.gid, account.name) == (NOBODY.pw_uid, NOBODY.pw_gid, "nobody")

    def test_choose__named_user_that_cannot_read(self, open_dir: Path) -> None:
        secret = open_dir / "secret"
        secret.mkdir(mode=0o700)
        with pytest.raises(ConfigError, match=f"--user nobody: account nobody has no access to {secret}"):
            choose_account("nobody", [secret], open_dir / "lake")

    def test_choose__named_user_that_cannot_write_the_lake(self, open_dir: Path) -> None:
        with pytest.raises(ConfigError, match=f"account nobody has no access to {open_dir}"):
            choose_account("nobody", [], open_dir)

    def test_choose__sudo_before_service_accounts(self, open_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        daemon = pwd.getpwnam("daemon")
        monkeypatch.setenv("SUDO_UID", str(daemon.pw_uid))
        assert choose_account(None, [], open_dir / "lake").name == "daemon"
        monkeypatch.setenv("SUDO_UID", "0")
        assert choose_account(None, [], open_dir / "lake").name in privileges.SERVICE_ACCOUNTS

    def test_choose__plain_root_keeps_uid_0_when_nobody_cannot_read(
        self, open_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("SUDO_UID", raising=False)
        secret = open_dir / "secret"
        secret.mkdir(mode=0o700)
        account = choose_account(None, [secret], open_dir / "lake")
        assert account.uid == 0
        assert f"account nobody has no access to {secret}" in account.reason

    def test_choose__lake_with_a_table_of_root_is_an_obstacle(self, open_dir: Path) -> None:
        lake = open_dir / "lake"
        prepare_lake(lake, choose_account("nobody", [], lake))
        assert choose_account("nobody", [], lake).name == "nobody"
        (lake / "packets").mkdir(mode=0o755)
        with pytest.raises(ConfigError, match=r"no access to .*/packets"):
            choose_account("nobody", [], lake)

    def test_choose__the_installation_is_what_is_read(self) -> None:
        paths = runtime_paths()
        assert Path(privileges.__file__).parents[1] in paths
        assert all(path.exists() for path in paths)


class TestPrepareLake:
    pytestmark = needs_root

    def test_prepare__gives_away_only_what_it_made(self, open_dir: Path) -> None:
        prepare_lake(open_dir / "a/b/lake", privileges._lookup("nobody"))
        assert open_dir.stat().st_uid == 0
        assert [(open_dir / p).stat().st_uid for p in ("a", "a/b", "a/b/lake")] == [NOBODY.pw_uid] * 3
        other = open_dir / "a/b/lake/of_root"
        other.touch()
        prepare_lake(open_dir / "a/b/lake", privileges._lookup("daemon"))
        assert other.stat().st_uid == 0
        assert (open_dir / "a/b/lake").stat().st_uid == NOBODY.pw_uid

    def test_prepare__refuses_links_of_others(self, open_dir: Path) -> None:
        (open_dir / "target").mkdir()
        (open_dir / "link").symlink_to("target")
        os.lchown(open_dir / "link", 1, 1)
        with pytest.raises(StoreError, match="is a link that"):
            prepare_lake(open_dir / "link/lake", privileges._lookup("nobody"))
        assert not (open_dir / "target/lake").exists()

    def test_prepare__dangling_link_is_not_followed(self, open_dir: Path) -> None:
        (open_dir / "lake").symlink_to("/tmp/plnowhere")
        with pytest.raises(StoreError, match="cannot be created"):
            prepare_lake(open_dir / "lake", privileges._lookup("nobody"))
        assert not Path("/tmp/plnowhere").exists()

    def test_prepare__a_file_in_the_way(self, open_dir: Path) -> None:
        (open_dir / "file").touch()
        with pytest.raises(StoreError, match="not a directory; choose another --lake"):
            prepare_lake(open_dir / "file/lake", privileges._lookup("nobody"))


def test_prepare__without_root(tmp_path: Path) -> None:
    me = Account(os.geteuid(), os.getegid(), (), "me", "")
    prepare_lake(tmp_path / "x/lake", me)
    assert (tmp_path / "x/lake").is_dir()
