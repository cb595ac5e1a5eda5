"""SQL that must be stopped from outside: what runs it is a process, gone soon after the limit whatever DuckDB does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from analytics.watch import sql_worker, sqlrun
from analytics.watch.context import Stopped
from analytics.watch.sqlrun import SqlRunner
from engine.errors import ConfigError, StoreError
from tests.commands import ROOT
from tests.lakes import write_lake
from tests.webui.test_serve import listening, start, wait_healthy
from webui import users

LIMIT_S = 2.0
TOO_LATE_S = LIMIT_S + 2
ENDLESS = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t"
ONE_VALUE = "SELECT levenshtein(repeat('a', 1000000), repeat('b', 1000000))"  # DuckDB sees no interrupt within it
LONG_TEXT = "SELECT regexp_matches(repeat('abcdefgh', 100000000), '([a-h]{1,30}.?){30}x')"
BOMB = "SELECT string_agg(repeat('x', 1000000) || range, '') FROM range(1000000)"


def processes(lake: Path, parent: int = 0) -> list[int]:
    """Processes for SQL over the lake of a parent, by default this process."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            state = (entry / "stat").read_text().rpartition(")")[2].split()
            words = (entry / "cmdline").read_bytes()
            if int(state[1]) == (parent or os.getpid()) and b"sql_worker" in words and bytes(lake) in words:
                found.append(int(entry.name))
    return found


