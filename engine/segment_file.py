"""One small segment at once: for whoever adds a few rows to the lake and is not the engine's writer.

The file appears complete or not at all, beside those of any number of other writers: fsynced under a name of its own,
then renamed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import StoreError
from engine.schema import parquet_options
from engine.swap import no_swap
from engine.tables import TABLES, arrow_schema

UNFINISHED = ".inprogress"


def sync(path: str) -> None:
    """fsync a file or directory."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directories(path: Path) -> None:
    """As mkdir -p, but a new directory survives a power cut: its parent is fsynced."""
    if path.is_dir():
        return
    make_directories(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
    sync(str(path.parent))


def store_error(where: Path, error: OSError) -> StoreError:
    """What could not be written to the lake, as one line."""
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    return StoreError(f"lake {where}: cannot write: {reason}; free some space or give another directory with --lake")


def add_segment(lake: Path, table: str, sensor: str, rows: list[dict[str, Any]]) -> Path:
    """Publish a segment with these rows, filed by the time of the first. Raises StoreError.

    Root leaves what it makes to the lake's owner, who runs the engine.
    """
    schema = arrow_schema(table)
    batch = pa.RecordBatch.from_pylist(rows, schema=schema)
    ts = int(rows[0]["ts"])
    moment = datetime.fromtimestamp(ts // 1_000_000, UTC)
    base = lake / table / f"sensor={sensor}"
    folder = base / f"date={moment:%Y-%m-%d}" / f"hour={moment:%H}"
    final = folder / f"{ts:016d}-{secrets.token_hex(8)}.parquet"
    partial = f"{final}{UNFINISHED}"
    try:
        make_directories(base)
        with no_swap(base):
            make_directories(folder)
            pq.write_table(pa.Table.from_batches([batch]), partial, **parquet_options(TABLES[table]))
        if os.geteuid() == 0:
            owner = lake.stat()
            for path in (base.parent, base, folder.parent, folder, Path(partial)):
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        sync(partial)
        with no_swap(base):
            os.rename(partial, final)
        sync(str(folder))
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise store_error(folder, error) from None
    return final
