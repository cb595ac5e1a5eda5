"""CPU time of windows and rules per packet, by the number of active hosts; and memory under forged sources.

    python -m benchmarks.windows [--json FILE]

Frames of 64 bytes, UDP, each of a flow drawn at random among as many as there are sources, to 256 servers; a million
packets a second of the packets' clock would hide what ticks cost, so it runs at 100,000. One thread, CPU time, median
of the runs, beside the flow table in the same run. Then a million forged sources flood one of them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import udp_frame
from benchmarks.measure import load, write_json
from engine.config import FlowsConfig
from engine.decode import Decoder
from engine.detect.detector import Detector
from engine.flows import FlowTable
from engine.packets import F_CAPLEN, F_LINK_TYPE, F_OFFSET, F_TS_NS, F_WIRELEN, FrameBatch, PacketBatch

SOURCES = (100, 10_000, 60_000)
TARGET_NS = 400
PACKETS_PER_S = 100_000
RUNS = 7
_SIZE = 64


class Traffic:
    """Batches of frames: the number of a source is written into its address, that of its server into the other."""

    def __init__(self) -> None:
        self.frames = FrameBatch()
        self.rows = self.frames.frames.shape[1]
        self.random = np.random.default_rng(1)
        self.bytes = self.frames.arena[: self.rows * _SIZE].reshape(self.rows, _SIZE)
        self.bytes[:] = np.frombuffer(udp_frame(_SIZE, self.random), np.uint8)
        table = self.frames.frames
        at = np.arange(self.rows) * _SIZE
        table[F_OFFSET], table[F_CAPLEN], table[F_WIRELEN], table[F_LINK_TYPE] = at, _SIZE, _SIZE, 1
        self.ts = 1_700_000_000_000_000_000
        self.frames.source, self.frames.count = "generated", self.rows

    def fill(self, sources: np.ndarray, servers: np.ndarray) -> FrameBatch:
        """Half of the packets are the servers' answers, so that the flows are answered ones."""
        back = np.arange(self.rows) % 2 == 1
        sources[1::2], servers[1::2] = sources[: len(back) // 2 * 2 : 2], servers[: len(back) // 2 * 2 : 2]
        one, other = np.full((self.rows, 6), 10, np.uint8), np.full((self.rows, 6), 172, np.uint8)
        for byte in range(3):
            one[:, 1 + byte] = sources >> (8 * (2 - byte)) & 0xFF
        one[:, 4], one[:, 5] = 0x9C, 0x40
        other[:, 1], other[:, 2], other[:, 3], other[:, 4], other[:, 5] = 16, 0, servers, 0x1F, 0x90
        first, second = np.where(back[:, None], other, one), np.where(back[:, None], one, other)
        self.bytes[:, 26:30], self.bytes[:, 30:34] = first[:, :4], second[:, :4]
        self.bytes[:, 34:36], self.bytes[:, 36:38] = first[:, 4:], second[:, 4:]
        step = 1_000_000_000 // PACKETS_PER_S
        self.frames.frames[F_TS_NS] = self.ts + np.arange(self.rows) * step
        self.ts += self.rows * step
        return self.frames

    def at_random(self, sources: int) -> FrameBatch:
        numbers = self.random.integers(0, sources, self.rows)
        return self.fill(numbers, numbers % 251)


def measure(sources: int) -> dict[str, float]:
    """Nanoseconds of CPU per packet."""
    traffic, packets, decoder = Traffic(), PacketBatch(), Decoder()
    table = FlowTable(FlowsConfig(max_flows=200_000), lambda rows: rows.release())
    detector = Detector({}, len(table.records), lambda rows: None)
    costs: dict[str, list[float]] = {"flow_ns": [], "windows_ns": []}
    for run in range(RUNS + 2):
        spent = [0, 0]
        for _ in range(16):
            frames = traffic.at_random(sources)
            decoder.decode(frames, packets)
            began = time.process_time_ns()
            table.follow(frames, packets)
            half = time.process_time_ns()
            detector.take(frames, packets, table)
            spent[0] += half - began
            spent[1] += time.process_time_ns() - half
        if run >= 2:
            for name, ns in zip(costs, spent, strict=True):
                costs[name].append(ns / (16 * traffic.rows))
    return {
        "sources": sources, **{name: round(statistics.median(values), 1) for name, values in costs.items()},
        "windows_best_ns": round(min(costs["windows_ns"]), 1), "windows_worst_ns": round(max(costs["windows_ns"]), 1),
    }  # fmt: skip


def flood(sources: int = 1_000_000) -> dict[str, Any]:
    """As many forged sources, each with one packet, to one victim."""
    traffic, packets, decoder = Traffic(), PacketBatch(), Decoder()
    table = FlowTable(FlowsConfig(max_flows=200_000), lambda rows: rows.release())
    detector = Detector({}, len(table.records), lambda rows: None)
    found, spent, sent = [], 0, 0
    while sent < sources:
        frames = traffic.fill(np.arange(sent, sent + traffic.rows), np.zeros(traffic.rows, np.int64))
        frames.frames[F_TS_NS] -= frames.frames[F_TS_NS, 0] - traffic.ts
        traffic.bytes[1::2] = traffic.bytes[::2]
        traffic.bytes[1::2, 27] |= 0x80
        decoder.decode(frames, packets)
        table.follow(frames, packets)
        began = time.process_time_ns()
        found += detector.take(frames, packets, table)
        spent += time.process_time_ns() - began
        sent += traffic.rows
    return {
        "forged_sources": sent, "keys": sorted({(f.kind, f.src_ip or "", f.dst_ip or "") for f in found}),
        "findings": len(found), "windows_ns": round(spent / sent, 1),
        "bound_mbytes": round(detector.windows.bound_bytes / 1e6), "evicted": detector.windows.evicted,
    }  # fmt: skip


def main() -> None:
    """Print, and write JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    results: dict[str, Any] = {"load": load(), "target_ns": TARGET_NS, "windows": []}
    for sources in SOURCES:
        results["windows"].append(measure(sources))
        print(results["windows"][-1])
    results["flood"] = flood()
    print(results["flood"])
    if given.json:
        write_json(given.json, results)


if __name__ == "__main__":
    main()
