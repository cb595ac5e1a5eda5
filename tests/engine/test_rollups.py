"""Rollups against the packets they were made from, however these are cut into batches."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import packets as k
from engine.columns import Columns
from engine.kernels import rollup as kernel
from engine.rollups import DIMENSIONS, Rollups
from engine.tables import arrow_schema
from tests import builders as b
from tests.builders import decoder, ethernet, fill, ipv4, ipv6, tcp, udp

START_NS = 1_700_000_000 * 10**9
FRAMES = [
    ethernet(ipv4(udp())),
    ethernet(ipv4(udp(bytes(600)), src=bytes([10, 0, 0, 9]))),
    ethernet(ipv6(tcp(), 6), 0x86DD),
    ethernet(ipv4(tcp(), 6, fragment=0x2000)),
    ethernet(ipv4(b.icmp(), 1)),
    ethernet(b.arp(), 0x0806),
    ethernet(b"", 0x88CC),
    ethernet(ipv4(udp(), ihl=3)),
    b"\x01",
]


class Run:
    """Rollups whose rows are kept, and the packet rows."""

    def __init__(self, rows: int = 4096, **options: Any) -> None:
        self.rollups = Rollups(rows, **options)
        self.columns, self.rows = Columns(rows), rows
        self.packets: list[dict[str, Any]] = []
        self.tables: dict[str, list[dict[str, Any]]] = {"rollup_1s": [], "rollup_1m": []}

    def emit(self, table: str, rows: pa.RecordBatch) -> None:
        rows.validate(full=True)
        assert rows.schema == arrow_schema(table)
        self.tables[table] += rows.to_pylist()

    def send(self, frames: list[bytes], times_ns: list[int], source: str = "a") -> Run:
        batch = fill(frames)
        batch.source = source
        batch.frames[k.F_TS_NS, : len(frames)] = times_ns
        packets = decoder()[0].decode(batch, k.PacketBatch(self.rows))
        self.packets += self.columns.to_arrow(packets).to_pylist()
        self.rollups.take(packets, self.columns.ips)
        return self

    def flush(self, everything: bool = True) -> Run:
        self.rollups.flush(self.emit, everything)
        return self

    def check(self) -> None:
        """Seconds are exact by every column; each dimension adds up, and named keys never exceed the truth."""
        seconds: Counter[Any] = Counter()
        for p in self.packets:
            ethertype = p["ethertype"] if p["ip_version"] is None else None
            key = p["ts"].replace(microsecond=0), p["source"], p["ip_version"], p["proto"], ethertype, p["app"]
            seconds[key, "packets"] += 1
            seconds[key, "bytes"] += p["wirelen"]
            seconds[key, "payload"] += p["payload_len"] or 0
            seconds[key, "fragments"] += bool(p["is_fragment"])
            seconds[key, "undecodable"] += p["status"] not in ("ok", "not_ip")
            seconds[key, "syns"] += p["tcp_flags"] is not None and p["tcp_flags"] & 0x12 == 2
        found: Counter[Any] = Counter()
        for r in self.tables["rollup_1s"]:
            key = tuple(r[c] for c in ("ts", "source", "ip_version", "proto", "ethertype", "app"))
            for name in ("packets", "bytes", "payload", "fragments", "undecodable", "syns"):
                found[key, name] += r[name]
        assert +found == +seconds
        self.check_talkers()

    def check_talkers(self) -> None:
        for dimension in DIMENSIONS:
            truth, sums, named = self.talkers(dimension)
            rows = [r for r in self.tables["rollup_1m"] if r["dimension"] == dimension]
            for r in rows:
                place = r["ts"], r["source"]
                assert (r["keys"] == 1) if r["key"] is not None else r["keys"] >= 0
                sums[place, "packets"] -= r["packets"]
                sums[place, "bytes"] -= r["bytes"]
                if r["key"] is not None:
                    named[(*place, r["key"])] += r["bytes"]
            assert not any(sums.values())
            assert all(0 < size <= truth[key] for key, size in named.items())

    def talkers(self, dimension: str) -> tuple[Counter[Any], Counter[Any], Counter[Any]]:
        truth: Counter[Any] = Counter()
        sums: Counter[Any] = Counter()
        for p in self.packets:
            place = p["ts"].replace(second=0, microsecond=0), p["source"]
            sums[place, "packets"] += 1
            sums[place, "bytes"] += p["wirelen"]
            key = p.get(dimension)
            if dimension == "port" and p["proto"] in (6, 17) and p["src_port"] is not None:
                key = f"{min(p['src_port'], p['dst_port'])} {'tcp' if p['proto'] == 6 else 'udp'}"
            if key is not None:
                truth[(*place, key)] += p["wirelen"]
        return truth, sums, Counter()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rollups__add_up_however_packets_are_cut_and_ordered(data: st.DataObject) -> None:
    run = Run(top=data.draw(st.sampled_from([1, 2, 100])), slots=(64, 64))
    times = st.integers(0, 200).map(lambda s: START_NS + s * 10**9 // 3)
    for _ in range(data.draw(st.integers(1, 6))):
        some = data.draw(st.lists(st.tuples(st.sampled_from(FRAMES), times), max_size=60))
        run.send([f for f, _ in some], [t for _, t in some], data.draw(st.sampled_from(["a", "b"])))
        if data.draw(st.booleans()):
            run.flush(everything=data.draw(st.booleans()))
        if data.draw(st.booleans()):
            run.rollups.end_source("a")
    run.flush().check()


def test_rollups__far_times_and_more_addresses_than_the_table_holds() -> None:
    run = Run(top=5, slots=(64, 1024))
    random = np.random.default_rng(1)
    for _ in range(5):
        sources = random.integers(0, 1 << 32, 3000)
        frames = [ethernet(ipv4(udp(bytes(int(i) % 50)), src=int(a).to_bytes(4))) for i, a in enumerate(sources)]
        frames += [ethernet(ipv4(udp(bytes(1000)), src=bytes([9, 9, 9, 9])))] * 50
        run.send(frames, sorted((START_NS + random.integers(0, 180 * 10**9, len(frames))).tolist()))
    run.send(FRAMES * 4, [0, 10**18, 2**62, 5, 10**18 - 1, 7 * 10**17] * 6)
    run.flush().check()
    heavy = [r for r in run.tables["rollup_1m"] if r["key"] == "9.9.9.9" and r["dimension"] == "src_ip"]
    assert sum(r["packets"] for r in heavy) == 250  # a heavy talker is exact in a flood


def test_rollups__every_packet_of_another_minute() -> None:
    run = Run(slots=(64, 64))
    run.send(FRAMES[:2] * 500, [START_NS + i * 60 * 10**9 for i in range(1000)]).flush().check()


def test_flush__only_seconds_that_are_over() -> None:
    run = Run()
    run.send([FRAMES[0]] * 4, [START_NS + s * 10**9 for s in (0, 1, 1, 2)]).flush(everything=False)
    assert [r["packets"] for r in run.tables["rollup_1s"]] == [1, 2]
    assert run.tables["rollup_1m"] == []
    run.flush(everything=False)
    assert len(run.tables["rollup_1s"]) == 2
    run.send([FRAMES[0]], [START_NS]).flush(everything=False)  # late: its own row
    assert [r["packets"] for r in run.tables["rollup_1s"]] == [1, 2, 1]
    run.rollups.end_source("a")
    run.flush(everything=False)
    assert sum(r["packets"] for r in run.tables["rollup_1s"]) == 5
    run.flush().check()


def test_flush__quiet_link(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run().send([FRAMES[0]], [START_NS])
    now = run.rollups._taken_at + 2
    monkeypatch.setattr("engine.rollups.time.monotonic", lambda: now)
    run.flush(everything=False)
    assert len(run.tables["rollup_1s"]) == 1
    assert len(run.tables["rollup_1m"]) == 3


def test_talkers__top_and_rest() -> None:
    frames = [ethernet(ipv4(udp(bytes(100 * i)), src=bytes([10, 0, 0, i]))) for i in range(1, 8)]
    run = Run(top=3).send([*frames, FRAMES[5]], [START_NS] * 8).flush()
    rows = [r for r in run.tables["rollup_1m"] if r["dimension"] == "src_ip"]
    assert [(r["key"], r["keys"], r["packets"]) for r in rows if r["key"]] == [
        ("10.0.0.7", 1, 1), ("10.0.0.6", 1, 1), ("10.0.0.5", 1, 1),
    ]  # fmt: skip
    assert sorted((r["keys"], r["packets"]) for r in rows if not r["key"]) == [(0, 1), (4, 4)]
    run.check()


def test_sources__more_than_there_are_numbers() -> None:
    run = Run(rows=64)
    for i in range(300):
        run.send(FRAMES, [START_NS] * len(FRAMES), f"file{i}")
    run.flush().check()
    assert {r["source"] for r in run.tables["rollup_1s"]} == {f"file{i}" for i in range(300)}


def test_kernel__one_layout() -> None:
    run = Run()
    run.send(FRAMES, [START_NS] * len(FRAMES)).flush()
    if hasattr(kernel.count_rows, "signatures"):
        assert len(kernel.count_rows.signatures) == 1
        assert len(kernel.put_back.signatures) <= 1
