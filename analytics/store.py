"""DuckDB views over a lake: its tables, `geo`, and those that answer questions (`analytics.questions`).

    con = analytics.connect("~/.local/share/packetlake/lake")
    con.execute("SELECT count(*) FROM packets WHERE date = '2026-11-24' AND src_ip <<= '10.0.0.0/8'").fetchone()

Every reader has its own in-memory database; nothing is locked, and each query sees the segments that are published
when it starts: a view reads the files that `lake_segments` lists, a function of ours which DuckDB evaluates when it
plans a query (`analytics.listing`; it is faster than DuckDB's own patterns). A view reads with the schema of
`engine.tables` given to it, not with one found in the files: so planning opens no segment, a segment of an older
version lacks a column without harm (NULL), and a condition on `sensor`, `date` or `hour` leaves the other segments
unopened, damaged ones included. Put one on every query that has a time range: without it, each segment's footer is
read.

`SELECT *` of a few rows by a rare value reads every column of everything (`store.md`, 2c). Ask in two steps: first
the times (`SELECT ts ... LIMIT 100`), then all columns `WHERE ts BETWEEN` the first and the last of them.
"""

from __future__ import annotations

import atexit
import re
import secrets
import shutil
import tempfile
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

import duckdb

from analytics.listing import MERGING, live_segments
from engine import lake_format
from engine.config import default_lake
from engine.errors import StoreError
from engine.schema import SQL_TYPES, Column
from engine.ship_config import is_remote
from engine.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable

    from duckdb import DuckDBPyConnection

    from analytics.ship.remote import RemoteLake

SETTINGS: Final = ".settings"
UNTRUSTED_MEMORY: Final = "1GB"
UNTRUSTED_THREADS: Final = 2


def connect(
    lake: str | Path, *, threads: int | None = None, memory_limit: str | None = None, untrusted: bool = False
) -> DuckDBPyConnection:
    """An in-memory DuckDB with views over the lake. Needs the right to read the lake, none to write it.

    Args:
        lake: the directory `engine run` or `engine replay` wrote, or is writing now; or where sensors ship to, a
            directory or s3://BUCKET/PREFIX.
        threads: worker threads; None for one per core.
        memory_limit: such as "2GB"; None for DuckDB's default, 80 % of the machine's memory.
        untrusted: for SQL that is not the operator's own, see `lock`.

    Raises:
        StoreError: the directory is missing, cannot be read, or is not a lake.

    The connection is for one thread; others take a `cursor()` of it, which has the same views.
    """
    remote = _remote(lake)
    root = require_lake(lake) if remote is None else Path(default_lake())
    con = duckdb.connect()
    try:
        # No network, ever, and no extension.
        con.execute("SET autoinstall_known_extensions = false; SET autoload_known_extensions = false")
        con.execute("SET allow_persistent_secrets = false")
        con.execute("SET enable_progress_bar = false")  # it would be drawn into the output of `engine sql`
        # Segments never change, so their footers are worth keeping: 3,000 segments count in 25 ms instead of 480.
        con.execute("SET parquet_metadata_cache = true")
        # DuckDB makes this directory when a query outgrows memory, and removes it. By default it is in the working one.
        spill = Path(tempfile.gettempdir()) / f"packetlake-spill-{secrets.token_hex(8)}"
        con.execute(f"SET temp_directory = {_text(str(spill))}")
        con.execute("SET TimeZone = 'UTC'")
        if threads is not None:
            con.execute(f"SET threads = {int(threads)}")
        if memory_limit is not None:
            con.execute(f"SET memory_limit = {_text(memory_limit)}")
        if remote is not None:
            con.register_filesystem(remote.files)
        _create_views(con, root, remote)
        if untrusted:
            lock(con, lake, threads=threads, memory_limit=memory_limit)
    except BaseException:
        con.close()
        raise
    return con


