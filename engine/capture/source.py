"""What every source of frames offers; the pipeline knows nothing else about them."""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol

from engine.metrics import SourceCounters
from engine.packets import FrameBatch


class ReadResult(IntEnum):
    """What `read` says about the batch it was given."""

    MORE = 0  # frames may be waiting: call again
    IDLE = 1  # nothing is waiting now
    FULL = 2  # the batch takes no further frame of this source: pass it on
    END = 3  # the source is exhausted


class Source(Protocol):
    """Constructors do nothing; `open` takes the resource and `close` gives it back, safe to call twice.

    `read` appends frames to `batch` and raises its count, without waiting for frames to arrive and without
    writing past the batch. The pipeline sets the batch's `source` and `first_frame_no`.
    """

    name: str

    def open(self) -> None:
        """Take the resource. Raises ConfigError, CaptureError or CorruptFile."""

    def read(self, batch: FrameBatch) -> ReadResult:
        """Append what is there. Raises CaptureError, CorruptFile or TruncatedFile, after all whole frames before it."""

    def counters(self) -> SourceCounters:
        """Totals since open."""

    def close(self) -> None:
        """Give the resource back."""
