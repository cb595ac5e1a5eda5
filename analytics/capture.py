"""How the capture is doing, from `capture_stats`: rate, losses by cause, and whether it still runs."""

from __future__ import annotations

from typing import Any, Final

import duckdb

from analytics.segments import Segment, SegmentIndex
from analytics.store import schema_sql
from engine.tables import OWN_DROPS

LIVE_S: Final = 5.0  # a capture writes a row every second; silent for longer than this, it is not running
RATE_ROWS_S: Final = 3.0
FILES_PER_READ: Final = 512

CREATE: Final = """
CREATE OR REPLACE TABLE capture_rows (path VARCHAR, t DOUBLE, source VARCHAR, interval_s DOUBLE, received BIGINT,
    rows BIGINT, kernel BIGINT, interface BIGINT, own BIGINT, undecodable BIGINT, wire_bytes BIGINT)
"""
READ: Final = f"""
INSERT INTO capture_rows
SELECT filename, epoch_us(ts) / 1e6, source, interval_s, received, rows, kernel_drops, interface_drops,
       {" + ".join(f"coalesce({name}, 0)" for name in OWN_DROPS)}, undecodable, wire_bytes
FROM read_parquet($files, filename = true, schema = {schema_sql("capture_stats")})
"""  # noqa: S608 — column names of the schema
LOSSES: Final = """
SELECT count(*), coalesce(sum(received), 0)::BIGINT, coalesce(sum(kernel), 0)::BIGINT,
       coalesce(sum(interface), 0)::BIGINT, coalesce(sum(own), 0)::BIGINT
FROM capture_rows WHERE t - interval_s >= $start
"""
RATE: Final = """
SELECT sum(pps)::DOUBLE, sum(bps)::DOUBLE
FROM (SELECT sum(received) / sum(interval_s) AS pps, sum(wire_bytes) * 8 / sum(interval_s) AS bps
      FROM capture_rows WHERE t > $since AND interval_s > 0 GROUP BY source HAVING max(t) > $live)
"""
SOURCES: Final = "SELECT source, max(t) AS t FROM capture_rows GROUP BY source ORDER BY t DESC, source"


class CaptureStats:
    """The rows of the window in memory, each file read once. Not thread-safe: the caller holds a lock."""

    def __init__(self, con: duckdb.DuckDBPyConnection, index: SegmentIndex) -> None:
        self.con = con
        self.index = index
        self._done: set[str] = set()
        self.con.execute(CREATE)

    def update(self, start: float, now: float) -> None:
        """Read what is new in the window, and the newest file of all: it tells when an old capture stopped."""
        wanted = self.index.within(start, now + 60)
        newest = self.index.newest()
        if newest is not None and newest not in wanted:
            wanted.append(newest)
        present = {s.path for s in wanted}
        gone = {path for path in self._done if path not in present}
        if gone:  # left the window, or was merged into a larger file
            self.con.execute("DELETE FROM capture_rows WHERE list_contains($gone, path)", {"gone": list(gone)})
            self._done -= gone
        missing = [s for s in wanted if s.path not in self._done]
        for at in range(0, len(missing), FILES_PER_READ):
            self._read(missing[at : at + FILES_PER_READ])

    def _read(self, segments: list[Segment]) -> None:
        try:
            self.con.execute(READ, {"files": [s.path for s in segments]})
        except duckdb.Error:
            if len(segments) > 1:  # one is damaged or went away: read the others
                for segment in segments:
                    self._read([segment])
                return
        self._done.update(s.path for s in segments)

    def losses(self, start: float) -> dict[str, Any]:
        """Frames lost since `start` by cause. `pct` is of all frames that came by, None without any statistics."""
        counts = self.con.execute(LOSSES, {"start": start}).fetchone() or (0, 0, 0, 0, 0)
        rows, received, kernel, interface, own = counts
        lost = kernel + interface + own
        seen = received + interface
        pct = 100 * lost / seen if seen else 0.0
        return {
            "pct": round(pct, 4) if rows else None,
            "lost": lost,
            "seen": seen,
            "kernel": kernel,
            "interface": interface,
            "own": own,
        }

    def rate(self, now: float) -> tuple[float, float] | None:
        """Frames and bits per second over the newest rows of every source that is capturing; None without one."""
        row = self.con.execute(RATE, {"since": now - LIVE_S - RATE_ROWS_S, "live": now - LIVE_S}).fetchone()
        return (row[0], row[1]) if row and row[0] is not None else None

    def state(self, now: float) -> dict[str, Any]:
        """Is it running, on what, since when is it silent, and what was lost in the last minute."""
        rows = self.con.execute(SOURCES).fetchall()
        live = [source for source, t in rows if t > now - LIVE_S]
        last = max((t for _, t in rows), default=None)
        return {
            "state": "live" if live else "stopped" if rows else "none",
            "sources": live or [source for source, t in rows if last is not None and t > last - LIVE_S],
            "last": None if last is None else int(last * 1000),
            "age_s": None if last is None else round(now - last, 1),
            "minute": self.losses(now - 60),
        }
