"""A finding: one observation that a rule, a signature or a list makes. Incidents are made of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

SEVERITIES: Final = ("low", "medium", "high", "critical")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something worth an operator's look, with its reasons.

    `kind` names what it is (port_scan, syn_flood, signature, ...): incidents are kept per (kind, src_ip, dst_ip), so a
    rule leaves an address out (None) where many would stand: a flood with forged sources has only its victim, a sweep
    only its source. `why` says it in one sentence with numbers; `evidence` holds those numbers by name, with the usual
    values beside them where there are any. `count` is how many observations it stands for.
    """

    ts: int  # microseconds since the epoch, UTC: when it was certain
    kind: str
    severity: str
    why: str
    src_ip: str | None = None  # who does it
    dst_ip: str | None = None  # to whom
    dst_port: int | None = None
    proto: int | None = None
    domain: str | None = None
    source: str = ""  # interface or savefile
    first_ts: int = 0  # when it began, 0: at `ts`
    count: int = 1
    confidence: float = 1.0  # 0 to 1
    evidence: dict[str, Any] = field(default_factory=dict)
    flow_ids: tuple[int, ...] = ()
    rule: str = ""  # tells incidents of one kind apart; most kinds have one rule only
    packets: tuple[int, ...] = ()  # frame numbers within `source`, a few examples
