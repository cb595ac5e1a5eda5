"""What the dashboard asks, answered as plain data: no web framework here, and no SQL above here.

    snapshots = Snapshots(lake)
    snapshots.snapshot(300)   # everything the Overview page shows for the last five minutes

A snapshot is a dictionary of columns, ready for JSON. However many viewers ask, the lake is asked once a second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import duckdb

from analytics import capture, destinations
from analytics.geo import Locator
from analytics.recent import RecentPackets
from analytics.rollup import CLASSES, DESTINATIONS, PORTS, SLOT_S, SOURCES, Rollup
from analytics.segments import SegmentIndex

RANGES_S: Final = (300, 900, 3600)
KEEP_S: Final = 2 * RANGES_S[-1]
STEPS_S: Final = (1, 2, 10, 30, 60, 300, 900, 3600)
MAX_BUCKETS: Final = 181
SETTLE_S: Final = 1.5  # a row is on disk at most this long after its packet: later buckets are not complete yet
TOP: Final = 10
RATE_S: Final = 3  # the rate "now" is that of so many whole seconds
READ_S: Final = 0.4  # how long a snapshot reads before it answers with what is counted so far; the next reads on

SETTINGS: Final[dict[str, Any]] = {  # the capture goes first; nothing is fetched, nothing spills into a directory
    "threads": 1,
    "memory_limit": "1GB",
    "temp_directory": "",
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}

TIMELINE: Final = """
SELECT (s - $start) // $step AS bucket, class, sum(packets)::BIGINT, sum(bytes)::BIGINT
FROM {name}.seconds WHERE s >= $start AND s < $end GROUP BY ALL
"""
MIX: Final = """
SELECT class, sum(packets)::BIGINT, sum(bytes)::BIGINT, sum(undecodable)::BIGINT
FROM {name}.seconds WHERE s >= $start GROUP BY ALL
"""
TALKERS: Final = """
SELECT key, sum(packets)::BIGINT AS packets, sum(bytes)::BIGINT AS bytes
FROM (FROM {name}.talkers UNION ALL FROM {name}.recent_talkers) WHERE slot >= $start AND kind = $kind
GROUP BY key ORDER BY bytes DESC, key LIMIT $top
"""
TOTAL: Final = """
SELECT coalesce(sum(bytes), 0)::BIGINT
FROM (FROM {name}.talkers UNION ALL FROM {name}.recent_talkers) WHERE slot >= $start AND kind = $kind
"""
RATE: Final = """
SELECT coalesce(sum(packets), 0)::BIGINT, coalesce(sum(bytes), 0)::BIGINT
FROM {name}.seconds WHERE s >= $start AND s < $end
"""


def step_for(range_s: int) -> int:
    """The shortest bucket that gives a range at most MAX_BUCKETS of them."""
    return next((s for s in STEPS_S if (range_s + max(s, SLOT_S)) // s <= MAX_BUCKETS), STEPS_S[-1])


class Snapshots:
    """Answers for one lake. Thread-safe: one thread asks the lake, the others wait for its answer."""

    def __init__(self, lake: Path | str, clock: Callable[[], float] = time.time, read_s: float = READ_S) -> None:
        self.lake = Path(lake)
        self.asked = 0  # how often the lake was asked, for the tests and the curious
        self._clock = clock
        self._read_s = read_s
        self._lock = threading.Lock()
        self._answers: dict[tuple[int, bool], tuple[int, dict[str, Any]]] = {}
        self._con = duckdb.connect(config=SETTINGS)
        self._locator = Locator(self.lake)
        self._packets = SegmentIndex(self.lake, "packets")
        self._stats = capture.CaptureStats(self._con, SegmentIndex(self.lake, "capture_stats"))
        self._recent = RecentPackets(self._con)
        self._rollups: dict[bool, Rollup] = {}

    def snapshot(self, range_s: int, newest: bool = False) -> dict[str, Any]:
        """Everything the Overview shows for the last `range_s` seconds.

        The range ends now, or with `newest` at the newest packet of the lake, which is how a replayed file is
        looked at. It begins at a whole SLOT_S (or timeline step), so it is a little longer than asked for.
        """
        if range_s not in RANGES_S:
            raise ValueError(f"range_s = {range_s!r} is not one of {RANGES_S}")
        with self._lock:
            now = self._clock()
            second, answer = self._answers.get((range_s, newest), (-1, {}))
            if second != int(now):
                answer = self._ask(range_s, newest, now)
                if answer["loaded"] == 1:
                    self._answers[range_s, newest] = int(now), answer
            return answer

    def _ask(self, range_s: int, newest: bool, now: float) -> dict[str, Any]:
        began, cpu = time.perf_counter(), time.thread_time()
        self.asked += 1
        step = step_for(range_s)
        last = self._recent.newest_time(self._packets.newest())
        end = last if newest and last is not None else now
        start = int(end - range_s) // max(SLOT_S, step) * max(SLOT_S, step)
        rollup = self._rollups.get(newest) or Rollup(self._con, "newest" if newest else "live")
        self._rollups[newest] = rollup
        segments = self._packets.within(start, end + 60)
        loaded = rollup.add(segments, start, self._read_s)
        rollup.tidy(int(end), KEEP_S)
        self._stats.update(start, now)
        mix = _mix(rollup, start)
        answer = {
            "at": int(now * 1000),
            "range_s": range_s,
            "start": start,
            "end": end,
            "newest": newest,
            "last_packet": last,
            "loaded": round(loaded, 3),
            "unreadable": list(rollup.unreadable.items())[:3],
            "timeline": _timeline(rollup, start, end if newest else end - SETTLE_S, step),
            "mix": mix,
            "talkers": {
                name: _talkers(rollup, start, kind)
                for name, kind in (("sources", SOURCES), ("destinations", DESTINATIONS), ("ports", PORTS))
            },
            "countries": self._countries(rollup, start),
            "recent": self._recent.columns(segments),
            "capture": self._stats.state(now),
        }
        drops = self._stats.losses(start)
        rate = self._stats.rate(now) if not newest else None
        answer["kpi"] = _kpi(mix, drops, rate or _rate(rollup, int(end)), end - start)
        answer["ms"] = round((time.perf_counter() - began) * 1000, 1)
        answer["cpu_ms"] = round((time.thread_time() - cpu) * 1000, 1)
        return answer

    def _countries(self, rollup: Rollup, start: int) -> dict[str, Any]:
        rows = rollup.run(TALKERS, start=start, kind=DESTINATIONS, top=destinations.ADDRESSES).fetchall()
        total = rollup.run(TOTAL, start=start, kind=DESTINATIONS).fetchone() or (0,)
        return destinations.by_country(self._locator, self.lake, rows, total[0])


def _timeline(rollup: Rollup, start: int, end: float, step: int) -> dict[str, Any]:
    """Packets a second by protocol class and bits a second, for whole buckets only."""
    count = max(0, int((end - start) // step))
    series = [[0.0] * count for _ in CLASSES]
    bits = [0] * count
    rows = rollup.run(TIMELINE, start=start, step=step, end=start + count * step).fetchall()
    for bucket, number, packets, size in rows:
        series[number][bucket] = packets / step if packets % step else packets // step
        bits[bucket] += size * 8 // step
    return {"start": start, "step": step, "series": dict(zip(CLASSES, series, strict=True)), "bits": bits}


def _mix(rollup: Rollup, start: int) -> dict[str, list[Any]]:
    found = {row[0]: row[1:] for row in rollup.run(MIX, start=start).fetchall()}
    packets, sizes, undecodable = zip(*(found.get(i, (0, 0, 0)) for i in range(len(CLASSES))), strict=True)
    return {"name": list(CLASSES), "packets": list(packets), "bytes": list(sizes), "undecodable": list(undecodable)}


def _talkers(rollup: Rollup, start: int, kind: int) -> dict[str, list[Any]]:
    rows = rollup.run(TALKERS, start=start, kind=kind, top=TOP).fetchall()
    keys, packets, sizes = zip(*rows, strict=True) if rows else ((), (), ())
    return {"key": list(keys), "packets": list(packets), "bytes": list(sizes)}


def _rate(rollup: Rollup, end: int) -> tuple[float, float]:
    row = rollup.run(RATE, start=end - RATE_S, end=end).fetchone() or (0, 0)
    return row[0] / RATE_S, row[1] * 8 / RATE_S


def _kpi(mix: dict[str, list[Any]], drops: dict[str, Any], rate: tuple[float, float], seconds: float) -> dict[str, Any]:
    packets, size, undecodable = sum(mix["packets"]), sum(mix["bytes"]), sum(mix["undecodable"])
    return {
        "pps": round(rate[0], 1),
        "bps": round(rate[1]),
        "packets": packets,
        "bytes": size,
        "pps_mean": round(packets / seconds, 1) if seconds > 0 else 0,
        "bps_mean": round(size * 8 / seconds) if seconds > 0 else 0,
        "undecodable": undecodable,
        "drops": drops,
    }
