"""What the function of a question works with: the lake at a span of time, the filter, who asks, and a cursor."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import duckdb

from analytics.watch.filters import Filter, Where
from analytics.watch.statement import Statement
from analytics.watch.timerange import Span, to_us
from engine.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

    from analytics.watch.lake import WatchLake


class Stopped(StoreError):  # noqa: N818 — names what happened, as the other errors do
    """The answer took too long, or nobody waits for it any more."""


@dataclass(slots=True)
class Context:
    """For one answer, in one thread. `p` has the question's parameters, `now` is in seconds since the epoch."""

    lake: WatchLake
    con: DuckDBPyConnection
    span: Span
    filter: Filter
    role: str
    p: SimpleNamespace
    now: float
    stopped: Callable[[], str | None] = lambda: None
    ignored: list[str] = field(default_factory=list)

    def where(self, table: str) -> Where:
        """The filter as a condition on a table; what it has no column for is noted in the answer."""
        where = self.filter.where(table)
        self.ignored += [term for term in where.ignored if term not in self.ignored]
        return where

    def of_sensor(self, table: str) -> str:
        """What the filter says of sensors, as a condition on a table of what has no addresses or ports.

        Every statement of this answer has its values.
        """
        return self.filter.about("sensor").where(table, _name_of(table)).sql

    def sensors_alone(self) -> None:
        """Nothing else of the filter has a meaning here: the answer says so."""
        self.ignored += [t.text for t in self.filter.terms if t.field != "sensor" and t.text not in self.ignored]

    def bound(self, statement: Statement) -> tuple[str, dict[str, Any]]:
        """What DuckDB executes, and the values in it."""
        return self._complete(statement).bound(self.span)

    def shown(self, statement: Statement) -> str:
        """The same as text that runs anywhere over the lake's views."""
        return self._complete(statement).shown(self.span)

    def _complete(self, statement: Statement) -> Statement:
        of_sensor = self.filter.about("sensor")
        if not of_sensor:
            return statement
        values = {k: v for t in ("packets", "alerts") for k, v in of_sensor.where(t, _name_of(t)).values.items()}
        return Statement(statement.sql, {**values, **statement.values})

    def run(self, statement: Statement | str, **values: Any) -> DuckDBPyConnection:
        """Execute; the cursor's result. A segment that went away since it was listed is tried once more."""
        if isinstance(statement, str):
            statement = Statement(statement, values)
        sql, bound = self.bound(statement)
        for attempt in (1, 2):
            reason = self.stopped()
            if reason is not None:
                raise Stopped(reason)
            try:
                with self.lake.listing(self.span):
                    return self.con.execute(sql, bound or None)
            except duckdb.InterruptException:
                raise Stopped(self.stopped() or "the query was interrupted") from None
            except duckdb.IOException as error:
                if attempt == 2 or "No such file" not in str(error):
                    raise
        raise AssertionError("the second attempt returns or raises")

    def rows(self, statement: Statement | str, **values: Any) -> list[tuple[Any, ...]]:
        return [tuple(map(plain, row)) for row in self.run(statement, **values).fetchall()]

    def one(self, statement: Statement | str, **values: Any) -> tuple[Any, ...]:
        """The first row; the statement has one."""
        return self.rows(statement, **values)[0]

    def columns(self, statement: Statement | str, **values: Any) -> dict[str, list[Any]]:
        """The result as lists by column."""
        result = self.run(statement, **values)
        names = [column[0] for column in result.description or ()]
        found = result.fetchall()
        return {name: [_value(name, row[i]) for row in found] for i, name in enumerate(names)}

    def reader(self, statement: Statement, rows: int) -> pa.RecordBatchReader:
        """The result as Arrow, at most so many rows."""
        sql, bound = self.bound(Statement(f"SELECT * FROM ({statement.sql}) LIMIT {int(rows)}", statement.values))
        with self.lake.listing(self.span):
            return self.con.sql(sql, params=bound or None).to_arrow_reader(50_000)


def _name_of(table: str) -> str:
    return "reporter" if table == "alerts" else "sensor"  # those of incidents are two for each


def _value(name: str, value: Any) -> Any:
    """Numbers of flows are texts: JavaScript's numbers are exact up to 2^53 only."""
    if value is None or name not in ("flow_id", "flow_ids", "flow"):
        return plain(value)
    return [str(one) for one in value] if isinstance(value, list) else str(value)


_AS_IS: Final = frozenset({int, str, bool, type(None)})


def plain(value: Any) -> Any:
    """A value of DuckDB's as JSON has it: times as microseconds, no NaN, no bytes."""
    if type(value) in _AS_IS:  # twice as quick as isinstance, and most are
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return to_us(value)
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return str(value)


def to_json(answer: dict[str, Any]) -> bytes:
    """Compact JSON. Text from packets is data: `<` is escaped, so that it is none of HTML's even if misused."""
    text = json.dumps(answer, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").encode("utf-8", "backslashreplace")


def clock() -> float:
    return time.time()
