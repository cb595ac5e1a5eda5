"""CPU time of each stage per packet: the real reader, decoder and publisher in one thread, with a clock in each.

    python -m benchmarks.stages FILE [--runs N] [--frames full|off]

The publisher's parts are found by their class, so that a new stage shows up under its name without a change here.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.measure import LOWER, Figure, figure, load
from engine import warmup
from engine.capture.savefile import SavefileSource
from engine.capture.source import ReadResult
from engine.config import EngineConfig
from engine.decode import Decoder
from engine.errors import StoreError
from engine.packets import FrameBatch, PacketBatch
from engine.publish import Publisher
from engine.writer import init_lake

# What a class of the publisher's parts does, in words; others go by the name of their class.
_STAGES = {
    "FlowTable": "flow table",
    "Applications": "applications",
    "FrameRing": "raw frames write",
    "Columns": "Arrow conversion",
    "TableWriter": "Parquet write",
    "_SideTable": "side tables",
}
REST = "everything else"


class StageClock:
    """CPU nanoseconds of this thread by stage. What a stage calls of another counts for that one only."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, int] = defaultdict(int)
        self._running: list[str] = []
        self._since = 0

    def timed(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed as part of the stage."""

        def call(*values: Any, **named: Any) -> Any:
            now = time.thread_time_ns()
            if self._running:
                self.spent[self._running[-1]] += now - self._since
            self._running.append(stage)
            self._since = now
            try:
                return work(*values, **named)
            finally:
                now = time.thread_time_ns()
                self.spent[self._running.pop()] += now - self._since
                self._since = now

        return call

    def watch(self, part: Any, stage: str) -> None:
        """Time every public method of an object."""
        for kind in reversed(type(part).__mro__[:-1]):
            for name, member in vars(kind).items():
                if callable(member) and not name.startswith("_") and not isinstance(member, (staticmethod, type)):
                    setattr(part, name, self.timed(stage, getattr(part, name)))

    def watch_parts(self, whole: Any) -> None:
        """Time the parts of an object, each under its stage: attributes of it that are made by classes of the engine."""
        parts = [value for value in vars(whole).values() if _is_part(value)]
        for group in vars(whole).values():
            if isinstance(group, dict):
                parts += [value for value in group.values() if _is_part(value)]
        for part in parts:
            name = type(part).__name__
            self.watch(part, _STAGES.get(name, name.strip("_")))


def _is_part(value: object) -> bool:
    return type(value).__module__.startswith("engine.") and hasattr(value, "__dict__") and not callable(value)


def _fail(error: StoreError) -> None:
    raise error


class Line:
    """The engine's stages in a row, as its pipeline has them, without its threads."""

    def __init__(self, lake: Path, config: EngineConfig) -> None:
        init_lake(lake)
        self.clock = StageClock()
        self._frames, self._packets = FrameBatch(), PacketBatch()
        self._decode = self.clock.timed("decode, entropy", Decoder().decode)
        self._publisher = Publisher(lake, config, _fail)
        self.clock.watch_parts(self._publisher)

    def run(self, path: Path) -> int:
        """A whole savefile; returns its packets. Everything is on disk afterwards."""
        source, packets = SavefileSource(str(path)), 0
        read = self.clock.timed("read, walk", source.read)
        source.open()
        result = ReadResult.MORE
        while result is not ReadResult.END:
            self._frames.clear()
            result = read(self._frames)
            if self._frames.count == 0:
                continue
            self._frames.source, self._frames.first_frame_no = source.name, packets + 1
            self._publisher.take(self._frames, self._decode(self._frames, self._packets))
            self._publisher.publish_due()
            packets += self._frames.count
        source.close()
        self._publisher.end_source(source.name)
        self._publisher.finish()
        return packets


def stage_costs(path: Path, frames: str = "full", runs: int = 5) -> dict[str, Figure]:
    """CPU ns per packet of each stage, by name, and of everything together; the first run does not count."""
    warmup.warm_up()
    config = EngineConfig().override("frames", mode=frames).override("applications", budget=1.0)
    taken: list[dict[str, float]] = []
    with TemporaryDirectory() as folder:
        line = Line(Path(folder) / "lake", config)
        for _ in range(runs + 1):
            line.clock.spent.clear()
            began = time.process_time_ns()
            packets = line.run(path)
            total = time.process_time_ns() - began
            row = {name: ns / packets for name, ns in line.clock.spent.items()}
            row[REST] = (total - sum(line.clock.spent.values())) / packets
            row["total"] = total / packets
            taken.append(row)
    names = [name for name in taken[1] if name not in (REST, "total")] + [REST, "total"]
    return {name: figure([row.get(name, 0.0) for row in taken[1:]], "CPU ns/packet", LOWER) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time of each stage of the engine, per packet of a savefile.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--frames", choices=("full", "off"), default="full", help="raw frames (full)")
    options = parser.parse_args()
    costs = stage_costs(options.file, options.frames, options.runs)
    print(f"CPU ns a packet, median of {options.runs} runs, smallest to largest (load {load():.1f})")
    for name, cost in costs.items():
        print(f"  {name:<20} {cost['median']:8.0f}   {cost['min']:.0f} to {cost['max']:.0f}")


if __name__ == "__main__":
    main()
