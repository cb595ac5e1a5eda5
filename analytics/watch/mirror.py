"""Rollups of a live lake in memory: every segment is read once, since opening thousands of small files each second
would cost more than the capture.

A mirror holds one table at two grains: `fine` for the last FINE_S seconds, `coarse` for as far back as was asked for.
Rows are filed by partition (sensor and hour). When the merger has replaced segments of a partition, that partition is
read again, from few files; so no row counts twice.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import duckdb

from analytics.segments import Segment, SegmentIndex
from engine.schema import SQL_TYPES
from engine.tables import CAPTURE_STATS, TABLES
from engine.usage import PEAKS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FINE_S: Final = 2 * 3600
LONGEST_S: Final = 31 * 86_400
EVERYWHERE_S: Final = 30  # between looks at partitions older than FINE_S, which only the merger changes
FRESH_S: Final = 300
FILES_PER_READ: Final = 64
FEW: Final = 4  # segments that are taken row by row
FOLD_ROWS: Final = 20_000  # a partition with more coarse rows than that since its last fold is added up again
FOLD_FINE: Final = 100_000  # the same of fine ones
GROWS_S: Final = 900  # fine slots of so long ago get hardly any rows any more


@dataclass(frozen=True, slots=True)
class Shape:
    """What is kept of a table: key columns and sums as (name, SQL type, SQL), and the two grains in seconds.

    `time` is the column by which rows are put into slots. `most`: rows kept of each slot and file, the largest first
    by the last of the sums; 0 keeps all. `peaks`: those of the sums that do not add up; the highest is kept.
    `name` tells apart two shapes of one table.
    """

    table: str
    keys: tuple[tuple[str, str, str], ...]
    sums: tuple[tuple[str, str], ...]
    fine_s: int
    coarse_s: int
    time: str = "ts"
    most: int = 0
    peaks: tuple[str, ...] = ()
    name: str = ""

    @property
    def label(self) -> str:
        return self.name or self.table


@dataclass(slots=True)
class _Partition:
    number: int
    read: set[str] = field(default_factory=set)
    fresh_rows: int = 0
    fresh_fine: int = 0


@cache
def _schema(shape: Shape) -> str:
    """The columns that the shape reads, as the `schema` of read_parquet; NULL where a segment lacks one."""
    text = " ".join([shape.time, *(sql for _, _, sql in shape.keys), *(sql for _, sql in shape.sums)])
    used = set(re.findall(r"\w+", text))
    columns = ", ".join(
        f"'{c.name}': {{name: '{c.name}', type: '{SQL_TYPES[c.type]}', default_value: NULL}}"
        for c in TABLES[shape.table]
        if c.stored and c.name in used
    )
    return f"MAP {{{columns}}}"


class Mirror:
    """One table's rollup. Not thread-safe: the caller holds a lock."""

    def __init__(self, con: DuckDBPyConnection, lake: Path, shape: Shape) -> None:
        self.con = con
        self.shape = shape
        self.index = SegmentIndex(lake, shape.table)
        self.fine, self.coarse = f"mem.{shape.label}_fine", f"mem.{shape.label}_coarse"
        self.since = float("inf")  # coarse rows are complete from here
        self.unreadable: dict[str, str] = {}
        self._partitions: dict[str, _Partition] = {}
        self._numbers = 0
        self._looked_at = self._looked_everywhere = float("-inf")
        keys = ", ".join(f"{name} {kind}" for name, kind, _ in shape.keys)
        sums = ", ".join(f"{name} BIGINT" for name, _ in shape.sums)
        con.execute("CREATE SCHEMA IF NOT EXISTS mem")
        for name in (self.fine, self.coarse, f"mem.{shape.label}_new"):
            con.execute(f"CREATE OR REPLACE TABLE {name} (part INTEGER, s BIGINT, {keys}, {sums})")

    def update(self, start: float, now: float, budget_s: float) -> float:
        """Read what is new of the rows since `start`, for about `budget_s`. Returns the share that is read, 0 to 1."""
        everywhere = start < self.since or now - self._looked_everywhere > EVERYWHERE_S
        self.since = max(min(self.since, start), now - LONGEST_S)
        since = self.since if everywhere else max(self.since, now - FINE_S)
        wanted: dict[str, list[Segment]] = {}
        for segment in self.index.within(since - 120, now + 86_400):
            wanted.setdefault(segment.path.rpartition("/")[0], []).append(segment)
        missing: list[tuple[str, list[Segment]]] = []
        for directory, segments in wanted.items():  # newest first
            self._notice_merges(directory, {s.path for s in segments}, now)
            known = self._partitions.get(directory)
            new = [s for s in segments if known is None or s.path not in known.read]
            if new:
                missing.append((directory, new))
        total = sum(map(len, wanted.values()))
        left = sum(len(new) for _, new in missing)
        deadline = time.monotonic() + budget_s
        for directory, new in missing:
            for at in range(0, len(new), FILES_PER_READ):
                if time.monotonic() > deadline:
                    return 1 - left / total
                part = new[at : at + FILES_PER_READ]
                self._read(directory, part, now)
                left -= len(part)
        self._tidy(now)
        self._looked_at = now
        if everywhere:
            self._looked_everywhere = now
        return 1.0

    def _notice_merges(self, directory: str, present: set[str], now: float) -> None:
        """Segments that were read are gone: merged into larger ones, or retired. Their partition is read anew.

        A compaction at a destination retires segments while another holds their rows already.
        """
        known = self._partitions.get(directory)
        if known is None or known.read <= present:
            return
        retired = self.index.retired()
        gone = {path for path in known.read - present if path in retired or not Path(path).exists()}
        merged = {path for path in present - known.read if "-m" in path.rpartition("/")[2]}
        if gone and merged and self.shape.most and now - self._looked_at < FRESH_S:
            # Flows are many, and nothing can have been merged that was not read: merging waits for ten minutes.
            known.read = known.read - gone | merged
        elif gone:
            self._forget(directory)

    def _forget(self, directory: str) -> None:
        number = self._partitions.pop(directory).number
        for name in (self.fine, self.coarse):
            self.con.execute(f"DELETE FROM {name} WHERE part = ?", [number])

    def _read(self, directory: str, segments: list[Segment], now: float) -> None:
        partition = self._partitions.get(directory)
        if partition is None:
            self._numbers += 1
            partition = self._partitions[directory] = _Partition(self._numbers)
        try:
            self._add(partition, directory, [s.path for s in segments], now)
        except duckdb.InterruptException:
            raise
        except duckdb.Error as error:
            if len(segments) > 1:
                for segment in segments:
                    self._read(directory, [segment], now)
                return
            self.unreadable[segments[0].path] = str(error).splitlines()[0]
        partition.read.update(s.path for s in segments)

    def _add(self, partition: _Partition, directory: str, paths: list[str], now: float) -> None:
        shape = self.shape
        names = ", ".join(name for name, _, _ in shape.keys)
        keys = ", ".join(f"{sql} AS {name}" for name, _, sql in shape.keys)
        of = {name: "max" if name in shape.peaks else "sum" for name, _ in shape.sums}
        again = ", ".join(f"{of[name]}({name})::BIGINT AS {name}" for name, _ in shape.sums)
        # A live segment of a rollup holds few rows, each of another key: planning sums costs more than those rows.
        few = not shape.most and len(paths) <= FEW and not any("-m" in path.rpartition("/")[2] for path in paths)
        if few:
            sums = ", ".join(f"({sql})::BIGINT AS {name}" for name, sql in shape.sums)
            group = ""
        else:
            sums = ", ".join(f"{of[name]}({sql})::BIGINT AS {name}" for name, sql in shape.sums)
            group = f"GROUP BY {', '.join(map(str, range(1, 3 + len(shape.keys))))}"  # part, s and the keys
            if shape.most:
                group += (
                    f" QUALIFY row_number() OVER (PARTITION BY s ORDER BY {shape.sums[-1][0]} DESC) <= {shape.most}"
                )
        new = f"mem.{shape.label}_new"
        sensor = directory.split("/sensor=")[-1].split("/")[0]
        slot = f"epoch_us({shape.time}) // 1000000 // {shape.fine_s} * {shape.fine_s}"
        self.con.execute(
            f"CREATE OR REPLACE TABLE {new} AS SELECT $part::INTEGER AS part, {slot} AS s, {keys}, {sums} "
            f"FROM (SELECT *, $sensor AS sensor FROM read_parquet($files, hive_partitioning = false, "
            f"schema = {_schema(shape)})) {group}",
            {"part": partition.number, "sensor": sensor, "files": paths},
        )
        every = ", ".join(name for name, _ in shape.sums)
        self.con.execute("BEGIN")  # both grains, or neither: a file is counted once
        try:
            fine = self.con.execute(f"INSERT INTO {self.fine} FROM {new} WHERE s >= ?", [int(now) - FINE_S]).fetchall()
            added = self.con.execute(
                f"INSERT INTO {self.coarse} SELECT part, s // {shape.coarse_s} * {shape.coarse_s} AS s, {names}, "
                f"{every if few else again} FROM {new} {'' if few else 'GROUP BY ALL'}"
            ).fetchall()
            self.con.execute("COMMIT")
        except duckdb.Error:
            self.con.execute("ROLLBACK")
            raise
        partition.fresh_rows += added[0][0] if added else 0
        if partition.fresh_rows > FOLD_ROWS:
            self._fold(partition, self.coarse, names, again)
            partition.fresh_rows = 0
        partition.fresh_fine += fine[0][0] if fine and shape.most else 0
        if partition.fresh_fine > FOLD_FINE:
            self._fold(partition, self.fine, names, again, f" AND s >= {int(now) - GROWS_S}")
            partition.fresh_fine = 0

    def _fold(self, partition: _Partition, table: str, names: str, again: str, since: str = "") -> None:
        where = f"part = {partition.number}{since}"
        self.con.execute(
            f"CREATE OR REPLACE TABLE mem.folded AS SELECT part, s, {names}, {again} FROM {table} "
            f"WHERE {where} GROUP BY ALL"
        )
        self.con.execute("BEGIN")
        self.con.execute(f"DELETE FROM {table} WHERE {where}")
        self.con.execute(f"INSERT INTO {table} FROM mem.folded")
        self.con.execute("COMMIT")

    def _tidy(self, now: float) -> None:
        """Forget fine rows that are old."""
        before = int(now) - FINE_S - 300
        oldest = self.con.execute(f"SELECT min(s) FROM {self.fine}").fetchall()
        if oldest[0][0] is not None and oldest[0][0] < before - 300:
            self.con.execute(f"DELETE FROM {self.fine} WHERE s < ?", [before])


