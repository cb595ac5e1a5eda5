"""Generated traffic, for machines where capturing is not allowed: a pcap stream without end, one second at a time.

The packets are never sent. Addresses outside the private ranges are those of well-known public services, so that
maps and GeoIP joins have something to show.
"""

from __future__ import annotations

import ipaddress
import struct
import time
from collections.abc import Sequence

import dpkt
import numpy as np

_CLIENTS = [f"10.20.{i // 8}.{10 + i % 8}" for i in range(24)]
_SERVERS = (
    "1.1.1.1", "8.8.8.8", "9.9.9.9", "151.101.1.69", "140.82.121.4", "104.16.132.229", "13.107.42.14", "52.95.110.1",
    "185.199.108.153", "91.198.174.192", "203.119.101.61", "200.160.2.3", "196.216.2.6", "17.253.144.10",
)  # fmt: skip
_SERVERS6 = ("2606:4700:4700::1111", "2001:4860:4860::8888", "2620:fe::fe")
_GATEWAY = b"\x02\x00\x00\x00\x00\x01"
_FILE_HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262_144, 1)


class GeneratedCapture:
    """A `ByteStream` of about `pps` frames per second, from `start_ns` (ns since the epoch; default now) on."""

    def __init__(self, pps: int = 600, start_ns: int | None = None, seed: int = 1) -> None:
        self._random = np.random.default_rng(seed)
        self._pps = pps
        self._second_ns = time.time_ns() if start_ns is None else start_ns
        self._buffer = _FILE_HEADER
        self._at = 0

    def readinto(self, target: memoryview) -> int:
        if self._at == len(self._buffer):
            self._buffer, self._at = self._next_second(), 0
        n = min(len(target), len(self._buffer) - self._at)
        target[:n] = self._buffer[self._at : self._at + n]
        self._at += n
        return n

    def close(self) -> None:
        """Nothing to give back."""

    def _next_second(self) -> bytes:
        swing = 1 + 0.5 * np.sin(self._second_ns / 40e9) + (2.0 if self._random.random() < 0.03 else 0.0)
        n = int(self._random.poisson(self._pps * swing))
        times = self._second_ns + np.sort(self._random.integers(0, 1_000_000_000, n))
        self._second_ns += 1_000_000_000
        records = []
        for ts in times.tolist():
            frame = self._frame()
            records.append(struct.pack("<IIII", ts // 10**9, ts % 10**9, len(frame), len(frame)) + frame)
        return b"".join(records)

    def _pick(self, values: Sequence[str]) -> str:
        """One of the values, the first ones more often."""
        return values[min(int(self._random.exponential(len(values) / 4)), len(values) - 1)]

    def _frame(self) -> bytes:
        kind = self._random.random()
        if kind < 0.02:
            return self._arp()
        if kind < 0.05:
            return self._ip(
                dpkt.icmp.ICMP(type=8, data=dpkt.icmp.ICMP.Echo(id=7, seq=1, data=b"abcdefghijklmnop" * 3)), 1
            )
        if kind < 0.20:
            query = dpkt.dns.DNS(id=int(self._random.integers(65536)), qd=[dpkt.dns.DNS.Q(name="example.com")])
            return self._udp(53, bytes(query))
        if kind < 0.40:
            return self._udp(443, self._random.bytes(int(self._random.integers(40, 1200))), v6=kind < 0.25)
        if kind < 0.50:
            return self._tcp(80, b"GET /index.html HTTP/1.1\r\nHost: example.com\r\nAccept: text/html\r\n\r\n")
        size = int(self._random.choice([0, 0, 120, 517, 1400, 1448]))
        return self._tcp(22 if kind < 0.53 else 443, self._random.bytes(size), v6=kind > 0.9)

    def _udp(self, port: int, data: bytes, v6: bool = False) -> bytes:
        datagram = dpkt.udp.UDP(sport=int(self._random.integers(32768, 61000)), dport=port, data=data)
        datagram.ulen = len(datagram)
        return self._ip(datagram, 17, v6)

    def _tcp(self, port: int, data: bytes, v6: bool = False) -> bytes:
        random = self._random
        flags = dpkt.tcp.TH_ACK | (dpkt.tcp.TH_PUSH if data else 0)
        segment = dpkt.tcp.TCP(sport=int(random.integers(32768, 61000)), dport=port, seq=int(random.integers(2**32)),
                               ack=int(random.integers(2**32)), flags=flags, win=502, data=data)  # fmt: skip
        return self._ip(segment, 6, v6)

    def _ip(self, transport: dpkt.Packet, proto: int, v6: bool = False) -> bytes:
        client = self._pick(_CLIENTS)
        if v6:
            src, dst = "2001:db8::" + client.split(".")[-1], self._pick(_SERVERS6)
        else:
            src, dst = client, self._pick(_SERVERS)
        outgoing = self._random.random() < 0.45
        a, b = (ipaddress.ip_address(x).packed for x in ((src, dst) if outgoing else (dst, src)))
        if not outgoing and proto in (6, 17):
            transport.sport, transport.dport = transport.dport, transport.sport
        if v6:
            packet = dpkt.ip6.IP6(src=a, dst=b, nxt=proto, hlim=64, plen=len(transport), data=transport)
        else:
            packet = dpkt.ip.IP(
                src=a, dst=b, p=proto, ttl=64 if outgoing else 56, len=20 + len(transport), data=transport
            )
        mac = b"\x02\x00" + ipaddress.ip_address(client).packed
        ends = (mac, _GATEWAY) if outgoing else (_GATEWAY, mac)
        kind = dpkt.ethernet.ETH_TYPE_IP6 if v6 else dpkt.ethernet.ETH_TYPE_IP
        return bytes(dpkt.ethernet.Ethernet(src=ends[0], dst=ends[1], type=kind, data=packet)).ljust(60, b"\0")

    def _arp(self) -> bytes:
        client = ipaddress.ip_address(self._pick(_CLIENTS)).packed
        request = dpkt.arp.ARP(sha=b"\x02\x00" + client, spa=client, tpa=ipaddress.ip_address("10.20.0.1").packed)
        broadcast = b"\xff" * 6
        return bytes(dpkt.ethernet.Ethernet(src=b"\x02\x00" + client, dst=broadcast, type=0x0806, data=request)).ljust(
            60, b"\0"
        )
