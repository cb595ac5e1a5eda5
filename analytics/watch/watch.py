"""`Watch`: questions to a lake by name, answered once for everybody who asks the same."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import duckdb

from analytics.readonly import one_line
from analytics.watch import filters, registry, timerange
from analytics.watch.context import Context, Stopped, to_json
from analytics.watch.lake import WatchLake
from analytics.watch.registry import NotAllowed, NotFound, Question, may
from analytics.watch.snapshots import Encoded, Flight, Snapshots
from engine.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

PAST_S = 60.0  # how long an answer about a range in the past holds: merging changes files, not rows
EXPORT_ROWS = 1_000_000


class Watch:
    """Opens the lake once; thread-safe. `clock` is in seconds since the epoch."""

    def __init__(self, lake: Path | str, clock: Callable[[], float] = time.time) -> None:
        self.lake = WatchLake(lake, clock)
        self.snapshots = Snapshots()

    def close(self) -> None:
        self.snapshots.close()
        self.lake.close()

    def ask(
        self, name: str, *, range_text: str | None = None, filter_text: str | None = None, role: str = "viewer",
        params: dict[str, Any] | None = None, alive: Callable[[], bool] = lambda: True,
    ) -> Encoded:  # fmt: skip
        """The answer as compressed JSON.

        Raises ConfigError (what was asked is wrong), NotAllowed, NotFound, Stopped (time limit), StoreError.
        """
        question, asked, given = self._understood(name, range_text, filter_text, role, params)
        span = self.lake.span(asked)
        loaded = [1.0]

        def make(flight: Flight) -> bytes:
            ctx = self._context(question, span, given, role, flight)
            flight.con = ctx.con
            try:
                with _translated():
                    answer = question.answer(ctx)
            finally:
                ctx.con.close()
            loaded[0] = answer.get("loaded", 1.0)
            return to_json({**_about(question, ctx), **answer})

        pace = question.refresh_s or (timerange.refresh_s(span.seconds) if span.live else PAST_S)
        if not span.live and span.end_us / timerange.US > self.lake.clock() - 10:
            pace = 1
        key = (
            name, span.start_us, span.end_us, given[0].text, tuple(sorted(given[1].items(), key=str)),
            role if question.by_role else "", int(self.lake.clock() / pace),
        )  # fmt: skip
        return self.snapshots.get(key, make, alive, keep=lambda: loaded[0] >= 1)

    def answer(self, name: str, **how: Any) -> dict[str, Any]:
        """The answer as a dictionary."""
        found: dict[str, Any] = json.loads(gzip.decompress(self.ask(name, **how).body))
        return found

    def explain(self, name: str, *, role: str = "viewer", **how: Any) -> dict[str, str]:
        """The question's SQL by part, with its values put in: each runs in `engine sql`."""
        question, ctx = self._open(name, role=role, **how)
        try:
            return {part: ctx.shown(s) for part, s in _statements(question, ctx).items()}
        finally:
            ctx.con.close()

    def table(
        self, name: str, part: str | None, use: Callable[[pa.RecordBatchReader], Any], *, role: str = "viewer",
        rows: int = EXPORT_ROWS, **how: Any,
    ) -> Any:  # fmt: skip
        """One part of the answer as Arrow record batches, given to `use`."""
        question, ctx = self._open(name, role=role, **how)
        try:
            parts = _statements(question, ctx)
            if part is not None and part not in parts:
                raise ConfigError(f"{name} has no part {part[:40]!r}; it has {', '.join(parts)}")
            with _translated(), self.lake.listing(ctx.span):
                return use(ctx.reader(parts[part or next(iter(parts))], rows))
        finally:
            ctx.con.close()

    def _open(
        self, name: str, *, range_text: str | None = None, filter_text: str | None = None, role: str,
        params: dict[str, Any] | None = None,
    ) -> tuple[Question, Context]:  # fmt: skip
        question, asked, given = self._understood(name, range_text, filter_text, role, params)
        return question, self._context(question, self.lake.span(asked), given, role, None)

    def _understood(
        self, name: str, range_text: str | None, filter_text: str | None, role: str, params: dict[str, Any] | None
    ) -> tuple[Question, timerange.TimeRange, tuple[filters.Filter, dict[str, Any]]]:
        question = registry.find(name)
        if not may(role, question.role):
            raise NotAllowed(f"{name} needs the role {question.role}")
        filtered = filters.parse(filter_text) if question.filtered else filters.Filter()
        return question, timerange.parse(range_text), (filtered, question.values(params or {}))

    def _context(
        self, question: Question, span: timerange.Span, given: tuple[filters.Filter, dict[str, Any]], role: str,
        flight: Flight | None,
    ) -> Context:  # fmt: skip
        return Context(
            self.lake, self.lake.cursor(), span, given[0], role, SimpleNamespace(**given[1]), self.lake.clock(),
            (lambda: flight.reason) if flight is not None else lambda: None,
        )  # fmt: skip


def _statements(question: Question, ctx: Context) -> dict[str, Any]:
    if question.statements is None:
        raise ConfigError(f"{question.name} has no form as a table; ask for json")
    return question.statements(ctx)


def _about(question: Question, ctx: Context) -> dict[str, Any]:
    """What every answer says of itself."""
    span = ctx.span
    about: dict[str, Any] = {"question": question.name}
    if question.ranged:
        about["range"] = {
            "start": span.start_us, "end": span.end_us, "live": span.live, "step_s": span.step_s,
        }  # fmt: skip
    if question.filtered and ctx.filter:
        about["filter"] = {"text": ctx.filter.text, "chips": ctx.filter.chips(), "ignored": ctx.ignored}
    return about


@contextmanager
def _translated() -> Iterator[None]:
    """DuckDB's errors as ours, in one line."""
    try:
        yield
    except duckdb.InterruptException:
        raise Stopped("the query was interrupted") from None
    except duckdb.OutOfMemoryException:
        raise StoreError("the question needs more memory than the dashboard may use; choose a shorter range") from None
    except duckdb.IOException as error:
        raise StoreError(f"the lake cannot be read: {one_line(error)}") from None
    except duckdb.Error as error:
        raise StoreError(one_line(error)) from None


__all__ = ["NotAllowed", "NotFound", "Watch"]
