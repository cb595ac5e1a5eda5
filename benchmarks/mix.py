"""Packet rows to write: a savefile replayed in a loop, or generated traffic of many flows. Seeded.

Both give decoded `PacketBatch`es with flow, application and place of the raw frame, as the publisher has them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engine import packets as k
from engine.applications import Applications
from engine.capture.savefile import SavefileSource
from engine.capture.source import ReadResult
from engine.config import FlowsConfig, FramesConfig
from engine.decode import Decoder
from engine.flows import FlowTable
from engine.frames import FrameRing

START_NS = 1_763_992_800_000_000_000  # a whole hour
EPHEMERAL = 32_768
Take = Callable[[k.FrameBatch, k.PacketBatch], None]


class Loop:
    """A `ByteStream` of a savefile (classic pcap, uncompressed), its records `times` times over."""

    def __init__(self, path: Path, times: int) -> None:
        data = path.read_bytes()
        self._head, self._records = data[:24], data[24:]
        self._left, self._buffer, self._at = times, self._head, 0

    def readinto(self, target: memoryview) -> int:
        if self._at == len(self._buffer):
            if self._left == 0:
                return 0
            self._left -= 1
            self._buffer, self._at = self._records, 0
        n = min(len(target), len(self._buffer) - self._at)
        target[:n] = self._buffer[self._at : self._at + n]
        self._at += n
        return n

    def close(self) -> None:
        """Nothing to give back."""


def arrivals(random: np.random.Generator, rows: int, pps: float, start_ns: int) -> np.ndarray:
    """Times of arrival, int64 ns: random, of mean rate `pps`."""
    return start_ns + np.cumsum(random.exponential(1e9 / pps, rows)).astype(np.int64)


def _shift(p: k.PacketBatch, loop: np.ndarray) -> None:
    """Give each replay its own addresses, client ports and sequence numbers."""
    n = p.count
    four = p.short[k.S_IP_VERSION, :n] == 4
    for row in (k.A_SRC_LO, k.A_DST_LO):
        p.address[row, :n] ^= np.where(four, (loop % 32) << 8, 0).astype(np.uint64)
    for row in (k.I_SRC_PORT, k.I_DST_PORT):
        port = p.int_[row, :n]
        p.int_[row, :n] = np.where(port >= EPHEMERAL, EPHEMERAL + (port + loop * 977) % EPHEMERAL, port)
    for row in (k.L_TCP_SEQ, k.L_TCP_ACK):
        p.long[row, :n] = (p.long[row, :n] + loop * 2_654_435_761) % (1 << 32)


def replayed(path: Path, rows: int, pps: float = 200_000.0) -> list[k.PacketBatch]:
    """At least `rows` rows of a savefile in a loop, at a rate of `pps` with nanosecond times."""
    sizes = _count(path)
    source = SavefileSource("eth0", stream=Loop(path, -(-rows // sizes)))
    source.open()
    random = np.random.default_rng(1)
    batches: list[k.PacketBatch] = []
    stages = Stages()
    now, seen, result = START_NS, 0, ReadResult.MORE
    frames, decoder = k.FrameBatch(), Decoder()
    while result is not ReadResult.END:
        frames.clear()
        frames.source, frames.first_frame_no = "eth0", seen + 1
        while (result := source.read(frames)) in (ReadResult.MORE, ReadResult.IDLE):
            pass
        n = frames.count
        if n:
            frames.frames[k.F_TS_NS, :n] = arrivals(random, n, pps, now)
            now = int(frames.frames[k.F_TS_NS, n - 1])
            packets = decoder.decode(frames, k.PacketBatch())
            _shift(packets, (seen + np.arange(n)) // sizes)
            stages.take(frames, packets)
            batches.append(packets)
            seen += n
    stages.close()
    return batches


def _count(path: Path) -> int:
    source = SavefileSource(str(path))
    source.open()
    n, frames, result = 0, k.FrameBatch(), ReadResult.MORE
    while result is not ReadResult.END:
        frames.clear()
        while (result := source.read(frames)) in (ReadResult.MORE, ReadResult.IDLE):
            pass
        n += frames.count
    return n


class Stages:
    """Flows, applications and the ring of raw frames, as in the publisher; the ring is thrown away."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.flows = FlowTable(FlowsConfig(), lambda _: None, Applications(1.0))
        self._ring = FrameRing(Path(self._folder.name), FramesConfig(limit_bytes=256 << 20), "s1", "1789abcdef012345")

    def take(self, frames: k.FrameBatch, packets: k.PacketBatch) -> None:
        self.flows.follow(frames, packets)
        self._ring.store(frames, packets)
        packets.frame_files = list(packets.frame_files)

    def close(self) -> None:
        self._ring.close()
        self._folder.cleanup()


def generated(rows: int, flows: int = 200_000, pps: float = 200_000.0) -> list[k.PacketBatch]:
    """Rows of TCP (85 %) and UDP between `flows` pairs of endpoints, one in ten over IPv6, popular ones more often."""
    random = np.random.default_rng(2)
    hosts = random.integers(0, 1 << 32, (flows, 2)).astype(np.uint64)
    hosts[:, 0] = 0x0A000000 + random.integers(0, 4096, flows)  # clients
    services = random.choice([443, 80, 53, 22, 8080, 5432], flows, p=[0.6, 0.1, 0.1, 0.05, 0.1, 0.05])
    traffic = _Traffic(
        random, hosts, random.random(flows) < 0.1, random.random(flows) < 0.85,
        random.integers(EPHEMERAL, 61_000, flows), services, random.integers(0, 1 << 32, (flows, 2)), START_NS, pps,
    )  # fmt: skip
    starts = range(0, rows, k.ROWS_PER_BATCH)
    return [traffic.batch(min(k.ROWS_PER_BATCH, rows - first), first) for first in starts]


