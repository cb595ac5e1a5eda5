"""Flows of made-up packets and of savefiles, through the real decoder and flow table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.applications import Applications
from engine.capture.savefile import SavefileSource
from engine.capture.source import ReadResult
from engine.config import FlowsConfig
from engine.errors import EngineError
from engine.flows import FlowRows, FlowTable
from engine.packets import F_TS_NS, FrameBatch, PacketBatch
from tests.builders import decoder, fill, plain_schema

START_NS = 1_700_000_000 * 10**9
Timed = tuple[float, bytes]  # seconds after the start, frame


class Run:
    """A flow table whose rows are kept. `packets` are the rows of the packets, `flows` those of ended flows."""

    def __init__(self, config: FlowsConfig | None = None, applications: Applications | None = None) -> None:
        self.flows: list[dict[str, Any]] = []
        self.packets: list[dict[str, Any]] = []
        self.table = FlowTable(config or FlowsConfig(), self._keep, applications, first_id=1)

    def _keep(self, rows: FlowRows) -> None:
        self.flows += rows.to_arrow().to_pylist()
        rows.release()

    def send(self, timed: Sequence[Timed], source: str = "test", keep: bool = True) -> Run:
        """One batch."""
        frames = fill([frame for _, frame in timed])
        frames.source = source
        frames.frames[F_TS_NS, : len(timed)] = [START_NS + round(at * 1e9) for at, _ in timed]
        return self.take(frames, PacketBatch(rows=max(1, len(timed))), keep)

    def take(self, frames: FrameBatch, packets: PacketBatch, keep: bool = True) -> Run:
        work, _, columns = decoder()
        work.decode(frames, packets)
        self.table.follow(frames, packets)
        if keep:
            self.packets += columns.to_arrow(packets).to_pylist()
        return self

    def close(self) -> Run:
        self.table.close()
        return self


def flows_of(timed: Sequence[Timed], config: FlowsConfig | None = None) -> list[dict[str, Any]]:
    """The rows of all flows, in the order they began."""
    run = Run(config).send(timed).close()
    return sorted(run.flows, key=lambda f: (f["flow_id"], f["part"]))


def batches(path: Path | str) -> Iterable[FrameBatch]:
    """The frames of a savefile, up to where it is damaged; nothing of one that is refused."""
    source, frames = SavefileSource(str(path)), FrameBatch()
    try:
        source.open()
        while True:
            frames.clear()
            frames.source = "file"
            result = source.read(frames)
            yield frames
            if result is ReadResult.END:
                return
    except EngineError:
        return
    finally:
        source.close()


def plain(rows: pa.RecordBatch) -> pa.RecordBatch:
    """A copy without dictionaries."""
    return pa.RecordBatch.from_pylist(rows.to_pylist(), schema=plain_schema(rows.schema))
