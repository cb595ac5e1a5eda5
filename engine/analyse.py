"""The stage that understands: packets to flows and applications, frames to the ring.

One `Analyser` belongs to one thread. What it finds beside the packets leaves as `SideRows`, for the thread that writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from engine.applications import Applications
from engine.config import EngineConfig, ScoringConfig
from engine.detect.finding import Finding
from engine.detect.rules import make_rules
from engine.detect.rules.base import Rule
from engine.detection import Detection
from engine.flows import FlowRows, FlowTable
from engine.frames import FrameRing
from engine.message_rows import AppRows
from engine.metrics import Books, SourceTotals
from engine.packets import FrameBatch, PacketBatch
from engine.pressure import Level
from engine.scoring_loop import ScoringLoop

# Flows and applications make few rows in many tables: passed on less often, they make fewer files.
_FLOWS_EVERY_S: Final = 4.0
_APPLICATIONS_EVERY_S: Final = 8.0
_ROWS_AT_ONCE: Final = 8192  # of one application that wait
_QUIET_S: Final = 1.0  # without packets for so long, flows end by the clock of the machine
_IN_FLIGHT_NS: Final = 2_000_000_000  # packets of the last two seconds may still be on their way


def _scoring(config: EngineConfig) -> ScoringConfig:
    """Scores are for rows, and for alerts: without both there are none."""
    wanted = config.lake.packets or config.scoring.alert
    return config.scoring if wanted else replace(config.scoring, enabled=False)


@dataclass(frozen=True, slots=True)
class SideRows:
    """Rows of a table beside `packets`. `publish`: make them visible now. `source`: where a loss is counted."""

    table: str
    rows: FlowRows | AppRows | list[dict[str, Any]] | pa.RecordBatch
    source: str
    publish: bool = False


class Analyser:
    """Follows flows, reads applications, stores frames; and counts what it gives up.

    Args:
        emit: takes rows of other tables.
        report: told in one line, "error" or "warning" first, what cannot be done beside the rows (raw frames, models).
        live: the packets' clock is the machine's. Else a savefile is read: it waits for its first model, and models
            learned from savefiles are kept apart from the sensor's own.
    """

    def __init__(
        self, lake: Path, config: EngineConfig, run: str, books: Books, emit: Callable[[SideRows], None],
        report: Callable[[str, str], None], live: bool = False,
    ) -> None:  # fmt: skip
        self._books = books
        self._emit = emit
        self._applications = Applications(config.applications.budget) if config.applications.enabled else None
        self._flows = FlowTable(config.flows, self._take_flows, self._applications)
        self._ring = FrameRing(lake, config.frames, config.lake.sensor, run, lambda error: report("error", str(error)))
        sensor = config.lake.sensor if live else f"{config.lake.sensor}.replay"
        self._learn_always = config.scoring.learn_during_incidents
        self._scoring = ScoringLoop(
            lake, sensor, _scoring(config), report, patient=not live,
            emit=lambda rows: self._take_found("model_stats", rows, True),
        )  # fmt: skip
        self._detection = (
            Detection(lake, config, run, self._flows, self._take_found, report, live)
            if config.detection.enabled
            else None
        )
        self._taken_at = self._flows_at = self._applications_at = time.monotonic()
        self._source = ""  # of the batch in hand
        self._live = live
        self._report = report
        self._next: tuple[EngineConfig, list[Rule[Any]]] | None = None

    def take(self, frames: FrameBatch, batch: PacketBatch, give_up: Level = Level.NONE) -> bool:
        """Complete the rows of a decoded batch; `frames` is free on return. True when the rows are to be written."""
        self._taken_at = time.monotonic()
        self._source = frames.source
        totals = self._books.of(frames.source)
        self._flows.follow(frames, batch)
        self._count()
        stored = 0
        if give_up < Level.FRAMES:
            stored = self._ring.store(frames, batch)
        else:
            self._ring.skip(frames, batch)
        totals.frames_stored += stored
        totals.frames_not_stored += batch.count - stored if self._ring.enabled else 0
        self._score(batch, totals, give_up < Level.SCORES)
        if self._detection is not None:
            before = self._detection.missed
            self._detection.take(frames, batch)
            self._detect_in_rows()
            totals.candidates_missed += self._detection.missed - before
        if give_up >= Level.ROWS:
            totals.drop_rows_shed += batch.count
            return False
        return True

    def notice(self, found: Finding) -> None:
        """What the engine finds of itself, for its alerts."""
        if self._detection is not None:
            self._detection.notice(found)

    def configure(self, config: EngineConfig) -> None:
        """Have what a running capture can take over (`engine.settings.LIVE`) used soon. For any thread; raises
        ConfigError, and nothing changes then."""
        rules = make_rules(config.rules.given, config.rules.files.python, self._report)
        self._next = config, rules

    def _follow(self) -> None:
        """Use what `configure` has left."""
        if self._next is None:
            return
        (config, rules), self._next = self._next, None
        self._scoring.configure(_scoring(config))
        if self._detection is not None:
            self._detection.configure(config, rules)

    def limit(self, part: float) -> None:
        """Parsers and signatures get this part of their budgets, 0 to 1, until told otherwise."""
        if self._applications is not None:
            self._applications.limit(part)
        if self._detection is not None:
            self._detection.limit(part)

    def _score(self, batch: PacketBatch, totals: SourceTotals, wanted: bool) -> None:
        before = self._scoring.scored
        learn = self._learn_always or self._detection is None or not self._detection.serious
        self._scoring.take(batch, score=wanted, learn=learn)
        if self._detection is not None and self._scoring.scored > before:
            self._detection.scored(batch, self._scoring)
        totals.scored += self._scoring.scored - before
        totals.scores_shed += batch.count if not wanted and self._scoring.forest is not None else 0

    def _take_flows(self, rows: FlowRows) -> None:
        self._emit(SideRows("flows", rows, self._source, publish=True))

    def _take_found(self, table: str, rows: list[dict[str, Any]] | pa.RecordBatch, publish: bool) -> None:
        self._emit(SideRows(table, rows, self._source, publish))

    def _detect_in_rows(self) -> None:
        """Show the detection the rows that parsers made since the last time."""
        if self._detection is not None and self._applications is not None:
            for table, rows in self._applications.new_rows():
                self._detection.application_rows(table, rows, self._source)

    def _take_applications(self, publish: bool) -> None:
        assert self._applications is not None
        self._detect_in_rows()
        for table, rows in self._applications.take_rows().items():
            self._emit(SideRows(table, rows, self._source, publish))

    def _count(self) -> None:
        totals = self._books.of(self._source)
        flows = self._flows.take_counts()
        totals.flows += flows.flows
        totals.flows_evicted += flows.evicted
        if self._applications is not None:
            messages = self._applications.take_counts()
            totals.messages += messages.messages
            totals.messages_missed += messages.missed
            totals.messages_bad += messages.bad

    def end_source(self, source: str) -> None:
        """A source will send no more: its flows end."""
        self._source = source
        self._flows.end_source(source)
        self._count()
        self._detect_in_rows()
        if self._detection is not None:
            self._detection.end_source(source)

    def pass_on_due(self) -> None:
        """Pass rows on that have waited long enough; while nothing is captured, end flows by the clock."""
        self._follow()
        now = time.monotonic()
        if self._live and now - self._taken_at >= _QUIET_S:
            self._scoring.tick(time.time_ns() // 1000 - _IN_FLIGHT_NS // 1000)
            self._flows.tick(time.time_ns() - _IN_FLIGHT_NS)
            if self._detection is not None:
                self._detection.tick(time.time_ns() - _IN_FLIGHT_NS)
        if self._detection is not None:
            self._detection.pass_on_due()
        if now - self._flows_at >= _FLOWS_EVERY_S:
            self._flows_at = now
            self._flows.flush()
        if self._applications is not None:
            due = now - self._applications_at >= _APPLICATIONS_EVERY_S
            if due or self._applications.waiting >= _ROWS_AT_ONCE:
                self._applications_at = now if due else self._applications_at
                self._take_applications(publish=due)

    def finish(self) -> None:
        """End every flow and pass everything on."""
        self._flows.close()
        self._flows.flush()
        self._ring.close()
        self._scoring.close()
        if self._applications is not None:
            self._take_applications(publish=True)
        if self._detection is not None:
            self._detection.close()

    @property
    def flow_memory(self) -> tuple[int, int]:
        """Most flows that lived at once, and the bytes that the flow table is bounded to."""
        return self._flows.peak, self._flows.bound_bytes
