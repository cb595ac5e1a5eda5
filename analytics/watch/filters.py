"""Filters: what the box on top of every page says, as SQL.

    proto=tcp,udp -dport=443 net=10.0.0.0/8 sni="*.example.org" len>1000

Terms joined by spaces must all hold; commas inside a value mean or; `-` or `!` in front means not. A value with
spaces, commas or quotes stands in double quotes, where `""` is a quote. An address or network alone is a `host` or
`net`. Fields: `analytics.watch.fields.FIELDS`.

    parsed = parse("host=10.0.0.7 -port=53")      # FilterError: one line, the term and its position
    condition = parsed.where("packets")           # condition.sql, condition.values, condition.ignored
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from analytics.watch.fields import FIELDS, Value, columns_for, columns_of
from engine.alert_row import rules_of
from engine.errors import ConfigError

MAX_TEXT: Final = 2_000  # characters
MAX_TERMS: Final = 32
MAX_VALUES: Final = 64  # of one term
_HEAD: Final = re.compile(r"(?P<not>[-!]?)(?P<field>[A-Za-z_][A-Za-z0-9_]*)(?P<op>!=|>=|<=|=|:|>|<)")
_PLAIN: Final = re.compile(r'[^\s,"]+')
_NEGATED: Final = {">": "<=", ">=": "<", "<": ">=", "<=": ">"}


class FilterError(ConfigError):
    """A filter that cannot be read."""


@dataclass(frozen=True, slots=True)
class Term:
    """One condition: any of the values. `operator` is =, >, >=, < or <=."""

    field: str
    operator: str
    values: tuple[Value, ...]
    negated: bool = False

    @property
    def text(self) -> str:
        """As it is written in a filter."""
        written = FIELDS[self.field].text
        values = ",".join(_quoted(written(value)) for value in self.values)
        return f"{'-' if self.negated else ''}{self.field}{self.operator}{values}"


@dataclass(frozen=True, slots=True)
class Where:
    """A condition for one table. `sql` has named parameters ($f0, $f1...), `values` holds them by name.

    `ignored` are the terms that the table has no column for.
    """

    sql: str
    values: dict[str, Any]
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Filter:
    """Terms that must all hold; none lets everything through."""

    terms: tuple[Term, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.terms)

    @property
    def text(self) -> str:
        """The canonical text: the same for filters that differ in spelling or order only."""
        return " ".join(sorted({term.text for term in self.terms}))

    def chips(self) -> list[dict[str, Any]]:
        """A dictionary per term, as a page shows it: text, field, negated, and the text of its opposite."""
        return [
            {"text": t.text, "field": t.field, "negated": t.negated,
             "opposite": Term(t.field, t.operator, t.values, not t.negated).text}
            for t in self.terms
        ]  # fmt: skip

    def without(self, *fields: str) -> Filter:
        """The filter less the terms about these fields."""
        return Filter(tuple(t for t in self.terms if t.field not in fields))

    def only(self, *fields: str) -> bool:
        """Whether it is about nothing but these fields."""
        return all(t.field in fields for t in self.terms)

    def about(self, *fields: str) -> Filter:
        """The terms about these fields."""
        return Filter(tuple(t for t in self.terms if t.field in fields))

    def where(self, table: str, name: str = "f") -> Where:
        """The condition on a table's rows, `true` without any term that applies. Its values are `name`0, `name`1..."""
        parts: list[str] = []
        values: dict[str, Any] = {}
        ignored: list[str] = []
        for term in self.terms:
            sql, given = _condition(table, term)
            if not sql:
                ignored.append(term.text)
                continue
            for value in given:
                key = f"{name}{len(values)}"
                sql = sql.replace("?", f"${key}", 1)
                values[key] = value
            parts.append(f"({sql}) IS NOT TRUE" if term.negated else f"({sql})")
        return Where(" AND ".join(parts) or "true", values, tuple(ignored))


def _condition(table: str, term: Term) -> tuple[str, list[Any]]:
    field = FIELDS[term.field]
    if term.field == "len" and table == "flows":
        return _length_of_flow(term)
    if term.field == "sensor" and table == "alerts":  # what rules over the lake found is the sensor's, too
        term = Term("sensor", "=", tuple(name for v in term.values for name in (v, rules_of(v))), term.negated)
    if field.tables and table not in field.tables:
        return _of_flows(term, field.tables) if "flow_id" in columns_of(table) else ("", [])
    columns = columns_for(table, term.field)
    alternatives: list[str] = []
    given: list[Any] = []
    for column in columns:
        for value in term.values:
            if value is None and column.startswith(("inner_", "arp_")):
                continue
            sql, some = field.condition(column, value)
            if sql == "false":
                continue
            alternatives.append(sql if term.operator == "=" else sql.replace(" = ", f" {term.operator} "))
            given += some
    return " OR ".join(alternatives) or ("false" if columns else ""), given


def _of_flows(term: Term, tables: tuple[str, ...]) -> tuple[str, list[Any]]:
    """Rows of flows that a row of the tables tells about, up to an hour around the range."""
    near = "ts >= $since - INTERVAL 1 HOUR AND ts < $until + INTERVAL 1 HOUR"
    plain = Term(term.field, term.operator, term.values)
    parts = [_condition(table, plain) for table in tables]
    sql = [
        f"flow_id IN (SELECT flow_id FROM {table} WHERE {near} AND ({part[0]}))"
        for table, part in zip(tables, parts, strict=True)
    ]
    return " OR ".join(sql), [value for part in parts for value in part[1]]


