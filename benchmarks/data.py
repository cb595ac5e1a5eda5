"""Inputs of the benchmarks: seeded, generated on the spot."""

from __future__ import annotations

import struct
from pathlib import Path

import dpkt
import numpy as np

SIZES = (64, 1514)


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
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1))
        for i in range(count):
            file.write(struct.pack("<IIII", 1_700_000_000 + i // 1_000_000, i % 1_000_000, size, size))
            file.write(frames[i % 2000])
    return path
