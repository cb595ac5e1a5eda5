"""The same questions of the same lake on DuckDB, Apache Spark and ClickHouse: are the answers the same?

    python -m benchmarks.engines LAKE [--of PART ...] [--short] [--spark MASTER] [--only TEXT] [--rows N]

`questions`: every public question (analytics/sql/), for the whole lake and for the middle third of its time, and a
forest, trained on the sample that Spark draws and on ours. `queries`: every query of docs/queries.md. `pages`: every
statement of the dashboard (benchmarks/pages.py). Prints a line for each: rows, whether Spark's and ClickHouse's are
DuckDB's, CPU seconds of each. Spark is `local-cluster[2,1,1024]` unless told otherwise: a driver, a worker and two
executors, each a process of its own. ClickHouse is chdb, the server's engine as a library. Exit code 1 when an answer
differs.

Rows are compared as a set of lines, since most engines keep no order that is not asked for last. Numbers that are no
integers may differ by TOLERANCE of their size: sums are added up in another order.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from analytics import jobs
from analytics.dialects import clickhouse, lake_sql
from analytics.dialects.geo_file import write_geo
from analytics.dialects.session import open_clickhouse
from analytics.question_columns import QUESTIONS
from benchmarks.pages import Asked, texts
from engine.config import load_config

TOLERANCE: Final = 1e-6
TWO_EXECUTORS: Final = "local-cluster[2,1,1024]"
ASKED: Final = (*QUESTIONS, *jobs.JOBS["rollups"])
# Statements that an engine is not asked, and why; docs/scale.md has the same list.
NOT_ASKED: Final = {
    ("spark", "unusual_windows #1"): "its planner needs more than a gigabyte for 25 columns of each model",
    ("spark", "unusual_windows windows"): "its planner needs more than a gigabyte for 25 columns of each model",
}
PARTS: Final = ("questions", "queries", "pages")
Span = tuple[datetime, datetime] | None


class Engine(jobs.Runner):
    """An engine with the lake as its tables: takes DuckDB's SQL."""

    name = ""


class DuckDb(jobs.Here, Engine):
    name = "duckdb"


class Spark(jobs.OnSpark, Engine):
    name = "spark"

    def __init__(self, lake: Path, geo: Path, master: str) -> None:
        super().__init__(lake, master, str(geo))
        executors = self.session.sparkContext._jsc.sc().getExecutorMemoryStatus().size()
        say(f"Spark {self.session.version} at {master}: {executors} processes, the driver among them")


class ClickHouse(Engine):
    name = "clickhouse"

    def __init__(self, lake: Path, geo: Path) -> None:
        self.session = open_clickhouse(str(lake), str(geo))

    def ask(self, sql: str) -> pa.Table:
        written = lake_sql.write(lake_sql.statement(sql), clickhouse.ClickHouseSql)
        settings = f"SETTINGS {clickhouse.SETTINGS}, output_format_arrow_string_as_string = 0"
        answer = self.session.query(f"{written}\n{settings}", "ArrowStream")
        return pa.ipc.open_stream(pa.py_buffer(answer.bytes())).read_all()


def literals(span: Span) -> str:
    return "NULL, NULL" if span is None else f"'{span[0]}', '{span[1]}'"


def rows_of(table: pa.Table) -> list[tuple[Any, ...]]:
    """The rows in an order that depends on them only."""
    columns = [[_plain(v) for v in column.to_pylist()] for column in table.columns]
    return sorted(zip(*columns, strict=True), key=_sort_key)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.replace(tzinfo=None)
    if isinstance(value, dict):
        return tuple(_plain(v) for v in value.values())
    if isinstance(value, list):
        return tuple(_plain(v) for v in value) or None  # ClickHouse has no NULL where a list may be
    if isinstance(value, str):
        return value.encode()  # ClickHouse's texts and bytes are one type
    if isinstance(value, Decimal):
        return float(value)
    return value


def _sort_key(row: tuple[Any, ...]) -> tuple[str, ...]:
    """Numbers that may differ a little come last and coarse, so that both sides sort alike."""
    return (*(repr(int(v) if isinstance(v, bool) else v) for v in row if not isinstance(v, float)),
            *(f"{v:.3g}" for v in row if isinstance(v, float)))  # fmt: skip


def same(one: Any, other: Any) -> bool:
    """Equal, floats within TOLERANCE."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) or isinstance(other, float):
        if one is None or other is None:
            return one is other
        return abs(one - other) <= TOLERANCE * max(1.0, abs(one), abs(other)) or (one != one and other != other)
    return bool(one == other)


def difference(one: pa.Table, other: pa.Table) -> str:
    """Empty when both have the same rows; else the first thing that differs."""
    if one.num_columns != other.num_columns:
        return f"{one.num_columns} and {other.num_columns} columns"
    a, b = rows_of(one), rows_of(other)
    if len(a) != len(b):
        return f"{len(a)} and {len(b)} rows"
    for left, right in zip(a, b, strict=True):
        for name, x, y in zip(one.column_names, left, right, strict=True):
            if not same(x, y):
                return f"{name}: {x!r} and {y!r} in {left!r}"
    return ""


def questions(span: Span) -> list[Asked]:
    """Every public question in a range."""
    when = "middle" if span else "all"
    return [Asked(f"{name} {when}", f"FROM {name}_between({literals(span)})") for name in ASKED]


def queries() -> list[Asked]:
    """The queries of docs/queries.md, without LIMIT: which of equal rows come first is nobody's promise."""
    text = (Path(__file__).parent.parent / "docs/queries.md").read_text()
    blocks = re.findall(r"^```sql\n(.*?)^```", text, re.M | re.S)
    lines = [" ".join(line.split()) for block in blocks for line in block.split(";\n") if line.strip()]
    return [Asked(line, re.sub(r" LIMIT \d+$", "", line.removesuffix(";"))) for line in lines]


