"""Compile every kernel, or load it from the cache, before the first frame: compiling later would lose packets."""

from __future__ import annotations

import gc

import numpy as np

from engine.applications import Applications
from engine.capture.bpf import compile_filter
from engine.columns import Columns
from engine.config import FlowsConfig, IntelConfig
from engine.constants import LINKTYPE_ETHERNET, MAX_CAPLEN
from engine.decode import Decoder
from engine.detect.detector import Detector
from engine.detect.intel import Intel
from engine.detect.signatures.gatherer import Gatherer
from engine.flows import FlowTable
from engine.jit import cache_is_warm, mark_warm
from engine.kernels import frames as frame_records
from engine.kernels import walk
from engine.packets import N_FRAME, FrameBatch, PacketBatch
from engine.rollups import Rollups
from engine.score_stats import ScoreStats
from engine.scoring import Reservoir, Scorer

__all__ = ["cache_is_warm", "warm_up"]


def warm_up() -> None:
    """Run each kernel once on an empty batch with the array layouts of real ones."""
    frames, packets = FrameBatch(8, 4096), PacketBatch(8)
    Decoder().decode(frames, packets)
    FlowTable(FlowsConfig(max_flows=1000), lambda rows: rows.release(), Applications(), rows=8).warm_up(frames, packets)
    Detector({}, 8, rows=8, hosts=8, pairs=8, targets=8, waits=8).windows.warm_up(frames, packets)
    Gatherer(0, 8, rows=8).warm_up(frames, packets)
    Intel(IntelConfig()).warm_up(packets)
    scorer = Scorer(rows=8)
    scorer.warm_up(packets)
    Reservoir(8).warm_up(scorer.features)
    ScoreStats("", 1.0, 1, lambda _rows: None, lambda _level, _text: None).warm_up(packets, scorer.features)
    columns = Columns(8)
    columns.to_arrow(packets)
    columns.new_addresses(0)
    Rollups(8).warm_up(packets, columns.ips)
    state, limits, table = np.zeros(4, np.int64), np.zeros(2, np.int64), np.zeros((N_FRAME + 1, 0), np.int64)
    walk.walk_pcap(frames.arena, 0, 0, np.zeros(4, np.int64), 1, frames.frames, limits, state)
    walk.walk_pcapng(frames.arena, 0, 0, 0, table[: walk.N_INTERFACE_ROWS], 0, frames.frames, limits, state)
    found, out = np.zeros(1, np.int64), np.empty(64, np.uint8)
    frame_records.find_link_types(frames.arena, frames.frames, 0, packets.present, found)
    frame_records.build_records(
        frames.arena, frames.frames, 0, 0, 1, MAX_CAPLEN, 24, 0, 64, out,
        packets.long, packets.int_, packets.present, np.zeros(frame_records.N_STATE, np.int64),
    )  # fmt: skip
    frame_records.forget_records(frames.frames, 0, 0, 1, packets.present)
    program = compile_filter("ip", LINKTYPE_ETHERNET, MAX_CAPLEN)
    program.apply(frames)
    program.close()
    mark_warm()
    gc.freeze()  # what is loaded by now stays: every full collection would walk it, 0.1 s in the thread that met it
