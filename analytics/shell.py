"""`engine sql`: one query, a script, or a prompt.

    run_query(lake, "SELECT count(*) FROM packets")
    run_query(lake, "FROM packets", fmt="parquet", output=Path("all.parquet"))
    prompt(lake)

SQL only reads (see `analytics.readonly`), the lake and whatever other file the operator may read. Results stream:
however long one is, memory holds a batch of it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import duckdb
import pyarrow as pa

from analytics.formats import WRITERS, Writer, write_plan
from analytics.question_columns import QUESTIONS
from analytics.readonly import check, one_line
from analytics.store import connect
from engine.errors import ConfigError, EngineError, StoreError
from engine.tables import APPLICATION_TABLES, TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from duckdb import DuckDBPyConnection, Statement

BATCH_ROWS: Final = 50_000
WITH_ROWS: Final = frozenset({"SELECT", "EXPLAIN", "MULTI"})  # kinds of statements that have a result to show
_ABOUT: Final = {
    "packets": "every frame",
    "flows": "connections, long ones in parts",
    "capture_stats": "what was captured and lost, by second",
    "addresses": "every address, when first seen",
    "rollup_1s": "sums of packets, by second and protocol",
    "rollup_1m": "who sent and received most, by minute",
    "windows": "what hosts did by second and minute",
    "pair_windows": "what two hosts did with each other, by minute",
    "port_windows": "how many hosts a source asked on a port, by minute",
    "alert_events": "changes of alerts, and what operators said",
    "model_stats": "how the packet model did, by minute",
    **dict.fromkeys(APPLICATION_TABLES, "messages of the application"),
    "geo": "what kind of address it is, and where",
    **QUESTIONS,
}
VIEWS: Final = (*TABLES, "geo", *QUESTIONS)
_TABLES: Final = """
SELECT "table", count(column_name) AS columns, about
FROM (VALUES {views}) AS v(n, "table", about) JOIN information_schema.columns ON table_name = "table"
GROUP BY n, "table", about ORDER BY n
"""
_SCHEMA: Final = "SELECT column_name, column_type FROM (DESCRIBE {view})"
HELP: Final = """\
SQL over the lake's tables (packets, flows, dns, tls, ...) and over views that answer questions (hosts, services,
beacons, new_hosts, ...); end it with a semicolon. Times are UTC.
  .tables         all of them, with the question each answers
  .schema TABLE   the columns of one
  .help           this
  .quit           leave (or Ctrl-D)
Ctrl-C stops a query. Addresses are text: WHERE src_ip = '10.0.0.1', or src_ip <<= '10.0.0.0/8'.
A condition on date (and hour) makes a query on a large lake fast; so does a range, which every question takes:
FROM hosts_between(now() - INTERVAL 1 HOUR, NULL), FROM table_between('packets', '2026-11-24 12:00', '2026-11-24 13:00')
"""


def open_session(lake: str | Path) -> DuckDBPyConnection:
    """A connection for the operator's SQL: reads what the operator may read, writes nothing, settings locked."""
    con = connect(lake)
    con.execute("SET python_enable_replacements = false")  # a misspelt table must not find a variable of ours
    con.execute("SET lock_configuration = true")
    return con


def run_query(lake: str | Path, sql: str, fmt: str = "table", output: Path | None = None) -> None:
    """Run SQL and write the result of its last query to stdout, or to a file that is complete or not there.

    Args:
        lake: the lake's directory.
        sql: one statement or several; each but the last runs for its effect on the session.
        fmt: table (for people, at most 200 rows shown), csv, json (an array of objects) or parquet.
        output: file to write; None for stdout.

    Raises:
        ConfigError: the SQL is empty, wrong or not allowed; an unknown format; Parquet onto a terminal.
        StoreError: the lake cannot be read, a segment of it is damaged, or the output cannot be written.
    """
    if fmt not in WRITERS:
        raise ConfigError(f"--format {fmt} is unknown; use one of {', '.join(WRITERS)}")
    if fmt == "parquet" and output is None and sys.stdout.isatty():
        raise ConfigError("--format parquet is not for a terminal; add --output FILE")
    con = open_session(lake)
    try:
        _run(con, sql, fmt, output)
    finally:
        con.close()


def prompt(lake: str | Path) -> None:
    """The interactive prompt; when stdin is not a terminal, run it as a script. Raises as `run_query` does."""
    if not sys.stdin.isatty():
        run_query(lake, sys.stdin.read())
        return
    con = open_session(lake)
    history = _history()
    print(f"PacketLake SQL on {lake}. End a statement with ; — .help lists commands.")  # noqa: T201
    try:
        while (text := _read_statement(con)) is not None:
            try:
                _command(con, text) if text.startswith(".") else _run(con, text, "table", None)
            except EngineError as error:
                print(error, file=sys.stderr)  # noqa: T201
            except KeyboardInterrupt:
                print("interrupted", file=sys.stderr)  # noqa: T201
    finally:
        con.close()
        if history is not None:
            _save_history(history)


def _run(con: DuckDBPyConnection, sql: str, fmt: str, output: Path | None) -> None:
    statements = check(con, sql)
    if not statements:
        raise ConfigError('the SQL is empty; try `engine sql "SELECT count(*) FROM packets"`')
    try:
        interruptible(con, partial(_execute, con, statements, fmt, output))
    except (duckdb.Error, OSError, pa.ArrowException) as error:  # Arrow wraps what DuckDB raises between batches
        raise translated(error, sql, output) from None


