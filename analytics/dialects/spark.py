"""Spark's side of the seam: how it calls what the questions use. Spark 4, ANSI mode or not."""

from __future__ import annotations

from typing import Any, Final

from sqlglot import exp
from sqlglot.dialects.spark import Spark

from analytics.dialects.lake_sql import arguments
from engine.errors import StoreError

TYPES: Final = {
    "VARCHAR": "STRING", "TIMESTAMP": "TIMESTAMP_NTZ", "SMALLINT": "SMALLINT", "INTEGER": "INT", "BIGINT": "BIGINT",
    "FLOAT": "FLOAT", "DOUBLE": "DOUBLE", "BOOLEAN": "BOOLEAN", "DATE": "DATE", "BLOB": "BINARY",
    "VARCHAR[]": "ARRAY<STRING>", "BIGINT[]": "ARRAY<BIGINT>",
}  # fmt: skip
# A list's median between two values, as DuckDB has it; NULL of none, without a CASE, which Spark looks past: index 0 is
# an error of its. `transform(array(x), name -> ...)[0]` names a value.
_MEDIAN: Final = (
    "transform(array(array_sort({0})), s -> (CAST(try_element_at(s, greatest(1, CAST(floor((size(s) + 1) / 2) AS INT)))"
    " AS DOUBLE) + try_element_at(s, CAST(floor(size(s) / 2) AS INT) + 1)) / 2)[0]"
)
_MAD: Final = (
    "transform(array(named_struct('v', {0}, 'm', " + _MEDIAN + ")), x -> "
    + _MEDIAN.format("transform(x.v, v -> abs(v - x.m))") + ")[0]"
)  # fmt: skip
_ENTROPY: Final = (
    "transform(array({0}), l -> aggregate(array_distinct(l), CAST(0 AS DOUBLE), (sum, c) -> "
    "sum - size(filter(l, x -> x = c)) / size(l) * log2(size(filter(l, x -> x = c)) / size(l))))[0]"
)
_ON_LISTS: Final = {"median": _MEDIAN, "mad": _MAD, "entropy": _ENTROPY}
_NOW: Final = "to_utc_timestamp(localtimestamp(), current_timezone())"
_CALLS: Final = {
    "len": "size({0})",
    "list_extract": "try_element_at({0}, CAST({1} AS INT))",
    "list_sort": "array_sort({0})",
    "list_distinct": "array_distinct({0})",
    "list_contains": "array_contains({0}, {1})",
    "flatten": "flatten({0})",
    "range": "filter(sequence({0}, greatest({0}, {1} - 1)), n -> n < {1})",  # sequence(1, 0) goes down
    "epoch_us": "timestampdiff(MICROSECOND, TIMESTAMP_NTZ '1970-01-01 00:00:00', {0})",
    "make_timestamp": "timestampadd(MICROSECOND, {0}, TIMESTAMP_NTZ '1970-01-01 00:00:00')",
    "median": "median({0})",
    "mad": _MAD.replace("{0}", "collect_list({0})"),
    "now": _NOW,
}


def _split(generator: Any, expression: exp.Split) -> str:
    """By nothing, a text falls into its characters; Spark would add an empty one."""
    text, separator = generator.sql(expression.this), expression.expression.name
    if not separator:
        return f"regexp_extract_all({text}, '(?s).', 0)"
    return f"split({text}, '{''.join('[' + c + ']' for c in separator)}')"


def _extreme(generator: Any, function: str, expression: Any) -> str:
    """DuckDB passes over rows whose value is NULL, Spark only over those whose order is."""
    value, order = generator.sql(expression.this), generator.sql(expression.expression)
    return f"{function}({value}, CASE WHEN {value} IS NOT NULL THEN {order} END)"


def _list(generator: Any, expression: exp.ArrayAgg, condition: str = "") -> str:
    """Spark's lists have no order of their own: the keys are kept beside the values until it is sorted."""
    values = expression.this
    if isinstance(values, exp.Distinct):
        return f"collect_set({generator.sql(values.expressions[0])}){condition}"
    if not isinstance(values, exp.Order):
        return f"collect_list({generator.sql(values)}){condition}"
    fields = ", ".join(f"'k{n}', {key}" for n, key in enumerate(sort_keys(generator, values)))
    rows = f"collect_list(named_struct({fields}, 'v', {generator.sql(values.this)})){condition}"
    return f"transform(array_sort({rows}), r -> r.v)"


def sort_keys(generator: Any, order: exp.Order) -> list[str]:
    """What to sort by, ascending: what goes down is a number in all of our lists."""
    return [f"-({generator.sql(k.this)})" if k.args.get("desc") else generator.sql(k.this) for k in order.expressions]


def half_up(generator: Any, expression: exp.Round, double: str = "DOUBLE") -> str:
    """DuckDB's round(): by multiplying. Spark's goes by decimal digits, ClickHouse's to even."""
    digits = int(expression.args["decimals"].name) if expression.args.get("decimals") else 0
    power = f"{10**digits}e0"
    return f"floor(CAST({generator.sql(expression.this)} AS {double}) * {power} + 5e-1) / {power}"


class SparkSql(Spark):
    """Spark's SQL; a call that is not in _CALLS is an error."""

    INDEX_OFFSET = 0

    class Generator(Spark.Generator):
        TYPE_MAPPING = Spark.Generator.TYPE_MAPPING | {
            exp.DataType.Type.TIMESTAMP: "TIMESTAMP_NTZ",
        }
        TRANSFORMS = Spark.Generator.TRANSFORMS | {
            exp.ArgMax: lambda self, e: _extreme(self, "max_by", e),
            exp.ArgMin: lambda self, e: _extreme(self, "min_by", e),
            exp.ArrayAgg: _list,
            exp.CurrentTimestamp: lambda *_: _NOW,
            exp.Div: lambda self, e: f"try_divide({self.sql(e.this)}, {self.sql(e.expression)})",
            exp.Split: _split,
            exp.Round: half_up,
        }

        def anonymous_sql(self, expression: exp.Anonymous) -> str:
            name, given = expression.name.lower(), arguments(self, expression)
            if name == "list_aggregate":
                return _ON_LISTS[expression.expressions[1].name].format(given[0])
            if name not in _CALLS:
                raise StoreError(f"{name}() is DuckDB's; Spark has no word for it here")
            return _CALLS[name].format(*given)

        def filter_sql(self, expression: exp.Filter) -> str:
            if isinstance(expression.this, exp.ArrayAgg):
                return _list(self, expression.this, f" FILTER (WHERE {self.sql(expression.expression.this)})")
            return super().filter_sql(expression)

        def bracket_sql(self, expression: exp.Bracket) -> str:
            (index,) = expression.expressions
            of = self.sql(expression.this)
            if not isinstance(index, exp.Slice):
                return f"try_element_at({of}, CAST({self.sql(index)} AS INT))"
            first, last = self.sql(index.this) or "1", self.sql(index.expression)
            return f"slice({of}, {first}, {f'{last} - ({first}) + 1' if last else f'size({of})'})"

        def array_sql(self, expression: exp.Array) -> str:
            if not expression.expressions:
                return "CAST(array() AS ARRAY<STRING>)"
            return super().function_fallback_sql(expression)
