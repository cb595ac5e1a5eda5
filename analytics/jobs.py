"""Batch jobs over a lake, here or on a Spark cluster: `engine job NAME --on local|spark://HOST:PORT`.

A job is SQL in the dialect of analytics/sql/: DuckDB runs it as it is, `analytics.dialects` writes it for Spark.
Answers that may be large (`rollups`) are written by Spark's executors, the others come here.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import replace
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from analytics.packet_features import COLUMNS, features_of
from analytics.selection import parse_time
from engine.errors import ConfigError, StoreError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    import pyarrow as pa

    from analytics.ship.remote_compaction import Group, Job
    from engine.config import EngineConfig
    from engine.models import Model

# Which questions each job asks; `train` draws a sample instead, and `compact` merges objects.
JOBS: Final[dict[str, tuple[str, ...]]] = {
    "rollups": ("daily_traffic", "daily_conversations"),
    "beacons": ("beacons",),
    "rarity": ("rare_ja4", "rare_certificates"),
    "train": (),
    "compact": (),
}
_MASTER: Final = re.compile(r"(spark|k8s)://.+|local(-cluster)?\[[0-9*][0-9,*]*\]|yarn")
_AT_ONCE: Final = 64  # groups that executors merge before the driver hears of them
_LEAST_ROWS: Final = 1_000
_MOST_ROWS: Final = 10_000_000


class Runner(Protocol):
    """Where a job runs. `ask` and `save` take SQL in DuckDB's dialect."""

    def ask(self, sql: str) -> pa.Table: ...

    def save(self, sql: str, place: str) -> None:
        """Write the answer as Parquet files into a directory that does not exist."""

    def close(self) -> None: ...


class Here:
    """This process, with DuckDB."""

    def __init__(self, lake: str | Path) -> None:
        from analytics import connect

        self._con = connect(lake)
        self._con.execute((files("analytics") / "sql" / "jobs.sql").read_text())

    def ask(self, sql: str) -> pa.Table:
        return self._con.sql(sql).to_arrow_table()

    def save(self, sql: str, place: str) -> None:
        import duckdb

        try:
            Path(place).mkdir(parents=True)
            target = f"{place}/part-0.parquet".replace("'", "''")
            self._con.execute(f"COPY ({sql}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)")
        except (OSError, duckdb.IOException) as error:
            raise StoreError(
                f"{place} cannot be written: {str(error).splitlines()[0]}; name another --output"
            ) from None

    def close(self) -> None:
        self._con.close()


class OnSpark:
    """A Spark cluster, or Spark's processes on this machine."""

    def __init__(self, lake: str | Path, master: str, geo: str | None = None) -> None:
        from analytics.dialects.session import open_spark

        self.session = open_spark(str(lake), master, geo)

    def ask(self, sql: str) -> pa.Table:
        return self._frame(sql).toArrow()

    def save(self, sql: str, place: str) -> None:
        frame = self._frame(sql)
        try:
            frame.write.parquet(place.replace("s3://", "s3a://", 1))
        except Exception as error:  # noqa: BLE001 — whatever Java threw
            raise StoreError(
                f"{place} cannot be written: {str(error).splitlines()[0]}; name another --output"
            ) from None

    def _frame(self, sql: str) -> Any:
        from analytics.dialects.lake_sql import statement, write
        from analytics.dialects.spark import SparkSql

        return self.session.sql(write(statement(sql), SparkSql))

    def close(self) -> None:
        self.session.stop()


def run(lake: str | Path, options: argparse.Namespace, config: EngineConfig) -> int:
    """The command. Raises ConfigError or StoreError, one line."""
    import sys

    from analytics.formats import write_table

    range_ = _range(options)
    rows = config.scoring.training_rows if options.rows is None else options.rows
    if options.on != "local" and not _MASTER.fullmatch(options.on):
        raise ConfigError(f"--on {options.on}: give local (this process), or a Spark master as in spark://HOST:7077")
    if options.job == "compact":
        return _compact(lake, options)
    if options.job in ("rollups", "train") and not options.output:
        kind = "FILE of the model" if options.job == "train" else "DIR of the Parquet files"
        raise ConfigError(f"engine job {options.job} needs --output, the {kind}")
    if not _LEAST_ROWS <= rows <= _MOST_ROWS:
        raise ConfigError(f"--rows {rows} is out of range: use {_LEAST_ROWS} to {_MOST_ROWS}")
    if options.output and "://" in options.output:
        if options.on == "local" or options.job == "train":
            raise ConfigError(f"--output {options.output}: only Spark writes there; give a path on this machine")
    elif options.output:
        options.output = os.path.abspath(options.output)  # Spark would take it for its executors' own
        if any(place.exists() for place in _places(options)):
            raise ConfigError(f"{options.output} exists already; give another name")
    runner: Runner = Here(lake) if options.on == "local" else OnSpark(lake, options.on)
    try:
        if options.job == "train":
            model = train(runner, range_, rows, config)
            _write_model(model, Path(options.output))
            print(f"learned from {model.rows:,} packets; on each sensor: engine model import {options.output}")  # noqa: T201
            return 0
        for question in JOBS[options.job]:
            sql = f"FROM {question}_between({range_})"
            if options.output:
                runner.save(sql, f"{options.output.rstrip('/')}/{question}")
                continue
            print(f"{question}:", flush=True)  # noqa: T201
            write_table(runner.ask(sql).to_reader(), sys.stdout.buffer)
    finally:
        runner.close()
    return 0