def _length_of_flow(term: Term) -> tuple[str, list[Any]]:
    """A flow has a packet longer or shorter than that; exact lengths of packets are not known of flows."""
    if term.operator == "=":
        return "", []
    least = "least(src_size_min, dst_size_min)" if "<" in term.operator else "greatest(src_size_max, dst_size_max)"
    return " OR ".join(f"{least} {term.operator} ?" for _ in term.values), list(term.values)


# --- reading ---------------------------------------------------------------------------------------------------------


def parse(text: str | None) -> Filter:
    """The filter of a text. Raises FilterError, one line with the term and its position."""
    text = text or ""
    if len(text) > MAX_TEXT:
        raise FilterError(f"filter has {len(text)} characters; use at most {MAX_TEXT}")
    bad = next((i for i, c in enumerate(text) if not c.isprintable() and not c.isspace()), None)
    if bad is not None:
        raise FilterError(f"filter: character U+{ord(text[bad]):04X} at {bad + 1} cannot be printed; leave it out")
    terms: list[Term] = []
    at = _skip(text, 0)
    while at < len(text):
        term, end = _term(text, at)
        if term not in terms:
            terms.append(term)
        if len(terms) > MAX_TERMS:
            raise FilterError(f"filter has more than {MAX_TERMS} terms; use fewer, with commas inside a value")
        at = _skip(text, end)
    return Filter(tuple(terms))


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _term(text: str, at: int) -> tuple[Term, int]:
    head = _HEAD.match(text, at)
    if head is None or (_bare := _bare_address(text, at)) is not None:
        return _bare_term(text, at)
    name, operator = head["field"].lower(), head["op"].replace(":", "=")
    negated = bool(head["not"])
    if operator == "!=":
        operator, negated = "=", not negated
    shown = _shown(text, at)
    if name not in FIELDS:
        raise FilterError(f"filter: field {name!r} of {shown} is unknown; fields are {', '.join(FIELDS)}")
    field = FIELDS[name]
    if operator not in field.operators:
        raise FilterError(f"filter: {shown}: {name} takes {' '.join(field.operators)}, not {operator}")
    raw, end = _values(text, head.end(), shown)
    values: list[Value] = []
    for one in raw:
        try:
            value = field.parse(one)
        except ValueError as error:
            raise FilterError(f"filter: {one[:60]!r} in {shown} is not {error}") from None
        if value not in values:
            values.append(value)
    if operator != "=" and len(values) > 1:
        raise FilterError(f"filter: {shown}: {operator} takes one value")
    if negated and operator in _NEGATED and name == "len":  # a packet always has a length
        operator, negated = _NEGATED[operator], False
    return Term(name, operator, tuple(sorted(values, key=str)), negated), end


def _bare_address(text: str, at: int) -> Value:
    """The address or network that stands there alone, which the head of a term may look like: `fe80::1`."""
    word = _PLAIN.match(text, at + (text[at] in "-!"))
    if word is None:
        return None
    try:
        return FIELDS["host"].parse(word[0])
    except ValueError:
        return None


def _bare_term(text: str, at: int) -> tuple[Term, int]:
    value = _bare_address(text, at)
    shown = _shown(text, at)
    if value is None:
        raise FilterError(f"filter: {shown} is no term; write field=value, such as host=10.0.0.7 or proto=tcp")
    word = _PLAIN.match(text, at + (text[at] in "-!"))
    end = word.end() if word else len(text)
    if end < len(text) and not text[end].isspace():
        raise FilterError(f"filter: {shown} is no term; write host={value},... for several addresses")
    return Term("net" if hasattr(value, "prefixlen") else "host", "=", (value,), text[at] in "-!"), end


def _values(text: str, at: int, shown: str) -> tuple[list[str], int]:
    values: list[str] = []
    while True:
        if at < len(text) and text[at] == '"':
            one, at = _read_quoted(text, at, shown)
        else:
            word = _PLAIN.match(text, at)
            if word is None:
                raise FilterError(f"filter: {shown} lacks a value")
            one, at = word[0], word.end()
        if not one:
            raise FilterError(f"filter: {shown} has an empty value")
        values.append(one)
        if len(values) > MAX_VALUES:
            raise FilterError(f"filter: {shown} has more than {MAX_VALUES} values; use a network or fewer")
        if at >= len(text) or text[at].isspace():
            return values, at
        if text[at] != ",":
            raise FilterError(f"filter: {shown}: expected a comma or a space before {text[at : at + 20]!r}")
        at += 1


def _read_quoted(text: str, at: int, shown: str) -> tuple[str, int]:
    parts: list[str] = []
    at += 1
    while True:
        end = text.find('"', at)
        if end < 0:
            raise FilterError(f"filter: {shown}: a quote is not closed")
        parts.append(text[at:end])
        if text[end + 1 : end + 2] != '"':
            return "".join(parts), end + 1
        parts.append('"')
        at = end + 2


def _quoted(value: str) -> str:
    if value and _PLAIN.fullmatch(value):
        return value
    return '"' + value.replace('"', '""') + '"'


def _shown(text: str, at: int) -> str:
    word = re.compile(r"\S+").match(text, at)
    return f"{(word[0] if word else text[at:])[:60]!r} at {at + 1}"


def words(text: str) -> Iterator[tuple[int, str]]:
    """Position and text of what stands between spaces, for completion; quotes keep spaces."""
    for found in re.finditer(r'(?:"(?:[^"]|"")*"?|[^\s"])+', text):
        yield found.start(), found[0]
