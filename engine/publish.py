"""The last stage: complete batches to rows, rows to segments, counters to `capture_stats`.

One `Publisher` belongs to one thread. With the books that it shares it knows what became of each frame.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from engine.analyse import SideRows
from engine.columns import Columns
from engine.config import LakeConfig
from engine.errors import StoreError
from engine.flows import FlowRows
from engine.message_rows import Addresses, AppRows, merged
from engine.metrics import TOTAL_FIELDS, Books, SourceTotals
from engine.packets import L_TS, PacketBatch
from engine.rollups import Rollups
from engine.tables import TABLES, arrow_schema
from engine.usage import Usage
from engine.writer import TableWriter

_STATS_EVERY_S: Final = 1.0
_ROLLUPS_EVERY_S: Final = 1.0
_OWN: Final = ("packets", "addresses", "capture_stats")


class Publisher:
    """Turn rows into Arrow, write, publish; and account for every row.

    `books` hold the counters per source; the capture side adds received and kernel counts through `observe`.
    `on_failure` is told once per failing publish; rows of a failed segment are counted as drop_not_written.
    """

    def __init__(
        self, lake: Path, config: LakeConfig, run: str, books: Books, on_failure: Callable[[StoreError], None],
        usage: Usage | None = None,
    ) -> None:  # fmt: skip
        self._packets = TableWriter(lake, "packets", config, run)
        self._addresses = TableWriter(lake, "addresses", config, run)
        self._stats = TableWriter(lake, "capture_stats", config, run)
        self._side = {table: _SideTable(lake, table, config, run) for table in TABLES if table not in _OWN}
        self._keep = config.packets
        self._columns = Columns()
        self._rollups = Rollups()
        self._row_addresses = Addresses()
        self._on_failure = on_failure
        self._books = books
        self._usage = usage or Usage()
        self._pending: dict[str, SourceTotals] = defaultdict(SourceTotals)  # appended, not published
        self._settled = 0  # rows visible when `_pending` was last empty
        self._reported: dict[str, SourceTotals] = {}  # already in capture_stats
        self._stats_at = self._rollups_at = time.monotonic()
        self._source = ""  # of the rows written last: what side tables lose at the end is counted there

    # --- rows ----------------------------------------------------------------------------------------------------

    def take(self, batch: PacketBatch) -> None:
        """Write the batch's rows to the open segments. It is free again on return."""
        self._source = batch.source
        if not self._keep:
            self._count_only(batch)
            return
        pending = self._pending[batch.source]
        pending.rows += batch.count
        pending.undecodable += batch.undecodable
        pending.wire_bytes += batch.wire_bytes
        try:
            self._packets.append(self._columns.to_arrow(batch))
            self._addresses.append(self._columns.new_addresses(int(batch.long[L_TS, 0])))
            self._rollups.take(batch, self._columns.ips)
        except StoreError as error:
            self._lose(error)

    def _count_only(self, batch: PacketBatch) -> None:
        """Packets whose rows nobody wants: addresses and rollups."""
        totals = self._books.of(batch.source)
        totals.rows_off += batch.count
        totals.undecodable += batch.undecodable
        totals.wire_bytes += batch.wire_bytes
        self._columns.number(batch)
        try:
            self._addresses.append(self._columns.new_addresses(int(batch.long[L_TS, 0])))
        except StoreError as error:
            self._addresses.discard()
            self._on_failure(error)
        self._rollups.take(batch, self._columns.ips)

    def take_side(self, side: SideRows) -> None:
        """Write rows of another table. What cannot be written is counted."""
        table = self._side.get(side.table)
        if table is None:  # an application without a table of its own
            return
        try:
            if isinstance(side.rows, FlowRows):
                table.append(side.rows.to_arrow())
            elif isinstance(side.rows, AppRows):
                if side.rows.parsed:
                    table.append_rows(side.rows.parsed)
                for rows in merged(side.rows.read):
                    table.append(rows.to_arrow(self._row_addresses))
            elif isinstance(side.rows, list):
                table.append_rows(side.rows)
            else:
                table.append(side.rows)
            if side.publish:
                table.publish()
        except StoreError as error:
            self._books.of(side.source).flows_not_written += max(table.discard(), _length(side.rows))
            self._on_failure(error)
        finally:
            if isinstance(side.rows, FlowRows):
                side.rows.release()

    def _take_rollup(self, table: str, rows: pa.RecordBatch) -> None:
        self.take_side(SideRows(table, rows, self._source, publish=True))

    def end_source(self, source: str) -> None:
        """A source will send no more rows."""
        self._rollups.end_source(source)

    def observe(self, source: str, received: int, kernel_drops: int, interface_drops: int, unread: int = 0) -> None:
        """Record a source's own counters, as totals."""
        totals = self._books.of(source)
        totals.received = received
        totals.kernel_drops = kernel_drops
        totals.interface_drops = interface_drops
        totals.drop_unread_at_stop = unread

    # --- publishing ----------------------------------------------------------------------------------------------

    def publish_due(self) -> None:
        """Publish when a segment is due, and the counters every second, also when nothing arrives."""
        if time.monotonic() - self._rollups_at >= _ROLLUPS_EVERY_S:
            self._rollups_at = time.monotonic()
            self._rollups.flush(self._take_rollup)
        if self._packets.due or self._addresses.due:
            self.publish()
        elif time.monotonic() - self._stats_at >= _STATS_EVERY_S and not self._packets.pending:
            self._write_stats()

    def finish(self) -> None:
        """Make everything visible."""
        self._rollups.flush(self._take_rollup, everything=True)
        for table in self._side.values():
            try:
                table.publish()
            except StoreError as error:
                self._books.of(self._source).flows_not_written += table.discard()
                self._on_failure(error)
        self.publish()

    def publish(self) -> None:
        """Make all packet rows so far visible, with their counters."""
        try:
            self._packets.publish()
            self._addresses.publish()
        except StoreError as error:
            self._lose(error)
        else:
            for source, counts in self._pending.items():
                self._books.of(source).add(counts)
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
            totals = self._books.of(source)
            totals.drop_not_written += missing
            totals.add(counts)
        self._settle()
        self._on_failure(error)

    def _write_stats(self) -> None:
        now = time.monotonic()
        interval, self._stats_at = now - self._stats_at, now
        rows: list[dict[str, Any]] = []
        cpu = self._usage.cpu()
        none = dict.fromkeys(cpu, 0)
        reported = {source: totals.copy() for source, totals in self._books.all().items()}
        for source, totals in reported.items():
            delta = totals.minus(self._reported.get(source, SourceTotals()))
            counts = {name: getattr(delta, name) for name in TOTAL_FIELDS} | self._usage.peaks(source)
            rows.append({"ts": time.time_ns() // 1000, "source": source, "interval_s": interval, **none, **counts})
        if not rows:
            return
        rows[0] |= cpu
        try:
            self._stats.append(pa.RecordBatch.from_pylist(rows, schema=arrow_schema("capture_stats")))
            self._stats.publish()
        except StoreError as error:  # these counts go into the next row that can be written
            self._stats.discard()
            self._on_failure(error)
        else:
            self._reported = reported
            self._usage.written(cpu)


def _length(rows: FlowRows | AppRows | list[Any] | pa.RecordBatch) -> int:
    if isinstance(rows, FlowRows):
        return rows.count
    return len(rows) if isinstance(rows, list | AppRows) else int(rows.num_rows)


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
