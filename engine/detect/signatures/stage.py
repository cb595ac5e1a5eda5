"""The signature stage: payloads of a batch through the scanner, candidates through the rules, hits to findings.

The scanner sees every payload and costs the same for any input. Rules are evaluated in Python for its candidates only,
within a share of a core; candidates beyond that are counted as missed. One `Signatures` belongs to one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine import packets as k
from engine.config import SignaturesConfig
from engine.detect.finding import Finding
from engine.detect.signatures.budget import Budget
from engine.detect.signatures.evaluate import View, holds
from engine.detect.signatures.gatherer import Gathered, Gatherer
from engine.detect.signatures.hits import Hits
from engine.detect.signatures.index import Index
from engine.detect.signatures.loader import RuleSet, load, report_lines
from engine.detect.signatures.packet import Packet, candidate_rows, header_fits, read_packet
from engine.detect.signatures.rows import RowRules
from engine.detect.signatures.syntax import Refused
from engine.flows import FlowTable
from engine.kernels.payloads import P_BASE, P_END, P_ROW, P_START
from engine.packets import FrameBatch, PacketBatch


class Signatures:
    """Finds what the rules describe.

    Args:
        config: which rules. budget: share of a core, instead of the configuration's; 1: no limit (a replay).
        rules: instead of those of the configuration, for tests.

    Attributes: missed: candidates that the budget did not allow, so far. candidates: those that were looked at.
    """

    def __init__(self, config: SignaturesConfig, budget: float | None = None, rules: RuleSet | None = None) -> None:
        self._set = rules or load(config)
        try:
            self._index, self._rows = _compile(self._set, config.engine)
        except Refused:  # an engine refuses a pattern: find out which, and do without
            self._set.drop_refused_patterns(config.engine)
            self._index, self._rows = _compile(self._set, config.engine)
        self._rules = self._set.rules
        self._gatherer = Gatherer(config.join_bytes, config.flows)
        self._budget = Budget(config.budget if budget is None else budget)
        self._hits = Hits(self._rules)
        self.missed = 0
        self.candidates = 0

    def take(self, frames: FrameBatch, packets: PacketBatch, table: FlowTable) -> list[Finding]:
        """The findings of a batch, after `FlowTable.follow`. What flows are is read from the rows, not from `table`."""
        if not self._rules:
            return []
        self._budget.begin()
        for gathered in self._gatherer.gather(frames, packets):
            found = self._index.scanner.scan(gathered.data, gathered.pieces[P_START], gathered.pieces[P_END])
            if found.shape[1]:
                self._look(gathered, found.T.tolist(), packets)
        for number in self._index.always:
            self._look_always(number, frames, packets)
        self._budget.charge()
        return self._hits.take(packets.source)

    def application_rows(self, table: str, rows: Sequence[dict[str, Any]], source: str = "") -> list[Finding]:
        """The findings of rows of an application's table."""
        if not rows or not self._rules:
            return []
        self._budget.begin()
        missed = [0]
        for number, row in self._rows.matches(table, rows, self._budget, missed):
            self._hits.add_row(number, table, rows[row])
        self.missed += missed[0]
        self._budget.charge()
        return self._hits.take(source)

    def limit(self, part: float) -> None:
        """Candidates get this part of the budget, 0 to 1, until told otherwise."""
        self._budget.limit(part)

    def report(self) -> list[str]:
        """What is used and what is refused, and why."""
        return [
            f"signatures: {len(self._rules)} rules, engine {self._index.scanner.name}",
            *report_lines(self._set),
        ]

    @property
    def refused(self) -> int:
        """Rules that are not used because they ask for something else."""
        return len(self._set.refused)

    def close(self) -> None:
        """Nothing is open."""

    # --- candidates -------------------------------------------------------------------------------------------------

    def _look(self, gathered: Gathered, found: list[list[int]], packets: PacketBatch) -> None:
        """Evaluate the rules behind (pattern, piece) pairs, which come by piece."""
        packet, piece_of, whole, before = None, -1, View(b""), b""
        told: set[int] = set()  # rules that matched in the payload of the row in hand
        for n, (pattern, piece) in enumerate(found):
            if not self._budget.allows():
                self.missed += sum(len(self._index.rules_of[p]) for p, _ in found[n:])
                return
            if piece != piece_of:
                row = int(gathered.pieces[P_ROW, piece])
                if packet is None or packet.row != row:
                    packet, told = read_packet(packets, row, int(self._gatherer.sides[row])), set()
                piece_of, before = piece, gathered.before(piece)
                whole = View(before + gathered.text(piece), int(gathered.pieces[P_BASE, piece]))
            assert packet is not None
            for number in self._index.rules_of[pattern]:
                self.candidates += 1
                if number not in told and self._matches(number, packet, whole, before):
                    told.add(number)
                    self._hits.add_packet(number, packet, whole.data, bool(before))

    def _matches(self, number: int, packet: Packet, view: View, before: bytes) -> bool:
        """Whether the rule holds in the view; where that joins two segments, not already in the first of them."""
        rule = self._rules[number]
        if not header_fits(rule, packet) or (before and rule.dsize is not None):
            return False
        if not holds(rule.items, lambda _: view):
            return False
        return not before or not holds(rule.items, lambda _: View(before, view.base))

    def _look_always(self, number: int, frames: FrameBatch, packets: PacketBatch) -> None:
        """A rule with nothing to search for: by its header."""
        rule = self._rules[number]
        rows = candidate_rows(rule, packets, self._gatherer.sides).tolist()
        for n, row in enumerate(rows):
            if not self._budget.allows():
                self.missed += len(rows) - n
                return
            self.candidates += 1
            packet = read_packet(packets, row, int(self._gatherer.sides[row]))
            if not header_fits(rule, packet):
                continue
            data = b""
            if packet.payload_len:
                start, stop = packets.int_[k.I_PAYLOAD, row], packets.int_[k.I_PAYLOAD_END, row]
                data = frames.arena[start:stop].tobytes()
            if rule.items and (not data or not holds(rule.items, lambda _, d=data: View(d))):  # type: ignore[misc]
                continue
            self._hits.add_packet(number, packet, data, False)


def _compile(rules: RuleSet, engine: str) -> tuple[Index, RowRules]:
    """The rules about payloads, and those about application rows."""
    numbered = list(enumerate(rules.rules))
    return (
        Index([(n, r) for n, r in numbered if not r.buffers], engine),
        RowRules([(n, r) for n, r in numbered if r.buffers], engine),
    )
