"""`python -m webui` as a process: ports, inherited sockets, signals, a parent that dies."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.commands import Running, engine
from tests.lakes import write_empty_lake
from tests.webui.conftest import add_people
from webui import auth, users

WAIT_S = 60


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    write_empty_lake(tmp_path)
    return tmp_path


@contextmanager
def listening(address: str = "127.0.0.1") -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.bind((address, 0))
        listener.listen(16)
        yield listener


def wait_healthy(port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=WAIT_S) as response:
        assert response.status == 200
        assert "Server" not in response.headers


def start(lake: Path, *arguments: str, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "webui", "--lake", str(lake), *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve__inherited_socket_answers_and_stops_at_once(lake, number):
    with listening() as listener:
        fd = listener.fileno()
        process = start(lake, "--fd", str(fd), pass_fds=(fd,))
        with process:
            # The parent listens already: a request made now waits until the dashboard has loaded.
            wait_healthy(listener.getsockname()[1])
            assert os.getpriority(os.PRIO_PROCESS, process.pid) >= 5
            assert Path(f"/proc/{process.pid}/oom_score_adj").read_text() == "500\n"
            process.send_signal(number)
            began = time.monotonic()
            assert process.wait(WAIT_S) == 0
            assert time.monotonic() - began < 2
            assert process.stderr is not None
            assert process.stderr.read() == ""


def test_serve__port_in_use_is_one_line_and_exit_code_2(lake):
    with listening() as listener:
        port = listener.getsockname()[1]
        with start(lake, "--port", str(port)) as process:
            _, error = process.communicate(timeout=WAIT_S)
    assert process.returncode == 2
    reason = "Address already in use; choose another with --port"
    assert error == f"dashboard: cannot listen on 127.0.0.1:{port}: {reason}\n"


@pytest.mark.parametrize("words", [("--host", "0.0.0.0"), ("--host", "::"), ("--host", "0.0.0.0", "--no-login")])
def test_serve__beyond_loopback_needs_a_password(lake, words):
    with start(lake, "--port", "0", *words) as process:
        _, error = process.communicate(timeout=WAIT_S)
    assert process.returncode == 2
    assert error.count("\n") == 1
    assert "nobody has a password" in error or "without a login" in error


def test_serve__password_file_opens_it_to_others(lake, tmp_path):
    (tmp_path / "password").write_text("correct horse battery\n")
    with listening("0.0.0.0") as listener:
        fd = listener.fileno()
        given = {"pass_fds": (fd,), "env": os.environ | {"ENGINE_PASSWORD_FILE": str(tmp_path / "password")}}
        with start(lake, "--fd", str(fd), **given) as process:
            wait_healthy(listener.getsockname()[1])
            process.terminate()
            assert process.wait(WAIT_S) == 0
    assert users.verify(lake, "admin", "correct horse battery")


def test_serve__one_tls_file_without_the_other_is_refused(lake):
    with start(lake, "--port", "0", "--tls-cert", "x.pem") as process:
        _, error = process.communicate(timeout=WAIT_S)
    assert process.returncode == 2
    assert error == "dashboard: TLS needs both files: --tls-cert and --tls-key\n"


def test_command__prints_where_to_set_up_and_then_only_the_address(tmp_path):
    lake = tmp_path / "lake"
    write_empty_lake(lake)
    for _ in range(2):
        running = Running([], ["dashboard", "--lake", lake, "--port", "0"], tmp_path / "log")
        try:
            said = running.wait_for("Ctrl-C stops")
            address = re.search(r"dashboard: (http://127\.0\.0\.1:\d+)(/\S*)", said)
            assert address is not None
            link = engine("link", "--lake", lake)
            if users.listing(lake):
                assert address[2] == "/"
                assert link.stdout.startswith(f"{address[1]}/login#token=")
            else:
                assert address[2].startswith("/setup#token=")
                assert auth.peek(lake, address[2].partition("=")[2]) == ""
                assert link.stdout.startswith(f"{address[1]}/setup#token=")
                add_people(lake)
        finally:
            running.stop(signal.SIGINT)
            running.kill()


def test_serve__descriptor_that_is_no_listening_socket_is_refused(lake):
    with socket.socket() as idle, start(lake, "--fd", str(idle.fileno()), pass_fds=(idle.fileno(),)) as process:
        _, error = process.communicate(timeout=WAIT_S)
    assert process.returncode == 2
    assert error.count("\n") == 1
    assert "the socket does not listen" in error


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_serve__lake_that_cannot_be_written_is_refused(lake):
    lake.chmod(0o500)
    with start(lake, "--port", "0") as process:
        _, error = process.communicate(timeout=WAIT_S)
    lake.chmod(0o700)
    assert process.returncode == 2
    assert "is not writable" in error


def test_serve__ends_when_its_parent_is_killed(lake):
    with listening() as listener:
        fd = listener.fileno()
        code = (
            "import subprocess, sys, os, time\n"
            "child = subprocess.Popen([sys.executable, '-m', 'webui', '--lake', sys.argv[1], '--fd', sys.argv[2],\n"
            "                          '--with-parent', str(os.getpid())], pass_fds=[int(sys.argv[2])])\n"
            "print(child.pid, flush=True)\n"
            "time.sleep(600)\n"
        )
        command = [sys.executable, "-c", code, str(lake), str(fd)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=(fd,)) as parent:
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
            wait_healthy(listener.getsockname()[1])
            parent.kill()
            parent.wait(WAIT_S)
        deadline = time.monotonic() + 10
        while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
            assert time.monotonic() < deadline, "the dashboard outlived its parent"
            time.sleep(0.05)
