"""Scans, sweeps and floods: what makes each rule speak, and the near miss that does not."""

from __future__ import annotations

import pytest

from tests.detecting import (
    ACK,
    FIN,
    RST_ACK,
    SYN,
    SYN_ACK,
    XMAS,
    arp_frame,
    echo,
    find,
    handshake,
    kinds,
    seconds,
    tcp_frame,
    udp_frame,
    unreachable,
)  # fmt: skip
from tests.flowing import Timed

A, V = "10.0.0.66", "10.0.0.10"


def probes(n: int, flags: int, answer: int | None, gap: float = 0.01) -> list[Timed]:
    out: list[Timed] = []
    for i in range(n):
        out.append((i * gap, tcp_frame(A, V, 40000, 1 + i, flags)))
        if answer is not None:
            out.append((i * gap + 0.0005, tcp_frame(V, A, 1 + i, 40000, answer)))
    return [*out, (n * gap + 2, udp_frame("10.0.0.1", "10.0.0.2", 53, 5353))]


@pytest.mark.parametrize(
    ("flags", "answer", "technique"),
    [(SYN, RST_ACK, "syn"), (SYN, None, "syn"), (FIN, RST_ACK, "fin"), (XMAS, RST_ACK, "xmas"), (0, RST_ACK, "null")],
)
def test_port_scan__ports_that_fail(flags: int, answer: int | None, technique: str) -> None:
    found = find(probes(30, flags, answer))
    assert kinds(found) == [("port_scan", A, V)]
    assert len(found) == 1
    assert found[0].evidence["technique"] == technique
    assert seconds(found[0]) <= 2


def test_port_scan__near_misses() -> None:
    assert not find(probes(11, SYN, RST_ACK))
    assert not find(probes(40, SYN, SYN_ACK))
    assert not find(probes(40, ACK, None))  # the middle of connections
    again = [(i * 0.2, tcp_frame(A, V, 40000 + i, 5432, SYN)) for i in range(40)]  # a service that is down
    assert not find(again)


def test_port_scan__udp_unanswered_or_unreachable() -> None:
    frames = [(i * 0.1, udp_frame(A, V, 40000, 100 + i)) for i in range(30)]
    end = [(6.0, udp_frame("10.0.0.1", "10.0.0.2", 53, 5353))]
    found = find(frames + end)
    assert kinds(found) == [("port_scan", A, V)]
    assert seconds(found[0]) <= 3.5
    refused = [(at + 0.001, unreachable(V, frame)) for at, frame in frames]
    assert seconds(find(frames + refused + end)[0]) <= 2
    answered = [(i * 0.1 + 0.01, udp_frame(V, A, 100 + i, 40000)) for i in range(30)]
    assert not find(frames + answered + end)
    hops = [(i * 0.1, udp_frame(A, V, 40000, 33434 + i)) for i in range(60)]  # traceroute
    assert not find(hops + end)


def test_port_scan__slow_across_a_minute() -> None:
    frames = [(50 + i * 1.0, tcp_frame(A, V, 40000, 1 + i, SYN)) for i in range(20)]
    refused = [(at + 0.001, tcp_frame(V, A, 1 + i, 40000, RST_ACK)) for i, (at, _) in enumerate(frames)]
    found = find(frames + refused)
    assert kinds(found) == [("port_scan", A, V)]
    assert seconds(found[0]) <= 65.5


def test_port_scan__told_again_every_ten_seconds_while_it_goes_on() -> None:
    found = find([*probes(250, SYN, RST_ACK, 0.1), (60.0, udp_frame(A, V, 53, 5353))])
    assert 3 <= len(found) <= 4
    assert [f.count for f in found] == sorted(f.count for f in found)


def sweep(n: int, port: int, live: int = 0, gap: float = 0.05, udp: bool = False) -> list[Timed]:
    out: list[Timed] = []
    for i in range(n):
        host = f"10.0.9.{i + 1}"
        make = udp_frame(A, host, 40000, port) if udp else tcp_frame(A, host, 40000, port, SYN)
        out.append((i * gap, make))
        if i < live:
            out.append((i * gap + 0.001, tcp_frame(host, A, port, 40000, SYN_ACK)))
    return [*out, (n * gap + 2, udp_frame("10.0.0.1", "10.0.0.2", 53, 5353))]


def test_host_sweep__one_port_of_many_hosts() -> None:
    found = find(sweep(40, 445))
    assert kinds(found) == [("host_sweep", A, None)]
    assert found[0].dst_port == 445
    assert not find(sweep(24, 445))
    assert not find(sweep(70, 6881, live=40))  # a peer-to-peer client: 43 % of its peers are gone
    assert not find(sweep(80, 51413, udp=True))
    assert find(sweep(40, 161, udp=True))


def test_ping_sweep() -> None:
    end = [(5.0, udp_frame("10.0.0.1", "10.0.0.2", 53, 5353))]
    asked = [(i * 0.02, echo(A, f"10.0.9.{i + 1}")) for i in range(60)]
    found = find(asked + end)
    assert kinds(found) == [("ping_sweep", A, None)]
    assert seconds(found[0]) <= 2
    answers = [(i * 0.02 + 0.001, echo(f"10.0.9.{i + 1}", A, reply=True)) for i in range(60)]
    assert kinds(find(asked + answers + end)) == [("ping_sweep", A, None)]
    monitor = [(m * 15 + i * 0.02, echo(A, f"10.0.9.{i + 1}")) for m in range(4) for i in range(20)]
    answers = [(at + 0.001, echo(f"10.0.9.{n % 20 + 1}", A, reply=True)) for n, (at, _) in enumerate(monitor)]
    assert not find(monitor + answers)


