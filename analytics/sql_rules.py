"""Rules of the operator's own in SQL, `[[rules.sql]]`: files with one SELECT, checked, and run once over a lake.

`analytics.rule_process` runs them beside the engine as the lake grows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq

from analytics.rule_journal import Journal, spans_of
from analytics.rule_process import configured
from analytics.rule_runner import MOST, LakeRule, check, find, open_session
from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.log import report
from engine.rule_config import SqlRuleConfig
from engine.tables import TABLES, arrow_schema

_MOST_BYTES: Final = 1 << 20
_FIRST: Final = datetime.fromtimestamp(0, UTC).replace(tzinfo=None)  # as the lake has times


def rules_of(configured: Sequence[SqlRuleConfig]) -> list[LakeRule]:
    """The rules with their queries. Raises ConfigError naming rule and file."""
    return [
        LakeRule(
            name=rule.name, kind=rule.kind or rule.name, severity=rule.severity, sql=_query(rule.name, rule.file),
            why=rule.why, every_s=rule.every_s, late_s=rule.late_s,
        )
        for rule in configured
    ]  # fmt: skip


def _query(name: str, path: str) -> str:
    try:
        with open(Path(path).expanduser(), "rb") as file:
            data = file.read(_MOST_BYTES + 1)
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = (getattr(error, "strerror", None) or "it is not text").lower()
        raise ConfigError(f"rule {name}: file {path}: {reason}; name a readable file with one SELECT") from None
    if len(data) > _MOST_BYTES or not text.strip():
        raise ConfigError(
            f"rule {name}: file {path} is {'larger than 1 MiB' if text.strip() else 'empty'}; write one SELECT"
        )
    return text


def check_all(rules: Sequence[LakeRule]) -> None:
    """That each is one SELECT over tables that a lake has. Raises ConfigError, one line."""
    if not rules:
        return
    with tempfile.TemporaryDirectory(prefix="packetlake-rules-") as folder:
        con = open_session(_empty_lake(Path(folder)))
        try:
            for rule in rules:
                try:
                    check(con, rule)
                except ConfigError as error:
                    where = "" if str(error).startswith("rule ") else f"rule {rule.name}: "
                    raise ConfigError(f"{where}{error}") from None
        finally:
            con.close()


def check_file(path: str) -> None:
    """As `check_all`, of a file."""
    check_all(rules_of([SqlRuleConfig(name=Path(path).stem.replace(" ", "_")[:64] or "query", file=path)]))


def _empty_lake(folder: Path) -> Path:
    """Every table, without rows."""
    for table in TABLES:
        segment = folder / table / "sensor=none" / "date=1970-01-01" / "hour=00" / "0-0.parquet"
        segment.parent.mkdir(parents=True)
        pq.write_table(arrow_schema(table).empty_table(), segment)
    return folder


def run_once(lake: Path, config: EngineConfig) -> str | None:
    """Run the configured rules, Sigma too, over all that the lake holds; incidents of what no earlier one has counted.

    Returns what the ids of those begin with, None when there are no rules. Raises ConfigError, StoreError.
    """
    rules, refused = configured(config)
    for line in refused:
        report("warning", line)
    if not rules:
        return None
    con = open_session(lake)
    try:
        newest = con.execute("SELECT max(ts) FROM packets").fetchone()
        until = ((newest and newest[0]) or _FIRST) + timedelta(seconds=1)
        found = [f for rule in rules for f in find(con, rule, _FIRST, until, MOST)]
        known = spans_of(con, config, None)
    finally:
        con.close()
    found = sorted((f for f in found if not known.holds(f)), key=lambda f: f.ts)
    journal = Journal(lake, config, {r.kind for r in rules}, lambda _level, _text: None, live=False)
    journal.take(found, found[-1].ts if found else 0)
    journal.close()
    return journal.prefix
