"""How long starting takes, kernels compiled before: `engine --help`, a replay of one packet, and until capture runs.

    [sudo] python -m benchmarks.startup

Wall time and CPU time, medians of five; the reference is the bare interpreter. Capturing (on lo) needs root.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.data import write_pcap
from benchmarks.measure import load, run


def cost(words: list[str]) -> tuple[float, float]:
    """Median (wall, CPU) seconds of a command."""
    costs = [run(words) for _ in range(5)]
    if any(cost.code for cost in costs):
        raise SystemExit(f"{' '.join(words)}: {costs[0].err}")
    return statistics.median(cost.wall_s for cost in costs), statistics.median(cost.cpu_s for cost in costs)


def until_capturing(words: list[str]) -> float:
    """Median wall seconds from the start of `engine run` to its word that it captures."""
    walls = []
    for _ in range(5):
        started = time.monotonic()
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if line.startswith("capturing on"):
                    walls.append(time.monotonic() - started)
                    break
            process.terminate()
            process.stderr.read()
    return statistics.median(walls)


def main() -> None:
    engine = [sys.executable, "-m", "engine"]
    with tempfile.TemporaryDirectory() as folder:
        path = write_pcap(Path(folder) / "one.pcap", 64, 1)
        replay = [*engine, "replay", str(path), "--lake", folder + "/lake"]
        subprocess.run(replay, capture_output=True, check=True)  # compiles when nothing was
        print(f"seconds, wall and CPU (load {load():.1f})")
        for name, words in (
            ("python -c pass", [sys.executable, "-c", "pass"]),
            ("engine --help", [*engine, "--help"]),
            ("engine replay of one packet, start to end", replay),
        ):
            wall, cpu = cost(words)
            print(f"  {name:<44} {wall:5.2f}  {cpu:5.2f}")
        if os.geteuid() == 0:
            run = [*engine, "run", "--iface", "lo", "--lake", folder + "/live", "--port", "0"]
            print(f"  {'engine run with dashboard, until it captures':<44} {until_capturing(run):5.2f}")


if __name__ == "__main__":
    main()
