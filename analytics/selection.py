"""Which packets a command is about: a condition in SQL, flows, and a span of time.

    Selection(where="src_ip <<= '10.0.0.0/8'", since="5m").condition(con)  # what goes after WHERE

The text of `--where` is the operator's own, with the guards of `engine sql`: it must be one condition, so that it
can stand in parentheses and nothing in it reaches what is around them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from analytics.readonly import check
from engine.errors import ConfigError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_RELATIVE: Final = re.compile(r"(\d+(?:\.\d+)?) ?([smhd])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Rows of `packets` that fulfil everything given. Empty selects all.

    `where` is a SQL condition; None is not given. `flows` are flow_ids, any of which will do. `since` and `until`
    (exclusive) are ISO times in UTC, or so long ago: 30s, 5m, 2h, 1d.
    """

    where: str | None = None
    flows: tuple[int, ...] = ()
    since: str | None = None
    until: str | None = None

    def condition(self, con: DuckDBPyConnection) -> str:
        """The condition as SQL. Raises ConfigError, one line, for text that is no condition or no time."""
        parts = []
        now = datetime.now(UTC).replace(tzinfo=None)
        if self.since is not None:
            parts += _bound(parse_time("--since", self.since, now), ">")
        if self.until is not None:
            parts += _bound(parse_time("--until", self.until, now), "<")
        if self.flows:
            parts.append(f"flow_id IN ({', '.join(map(str, map(int, self.flows)))})")
        if self.where is not None:
            parts.append(f"({require_condition(con, self.where)}\n)")
        return " AND ".join(parts) or "true"


def require_condition(con: DuckDBPyConnection, text: str) -> str:
    """The text, if it is one SQL condition. Raises ConfigError, one line, if it is not.

    It must be SQL after WHERE both as it stands and in parentheses. As it stands, it closes no parenthesis that it
    has not opened; in parentheses, no further clause or statement is possible.
    """
    if not text.strip():
        raise ConfigError("--where '' is no condition; leave it out to select everything")
    for condition in (text, f"({text}\n)"):
        if len(check(con, f"SELECT 1 FROM packets WHERE {condition}")) != 1:  # noqa: S608 — parsed, not run
            raise ConfigError(f"--where {text!r} is more than one condition; join conditions with AND or OR")
    return text


def parse_time(option: str, text: str, now: datetime) -> datetime:
    """A time without zone, UTC. Raises ConfigError naming the option and the text."""
    relative = _RELATIVE.fullmatch(text.strip())
    try:
        if relative is not None:
            return now - timedelta(seconds=float(relative[1]) * _UNITS[relative[2]])
        given = datetime.fromisoformat(text.strip())
        return given if given.tzinfo is None else given.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{option} {text!r} is no time; use 2026-11-24T12:00:00 (UTC), or 30s, 5m, 2h, 1d for so long ago"
        ) from None


def _bound(time: datetime, side: str) -> list[str]:
    """The bound on `ts`, and on date and hour, so that segments of other hours are not opened."""
    day, equal = f"DATE '{time:%Y-%m-%d}'", "=" if side == ">" else ""
    return [
        f"ts {side}{equal} TIMESTAMP '{time.isoformat(' ')}'",
        f"(date {side} {day} OR date = {day} AND hour {side}= {time.hour})",
    ]
