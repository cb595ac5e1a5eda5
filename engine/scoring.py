"""The scoring stage: how unusual each packet is by itself, and the rows that a model is trained on.

The columns a forest can see say little about attacks, which are many ordinary packets: `anomaly` is for sorting and
plotting. Alerts come from elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engine import packets as k
from engine.forest import Forest
from engine.kernels import forest as kernel
from engine.kernels import forest_steps as q

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

_SEED: Final = 0x9E3779B97F4A7C15
_CACHE_LINE: Final = 64


def _aligned(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Zeros that begin with a cache line: unaligned, the scoring kernel needs 40 % more time."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + _CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)


class Scorer:
    """Scores batches with `forest`, which may be exchanged between batches. One instance per thread.

    Attributes:
        forest: the model, or None.
        raw: float32[rows]. Scores of the last batch as in the paper, before they became anomalies.
    """

    def __init__(self, forest: Forest | None = None, rows: int = k.ROWS_PER_BATCH) -> None:
        self.forest = forest
        self.raw: NDArray[np.float32] = np.zeros(rows, np.float32)
        self.features: NDArray[np.int16] = _aligned((len(q.FEATURES), rows), np.int16)
        self._scratch = (
            _aligned((len(q.FEATURES), q.BLOCK), np.int16),
            _aligned((q.SLOTS, q.BLOCK), np.int16),
            _aligned((q.BLOCK,), np.int32),
            _aligned((q.BLOCK,), np.float64),
        )

    def score(self, packets: k.PacketBatch) -> None:
        """Write `packets.anomaly` and say so in `packets.present`. Without a forest the column stays NULL."""
        if self.forest is not None:
            self.fill(packets)
            self.score_filled(packets)

    def fill(self, packets: k.PacketBatch) -> NDArray[np.int16]:
        """Features of the batch, int16[n_features, rows]; valid until the next call."""
        p = packets
        self._check(p.count)
        kernel.fill_features(p.short, p.int_, p.long, p.entropy, p.present, p.count, self.features)
        return self.features

    def score_filled(self, packets: k.PacketBatch) -> None:
        """As `score`, of the batch whose features were filled last."""
        if self.forest is not None:
            self.score_features(self.features, packets.count, packets.anomaly)
            packets.present[: packets.count] |= np.uint32(k.HAS_ANOMALY)

    def score_features(self, features: NDArray[np.int16], count: int, out: NDArray[np.float32]) -> None:
        """Anomalies of the first `count` columns of int16[n_features, >= count] into float32[>= count].

        There may be at most as many as the scorer has rows.
        """
        f = self.forest
        assert f is not None
        self._check(count)
        kernel.score(
            features, count, f.steps, f.starts, f.depths, f.table, f.factor, f.lowest, f.per_cell,
            *self._scratch, self.raw, out,
        )  # fmt: skip

    def _check(self, count: int) -> None:
        if count > len(self.raw):  # compiled code would write behind the arrays
            raise ValueError(f"{count} rows for a scorer made for {len(self.raw)}")

    def warm_up(self, packets: k.PacketBatch) -> None:
        """Compile what has not been, by scoring nothing. `packets` must be empty."""
        before, self.forest = self.forest, self.forest or empty_forest()
        self.score(packets)
        self.forest = before


def empty_forest() -> Forest:
    """A forest of no tree."""
    table = np.zeros(q.CELLS + 2)
    nothing = np.zeros((0, q.N_STEP), np.int16), np.zeros(1, np.int64), np.zeros(0, np.int32), table
    return Forest(*nothing, 0.0, 0.0, 0.0, 0, 0, 0, 0, 0.0)


class Reservoir:
    """A sample of at most `capacity` of the rows offered, each with the same chance; the same one for the same rows.

    Attributes:
        span_us: first and last time among the rows offered, microseconds since the epoch.
    """

    def __init__(self, capacity: int) -> None:
        self._rows: NDArray[np.int16] = np.zeros((capacity, len(q.FEATURES)), np.int16)
        self._state = np.zeros(kernel.N_RESERVOIR, np.uint64)
        self.restart()

    def restart(self) -> None:
        """Forget all rows."""
        self._state[:] = 0, _SEED
        self.span_us = (0, 0)

    def offer(self, features: NDArray[np.int16], packets: k.PacketBatch) -> None:
        """Take some of the batch, whose features these are."""
        n = packets.count
        if n == 0:
            return
        times = packets.long[k.L_TS, :n]
        first, last = int(times.min()), int(times.max())
        self.span_us = (min(first, self.span_us[0]), max(last, self.span_us[1])) if self.seen else (first, last)
        kernel.sample(features, n, self._state, self._rows)

    @property
    def seen(self) -> int:
        """Rows offered since the last restart."""
        return int(self._state[kernel.R_SEEN])

    @property
    def rows(self) -> NDArray[np.int16]:
        """The sample, int16[n, n_features]."""
        return self._rows[: min(self.seen, len(self._rows))]

    def warm_up(self, features: NDArray[np.int16]) -> None:
        """Compile what has not been."""
        kernel.sample(features, 0, self._state, self._rows)


class WindowSample:
    """As a reservoir, of the last `minutes` only, by the packets' clock: a reservoir for each sixth of them.

    Attributes: as of `Reservoir`; `seen` counts what the window holds.
    """

    _PARTS: Final = 6

    def __init__(self, capacity: int, minutes: int) -> None:
        self._capacity = capacity
        self._part_us = minutes * 60_000_000 // self._PARTS
        self._parts = {n: Reservoir(-(-capacity // self._PARTS)) for n in range(-self._PARTS, 0)}  # by number in time

    def offer(self, features: NDArray[np.int16], packets: k.PacketBatch) -> None:
        """Take some of the batch, whose features these are."""
        if packets.count == 0:
            return
        number = int(packets.long[k.L_TS, packets.count - 1]) // self._part_us
        newest = max(self._parts)
        if number > newest or number < newest - self._PARTS:  # the latter: another savefile, older
            oldest = min(self._parts)
            self._parts[number] = self._parts.pop(oldest)
            self._parts[number].restart()
            for part in (p for n, p in self._parts.items() if not number - self._PARTS < n <= number):
                part.restart()
            newest = number
        self._parts[newest].offer(features, packets)

    @property
    def span_us(self) -> tuple[int, int]:
        spans = [p.span_us for p in self._parts.values() if p.seen]
        return (min(s[0] for s in spans), max(s[1] for s in spans)) if spans else (0, 0)

    @property
    def seen(self) -> int:
        return sum(p.seen for p in self._parts.values())

    @property
    def rows(self) -> NDArray[np.int16]:
        """The sample, int16[n, n_features]: of each part as many as its share of the rows, as far as it has them."""
        filled = [p for p in self._parts.values() if p.seen]
        shares = [(p, -(-self._capacity * p.seen // self.seen)) for p in filled]
        parts = [p.rows[:share] for p, share in shares]
        return np.concatenate(parts) if parts else np.zeros((0, len(q.FEATURES)), np.int16)

    def restart(self) -> None:
        """Nothing: the window moves by itself."""
