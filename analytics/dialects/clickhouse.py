"""ClickHouse's side of the seam: how it calls what the questions use."""

from __future__ import annotations

from typing import Any, Final

from sqlglot import exp
from sqlglot.dialects.clickhouse import ClickHouse

from analytics.dialects.lake_sql import arguments
from analytics.dialects.spark import half_up, sort_keys
from engine.errors import StoreError

TYPES: Final = {
    "VARCHAR": "Nullable(String)", "TIMESTAMP": "Nullable(DateTime64(6, 'UTC'))", "SMALLINT": "Nullable(Int16)",
    "INTEGER": "Nullable(Int32)", "BIGINT": "Nullable(Int64)", "FLOAT": "Nullable(Float32)",
    "DOUBLE": "Nullable(Float64)", "BOOLEAN": "Nullable(Bool)", "DATE": "Nullable(Date32)", "BLOB": "Nullable(String)",
    "VARCHAR[]": "Array(Nullable(String))", "BIGINT[]": "Array(Nullable(Int64))",
}  # fmt: skip
SETTINGS: Final = "join_use_nulls = 1, session_timezone = 'UTC'"
_MEDIAN: Final = "arrayReduce('quantileExactInclusive(0.5)', {0})"
_MAD: Final = "arrayReduce('quantileExactInclusive(0.5)', arrayMap(v -> abs(v - " + _MEDIAN + "), {0}))"
_ON_LISTS: Final = {"median": _MEDIAN, "mad": _MAD, "entropy": "arrayReduce('entropy', {0})"}
_CALLS: Final = {
    "len": "length({0})",
    "list_extract": "arrayElementOrNull({0}, {1})",
    "list_sort": "arraySort({0})",
    "list_distinct": "arrayDistinct({0})",
    "list_contains": "has({0}, {1})",
    "flatten": "arrayFlatten({0})",
    "range": "range({0}, {1})",
    "epoch_us": "toUnixTimestamp64Micro({0})",
    "make_timestamp": "fromUnixTimestamp64Micro({0}, 'UTC')",
    "median": "quantileExactInclusive(0.5)({0})",
    "mad": _MAD.replace("{0}", "groupArray({0})"),
    "now": "now64(6, 'UTC')",
}


def _call(generator: Any, expression: exp.Anonymous) -> str:
    name, given = expression.name.lower(), arguments(generator, expression)
    if name == "list_aggregate":
        return _ON_LISTS[expression.expressions[1].name].format(given[0])
    if name not in _CALLS:
        raise StoreError(f"{name}() is DuckDB's; ClickHouse has no word for it here")
    return _CALLS[name].format(*given)


def _list(generator: Any, expression: exp.ArrayAgg, condition: str = "") -> str:
    """groupArray() has no order of its own: the keys are kept beside the values until it is sorted."""
    values = expression.this
    if isinstance(values, exp.Distinct):
        return f"groupUniqArray({generator.sql(values.expressions[0])}){condition}"
    if not isinstance(values, exp.Order):
        return f"groupArray({generator.sql(values)}){condition}"
    keys = sort_keys(generator, values)
    rows = f"groupArray(({', '.join(keys)}, {generator.sql(values.this)})){condition}"
    return f"arrayMap(r -> r.{len(keys) + 1}, arraySort({rows}))"


class ClickHouseSql(ClickHouse):
    """ClickHouse's SQL; a call that is not in _CALLS is an error."""

    INDEX_OFFSET = 0

    class Generator(ClickHouse.Generator):
        TRANSFORMS = ClickHouse.Generator.TRANSFORMS | {
            exp.ArrayAgg: _list,
            exp.CurrentTimestamp: lambda *_: _CALLS["now"],
            exp.Round: lambda self, e: half_up(self, e, TYPES["DOUBLE"]),
            exp.Anonymous: _call,
        }

        def filter_sql(self, expression: exp.Filter) -> str:
            if isinstance(expression.this, exp.ArrayAgg):
                return _list(self, expression.this, f" FILTER (WHERE {self.sql(expression.expression.this)})")
            return super().filter_sql(expression)

        def datatype_sql(self, expression: exp.DataType) -> str:
            if expression.this == exp.DataType.Type.TIMESTAMP:
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
