"""Packet rows to disk: rows per CPU second and bytes a row, from decoded batches to fsynced and renamed segments.

    python -m benchmarks.writer [--pcap FILE] [--rows N] [--runs N] [--json FILE]

Two mixes: a savefile replayed in a loop with its own addresses, ports and sequence numbers each time (`--pcap`, a
classic pcap, also .zst), and generated traffic of 200,000 flows. All columns are there: flow, application, server name,
place of the raw frame. One thread, CPU time of the process, medians. Beside it in the same run, the same Arrow batches
written by pyarrow with its defaults and by DuckDB's COPY, with fsync and rename; and each column by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import mix
from engine.capture.streams import open_stream
from engine.columns import Columns
from engine.config import LakeConfig
from engine.packets import PACKETS, PacketBatch
from engine.schema import parquet_options
from engine.segment_file import sync
from engine.writer import TableWriter, run_name

Batches = list[PacketBatch]
GOAL_ROWS, GOAL_BYTES = 1_500_000, 40


def plain_file(path: Path, folder: Path) -> Path:
    """The savefile uncompressed."""
    target, stream = folder / "mix.pcap", open_stream(str(path))
    with target.open("wb") as file:
        buffer = memoryview(bytearray(1 << 20))
        while (n := stream.readinto(buffer)) > 0:
            file.write(buffer[:n])
    stream.close()
    return target


def engine_writer(batches: Batches, folder: Path) -> None:
    """As the publish thread does it."""
    columns, writer = Columns(), TableWriter(folder, "packets", LakeConfig(sensor="s1"), run_name())
    for batch in batches:
        writer.append(columns.to_arrow(batch))
        if writer.pending >= 1_000_000:
            writer.publish()
    writer.publish()


def pyarrow_defaults(batches: Batches, folder: Path) -> None:
    """pyarrow's ParquetWriter without a single option."""
    columns, partial = Columns(), folder / "part"
    with pq.ParquetWriter(partial, columns.schema) as writer:
        for batch in batches:
            writer.write_batch(columns.to_arrow(batch))
    _publish(partial)


def duckdb_copy(batches: Batches, folder: Path) -> None:
    """DuckDB reads the Arrow batches as a stream and writes Parquet with zstd."""
    columns, partial = Columns(), folder / "part"
    reader = pa.RecordBatchReader.from_batches(columns.schema, (columns.to_arrow(b) for b in batches))
    with duckdb.connect(config={"threads": 1}) as con:
        con.register("batches", reader)
        con.execute(f"COPY (FROM batches) TO '{partial}' (FORMAT parquet, COMPRESSION zstd)")
    _publish(partial)


def _publish(partial: Path) -> None:
    sync(str(partial))
    partial.rename(partial.with_suffix(".parquet"))
    sync(str(partial.parent))


WRITERS: dict[str, Callable[[Batches, Path], None]] = {
    "engine": engine_writer, "pyarrow defaults": pyarrow_defaults, "DuckDB COPY zstd": duckdb_copy,
}  # fmt: skip


def measure(batches: Batches, runs: int) -> dict[str, dict[str, float]]:
    """Rows per CPU second and bytes a row of each writer; the writers take turns."""
    rows = sum(b.count for b in batches)
    spent: dict[str, list[float]] = {name: [] for name in WRITERS}
    size: dict[str, float] = {}
    for run in range(runs + 1):  # the first is for the kernels and the memory, and is not counted
        for name, write in WRITERS.items():
            with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
                began = time.process_time()
                write(batches, Path(folder))
                if run:
                    spent[name].append(time.process_time() - began)
                size[name] = sum(p.stat().st_size for p in Path(folder).rglob("*.parquet"))
    return {
        name: {"rows_per_cpu_s": rows / statistics.median(times), "bytes_per_row": size[name] / rows}
        for name, times in spent.items()
    }


def to_arrow_ns(batches: Batches, runs: int) -> float:
    """Nanoseconds a row of the conversion alone."""
    columns, times = Columns(), []
    for _ in range(runs):
        began = time.process_time_ns()
        for batch in batches:
            columns.to_arrow(batch)
        times.append((time.process_time_ns() - began) / sum(b.count for b in batches))
    return statistics.median(times)


def by_column(batches: Batches, runs: int) -> dict[str, dict[str, Any]]:
    """Nanoseconds and bytes a row of each column written alone, into memory."""
    columns = Columns()
    found: dict[str, dict[str, Any]] = {}
    rows = sum(b.count for b in batches)
    for column in PACKETS:
        if not column.stored:
            continue
        schema, options = pa.schema([columns.schema.field(column.name)]), parquet_options([column])
        times, size = [], 0
        for _ in range(runs):
            sink, ns = pa.BufferOutputStream(), 0
            writer = pq.ParquetWriter(sink, schema, **options)
            for batch in batches:
                alone = pa.RecordBatch.from_arrays([columns.to_arrow(batch).column(column.name)], schema=schema)
                began = time.process_time_ns()
                writer.write_batch(alone, row_group_size=batch.count)
                ns += time.process_time_ns() - began
            writer.close()
            times.append(ns / rows)
            size = sink.getvalue().size
        found[column.name] = {"ns": statistics.median(times), "bytes": size / rows, "encoding": column.encoding}
    return found


def report(name: str, batches: Batches, runs: int) -> dict[str, Any]:
    """Measure one mix and print it."""
    figures: dict[str, Any] = {"rows": sum(b.count for b in batches), "writers": measure(batches, runs)}
    figures["to_arrow_ns"] = to_arrow_ns(batches, runs)
    print(f"{name}: {figures['rows']:,} rows, load {os.getloadavg()[0]:.1f}")
    for writer, row in figures["writers"].items():
        goal = f"   goal {GOAL_ROWS:,}, {GOAL_BYTES} bytes" if writer == "engine" else ""
        print(f"  {writer:<18} {row['rows_per_cpu_s']:>12,.0f} rows/CPU s {row['bytes_per_row']:6.1f} bytes/row{goal}")
    print(f"  of it the conversion to Arrow: {figures['to_arrow_ns']:.0f} ns a row")
    figures["columns"] = by_column(batches[:8], 3)
    for column, row in sorted(figures["columns"].items(), key=lambda item: -item[1]["bytes"]):
        print(f"    {column:<16} {row['bytes']:6.2f} bytes {row['ns']:6.1f} ns   {row['encoding']}")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Rows per CPU second and bytes a row of the writer.")
    parser.add_argument("--pcap", type=Path, help="savefile to replay; without one, only generated traffic")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    if options.pcap:
        with tempfile.TemporaryDirectory() as folder:
            batches = mix.replayed(plain_file(options.pcap, Path(folder)), options.rows)
        figures["replayed"] = report(f"{options.pcap.name}, replayed", batches, options.runs)
    figures["generated"] = report("generated, 200,000 flows", mix.generated(options.rows), options.runs)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
