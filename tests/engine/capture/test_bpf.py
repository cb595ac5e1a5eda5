"""BPF filters over batches, held against tcpdump on the same frames."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from pathlib import Path

import dpkt
import pytest

from engine.capture.bpf import BpfProgram, compile_filter
from engine.errors import ConfigError
from engine.jit import is_compiled
from engine.kernels.bpf import filter_frames
from engine.packets import F_CAPLEN, F_LINK_TYPE, F_OFFSET, F_TS_NS, F_WIRELEN, FrameBatch

pytestmark = pytest.mark.skipif(not is_compiled(), reason="the kernel calls libpcap by address")

FILTERS = [
    "tcp", "udp port 53", "tcp[13] & 2 != 0", "host 10.0.0.3", "net 10.0.0.0/30", "less 100", "greater 900",
    "vlan 7", "ip6", "not ip", "src port 80 or dst port 443", "ether broadcast", "len = 200",
]  # fmt: skip


def frames(seed: int, n: int) -> list[bytes]:
    """Ethernet frames with TCP, UDP, VLAN tags, IPv6 and noise."""
    rng = random.Random(seed)
    out = []
    for _ in range(n):
        ports = struct.pack(">HH", rng.choice([80, 53, 443, 9]), rng.choice([80, 53, 443, 9]))
        proto = rng.choice([6, 17])
        rest = ports + (bytes(9) + bytes([rng.randrange(64)]) + bytes(6) if proto == 6 else bytes(4))
        body = rest + rng.randbytes(rng.choice([0, 30, 158, 900]))
        hosts = b"\x0a\0\0" + bytes([rng.randrange(8)]) + b"\x0a\0\0" + bytes([rng.randrange(8)])
        packet = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, proto, 0) + hosts + body
        kind, tag = b"\x08\0", b""
        shape = rng.randrange(10)
        if shape == 0:
            tag = b"\x81\0\0" + bytes([rng.choice([7, 8])])
        elif shape == 1:
            kind, packet = b"\x86\xdd", struct.pack(">IHBB", 6 << 28, len(body), proto, 9) + bytes(32) + body
        elif shape == 2:
            kind, packet = rng.randbytes(2), rng.randbytes(rng.randrange(60))
        out.append(rng.choice([b"\xff" * 6, bytes(6)]) + bytes(6) + tag + kind + packet)
    return out


def batch_of(data: list[bytes], link_type: int = 1, snaplen: int = 262_144) -> FrameBatch:
    batch = FrameBatch(rows=max(1, len(data)), arena_bytes=max(1, sum(map(len, data))))
    offset = 0
    for i, frame in enumerate(data):
        kept = frame[:snaplen]
        batch.arena[offset : offset + len(kept)] = list(kept)
        batch.frames[[F_TS_NS, F_OFFSET, F_CAPLEN, F_WIRELEN, F_LINK_TYPE], i] = (
            i,
            offset,
            len(kept),
            len(frame),
            link_type,
        )
        offset += len(kept)
    batch.count = len(data)
    return batch


def kept_by(program: BpfProgram, batch: FrameBatch, first: int = 0) -> list[int]:
    """Numbers of the frames kept."""
    dropped = program.apply(batch, first)
    kept: list[int] = batch.frames[F_TS_NS, : batch.count].tolist()
    assert len(kept) + dropped == batch.frames.shape[1]
    return kept


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="needs tcpdump")
@pytest.mark.parametrize("text", FILTERS)
def test_bpf__agrees_with_tcpdump(text: str, tmp_path: Path) -> None:
    data = frames(3, 400)
    path = tmp_path / "in.pcap"
    with path.open("wb") as file:
        writer = dpkt.pcap.Writer(file, snaplen=262_144)
        for i, frame in enumerate(data):
            writer.writepkt(frame, ts=i)
    done = subprocess.run(
        ["tcpdump", "-n", "-r", str(path), "-w", "-", text], capture_output=True, check=True, stdin=subprocess.DEVNULL
    )
    (tmp_path / "out.pcap").write_bytes(done.stdout)
    with (tmp_path / "out.pcap").open("rb") as file:
        wanted = [int(ts) for ts, _ in dpkt.pcap.Reader(file)]
    assert kept_by(compile_filter(text, 1, 262_144), batch_of(data)) == wanted


def test_bpf__rows_move_together() -> None:
    data = frames(5, 50)
    batch = batch_of(data)
    program = compile_filter("udp", 1, 65_535)
    kept = kept_by(program, batch)
    assert 0 < len(kept) < 50
    for row, number in enumerate(kept):
        offset, caplen = batch.frames[F_OFFSET, row], batch.frames[F_CAPLEN, row]
        assert batch.arena[offset : offset + caplen].tobytes() == data[number]


def test_bpf__frames_before_first_are_left() -> None:
    data = frames(6, 40)
    assert kept_by(compile_filter("less 1", 1, 65_535), batch_of(data), first=15) == list(range(15))


def test_bpf__judges_by_wirelen_and_captured_bytes() -> None:
    data = [bytes(12) + b"\x08\x00" + b"\x45" + bytes(8) + b"\x06" + bytes(100)]
    assert kept_by(compile_filter("greater 100", 1, 262_144), batch_of(data, snaplen=20)) == [0]
    assert kept_by(compile_filter("ip proto 6", 1, 262_144), batch_of(data, snaplen=20)) == []


def test_bpf__other_link_types_stay() -> None:
    assert kept_by(compile_filter("less 1", 1, 65_535), batch_of(frames(7, 10), link_type=101)) == list(range(10))


@pytest.mark.parametrize("link_type", [12, 14, 101, 228])
def test_bpf__raw_ip_starts_at_the_ip_header(link_type: int) -> None:
    udp = struct.pack(">BBHHHBBH8x", 0x45, 0, 28, 0, 0, 64, 17, 0) + bytes(8)
    tcp = struct.pack(">BBHHHBBH8x", 0x45, 0, 40, 0, 0, 64, 6, 0) + bytes(20)
    assert kept_by(compile_filter("tcp", link_type, 65_535), batch_of([udp, tcp], link_type)) == [1]


@pytest.mark.parametrize("link_type", [0, 1, 12, 14, 101, 108, 113, 228, 229, 276])
def test_bpf__every_decoded_link_type_compiles(link_type: int) -> None:
    compile_filter("tcp or udp", link_type, 262_144).close()


@pytest.mark.parametrize("text", ["tcp porx 80", "(", "port 99999", "ip broadcast", "tcp\0", "host", "tcp[\udcff]"])
def test_bpf__bad_filter_is_one_line_with_the_filter(text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        compile_filter(text, 1, 65_535)
    assert repr(text) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "man pcap-filter" in str(raised.value)


def test_bpf__close_twice_and_use_after_close() -> None:
    program = compile_filter("tcp", 1, 65_535)
    program.close()
    program.close()
    with pytest.raises(ValueError, match="closed"):
        program.apply(FrameBatch(rows=1, arena_bytes=1))


def test_bpf__one_compiled_signature() -> None:
    compile_filter("tcp", 1, 65_535).apply(batch_of(frames(8, 5)))
    assert len(filter_frames.signatures) == 1
