"""The texts of analytics/sql/ as trees that need no DuckDB any more: what other engines' SQL is written from.

DuckDB reads analytics/sql/*.sql as they are. For the others sqlglot parses the same files; here macros are put in where
they are called, every column is named with its table and every `*` is spelled out (by the schema of `engine.tables`),
which takes out what engines disagree on: whether an alias hides a column, what `USING` returns, where a lateral alias
may stand. What is left are names of functions, in `spark` and `clickhouse` beside this.

sqlglot by itself says nothing about a function that it does not know, it passes it on, and lists of Spark lose their
order. So here a call that is not in a dialect's table is an error.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlglot import exp, parse_one
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.pushdown_projections import pushdown_projections
from sqlglot.optimizer.qualify import qualify

from analytics.geo import FIELDS
from analytics.question_columns import COLUMNS
from analytics.questions import FILES
from engine.errors import StoreError
from engine.schema import SQL_TYPES
from engine.tables import TABLES

if TYPE_CHECKING:
    from sqlglot.dialects.dialect import Dialect

PARTITIONS: Final = {"sensor": "VARCHAR", "date": "DATE", "hour": "INTEGER"}
RANGE: Final = ("since", "until")
_MACRO: Final = re.compile(r"^CREATE OR REPLACE MACRO (\w+)\(([^)]*)\) AS( TABLE)?\s(.*?);$", re.M | re.S)
# Functions on lists that sqlglot would take for those on text, or rewrite.
_AS_WRITTEN: Final = (
    "LEN",
    "RANGE",
    "EPOCH",
    "LIST_SORT",
    "LIST_DISTINCT",
    "LIST_CONTAINS",
    "FLATTEN",
    "MAD",
    "MEDIAN",
    "LIST_EXTRACT",
    "APPROX_COUNT_DISTINCT",
)


class LakeSql(DuckDB):
    """DuckDB's SQL as the questions are written in it; lists count from 1, and calls in _AS_WRITTEN stay calls."""

    INDEX_OFFSET = 0  # sqlglot would shift literal indexes only

    class Parser(DuckDB.Parser):
        FUNCTIONS = {k: v for k, v in DuckDB.Parser.FUNCTIONS.items() if k not in _AS_WRITTEN}  # noqa: RUF012


class Macro(NamedTuple):
    """A macro of analytics/sql/: its parameters, whether it is a table, and its body."""

    parameters: tuple[str, ...]
    is_table: bool
    body: exp.Expression


def question(name: str) -> exp.Expression:
    """The tree of `<name>_between(since, until)`. Its parameters are placeholders of these names."""
    call = parse_one(f"FROM {name}_between(since := :since, until := :until)", read=LakeSql)
    return _resolved(call)


def statement(sql: str) -> exp.Expression:
    """The tree of a query of the operator's over the lake. Raises StoreError when it cannot be parsed."""
    try:
        return _resolved(parse_one(sql, read=LakeSql))
    except SqlglotError as error:
        raise StoreError(f"this SQL cannot be rewritten for another engine: {str(error).splitlines()[0]}") from None


def table_expression(sql: str) -> exp.Expression:
    """The tree of an expression over the stored columns of a table."""
    return parse_one(sql, read=LakeSql)


@cache
def schema() -> dict[str, dict[str, str]]:
    """Columns and types of everything that SQL may name: tables, `geo`, and the questions."""
    tables = {name: {c.name: SQL_TYPES[c.type] for c in columns} | PARTITIONS for name, columns in TABLES.items()}
    geo = {"ip": "VARCHAR", **{f.name: _ARROW[str(f.type)] for f in FIELDS}}
    questions = {name: {c.name: c.type for c in columns} for name, columns in COLUMNS.items()}
    return {**tables, "geo": geo, **questions}


_ARROW: Final = {"string": "VARCHAR", "double": "DOUBLE", "int64": "BIGINT"}


@cache
def _macros() -> dict[str, Macro]:
    found: dict[str, Macro] = {}
    for file in (*FILES, "jobs"):
        for name, parameters, is_table, body in _MACRO.findall(
            (files("analytics") / "sql" / f"{file}.sql").read_text()
        ):
            names = tuple(p.split(":=")[0].strip() for p in parameters.split(",") if p.strip())
            tree = parse_one(body if is_table else f"SELECT {body}", read=LakeSql)
            found[name] = Macro(names, bool(is_table), tree if is_table else tree.expressions[0])
    return found


def _resolved(tree: exp.Expression) -> exp.Expression:
    """Macros put in, columns and stars spelled out, types noted."""
    tree = _expand(tree, {})
    for select in list(tree.find_all(exp.Select)):
        _join_geo(select)
    tree = qualify(
        tree, schema=schema(), dialect=LakeSql, quote_identifiers=False, validate_qualify_columns=True, identify=False
    )
    tree = pushdown_projections(tree)
    return annotate_types(tree, schema=schema(), dialect=LakeSql)


