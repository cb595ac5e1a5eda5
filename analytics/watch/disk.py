"""How much of the disk each table takes, and how long there is room."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any, Final

from analytics.segments import partition_hour
from engine.tables import TABLES

DAY_S: Final = 86_400.0
KEPT_S: Final = 15.0  # a lake of a month has tens of thousands of files to look at
_kept: dict[str, tuple[float, dict[str, Any]]] = {}
_lock = threading.Lock()


def disk(lake: Path, now: float) -> dict[str, Any]:
    """{total, free, tables: {table: bytes}, frames, lake (bytes), grows_per_day, days_left (null: not known), as_of}.

    It grows at the pace of the last full day, or of what there is.
    """
    with _lock:  # one looks, the others wait for it
        at, found = _kept.get(str(lake), (0.0, None))
        if found is None or not 0 <= now - at < KEPT_S:
            found = _look(lake, now)
            _kept.clear()
            _kept[str(lake)] = now, found
        return found


def _look(lake: Path, now: float) -> dict[str, Any]:
    tables: dict[str, int] = {}
    recent, oldest = 0, now
    for table in TABLES:
        size = 0
        for directory, _, names in os.walk(lake / table):
            held = sum(_size(f"{directory}/{name}") for name in names)
            size += held
            if held and partition_hour(os.path.relpath(directory, lake / table)):
                written = _written(directory)  # replayed savefiles have their own time; what counts is when it came
                recent += held if written > now - DAY_S else 0
                oldest = min(oldest, written)
        tables[table] = size
    frames = 0
    for directory, _, names in os.walk(lake / "frames"):
        for name in names:
            size, written = _size(f"{directory}/{name}"), _written(f"{directory}/{name}")
            frames += size
            recent += size if written > now - DAY_S else 0
    usage = shutil.disk_usage(lake)
    span = min(DAY_S, max(now - oldest, 1.0))
    per_day = round(recent * DAY_S / span) if recent and span > 60 else None
    return {
        "total": usage.total, "free": usage.free, "tables": {n: s for n, s in tables.items() if s}, "frames": frames,
        "lake": sum(tables.values()) + frames, "grows_per_day": per_day,
        "days_left": round(usage.free / per_day, 1) if per_day else None, "as_of": round(now),
    }  # fmt: skip


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # merged or retired a moment ago
        return 0


def _written(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0
