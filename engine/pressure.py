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
# Fill (share of the pool's batches that wait or are in work) at which a level begins, and at which every batch is given
# up at it. Between the two it is a share of the batches, so that the fill settles where just the excess is given up. A
# level begins when the one before is whole.
_BANDS: Final = {Level.FRAMES: (0.5, 0.65), Level.ROWS: (0.65, 0.9), Level.SCORES: (0.9, 1.0)}
_LESS: Final = 0.15  # of the fill, below which a level has ended
# Parsers and signatures have budgets of CPU time, the largest part of what the analyse thread does. They are cut first:
# what is missed is counted, and no packet loses its row for messages that nobody had time to read.
_CUT: Final = (0.35, 0.65)
_LEAST_BUDGET: Final = 0.1
_STEP: Final = 0.6180339887498949  # golden ratio: any share of its multiples, modulo 1, is spread evenly
_QUIET_S: Final = 10.0  # between two lines to the operator, unless the level is the highest so far


def _share(fill: float, band: tuple[float, float]) -> float:
    return min(1.0, max(0.0, (fill - band[0]) / (band[1] - band[0])))


class Pressure:
    """Turns the fill of the pool into what the next batch is given up at: as little as is needed.

    Attributes:
        level: the highest level in force, for the operator. budget: the part of their budget that parsers and
            signatures have, 0.1 to 1.
    """

    def __init__(self) -> None:
        self.level = Level.NONE
        self.budget = 1.0
        self._turn = 0.0
        self._told = Level.NONE
        self._told_at = float("-inf")

    def update(self, fill: float) -> Level:
        """`fill`: 0 to 1, the batches that are not free. Returns the level for the next batch."""
        self.budget = 1.0 - (1.0 - _LEAST_BUDGET) * _share(fill, _CUT)
        wanted = max((level for level, band in _BANDS.items() if fill > band[0]), default=Level.NONE)
        if wanted > self.level:
            self.level = Level(wanted)
        while self.level and fill < _BANDS[self.level][0] - _LESS:
            self.level = Level(self.level - 1)
        self._turn = (self._turn + _STEP) % 1.0
        return max((level for level, band in _BANDS.items() if self._turn < _share(fill, band)), default=Level.NONE)

    def news(self, now_s: float) -> str:
        """A line for the operator when there is something new to say, else empty."""
        worse = self.level > self._told
        if self.level == self._told or not (worse or now_s - self._told_at >= _QUIET_S):
            self._told_at = now_s if self.level and not worse else self._told_at
            return ""
        self._told, self._told_at = self.level, now_s
        return MEANINGS[self.level] if worse or self.level is Level.NONE else ""
