"""Severity of a rule: from its metadata, its priority, or its classtype as in Suricata's classification.config."""

from __future__ import annotations

from typing import Final

_PRIORITY_1: Final = frozenset({
    "attempted-admin", "attempted-user", "inappropriate-content", "policy-violation", "shellcode-detect",
    "successful-admin", "successful-user", "trojan-activity", "unsuccessful-user", "web-application-attack",
    "targeted-activity", "exploit-kit", "domain-c2", "credential-theft", "command-and-control", "coin-mining",
})  # fmt: skip
_PRIORITY_3: Final = frozenset({
    "not-suspicious", "unknown", "misc-activity", "network-scan", "protocol-command-decode", "string-detect",
    "tcp-connection", "icmp-event",
})  # fmt: skip
_BY_METADATA: Final = {"informational": "low", "minor": "low", "major": "high", "critical": "critical"}


def severity(classtype: str, priority: int | None, said: str) -> str:
    """low, medium, high or critical. `said`: `signature_severity` of the rule's metadata."""
    if said.lower() in _BY_METADATA:
        return _BY_METADATA[said.lower()]
    if priority is None:
        priority = 1 if classtype in _PRIORITY_1 else 3 if classtype in _PRIORITY_3 else 2
    return "high" if priority == 1 else "medium" if priority == 2 else "low"
