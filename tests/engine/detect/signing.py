"""Captures made of bytes, rules as text, and the hits between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.applications import Applications
from engine.config import FlowsConfig, SignaturesConfig
from engine.decode import Decoder
from engine.detect.finding import Finding
from engine.detect.signatures.loader import RuleSet, variables_of
from engine.detect.signatures.stage import Signatures
from engine.flows import FlowTable
from engine.packets import F_TS_NS, PacketBatch
from tests.builders import DST4, SRC4, ethernet, fill, icmp, ipv4, ipv6, tcp, udp

START_NS = 1_700_000_000 * 10**9
CLIENT, SERVER = SRC4, DST4  # 10.1.2.3, 192.0.2.200


def up(data: bytes, seq: int, sport: int = 40000, dport: int = 80, flags: int = 0x18) -> bytes:
    """Client to server."""
    return ethernet(ipv4(tcp(data, sport, dport, seq=seq, ack=1, flags=flags), 6))


def down(data: bytes, seq: int, sport: int = 40000, dport: int = 80, flags: int = 0x18) -> bytes:
    """Server to client."""
    return ethernet(ipv4(tcp(data, dport, sport, seq=seq, ack=1, flags=flags), 6, src=SERVER, dst=CLIENT))


def session(
    *messages: bytes | tuple[bytes], sport: int = 40000, dport: int = 80, handshake: bool = True
) -> list[bytes]:
    """A TCP connection: frames 1 to 3 the handshake, then a frame per message; one in a tuple is the server's."""
    frames, seq = [], {True: 1001, False: 5001}
    if handshake:
        frames += [up(b"", 1000, sport, dport, 2), down(b"", 5000, sport, dport, 0x12), up(b"", 1001, sport, dport, 16)]
    for message in messages:
        client = isinstance(message, bytes)
        data = message if isinstance(message, bytes) else message[0]
        frames.append((up if client else down)(data, seq[client], sport, dport))
        seq[client] += len(data)
    return frames


def datagram(data: bytes, sport: int = 5000, dport: int = 6000, answer: bool = False) -> bytes:
    """A UDP datagram of the client, or of the server."""
    if answer:
        return ethernet(ipv4(udp(data, dport, sport), 17, src=SERVER, dst=CLIENT))
    return ethernet(ipv4(udp(data, sport, dport), 17))


def datagram6(data: bytes, sport: int = 5000, dport: int = 6000) -> bytes:
    """The same over IPv6."""
    return ethernet(ipv6(udp(data, sport, dport), 17), 0x86DD)


def ping(kind: int = 8, code: int = 0, data: bytes = b"ping") -> bytes:
    """An ICMP message."""
    return ethernet(ipv4(icmp(data, kind, code), 1))


class Bench:
    """The stages before, and the signature stage."""

    def __init__(self, signatures: Signatures) -> None:
        self.signatures = signatures
        self.applications = Applications()
        self.table = FlowTable(FlowsConfig(), lambda rows: rows.release(), self.applications, first_id=1)
        self.findings: list[Finding] = []
        self._decoder, self._sent = Decoder(), 0

    def send(
        self, frames: Sequence[bytes], times_s: Sequence[float] = (), wirelens: Sequence[int] | None = None
    ) -> Bench:
        """One batch; a tenth of a millisecond between frames."""
        batch = fill(frames, wirelens=wirelens)
        batch.first_frame_no = self._sent + 1
        at = times_s or [(self._sent + n) * 1e-4 for n in range(len(frames))]
        batch.frames[F_TS_NS, : len(frames)] = [START_NS + round(t * 1e9) for t in at]
        self._sent += len(frames)
        packets = PacketBatch(rows=max(1, len(frames)))
        self._decoder.decode(batch, packets)
        self.table.follow(batch, packets)
        self.findings += self.signatures.take(batch, packets, self.table)
        self._rows()
        return self

    def close(self) -> list[Finding]:
        """End the flows; all findings."""
        self.table.close()
        self._rows()
        return self.findings

    def _rows(self) -> None:
        for table, rows in self.applications.take_rows().items():
            self.findings += self.signatures.application_rows(table, rows)


def config_of(**values: Any) -> SignaturesConfig:
    """A configuration without the starter set."""
    return SignaturesConfig(**{"starter": False, "flows": 64, **values})


def rules_of(*lines: str, patterns: str = "", **values: Any) -> RuleSet:
    """Rules of lines; whatever is refused fails the test."""
    found = RuleSet()
    found.add_rules("\n".join(lines), "test.rules", variables_of(config_of(**values)))
    found.add_patterns(patterns, "test.patterns")
    assert not found.refused, found.refused
    return found


def find(
    rules: RuleSet, frames: Sequence[bytes], wirelens: Sequence[int] | None = None, **values: Any
) -> list[Finding]:
    """The findings of a capture."""
    return Bench(Signatures(config_of(**values), 1.0, rules)).send(frames, wirelens=wirelens).close()


def hits(findings: Sequence[Finding]) -> list[int]:
    """The numbers of the frames that were found; 0 for an application row."""
    return sorted(n for f in findings for n in (f.packets or (0,) * f.count))
