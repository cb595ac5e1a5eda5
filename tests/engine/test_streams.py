"""Where a savefile's bytes come from: compressed files, pipes, standard input."""

from __future__ import annotations

import gzip
import io
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from engine.capture.pacing import Pace
from engine.capture.savefile import SavefileSource
from engine.capture.source import ReadResult
from engine.capture.streams import open_stream
from engine.errors import CaptureError, ConfigError, CorruptFile
from engine.packets import F_TS_NS, FrameBatch
from tests import savefiles as s
from tests.builders import ethernet, ipv4, ipv6, tcp, udp
from tests.savefiles import pcap_bytes, pcapng_bytes, read_file

FRAMES = [
    ethernet(ipv4(udp(os.urandom(i % 900), dport=53 if i % 3 else 80))) if i % 2 else ethernet(ipv6(tcp(), 6), 0x86DD)
    for i in range(2000)
]


@pytest.mark.parametrize("codec", ["gzip", "zstd", "lz4"])
@pytest.mark.parametrize("make", [pcap_bytes, pcapng_bytes])
def test_compressed__same_frames(tmp_path: Path, codec: str, make: Callable[[list[bytes]], bytes]) -> None:
    data = make(FRAMES)
    path = tmp_path / "x"
    with pa.CompressedOutputStream(str(path), codec) as stream:
        stream.write(data)
    got, error = read_file(SavefileSource(str(path)), FrameBatch(rows=500, arena_bytes=3 << 19))
    assert error is None
    assert [g[1] for g in got] == FRAMES


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_compressed__several_members(tmp_path: Path, codec: str) -> None:
    data = pcap_bytes(FRAMES)
    path = tmp_path / "x"
    parts = []
    for at in range(0, len(data), 100_001):
        with pa.CompressedOutputStream(str(path), codec) as stream:
            stream.write(data[at : at + 100_001])
        parts.append(path.read_bytes())
    path.write_bytes(b"".join(parts))
    got, error = read_file(SavefileSource(str(path)))
    assert error is None
    assert [g[1] for g in got] == FRAMES


@pytest.mark.parametrize("codec", ["gzip", "zstd", "lz4"])
def test_compressed__cut_or_damaged(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "x"
    with pa.CompressedOutputStream(str(path), codec) as stream:
        stream.write(pcap_bytes(FRAMES))
    whole = path.read_bytes()
    overwritten = whole[:100] + b"\x5a" * 50 + whole[150:]
    for damaged in (whole[: len(whole) // 2], whole[:20], whole[:-3], overwritten):
        path.write_bytes(damaged)
        got, error = read_file(SavefileSource(str(path)))
        assert isinstance(error, CorruptFile)
        assert "\n" not in str(error)
        assert str(path) in str(error)
        if damaged is not overwritten:
            assert [g[1] for g in got] == FRAMES[: len(got)]


def test_compressed__something_else_inside(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"just some text"))
    assert "neither pcap nor pcapng" in str(read_file(SavefileSource(str(path)))[1])


# --- pipes --------------------------------------------------------------------------------------------------------
@pytest.fixture
def stdin_pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.FileIO]:
    """The writing end of a pipe that is standard input."""
    receive, send = os.pipe()
    with open(receive, "rb") as file, open(send, "wb", buffering=0) as writer:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        yield writer


def test_stdin__frames_arrive_as_they_are_written(stdin_pipe: io.FileIO) -> None:
    """Also those that were buffered while the head was looked at, when nothing follows them."""
    data = pcap_bytes(FRAMES[:20])
    split = len(data) - len(FRAMES[19]) - 16
    stdin_pipe.write(data[:split])
    source, batch = SavefileSource("-"), FrameBatch()
    source.open()
    for _ in range(3):
        assert source.read(batch) is ReadResult.IDLE
    assert batch.count == 19
    stdin_pipe.write(data[split : split + 30])
    assert source.read(batch) is ReadResult.IDLE
    stdin_pipe.write(data[split + 30 :])
    assert source.read(batch) is ReadResult.IDLE
    assert batch.count == 20
    stdin_pipe.close()
    assert source.read(batch) is ReadResult.END
    source.close()


def test_stdin__reads_without_waiting(stdin_pipe: io.FileIO) -> None:
    stdin_pipe.write(pcap_bytes([]))
    source, batch = SavefileSource("-"), FrameBatch()
    source.open()
    started = time.monotonic()
    assert source.read(batch) is ReadResult.IDLE
    assert time.monotonic() - started < 0.5
    source.close()


def test_stdin__header_in_pieces_and_compressed(stdin_pipe: io.FileIO) -> None:
    data = gzip.compress(pcapng_bytes(FRAMES))

    def write() -> None:
        for at in range(0, len(data), 50_000):
            stdin_pipe.write(data[at : at + 50_000])
            time.sleep(0.005)
        stdin_pipe.close()

    thread = threading.Thread(target=write)
    thread.start()
    got, error = read_file(SavefileSource("-"))
    thread.join()
    assert error is None
    assert [g[1] for g in got] == FRAMES


def test_stdin__cut_names_it(stdin_pipe: io.FileIO) -> None:
    stdin_pipe.write(pcap_bytes(FRAMES[:2])[:-1])
    stdin_pipe.close()
    got, error = read_file(SavefileSource("-"))
    assert len(got) == 1
    assert "savefile on standard input is cut off" in str(error)


def test_stdin__terminal_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    main, terminal = pty.openpty()
    with open(terminal, "rb", buffering=0) as raw:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(raw)))
        with pytest.raises(CaptureError, match="standard input is a terminal"):
            open_stream("-")
    os.close(main)


