"""The applications' patterns as arrays, in the order the kernel looks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from engine.dissect.base import TCP, UDP, Application, Pattern
from engine.kernels import patterns as kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray


def compile_patterns(applications: Sequence[Application]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(patterns, buckets) as `kernels.patterns.match_payload` takes them. Bit n of a match is application n."""
    if len(applications) > 62:
        raise ValueError("more than 62 applications: their bits no longer fit one word")
    rows: list[list[int]] = []
    buckets = [0]
    for transport in (TCP, UDP):
        known = [
            (number, row, pattern)
            for number, application in enumerate(applications)
            for pattern in application.patterns
            if pattern.transport == transport
            for row in _rows(pattern, number)
        ]
        for byte in range(256):
            rows += [row for _, row, pattern in known if _may_begin(pattern, byte)]
            buckets.append(len(rows))
    table = np.array(rows, np.int64).reshape(len(rows), kernel.N_PATTERN)
    return np.ascontiguousarray(table), np.array(buckets, np.int64)


def _mask(pattern: Pattern) -> bytes:
    return pattern.mask or b"\xff" * len(pattern.value)


def _may_begin(pattern: Pattern, byte: int) -> bool:
    mask = (_mask(pattern) + b"\0")[0]
    return byte & mask == (pattern.value + b"\0")[0] & mask


def _rows(pattern: Pattern, number: int) -> list[list[int]]:
    """One row per port, or one for any."""
    mask = int.from_bytes(_mask(pattern).ljust(8, b"\0"), "big", signed=True)
    value = int.from_bytes(pattern.value.ljust(8, b"\0"), "big", signed=True) & mask
    least, most = pattern.length
    need = len(pattern.value)
    return [[value, mask, port, least, most, 1 << number, pattern.follow, need] for port in pattern.ports or (0,)]
