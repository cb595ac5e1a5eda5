"""The last stage: decoded batches to flows, raw frames and rows, rows to segments, counters to `capture_stats`.

One `Publisher` belongs to one thread. It is the only place that knows what became of each frame.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from engine.applications import Applications
from engine.columns import Columns
from engine.config import EngineConfig, LakeConfig
from engine.errors import StoreError
from engine.flows import FlowTable
from engine.frames import FrameRing
from engine.metrics import TOTAL_FIELDS, SourceTotals
from engine.packets import L_TS, FrameBatch, PacketBatch
from engine.pressure import Level
from engine.tables import APPLICATION_TABLES, arrow_schema
from engine.writer import TableWriter, run_name

_STATS_EVERY_S: Final = 1.0
# Flows and applications make few rows in many tables: published less often, they make fewer files.
_FLOWS_EVERY_S: Final = 4.0
_APPLICATIONS_EVERY_S: Final = 8.0
_ROWS_AT_ONCE: Final = 8192  # of one application that wait, before they are turned into Arrow
_QUIET_S: Final = 1.0  # without packets for so long, flows end by the clock of the machine
_IN_FLIGHT_NS: Final = 2_000_000_000  # packets of the last two seconds may still be on their way


class Publisher:
    """Follow flows, store frames, turn rows into Arrow, write, publish; and account for every frame.

    `totals` holds the counters per source; the capture side adds received and kernel counts through `observe`.
    `on_failure` is told once per failing publish; rows of a failed segment are counted as drop_not_written. Raw frames
    are less than rows: `on_frame_failure` is told when they cannot be stored, and everything else goes on. `live` says
    that the packets' clock is the machine's.
    """

    def __init__(
        self, lake: Path, config: EngineConfig, on_failure: Callable[[StoreError], None],
        on_frame_failure: Callable[[StoreError], None] | None = None,
    ) -> None:  # fmt: skip
        run = run_name()
        self._packets = TableWriter(lake, "packets", config.lake, run)
        self._addresses = TableWriter(lake, "addresses", config.lake, run)
        self._stats = TableWriter(lake, "capture_stats", config.lake, run)
        self._flow_rows = _SideTable(lake, "flows", config.lake, run)
        self._application_rows = {table: _SideTable(lake, table, config.lake, run) for table in APPLICATION_TABLES}
        self._applications = Applications(config.applications.budget) if config.applications.enabled else None
        self._flows = FlowTable(config.flows, self._take_flows, self._applications)
        self._ring = FrameRing(lake, config.frames, config.lake.sensor, run, on_frame_failure)
        self._columns = Columns()
        self._on_failure = on_failure
        self._pending: dict[str, SourceTotals] = defaultdict(SourceTotals)  # appended, not published
        self._settled = 0  # rows visible when `_pending` was last empty
        self._reported: dict[str, SourceTotals] = {}  # already in capture_stats
        self._stats_at = time.monotonic()
        self._taken_at = self._flows_at = self._applications_at = time.monotonic()
        self._source = ""  # of the batch in hand: side tables count their losses there
        self.totals: dict[str, SourceTotals] = defaultdict(SourceTotals)
        self.live = False

    # --- batches -------------------------------------------------------------------------------------------------

    def take(self, frames: FrameBatch, batch: PacketBatch, give_up: Level = Level.NONE) -> None:
        """Turn the decoded frames into rows of the open segments. Both batches are free again on return."""
        self._taken_at = time.monotonic()
        self._source = frames.source
        totals = self.totals[frames.source]
        self._flows.follow(frames, batch)
        self._count_side_stages(totals)
        stored = 0
        if give_up < Level.FRAMES:
            stored = self._ring.store(frames, batch)
        else:
            self._ring.skip(frames, batch)
        totals.frames_stored += stored
        totals.frames_not_stored += batch.count - stored if self._ring.enabled else 0
        if give_up >= Level.ROWS:
            totals.drop_rows_shed += batch.count
            return
        pending = self._pending[frames.source]
        pending.rows += batch.count
        pending.undecodable += batch.undecodable
        pending.wire_bytes += batch.wire_bytes
        try:
            self._packets.append(self._columns.to_arrow(batch))
            self._addresses.append(self._columns.new_addresses(int(batch.long[L_TS, 0])))
        except StoreError as error:
            self._lose(error)

    def _take_flows(self, rows: pa.RecordBatch) -> None:
        self._side(self._flow_rows, self._flow_rows.append, rows)

    def _take_applications(self) -> None:
        assert self._applications is not None
        for table, rows in self._applications.take_rows().items():
            if table in self._application_rows:
                side = self._application_rows[table]
                self._side(side, side.append_rows, rows)

    def _side(self, side: _SideTable, work: Callable[..., object], *rows: Any) -> None:
        """Write to a side table; what it then gives up is counted."""
        try:
            work(*rows)
        except StoreError as error:
            self.totals[self._source].flows_not_written += side.discard()
            self._on_failure(error)

    def _count_side_stages(self, totals: SourceTotals) -> None:
        flows = self._flows.take_counts()
        totals.flows += flows.flows
        totals.flows_evicted += flows.evicted
        if self._applications is not None:
            messages = self._applications.take_counts()
            totals.messages += messages.messages
            totals.messages_missed += messages.missed
            totals.messages_bad += messages.bad

    def end_source(self, source: str) -> None:
        """A source will send no more: its flows end."""
        self._source = source
        self._flows.end_source(source)
        if source in self.totals:
            self._count_side_stages(self.totals[source])

    def observe(self, source: str, received: int, kernel_drops: int, interface_drops: int, unread: int = 0) -> None:
        """Record a source's own counters, as totals."""
        totals = self.totals[source]
        totals.received = received
        totals.kernel_drops = kernel_drops
        totals.interface_drops = interface_drops
        totals.drop_unread_at_stop = unread

    # --- publishing ----------------------------------------------------------------------------------------------

    def publish_due(self) -> None:
        """Publish when a segment is due, and the counters every second, also when nothing arrives."""
        if self.live and time.monotonic() - self._taken_at >= _QUIET_S:
            self._flows.tick(time.time_ns() - _IN_FLIGHT_NS)
        self._publish_side_tables()
        if self._packets.due:
            self.publish()
        elif time.monotonic() - self._stats_at >= _STATS_EVERY_S and not self._packets.pending:
            self._write_stats()

    def finish(self) -> None:
        """End every flow and make everything visible."""
        self._flows.close()
        self._ring.close()
        self._publish_side_tables(all_of_it=True)
        self.publish()

    @property
    def peak_flows(self) -> int:
        """Most flows that lived at once."""
        return self._flows.peak

    @property
    def flow_bound_bytes(self) -> int:
        """What the flow table's memory is bounded to."""
        return self._flows.bound_bytes

    def _publish_side_tables(self, all_of_it: bool = False) -> None:
        now = time.monotonic()
        if all_of_it or now - self._flows_at >= _FLOWS_EVERY_S or self._flow_rows.due:
            self._flows_at = now
            self._flows.flush()
            self._side(self._flow_rows, self._flow_rows.publish)
        if self._applications is None:
            return
        due = all_of_it or now - self._applications_at >= _APPLICATIONS_EVERY_S
        if due or self._applications.waiting >= _ROWS_AT_ONCE:
            self._take_applications()
        if due:
            self._applications_at = now
            for side in self._application_rows.values():
                self._side(side, side.publish)

    def publish(self) -> None:
        """Make all rows so far visible, with their counters."""
        try:
            self._packets.publish()
            self._addresses.publish()
        except StoreError as error:
            self._lose(error)
        else:
            for source, counts in self._pending.items():
                self.totals[source].add(counts)
            self._settle()
        self._write_stats()

    def _settle(self) -> None:
        self._pending.clear()
        self._settled = self._packets.visible

    def _lose(self, error: StoreError) -> None:
        """Give up what is not visible, count it as lost, say so, and go on.

        Segments of some hours may have been published before another failed. How many rows are lost is exact; with
        several sources, the newest in `_pending` bear the loss first.
        """
        self._packets.discard()
        self._addresses.discard()
        lost = sum(counts.rows for counts in self._pending.values()) - (self._packets.visible - self._settled)
        for source, counts in reversed(self._pending.items()):
            missing = min(lost, counts.rows)
            lost -= missing
            counts.rows -= missing
            if not counts.rows:
                counts.undecodable = counts.wire_bytes = 0
            self.totals[source].drop_not_written += missing
            self.totals[source].add(counts)
        self._settle()
        self._on_failure(error)

    def _write_stats(self) -> None:
        now = time.monotonic()
        interval, self._stats_at = now - self._stats_at, now
        rows = []
        reported = {source: totals.copy() for source, totals in self.totals.items()}
        for source, totals in reported.items():
            delta = totals.minus(self._reported.get(source, SourceTotals()))
            counts = {name: getattr(delta, name) for name in TOTAL_FIELDS}
            rows.append({"ts": time.time_ns() // 1000, "source": source, "interval_s": interval, **counts})
        if not rows:
            return
        try:
            self._stats.append(pa.RecordBatch.from_pylist(rows, schema=arrow_schema("capture_stats")))
            self._stats.publish()
        except StoreError as error:  # these counts go into the next row that can be written
            self._stats.discard()
            self._on_failure(error)
        else:
            self._reported = reported


class _SideTable(TableWriter):
    """A table beside `packets`, of flows or of an application's messages."""

    def __init__(self, lake: Path, table: str, config: LakeConfig, run: str) -> None:
        super().__init__(lake, table, config, run)
        self._row_schema = arrow_schema(table)

    def append_rows(self, rows: list[dict[str, Any]]) -> None:
        """Append rows that parsers made. One that does not fit the table's types is left out, never the others."""
        try:
            self.append(pa.RecordBatch.from_pylist(rows, schema=self._row_schema))
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            if len(rows) > 1:
                for row in rows:
                    self.append_rows([row])
