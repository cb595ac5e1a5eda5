"""Inputs of the benchmarks: seeded, generated on the spot."""

from __future__ import annotations

import struct
from pathlib import Path

import dpkt
import numpy as np

from benchmarks import sessions
from engine.capture.savefile import SavefileSource
from engine.capture.source import ReadResult
from engine.errors import TruncatedFile
from engine.packets import FrameBatch

SIZES = (64, 1514)
_HEAD = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1)


def udp_frame(size: int, random: np.random.Generator) -> bytes:
    """An Ethernet frame of `size` bytes: IPv4, UDP, random addresses from 4,096 hosts, random payload."""
    data = random.bytes(size - 42)
    udp = dpkt.udp.UDP(sport=int(random.integers(1024, 65536)), dport=443, data=data, ulen=8 + len(data))
    hosts = random.integers(0, 4096, 2)
    src, dst = (bytes([10, 0, int(h) >> 8, int(h) & 255]) for h in hosts)
    ip = dpkt.ip.IP(src=src, dst=dst, p=17, len=28 + len(data), data=udp)
    return bytes(dpkt.ethernet.Ethernet(src=b"\2\0\0\0\0\1", dst=b"\2\0\0\0\0\2", data=ip))


def write_pcap(path: Path, size: int, count: int) -> Path:
    """A savefile of `count` frames of `size` bytes; 2,000 different ones in turn."""
    random = np.random.default_rng(size)
    frames = [udp_frame(size, random) for _ in range(2000)]
    with path.open("wb") as file:
        file.write(_HEAD)
        for i in range(count):
            file.write(struct.pack("<IIII", 1_700_000_000 + i // 1_000_000, i % 1_000_000, size, size))
            file.write(frames[i % 2000])
    return path


def write_many_flows(path: Path, count: int, flows: int, size: int = 64) -> Path:
    """A savefile of `count` UDP frames of `size` bytes, each of a flow drawn at random: the worst case for tables."""
    random = np.random.default_rng(1)
    records = np.zeros((count, 16 + size), np.uint8)
    records[:, 16:] = np.frombuffer(udp_frame(size, random), np.uint8)
    _stamp(records, size)
    flow = random.integers(0, flows, count)
    for byte in range(3):
        records[:, 16 + 27 + byte] = flow >> (8 * byte) & 0xFF
    records[:, 16 + 35] = flow * 7 & 0xFF
    return _write(path, records)


def write_random_payload(path: Path, count: int, size: int = 1514) -> Path:
    """A savefile of UDP frames of `size` bytes among 4,096 hosts, every payload different: the worst for entropy."""
    random = np.random.default_rng(2)
    records = np.empty((count, 16 + size), np.uint8)
    records[:, 16:58] = np.frombuffer(udp_frame(size, random)[:42], np.uint8)
    records[:, 58:] = random.integers(0, 256, (count, size - 42), np.uint8)
    _stamp(records, size)
    for column in (29, 30, 33, 34):  # the low bytes of both addresses
        records[:, 16 + column] = random.integers(0, 64, count)
    return _write(path, records)


def _stamp(records: np.ndarray, size: int) -> None:
    """Record headers, 5 us apart: uint8[count, 16 + size]."""
    number = np.arange(len(records))
    head = np.empty((len(records), 4), "<u4")
    head[:, 0], head[:, 1] = 1_700_000_000 + number // 200_000, number % 200_000 * 5
    head[:, 2:] = size
    records[:, :16] = head.view(np.uint8)


def _write(path: Path, records: np.ndarray) -> Path:
    with path.open("wb") as file:
        file.write(_HEAD)
        records.tofile(file)
    return path


def write_sessions(path: Path, count: int, pps: int = sessions.PACKETS_PER_S) -> Path:
    """A savefile of the realistic mix of `benchmarks.sessions`."""
    with path.open("wb") as file:
        file.write(_HEAD)
        for ns, frame in sessions.frames(count, pps=pps):
            seconds, left = divmod(ns, 1_000_000_000)
            file.write(struct.pack("<IIII", 1_700_000_000 + seconds, left // 1000, len(frame), len(frame)) + frame)
    return path


def copy_capture(capture: str | Path, path: Path, limit: int | None = None) -> tuple[int, int, int]:
    """The first frames of any capture that the engine reads, as a plain pcap with microseconds, for other tools.

    Returns its frames, their bytes, and the link type: that of the first frame; frames of others are left out.
    """
    source, batch = SavefileSource(str(capture)), FrameBatch()
    source.open()
    source.limit(frames=limit)
    seen = frames = size = link_type = 0
    result = ReadResult.MORE
    with path.open("wb") as file:
        while result is not ReadResult.END and seen != limit:
            batch.clear()
            try:
                result = source.read(batch)
            except TruncatedFile:  # its whole frames were read
                break
            seen += batch.count
            for ts, at, caplen, wirelen, link in batch.frames[:, : batch.count].T.tolist():
                if not frames:
                    link_type = link
                    file.write(_HEAD[:20] + struct.pack("<I", link_type))
                if link == link_type:
                    file.write(struct.pack("<IIII", ts // 10**9, ts % 10**9 // 1000, caplen, wirelen))
                    file.write(batch.arena[at : at + caplen].tobytes())
                    frames, size = frames + 1, size + wirelen
    source.close()
    return frames, size, link_type
