"""What `engine status` found, in the text format of Prometheus (exposition format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from engine import __version__
from engine.metrics import TOTAL_FIELDS

Sample = tuple[dict[str, str], float | int | None]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def text(found: dict[str, Any]) -> str:
    """Counters since each engine's start, gauges of the lake. Values that are not known are left out."""
    return "".join(line for family in _families(found) for line in _lines(*family))


def _families(found: dict[str, Any]) -> Iterator[tuple[str, str, str, list[Sample]]]:
    """Name, type, meaning and samples of each metric."""
    engines, sources, disk = found["engines"], found["sources"], found["disk"]
    yield "build_info", "gauge", "Version of who answers", [({"version": __version__}, 1)]
    yield "up", "gauge", "Whether the sensor's engine runs", [(_of(e), int(e["running"])) for e in engines]
    running = [engine for engine in engines if engine["running"]]
    since = "Start of the engine, seconds since the epoch"
    yield "start_time_seconds", "gauge", since, [(_of(e), e["since"]) for e in running]
    problems = "What wants attention; `engine status` has the words"
    yield "problems", "gauge", problems, [({}, len(found["problems"]))]
    for name in TOTAL_FIELDS:
        yield f"{name}_total", "counter", f"Column {name} of capture_stats, since the engine's start", [
            (_of(engine) | {"source": source}, counters.get(name))
            for engine in running
            for source, counters in engine["counters"].items()
        ]  # fmt: skip
    fill = "Most of the engine's batches in use within a minute, percent"
    yield "pool_fill_percent", "gauge", fill, [(_from(s), s["pool_fill"]) for s in sources]
    heard = "Time of the newest interval with packets, seconds since the epoch"
    yield "last_packet_time_seconds", "gauge", heard, [(_from(s), s["last_packet_at"]) for s in sources]
    alerts = [({"severity": severity}, count) for severity, count in found["open_alerts"].items()]
    yield "alerts_open", "gauge", "Open alerts", alerts
    tables = found["tables"].items()
    yield "table_bytes", "gauge", "Size on disk", [({"table": name}, facts["bytes"]) for name, facts in tables]
    yield "table_files", "gauge", "Segments", [({"table": name}, facts["files"]) for name, facts in tables]
    yield "disk_free_bytes", "gauge", "Free space of the lake's disk", [({}, disk["free"])]
    yield "disk_wanted_free_bytes", "gauge", "What retention keeps free", [({}, disk["wanted_free"])]
    left = "Days until the disk has no more than that, as the lake grows now"
    yield "disk_days_left", "gauge", left, [({}, disk["days_left"])]
    seen = "When merging and retention last said that they live"
    yield "upkeep_time_seconds", "gauge", seen, [({}, found["upkeep"].get("at"))]
    ship = found["ship"] or {}
    yield "ship_waiting_bytes", "gauge", "Waiting to be shipped", [({}, ship.get("waiting_bytes"))]
    yield "ship_lag_seconds", "gauge", "How long the oldest of it has waited", [({}, ship.get("lag_s"))]
    yield "ship_lost_rows", "gauge", "Given up because the spool was full", [({}, ship.get("lost_rows"))]


def _of(engine: dict[str, Any]) -> dict[str, str]:
    return {"sensor": engine["sensor"]}


def _from(source: dict[str, Any]) -> dict[str, str]:
    return {"sensor": source["sensor"], "source": source["source"]}


def _lines(name: str, kind: str, meaning: str, samples: Iterable[Sample]) -> Iterator[str]:
    known = [(labels, value) for labels, value in samples if value is not None]
    if known:
        yield f"# HELP packetlake_{name} {meaning}.\n# TYPE packetlake_{name} {kind}\n"
    for labels, value in known:
        inside = ",".join(f'{key}="{str(text).translate(_ESCAPES)}"' for key, text in labels.items())
        yield f"packetlake_{name}{{{inside}}} {value}\n" if inside else f"packetlake_{name} {value}\n"
