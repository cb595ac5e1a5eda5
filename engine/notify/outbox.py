"""Messages that wait, as files: <lake>/.notify/TARGET/<time>-<number>.json. They survive restarts, and are bounded.

No file holds a secret. The engine writes them, the process that sends them removes them.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any, Final

from engine.alert_config import NotifyConfig, TargetConfig
from engine.alert_row import SEVERITIES, STATES

FOLDER: Final = ".notify"
DROPPED: Final = "dropped"  # a file of one byte for each message given up
_REMEMBERED: Final = 10_000


class Outbox:
    """Decides whom an event of an incident concerns, and files it there. For one thread."""

    def __init__(self, lake: Path, config: NotifyConfig, sensor: str) -> None:
        self._root = lake / FOLDER
        self._config = config
        self._sensor = sensor
        self._sequence = 0
        self._told: dict[str, set[str]] = {}  # incident: targets that know of it

    def put(self, row: dict[str, Any]) -> int:
        """File a row of `alert_events` for each target that it concerns. Returns how many. Raises OSError."""
        incident_id = row.get("incident_id")
        if incident_id is None or row["event"] not in STATES:
            return 0
        told = self._told.get(incident_id, set())
        closed = row["event"] == "closed"
        wanted = [
            t for t in self._config.targets
            if (closed and t.on_close and t.name in told) or (not closed and t.name not in told and _concerns(t, row))
        ]  # fmt: skip
        for target in wanted:
            self._file(
                target.name, {"event": "closed" if closed else "opened", "sensor": self._sensor, "incident": row}
            )
            told = self._told[incident_id] = told | {target.name}  # only now: the next change tries again
        if closed:
            self._told.pop(incident_id, None)
        elif len(self._told) > _REMEMBERED:
            del self._told[next(iter(self._told))]
        return len(wanted)

    def _file(self, target: str, item: dict[str, Any]) -> None:
        folder = self._root / target
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        waiting = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
        for name in waiting[: max(0, len(waiting) + 1 - self._config.queue)]:
            give_up(folder, name)
        self._sequence += 1
        final = folder / f"{time.time_ns():020d}-{os.getpid()}-{self._sequence}.json"
        partial = f"{final}.inprogress"
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(item, file, ensure_ascii=True)
            file.flush()
            os.fsync(file.fileno())
        os.rename(partial, final)


def give_up(folder: Path, name: str) -> None:
    """Remove a message that nobody will get, and count it."""
    with contextlib.suppress(OSError):
        os.unlink(folder / name)
        with open(folder / DROPPED, "ab") as file:
            file.write(b".")


def _concerns(target: TargetConfig, row: dict[str, Any]) -> bool:
    enough = SEVERITIES.index(row["severity"]) >= SEVERITIES.index(target.min_severity)
    return enough and (not target.kinds or row["kind"] in target.kinds)
