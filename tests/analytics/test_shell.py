"""`engine sql`: formats, errors, scripts and the prompt."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from analytics.shell import VIEWS, prompt, run_query
from engine.errors import ConfigError, StoreError
from tests.analytics.small_lake import make_lake, segment

RUN = "import sys; from analytics.shell import run_query; run_query(sys.argv[1], sys.argv[2], sys.argv[3])"
PROMPT = (
    "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "from analytics.shell import prompt; prompt(sys.argv[1])"
)
# Nothing in it that an optimiser could answer beforehand.
LONG = "SELECT sum(sin(a)) FROM range(1000000000000) t(a)"


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return make_lake(tmp_path / "lake", "10.0.0.1", "8.8.8.8", "2001:db8::1")


def output(capfd: pytest.CaptureFixture[str], lake: Path, sql: str, fmt: str = "table") -> str:
    run_query(lake, sql, fmt)
    return capfd.readouterr().out


# --- formats ----------------------------------------------------------------------------------------------------


def test_table__is_aligned_and_counted(capfd: pytest.CaptureFixture[str], lake: Path) -> None:
    assert output(capfd, lake, "SELECT src_ip, wirelen, ttl FROM packets ORDER BY wirelen") == (
        "src_ip       wirelen  ttl\n"
        "-----------  -------  ---\n"
        "10.0.0.1         100\n"
        "8.8.8.8          200\n"
        "2001:db8::1      300\n"
        "3 rows\n"
    )


def test_table__shows_200_rows_of_more(capfd: pytest.CaptureFixture[str], lake: Path) -> None:
    lines = output(capfd, lake, "FROM range(123456)").splitlines()
    assert len(lines) == 2 + 200 + 1
    assert lines[-1] == "123456 rows, the first 200 shown"


def test_table__of_nothing_and_of_one(capfd: pytest.CaptureFixture[str], lake: Path) -> None:
    assert output(capfd, lake, "SELECT 1 AS a WHERE false") == "a\n-\n0 rows\n"
    assert output(capfd, lake, "SELECT 1 AS a") == "a\n-\n1\n1 row\n"


def test_table__cannot_be_upset_by_what_packets_carry(capfd: pytest.CaptureFixture[str], lake: Path) -> None:
    text = output(
        capfd, lake, "SELECT 'a' || chr(27) || '[2J' || chr(10) || 'b' AS x, repeat('z', 500) AS y, '日本' AS z"
    )
    assert "\x1b" not in text
    assert "a·[2J·b" in text
    assert "z" * 79 + "…" in text
    assert len(text.splitlines()) == 4


def test_table__times_are_utc(capfd: pytest.CaptureFixture[str], lake: Path) -> None:
    text = output(capfd, lake, "SELECT ts, TIMESTAMPTZ '2026-11-24 12:00:00+02' AS z FROM packets LIMIT 1")
    assert "2026-11-24 12:00:00  2026-11-24 10:00:00\n" in text


def test_table__explain_is_drawn(capfd: pytest.CaptureFixture[str], lake: Path) -> None:
    assert len(output(capfd, lake, "EXPLAIN SELECT count(*) FROM packets").splitlines()) > 5


def test_csv__reads_back_with_null_and_empty_apart(capfd: pytest.CaptureFixture[str], lake: Path) -> None:
    text = output(
        capfd, lake, """SELECT 'a,"b"' AS x, NULL AS y, '' AS z, sum(wirelen) AS w, [1, 2] AS l FROM packets""", "csv"
    )
    assert list(csv.reader(io.StringIO(text))) == [["x", "y", "z", "w", "l"], ['a,"b"', "", "", "600", "[1, 2]"]]
    assert ',,"",600,' in text


def test_csv__plain_values_are_not_quoted(capfd: pytest.CaptureFixture[str], lake: Path) -> None:
    text = output(capfd, lake, "SELECT ts, src_ip, status, ttl FROM packets ORDER BY wirelen LIMIT 1", "csv")
    assert text == "ts,src_ip,status,ttl\n2026-11-24 12:00:00.000000,10.0.0.1,ok,\n"


def test_json__is_an_array_of_objects(capfd: pytest.CaptureFixture[str], lake: Path) -> None:
    text = output(
        capfd, lake, "SELECT ts, src_ip, ttl, 1 AS ttl, sum(wirelen) OVER () AS w, 'nan'::DOUBLE AS n, {'k': [1]} AS s "
        "FROM packets ORDER BY wirelen LIMIT 1", "json",
    )  # fmt: skip
    assert json.loads(text) == [
        {
            "ts": "2026-11-24 12:00:00",
            "src_ip": "10.0.0.1",
            "ttl": None,
            "ttl_1": 1,
            "w": 600,
            "n": None,
            "s": {"k": [1]},
        }
    ]
    assert json.loads(output(capfd, lake, "SELECT 1 WHERE false", "json")) == []


def test_parquet__to_a_file(lake: Path, tmp_path: Path) -> None:
    run_query(lake, "SELECT ts, src_ip, sum(wirelen) OVER () AS w FROM packets", "parquet", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.num_rows == 3
    assert set(table["src_ip"].to_pylist()) == {"10.0.0.1", "8.8.8.8", "2001:db8::1"}


def test_parquet__to_a_pipe(lake: Path) -> None:
    done = subprocess.run([sys.executable, "-c", RUN, lake, "FROM packets", "parquet"], capture_output=True, timeout=60)
    assert pq.read_table(io.BytesIO(done.stdout)).num_rows == 3


def test_parquet__to_a_terminal_is_refused(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(ConfigError, match="--output"):
        run_query(lake, "FROM packets", "parquet")


@pytest.mark.parametrize("fmt", ["csv", "json", "parquet"])
def test_long_result__is_streamed(lake: Path, tmp_path: Path, fmt: str) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from analytics.shell import run_query\n"
        "run_query(sys.argv[1], 'SELECT range AS a, range * 2 AS b FROM range(1000)', sys.argv[2], Path(sys.argv[3]))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "n = 400_000 if sys.argv[2] == 'json' else 8_000_000\n"
        "run_query(sys.argv[1], f'SELECT range AS a, range * 2 AS b FROM range({n})', sys.argv[2], Path(sys.argv[3]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, lake, fmt, tmp_path / "out"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert int(done.stdout) < 60_000  # KiB; 8 million rows of two numbers alone are 125,000


def test_output__that_fails_leaves_the_old_file(lake: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_text("old")
    sql = "SELECT CASE WHEN range = 2000000 THEN 'x' ELSE '1' END::INT FROM range(3000000)"
    with pytest.raises(ConfigError, match="Could not convert string 'x'"):
        run_query(lake, sql, "csv", target)
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir() if p.name != "lake"] == ["out.csv"]


def test_output__into_a_missing_directory(lake: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot write .*nowhere/x\.csv: No such file"):
        run_query(lake, "SELECT 1", "csv", tmp_path / "nowhere/x.csv")


def test_closed_pipe__is_quiet(lake: Path) -> None:
    command = [sys.executable, "-c", RUN, str(lake), "FROM range(5000000)", "csv"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(100)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


# --- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("selec 1", 'syntax error at or near "selec" — line 1, at: selec 1'),
        ("SELECT\n src_ip,\n nope\nFROM packets", 'column "nope" not found.* — line 3, at: nope|"nope" not found'),
        ("SELECT * FROM packet", "Table with name packet does not exist"),
        ("SELECT cast(src_ip AS INT) FROM packets", "Could not convert string"),
        ("SELECT * FROM packets WHERE src_ip <<= 'here'", "'here' is not a network"),
        ("SELECT 'abc", "unterminated"),
        ("", "the SQL is empty"),
        (" ;; -- nothing", "the SQL is empty"),
        ("SELECT 1; selec 2", "syntax error"),
        ("COPY packets TO 'x.csv'", "COPY is refused.*--output"),
        ("ATTACH 'x.db'", "ATTACH is refused"),
        ("SELECT * FROM sys", "Table with name sys does not exist"),  # a variable of ours is not a table
    ],
)
def test_wrong_sql__is_one_line(lake: Path, sql: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        run_query(lake, sql)
    assert "\n" not in str(caught.value)


def test_copy__writes_nothing_into_the_lake(lake: Path) -> None:
    before = sorted(lake.rglob("*"))
    for sql in ("COPY (SELECT 1) TO '{0}/x.parquet'", "EXPLAIN ANALYZE COPY (SELECT 1) TO '{0}/x.parquet'"):
        with pytest.raises(ConfigError, match="COPY is refused"):
            run_query(lake, sql.format(lake / "packets"))
    assert sorted(lake.rglob("*")) == before


def test_unknown_format__names_the_known(lake: Path) -> None:
    with pytest.raises(ConfigError, match="--format xml is unknown; use one of table, csv, json, parquet"):
        run_query(lake, "SELECT 1", "xml")


def test_damaged_segment__is_named_with_the_remedy(lake: Path) -> None:
    damaged = segment(lake, "packets", [{}] * 1000, name="1-0")
    damaged.write_bytes(damaged.read_bytes()[:-300])
    with pytest.raises(StoreError, match=rf"^segment {damaged} cannot be read [^\n]*move it out of the lake[^\n]*$"):
        run_query(lake, "SELECT sum(wirelen) FROM packets")


def test_several_statements__print_the_last_result(capfd: pytest.CaptureFixture[str], lake: Path) -> None:
    sql = "CREATE TABLE big AS SELECT src_ip FROM packets WHERE wirelen > 100; SELECT count(*) AS n FROM big;"
    assert output(capfd, lake, sql) == "n\n-\n2\n1 row\n"
    assert output(capfd, lake, "CREATE TABLE t AS SELECT 1") == ""


@pytest.mark.parametrize("sql", [LONG, "FROM range(1000000000000)"], ids=["silent", "chatty"])
def test_ctrl_c__stops_a_query(lake: Path, sql: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(lake), sql, "csv"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    with process:
        time.sleep(2.5)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, errors = process.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert errors.strip().splitlines()[-1] == "KeyboardInterrupt"


# --- prompt -----------------------------------------------------------------------------------------------------


def test_script__from_stdin(capfd: pytest.CaptureFixture[str], lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("CREATE TABLE t AS SELECT 7 AS x;\nSELECT x\nFROM t;\n"))
    prompt(lake)
    assert capfd.readouterr().out == "x\n-\n7\n1 row\n"


class Terminal:
    """The prompt in a pseudo-terminal."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self._master, self.process = master, process
        self.text = ""

    def until(self, wanted: str, timeout_s: float = 30) -> str:
        """What is shown up to and including `wanted`."""
        deadline = time.monotonic() + timeout_s
        while wanted not in self.text:
            ready, _, _ = select.select([self._master], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"{wanted!r} did not come; there was {self.text!r}"
            self.text += os.read(self._master, 65536).decode().replace("\r\n", "\n")
        shown, _, self.text = self.text.partition(wanted)
        return shown + wanted

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())


