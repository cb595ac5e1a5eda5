"""Alerts that people entered, on their way to EVE and notifications: each outlet is told once, whoever else tells.

An alert is a row of `alert_events/sensor=operator`. Which outlets know of it stands in <lake>/.notify/.manual, one line
each, appended under a lock: so a restart tells nothing twice, and of several engines of one lake only one sends the
message. What was entered while no engine ran is told when one starts, for a day.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from engine.alert_row import ALERT_EVENTS, OPERATORS, SEVERITIES
from engine.detect.operator_words import RECENT_DAYS, rows_of, segments
from engine.notify.outbox import FOLDER

LEDGER: Final = ".manual"
_DAY_US: Final = 86_400_000_000
_LINES: Final = 1_000  # the ledger is rewritten without old lines when it is longer,
_KEPT: Final = 10_000  # and never has more than these
_WAITING: Final = 1_000  # alerts that an outlet has not taken yet
_TIMES: Final = ("ts", "first_seen", "last_seen", "count", "revision")

Row = dict[str, Any]


class ManualAlerts:
    """The manual alerts of a lake, for the outlets of one engine. For one thread.

    Args:
        outlets: by the name that the ledger has of it, what takes a row. It may raise OSError: then it is asked again.
    """

    def __init__(self, lake: Path, outlets: dict[str, Callable[[Row], object]]) -> None:
        self._root = lake / "alert_events" / f"sensor={OPERATORS}"
        self._ledger = lake / FOLDER / LEDGER
        self._outlets = outlets
        self._seen: set[str] = set()
        self._waiting: list[Row] = []
        self.problem = OSError()  # of the outlet that failed last

    def poll(self, now_us: int | None = None) -> int:
        """Tell what is new. Returns how many alerts wait for an outlet that failed. Raises OSError."""
        now = time.time_ns() // 1000 if now_us is None else now_us
        paths = set(segments(self._root, RECENT_DAYS)) if self._outlets else set()
        for path in sorted(paths - self._seen):
            start = os.path.basename(path).partition("-")[0]
            if start.isdigit() and int(start) >= now - _DAY_US:
                self._waiting += filter(_is_whole, rows_of(path, [c.name for c in ALERT_EVENTS]))
        self._seen = paths
        if self._waiting:
            self._waiting = self._tell(now)[-_WAITING:]
        return len(self._waiting)

    def _tell(self, now: int) -> list[Row]:
        """Tell each outlet what the ledger does not have; what is left when one failed."""
        self._ledger.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        left: list[Row] = []
        with open(self._ledger, "a+", encoding="utf-8") as ledger:
            fcntl.flock(ledger, fcntl.LOCK_EX)
            ledger.seek(0)
            lines = ledger.read().splitlines()
            told = {line.partition(" ")[2] for line in lines}
            if len(lines) > _LINES:
                ledger.truncate(0)
                ledger.writelines(f"{line}\n" for line in lines[-_KEPT:] if _time_of(line) >= now - 2 * _DAY_US)
            for row in self._waiting:
                for outlet, take in self._outlets.items():
                    name = f"{outlet} {row['incident_id']}"
                    if name in told:
                        continue
                    try:
                        take(row)
                    except OSError as error:
                        self.problem = error
                        left += [row] if row not in left[-1:] else []
                        continue
                    told.add(name)
                    ledger.write(f"{row['ts']} {name}\n")
            ledger.flush()
            os.fsync(ledger.fileno())
        return left


def _is_whole(row: Row) -> bool:
    """Whether it is an alert that outlets can read: others may write here too."""
    return (
        row["event"] == "manual"
        and row["severity"] in SEVERITIES
        and all(isinstance(row[name], str) for name in ("incident_id", "kind", "why"))
        and all(isinstance(row[name], int) for name in _TIMES)
        and " " not in row["incident_id"]
    )


def _time_of(line: str) -> int:
    stamp = line.partition(" ")[0]
    return int(stamp) if stamp.isdigit() else 0
