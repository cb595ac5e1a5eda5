"""A query's result as text or Parquet, written batch by batch. Times are UTC.

Each writer takes the result as a reader of record batches and a binary file, and returns the number of rows.
"""

from __future__ import annotations

import contextlib
import io
import json
import unicodedata
from base64 import b64encode
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Iterator

Writer = Callable[[pa.RecordBatchReader, IO[bytes]], int]
SHOWN_ROWS: Final = 200
SHOWN_CHARS: Final = 80  # of one cell


def write_csv(reader: pa.RecordBatchReader, file: IO[bytes]) -> int:
    """RFC 4180 with a header line; NULL is an empty field, an empty text is ""."""
    rows = 0
    # Names are written as a row like any other, because Arrow refuses columns of the same name.
    _csv_rows([pa.array([name]) for name in reader.schema.names], file)
    for batch in reader:
        rows += batch.num_rows
        _csv_rows([_writable(column) for column in batch.columns], file)
    return rows


def _csv_rows(columns: list[pa.Array], file: IO[bytes]) -> None:
    table = pa.table(columns, names=[str(i) for i in range(len(columns))])
    # Plain where it can be: Arrow's "needed" quotes every text, which scripts that split at commas do not expect.
    # An empty text must be quoted, or it would read as NULL.
    empty = any(pa.types.is_string(c.type) and pc.any(pc.equal(c, "")).as_py() for c in columns)
    for quoting in ("needed",) if empty else ("none", "needed"):
        text = io.BytesIO()
        try:
            pc_csv.write_csv(table, text, pc_csv.WriteOptions(include_header=False, quoting_style=quoting))
        except pa.ArrowInvalid:  # a value holds a quote, a comma or a line break
            continue
        file.write(text.getvalue())
        return


def write_json(reader: pa.RecordBatchReader, file: IO[bytes]) -> int:
    """One array of objects, an object a line. Numbers that JSON has not (NaN, infinity) become null."""
    rows = 0
    names = _unique(reader.schema.names)
    file.write(b"[")
    for row in _rows(reader):
        file.write((",\n" if rows else "\n").encode() + _json(dict(zip(names, row, strict=True))).encode())
        rows += 1
    file.write(b"\n]\n" if rows else b"]\n")
    return rows


def write_parquet(reader: pa.RecordBatchReader, file: IO[bytes]) -> int:
    """Parquet, zstd."""
    rows = 0
    with pq.ParquetWriter(file, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def write_table(reader: pa.RecordBatchReader, file: IO[bytes]) -> int:
    """Aligned columns for people: the first SHOWN_ROWS rows, and how many there are."""
    shown: list[list[str]] = []
    rows = 0
    for batch in reader:
        if len(shown) < SHOWN_ROWS:
            head = batch.slice(0, SHOWN_ROWS - len(shown))
            shown += [[_cell(value) for value in row] for row in _batch_rows(head)]
        rows += batch.num_rows
    right = [pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t) for t in reader.schema.types]
    names = [_cell(name) for name in reader.schema.names]
    widths = [max([_width(name), *(_width(row[i]) for row in shown)]) for i, name in enumerate(names)]

    def line(cells: list[str]) -> str:
        padded = (
            " " * (w - _width(c)) + c if r else c + " " * (w - _width(c))
            for c, w, r in zip(cells, widths, right, strict=True)
        )
        return "  ".join(padded).rstrip() + "\n"

    text = line(names) + line(["-" * width for width in widths]) + "".join(line(row) for row in shown)
    more = f", the first {len(shown)} shown" if rows > len(shown) else ""
    text += f"{rows} row{'' if rows == 1 else 's'}{more}\n"
    file.write(text.encode("utf-8", "replace"))
    return rows


def write_plan(reader: pa.RecordBatchReader, file: IO[bytes]) -> int:
    """What EXPLAIN answers: a drawing in the last column."""
    rows = 0
    for row in _rows(reader):
        file.write(f"{row[-1]}\n".encode())
        rows += 1
    return rows


WRITERS: Final[dict[str, Writer]] = {
    "table": write_table, "csv": write_csv, "json": write_json, "parquet": write_parquet,
}  # fmt: skip


def _rows(reader: pa.RecordBatchReader) -> Iterator[tuple[Any, ...]]:
    for batch in reader:
        yield from _batch_rows(batch)


def _batch_rows(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    # Column by column: to_pylist() of a batch makes dictionaries, which lose columns of the same name.
    return zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _is_nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _writable(column: pa.Array) -> pa.Array:
    """A column as Arrow's CSV writer takes it: times in UTC without a zone, lists, structs and bytes as JSON."""
    if _is_nested(column.type):
        return pa.array([None if v is None else _json(v) for v in column.to_pylist()], pa.string())
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        column = column.cast(pa.timestamp(column.type.unit))
    if pa.types.is_decimal(column.type) and column.type.scale == 0:
        with contextlib.suppress(pa.ArrowInvalid):  # sums are of 128 bits, and fit 64 all but always
            return column.cast(pa.int64())
    if pa.types.is_decimal(column.type) or pa.types.is_duration(column.type) or pa.types.is_interval(column.type):
        return pa.array([None if v is None else _cell(v) for v in column.to_pylist()], pa.string())
    return column


def _unique(names: list[str]) -> list[str]:
    """Names for JSON keys: the second `a` becomes `a_1`, as DuckDB does."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        count = seen.get(name, 0)
        seen[name] = count + 1
        result.append(f"{name}_{count}" if count else name)
    return result


def _json(value: object) -> str:
    return json.dumps(_finite(value), ensure_ascii=False, default=_plain, separators=(", ", ": "))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, pa.MonthDayNano):  # a tuple, which JSON would make an array
        return _plain(value)
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return value


def _plain(value: object) -> str | float:
    if isinstance(value, pa.MonthDayNano):
        parts = (f"{n} {unit}" for n, unit in zip(value[:2], ("months", "days"), strict=True) if n)
        return " ".join((*parts, str(timedelta(microseconds=value[2] // 1000))))
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(sep=" ")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return b64encode(value).decode()
    return str(value)


def _cell(value: object) -> str:
    """One cell, on one line and without characters that move a terminal's cursor: packets decide what is in it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e15 else repr(value)
    text = one_line_text(value)
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"


def one_line_text(value: object) -> str:
    """Any value on one line and without characters that move a terminal's cursor, whole."""
    text = value if isinstance(value, str) else _json(value).strip('"') if isinstance(value, dict | list) else str(
        value if isinstance(value, Decimal | int) else _plain(value))  # fmt: skip
    return "".join(c if unicodedata.category(c)[0] != "C" else "·" for c in text)


def _width(text: str) -> int:
    """Columns of a terminal that the text takes."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
