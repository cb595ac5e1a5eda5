"""Many segments into one: the rows of all, by time, in large row groups. Memory holds a few row groups.

Segments of a table come in the order of their names, that is of their first rows. Rows are held back until the next
segment begins later than they are, so the result is sorted as far as segments overlap by less than HELD_ROWS.

Rollups are additions (`engine.rollups`): their rows of the same second, or minute and key, become one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.schema import parquet_options
from engine.tables import TABLES, arrow_schema

GROUP_ROWS: Final = 122_880  # of a row group: DuckDB's own size
HELD_ROWS: Final = 2 * GROUP_ROWS
TOP: Final = 100  # keys of a minute and dimension that keep their own row, as in `engine.rollups`
FOLDS: Final = {
    "rollup_1s": """
        SELECT ts, source, ip_version, proto, ethertype, app, sum(packets)::BIGINT AS packets,
               sum(bytes)::BIGINT AS bytes, sum(payload)::BIGINT AS payload, sum(fragments)::BIGINT AS fragments,
               sum(undecodable)::BIGINT AS undecodable, sum(syns)::BIGINT AS syns
        FROM parts GROUP BY ALL ORDER BY ALL
    """,
    # A row without a key is of the rest, or, with 0 keys, of packets that have none; these two stay apart.
    "rollup_1m": f"""
        WITH sums AS (
            SELECT ts, source, dimension, key, keys = 0 AS none, max(keys) AS keys, sum(packets) AS packets,
                   sum(bytes) AS bytes
            FROM parts GROUP BY ts, source, dimension, key, none
        ), ranked AS (
            SELECT *, row_number() OVER (PARTITION BY ts, source, dimension ORDER BY key IS NULL, bytes DESC, key) AS n
            FROM sums
        )
        SELECT ts, source, dimension, CASE WHEN n <= {TOP} THEN key END AS key, sum(keys)::BIGINT AS keys,
               sum(packets)::BIGINT AS packets, sum(bytes)::BIGINT AS bytes
        FROM ranked GROUP BY ts, source, dimension, CASE WHEN n <= {TOP} THEN key END, none
        ORDER BY ts, source, dimension, bytes DESC, key
    """,  # noqa: S608 — a number of ours
}
_BROKEN: Final = (pa.ArrowException, OSError, ValueError)


def plain_schema(table: str) -> pa.Schema:
    """The table's schema for merging: every text a dictionary of 32-bit indexes."""
    text = pa.dictionary(pa.int32(), pa.string())

    def kind(field: pa.Field) -> pa.DataType:
        return text if pa.types.is_dictionary(field.type) or pa.types.is_string(field.type) else field.type

    return pa.schema(pa.field(f.name, kind(f), f.nullable) for f in arrow_schema(table))


def time_column(table: str) -> str:
    """The column by which segments are filed and sorted."""
    return next(c.name for c in TABLES[table] if c.type == "timestamp")


def rows_of(path: str, table: str) -> int | None:
    """Rows of a segment that can be merged without loss; None for a damaged one, or one of another version.

    A segment may lack columns that can be NULL. One that has columns we do not know is left to who knows them.
    """
    schema = arrow_schema(table)
    try:
        found = pq.ParquetFile(path)
        names = set(found.schema_arrow.names)
        rows = int(found.metadata.num_rows)
    except _BROKEN:
        return None
    missing = [f for f in schema if f.name not in names]
    return rows if names <= set(schema.names) and all(f.nullable for f in missing) else None


def merge(paths: Sequence[str], target: Path, table: str) -> int:
    """Write the rows of the segments to `target`. Returns how many were read. Raises OSError, ValueError."""
    if table in FOLDS:
        return fold(paths, target, table)
    schema, time = plain_schema(table), time_column(table)
    starts = [int(Path(path).name.partition("-")[0]) for path in paths]
    rows = 0
    try:
        with pq.ParquetWriter(target, schema, **parquet_options(TABLES[table])) as writer:
            for part in _sorted_parts(paths, starts, schema, time):
                writer.write_table(part, row_group_size=GROUP_ROWS)
                rows += part.num_rows
    except (NotImplementedError, LookupError, TypeError) as error:  # of pyarrow: types that it cannot convert
        raise ValueError(str(error)) from None
    return rows


def fold(paths: Sequence[str], target: Path, table: str) -> int:
    """As `merge`, for rollups."""
    import duckdb

    schema = plain_schema(table)
    rows = pa.concat_tables(_read(path, schema) for path in paths)
    with duckdb.connect(config={"threads": 1, "memory_limit": "1GB", "temp_directory": ""}) as con:
        con.register("parts", rows)
        folded: Any = con.sql(FOLDS[table]).to_arrow_table()
    folded = pa.table([folded[f.name].cast(f.type) for f in schema], schema=schema)
    for column in ("packets", "bytes"):
        if pc.sum(rows[column]) != pc.sum(folded[column]):
            raise ValueError(f"the sum of {column} changed")
    pq.write_table(folded, target, row_group_size=GROUP_ROWS, **parquet_options(TABLES[table]))
    return int(rows.num_rows)


def _sorted_parts(paths: Sequence[str], starts: Sequence[int], schema: pa.Schema, time: str) -> Iterator[pa.Table]:
    """The rows as tables of whole row groups, the last of what is left."""
    held: list[pa.Table] = []
    for path, following in zip(paths, [*starts[1:], None], strict=True):
        held.append(_read(path, schema))
        count = sum(t.num_rows for t in held)
        if following is None or count < GROUP_ROWS:
            continue
        table = _by_time(held, time)
        settled = int(np.searchsorted(_microseconds(table, time), following))
        ready = (settled if count < HELD_ROWS else count) // GROUP_ROWS * GROUP_ROWS
        if ready:
            yield table.slice(0, ready)
        held = [table.slice(ready)]
    table = _by_time(held, time)
    if table.num_rows:
        yield table


def _read(path: str, schema: pa.Schema) -> pa.Table:
    texts = [f.name for f in schema if pa.types.is_dictionary(f.type)]
    table = pq.read_table(path, partitioning=None, read_dictionary=texts, use_threads=False)
    columns: list[Any] = [
        table[f.name].cast(f.type) if f.name in table.column_names else pa.nulls(table.num_rows, f.type) for f in schema
    ]
    return pa.table(columns, schema=schema)


def _by_time(tables: list[pa.Table], time: str) -> pa.Table:
    """The tables as one, in contiguous memory with one dictionary per column, sorted by time; equal times stay put."""
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    times = _microseconds(table, time)
    if (times[1:] < times[:-1]).any():
        table = table.take(pa.array(np.argsort(times, kind="stable")))
    return table


def _microseconds(table: pa.Table, time: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    return table[time].combine_chunks().view(pa.int64()).to_numpy()  # type: ignore[no-any-return]
