"""What operators wrote into the lake that a running engine must follow: mutes. And what an earlier run left open."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from engine.alert_config import SuppressConfig
from engine.alert_row import ALERT_EVENTS, ENGINE, OPERATORS, STATES
from engine.detect.suppress import Suppression
from engine.errors import ConfigError

_COLUMNS: Final = ["ts", "event", "kind", "src_ip", "dst_ip", "until"]
RECENT_DAYS: Final = 2
_LEFT_FILES: Final = 2_000  # segments of an earlier run that are looked at, the newest

_Triple = tuple[str | None, str | None, str | None]


class Mutes:
    """The mutes in a lake, as they come and go. `poll` opens only what is new."""

    def __init__(self, lake: Path) -> None:
        self._root = lake / "alert_events" / f"sensor={OPERATORS}"
        self._seen: set[str] = set()
        self._words: dict[_Triple, tuple[int, bool, int | None]] = {}  # when, whether muted, until
        self._made: dict[_Triple, Suppression] = {}
        self._days = 0  # how many are looked at: all of them the first time

    def poll(self, now_us: int | None = None) -> tuple[Suppression, ...]:
        """The mutes that hold by the machine's clock: an operator means the time on his own."""
        now = time.time_ns() // 1000 if now_us is None else now_us
        for path in segments(self._root, self._days):
            if path not in self._seen:
                self._seen.add(path)
                self._read(path)
        self._days = RECENT_DAYS
        held = []
        for triple, (_, muted, until) in self._words.items():
            if muted and (until is None or until > now):
                if triple not in self._made:
                    self._made[triple] = _suppression(triple)
                held.append(self._made[triple])
        return tuple(held)

    def _read(self, path: str) -> None:
        for row in rows_of(path, _COLUMNS):
            triple = (row["kind"], row["src_ip"], row["dst_ip"])
            if row["event"] not in ("muted", "unmuted") or not any(triple):
                continue
            before = self._words.get(triple)
            if before is None or row["ts"] >= before[0]:
                try:
                    _suppression(triple)
                except ConfigError:  # written by something else than us
                    continue
                self._words[triple] = (row["ts"], row["event"] == "muted", row["until"])


def _suppression(triple: _Triple) -> Suppression:
    kind, src, dst = triple
    config = SuppressConfig(kinds=(kind,) if kind else (), src=(src,) if src else (), dst=(dst,) if dst else ())
    return Suppression(config, f"mute of {' '.join(v or 'any' for v in triple)}")


def left_open(lake: Path, sensor: str, run: str) -> list[dict[str, Any]]:
    """Rows that close what an earlier run of this sensor left open, because it was killed: the last state as `closed`.

    They have the revision of that state, so that a run which is alive after all wins with its next.
    """
    names = [c.name for c in ALERT_EVENTS]
    newest: dict[str, dict[str, Any]] = {}
    paths = list(segments(lake / "alert_events" / f"sensor={sensor}", RECENT_DAYS))
    for path in sorted(paths, key=os.path.basename)[-_LEFT_FILES:]:
        for row in rows_of(path, names):
            incident_id = row["incident_id"]
            if row["event"] not in STATES or row["actor"] != ENGINE or incident_id is None or row["revision"] is None:
                continue
            before = newest.get(incident_id)
            order = (row["revision"], row["event"] == "closed")
            if before is None or order > (before["revision"], before["event"] == "closed"):
                newest[incident_id] = row
    return [
        row | {"event": "closed", "ts": row["last_seen"]}
        for incident_id, row in newest.items()
        if row["event"] != "closed" and not incident_id.startswith(f"{run}-")
    ]


def segments(root: Path, days: int) -> Iterator[str]:
    """Published segments below a sensor's directory; of the newest `days` only, 0 is all."""
    for day in sorted(_names(root))[-days:]:
        for hour in _names(f"{root}/{day}"):
            folder = f"{root}/{day}/{hour}"
            yield from (f"{folder}/{name}" for name in _names(folder) if name.endswith(".parquet"))


def _names(folder: Path | str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def rows_of(path: str, columns: list[str]) -> list[dict[str, Any]]:
    """Rows of a segment, times as integers. One that is damaged or has gone has none."""
    try:
        with pq.ParquetFile(path) as file:
            table = file.read(columns=columns)
    except (OSError, pa.ArrowException, KeyError):
        return []
    for n, kind in enumerate(table.schema.types):
        if pa.types.is_timestamp(kind):
            table = table.set_column(n, table.schema.names[n], table.column(n).cast(pa.int64()))
    absent = dict.fromkeys(set(columns) - set(table.column_names))
    return [row | absent for row in table.to_pylist()]
