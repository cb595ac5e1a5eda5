"""`engine inspect`: one packet as its layers and its bytes.

    find(lake, Selection(flows=(42,)), nth=3)  # the third packet of a flow
    layers(frame, link_type)                   # its tree; see `analytics.layers`

The tree and the bytes refer to each other by offsets. Everything that is printed is safe for a terminal.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa

from analytics.frame_files import FrameFiles, Rows, plan
from analytics.layers import Field, Layer, layers, safe
from analytics.selection import Selection
from analytics.shell import interruptible, translated
from analytics.store import connect
from engine.constants import LINK_TYPE_NAMES
from engine.errors import ConfigError, StoreError

__all__ = ["Field", "Frame", "Layer", "find", "layers", "render_json", "render_text", "run", "show"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_COLUMNS: Final = "epoch_us(ts), ts_nanos, frame_no, wirelen, caplen, source, frame_file, frame_offset"


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame to look at. `data` may be shorter than `wirelen`. ts_ns since the epoch. `source`, `frame_no`: as in
    the columns of `packets`."""

    data: bytes
    link_type: int
    wirelen: int
    ts_ns: int
    source: str
    frame_no: int


def find(
    lake: str | Path, selection: Selection, *, nth: int = 1, source: str | None = None, frame_no: int | None = None
) -> Frame:
    """The nth of the selected packets, in the order of time and frame_no, with its bytes from the ring.

    Raises ConfigError when none matches or the selection is wrong, StoreError when its frame is not on disk.
    """
    if nth < 1:
        raise ConfigError(f"--nth {nth} is out of range: use 1 or more")
    con = connect(lake)
    found: list[tuple[Any, ...]] = []
    try:
        con.execute("SET python_enable_replacements = false; SET lock_configuration = true")
        query = f"SELECT {_COLUMNS} FROM packets WHERE {selection.condition(con)}"  # noqa: S608 — checked by Selection
        values: list[Any] = []
        for name, value in (("source", source), ("frame_no", frame_no)):
            if value is not None:
                query += f" AND {name} = ?"
                values.append(value)
        query += " ORDER BY ts, ts_nanos, frame_no, source LIMIT 1 OFFSET ?"
        interruptible(con, lambda: found.extend(con.execute(query, [*values, nth - 1]).fetchall()))
    except (duckdb.Error, OSError, pa.ArrowException) as error:
        raise translated(error, selection.where or "", None) from None
    finally:
        con.close()
    if not found:
        what = "no packet matches" if nth == 1 else f"fewer than {nth} packets match"
        raise ConfigError(f"{what} in lake {lake}; `engine sql` shows what there is")
    return _read(Path(lake).expanduser().absolute(), found[0])


def _read(lake: Path, row: tuple[Any, ...]) -> Frame:
    ts_us, ts_nanos, number, wirelen, caplen, source, file, offset = row
    which = f"frame {number} of {safe(source)}"
    if file is None:
        raise StoreError(f"{which} was not stored; capture with --frames full to keep bytes")
    files = FrameFiles(lake)
    try:
        link_type = files.link_type(file)
        if link_type is not None:
            rows = Rows(*(np.array([n], np.int64) for n in (0, offset, ts_us, ts_nanos, wirelen, caplen)))
            records = files.read([file], rows, plan(rows))
            if records.ok[0]:
                at = int(records.at[0])
                data = records.data[at : at + int(records.caplen[0])].tobytes()
                return Frame(data, link_type, wirelen, ts_us * 1000 + ts_nanos, source, number)
    finally:
        files.close()
    raise StoreError(
        f"{which} is no longer on disk: the ring has deleted {safe(file)}; raise --frames-limit to keep more"
    )


# --- output -----------------------------------------------------------------------------------------------------------


def render_text(frame: Frame) -> str:
    """The layers with their fields, then the bytes."""
    link = LINK_TYPE_NAMES.get(frame.link_type, f"link type {frame.link_type}")
    lines = [
        f"frame {frame.frame_no} of {safe(frame.source)}: {_time(frame.ts_ns)} UTC, {frame.wirelen} bytes on the wire, "
        f"{len(frame.data)} here, {link}",
        "",
    ]
    for layer in layers(frame.data, frame.link_type):
        lines.append(f"{layer.name}  [{layer.start}-{layer.end - 1}]")
        width = max((len(f.name) for f in layer.fields), default=0)
        lines += [f"  {f.name:<{width}}  {f.value}" for f in layer.fields]
    return "\n".join([*lines, "", *hexdump(frame.data)]) + "\n"


def hexdump(data: bytes) -> list[str]:
    """16 bytes a line: offset, hexadecimal, ASCII."""
    lines = []
    for at in range(0, len(data), 16):
        part = data[at : at + 16]
        words = f"{part[:8].hex(' ')}  {part[8:].hex(' ')}"
        lines.append(f"{at:04x}  {words:<48}  {''.join(chr(b) if 32 <= b < 127 else '.' for b in part)}")
    return lines


def render_json(frame: Frame) -> str:
    """The same as one JSON object; `end` is one past the last byte."""
    about = {**asdict(frame), "ts": _time(frame.ts_ns), "data": frame.data.hex()}
    return json.dumps({**about, "layers": [asdict(layer) for layer in layers(frame.data, frame.link_type)]}) + "\n"


def _time(ts_ns: int) -> str:
    microseconds, nanos = divmod(ts_ns, 1000)
    return f"{_EPOCH + timedelta(microseconds=microseconds):%Y-%m-%d %H:%M:%S.%f}{nanos:03d}"


def show(frame: Frame, form: str) -> int:
    """Print it. Returns the exit code."""
    sys.stdout.write(render_json(frame) if form == "json" else render_text(frame))
    return 0


def run(lake: Path, options: Any) -> int:
    """The command on a lake: from parsed options to the exit code."""
    given = (options.where, options.flow, options.source, options.frame_no)
    if all(value is None for value in given):
        raise ConfigError(
            "engine inspect needs a packet: FILE FRAME_NO, --where SQL, --flow ID, or --source S --frame-no N"
        )
    selection = Selection(where=options.where, flows=tuple(options.flow or ()))
    frame = find(lake, selection, nth=options.nth, source=options.source, frame_no=options.frame_no)
    return show(frame, options.format)
