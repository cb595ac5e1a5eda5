"""Windows: counts as a plain loop makes them, the same however batches are cut, bounded, whatever the clock says."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.detect.windows import Windows
from engine.kernels import window_layout as w
from engine.kernels import windows as kernel
from engine.tables import TABLES
from tests.detecting import (
    ACK,
    RST_ACK,
    SYN,
    SYN_ACK,
    Rig,
    arp_frame,
    echo,
    handshake,
    kinds,
    tcp_frame,
    udp_frame,
    unreachable,
)  # fmt: skip
from tests.flowing import Timed

A, V = "10.0.0.66", "10.0.0.10"


def mixed(seed: int, n: int = 1500) -> list[Timed]:
    """All kinds of packets among a few hosts, some late, over two minutes; with a scan and a flood in it."""
    r = random.Random(seed)
    out: list[Timed] = []
    for _ in range(n):
        at, a, b = r.uniform(0, 130), f"10.0.0.{r.randint(1, 9)}", f"10.0.0.{r.randint(1, 9)}"
        flags = r.choice([SYN, SYN_ACK, RST_ACK, ACK, 0x11, 0x18, 0, 1, 0x29])
        frame = r.choice([
            lambda a=a, b=b, f=flags: tcp_frame(a, b, r.randint(1, 99), 80, f, r.randbytes(r.randint(0, 80))),
            lambda a=a, b=b: udp_frame(a, b, r.randint(1, 99), r.choice([53, 99, 5000]), r.randbytes(r.randint(0, 80))),
            lambda a=a, b=b: echo(a, b, r.randbytes(60), r.random() < 0.5),
            lambda a=a, b=b: arp_frame(a, b, r.randint(1, 2), b"\2" + r.randbytes(5)),
            lambda a=a, b=b: unreachable(a, udp_frame(b, a, r.randint(1, 99), r.randint(1, 99))),
        ])()  # fmt: skip
        out.append((at, frame))
    out += [(40 + i * 0.05, tcp_frame(A, V, 40000, 1 + i, SYN)) for i in range(60)]
    out += [(80 + i * 0.004, tcp_frame(A, V, 1024 + i, 80, SYN)) for i in range(900)]
    out.sort(key=lambda t: t[0])
    for _ in range(40):  # out of order
        i = r.randrange(len(out) - 20)
        out[i], out[i + 15] = out[i + 15], out[i]
    return out


FRAMES = mixed(1)
WHOLE = Rig()
FOUND = WHOLE.send(FRAMES)


def test_mixed__scan_and_flood_are_found() -> None:
    assert {("port_scan", A, V), ("syn_flood", None, V)} <= set(kinds(FOUND))


@settings(max_examples=12, deadline=None)
@given(cuts=st.lists(st.integers(1, len(FRAMES) - 1), max_size=60))
def test_cutting__same_findings_and_windows(cuts: list[int]) -> None:
    rig = Rig()
    assert rig.send(FRAMES, cuts) == FOUND
    assert rig.windows == WHOLE.windows


def test_peaks__rules_that_are_not_asked_would_have_found_nothing() -> None:
    """What `Rule.may_find` spares: without it the findings and windows are the same, and it does spare most looks."""
    rig, looks = Rig(), []
    for rule in rig.detector._lookers:
        asked = rule.may_find
        rule.may_find = lambda peaks, asked=asked: looks.append(asked(peaks)) or True  # type: ignore
    assert rig.send(FRAMES) == FOUND
    assert rig.windows == WHOLE.windows
    assert 0 < sum(looks) < len(looks) * 0.7


def test_cutting__one_packet_at_a_time() -> None:
    rig, part = Rig(), FRAMES[600:1300]
    assert rig.send(part, range(1, len(part))) == Rig().send(part)


def test_windows__are_what_a_plain_loop_counts() -> None:
    r = random.Random(2)
    packets = [(r.uniform(0, 180), r.randint(1, 4), r.randint(5, 8), r.randint(0, 900)) for _ in range(3000)]
    packets.sort()
    rig = Rig()
    rig.send([(at, udp_frame(f"10.0.0.{a}", f"10.0.0.{b}", 40000, 7000 + a, bytes(n))) for at, a, b, n in packets])
    sent: Counter[tuple[int, str]] = Counter()
    got: Counter[tuple[int, str]] = Counter()
    size: Counter[tuple[int, str]] = Counter()
    for at, a, b, n in packets:
        sent[int(at // 60), f"10.0.0.{a}"] += 1
        got[int(at // 60), f"10.0.0.{b}"] += 1
        size[int(at // 60), f"10.0.0.{a}"] += 42 + n
    rows = [row for row in rig.windows if row["window_s"] == 60]
    start = min(row["ts"] for row in rows)
    assert len(rows) == 3 * 8
    for row in rows:
        key = (row["ts"] - start) // 60_000_000, row["ip"]
        assert (row["out_packets"], row["in_packets"]) == (sent[key], got[key])
        assert row["out_bytes"] == size[key]
        assert row["peers"] == row["attempts"] == (4 if sent[key] and not key[0] else 0)


def test_windows__rows_have_the_columns_of_their_table() -> None:
    names = [c.name for c in TABLES["windows"]]
    assert WHOLE.windows
    assert all(list(row) == names for row in WHOLE.windows)
    assert {row["window_s"] for row in WHOLE.windows} <= {1, 5, 60}


def test_outcomes__answered_refused_unanswered() -> None:
    rig = Rig()
    frames: list[Timed] = []
    for i in range(30):
        at = i * 0.5
        frames += handshake(at, A, V, 40000 + i, 80)
        frames.append((at + 0.1, tcp_frame(A, V, 41000 + i, 81, SYN)))
        frames.append((at + 0.11, tcp_frame(V, A, 81, 41000 + i, RST_ACK)))
        frames.append((at + 0.2, tcp_frame(A, V, 42000 + i, 82, SYN)))
    frames.append((30.0, echo("10.0.0.1", "10.0.0.2")))
    rig.send(frames)
    row = next(r for r in rig.windows if r["ip"] == A and r["window_s"] == 60)
    assert (row["attempts"], row["answered"], row["refused"], row["unanswered"]) == (90, 30, 30, 30)
    row = next(r for r in rig.windows if r["ip"] == V and r["window_s"] == 60)
    assert (row["in_attempts"], row["in_failed"], row["in_completed"]) == (90, 60, 30)


# --- time -----------------------------------------------------------------------------------------------------------
YEARS = 40 * 365 * 86400.0


@pytest.mark.parametrize("jump", [YEARS, -YEARS, 3600.0, -3600.0, 2.5e9])
def test_time__jumps_neither_hang_nor_blind(jump: float) -> None:
    scan = [(i * 0.02, tcp_frame(A, V, 40000, 1 + i, SYN)) for i in range(50)]
    calm = [(i * 0.01, echo("10.0.0.1", "10.0.0.2", bytes(10))) for i in range(5000)]
    jump = max(jump, -1.6e9)
    frames = calm[:100] + [(at + jump, f) for at, f in calm] + [(60 + at + jump, f) for at, f in scan]
    frames += [(65 + jump, calm[0][1])]
    began = time.monotonic()
    found = Rig().send(frames)
    assert time.monotonic() - began < 20
    assert ("port_scan", A, V) in kinds(found)


def test_time__beyond_the_calendar() -> None:
    frames = [(7e9 + i, f) for i, (_, f) in enumerate(FRAMES[:500])]
    Rig().send(frames)


def test_time__one_packet_from_the_future_does_not_blind() -> None:
    scan = [(40 + i * 0.02, tcp_frame(A, V, 40000, 1 + i, SYN)) for i in range(50)]
    refused = [(at + 0.001, tcp_frame(V, A, 1 + i, 40000, RST_ACK)) for i, (at, _) in enumerate(scan)]
    calm = [(i * 0.005, echo("10.0.0.1", "10.0.0.2", bytes(10))) for i in range(8000)]
    frames = [(YEARS, calm[0][1]), *calm, *sorted(scan + refused), (42.0, calm[0][1])]
    assert ("port_scan", A, V) in kinds(Rig().send(frames))


def test_time__alternating_and_negative() -> None:
    r = random.Random(3)
    frames = [(r.choice([0.0, YEARS, -1.69e9, i * 0.1]), f) for i, (_, f) in enumerate(FRAMES[:1500])]
    first = Rig().send(frames)
    assert Rig().send(frames, [10, 77, 500]) == first


def test_tick__judges_while_nothing_comes() -> None:
    rig = Rig()
    frames = [(i * 0.01, tcp_frame(A, V, 40000, 1 + i, SYN)) for i in range(20)]
    from engine.packets import F_TS_NS
    from tests.builders import fill
    from tests.detecting import START_NS

    batch = fill([f for _, f in frames])
    batch.source = "test"
    batch.frames[F_TS_NS, :20] = [START_NS + round(at * 1e9) for at, _ in frames]
    assert not rig.take(batch)
    assert not rig.detector.tick(START_NS + 700_000_000)
    assert kinds(rig.detector.tick(START_NS + 2_000_000_000)) == [("port_scan", A, V)]
    assert not rig.detector.tick(START_NS)


def test_end__what_waits_is_judged() -> None:
    burst = [(i * 0.001, tcp_frame(A, V, 40000, 1 + i, SYN)) for i in range(30)]
    assert kinds(Rig().send(burst)) == [("port_scan", A, V)]


def test_end__the_next_source_may_be_of_another_time() -> None:
    rig = Rig()
    scan = [(i * 0.02, tcp_frame(A, V, 40000, 1 + i, SYN)) for i in range(50)] + [(3.0, echo(A, V))]
    for shift in (0.0, -1e8, 1e8, 0.0):
        assert kinds(rig.send([(at + shift, f) for at, f in scan])) == [("port_scan", A, V)]


# --- bounds ---------------------------------------------------------------------------------------------------------
def test_bounds__forged_sources_evict_and_are_counted() -> None:
    rig = Rig(hosts=512, pairs=512, targets=512, waits=256)
    size = rig.detector.windows.bound_bytes
    frames = [(i * 0.0005, tcp_frame(f"11.{i >> 16}.{i >> 8 & 255}.{i & 255}", V, 1024, 80, SYN)) for i in range(9000)]
    found = rig.send(frames, range(0, 9000, 1000))
    assert kinds(found) == [("syn_flood", None, V)]
    assert len(found) <= 2
    assert rig.detector.windows.evicted > 5000
    assert rig.detector.windows.bound_bytes == size
    assert len(rig.windows) < 50


def test_bounds__a_busy_host_outlives_the_crowd() -> None:
    rig = Rig(hosts=512, pairs=4096, targets=4096)
    scan = [(i * 0.05, tcp_frame(A, V, 40000, 1 + i, SYN)) for i in range(60)]
    crowd = [(i * 0.002, echo(f"11.0.{i >> 8}.{i & 255}", f"12.0.{i >> 8}.{i & 255}")) for i in range(1500)]
    assert ("port_scan", A, V) in kinds(rig.send(sorted(scan + crowd, key=lambda t: t[0])))


def test_kernel__one_layout() -> None:
    for k in (kernel.follow, kernel.hash_hosts, kernel.pass_time):
        assert len(getattr(k, "signatures", [1])) <= 1


def test_layout__fits() -> None:
    assert w.H_COUNTERS + 3 * w.N_COUNTERS <= w.N_HOST
    assert w.N_HOST % 8 == w.H_COUNTERS % 8 == 0  # cache lines
    windows = Windows(8, lambda *_: None, rows=8, hosts=8, pairs=8, targets=8, waits=8)
    rows: Any = windows.hosts, windows.pairs, windows.targets
    assert [len(r) for r in rows] == [8, 8, 8]
