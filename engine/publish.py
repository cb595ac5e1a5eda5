"""The last stage: batches to rows, rows to segments, counters to `capture_stats`.

One `Publisher` belongs to one thread. It is the only place that knows what became of each frame.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from engine.columns import Columns
from engine.config import LakeConfig
from engine.decode import Decoder
from engine.errors import StoreError
from engine.metrics import TOTAL_FIELDS, SourceTotals
from engine.packets import L_TS, FrameBatch, PacketBatch
from engine.tables import arrow_schema
from engine.writer import TableWriter, run_name

_STATS_EVERY_S = 1.0


class Publisher:
    """Decode, turn into Arrow, write, publish; and account for every frame.

    `totals` holds the counters per source; the capture side adds received and kernel counts through `observe`.
    `on_failure` is told once per failing publish; rows of a failed segment are counted as drop_not_written.
    """

    def __init__(self, lake: Path, config: LakeConfig, on_failure: Callable[[StoreError], None]) -> None:
        run = run_name()
        self._packets = TableWriter(lake, "packets", config, run)
        self._addresses = TableWriter(lake, "addresses", config, run)
        self._stats = TableWriter(lake, "capture_stats", config, run)
        self._decoder = Decoder()
        self._columns = Columns()
        self._batch = PacketBatch()
        self._on_failure = on_failure
        self._pending: dict[str, SourceTotals] = defaultdict(SourceTotals)  # appended, not published
        self._settled = 0  # rows visible when `_pending` was last empty
        self._reported: dict[str, SourceTotals] = {}  # already in capture_stats
        self._stats_at = time.monotonic()
        self.totals: dict[str, SourceTotals] = defaultdict(SourceTotals)

    def take(self, frames: FrameBatch) -> None:
        """Turn the frames into rows of the open segment. The batch is free again on return."""
        batch = self._decoder.decode(frames, self._batch)
        pending = self._pending[frames.source]
        pending.rows += batch.count
        pending.undecodable += batch.undecodable
        pending.wire_bytes += batch.wire_bytes
        try:
            self._packets.append(self._columns.to_arrow(batch))
            self._addresses.append(self._columns.new_addresses(int(batch.long[L_TS, 0])))
        except StoreError as error:
            self._lose(error)

    def observe(self, source: str, received: int, kernel_drops: int, interface_drops: int, unread: int = 0) -> None:
        """Record a source's own counters, as totals."""
        totals = self.totals[source]
        totals.received = received
        totals.kernel_drops = kernel_drops
        totals.interface_drops = interface_drops
        totals.drop_unread_at_stop = unread

    def publish_due(self) -> None:
        """Publish when a segment is due, and the counters every second, also when nothing arrives."""
        if self._packets.due:
            self.publish()
        elif time.monotonic() - self._stats_at >= _STATS_EVERY_S and not self._packets.pending:
            self._write_stats()

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
