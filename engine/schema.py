"""Columns: what a table's definition is made of, and how each type is called in Arrow and in SQL."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pyarrow as pa

SQL_TYPES: Final = {
    "timestamp": "TIMESTAMP", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT",
    "float32": "FLOAT", "bool": "BOOLEAN", "text": "VARCHAR", "texts": "VARCHAR[]", "bytes": "BLOB",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table of the lake.

    `storage` and `index` say where the stage that makes the table keeps it; a table whose rows are made one by one
    needs neither. `group` is a validity group of the packet row; `nullable` says the same for other tables. `labels`
    turns small integers into text, or names the dictionary that an index column points into. A `reserved` column has
    no storage yet: SQL shows it as NULL of its type, so that queries written today keep working when it is filled. A
    column with `sql` is computed by the view from the others and stored nowhere.
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
    reserved: bool = False
    nullable: bool = False
    sql: str = ""

    @property
    def stored(self) -> bool:
        """True when segments have it."""
        return not self.reserved and not self.sql

    @property
    def may_be_null(self) -> bool:
        return bool(self.group) or self.nullable or self.reserved


def arrow_type(column: Column) -> Any:
    """The Arrow type of a column's values."""
    import pyarrow as pa

    types: dict[str, Any] = {
        "timestamp": pa.timestamp("us"), "int16": pa.int16(), "int32": pa.int32(), "int64": pa.int64(),
        "float32": pa.float32(), "bool": pa.bool_(), "text": pa.string(), "texts": pa.list_(pa.string()),
        "bytes": pa.binary(),
    }  # fmt: skip
    return types[column.type]


def schema_of(columns: Iterable[Column], dictionaries: bool = False) -> pa.Schema:
    """The Arrow schema of segments. With `dictionaries`, text is dictionary-encoded, indexed by the column that the
    batch stores: int16 for "short" storage, else int32."""
    import pyarrow as pa

    def kind(column: Column) -> Any:
        if dictionaries and column.type == "text":
            return pa.dictionary(pa.int16() if column.storage == "short" else pa.int32(), pa.string())
        return arrow_type(column)

    return pa.schema(pa.field(c.name, kind(c), nullable=c.may_be_null) for c in columns if c.stored)
