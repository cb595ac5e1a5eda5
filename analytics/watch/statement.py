"""SQL with named parameters: run as such, and shown with its values put in, ready for `engine sql`.

    Statement("SELECT count(*) FROM {packets} WHERE src_ip = $ip", {"ip": "10.0.0.7"})

`{table}` stands for the rows of a table in the range of the question; `$since` and `$until` are its ends.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

from engine.tables import TABLES

if TYPE_CHECKING:
    from analytics.watch.timerange import Span

_PARAMETER: Final = re.compile(r"\$([a-z_][a-z0-9_]*)")
_TABLE: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Statement:
    """One SELECT. `columns`: what they mean is in the data dictionary, or said by the question."""

    sql: str
    values: dict[str, Any] = field(default_factory=dict)

    def bound(self, span: Span) -> tuple[str, dict[str, Any]]:
        """What DuckDB executes, and the values of just the parameters in it."""
        sql = _TABLE.sub(_rows_of, self.sql)
        values = {"since": span.start, "until": span.end, **self.values}
        return sql, {name: values[name] for name in set(_PARAMETER.findall(sql))}

    def shown(self, span: Span) -> str:
        """The same as text that runs anywhere over the lake's views."""
        sql = _TABLE.sub(lambda m: f"table_between('{_table(m[1])}', $since, $until)", self.sql)
        values = {"since": span.start, "until": span.end, **self.values}
        return _PARAMETER.sub(lambda m: literal(values[m[1]]), sql).strip()


def _table(name: str) -> str:
    if name not in TABLES:
        raise KeyError(name)
    return name


def _rows_of(found: re.Match[str]) -> str:
    return f"(SELECT * FROM {_table(found[1])} WHERE ts >= $since AND ts < $until)"


def literal(value: Any) -> str:
    """A value as SQL text that can only be that value."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else f"'{value}'::DOUBLE"
    if isinstance(value, datetime):
        return f"TIMESTAMP '{value.isoformat(' ')}'"
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(literal(one) for one in value)}]"
    return "'" + str(value).replace("'", "''") + "'"
