"""`engine export`: the frames of a selection of rows as a capture file that any analyser opens.

    export(lake, Selection(where="dst_port = 53", since="1h"), Path("dns.pcapng"))

Rows come from DuckDB in the order of their times, a batch at a time; their frames are gathered from the ring by numpy,
so no Python runs per frame and memory stays the same however many there are.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import duckdb
import numpy as np
import pyarrow as pa

from analytics.capture_format import Format, PcapFormat, PcapngFormat
from analytics.frame_files import FrameFiles, Records, Rows, items, plan
from analytics.selection import Selection
from analytics.shell import interruptible, open_reader, replaced, translated
from analytics.store import connect
from engine.constants import LINK_TYPE_NAMES
from engine.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from numpy.typing import NDArray

STDOUT: Final = "-"
DEFAULT_MAX_BYTES: Final = 4 << 30
_MEMORY: Final = "512MB"  # for the sort; more goes to disk (5 million rows: a fifth slower than in memory)
_READ_BYTES: Final = 32 << 20  # of the ring at once
_OUTPUT_BYTES: Final = 64 << 20  # built at once
_COLUMNS: Final = "epoch_us(ts) AS ts_us, ts_nanos, frame_no, wirelen, caplen, frame_offset, frame_file, source"


@dataclass(slots=True)
class Stored:
    """What is known of a selection before its frames are read.

    sources, files: by place, that is by pair of source and segment. link_types: by place. frames, bytes: in segments
    that are there; bytes as a file of the format has them. not_stored, gone: rows without a frame, and with one in a
    segment that the ring has deleted.
    """

    sources: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    link_types: list[int] = field(default_factory=list)
    frames: int = 0
    size: int = 0
    not_stored: int = 0
    gone: int = 0


def export(
    lake: str | Path, selection: Selection, output: str, *, limit: int | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES, dry_run: bool = False,
) -> int:  # fmt: skip
    """Write the frames of the selected rows, ordered by time and frame_no, and say on stderr how many.

    Args:
        lake: the lake's directory. selection: which rows.
        output: file ending in .pcap (one link type) or .pcapng, complete or not there; `-` is pcapng to stdout.
        limit: at most the first so many frames. max_bytes: refuse a larger file. dry_run: say the size only.

    Returns:
        Frames written (with dry_run: that would be).

    Raises:
        ConfigError: the output's name, the condition or a time is wrong, nothing matches, or the file is too large.
        StoreError: the lake cannot be read, no matching frame is stored, or the output cannot be written.
    """
    form = _format(output)
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit {limit} is out of range: use 1 frame or more")
    con = connect(lake, memory_limit=_MEMORY)
    con.execute("SET python_enable_replacements = false; SET lock_configuration = true")
    files = FrameFiles(Path(lake).expanduser().absolute())
    run = _Export(con, files, selection.condition(con), form, limit)
    target = None if output == STDOUT else Path(output)
    try:
        interruptible(con, lambda: run.measure(max_bytes, lake))
        if not dry_run:
            interruptible(con, lambda: run.write(target))
    except (duckdb.Error, OSError, pa.ArrowException) as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise translated(error, selection.where or "", target) from None
    finally:
        files.close()
        con.close()
    if dry_run:
        return run.stored.frames
    _say(f"{run.written:,} frames written to {'standard output' if target is None else target}{run.missing()}")
    return run.written


def _format(output: str) -> Format:
    if output == STDOUT and sys.stdout.isatty():
        raise ConfigError("a capture is not for a terminal; give a file, or pipe it: engine export - | tshark -r -")
    if output == STDOUT or output.endswith(".pcapng"):
        return PcapngFormat()
    if output.endswith(".pcap"):
        return PcapFormat()
    raise ConfigError(f"output {output!r} is neither .pcap nor .pcapng; name it so, or give - for standard output")


class _Export:
    """One export: `measure`, then `write`."""

    def __init__(
        self, con: DuckDBPyConnection, files: FrameFiles, condition: str, form: Format, limit: int | None
    ) -> None:
        self._con = con
        self._files = files
        self._rows = f"SELECT {_COLUMNS} FROM packets WHERE {condition}"  # noqa: S608 — checked by Selection
        self._form = form
        self._limit = limit
        self._out = np.empty(0, np.uint8)
        self.stored = Stored()
        self.written = 0
        self._damaged = 0

    # --- before ------------------------------------------------------------------------------------------------------

    def measure(self, max_bytes: int, lake: str | Path) -> None:
        """Find the segments, say how much it will be, and refuse what cannot be."""
        stored = self.stored
        groups = self._con.sql(
            f"SELECT source, frame_file, count(*), {self._form.size_sql} FROM ({self._rows}) "  # noqa: S608
            "GROUP BY ALL ORDER BY ALL"
        )
        for source, file, frames, size in groups.fetchall():
            link_type = None if file is None else self._files.link_type(file)
            if link_type is not None:
                stored.sources.append(source)
                stored.files.append(file)
                stored.link_types.append(link_type)
                stored.frames += frames
                stored.size += int(size)
            elif file is None:
                stored.not_stored += frames
            else:
                stored.gone += frames
        if not stored.frames + stored.not_stored + stored.gone:
            raise ConfigError(f"no packet of lake {lake} matches; `engine sql` shows what there is")
        if not stored.frames:
            raise StoreError(
                f"none of {stored.not_stored + stored.gone:,} matching packets has its frame on disk"
                f"{self.missing()}; raise --frames-limit, or capture with --frames full"
            )
        self._form.begin(stored.sources, stored.link_types, _link_name)
        places = pa.table({"place": pa.array(range(len(stored.files)), pa.int32()), "frame_file": stored.files,
                           "source": stored.sources})  # fmt: skip
        self._con.register("_places", places)
        if self._limit is not None and self._limit < stored.frames:
            query = f"SELECT count(*), {self._form.size_sql} FROM ({self._query()})"  # noqa: S608
            [(stored.frames, stored.size)] = self._con.execute(query).fetchall()
        _say(f"selected: {stored.frames:,} frames, about {_size(stored.size)}{self.missing()}")
        if stored.size > max_bytes:
            raise ConfigError(
                f"the file would have about {_size(stored.size)}, more than --max-size {max_bytes >> 20} MiB; "
                "select less with --where, --since or --limit, or raise --max-size"
            )

    def _query(self) -> str:
        """The rows that have a frame, in order."""
        limit = "" if self._limit is None else f" LIMIT {int(self._limit)}"
        return (
            f"SELECT ts_us, ts_nanos, wirelen, caplen, frame_offset, place FROM ({self._rows}) "  # noqa: S608
            f"JOIN _places USING (frame_file, source) ORDER BY ts_us, ts_nanos, frame_no, place{limit}"
        )

    def missing(self) -> str:
        """What is not in the file, and why."""
        counts = (
            (self.stored.not_stored, "never stored"),
            (self.stored.gone, "already deleted from the ring"),
            (self._damaged, "no longer readable in the ring"),
        )
        words = ", ".join(f"{n:,} {why}" for n, why in counts if n)
        return f"; without a frame: {words}" if words else ""

    # --- writing ---------------------------------------------------------------------------------------------------

    def write(self, target: Path | None) -> None:
        """Write the file. Raises StoreError when every frame turns out to be gone."""
        if target is None:
            self._write(sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return
        with replaced(target) as file:
            self._write(file)

    def _write(self, file: IO[bytes]) -> None:
        file.write(self._form.head())
        names = self.stored.files
        first = {name: i for i, name in reversed(list(enumerate(names)))}
        file_of = np.array([first[name] for name in names], np.int64)
        for batch in open_reader(self._con, self._query()):
            place = batch.column("place").to_numpy().astype(np.int64)
            numbers = {n: batch.column(n).to_numpy().astype(np.int64) for n in batch.schema.names}
            offset = np.clip(numbers["frame_offset"], 0, 1 << 60)
            rows = Rows(
                file_of[place], offset, numbers["ts_us"], numbers["ts_nanos"], numbers["wirelen"], numbers["caplen"]
            )
            self._write_rows(rows, place, file)
        if not self.written:
            raise StoreError(f"none of the selected frames could be read{self.missing()}; the ring has moved on")

    def _write_rows(self, rows: Rows, place: NDArray[np.int64], file: IO[bytes]) -> None:
        pieces = plan(rows)
        n = len(rows)
        if n > 1 and (pieces.size > _READ_BYTES or int(rows.caplen.sum()) + 64 * n > _OUTPUT_BYTES):
            self._write_rows(rows.part(0, n // 2), place[: n // 2], file)
            self._write_rows(rows.part(n // 2, n), place[n // 2 :], file)
            return
        records = self._files.read(self.stored.files, rows, pieces)
        used = self._build(rows, place, records)
        file.write(memoryview(self._out)[:used])  # type: ignore[arg-type]

    def _build(self, rows: Rows, place: NDArray[np.int64], records: Records) -> int:
        """Lay the records out in `_out`. Returns the bytes used."""
        kept = np.flatnonzero(records.ok)
        self._damaged += len(rows) - len(kept)
        self.written += len(kept)
        caplen, source = records.caplen[kept], records.at[kept]
        length = self._form.lengths(caplen)
        at = np.cumsum(length) - length
        used = int(length.sum())
        if len(self._out) < used:
            self._out = np.empty(used, np.uint8)
        self._form.place_headers(self._out[:used], at, rows, kept, caplen, place[kept])
        to = at + self._form.header_bytes
        order = np.argsort(caplen, kind="stable")
        edges = np.flatnonzero(np.diff(caplen[order], prepend=-1, append=-1))
        for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            same = order[start:stop]
            size = int(caplen[same[0]])
            if size:  # all frames of a length in one copy
                items(self._out[:used], size)[to[same]] = items(records.data, size)[source[same]]
        return used


def _link_name(link_type: int) -> str:
    return f"{LINK_TYPE_NAMES.get(link_type, 'link type')} ({link_type})"


def _size(n: int) -> str:
    return (
        f"{n / (1 << 30):,.1f} GiB" if n >= 1 << 30 else f"{n / (1 << 20):,.1f} MiB" if n >= 1 << 20 else f"{n:,} bytes"
    )


def _say(text: str) -> None:
    if sys.stderr is not None:
        print(f"engine: {text}", file=sys.stderr)  # noqa: T201


def run(lake: Path, options: Any) -> int:
    """The command: from parsed options to the exit code."""
    selection = Selection(
        where=options.where, flows=tuple(options.flow or ()), since=options.since, until=options.until
    )
    if options.max_size < 1:
        raise ConfigError(f"--max-size {options.max_size} is out of range: use 1 MiB or more")
    export(
        lake, selection, options.output, limit=options.limit, max_bytes=options.max_size << 20, dry_run=options.dry_run
    )
    return 0
