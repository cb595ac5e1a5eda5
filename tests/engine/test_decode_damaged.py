"""Packets that contradict themselves or end too early: a status, and no field that the bytes do not say."""

from __future__ import annotations

from typing import Any

import pytest

from tests import builders as b
from tests.builders import ethernet, ipv4, ipv6, tcp, udp
from tests.engine.test_decode import ETH4, ETH6, IP_UDP, MACS, TCP, UDP, row


def bad(status: str, **want: Any) -> dict[str, Any]:
    return {"status": status} | want


def test_ipv4__short_header_is_truncated() -> None:
    frame = ethernet(IP_UDP)[: 14 + 19]
    assert row(frame, wirelen=61) == MACS | {"ethertype": 0x0800, "status": "truncated_network"}


@pytest.mark.parametrize("packet", [ipv4(udp(), ihl=4), ipv4(udp(), ihl=0), ipv4(udp(), version=5)])
def test_ipv4__bad_version_or_header_length_has_no_addresses(packet: bytes) -> None:
    assert row(ethernet(packet)) == MACS | {"ethertype": 0x0800, "status": "bad_network"}


def test_ipv4__total_length_below_header() -> None:
    assert row(ethernet(ipv4(udp(), total=19))) == ETH4 | bad("bad_network", proto=17)
    assert row(ethernet(ipv4(udp(), total=23, ihl=6))) == ETH4 | bad("bad_network", proto=17)


def test_ipv4__claims_of_a_cut_frame_are_kept() -> None:
    frame = ethernet(ipv4(udp(length=1008), total=1028))
    assert row(frame, wirelen=1042) == {"status": "ok"} | ETH4 | UDP | {"payload_len": 1000}


def test_ipv6__bad_version() -> None:
    assert row(ethernet(ipv6(udp(), version=4), 0x86DD)) == MACS | {"ethertype": 0x86DD, "status": "bad_network"}


def test_ipv6__extension_longer_than_the_packet() -> None:
    packet = ipv6(b"\x11\x09" + bytes(14), 0)
    assert row(ethernet(packet, 0x86DD)) == ETH6 | bad("bad_network", proto=17)
    assert row(ethernet(ipv6(b"\x11\x00", 60) + bytes(40), 0x86DD)) == ETH6 | bad("bad_network", proto=60)


def test_ipv6__too_many_extensions() -> None:
    chain = udp()
    for _ in range(129):
        chain = b.extension(60 if chain[0] == 60 or chain[1] == 0 else 17, chain)
    assert row(ethernet(ipv6(chain, 60), 0x86DD)) == ETH6 | bad("too_deep", proto=60)


def test_ah__longer_than_the_packet() -> None:
    for frame, known in (
        (ethernet(ipv4(b"\x11\xff" + bytes(30), 51)), ETH4),
        (ethernet(ipv6(b"\x11\x04" + bytes(6), 51) + bytes(40), 0x86DD), ETH6),
    ):
        assert row(frame) == known | bad("bad_network", proto=51)


@pytest.mark.parametrize("offset", [0, 4, 15])
def test_tcp__bad_data_offset(offset: int) -> None:
    want = {k: v for k, v in TCP.items() if k != "payload_len"}
    assert row(ethernet(ipv4(tcp(offset=offset), 6))) == ETH4 | want | bad("bad_transport")


@pytest.mark.parametrize("length", [1, 7, 28, 65535])
def test_udp__length_contradicts_ip(length: int) -> None:
    assert row(ethernet(ipv4(udp(length=length)))) == ETH4 | UDP | bad("bad_transport")


@pytest.mark.parametrize("proto", [1, 2, 6, 17, 33, 47, 50, 58, 132, 136])
def test_transport__ip_ends_inside_the_header(proto: int) -> None:
    """Whatever pads the frame behind the IP packet is not read as a header."""
    got = row(ethernet(ipv4(b"\x01\x01\x01", proto) + b"\x5a" * 60))
    assert got.pop("icmp_type", 1) == got.pop("icmp_code", 1) == 1
    assert got == ETH4 | bad("bad_transport", proto=proto)


def test_udp__seven_bytes_claim_no_payload() -> None:
    got = row(ethernet(ipv4(udp()[:7]) + b"\x5a" * 60))
    assert got == ETH4 | bad("bad_transport", proto=17, src_port=5353, dst_port=53)


@pytest.mark.parametrize(("proto", "inner"), [(4, IP_UDP), (41, ipv6(udp())), (47, b.gre(IP_UDP))])
def test_tunnel__later_fragment_carries_no_header(proto: int, inner: bytes) -> None:
    got = row(ethernet(ipv4(inner, proto, fragment=0x0010)))
    assert got == ETH4 | bad("ok", proto=proto, is_fragment=True, payload_len=len(inner))


def test_tunnel__padding_is_not_an_inner_packet() -> None:
    for proto, header in ((4, b""), (47, b.gre(b"")), (17, b.vxlan(b"")), (17, b.geneve(b"")), (17, b.gtpu(b""))):
        inner = IP_UDP if proto == 4 or header == b.gre(b"") or header == b.gtpu(b"") else ethernet(IP_UDP)
        got = row(ethernet(ipv4(header, proto) + inner))
        assert not [k for k in got if k.startswith("inner_")], proto


def test_tunnel__damaged_inner_packet_leaves_the_outer_row_ok() -> None:
    got = row(ethernet(ipv4(ipv4(udp(), ihl=3), 4)))
    assert got == ETH4 | bad("ok", proto=4, payload_len=47, encap="ipip")


def test_arp__cut() -> None:
    frame = ethernet(b.arp(), 0x0806)
    assert row(frame[:41]) == MACS | {"ethertype": 0x0806, "status": "truncated_network"}


def test_stack__too_deep() -> None:
    packet, kind = IP_UDP, 0x0800
    for _ in range(30):
        packet, kind = b.tag(5, kind, packet), 0x8100
    want = MACS | {"ethertype": 0x8100, "vlan": 5, "vlan_inner": 5, "status": "too_deep"}
    assert row(ethernet(packet, 0x8100)) == want
    assert row(ethernet(b.mpls([16] * 40, IP_UDP), 0x8847)) == MACS | {"ethertype": 0x8847, "status": "too_deep"}
