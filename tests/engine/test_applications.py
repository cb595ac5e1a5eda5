"""Handing payloads to parsers: what is recognised, from which packet on, within which bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import applications as stage
from engine.applications import Applications
from engine.config import FlowsConfig
from engine.dissect import APP_NAMES, APPLICATIONS
from engine.dissect.base import TCP, UDP, Application, Flow, Message, Pattern, Verdict
from engine.flow_row import N_WORDS, R_FLOW_ID, R_NAME
from engine.jit import kernel
from engine.kernels.patterns import match_payload
from engine.patterns import compile_patterns
from engine.server_names import Names
from tests import builders as b
from tests.dissecting import matches
from tests.flowing import Run

CLIENT, SERVER = bytes([10, 0, 0, 9]), bytes([192, 0, 2, 1])
REQUEST = b"GET /x HTTP/1.1\r\nHost: www.example.org\r\n\r\n"


def tcp(payload: bytes, seq: int = 100, up: bool = True, port: int = 40000, server: int = 8081) -> bytes:
    ports = (port, server) if up else (server, port)
    src, dst = (CLIENT, SERVER) if up else (SERVER, CLIENT)
    return b.ethernet(b.ipv4(b.tcp(payload, *ports, seq=seq, flags=0x18), 6, src=src, dst=dst))


def udp(payload: bytes, port: int = 40000, server: int = 53) -> bytes:
    return b.ethernet(b.ipv4(b.udp(payload, port, server), 17, src=CLIENT, dst=SERVER))


# --- patterns -----------------------------------------------------------------------------------------------------
PATTERNS, BUCKETS = compile_patterns(APPLICATIONS)


@kernel
def match_all(buf, start, end, length, transport, port_a, port_b, patterns, buckets, out):  # type: ignore[no-untyped-def]
    """`match_payload` as Python can call it."""
    hits, follow = match_payload(buf, start, end, length, transport, port_a, port_b, patterns, buckets)
    out[0] = hits
    out[1] = follow


def heads() -> list[bytes]:
    """The beginnings that patterns ask for, and their neighbours."""
    values = [p.value for a in APPLICATIONS for p in a.patterns]
    return sorted({v[:n] + bytes([x]) for v in values for n in range(len(v) + 1) for x in (0, 255)} | set(values))


PORTS = sorted({port for a in APPLICATIONS for p in a.patterns for port in p.ports} | {1, 40000})


@settings(max_examples=400, deadline=None)
@given(
    head=st.sampled_from(heads()),
    tail=st.binary(max_size=20),
    more=st.integers(0, 2000),
    proto=st.sampled_from([TCP, UDP]),
    ports=st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS)),
)
def test_patterns__kernel_equals_the_definition(
    head: bytes, tail: bytes, more: int, proto: int, ports: tuple[int, int]
) -> None:
    data = head + tail or b"\0"
    wanted = [
        (n, p.follow)
        for n, a in enumerate(APPLICATIONS)
        for p in a.patterns
        if matches(p, proto, ports, data, len(data) + more)
    ]
    arena = np.frombuffer(b"\xaa" * 16 + data + b"\xaa" * 16, np.uint8).copy()
    out = np.zeros(2, np.int64)
    match_all(arena, 16, 16 + len(data), len(data) + more, 0 if proto == TCP else 1, *ports, PATTERNS, BUCKETS, out)
    assert int(out[0]) == sum({1 << n for n, _ in wanted})
    assert int(out[1]) == max((follow for _, follow in wanted), default=0)


def test_registry__names_are_unique_and_numbers_fit() -> None:
    assert len(set(APP_NAMES)) == len(APP_NAMES) < 1 << 15
    assert all(len(p.value) <= 8 for a in APPLICATIONS for p in a.patterns)
    assert all(len(p.mask) in (0, len(p.value)) for a in APPLICATIONS for p in a.patterns)


# --- rows ---------------------------------------------------------------------------------------------------------
def test_application__is_on_the_rows_from_the_packet_that_showed_it() -> None:
    applications = Applications()
    run = Run(applications=applications)
    run.send([(0, tcp(b"", 99)), (1, tcp(REQUEST, 100)), (2, tcp(b"", 200, up=False)), (3, udp(b"no protocol"))])
    run.send([(4, tcp(b"more", 142))]).close()
    assert [p["app"] for p in run.packets] == [None, "http", "http", None, "http"]
    assert [p["server_name"] for p in run.packets] == [
        None,
        "www.example.org",
        "www.example.org",
        None,
        "www.example.org",
    ]
    assert [p["encrypted"] for p in run.packets] == [None, False, False, None, False]
    assert {(f["app"], f["server_name"], f["encrypted"]) for f in run.flows} == {
        ("http", "www.example.org", False),
        (None, None, None),
    }
    rows = applications.take_rows()["http"]
    assert [(r["host"], r["path"], r["src_ip"], r["dst_port"]) for r in rows] == [
        ("www.example.org", "/x", "10.0.0.9", 8081)
    ]
    assert rows[0]["flow_id"] == run.packets[0]["flow_id"]


def test_application__parts_cut_in_the_batch_that_showed_it_have_it_too() -> None:
    timed = [(0, tcp(REQUEST, 100)), (20, tcp(b"a", 142)), (40, tcp(b"b", 143)), (50, tcp(b"c", 144))]
    run = Run(FlowsConfig(active_s=30), Applications()).send(timed).close()
    assert [(f["part"], f["app"]) for f in sorted(run.flows, key=lambda f: f["part"])] == [(1, "http"), (2, "http")]


# --- bounds -------------------------------------------------------------------------------------------------------
def test_budget__what_it_does_not_allow_is_counted_as_missed() -> None:
    applications = Applications(budget=1e-9, kernels=False)
    frames = [(i / 1000, udp(b.dns_query("a.example", i), port=2000 + i)) for i in range(200)]
    Run(applications=applications).send(frames).close()
    counts = applications.take_counts()
    assert counts.messages + counts.missed == 200
    assert counts.missed >= 150
    Run(applications=(unlimited := Applications(kernels=False))).send(frames).close()
    assert unlimited.take_counts().messages == 200
    assert len(unlimited.take_rows()["dns"]) == 200


def test_open__parsers_are_bounded_and_the_oldest_finishes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_MAX_OPEN", 50)
    applications = Applications(kernels=False)
    run = Run(applications=applications)
    run.send([(i / 1000, udp(b.dns_query("a.example", i), port=2000 + i)) for i in range(200)])
    assert len(applications._open) <= 50
    assert len(applications.take_rows()["dns"]) == 150  # unanswered, finished early
    run.close()
    assert len(applications.take_rows()["dns"]) == 50


class _Never:
    """A parser that is never sure."""

    asked = 0

    def __init__(self, flow: Flow) -> None:
        self.flow = flow

    def feed(self, message: Message) -> Verdict:
        type(self).asked += 1
        if message.data == b"xBOOM":
            raise KeyError("a parser's way to say it cannot read this")
        return Verdict.FOREIGN

    def finish(self) -> None:
        """Nothing to tell."""


def test_rejections__a_flow_that_only_looks_like_a_protocol_is_left_alone() -> None:
    never = Application(name="http", meaning="never", patterns=(Pattern(transport=TCP, value=b"x"),), parser=_Never)
    applications = Applications(known=(never,))
    timed = [(i, tcp(b"xBOOM" if i == 1 else b"x...", 100 + 4 * i)) for i in range(10)]
    run = Run(applications=applications).send(timed[:5])
    run.send(timed[5:]).close()
    assert _Never.asked == 4
    assert applications.take_counts().bad == 0
    assert run.flows[0]["app"] is None


def test_names__that_no_flow_carries_make_room() -> None:
    names = Names(capacity=8)
    numbers = [names.number(f"n{i}") for i in range(7)]
    assert numbers == [1, 2, 3, 4, 5, 6, 7]
    assert names.number("one too many") == 0
    assert names.number("n3") == 4
    assert names.is_full(1)
    records = np.zeros((4, N_WORDS), np.int64)
    records[:2, R_FLOW_ID] = 1
    records[:2, R_NAME] = 2, 7
    names.make_room(records)
    assert names.texts(np.array([2, 7])) == ["n1", "n6"]
    fresh = [names.number(f"m{i}") for i in range(6)]
    assert sorted(fresh) == [0, 1, 3, 4, 5, 6]
    assert names.number("n1") == 2


def test_names__more_than_fit_are_reused_over_batches() -> None:
    """Every row shows its own flow's name, although the table of names overflows again and again."""
    run = Run(applications=Applications())
    run.table.names.capacity = 300
    expected: dict[int, str] = {}
    for batch in range(10):
        frames = []
        for i in range(100):
            port = 1000 + batch * 100 + i
            expected[port] = f"h{port}.example"
            frames.append((batch * 100 + i / 1000, udp(b.dns_query(expected[port], i), port=port)))
        run.send(frames)
    run.close()
    assert all(p["server_name"] in (expected[p["src_port"]], None) for p in run.packets)
    assert all(f["server_name"] in (expected[f["src_port"]], None) for f in run.flows)
    named: list[Any] = [f for f in run.flows if f["server_name"]]
    assert len(named) > 900
