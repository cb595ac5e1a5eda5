"""The batches: frames through decoding, flows, application messages, scores, windows, signatures and rows.

Runs with every index of the kernels checked when the process was started with NUMBA_BOUNDSCHECK=1 (`tests.fuzz` does).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from engine import packets as k
from engine.analyse import Analyser, SideRows
from engine.columns import Columns
from engine.config import EngineConfig
from engine.decode import Decoder
from engine.errors import EngineError
from engine.flows import FlowRows
from engine.message_rows import AppRows
from engine.metrics import Books
from engine.packets import FrameBatch, PacketBatch
from engine.rollups import Rollups
from engine.writer import init_lake
from tests.fuzz.mutate import Pool

_CONFIG = replace(EngineConfig(), frames=replace(EngineConfig().frames, mode="off"))
_BATCHES_A_SOURCE = 40


class PromiseError(AssertionError):
    """A promise of the engine that does not hold."""


class Chain:
    """Everything behind the capture, without threads. `frames` counts those that went through."""

    def __init__(self, lake: Path, flows: int = 50_000) -> None:
        init_lake(lake)
        config = replace(_CONFIG, flows=replace(_CONFIG.flows, max_flows=flows))
        self._decoder, self._columns, self._batch = Decoder(), Columns(), PacketBatch()
        self._rollups = Rollups()
        self._books = Books()
        self.analyser = Analyser(lake, config, "fuzz", self._books, self._emit, lambda kind, text: None)
        self.frames = self.side_rows = self._batches = 0

    @property
    def rows(self) -> PacketBatch:
        """Of the last batch."""
        return self._batch

    def take(self, frames: FrameBatch) -> None:
        """One batch. Raises whatever goes wrong."""
        frames.source = f"fuzz{self._batches // _BATCHES_A_SOURCE}"
        batch = self._decoder.decode(frames, self._batch)
        if batch.count != frames.count:
            raise PromiseError(f"{frames.count} frames became {batch.count} rows")
        if not self.analyser.take(frames, batch):
            raise PromiseError("rows were given up")
        rows = self._columns.to_arrow(batch)
        rows.validate(full=True)
        self._rollups.take(batch, self._columns.ips)
        _check_values(batch)
        self.frames += frames.count
        self._batches += 1
        if self._batches % 4 == 0:
            self.analyser.pass_on_due()
        if self._batches % _BATCHES_A_SOURCE == 0:
            self.analyser.end_source(frames.source)

    def close(self) -> None:
        self.analyser.finish()

    def _emit(self, side: SideRows) -> None:
        rows: Any = side.rows
        if isinstance(rows, FlowRows):
            rows.to_arrow().validate(full=True)
            rows.release()
        elif isinstance(rows, pa.RecordBatch):
            rows.validate(full=True)
        elif isinstance(rows, AppRows):
            for row in rows:
                if "ts" not in row:
                    raise PromiseError(f"a row of {side.table} without a time")
        self.side_rows += 1


def _check_values(batch: PacketBatch) -> None:
    n = batch.count
    present = batch.present[:n]
    entropy = batch.entropy[:n][present & k.HAS_ENTROPY != 0]
    if len(entropy) and not (float(entropy.min()) >= 0 and float(entropy.max()) <= 8):
        raise PromiseError(f"entropy from {entropy.min()} to {entropy.max()}")
    start, end = batch.int_[k.I_PAYLOAD, :n], batch.int_[k.I_PAYLOAD_END, :n]
    held = present & k.HAS_PAYLOAD != 0
    if (start[held] < 0).any() or (end[held] > k.ARENA_BYTES + (1 << 20)).any():
        raise PromiseError("a payload outside the arena")


def features(batch: PacketBatch) -> Any:
    """int64[n]: what a row looks like, without its values."""
    n = batch.count
    mixed = batch.present[:n].astype(np.int64)
    for at in (k.S_STATUS, k.S_ENCAP, k.S_APP):
        mixed = mixed * 1_000_003 ^ batch.short[at, :n].astype(np.int64)
    return mixed


def seeds(corpus: Path | None) -> Sequence[tuple[int, bytes]]:
    """Frames with their link types: made-up ones of every encapsulation, sessions, and those of a directory."""
    from benchmarks import sessions
    from tests.engine.test_decode import CASES

    found: list[tuple[int, bytes]] = [(link, frame) for _, link, frame, _ in CASES]
    found += [(1, frame) for _, frame in sessions.frames(6_000)]
    for path in sorted(corpus.iterdir()) if corpus else ():
        found += _frames_of(path)
    return found


def _frames_of(path: Path, most: int = 40) -> Iterable[tuple[int, bytes]]:
    from tests.flowing import batches

    found: list[tuple[int, bytes]] = []
    try:
        for batch in batches(path):
            for i in range(min(batch.count, most - len(found))):
                at, size = int(batch.frames[k.F_OFFSET, i]), int(batch.frames[k.F_CAPLEN, i])
                found.append((int(batch.frames[k.F_LINK_TYPE, i]), batch.arena[at : at + size].tobytes()))
            if len(found) >= most:
                break
    except EngineError:
        pass
    return [one for one in found if len(one[1]) <= 4000]


class Batches:
    """Runs batches of mutated frames through a chain, and learns which frames are worth more."""

    def __init__(self, seed: int, corpus: Path | None) -> None:
        self._rng = np.random.default_rng(seed)
        self.pool = Pool(seeds(corpus))
        self._known: set[int] = set()
        self._folder = tempfile.TemporaryDirectory(prefix="packetlake-fuzz-")
        self._frames = FrameBatch()
        self._ts_ns = 1_700_000_000 * 10**9
        self.chain = Chain(Path(self._folder.name) / "lake")
        self.executions = 0

    def step(self) -> None:
        """One batch. Raises what goes wrong; `keep` writes what led to it."""
        most = int(self._rng.choice([1 << 16, 1 << 20, 6 << 20]))
        self._frames.clear()
        self.pool.fill(self._frames, self._rng, self._ts_ns, most)
        self._ts_ns = max(self._ts_ns, int(self._frames.frames[k.F_TS_NS, : self._frames.count].max())) + 1_000_000
        self.chain.take(self._frames)
        self.executions += self._frames.count
        looks = features(self.chain.rows)
        values, places = np.unique(looks, return_index=True)
        for value, i in zip(values.tolist(), places.tolist(), strict=True):
            if value not in self._known and len(self._known) < 1_000_000:
                self._known.add(value)
                at, size = int(self._frames.frames[k.F_OFFSET, i]), int(self._frames.frames[k.F_CAPLEN, i])
                link = int(self._frames.frames[k.F_LINK_TYPE, i])
                self.pool.add(link, self._frames.arena[at : at + size].tobytes(), self._rng)

    def keep(self, path: Path) -> None:
        """The batch in hand as a file, and a new chain in the place of the one that failed."""
        n = self._frames.count
        used = int((self._frames.frames[k.F_OFFSET, :n] + self._frames.frames[k.F_CAPLEN, :n]).max(initial=0))
        np.savez_compressed(path, arena=self._frames.arena[:used], frames=self._frames.frames[:, :n])
        self.chain = Chain(Path(tempfile.mkdtemp(dir=self._folder.name)) / "lake")

    @property
    def known(self) -> int:
        return len(self._known)

    def close(self) -> None:
        self.chain.close()
        self._folder.cleanup()


def replay(path: Path) -> None:
    """Run a kept batch alone. Raises what it raised if it needs nothing that came before it."""
    kept = np.load(path)
    frames = FrameBatch()
    count = kept["frames"].shape[1]
    frames.arena[: len(kept["arena"])] = kept["arena"]
    frames.frames[:, :count] = kept["frames"]
    frames.count = count
    with tempfile.TemporaryDirectory() as folder:
        chain = Chain(Path(folder) / "lake")
        chain.take(frames)
        chain.close()
