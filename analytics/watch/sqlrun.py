"""SQL that somebody typed into a browser: confined to reading the lake, limited in time, memory and rows; stoppable.

Every run has a connection of its own, so nothing one person creates is there for another.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb
import pyarrow as pa

from analytics.readonly import check, one_line
from analytics.store import connect
from analytics.watch.context import Stopped, plain
from engine.errors import ConfigError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

LIMIT_S: Final = 30.0
EXPORT_S: Final = 120.0
ROWS: Final = 10_000  # shown
EXPORT_ROWS: Final = 5_000_000
AT_ONCE: Final = 2
MAX_TEXT: Final = 100_000
MAX_CELLS: Final = 2_000_000  # of one answer: rows times columns
MAX_CELL: Final = 10_000  # characters shown of one value
EXACT: Final = 1 << 53  # JavaScript's whole numbers are exact up to here
_WITH_ROWS: Final = frozenset({"SELECT", "EXPLAIN", "MULTI"})
_PLACE: Final = re.compile(r"— line (\d+), at: ")
_NAMED: Final = re.compile(r'"([^"]{1,100})"|(?:name|column|function) ([A-Za-z_][\w.]{0,99})')
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class SqlError(ConfigError):
    """SQL that is wrong or refused; `line` of it, from 1, where that is known."""

    def __init__(self, text: str, line: int | None) -> None:
        super().__init__(text)
        self.line = line


@dataclass(slots=True)
class _Run:
    con: DuckDBPyConnection
    owner: str
    sql: str
    at: str = ""  # the statement of it that runs
    reason: str | None = None

    def stop(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.con.interrupt()


class SqlRunner:
    """Runs SQL for many people, AT_ONCE at a time. Thread-safe."""

    def __init__(self, lake: Path) -> None:
        self.lake = lake
        self._free = threading.BoundedSemaphore(AT_ONCE)
        self._lock = threading.Lock()
        self._runs: dict[str, _Run] = {}

    def show(self, sql: str, owner: str, run_id: str | None = None, rows: int = ROWS) -> dict[str, Any]:
        """The result: {columns: [{name, type}], rows: [[...]], count, truncated, ms}.

        Raises ConfigError for SQL that is refused or wrong, Stopped when it was stopped.
        """
        began = time.monotonic()
        limit = min(rows, ROWS)

        def take(reader: pa.RecordBatchReader) -> dict[str, Any]:
            found: list[list[Any]] = []
            width = max(1, len(reader.schema.names))
            for batch in reader:
                columns = [column.to_pylist() for column in batch.columns]
                found += [[_cell(v) for v in row] for row in zip(*columns, strict=True)]
                if len(found) > limit or len(found) * width > MAX_CELLS:
                    break
            shown = found[: min(limit, MAX_CELLS // width)]
            names = [{"name": f.name, "type": str(f.type)} for f in reader.schema]
            return {"columns": names, "rows": shown, "count": len(shown), "truncated": len(found) > len(shown)}

        answer = self.use(sql, owner, take, run_id=run_id, limit_s=LIMIT_S)
        return {**answer, "ms": round((time.monotonic() - began) * 1000, 1)}

    def use(
        self, sql: str, owner: str, action: Callable[[pa.RecordBatchReader], Any], *, run_id: str | None = None,
        limit_s: float = LIMIT_S,
    ) -> Any:  # fmt: skip
        """`action` with the result's batches."""
        with self._running(owner, sql, run_id, limit_s) as run:
            try:
                statements = check(run.con, _readable(sql))
            except ConfigError as error:
                raise SqlError(str(error), _line(str(error), sql, sql)) from None
            if not statements:
                raise ConfigError("the SQL is empty; try SELECT count(*) FROM packets")
            for statement in statements:
                run.at = statement.query.strip()  # DuckDB counts lines from its first word
                if statement is statements[-1]:
                    break
                _exhaust(run, statement.query)
            if statements[-1].type.name not in _WITH_ROWS:
                _exhaust(run, statements[-1].query)
                return action(pa.RecordBatchReader.from_batches(pa.schema([]), []))
            relation: Any = run.con.sql(statements[-1].query)
            if relation is None:  # CREATE TABLE ... AS PIVOT has no rows
                return action(pa.RecordBatchReader.from_batches(pa.schema([]), []))
            return action(relation.to_arrow_reader(10_000))

    def stop(self, run_id: str, owner: str | None) -> bool:
        """Stop a run of this owner (None: anybody's). Returns whether there was one."""
        with self._lock:
            run = self._runs.get(run_id)
        if run is None or (owner is not None and run.owner != owner):
            return False
        run.stop("the query was cancelled")
        return True

    @contextmanager
    def _running(self, owner: str, sql: str, run_id: str | None, limit_s: float) -> Iterator[_Run]:
        name = run_id or secrets.token_hex(8)
        if not _ID.fullmatch(name):
            raise ConfigError("id is none; use up to 64 letters, digits, - and _")
        if not self._free.acquire(timeout=2):
            raise Stopped(f"{AT_ONCE} queries are running already; wait for one, or cancel it")
        try:
            run = _Run(connect(self.lake, untrusted=True, threads=1), owner, sql)
            with self._lock:
                if name in self._runs:
                    run.con.close()
                    raise ConfigError(f"id {name} is that of a query under way; use another")
                self._runs[name] = run
            ended = threading.Event()
            watch = threading.Thread(target=_watch, args=(run, ended, limit_s), daemon=True)
            watch.start()
            try:
                yield run
            except (duckdb.Error, pa.ArrowException) as error:  # Arrow wraps what DuckDB raises between batches
                if run.reason is not None:
                    raise Stopped(run.reason) from None
                said = _said(error, self.lake)
                line = _line(said, run.at, run.sql)
                raise SqlError(_PLACE.sub(f"— line {line}, at: ", said), line) from None
            finally:
                ended.set()
                watch.join()
                with self._lock:
                    self._runs.pop(name, None)
                run.con.close()
        finally:
            self._free.release()


