"""Notices that nothing comes any more: no packets on an interface, or packets and no rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from engine.detect.finding import Finding
from engine.watchdog_config import WatchdogConfig

KIND: Final = "capture_silent"


class Watchdog:
    """Call `look` several times a second.

    Attributes:
        wrong: what is wrong now, in words. lines: new ones for the operator since the last look. findings: as many
            as are due since then: one when it begins, and one for each further period.
    """

    def __init__(self, config: WatchdogConfig) -> None:
        self._config = config
        self._seen: dict[str, tuple[int, float]] = {}  # by source: frames so far, and when they last grew
        self._rows = -1
        self._at_commit = 0  # frames of all sources when rows last came
        self._waiting_since: float | None = None
        self._told: dict[str, int] = {}  # by trouble: periods told
        self.wrong: list[str] = []
        self.lines: list[str] = []
        self.findings: list[Finding] = []

    def look(self, received: Mapping[str, int], rows: int, now_s: float, now_us: int) -> None:
        """Args:
        received: frames by source since the start. rows: published since then. now_s: monotonic. now_us: the clock.
        """
        self.wrong, self.lines, self.findings = [], [], []
        for source, frames in received.items():
            before, since = self._seen.get(source, (-1, now_s))
            if frames != before:
                self._seen[source] = frames, now_s
                since = now_s
            self._judge(f"no packets on {source}", "low", source, now_s - since, self._config.no_packets_s, now_us)
        frames = sum(received.values())
        if rows != self._rows:
            self._rows, self._at_commit, self._waiting_since = rows, frames, None
        elif frames > self._at_commit and self._waiting_since is None:
            self._waiting_since = now_s
        waited = 0.0 if self._waiting_since is None else now_s - self._waiting_since
        self._judge("no rows committed", "medium", "", waited, self._config.no_rows_s, now_us)

    def _judge(self, trouble: str, severity: str, source: str, quiet_s: float, limit_s: float, now_us: int) -> None:
        periods = int(quiet_s / limit_s) if limit_s else 0
        told = self._told.get(trouble, 0)
        text = f"{trouble} for {quiet_s:.0f} s"
        if periods:
            self.wrong.append(f"{trouble} for {limit_s:g} s or more")
        if periods > told:
            if not told:
                self.lines.append(f"{text}; see `engine status`")
            evidence = {"seconds": round(quiet_s, 1), "limit_s": limit_s}
            first = now_us - int(quiet_s * 1e6)
            rule = "no_packets" if source else "no_rows"
            self.findings.append(
                Finding(
                    ts=now_us, first_ts=first, kind=KIND, severity=severity, why=text, source=source, rule=rule,
                    evidence=evidence,
                )
            )  # fmt: skip
        elif told and not periods:
            self.lines.append(f"{trouble}: over")
        self._told[trouble] = periods
