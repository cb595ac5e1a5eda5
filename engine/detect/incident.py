"""One incident: what findings of one kind between the same addresses add up to."""

from __future__ import annotations

from typing import Any, Final

from engine.alert_row import ENGINE
from engine.detect.evidence import Evidence, clean
from engine.detect.finding import SEVERITIES, Finding

EXAMPLES: Final = 20  # flows and packets that it names: the first ten and the newest ten
_HALF: Final = EXAMPLES // 2
RANK: Final = {name: rank for rank, name in enumerate(SEVERITIES)}
Key = tuple[str, str | None, str | None, str]


def rank_of(severity: str) -> int:
    """0 for low to 3 for critical. A word that is none of them is taken for medium."""
    return RANK.get(severity, 1)


class Incident:
    """Begins with its first finding; `add` extends it."""

    __slots__ = (
        "_first",
        "changed",
        "confidence",
        "cooldown_us",
        "count",
        "domain",
        "dst_port",
        "evidence",
        "first_seen",
        "flow_ids",
        "incident_id",
        "key",
        "last_seen",
        "packets",
        "proto",
        "rank",
        "revision",
        "why",
        "written_at",
        "written_us",
    )  # fmt: skip

    def __init__(self, incident_id: str, finding: Finding, rank: int, cooldown_us: int) -> None:
        self.incident_id = incident_id
        self.key: Key = (finding.kind, finding.src_ip, finding.dst_ip, finding.rule)
        self.cooldown_us = cooldown_us
        self._first = finding
        self.first_seen = self.last_seen = finding.ts
        self.count = 0
        self.rank = rank
        self.confidence = 0.0
        self.why = finding.why
        self.dst_port, self.proto, self.domain = finding.dst_port, finding.proto, finding.domain
        self.evidence = Evidence({})
        self.flow_ids: list[int] = []
        self.packets: list[int] = []
        self.revision = 0
        self.changed = False
        self.written_us = finding.ts  # when its state went out last: by the findings' clock,
        self.written_at = 0.0  # and by the machine's
        self.add(finding, rank)

    def add(self, finding: Finding, rank: int) -> None:
        """Extend it by a finding."""
        ts = finding.ts
        if ts > self.last_seen:
            self.last_seen = ts
        began = finding.first_ts if 0 < finding.first_ts < ts else ts
        if began < self.first_seen:
            self.first_seen = began
        self.count += finding.count
        if rank > self.rank:
            self.rank = rank
        if finding.confidence > self.confidence:
            self.confidence = finding.confidence
        self.why = finding.why
        if finding.evidence:
            self.evidence.add(finding.evidence)
        if finding.dst_port != self.dst_port:
            self.dst_port = None
        if finding.proto != self.proto:
            self.proto = None
        if finding.domain != self.domain:
            self.domain = None
        if finding.flow_ids:
            _keep(self.flow_ids, finding.flow_ids)
        if finding.packets and finding.source == self._first.source:
            _keep(self.packets, finding.packets)
        self.changed = True

    def continues(self, ts: int) -> bool:
        """Whether a finding of that time belongs to it."""
        return self.first_seen - self.cooldown_us <= ts <= self.last_seen + self.cooldown_us

    def row(self, event: str, ts: int) -> dict[str, Any]:
        """Its state now, as a row of `alert_events`."""
        self.revision += 1
        self.changed = False
        kind, src_ip, dst_ip, _ = self.key
        return {
            "ts": ts,
            "incident_id": self.incident_id,
            "event": event,
            "actor": ENGINE,
            "revision": self.revision,
            "kind": clean(kind, 64),
            "severity": SEVERITIES[self.rank],
            "confidence": self.confidence,
            "why": clean(self.why, 1_000),
            "src_ip": _text(src_ip),
            "dst_ip": _text(dst_ip),
            "dst_port": self.dst_port,
            "proto": self.proto,
            "domain": _text(self.domain),
            "source": clean(self._first.source),
            "first_seen": self.first_seen,
            "last_seen": self.last_seen,
            "count": self.count,
            "evidence": self.evidence.text(),
            "flow_ids": list(self.flow_ids),
            "packets": list(self.packets),
        }


def _text(value: str | None) -> str | None:
    return None if value is None else clean(value, 253)


def _keep(kept: list[int], new: tuple[int, ...]) -> None:
    """Add examples; when there are too many, those in the middle go."""
    for number in new[-EXAMPLES:]:
        if number not in kept:
            if len(kept) >= EXAMPLES:
                del kept[_HALF]
            kept.append(number)
