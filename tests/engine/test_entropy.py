"""Shannon entropy against the definition in numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.kernels.decode import scratch
from engine.kernels.entropy import entropies, log_tables
from tests.reference import shannon

LARGEST = 262_144


def entropy(buffer: NDArray[np.uint8], starts: list[int], ends: list[int]) -> NDArray[np.float32]:
    """The kernel over slices; its histogram must be zero afterwards, since the next frame counts on it."""
    histogram = scratch()[2]
    out = np.full(len(starts), -1, np.float32)
    entropies(buffer, np.array(starts, np.int64), np.array(ends, np.int64), log_tables(), histogram, out)
    assert not histogram.any()
    return out


def text(size: int) -> NDArray[np.uint8]:
    words = b"GET /index.html HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\n\r\n"
    return np.frombuffer((words * (size // len(words) + 1))[:size], np.uint8).copy()


def few_values(size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(2).choice(np.array([0, 3, 255], np.uint8), size, p=[0.9, 0.09, 0.01])


def uniform(size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, size, np.uint8)


@pytest.mark.parametrize("make", [uniform, text, few_values, lambda n: np.full(n, 255, np.uint8)])
def test_entropy__every_size_up_to_5000_and_the_largest_frame(make: Callable[[int], NDArray[np.uint8]]) -> None:
    buffer = make(LARGEST)
    # Every start alignment as well: sizes go up one by one from a moving start.
    starts = [i % 97 for i in range(1, 5001)] + [0, 1, 5]
    ends = [s + n for s, n in zip(starts, range(1, 5001), strict=False)] + [LARGEST, LARGEST - 1, LARGEST]
    got = entropy(buffer, starts, ends)
    want = [shannon(buffer[s:e].tobytes()) for s, e in zip(starts, ends, strict=True)]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


def test_entropy__known_values() -> None:
    buffer = np.concatenate([np.arange(256, dtype=np.uint8), np.zeros(7, np.uint8), np.array([1, 2, 1, 2], np.uint8)])
    got = entropy(buffer, [0, 256, 263, 263, 12], [256, 263, 267, 264, 12])
    assert got[:4].tolist() == [8.0, 0.0, 1.0, 0.0]
    assert np.isnan(got[4])


def test_entropy__reads_its_bytes_only() -> None:
    buffer = uniform(4096)
    inner = buffer[1001:2500].copy()
    first = entropy(buffer, [1001], [2500])
    buffer[:] = 0x41
    buffer[1001:2500] = inner
    assert entropy(buffer, [1001], [2500]) == first


def test_log_tables__increments_add_up() -> None:
    logs = log_tables()
    c = np.arange(logs.shape[1], dtype=np.float64)
    np.testing.assert_allclose(logs[0, 1:], c[1:] * np.log2(c[1:]))
    np.testing.assert_allclose(np.cumsum(logs[1])[:-1], logs[0, 1:], atol=1e-6)
