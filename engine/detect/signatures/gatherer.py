"""The buffer that payloads are gathered into, and the memory of flows behind it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from engine.constants import MAX_CAPLEN
from engine.kernels import payloads as kernel
from engine.kernels.window_tables import WAYS
from engine.packets import ROWS_PER_BATCH, FrameBatch, PacketBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A buffer of this size stays in the second-level cache between gathering and scanning, and holds the longest frame.
BUFFER_BYTES: Final = 512 << 10
assert BUFFER_BYTES > MAX_CAPLEN + 2 * kernel.TAIL_BYTES + 3


@dataclass(frozen=True, slots=True)
class Gathered:
    """A buffer of pieces, valid until the next one. `pieces`: int64[N_PIECE, n]."""

    data: memoryview
    pieces: NDArray[np.int64]

    def text(self, piece: int) -> bytes:
        """The payload bytes of a piece."""
        return bytes(self.data[int(self.pieces[kernel.P_PAYLOAD, piece]) : int(self.pieces[kernel.P_END, piece])])

    def before(self, piece: int) -> bytes:
        """What precedes the payload in its stream; empty for a payload alone."""
        return bytes(self.data[int(self.pieces[kernel.P_START, piece]) : int(self.pieces[kernel.P_PAYLOAD, piece])])


class Gatherer:
    """Gathers the payloads of batches. `sides`: uint8[rows], which side of its flow each row is (`kernel.FROM_CLIENT`
    and so on), for the rows of the batch in hand.

    Args:
        join_bytes: so much of each direction is joined across segments. flows: how many flows are remembered.
    """

    def __init__(self, join_bytes: int, flows: int, rows: int = ROWS_PER_BATCH) -> None:
        size = 1 << max(3, (flows - 1).bit_length())
        self._limit = join_bytes
        self._tags: NDArray[np.int64] = np.zeros((size // WAYS, WAYS), np.int64)
        self._entries: NDArray[np.int64] = np.zeros((size, kernel.N_ENTRY), np.int64)
        self._tails: NDArray[np.uint8] = np.zeros(2 * size * kernel.TAIL_BYTES, np.uint8)
        self._buffer: NDArray[np.uint8] = np.zeros(BUFFER_BYTES, np.uint8)
        self._view = memoryview(self._buffer)  # type: ignore[arg-type]
        self._pieces: NDArray[np.int64] = np.zeros((kernel.N_PIECE, 2 * rows), np.int64)
        self._state = np.zeros(kernel.N_STATE, np.int64)
        self.sides: NDArray[np.uint8] = np.zeros(rows, np.uint8)

    def warm_up(self, frames: FrameBatch, packets: PacketBatch) -> None:
        """Compile what a batch needs."""
        for _ in self.gather(frames, packets):
            pass

    def gather(self, frames: FrameBatch, packets: PacketBatch) -> Iterator[Gathered]:
        """The payloads of a batch, in as many buffers as they need."""
        p, first = packets, 0
        if p.count > len(self.sides):
            self._pieces = np.zeros((kernel.N_PIECE, 2 * p.count), np.int64)
            self.sides = np.zeros(p.count, np.uint8)
        while True:
            first = kernel.gather(
                frames.arena, p.short, p.int_, p.long, p.address, p.present, first, p.count, self._tags, self._entries,
                self._tails, self._limit, self._buffer, self._pieces, self.sides, self._state,
            )  # fmt: skip
            count = int(self._state[kernel.S_PIECES])
            if count:
                yield Gathered(self._view[: int(self._state[kernel.S_USED])], self._pieces[:, :count])
            if first >= p.count:
                return
