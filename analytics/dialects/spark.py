"""Spark's side of the seam: how it calls what the questions use. Spark 4, ANSI mode or not."""

from __future__ import annotations

from typing import Any, Final

from sqlglot import exp
from sqlglot.dialects.spark import Spark

from analytics.dialects.lake_sql import call, to_integer

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
    "approx_count_distinct": "count(DISTINCT {0})",
    "len": "size({0})",
    "list_extract": "try_element_at({0}, CAST({1} AS INT))",
    "list_sort": "array_sort({0})",
    "list_distinct": "array_distinct({0})",
    "list_contains": "array_contains({0}, {1})",
    "list_position": "nullif(CAST(array_position({0}, {1}) AS INT), 0)",
    "flatten": "flatten({0})",
    "range": "filter(sequence({0}, greatest({0}, {1} - 1)), n -> n < {1})",  # sequence(1, 0) goes down
    "range/3": "filter(sequence({0}, greatest({0}, {1} - 1), {2}), n -> n < {1})",
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


def _grouping(generator: Any, expression: exp.Grouping) -> str:
    """Spark's takes one column: a bit each, the last column the lowest."""
    bits = [f"CAST(grouping({generator.sql(column)}) AS BIGINT)" for column in reversed(expression.expressions)]
    return " + ".join(f"{bit} * {1 << n}" for n, bit in enumerate(bits))


def _list(generator: Any, expression: exp.ArrayAgg, condition: str = "") -> str:
    """Spark's lists have no order of their own: the keys are kept beside the values until it is sorted."""
    values = expression.this
    if isinstance(values, exp.Distinct):
        return f"collect_set({generator.sql(values.expressions[0])}){condition}"
    if not isinstance(values, exp.Order):
        return f"collect_list({generator.sql(values)}){condition}"
    fields = ", ".join(f"'k{n}', {key}" for n, key in enumerate(sort_keys(generator, values)))
    rows = f"array_sort(collect_list(named_struct({fields}, 'v', {generator.sql(values.this)})){condition})"
    return f"transform({f'reverse({rows})' if goes_down(values) else rows}, r -> r.v)"


def sort_keys(generator: Any, order: exp.Order) -> list[str]:
    """What to sort by, ascending, or reversed where all goes down: what goes down beside others is a number."""
    down = not goes_down(order)
    return [
        f"-({generator.sql(k.this)})" if down and k.args.get("desc") else generator.sql(k.this)
        for k in order.expressions
    ]


def goes_down(order: exp.Order) -> bool:
    """Whether every key is descending."""
    return all(k.args.get("desc") for k in order.expressions)


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
            exp.Grouping: _grouping,
            exp.Mode: lambda self, e: f"mode({self.sql(e.this.this)}, true)",  # of several, the smallest
            exp.PercentileCont: lambda self, e: f"percentile({self.sql(e.this)}, {self.sql(e.expression)})",
        }

        def cast_sql(self, expression: exp.Cast, safe_prefix: str | None = None) -> str:
            return to_integer(self, expression, "rint({0})") or super().cast_sql(expression, safe_prefix)

        def anonymous_sql(self, expression: exp.Anonymous) -> str:
            if expression.name.lower() == "list_aggregate":
                of, what = expression.expressions
                return _ON_LISTS[what.name].format(self.sql(of))
            return call(self, expression, _CALLS, "Spark")

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
