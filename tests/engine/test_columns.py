"""Batches as Arrow: right text, right NULLs, no copies."""

from __future__ import annotations

import ipaddress
import socket

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import packets as k
from engine.columns import Columns
from engine.decode import Decoder
from engine.kernels import address as kernel
from engine.packets import PacketBatch
from engine.tables import arrow_schema
from tests import builders as b
from tests.builders import decoder, ethernet, fill, ipv4, ipv6, tcp, udp

FRAMES = [
    ethernet(ipv4(udp())),
    ethernet(ipv6(tcp(), 6), 0x86DD),
    ethernet(b.arp(), 0x0806),
    ethernet(b.tag(7, 0x0800, ipv4(b.vxlan(ethernet(ipv6(udp(), src=bytes(16)), 0x86DD)))), 0x8100),
    ethernet(ipv4(b.icmp(), 1, src=bytes([1, 1, 1, 1]))),
    b"",
]


def six(text: str) -> int:
    return int(ipaddress.IPv6Address(text))


def format_all(values: list[int], kind: int) -> list[str]:
    entries = np.array([[v >> 64 for v in values], [v & (2**64 - 1) for v in values]], np.uint64)
    offsets, text = np.empty(len(values) + 1, np.int32), np.full(len(values) * kernel.MAX_TEXT, 0x58, np.uint8)
    kernel.format_addresses(entries, np.full(len(values), kind, np.uint8), len(values), offsets, text)
    return [text[offsets[i] : offsets[i + 1]].tobytes().decode() for i in range(len(values))]


def expected6(value: int) -> str:
    """RFC 5952 by Python's ipaddress; IPv4-mapped addresses with dots (section 5), as inet_ntop writes them."""
    address = ipaddress.IPv6Address(value)
    return f"::ffff:{address.ipv4_mapped}" if address.ipv4_mapped else ipaddress.IPv6Address(value).compressed


ADVERSARIAL = [six(a) for a in (
    "::", "::1", "1::", "::ffff:0:0", "::ffff:1.2.3.4", "::ffff:255.255.255.255", "::1.2.3.4", "64:ff9b::1.2.3.4",
    "::fffe:1:1", "0:0:0:0:1::", "1:0:0:2:0:0:0:3", "1:0:0:2:0:0:3:4", "1:0:2:3:4:5:6:7", "0:1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:0", "0:0:1:2:3:4:5:6", "1:2:3:4:5:6:0:0", "1:0:0:0:2:0:0:3", "fe80::", "::8000:0:0:0",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "a:b:c:d:e:f:1:2", "0:1::1:0", "1000:100:10:1::",
)]  # fmt: skip
GROUPS = st.lists(st.sampled_from([0, 0, 0, 1, 0x10, 0xABC, 0xFFFF]), min_size=8, max_size=8)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 2**128 - 1), GROUPS.map(lambda g: sum(v << 16 * i for i, v in enumerate(g)))),
                min_size=1, max_size=50))  # fmt: skip
def test_ipv6__text_as_rfc_5952(values: list[int]) -> None:
    values = [*ADVERSARIAL, *values]
    assert format_all(values, kernel.KIND_IPV6) == [expected6(v) for v in values]


def test_ipv6__inet_ntop_agrees_outside_the_ipv4_compatible_range() -> None:
    random = np.random.default_rng(1)
    values = [int.from_bytes(random.bytes(16)) & int.from_bytes(random.bytes(16)) for _ in range(5000)]
    assert format_all(values, kernel.KIND_IPV6) == [socket.inet_ntop(socket.AF_INET6, v.to_bytes(16)) for v in values]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1))
def test_ipv4_and_mac__text(values: list[int]) -> None:
    values = [0, 0xFFFFFFFF, 0x01020304, 0x0A090A63, 0x64C8FFFE, *values]
    assert format_all(values, kernel.KIND_IPV4) == [str(ipaddress.IPv4Address(v)) for v in values]
    macs = [v * 65537 & (2**48 - 1) for v in values]
    assert format_all(macs, kernel.KIND_MAC) == [v.to_bytes(6).hex(":") for v in macs]


def test_addresses__ipv6_1_is_not_ipv4_0_0_0_1() -> None:
    one4, one6 = bytes([0, 0, 0, 1]), bytes(15) + b"\x01"
    mapped = bytes(10) + b"\xff\xff" + one4
    rows = b.decode([
        ethernet(ipv4(udp(), src=one4)), ethernet(ipv6(udp(), src=one6), 0x86DD), ethernet(ipv4(udp(), src=one4)),
        ethernet(ipv6(udp(), src=mapped), 0x86DD), ethernet(b.arp(sender=one4), 0x0806),
    ])  # fmt: skip
    assert [r["src_ip"] for r in rows] == ["0.0.0.1", "::1", "0.0.0.1", "::ffff:0.0.0.1", None]
    assert rows[4]["arp_src_ip"] == "0.0.0.1"


