"""What sensors that ship say of themselves, as the view `fleet` reads it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Final

from analytics.listing import names_in
from analytics.ship.ledger import SHIP
from analytics.ship.names import LAKES

_NUMBERS: Final = ("lag_s", "written", "waiting_bytes", "lost_rows")
_TEXTS: Final = ("version", "problem")


def of_directory(lake: Path) -> str:
    """JSON: a list of {sensor, version, lag_s, said, written, waiting_bytes, lost_rows, problem}, a row for each sensor
    that ships to this lake, or from it. Times are seconds since the epoch, `written` by the file system's clock."""
    found = [(lake / LAKES / name) for name in names_in(lake / LAKES) if name.endswith(".json")]
    states = []
    for path in (*found, lake / SHIP / "state.json"):
        with contextlib.suppress(OSError, ValueError, RecursionError):
            state = json.loads(path.read_text())
            if isinstance(state, dict):
                states.append(state | {"written": path.stat().st_mtime})
    return as_json(states)


def as_json(states: list[dict[str, Any]]) -> str:
    """As `of_directory`, of states that were read. What makes no sense is NULL."""
    rows: dict[str, dict[str, Any]] = {}
    for state in states:
        sensors = state.get("sensors")
        row = {n: state.get(n) if isinstance(state.get(n), int | float) else None for n in _NUMBERS}
        row |= {n: str(state[n])[:300] if isinstance(state.get(n), str) else None for n in _TEXTS}
        row["said"] = state.get("at") if isinstance(state.get("at"), int | float) else None
        for sensor in sensors if isinstance(sensors, list) else ():
            known = rows.get(str(sensor))
            if known is None or (known["written"] or 0) <= (row["written"] or 0):
                rows[str(sensor)] = row | {"sensor": str(sensor)}
    return json.dumps(list(rows.values()), allow_nan=False, default=str)
