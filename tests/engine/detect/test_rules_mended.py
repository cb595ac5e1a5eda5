"""What the corpus of others' captures showed to be wrong, as made-up packets; see docs/detection.md."""

from __future__ import annotations

from engine.packets import F_TS_NS
from tests.builders import ah, arp, ethernet, fill, icmp, ipv6, sll
from tests.detecting import FIN, RST_ACK, START_NS, XMAS, Rig, arp_frame, find, ip, kinds, tcp_frame, udp_frame
from tests.flowing import Timed

A, V = "10.0.0.66", "10.0.0.10"


def probes(*flags: int) -> list[Timed]:
    """One probe each second, refused."""
    out: list[Timed] = []
    for n, flag in enumerate(flags):
        out.append((n * 1.0, tcp_frame(A, V, 40_000 + n, 3390 + n, flag)))
        out.append((n * 1.0 + 0.001, tcp_frame(V, A, 3390 + n, 40_000 + n, RST_ACK)))
    return [*out, (len(flags) + 2.0, udp_frame("10.0.0.1", "10.0.0.2", 53, 5353))]


def test_port_scan__few_probes_that_no_tcp_sends() -> None:
    assert kinds(find(probes(FIN, 0, XMAS))) == [("port_scan", A, V)]
    assert kinds(find(probes(0, 0, XMAS))) == [("port_scan", A, V)]
    assert not find(probes(0, XMAS))
    assert not find(probes(FIN, FIN, FIN, FIN, FIN))  # ends of connections that nobody remembers
    assert not find([(at, frame) for at, frame in probes(0) for _ in range(9)])  # one port, again and again


def v6(kind: int, n: int, behind_ah: bool = False) -> bytes:
    message = icmp(bytes(40) + n.to_bytes(4, "big"), kind)
    packet = ipv6(ah(58, message), 51) if behind_ah else ipv6(message, 58)
    return ethernet(packet, 0x86DD)


def test_icmp_flood__of_ipv6_whatever_it_asks() -> None:
    for kind, behind_ah in ((128, False), (128, True), (131, False), (135, False)):
        found = find([(n * 0.005, v6(kind, n, behind_ah)) for n in range(600)])
        assert [f.kind for f in found] == ["icmp_flood"], (kind, behind_ah)
        assert found[0].proto == 58
    for kind in (1, 3, 129, 136):  # errors and answers
        assert not find([(n * 0.005, v6(kind, n)) for n in range(600)]), kind


def test_arp__without_an_ethernet_header_nobody_claims() -> None:
    rig = Rig()
    others = [(n * 0.1, arp_frame(f"10.0.0.{n % 2 + 1}", "10.0.0.9")) for n in range(8)]
    assert rig.send(others) == []  # leaves two Ethernet addresses by turns in the rows of the batch
    cooked = fill([sll(arp(2, ip("10.0.0.30"), ip("10.0.0.9")), 0x0806) for _ in range(8)], link_type=113)
    cooked.frames[F_TS_NS, :8] = [START_NS + (10 + n) * 10**9 for n in range(8)]
    assert rig.take(cooked) + rig.end() == []
