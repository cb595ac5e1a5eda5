"""Does a packet cost the same after an hour? A savefile over and over, its clock going on, through the whole engine.

    python -m benchmarks.steady [FILE] [--minutes 60] [--frames full|off]

Every repetition is later than the one before it, so flows end, windows close, models are trained again and segments
are published as in a capture of that length. Without FILE: the made-up sessions, 2,500 packets a second of their own
clock. Printed for each stretch of that clock: CPU ns a packet (reading, which this stream does itself, taken off) and
resident memory. The last line compares the second half with the first, without the first stretch (start) and the
last (every flow ends).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.data import write_sessions
from benchmarks.measure import load
from engine import warmup
from engine.capture.pacing import Pace
from engine.capture.savefile import SavefileSource
from engine.config import EngineConfig
from engine.pipeline import Pipeline
from engine.writer import init_lake

_HEAD, _RECORD = 24, 16
_STRETCHES = 12


class Repeated:
    """A `ByteStream` of a plain little-endian pcap with microseconds, repeated for `seconds` of its clock."""

    def __init__(self, path: Path, seconds: float) -> None:
        data = np.fromfile(path, np.uint8)
        self._head, self._records = data[:_HEAD], data[_HEAD:].copy()
        self._at = _offsets(self._records)
        words = self._records[self._at[:, None] + np.arange(8)].view("<u4").astype(np.int64)
        self._times = words[:, 0] * 1_000_000 + words[:, 1]
        self.span_us = int(self._times[-1] - self._times[0]) + 1
        self._left = max(1, round(seconds * 1e6 / self.span_us))
        self.packets = self._left * len(self._at)
        self.cpu_ns = 0
        self._buffer, self._read = self._head, 0
        self._shift = 0

    def readinto(self, target: memoryview) -> int:
        began = time.thread_time_ns()
        if self._read == len(self._buffer):
            if self._left == 0:
                return 0
            self._left -= 1
            times = self._times + self._shift
            words = np.stack((times // 1_000_000, times % 1_000_000), axis=1).astype("<u4")
            self._records[self._at[:, None] + np.arange(8)] = words.view(np.uint8)
            self._shift += self.span_us
            self._buffer, self._read = self._records, 0
        n = min(len(target), len(self._buffer) - self._read)
        target[:n] = memoryview(self._buffer[self._read : self._read + n])  # type: ignore[arg-type]
        self._read += n
        self.cpu_ns += time.thread_time_ns() - began
        return n

    def close(self) -> None:
        """Nothing to give back."""


def _offsets(records: np.ndarray) -> np.ndarray:
    lengths = records.tobytes()
    found, at = [], 0
    while at + _RECORD <= len(lengths):
        found.append(at)
        at += _RECORD + int.from_bytes(lengths[at + 8 : at + 12], "little")
    return np.asarray(found)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(path: Path, minutes: float, frames: str) -> list[tuple[float, float, int]]:
    """(minutes of the capture's clock, CPU ns a packet, resident bytes) of each stretch, through a throw-away lake."""
    warmup.warm_up()
    stream = Repeated(path, minutes * 60)
    config = EngineConfig().override("frames", mode=frames)
    found = []
    with tempfile.TemporaryDirectory(prefix="packetlake-bench-") as folder:
        lake = Path(folder) / "lake"
        init_lake(lake)
        pipeline = Pipeline(lake, config, lambda kind, text: print(f"  {kind}: {text}"))
        step = stream.packets // _STRETCHES
        before_ns, before = time.process_time_ns(), 0
        pipeline.start_replay([SavefileSource("steady", stream=stream)], Pace("max"))
        ended = False
        while not ended:
            ended = pipeline.wait(0.05)
            rows = sum(totals.rows for totals in pipeline.totals.values())
            if rows - before >= step or ended:
                now = time.process_time_ns() - stream.cpu_ns
                if rows > before + step // 4:  # the last may be a few rows
                    clock = rows / stream.packets * minutes
                    found.append((clock, (now - before_ns) / (rows - before), _resident()))
                    print(f"  {clock:6.1f} min  {found[-1][1]:7.0f} ns/packet  {found[-1][2] >> 20} MiB", flush=True)
                before_ns, before = now, rows
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU and memory per packet over an hour of a capture's clock.")
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--frames", choices=("full", "off"), default="off")
    options = parser.parse_args()
    print(f"whole engine, {options.minutes:.0f} minutes of the capture's clock, load {load():.1f}")
    with tempfile.TemporaryDirectory(prefix="packetlake-bench-") as folder:
        path = options.file or write_sessions(Path(folder) / "sessions.pcap", 450_000, 2_500)
        found = measure(path, options.minutes, options.frames)[1:-1]
    half = len(found) // 2
    early, late = (float(np.median([ns for _, ns, _ in part])) for part in (found[:half], found[half:]))
    print(f"second half against the first: {late:.0f} / {early:.0f} ns = {late / early - 1:+.1%}")


if __name__ == "__main__":
    main()
