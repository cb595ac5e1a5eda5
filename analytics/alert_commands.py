"""`engine alerts`: the list, one alert, and what an operator does with it."""

from __future__ import annotations

import json
import os
import pwd
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from analytics import alerts
from analytics.formats import WRITERS, one_line_text
from analytics.selection import parse_time
from analytics.shell import open_reader, open_session, replaced, translated
from engine.alert_row import SEVERITIES
from engine.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from analytics.formats import Writer

_SHOWN: Final = "incident_id, first_seen, last_seen, severity, kind, src_ip, dst_ip, count, status, active, why"
_FORMULA: Final = r"^\s*[=+\-@|%\t\r＝＋－＠]"  # how spreadsheets recognise a formula, or a command to run
_EXPORTS: Final = {".csv": "csv", ".json": "json", ".parquet": "parquet"}


def run(lake: Path, options: argparse.Namespace) -> int:
    """Run one action of `engine alerts`."""
    return int(_ACTIONS[options.action](lake, options) or 0)


def _list(lake: Path, options: argparse.Namespace) -> None:
    columns = _SHOWN if options.format == "table" else "*"
    _write(lake, _query(columns, options), options.format, None)


def list_run(lake: Path, prefix: str) -> None:
    """The incidents of one run, in the order they began, to standard output."""
    sql = f"SELECT {_SHOWN} FROM alerts WHERE starts_with(incident_id, {_literal(prefix)}) ORDER BY first_seen"  # noqa: S608
    _write(lake, sql, "table", None)


def _export(lake: Path, options: argparse.Namespace) -> None:
    output = Path(options.file)
    fmt = _EXPORTS.get(output.suffix.lower())
    if fmt is None:
        raise ConfigError(f"engine alerts export {output}: end the name in .csv, .json or .parquet")
    rows = _write(lake, _query("*", options), fmt, output)
    print(f"{rows} alert{'' if rows == 1 else 's'} written to {output}", file=sys.stderr)  # noqa: T201


def _query(columns: str, options: argparse.Namespace) -> str:
    """The alerts that the options ask for, newest first."""
    since = "NULL"
    if options.since is not None:
        at = parse_time("--since", options.since, datetime.now(UTC).replace(tzinfo=None))
        since = f"TIMESTAMP '{at.isoformat(' ')}'"
    conditions = ["true"]
    if options.severity is not None:
        wanted = SEVERITIES[SEVERITIES.index(options.severity) :]
        conditions.append(f"severity IN ({', '.join(map(_literal, wanted))})")
    if options.kind is not None:
        conditions.append(f"kind = {_literal(options.kind)}")
    if options.open:
        conditions.append("status = 'open'")
    return (
        f"SELECT {columns} FROM alerts_between({since}, NULL) WHERE {' AND '.join(conditions)} "  # noqa: S608 — literals
        "ORDER BY last_seen DESC, incident_id"
    )


