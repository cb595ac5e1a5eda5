"""The SQL of the dashboard: what each answer of `analytics.watch` asks of the lake, recorded while it is made.

    for asked in texts(lake): ...      # asked.name "overview #3", asked.sql with its values put in

An answer's own statements are "#n", those that its page offers to copy and export are named. The range is all of the
lake, as one that is over: a live page asks the same of mirrors, tables in memory that hold sums of the same rows. So
the texts name the lake's tables only, and any engine that has these can run them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

import analytics
from analytics.watch import registry
from analytics.watch.context import Context
from analytics.watch.statement import Statement
from analytics.watch.watch import Watch
from engine.errors import StoreError

LATER_S: Final = 3 * 86_400  # after the lake's last flow: nothing is live
# One of each thing that a question is about.
_ABOUT: Final = {
    "host": "SELECT src_ip AS ip FROM flows GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1",
    "flow": "SELECT flow_id FROM flows ORDER BY src_bytes DESC, 1 LIMIT 1",
    "packet": "SELECT sensor, source, frame_no AS frame, epoch_us(ts) AS ts FROM packets ORDER BY ALL LIMIT 1",
    "alert": "SELECT incident_id AS id FROM alerts WHERE last_seen >= first_seen ORDER BY len(packets) DESC, 1 LIMIT 1",
}
_PARAMS: Final[dict[str, tuple[dict[str, Any], ...]]] = {
    "anomaly_alerts": ({"threshold": 0.5},),
    "unusual_packets": ({"threshold": 0.5},),
    "alerts": ({"state": "all"}, {"severity": "high", "sort": "count"}),
}
# Filters that lead a question to other tables or columns; {} is a sensor.
_FILTERS: Final = ("proto=tcp,udp", "sensor={} -port=53 -sni=nobody.example")
_FEW: Final = ("overview", "packets", "flows", "unusual_packets", "anomaly_alerts", "anomalies")
_TEMPORARY: Final = re.compile(r"CREATE OR REPLACE TEMP TABLE (\w+) AS (.*)", re.S)
_NUMBERS: Final = re.compile(r"\d+")
# Which of equal rows a page shows is nobody's promise.
_END: Final = re.compile(r" LIMIT \d+( OFFSET \d+)?$")


class Asked(NamedTuple):
    """A statement and where it is from."""

    name: str
    sql: str


@dataclass(slots=True)
class _Recording(Context):
    """Keeps what it is asked to run."""

    kept: list[str] = field(default_factory=list)

    def run(self, statement: Statement | str, **values: Any) -> Any:
        if isinstance(statement, str):
            statement = Statement(statement, values)
        self.kept.append(self.shown(statement))
        return Context.run(self, statement)


class _Recorder(Watch):
    """Answers as the dashboard does; `kept` are the statements of the last answer, in order."""

    def __init__(self, lake: Path, at: float) -> None:
        super().__init__(lake, clock=lambda: at)
        self.kept: list[str] = []

    def _context(self, *given: Any) -> Context:
        made = super()._context(*given)
        self.kept = []
        return _Recording(*(getattr(made, f.name) for f in fields(Context)), kept=self.kept)


def texts(lake: Path, *, short: bool = False) -> list[Asked]:
    """Every different statement of every question. `short`: filters only where they lead to other tables, and of those
    that differ in nothing but numbers and times one.

    Raises StoreError when the lake lacks what a question is about.
    """
    with analytics.connect(lake) as con:
        [(last,)] = con.sql("SELECT epoch(max(ts)) FROM flows").fetchall()
        about = {name: con.sql(sql).to_arrow_table().to_pylist() for name, sql in _ABOUT.items()}
    if last is None or not all(about.values()):
        raise StoreError(f"lake {lake}: the pages need packets, flows and an alert to be asked about")
    watch = _Recorder(lake, last + LATER_S)
    found: dict[str, Asked] = {}
    try:
        sensor = watch.lake.sensors()[-1]
        for question in registry.every():
            filters = [text.format(sensor) for text in _FILTERS] if not short or question.name in _FEW else []
            for filter_text in ("", *filters) if question.filtered else ("",):
                for params in _PARAMS.get(question.name) or about.get(question.name) or ({},):
                    how = {"range_text": "all", "filter_text": filter_text, "role": "admin", "params": params}
                    for part, sql in _of(watch, question, how):
                        name = f"{question.name} {part} {filter_text}".strip()
                        found.setdefault(_NUMBERS.sub("0", sql) if short else sql, Asked(name, sql))
    finally:
        watch.close()
    return list(found.values())


def _of(watch: _Recorder, question: registry.Question, how: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The statements of an answer and of its exports."""
    watch.answer(question.name, **how)
    temporary: dict[str, str] = {}
    for n, text in enumerate(watch.kept):
        sql = _plain(text, temporary)
        if made := _TEMPORARY.fullmatch(sql):
            temporary[made[1]] = sql = made[2]
        yield f"#{n}", sql
    if question.statements is not None:
        for part, text in watch.explain(question.name, **how).items():
            yield part, _plain(text, {})


def _plain(text: str, temporary: dict[str, str]) -> str:
    """On one line, with tables of the connection put in: the alerts in memory are those of the view."""
    sql = _END.sub("", " ".join(text.replace("mem.alerts", "alerts").split()))
    for name, body in temporary.items():
        sql = re.sub(rf"\bFROM {name}\b", lambda _, t=(name, body): f"FROM ({t[1]}) AS {t[0]}", sql)
    return sql