def middle(engine: DuckDb) -> Span:
    """The middle third of the lake's time, to the second."""
    ((first, last),) = zip(*engine.ask("SELECT min(ts), max(ts) FROM flows").to_pydict().values(), strict=True)
    if first is None:
        return None
    third = (last - first) / 3
    return (first + third).replace(microsecond=0), (last - third).replace(microsecond=0)


def cpu_s() -> float:
    """CPU seconds of this process and of everything below it: Spark's executors are processes of their own."""
    stats = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            stats[int(path.parent.name)] = int(fields[1]), int(fields[11]) + int(fields[12])
    family, ticks = {os.getpid()}, 0
    while True:
        more = {pid for pid, (parent, _) in stats.items() if parent in family} - family
        if not more:
            break
        family |= more
    ticks = sum(stats[pid][1] for pid in family if pid in stats)
    return ticks / os.sysconf("SC_CLK_TCK")


def compare(engines: list[Engine], asked: Asked, say: Callable[[str], None]) -> bool:
    """One line: the first engine's rows and CPU time, and of each other whether its rows are the same."""
    expected, told, good = None, [], True
    for engine in engines:
        reason = NOT_ASKED.get((engine.name, asked.name))
        if reason is not None:
            told.append(f"{engine.name} not asked: {reason}")
            continue
        before = cpu_s()
        try:
            found = engine.ask(asked.sql)
        except Exception as error:  # noqa: BLE001 — each engine has its own
            told.append(f"{engine.name} FAILED: {str(error).strip().splitlines()[0][:300]}")
            good = False
            continue
        used = cpu_s() - before
        if expected is None:
            expected = found
            told.append(f"{found.num_rows:>7} rows  {engine.name} {used:6.2f} s")
            continue
        unlike = difference(expected, found)
        told.append(f"{engine.name} {used:6.2f} s {'DIFFERENT: ' + unlike if unlike else 'identical'}")
        good = good and not unlike
    say(f"{asked.name[:66]:<66} {'  '.join(told)}")
    return good


def compare_forests(here: jobs.Runner, there: jobs.Runner, span: Span, rows: int, say: Callable[[str], None]) -> bool:
    """A packet model trained on a sample that each side draws: are the forests, and so all scores, the same?"""
    before = cpu_s()
    one, other = (jobs.train(runner, literals(span), rows, load_config(None)) for runner in (here, there))
    equal = one.rows == other.rows and all(np.array_equal(a, other.arrays[name]) for name, a in one.arrays.items())
    say(f"{'job train':<60} {'middle':<6} {one.rows:>7} rows  {cpu_s() - before:6.2f} s both  "
        f"{'identical' if equal else 'DIFFERENT forests'}")  # fmt: skip
    return equal


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare the answers of DuckDB, Spark and ClickHouse.")
    parser.add_argument("lake", type=Path)
    parser.add_argument("--spark", default=TWO_EXECUTORS, metavar="MASTER", help="'' leaves Spark out")
    parser.add_argument("--of", nargs="+", default=PARTS, choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--short", action="store_true", help="questions for the middle of the lake's time only, pages "
                        "with fewer filters")  # fmt: skip
    parser.add_argument("--only", default="", help="questions and queries that contain this")
    parser.add_argument("--rows", type=int, default=50_000, help="packets that the forest learns from, at most")
    options = parser.parse_args(arguments)
    lake = options.lake.absolute()
    if options.short:  # on little data Java's second compiler costs more than it saves
        java = " ".join(
            f"--conf spark.{who}.extraJavaOptions=-XX:TieredStopAtLevel=1" for who in ("driver", "executor")
        )
        os.environ.setdefault("PYSPARK_SUBMIT_ARGS", f"{java} pyspark-shell")
    with tempfile.TemporaryDirectory(prefix="packetlake-") as folder:
        geo = Path(folder) / "geo.parquet"
        write_geo(lake, geo)
        duck = DuckDb(lake)
        span = middle(duck)
        engines: list[Engine] = [duck, ClickHouse(lake, geo)]
        if options.spark:
            engines.append(Spark(lake, geo, options.spark))
        cases: list[Asked] = []
        if "questions" in options.of:
            cases += [asked for s in ((span,) if options.short else (None, span)) for asked in questions(s)]
        if "queries" in options.of:
            cases += queries()
        if "pages" in options.of:
            cases += texts(lake, short=options.short)
        results = [compare(engines, asked, say) for asked in cases if options.only in asked.name]
        if options.spark and "questions" in options.of and options.only in "job train":
            results.append(compare_forests(duck, engines[-1], span, options.rows, say))
    say(f"{sum(results)} of {len(results)} identical")
    return 0 if all(results) else 1


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
