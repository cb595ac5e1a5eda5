"""The alerts of a lake for whoever asks again and again, such as a dashboard: only segments that are new are read.

    state = AlertState(lake)
    with state.connection() as con:
        con.execute("SELECT * FROM alerts_between(?, NULL) LIMIT 100", [since]).fetchall()

Views and macros are those of `analytics.connect`, over the whole lake but for `alert_events`: of that it holds, in
memory, the newest state of each incident and what operators said. Whoever wants an incident's history asks the lake.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from analytics.listing import live_segments
from analytics.store import connect, require_lake, schema_sql
from engine.alert_row import ALERT_EVENTS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_AT_ONCE: Final = 1_000  # segments of one statement
_ANEW: Final = 10_000  # segments after which the table is copied: deleted rows keep their room until then
_COLUMNS: Final = ", ".join(f'"{c.name}"' for c in ALERT_EVENTS)
# A segment's file is at another place while it is being merged; the end of its path stays.
_READ: Final = f"""
    SELECT {_COLUMNS}, substr(parts[1], 8) AS sensor, TRY_CAST(substr(parts[2], 6) AS DATE) AS date,
           TRY_CAST(substr(parts[3], 6) AS INTEGER) AS hour, array_to_string(parts, '/') AS segment
    FROM (SELECT *, string_split(filename, '/')[-4:] AS parts
          FROM read_parquet($files, filename = true, schema = {schema_sql("alert_events")}))
    WHERE event <> 'suppressed'"""  # noqa: S608 — our own columns
_OLD: Final = """
    DELETE FROM alert_events USING (
        SELECT incident_id AS id, max(revision) AS newest FROM alert_events WHERE revision IS NOT NULL GROUP BY ALL)
    WHERE incident_id = id AND revision < newest"""


class AlertState:
    """For any number of threads, one at a time. Raises StoreError when there is no lake."""

    def __init__(self, lake: str | Path) -> None:
        self._lake = require_lake(lake)
        self._lock = threading.Lock()
        self._con = connect(self._lake, threads=1)
        self._con.execute("CREATE TABLE held AS SELECT *, '' AS segment FROM alert_events LIMIT 0")
        self._con.execute("DROP VIEW alert_events; ALTER TABLE held RENAME TO alert_events")
        self._segments: set[str] = set()
        self._taken = 0  # segments since the table was made anew

    @contextmanager
    def connection(self) -> Iterator[DuckDBPyConnection]:
        """A connection that sees the alerts of now; it is for reading, and this thread's until the block ends."""
        with self._lock:
            self._follow()
            yield self._con

    def close(self) -> None:
        with self._lock:
            self._con.close()

    def _follow(self) -> None:
        """Take what was published, forget what was merged or removed."""
        now = {"/".join(path.rsplit("/", 4)[-4:]): path for path in live_segments(self._lake, "alert_events")}
        gone, new = self._segments - now.keys(), [now[name] for name in sorted(now.keys() - self._segments)]
        if not gone and not new:
            return
        self._con.execute("BEGIN")
        try:
            for begin in range(0, len(new), _AT_ONCE):
                files = [re.sub(r"([\[*?])", r"[\1]", path) for path in new[begin : begin + _AT_ONCE]]
                self._con.execute(f"INSERT INTO alert_events {_READ}", {"files": files})
            if gone:
                self._con.execute("DELETE FROM alert_events WHERE list_contains($gone, segment)", {"gone": [*gone]})
            self._con.execute(_OLD)
            self._con.execute("COMMIT")
        except BaseException:
            self._con.execute("ROLLBACK")
            raise
        self._segments = set(now)
        self._taken += len(new)
        if self._taken > _ANEW:
            self._con.execute("CREATE OR REPLACE TABLE alert_events AS FROM alert_events")
            self._taken = 0
