"""Changes to inputs: of one at a time, and of a whole batch of frames."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.packets import F_CAPLEN, F_LINK_TYPE, F_OFFSET, F_TS_NS, F_WIRELEN, FrameBatch

NUMBERS = (
    0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 20, 28, 31, 32, 40, 63, 64, 127, 128, 254, 255, 256, 512, 1023, 1024, 4095, 4096,
    32767, 32768, 65534, 65535, 65536, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF,
)  # fmt: skip
_EDGES: NDArray[np.uint8] = np.array(
    [0, 1, 2, 4, 5, 6, 8, 15, 16, 17, 31, 32, 44, 47, 58, 63, 64, 69, 96, 127, 128, 192, 224, 254, 255], np.uint8
)


def one(data: bytes, others: Sequence[bytes], rng: random.Random, words: Sequence[bytes] = ()) -> bytes:
    """A changed input: some of the usual changes, spliced with another one now and then."""
    new = bytearray(data)
    for _ in range(1 << rng.randrange(4)):
        at = rng.randrange(len(new) + 1)
        how = rng.randrange(11)
        if how == 0 and new:
            new[at % len(new)] ^= 1 << rng.randrange(8)
        elif how == 1 and new:
            new[at % len(new)] = rng.randrange(256)
        elif how == 2:
            size = rng.choice((1, 2, 4, 8))
            value = (rng.choice(NUMBERS) & (1 << 8 * size) - 1).to_bytes(size, rng.choice(("big", "little")))
            new[at : at + size] = value
        elif how == 3:
            del new[at : at + rng.randrange(1, 40)]
        elif how == 4:
            new[at:at] = new[at : at + rng.randrange(1, 60)]
        elif how == 5:
            new[at:at] = bytes([rng.randrange(256)]) * rng.choice((1, 2, 8, 33, 300))
        elif how == 6 and words:
            new[at:at] = rng.choice(words)
        elif how == 7 and words:
            word = rng.choice(words)
            new[at : at + len(word)] = word
        elif how == 8 and others:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            new[at : at + rng.randrange(1, 64)] = other[start : start + rng.randrange(1, 64)]
        elif how == 9:
            del new[at:]
        elif new:
            new[at % len(new)] = (new[at % len(new)] + rng.choice((1, 255))) & 255
    return bytes(new[: 1 << 16])


class Pool:
    """Frames to start from, with their link types. Bounded: a new one takes a random one's place."""

    def __init__(self, frames: Sequence[tuple[int, bytes]], most: int = 50_000) -> None:
        self._most = most
        self._frames = list(frames)[:most]
        self._fresh = True
        self._bytes: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._starts: NDArray[np.int64] = np.zeros(0, np.int64)
        self._sizes: NDArray[np.int64] = np.zeros(0, np.int64)
        self._links: NDArray[np.int64] = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, link: int, frame: bytes, rng: np.random.Generator) -> None:
        if len(self._frames) < self._most:
            self._frames.append((link, frame))
        else:
            self._frames[int(rng.integers(self._most))] = (link, frame)
        self._fresh = True

    def fill(self, batch: FrameBatch, rng: np.random.Generator, ts_ns: int, most_bytes: int) -> None:
        """Mutated frames of the pool, as many as there is room for, from a time on."""
        if self._fresh:
            self._bytes = np.frombuffer(b"".join(frame for _, frame in self._frames), np.uint8)
            self._sizes = np.array([len(frame) for _, frame in self._frames], np.int64)
            self._starts = np.cumsum(self._sizes) - self._sizes
            self._links = np.array([link for link, _ in self._frames], np.int64)
            self._fresh = False
        room = min(most_bytes, len(batch.arena))
        n = batch.frames.shape[1]
        # Often runs of neighbours, since messages of one connection stand side by side.
        picks = rng.integers(len(self._frames), size=n)
        runs = rng.random(n) < 0.7
        runs[0] = False
        leader = np.maximum.accumulate(np.where(runs, 0, np.arange(n)))
        picks = (picks[leader] + np.arange(n) - leader) % len(self._frames)
        sizes = self._sizes[picks]
        n = int(np.searchsorted(np.cumsum(sizes), room, "right"))
        picks, sizes = picks[:n], sizes[:n].copy()
        offsets = np.cumsum(sizes) - sizes
        total = int(sizes.sum())
        batch.arena[:total] = self._bytes[np.arange(total) + np.repeat(self._starts[picks] - offsets, sizes)]
        _change(batch.arena, offsets, sizes, rng)
        cut = rng.random(n) < 0.08
        sizes[cut] = (sizes[cut] * rng.random(int(cut.sum()))).astype(np.int64)
        wire = sizes + np.where(rng.random(n) < 0.1, rng.integers(0, 70_000, n), 0)
        steps = np.where(rng.random(n) < 0.001, rng.choice(np.array([0, 10**9, 70 * 10**9, -(10**9)]), n), 1_000)
        batch.frames[F_TS_NS, :n] = np.maximum(0, ts_ns + np.cumsum(steps))
        batch.frames[F_OFFSET, :n], batch.frames[F_CAPLEN, :n], batch.frames[F_WIRELEN, :n] = offsets, sizes, wire
        links = self._links[picks]
        odd = rng.random(n) < 0.002
        links[odd] = rng.choice(np.array([0, 1, 12, 101, 105, 108, 113, 127, 228, 229, 276, 65535]), int(odd.sum()))
        batch.frames[F_LINK_TYPE, :n] = links
        batch.count = n


def _change(
    arena: NDArray[np.uint8], offsets: NDArray[np.int64], sizes: NDArray[np.int64], rng: np.random.Generator
) -> None:
    """Bytes of most frames: mostly in the headers, a word at a time or a bit."""
    whole = np.flatnonzero(sizes > 1)
    if not len(whole):
        return
    ways: tuple[Callable[[int], NDArray[np.uint8]], ...] = (
        lambda k: rng.choice(_EDGES, k),
        lambda k: rng.integers(0, 256, k).astype(np.uint8),
    )
    for reach, share in ((64, 0.5), (160, 0.3), (1 << 16, 0.4)):
        chosen = whole[rng.random(len(whole)) < share]
        at = offsets[chosen] + (np.minimum(sizes[chosen], reach) * rng.random(len(chosen))).astype(np.int64)
        for part, way in zip(np.array_split(rng.permutation(len(chosen)), 3), (*ways, None), strict=True):
            places = at[part]
            if way is None:
                arena[places] ^= (1 << rng.integers(0, 8, len(places))).astype(np.uint8)
            else:
                arena[places] = way(len(places))
    # Two neighbouring bytes: lengths.
    chosen = whole[rng.random(len(whole)) < 0.2]
    at = offsets[chosen] + (np.minimum(sizes[chosen] - 1, 120) * rng.random(len(chosen))).astype(np.int64)
    values = rng.choice(np.array([n for n in NUMBERS if n < 65_536]), len(chosen))
    arena[at], arena[at + 1] = (values >> 8).astype(np.uint8), (values & 255).astype(np.uint8)