def test_arp_scan() -> None:
    found = find([(i * 0.015, arp_frame(A, f"10.0.0.{i + 1}")) for i in range(60)])
    assert kinds(found) == [("arp_scan", A, None)]
    assert not find([(i * 0.015, arp_frame(A, f"10.0.0.{i % 12 + 1}")) for i in range(200)])


def test_arp_spoof__claims_against_an_owner_who_is_there() -> None:
    gateway, victim, attacker = "10.0.0.1", "10.0.0.102", A
    calm = [
        (0.0, arp_frame(gateway, victim, 2)), (0.5, arp_frame(victim, gateway, 2)), (1.0, arp_frame(attacker, victim)),
    ]  # fmt: skip
    own = b"\x02\x00" + bytes(map(int, attacker.split(".")))
    forged = [(10.0 + 2 * i, arp_frame(gateway, victim, 2, own)) for i in range(5)]
    found = find(calm + forged)
    assert kinds(found) == [("arp_spoof", attacker, None)]
    assert seconds(found[0]) == 12.0
    assert found[0].evidence["claimed_ip"] == gateway
    assert not find(calm + forged[:1])
    moved = [(10.0 + i, arp_frame(gateway, gateway, 2, own)) for i in range(5)]  # fail-over tells everybody
    assert not find(calm + moved)


# --- floods ---------------------------------------------------------------------------------------------------------
def test_syn_flood__forged_sources_give_one_key() -> None:
    frames = [(i * 0.002, tcp_frame(f"172.16.{i >> 8}.{i & 255}", V, 1024 + i, 80, SYN)) for i in range(2000)]
    found = find(frames)
    assert kinds(found) == [("syn_flood", None, V)]
    assert seconds(found[0]) <= 1.5


def test_syn_flood__one_source_one_port_but_not_busy_service_nor_scan() -> None:
    flood = [(i * 0.004, tcp_frame(A, V, 1024 + i, 80, SYN)) for i in range(1000)]
    assert kinds(find(flood)) == [("syn_flood", None, V)]
    busy = [f for i in range(600) for f in handshake(i * 0.004, A, V, 1024 + i, 80)]
    assert not find(busy)
    assert not find([(i * 0.02, tcp_frame(A, V, 1024 + i, 80, SYN)) for i in range(200)])  # 50 a second
    assert ("syn_flood", None, V) not in kinds(find(probes(1000, SYN, RST_ACK, 0.002)))


def test_ack_flood() -> None:
    frames = [(i * 0.005, tcp_frame(A, V, 1024 + i, 80, ACK)) for i in range(500)]
    resets = [(at + 0.001, tcp_frame(V, A, 80, 1024 + i, 4)) for i, (at, _) in enumerate(frames)]
    assert kinds(find(frames)) == kinds(find(frames + resets)) == [("ack_flood", None, V)]
    one = [(i * 0.005, tcp_frame(A, V, 1024, 80, ACK, seq=i)) for i in range(500)]
    assert kinds(find(one)) == [("ack_flood", None, V)]
    data = [(i * 0.005, tcp_frame(A, V, 1024 + i, 80, 0x18, bytes(120))) for i in range(500)]
    assert not find(data)  # the other direction may not be captured
    resets = [(at + 0.001, tcp_frame(V, A, 80, 1024 + i, 4)) for i, (at, _) in enumerate(data)]
    assert kinds(find(data + resets)) == [("ack_flood", None, V)]
    download = handshake(0, A, V, 1024, 80) + [(1 + at, f) for at, f in one]
    assert not find(download)


def test_udp_flood() -> None:
    flood = [(i * 0.004, udp_frame(A, V, 1024 + i, 9, bytes(400))) for i in range(1000)]
    assert kinds(find(flood)) == [("udp_flood", None, V)]
    many_ports = [(i * 0.004, udp_frame(A, V, 1024 + i, 100 + i, bytes(400))) for i in range(1000)]
    assert kinds(find(many_ports)) == [("udp_flood", None, V)]
    scan = [(i * 0.004, udp_frame(A, V, 50000, 100 + i, b"")) for i in range(1000)]
    assert kinds(find(scan)) == [("port_scan", A, V)]
    stream = [(i * 0.002, udp_frame(A, V, 5000, 6000, bytes(1200))) for i in range(2000)]  # video, one way
    assert not find(stream)
    answers = [(at + 0.001, udp_frame(V, A, 9, 1024 + i)) for i, (at, _) in enumerate(flood)]
    assert not find(flood + answers)


def test_icmp_flood() -> None:
    assert kinds(find([(i * 0.005, echo(A, V)) for i in range(600)])) == [("icmp_flood", None, V)]
    assert not find([(i * 0.02, echo(A, V)) for i in range(300)])


def test_dns_flood__two_seconds_and_more_than_usual() -> None:
    calm = [(i * 0.1, udp_frame("10.0.0.5", V, 40000, 53, bytes(30))) for i in range(100)]
    calm += [(at + 0.01, udp_frame(V, "10.0.0.5", 53, 40000)) for at, _ in calm]
    flood = [(10 + i * 0.005, udp_frame(A, V, 1024 + i, 53, bytes(40))) for i in range(1000)]
    found = find(calm + flood)
    assert kinds(found) == [("dns_flood", None, V)]
    assert seconds(found[0]) <= 13
    assert not find(calm + flood[:250])  # a burst
    busy = [(i * 0.005, udp_frame("10.0.0.5", V, 1024 + i, 53, bytes(40))) for i in range(4000)]
    busy += [(at + 0.001, udp_frame(V, "10.0.0.5", 53, 1024 + i)) for i, (at, _) in enumerate(busy)]
    assert not find(busy)  # it has always been so
