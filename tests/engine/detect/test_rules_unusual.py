"""What is worth a look but no attack by itself."""

from __future__ import annotations

import random

from tests.detecting import SYN, Talk, echo, find, kinds, tcp_frame
from tests.flowing import Timed

A, V = "10.0.0.66", "10.0.0.10"
NOISE = random.Random(1).randbytes(40_000)


def upload(data: bytes, port: int) -> list[Timed]:
    talk = Talk(0, A, V, 40000, port)
    for at in range(0, len(data), 1400):
        talk.say(data[at : at + 1400], pause=0.02)
    return talk.frames


def test_high_entropy__where_text_is_usual() -> None:
    found = find(upload(NOISE, 80))
    assert [(f.kind, f.severity) for f in found] == [("high_entropy", "low")]
    assert not find(upload(NOISE, 443))
    assert not find(upload(NOISE[:10_000], 80))
    assert not find(upload(b"all is well with sensor 17. " * 2000, 80))


def test_source_flood__many_hosts_at_once() -> None:
    frames = [(i * 0.0005, tcp_frame(A, f"11.0.{i >> 8}.{i & 255}", 1024 + i, 1 + i % 20000, SYN)) for i in range(4000)]
    assert kinds(find(frames)) == [("source_flood", A, None)]
    assert not find([(i * 0.01, f) for i, (_, f) in enumerate(frames[:500])])


def test_new_host__after_an_hour_only() -> None:
    usual = [(i * 20.0, echo(A, V)) for i in range(200)]
    late = [(3700.0, echo("10.0.0.77", V))]
    assert kinds(find(usual + late)) == [("new_host", "10.0.0.77", None)]
    assert not find([*usual, (3000.0, echo("10.0.0.77", V))])
    assert not find([*usual, (3700.0, echo("198.51.100.7", V))])
    crowd = [(3700.0 + i / 100, echo(f"10.7.0.{i}", V)) for i in range(50)]
    assert not find(usual + crowd)


def test_too_little_traffic__a_link_that_went_away() -> None:
    busy = [(i * 0.04, echo(A, V)) for i in range(25_000)]
    quiet = [(1000 + i * 10, echo(A, V)) for i in range(30)]
    found = [f for f in find(busy[:32_000] + quiet) if f.kind == "too_little_traffic"]
    assert found
    assert found[0].severity == "low"
    assert not find(busy)
    assert not find(quiet)
