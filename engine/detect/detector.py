"""The detection stage: batches and applications' rows to findings and rows of `windows`. One instance per thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from engine import packets as k
from engine.anomaly_config import WindowsConfig
from engine.constants import PROTO_UDP
from engine.detect.anomaly.stage import AnomalyStage
from engine.detect.entity_windows import EntityWindows
from engine.detect.finding import Finding
from engine.detect.rules import make_rules
from engine.detect.rules.base import Recent, Rule
from engine.detect.tick import Ended, Tick
from engine.detect.window_rows import WindowRows, rows_of
from engine.detect.windows import Windows
from engine.kernels import window_layout as w
from engine.message_rows import AppRows

if TYPE_CHECKING:
    from engine.flows import FlowTable
    from engine.packets import FrameBatch, PacketBatch

_AGAIN_US: Final = 10_000_000  # between two findings of the same kind, source and victim
_KEYS: Final = 65_536
_FLOOD_US: Final = 60_000_000


class Detector:
    """Finds what rules describe.

    Args:
        rules: overrides of the rules' parameters by rule, as in the configuration file. Raises ConfigError.
        emit: takes rows of the table `windows`; None: they are not made.
        slots: of the flow table, `len(table.records)`. rows: of a batch.
        anomaly: judges the windows too; None: nobody does. entities: makes rows of pairs and ports.
        files: of Python, with further rules. report: told in one line when one of those fails.
    """

    def __init__(
        self, rules: Mapping[str, Mapping[str, Any]], slots: int,
        emit: Callable[[WindowRows], None] | None = None, rows: int = k.ROWS_PER_BATCH,
        anomaly: AnomalyStage | None = None, entities: EntityWindows | None = None,
        windows: WindowsConfig | None = None, files: Sequence[str] = (),
        report: Callable[[str, str], None] = lambda _level, _text: None, **sizes: int,
    ) -> None:  # fmt: skip
        self.use(make_rules(rules, files, report))
        self._emit = emit
        self._anomaly = anomaly
        self._entities = entities
        shape = windows or WindowsConfig()
        self._lengths, self._most_rows = shape.hosts, shape.most_rows
        self.windows = Windows(slots, self._look, rows, **sizes)
        self._found: list[Finding] = []
        self._told: Recent[list[int]] = Recent(_KEYS)
        self._flooded: Recent[int] = Recent(4096)
        self._source = ""

    def use(self, rules: list[Rule[Any]]) -> None:
        """Look with these rules from now on. One that is the same as before keeps what it remembers."""
        before = {rule.name: rule for rule in getattr(self, "_rules", ())}
        self._rules = [
            before[rule.name] if rule.name in before and before[rule.name].p == rule.p else rule for rule in rules
        ]
        self._lookers = [rule for rule in self._rules if type(rule).look is not Rule.look]
        self._readers: dict[str, list[Rule[Any]]] = {}
        for rule in self._rules:
            for table in rule.tables:
                self._readers.setdefault(table, []).append(rule)
        self._columns = {
            table: tuple(dict.fromkeys(column for rule in rules for column in rule.columns))
            for table, rules in self._readers.items()
            if all(rule.columns for rule in rules)
        }

    def take(self, frames: FrameBatch, packets: PacketBatch, table: FlowTable) -> list[Finding]:
        """What the packets of a batch show, after `FlowTable.follow` of the same batch."""
        self._source = packets.source
        self._settle(int(self.windows.state[w.S_CLOCK]) // 1000)
        self.windows.take(frames, packets, table.slot_of)
        return self._take_found()

    def application_rows(self, table: str, rows: Sequence[dict[str, Any]]) -> list[Finding]:
        """What rows that a parser made show."""
        readers = self._readers.get(table)
        if readers:
            if table in self._columns and isinstance(rows, AppRows):
                rows = rows.with_columns(self._columns[table])
            for row in rows:
                for rule in readers:
                    self._note(rule.row(table, row))
        return self._take_found()

    def tick(self, now_ns: int) -> list[Finding]:
        """While no packet comes: what did not come until `now_ns`. For live capture, whose clock is real."""
        self.windows.pass_time(now_ns)
        self._settle(now_ns // 1000)
        return self._take_found()

    def end_source(self, name: str) -> list[Finding]:
        """A source will send no more."""
        self.windows.end_source(name)
        if not self.windows.sources:  # what comes next may be of another time
            for rule in self._rules:
                rule.forget()
            self._told.clear()
            self._flooded.clear()
            self._settle(None)
            if self._anomaly is not None:
                self._anomaly.forget()
        return self._take_found()

    def close(self) -> list[Finding]:
        """End every source."""
        return [finding for name in self.windows.sources for finding in self.end_source(name)]

    def _look(self, tick: Tick, second: bool, ended: list[Ended]) -> None:
        for rule in self._lookers:
            if rule.may_find(tick.peaks):
                self._note(rule.look(tick, second))
        if self._anomaly is not None and ended:
            self._anomaly.look(tick, ended)
        if self._entities is not None and ended:
            self._entities.look(tick, ended)
        if self._emit is not None:
            for made in rows_of(tick, [e for e in ended if e.length_s in self._lengths], self._most_rows):
                self._emit(made)

    def _settle(self, now_us: int | None) -> None:
        if self._anomaly is not None:
            self._found += self._anomaly.settle(now_us)

    def _note(self, findings: Iterable[Finding]) -> None:
        """Keep the first finding of a kind, source and victim, then one every ten seconds while it goes on."""
        for finding in findings:
            if self._anomaly is not None:
                self._anomaly.hold(finding)
            if self._is_flood(finding):
                continue
            key = finding.kind, finding.src_ip, finding.dst_ip
            told = self._told.get(key)
            if told is None:
                told = self._told.put(key, [finding.ts - _AGAIN_US, 0])
            grown, told[1] = finding.count > told[1], finding.count  # windows remember it after it has ended
            if grown and abs(finding.ts - told[0]) >= _AGAIN_US:
                told[0] = finding.ts
                self._found.append(finding if finding.source else replace(finding, source=self._source))

    def _is_flood(self, finding: Finding) -> bool:
        """A scan of the UDP ports of a host that is being flooded: a flood over many ports is not two things."""
        if finding.kind == "udp_flood":
            self._flooded.put(finding.dst_ip, finding.ts)
        elif finding.kind == "port_scan" and finding.proto == PROTO_UDP:
            flooded = self._flooded.get(finding.dst_ip)
            return flooded is not None and abs(finding.ts - flooded) < _FLOOD_US
        return False

    def _take_found(self) -> list[Finding]:
        found, self._found = self._found, []
        return found
