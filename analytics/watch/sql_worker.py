"""The process that runs SQL somebody typed: it can be killed, which nothing inside DuckDB can be relied on for.

    python -m analytics.watch.sql_worker --lake DIR --temporary DIR --with-parent PID

`analytics.watch.sqlrun` starts it, and kills it when a query takes too long, is cancelled, or nobody waits any more. It
reads requests, one line of JSON each, from standard input: {sql, form, rows, began}; form is `json` or one of
`analytics.watch.export.MEDIA`. It answers on standard output in frames: a letter, the length, the content.

    +   ready for a request
    B   bytes of the answer, as they go to the browser
    D   the end of an answer: {rows}
    E   an error: {error, line, store}, `store` when it is the lake's and not the query's

Starting costs 0.5 s of CPU, a connection 0.12 s. So it serves one query after another, each over a connection of its
own: nothing that one person creates is there for another. Values are cut and encoded here: what the dashboard's process
holds of an answer is bounded whatever was asked.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import select
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb
import pyarrow as pa

from analytics.readonly import check, one_line
from analytics.store import connect
from analytics.system import stop_with_parent
from analytics.watch.context import plain, to_json
from engine.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

HEAD: Final = struct.Struct("<cQ")
PART: Final = 1 << 20  # bytes of a frame
IDLE_S: Final = 600.0  # without work it ends: 90 MB
KEEP_BYTES: Final = 300 << 20  # one that has become larger than that ends, and another starts
ROOM_BYTES: Final = 3 << 29  # address space beyond that of its start: DuckDB's 1 GB, and what it does not count
OOM_SCORE: Final = 800  # before the dashboard, which has 500, and long before the capture: proc(5)
MAX_CELLS: Final = 2_000_000  # of one answer: rows times columns
MAX_CELL: Final = 10_000  # characters shown of one value
MAX_SHOWN: Final = 20_000_000  # characters of one answer
EXACT: Final = 1 << 53  # JavaScript's whole numbers are exact up to here
TOO_LARGE: Final = "the query needs more memory than it may use (1 GB); ask for less, or a shorter range"
_WITH_ROWS: Final = frozenset({"SELECT", "EXPLAIN", "MULTI"})
_PLACE: Final = re.compile(r"— line (\d+), at: ")
_NAMED: Final = re.compile(r'"([^"]{1,100})"|(?:name|column|function) ([A-Za-z_][\w.]{0,99})')


class _Wrong(Exception):  # noqa: N818 — what was asked, not this process
    def __init__(self, text: str, line: int | None = None) -> None:
        super().__init__(text)
        self.line = line


# --- a query ---------------------------------------------------------------------------------------------------------


def answer(con: DuckDBPyConnection, lake: Path, asked: dict[str, Any], send: Send) -> dict[str, Any]:
    """Run the statements, send the last one's result, and say how many rows were sent. Raises _Wrong."""
    sql = asked["sql"]
    try:
        statements = check(con, sql)
    except ConfigError as error:
        raise _Wrong(str(error), _line(str(error), sql, sql)) from None
    if not statements:
        raise _Wrong("the SQL is empty; try SELECT count(*) FROM packets")
    at = ""
    try:
        for statement in statements[:-1]:
            at = statement.query.strip()  # DuckDB counts lines from its first word
            _exhaust(con, statement.query)
        last = statements[-1]
        at = last.query.strip()
        relation: Any = None
        if last.type.name in _WITH_ROWS:
            relation = con.sql(last.query)  # None for CREATE TABLE ... AS PIVOT, which has no rows
        else:
            _exhaust(con, last.query)
        reader = (
            relation.to_arrow_reader(10_000) if relation is not None
            else pa.RecordBatchReader.from_batches(pa.schema([]), [])
        )  # fmt: skip
        return _shown(reader, asked, send) if asked["form"] == "json" else _encoded(reader, asked["form"], send)
    except (duckdb.OutOfMemoryException, MemoryError, pa.ArrowMemoryError):
        raise _Wrong(TOO_LARGE) from None
    except (duckdb.Error, pa.ArrowException) as error:  # Arrow wraps what DuckDB raises between batches
        if "bad_alloc" in str(error) or "Out of Memory" in str(error):
            raise _Wrong(TOO_LARGE) from None
        said = one_line(error).replace(str(lake), "LAKE")  # where it lies on this machine is nobody's business
        line = _line(said, at, sql)
        raise _Wrong(_PLACE.sub(f"— line {line}, at: ", said), line) from None


def _exhaust(con: DuckDBPyConnection, sql: str) -> None:
    """Run a statement whose rows nobody sees, without holding them."""
    result = con.execute(sql)
    while result.fetchmany(10_000):
        pass


