"""Hits of rules to findings: thresholds, orientation, and one finding for equal hits of a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from engine.detect.finding import Finding
from engine.detect.signatures.packet import Packet
from engine.detect.signatures.rule import Rule
from engine.detect.signatures.thresholds import Thresholds
from engine.dissect.base import text_of

_EXAMPLES: Final = 8
_MOST: Final = 4096  # findings of a batch with a source of their own; with forged sources there may be any number
_EXCERPT: Final = 160
_PROTO: Final = {6: "TCP", 17: "UDP", 1: "ICMP", 58: "ICMPv6"}


@dataclass(slots=True)
class _Merged:
    """Equal hits: the first one, and what came after."""

    number: int
    ts: int
    src_ip: str
    dst_ip: str
    port: int | None
    proto: int | None
    domain: str | None
    where: str
    evidence: dict[str, Any]
    last: int = 0
    count: int = 0
    flows: list[int] = field(default_factory=list)
    packets: list[int] = field(default_factory=list)


class Hits:
    """Collects hits of a batch."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self._thresholds = Thresholds()
        self._merged: dict[tuple[int, str, str, int | None, int], _Merged] = {}

    def add_packet(self, number: int, p: Packet, data: bytes, joined: bool) -> None:
        """A rule matched a packet. `joined`: in bytes of two segments."""
        proto = p.proto if p.proto >= 0 else None
        where = f"{'two segments' if joined else 'a packet'} of {_PROTO.get(p.proto, f'protocol {p.proto}')}"
        facts = {"src_port": p.src_port, "dst_port": p.dst_port, "payload": text_of(data, _EXCERPT)}
        merged = self._add(number, p.ts, p.src_ip, p.dst_ip, p.server_port, proto, None, where, facts)
        if merged is not None:
            _append(merged.packets, p.frame_no)
            _append(merged.flows, p.flow_id)

    def add_row(self, number: int, table: str, row: dict[str, Any]) -> None:
        """A rule matched an application row."""
        names = {"dns": "query", "tls": "sni", "quic": "sni", "http": "host"}
        domain = row.get(names.get(table, ""))
        facts = {c: row[c] for c in ("method", "path", "user_agent", "query", "sni", "ja3", "ja4") if row.get(c)}
        merged = self._add(
            number, int(row["ts"]), str(row.get("src_ip")), str(row.get("dst_ip")), row.get("dst_port"), None,
            domain, f"a {table} message", {"table": table, **facts},
        )  # fmt: skip
        if merged is not None:
            _append(merged.flows, row.get("flow_id") or 0)

    def _add(
        self, number: int, ts: int, src: str, dst: str, port: int | None, proto: int | None, domain: str | None,
        where: str, facts: dict[str, Any],
    ) -> _Merged | None:  # fmt: skip
        rule = self._rules[number]
        limit = rule.threshold
        if limit is not None and not self._thresholds.admit(number, limit, src if limit.by_src else dst, ts):
            return None
        if rule.target == "src_ip":
            src, dst = dst, src
        key = number, src, dst, port, ts // 1_000_000
        merged = self._merged.get(key)
        if merged is None and len(self._merged) >= _MOST:
            src, dst, port = "", dst if len(self._merged) < 2 * _MOST else "", None
            key = number, src, dst, port, ts // 1_000_000
            merged = self._merged.get(key)
        if merged is None:
            merged = self._merged[key] = _Merged(number, ts, src, dst, port, proto, domain, where, facts)
        merged.count += 1
        merged.last = ts
        return merged

    def take(self, source: str) -> list[Finding]:
        """The findings since the last call, by time."""
        found = [self._finding(m, source) for m in self._merged.values()]
        self._merged.clear()
        return sorted(found, key=lambda f: f.ts)

    def _finding(self, m: _Merged, source: str) -> Finding:
        rule = self._rules[m.number]
        name = f"sid {rule.sid}" if rule.sid else "pattern"
        times = "" if m.count == 1 else f", {m.count} times within a second"
        evidence = {"sid": rule.sid, "rev": rule.rev, "signature": rule.message, "rules": rule.origin, **m.evidence}
        if rule.classtype:
            evidence["classtype"] = rule.classtype
        if rule.reference:
            evidence["reference"] = list(rule.reference)
        return Finding(
            ts=m.ts, kind=rule.kind, severity=rule.severity, src_ip=m.src_ip or None,
            dst_ip=m.dst_ip or None, dst_port=m.port,
            why=f"{rule.message or 'signature'} ({name}) in {m.where}{times}", proto=m.proto, domain=m.domain,
            source=source, count=m.count, evidence=evidence,
            flow_ids=tuple(f for f in m.flows if f), packets=tuple(m.packets),
        )  # fmt: skip


def _append(examples: list[int], value: int) -> None:
    if len(examples) < _EXAMPLES and value not in examples:
        examples.append(value)