COUNTERS: Final = tuple(c.name for c in CAPTURE_STATS if c.type == "int64")
SECONDS: Final = Shape(
    "rollup_1s",
    (("proto", "SMALLINT", "proto"), ("ethertype", "INTEGER", "ethertype"), ("app", "VARCHAR", "app"),
     ("sensor", "VARCHAR", "sensor")),
    (("undecodable", "undecodable"), ("syns", "syns"), ("packets", "packets"), ("bytes", "bytes")),
    1, 60,
)  # fmt: skip
TALKERS: Final = Shape(
    "rollup_1m",
    (("dimension", "VARCHAR", "dimension"), ("key", "VARCHAR", "key"), ("sensor", "VARCHAR", "sensor")),
    (("keys", "keys"), ("packets", "packets"), ("bytes", "bytes")),
    60, 3600,
)  # fmt: skip
STATS: Final = Shape(
    "capture_stats",
    (("source", "VARCHAR", "source"), ("sensor", "VARCHAR", "sensor")),
    (*((name, f"coalesce({name}, 0)") for name in COUNTERS), ("interval_ms", "(interval_s * 1000)::BIGINT")),
    1, 60, peaks=PEAKS,
)  # fmt: skip
PAIRS: Final = Shape(
    "flows",
    (("a_ip", "VARCHAR", "least(src_ip, dst_ip)"), ("b_ip", "VARCHAR", "greatest(src_ip, dst_ip)"),
     ("sensor", "VARCHAR", "sensor")),
    (("flows", "CASE WHEN part = 1 THEN 1 ELSE 0 END"), ("packets", "src_packets + dst_packets"),
     ("bytes", "src_bytes + dst_bytes")),
    60, 3600, time="end_ts", most=300,
)  # fmt: skip
_FAILED: Final = "outcome NOT IN ('established', 'answered', 'reset')"
HOSTS: Final = Shape(
    "flows",
    (("src_ip", "VARCHAR", "src_ip"), ("dst_ip", "VARCHAR", "dst_ip"), ("app", "VARCHAR", "app"),
     ("sensor", "VARCHAR", "sensor")),
    (("parts", "1"), ("flows", "CASE WHEN part = 1 THEN 1 ELSE 0 END"),
     ("failed", f"CASE WHEN part = 1 AND {_FAILED} THEN 1 ELSE 0 END"),
     ("failed_parts", f"CASE WHEN {_FAILED} THEN 1 ELSE 0 END"), ("packets", "src_packets + dst_packets"),
     ("before", "-epoch_us(ts)"), ("ended", "epoch_us(end_ts)"), ("sent", "src_bytes"),
     ("bytes", "src_bytes + dst_bytes")),
    60, 3600, most=50_000, peaks=("before", "ended"), name="hosts",
)  # fmt: skip
