"""CPU time of live capture alone, per frame: a sender in another namespace, one thread that only fills batches.

    sudo python -m benchmarks.live [BYTES] [PPS|top] [FRAMES]

Printed beside it: the same frames read from a savefile by the engine (no kernel, no copy out of the ring).
"""

from __future__ import annotations

import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.data import write_pcap
from benchmarks.decode import Ours
from benchmarks.measure import cpu_ns, load
from benchmarks.wire import Wire, usable, wire
from engine.capture.live import LiveSource
from engine.capture.source import ReadResult
from engine.config import CaptureConfig
from engine.packets import FrameBatch


def capture(wire: Wire, path: Path, rate: str, count: int) -> tuple[int, int, float, float]:
    """Returns frames, kernel drops, CPU seconds of this thread, wall seconds with traffic."""
    with wire.inside():
        source = LiveSource(wire.capture, CaptureConfig())
        source.open()
    batches = [FrameBatch() for _ in range(3)]
    for batch in batches:  # first touch of memory is not what is measured
        batch.arena[:] = 0
        batch.frames[:] = 0
    pps = "0" if rate == "top" else rate
    words = ["ip", "netns", "exec", wire.there, sys.executable, "-m", "benchmarks.sender", "--iface", wire.send,
             "--file", str(path), "--pps", pps, "--count", str(count), "--seconds", "60"]  # fmt: skip
    sender = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    poller = select.poll()
    poller.register(source.fileno(), select.POLLIN)
    frames, turn, quiet, first, last = 0, 0, 0, 0.0, 0.0
    started = time.thread_time()
    while quiet < 5:
        poller.poll(100)
        before, batch = frames, batches[turn]
        while True:
            count = batch.count
            result = source.read(batch)
            frames += batch.count - count
            if result is not ReadResult.FULL:
                break
            turn = (turn + 1) % len(batches)
            batch = batches[turn]
            batch.clear()
        if frames > before:
            last = time.monotonic()
            first = first or last
            quiet = 0
        quiet += sender.poll() is not None
    cpu = time.thread_time() - started
    drops = source.counters().kernel_drops
    source.close()
    return frames, drops, cpu, last - first


def main() -> None:
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    rate = sys.argv[2] if len(sys.argv) > 2 else "top"
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 1_000_000
    reason = usable()
    if reason:
        raise SystemExit(f"benchmarks.live {reason}")
    with tempfile.TemporaryDirectory() as folder, wire() as pair:
        path = write_pcap(Path(folder) / "frames.pcap", size, 2000)
        frames, drops, cpu, seconds = capture(pair, path, rate, count)
        long = write_pcap(Path(folder) / "long.pcap", size, 200_000 if size < 500 else 20_000)
        ours = Ours()
        from_file = cpu_ns(lambda: ours(long, decode=False))
    print(f"{size}-byte frames over veth, offered {rate} (load {load():.1f})")
    print(f"  captured {frames:,} at {frames / seconds:,.0f} a second, kernel drops {drops:,}")
    print(f"  CPU of the capture thread  {cpu / frames * 1e9:6.0f} ns a frame")
    print(f"  read from a savefile       {from_file:6.0f} ns a frame")


if __name__ == "__main__":
    main()
