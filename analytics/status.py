"""`engine status`: whether it captures, what is lost, what the lake holds and for how long it has room.

Exit code: 0 captures and is well, 1 captures and something wants attention, 2 does not capture, or cannot be read.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb

from analytics import exposition
from analytics.inventory import FRAMES, KINDS, Held, Inventory
from analytics.segments import NANOSECONDS_FROM, SEGMENT_NAME
from analytics.ship.ledger import SHIP
from analytics.ship.state import State as ShipState
from analytics.status_text import Facts, lines, size
from analytics.store import connect, require_lake
from engine import lake_format
from engine.alert_row import SEVERITIES
from engine.models import stores
from engine.retention_config import RetentionConfig, left_settings
from engine.sensor_lock import engines
from engine.tables import OWN_DROPS
from engine.usage import PEAKS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

DAY_S: Final = 86_400.0
MINUTE_S: Final = 60.0
UPKEEP_S: Final = (
    900.0  # the process beside the engine says that it lives after each round, of minutes on a busy machine
)
UPKEEP: Final = ("at", "pid", "merged_segments", "merged_into", "jobs", "retention", "deleted", "last_deleted")
SHORT_DAYS: Final = 2.0
CAUSES: Final = ("kernel_drops", "interface_drops", *OWN_DROPS)
PRESSED: Final = 50  # percent of the batches in use from which work is given up, see engine.pressure


def look(lake: Path, now: float | None = None, *, count_rows: bool = True) -> Facts:
    """Everything that the command prints, as JSON has it. Times are seconds since the epoch. `count_rows`: of every
    table, which opens every segment."""
    now = time.time() if now is None else now
    root = require_lake(lake)
    limits = left_settings(root)
    known = engines(root)
    found: Facts = {"lake": str(root), "format": lake_format.check(root), "now": now}
    found["engines"] = [asdict(engine) for engine in known]
    found["damaged"] = {}  # by table: what DuckDB says of a segment
    with connect(root, threads=2) as con:
        held = _held(root, now)
        if count_rows:
            _add_rows(con, held["tables"], found["damaged"])
        found["sources"] = _asked(found, "capture_stats", lambda: _sources(con, now), [])
        found["open_alerts"] = _asked(found, "alert_events", lambda: _alerts(con), {})
    found |= held
    found["limits"] = _limits(root, held, limits)
    found["disk"] = _disk(root, held, limits)
    found["upkeep"] = _upkeep(root, now)
    found["ship"] = _ship(root)
    found["models"] = [
        {
            "sensor": s.sensor,
            "kind": s.kind,
            "in_use": next(iter(s.newest_first()), None),
            "chosen": s.chosen() is not None,
        }
        for s in stores(root)
    ]
    found["problems"] = _problems(found, any(engine.running for engine in known))
    found["exit_code"] = 2 if not any(engine.running for engine in known) else 1 if found["problems"] else 0
    return found


def _asked(found: Facts, table: str, question: Callable[[], Any], otherwise: Any) -> Any:
    """The answer; where a segment of the table is damaged, what stands for it, and `found` says so."""
    try:
        return question()
    except duckdb.Error as error:
        found["damaged"][table] = str(error).partition("\n")[0]
        return otherwise


def _sources(con: DuckDBPyConnection, now: float) -> list[Facts]:
    """What was captured and lost in the last minute, by source, of the last day's sources."""
    names = ("received", "rows", "wire_bytes", "frames_not_stored", "messages_missed", "scores_shed", *CAUSES)
    last = "FILTER (s >= $now - $minute)"
    sums = ", ".join(f"coalesce(sum({name}) {last}, 0)::BIGINT" for name in names)
    peaks = ", ".join(f"max({name}) {last}" for name in PEAKS)
    sql = f"""
        SELECT source, sensor, max(s), coalesce(sum(interval_s) {last}, 0), max(s) FILTER (received > 0),
               {peaks}, {sums}
        FROM (SELECT *, epoch_us(ts) / 1e6 AS s FROM capture_stats WHERE date >= $since::DATE)
        WHERE s >= $now - $day GROUP BY ALL ORDER BY max(s) DESC, source LIMIT 100
    """  # noqa: S608 — names of ours
    since = time.strftime("%Y-%m-%d", time.gmtime(now - DAY_S))
    rows = con.execute(sql, {"now": now, "minute": MINUTE_S, "day": DAY_S, "since": since}).fetchall()
    found = []
    for source, sensor, newest, seconds, heard, fill, ring, *values in rows:
        counts = dict(zip(names, values, strict=True))
        found.append({
            "source": source, "sensor": sensor, "counted_at": newest, "last_packet_at": heard,
            "packets_per_s": round(counts["received"] / seconds, 1) if seconds else 0.0,
            "bits_per_s": round(8 * counts["wire_bytes"] / seconds) if seconds else 0,
            "pool_fill": fill or 0, "ring_frames": ring or 0,
            "drops": {name: counts[name] for name in CAUSES if counts[name]},
            "missed": {n: counts[n] for n in ("frames_not_stored", "messages_missed", "scores_shed") if counts[n]},
        })  # fmt: skip
    return found


