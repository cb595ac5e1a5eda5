"""Rules by what the scanner looks for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from engine.detect.signatures.rule import Rule, fast_item, pattern_of
from engine.detect.signatures.scanner import Pattern, Scanner, make_scanner


class Index:
    """A scanner and the rules behind each of its patterns. Rules are numbers into the list of all rules."""

    def __init__(self, rules: Sequence[tuple[int, Rule]], engine: str) -> None:
        behind: defaultdict[Pattern, list[int]] = defaultdict(list)
        self.always: list[int] = []  # rules with nothing to look for
        for number, rule in rules:
            item = fast_item(rule)
            if item is None:
                self.always.append(number)
            else:
                behind[pattern_of(item)].append(number)
        self.patterns = list(behind)
        self.rules_of = list(behind.values())
        self.scanner: Scanner = make_scanner(self.patterns, engine)
