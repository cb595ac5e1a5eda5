"""The lake on disk: immutable Parquet segments, complete the moment they can be seen.

    <lake>/<table>/sensor=<name>/date=YYYY-MM-DD/hour=HH/<start>-<seq>.parquet

A segment grows under a name ending in `.inprogress`, is fsynced, renamed into place, and its directory is fsynced.
After a crash nothing has to be repaired; a leftover `.inprogress` file of a dead process is removed at the next start.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine import lake_format
from engine.config import LakeConfig
from engine.schema import parquet_options
from engine.segment_file import UNFINISHED, make_directories, store_error, sync
from engine.swap import no_swap
from engine.tables import TABLES, arrow_schema

_HOUR_US: Final = 3_600_000_000
_MAX_HOURS_PER_BATCH: Final = 32  # a batch of hostile timestamps must not become thousands of files


@dataclass(slots=True)
class _Segment:
    """A segment being written."""

    final: Path
    writer: Any
    sink: Any
    opened: float
    rows: int = 0


class TableWriter:
    """One table of the lake. Not safe for several threads; each writing thread has its own."""

    def __init__(self, lake: Path, table: str, config: LakeConfig, run: str) -> None:
        self._root = lake / table / f"sensor={config.sensor}"
        self._config = config
        self._run = run
        self._schema = arrow_schema(table)
        self._options = parquet_options(TABLES[table])
        self._time = next(c.name for c in TABLES[table] if c.type == "timestamp")
        self._segments: dict[int, _Segment] = {}
        self._sequence = 0
        self.visible = 0  # rows published since the start

    @property
    def due(self) -> bool:
        """True when an open segment is old or large enough to be published."""
        now = time.monotonic()
        return any(
            now - s.opened >= self._config.publish_s or s.rows >= self._config.segment_rows
            for s in self._segments.values()
        )

    @property
    def pending(self) -> int:
        """Rows appended and not published."""
        return sum(s.rows for s in self._segments.values())

    def append(self, batch: pa.RecordBatch) -> None:
        """Write the rows of a batch to the segments of their hours. On StoreError they are in none, see `discard`."""
        if batch.num_rows == 0:
            return
        times = batch.column(self._time).view(pa.int64()).to_numpy()
        first, last = int(times.min()) // _HOUR_US, int(times.max()) // _HOUR_US
        if first == last:
            self._write(first, batch)
            return
        hours = times // _HOUR_US
        distinct = np.unique(hours)
        if len(distinct) > _MAX_HOURS_PER_BATCH:
            self._write(int(hours[0]), batch)
            return
        for hour in distinct:
            self._write(int(hour), batch.filter(pa.array(hours == hour)))

    def _write(self, hour: int, batch: pa.RecordBatch) -> None:
        try:
            segment = self._segments.get(hour) or self._open(hour, batch)
            segment.writer.write_batch(batch, row_group_size=batch.num_rows)
        except OSError as error:
            raise store_error(self._root, error) from None
        segment.rows += batch.num_rows

    def _open(self, hour: int, batch: pa.RecordBatch) -> _Segment:
        start = max(0, hour * 3600)
        moment = datetime.fromtimestamp(start if start < 253_402_300_800 else 0, UTC)  # up to the year 9999
        folder = self._root / f"date={moment:%Y-%m-%d}" / f"hour={moment:%H}"
        make_directories(folder)
        first = int(batch.column(self._time)[0].cast(pa.int64()).as_py())
        self._sequence += 1
        final = folder / f"{max(0, first):016d}-{self._run}{self._sequence:06d}.parquet"
        with no_swap(self._root):
            make_directories(folder)
            sink = pa.OSFile(str(final) + UNFINISHED, "wb")
        writer = pq.ParquetWriter(sink, self._schema, **self._options)
        segment = self._segments[hour] = _Segment(final, writer, sink, time.monotonic())
        return segment

    def publish(self) -> int:
        """Make every open segment visible. Returns the rows published; raises StoreError, see `discard`."""
        rows = 0
        for hour, segment in list(self._segments.items()):
            partial = str(segment.final) + UNFINISHED
            try:
                segment.writer.close()
                segment.sink.close()
                sync(partial)
                with no_swap(self._root):
                    os.rename(partial, segment.final)
                sync(str(segment.final.parent))
            except OSError as error:
                raise store_error(segment.final, error) from None
            rows += segment.rows
            self.visible += segment.rows
            del self._segments[hour]
        return rows

    def discard(self) -> int:
        """Give up what is not published, after a failure. Returns the rows lost."""
        lost = self.pending
        for segment in self._segments.values():
            for close in (segment.writer.close, segment.sink.close):
                with contextlib.suppress(OSError, ValueError):
                    close()
            with contextlib.suppress(OSError):
                os.unlink(str(segment.final) + UNFINISHED)
        self._segments.clear()
        return lost


def run_name() -> str:
    """A name for this run that no other has: segments of an earlier run are never overwritten."""
    return f"{time.time_ns():x}"


def init_lake(lake: Path) -> None:
    """Make the lake readable from the first moment: each table gets a segment without rows, since views need a file.

    Raises StoreError when it cannot be created or written.
    """
    try:
        make_directories(lake)
        lake_format.prepare(lake)
        for table in TABLES:
            folder = lake / table / "sensor=none" / "date=1970-01-01" / "hour=00"
            final = folder / "0-0.parquet"
            make_directories(folder)
            if final.exists():
                continue
            partial = f"{final}.{os.getpid()}{UNFINISHED}"
            pq.write_table(arrow_schema(table).empty_table(), partial, **parquet_options(TABLES[table]))
            sync(partial)
            os.rename(partial, final)
            sync(str(folder))
        _remove_leftovers(lake)
        probe = lake / f".probe-{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise store_error(lake, error) from None


def _remove_leftovers(lake: Path) -> None:
    """Unfinished segments that no process has written to for a minute belong to a process that died."""
    for table in TABLES:
        for path in (lake / table).glob(f"*/*/*/*{UNFINISHED}"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > 60:
                    path.unlink()
