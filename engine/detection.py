"""What looks for trouble: rules over windows, signatures and lists make findings, findings become incidents.

One `Detection` belongs to the analyse thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from engine.config import EngineConfig
from engine.detect.alert_stage import AlertStage
from engine.detect.anomaly.model import KIND
from engine.detect.anomaly.stage import AnomalyStage
from engine.detect.detector import Detector
from engine.detect.entity_windows import EntityWindows
from engine.detect.finding import Finding
from engine.detect.intel import Intel
from engine.detect.packet_score import PacketScores
from engine.detect.rules.base import Rule
from engine.detect.signatures.stage import Signatures
from engine.detect.window_rows import WindowRows, to_arrow
from engine.flows import FlowTable
from engine.models import ModelStore
from engine.packets import L_TS, FrameBatch, PacketBatch
from engine.scoring_loop import ScoringLoop

_WINDOWS_EVERY_S: Final = 4.0
Rows = list[dict[str, Any]]


class Detection:
    """Everything that makes alerts.

    Args:
        emit: takes (table, rows, whether to publish them now).
        report: told in one line, "error" or "warning" first.
        live: the packets' clock is the machine's; notifications are sent only then.
    """

    def __init__(
        self, lake: Path, config: EngineConfig, run: str, table: FlowTable,
        emit: Callable[[str, Rows | pa.RecordBatch, bool], None], report: Callable[[str, str], None], live: bool,
    ) -> None:  # fmt: skip
        self._emit = emit
        self._table = table
        self._windows: list[WindowRows] = []
        self._entity_windows: dict[str, Rows] = {}
        self._windows_at = time.monotonic()
        sensor = config.lake.sensor if live else f"{config.lake.sensor}.replay"  # as for the models of packets
        models = ModelStore(lake, sensor, KIND)
        self._anomaly = AnomalyStage(config.anomaly, models, report, not live) if config.anomaly.enabled else None
        self._detector = Detector(
            config.rules.given,
            len(table.records),
            self._windows.append,
            anomaly=self._anomaly,
            entities=EntityWindows(config.windows, self._take_windows),
            files=config.rules.files.python,
            windows=config.windows,
            report=report,
        )
        self._signatures = Signatures(config.signatures, None if live else 1.0) if config.signatures.enabled else None
        self._intel = Intel(config.intel) if config.intel.enabled else None
        if self._signatures is not None and self._signatures.refused:
            report(
                "warning", f"{self._signatures.refused} signatures are not used; `engine rules check FILE` names them"
            )
        self._alerts = AlertStage(lake, config, run, lambda rows: emit("alert_events", rows, True), report)
        self._alerts.live = live
        self._scoring = config.scoring
        self._scores = PacketScores(config.scoring) if config.scoring.alert else None
        self._now_us = 0

    def configure(self, config: EngineConfig, rules: list[Rule[Any]]) -> None:
        """From now on, with these rules, and this configuration's [alerts], [notify] and alerts on scores."""
        self._detector.use(rules)
        self._alerts.configure(config)
        if self._scoring != config.scoring:
            self._scores = PacketScores(config.scoring) if config.scoring.alert else None
        self._scoring = config.scoring

    def take(self, frames: FrameBatch, packets: PacketBatch) -> None:
        """Look at a batch whose flows are known."""
        if packets.count:
            self._now_us = int(packets.long[L_TS, packets.count - 1])
        found: list[Finding] = []
        for stage in self._stages():
            found += stage.take(frames, packets, self._table)
        self._hold(found)
        self._alerts.take(found, self._now_us)

    def application_rows(self, table: str, rows: Sequence[dict[str, Any]], source: str) -> None:
        """Look at rows that a parser made."""
        found = self._detector.application_rows(table, rows)
        for stage in (self._signatures, self._intel):
            if stage is not None:
                found += stage.application_rows(table, rows, source)
        self._hold(found)
        if found:
            self._alerts.take(found, self._now_us)

    def scored(self, packets: PacketBatch, scoring: ScoringLoop) -> None:
        """Look at the anomalies of a batch, where the configuration asks for alerts on them."""
        if self._scores is not None and scoring.forest is not None:
            found = self._scores.take(packets, scoring.features, scoring.forest, scoring.model)
            if found:
                self._alerts.take(found, self._now_us)

    @property
    def serious(self) -> bool:
        """An incident above low goes on: what packets look like now is not to be learned."""
        return self._alerts.serious

    def _hold(self, found: list[Finding]) -> None:
        """Whom signatures and lists name teaches nothing: rules say it themselves."""
        if self._anomaly is not None:
            for finding in found:
                self._anomaly.hold(finding)

    def _stages(self) -> Iterator[Detector | Signatures | Intel]:
        yield self._detector
        if self._signatures is not None:
            yield self._signatures
        if self._intel is not None:
            yield self._intel

    @property
    def missed(self) -> int:
        """Packets that a signature may have matched and that the budget did not allow to look at."""
        return 0 if self._signatures is None else self._signatures.missed

    def limit(self, part: float) -> None:
        """Signatures get this part of their budget, 0 to 1, until told otherwise."""
        if self._signatures is not None:
            self._signatures.limit(part)

    def tick(self, now_ns: int) -> None:
        """While no packet comes: what did not come until `now_ns`."""
        self._now_us = max(self._now_us, now_ns // 1000)
        self._alerts.take(self._detector.tick(now_ns), self._now_us)

    def pass_on_due(self) -> None:
        """Pass on what waits."""
        self._alerts.tick(self._now_us)
        now = time.monotonic()
        if (self._windows or self._entity_windows) and now - self._windows_at >= _WINDOWS_EVERY_S:
            self._windows_at = now
            self._pass_windows()

    def _pass_windows(self) -> None:
        if self._windows:
            rows = to_arrow(self._windows)
            self._windows.clear()
            self._emit("windows", rows, True)
        for table, more in self._entity_windows.items():
            self._emit(table, more, True)
        self._entity_windows = {}

    def _take_windows(self, table: str, rows: Rows) -> None:
        self._entity_windows.setdefault(table, []).extend(rows)

    def notice(self, found: Finding) -> None:
        """What the engine finds of itself."""
        self._alerts.take([found], max(self._now_us, found.ts))

    def end_source(self, name: str) -> None:
        """A source will send no more."""
        self._alerts.take(self._detector.end_source(name), self._now_us)

    def close(self) -> None:
        """End every incident and pass everything on."""
        self._alerts.take(self._detector.close(), self._now_us)
        self._alerts.close()
        self._pass_windows()
        for stage in (self._signatures, self._intel, self._anomaly):
            if stage is not None:
                stage.close()
