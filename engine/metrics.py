"""Counters of one source. Nothing is lost without one of these going up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class SourceCounters:
    """Totals since the source was opened, in frames.

    `received` includes what the kernel dropped, so that received = rows + kernel_drops + own drops holds once
    every batch is written. `interface_drops` happened before the capture point and are not part of that sum.
    """

    received: int = 0
    kernel_drops: int = 0
    interface_drops: int = 0
