"""Counters. Nothing is lost without one of these going up."""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields


@dataclass(slots=True)
class SourceCounters:
    """Totals since the source was opened, in frames.

    `received` includes what the kernel dropped, so that received = rows + rows_off + kernel_drops + own drops holds
    once every batch is written. `interface_drops` happened before the capture point and are not part of that sum.
    """

    received: int = 0
    kernel_drops: int = 0
    interface_drops: int = 0


@dataclass(slots=True)
class SourceTotals(SourceCounters):
    """A source's counters with what became of its frames. Field names are columns of `capture_stats`."""

    rows: int = 0
    rows_off: int = 0
    drop_unread_at_stop: int = 0
    drop_not_written: int = 0
    drop_rows_shed: int = 0
    undecodable: int = 0
    wire_bytes: int = 0
    flows: int = 0
    flows_evicted: int = 0
    flows_not_written: int = 0
    messages: int = 0
    messages_missed: int = 0
    messages_bad: int = 0
    frames_stored: int = 0
    frames_not_stored: int = 0
    scored: int = 0
    scores_shed: int = 0
    candidates_missed: int = 0

    @property
    def own_drops(self) -> int:
        return self.drop_unread_at_stop + self.drop_not_written + self.drop_rows_shed

    @property
    def drops(self) -> dict[str, int]:
        """All drops by cause, in words, for the summary."""
        return {
            "kernel": self.kernel_drops,
            "interface": self.interface_drops,
            "unread at stop": self.drop_unread_at_stop,
            "not written": self.drop_not_written,
            "shed": self.drop_rows_shed,
        }

    def add(self, other: SourceTotals) -> None:
        """Add every counter of another."""
        for name in TOTAL_FIELDS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def minus(self, earlier: SourceTotals) -> SourceTotals:
        """What was added since an earlier copy."""
        return SourceTotals(**{name: getattr(self, name) - getattr(earlier, name) for name in TOTAL_FIELDS})

    def copy(self) -> SourceTotals:
        return SourceTotals(**{name: getattr(self, name) for name in TOTAL_FIELDS})


class Books:
    """The totals of every source. Threads may add to different fields of the same totals."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: dict[str, SourceTotals] = {}

    def of(self, source: str) -> SourceTotals:
        """The totals of a source, from zero when it is new."""
        with self._lock:
            return self._totals.setdefault(source, SourceTotals())

    def all(self) -> dict[str, SourceTotals]:
        """The totals by source."""
        with self._lock:
            return dict(self._totals)


TOTAL_FIELDS = tuple(f.name for f in fields(SourceTotals))
