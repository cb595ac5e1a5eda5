"""How shipping is, as its process leaves it in `<lake>/.ship/state.json` and at the destination."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine import __version__


@dataclass(slots=True)
class State:
    """How shipping is. Times are seconds since the epoch; counters are since this lake began to ship there."""

    id: str
    url: str
    version: str = __version__
    at: float = 0.0
    sensors: list[str] = field(default_factory=list)
    lag_s: float = 0.0
    waiting_segments: int = 0
    waiting_bytes: int = 0
    shipped_objects: int = 0
    shipped_rows: int = 0
    shipped_bytes: int = 0
    lost_segments: int = 0
    lost_rows: int = 0
    lost_bytes: int = 0
    refused_segments: int = 0
    failures: int = 0
    last_arrival: float = 0.0
    problem: str = ""
    dates: dict[str, int] = field(default_factory=dict)  # how often something came or went, by date

    def clear_of(self) -> dict[str, Any]:
        """For the file and the object."""
        return asdict(self)


def left(path: Path, ledger: str) -> dict[str, Any]:
    """What a process before us left, as far as it makes sense."""
    usual = State(ledger, "")
    try:
        found = json.loads(path.read_text())
        if found.get("id") != ledger:
            raise ValueError
    except (OSError, ValueError, AttributeError):
        return usual.clear_of()
    kept = {k: v for k, v in found.items() if k in usual.clear_of() and type(v) is type(getattr(usual, k))}
    return usual.clear_of() | kept
