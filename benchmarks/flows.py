"""CPU time of the flow table per packet, by the number of live flows; and the memory it comes to use.

    python -m benchmarks.flows [--json FILE]

Frames of 64 bytes, UDP, each of a flow drawn at random: no locality, the worst case for the caches. One thread, CPU
time, median of the runs; every flow exists before the clock starts. Beside it in the same run: the decoder, and a
Python dictionary that counts packets and bytes per 5-tuple, which is the least any per-packet tool does.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import udp_frame
from benchmarks.measure import load, write_json
from engine.config import FlowsConfig
from engine.decode import Decoder
from engine.flows import FlowTable
from engine.packets import F_CAPLEN, F_LINK_TYPE, F_OFFSET, F_TS_NS, F_WIRELEN, FrameBatch, PacketBatch

FLOWS = (1_000, 30_000, 1_000_000)
TARGET_NS = 150
RUNS = 5
_SIZE = 64


class Traffic:
    """Batches of frames of random flows among `flows`; addresses and ports are written over one frame."""

    def __init__(self, flows: int) -> None:
        self.flows = flows
        self.frames = FrameBatch()
        self.rows = self.frames.frames.shape[1]
        self.random = np.random.default_rng(1)
        frame = np.frombuffer(udp_frame(_SIZE, self.random), np.uint8)
        self.bytes = self.frames.arena[: self.rows * _SIZE].reshape(self.rows, _SIZE)
        self.bytes[:] = frame
        at = np.arange(self.rows) * _SIZE
        table = self.frames.frames
        table[F_OFFSET], table[F_CAPLEN], table[F_WIRELEN], table[F_LINK_TYPE] = at, _SIZE, _SIZE, 1
        self.ts = 1_700_000_000_000_000_000
        self.frames.source, self.frames.count = "generated", self.rows

    def fill(self, numbers: np.ndarray) -> FrameBatch:
        """Frames of the flows of these numbers, a microsecond apart."""
        for byte in range(3):
            self.bytes[:, 27 + byte] = numbers >> (8 * byte) & 0xFF
        self.bytes[:, 35] = numbers * 7 & 0xFF
        self.frames.frames[F_TS_NS] = self.ts + np.arange(self.rows) * 1000
        self.ts += self.rows * 1000
        return self.frames

    def every_flow(self) -> Any:
        """Batches in which each flow comes at least once."""
        for first in range(0, self.flows, self.rows):
            yield self.fill((first + np.arange(self.rows)) % self.flows)

    def at_random(self) -> FrameBatch:
        return self.fill(self.random.integers(0, self.flows, self.rows))


def measure(flows: int) -> dict[str, float]:
    """Nanoseconds of CPU per packet."""
    traffic, packets, decoder = Traffic(flows), PacketBatch(), Decoder()
    table = FlowTable(FlowsConfig(max_flows=max(1000, flows), idle_s=3600), lambda rows: rows.release())
    for frames in traffic.every_flow():
        table.follow(frames, decoder.decode(frames, packets))
    costs: dict[str, list[float]] = {"decode_ns": [], "flow_ns": []}
    for _ in range(RUNS):
        spent = {"decode_ns": 0.0, "flow_ns": 0.0}
        for _ in range(8):
            frames = traffic.at_random()
            began = time.process_time_ns()
            decoder.decode(frames, packets)
            decoded = time.process_time_ns()
            table.follow(frames, packets)
            spent["decode_ns"] += decoded - began
            spent["flow_ns"] += time.process_time_ns() - decoded
        for key, ns in spent.items():
            costs[key].append(ns / 8 / traffic.rows)
    if table.live != flows:
        raise SystemExit(f"{table.live} flows live, {flows} expected")
    figures = {key: statistics.median(values) for key, values in costs.items()}
    figures["dictionary_ns"] = dictionary(packets)
    figures["bound_mib"] = table.bound_bytes / 2**20
    return figures


def dictionary(packets: PacketBatch) -> float:
    """The same rows, already parsed, counted in a dictionary: no timeouts, no directions."""
    columns = zip(
        packets.address[1].tolist(), packets.address[3].tolist(), packets.int_[2].tolist(), packets.int_[3].tolist(),
        packets.long[2].tolist(), strict=True,
    )  # fmt: skip
    rows = list(columns)
    flows: dict[tuple[int, ...], list[int]] = {}
    began = time.process_time_ns()
    for row in rows:
        counts = flows.setdefault(row[:4], [0, 0])
        counts[0] += 1
        counts[1] += row[4]
    return (time.process_time_ns() - began) / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time of the flow table per packet.")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    print(f"64-byte frames, CPU ns a packet (goal for the flow table {TARGET_NS} at 1,000,000 flows)")
    for flows in FLOWS:
        row = figures[str(flows)] = measure(flows)
        print(
            f"  {flows:>9,} flows: flow table {row['flow_ns']:6.0f}   decoder {row['decode_ns']:6.0f}   "
            f"Python dictionary {row['dictionary_ns']:6.0f}   table bounded to {row['bound_mib']:.0f} MiB   "
            f"load {load():.1f}"
        )
    figures["peak_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  peak resident memory of this process {figures['peak_rss_mib']:.0f} MiB")
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    main()