def _write(lake: Path, sql: str, fmt: str, output: Path | None) -> int:
    """The query's result to standard output, or to a file that is complete or not there. Returns the rows."""
    con = open_session(lake)
    try:
        reader = open_reader(con, sql)
        write: Writer = WRITERS[fmt]
        if fmt == "csv":
            reader = pa.RecordBatchReader.from_batches(reader.schema, map(_harmless, reader))
        if output is None:
            sys.stdout.flush()
            rows = write(reader, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return rows
        with replaced(output) as file:
            return write(reader, file)
    except BrokenPipeError:
        raise
    except (duckdb.Error, OSError, pa.ArrowException) as error:
        raise translated(error, sql, output) from None
    finally:
        con.close()


def _harmless(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Texts that a spreadsheet would run get an apostrophe in front: senders of packets choose what stands there."""

    def quoted(column: pa.Array) -> pa.Array:
        if not pa.types.is_string(column.type):
            return column
        other = pc.binary_join_element_wise("'", column, "")
        return pc.if_else(pc.match_substring_regex(column, _FORMULA), other, column)

    return pa.RecordBatch.from_arrays(list(map(quoted, batch.columns)), schema=batch.schema)


def _show(lake: Path, options: argparse.Namespace) -> None:
    alert = alerts.find(lake, options.id)
    past = alerts.history(lake, alert["incident_id"])
    if options.format == "json":
        whole = alert | {"evidence": _evidence(alert["evidence"]), "history": past}
        print(json.dumps(whole, ensure_ascii=True, default=str, indent=1))  # noqa: T201
        return
    lines = [
        f"{name:<16} {one_line_text(value)}"
        for name, value in alert.items()
        if value not in (None, []) and name != "evidence"
    ]
    lines += [f"{'evidence':<16}"]
    lines += [
        f"  {one_line_text(name):<14} {one_line_text(value)}" for name, value in _evidence(alert["evidence"]).items()
    ]
    lines += ["", "history"]
    for act in past:
        said = f"  {one_line_text(act['note'])}" if act["note"] else ""
        count = f"  count {act['count']}" if act["count"] is not None else ""
        lines.append(f"  {act['ts']:%Y-%m-%d %H:%M:%S}  {act['event']:<12} {one_line_text(act['actor'])}{count}{said}")
    if alert["flow_ids"]:
        flows = " ".join(f"--flow {i}" for i in alert["flow_ids"][:5])
        lines += ["", f"its packets: engine export {flows} OUT.pcapng"]
    print("\n".join(lines))  # noqa: T201


def _evidence(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {"text": text}
    return value if isinstance(value, dict) else {"value": value}


def _ack(lake: Path, options: argparse.Namespace) -> None:
    for name in options.ids:
        incident_id = alerts.find(lake, name)["incident_id"]
        alerts.acknowledge(lake, incident_id, _user(), options.note)
        print(f"{incident_id} acknowledged")  # noqa: T201


def _reopen(lake: Path, options: argparse.Namespace) -> None:
    incident_id = alerts.find(lake, options.id)["incident_id"]
    alerts.reopen(lake, incident_id, _user(), options.note)
    print(f"{incident_id} open again")  # noqa: T201


def _note(lake: Path, options: argparse.Namespace) -> None:
    incident_id = alerts.find(lake, options.id)["incident_id"]
    alerts.note(lake, incident_id, _user(), options.text)
    print(f"{incident_id} noted")  # noqa: T201


def _mute(lake: Path, options: argparse.Namespace) -> None:
    until = None
    if options.duration is not None:
        now = datetime.now(UTC).replace(tzinfo=None)
        try:
            until = now + (now - parse_time("--for", options.duration, now))
        except OverflowError:
            raise ConfigError(f"--for {options.duration!r} is too long; use 30m, 2h or 7d") from None
    alerts.mute(
        lake, _user(), kind=options.kind, src=options.src, dst=options.dst, until=until, reason=options.note
    )  # fmt: skip
    print(f"muted {'until ' + format(until, '%Y-%m-%d %H:%M:%S UTC') if until else 'until `engine alerts unmute`'}")  # noqa: T201


def _unmute(lake: Path, options: argparse.Namespace) -> None:
    alerts.unmute(lake, _user(), kind=options.kind, src=options.src, dst=options.dst)
    print("unmuted")  # noqa: T201


def _mutes(lake: Path, options: argparse.Namespace) -> None:
    _write(lake, "SELECT * FROM mutes WHERE active ORDER BY muted_at DESC", options.format, None)


def _add(lake: Path, options: argparse.Namespace) -> None:
    incident_id = alerts.add(
        lake, _user(), kind=options.kind, severity=options.severity, why=options.why, src=options.src, dst=options.dst
    )
    print(incident_id)  # noqa: T201


def _user() -> str:
    """Who works here: also under sudo the one who typed it."""
    name = os.environ.get("SUDO_USER")
    if os.geteuid() == 0 and name:
        return name
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


_ACTIONS: Final = {
    "list": _list, "show": _show, "ack": _ack, "reopen": _reopen, "note": _note, "mute": _mute, "unmute": _unmute,
    "mutes": _mutes, "add": _add, "export": _export,
}  # fmt: skip
