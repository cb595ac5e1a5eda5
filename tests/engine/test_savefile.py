"""Savefiles of every form give the frames that were put in, with their times; damage gives those before it."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path
from typing import Any

import dpkt
import numpy as np
import pytest

from engine.capture.pypcap_driver import pcap_module
from engine.capture.savefile import SavefileSource
from engine.capture.source import ReadResult
from engine.constants import LINK_TYPE_NAMES, MAX_CAPLEN
from engine.errors import CaptureError, CorruptFile, EngineError, TruncatedFile
from engine.packets import F_CAPLEN, F_LINK_TYPE, F_OFFSET, F_TS_NS, FrameBatch
from tests import savefiles as s
from tests.builders import ethernet, ipv4, udp
from tests.savefiles import enhanced, interface, pcap_bytes, pcapng_bytes, read_file, section

FRAMES = [ethernet(ipv4(udp(bytes(i % 1400)), total=0)) for i in range(3000)]
SECOND = 10**9


def read(data: bytes, tmp_path: Path, batch: FrameBatch | None = None, bpf: str = "") -> tuple[s.Frames, Any]:
    path = tmp_path / "file.pcap"
    path.write_bytes(data)
    return read_file(SavefileSource(str(path), bpf), batch)


def frames(data: bytes, tmp_path: Path) -> list[bytes]:
    got, error = read(data, tmp_path)
    assert error is None
    return [frame for _, frame, _, _ in got]


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("form", ["", "nanoseconds", "modified"])
def test_pcap__both_byte_orders_and_all_magics(tmp_path: Path, big_endian: bool, form: str) -> None:
    options = {form: True} if form else {}
    wirelens = [len(f) + 5 for f in FRAMES]
    data = pcap_bytes(FRAMES, big_endian=big_endian, wirelens=wirelens, **options)  # type: ignore[arg-type]
    got, error = read(data, tmp_path)
    assert error is None
    unit = 1 if form == "nanoseconds" else 1000
    want = [(1_700_000_000 + i // 900) * SECOND + (1000 * (i % 900) + 7) * unit for i in range(len(FRAMES))]
    assert [g[0] for g in got] == want
    assert [g[1] for g in got] == FRAMES
    assert [g[2] for g in got] == wirelens
    assert {g[3] for g in got} == {1}


def test_pcap__as_dpkt_and_pypcap_read_it(tmp_path: Path) -> None:
    data = pcap_bytes(FRAMES, wirelens=[len(f) + 9 for f in FRAMES])
    got, _ = read(data, tmp_path)
    reference = [(round(t * 1e6) * 1000, bytes(f)) for t, f in dpkt.pcap.Reader(io.BytesIO(data))]
    assert [(ts, frame) for ts, frame, _, _ in got] == reference
    reader = pcap_module().pcap(str(tmp_path / "file.pcap"), promisc=False)
    try:
        others = [(round(t * 1e6) * 1000, bytes(f)) for t, f in reader]
    finally:
        reader.close()
    assert others == reference


@pytest.mark.parametrize(("version", "swap"), [((2, 2), True), ((2, 3), False), ((2, 3), True), ((2, 0), True)])
def test_pcap__old_versions_have_lengths_the_other_way_round(tmp_path: Path, version: Any, swap: bool) -> None:
    data = bytearray(pcap_bytes([b"x" * 60], wirelens=[1500], version=version))
    if swap:
        data[32:40] = data[36:40] + data[32:36]
    got, error = read(bytes(data), tmp_path)
    assert error is None
    assert [(len(g[1]), g[2]) for g in got] == [(60, 1500)]


@pytest.mark.parametrize("link_type", LINK_TYPE_NAMES)
def test_pcap__every_link_type_with_a_decoder(tmp_path: Path, link_type: int) -> None:
    got, error = read(pcap_bytes([b"abc"], link_type=link_type | 0x1400_0000), tmp_path)  # the high bits: FCS length
    assert error is None
    assert got[0][3] == link_type


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("make", [pcap_bytes, pcapng_bytes])
def test_read__small_batches_lose_and_double_nothing(tmp_path: Path, make: Any, rows: int) -> None:
    big = [*FRAMES[:1200], bytes(MAX_CAPLEN), b"", *FRAMES[:300], bytes(range(256)) * 1024, *FRAMES[:5]]
    got, error = read(make(big), tmp_path, FrameBatch(rows=rows, arena_bytes=3 << 19))
    assert error is None
    assert [g[1] for g in got] == big


def test_read__appends_to_a_batch_that_has_frames(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(pcap_bytes(FRAMES[:10]))
    batch = FrameBatch()
    for _ in range(2):
        source = SavefileSource(str(path))
        source.open()
        while source.read(batch) is not ReadResult.END:
            pass
        assert source.read(batch) is ReadResult.END
        assert source.counters().received == 10
        source.close()
        source.close()
    assert batch.count == 20
    offsets = batch.frames[F_OFFSET, :20]
    assert (np.diff(offsets) >= batch.frames[F_CAPLEN, :19]).all()
    assert batch.frames[F_TS_NS, :10].tolist() == batch.frames[F_TS_NS, 10:20].tolist()


@pytest.mark.parametrize("cut", [1, 8, 15, 16, 17, 40])
def test_pcap__cut_inside_a_record(tmp_path: Path, cut: int) -> None:
    data = pcap_bytes(FRAMES[:100])
    last = 16 + len(FRAMES[99])
    got, error = read(data[: len(data) - last + cut], tmp_path)
    assert [g[1] for g in got] == FRAMES[:99]
    assert isinstance(error, TruncatedFile)
    assert "its 99 whole frames were read" in str(error)


@pytest.mark.parametrize("make", [pcap_bytes, pcapng_bytes])
def test_read__cut_anywhere(tmp_path: Path, make: Any) -> None:
    """At every length: the whole frames, then TruncatedFile unless the cut is between records."""
    data = make(FRAMES[20:24])
    count = 0
    for n in range(1, len(data)):
        got, error = read(data[:n], tmp_path)
        assert [g[1] for g in got] == FRAMES[20 : 20 + len(got)]
        assert len(got) in (count, count + 1)
        count = len(got)
        assert error is None or isinstance(error, TruncatedFile | CorruptFile), n
        assert error is None or "\n" not in str(error)
    assert count == 3


def test_pcap__impossible_length_after_good_frames(tmp_path: Path) -> None:
    data = pcap_bytes(FRAMES[:5]) + struct.pack("<IIII", 1, 2, MAX_CAPLEN + 1, 60) + bytes(500)
    got, error = read(data, tmp_path)
    assert len(got) == 5
    assert type(error) is CorruptFile
    assert "damaged after frame 5" in str(error)


def test_pcap__header_only_is_no_error(tmp_path: Path) -> None:
    assert read(pcap_bytes([]), tmp_path) == ([], None)


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        (b"", CorruptFile, "is empty"),
        (b"\xd4\xc3", TruncatedFile, "ends inside its header"),
        (pcap_bytes([])[:23], TruncatedFile, "ends inside its header"),
        (b"%PDF-1.7 and so on", CorruptFile, "neither pcap nor pcapng"),
        (bytes(100), CorruptFile, "neither pcap nor pcapng"),
        (pcap_bytes([], version=(3, 0)), CorruptFile, "pcap version 3.0"),
        (pcap_bytes([b"x"], link_type=127), CorruptFile, "link type 127, which has no decoder"),
        (b"\x1f\x8b but not gzip", CorruptFile, "damaged or cut off"),
        (section(version=(2, 0)), CorruptFile, "pcapng version 2.0"),
    ],
)
def test_open__foreign_files(tmp_path: Path, data: bytes, kind: type[EngineError], text: str) -> None:
    got, error = read(data, tmp_path)
    assert got == []
    assert type(error) is kind
    assert text in str(error)
    assert "\n" not in str(error)
    assert str(tmp_path / "file.pcap") in str(error)


def test_open__directory_and_missing_file(tmp_path: Path) -> None:
    for path, text in ((tmp_path, "is a directory"), (tmp_path / "no", "no such file")):
        with pytest.raises(CaptureError, match=text):
            SavefileSource(str(path)).open()


def test_open__unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for root, who may read anything: a file that opens but fails when read."""
    memory = Path("/proc/self/mem")
    if not memory.exists():
        pytest.skip("needs a file that cannot be read")
    with pytest.raises(CaptureError, match="input/output error"):
        SavefileSource(str(memory)).open()
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(CaptureError, match="standard input is closed"):
        SavefileSource("-").open()


