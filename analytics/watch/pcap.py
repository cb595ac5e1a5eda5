"""The frames of a range and filter as a capture file, within limits; see `analytics.pcap_export`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import duckdb
import pyarrow as pa

from analytics.capture_format import PcapngFormat
from analytics.frame_files import FrameFiles
from analytics.pcap_export import _Export
from analytics.shell import translated
from analytics.store import connect
from analytics.watch.context import Stopped
from analytics.watch.filters import Filter
from analytics.watch.statement import Statement
from analytics.watch.timerange import Span
from engine.errors import ConfigError

LIMIT_S: Final = 60.0
_MEMORY: Final = "512MB"
_UNBOUNDED: Final = 1 << 62


def condition(asked: Filter, span: Span, source: str | None = None, frame_no: int = 0) -> str:
    """The packets as a SQL condition, its values put in as literals. With a source: the one with that number in it."""
    where = asked.where("packets")
    if where.ignored:
        raise ConfigError(f"filter: {where.ignored[0]} does not apply to packets; leave it out")
    sql = (
        "ts >= $since AND ts < $until AND _from(date, hour, $since) AND _to(date, hour, $until) "
        f"AND ({where.sql})"
    )  # fmt: skip
    values = dict(where.values)
    if source is not None:
        sql += " AND source = $source AND frame_no = $frame"
        values |= {"source": source, "frame": frame_no}
    return Statement(sql, values).shown(span)


def estimate(lake: Path, where: str, limit: int) -> dict[str, Any]:
    """{frames, bytes, not_stored, gone}: the file's size, and packets whose frames are not there (any more)."""
    with _export(lake, where, limit) as run:
        run.measure(_UNBOUNDED, lake)
        stored = run.stored
        return {
            "frames": stored.frames, "bytes": stored.size, "not_stored": stored.not_stored, "gone": stored.gone,
        }  # fmt: skip


def write(lake: Path, where: str, limit: int, max_bytes: int, file: IO[bytes]) -> int:
    """Write it; returns the frames. Raises ConfigError when nothing matches, or it would be larger than `max_bytes`."""
    with _export(lake, where, limit) as run:
        run.measure(_UNBOUNDED, lake)
        if run.stored.size > max_bytes:
            raise ConfigError(
                f"the file would have {run.stored.size >> 20} MiB, more than {max_bytes >> 20}; "
                "choose a shorter range or a narrower filter, or use `engine export`"
            )
        run._write(file)
        return run.written


@contextmanager
def _export(lake: Path, where: str, limit: int) -> Iterator[_Export]:
    con = connect(lake, threads=1, memory_limit=_MEMORY)
    con.execute("SET python_enable_replacements = false; SET lock_configuration = true")
    files = FrameFiles(lake)
    late = threading.Event()

    def stop() -> None:
        late.set()
        con.interrupt()

    timer = threading.Timer(LIMIT_S, stop)
    timer.daemon = True
    timer.start()
    try:
        yield _Export(con, files, where, PcapngFormat(), limit)
    except (duckdb.Error, OSError, pa.ArrowException) as error:
        if late.is_set():
            raise Stopped(f"the file took longer than {LIMIT_S:g} s; choose a shorter range") from None
        raise translated(error, where, None) from None
    finally:
        timer.cancel()
        files.close()
        con.close()