def lock(
    con: DuckDBPyConnection, lake: str | Path, *, threads: int | None = None, memory_limit: str | None = None
) -> None:
    """Confine a connection, for good, to reading the lake: for SQL that came from a browser.

    No file but the lake's tables can be read or written, no extension loaded, no setting changed; one query has
    UNTRUSTED_THREADS and UNTRUSTED_MEMORY unless told otherwise, and no room on disk to spill into. DuckDB cannot
    forbid writing where it allows reading, so pass the SQL through `analytics.readonly.check` as well.
    A time limit is the caller's: `con.interrupt()` from another thread.
    """
    remote = _remote(lake)
    root = Path(lake).expanduser().absolute() if remote is None else Path(default_lake())
    roots: list[Path | str] = [root] if remote is None else [remote.prefix.rstrip("/")]
    if remote is not None or not all(live_segments(root, table) for table in TABLES):
        roots.append(_shadow(root))
    con.execute("SET temp_directory = ''")
    con.execute(f"SET threads = {int(threads or UNTRUSTED_THREADS)}")
    con.execute(f"SET memory_limit = {_text(memory_limit or UNTRUSTED_MEMORY)}")
    con.execute("SET python_enable_replacements = false")  # names of tables must never find our variables
    # DuckDB compares patterns as they are written, and then the files they match.
    # Tables only: beside them lie the dashboard's users, settings and raw frames.
    folders = [f"{r}/{name}" for r in roots for name in (*TABLES, MERGING)]
    allowed = {f"{name}/" for folder in folders for name in (folder, _escaped(folder))}
    con.execute(f"SET allowed_directories = [{', '.join(map(_text, sorted(allowed)))}]")
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")


def require_lake(lake: str | Path) -> Path:
    """The lake's absolute path. Raises StoreError, one line, when there is none."""
    root = Path(lake).expanduser().absolute()
    advice = "give --lake DIR, or make one with `engine run` or `engine replay FILE`"
    try:
        names = {entry.name for entry in root.iterdir()}
    except FileNotFoundError:
        raise StoreError(f"lake {root} does not exist; {advice}") from None
    except OSError as error:
        raise StoreError(f"lake {root} cannot be read: {error.strerror}; {advice}") from None
    if not names & {*TABLES, SETTINGS}:
        raise StoreError(f"{root} is not a lake: it has no {'/, '.join(TABLES)}/ directory; {advice}")
    lake_format.check(root)
    return root


def _remote(lake: str | Path) -> RemoteLake | None:
    """The lake of an s3:// URL; None for a directory. Raises StoreError."""
    if not isinstance(lake, str) or not is_remote(lake):
        return None
    from analytics.ship.remote import remote_lake

    remote = remote_lake(lake.rstrip("/"))
    remote.check()
    return remote


def _create_views(con: DuckDBPyConnection, root: Path, remote: RemoteLake | None = None) -> None:
    from analytics import questions
    from analytics.geo import register

    con.execute((files("analytics") / "sql" / "addresses.sql").read_text())
    register_listing(con, root, remote)
    for table in TABLES:
        con.execute(view_sql(table))
    register(con, root)
    questions.create(con)


def register_listing(con: DuckDBPyConnection, root: Path, remote: RemoteLake | None = None) -> None:
    """Give the connection `lake_segments(table)`: the files that a query reads. DuckDB calls it while it plans; so it
    does `lake_fleet('')`, what sensors that ship say of themselves."""
    con.create_function("lake_segments", _listing(root, remote), ["VARCHAR"], "VARCHAR[]")
    con.create_function("lake_fleet", _fleet(root, remote), ["VARCHAR"], "VARCHAR")


@cache
def _listing(root: Path, remote: RemoteLake | None = None) -> Callable[[str], list[str]]:
    """The function of a lake, never freed: a cursor may outlive the connection that keeps it (see `analytics.geo`)."""
    escaped = _escaped(root)

    def lake_segments(table: str) -> list[str]:
        if table and table not in TABLES:  # SQL may call it with any text, and a name is part of a path here
            return []
        if remote is not None:
            return (remote.segments(table) if table else []) or [_empty_segment(root, table)]
        found = (table and live_segments(root, table)) or [_empty_segment(root, table)]
        return found if escaped == str(root) else [_escaped(path) for path in found]  # DuckDB takes them for patterns

    return lake_segments


