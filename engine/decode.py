"""The decode stage: frames of a FrameBatch into the rows of a PacketBatch."""

from __future__ import annotations

from engine.kernels.decode import decode_frames, scratch
from engine.kernels.entropy import log_tables
from engine.packets import FrameBatch, PacketBatch


class Decoder:
    """Owns the scratch memory of one decoding thread; one instance per thread."""

    def __init__(self) -> None:
        self._f, self._g, self._histogram, self._totals = scratch()
        self._logs = log_tables()

    def decode(self, frames: FrameBatch, out: PacketBatch) -> PacketBatch:
        """Fill `out` with one row per frame. It must have room for as many rows as `frames` has frames."""
        decode_frames(
            frames.arena, frames.frames, frames.first_frame_no, frames.count,
            out.short, out.int_, out.long, out.address, out.entropy, out.present,
            self._f, self._g, self._logs, self._histogram, self._totals,
        )  # fmt: skip
        out.count = frames.count
        out.source = frames.source
        out.undecodable = int(self._totals[0])
        out.wire_bytes = int(self._totals[1])
        return out
