"""Totals of the packets of a window, kept in memory: every published segment is read once and never again.

A query over the last hour of a live lake would open thousands of small files each second. Instead the new segments
(one or two a second) are added up into three small in-memory tables, and every question of the dashboard is answered
from those: 0.23 us of CPU a packet once, then a few milliseconds a question whatever the packet rate.

`seconds` holds packets and bytes by second and protocol class; `talkers` by SLOT_S seconds and source, destination
or service port. Of each slot of each segment batch the TOP_PER_SLOT heaviest talkers are kept, so that a flood of
forged addresses cannot fill the memory: totals stay exact, and a talker is exact while fewer talk at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

import duckdb

from analytics.segments import Segment
from engine.constants import ETHERTYPE_ARP, PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP

CLASSES: Final = ("TCP", "UDP", "ICMP", "ARP", "Other")
SLOT_S: Final = 10
TOP_PER_SLOT: Final = 1000
SOURCES, DESTINATIONS, PORTS = 1, 2, 3
FILES_PER_READ: Final = 64

TABLES: Final = """
CREATE SCHEMA IF NOT EXISTS {name};
CREATE OR REPLACE TABLE {name}.seconds (s BIGINT, class TINYINT, packets BIGINT, bytes BIGINT, undecodable BIGINT);
CREATE OR REPLACE TABLE {name}.talkers (slot BIGINT, kind TINYINT, key VARCHAR, packets BIGINT, bytes BIGINT);
CREATE OR REPLACE TABLE {name}.recent_talkers (slot BIGINT, kind TINYINT, key VARCHAR, packets BIGINT, bytes BIGINT);
"""

# One pass over the files for all four groupings: 1.2 s of CPU for 5 M packets, against 2.1 s one after another.
READ: Final = f"""
CREATE OR REPLACE TABLE {{name}}.batch AS
SELECT s, slot, class, src_ip, dst_ip, port, count(*) AS packets, sum(wirelen)::BIGINT AS bytes,
       count(*) FILTER (WHERE status NOT IN ('ok', 'not_ip')) AS undecodable,
       grouping(class, src_ip, dst_ip, port) AS absent
FROM (
    SELECT epoch_us(ts) // 1000000 AS s, epoch_us(ts) // 1000000 // {SLOT_S} * {SLOT_S} AS slot, wirelen, status,
           CASE WHEN proto = {PROTO_TCP} THEN 0 WHEN proto = {PROTO_UDP} THEN 1
                WHEN proto IN ({PROTO_ICMP}, {PROTO_ICMPV6}) THEN 2 WHEN ethertype = {ETHERTYPE_ARP} THEN 3
                ELSE 4 END::TINYINT AS class,
           src_ip, dst_ip,
           CASE WHEN proto IN ({PROTO_TCP}, {PROTO_UDP}) THEN proto * 65536 + least(src_port, dst_port) END AS port
    FROM read_parquet($files, hive_partitioning = false)
)
GROUP BY GROUPING SETS ((s, class), (slot, src_ip), (slot, dst_ip), (slot, port))
"""  # noqa: S608 — only this module's own numbers are put in
ADD_SECONDS: Final = """
INSERT INTO {name}.seconds SELECT s, class, packets, bytes, undecodable FROM {name}.batch WHERE absent = 7
"""
ADD_TALKERS: Final = f"""
INSERT INTO {{name}}.recent_talkers
SELECT slot, kind, key, packets, bytes
FROM (
    SELECT slot, packets, bytes,
           CASE absent WHEN 11 THEN {SOURCES} WHEN 13 THEN {DESTINATIONS} ELSE {PORTS} END AS kind,
           CASE absent WHEN 11 THEN src_ip WHEN 13 THEN dst_ip
                ELSE (port % 65536) || CASE port // 65536 WHEN {PROTO_TCP} THEN ' tcp' ELSE ' udp' END END AS key
    FROM {{name}}.batch WHERE absent <> 7
)
WHERE key IS NOT NULL
QUALIFY row_number() OVER (PARTITION BY slot, kind ORDER BY bytes DESC) <= {TOP_PER_SLOT}
"""  # noqa: S608 — only this module's own numbers are put in
# Rows of finished slots come from many segments: one row for each talker and slot is enough.
FOLD: Final = """
INSERT INTO {name}.talkers
SELECT slot, kind, key, sum(packets)::BIGINT, sum(bytes)::BIGINT
FROM {name}.recent_talkers WHERE slot < $closed GROUP BY ALL;
DELETE FROM {name}.recent_talkers WHERE slot < $closed
"""
FORGET: Final = "DELETE FROM {name}.seconds WHERE s < $before; DELETE FROM {name}.talkers WHERE slot < $before"


class Rollup:
    """The totals of one window that moves forward. Not thread-safe: the caller holds a lock."""

    def __init__(self, con: duckdb.DuckDBPyConnection, name: str) -> None:
        self.con = con
        self.name = name
        self.unreadable: dict[str, str] = {}
        self._done: dict[str, Segment] = {}
        self._folded = 0
        self.reset()

    def reset(self) -> None:
        """Forget everything; the next `add` starts over."""
        self.con.execute(TABLES.format(name=self.name))
        self._done.clear()
        self.unreadable.clear()

    def add(self, wanted: list[Segment], start: float, budget_s: float) -> float:
        """Count the segments of the window from `start` that were not counted yet, for about `budget_s`, in order.

        A counted segment that has gone (merged into a larger one, or retired) means that its rows may come again
        in another file, so counting starts over. Returns the share of `wanted` that is counted, 0 to 1.
        """
        present = {segment.path for segment in wanted}
        if any(s.written >= start and path not in present for path, s in self._done.items()):
            self.reset()
        missing = [s for s in wanted if s.path not in self._done]
        deadline = time.monotonic() + budget_s
        for at in range(0, len(missing), FILES_PER_READ):
            if at and time.monotonic() > deadline:
                return 1 - (len(missing) - at) / len(wanted)
            self._read(missing[at : at + FILES_PER_READ])
        return 1.0

    def _read(self, segments: list[Segment]) -> None:
        try:
            self._count([s.path for s in segments])
        except duckdb.Error as error:
            if len(segments) > 1:
                for segment in segments:
                    self._read([segment])
                return
            self.unreadable[segments[0].path] = str(error).splitlines()[0]
        self._done.update((s.path, s) for s in segments)

    def _count(self, paths: Iterable[str]) -> None:
        self.run(READ, files=list(paths))
        self.run(ADD_SECONDS)
        self.run(ADD_TALKERS)

    def tidy(self, now: int, keep_s: int) -> None:
        """Fold finished slots, and forget what is older than `keep_s`; does nothing more often than every slot."""
        closed = (now - SLOT_S) // SLOT_S * SLOT_S
        if closed <= self._folded:
            return
        self._folded = closed
        self.run(FOLD, closed=closed)
        self.run(FORGET, before=now - keep_s)
        self._done = {path: s for path, s in self._done.items() if s.written >= now - keep_s}

    def run(self, sql: str, **parameters: Any) -> duckdb.DuckDBPyConnection:
        """Execute SQL in which {name} stands for this rollup's schema."""
        for statement in sql.format(name=self.name).split(";")[:-1]:
            self.con.execute(statement, parameters)
        return self.con.execute(sql.format(name=self.name).split(";")[-1], parameters or None)
