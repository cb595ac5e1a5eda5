"""CPU time of each stage per packet, and of each thread: the engine's own pipeline, with a clock in every stage.

    python -m benchmarks.stages FILE [--runs N] [--frames full|off]

A stage is a class of the engine. Its public methods are timed with the CPU clock of the thread that calls them; what
a stage calls of another counts for that one only. A class that is not in the tree (yet) is not measured.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.measure import LOWER, Figure, figure, load
from engine import warmup
from engine.capture.pacing import Pace
from engine.capture.savefile import SavefileSource
from engine.config import EngineConfig
from engine.errors import EngineError, StoreError
from engine.pipeline import Pipeline
from engine.writer import init_lake

READ, DECODE, REST, TOTAL = "read, walk", "decode, entropy", "everything else", "total"
_STAGES = {
    "engine.capture.savefile:SavefileSource": READ,
    "engine.decode:Decoder": DECODE,
    "engine.flows:FlowTable": "flow table",
    "engine.flows:FlowRows": "flow rows",
    "engine.applications:Applications": "applications",
    "engine.rollups:Rollups": "rollups",
    "engine.scoring:Scorer": "scoring",
    "engine.scoring:Reservoir": "scoring",
    "engine.scoring_loop:ScoringLoop": "scoring",
    "engine.detect.windows:Windows": "detection",
    "engine.detect.detector:Detector": "detection",
    "engine.detect.signatures.stage:Signatures": "signatures",
    "engine.detect.intel:Intel": "lists",
    "engine.detect.alert_stage:AlertStage": "alerts",
    "engine.columns:Columns": "Arrow conversion",
    "engine.writer:TableWriter": "Parquet write",
    "engine.publish:_SideTable": "side tables",
    "engine.frames:FrameRing": "raw frames write",
}


class StageClock:
    """CPU nanoseconds by stage and by name of thread."""

    def __init__(self) -> None:
        self.stages: defaultdict[str, int] = defaultdict(int)
        self.threads: defaultdict[str, int] = defaultdict(int)
        self._lock = threading.Lock()
        self._local = threading.local()
        self._stage_of: dict[type, str] = {}

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """The engine's classes are timed within the block."""
        undo: list[tuple[type, str, Any]] = []
        for path, stage in _STAGES.items():
            module, _, name = path.partition(":")
            with contextlib.suppress(ImportError, AttributeError):
                self._stage_of[getattr(importlib.import_module(module), name)] = stage
        for kind in self._stage_of:
            for name, member in list(vars(kind).items()):
                if callable(member) and not name.startswith("_") and not isinstance(member, type):
                    undo.append((kind, name, member))
                    setattr(kind, name, self._timed(member))
        undo.append((threading.Thread, "run", threading.Thread.run))
        threading.Thread.run = self._timed_thread(threading.Thread.run)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for kind, name, member in undo:
                setattr(kind, name, member)

    def _timed(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(instance: Any, *values: Any, **named: Any) -> Any:
            local, now = self._local, time.thread_time_ns()
            running = local.__dict__.setdefault("running", [])
            if running:
                self._add(running[-1], now - local.since)
            running.append(self._stage(type(instance)))
            local.since = now
            try:
                return work(instance, *values, **named)
            finally:
                now = time.thread_time_ns()
                self._add(running.pop(), now - local.since)
                local.since = now

        return call

    def _timed_thread(self, work: Callable[..., None]) -> Callable[..., None]:
        def call(thread: threading.Thread) -> None:
            began = time.thread_time_ns()
            try:
                work(thread)
            finally:
                with self._lock:
                    self.threads[thread.name] += time.thread_time_ns() - began

        return call

    def _stage(self, kind: type) -> str:
        return next(self._stage_of[parent] for parent in kind.__mro__ if parent in self._stage_of)

    def _add(self, stage: str, ns: int) -> None:
        with self._lock:
            self.stages[stage] += ns


def _run(path: Path, config: EngineConfig, clock: StageClock) -> tuple[int, int]:
    """A whole savefile through the pipeline into a lake that is thrown away. Returns its packets and the CPU ns."""
    said: list[str] = []
    with TemporaryDirectory(prefix="packetlake-bench-") as folder:
        init_lake(Path(folder) / "lake")
        pipeline = Pipeline(Path(folder) / "lake", config, lambda _, text: said.append(text))
        began = time.process_time_ns()
        with clock.installed():
            pipeline.start_replay([SavefileSource(str(path))], Pace("max"))
            while not pipeline.wait(0.2):
                pass
        spent = time.process_time_ns() - began
    packets = sum(totals.rows for totals in pipeline.totals.values())
    if not packets:
        raise StoreError(f"benchmark: nothing of {path} was written: {'; '.join(said)}")
    return packets, spent


def stage_costs(path: Path, frames: str = "full", runs: int = 5) -> dict[str, Any]:
    """CPU ns per packet of each stage and of everything, and by thread. The first run does not count, nor does making
    the pipeline; memory that it touches for the first time does, as it does for who replays a file."""
    warmup.warm_up()
    config = EngineConfig().override("frames", mode=frames, limit_bytes=max(1 << 30, 4 * path.stat().st_size))
    config = config.override("applications", budget=1.0)
    stages: defaultdict[str, list[float]] = defaultdict(list)
    threads: defaultdict[str, list[float]] = defaultdict(list)
    for run in range(runs + 1):
        gc.collect()  # the last pipeline, before another takes as much memory
        clock = StageClock()
        packets, total = _run(path, config, clock)
        if run == 0:
            continue
        for name in dict.fromkeys(_STAGES.values()):
            if name in clock.stages:
                stages[name].append(clock.stages[name] / packets)
        stages[REST].append((total - sum(clock.stages.values())) / packets)
        stages[TOTAL].append(total / packets)
        for name, ns in (clock.threads | {"main": total - sum(clock.threads.values())}).items():
            threads[name].append(ns / packets)
    return {"stages": _figures(stages), "threads": _figures(threads)}


def _figures(taken: dict[str, list[float]]) -> dict[str, Figure]:
    return {name: figure(values, "CPU ns/packet", LOWER) for name, values in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time of each stage of the engine, per packet of a savefile.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--frames", choices=("full", "off"), default="full", help="raw frames (full)")
    options = parser.parse_args()
    try:
        costs = stage_costs(options.file, options.frames, options.runs)
    except EngineError as error:
        raise SystemExit(f"benchmarks.stages: {error}") from None
    for part, rows in costs.items():
        print(f"CPU ns a packet by {part[:-1]}, median of {options.runs}, smallest to largest (load {load():.1f})")
        for name, cost in rows.items():
            print(f"  {name:<20} {cost['median']:8.0f}   {cost['min']:.0f} to {cost['max']:.0f}")


if __name__ == "__main__":
    main()