def _alerts(con: DuckDBPyConnection) -> dict[str, int]:
    found = dict(con.execute("SELECT severity, count(*) FROM alerts WHERE status = 'open' GROUP BY 1").fetchall())
    return {severity: found.get(severity, 0) for severity in reversed(SEVERITIES)}


# --- what it holds -----------------------------------------------------------------------------------------------


def _held(root: Path, now: float) -> Facts:
    inventory = Inventory(root)
    kinds: dict[str, Facts] = {}
    tables: dict[str, Facts] = {}
    for kind in KINDS:
        files = inventory.of(kind)
        kinds[kind] = _summary(files, now)
        for table in sorted({held.table for held in files}):
            tables[table] = _summary([held for held in files if held.table == table], now)
    return {"kinds": kinds, "tables": tables}


def _summary(files: list[Held], now: float) -> Facts:
    """Sizes are bytes on disk; `oldest` the first row's time by the names, `newest` when something was written."""
    if not files:
        return {"files": 0, "bytes": 0, "oldest": None, "newest": None, "bytes_per_day": None}
    recent = sum(held.size for held in files if held.written > now - DAY_S)
    span = min(DAY_S, max(now - files[0].written, 1.0))
    starts = [start for held in files if (start := _start(held)) > 0]
    return {
        "files": len(files), "bytes": sum(held.size for held in files),
        "oldest": min(starts, default=None), "newest": files[-1].written,
        "bytes_per_day": round(recent * DAY_S / span) if span > MINUTE_S else None,
    }  # fmt: skip


def _start(held: Held) -> float:
    name = os.path.basename(held.place)
    if held.table == FRAMES:
        digits = name.partition("-")[0]
        return int(digits) / 1e9 if digits.isdecimal() else 0.0
    match = SEGMENT_NAME.fullmatch(name)
    start = int(match[1]) if match else 0
    return start / (1e9 if start >= NANOSECONDS_FROM else 1e6)


def _add_rows(con: DuckDBPyConnection, tables: dict[str, Facts], damaged: dict[str, str]) -> None:
    for table, facts in tables.items():
        if table != FRAMES:
            try:
                facts["rows"] = con.sql(f"FROM {table}").count("*").fetchall()[0][0]
            except duckdb.Error as error:
                facts["rows"], damaged[table] = None, str(error).partition("\n")[0]


def _limits(root: Path, held: Facts, limits: RetentionConfig) -> dict[str, Facts]:
    """By kind: how old and how large it may get, and how many days until it is so large."""
    found = {}
    for kind, facts in held["kinds"].items():
        most = _ring_limit(root) if kind == FRAMES else limits.most_bytes(kind)
        found[kind] = {"days": limits.days(kind), "bytes": most, "days_left": None}
        if most and facts["bytes_per_day"]:
            found[kind]["days_left"] = round(max(0, most - facts["bytes"]) / facts["bytes_per_day"], 1)
    return found