def _expand(tree: exp.Expression, values: dict[str, exp.Expression]) -> exp.Expression:
    """Parameters by their values and calls of macros by their bodies, inside out."""
    root = exp.Tuple(expressions=[tree])  # so that the tree itself may be replaced
    for column in list(root.find_all(exp.Column)):
        if not column.table and column.name in values:
            column.replace(values[column.name].copy())
    for call in list(root.find_all(exp.Anonymous)):
        if call.name == "lake_fleet":
            _empty_fleet(call)
        macro = _macros().get(call.name)
        if macro is None:
            continue
        given = _arguments(macro, call)
        if not macro.is_table:
            call.replace(exp.Paren(this=_expand(macro.body.copy(), given)))
            continue
        table = call.find_ancestor(exp.Table)
        assert table is not None
        if call.name == "table_between":
            name = given["name"].name
            if name not in TABLES:
                raise StoreError(f"table_between({name!r}, ...): the lake has no such table")
            body = _expand(_named(macro.body.copy(), name), given)
        else:
            name = call.name.removesuffix("_between")
            body = _expand(_prefixed(macro.body.copy(), name), given)
        table.replace(
            exp.Subquery(this=body, alias=table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(name)))
        )
    return root.expressions[0]


def _arguments(macro: Macro, call: exp.Anonymous) -> dict[str, exp.Expression]:
    given: dict[str, exp.Expression] = {p: exp.null() for p in macro.parameters}
    for position, argument in enumerate(call.expressions):
        if isinstance(argument, exp.PropertyEQ):
            given[argument.name] = argument.expression
        else:
            given[macro.parameters[position]] = argument
    return given


def _named(body: exp.Expression, table: str) -> exp.Expression:
    """`FROM query_table(name)` is how a DuckDB macro reads a table that it is told."""
    for call in list(body.find_all(exp.Anonymous)):
        if call.name == "query_table":
            call.find_ancestor(exp.Table).replace(exp.to_table(table))
    return body


def _prefixed(body: exp.Expression, question: str) -> exp.Expression:
    """The names of the question's CTEs with its own before them: Spark's are all written at the top of the query."""
    ctes = {cte.alias: f"{question}_{cte.alias}" for cte in body.find_all(exp.CTE)}
    for cte in list(body.find_all(exp.CTE)):
        cte.set("alias", exp.TableAlias(this=exp.to_identifier(ctes[cte.alias])))
    for table in list(body.find_all(exp.Table)):
        if table.name in ctes:
            table.replace(exp.alias_(exp.to_table(ctes[table.name]), table.alias_or_name, table=True))
    return body


def _empty_fleet(call: exp.Anonymous) -> None:
    """What sensors say of their shipping is asked of the store by a function of ours; other engines have none of it."""
    select = call.find_ancestor(exp.Select)
    assert select is not None
    (types,) = (json.loads(text.name)[0] for text in select.find_all(exp.Literal) if text.name.startswith("[{"))
    columns = ", ".join(f"NULL::{kind} AS {name}" for name, kind in types.items())
    select.replace(parse_one(f"SELECT {columns} WHERE false", read=LakeSql))


def _join_geo(select: exp.Select) -> None:
    """`SELECT ..., unnest(_geo(ip))` becomes a join with the table `geo`: other engines cannot ask our GeoIP reader."""
    for projection in select.expressions:
        if isinstance(projection, exp.Explode) and projection.this.name == "_geo":
            inner = select.copy()
            inner.set("with_", None)
            ctes = select.args.get("with_")
            inner.set("expressions", [e.copy() for e in select.expressions if e is not projection])
            column = projection.this.expressions[0].name
            outer = exp.select("placed.*", *(f"geo.{f.name}" for f in FIELDS)).from_(inner.subquery("placed"))
            outer = outer.join("geo", on=f"geo.ip = placed.{column}", join_type="left")
            select.args.clear()
            select.set("with_", ctes)
            for key, value in outer.args.items():
                select.set(key, value)
            return


def write(tree: exp.Expression, dialect: type[Dialect], values: dict[str, str] | None = None) -> str:
    """The tree in the SQL of an engine; `values` are the SQL of since and until there."""
    values = values or {}
    tree = tree.copy()
    for table in tree.find_all(exp.CTE):
        table.set("materialized", None)  # a hint for DuckDB
    for hole in list(tree.find_all(exp.Placeholder)):
        hole.replace(exp.Var(this=values[hole.name]))
    try:
        return tree.sql(dialect=dialect, pretty=True)
    except SqlglotError as error:
        raise StoreError(f"this SQL cannot be written for another engine: {str(error).splitlines()[0]}") from None


def is_fraction(node: exp.Expression) -> bool:
    """Whether a value may have digits behind the point, as far as types are known."""
    node = node.unnest()
    if isinstance(node, exp.Filter | exp.Sum | exp.Window):
        return is_fraction(node.this)
    return isinstance(node, exp.Div | exp.PercentileCont | exp.Avg) or node.is_type(*exp.DataType.REAL_TYPES)


def to_integer(generator: Any, cast: exp.Cast, rounded: str) -> str | None:
    """The SQL of a fraction as an integer, None for every other cast. DuckDB rounds to the nearest, to even; the other
    engines cut off. `rounded` is how they round so."""
    if not cast.to.is_type(*exp.DataType.INTEGER_TYPES) or not is_fraction(cast.this):
        return None
    return f"CAST({rounded.format(generator.sql(cast.this))} AS {generator.sql(cast.to)})"


def call(generator: Any, node: exp.Anonymous, words: dict[str, str], engine: str) -> str:
    """A call as `words` have it: of as many arguments, given as name/3, or of the arguments that stand in the text.

    Raises StoreError when there is no word for it.
    """
    name, given = node.name.lower(), [generator.sql(e) for e in node.expressions]
    text = words.get(f"{name}/{len(given)}", words.get(name))
    if text is None or any(f"{{{n}}}" not in text for n in range(len(given))):
        raise StoreError(f"{name}() of {len(given)} is DuckDB's; {engine} has no word for it here")
    return text.format(*given)
