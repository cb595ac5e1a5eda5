"""The whole engine over a savefile: `engine replay` into a lake on disk, as a user starts it.

CPU is that of the whole process, without what a replay of one packet takes (starting, loading kernels, stopping), and
without processes that it starts (training a forest, which depends on the run and not on its packets): those are a
figure of their own.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.data import copy_capture
from benchmarks.measure import HIGHER, LOWER, Cost, figure, run, tree_bytes
from engine.errors import StoreError

ENGINE: tuple[str | Path, ...] = (sys.executable, "-m", "engine")
_SUMMARY = re.compile(r"([\d,]+) packets, ([\d,]+) bytes on the wire in [\d.]+ s: ([\d,]+) packets/s")
_COMPILED = "kernels compiled in"
_RAW = "frames"  # the folder of raw frames within a lake


def start_cpu_s(folder: Path, capture: Path, runs: int = 3) -> list[float]:
    """CPU seconds of a replay of the first packet of a capture."""
    one = folder / "one.pcap"
    copy_capture(capture, one, 1)
    costs = [_replay(one, "off")[0] for _ in range(runs)]
    return [cost.cpu_s - cost.helpers_cpu_s for cost in costs]


def _replay(capture: Path, frames: str) -> tuple[Cost, dict[str, int]]:
    """One replay into a new lake. Returns its cost and the bytes on disk, by table."""
    with tempfile.TemporaryDirectory(prefix="packetlake-bench-") as name:
        Path(name).chmod(0o755)  # a root that gives up its rights still reads it
        lake = Path(name) / "lake"
        # No raw frame is thrown away, whatever the size of the capture.
        limit = max(1024, 4 * capture.stat().st_size >> 20)
        words = [*ENGINE, "replay", capture, "--lake", lake, "--frames", frames, "--frames-limit", str(limit)]
        cost = run(words, timeout_s=3600)
        if not cost.code and _COMPILED in cost.err:  # that is no part of a replay, and is done now
            shutil.rmtree(lake)
            cost = run(words, timeout_s=3600)
        if cost.code:
            raise StoreError(
                f"benchmark: engine replay {capture} ended with code {cost.code}: {cost.err.strip()[-300:]}"
            )
        return cost, {path.name: tree_bytes(path) for path in lake.iterdir() if path.is_dir()}


def replay_figures(capture: Path, frames: str, start_s: float, runs: int = 5) -> dict[str, Any]:
    """Rates, memory and disk of whole replays; `start_s` is the CPU that starting takes."""
    taken: dict[str, list[float]] = {name: [] for name in _UNITS}
    tables: dict[str, int] = {}
    packets = 0
    for _ in range(runs):
        cost, tables = _replay(capture, frames)
        found = _SUMMARY.search(cost.err)
        assert found is not None, cost.err
        packets, volume, pps = (int(text.replace(",", "")) for text in found.groups())
        cpu_s = max(cost.cpu_s - cost.helpers_cpu_s - start_s, 1e-9)
        taken["helpers_cpu_s"].append(cost.helpers_cpu_s)
        taken["cpu_ns_per_packet"].append(cpu_s / packets * 1e9)
        taken["packets_per_cpu_s"].append(packets / cpu_s)
        taken["packets_per_s"].append(pps)
        taken["gbit_per_s"].append(pps / packets * volume * 8 / 1e9)
        taken["rss_mib"].append(cost.rss_bytes / 2**20)
        taken["lost"].append(sum(map(int, re.findall(r"(?:kernel|stop|written|shed) (\d+)", cost.err))))
        rows = sum(size for name, size in tables.items() if name != _RAW)
        taken["lake_bytes_per_packet"].append(rows / packets)
        taken["frames_bytes_per_packet"].append(tables.get(_RAW, 0) / packets)
    figures: dict[str, Any] = {name: figure(values, *_UNITS[name]) for name, values in taken.items()}
    return figures | {"packets": packets, "bytes_by_table": dict(sorted(tables.items()))}


_UNITS = {
    "packets_per_cpu_s": ("packets/CPU s", HIGHER),
    "cpu_ns_per_packet": ("CPU ns/packet", LOWER),
    "helpers_cpu_s": ("CPU s", LOWER),
    "packets_per_s": ("packets/s", HIGHER),
    "gbit_per_s": ("Gbit/s", HIGHER),
    "lost": ("packets", LOWER),
    "rss_mib": ("MiB", LOWER),
    "lake_bytes_per_packet": ("bytes/packet", LOWER),
    "frames_bytes_per_packet": ("bytes/packet", LOWER),
}


def free_bytes() -> int:
    """Room where lakes of benchmarks go."""
    return shutil.disk_usage(tempfile.gettempdir()).free
