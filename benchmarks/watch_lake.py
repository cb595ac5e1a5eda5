"""A large lake to watch: a day of real segments, made quickly, and kept for the next measurement.

The engine replays some minutes of the made-up sessions once; its rows of every table, rollups and windows too, are
moved in time and written again by the engine's own writer. Hours that are over are as the merger leaves them (sensor
`history`, made once and kept); the last minutes are a segment a second at the full rate (sensor `recent`, made anew
each time). What a measurement captured (sensor `live`) goes before the next one. Alerts are not repeated.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from analytics.merging import GROUP_ROWS
from benchmarks import sessions
from benchmarks.offline import ENGINE
from engine.config import LakeConfig
from engine.errors import StoreError
from engine.tables import TABLES, arrow_schema
from engine.writer import TableWriter, init_lake

US: Final = 1_000_000
BASE_S: Final = 1_699_999_200  # the templates begin here: a whole hour
PART_S, HOUR_S, DAY_S = 1200, 3600, 86_400
RECENT_S: Final = 300
STEP_S: Final = 10  # of the recent template
LIVE_GROUP: Final = 32_768  # rows of a live segment's row groups: about a batch
HISTORY, RECENT, LIVE = "history", "recent", "live"
_MOVED: Final = ("ts", "end_ts")
_ONCE: Final = ("addresses", "alert_events", "capture_stats")  # what is not repeated, or made from the rollups
_EACH_SECOND: Final = ("packets", "flows", "rollup_1s", "capture_stats")
_NOTE: Final = ".watched.json"  # which hours are made
_HEAD: Final = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1)


def sessions_file(path: Path, seconds: int, pps: int) -> Path:
    """A savefile of so many seconds of the made-up sessions, from BASE_S on."""
    with path.open("wb") as file:
        file.write(_HEAD)
        for ns, frame in sessions.frames(seconds * pps, pps=pps):
            at, left = divmod(ns, 1_000_000_000)
            if at >= seconds:
                break
            file.write(struct.pack("<IIII", BASE_S + at, left // 1000, len(frame), len(frame)) + frame)
    return path


class Template:
    """What the engine made of some seconds of traffic, to be moved in time.

    Args:
        folder: keeps the replayed lake; another with the same rate is used again.
        interface: `source` of its rows.
    """

    def __init__(self, folder: Path, seconds: int, pps: int, interface: str) -> None:
        self.seconds = seconds
        lake = folder / f"template-{seconds}-{pps}"
        if not (lake / "replayed").exists():
            shutil.rmtree(lake, ignore_errors=True)
            capture = sessions_file(folder / f"sessions-{seconds}-{pps}.pcap", seconds, pps)
            words = [*ENGINE, "replay", str(capture), "--lake", str(lake), "--frames", "off"]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            capture.unlink()
            if done.returncode:
                raise StoreError(f"the template could not be replayed: {done.stderr.strip()[-300:]}")
            (lake / "replayed").touch()
        self._tables = {name: _rows(lake, name, interface) for name in TABLES if name not in _ONCE}
        self._tables["capture_stats"] = _stats(self._tables["rollup_1s"], interface)

    def at(self, name: str, start_s: int, copy: int, second: int | None = None) -> pa.Table:
        """Rows of a table as if the template had begun at `start_s`; of one of its seconds alone, if it is given."""
        rows = self._tables[name]
        if second is not None:
            first, last = np.searchsorted(_us(rows, "ts"), [(BASE_S + s) * US for s in (second, second + 1)])
            rows = rows.slice(first, last - first)
        shift = (start_s - BASE_S) * US
        moved: dict[str, Callable[[], Any]] = {
            column: lambda column=column: _times(_us(rows, column) + shift, rows[column]) for column in _MOVED
        }
        if name == "rollup_1m":
            moved["ts"] = lambda: pa.array((_us(rows, "ts") + shift) // (60 * US) * 60 * US, pa.timestamp("us"))
        for column in ("flow_id", "frame_no"):
            moved[column] = lambda column=column: _added(rows[column], copy << 24)
        return pa.table([moved[f.name]() if f.name in moved else rows[f.name] for f in rows.schema], schema=rows.schema)

    @property
    def rows(self) -> int:
        return int(self._tables["packets"].num_rows)

    @property
    def names(self) -> list[str]:
        return [name for name, rows in self._tables.items() if rows.num_rows]


def _rows(lake: Path, name: str, interface: str) -> pa.Table:
    """All rows of a table in the order of time, as the engine would hand them to its writer."""
    schema = arrow_schema(name)
    texts = [f.name for f in schema if pa.types.is_dictionary(f.type)]
    paths = sorted((lake / name).rglob("*.parquet"), key=lambda path: path.name)
    parts = [pq.read_table(path, read_dictionary=texts, partitioning=None) for path in paths]
    rows = pa.concat_tables([part.select(schema.names).cast(schema) for part in parts])
    rows = rows.unify_dictionaries().combine_chunks()
    if rows.num_rows and "source" in schema.names:
        at = schema.get_field_index("source")
        rows = rows.set_column(at, schema.field(at), pa.array([interface] * rows.num_rows).cast(schema.field(at).type))
    if rows.num_rows and name != "packets":  # packets are in the order of capture
        rows = rows.take(pa.array(np.argsort(_us(rows, "ts"), kind="stable")))
    return rows


def _us(rows: pa.Table, column: str) -> np.ndarray:
    return rows[column].combine_chunks().view(pa.int64()).to_numpy(zero_copy_only=False)


def _times(values: np.ndarray, like: Any) -> pa.Array:
    return pa.array(values.astype(np.int64), pa.timestamp("us"), mask=np.asarray(like.is_null()))


def _added(column: Any, number: int) -> Any:
    return pc.add(column, pa.scalar(number, pa.int64())).cast(column.type)


def _stats(seconds: pa.Table, interface: str) -> pa.Table:
    """`capture_stats` of a live engine that lost nothing: by second, from the rollup."""
    sums = seconds.select(["ts", "packets", "bytes"]).group_by("ts").aggregate([("packets", "sum"), ("bytes", "sum")])
    sums = sums.sort_by("ts")
    count = sums.num_rows
    given: dict[str, Any] = {
        "ts": sums["ts"], "source": pa.array([interface] * count), "interval_s": pa.array([1.0] * count),
        "received": sums["packets_sum"], "rows": sums["packets_sum"], "wire_bytes": sums["bytes_sum"],
    }  # fmt: skip
    schema, arrays = arrow_schema("capture_stats"), []
    for field in schema:
        plain = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        empty = "" if pa.types.is_string(plain) else 0
        value = given.get(field.name, pa.nulls(count, plain) if field.nullable else pa.array([empty] * count))
        arrays.append(value.cast(plain).cast(field.type))
    return pa.table(arrays, schema=schema)


def write(lake: Path, sensor: str, run: str, name: str, parts: list[pa.Table], group: int) -> None:
    """The parts as one segment (packets: one each) of the sensor, by the engine's writer."""
    writer = TableWriter(lake, name, LakeConfig(path=str(lake), sensor=sensor), run)
    for part in parts:
        for batch in part.combine_chunks().to_batches(max_chunksize=group):
            writer.append(batch)
        if name == "packets":
            writer.publish()
    writer.publish()