def _exhaust(run: _Run, sql: str) -> None:
    """Run a statement whose rows nobody sees, without holding them."""
    result = run.con.execute(sql)
    while result.fetchmany(10_000):
        if run.reason is not None:
            raise Stopped(run.reason)


def _cell(value: Any) -> Any:
    """A value as JSON has it; long texts are cut and long numbers become texts, which they do not in files."""
    shown = plain(value)
    if isinstance(shown, int) and abs(shown) > EXACT:
        return str(shown)
    if isinstance(shown, str) and len(shown) > MAX_CELL:
        return shown[:MAX_CELL] + "…"
    return shown


def _watch(run: _Run, ended: threading.Event, limit_s: float) -> None:
    """Stop the run at its limit: again and again, since between two batches there is nothing to interrupt."""
    deadline = time.monotonic() + limit_s
    while not ended.wait(0.1 if run.reason else min(0.5, max(0.01, deadline - time.monotonic()))):
        if run.reason or time.monotonic() >= deadline:
            run.stop(f"the query took longer than {limit_s:g} s; ask for less, or a shorter range")


def _readable(sql: str) -> str:
    if len(sql) > MAX_TEXT:
        raise ConfigError(f"the SQL has {len(sql)} characters; use at most {MAX_TEXT}")
    return sql


def _line(message: str, statement: str, sql: str) -> int | None:
    """Where in `sql` the error is: the place that DuckDB names, else where the name stands that it quotes."""
    before = sql[: max(0, sql.find(statement))].count("\n")
    if found := _PLACE.search(message):
        return before + int(found[1])
    for name in (a or b for a, b in _NAMED.findall(message)):
        at = re.search(rf"(?i)\b{re.escape(name.rpartition('.')[2])}\b", statement)
        if at is not None:
            return before + statement[: at.start()].count("\n") + 1
    return None


def _said(error: Exception, lake: Path) -> str:
    """DuckDB's words without the lake's place on this machine."""
    return one_line(error).replace(str(lake), "LAKE")
