"""Columns: what a table's definition is made of, and how each type is called in Arrow and in SQL."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pyarrow as pa

SQL_TYPES: Final = {
    "timestamp": "TIMESTAMP", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT",
    "float32": "FLOAT", "bool": "BOOLEAN", "text": "VARCHAR", "texts": "VARCHAR[]", "int64s": "BIGINT[]",
    "bytes": "BLOB",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table of the lake.

    `storage` and `index` say where the stage that makes the table keeps it; a table whose rows are made one by one
    needs neither. `group` is a validity group of the packet row; `nullable` says the same for other tables. `labels`
    turns small integers into text, or names the dictionary that an index column points into. A
    column with `sql` is computed by the view from the others and stored nowhere.

    `encoding` is how Parquet segments hold the column: "plain", "dict" (dictionary) or "delta" (DELTA_BINARY_PACKED),
    then "snappy" or "zstd" (level 1) if it is compressed, then "stats" if row groups say its smallest and largest
    value, by which readers pass them over. Empty: what suits the type of a small table.
    """

    name: str
    type: str
    unit: str
    meaning: str
    source: str
    storage: str = ""
    index: int = 0
    group: int = 0
    labels: tuple[str, ...] | str = ()
    nullable: bool = False
    sql: str = ""
    encoding: str = ""

    @property
    def stored(self) -> bool:
        """True when segments have it."""
        return not self.sql

    @property
    def may_be_null(self) -> bool:
        return bool(self.group) or self.nullable


def arrow_type(column: Column) -> Any:
    """The Arrow type of a column's values."""
    import pyarrow as pa

    types: dict[str, Any] = {
        "timestamp": pa.timestamp("us"), "int16": pa.int16(), "int32": pa.int32(), "int64": pa.int64(),
        "float32": pa.float32(), "bool": pa.bool_(), "text": pa.string(), "texts": pa.list_(pa.string()),
        "int64s": pa.list_(pa.int64()), "bytes": pa.binary(),
    }  # fmt: skip
    return types[column.type]


def schema_of(columns: Iterable[Column], dictionaries: bool = False) -> pa.Schema:
    """The Arrow schema of segments. With `dictionaries`, text is dictionary-encoded (unless Parquet is to hold it
    plain), indexed by the column that the batch stores: int16 for "short" storage, else int32."""
    import pyarrow as pa

    def kind(column: Column) -> Any:
        if dictionaries and column.type == "text" and not column.encoding.startswith("plain"):
            return pa.dictionary(pa.int16() if column.storage == "short" else pa.int32(), pa.string())
        return arrow_type(column)

    return pa.schema(pa.field(c.name, kind(c), nullable=c.may_be_null) for c in columns if c.stored)


_DELTA: Final = ("timestamp", "int64")
_PLAIN: Final = ("float32", "bool", "bytes", "int64s")


def parquet_options(columns: Iterable[Column]) -> dict[str, Any]:
    """Options of pyarrow's ParquetWriter for segments of a table of these columns.

    Only encodings that Parquet readers have known for years: DuckDB, Spark, ClickHouse and Trino read them all.
    """
    words = {}
    for c in columns:
        if c.stored:
            kind = "delta" if c.type in _DELTA else "plain" if c.type in _PLAIN else "dict"
            path = f"{c.name}.list.element" if c.type in ("texts", "int64s") else c.name
            words[path] = (c.encoding or f"{kind} zstd stats").split()
    codecs = {name: next((w for w in given if w in ("snappy", "zstd")), "none") for name, given in words.items()}
    return {
        "compression": codecs,
        "compression_level": {name: 1 for name, codec in codecs.items() if codec == "zstd"},
        "use_dictionary": [name for name, given in words.items() if "dict" in given],
        "column_encoding": {name: "DELTA_BINARY_PACKED" for name, given in words.items() if "delta" in given},
        "write_statistics": [name for name, given in words.items() if "stats" in given],
        "write_batch_size": 1 << 16,  # values converted at once: 5 % less time than by 1024
        "store_schema": False,
    }
