"""Flows of the real captures: totals equal the packets', however the stream is cut; Community ID as published."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from engine import packets as k
from engine.applications import Applications
from engine.config import FlowsConfig
from engine.errors import CorruptFile
from engine.flows import FlowRows, FlowTable
from engine.packets import FrameBatch, PacketBatch
from tests.builders import decoder
from tests.dissecting import dissect
from tests.flowing import Run, batches, plain

CORPUS = Path(__file__).parents[3] / "shared" / "corpus"
pytestmark = [pytest.mark.corpus, pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no captures at {CORPUS}")]
CAPTURES = sorted((CORPUS / "captures").glob("*")) if CORPUS.is_dir() else []
# Short enough that timeouts happen in many captures.
CONFIG = FlowsConfig(idle_s=20, active_s=30, linger_s=1, max_flows=2000)


class Flows:
    """One flow table for all captures, as the engine has one for all files; parsers run too."""

    def __init__(self) -> None:
        self.applications = Applications()
        self.table = FlowTable(CONFIG, self._keep, self.applications, first_id=1)
        self.packets, self.part = PacketBatch(), FrameBatch(arena_bytes=0)
        self.rows: list[pa.RecordBatch] = []

    def _keep(self, rows: FlowRows) -> None:
        self.rows.append(plain(rows.to_arrow()))
        rows.release()

    def read(self, path: Path, cuts: random.Random | None) -> tuple[pa.Table, np.ndarray]:
        """(the rows of its flows, int64[n, 4] of each packet in a flow: flow, wirelen, payload, application)."""
        self.rows, seen = [], []
        for frames in batches(path):
            first = 0
            while first < frames.count:
                stop = frames.count if cuts is None else min(frames.count, first + cuts.choice([1, 2, 7, 100, 3000]))
                seen.append(self._follow(frames, first, stop))
                first = stop
        self.table.end_source("file")
        rows = pa.Table.from_batches(self.rows, schema=self.rows[0].schema) if self.rows else pa.table({})
        return rows, np.concatenate(seen) if seen else np.zeros((0, 4), np.int64)

    def _follow(self, frames: FrameBatch, first: int, stop: int) -> np.ndarray:
        part, p = self.part, self.packets
        part.arena, part.count, part.source = frames.arena, stop - first, "file"
        part.frames[:, : part.count] = frames.frames[:, first:stop]
        decoder()[0].decode(part, p)
        self.table.follow(part, p)
        rows = np.flatnonzero(p.present[: p.count] & k.HAS_FLOW)
        assert (p.present[rows] & k.HAS_IP).all()
        inner = p.present[rows] & (k.HAS_INNER_IP) != 0
        has = np.where(inner, p.present[rows] & k.HAS_INNER_PAYLOAD, p.present[rows] & k.HAS_PAYLOAD) != 0
        payload = np.where(inner, p.long[k.L_INNER_PAYLOAD_LEN, rows], p.long[k.L_PAYLOAD_LEN, rows])
        app = np.where(p.present[rows] & k.HAS_APP != 0, p.short[k.S_APP, rows], 0)
        columns = p.long[k.L_FLOW_ID, rows], p.long[k.L_WIRELEN, rows], np.where(has, payload, 0), app
        return np.stack(columns, axis=1).astype(np.int64)


def totals(packets: np.ndarray) -> dict[int, tuple[int, int, int]]:
    """Packets, bytes and payload by flow."""
    out: dict[int, tuple[int, int, int]] = {}
    for flow_id in np.unique(packets[:, 0]):
        of_flow = packets[packets[:, 0] == flow_id]
        out[int(flow_id)] = len(of_flow), int(of_flow[:, 1].sum()), int(of_flow[:, 2].sum())
    return out


def added(rows: pa.Table) -> dict[int, tuple[int, int, int]]:
    """The same from the flows' rows."""
    out: dict[int, tuple[int, int, int]] = {}
    names = [f"{side}_{what}" for what in ("packets", "bytes", "payload") for side in ("src", "dst")]
    if rows.num_rows:
        for flow_id, *counts in zip(*(rows[name].to_pylist() for name in ("flow_id", *names)), strict=True):
            before = out.get(flow_id, (0, 0, 0))
            out[flow_id] = tuple(before[n] + counts[2 * n] + counts[2 * n + 1] for n in range(3))  # type: ignore[assignment]
    return out