# --- filters ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("bpf", ["udp port 53", "ip6 and tcp", "greater 500", "not ip", "ether[0] == 0x0a"])
def test_filter__same_frames_as_tcpdump(tmp_path: Path, bpf: str) -> None:
    path, out = tmp_path / "in.pcap", tmp_path / "out.pcap"
    path.write_bytes(pcap_bytes(FRAMES, wirelens=[len(f) + 100 for f in FRAMES]))
    try:
        subprocess.run(["tcpdump", "-r", path, "-w", out, bpf], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs tcpdump")
    want, _ = read_file(SavefileSource(str(out)))
    for batch in (FrameBatch(), FrameBatch(rows=7, arena_bytes=3 << 19)):
        assert read_file(SavefileSource(str(path), bpf), batch) == (want, None)


def test_filter__each_link_type_has_its_own_program(tmp_path: Path) -> None:
    packet = ipv4(udp(dport=53))
    other = ipv4(udp(dport=80))
    blocks = [s.enhanced(f, 1000 * i, link) for i, (link, f) in enumerate(
        [(0, ethernet(packet)), (1, packet), (2, packet), (0, ethernet(other)), (1, other)])]  # fmt: skip
    path = tmp_path / "a"
    path.write_bytes(s.section() + s.interface(1) + s.interface(101) + s.interface(127) + b"".join(blocks))
    got, error = read_file(SavefileSource(str(path), "udp port 53"))
    assert error is None
    assert [(link, f) for _, f, _, link in got] == [(1, ethernet(packet)), (101, packet), (127, packet)]


def test_filter__wrong_text(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(pcap_bytes(FRAMES[:3]))
    error = read_file(SavefileSource(str(path), "port port"))[1]
    assert isinstance(error, ConfigError)
    assert "'port port'" in str(error)


# --- pacing -------------------------------------------------------------------------------------------------------
def replay(path: Path, speed: str) -> tuple[list[int], float]:
    """Times of the frames in the order they came, and the seconds it took."""
    source, pace, batch, times = SavefileSource(str(path)), Pace(speed), FrameBatch(), []
    source.open()
    started = time.monotonic()
    pace.begin()
    while True:
        time.sleep(pace.allow(source))
        batch.clear()
        result = source.read(batch)
        times += batch.frames[F_TS_NS, : batch.count].tolist()
        if result is ReadResult.END:
            source.close()
            return times, time.monotonic() - started


def test_pace__packets_per_second(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(pcap_bytes(FRAMES[:200]))
    times, took = replay(path, "500")
    assert len(times) == 200
    assert 0.39 < took < 1.5


def test_pace__as_recorded(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(pcap_bytes(FRAMES[:300]))  # one frame each millisecond
    times, took = replay(path, "recorded")
    assert times == sorted(times)
    assert len(times) == 300
    assert 0.29 < took < 1.5


@pytest.mark.parametrize("speed", ["fast", "0", "-1", "nan", "inf", "1e13"])
def test_pace__wrong_speed(speed: str) -> None:
    with pytest.raises(ConfigError, match=r"use max, recorded, or packets per second"):
        Pace(speed)
