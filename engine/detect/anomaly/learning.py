"""What windows are usual: an even sample of those of this interval and the one before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from engine.detect.anomaly.columns import NAMES

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SEED: Final = 7
_EPISODE_S: Final = 300  # unusual windows of a host within it would be one alert


class Sample:
    """Rows of the windows of one length, at most `capacity` of each interval (Vitter 1985, algorithm R).

    Which rows are kept depends on the rows and their order only. With each goes its episode: a number that the windows
    of a host within five minutes have in common.
    """

    def __init__(self, capacity: int) -> None:
        self._now = np.zeros((capacity, len(NAMES)), np.float32), np.zeros(capacity, np.int64)
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._random = np.random.default_rng(_SEED)
        self._before = np.zeros((0, len(NAMES)), np.float32), np.zeros(0, np.int64)
        self._before_seen = self._seen = 0

    def offer(self, x: NDArray[np.float32], hosts: NDArray[np.int64], start_s: int) -> None:
        """Take some of float32[n, columns], the windows that began at `start_s` of these hosts (any number of each)."""
        rows, episodes = self._now
        capacity = len(rows)
        at = np.arange(self._seen, self._seen + len(x))
        late = at >= capacity
        at[late] = (self._random.random(int(late.sum())) * (at[late] + 1)).astype(np.int64)
        kept = at < capacity
        rows[at[kept]] = x[kept]
        episodes[at[kept]] = (hosts[kept] << 24) ^ (start_s // _EPISODE_S)
        self._seen += len(x)

    def turn(self) -> None:
        """The interval ends and the next begins."""
        n = min(self._seen, len(self._now[0]))
        self._before = self._now[0][:n].copy(), self._now[1][:n].copy()
        self._before_seen, self._seen = self._seen, 0

    def rows(self) -> tuple[NDArray[np.float32], NDArray[np.int64], float]:
        """(rows, their episodes, the share that they are of all rows seen)."""
        n = min(self._seen, len(self._now[0]))
        rows = np.concatenate([self._before[0], self._now[0][:n]])
        episodes = np.concatenate([self._before[1], self._now[1][:n]])
        return rows, episodes, len(rows) / max(1, self._before_seen + self._seen)

    def __len__(self) -> int:
        return len(self._before[0]) + min(self._seen, len(self._now[0]))


def peak_of(scores: NDArray[np.float64], episodes: NDArray[np.int64], allowed: int) -> float:
    """The largest score when the `allowed` highest episodes are told: so many alerts the sample would have made."""
    order = np.argsort(-scores, kind="stable")
    _, first = np.unique(episodes[order], return_index=True)
    highest = np.sort(scores[order][first])[::-1]
    return float(highest[min(allowed, len(highest) - 1)])
