"""What looks for trouble: rules over windows, signatures and lists make findings, findings become incidents.

One `Detection` belongs to the analyse thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from engine.config import EngineConfig
from engine.detect.alert_stage import AlertStage
from engine.detect.detector import Detector
from engine.detect.finding import Finding
from engine.detect.intel import Intel
from engine.detect.signatures.stage import Signatures
from engine.flows import FlowTable
from engine.packets import L_TS, FrameBatch, PacketBatch

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
        emit: Callable[[str, Rows, bool], None], report: Callable[[str, str], None], live: bool,
    ) -> None:  # fmt: skip
        self._emit = emit
        self._table = table
        self._windows: Rows = []
        self._windows_at = time.monotonic()
        self._detector = Detector(config.rules.given, len(table.records), self._windows.extend)
        self._signatures = Signatures(config.signatures, None if live else 1.0) if config.signatures.enabled else None
        self._intel = Intel(config.intel) if config.intel.enabled else None
        if self._signatures is not None and self._signatures.refused:
            report(
                "warning", f"{self._signatures.refused} signatures are not used; `engine rules check FILE` names them"
            )
        self._alerts = AlertStage(lake, config, run, lambda rows: emit("alert_events", rows, True), report)
        self._alerts.live = live
        self._now_us = 0

    def take(self, frames: FrameBatch, packets: PacketBatch) -> None:
        """Look at a batch whose flows are known."""
        if packets.count:
            self._now_us = int(packets.long[L_TS, packets.count - 1])
        found: list[Finding] = []
        for stage in self._stages():
            found += stage.take(frames, packets, self._table)
        self._alerts.take(found, self._now_us)

    def application_rows(self, table: str, rows: Rows, source: str) -> None:
        """Look at rows that a parser made."""
        found = self._detector.application_rows(table, rows)
        for stage in (self._signatures, self._intel):
            if stage is not None:
                found += stage.application_rows(table, rows, source)
        if found:
            self._alerts.take(found, self._now_us)

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

    def tick(self, now_ns: int) -> None:
        """While no packet comes: what did not come until `now_ns`."""
        self._now_us = max(self._now_us, now_ns // 1000)
        self._alerts.take(self._detector.tick(now_ns), self._now_us)

    def pass_on_due(self) -> None:
        """Pass on what waits."""
        self._alerts.tick(self._now_us)
        now = time.monotonic()
        if self._windows and now - self._windows_at >= _WINDOWS_EVERY_S:
            self._windows_at = now
            self._pass_windows()

    def _pass_windows(self) -> None:
        rows = list(self._windows)
        self._windows.clear()
        self._emit("windows", rows, True)

    def end_source(self, name: str) -> None:
        """A source will send no more."""
        self._alerts.take(self._detector.end_source(name), self._now_us)

    def close(self) -> None:
        """End every incident and pass everything on."""
        self._alerts.take(self._detector.close(), self._now_us)
        self._alerts.close()
        self._pass_windows()
        for stage in (self._signatures, self._intel):
            if stage is not None:
                stage.close()
