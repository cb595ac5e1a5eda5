"""What people do with alerts. Each act is one small segment of `alert_events`: no lock, whoever else writes or reads.

    acknowledge(lake, "k3m7qx2afw-12", "ann", "the backup job")
    mute(lake, "ann", kind="port_scan", src="10.0.0.0/8", until=datetime(2026, 11, 25, 12))
    add(lake, "ann", kind="phishing", severity="high", src="10.0.0.7", why="a user called")

A running engine sees mutes and new alerts within seconds. Times are UTC without a zone. Texts are kept as they look:
on one line, without control characters. Everything raises ConfigError or StoreError, one line.
"""

from __future__ import annotations

import ipaddress
import secrets
import time
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from analytics.store import connect, require_lake
from engine.alert_row import OPERATORS, SEVERITIES
from engine.errors import ConfigError
from engine.segment_file import add_segment

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_TEXT: Final = 1_000  # characters of a note
_NAME: Final = 64  # of a kind or user
_FLOWS: Final = 20  # examples of an incident
_AT_ONCE: Final = 1_000


def acknowledge(lake: str | Path, incident_id: str, user: str, note: str | None = None) -> None:
    """Somebody deals with it, or has: its status becomes acknowledged."""
    _say(lake, incident_id, "acknowledged", user, note)


def reopen(lake: str | Path, incident_id: str, user: str, note: str | None = None) -> None:
    """Take an acknowledgement back."""
    _say(lake, incident_id, "reopened", user, note)


def mark_all(lake: str | Path, incident_ids: Sequence[str], user: str, *, done: bool) -> None:
    """Acknowledge several at once, or reopen them: all of them, or none when one is not there."""
    wanted = list(dict.fromkeys(incident_ids))
    if not 0 < len(wanted) <= _AT_ONCE:
        raise ConfigError(f"{len(wanted)} alerts at once are out of range: use 1 to {_AT_ONCE}")
    with connect(lake) as con:
        sql = (
            "SELECT DISTINCT incident_id FROM alert_events WHERE list_contains(?, incident_id) AND revision IS NOT NULL"
        )
        known = {found for (found,) in con.execute(sql, [wanted]).fetchall()}
    unknown = next((one for one in wanted if one not in known), None)
    if unknown is not None:
        raise ConfigError(f"alert {_clean(unknown, _NAME)!r} is not in lake {lake}; `engine alerts list` shows them")
    rows = [{"incident_id": one} for one in wanted]
    _write_rows(lake, "acknowledged" if done else "reopened", user, rows)


def note(lake: str | Path, incident_id: str, user: str, text: str) -> None:
    """Add a remark."""
    if not _clean(text, _TEXT):
        raise ConfigError("the note is empty; say something, or leave it out")
    _say(lake, incident_id, "note", user, text)


def mute(
    lake: str | Path, user: str, *, kind: str | None = None, src: str | None = None, dst: str | None = None,
    until: datetime | None = None, reason: str | None = None,
) -> None:  # fmt: skip
    """No new incidents of this kind, from this network, to that one; None is any. `until` None: until `unmute`."""
    if until is not None and until <= datetime.now(UTC).replace(tzinfo=None):
        raise ConfigError(f"mute until {until:%Y-%m-%d %H:%M} UTC is over already; give a later time")
    about = _muted(kind, src, dst)
    _write(lake, "muted", user, **about, until=until, note=_clean(reason, _TEXT) if reason else None)


def unmute(
    lake: str | Path, user: str, *, kind: str | None = None, src: str | None = None, dst: str | None = None
) -> None:
    """Take a mute back: the one of exactly this kind, source and destination."""
    about = _muted(kind, src, dst)
    if about not in [{name: m[name] for name in about} for m in mutes(lake)]:
        shown = " ".join(str(v or "any") for v in about.values())
        raise ConfigError(f"no mute of kind, source, destination {shown}; `engine alerts mutes` shows them")
    _write(lake, "unmuted", user, **about)


def mutes(lake: str | Path) -> list[dict[str, Any]]:
    """The mutes that hold, newest first, as in the view `mutes`."""
    with connect(lake) as con:
        return _dicts(con, "SELECT * FROM mutes WHERE active ORDER BY muted_at DESC", [])


