"""Rules over application rows: names, URIs, fingerprints."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import numpy as np

from engine.detect.signatures.budget import Budget
from engine.detect.signatures.evaluate import View, holds
from engine.detect.signatures.index import Index
from engine.detect.signatures.rule import STICKY, Rule, fast_item

_SOURCES: Final = {(table, buffer): column for buffer, places in STICKY.items() for table, column in places}


class RowRules:
    """The rules about application rows."""

    def __init__(self, rules: Sequence[tuple[int, Rule]], engine: str) -> None:
        self._rules = dict(rules)
        by_buffer: defaultdict[str, list[tuple[int, Rule]]] = defaultdict(list)
        self._always: list[int] = []
        for number, rule in rules:
            item = fast_item(rule)
            if item is None:
                self._always.append(number)
            else:
                by_buffer[item.buffer].append((number, rule))
        self._indexes = {buffer: Index(some, engine) for buffer, some in by_buffer.items()}

    def matches(
        self, table: str, rows: Sequence[dict[str, Any]], budget: Budget, missed: list[int]
    ) -> Iterator[tuple[int, int]]:
        """(rule, row) of each match. `missed` counts candidates that the budget did not allow."""
        candidates = [(row, number) for number in self._always for row in range(len(rows))]
        for buffer, index in self._indexes.items():
            if (table, buffer) in _SOURCES:
                candidates += _candidates(index, table, buffer, rows)
        for row, number in sorted(candidates):
            rule = self._rules[number]
            if table not in rule.tables:
                continue
            if not budget.allows():
                missed[0] += 1
                continue
            if _header_fits(rule, rows[row]) and _holds(rule, table, rows[row]):
                yield number, row


def _holds(rule: Rule, table: str, row: dict[str, Any]) -> bool:
    """Whether the row's buffers hold what the rule asks for."""
    for buffer, size in rule.sizes:
        data = _bytes(table, buffer, row)
        if data is None or not size.low <= len(data) <= size.high:
            return False
    return holds(rule.items, lambda buffer: _view(table, buffer, row))


def _candidates(index: Index, table: str, buffer: str, rows: Sequence[dict[str, Any]]) -> list[tuple[int, int]]:
    """(row, rule) pairs that may match, by one scan over the column."""
    texts, of_row = [], []
    for n, row in enumerate(rows):
        data = _bytes(table, buffer, row)
        if data:
            texts.append(data)
            of_row.append(n)
    if not texts:
        return []
    lengths = np.array([len(t) for t in texts], np.int64)
    ends = np.cumsum(lengths + 1)
    found = index.scanner.scan(memoryview(b"\n" + b"\n".join(texts) + b"\n"), ends - lengths, ends)
    return [(of_row[piece], number) for p, piece in found.T.tolist() for number in index.rules_of[p]]


def _bytes(table: str, buffer: str, row: dict[str, Any]) -> bytes | None:
    column = _SOURCES.get((table, buffer))
    value = row.get(column) if column else None
    if not isinstance(value, str):
        return None
    if buffer == "http.uri":
        return unquote_to_bytes(value)
    return value.lower().encode() if buffer == "http.host" else value.encode("utf-8", "surrogateescape")


def _view(table: str, buffer: str, row: dict[str, Any]) -> View | None:
    data = _bytes(table, buffer, row)
    return None if data is None else View(data)


def _header_fits(rule: Rule, row: dict[str, Any]) -> bool:
    """Addresses and ports; the client is the source."""
    if rule.established is False:
        return False
    src, src_v6 = number_of(str(row.get("src_ip")))
    dst, dst_v6 = number_of(str(row.get("dst_ip")))
    ways = [(src, src_v6, row.get("src_port"), dst, dst_v6, row.get("dst_port"))]
    if rule.both_ways:
        ways.append((dst, dst_v6, row.get("dst_port"), src, src_v6, row.get("src_port")))
    return any(
        rule.src.holds(a, a6) and rule.src_ports.holds(ap) and rule.dst.holds(b, b6) and rule.dst_ports.holds(bp)
        for a, a6, ap, b, b6, bp in ways
    )


@lru_cache(maxsize=65_536)
def number_of(text: str) -> tuple[int, bool]:
    """(address as a number, whether it is IPv6); -1 for what is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return -1, False
    return int(address), address.version == 6