# --- pcapng -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("end", ["<", ">"])
def test_pcapng__interfaces_sections_and_block_types(tmp_path: Path, end: str) -> None:
    other = "<" if end == ">" else ">"
    data = (
        section(end)
        + interface(1, tsresol=9, end=end)
        + s.block(0x0BAD, b"custom", end)
        + interface(101, tsresol=3, tsoffset=-5, end=end)
        + enhanced(b"one!", 7 * SECOND + 1, 0, end, wirelen=99)
        + enhanced(b"two", 8000, 1, end)
        + s.simple(b"three", end)
        + s.old_packet(b"four", 9 * SECOND, 0, end)
        + s.block(4, bytes(40), end)  # name resolution
        + s.block(5, bytes(12), end)  # statistics
        + section(other)
        + interface(127, end=other)
        + enhanced(b"five", 10_000_000, 0, other)
    )
    got, error = read(data, tmp_path)
    assert error is None
    assert got == [
        (7 * SECOND + 1, b"one!", 99, 1),
        (3 * SECOND, b"two", 3, 101),
        (0, b"three", 5, 1),
        (9 * SECOND, b"four", 4, 1),
        (10 * SECOND, b"five", 4, 127),
    ]


@pytest.mark.parametrize("resolution", [0, 3, 6, 7, 9, 12, 15, 0x80, 0x80 | 10, 0x80 | 20, 0x80 | 32, 0x80 | 40])
def test_pcapng__timestamp_resolutions(tmp_path: Path, resolution: int) -> None:
    per_second = 10**resolution if resolution < 128 else 2 ** (resolution & 127)
    ticks = [5 * per_second, 5 * per_second + 1, 100 * per_second + per_second // 3]
    data = section() + interface(tsresol=resolution) + b"".join(enhanced(b"x", t) for t in ticks)
    got, error = read(data, tmp_path)
    assert error is None
    for ts, t in zip([g[0] for g in got], ticks, strict=True):
        assert abs(ts - t * SECOND // per_second) <= 1


def test_pcapng__huge_unknown_block_is_passed_over(tmp_path: Path) -> None:
    for size in (MAX_CAPLEN - 12, MAX_CAPLEN, 20 << 20):
        data = section() + interface() + s.block(0x0BAD, bytes(size)) + enhanced(b"x", 1)
        assert [g[1] for g in read(data, tmp_path)[0]] == [b"x"]
        got, error = read(data[: len(data) - 100], tmp_path)
        assert got == []
        assert isinstance(error, TruncatedFile)


def test_pcapng__simple_packets_are_cut_at_the_snaplen(tmp_path: Path) -> None:
    data = section() + interface(snaplen=10) + s.simple(b"0123456789", wirelen=1000) + s.simple(b"01")
    assert read(data, tmp_path) == ([(0, b"0123456789", 1000, 1), (0, b"01", 2, 1)], None)


@pytest.mark.parametrize(
    ("blocks", "text"),
    [
        (enhanced(b"x", 1, 1), "damaged after frame 1"),
        (s.block(6, bytes(12)), "damaged after frame 1"),
        (enhanced(b"x", 1)[:-4] + b"\0\0\0\0", "damaged after frame 1"),
        (struct.pack("<III", 6, 13, 0) + bytes(20), "damaged after frame 1"),
        (struct.pack("<IIIIIII", 6, 32, 0, 0, 0, 5, 5) + struct.pack("<I", 32), "damaged after frame 1"),
        (s.block(1, b""), "a pcapng block of 12 bytes"),
        (s.block(1, bytes(4)), "a pcapng block of 16 bytes"),
        (s.block(0x0A0D0D0A, struct.pack("<IHH", 0x1A2B3C4D, 1, 0)) + bytes(8), "a pcapng block of 20 bytes"),
        (s.block(0x0A0D0D0A, bytes(16)), "without byte-order magic"),
        (interface(tsresol=29), "timestamp resolution 29"),
        (section() + enhanced(b"no interface", 1), "damaged after frame 1"),
    ],
)
def test_pcapng__damaged_block_after_a_good_frame(tmp_path: Path, blocks: bytes, text: str) -> None:
    got, error = read(pcapng_bytes([b"good"]) + blocks + enhanced(b"y", 1), tmp_path)
    assert [g[1] for g in got] == [b"good"]
    assert type(error) is CorruptFile
    assert text in str(error)
    assert "\n" not in str(error)


def test_pcapng__unsupported_link_type_is_a_status(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(pcapng_bytes([b"y" * 60], link_type=105))
    batch = FrameBatch()
    source = SavefileSource(str(path))
    source.open()
    assert source.read(batch) is ReadResult.END
    source.close()
    assert batch.frames[F_LINK_TYPE, 0] == 105