def _compact(lake: str | Path, options: argparse.Namespace) -> int:
    """Merge what sensors shipped there. Raises ConfigError or StoreError."""
    from functools import partial

    from analytics.merge_jobs import Compactor, Plan
    from analytics.ship.destination import use_own_home
    from analytics.ship.remote_compaction import RemoteCompactor
    from engine import run as runs
    from engine.log import report, say

    given = [f"--{name}" for name in ("since", "until", "output", "rows") if getattr(options, name) is not None]
    if given:
        raise ConfigError(f"engine job compact takes no {given[0]}: it merges whatever hours are over")
    tell, held = partial(report, "info"), contextlib.ExitStack()
    with held:
        if isinstance(lake, Path):
            from analytics.store import require_lake

            lake = require_lake(lake)
            runs.become_unprivileged(lake, None)()
            held.enter_context(
                Compactor(lake, Plan(), tell)
            )  # `engine compact` and `engine retain` stay away meanwhile
        use_own_home()
        run = None if options.on == "local" else partial(_make_on_spark, str(lake), options.on)
        done = RemoteCompactor(str(lake), tell, run=run).compact()
    if done.undone:
        report("warning", f"{done.undone:,} merges of a process that died were undone")
    say(f"{done.objects:,} objects became {done.merged:,}" if done.objects else "no objects are due")
    return 0


def _make_on_spark(url: str, master: str, groups: list[Group]) -> Iterator[Job | None]:
    """Executors merge, some groups each at a time; they need packetlake and the keys of the store."""
    from functools import partial

    from analytics.dialects.session import start_spark
    from analytics.ship.remote_compaction import make

    if not groups:
        return
    session = start_spark(master)
    try:
        for at in range(0, len(groups), _AT_ONCE):
            some = groups[at : at + _AT_ONCE]
            yield from session.sparkContext.parallelize(some, len(some)).map(partial(make, url)).collect()
    finally:
        session.stop()


def train(runner: Runner, range_: str, rows: int, config: EngineConfig) -> Model:
    """A packet model of a sample of the range, the same wherever it is drawn. Raises ConfigError with too few packets.

    The sample are the rows whose names have the smallest MD5, in that order: neither the number of executors nor the
    order of segments has a say in it, and every row the same chance.
    """
    from analytics.training import train as grow

    table = runner.ask(sample_sql(range_, rows))
    if table.num_rows < _LEAST_ROWS:
        raise ConfigError(f"{table.num_rows} packets in the range; {_LEAST_ROWS} at least are needed: widen it")
    times = [int(value.timestamp() * 1e6) for value in _ends(table)]
    return grow(features_of(table), config.scoring.trees, config.scoring.samples, (times[0], times[1]))


def sample_sql(range_: str, rows: int) -> str:
    """The packets that a model is to learn from. A packet's name is its sensor, source, number and time."""
    name = "sensor || '|' || source || '|' || frame_no::VARCHAR || '|' || epoch_us(ts)::VARCHAR"
    return (
        f"SELECT ts, {', '.join(COLUMNS)}, md5({name}) AS draw FROM table_between('packets', {range_}) "  # noqa: S608 — ours
        f"ORDER BY draw LIMIT {int(rows)}"
    )


def _ends(table: pa.Table) -> tuple[datetime, datetime]:
    import pyarrow.compute as pc

    found = pc.min_max(table.column("ts")).as_py()
    return found["min"].replace(tzinfo=UTC), found["max"].replace(tzinfo=UTC)


def _range(options: argparse.Namespace) -> str:
    """`since, until` as SQL."""
    now = datetime.now(UTC)
    given = ((name, getattr(options, name.strip("-"))) for name in ("--since", "--until"))
    times = [None if text is None else parse_time(name, text, now) for name, text in given]
    return ", ".join("NULL" if t is None else f"TIMESTAMP '{t.replace(tzinfo=None)}'" for t in times)


def _places(options: argparse.Namespace) -> list[Path]:
    return [Path(options.output, question) for question in JOBS[options.job]] or [Path(options.output)]


def _write_model(model: Model, output: Path) -> None:
    from analytics.formats import one_line_text
    from analytics.shell import replaced

    data = replace(model, note=one_line_text("engine job train")).to_bytes()
    try:
        with replaced(output) as file:
            file.write(data)
    except OSError as error:
        raise ConfigError(f"{output}: {(error.strerror or str(error)).lower()}; give another name") from None
