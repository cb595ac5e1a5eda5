"""Results as files, a batch at a time: nothing is held whole, however long a result is."""

from __future__ import annotations

import contextlib
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from analytics.formats import _csv_rows, _writable

MEDIA: Final = {
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.stream",
}
STALL_S: Final = 300.0  # nobody took a part for so long: what is read for it is not kept waiting
# Spreadsheets take such a cell for a formula, also when it is quoted.
_FORMULA: Final = re.compile(r"^[=+\-@\t\r\n]")


class _Sink:
    """A file that keeps what was written since it was last emptied."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._at = 0
        self.closed = False

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._at += len(part)
        return len(part)

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        """Everything is here already."""

    def close(self) -> None:
        self.closed = True

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


def stream(reader: pa.RecordBatchReader, form: str) -> Iterator[bytes]:
    """The result in one of MEDIA's formats."""
    yield from _FORMS[form](reader, _Sink())


def _csv(reader: pa.RecordBatchReader, sink: _Sink) -> Iterator[bytes]:
    _csv_rows([guarded(pa.array([name], pa.string())) for name in reader.schema.names], sink)  # type: ignore[arg-type]
    for batch in reader:
        _csv_rows([guarded(_writable(column)) for column in batch.columns], sink)  # type: ignore[arg-type]
        yield sink.take()
    yield sink.take()


def guarded(column: pa.Array) -> pa.Array:
    """Texts that a spreadsheet would calculate get a quote in front."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column
    risky = pc.match_substring_regex(column, _FORMULA.pattern)
    return pc.if_else(pc.fill_null(risky, False), pc.binary_join_element_wise("'", column, ""), column)


def _parquet(reader: pa.RecordBatchReader, sink: _Sink) -> Iterator[bytes]:
    with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)
            yield sink.take()
    yield sink.take()


def _arrow(reader: pa.RecordBatchReader, sink: _Sink) -> Iterator[bytes]:
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
            yield sink.take()
    yield sink.take()


_FORMS: Final[dict[str, Callable[[pa.RecordBatchReader, _Sink], Iterator[bytes]]]] = {
    "csv": _csv, "parquet": _parquet, "arrow": _arrow,
}  # fmt: skip


class Stream:
    """Parts of a file that a thread makes while another sends them; at most a few wait."""

    def __init__(self, run: Callable[[Callable[[pa.RecordBatchReader], Any]], Any], form: str) -> None:
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(4)
        self._gone = threading.Event()
        self._form = form
        threading.Thread(target=self._work, args=(run,), name="export", daemon=True).start()
        first = self._queue.get()
        if isinstance(first, BaseException):  # nothing was sent yet: this can still be said properly
            raise first
        self._first = first

    def _work(self, run: Callable[[Callable[[pa.RecordBatchReader], Any]], Any]) -> None:
        try:
            run(self._send)
            self._put(None)
        except BaseException as error:  # noqa: BLE001 — it is raised in the thread that sends
            self._put(error)

    def _send(self, reader: pa.RecordBatchReader) -> None:
        for part in stream(reader, self._form):
            if self._gone.is_set():
                return
            if part:
                self._put(part)

    def _put(self, part: bytes | BaseException | None) -> None:
        began = time.monotonic()
        while not self._gone.is_set():
            try:
                self._queue.put(part, timeout=min(0.5, STALL_S))
            except queue.Full:
                if time.monotonic() - began < STALL_S:
                    continue
                self._gone.set()
                with contextlib.suppress(queue.Empty):
                    self._queue.get_nowait()  # room for the end; nobody else puts
                self._queue.put(TimeoutError("the file was not taken"))
            return

    def parts(self) -> Iterator[bytes]:
        part: bytes | BaseException | None = self._first
        try:
            while isinstance(part, bytes):
                yield part
                part = self._queue.get()
            if isinstance(part, BaseException):
                raise part  # the connection breaks: half a file must not look like a whole one
        finally:
            self.close()

    def close(self) -> None:
        """Nobody takes more: the thread ends. For an answer whose parts were not even begun, as that to HEAD."""
        self._gone.set()