def without_ids(rows: pa.Table, first: int) -> list[dict[str, Any]]:
    """Rows in order, flow numbers counted from the capture's first."""
    ordered = sorted(rows.to_pylist(), key=lambda f: (f["flow_id"], f["part"]))
    return [{name: repr(v) for name, v in (f | {"flow_id": f["flow_id"] - first}).items()} for f in ordered]


@pytest.mark.timeout(900)
def test_corpus__flows_add_up_to_the_packets_however_they_are_cut() -> None:
    flows, chance = Flows(), random.Random(1)
    packets_seen = flows_seen = 0
    for path in CAPTURES:
        whole, packets = flows.read(path, None)
        messages = flows.applications.take_rows()
        cut, packets_cut = flows.read(path, chance)
        messages_cut = flows.applications.take_rows()
        assert added(whole) == totals(packets), path.name
        assert added(cut) == totals(packets_cut), path.name
        if not len(packets):
            continue
        first, first_cut = packets[0, 0], packets_cut[0, 0]
        assert without_ids(whole, first) == without_ids(cut, first_cut), path.name
        assert (packets[:, 1:] == packets_cut[:, 1:]).all(), path.name
        assert {t: len(r) for t, r in messages.items()} == {t: len(r) for t, r in messages_cut.items()}, path.name
        packets_seen += len(packets)
        flows_seen += len(totals(packets))
    print(f"{packets_seen:,} packets in {flows_seen:,} flows; messages {flows.applications.take_counts()}")
    assert packets_seen > 250_000


def test_corpus__community_id_equals_the_published_baseline() -> None:
    """For every packet: the baseline names what it computed from addresses, and ports or ICMP type."""
    baseline = json.loads((CORPUS / "expected" / "community-id.baseline_deflt.json").read_text())
    published = {(x["proto"], x["saddr"], x["daddr"], x["sport"], x["dport"]): x["communityid"] for x in baseline}
    path = CORPUS / "captures" / "community-id-spec--combined.pcap.gz"
    run = Run()
    for frames in batches(path):
        run.take(frames, PacketBatch())
    run.close()
    ours = {f["flow_id"]: f["community_id"] for f in run.flows}
    compared = set()
    for p in run.packets:
        ports = (p["src_port"], p["dst_port"])
        keys = [
            key for key in published
            if key[:3] == (p["proto"], p["src_ip"], p["dst_ip"])
            and (key[3:] == ports or key[3] == p["icmp_type"] or key[3] is None)
        ]  # fmt: skip
        if p["flow_id"] is not None:
            assert len(keys) == 1, p
            assert ours[p["flow_id"]] == published[keys[0]]
            compared.update(keys)
    assert compared == set(published)


@pytest.mark.timeout(600)
def test_corpus__stage_and_kernel_find_what_the_plain_driver_finds() -> None:
    """The patterns, the taps and the parsers' rows, for one capture in two."""
    flows = Flows()
    flows.table._limits[:3] = 1 << 62  # the plain driver knows no timeouts
    rows = 0
    for path in CAPTURES[::2]:
        if path.stat().st_size > 300_000:
            continue
        flows.read(path, None)
        ours = {t: sorted(_comparable(r) for r in rows) for t, rows in flows.applications.take_rows().items()}
        try:
            plain_rows, _ = dissect(path)
        except CorruptFile:  # refused: then there is nothing to compare
            assert not ours
            continue
        theirs = {t: sorted(_comparable(r) for r in rows) for t, rows in plain_rows.items() if rows}
        assert ours == theirs, path.name
        rows += sum(map(len, ours.values()))
    assert rows > 1000


def _comparable(row: dict[str, Any]) -> str:
    engine = {"flow_id", "src_ip", "src_port", "dst_ip", "dst_port", "frame"}
    return repr(sorted((name, value) for name, value in row.items() if name not in engine and value is not None))