def test_dictionary__each_address_once_in_order_of_appearance() -> None:
    work, rows, columns = decoder()
    arrow = columns.to_arrow(work.decode(fill(FRAMES * 3), rows))
    column = arrow.column("src_ip")
    assert column.dictionary.to_pylist() == [
        "10.1.2.3", "192.0.2.200", "2001:db8::1", "fe80::211:22ff:fe33:4455", "1.1.1.1",
    ]  # fmt: skip
    # One dictionary serves both directions, another the addresses that few rows have.
    assert arrow.column("dst_ip").dictionary.buffers()[2].address == column.dictionary.buffers()[2].address
    rare = arrow.column("inner_src_ip").dictionary
    assert rare.to_pylist() == ["10.1.2.3", "192.0.2.200", "::", "fe80::211:22ff:fe33:4455"]
    for name in ("inner_dst_ip", "arp_src_ip", "arp_dst_ip"):
        assert arrow.column(name).dictionary.buffers()[2].address == rare.buffers()[2].address


def test_dictionary__columns_without_a_value_carry_none() -> None:
    work, rows, columns = decoder()
    columns.to_arrow(work.decode(fill(FRAMES), rows))
    arrow = columns.to_arrow(work.decode(fill(FRAMES[:1]), rows))
    arrow.validate(full=True)
    for name in ("inner_src_ip", "arp_dst_ip"):
        assert arrow.column(name).to_pylist() == [None]
        assert len(arrow.column(name).dictionary) == 0


def test_dictionary__every_slot_of_a_full_batch_distinct() -> None:
    """The most addresses that a batch can have: four different ones in each row."""
    rows = 500
    frames = [
        ethernet(ipv4(ipv6(udp(), src=i.to_bytes(16), dst=(i + rows).to_bytes(16)), 41, src=i.to_bytes(4),
                      dst=(i + rows).to_bytes(4)), src=i.to_bytes(6), dst=(i + rows).to_bytes(6))
        for i in range(rows)
    ]  # fmt: skip
    columns, batch = Columns(rows), PacketBatch(rows)
    arrow = columns.to_arrow(Decoder().decode(fill(frames), batch))
    arrow.validate(full=True)
    assert len(arrow.column("src_ip").dictionary) == 2 * rows
    assert len(arrow.column("inner_src_ip").dictionary) == 2 * rows
    assert len(arrow.column("src_mac").dictionary) == 2 * rows
    assert arrow.column("inner_dst_ip").to_pylist() == [expected6(i + rows) for i in range(rows)]
    assert arrow.column("dst_ip").to_pylist() == [str(ipaddress.IPv4Address(i + rows)) for i in range(rows)]


def test_nulls__counts_and_bitmaps_of_any_row_count() -> None:
    work, rows, columns = decoder()
    for n in (0, 1, 7, 8, 9, 63, 64, 65, 1000):
        arrow = columns.to_arrow(work.decode(fill([FRAMES[i % len(FRAMES)] for i in range(n)]), rows))
        arrow.validate(full=True)
        assert arrow.num_rows == n
        assert arrow.schema == arrow_schema("packets")
        for column in arrow.columns:
            assert column.null_count == column.to_pylist().count(None)
        assert arrow.column("src_port").is_valid().to_pylist() == [i % 6 in (0, 1, 3) for i in range(n)]


def test_to_arrow__without_copies() -> None:
    """The buffers are the batch's own memory."""
    work, rows, columns = decoder()
    arrow = columns.to_arrow(work.decode(fill(FRAMES), rows))
    arrays = {"short": rows.short, "int": rows.int_, "long": rows.long}
    for column in k.PACKETS:
        if column.storage in arrays:
            got = arrow.column(column.name)
            if pa.types.is_dictionary(got.type) and got.null_count == len(got):
                continue  # no value of it in this batch
            got = got.indices if pa.types.is_dictionary(got.type) else got
            assert got.buffers()[1].address == arrays[column.storage][column.index].ctypes.data, column.name
    assert arrow.column("entropy").buffers()[1].address == rows.entropy.ctypes.data


def test_to_arrow__second_batch_does_not_see_the_first() -> None:
    work, rows, columns = decoder()
    first = columns.to_arrow(work.decode(fill(FRAMES), rows)).to_pylist()
    columns.to_arrow(work.decode(fill(FRAMES[::-1]), rows))
    assert columns.to_arrow(work.decode(fill(FRAMES), rows)).to_pylist() == first


def test_new_addresses__once_in_a_run() -> None:
    columns, work, rows = Columns(100), Decoder(), PacketBatch(100)

    def fresh(frames: list[bytes], at: int) -> list[tuple[str, int]]:
        columns.to_arrow(work.decode(fill(frames), rows))
        batch = columns.new_addresses(at)
        batch.validate(full=True)
        assert batch.schema == arrow_schema("addresses")
        return list(zip(batch.column("ip").to_pylist(), batch.column("first_seen").cast(pa.int64()).to_pylist(),
                        strict=True))  # fmt: skip

    assert fresh(FRAMES[:1] * 5, 10) == [("10.1.2.3", 10), ("192.0.2.200", 10)]
    assert fresh(FRAMES[2:3], 20) == []
    assert fresh([ethernet(ipv6(udp(), src=bytes(12) + b.SRC4), 0x86DD)], 30) == [
        ("::a01:203", 30), ("fe80::211:22ff:fe33:4455", 30),
    ]  # fmt: skip
    assert fresh([], 40) == []
