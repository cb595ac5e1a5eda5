"""One expectation per encapsulation: every column of the row, NULL (None) where the frame says nothing."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from engine.packets import STATUS_NAMES
from tests import builders as b
from tests.builders import TEXT, decode, ethernet, ipv4, ipv6, tcp, udp

MACS = {"src_mac": "02:00:00:c0:ff:ee", "dst_mac": "0a:1b:2c:3d:4e:5f"}
IP4 = {"ip_version": 4, "src_ip": "10.1.2.3", "dst_ip": "192.0.2.200", "ttl": 64, "is_fragment": False}
IP6 = {
    "ip_version": 6, "src_ip": "2001:db8::1", "dst_ip": "fe80::211:22ff:fe33:4455", "ttl": 64, "is_fragment": False,
}  # fmt: skip
ETH4 = {**MACS, **IP4, "ethertype": 0x0800}
ETH6 = {**MACS, **IP6, "ethertype": 0x86DD}
UDP = {"proto": 17, "src_port": 5353, "dst_port": 53, "payload_len": len(TEXT)}
TCP = {
    "proto": 6, "src_port": 40000, "dst_port": 443, "tcp_seq": 0xFEDCBA98, "tcp_ack": 0x89ABCDEF, "tcp_flags": 0x18,
    "tcp_window": 0xFFF0, "payload_len": len(TEXT),
}  # fmt: skip
INNER = {
    "inner_src_ip": "10.1.2.3", "inner_dst_ip": "192.0.2.200", "inner_proto": 17, "inner_src_port": 5353,
    "inner_dst_port": 53,
}  # fmt: skip
INNER6 = {**INNER, "inner_src_ip": "2001:db8::1", "inner_dst_ip": "fe80::211:22ff:fe33:4455"}
ALWAYS = {"ts", "ts_nanos", "source", "frame_no", "wirelen", "caplen"}


def row(frame: bytes, link_type: int = 1, wirelen: int | None = None) -> dict[str, Any]:
    """What is known of the frame: no column that is NULL, none that every frame has, and no entropy."""
    (full,) = decode([frame], link_type, [wirelen] if wirelen is not None else None)
    return {k: v for k, v in full.items() if v is not None and k not in ALWAYS and k != "entropy"}


IP_UDP = ipv4(udp())
ENCAPSULATIONS: list[tuple[str, int, bytes, dict[str, Any]]] = [
    ("ethernet_udp", 1, ethernet(IP_UDP), ETH4 | UDP),
    ("ethernet_tcp", 1, ethernet(ipv4(tcp(), 6)), ETH4 | TCP),
    ("tcp_options", 1, ethernet(ipv4(tcp(options=b"\x01" * 40), 6)), ETH4 | TCP),
    ("ethernet_ipv6", 1, ethernet(ipv6(tcp(), 6), 0x86DD), ETH6 | TCP),
    ("llc_snap", 1, b.ieee8023(IP_UDP, b.snap(0x0800)), MACS | IP4 | UDP),
    ("llc_snap_bridge_tunnel", 1, b.ieee8023(IP_UDP, b.snap(0x0800, 0xF8)), MACS | IP4 | UDP),
    ("llc_ip", 1, b.ieee8023(IP_UDP, b"\x06\x06\x03"), MACS | IP4 | UDP),
    ("llc_stp", 1, b.ieee8023(bytes(35), b"\x42\x42\x03"), MACS | {"status": "not_ip"}),
    ("snap_other", 1, b.ieee8023(bytes(20), b.snap(0x2000, 0xC)), MACS | {"status": "not_ip"}),
    ("vlan", 1, ethernet(b.tag(77, 0x0800, IP_UDP, 5), 0x8100), ETH4 | UDP | {"ethertype": 0x8100, "vlan": 77}),
    ("vlan_llc_snap", 1, ethernet(b.tag(77, 8 + len(IP_UDP), b.snap(0x0800) + IP_UDP), 0x8100),
     ETH4 | UDP | {"ethertype": 0x8100, "vlan": 77}),
    ("qinq", 1, ethernet(b.tag(4094, 0x8100, b.tag(0, 0x86DD, ipv6(udp()))), 0x88A8),
     ETH6 | UDP | {"ethertype": 0x88A8, "vlan": 4094, "vlan_inner": 0}),
    ("three_tags", 1, ethernet(b.tag(1, 0x8100, b.tag(2, 0x8100, b.tag(3, 0x0800, IP_UDP))), 0x9100),
     ETH4 | UDP | {"ethertype": 0x9100, "vlan": 1, "vlan_inner": 2}),
    ("mpls", 1, ethernet(b.mpls([16, 17, 18], IP_UDP), 0x8847), ETH4 | UDP | {"ethertype": 0x8847}),
    ("mpls_ipv6", 1, ethernet(b.mpls([16], ipv6(udp())), 0x8848), ETH6 | UDP | {"ethertype": 0x8848}),
    ("mpls_pseudowire", 1, ethernet(b.mpls([16], ethernet(IP_UDP, dst=b"\xfe" * 6)), 0x8847),
     ETH4 | UDP | {"ethertype": 0x8847}),
    ("mpls_pseudowire_control_word", 1,
     ethernet(b.mpls([16], bytes(4) + ethernet(b.tag(9, 0x0800, IP_UDP), 0x8100)), 0x8847),
     ETH4 | UDP | {"ethertype": 0x8847}),
    ("mpls_associated_channel", 1, ethernet(b.mpls([16], b"\x10" + bytes(30)), 0x8847),
     MACS | {"ethertype": 0x8847, "status": "not_ip"}),
    ("pppoe", 1, ethernet(b.pppoe(IP_UDP), 0x8864), ETH4 | UDP | {"ethertype": 0x8864}),
    ("pppoe_short_protocol", 1, ethernet(b.pppoe(ipv6(udp()), b"\x57"), 0x8864), ETH6 | UDP | {"ethertype": 0x8864}),
    ("pppoe_lcp", 1,
     ethernet(b.pppoe(bytes(8), b"\xc0\x21"), 0x8864), MACS | {"ethertype": 0x8864, "status": "not_ip"}),
    ("pbb", 1, ethernet(bytes(16) + b"\x08\x00" + IP_UDP, 0x88E7), ETH4 | UDP | {"ethertype": 0x88E7}),
    ("etag", 1, ethernet(bytes(6) + b"\x08\x00" + IP_UDP, 0x893F), ETH4 | UDP | {"ethertype": 0x893F}),
    ("nsh", 1,
     ethernet(b"\x00\x06\x01\x03" + bytes(20) + ethernet(IP_UDP), 0x894F), ETH4 | UDP | {"ethertype": 0x894F}),
    ("arp", 1, ethernet(b.arp(2), 0x0806),
     MACS | {"ethertype": 0x0806, "arp_op": 2,
      "arp_src_ip": "10.1.2.3", "arp_dst_ip": "192.0.2.200", "status": "not_ip"}),
    ("arp_not_for_ipv4", 1, ethernet(b"\0\1\x80\x9b\6\3\0\1" + bytes(20), 0x0806),
     MACS | {"ethertype": 0x0806, "status": "not_ip"}),
    ("lldp", 1, ethernet(bytes(40), 0x88CC), MACS | {"ethertype": 0x88CC, "status": "not_ip"}),
    ("sll", 113, b.sll(IP_UDP), IP4 | UDP | {"ethertype": 0x0800}),
    ("sll_llc", 113, b.sll(b.snap(0x0800) + IP_UDP, 4), IP4 | UDP),
    ("sll2", 276, b.sll2(ipv6(udp()), 0x86DD), IP6 | UDP | {"ethertype": 0x86DD}),
    ("sll2_vlan", 276, b.sll2(b.tag(5, 0x0800, IP_UDP), 0x8100), IP4 | UDP | {"ethertype": 0x8100, "vlan": 5}),
    ("null", 0, b.null(IP_UDP), IP4 | UDP),
    ("null_other_order", 0, b.null(IP_UDP, order=">"), IP4 | UDP),
    *((f"null_af{n}", 0, b.null(ipv6(udp()), n), IP6 | UDP) for n in (10, 24, 28, 30)),
    ("null_other_family", 0, b.null(bytes(40), 7), {"status": "not_ip"}),
    ("loop", 108, b.null(ipv6(udp()), 24, ">"), IP6 | UDP),
    *((f"raw{n}", n, IP_UDP, IP4 | UDP) for n in (12, 14, 101, 228)),
    *((f"raw6_{n}", n, ipv6(udp()), IP6 | UDP) for n in (12, 14, 101, 229)),
    ("raw_neither", 101, b"\x50" + bytes(60), {"status": "not_ip"}),
    ("unsupported_link", 127, IP_UDP, {"status": "unsupported_link"}),
    ("unknown_link", -1, IP_UDP, {"status": "unsupported_link"}),
    ("ipv4_options", 1, ethernet(ipv4(udp(), options=b"\x01" * 40)), ETH4 | UDP),
    ("ipv4_first_fragment", 1, ethernet(ipv4(udp(length=4000), fragment=0x2000)), ETH4 | UDP | {"is_fragment": True}),
    ("ipv4_later_fragment", 1, ethernet(ipv4(TEXT, fragment=0x2001)),
     ETH4 | {"proto": 17, "is_fragment": True, "payload_len": len(TEXT)}),
    ("ipv4_dont_fragment", 1, ethernet(ipv4(udp(), fragment=0x4000)), ETH4 | UDP),
    ("ipv4_total_length_0", 1, ethernet(ipv4(tcp(), 6, total=0)), ETH4 | TCP),
    ("ipv6_hop_by_hop", 1, ethernet(ipv6(b.extension(17, udp(), 3), 0), 0x86DD), ETH6 | UDP),
    ("ipv6_chain", 1,
     ethernet(ipv6(b.extension(43, b.extension(60, b.extension(44, b.fragment6(6, tcp())))), 0), 0x86DD),
     ETH6 | TCP),
    ("ipv6_first_fragment", 1, ethernet(ipv6(b.fragment6(17, udp(length=4000), more=True), 44), 0x86DD),
     ETH6 | UDP | {"is_fragment": True}),
    ("ipv6_later_fragment", 1, ethernet(ipv6(b.fragment6(17, TEXT, 3), 44), 0x86DD),
     ETH6 | {"proto": 17, "is_fragment": True, "payload_len": len(TEXT)}),
    ("ipv6_later_fragment_of_options", 1, ethernet(ipv6(b.fragment6(60, TEXT, 3), 44), 0x86DD),
     ETH6 | {"proto": 60, "is_fragment": True, "payload_len": len(TEXT)}),
    ("ipv6_ah", 1, ethernet(ipv6(b.ah(6, tcp()), 51), 0x86DD), ETH6 | TCP | {"proto": 51}),
    ("ipv6_no_next", 1, ethernet(ipv6(b"", 59), 0x86DD), ETH6 | {"proto": 59}),
    ("ipv6_jumbo_length_0", 1, ethernet(ipv6(udp(), length=0), 0x86DD), ETH6 | UDP),
    ("ipv4_ah", 1, ethernet(ipv4(b.ah(17, udp()), 51)), ETH4 | UDP | {"proto": 51}),
    ("udp_length_0", 1, ethernet(ipv4(udp(length=0))), ETH4 | UDP),
    ("udp_shorter_than_ip", 1, ethernet(ipv4(udp(length=12))), ETH4 | UDP | {"payload_len": 4}),
    ("udp_lite", 1, ethernet(ipv4(udp(length=8), 136)), ETH4 | UDP | {"proto": 136}),
    ("sctp", 1, ethernet(ipv4(b.sctp(), 132)),
     ETH4 | {"proto": 132, "src_port": 2905, "dst_port": 36412, "payload_len": len(TEXT)}),
    ("dccp", 1, ethernet(ipv4(b.dccp(), 33)),
     ETH4 | {"proto": 33, "src_port": 5001, "dst_port": 5002, "payload_len": len(TEXT)}),
    ("icmp", 1, ethernet(ipv4(b.icmp(), 1)), ETH4 | {"proto": 1, "icmp_type": 8, "icmp_code": 0, "payload_len": 19}),
    ("icmp_error_keeps_no_inner", 1, ethernet(ipv4(b.icmp(ipv4(udp()), 3, 13), 1)),
     ETH4 | {"proto": 1, "icmp_type": 3, "icmp_code": 13, "payload_len": 47}),
    ("icmpv6", 1, ethernet(ipv6(b.icmp(TEXT, 135, 1), 58), 0x86DD),
     ETH6 | {"proto": 58, "icmp_type": 135, "icmp_code": 1, "payload_len": 19}),
    ("igmp", 1, ethernet(ipv4(b.igmp(), 2)), ETH4 | {"proto": 2}),
    ("esp", 1, ethernet(ipv4(b.esp(), 50)), ETH4 | {"proto": 50, "payload_len": len(TEXT)}),
    ("other_protocol", 1, ethernet(ipv4(TEXT, 89)), ETH4 | {"proto": 89, "payload_len": len(TEXT)}),
    ("ipip", 1, ethernet(ipv4(IP_UDP, 4)), ETH4 | INNER | {"proto": 4, "payload_len": 47, "encap": "ipip"}),
    ("6in4", 1, ethernet(ipv4(ipv6(udp()), 41)), ETH4 | INNER6 | {"proto": 41, "payload_len": 67, "encap": "6in4"}),
    ("gre", 1, ethernet(ipv4(b.gre(IP_UDP), 47)), ETH4 | INNER | {"proto": 47, "payload_len": 47, "encap": "gre"}),
    ("gre_all_fields", 1, ethernet(ipv4(b.gre(ipv6(udp()), 0x86DD, csum=True, key=True, seq=True), 47)),
     ETH4 | INNER6 | {"proto": 47, "payload_len": 67, "encap": "gre"}),
    ("gre_ethernet", 1, ethernet(ipv4(b.gre(ethernet(IP_UDP), 0x6558, key=True), 47)),
     ETH4 | INNER | {"proto": 47, "payload_len": 61, "encap": "gre"}),
    ("gre_erspan", 1, ethernet(ipv4(b.gre(bytes(8) + ethernet(IP_UDP), 0x88BE, seq=True), 47)),
     ETH4 | INNER | {"proto": 47, "payload_len": 69, "encap": "gre"}),
    ("gre_other", 1, ethernet(ipv4(b.gre(TEXT, 0x9000), 47)), ETH4 | {"proto": 47, "payload_len": 19, "encap": "gre"}),
]  # fmt: skip
VX = {"proto": 17, "src_port": 55555}
TUNNELS: list[tuple[str, int, bytes, dict[str, Any]]] = [
    ("vxlan", 1, ethernet(ipv4(b.vxlan(ethernet(b.tag(3, 0x0800, IP_UDP), 0x8100)))),
     ETH4 | VX | INNER | {"dst_port": 4789, "payload_len": 73, "encap": "vxlan"}),
    ("vxlan_without_the_flag", 1, ethernet(ipv4(b.vxlan(ethernet(IP_UDP), 0))),
     ETH4 | VX | {"dst_port": 4789, "payload_len": 69}),
    ("geneve", 1, ethernet(ipv6(b.geneve(ethernet(ipv6(udp()), 0x86DD), options=bytes(12))), 0x86DD),
     ETH6 | VX | INNER6 | {"dst_port": 6081, "payload_len": 101, "encap": "geneve"}),
    ("geneve_ip", 1, ethernet(ipv4(b.geneve(IP_UDP, 0x0800))),
     ETH4 | VX | INNER | {"dst_port": 6081, "payload_len": 55, "encap": "geneve"}),
    ("gtpu", 1, ethernet(ipv4(b.gtpu(ipv6(udp())))),
     ETH4 | INNER6 | {"proto": 17, "src_port": 2152, "dst_port": 2152, "payload_len": 75, "encap": "gtpu"}),
    ("gtpu_extensions", 1, ethernet(ipv4(b.gtpu(IP_UDP, extensions=b"\x85\x01\0\0\x85\x02\0\0\0\0\0\0\0"))),
     ETH4 | INNER | {"proto": 17, "src_port": 2152, "dst_port": 2152, "payload_len": 71, "encap": "gtpu"}),
    ("gtpu_echo", 1, ethernet(ipv4(b.gtpu(b"", message=1))),
     ETH4 | {"proto": 17, "src_port": 2152, "dst_port": 2152, "payload_len": 8}),
]  # fmt: skip
CASES = ENCAPSULATIONS + TUNNELS


each_case = pytest.mark.parametrize(("link_type", "frame", "want"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
# Where the IP header has no length, the frame's end is the packet's.
PADDED = [c for c in CASES if c[1] == 1 and c[0] not in ("ipv4_total_length_0", "ipv6_jumbo_length_0")]


@each_case
def test_encapsulation__every_column(link_type: int, frame: bytes, want: dict[str, Any]) -> None:
    assert row(frame, link_type) == {"status": "ok"} | want


@each_case
def test_encapsulation__cut_anywhere(link_type: int, frame: bytes, want: dict[str, Any]) -> None:
    """Cut by a snaplen at every length: a field is as in the whole frame, or NULL, and status says where it ended."""
    whole = {"status": "ok"} | want
    cuts = [frame[:n] for n in range(len(frame))]
    for n, got in enumerate(decode(cuts, link_type, [len(frame)] * len(cuts), poison=0x45)):
        known = {k: v for k, v in got.items() if v is not None and k not in ALWAYS and k not in ("entropy", "status")}
        if got["status"] == "truncated_network" and got["ip_version"] == 6:  # by the headers before the cut
            del known["is_fragment"], known["proto"]
        assert known.items() <= whole.items(), n
        assert got["status"] in STATUS_NAMES
        assert got["status"] == whole["status"] or got["status"].startswith("truncated_"), n
        assert (got["caplen"], got["wirelen"]) == (n, len(frame))


@pytest.mark.parametrize(("frame", "want"), [c[2:] for c in PADDED], ids=[c[0] for c in PADDED])
def test_encapsulation__padding_is_not_payload(frame: bytes, want: dict[str, Any]) -> None:
    """Trailing bytes that IP does not count change nothing but the frame's own length."""
    assert row(frame + b"\xa5" * 30) == {"status": "ok"} | want
    (whole,), (padded,) = decode([frame]), decode([frame + b"\xa5" * 30])
    assert whole["entropy"] == padded["entropy"]


def test_status__frame_of_no_bytes() -> None:
    assert row(b"") == {"status": "truncated_link"}
    for link_type in (0, 12, 101, 108, 113, 276):
        assert row(b"", link_type) == {"status": "truncated_link"}
    assert row(b"", 228) == row(b"", 229) == {"status": "truncated_network"}


def test_columns__lengths_times_and_numbers() -> None:
    rows = decode([ethernet(IP_UDP), b""], wirelens=[9000, 70])
    assert [(r["wirelen"], r["caplen"], r["frame_no"], r["ts_nanos"]) for r in rows] == [
        (9000, 61, 1, 789),
        (70, 0, 2, 790),
    ]
    assert rows[0]["ts"].isoformat() == "2023-11-14T22:13:20.123456"
    assert ipaddress.ip_address(rows[0]["src_ip"]) == ipaddress.ip_address("10.1.2.3")
