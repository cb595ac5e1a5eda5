"""What a notification says. Senders of packets choose parts of it, so nothing in it may address or format."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from engine.alert_row import SEVERITIES

_IN_DIGEST: Final = 20  # incidents that a digest names
_NUMBERS: Final = 12  # of the evidence
_COLOURS: Final = {"low": "info", "medium": "warning", "high": "failure", "critical": "failure"}
# By these Discord and Slack call people, and hide where a link leads.
_MARKUP: Final = re.compile(r"@(?=everyone|here|channel)|<(?=[!@#]|[A-Za-z]+:)|\](?=\()")


@dataclass(frozen=True, slots=True)
class Message:
    """Title and text for people, `incidents` for programs; `kind` is apprise's: info, success, warning, failure."""

    title: str
    text: str
    kind: str
    incidents: list[dict[str, Any]]


def single(item: dict[str, Any], dropped: int = 0) -> Message:
    """About one incident that opened or ended. `item`: event and incident, as in the outbox."""
    incident, over = item["incident"], item["event"] == "closed"
    lines = [str(incident.get("why") or ""), ""]
    lines += [
        f"since {_time(incident['first_seen'])} UTC, last {_time(incident['last_seen'])} UTC, count {incident['count']}"
    ]
    if incident.get("event") == "manual":
        lines.append(f"entered by {incident.get('actor', '')}")
    if incident.get("source"):
        lines.append(f"seen on {incident['source']}, sensor {item.get('sensor', '')}")
    lines += _numbers(incident.get("evidence"))
    lines.append(f"engine alerts show {incident['incident_id']}")
    lines += _lost(dropped)
    title = f"{'over: ' if over else ''}{_headline(incident)}"
    kind = "success" if over else _COLOURS.get(str(incident["severity"]), "warning")
    return Message(_safe(title), _safe("\n".join(lines)), kind, [_for_programs(item)])


def digest(items: list[dict[str, Any]], dropped: int = 0) -> Message:
    """About many at once, the worst first."""
    ordered = sorted(items, key=lambda i: -_rank(i["incident"]))
    kinds = Counter(str(i["incident"]["kind"]) for i in items)
    worst = str(ordered[0]["incident"]["severity"])
    lines = [", ".join(f"{count} {kind}" for kind, count in kinds.most_common(_IN_DIGEST)), ""]
    for item in ordered[:_IN_DIGEST]:
        over = "over: " if item["event"] == "closed" else ""
        lines.append(f"{over}{_headline(item['incident'])}: {str(item['incident'].get('why') or '')[:200]}")
    if len(items) > _IN_DIGEST:
        lines.append(f"and {len(items) - _IN_DIGEST} more: engine alerts list --open")
    lines += _lost(dropped)
    title = f"{len(items)} incidents, the worst {worst}"
    return Message(
        _safe(title), _safe("\n".join(lines)), _COLOURS.get(worst, "warning"), list(map(_for_programs, ordered))
    )


def _headline(incident: dict[str, Any]) -> str:
    ends = f"{incident.get('src_ip') or 'many'} -> {incident.get('dst_ip') or 'many'}"
    return f"{str(incident['severity']).upper()} {incident['kind']} {ends}"


def _rank(incident: dict[str, Any]) -> int:
    severity = incident.get("severity")
    return SEVERITIES.index(severity) if severity in SEVERITIES else 0


def _numbers(evidence: str | None) -> list[str]:
    try:
        values = json.loads(evidence or "{}")
    except ValueError:
        return []
    plain = {n: v for n, v in values.items() if isinstance(v, int | float | str)} if isinstance(values, dict) else {}
    return [f"{name}: {str(value)[:120]}" for name, value in list(plain.items())[:_NUMBERS]]


def _lost(dropped: int) -> list[str]:
    return [f"{dropped} messages before this one were given up; all alerts: engine alerts list"] if dropped else []


def _time(us: int) -> str:
    try:
        return f"{datetime.fromtimestamp(us / 1e6, UTC):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return str(us)


def _safe(text: str) -> str:
    return _MARKUP.sub(lambda found: f"{found[0]} ", text)


def _for_programs(item: dict[str, Any]) -> dict[str, Any]:
    """The incident with times as ISO and evidence as JSON has it."""
    incident = dict(item["incident"])
    for name in ("ts", "first_seen", "last_seen"):
        if isinstance(incident.get(name), int):
            incident[name] = f"{_time(incident[name])}Z".replace(" ", "T")
    try:
        incident["evidence"] = json.loads(incident.get("evidence") or "{}")
    except ValueError:
        incident["evidence"] = {}
    return incident | {"event": item["event"], "sensor": item.get("sensor", "")}
