"""ClickHouse's side of the seam: how it calls what the questions use."""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import Any, Final

from sqlglot import exp
from sqlglot.dialects.clickhouse import ClickHouse

from analytics.dialects.lake_sql import call, to_integer
from analytics.dialects.spark import goes_down, half_up, sort_keys

TYPES: Final = {
    "VARCHAR": "Nullable(String)", "TIMESTAMP": "Nullable(DateTime64(6, 'UTC'))", "SMALLINT": "Nullable(Int16)",
    "INTEGER": "Nullable(Int32)", "BIGINT": "Nullable(Int64)", "FLOAT": "Nullable(Float32)",
    "DOUBLE": "Nullable(Float64)", "BOOLEAN": "Nullable(Bool)", "DATE": "Nullable(Date32)", "BLOB": "Nullable(String)",
    "VARCHAR[]": "Array(Nullable(String))", "BIGINT[]": "Array(Nullable(Int64))",
}  # fmt: skip
SETTINGS: Final = (
    "join_use_nulls = 1, group_by_use_nulls = 1, aggregate_functions_null_for_empty = 1, session_timezone = 'UTC'"
)
_MEDIAN: Final = "arrayReduce('quantileExactInclusive(0.5)', {0})"
_MAD: Final = "arrayReduce('quantileExactInclusive(0.5)', arrayMap(v -> abs(v - " + _MEDIAN + "), {0}))"
_ON_LISTS: Final = {"median": _MEDIAN, "mad": _MAD, "entropy": "arrayReduce('entropy', {0})"}
_CALLS: Final = {
    "approx_count_distinct": "count(DISTINCT {0})",
    "len": "length({0})",
    "list_extract": "arrayElementOrNull({0}, {1})",
    "list_sort": "arraySort({0})",
    "list_distinct": "arrayDistinct({0})",
    "list_contains": "has({0}, {1})",
    "list_position": "nullIf(indexOf({0}, {1}), 0)",
    "flatten": "arrayFlatten({0})",
    "range": "range({0}, {1})",
    "range/3": "range({0}, {1}, {2})",
    "epoch_us": "toUnixTimestamp64Micro({0})",
    "make_timestamp": "fromUnixTimestamp64Micro({0}, 'UTC')",
    "median": "quantileExactInclusive(0.5)({0})",
    "mad": _MAD.replace("{0}", "groupArray({0})"),
    "now": "now64(6, 'UTC')",
}


def _call(generator: Any, expression: exp.Anonymous) -> str:
    if expression.name.lower() == "list_aggregate":
        of, what = expression.expressions
        return _ON_LISTS[what.name].format(generator.sql(of))
    return call(generator, expression, _CALLS, "ClickHouse")


def _list(generator: Any, expression: exp.ArrayAgg, condition: str = "") -> str:
    """groupArray() has no order of its own: the keys are kept beside the values until it is sorted."""
    values = expression.this
    if isinstance(values, exp.Distinct):
        return f"groupUniqArray({generator.sql(values.expressions[0])}){condition}"
    if not isinstance(values, exp.Order):
        return f"groupArray({generator.sql(values)}){condition}"
    keys = sort_keys(generator, values)
    rows = f"groupArray(({', '.join(keys)}, {generator.sql(values.this)})){condition}"
    return f"arrayMap(r -> r.{len(keys) + 1}, {'arrayReverseSort' if goes_down(values) else 'arraySort'}({rows}))"


def _mode(generator: Any, expression: exp.Mode) -> str:
    """The most frequent value; of several, the smallest. topK() is an estimate."""
    value = generator.sql(expression.this.this)
    counts = f"sumMapIf([assumeNotNull({value})], [1], {value} IS NOT NULL)"
    return f"arrayElementOrNull(({counts}).1, indexOf(({counts}).2, arrayMax(({counts}).2)))"


def _named(generator: Any, expression: exp.Struct) -> str:
    fields = ", ".join(f"{generator.sql(f.expression)} AS {f.name}" for f in expression.expressions)
    return f"tuple({fields})"


class ClickHouseSql(ClickHouse):
    """ClickHouse's SQL; a call that is not in _CALLS is an error."""

    INDEX_OFFSET = 0

    class Generator(ClickHouse.Generator):
        TRANSFORMS = ClickHouse.Generator.TRANSFORMS | {
            exp.ArrayAgg: _list,
            exp.CurrentTimestamp: lambda *_: _CALLS["now"],
            exp.IntDiv: lambda self, e: f"intDiv({self.sql(e.this)}, {self.sql(e.expression)})",
            exp.LogicalOr: lambda self, e: f"max({self.sql(e.this)})",
            exp.Mode: _mode,
            exp.PercentileCont: lambda self, e: f"quantileExactInclusive({self.sql(e.expression)})({self.sql(e.this)})",
            exp.Struct: _named,
            exp.Round: lambda self, e: half_up(self, e, TYPES["DOUBLE"]),
            exp.Anonymous: _call,
        }

        def filter_sql(self, expression: exp.Filter) -> str:
            if isinstance(expression.this, exp.ArrayAgg):
                return _list(self, expression.this, f" FILTER (WHERE {self.sql(expression.expression.this)})")
            return super().filter_sql(expression)

        def cast_sql(self, expression: exp.Cast, safe_prefix: str | None = None) -> str:
            text = expression.this.unnest()
            if text.is_string and expression.to.is_type(*exp.DataType.TEMPORAL_TYPES):
                with contextlib.suppress(ValueError):  # as a whole: '2026-11-24 12:00' would be no time
                    moment = datetime.fromisoformat(text.name)
                    if expression.to.is_type("date"):
                        return f"toDate32('{moment:%Y-%m-%d}')"
                    return f"toDateTime64('{moment:%Y-%m-%d %H:%M:%S.%f}', 6, 'UTC')"
            return to_integer(self, expression, "round({0})") or super().cast_sql(expression, safe_prefix)

        def datatype_sql(self, expression: exp.DataType) -> str:
            if expression.is_type(*exp.DataType.TEMPORAL_TYPES) and not expression.is_type("date", "date32"):
                return TYPES["TIMESTAMP"]
            if expression.this == exp.DataType.Type.DATE:
                return TYPES["DATE"]
            return super().datatype_sql(expression)

        def bracket_sql(self, expression: exp.Bracket) -> str:
            (index,) = expression.expressions
            of = self.sql(expression.this)
            if not isinstance(index, exp.Slice):
                return f"arrayElementOrNull({of}, {self.sql(index)})"
            first, last = self.sql(index.this) or "1", self.sql(index.expression)
            return f"arraySlice({of}, {first}{f', {last} - ({first}) + 1' if last else ''})"
