"""What is given up when the engine cannot keep up, in a declared order; see "Under pressure" in docs/operations.md."""

from __future__ import annotations

import time
from enum import IntEnum
from typing import Final

_CALM_S: Final = 2.0  # a level is left when there was less pressure than it asks for during this time


class Level(IntEnum):
    """How much is given up: a level includes those before it."""

    NONE = 0
    FRAMES = 1  # raw frames are not stored
    ROWS = 2  # packet rows are not written; flows and applications stay exact
    SCORES = 3  # packets are not scored


MEANINGS: Final = {
    Level.NONE: "keeping up again: everything is stored",
    Level.FRAMES: "cannot keep up: raw frames are not stored",
    Level.ROWS: "cannot keep up: raw frames and packet rows are not stored, flows stay exact",
    Level.SCORES: "cannot keep up: raw frames, packet rows and scores are given up, flows stay exact",
}
# Share of the pool's batches that wait or are in work, at which a level begins.
_BEGINS: Final = {Level.FRAMES: 0.5, Level.ROWS: 0.7, Level.SCORES: 0.85}


class Pressure:
    """Turns the fill of the pool into a level: up at once, down one by one after calm."""

    def __init__(self) -> None:
        self.level = Level.NONE
        self._calm_since = time.monotonic()

    def update(self, fill: float) -> Level:
        """`fill`: 0 to 1, the batches that are not free. Returns the level."""
        now = time.monotonic()
        wanted = max((level for level, share in _BEGINS.items() if fill >= share), default=Level.NONE)
        if wanted >= self.level:
            self.level = Level(wanted)
            self._calm_since = now
        elif now - self._calm_since >= _CALM_S:
            self.level = Level(self.level - 1)
            self._calm_since = now
        return self.level
