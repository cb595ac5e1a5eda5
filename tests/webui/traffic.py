"""A small lake for the dashboard: real captures beside the project, their frames moved to the minutes before now,
and some talk whose every text is an attack on a page. Made by the engine itself, as `engine replay` does."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import dpkt

from tests.builders import ethernet, ipv4, tcp, udp
from tests.commands import ROOT, engine

CAPTURES: Final = ROOT.parent / "shared" / "corpus" / "captures"
REAL: Final = (
    "PcapPlusPlus--four_ipv6_http_streams.pcap",
    "wireshark--http-ooo.pcap",
    "nDPI--bad-dns-traffic.pcap",
    "nDPI--dns.pcap",
    "nDPI--quic-mvfst-exp.pcap",
    "nDPI--quic_q46.pcap",
    "nDPI--tls_certificate_too_long.pcap",
    "wireshark--tls-renegotiation.pcap",
    "wireshark--arp.pcap",
    "wireshark--dhcp.pcap",
    "tcpdump--ntp-time.pcap",
    "zeek--icmp6-mldv2.pcap",
)
EVIL: Final = "<img src=x onerror=alert(1)>"  # as host, path, user agent and name of a server
SPAN_S: Final = 240
Frames = list[tuple[float, bytes]]


@dataclass(frozen=True, slots=True)
class Recorded:
    """The lake, and what is in it. `now` is when it was complete, in seconds since the epoch."""

    lake: Path
    packets: int
    now: float


def record(
    directory: Path, names: Sequence[str] = REAL, most: int = 1500, drawn_out: bool = False, sensor: str = ""
) -> Recorded:
    """Replay into the lake of the directory. Without the captures beside the project, made-up traffic only.

    `most`: frames of each capture. `drawn_out`: evenly over half a minute or more, as pictures look better.
    """
    end = float(int(time.time()) - 3)
    frames = sorted([*_real(names, most, drawn_out), *_made_up()], key=lambda f: f[0])
    path = directory / "eth0.pcap"
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1))
        for at, frame in frames:
            moved = end - SPAN_S + min(at, SPAN_S)
            file.write(struct.pack("<IIII", int(moved), int(moved % 1 * 1e6), len(frame), len(frame)) + frame)
    lake = directory / "lake"
    done = engine("replay", path, "--lake", lake, *(["--sensor", sensor] if sensor else []))
    assert done.returncode == 0, done.stderr
    return Recorded(lake, len(frames), time.time() + 1)


def _real(names: Sequence[str], most: int, drawn_out: bool) -> Frames:
    out: Frames = []
    chance = random.Random(6)
    for name in names:
        path = CAPTURES / name
        if not path.exists():
            continue
        frames = _frames(path)[:most]
        if not frames:
            continue
        if drawn_out:
            length = chance.uniform(30, 120)
            begin = chance.uniform(-length / 2, SPAN_S - length / 2)
            placed = [(begin + length * i / len(frames), frame) for i, (_, frame) in enumerate(frames)]
            out += [(at, frame) for at, frame in placed if 0 <= at < SPAN_S]
            continue
        begin = chance.random() * SPAN_S * 0.8
        out += [(begin + min(50.0, max(0.0, at - frames[0][0])), frame) for at, frame in frames]
    return out


def _frames(path: Path) -> Frames:
    """None of a capture of another link type, or one that dpkt cannot read."""
    with path.open("rb") as file:
        try:
            reader = dpkt.pcap.UniversalReader(file)
            if reader.datalink() != dpkt.pcap.DLT_EN10MB:
                return []
            return [(float(at), bytes(frame)) for at, frame in reader]
        except (ValueError, dpkt.Error):
            return []


def _frame(src: str, dst: str, payload: bytes, proto: int) -> bytes:
    ends = [bytes(map(int, address.split("."))) for address in (src, dst)]
    return ethernet(ipv4(payload, proto, src=ends[0], dst=ends[1]), src=b"\x02\0" + ends[0], dst=b"\x02\0" + ends[1])


def _question(client: str, port: int, name: bytes) -> bytes:
    """Asks the office's resolver for a name given in wire format."""
    return _frame(
        client, "10.20.0.1", udp(struct.pack(">6H", port, 0x100, 1, 0, 0, 0) + name + b"\0\1\0\1", port, 53), 17
    )


def _visit(at: float, client: str, server: str, port: int, request: bytes, answer: bytes) -> Frames:
    """One request over a new connection."""

    def segment(out: bool, flags: int, seq: int, data: bytes = b"") -> bytes:
        src, dst, sport, dport = (client, server, port, 80) if out else (server, client, 80, port)
        return _frame(src, dst, tcp(data, sport, dport, flags=flags, seq=seq), 6)

    frames = [segment(True, 2, 1000), segment(False, 18, 1000), segment(True, 16, 1001),
              segment(True, 24, 1001, request), segment(False, 24, 1001, answer)]  # fmt: skip
    return [(at + i / 1000, frame) for i, frame in enumerate(frames)]


def _made_up() -> Frames:
    """Web, names and pings of a small office; the attack; a scan, so that an alert is there."""
    out: Frames = []
    chance = random.Random(7)
    for i in range(120):
        client, server = f"10.20.0.{10 + i % 12}", f"93.184.216.{1 + i % 40}"
        at = chance.random() * SPAN_S * 0.95
        out.append((at, _question(client, 40_000 + i, b"\x03www\x07example\x03org\x00")))
        request = f"GET /{i} HTTP/1.1\r\nHost: www{i % 9}.example.org\r\nUser-Agent: browser\r\n\r\n".encode()
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n" + bytes(600)
        out += _visit(at + 0.05, client, server, 41_000 + i, request, answer)
    request = f"GET /{EVIL} HTTP/1.1\r\nHost: {EVIL}\r\nUser-Agent: {EVIL}\r\n\r\n".encode()
    answer = b"HTTP/1.1 404 " + EVIL.encode() + b"\r\nContent-Length: 0\r\n\r\n"
    out += _visit(SPAN_S - 20, "10.20.0.66", "203.0.113.66", 6666, request, answer)
    out.append((SPAN_S - 19, _question("10.20.0.66", 6667, bytes([len(EVIL)]) + EVIL.encode() + b"\x00")))
    for port in range(1, 400):
        out.append((SPAN_S - 120 + port / 50, _frame("10.20.0.99", "10.20.0.14", tcp(b"", 50_000, port, flags=2), 6)))
    return out
