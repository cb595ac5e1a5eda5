"""Findings of made-up packets and of savefiles, through the real decoder, flow table, parsers and rules."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.applications import Applications
from engine.config import FlowsConfig
from engine.detect.detector import Detector
from engine.detect.finding import Finding
from engine.detect.window_rows import WindowRows, to_arrow
from engine.flows import FlowTable
from engine.packets import F_TS_NS, FrameBatch, PacketBatch
from tests.builders import arp, decoder, ethernet, fill, icmp, ipv4, tcp, udp
from tests.flowing import Timed, batches

START_NS = 1_700_000_040 * 10**9  # a whole minute
SYN, FIN, RST, PSH_ACK, ACK, SYN_ACK, RST_ACK, XMAS = 0x02, 0x01, 0x04, 0x18, 0x10, 0x12, 0x14, 0x29


class Rig:
    """A detector behind a flow table. `windows` are the rows of that table."""

    def __init__(self, rules: Mapping[str, Any] | None = None, apps: bool = True, **sizes: Any) -> None:
        self.applications = Applications() if apps else None
        self.table = FlowTable(FlowsConfig(max_flows=20_000), lambda rows: rows.release(), self.applications)
        self.windows: list[dict[str, Any]] = []
        self.detector = Detector(rules or {}, len(self.table.records), self._keep, **sizes)
        self.packets = PacketBatch()

    def send(self, timed: Sequence[Timed], cuts: Sequence[int] = (), source: str = "test") -> list[Finding]:
        """The frames in batches that end at the cuts; then the source ends."""
        found: list[Finding] = []
        begin = 0
        for end in [*sorted({c for c in cuts if 0 < c < len(timed)}), len(timed)]:
            part = timed[begin:end]
            frames = fill([frame for _, frame in part])
            frames.source = source
            frames.frames[F_TS_NS, : len(part)] = [START_NS + round(at * 1e9) for at, _ in part]
            found += self.take(frames)
            begin = end
        return found + self.end(source)

    def take(self, frames: FrameBatch) -> list[Finding]:
        decoder()[0].decode(frames, self.packets)
        self.table.follow(frames, self.packets)
        return self.detector.take(frames, self.packets, self.table) + self._rows()

    def end(self, source: str = "test") -> list[Finding]:
        self.table.end_source(source)
        return self._rows() + self.detector.end_source(source)

    def _keep(self, made: WindowRows) -> None:
        rows = to_arrow([made])
        times = rows.column("ts").cast(pa.int64()).to_pylist()
        self.windows += [row | {"ts": ts} for row, ts in zip(rows.to_pylist(), times, strict=True)]

    def _rows(self) -> list[Finding]:
        found: list[Finding] = []
        for table, rows in self.applications.take_rows().items() if self.applications else ():
            found += self.detector.application_rows(table, rows)
        return found

    def read(self, path: Path | str, cuts: random.Random | None = None) -> list[Finding]:
        """A savefile, in batches as read or cut at random."""
        found: list[Finding] = []
        part = FrameBatch(arena_bytes=0)
        for frames in batches(path):
            first = 0
            while first < frames.count:
                stop = frames.count if cuts is None else min(frames.count, first + cuts.choice([1, 7, 100, 3000]))
                part.arena, part.count, part.source = frames.arena, stop - first, "file"
                part.frames[:, : part.count] = frames.frames[:, first:stop]
                found += self.take(part)
                first = stop
        return found + self.end("file")


def find(timed: Iterable[Timed], rules: Mapping[str, Any] | None = None) -> list[Finding]:
    """All findings of frames in the order of time."""
    return Rig(rules).send(sorted(timed, key=lambda t: t[0]))


def kinds(findings: Iterable[Finding]) -> list[tuple[str, str | None, str | None]]:
    """Kind, source and victim of each, once."""
    return sorted({(f.kind, f.src_ip, f.dst_ip) for f in findings}, key=str)


def seconds(finding: Finding) -> float:
    """When it was made, after the start."""
    return (finding.ts * 1000 - START_NS) / 1e9


def ip(text: str) -> bytes:
    return bytes(map(int, text.split(".")))


def mac(text: str) -> bytes:
    """A locally administered address for an IP address."""
    return b"\x02\x00" + ip(text)


def frame(src: str, dst: str, payload: bytes, proto: int) -> bytes:
    return ethernet(ipv4(payload, proto, src=ip(src), dst=ip(dst)), src=mac(src), dst=mac(dst))


def tcp_frame(src: str, dst: str, sport: int, dport: int, flags: int, data: bytes = b"", seq: int = 1000) -> bytes:
    return frame(src, dst, tcp(data, sport, dport, flags=flags, seq=seq), 6)


def udp_frame(src: str, dst: str, sport: int, dport: int, data: bytes = b"x" * 20) -> bytes:
    return frame(src, dst, udp(data, sport, dport), 17)


def echo(src: str, dst: str, data: bytes = bytes(56), reply: bool = False) -> bytes:
    return frame(src, dst, icmp(data, 0 if reply else 8), 1)


def arp_frame(src: str, dst: str, op: int = 1, sender_mac: bytes | None = None) -> bytes:
    return ethernet(arp(op, ip(src), ip(dst)), 0x0806, src=sender_mac or mac(src))


def unreachable(src: str, original: bytes) -> bytes:
    """`src` says port unreachable about an Ethernet frame."""
    packet = original[14:]
    sender = ".".join(map(str, packet[12:16]))
    return frame(src, sender, struct.pack(">BBHI", 3, 3, 0, 0) + packet[:28], 1)


def handshake(at: float, client: str, server: str, sport: int, dport: int) -> list[Timed]:
    """A connection opens; both sides go on at sequence number 1001."""
    return [
        (at, tcp_frame(client, server, sport, dport, SYN)),
        (at + 0.001, tcp_frame(server, client, dport, sport, SYN_ACK)),
        (at + 0.002, tcp_frame(client, server, sport, dport, ACK, seq=1001)),
    ]


class Talk:
    """A TCP connection that speaks in turn."""

    def __init__(self, at: float, client: str, server: str, sport: int, dport: int) -> None:
        self.frames = handshake(at, client, server, sport, dport)
        self.at, self.ends, self.ports = at + 0.003, (client, server), (sport, dport)
        self._seq = [1001, 1001]

    def say(self, data: bytes, from_client: bool = True, pause: float = 0.001) -> Talk:
        side = 0 if from_client else 1
        (src, dst), (sport, dport) = (self.ends, self.ports) if from_client else (self.ends[::-1], self.ports[::-1])
        self.frames.append((self.at, tcp_frame(src, dst, sport, dport, PSH_ACK, data, self._seq[side])))
        self._seq[side] += len(data)
        self.at += pause
        return self