@cache
def _fleet(root: Path, remote: RemoteLake | None = None) -> Callable[[str], str]:
    """As `_listing`, never freed."""
    from analytics.ship import fleet

    def lake_fleet(_: str) -> str:
        return fleet.of_directory(root) if remote is None else fleet.as_json(remote.states())

    return lake_fleet


def view_sql(table: str) -> str:
    """CREATE VIEW of a table of the lake: its columns in order, then sensor, date and hour from the path.

    DuckDB plans a view when it is created, which would list every segment of the lake to connect. So the view is made
    over a macro that has the columns and reads nothing, and the macro that reads takes its place. That one is not
    planned yet, since the files are its parameter.
    """
    columns = TABLES[table]
    shown = [_shown(c) for c in columns]
    # Not DuckDB's own hive_partitioning: it excludes a given schema, and then planning opens every segment.
    # A condition is evaluated once per segment, about 10 us a function: so substr() past `sensor=`, `date=`, `hour=`.
    shown += [
        "substr(split_part(filename, '/', -4), 8) AS sensor",
        "TRY_CAST(substr(split_part(filename, '/', -3), 6) AS DATE) AS date",
        "TRY_CAST(substr(split_part(filename, '/', -2), 6) AS INTEGER) AS hour",
    ]
    nulls = [f'NULL::{SQL_TYPES[c.type]} AS "{c.name}"' for c in columns]
    nulls += ["NULL::VARCHAR AS sensor", "NULL::DATE AS date", "NULL::INTEGER AS hour"]
    macro = f"CREATE OR REPLACE MACRO _{table}(files) AS TABLE SELECT"
    files = f"lake_segments({_text(table)})"
    return (
        f"{macro} {', '.join(nulls)}; CREATE OR REPLACE VIEW {table} AS FROM _{table}({files}); "
        f"{macro} {', '.join(shown)} FROM read_parquet(files, filename = true, schema = {schema_sql(table)})"
    )


def schema_sql(table: str) -> str:
    """The table's stored columns as the `schema` of read_parquet: a segment that lacks one shows NULL."""
    columns = ", ".join(
        f"{_text(c.name)}: {{name: {_text(c.name)}, type: {_text(SQL_TYPES[c.type])}, default_value: NULL}}"
        for c in TABLES[table]
        if c.stored
    )
    return f"MAP {{{columns}}}"


def _shown(column: Column) -> str:
    """A column of a view, as it is selected."""
    return f'{column.sql} AS "{column.name}"' if column.sql else f'"{column.name}"'


def _escaped(path: Path | str) -> str:
    """The path as part of a pattern: `[`, `*` and `?` in a directory's name are no pattern."""
    return re.sub(r"([\[*?])", r"[\1]", str(path))


@cache
def _shadow(root: Path) -> Path:
    """A temporary directory of empty segments, one per process and lake, for tables that have none.

    `engine` gives each table an empty first segment, so it is needed only for a lake that lost one or is older than
    a table.
    """
    shadow = Path(tempfile.mkdtemp(prefix="packetlake-"))
    atexit.register(shutil.rmtree, shadow, ignore_errors=True)
    return shadow


def _empty_segment(root: Path, table: str) -> str:
    """A segment without rows that stands in for a table without segments: DuckDB refuses to read no file."""
    path = _shadow(root) / table / "sensor=none/date=1970-01-01/hour=00/empty.parquet"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_name(secrets.token_hex(8))
        duckdb.connect().execute(f"COPY (SELECT 0 AS nothing WHERE false) TO {_text(str(made))} (FORMAT parquet)")
        made.rename(path)
    return str(path)


def _text(value: str) -> str:
    """A SQL string literal."""
    return "'" + value.replace("'", "''") + "'"
