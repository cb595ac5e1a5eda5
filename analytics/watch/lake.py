"""A lake as the questions see it: one in-memory DuckDB, its views limited to the segments of the range asked about, and
mirrors of what live pages read each second."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from analytics.alert_state import AlertState
from analytics.geo import Locator
from analytics.listing import live_segments
from analytics.segments import HOUR_S, Segment, SegmentIndex
from analytics.store import connect, require_lake
from analytics.watch import mirror
from analytics.watch.timerange import US, Span, TimeRange, resolve
from engine.tables import TABLES

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY: Final = "1GB"
READ_S: Final = 0.4  # how long an answer reads before it uses what is there; the next one reads on
UPDATE_S: Final = 0.8  # mirrors are not looked at more often
IN_ORDER: Final = ("packets", "capture_stats", "rollup_1s", "rollup_1m")  # a segment's first row is its oldest
MOST_FOOTERS: Final = 100_000  # row counts of segments that are kept
SLACK_S: Final = 60  # rows of packets may be so much out of order
NOBODY: Final = "sensor=none"  # of the segments without rows that a lake begins with
ALERTS: Final = 20_000  # of these the newest are kept in memory
_FUNCTIONS: Final[
    list[Callable[[str], list[str]]]
] = []  # never freed: cursors may outlive the connection that has them


class WatchLake:
    """Opened once per process; `cursor()` is for one thread. Nothing of the lake is written or locked."""

    def __init__(self, lake: Path | str, clock: Callable[[], float] = time.time) -> None:
        self.path = require_lake(lake)
        self.clock = clock
        self.locator = Locator(self.path)
        self._con = connect(self.path, threads=1, memory_limit=MEMORY)
        self._con.execute("SET python_enable_replacements = false")
        self._lock = threading.Lock()  # of the indexes
        self._rows_of: dict[str, int] = {}
        self._indexes = {table: SegmentIndex(self.path, table) for table in TABLES}
        self._local = threading.local()
        self._replace_listing()
        self._mirror_lock = threading.Lock()
        self._mirrors: dict[str, mirror.Mirror] = {}
        self._updated: dict[str, tuple[float, float, float]] = {}  # name: start, when, share read
        self._alerts_of: tuple[str, ...] | None = None
        self._alerts: AlertState | None = None
        self._bounds: tuple[tuple[Any, ...], tuple[int, int] | None] = ((), None)
        self._bounds_at = float("-inf")
        self._counted: tuple[str, tuple[list[str], str, int]] | None = None

    def cursor(self) -> DuckDBPyConnection:
        with self._lock:
            return self._con.cursor()

    def close(self) -> None:
        self._con.close()

    # --- which segments a query opens ---------------------------------------------------------------------------------

    def _replace_listing(self) -> None:
        """Views list the segments of the span that the thread set; planning calls this in the thread of the query."""

        def lake_segments(table: str) -> list[str]:
            span = getattr(self._local, "span", None)
            found = self.files(table, span) if span is not None else live_segments(self.path, table)
            return found or self._empty[table]

        self._empty = {table: [self._no_rows(table)] for table in TABLES}
        _FUNCTIONS.append(lake_segments)
        self._con.remove_function("lake_segments")
        self._con.create_function("lake_segments", lake_segments, ["VARCHAR"], "VARCHAR[]")

    def _no_rows(self, table: str) -> str:
        """A segment without rows: the one that every lake begins with, or one made for it."""
        directory = self.path / table / "sensor=none/date=1970-01-01"
        found = sorted(str(path) for path in directory.glob("*/*.parquet"))
        if found:
            return found[0]
        [row] = self._con.execute("SELECT lake_segments('')").fetchall()  # the store makes one in a temporary directory
        return str(row[0][0])

    @contextlib.contextmanager
    def listing(self, span: Span | None) -> Iterator[None]:
        """Queries of this thread open only segments that can hold rows of the span."""
        before = getattr(self._local, "span", None)
        self._local.span = span
        try:
            yield
        finally:
            self._local.span = before

    def files(self, table: str, span: Span) -> list[str]:
        """Paths of the segments that can hold rows of the span, the oldest first."""
        if table == "addresses":  # what is known of an address may be older
            return live_segments(self.path, table)
        if table == "alert_events":  # what people say of an incident may be of any time
            return live_segments(self.path, table)
        return [segment.path for segment in reversed(self._segments(table, span))]

    def _segments(self, table: str, span: Span) -> list[Segment]:
        """The newest first."""
        start, end = span.start_us / US - SLACK_S, span.end_us / US + SLACK_S
        if table not in IN_ORDER:
            end = (end // HOUR_S + 1) * HOUR_S
        with self._lock:
            return self._indexes[table].within(start, end)

    def newest_rows(self, table: str, span: Span, most: int) -> Span:
        """The span, or its end with about so many rows of the table: what may be read whole for an answer."""
        rows = 0
        for segment in self._segments(table, span):
            rows += self._rows_in(segment.path)
            if rows > most:
                return replace(span, start_us=max(span.start_us, min(int(segment.start * US), span.end_us - US)))
        return span

    def _rows_in(self, path: str) -> int:
        """Rows of a segment by its footer, read once; a segment that has gone or is damaged has none."""
        if path not in self._rows_of:
            if len(self._rows_of) > MOST_FOOTERS:
                self._rows_of.clear()
            try:
                self._rows_of[path] = int(pq.read_metadata(path).num_rows)
            except (OSError, pa.ArrowException):
                return 0
        return self._rows_of[path]

    # --- what the lake is like now ------------------------------------------------------------------------------------

    def span(self, asked: TimeRange) -> Span:
        """The range at this moment."""
        bounds = self.bounds() if asked.newest or asked.everything else None
        return resolve(asked, self.clock(), bounds[1] if bounds else None, bounds)

    def bounds(self) -> tuple[int, int] | None:
        """Times of the oldest and newest packet, microseconds; None in a lake without packets."""
        if time.monotonic() - self._bounds_at < UPDATE_S:
            return self._bounds[1]
        with self._lock:  # of a sensor that keeps no packets, rollups tell
            segments = self._indexes["packets"].within(0, 1e11) or self._indexes["rollup_1s"].within(0, 1e11)
        self._bounds_at = time.monotonic()
        if not segments:
            self._bounds = (), None
            return None
        newest = [s.path for s in segments[:4]]
        key = (segments[-1].path, *newest)
        if self._bounds[0] != key:
            first = self._time_of("min", [segments[-1].path], int(segments[-1].start * US))
            self._bounds = key, (first, self._time_of("max", newest, int(segments[0].start * US)))
        return self._bounds[1]

    def last_counted(self) -> tuple[list[str], str, int] | None:
        """Sources, sensor and time (microseconds) of the newest counters: what was captured last, however long ago."""
        with self._lock:
            newest = self._indexes["capture_stats"].newest()
        if newest is None:
            return None
        if self._counted is None or self._counted[0] != newest.path:
            sql = (
                "SELECT source, epoch_us(max(ts)) FROM read_parquet($files, hive_partitioning = false) GROUP BY source"
            )
            try:
                rows = self.cursor().execute(sql, {"files": [newest.path]}).fetchall()
            except duckdb.Error:
                rows = []
            at = max((row[1] for row in rows), default=int(newest.start * US))
            sensor = newest.path.split("/sensor=")[-1].split("/")[0]
            self._counted = newest.path, (sorted(row[0] for row in rows), sensor, at)
        return self._counted[1]

    def _time_of(self, side: str, paths: list[str], otherwise: int) -> int:
        sql = f"SELECT epoch_us({side}(ts)) FROM read_parquet($files, hive_partitioning = false)"
        try:
            row = self.cursor().execute(sql, {"files": paths}).fetchall()[0]
        except duckdb.Error:  # merged or retired a moment ago, or damaged: the name is near enough
            row = None
        return int(row[0]) if row and row[0] is not None else otherwise

    def sensors(self) -> list[str]:
        """Who has written into the lake."""
        try:
            names = [entry.name for entry in os.scandir(self.path / "capture_stats")]
        except OSError:
            return []
        return sorted(name.removeprefix("sensor=") for name in names if name.startswith("sensor=") and name != NOBODY)

    # --- mirrors ------------------------------------------------------------------------------------------------------

    def mirror(self, shape: mirror.Shape, span: Span) -> tuple[str, int, float] | None:
        """The table that holds the shape's rows of the span, its grain in seconds, and the share that is read so far.

        None for a span that ended before the finest rows: that is asked of the views.
        """
        now = self.clock()
        if not span.live and span.end_us / US < now - mirror.FINE_S:
            return None
        long = span.start_us / US < now - mirror.FINE_S + 60
        if long and not span.live:
            return None
        with self._mirror_lock:
            found = self._mirrors.get(shape.label)
            if found is None:
                found = self._mirrors[shape.label] = mirror.Mirror(self._con.cursor(), self.path, shape)
            start = span.start_us / US - (shape.coarse_s if long else shape.fine_s)
            last = self._updated.get(shape.label)
            if last is None or start < last[0] - 1 or not 0 <= now - last[1] < UPDATE_S or last[2] < 1:
                share = found.update(min(start, last[0] if last else start), now, READ_S)
                self._updated[shape.label] = (found.since, now, share)
            share = self._updated[shape.label][2]
        return (found.coarse, shape.coarse_s, share) if long else (found.fine, shape.fine_s, share)

    def unreadable(self) -> dict[str, str]:
        """Segments that could not be read, by their place in the lake."""
        with self._mirror_lock:
            found = [item for m in self._mirrors.values() for item in m.unreadable.items()]
        root = f"{self.path}/"
        return {path.removeprefix(root): why.replace(root, "") for path, why in found[:20]}

    def alerts(self, con: DuckDBPyConnection) -> None:
        """Have `mem.alerts` hold the newest state of the incidents: made anew when somebody wrote alert_events."""
        with self._mirror_lock:
            files = tuple(live_segments(self.path, "alert_events"))
            if files == self._alerts_of:
                return
            if self._alerts is None:
                self._alerts = AlertState(self.path)
            with self._alerts.connection() as state:
                rows = state.sql(
                    f"SELECT * FROM alerts ORDER BY last_seen DESC, incident_id LIMIT {ALERTS}"
                ).to_arrow_table()
            con.register("_alerts_now", rows)
            con.execute("CREATE SCHEMA IF NOT EXISTS mem")
            con.execute("CREATE OR REPLACE TABLE mem.alerts AS FROM _alerts_now")
            con.unregister("_alerts_now")
            self._alerts_of = files
