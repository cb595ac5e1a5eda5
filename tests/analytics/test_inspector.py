"""The inspector: what every byte of a frame is said to be, against the decoder's rows and on damaged frames."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.inspector import Frame, find, hexdump, layers, render_json, render_text
from analytics.layers import Layer
from analytics.selection import Selection
from engine.capture.savefile import SavefileSource
from engine.config import FramesConfig
from engine.constants import LINK_TYPE_NAMES
from engine.errors import ConfigError, StoreError
from engine.packets import FrameBatch
from tests import builders as b
from tests.commands import ROOT, engine
from tests.framelake import FrameLake
from tests.savefiles import pcap_bytes, pcapng_bytes, read_file

CORPUS = ROOT.parent / "shared" / "corpus" / "captures"
LINKS = sorted(LINK_TYPE_NAMES)


def check(frame: bytes, link_type: int) -> list[Layer]:
    """The layers, which must cover the frame once, with their fields inside and every text printable."""
    found = layers(frame, link_type)
    at = 0
    for layer in found:
        assert layer.start == at < layer.end, found
        at = layer.end
        for field in layer.fields:
            assert layer.start <= field.start < field.end <= layer.end, (layer, field)
            assert field.name.isprintable() and field.value.isprintable(), field  # noqa: PT018
    assert at == len(frame)
    return found


def tree(frame: bytes, link_type: int = 1) -> tuple[list[str], dict[str, str]]:
    """Names of the layers, and the fields of all as `layer.field`, the first of a name."""
    found = check(frame, link_type)
    values: dict[str, str] = {}
    for layer in found:
        for field in layer.fields:
            values.setdefault(f"{layer.name}.{field.name}", field.value)
    return [layer.name for layer in found], values


def dns_query(name: bytes = b"\x03www\x07example\x03com\x00") -> bytes:
    return struct.pack(">HHHHHH", 0xBEEF, 0x0100, 1, 0, 0, 0) + name + struct.pack(">HH", 1, 1)


def client_hello(server: bytes = b"example.com") -> bytes:
    sni = struct.pack(">HBH", len(server) + 3, 0, len(server)) + server
    alpn = struct.pack(">HHHB", 16, 5, 3, 2) + b"h2"
    extensions = struct.pack(">HH", 0, len(sni)) + sni + alpn
    body = (
        b"\x03\x03"
        + bytes(32)
        + b"\x00"
        + b"\x00\x02\x13\x01"
        + b"\x01\x00"
        + struct.pack(">H", len(extensions))
        + extensions
    )
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + struct.pack(">H", len(message)) + message


# --- layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "link_type", "names"),
    [
        (b.ethernet(b.ipv4(b.tcp(), 6)), 1, ["ethernet", "ipv4", "tcp", "payload"]),
        (b.ethernet(b.tag(5, 0x0800, b.ipv4(b.udp(b"", 1, 2))), 0x8100), 1, ["ethernet", "vlan", "ipv4", "udp"]),
        (b.ethernet(b.tag(5, 0x8100, b.tag(6, 0x0806, b.arp())), 0x88A8), 1, ["ethernet", "vlan", "vlan", "arp"]),
        (b.ethernet(b.mpls([1, 2], b.ipv6(b.tcp(b""), 6)), 0x8847), 1, ["ethernet", "mpls", "mpls", "ipv6", "tcp"]),
        (b.ethernet(b.pppoe(b.ipv4(b.icmp(b""), 1)), 0x8864), 1, ["ethernet", "pppoe", "ipv4", "icmp"]),
        (b.ieee8023(b.ipv4(b.igmp(), 2), b.snap(0x0800)), 1, ["ethernet", "llc", "ipv4", "igmp"]),
        (b.sll(b.ipv4(b.tcp(), 6)), 113, ["sll", "ipv4", "tcp", "payload"]),
        (b.sll2(b.ipv6(b.udp(sport=1, dport=2)), 0x86DD), 276, ["sll2", "ipv6", "udp", "payload"]),
        (b.null(b.ipv4(b.tcp(), 6)), 0, ["null", "ipv4", "tcp", "payload"]),
        (b.null(b.ipv6(b.tcp(), 6), 24, ">"), 108, ["null", "ipv6", "tcp", "payload"]),
        (b.ipv4(b.tcp(), 6), 101, ["ipv4", "tcp", "payload"]),
        (b.ipv6(b.tcp(), 6), 12, ["ipv6", "tcp", "payload"]),
        (b.ipv4(b.tcp(), 6), 228, ["ipv4", "tcp", "payload"]),
        (b.ipv6(b.sctp(), 132), 229, ["ipv6", "sctp", "payload"]),
        (b.ipv4(b.ipv4(b.ipv6(b.tcp(b""), 6), 41), 4), 101, ["ipv4", "ipv4", "ipv6", "tcp"]),
        (b.ipv4(b.gre(b.ipv4(b.tcp(b""), 6), key=True), 47), 101, ["ipv4", "gre", "ipv4", "tcp"]),
        (b.ipv4(b.vxlan(b.ethernet(b.arp(), 0x0806))), 101, ["ipv4", "udp", "vxlan", "ethernet", "arp"]),
        (b.ipv4(b.geneve(b.ipv4(b.tcp(b""), 6), 0x0800, bytes(8))), 101, ["ipv4", "udp", "geneve", "ipv4", "tcp"]),
        (b.ipv4(b.gtpu(b.ipv4(b.tcp(b""), 6))), 101, ["ipv4", "udp", "gtpu", "ipv4", "tcp"]),
        (b.ipv4(b.esp(), 50), 101, ["ipv4", "esp", "payload"]),
        (b.ipv4(b.ah(6, b.tcp(b"")), 51), 101, ["ipv4", "ah", "tcp"]),
        (b.ipv6(b.extension(60, b.extension(44, b.fragment6(17, b.udp(sport=1, dport=2)))), 0), 229,
         ["ipv6", "hop_by_hop", "destination_options", "fragment", "udp", "payload"]),
        (b.ipv6(b.fragment6(17, b.udp(), offset=3), 44), 229, ["ipv6", "fragment", "payload"]),
        (b.ipv4(b.udp(), fragment=5), 101, ["ipv4", "payload"]),
        (b.ipv4(b.icmp(b.ipv4(b.udp(b"", 1, 2)), 3), 1), 101, ["ipv4", "icmp", "ipv4", "udp"]),
        (b.ipv6(b.icmp(b.ipv6(b.udp(b"", 1, 2)), 1), 58), 229, ["ipv6", "icmpv6", "ipv6", "udp"]),
        (b.ethernet(b.ipv4(b.udp(b"", 1, 2)) + bytes(18)), 1, ["ethernet", "ipv4", "udp", "padding"]),
        (b.ethernet(b"\x01\x02", 0x88CC), 1, ["ethernet", "payload"]),
        (b.ipv4(b.udp(dns_query())), 101, ["ipv4", "udp", "dns"]),
        (b.ipv4(b.tcp(struct.pack(">H", len(dns_query())) + dns_query(), dport=53), 6), 101,
         ["ipv4", "tcp", "dns_length", "dns"]),
        (b.ipv4(b.tcp(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody"), 6), 101, ["ipv4", "tcp", "http", "payload"]),
        (b.ipv4(b.tcp(client_hello() + b"\x14\x03\x03\x00\x01\x01"), 6), 101, ["ipv4", "tcp", "tls", "tls"]),
        (b.ipv4(b.udp(b"\x23" + bytes(47), 123, 123)), 101, ["ipv4", "udp", "ntp"]),
        (b"", 1, []),
        (b"\x01", 147, ["payload"]),
        (b"\x01", -1, ["payload"]),
    ],
)  # fmt: skip
def test_layers__names_in_order(frame: bytes, link_type: int, names: list[str]) -> None:
    assert tree(frame, link_type)[0] == names


def test_fields__have_the_names_of_our_columns() -> None:
    options = bytes.fromhex("020405b4 0402 080a 0000000100000002 01 030307")
    frame = b.ethernet(b.ipv4(b.tcp(b"x", 40000, 443, flags=0x12, options=options), 6, ttl=61))
    _, values = tree(frame)
    for name, value in {
        "ethernet.src_mac": "02:00:00:c0:ff:ee", "ethernet.dst_mac": "0a:1b:2c:3d:4e:5f",
        "ethernet.ethertype": "0x0800 (ipv4)", "ipv4.ip_version": "4", "ipv4.ttl": "61", "ipv4.proto": "6 (TCP)",
        "ipv4.src_ip": "10.1.2.3", "ipv4.dst_ip": "192.0.2.200", "tcp.src_port": "40000", "tcp.dst_port": "443",
        "tcp.tcp_seq": str(0xFEDCBA98), "tcp.tcp_ack": str(0x89ABCDEF), "tcp.tcp_flags": "18 (SYN ACK)",
        "tcp.tcp_window": str(0xFFF0), "tcp.mss": "1460", "tcp.sack_permitted": "yes", "tcp.window_scale": "7",
        "tcp.timestamps": "00000001 00000002",
    }.items():  # fmt: skip
        assert values[name] == value, name


def test_fields__offsets_lead_to_the_bytes() -> None:
    frame = b.ethernet(b.tag(77, 0x86DD, b.ipv6(b.udp(dns_query()))), 0x8100)
    found = {f"{layer.name}.{f.name}": frame[f.start : f.end] for layer in check(frame, 1) for f in layer.fields}
    assert found["vlan.vlan"] == b"\x00\x4d"
    assert found["ipv6.src_ip"] == b.SRC6
    assert found["ipv6.ttl"] == b"\x40"
    assert found["udp.dst_port"] == b"\x00\x35"
    assert found["dns.id"] == b"\xbe\xef"
    assert found["dns.question"] == dns_query()[12:]


def test_applications__what_they_say() -> None:
    _, values = tree(b.ipv4(b.udp(dns_query())), 101)
    assert values["dns.question"] == "www.example.com A"
    _, values = tree(b.ipv4(b.tcp(client_hello()), 6), 101)
    assert (values["tls.server_name"], values["tls.alpn"]) == ("example.com", "h2")
    assert values["tls.handshake_type"] == "1 (client_hello)"
    _, values = tree(b.ipv4(b.tcp(b"HTTP/1.1 200 OK\r\nServer: x\x1b[31m\r\n\r\n"), 6), 101)
    assert (values["http.start_line"], values["http.server"]) == ("HTTP/1.1 200 OK", "x\\x1b[31m")
    answer = struct.pack(">HHHHHH", 1, 0x8180, 1, 2, 0, 0) + dns_query()[12:]
    answer += b"\xc0\x0c" + struct.pack(">HHIH", 28, 1, 60, 16) + b.SRC6
    answer += b"\xc0\x0c" + struct.pack(">HHIH", 65, 1, 60, 3) + b"\x00\x01\x00"
    found = check(b.ipv4(b.udp(answer, 53, 9999)), 101)
    assert [f.value for f in found[-1].fields[-2:]] == [
        "www.example.com AAAA ttl 60 2001:db8::1",
        "www.example.com HTTPS ttl 60 000100",
    ]


def test_dhcp__options_by_name() -> None:
    head = struct.pack(">BBBBIHH", 1, 1, 6, 0, 7, 0, 0) + bytes(16) + b.SRC_MAC + bytes(10 + 64 + 128)
    data = head + bytes.fromhex("63825363 350103 3204 0a000005 0c03 616263 ff") + bytes(20)
    names, values = tree(b.ipv4(b.udp(data, 68, 67)), 101)
    assert names == ["ipv4", "udp", "dhcp", "payload"]
    for name, value in {
        "dhcp.message_type": "3 (request)", "dhcp.requested_ip": "10.0.0.5", "dhcp.hostname": "abc",
        "dhcp.chaddr": "02:00:00:c0:ff:ee",
    }.items():  # fmt: skip
        assert values[name] == value


@pytest.mark.parametrize(
    ("frame", "names"),
    [
        (b.ipv4(b.tcp(), 6)[:15], ["damaged"]),
        (b.ipv4(b"", 6, ihl=4), ["damaged"]),
        (b.ipv4(b.tcp(offset=3), 6), ["ipv4", "damaged"]),
        (b.ipv4(b.tcp()[:12], 6), ["ipv4", "damaged"]),
        (b.ipv4(b.udp(dns_query()[:20])), ["ipv4", "udp", "dns", "damaged"]),
        (b.ipv4(b.udp(dns_query(b"\xc0\x0c"))), ["ipv4", "udp", "dns", "damaged"]),  # a name that points at itself
        (b.ipv6(b.extension(6, b"", 1)[:5], 0), ["ipv6", "damaged"]),
    ],
)
def test_damage__is_a_layer(frame: bytes, names: list[str]) -> None:
    assert tree(frame, 101)[0] == names


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([*LINKS, 147]))
def test_layers__any_bytes(frame: bytes, link_type: int) -> None:
    check(frame, link_type)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([53, 67, 123, 443, 80, 4789, 6081, 2152]), st.sampled_from([6, 17]), st.binary(max_size=200))
def test_layers__any_payload(port: int, proto: int, data: bytes) -> None:
    check(b.ipv4(b.tcp(data, dport=port) if proto == 6 else b.udp(data, 1, port), proto), 101)


def test_layers__stacked_without_end() -> None:
    packet = b.tcp()
    for _ in range(400):
        packet = b.ipv4(packet, 4)
    assert 200 < len(check(packet, 101)) <= 257


# --- against the decoder ---------------------------------------------------------------------------------------------


def corpus() -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    batch = FrameBatch()
    for path in sorted(CORPUS.iterdir()):
        frames, _ = read_file(SavefileSource(str(path)), batch)
        yield path.name, frames[:: max(1, len(frames) // 40)]


@pytest.mark.corpus
@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no captures at {CORPUS}")
def test_corpus__agrees_with_the_rows_also_when_damaged() -> None:
    """First addresses and ports of each frame are those of its row; damaged copies never fail."""
    rng, compared = random.Random(7), 0
    for name, frames in corpus():
        for link_type in {f[3] for f in frames}:
            some = [f for f in frames if f[3] == link_type]
            rows = b.decode([f[1] for f in some], link_type, [f[2] for f in some])
            for (_, frame, _, _), row in zip(some, rows, strict=True):
                _, values = tree(frame, link_type)
                compared += row["status"] == "ok" and _agrees(name, row, values)
                if frame:
                    damaged = bytearray(frame[: rng.randrange(len(frame)) + 1])
                    damaged[rng.randrange(len(damaged))] = rng.randrange(256)
                    check(bytes(damaged), link_type)
    assert compared > 10_000


def _agrees(name: str, row: dict[str, Any], values: dict[str, str]) -> bool:
    ip = f"ipv{row['ip_version']}"
    if row["ip_version"] is None or row["encap"] is not None or f"{ip}.src_ip" not in values:
        return False
    assert values[f"{ip}.src_ip"] == row["src_ip"], name
    assert values[f"{ip}.dst_ip"] == row["dst_ip"], name
    layer = {6: "tcp", 17: "udp"}.get(row["proto"])
    if layer is not None and row["src_port"] is not None:
        assert values[f"{layer}.src_port"] == str(row["src_port"]), name
        assert values[f"{layer}.dst_port"] == str(row["dst_port"]), name
    if row["tcp_seq"] is not None:
        assert values["tcp.tcp_seq"] == str(row["tcp_seq"]), name
        assert values["tcp.tcp_flags"].split()[0] == str(row["tcp_flags"]), name
    return True


# --- finding and printing --------------------------------------------------------------------------------------------

FRAMES = [b.ethernet(b.ipv4(b.udp(bytes([i]) * 20, 1000 + i, 2000), src=bytes([10, 0, 0, i]))) for i in range(5)]


@pytest.fixture
def savefile(tmp_path: Path) -> Path:
    path = tmp_path / "five.pcap"
    path.write_bytes(pcap_bytes(FRAMES))
    return path


@pytest.fixture
def lake(tmp_path: Path, savefile: Path) -> Path:
    made = FrameLake(tmp_path / "lake")
    made.replay([savefile])
    made.close()
    return made.path


def test_find__by_condition_number_and_place(lake: Path, savefile: Path) -> None:
    first = find(lake, Selection())
    assert first == Frame(FRAMES[0], 1, len(FRAMES[0]), 1_700_000_000_000_007_000, str(savefile), 1)
    assert find(lake, Selection(where="src_ip = '10.0.0.3'")).data == FRAMES[3]
    assert find(lake, Selection(where="src_port > 1001"), nth=2).data == FRAMES[3]
    assert find(lake, Selection(), source=str(savefile), frame_no=5).data == FRAMES[4]


def test_find__what_is_not_there_is_one_line(lake: Path, tmp_path: Path) -> None:
    for selection, options, part in (
        (Selection(where="src_port = 9"), {}, "no packet matches"),
        (Selection(), {"nth": 6}, "fewer than 6"),
        (Selection(), {"nth": 0}, "--nth 0"),
        (Selection(flows=(1,)), {}, "no packet matches"),
        (Selection(where="true) OR (true"), {}, "syntax error"),
        (Selection(), {"source": "x' OR '1'='1"}, "no packet matches"),
    ):
        with pytest.raises(ConfigError, match=part) as caught:
            find(lake, selection, **options)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    next((lake / "frames").rglob("*.pcap")).unlink()
    with pytest.raises(StoreError, match="no longer on disk"):
        find(lake, Selection())
    off = FrameLake(tmp_path / "off", FramesConfig(mode="off"))
    off.take(b.fill(FRAMES))
    off.close()
    with pytest.raises(StoreError, match="was not stored"):
        find(off.path, Selection())


def test_find__head_mode_shows_what_there_is(tmp_path: Path) -> None:
    made = FrameLake(tmp_path / "lake", FramesConfig(mode="head", head_bytes=40))
    made.take(b.fill(FRAMES))
    made.close()
    frame = find(made.path, Selection())
    assert (frame.data, frame.wirelen) == (FRAMES[0][:40], len(FRAMES[0]))
    assert "damaged" in render_text(frame)


def test_text__is_safe_for_a_terminal() -> None:
    hostile = b"GET /\x1b[2J\xe2\x80\xae HTTP/1.1\r\nHost: \x07\xff\x00\r\n\r\n" + bytes(range(256))
    shown = render_text(Frame(b.ipv4(b.tcp(hostile), 6), 101, 400, -1, "eth0\x1b[31m", 1))
    assert all(line.isprintable() for line in shown.split("\n"))
    assert "1969-12-31 23:59:59.999999999 UTC" in shown


def test_hexdump__sixteen_bytes_a_line() -> None:
    assert hexdump(b"") == []
    assert hexdump(bytes(range(0x40, 0x52))) == [
        "0000  40 41 42 43 44 45 46 47  48 49 4a 4b 4c 4d 4e 4f  @ABCDEFGHIJKLMNO",
        "0010  50 51                                             PQ",
    ]


def test_command__lake_and_savefile_show_the_same(lake: Path, savefile: Path, tmp_path: Path) -> None:
    from_lake = engine("inspect", "--lake", lake, "--source", savefile, "--frame-no", "3")
    from_file = engine("inspect", savefile, "3")
    assert from_lake.returncode == from_file.returncode == 0, (from_lake, from_file)
    assert from_lake.stdout == from_file.stdout
    assert "src_ip           10.0.0.2" in from_lake.stdout
    other = tmp_path / "x.pcapng"
    other.write_bytes(pcapng_bytes(FRAMES))
    shown = json.loads(engine("inspect", other, "5", "--format", "json").stdout)
    assert bytes.fromhex(shown["data"]) == FRAMES[4]
    assert [layer["name"] for layer in shown["layers"]] == ["ethernet", "ipv4", "udp", "payload"]
    assert shown["ts_ns"] == 1_700_000_000_000_004_005


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "needs a packet"),
        (["FILE"], "FRAME_NO"),
        (["FILE", "0"], "numbered from 1"),
        (["FILE", "6"], "it has 5 frames"),
        (["/nonexistent.pcap", "1"], "/nonexistent.pcap"),
        (["--where", "nocolumn = 1"], "nocolumn"),
    ],
)
def test_command__mistakes_are_one_line(words: list[str], part: str, lake: Path, savefile: Path) -> None:
    done = engine("inspect", "--lake", lake, *[str(savefile) if w == "FILE" else w for w in words])
    assert done.returncode == 2
    assert part in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_json__layers_and_bytes() -> None:
    shown = json.loads(render_json(Frame(FRAMES[0], 1, 99, 1, "eth0", 7)))
    assert (shown["frame_no"], shown["wirelen"], shown["link_type"]) == (7, 99, 1)
    assert shown["layers"][1]["fields"][0] == {"name": "ip_version", "value": "4", "start": 14, "end": 15}
