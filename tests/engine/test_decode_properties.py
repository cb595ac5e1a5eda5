"""What holds for every frame, however damaged: no read outside it, nothing invented, dpkt's answer where it has one."""

from __future__ import annotations

import ipaddress
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.constants import LINK_TYPE_NAMES
from engine.packets import STATUS_NAMES
from tests import builders as b
from tests.builders import decode, decoder, ethernet, fill, ipv4, ipv6, tcp, udp
from tests.engine.test_decode import CASES
from tests.reference import reference, shannon

slow = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LINKS = st.sampled_from([*LINK_TYPE_NAMES, -1, 127, 65535])
WHOLE = [frame for _, link, frame, _ in CASES if link == 1]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good frame with a few bytes changed, cut, or followed by others."""
    frame = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(0, 4))):
        frame[draw(st.integers(0, len(frame) - 1))] = draw(
            st.sampled_from([0, 1, 4, 5, 6, 0x0F, 0x45, 0x60, 0x80, 0xFF])
        )
    cut = draw(st.integers(0, len(frame)))
    return bytes(frame[: cut if draw(st.booleans()) else None]) + draw(st.binary(max_size=20))


FRAMES = st.lists(st.one_of(damaged(), damaged(), st.binary(max_size=200)), min_size=1, max_size=24)


def arrow(frames: list[bytes], link_type: int, poison: int, gap: int, wirelens: list[int] | None = None) -> Any:
    """The decoded rows as Arrow, copied out of the batch."""
    work, rows, columns = decoder()
    for array in (rows.short, rows.int_, rows.long, rows.address, rows.entropy):
        array[..., : len(frames)] = poison & 0x7F  # what an earlier packet left
    batch = columns.to_arrow(work.decode(fill(frames, link_type, wirelens, poison, gap), rows))
    batch.validate(full=True)
    return batch.to_pylist()


@slow
@given(FRAMES, LINKS, st.sampled_from([0x00, 0x06, 0x08, 0x45, 0x60, 0x81, 0xFF]))
def test_decode__reads_nothing_outside_the_frame(frames: list[bytes], link_type: int, poison: int) -> None:
    assert arrow(frames, link_type, 0xA5, 64) == arrow(frames, link_type, poison, 0)


@slow
@given(FRAMES, LINKS, st.one_of(st.none(), st.integers(0, 2**32 - 1)))
def test_decode__invents_nothing(frames: list[bytes], link_type: int, wirelen: int | None) -> None:
    wirelens = None if wirelen is None else [wirelen] * len(frames)
    for frame, row in zip(frames, arrow(frames, link_type, 0x45, 8, wirelens), strict=True):
        check_row(frame, row)


def check_row(frame: bytes, row: dict[str, Any]) -> None:
    """Rules that hold between the columns of any row."""
    assert row["status"] in STATUS_NAMES
    for name in ("src_ip", "dst_ip", "inner_src_ip", "inner_dst_ip", "arp_src_ip", "arp_dst_ip"):
        assert row[name] is None or ipaddress.ip_address(row[name]).packed in frame
    for name in ("src_mac", "dst_mac"):
        assert row[name] is None or bytes.fromhex(row[name].replace(":", "")) in frame
    for group in (
        ("src_mac", "dst_mac"),
        ("ip_version", "src_ip", "dst_ip", "ttl", "is_fragment"),
        ("src_port", "dst_port"),
        ("tcp_flags", "tcp_seq", "tcp_ack", "tcp_window"),
        ("icmp_type", "icmp_code"),
        ("inner_src_ip", "inner_dst_ip"),
        ("inner_src_port", "inner_dst_port"),
        ("arp_op", "arp_src_ip", "arp_dst_ip"),
    ):
        assert len({row[name] is None for name in group}) == 1, group
    for name, needs in (
        ("vlan_inner", "vlan"), ("proto", "src_ip"), ("src_port", "proto"), ("tcp_seq", "src_port"),
        ("icmp_type", "proto"), ("payload_len", "proto"), ("entropy", "payload_len"), ("encap", "payload_len"),
        ("inner_src_ip", "encap"), ("inner_proto", "inner_src_ip"), ("inner_src_port", "inner_proto"),
    ):  # fmt: skip
        assert row[name] is None or row[needs] is not None, name
    assert row["payload_len"] is None or row["payload_len"] >= 0
    assert row["entropy"] is None or 0 <= row["entropy"] <= 8
    assert (row["status"] == "not_ip") <= (row["src_ip"] is None)
    assert (row["status"] == "ok") <= (row["proto"] is not None)


ETHERNET = st.tuples(st.binary(min_size=6, max_size=6), st.binary(min_size=6, max_size=6))


@st.composite
def plain(draw: st.DrawFn) -> bytes:
    """Ethernet, perhaps VLAN, IPv4 or IPv6, TCP, UDP or ICMP, with any field values and any padding."""
    word, short = st.integers(0, 2**32 - 1), st.integers(0, 65535)
    data = draw(st.binary(max_size=60))
    proto = draw(st.sampled_from([6, 17, 1, 58]))
    if proto == 6:
        options = bytes(4 * draw(st.integers(0, 10)))
        upper = tcp(data, draw(short), draw(short), seq=draw(word), ack=draw(word), flags=draw(st.integers(0, 255)),
                    window=draw(short), options=options)  # fmt: skip
    elif proto == 17:
        upper = udp(data, draw(short), draw(short))
    else:
        upper = b.icmp(data, draw(st.integers(0, 255)), draw(st.integers(0, 255)))
    if draw(st.booleans()):
        src, dst = draw(st.binary(min_size=4, max_size=4)), draw(st.binary(min_size=4, max_size=4))
        fragment = draw(st.sampled_from([0, 0, 0x4000, 0x2000, 0x0001, 0x3FFF]))
        options = bytes([1] * 4 * draw(st.integers(0, 10)))
        ttl = draw(st.integers(0, 255))
        packet, kind = ipv4(upper, proto, src=src, dst=dst, fragment=fragment, options=options, ttl=ttl), 0x0800
    else:
        src, dst = draw(st.binary(min_size=16, max_size=16)), draw(st.binary(min_size=16, max_size=16))
        packet, kind = ipv6(upper, proto, src=src, dst=dst, hops=draw(st.integers(0, 255))), 0x86DD
    for _ in range(draw(st.integers(0, 2))):
        packet, kind = b.tag(draw(st.integers(0, 4095)), kind, packet, draw(st.integers(0, 7))), 0x8100
    one, two = draw(ETHERNET)
    return ethernet(packet, kind, one, two) + draw(st.binary(max_size=12))


@slow
@given(st.lists(st.one_of(plain(), plain(), damaged()), min_size=1, max_size=24))
def test_decode__agrees_with_dpkt(frames: list[bytes]) -> None:
    for frame, row in zip(frames, decode(frames), strict=True):
        want = reference(frame)
        if want is not None and want["src_ip"].startswith("::ffff:"):
            continue  # Python writes these without dots before 3.13; test_columns covers them
        if want is not None and row["status"] == "ok":
            assert {k: row[k] for k in want} == want, frame.hex()
        if want is not None:
            assert not row["status"].startswith(("truncated_link", "bad_network", "not_ip", "too_deep")), frame.hex()


COMMONEST = [
    ethernet(packet, kind) + bytes(range(1, 13))
    for upper, proto in ((tcp(), 6), (tcp(options=bytes(8)), 6), (udp(), 17), (udp(b""), 17), (b.gtpu(ipv4(udp())), 17))
    for packet, kind in ((ipv4(upper, proto), 0x0800), (ipv6(upper, proto), 0x86DD))
]


@pytest.mark.parametrize("frame", COMMONEST, ids=range(len(COMMONEST)))
def test_decode__a_tag_takes_the_long_way_to_the_same_row(frame: bytes) -> None:
    """The commonest frames have a path of their own (`kernels.plain`), which a VLAN tag closes: every value of every
    byte of their headers, every two lengths that disagree, every cut."""
    frames = [frame[:cut] for cut in range(14, len(frame) + 1)]
    frames += [frame[:at] + bytes([value]) + frame[at + 1 :] for at in range(14, 76) for value in range(256)]
    ip_length, udp_length = (17, 39) if frame[12] == 8 else (19, 59)
    for one in range(0, 64, 3):
        changed = bytearray(frame)
        changed[ip_length] = one
        for two in range(64):
            changed[udp_length] = two
            frames.append(bytes(changed))
    tagged = [f[:12] + b"\x81\x00\x00\x05" + f[12:] for f in frames]
    own = ["frame_no", "ethertype", "vlan", "wirelen", "caplen"]
    batches = []
    for some in (frames, tagged):
        work, rows, columns = decoder()
        batches.append(pa.table(columns.to_arrow(work.decode(fill(some), rows))).drop_columns(own).to_pylist())
    for at, (row, longer) in enumerate(zip(*batches, strict=True)):
        assert row == longer, frames[at].hex()


def test_reference__covers_every_plain_protocol() -> None:
    """The comparison above is not empty."""
    for upper, proto in ((tcp(), 6), (udp(), 17), (b.icmp(), 1)):
        assert reference(ethernet(ipv4(upper, proto))) is not None
        assert reference(ethernet(b.tag(1, 0x86DD, ipv6(upper, {1: 58}.get(proto, proto))), 0x8100)) is not None


@slow
@given(st.integers(0, 3000), st.integers(0, 200), st.integers(0, 2**32))
def test_entropy__of_the_captured_payload_only(size: int, padding: int, seed: int) -> None:
    payload = np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes()
    frame = ethernet(ipv4(udp(payload)))
    (whole, cut) = decode(
        [frame + b"\x5a" * padding, frame[: 42 + size // 2]], wirelens=[len(frame) + padding, len(frame)]
    )
    assert whole["payload_len"] == cut["payload_len"] == size
    for row, data in ((whole, payload), (cut, payload[: size // 2])):
        if not data:
            assert row["entropy"] is None
        else:
            assert abs(row["entropy"] - shannon(data)) < 1e-6


def test_totals__undecodable_rows_and_bytes_on_the_wire() -> None:
    work, rows, _ = decoder()
    frames = [ethernet(ipv4(udp())), ethernet(b"", 0x88CC), b"", ethernet(ipv4(b"", 6)), ethernet(b"\x45", 0x0800)]
    out = work.decode(fill(frames, wirelens=[2**32 - 1, 14, 60, 34, 15]), rows)
    assert (out.count, out.undecodable, out.wire_bytes) == (5, 3, 2**32 - 1 + 14 + 60 + 34 + 15)
