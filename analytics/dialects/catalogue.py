"""The lake as tables and views of a session of Spark, or of a database of ClickHouse: statements, in order.

Both get what DuckDB's connections have: every table of `engine.tables` with the columns that views compute and
`sensor`, `date` and `hour` from the path, `geo` from a file that `geo_file` writes, each question as a view, and as
`<name>_between(since, until)`. Columns are named with their types, so no segment is opened to find them out and one of
an older version shows NULL; a condition on sensor, date or hour leaves the other segments unopened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from analytics.dialects import clickhouse, lake_sql, spark
from analytics.dialects.lake_sql import RANGE, write
from analytics.question_columns import COLUMNS, QUESTIONS
from engine.schema import SQL_TYPES
from engine.ship_config import is_remote
from engine.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlglot.dialects.dialect import Dialect

    from engine.schema import Column

_SEGMENTS: Final = "*/*/*/*.parquet"
# A virtual column of ClickHouse's. A condition on these three alone is decided before a file is opened.
_FROM_PATH: Final = (
    "extract(_path, '/sensor=([^/]*)/') AS sensor, toDate32OrNull(extract(_path, '/date=([^/]*)/')) AS date, "
    "toInt32OrNull(extract(_path, '/hour=([^/]*)/')) AS hour"
)

_NO_PATH: Final = "'' AS sensor, toDate32OrNull('') AS date, toInt32OrNull('') AS hour"


def of_spark(lake: str, geo: str, present: Collection[str] = TABLES) -> list[str]:
    """Temporary views and functions of a session. `lake` is a path or s3:// URL, `geo` a Parquet file."""
    found = [*spark_tables(lake, present), _spark_files("geo", _declared(lake_sql.schema()["geo"], spark.TYPES), geo)]
    parameters = ", ".join(f"{name} TIMESTAMP_NTZ DEFAULT NULL" for name in RANGE)
    for name in QUESTIONS:
        columns_of = _declared({c.name: c.type for c in COLUMNS[name]}, spark.TYPES)
        body = write(lake_sql.question(name), spark.SparkSql, {p: f"{name}_between.{p}" for p in RANGE})
        found.append(
            f"CREATE OR REPLACE TEMPORARY FUNCTION {name}_between({parameters})\n"
            f"RETURNS TABLE ({columns_of}) RETURN\n{body}"
        )
        found.append(f"CREATE OR REPLACE TEMPORARY VIEW {name} AS SELECT * FROM {name}_between()")
    return found


def spark_tables(lake: str, present: Collection[str] = TABLES) -> list[str]:
    """The tables alone. Those that are not `present`, because nothing of them was shipped yet, have no rows."""
    found = ["SET spark.sql.session.timeZone = UTC"]
    for table, columns in TABLES.items():
        stored = {c.name: SQL_TYPES[c.type] for c in columns if c.stored} | lake_sql.PARTITIONS
        if table in present:
            found.append(_spark_files(f"_{table}", _declared(stored, spark.TYPES), f"{lake}/{table}"))
        else:
            nothing = ", ".join(f"CAST(NULL AS {spark.TYPES[kind]}) AS `{name}`" for name, kind in stored.items())
            found.append(f"CREATE OR REPLACE TEMPORARY VIEW _{table} AS SELECT {nothing} WHERE false")
        shown = ", ".join([*(_shown(c, spark.SparkSql) for c in columns), *lake_sql.PARTITIONS])
        found.append(f"CREATE OR REPLACE TEMPORARY VIEW {table} AS SELECT {shown} FROM _{table}")
    return found


def _spark_files(name: str, columns: str, path: str) -> str:
    path = path.replace("s3://", "s3a://", 1)  # Hadoop's name of it
    return (
        f"CREATE OR REPLACE TEMPORARY VIEW {name} ({columns})\n"
        f"USING parquet OPTIONS (path '{_quoted(path)}', pathGlobFilter '*.parquet')"
    )


def of_clickhouse(lake: str, geo: str, present: Collection[str] = TABLES, endpoint: str = "") -> list[str]:
    """Views of the current database. `endpoint` is the URL of the store of an s3:// lake."""
    found = []
    for table, columns in TABLES.items():
        stored = _declared({c.name: SQL_TYPES[c.type] for c in columns if c.stored}, clickhouse.TYPES)
        shown = ", ".join(_shown(c, clickhouse.ClickHouseSql) for c in columns)
        if table not in present:
            found.append(f"CREATE OR REPLACE VIEW {table} AS SELECT {shown}, {_NO_PATH} FROM null('{_quoted(stored)}')")
            continue
        source = _clickhouse_files(f"{lake}/{table}/{_SEGMENTS}", stored, endpoint)
        found.append(f"CREATE OR REPLACE VIEW {table} AS SELECT {shown}, {_FROM_PATH} FROM {source}")
    of_geo = _declared(lake_sql.schema()["geo"], clickhouse.TYPES)
    found.append(f"CREATE OR REPLACE VIEW geo AS SELECT * FROM {_clickhouse_files(geo, of_geo, endpoint)}")
    kind = clickhouse.TYPES["TIMESTAMP"]
    for name in QUESTIONS:
        tree = lake_sql.question(name)
        for view, value in ((name, "CAST(NULL AS {})"), (f"{name}_between", "{{{name}:{}}}")):
            body = write(tree, clickhouse.ClickHouseSql, {p: value.format(kind, name=p) for p in RANGE})
            found.append(f"CREATE OR REPLACE VIEW {view} AS\n{body}\nSETTINGS {clickhouse.SETTINGS}")
    return found


def _clickhouse_files(place: str, columns: str, endpoint: str) -> str:
    if is_remote(place):
        return f"s3('{_quoted(place.replace('s3:/', endpoint, 1))}', 'Parquet', '{_quoted(columns)}')"
    return f"file('{_quoted(place)}', 'Parquet', '{_quoted(columns)}')"


def _declared(columns: dict[str, str], types: dict[str, str]) -> str:
    return ", ".join(f"`{name}` {types[kind]}" for name, kind in columns.items())


def _shown(column: Column, dialect: type[Dialect]) -> str:
    """A column of a table's view, as it is selected."""
    if not column.sql:
        return f"`{column.name}`"
    return f"{write(lake_sql.table_expression(column.sql), dialect)} AS `{column.name}`"


def _quoted(text: str) -> str:
    """Inside '...': both engines take a backslash for the beginning of an escape."""
    return text.replace("\\", "\\\\").replace("'", "\\'")
