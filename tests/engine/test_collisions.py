"""Addresses chosen to meet in one place of a hash table cost what others cost: multipliers are drawn at each start."""

from __future__ import annotations

import struct
import time

import numpy as np

from engine.columns import Columns
from engine.config import FlowsConfig
from engine.decode import Decoder
from engine.detect.detector import Detector
from engine.flows import FlowTable
from engine.packets import ROWS_PER_BATCH, FrameBatch, PacketBatch
from engine.rollups import Rollups
from tests.builders import ethernet, fill, ipv6, udp

_GOLDEN = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1


def batch(aimed: bool) -> FrameBatch:
    """A frame for each row, of two addresses no other has. Aimed: high word ^ low word * the golden ratio is the same
    for all, which an unkeyed multiplicative hash maps to one slot."""
    rng = np.random.default_rng(5)
    lows = rng.integers(1, 1 << 62, 2 * ROWS_PER_BATCH, np.int64).tolist()
    if aimed:
        highs = [(low * _GOLDEN & _WORD) ^ 0x20010DB800000000 for low in lows]
    else:
        highs = rng.integers(1, 1 << 62, len(lows), np.int64).tolist()
    addresses = [struct.pack(">QQ", high, low) for high, low in zip(highs, lows, strict=True)]
    frames = fill(
        [ethernet(ipv6(udp(b"x"), src=addresses[i], dst=addresses[i + 1]), 0x86DD) for i in range(0, len(addresses), 2)]
    )
    frames.source = "test"
    return frames


def cpu_s(frames: FrameBatch) -> float:
    """Of everything that keeps addresses: dictionaries, rollups, flows and windows."""
    packets, columns, rollups = PacketBatch(), Columns(), Rollups()
    table = FlowTable(FlowsConfig(max_flows=100_000), lambda rows: rows.release())
    detector = Detector({}, len(table.records), lambda rows: None)
    Decoder().decode(frames, packets)
    began = time.thread_time()
    table.follow(frames, packets)
    detector.take(frames, packets, table)
    columns.to_arrow(packets)
    rollups.take(packets, columns.ips)
    took = time.thread_time() - began
    table.close()
    detector.close()
    return took


def test_addresses__aimed_at_one_slot_cost_what_others_cost() -> None:
    usual, aimed = batch(False), batch(True)
    cpu_s(usual)
    costs = [(cpu_s(usual), cpu_s(aimed)) for _ in range(3)]
    assert min(b for _, b in costs) < 10 * max(a for a, _ in costs)
