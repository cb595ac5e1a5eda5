"""Flows: what is counted, who is the client, how it ends; and that cutting the stream into batches changes nothing."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import itertools
import math
import random
import resource
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.applications import Applications
from engine.config import FlowsConfig
from engine.flows import FlowRows
from engine.kernels import community, flow, flow_apps, flow_end, flow_gather, flow_key
from engine.packets import F_CAPLEN, F_LINK_TYPE, F_OFFSET, F_TS_NS, F_WIRELEN, FrameBatch, PacketBatch
from tests import builders as b
from tests.flowing import START_NS, Run, Timed, flows_of

CLIENT, SERVER = bytes([10, 0, 0, 9]), bytes([192, 0, 2, 1])
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def tcp(up: bool, flags: int, seq: int, payload: bytes = b"", ports: tuple[int, int] = (40000, 80)) -> bytes:
    """A TCP frame from the client (up) or the server."""
    src, dst = (CLIENT, SERVER) if up else (SERVER, CLIENT)
    sport, dport = ports if up else ports[::-1]
    mac = b.SRC_MAC if up else b.DST_MAC
    segment = b.tcp(payload, sport, dport, seq=seq, ack=0, flags=flags)
    return b.ethernet(b.ipv4(segment, 6, src=src, dst=dst), src=mac)


def udp(up: bool, payload: bytes = b"x", ports: tuple[int, int] = (40000, 9999)) -> bytes:
    src, dst = (CLIENT, SERVER) if up else (SERVER, CLIENT)
    return b.ethernet(b.ipv4(b.udp(payload, *(ports if up else ports[::-1])), 17, src=src, dst=dst))


def one(timed: list[Timed], config: FlowsConfig | None = None) -> dict[str, Any]:
    flows = flows_of(timed, config)
    assert len(flows) == 1
    return flows[0]


HANDSHAKE = [(0.0, tcp(True, SYN, 100)), (0.02, tcp(False, SYN | ACK, 900)), (0.05, tcp(True, ACK, 101))]


# --- what is counted ----------------------------------------------------------------------------------------------
def test_flow__counts_each_direction() -> None:
    f = one([
        *HANDSHAKE,
        (0.06, tcp(True, PSH | ACK, 101, b"GET / HTTP/1.0\r\n\r\n")),
        (0.16, tcp(False, PSH | ACK, 901, bytes(range(256)))),
        (0.26, tcp(False, PSH | ACK, 1157, b"\0" * 100)),
    ])  # fmt: skip
    assert (f["src_ip"], f["dst_ip"], f["src_port"], f["dst_port"], f["proto"]) == (
        "10.0.0.9",
        "192.0.2.1",
        40000,
        80,
        6,
    )
    assert (f["src_packets"], f["dst_packets"], f["src_payload"], f["dst_payload"]) == (3, 3, 18, 356)
    assert (f["src_bytes"], f["dst_bytes"]) == (54 + 54 + 72, 54 + 54 + 256 + 154)
    assert (f["src_size_min"], f["src_size_max"], f["dst_size_max"]) == (54, 72, 310)
    assert (f["src_tcp_flags"], f["dst_tcp_flags"]) == (SYN | ACK | PSH, SYN | ACK | PSH)
    assert (f["src_gap_min"], f["src_gap_max"], f["src_gap_mean"]) == (10_000, 50_000, 30_000)
    assert (f["dst_gap_min"], f["dst_gap_max"]) == (100_000, 140_000)
    assert f["dst_entropy"] == pytest.approx(4.0, abs=1e-5)  # 8 bits and 0 bits
    assert f["src_head"] == b"GET / HTTP/1.0\r\n\r\n"
    assert f["dst_head"] == bytes(range(32))
    assert (f["src_mac"], f["dst_mac"]) == (b.SRC_MAC.hex(":"), b.DST_MAC.hex(":"))
    assert (f["end_ts"] - f["ts"]).total_seconds() == pytest.approx(0.26)
    assert (f["outcome"], f["end_reason"], f["part"], f["rtt_us"]) == ("established", "stop", 1, 50_000)


def test_packets__carry_the_flow_of_their_row() -> None:
    run = Run().send([(0, udp(True)), (0.1, b.ethernet(b.arp(), 0x0806)), (0.2, udp(False))]).close()
    assert [p["flow_id"] for p in run.packets] == [1, None, 1]
    assert [f["flow_id"] for f in run.flows] == [1]


def test_flow__head_continues_over_packets_until_it_is_full() -> None:
    f = one([(0, udp(True, b"a" * 10)), (1, udp(True, b"b" * 40)), (2, udp(True, b"c"))])
    assert f["src_head"] == b"a" * 10 + b"b" * 22
    assert f["dst_head"] is None
    assert f["dst_entropy"] is None
    assert f["dst_size_min"] is None


def test_retransmits__segments_that_begin_before_the_highest_byte() -> None:
    f = one([
        *HANDSHAKE,
        (0.1, tcp(True, ACK, 101, b"x" * 100)),
        (0.2, tcp(True, ACK, 101, b"x" * 100)),  # again
        (0.3, tcp(True, ACK, 201, b"y" * 10)),
        (0.4, tcp(True, ACK, 210, b"\0")),  # keep-alive probe, not counted
        (0.5, tcp(True, ACK, 210)),  # and one without its byte
        (0.6, tcp(False, SYN | ACK, 900)),  # SYN-ACK again
    ])  # fmt: skip
    assert (f["src_retransmits"], f["dst_retransmits"]) == (1, 1)


def test_retransmits__sequence_numbers_wrap() -> None:
    top = 0xFFFFFFF0
    f = one([(0, tcp(True, ACK, top, b"x" * 32)), (1, tcp(True, ACK, 16, b"y")), (2, tcp(True, ACK, top, b"x" * 32))])
    assert f["src_retransmits"] == 1


# --- who is the client --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("timed", "client"),
    [
        ([(0, tcp(False, SYN | ACK, 1)), (1, tcp(True, ACK, 1))], "10.0.0.9"),
        ([(0, tcp(False, ACK, 1, b"x"))], "10.0.0.9"),  # the middle of a connection, from port 80
        ([(0, tcp(False, ACK, 1, b"x", (40000, 8080)))], "192.0.2.1"),  # no hint: who sent first
        ([(0, udp(False))], "192.0.2.1"),
    ],
)
def test_client__is_who_asked(timed: list[Timed], client: str) -> None:
    assert one(timed)["src_ip"] == client


# --- how it ends --------------------------------------------------------------------------------------------------
def icmp_error(of: bytes, kind: int = 3, code: int = 3) -> bytes:
    """An ICMP error from the server about a frame of the client."""
    return b.ethernet(b.ipv4(b.icmp(of[14 : 14 + 28], kind, code), 1, src=SERVER, dst=CLIENT))


@pytest.mark.parametrize(
    ("timed", "outcome"),
    [
        ([(0, tcp(True, SYN, 5)), (1, tcp(True, SYN, 5))], "unanswered"),
        ([(0, tcp(True, SYN, 5)), (1, tcp(False, RST | ACK, 0))], "refused"),
        ([(0, tcp(True, SYN, 5)), (1, tcp(False, SYN | ACK, 7))], "half-open"),
        ([(0, tcp(True, SYN, 5)), (1, tcp(False, SYN | ACK, 7)), (2, tcp(True, RST, 6))], "half-open"),
        (HANDSHAKE, "established"),
        ([*HANDSHAKE, (1, tcp(False, RST, 901))], "reset"),
        ([(0, tcp(True, ACK, 5, b"x")), (1, tcp(False, ACK, 7, b"y"))], "established"),
        ([(0, udp(True))], "unanswered"),
        ([(0, udp(True)), (1, udp(False))], "answered"),
    ],
)
def test_outcome__of_what_was_seen(timed: list[Timed], outcome: str) -> None:
    assert one(timed)["outcome"] == outcome


@pytest.mark.parametrize(("code", "outcome"), [(3, "refused"), (13, "refused"), (1, "unanswered")])
def test_outcome__icmp_answers_for_a_closed_port(code: int, outcome: str) -> None:
    question = udp(True)
    flows = flows_of([(0, question), (1, icmp_error(question, 3, code))])
    assert [(f["proto"], f["outcome"]) for f in flows] == [(17, outcome), (1, "unanswered")]


def test_outcome__of_icmp() -> None:
    echo = [
        b.ethernet(b.ipv4(b.icmp(kind=kind), 1, src=s, dst=d))
        for kind, s, d in ((8, CLIENT, SERVER), (0, SERVER, CLIENT))
    ]
    f = one([(0, echo[0]), (1, echo[1])])
    assert (f["outcome"], f["icmp_type"], f["icmp_code"], f["src_port"]) == ("answered", 8, 0, None)
    assert one([(0, echo[0])])["outcome"] == "unanswered"


def test_end__quiet_flows_end_and_the_next_packet_begins_another() -> None:
    flows = flows_of([(0, udp(True)), (60.0, udp(True)), (120.1, udp(False))])
    assert [(f["src_packets"], f["end_reason"]) for f in flows] == [(2, "idle"), (1, "stop")]
    assert flows[0]["flow_id"] != flows[1]["flow_id"]


def test_end__closed_connections_take_late_packets_but_not_a_new_syn() -> None:
    closing = [(1.0, tcp(True, FIN | ACK, 101)), (1.1, tcp(False, FIN | ACK, 901)), (1.2, tcp(True, ACK, 102))]
    flows = flows_of([*HANDSHAKE, *closing, (2.0, tcp(False, ACK, 902)), (3.0, tcp(True, SYN, 5000))])
    assert [(f["src_packets"], f["dst_packets"], f["end_reason"]) for f in flows] == [(4, 3, "closed"), (1, 0, "stop")]
    assert [f["end_reason"] for f in flows_of([*HANDSHAKE, *closing, (9.0, tcp(False, ACK, 902))])] == [
        "closed",
        "stop",
    ]


def test_end__syn_of_another_connection_on_the_same_ports() -> None:
    flows = flows_of([*HANDSHAKE, (1, tcp(True, SYN, 7777)), (2, tcp(True, SYN, 7777))])
    assert [(f["src_packets"], f["end_reason"]) for f in flows] == [(2, "reused"), (2, "stop")]


def test_parts__of_a_long_flow_add_up() -> None:
    timed = [(i * 7.0, udp(i % 3 > 0, b"x" * (i % 50))) for i in range(100)]
    parts = flows_of(timed, FlowsConfig(active_s=60))
    assert [p["part"] for p in parts] == list(range(1, len(parts) + 1))
    assert len(parts) > 8
    assert len({p["flow_id"] for p in parts}) == 1
    assert {p["end_reason"] for p in parts[:-1]} == {"active"}
    whole = one(timed, FlowsConfig(active_s=86_400))
    for name in ("src_packets", "dst_packets", "src_bytes", "dst_bytes", "src_payload", "dst_payload"):
        assert sum(p[name] for p in parts) == whole[name]
    assert {p["src_ip"] for p in parts} == {whole["src_ip"]}
    assert parts[0]["ts"] == whole["ts"]
    assert parts[-1]["end_ts"] == whole["end_ts"]


def test_parts__know_the_sequence_numbers_of_the_ones_before() -> None:
    timed = [
        *HANDSHAKE,
        (1, tcp(True, ACK, 101, b"x" * 9)),
        (50, tcp(True, ACK, 110, b"y")),
        (70, tcp(True, ACK, 101, b"x")),
    ]
    parts = flows_of(timed, FlowsConfig(active_s=60))
    assert [p["src_retransmits"] for p in parts] == [0, 1]
    assert [p["outcome"] for p in parts] == ["established", "established"]


# --- keys ---------------------------------------------------------------------------------------------------------
def test_key__vlans_are_apart_and_directions_together() -> None:
    packet = b.ipv4(b.udp(b"x", 1, 2), 17, src=CLIENT, dst=SERVER)
    answer = b.ipv4(b.udp(b"x", 2, 1), 17, src=SERVER, dst=CLIENT)
    frames = [b.ethernet(b.tag(vid, 0x0800, p), 0x8100) for vid in (7, 8) for p in (packet, answer)]
    flows = flows_of([(i, f) for i, f in enumerate([*frames, b.ethernet(packet)])])
    assert [(f["vlan"], f["src_packets"], f["dst_packets"]) for f in flows] == [(7, 1, 1), (8, 1, 1), (None, 1, 0)]


def test_key__of_the_inner_packet_in_a_tunnel() -> None:
    up = b.ipv4(b.tcp(b"hello", 1000, 2000, seq=5, flags=SYN), 6, src=CLIENT, dst=SERVER)
    down = b.ipv4(b.tcp(b"", 2000, 1000, seq=9, flags=SYN | ACK), 6, src=SERVER, dst=CLIENT)
    flows = flows_of([
        (0, b.ethernet(b.ipv4(b.gre(up), 47))),
        (1, b.ethernet(b.ipv4(b.vxlan(b.ethernet(down)), 17))),
    ])  # fmt: skip
    f = flows[0]
    assert len(flows) == 1
    assert (f["src_ip"], f["dst_port"], f["encap"], f["src_payload"], f["outcome"]) == (
        "10.0.0.9",
        2000,
        "gre",
        5,
        "half-open",
    )
    assert (f["src_tcp_flags"], f["dst_tcp_flags"], f["src_head"]) == (SYN, SYN | ACK, b"hello")


def test_key__later_fragments_join_the_first() -> None:
    datagram = b.udp(b"z" * 100, 5, 6, length=208)
    first = b.ethernet(b.ipv4(datagram, 17, fragment=0x2000, src=CLIENT, dst=SERVER))
    later = b.ethernet(b.ipv4(b"z" * 100, 17, fragment=0x000D, src=CLIENT, dst=SERVER))
    other = b.ethernet(b.ipv4(b"z" * 100, 17, fragment=0x000D, src=SERVER, dst=CLIENT))
    flows = flows_of([(0, first), (0.1, later), (0.2, other)])
    assert [(f["src_port"], f["src_packets"]) for f in flows] == [(5, 2), (None, 1)]


def test_key__sources_are_apart_and_end_apart() -> None:
    run = Run().send([(0, udp(True))], "eth0").send([(0, udp(True))], "eth1")
    run.table.end_source("eth0")
    assert [(f["source"], f["end_reason"]) for f in run.flows] == [("eth0", "stop")]
    run.send([(1, udp(False))], "eth1").close()
    assert [(f["source"], f["src_packets"], f["dst_packets"]) for f in run.flows[1:]] == [("eth1", 1, 1)]


def test_application__of_an_ip_protocol_and_its_encryption() -> None:
    run = Run(applications=Applications()).send([(0, b.ethernet(b.ipv4(b.esp(), 50))), (1, udp(True))]).close()
    assert [(p["app"], p["encrypted"]) for p in run.packets] == [("esp", True), (None, None)]
    assert [(f["app"], f["encrypted"]) for f in run.flows] == [("esp", True), (None, None)]


# --- limits -------------------------------------------------------------------------------------------------------
def test_limit__quietest_flows_end_early_and_nothing_is_lost() -> None:
    run = Run(FlowsConfig(max_flows=1000))
    timed = [(i / 1000, udp(True, b"x", (i + 1, 9))) for i in range(5000)]
    for at in range(0, 5000, 700):
        run.send(timed[at : at + 700], keep=False)
    assert run.table.live <= 1000
    run.close()
    assert sum(f["src_packets"] for f in run.flows) == 5000
    assert len(run.flows) == 5000
    evicted = [f for f in run.flows if f["end_reason"] == "evicted"]
    counts = run.table.take_counts()
    assert counts.flows == 5000
    assert counts.evicted == len(evicted) > 4000 - 125
    assert run.table.peak == 1000
    assert max(f["flow_id"] for f in evicted) < 4900  # the newest stay


def test_clock__one_packet_from_the_future_does_not_end_the_others() -> None:
    """Nor do times at the edge of what 64 bits hold; every packet is in a flow."""
    timed = [(0, udp(True)), (2.4e9, udp(True, ports=(1, 2))), (1, udp(False)), (-1.6e9, udp(True, ports=(3, 4)))]
    timed += [(7.5e9 - START_NS / 1e9, udp(True, ports=(5, 6))), (2, udp(True))]
    flows = flows_of(timed)
    assert sum(f["src_packets"] + f["dst_packets"] for f in flows) == len(timed)
    run = Run()
    for _ in range(3):
        run.send([(0.001 * i, udp(True)) for i in range(3000)], keep=False)
    run.send([(9e8, udp(True, ports=(7, 7)))])
    for second in range(4):
        run.send([(10 + second * 100 + 0.001 * i, udp(True)) for i in range(3000)], keep=False)
    assert int(run.table._state[flow.T_CLOCK]) < START_NS + 400 * 10**9  # it came back
    run.table.flush()
    assert len(run.flows) >= 2
    run.close()
    assert sum(f["src_packets"] for f in run.flows) == 9000 + 1 + 12_000


@pytest.mark.timeout(300)
def test_flood__two_million_flows_in_ten_seconds_stay_bounded() -> None:
    """A SYN flood from random addresses: memory does not grow with it, and every packet is accounted for."""
    count, rows = 2_000_000, 32_800
    table_rows = [0, 0, 0]

    run = Run(FlowsConfig(max_flows=100_000))

    def keep(rows: FlowRows) -> None:
        batch = rows.to_arrow()
        table_rows[0] += batch.num_rows
        table_rows[1] += int(np.sum(batch.column("src_packets").to_numpy()))
        table_rows[2] += int(np.sum(batch.column("src_bytes").to_numpy()))
        rows.release()

    run.table._emit = keep
    frame = np.frombuffer(tcp(True, SYN, 1), np.uint8)
    frames, packets = FrameBatch(rows, rows * len(frame)), PacketBatch(rows)
    arena = frames.arena.reshape(rows, len(frame))
    arena[:] = frame
    table = frames.frames
    table[F_OFFSET], table[F_CAPLEN] = np.arange(rows) * len(frame), len(frame)
    table[F_WIRELEN], table[F_LINK_TYPE] = len(frame), 1
    frames.source = "flood"
    chance = np.random.default_rng(1)
    warm = 0
    for at in range(0, count, rows):
        n = min(rows, count - at)
        frames.count = n
        table[F_TS_NS, :n] = START_NS + (at + np.arange(n)) * 5_000
        number = at + np.arange(n)
        for byte in range(3):
            arena[:n, 27 + byte] = number >> (8 * byte) & 0xFF
        arena[:n, 34:36] = chance.integers(0, 256, (n, 2))
        run.take(frames, packets, keep=False)
        assert run.table.live <= 100_000
        if at < 500_000:
            warm = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - warm
    run.close()
    counts = run.table.take_counts()
    assert (counts.flows, table_rows[0]) == (count, count)
    assert (table_rows[1], table_rows[2]) == (count, count * len(frame))
    assert counts.evicted >= count - 100_000 - 12_500
    assert grown_kib < 20_000


# --- Community ID -------------------------------------------------------------------------------------------------
def community_id(proto: int, ends: tuple[tuple[bytes, int], tuple[bytes, int]], ported: bool) -> str:
    """From the definition."""
    (a, pa), (z, pz) = sorted(ends)
    data = struct.pack(">H", 0) + a + z + bytes([proto, 0]) + (struct.pack(">HH", pa, pz) if ported else b"")
    return "1:" + base64.b64encode(hashlib.sha1(data).digest()).decode()


address = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))


@settings(max_examples=200, deadline=None)
@given(
    a=address, z=address, ports=st.tuples(*[st.integers(0, 65535)] * 2), proto=st.sampled_from([6, 17, 132, 33, 103])
)
def test_community_id__equals_its_definition(a: bytes, z: bytes, ports: tuple[int, int], proto: int) -> None:
    z = (z * 4)[: len(a)]
    segment = struct.pack(">HH", *ports) + bytes(8) + bytes([0x50, 0]) + bytes(18)
    packet = b.ipv4(segment, proto, src=a, dst=z) if len(a) == 4 else b.ipv6(segment, proto, src=a, dst=z)
    if proto == 17:
        packet = (
            b.ipv4(b.udp(b"", *ports), 17, src=a, dst=z)
            if len(a) == 4
            else b.ipv6(b.udp(b"", *ports), 17, src=a, dst=z)
        )
    frame = b.ethernet(packet, 0x0800 if len(a) == 4 else 0x86DD)
    f = one([(0, frame)])
    assert f["community_id"] == community_id(proto, ((a, ports[0]), (z, ports[1])), proto in (6, 17, 132))
    assert {f["src_ip"], f["dst_ip"]} == {str(ipaddress.ip_address(x)) for x in (a, z)}


# --- cutting ------------------------------------------------------------------------------------------------------
def traffic(seed: int, count: int = 400) -> list[Timed]:
    """Connections, datagrams, pings and fragments between few hosts, with pauses of all lengths."""
    chance = random.Random(seed)
    out: list[Timed] = []
    at = 0.0
    for _ in range(count):
        at += chance.choice([0.0, 0.001, 0.3, 2.0, 20.0, 70.0]) * chance.random()
        ports = (chance.choice([1, 2, 3]), chance.choice([80, 4000]))
        up = chance.random() < 0.6
        payload = chance.choice([b"", b"x", b"GET / HTTP/1.1\r\n\r\n", bytes(range(200))])
        kind = chance.randrange(6)
        if kind < 3:
            flags = chance.choice([SYN, SYN | ACK, ACK, ACK, PSH | ACK, FIN | ACK, RST])
            out.append((at, tcp(up, flags, chance.choice([1, 2, 50, 250]), payload, ports)))
        elif kind == 3:
            out.append((at, udp(up, payload, ports)))
        elif kind == 4:
            out.append((at, b.ethernet(b.ipv4(b.icmp(kind=chance.choice([0, 3, 8])), 1, src=CLIENT, dst=SERVER))))
        else:
            word = chance.choice([0x2000, 0x0001])
            out.append((at, b.ethernet(b.ipv4(b.udp(b"f" * 40, *ports), 17, fragment=word, src=CLIENT, dst=SERVER))))
    return out


def normal(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Comparable: NaN is None, order by flow and part."""
    ordered = sorted(rows, key=lambda f: (f["flow_id"], f["part"]))
    return [tuple(repr(None if isinstance(v, float) and math.isnan(v) else v) for v in row.values()) for row in ordered]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6), cuts=st.lists(st.integers(1, 399), max_size=12), limit=st.sampled_from([1000, 500_000])
)
def test_cutting__changes_no_row(seed: int, cuts: list[int], limit: int) -> None:
    timed = traffic(seed)
    config = FlowsConfig(idle_s=30, active_s=40, linger_s=1, max_flows=limit)
    whole = Run(config).send(timed).close()
    parts = Run(config)
    edges = [0, *sorted(set(cuts)), len(timed)]
    for first, stop in itertools.pairwise(edges):
        parts.send(timed[first:stop])
    parts.close()
    assert normal(parts.flows) == normal(whole.flows)
    assert [p["flow_id"] for p in parts.packets] == [p["flow_id"] for p in whole.packets]
    of_packets: dict[int, list[int]] = {}
    for p in whole.packets:
        counts = of_packets.setdefault(p["flow_id"], [0, 0, 0])
        counts[0] += 1
        counts[1] += p["wirelen"]
        counts[2] += p["payload_len"] or 0
    of_flows: dict[int, list[int]] = {}
    for f in whole.flows:
        counts = of_flows.setdefault(f["flow_id"], [0, 0, 0])
        for n, name in enumerate(("packets", "bytes", "payload")):
            counts[n] += f[f"src_{name}"] + f[f"dst_{name}"]
    assert of_flows == of_packets


def test_kernels__are_compiled_for_one_layout() -> None:
    Run(FlowsConfig(max_flows=1000)).send([(i, udp(True, b"x", (i + 1, 9))) for i in range(2000)]).close()
    for kernel in (
        flow.follow, flow_key.find_keys, flow_end.sweep, flow_end.evict, flow_end.end_source, flow_end.release,
        flow_gather.gather, flow_gather.index_flow_ips, flow_gather.index_flow_macs, community.community_ids,
        flow_apps.mark_rows,
    ):  # fmt: skip
        assert len(getattr(kernel, "signatures", [0])) <= 1, kernel
