"""What rules over the lake find, kept as incidents beside the engine's: same table, suppressions, mutes and budgets.

Rows go to the `sensor=NAME.rules` directory of `alert_events`, so that neither side closes the other's incidents when
it starts. A rule's findings come late, so an incident of these goes on for ten minutes without one unless configured.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb

from analytics.readonly import one_line
from engine.alert_config import KindConfig
from engine.alert_row import rules_of
from engine.config import EngineConfig
from engine.detect.alert_stage import run_prefix
from engine.detect.eve import EveOutput
from engine.detect.finding import Finding
from engine.detect.incidents import Incidents
from engine.detect.operator_words import Mutes, left_open
from engine.errors import StoreError
from engine.notify.outbox import Outbox
from engine.segment_file import add_segment

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

COOLDOWN_S: Final = 600.0


def sensor_of(config: EngineConfig) -> str:
    """The `sensor=` directory of its rows."""
    return rules_of(config.lake.sensor)


@dataclass(frozen=True, slots=True)
class Spans:
    """When incidents of earlier runs began and ended, by kind, source, destination and rule."""

    by_key: dict[tuple[str, str | None, str | None, str], list[tuple[int, int]]]

    def holds(self, finding: Finding) -> bool:
        """Whether one of them has counted the finding already."""
        key = finding.kind, finding.src_ip, finding.dst_ip, str(finding.evidence.get("rule"))
        return any(first <= finding.ts <= last for first, last in self.by_key.get(key, ()))


def spans_of(con: DuckDBPyConnection, config: EngineConfig, since: datetime | None) -> Spans:
    """What this journal's incidents since then hold."""
    query = """SELECT kind, src_ip, dst_ip, json_extract_string(evidence, '$.rule'), epoch_us(first_seen),
               epoch_us(last_seen) FROM alerts_between($since, NULL) WHERE sensor = $sensor"""
    try:
        rows = con.execute(query, {"since": since, "sensor": sensor_of(config)}).fetchall()
    except duckdb.Error as error:
        raise StoreError(f"alerts of the lake cannot be read: {one_line(error)}") from None
    spans = Spans({})
    for kind, src, dst, name, first, last in rows:
        spans.by_key.setdefault((kind, src, dst, name), []).append((first, last))
    return spans


class Journal:
    """Takes findings, writes incidents. For one thread.

    Args:
        kinds: of the rules; those that the configuration does not name get COOLDOWN_S.
        live: tell EVE and the engine's notifier too, and close what a killed run left open.
        report: told in one line what the operator should know; its first argument is "error" or "warning".
    """

    def __init__(
        self, lake: Path, config: EngineConfig, kinds: Iterable[str], report: Callable[[str, str], None], *, live: bool
    ) -> None:  # fmt: skip
        self._lake = lake
        self._report = report
        self._sensor = sensor_of(config)
        self._rows: list[dict[str, Any]] = []
        named = {k.name for k in config.alerts.kind if k.cooldown_s}
        given = {k.name: k.severity for k in config.alerts.kind}
        slow = tuple(
            KindConfig(name=kind, cooldown_s=max(COOLDOWN_S, config.alerts.cooldown_s), severity=given.get(kind, ""))
            for kind in sorted(set(kinds) - named)
        )
        self.prefix = run_prefix(self._sensor, str(time.time_ns()))
        alerts = replace(config.alerts, kind=(*config.alerts.kind, *slow))
        self._incidents = Incidents(alerts, self._rows.extend, self.prefix)
        self._mutes = Mutes(lake)
        self._eve = EveOutput(config.eve, config.lake.sensor, lambda text: report("warning", text)) if live else None
        outbox = live and config.notify.targets
        self._outbox = Outbox(lake, config.notify, config.lake.sensor) if outbox else None
        if live:
            self._rows += left_open(lake, self._sensor, self.prefix)

    def take(self, findings: list[Finding], now_us: int) -> None:
        """Account findings, which are in order of time, and publish what changed. Raises StoreError."""
        self._incidents.mutes = self._mutes.poll()
        self._incidents.take(findings, now_us)
        self._publish()

    def close(self) -> None:
        """The run ends, and its incidents with it."""
        self._incidents.close()
        self._publish()
        if self._eve is not None:
            self._eve.close()

    def _publish(self) -> None:
        if not self._rows:
            return
        rows = list(self._rows)
        add_segment(self._lake, "alert_events", self._sensor, rows)
        self._rows.clear()
        for row in rows:
            if self._eve is not None:
                self._eve.put(row)
            if self._outbox is not None:
                with contextlib.suppress(OSError):  # a full disk, which the lake's own writers say
                    self._outbox.put(row)
