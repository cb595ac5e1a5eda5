"""Other tools over the same captures: packets per CPU second, and how that compares with ours in the same run.

    python -m benchmarks.peers FILE [--python PATH]...

Each gets the first frames of the capture, as many as it can do in seconds; starting it (a run over one packet) does not
count. What a tool does differs, so each says what: some only read, some count flows, none keeps what we keep.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.data import copy_capture
from benchmarks.decode import dpkt_parse, pypcap_loop
from benchmarks.measure import HIGHER, figure, load, run

_FIELDS = ("frame.time_epoch", "frame.len", "eth.src", "eth.dst", "ip.src", "ip.dst", "ip.proto", "tcp.srcport",
           "tcp.dstport", "udp.srcport", "udp.dstport", "tcp.flags")  # fmt: skip
_SCAPY = """
import sys
from scapy.utils import PcapReader
from scapy.layers import l2, inet, inet6
n = 0
for packet in PcapReader(sys.argv[1]):
    for layer in (inet.IP, inet6.IPv6, inet.TCP, inet.UDP):
        if layer in packet:
            packet[layer].fields
    n += 1
print(n)
"""
# What PacketLake grew from did this for each packet, in the callback of a sniffer.
_SEED = """
import math, sys
from collections import Counter
from scapy.sendrecv import sniff
from scapy.packet import Raw
from scapy.layers import l2, inet, inet6
rows = []
def take(packet):
    if inet.IP not in packet:
        return
    kind = next((k for k in (inet.TCP, inet.UDP, inet.ICMP) if k in packet), None)
    payload = bytes(packet[Raw].load) if Raw in packet else b""
    counts, n = Counter(payload), len(payload)
    rows.append({
        "time": float(packet.time), "src": packet[inet.IP].src, "dst": packet[inet.IP].dst,
        "protocol": kind.__name__ if kind else "other", "size": len(packet), "payload_length": n,
        "src_port": getattr(packet.payload.payload, "sport", None),
        "dst_port": getattr(packet.payload.payload, "dport", None),
        "entropy": -sum(c / n * math.log2(c / n) for c in counts.values()),
        "preview": "".join(chr(b) if 32 <= b < 127 else "." for b in payload[:64]),
    })
sniff(offline=sys.argv[1], prn=take, store=False)
print(len(rows))
"""
_NFSTREAM = """
import sys
from nfstream import NFStreamer
if __name__ == "__main__":
    print(sum(1 for _ in NFStreamer(source=sys.argv[1], n_meters=1, statistical_analysis=True)))
