"""Rules that ask the lake: each is one SELECT, run over the new part of the lake, whose rows are findings.

    rule = LakeRule(name="big uploads", kind="upload", severity="medium", sql=\"\"\"
        SELECT ts, src_ip, dst_ip, dst_port, flow_id, src_bytes
        FROM connections_between($since, $until) WHERE src_bytes > 1e9\"\"\")
    check(con, rule)                                   # ConfigError, one line: what is wrong with it
    found = find(con, rule, since, until)              # list[Finding]; since and until: datetime in UTC, or None
    runner = Runner(lake, config, [rule], report)      # continuous: `step()` now and then, `close()` at the end

`$since` and `$until` (TIMESTAMP, UTC) bound the part that is asked for. Columns of the result, all optional: ts (when;
else `until`), src_ip, dst_ip, dst_port, proto, domain, source, flow_id, count, severity, why, id. Every other column is
evidence by its name. Incidents are kept per (kind, src_ip, dst_ip), with `apart` also per rule.

A rule whose rows are single events that may reach the lake late (`late_s`) is asked about the same past again; a row
that it has told already (the same `id`, else the same time, ends, domain and flow) is not told twice. A rule that sums
has `late_s` 0: its ranges follow each other without gap or overlap, SETTLED_S behind the clock.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb

from analytics.readonly import check as check_sql
from analytics.readonly import one_line
from analytics.rule_journal import Journal, Spans, spans_of
from analytics.store import connect
from engine.alert_row import SEVERITIES
from engine.config import EngineConfig
from engine.detect.finding import Finding
from engine.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FOLDER: Final = ".rules"  # in the lake: how far each rule has come
SETTLED_S: Final = 10.0  # rows are in the lake so long after they are complete
MOST: Final = 10_000  # findings of a rule at once
LIMIT_S: Final = 60.0  # a query takes longer: it is broken off
_CATCH_UP: Final = timedelta(hours=6)  # after a pause, so much of it is looked at
_REMEMBERED: Final = 200_000  # rows told
_PAUSE: Final = 10  # rounds that a rule which failed sits out
_OWN: Final = (
    "ts",
    "src_ip",
    "dst_ip",
    "dst_port",
    "proto",
    "domain",
    "source",
    "flow_id",
    "count",
    "severity",
    "why",
    "id",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeRule:
    """One rule. `name` is unique among those that run together; `why` is said when its rows have no column `why`."""

    name: str
    kind: str
    severity: str
    sql: str
    why: str = ""
    every_s: float = 60.0
    late_s: float = 0.0
    apart: bool = False
    evidence: tuple[tuple[str, Any], ...] = ()


def open_session(lake: Path, threads: int = 1, memory_limit: str = "512MB") -> DuckDBPyConnection:
    """A connection for rules: reads the lake and nothing else."""
    return connect(lake, untrusted=True, threads=threads, memory_limit=memory_limit)


def check(con: DuckDBPyConnection, rule: LakeRule) -> None:
    """Raises ConfigError, one line, when the rule is no single SELECT that can run on this lake."""
    moment = datetime.now(UTC).replace(tzinfo=None)
    _execute(con, rule, moment, moment, 0)


def find(
    con: DuckDBPyConnection, rule: LakeRule, since: datetime | None, until: datetime | None, most: int = MOST,
    limit_s: float | None = None,
) -> list[Finding]:  # fmt: skip
    """What the rule finds in that part of the lake, by time; at most so many. Raises ConfigError, one line."""
    return [finding for _, finding in _rows(con, rule, since, until, most, limit_s)]


def _rows(
    con: DuckDBPyConnection, rule: LakeRule, since: datetime | None, until: datetime | None, most: int,
    limit_s: float | None = None,
) -> list[tuple[int, Finding]]:  # fmt: skip
    """(what tells a row from others, its finding)."""
    names, rows = _execute(con, rule, since, until, most, limit_s)
    end = until or datetime.now(UTC).replace(tzinfo=None)
    default = int(end.replace(tzinfo=UTC).timestamp() * 1_000_000)
    made = [_finding(rule, dict(zip(names, row, strict=True)), default) for row in rows]
    return sorted(made, key=lambda pair: pair[1].ts)


def _finding(rule: LakeRule, row: dict[str, Any], default_ts: int) -> tuple[int, Finding]:
    ts = _integer(row.get("ts"), default_ts)
    flow = _integer(row.get("flow_id"), 0)
    src, dst, domain = (_text(row.get(name)) for name in ("src_ip", "dst_ip", "domain"))
    severity = row.get("severity")
    evidence = (
        dict(rule.evidence) | {"rule": rule.name} | {n: v for n, v in row.items() if n not in _OWN and v is not None}
    )
    finding = Finding(
        ts=ts, kind=rule.kind, severity=severity if severity in SEVERITIES else rule.severity,
        why=_text(row.get("why")) or rule.why or f"rule {rule.name}", src_ip=src, dst_ip=dst,
        dst_port=_integer(row.get("dst_port")), proto=_integer(row.get("proto")), domain=domain,
        source=_text(row.get("source")) or "", count=max(1, _integer(row.get("count"), 1)), evidence=evidence,
        flow_ids=(flow,) if flow else (), rule=rule.name if rule.apart else "",
    )  # fmt: skip
    identity = row.get("id")
    told = (
        (rule.name, str(identity))
        if identity is not None
        else (rule.name, ts, src, dst, finding.dst_port, domain, flow)
    )
    return hash(told), finding


def _integer(value: Any, default: Any = None) -> Any:
    return int(value) if isinstance(value, int | float) and value == value and abs(value) < 1 << 62 else default


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _execute(
    con: DuckDBPyConnection, rule: LakeRule, since: datetime | None, until: datetime | None, most: int,
    limit_s: float | None = None,
) -> tuple[list[str], list[tuple[Any, ...]]]:  # fmt: skip
    """Names and rows of the result, `ts` in microseconds. Breaks off after `limit_s`, LIMIT_S when not given."""
    limit_s = LIMIT_S if limit_s is None else limit_s
    try:
        statements = check_sql(con, rule.sql)
    except ConfigError as error:
        raise ConfigError(f"rule {rule.name}: {error}") from None
    if len(statements) != 1 or statements[0].type.name != "SELECT":
        raise ConfigError(f"rule {rule.name}: SQL must be one SELECT")
    names = set(statements[0].named_parameters)
    unknown = sorted(names - {"since", "until"})
    if unknown:
        raise ConfigError(f"rule {rule.name}: parameter ${unknown[0]} is unknown; use $since and $until")
    sql = statements[0].query.strip().rstrip(";")
    values = {name: value for name, value in (("since", since), ("until", until)) if name in names}
    timer = threading.Timer(limit_s, con.interrupt)
    timer.daemon = True
    timer.start()
    try:
        head = con.execute(f"SELECT * FROM ({sql}\n) LIMIT 0", values).description or []  # noqa: S608 — checked above
        types = {str(column[0]): str(column[1]) for column in head}
        kind = types.get("ts")
        if kind is not None and not kind.upper().startswith(("TIMESTAMP", "DATETIME")):
            raise ConfigError(f"rule {rule.name}: column ts is {kind}; make it a TIMESTAMP")
        if not most:
            return list(types), []
        chosen = "* REPLACE (epoch_us(ts) AS ts)" if kind is not None else "*"
        rows = con.execute(f"SELECT {chosen} FROM ({sql}\n) LIMIT {most}", values).fetchall()  # noqa: S608
        return list(types), rows
    except duckdb.InterruptException:
        raise ConfigError(f"rule {rule.name}: the query took longer than {limit_s:g} s; make it cheaper") from None
    except (duckdb.Error, OverflowError, ValueError) as error:
        raise ConfigError(f"rule {rule.name}: {one_line(error)}") from None
    finally:
        timer.cancel()


class Runner:
    """Runs rules over what is new in the lake. For one thread.

    How far each rule has come is kept in the lake, so that a restart goes on there; what an incident of before the
    restart holds is not told again.
    """

    def __init__(
        self, lake: Path, config: EngineConfig, rules: Sequence[LakeRule], report: Callable[[str, str], None]
    ) -> None:
        self._lake = lake
        self._config = config
        self._rules = rules
        self._report = report
        self._state = lake / FOLDER / f"{config.lake.sensor}.json"
        self._cursors = self._load()
        self._journal = Journal(lake, config, {r.kind for r in rules}, report, live=True)
        self._told: dict[int, int] = {}  # row: its time in microseconds
        self._due: dict[str, float] = {}
        self._said: set[str] = set()
        self._con: DuckDBPyConnection | None = None
        self._before = self._counted_before()

    def step(self, now: datetime | None = None) -> int:
        """Run the rules that are due; `now` is UTC. Returns the number of new findings. Raises StoreError."""
        end = now or datetime.now(UTC).replace(tzinfo=None)
        found: list[Finding] = []
        moved = {}
        for rule in self._rules:
            if time.monotonic() < self._due.get(rule.name, 0.0):
                continue
            self._due[rule.name] = time.monotonic() + rule.every_s
            until = end if rule.late_s else end - timedelta(seconds=SETTLED_S)
            cursor = max(self._cursors.get(rule.name, until), until - _CATCH_UP)
            if cursor > until:
                continue
            try:
                rows = _rows(self._session(), rule, cursor - timedelta(seconds=rule.late_s), until, MOST)
            except EngineError as error:
                self._fail(rule, str(error))
                continue
            if len(rows) == MOST:
                self._say("warning", f"rule {rule.name}: more than {MOST:,} findings at once, the rest is left out")
            moved[rule.name] = until
            found += [finding for identity, finding in rows if self._is_new(identity, finding, rule)]
        late = max((r.late_s for r in self._rules), default=0.0)
        self._journal.take(sorted(found, key=lambda f: f.ts), _micros(end - timedelta(seconds=late + SETTLED_S)))
        self._forget(_micros(end - 2 * timedelta(seconds=late + SETTLED_S)))
        if moved:
            self._cursors |= moved
            self._save()
        return len(found)

    def close(self) -> None:
        """Close the incidents."""
        self._journal.close()
        if self._con is not None:
            self._con.close()

    def _session(self) -> DuckDBPyConnection:
        if self._con is None:
            self._con = open_session(self._lake)
        return self._con

    def _is_new(self, identity: int, finding: Finding, rule: LakeRule) -> bool:
        if not rule.late_s:
            return True
        known = identity in self._told
        self._told[identity] = max(finding.ts, self._told.get(identity, 0))
        return not known and not self._before.holds(finding)

    def _forget(self, before_us: int) -> None:
        for identity in [i for i, ts in self._told.items() if ts < before_us]:
            del self._told[identity]
        while len(self._told) > _REMEMBERED:
            del self._told[next(iter(self._told))]

    def _fail(self, rule: LakeRule, text: str) -> None:
        self._due[rule.name] = time.monotonic() + _PAUSE * rule.every_s
        self._say("warning", f"{text}; tried again in {_PAUSE * rule.every_s:.0f} s")
        if self._con is not None:
            self._con.close()
            self._con = None

    def _say(self, level: str, text: str) -> None:
        if text not in self._said and len(self._said) < 1_000:
            self._said.add(text)
            self._report(level, text)

    def _counted_before(self) -> Spans:
        """What incidents of earlier runs hold of the past that is asked about again."""
        late = max((r.late_s for r in self._rules), default=0.0)
        if not late or not self._cursors:
            return Spans({})
        return spans_of(self._session(), self._config, min(self._cursors.values()) - timedelta(seconds=2 * late))

    def _load(self) -> dict[str, datetime]:
        try:
            known = json.loads(self._state.read_text(encoding="utf-8"))
            return {str(name): datetime.fromisoformat(at) for name, at in known.items()}
        except (OSError, ValueError, AttributeError, TypeError):  # none yet, or damaged: begin now
            return {}

    def _save(self) -> None:
        names = {r.name for r in self._rules}
        text = json.dumps({name: at.isoformat() for name, at in self._cursors.items() if name in names})
        partial = self._state.with_suffix(".inprogress")
        try:
            self._state.parent.mkdir(mode=0o700, exist_ok=True)
            partial.write_text(text, encoding="utf-8")
            partial.replace(self._state)
        except OSError as error:
            self._say("warning", f"{self._state}: {error.strerror}; after a restart rules begin anew")


def _micros(moment: datetime) -> int:
    return int(moment.replace(tzinfo=UTC).timestamp() * 1_000_000)