def _settle(lake: Path, sensor: str, hour: str, written_s: float) -> None:
    """Modification times of the hour's segments as they would be: none is newer than its rows."""
    for path in lake.glob(f"*/sensor={sensor}/{hour}/*.parquet"):
        start = int(path.name.partition("-")[0]) / US
        at = min(max(start + 1, written_s), path.stat().st_mtime)
        os.utime(path, (at, at))


def history(lake: Path, template: Template, now: float) -> int:
    """Make the whole hours of the last day that are missing. Returns how many were made."""
    note = lake / _NOTE
    known = json.loads(note.read_text()) if note.exists() else {}
    if known.get("rows") != template.rows:  # of another rate
        known = {"rows": template.rows, "hours": []}
        _forget(lake, HISTORY)
    made: list[int] = known["hours"]
    last = int(now) // HOUR_S * HOUR_S
    missing = [hour for hour in range(last - DAY_S, last, HOUR_S) if hour not in made]
    with ThreadPoolExecutor(2) as pool:
        for hour in missing:
            _forget(lake, HISTORY, hour)
            copy = hour // PART_S & 0xFFFFF

            def one(name: str, hour: int = hour, copy: int = copy) -> None:
                parts = [template.at(name, hour + i * PART_S, copy + i) for i in range(HOUR_S // PART_S)]
                write(lake, HISTORY, "m", name, parts, GROUP_ROWS)

            list(pool.map(one, template.names))
            _settle(lake, HISTORY, _folder(hour), hour + HOUR_S)
            made.append(hour)
            note.write_text(json.dumps(known))
    return len(missing)


def recent(lake: Path, slow: Template, fast: Template, end: int) -> None:
    """From the last whole hour to `end`: at the rate of history, and the last minutes at the full one."""
    first = end - RECENT_S  # history ends at a whole hour before it
    at = max(json.loads((lake / _NOTE).read_text())["hours"]) + HOUR_S
    while at < first:  # parts of the slow template, the last one cut
        for name in slow.names:
            rows = slow.at(name, at, 1 << 20 | at // PART_S & 0xFFFFF)
            if at + PART_S > first:
                rows = rows.slice(0, int(np.searchsorted(_us(rows, "ts"), first * US)))
            write(lake, RECENT, "m", name, [rows], GROUP_ROWS)
        at += PART_S
    with ThreadPoolExecutor(2) as pool:
        for start in range(first, end, STEP_S):
            copy = 2 << 20 | start // STEP_S & 0xFFFFF

            def one(name: str, start: int = start, copy: int = copy) -> None:
                if name not in _EACH_SECOND:
                    write(lake, RECENT, f"r{start}", name, [fast.at(name, start, copy)], LIVE_GROUP)
                    return
                for second in range(STEP_S):
                    rows = fast.at(name, start, copy, second)
                    write(lake, RECENT, f"r{start + second}", name, [rows], LIVE_GROUP)

            list(pool.map(one, fast.names))
    for hour in range(min(first, at) // HOUR_S * HOUR_S - HOUR_S, end + HOUR_S, HOUR_S):
        _settle(lake, RECENT, _folder(hour), 0)


def _cut(lake: Path, now: float) -> None:
    """Let `recent` end now."""
    for path in lake.glob(f"*/sensor={RECENT}/*/*/*.parquet"):
        if int(path.name.partition("-")[0]) >= (now - 1) * US:
            path.unlink()


def _folder(hour: int) -> str:
    moment = datetime.fromtimestamp(hour, UTC)
    return f"date={moment:%Y-%m-%d}/hour={moment:%H}"


def _forget(lake: Path, sensor: str, hour: int | None = None) -> None:
    for table in TABLES:
        folder = lake / table / f"sensor={sensor}"
        shutil.rmtree(folder / _folder(hour) if hour is not None else folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Built:
    """What there is: packets, bytes on disk, hours that had to be made, and the second at which it ends."""

    rows: int
    bytes: int
    hours_made: int
    end: int


def build(folder: Path, rows: int, pps: int, interface: str, clock: Callable[[], float]) -> Built:
    """A lake of a day, `folder`/lake, of about so many packets, the last minutes at `pps`. Ends at about now."""
    lake = folder / "lake"
    folder.mkdir(parents=True, exist_ok=True)
    for sensor in (RECENT, LIVE):
        _forget(lake, sensor)
    for name in (".merging", ".retired", "frames"):  # no engine runs here now
        shutil.rmtree(lake / name, ignore_errors=True)
    init_lake(lake)
    slow = Template(folder, PART_S, max(1, (rows - RECENT_S * pps * 8 // 10) // DAY_S), interface)
    fast = Template(folder, STEP_S, pps, interface)
    made = history(lake, slow, clock())
    # It takes about so long; the lake must not end long before the capture begins.
    end = (int(clock() + 3 + RECENT_S * pps / 700_000) // STEP_S + 1) * STEP_S
    recent(lake, slow, fast, end)
    _cut(lake, clock())  # a capture that begins now must not overlap
    size = sum(p.stat().st_size for p in lake.rglob("*.parquet"))
    since = (end - DAY_S) * US
    count = sum(
        pq.read_metadata(path).num_rows for path in (lake / "packets").rglob("*.parquet")
        if int(path.name.partition("-")[0]) >= since
    )  # fmt: skip
    return Built(count, size, made, end)