class _Traffic:
    """What `generated` draws from; arrays have one row per flow."""

    def __init__(
        self, random: np.random.Generator, hosts: np.ndarray, six: np.ndarray, tcp: np.ndarray, client: np.ndarray,
        server: np.ndarray, sequence: np.ndarray, now: int, pps: float,
    ) -> None:  # fmt: skip
        self.random, self.hosts, self.six, self.tcp = random, hosts, six, tcp
        self.client, self.server, self.sequence, self.now, self.pps = client, server, sequence, now, pps
        self.offset = 24
        self.window = random.integers(64, 65_536, (len(hosts), 2))
        self.macs = 0x0200_0000_0000 + (hosts[:, 0] & np.uint64(0xFFF))

    def batch(self, n: int, first: int) -> k.PacketBatch:
        p, random = k.PacketBatch(), self.random
        flow = np.minimum(random.zipf(1.25, n) - 1, random.integers(0, len(self.hosts), n))
        out = random.random(n) < 0.45
        six, tcp, side = self.six[flow], self.tcp[flow], np.where(out, 0, 1)
        data = ~tcp | (random.random(n) < 0.6)
        size = np.where(data, np.where(random.random(n) < 0.55, 1448, random.integers(1, 1448, n)), 0)
        times = arrivals(random, n, self.pps, self.now)
        self.now = int(times[-1])
        p.count, p.source, p.names = n, "eth0", [f"host{i}.example.net" for i in range(400)]
        p.frame_files = ["sensor=s1/1763992800000000000-1789abcdef012345000001.pcap"]
        wire = np.maximum(60, np.where(tcp, 66, 42) + np.where(six, 20, 0) + size)
        p.long[k.L_TS, :n], p.short[k.S_TS_NANOS, :n] = times // 1000, times % 1000
        p.long[k.L_FRAME_NO, :n] = first + 1 + np.arange(n)
        p.long[k.L_WIRELEN, :n] = p.int_[k.I_CAPLEN, :n] = wire
        p.long[k.L_PAYLOAD_LEN, :n] = size
        p.long[k.L_FLOW_ID, :n] = (60_000_000_000 << 22) + flow
        p.long[k.L_FRAME_OFFSET, :n] = self.offset + np.cumsum(wire + 16) - wire - 16
        self.offset += int((wire + 16).sum())
        p.long[k.L_TCP_SEQ, :n] = (self.sequence[flow, side] + np.arange(n) * 700) % (1 << 32)
        p.long[k.L_TCP_ACK, :n] = (self.sequence[flow, 1 - side] + np.arange(n) * 350) % (1 << 32)
        p.int_[k.I_TCP_WINDOW, :n] = self.window[flow, side]
        p.short[k.S_TCP_FLAGS, :n] = np.where(size > 0, 24, 16)
        p.int_[k.I_ETHERTYPE, :n] = np.where(six, 0x86DD, 0x0800)
        p.short[k.S_IP_VERSION, :n], p.short[k.S_PROTO, :n] = np.where(six, 6, 4), np.where(tcp, 6, 17)
        p.short[k.S_TTL, :n] = np.where(out, 64, 50 + flow % 12)
        a, b = self.hosts[flow, side], self.hosts[flow, 1 - side]
        p.address[k.A_SRC_LO, :n], p.address[k.A_DST_LO, :n] = a, b
        for row in (k.A_SRC_HI, k.A_DST_HI):
            p.address[row, :n] = np.where(six, 0x2001_0DB8_0000_0000, 0).astype(np.uint64)
        p.address[k.A_SRC_MAC, :n] = np.where(out, self.macs[flow], 0x0200_0000_FFFF)
        p.address[k.A_DST_MAC, :n] = np.where(out, 0x0200_0000_FFFF, self.macs[flow])
        client, server = self.client[flow], self.server[flow]
        p.int_[k.I_SRC_PORT, :n], p.int_[k.I_DST_PORT, :n] = (
            np.where(out, client, server),
            np.where(out, server, client),
        )
        p.entropy[:n] = np.where(size > 300, 7.9 - random.exponential(0.05, n), random.uniform(3, 7.5, n))
        p.short[k.S_APP, :n] = 1 + flow % 3
        p.int_[k.I_NAME, :n] = flow % 400
        always = k.HAS_MAC | k.HAS_ETHERTYPE | k.HAS_IP | k.HAS_PROTO | k.HAS_PORTS | k.HAS_PAYLOAD
        present = np.full(n, always | k.HAS_FLOW | k.HAS_FRAME | k.HAS_APP, np.uint32)
        present |= np.where(tcp, k.HAS_TCP, 0).astype(np.uint32)
        present |= np.where(size > 0, k.HAS_ENTROPY, 0).astype(np.uint32)
        p.present[:n] = present | np.where(flow % 3 > 0, k.HAS_NAME | k.IS_ENCRYPTED, 0).astype(np.uint32)
        return p