def add(
    lake: str | Path, user: str, *, kind: str, severity: str, why: str, src: str | None = None, dst: str | None = None,
    flow_ids: Sequence[int] = (),
) -> str:  # fmt: skip
    """Enter an incident that no detector saw. Returns its id. A running engine passes it on: EVE, notifications."""
    if severity not in SEVERITIES:
        raise ConfigError(f"severity {severity!r} is unknown; use one of {', '.join(SEVERITIES)}")
    if not _clean(why, _TEXT):
        raise ConfigError("the reason is empty; say in a sentence what happened with --why")
    now = time.time_ns() // 1000
    incident_id = f"m{secrets.token_hex(5)}-1"
    _write(
        lake, "manual", user, incident_id=incident_id, revision=1, kind=_kind(kind), severity=severity, confidence=1.0,
        why=_clean(why, _TEXT), src_ip=_address("src", src), dst_ip=_address("dst", dst), first_seen=now, last_seen=now,
        count=1, evidence="{}", flow_ids=list(map(int, flow_ids[:_FLOWS])), packets=[],
    )  # fmt: skip
    return incident_id


def find(lake: str | Path, incident_id: str) -> dict[str, Any]:
    """The incident of this id, or the only one whose id begins so, as in the view `alerts`."""
    with connect(lake) as con:
        found = _dicts(con, "SELECT * FROM alerts WHERE incident_id = ?", [incident_id])
        found = found or _dicts(con, "SELECT * FROM alerts WHERE starts_with(incident_id, ?) LIMIT 2", [incident_id])
    shown = _clean(incident_id, _NAME)
    if not found or not incident_id:
        raise ConfigError(f"alert {shown!r} is not in lake {lake}; `engine alerts list` shows them")
    if len(found) > 1:
        raise ConfigError(f"alert {shown!r} is the beginning of several ids; give more of it")
    return found[0]


def history(lake: str | Path, incident_id: str) -> list[dict[str, Any]]:
    """What was done and said about an incident: ts, event, actor, severity, count, note; oldest first."""
    sql = """SELECT ts, event, actor, severity, "count", note FROM alert_events
             WHERE incident_id = ? ORDER BY ts, revision"""
    with connect(lake) as con:
        return _dicts(con, sql, [incident_id])


def _dicts(con: DuckDBPyConnection, sql: str, values: list[Any]) -> list[dict[str, Any]]:
    result = con.execute(sql, values)
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def _say(lake: str | Path, incident_id: str, event: str, user: str, text: str | None) -> None:
    """A word about an incident that exists."""
    with connect(lake) as con:
        known = con.execute(
            "SELECT 1 FROM alert_events WHERE incident_id = ? AND revision IS NOT NULL LIMIT 1", [incident_id]
        )
        if known.fetchone() is None:
            shown = _clean(incident_id, _NAME)
            raise ConfigError(f"alert {shown!r} is not in lake {lake}; `engine alerts list` shows them")
    _write(lake, event, user, incident_id=incident_id, note=_clean(text, _TEXT) if text else None)


def _write(lake: str | Path, event: str, user: str, **values: Any) -> None:
    _write_rows(lake, event, user, [values])


def _write_rows(lake: str | Path, event: str, user: str, rows: list[dict[str, Any]]) -> None:
    if not _clean(user, _NAME):
        raise ConfigError("the user is empty; say who does it")
    about = {"ts": time.time_ns() // 1000, "event": event, "actor": _clean(user, _NAME)}
    add_segment(require_lake(lake), "alert_events", OPERATORS, [{**about, **row} for row in rows])


def _muted(kind: str | None, src: str | None, dst: str | None) -> dict[str, str | None]:
    about = {"kind": kind and _kind(kind), "src_ip": _network("src", src), "dst_ip": _network("dst", dst)}
    if not any(about.values()):
        raise ConfigError("a mute of everything is refused; give a kind, a source or a destination")
    return about


def _kind(kind: str) -> str:
    name = _clean(kind, _NAME).strip()
    if not name:
        raise ConfigError("the kind is empty; use a word such as port_scan")
    return name


def _network(name: str, text: str | None) -> str | None:
    """An address or network in its usual form."""
    if text is None:
        return None
    try:
        network = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise ConfigError(f"--{name} {text!r} is no address or network; use 10.0.0.7 or 10.0.0.0/8") from None
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def _address(name: str, text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        raise ConfigError(f"--{name} {text!r} is no address; use one such as 10.0.0.7") from None


def _clean(text: str, limit: int) -> str:
    """On one line, without characters that move a cursor or hide text."""
    return "".join(
        c if c.isprintable() else " " if unicodedata.category(c) == "Zs" else "·" for c in text.strip()[:limit]
    )