@contextmanager
def terminal(lake: Path, state: Path) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    environment = {**os.environ, "XDG_STATE_HOME": str(state), "TERM": "dumb"}

    process = subprocess.Popen(
        [sys.executable, "-c", PROMPT, str(lake)],
        env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        if process.poll() is None:
            process.kill()
        # A terminal that nobody reads keeps a process from ending.
        threading.Thread(target=os.close, args=(master,)).start()
        process.wait(10)


def test_prompt__answers_commands_and_keeps_history(lake: Path, tmp_path: Path) -> None:
    with terminal(lake, tmp_path / "state") as shell:
        shell.until("sql> ")
        shell.type("SELECT 40 +\n")
        shell.until("...> ")
        shell.type("2 AS answer;\n")
        assert "42\n1 row" in shell.until("1 row\n")
        shell.until("sql> ")
        shell.type("SELECT ';\n")
        shell.until("...> ")  # the semicolon was in a string
        shell.type("' AS s;\n")
        shell.until("1 row\n")
        shell.type(".tables\n")
        listed = shell.until(f"{len(VIEWS)} rows\n")
        assert [line.split()[0] for line in listed.splitlines()[-1 - len(VIEWS) : -1]] == list(VIEWS)
        assert "Who is who?" in listed
        shell.type(".schema addresses\n")
        assert "first_seen" in shell.until("5 rows\n")
        shell.type(".schema nope\n")
        shell.until("name one of packets")
        shell.type(".help\n")
        shell.until("Ctrl-C stops a query")
        shell.type("selec;\n")
        shell.until("syntax error")
        shell.type(".bogus\n")
        shell.until("is not a command")
        shell.type(".quit\n")
        assert shell.process.wait(30) == 0
    history = tmp_path / "state/packetlake/sql_history"
    assert "SELECT 40 +" in history.read_text()


def test_prompt__ctrl_c_cancels_the_query_and_ctrl_d_leaves(lake: Path, tmp_path: Path) -> None:
    with terminal(lake, tmp_path / "state") as shell:
        shell.until("sql> ")
        shell.type(LONG + ";\n")
        shell.until("t(a);\n")
        time.sleep(1.5)
        shell.type("\x03")
        shell.until("interrupted\n")
        shell.until("sql> ")
        shell.type("SELECT 'still ' || 'here';\n")
        shell.until("still here\n")
        shell.until("sql> ")
        shell.type("SELECT 1 +\n")
        shell.until("...> ")
        time.sleep(0.5)  # the prompt shows a moment before readline waits; a Ctrl-C in between shows at the next key
        shell.type("\x03")
        shell.until("sql> ")
        shell.type("\x04")
        assert shell.process.wait(30) == 0