def _execute(con: DuckDBPyConnection, statements: list[Statement], fmt: str, output: Path | None) -> None:
    for statement in statements[:-1]:
        con.execute(statement.query)
    last = statements[-1]
    kind = last.type.name
    if kind not in WITH_ROWS:
        con.execute(last.query)
        return
    reader = open_reader(con, last.query)
    write = write_plan if fmt == "table" and kind == "EXPLAIN" else WRITERS[fmt]
    if output is None:
        _to_stdout(reader, write)
        return
    with replaced(output) as file:
        write(reader, file)


def interruptible(con: DuckDBPyConnection, action: Callable[[], None]) -> None:
    """Run an action in a thread, so that Ctrl-C is seen: Python handles no signal while DuckDB or Arrow work.

    Raises KeyboardInterrupt when it came, and only after the action has ended: a thread that goes on while the
    interpreter ends aborts the process.
    """
    errors: list[BaseException] = []
    done, interrupted = threading.Event(), threading.Event()

    def work() -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 — it is raised again below, in the caller's thread
            errors.append(error)
        finally:
            done.set()

    with _told_of_ctrl_c(interrupted):
        threading.Thread(target=work, name="sql", daemon=True).start()
        while not done.wait(0.1):
            if interrupted.is_set():
                con.interrupt()  # again and again: between two batches there is nothing to interrupt
    if interrupted.is_set():
        raise KeyboardInterrupt
    if errors:
        raise errors[0]


@contextlib.contextmanager
def _told_of_ctrl_c(told: threading.Event) -> Iterator[None]:
    """Meanwhile Ctrl-C sets the event, where it would raise KeyboardInterrupt, at any instruction."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: told.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def open_reader(con: DuckDBPyConnection, query: str) -> pa.RecordBatchReader:
    """The result as batches. A segment that retention removed between listing and opening is tried once more."""
    for attempt in (1, 2):
        try:
            return con.sql(query).to_arrow_reader(BATCH_ROWS)
        except duckdb.IOException as error:
            if attempt == 2 or "No such file" not in str(error):
                raise
    raise AssertionError("the second attempt returns or raises")


def translated(error: Exception, sql: str, output: Path | None) -> EngineError:
    text = str(error)
    segment = re.search(r"""['"]([^'"]*/sensor=[^'"]*\.parquet)['"]""", text)
    if segment is not None and segment[1] not in sql:
        detail = text.splitlines()[0].replace(f"'{segment[1]}'", "it").replace(f'"{segment[1]}"', "it")
        return StoreError(
            f"segment {segment[1]} cannot be read ({detail}); move it out of the lake, the other segments are fine"
        )
    if isinstance(error, OSError) and not isinstance(error, duckdb.Error) and error.errno is not None:
        return StoreError(f"cannot write {output or 'the output'}: {error.strerror}; check the rights and free space")
    return ConfigError(one_line(error))


def _to_stdout(reader: pa.RecordBatchReader, write: Writer) -> None:
    sys.stdout.flush()
    try:
        write(reader, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # `engine sql ... | head` has seen enough. The interpreter flushes stdout once more when it ends.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def replaced(output: Path) -> Iterator[IO[bytes]]:
    """A file beside `output` that takes its place when complete."""
    handle, name = tempfile.mkstemp(prefix=f".{output.name}-", dir=output.absolute().parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(file.fileno(), 0o666 & ~umask)
        Path(name).replace(output)
    finally:
        Path(name).unlink(missing_ok=True)


def _read_statement(con: DuckDBPyConnection) -> str | None:
    """A dot command, or SQL up to its semicolon; None at the end of input. Ctrl-C starts anew."""
    lines: list[str] = []
    while True:
        try:
            line = input("  ...> " if lines else "sql> ")
        except EOFError:
            print()  # noqa: T201
            return None
        except KeyboardInterrupt:
            print()  # noqa: T201
            lines = []
            continue
        if not lines and line.strip() in (".quit", ".exit"):
            return None
        if not lines and (not line.strip() or line.strip().startswith(".")):
            if line.strip():
                return line.strip()
            continue
        lines.append(line)
        if _complete(con, text := "\n".join(lines)):
            return text


def _complete(con: DuckDBPyConnection, text: str) -> bool:
    """Whether the last semicolon ends the text, and not a string or a comment in it."""
    if not text.rstrip().endswith(";"):
        return False
    try:
        con.extract_statements(text)
    except duckdb.ParserException as error:
        return "unterminated" not in str(error)
    except (duckdb.Error, ValueError):
        pass
    return True


def _command(con: DuckDBPyConnection, text: str) -> None:
    word, _, argument = text.partition(" ")
    argument = argument.strip().rstrip(";")
    if word == ".tables":
        listed = ", ".join(f"({at}, '{view}', '{_ABOUT[view]}')" for at, view in enumerate(VIEWS))
        _run(con, _TABLES.format(views=listed), "table", None)
    elif word == ".schema" and argument in VIEWS:
        _run(con, _SCHEMA.format(view=argument), "table", None)
    elif word == ".schema":
        raise ConfigError(f".schema {argument}: name one of {', '.join(VIEWS)}")
    elif word == ".help":
        print(HELP, end="")  # noqa: T201
    else:
        raise ConfigError(f"{word} is not a command; .help lists them")


def _history() -> Path | None:
    """Load readline and its history. None when there is no readline, or nowhere to keep one."""
    try:
        import readline
    except ImportError:
        return None
    base = os.environ.get("XDG_STATE_HOME")
    path = (Path(base) if base else Path.home() / ".local/state") / "packetlake" / "sql_history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.exists():
            readline.read_history_file(path)
    except OSError:
        return None
    readline.set_history_length(1000)
    return path


def _save_history(path: Path) -> None:
    import readline

    with contextlib.suppress(OSError):  # a history that cannot be kept is no reason to fail
        readline.write_history_file(path)
