"""What is given up when the engine cannot keep up, in a declared order; see "Under pressure" in docs/operations.md."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Level(IntEnum):
    """How much is given up: a level includes those before it."""

    NONE = 0
    FRAMES = 1  # raw frames are not stored
    ROWS = 2  # packet rows are not written; flows and applications stay exact
    SCORES = 3  # packets are not scored


MEANINGS: Final = {
    Level.NONE: "keeping up again: everything is stored",
    Level.FRAMES: "cannot keep up: raw frames are given up where needed",
    Level.ROWS: "cannot keep up: raw frames and packet rows are given up where needed, flows stay exact",
    Level.SCORES: "cannot keep up: raw frames, packet rows and scores are given up where needed, flows stay exact",
}
# Share of the pool's batches that wait or are in work, at which a level begins; it ends at so much less.
_BEGINS: Final = {Level.FRAMES: 0.5, Level.ROWS: 0.7, Level.SCORES: 0.85}
_LESS: Final = 0.15
_QUIET_S: Final = 10.0  # between two lines to the operator, unless the level is the highest so far


class Pressure:
    """Turns the fill of the pool into a level, batch by batch: as little as possible is given up near the limit."""

    def __init__(self) -> None:
        self.level = Level.NONE
        self._told = Level.NONE
        self._told_at = float("-inf")

    def update(self, fill: float) -> Level:
        """`fill`: 0 to 1, the batches that are not free. Returns the level for the next batch."""
        wanted = max((level for level, share in _BEGINS.items() if fill >= share), default=Level.NONE)
        if wanted > self.level:
            self.level = Level(wanted)
        while self.level and fill < _BEGINS[self.level] - _LESS:
            self.level = Level(self.level - 1)
        return self.level

    def news(self, now_s: float) -> str:
        """A line for the operator when there is something new to say, else empty."""
        worse = self.level > self._told
        if self.level == self._told or not (worse or now_s - self._told_at >= _QUIET_S):
            self._told_at = now_s if self.level and not worse else self._told_at
            return ""
        self._told, self._told_at = self.level, now_s
        return MEANINGS[self.level] if worse or self.level is Level.NONE else ""
