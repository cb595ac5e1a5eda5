"""Findings to incidents: one per kind, source and destination, from its first finding until none came for a while.

Everything is decided by the findings and their times, in their order, never by where a batch ends: a replay makes the
same incidents as the capture did. `now_us`, the packets' clock, only closes what has been quiet for longer than any
finding can be late. What is written of an incident in between (`updated`) may differ; how it opens and ends does not.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from engine.alert_config import AlertsConfig
from engine.alert_row import ENGINE
from engine.detect.evidence import clean
from engine.detect.finding import SEVERITIES, Finding
from engine.detect.incident import Incident, Key, rank_of
from engine.detect.suppress import Suppression, suppressions

BUDGET: Final = "budget_exceeded"
# Kinds whose findings come further apart than the general cooldown.
COOLDOWNS_S: Final = {
    "beacon": 3_600.0, BUDGET: 3_600.0, "cleartext_credentials": 7_200.0, "anomaly": 300.0,
    "packet_score": 3_600.0, "capture_silent": 3_600.0,
    "ssh_bruteforce": 300.0, "http_bruteforce": 300.0, "ftp_bruteforce": 300.0,
    "dns_tunnel": 300.0, "icmp_tunnel": 300.0, "exfiltration": 300.0, "web_scan": 300.0,
}  # fmt: skip
_S: Final = 1_000_000
_HOUR: Final = 3_600 * _S
_LATE: Final = 10 * _S  # a finding may come so much later than its time
_UPDATE_WALL_S: Final = 2.0  # a replay runs faster than its clock: updates are apart by ours as well
_UPDATE_MAX: Final = 60 * _S
_UPDATE_SHARE: Final = 20  # a long incident is written when it has grown by a twentieth
_HOURS: Final = 64  # whose budgets are remembered
_HIDDEN: Final = 10_000  # distinct incidents beyond the budget that are told apart
_REPORT_S: Final = 60.0  # between rows that say what was suppressed


@dataclass(slots=True)
class Counts:
    """Totals since the start. findings = in incidents + suppressed + below_severity + over_budget."""

    findings: int = 0
    opened: int = 0
    closed: int = 0
    suppressed: int = 0
    below_severity: int = 0
    over_budget: int = 0
    evicted: int = 0  # closed early because `max_open` were open


class Incidents:
    """Opens, extends and closes incidents. For one thread.

    Args:
        config: see AlertsConfig.
        emit: takes rows of `alert_events`.
        name: begins the ids of its incidents; no other run may have it.

    Attributes:
        mutes: what operators do not want to hear of now. Another thread may replace it.
    """

    def __init__(self, config: AlertsConfig, emit: Callable[[list[dict[str, Any]]], None], name: str = "i") -> None:
        self._emit = emit
        self._name = name
        self._max_open = config.max_open
        self.configure(config)
        self._open: dict[Key, Incident] = {}
        self._clock: int | None = None  # the newest finding
        self._swept = 0  # the clock when ended ones were looked for
        self._spent: dict[int, list[int]] = {}  # hour: incidents opened, low ones and others
        self._hidden: dict[Key, None] = {}
        self._hidden_kinds: Counter[str] = Counter()
        self._rows: list[dict[str, Any]] = []
        self._unsaid: Counter[tuple[str, str]] = Counter()
        self._unsaid_since = self._looked_at = time.monotonic()
        self.mutes: tuple[Suppression, ...] = ()
        self.counts = Counts()

    def configure(self, config: AlertsConfig) -> None:
        """For findings from now on. `max_open` stays; incidents that are open keep their cooldown."""
        self._update_us = int(config.update_s * _S)
        self._budgets = (config.low_budget_per_hour, config.budget_per_hour)
        self._min_rank = rank_of(config.min_severity)
        self._suppress = suppressions(config.suppress)
        self._ranks = {k.name: rank_of(k.severity) for k in config.kind if k.severity}
        self._cooldown_us = int(config.cooldown_s * _S)
        given = {k.name: k.cooldown_s for k in config.kind if k.cooldown_s}
        self._cooldowns = {kind: int(s * _S) for kind, s in {**COOLDOWNS_S, **given}.items()}

    @property
    def open(self) -> int:
        """Incidents that go on."""
        return len(self._open)

    @property
    def serious(self) -> bool:
        """One of them is above low."""
        return any(incident.rank for incident in self._open.values())

    def take(self, findings: list[Finding], now_us: int) -> None:
        """Account the findings; `now_us` is the packets' clock, microseconds since the epoch."""
        for finding in findings:
            self._take(finding)
        self.tick(now_us)

    def tick(self, now_us: int) -> None:
        """Close what has been quiet, write what has changed."""
        now = time.monotonic()
        if now - self._looked_at >= 0.5:
            self._looked_at = now
            self._close_quiet(now_us - 2 * _LATE)
            self._update(now_us, now)
        if self._unsaid and now - self._unsaid_since >= _REPORT_S:
            self._report(now_us)
        self._flush()

    def close(self) -> None:
        """The run ends, and all incidents with it."""
        for incident in list(self._open.values()):
            self._end(incident, incident.last_seen)
        if self._unsaid:
            self._report(self._clock or 0)
        self._flush()

    # --- one finding -------------------------------------------------------------------------------------------------

    def _take(self, finding: Finding) -> None:
        self.counts.findings += 1
        self._follow_clock(finding.ts)
        rank = self._ranks.get(finding.kind)
        if rank is None:
            rank = rank_of(finding.severity)
        if rank < self._min_rank:
            self.counts.below_severity += finding.count
            return
        if (self._suppress or self.mutes) and self._is_suppressed(finding):
            return
        key = (finding.kind, finding.src_ip, finding.dst_ip, finding.rule)
        incident = self._open.get(key)
        if incident is not None and incident.continues(finding.ts):
            before = incident.rank
            incident.add(finding, rank)
            if incident.rank > before:
                self._write(incident, "updated", finding.ts)
            return
        if incident is not None:
            self._end(incident, incident.last_seen + incident.cooldown_us)
        if finding.kind == BUDGET or self._afford(finding.ts, rank):
            self._begin(finding, rank)
        else:
            self._hide(finding, rank, key)

    def _follow_clock(self, ts: int) -> None:
        if self._clock is None or ts < self._clock - _HOUR:  # another savefile, older than the one before
            for incident in list(self._open.values()):
                self._end(incident, incident.last_seen)
            self._clock = self._swept = ts
        elif ts > self._clock:
            self._clock = ts
            if ts - self._swept >= _S:
                self._swept = ts
                self._close_quiet(ts - _LATE)

    def _is_suppressed(self, finding: Finding) -> bool:
        for suppression in (*self._suppress, *self.mutes):
            if suppression.matches(finding):
                if not self._unsaid:
                    self._unsaid_since = time.monotonic()
                self._unsaid[suppression.label, finding.kind] += finding.count
                self.counts.suppressed += finding.count
                return True
        return False

    def _afford(self, ts: int, rank: int) -> bool:
        hour = ts // _HOUR
        spent = self._spent.get(hour)
        if spent is None:
            spent = self._spent[hour] = [0, 0]
            if len(self._spent) > _HOURS:
                del self._spent[next(iter(self._spent))]
        kind = 1 if rank else 0
        if spent[kind] >= self._budgets[kind]:
            return False
        spent[kind] += 1
        return True

    def _begin(self, finding: Finding, rank: int) -> None:
        if len(self._open) >= self._max_open:
            self._make_room()
        self.counts.opened += 1
        cooldown = self._cooldowns.get(finding.kind, self._cooldown_us)
        incident = Incident(f"{self._name}-{self.counts.opened}", finding, rank, cooldown)
        self._open[incident.key] = incident
        self._write(incident, "opened", finding.ts)

    def _hide(self, finding: Finding, rank: int, key: Key) -> None:
        """Beyond the budget: counted into one incident that says so."""
        self.counts.over_budget += finding.count
        if (BUDGET, None, None, "") not in self._open:
            self._hidden.clear()
            self._hidden_kinds.clear()
        if len(self._hidden) < _HIDDEN:
            self._hidden[key] = None
        kind = clean(finding.kind, 64)
        if kind in self._hidden_kinds or len(self._hidden_kinds) < 20:
            self._hidden_kinds[kind] += finding.count
        low, above = self._budgets
        ends = f"{clean(finding.src_ip or 'many', 64)} to {clean(finding.dst_ip or 'many', 64)}"
        distinct = f"{len(self._hidden)}{'' if len(self._hidden) < _HIDDEN else ' or more'}"
        why = (
            f"{distinct} more incidents than the {above} (low: {low}) an hour that the budget allows; "
            f"newest: {kind} from {ends}. Suppress what is usual here, or raise alerts.budget_per_hour"
        )
        evidence = {
            "incidents": len(self._hidden),
            "kinds": dict(self._hidden_kinds),  # of findings
            "newest": {"kind": kind, "src_ip": finding.src_ip, "dst_ip": finding.dst_ip, "why": clean(finding.why)},
        }
        told = Finding(
            ts=finding.ts, kind=BUDGET, severity=SEVERITIES[rank], why=why, source=finding.source,
            first_ts=finding.first_ts, count=finding.count, evidence=evidence,
        )  # fmt: skip
        known = self._open.get((BUDGET, None, None, ""))
        if known is not None and known.continues(finding.ts):
            before = known.rank
            known.add(told, rank)
            if known.rank > before:
                self._write(known, "updated", finding.ts)
            return
        if known is not None:
            self._end(known, known.last_seen + known.cooldown_us)
        self._begin(told, rank)

    # --- ends and changes --------------------------------------------------------------------------------------------

    def _close_quiet(self, before: int) -> None:
        """Close the incidents whose cooldown was over by then."""
        for incident in [i for i in self._open.values() if i.last_seen + i.cooldown_us < before]:
            self._end(incident, incident.last_seen + incident.cooldown_us)

    def _make_room(self) -> None:
        """Close what is over; when that is nothing, the incident that has been quiet longest."""
        self._close_quiet(self._clock or 0)
        if len(self._open) >= self._max_open:
            self.counts.evicted += 1
            oldest = min(self._open.values(), key=lambda i: i.last_seen)
            self._end(oldest, oldest.last_seen)

    def _end(self, incident: Incident, ts: int) -> None:
        del self._open[incident.key]
        self.counts.closed += 1
        self._rows.append(incident.row("closed", ts))

    def _update(self, now_us: int, now: float) -> None:
        for incident in self._changed():
            age = max(now_us, incident.last_seen) - incident.written_us
            long = (incident.last_seen - incident.first_seen) // _UPDATE_SHARE
            if age >= min(max(self._update_us, long), _UPDATE_MAX) and now - incident.written_at >= _UPDATE_WALL_S:
                self._write(incident, "updated", incident.last_seen)
                incident.written_us = max(now_us, incident.last_seen)

    def _changed(self) -> Iterable[Incident]:
        return (incident for incident in self._open.values() if incident.changed)

    def _write(self, incident: Incident, event: str, ts: int) -> None:
        incident.written_us, incident.written_at = ts, time.monotonic()
        self._rows.append(incident.row(event, ts))

    def _report(self, ts: int) -> None:
        """Say what did not become incidents, and why."""
        for (label, kind), count in self._unsaid.items():
            self._rows.append({
                "ts": ts, "event": "suppressed", "actor": ENGINE, "kind": clean(kind, 64), "count": count,
                "why": f"by {clean(label)}",
            })  # fmt: skip
        self._unsaid.clear()

    def _flush(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, []
            self._emit(rows)
