"""Rules that compare with what was usual: spikes, services, uploads."""

from __future__ import annotations

from typing import Any

import pytest

from tests.detecting import ACK, PSH_ACK, RST_ACK, SYN, SYN_ACK, Talk, find, handshake, seconds, tcp_frame, udp_frame
from tests.flowing import Timed

CLIENT, SERVER, OUTSIDE = "10.0.0.7", "10.0.0.9", "93.184.216.34"
SPIKE = {"pps_spike": {"sensor_floor": 50, "host_floor": 40, "learn_s": 10.0}}


def stream(start: float, seconds_: int, per_s: int, dst: str = SERVER, size: int = 20) -> list[Timed]:
    frame = udp_frame(CLIENT, dst, 5000, 6000, bytes(size))
    return [(start + n / per_s, frame) for n in range(seconds_ * per_s)]


def told(timed: list[Timed], kind: str, rules: Any) -> list[Any]:
    return [f for f in find(timed, rules) if f.kind == kind]


def test_spike__of_the_sensor_and_of_a_host() -> None:
    found = told(stream(0, 20, 10) + stream(20, 6, 100), "pps_spike", SPIKE)
    assert {(f.dst_ip, f.severity) for f in found} == {(None, "low"), (SERVER, "low")}
    assert all(22.9 <= seconds(f) <= 24.1 for f in found)  # three seconds in a row
    sensor = next(f for f in found if f.dst_ip is None)
    assert 90 <= sensor.evidence["per_s"] <= 110
    assert 9 <= sensor.evidence["usual_per_s"] <= 15


@pytest.mark.parametrize(
    "timed",
    [
        stream(0, 20, 10) + stream(20, 2, 100),  # too short
        stream(0, 20, 30) + stream(20, 6, 100),  # less than five times the usual, for sensor and host
        stream(0, 20, 5) + stream(20, 6, 35),  # below the floors
        stream(0, 6, 100),  # nothing is known yet
        stream(0, 20, 10) + [(86_400 + at, f) for at, f in stream(0, 6, 100)],  # another day: the clock jumped
    ],
)
def test_spike__is_not(timed: list[Timed]) -> None:
    assert told(timed, "pps_spike", SPIKE) == []


def test_service__that_a_known_host_did_not_have() -> None:
    rules = {"new_service": {"learn_s": 100.0}}
    usual = [f for n in range(12) for f in handshake(n * 10.0, CLIENT, SERVER, 4000 + n, 80)]
    new = handshake(130, CLIENT, SERVER, 5000, 4444) + handshake(140, CLIENT, SERVER, 5001, 4444)
    (found,) = told(usual + new, "new_service", rules)
    assert (found.dst_ip, found.dst_port, found.severity) == (SERVER, 4444, "low")
    assert found.evidence["first_client"] == CLIENT


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (handshake(50, CLIENT, SERVER, 5000, 4444), "the host is not known for long"),
        (handshake(130, CLIENT, "10.0.0.10", 5000, 4444), "the host is new itself"),
        (handshake(130, CLIENT, OUTSIDE, 5000, 4444), "not a host of ours"),
        (handshake(130, CLIENT, SERVER, 5000, 40_000), "a dynamic port"),
        (
            [
                (130, tcp_frame(CLIENT, SERVER, 5000, 4444, SYN)),
                (130.1, tcp_frame(SERVER, CLIENT, 4444, 5000, RST_ACK)),
            ],
            "refused",
        ),
    ],
)
def test_service__is_not(new: list[Timed], why: str) -> None:
    usual = [f for n in range(15) for f in handshake(n * 10.0, CLIENT, SERVER, 4000 + n, 80)]
    usual += [f for n in range(15) for f in handshake(n * 10.0, CLIENT, OUTSIDE, 6000 + n, 80)]
    assert told(usual + new, "new_service", {"new_service": {"learn_s": 100.0}}) == [], why


def upload(start: float, total: int, dst: str = OUTSIDE, src: str = CLIENT, back: int = 0) -> list[Timed]:
    port = 7000 + int(start)
    timed = [
        (start, tcp_frame(src, dst, port, 443, SYN)),
        (start + 0.001, tcp_frame(dst, src, 443, port, SYN_ACK)),
        (start + 0.002, tcp_frame(src, dst, port, 443, ACK, seq=1001)),
    ]
    timed += [
        (start + 0.01 + n * 0.01, tcp_frame(src, dst, port, 443, PSH_ACK, bytes(1000), 1001 + n * 1000))
        for n in range(total // 1000)
    ]
    return timed + [
        (start + 0.015 + n * 0.01, tcp_frame(dst, src, 443, port, PSH_ACK, bytes(1000), 1001 + n * 1000))
        for n in range(back // 1000)
    ]


UPLOAD = {"unusual_upload": {"least_bytes": 50_000, "learn_minutes": 3}}
USUAL = [f for minute in range(6) for f in upload(minute * 60 + 5, 10_000)]


def uploads(timed: list[Timed]) -> list[Any]:
    return [f for f in find(timed, UPLOAD) if f.kind == "exfiltration" and "usual_most" in f.evidence]


def test_upload__far_above_what_the_host_ever_sent() -> None:
    (found,) = uploads(USUAL + upload(365, 200_000) + upload(430, 1_000))
    assert (found.src_ip, found.dst_ip, found.severity) == (CLIENT, OUTSIDE, "medium")
    assert found.evidence["bytes"] == 200_000
    assert 9_900 <= found.evidence["usual_most"] <= 10_000
    assert (seconds(found), found.ts - found.first_ts) == (420, 60_000_000)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (upload(365, 40_000), "less than the least"),
        (upload(365, 200_000, dst=SERVER), "to a host of ours"),
        (upload(365, 200_000, back=150_000), "as much came back"),
        (upload(365, 200_000, src="10.0.0.8"), "a host that is not known yet"),
        (upload(305, 190_000) + upload(365, 200_000), "the second is usual by then"),
    ],
)
def test_upload__is_not(more: list[Timed], why: str) -> None:
    found = uploads(USUAL + more + upload(430, 1_000))
    assert len(found) == (1 if "second" in why else 0), why


@pytest.mark.parametrize(("line", "count"), [("AUTH PLAIN AGFubgBwdw==", 1), ("AUTH LOGIN", 1), ("AUTH CRAM-MD5", 0)])
def test_smtp__password_outside_of_tls(line: str, count: int) -> None:
    talk = Talk(0, CLIENT, SERVER, 4000, 25)
    for server, text in (
        (True, "220 mail.example ESMTP"), (False, "EHLO me"), (True, "250 AUTH PLAIN LOGIN CRAM-MD5"), (False, line),
        (True, "235 ok"), (False, "QUIT"), (True, "221 bye"),
    ):  # fmt: skip
        talk.say(f"{text}\r\n".encode(), from_client=not server)
    found = told(talk.frames, "cleartext_credentials", None)
    assert len(found) == count
    if found:
        assert "(SMTP " in found[0].why
        assert "pw" not in repr(found[0])