def _ring_limit(root: Path) -> int:
    """Of all sensors together, as the last run had it."""
    sensors = len([name for name in _names(root / FRAMES) if name.startswith("sensor=")])
    try:
        settings = tomllib.loads((root / ".settings" / "running.toml").read_text())
        return int(settings["frames"]["limit_bytes"]) * sensors
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _disk(root: Path, held: Facts, limits: RetentionConfig) -> Facts:
    usage = shutil.disk_usage(root)
    wanted = limits.wanted_free(usage.total) if limits.enabled else 0
    ring_full = held["kinds"][FRAMES]["bytes"] >= 0.9 * (_ring_limit(root) or float("inf"))
    per_day = sum(
        facts["bytes_per_day"] or 0 for kind, facts in held["kinds"].items() if not (kind == FRAMES and ring_full)
    )
    left = round(max(0, usage.free - wanted) / per_day, 1) if per_day else None
    return {
        "total": usage.total,
        "free": usage.free,
        "wanted_free": wanted,
        "bytes_per_day": per_day,
        "days_left": left,
    }


def _upkeep(root: Path, now: float) -> Facts:
    """What the process that merges and deletes left; `running` is None when there never was one."""
    try:
        state = json.loads((root / ".settings" / "upkeep.json").read_text())
        alive = 0 <= now - float(state["at"]) < UPKEEP_S
        return {name: state[name] for name in UPKEEP} | {"running": alive}
    except (OSError, ValueError, KeyError, TypeError):
        return {"running": None}


def _ship(root: Path) -> Facts | None:
    """What the process that ships segments left; None when there never was one. Its `dates` are for readers."""
    try:
        state = json.loads((root / SHIP / "state.json").read_text())
        return {f.name: state[f.name] for f in fields(ShipState) if f.name != "dates"}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


# --- what wants attention ----------------------------------------------------------------------------------------


def _problems(found: Facts, running: bool) -> list[str]:
    problems = []
    if not running:
        crashed = [e["sensor"] for e in found["engines"] if e["ended"] is None]
        ended = f"; the last one of {', '.join(crashed)} did not end in order" if crashed else ""
        problems.append(f"no engine captures into this lake{ended}")
    for engine in found["engines"]:
        problems += engine["wrong"] if engine["running"] else []
    for source in found["sources"]:
        if source["drops"]:
            lost = ", ".join(f"{name} {n:,}" for name, n in source["drops"].items())
            problems.append(f"{source['source']}: lost in the last minute: {lost}")
        if source["pool_fill"] >= PRESSED:
            problems.append(f"{source['source']}: under pressure, {source['pool_fill']} % of the batches were in use")
    disk = found["disk"]
    if disk["free"] < disk["wanted_free"]:
        problems.append(f"the disk has {size(disk['free'])} free, {size(disk['wanted_free'])} are wanted")
    elif not disk["wanted_free"] and disk["days_left"] is not None and disk["days_left"] < SHORT_DAYS:
        problems.append(f"the disk is full in {disk['days_left']:g} days, and retention is off")
    if running and found["upkeep"]["running"] is False:
        problems.append("nothing merges and deletes: that process has been silent for minutes")
    if running and found["ship"] and found["ship"]["problem"]:
        problems.append(f"segments are not shipped: {found['ship']['problem']}")
    problems += [f"{table}: {error}" for table, error in found["damaged"].items()]
    return problems


def run(lake: Path, form: str) -> int:
    """Print it as text, json or metrics. Returns the exit code."""
    found = look(lake, count_rows=form != "metrics")
    if form == "metrics":
        sys.stdout.write(exposition.text(found))
    else:
        print(json.dumps(found, indent=2) if form == "json" else "\n".join(lines(found)))  # noqa: T201
    return int(found["exit_code"])