"""
_LEAST_FRAMES = 20_000
_LEAST_S = 0.01  # of CPU: less cannot be told from what starting takes
Words = Callable[[Path, Path], Sequence[str | Path]]  # of a capture and a folder to write to


@dataclass(frozen=True, slots=True)
class Tool:
    """A command to run on a capture."""

    name: str
    does: str
    frames: int  # at most, to be done in a few seconds
    words: Words
    python: str = ""  # the module that an interpreter must have for it


# Ours as a meter of flows, which is what several of them are.
_FLOWS_ONLY = ("--no-packets", "--frames", "off", "--no-applications", "--no-detection")
TOOLS = (
    Tool("packetlake, flows only", "bidirectional flows with entropy, outcome, round trip; rollups; Parquet", 2_000_000,
         lambda p, f: [sys.executable, "-m", "engine", "replay", p, "--lake", f / "lake", *_FLOWS_ONLY]),
    Tool("tcpdump -w /dev/null", "reads and copies", 1_000_000, lambda p, _: ["tcpdump", "-r", p, "-w", "/dev/null"]),
    Tool("tshark", "dissects, 12 fields as text", 10_000, lambda p, _: [
        "tshark", "-n", "-r", p, "-T", "fields", *(word for name in _FIELDS for word in ("-e", name))]),
    Tool("softflowd", "unidirectional flows, not stored", 300_000, lambda p, f: [
        "softflowd", "-r", p, "-p", f / "softflowd.pid", "-c", "none"]),
    Tool("nfpcapd", "unidirectional flows to its own files", 200_000, lambda p, f: ["nfpcapd", "-r", p, "-w", f]),
    Tool("argus", "bidirectional flows to /dev/null", 200_000, lambda p, _: ["argus", "-r", p, "-w", "/dev/null"]),
    Tool("nfstream", "flows, statistics, nDPI applications", 100_000, lambda p, _: ["-c", _NFSTREAM, p], "nfstream"),
    Tool("scapy", "parses to transport", 2_000, lambda p, _: ["-c", _SCAPY, p], "scapy"),
    Tool("scapy, the seed's way", "six fields, entropy, preview", 2_000, lambda p, _: ["-c", _SEED, p], "scapy"),
)  # fmt: skip


def _cut(capture: Path, folder: Path, frames: int) -> tuple[Path, int]:
    path = folder / f"{frames}.pcap"
    count, _, _ = copy_capture(capture, path, frames)
    return path, count


def _command(tool: Tool, pythons: Sequence[str]) -> list[str] | str:
    """How to begin its words, or why it is not here."""
    if tool.python:
        for python in pythons:
            probe = [python, "-c", f"import {tool.python}"]
            if shutil.which(python) and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
                return [python]
        return f"no interpreter given has {tool.python}"
    name = str(tool.words(Path(), Path())[0])
    return [] if shutil.which(name) else f"{name} is not installed"


def _cpu_s(begin: Sequence[str], tool: Tool, path: Path) -> float:
    with tempfile.TemporaryDirectory(prefix="packetlake-bench-") as folder:
        cost = run([*begin, *tool.words(path, Path(folder))], timeout_s=120)
    if cost.code:
        raise RuntimeError(f"ended with code {cost.code}: {cost.err.strip()[-120:]}")
    return cost.cpu_s


def _measure_tool(tool: Tool, capture: Path, folder: Path, pythons: Sequence[str], runs: int, scale: float) -> Any:
    begin = _command(tool, pythons)
    if isinstance(begin, str):
        return {"skipped": begin}
    path, count = _cut(capture, folder, max(min(tool.frames, _LEAST_FRAMES), int(tool.frames * scale)))
    one, _ = _cut(capture, folder, 1)
    try:
        start = statistics.median(_cpu_s(begin, tool, one) for _ in range(3))
        costs = [_cpu_s(begin, tool, path) - start for _ in range(runs)]
    except RuntimeError as error:
        return {"skipped": str(error)}
    if min(costs) < _LEAST_S:
        return {"skipped": f"{count:,} packets take it less time than starting varies by"}
    return _row(tool.does, count, costs)


def _measure_here(
    work: Callable[[Path, int], object], does: str, frames: int, capture: Path, folder: Path, runs: int
) -> Any:
    """A library, in this process."""
    path, count = _cut(capture, folder, frames)
    costs = []
    for number in range(runs + 1):
        began = time.process_time()
        try:
            work(path, count if number else 1)  # the first time it imports
        except Exception as error:  # noqa: BLE001 — whatever a library raises on a user's capture
            return {"skipped": f"{type(error).__name__}: {error}"}
        costs.append(time.process_time() - began)
    del costs[0]
    return _row(does, count, costs)


def _row(does: str, count: int, costs_s: Sequence[float]) -> dict[str, Any]:
    values = figure([count / cost for cost in costs_s], "packets/CPU s", HIGHER)
    return {"does": does, "packets": count, "packets_per_cpu_s": values}


def measure_peers(capture: Path, pythons: Sequence[str], runs: int = 3, scale: float = 1.0) -> dict[str, Any]:
    """Every peer that is here; the others say why not. `scale` shrinks what each gets."""
    pythons = (*pythons, sys.executable)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="packetlake-bench-") as name:
        folder = Path(name)
        here = (
            ("dpkt", dpkt_parse, "parses to transport", 20_000),
            ("dpkt with entropy", lambda p, n: dpkt_parse(p, n, entropy=True), "and entropy by numpy", 10_000),
            ("pypcap API, bare loop", pypcap_loop, "reads only", 20_000),
        )
        for title, work, does, frames in here:
            found[title] = _measure_here(work, does, max(1000, int(frames * scale)), capture, folder, runs)
        for tool in TOOLS:
            found[tool.name] = _measure_tool(tool, capture, folder, pythons, runs, scale)
    return found


def add_ratios(found: dict[str, Any], ours: dict[str, float]) -> None:
    """Our packets per CPU second over each peer's; `ours` by the name of what we did."""
    for row in found.values():
        if "packets_per_cpu_s" in row:
            peer = row["packets_per_cpu_s"]["median"]
            row["ours_to_it"] = {name: figure([rate / peer], "times", HIGHER) for name, rate in ours.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Other tools over a capture: packets per CPU second.")
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--python", action="append", default=[], metavar="PATH", help="interpreter with nfstream, scapy"
    )
    options = parser.parse_args()
    print(f"packets per CPU second, median of 3 (load {load():.1f})")
    for name, row in measure_peers(options.file, options.python).items():
        if "skipped" in row:
            print(f"  {name:<24} skipped: {row['skipped']}")
        else:
            rate = row["packets_per_cpu_s"]["median"]
            print(f"  {name:<24} {rate:>12,.0f}   {row['does']} ({row['packets']:,} packets)")


if __name__ == "__main__":
    main()
