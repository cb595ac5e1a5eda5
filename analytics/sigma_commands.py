"""`engine sigma run`, and the part of `engine rules check` about Sigma rules."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from analytics.alert_commands import list_run
from analytics.formats import WRITERS
from analytics.rule_journal import Journal, spans_of
from analytics.rule_runner import MOST, find, open_session
from analytics.selection import parse_time
from analytics.shell import interruptible
from analytics.sigma import load
from analytics.store import require_lake
from engine.detect.evidence import Evidence, clean
from engine.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from duckdb import DuckDBPyConnection

    from analytics.rule_runner import LakeRule
    from engine.config import EngineConfig
    from engine.detect.finding import Finding

_SCHEMA: Final = pa.schema([
    ("ts", pa.timestamp("us")), ("severity", pa.string()), ("rule", pa.string()), ("src_ip", pa.string()),
    ("dst_ip", pa.string()), ("dst_port", pa.int64()), ("domain", pa.string()), ("flow_id", pa.int64()),
    ("evidence", pa.string()), ("sigma_id", pa.string()),
])  # fmt: skip
_LIMIT_S: Final = 3_600.0  # somebody waits, and can press Ctrl-C
_SHOWN: Final = 8  # columns of the table for people


def check(paths: list[str]) -> tuple[list[str], bool]:
    """Lines about each refused rule, then a sum; and whether all are used."""
    rules, refused = load(paths)
    return [*map(str, refused), f"Sigma: {len(rules)} rules used, {len(refused)} refused"], not refused


def run(lake: Path, config: EngineConfig, options: argparse.Namespace) -> int:
    """Run Sigma rules over what the lake holds, and print the hits or make alerts of them."""
    now = datetime.now(UTC).replace(tzinfo=None)
    since = None if options.since is None else parse_time("--since", options.since, now)
    until = None if options.until is None else parse_time("--until", options.until, now)
    rules, refused = load(options.files)
    for refusal in refused:
        _say(str(refusal))
    if not rules:
        raise ConfigError("no Sigma rule can be used; `engine rules check FILE...` says why")
    con = open_session(require_lake(lake), threads=2, memory_limit="2GB")
    found: list[Finding] = []
    failed = [str(refusal) for refusal in refused]
    try:
        interruptible(con, lambda: _find_all(con, rules, (since, until), found, failed))
        found.sort(key=lambda f: f.ts)
        if options.alert:
            known = spans_of(con, config, since)
            found = [f for f in found if not known.holds(f)]
    finally:
        con.close()
    _say(f"{len(rules)} Sigma rules, {len(found):,}{' new' if options.alert else ''} hits")
    if options.alert:
        _alert(lake, config, found)
    else:
        _print(found, options.format)
    return 2 if failed else 0


def _find_all(
    con: DuckDBPyConnection, rules: list[LakeRule], span: tuple[datetime | None, datetime | None],
    found: list[Finding], failed: list[str],
) -> None:  # fmt: skip
    """Add what the rules find, and a line for each that cannot run."""
    for rule in rules:
        try:
            hits = find(con, rule, *span, limit_s=_LIMIT_S)
        except ConfigError as error:
            failed.append(str(error))
            _say(str(error))
            continue
        if len(hits) == MOST:
            _say(f"rule {rule.name}: only {MOST:,} hits are shown; choose a shorter time with --since and --until")
        found += hits


def _alert(lake: Path, config: EngineConfig, found: list[Finding]) -> None:
    journal = Journal(lake, config, {f.kind for f in found}, lambda _, text: _say(text), live=False)
    journal.take(found, found[-1].ts if found else 0)
    journal.close()
    list_run(lake, journal.prefix + "-")


def _print(found: list[Finding], fmt: str) -> None:
    rows = [_row(f) for f in found]
    schema = pa.schema(list(_SCHEMA)[:_SHOWN]) if fmt == "table" else _SCHEMA
    table = pa.Table.from_pylist(rows, schema=schema)
    sys.stdout.flush()
    WRITERS[fmt](table.to_reader(max_chunksize=50_000), sys.stdout.buffer)
    sys.stdout.buffer.flush()


def _row(f: Finding) -> dict[str, Any]:
    own = ("signature", "sigma_id", "level", "rules", "tags", "rule")
    return {
        "ts": f.ts, "severity": f.severity, "rule": clean(str(f.evidence["signature"])), "src_ip": f.src_ip,
        "dst_ip": f.dst_ip, "dst_port": f.dst_port, "domain": f.domain and clean(f.domain, 253),
        "flow_id": f.flow_ids[0] if f.flow_ids else None,
        "evidence": Evidence({k: v for k, v in f.evidence.items() if k not in own}).text(),
        "sigma_id": f.evidence.get("sigma_id"),
    }  # fmt: skip


def _say(text: str) -> None:
    print(f"engine: {text}", file=sys.stderr)  # noqa: T201