def wait_until(holds: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sql") / "lake"
    write_lake(path, rows=300, seconds=5)
    return path


@pytest.fixture
def runner(lake: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqlRunner]:
    monkeypatch.setattr(sqlrun, "LIMIT_S", LIMIT_S)
    runner = SqlRunner(lake)
    yield runner
    runner.close()
    assert wait_until(lambda: not processes(runner.lake))


def warm(runner: SqlRunner) -> None:
    runner.show("SELECT 1", "ann")


def shown(runner: SqlRunner, sql: str, **how: Any) -> Any:
    return json.loads(runner.show(sql, "ann", **how).body)


@pytest.mark.parametrize("sql", [ENDLESS, ONE_VALUE, LONG_TEXT, BOMB, f"{ENDLESS}; SELECT 1"])
def test_whatever_runs_is_gone_soon_after_the_limit(runner: SqlRunner, sql: str) -> None:
    warm(runner)
    [worker] = processes(runner.lake)
    began = time.monotonic()
    with pytest.raises((Stopped, ConfigError), match=r"took longer than 2 s|more memory than it may use") as failed:
        runner.show(sql, "ann")
    assert time.monotonic() - began < TOO_LATE_S
    assert "\n" not in str(failed.value)
    if isinstance(failed.value, Stopped):
        assert wait_until(lambda: worker not in processes(runner.lake), 2)
    assert shown(runner, "SELECT count(*) FROM packets")["rows"] == [[300]]


@pytest.mark.parametrize("sql", [BOMB, "SELECT repeat('x', 4000000000)", "SELECT range(1000000000)"])
def test_what_takes_too_much_memory_says_so(runner: SqlRunner, sql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlrun, "LIMIT_S", 60.0)
    with pytest.raises(ConfigError) as failed:
        runner.show(sql, "ann")
    assert str(failed.value) == sql_worker.TOO_LARGE


def test_a_process_has_no_more_address_space_than_it_may_use(runner: SqlRunner) -> None:
    warm(runner)
    [worker] = processes(runner.lake)
    [line] = [x for x in Path(f"/proc/{worker}/limits").read_text().splitlines() if x.startswith("Max address space")]
    assert int(line.split()[3]) < 4 << 30
    assert Path(f"/proc/{worker}/oom_score_adj").read_text() == "800\n"


def test_others_get_answers_meanwhile(runner: SqlRunner) -> None:
    ended: list[BaseException] = []

    def run() -> None:
        try:
            runner.show(ONE_VALUE, "ann")
        except Stopped as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert shown(runner, "SELECT count(*) FROM packets")["rows"] == [[300]]
    assert not ended
    thread.join(20)
    assert len(ended) == 1


def test_no_more_at_once_than_it_takes(runner: SqlRunner) -> None:
    parts = [runner.export("FROM range(100000000000)", "ann", "csv") for _ in range(sqlrun.AT_ONCE)]
    assert all(next(part) for part in parts)
    with pytest.raises(Stopped, match="2 queries are running already"):
        runner.show("SELECT 1", "bob")
    for part in parts:
        part.close()
    assert shown(runner, "SELECT 1 AS one")["rows"] == [[1]]


def test_a_process_serves_one_after_another_and_nothing_stays(runner: SqlRunner) -> None:
    warm(runner)
    [worker] = processes(runner.lake)
    shown(runner, "CREATE TABLE mine AS SELECT 1 AS one; FROM mine")
    with pytest.raises(ConfigError, match="mine does not exist"):
        runner.show("FROM mine", "bob")
    with pytest.raises(ConfigError, match="line 2"):
        runner.show("SELECT 1\nFROM WHERE", "bob")
    assert processes(runner.lake) == [worker]


def test_a_process_that_ended_is_replaced(runner: SqlRunner) -> None:
    warm(runner)
    [worker] = processes(runner.lake)
    os.kill(worker, signal.SIGKILL)
    assert shown(runner, "SELECT 1 AS one")["rows"] == [[1]]


def test_a_file_is_stopped_by_who_takes_it_no_more(runner: SqlRunner) -> None:
    parts = runner.export("FROM range(100000000000)", "ann", "arrow")
    assert next(parts)
    [worker] = processes(runner.lake)
    parts.close()
    assert wait_until(lambda: worker not in processes(runner.lake))


def test_a_file_that_takes_too_long_breaks(runner: SqlRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlrun, "EXPORT_S", 1.0)
    parts = runner.export("FROM range(100000000000)", "ann", "csv")
    with pytest.raises(Stopped, match="took longer than 1 s"):
        deque(parts, maxlen=0)


def test_values_are_cut_before_they_reach_the_dashboard(runner: SqlRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlrun, "LIMIT_S", 60.0)
    found = shown(runner, "SELECT repeat('x', 20000000) AS a, range(20000) AS b, {'c': repeat('y', 20000)} AS d")
    assert [len(value) for value in found["rows"][0]] == [sql_worker.MAX_CELL + 1] * 3
    many = runner.show("SELECT repeat('x', 9000) AS a FROM range(10000)", "ann")
    assert len(many.body) < sql_worker.MAX_SHOWN + 100_000
    assert json.loads(many.body)["truncated"] is True


def test_a_lake_that_is_none_is_said(tmp_path: Path) -> None:
    runner = SqlRunner(tmp_path / "none")
    with pytest.raises(StoreError, match="does not exist"):
        runner.show("SELECT 1", "ann")
    runner.close()


def test_a_lake_without_some_tables_leaves_no_files(
    lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty segments stand in for its tables; they go with the process, killed or not."""
    assert not (lake / "snmp").exists()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    runner = SqlRunner(lake)
    assert shown(runner, "SELECT count(*) FROM snmp")["rows"] == [[0]]
    assert list(tmp_path.rglob("*.parquet"))
    runner.close()
    assert wait_until(lambda: not list(tmp_path.iterdir()))


def test_processes_end_with_their_parent(lake: Path) -> None:
    """Busy within one value, and killed without a word."""
    program = (
        "import sys, threading; from pathlib import Path; from analytics.watch.sqlrun import SqlRunner\n"
        "runner = SqlRunner(Path(sys.argv[1])); runner.show('SELECT 1', 'ann'); print('ready', flush=True)\n"
        "runner.show(sys.argv[2], 'ann')"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(lake), ONE_VALUE], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    workers = processes(lake, parent.pid)
    time.sleep(0.3)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert len(workers) == 1
    assert wait_until(lambda: not Path(f"/proc/{workers[0]}/cmdline").exists())


# --- over HTTP -------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(lake: Path) -> Iterator[tuple[int, int, str]]:
    """The dashboard as a process: its number, its port, a token."""
    with contextlib.suppress(ConfigError):  # of the test before
        users.add(lake, "ann", "correct horse battery", "admin")
    token = users.add_token(lake, "ann", "operator", 1, "sql")
    with listening() as listener:
        fd, port = listener.fileno(), listener.getsockname()[1]
        with start(lake, "--fd", str(fd), pass_fds=(fd,)) as process:
            wait_healthy(port)
            yield process.pid, port, token
            left = processes(lake, process.pid)
            process.terminate()
            assert process.wait(20) == 0
            assert wait_until(lambda: not any(Path(f"/proc/{worker}/cmdline").exists() for worker in left))


@contextlib.contextmanager
def asked(port: int, token: str, **body: str) -> Iterator[socket.socket]:
    content = json.dumps(body).encode()
    head = (
        f"POST /api/v1/sql HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=60) as browser:
        browser.sendall(head.encode() + content)
        yield browser


@pytest.mark.parametrize("form", ["json", "csv"])
def test_a_browser_that_goes_away_ends_its_query(lake: Path, served: tuple[int, int, str], form: str) -> None:
    dashboard, port, token = served
    with asked(port, token, sql=ONE_VALUE, format=form):
        assert wait_until(lambda: len(processes(lake, dashboard)) == 1)
        time.sleep(1)
        [worker] = processes(lake, dashboard)
        with asked(port, token, sql="SELECT count(*) AS n FROM packets") as other:
            assert b'"rows":[[300]]' in b"".join(iter(lambda: other.recv(65536), b""))
    assert wait_until(lambda: worker not in processes(lake, dashboard), 5)


def test_a_browser_that_leaves_in_the_middle_of_a_file_ends_its_query(lake: Path, served: tuple[int, int, str]) -> None:
    dashboard, port, token = served
    with asked(port, token, sql="FROM range(100000000000)", format="csv") as browser:
        assert browser.recv(100).startswith(b"HTTP/1.1 200")
        [worker] = processes(lake, dashboard)
    assert wait_until(lambda: worker not in processes(lake, dashboard), 5)