def _shown(reader: pa.RecordBatchReader, asked: dict[str, Any], send: Send) -> dict[str, Any]:
    """{columns: [{name, type}], rows: [[...]], count, truncated, ms}"""
    width = max(1, len(reader.schema.names))
    most = min(asked["rows"], MAX_CELLS // width)
    shown: list[list[Any]] = []
    truncated, size = False, 0
    for row in _rows(reader):
        if len(shown) == most or size > MAX_SHOWN:
            truncated = True
            break
        cells = [_cell(value) for value in row]
        size += sum(_size(cell) for cell in cells if isinstance(cell, str | list | dict))
        shown.append(cells)
    names = [{"name": f.name, "type": str(f.type)} for f in reader.schema]
    ms = round((time.monotonic() - asked["began"]) * 1000, 1)
    send.content(to_json({"columns": names, "rows": shown, "count": len(shown), "truncated": truncated, "ms": ms}))
    return {"rows": len(shown), "ms": ms}


def _rows(reader: pa.RecordBatchReader) -> Iterator[tuple[Any, ...]]:
    for batch in reader:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _cell(value: Any) -> Any:
    """A value as JSON has it; long ones are cut and long numbers become texts, which they do not in files."""
    shown = plain(value)
    if isinstance(shown, int) and abs(shown) > EXACT:
        return str(shown)
    if isinstance(shown, list | dict) and _size(shown) > MAX_CELL:
        shown = json.dumps(shown, ensure_ascii=False)
    if isinstance(shown, str) and len(shown) > MAX_CELL:
        return shown[:MAX_CELL] + "…"
    return shown


def _size(value: Any) -> int:
    """About how many characters it has as JSON."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(len(name) + _size(one) for name, one in value.items())
    return sum(map(_size, value)) if isinstance(value, list) else 8


def _encoded(reader: pa.RecordBatchReader, form: str, send: Send) -> dict[str, Any]:
    from analytics.watch import export

    for part in export.stream(reader, form):
        send.content(part)
    return {}


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


# --- the process -----------------------------------------------------------------------------------------------------


class Send:
    """Frames to the parent."""

    def __init__(self, descriptor: int) -> None:
        self._to = descriptor

    def frame(self, kind: bytes, content: bytes = b"") -> None:
        left = memoryview(HEAD.pack(kind, len(content)) + content)
        while left:
            left = left[os.write(self._to, left) :]

    def content(self, content: bytes) -> None:
        for at in range(0, len(content), PART):
            self.frame(b"B", content[at : at + PART])

    def facts(self, kind: bytes, **facts: Any) -> None:
        self.frame(kind, json.dumps(facts).encode())


def _requests() -> Iterator[dict[str, Any]]:
    """Until the parent wants no more, or nothing for IDLE_S."""
    kept = b""
    waiting = select.poll()
    waiting.register(0, select.POLLIN)
    while True:
        while b"\n" not in kept:
            part = os.read(0, 1 << 16) if waiting.poll(IDLE_S * 1000) else b""
            if not part:
                return
            kept += part
        line, _, kept = kept.partition(b"\n")
        yield json.loads(line)


def _pages(which: int) -> int:
    """Bytes of this process: 0 the address space, 1 what is in memory."""
    return int(Path("/proc/self/statm").read_text().split()[which]) * resource.getpagesize()


def _connected(lake: Path) -> DuckDBPyConnection:
    """A connection. The directory for files stays only where some had to be made, as for a lake that lacks a table: who
    kills this process, and then ends at once, leaves nothing behind."""
    folder = Path(tempfile.gettempdir())
    folder.mkdir(0o700, exist_ok=True)
    try:
        return connect(lake, untrusted=True, threads=1)
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _serve(lake: Path, send: Send) -> None:
    con = _connected(lake)
    send.frame(b"+")
    for asked in _requests():
        resource.setrlimit(resource.RLIMIT_AS, (_pages(0) + ROOM_BYTES, resource.RLIM_INFINITY))
        try:
            send.facts(b"D", **answer(con, lake, asked, send))
        except _Wrong as error:
            send.facts(b"E", error=str(error), line=error.line)
        except MemoryError:  # while an error was put into words
            send.facts(b"E", error=TOO_LARGE)
        con.close()
        if _pages(1) > KEEP_BYTES:
            return
        con = _connected(lake)
        send.frame(b"+")


def main(arguments: list[str] | None = None) -> int:
    """Serve queries until the parent ends, or wants no more."""
    parser = argparse.ArgumentParser(prog="python -m analytics.watch.sql_worker", description="Run SQL over the lake.")
    parser.add_argument("--lake", type=Path, required=True)
    parser.add_argument("--with-parent", type=int, required=True, metavar="PID", help="stop when this process ends")
    parser.add_argument(
        "--temporary", type=Path, required=True, metavar="DIR", help="what it may make; removed after it"
    )
    options = parser.parse_args(arguments)
    tempfile.tempdir = str(options.temporary)
    stop_with_parent(options.with_parent)
    send = Send(os.dup(1))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing that some library prints comes between frames
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(f"{OOM_SCORE}")
    try:
        _serve(options.lake, send)
    except EngineError as error:
        send.facts(b"E", error=str(error), store=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
