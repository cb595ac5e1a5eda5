"""Spans of time: what the range control says, as microseconds, and the buckets of a chart over them.

parse("5m")                                   the last five minutes, moving with the clock (live)
parse("5m@newest")                            the last five minutes of the lake: how a replayed file is looked at
parse("1790000000000000,1790000300000000")    from, to: microseconds since the epoch, or ISO times (UTC)
parse("all")                                  everything there is
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from engine.errors import ConfigError

US: Final = 1_000_000
QUICK: Final = {
    "1m": 60,
    "5m": 300,
    "15m": 900,
    "1h": 3600,
    "6h": 21_600,
    "24h": 86_400,
    "7d": 604_800,
    "30d": 2_592_000,
}
DEFAULT: Final = "5m"
STEPS_S: Final = (
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800,
)  # fmt: skip
MAX_BUCKETS: Final = 180
SETTLE_S: Final = 2.0  # rows are on disk at most this long after their packets: later buckets are not complete yet
_OLDEST, _NEWEST = -(1 << 55), (1 << 57)  # about the years 828 and 6537: what DuckDB and datetime both know
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_RELATIVE: Final = re.compile(r"(\d{1,6})([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class TimeRange:
    """What was asked for. `seconds` of a relative one; `start_us` and `end_us` (exclusive) of an absolute one."""

    seconds: int = 0
    newest: bool = False
    start_us: int = 0
    end_us: int = 0
    everything: bool = False

    @property
    def live(self) -> bool:
        """Whether it moves with the clock."""
        return bool(self.seconds) and not self.newest

    @property
    def text(self) -> str:
        """As it is written in an address."""
        if self.everything:
            return "all"
        if self.seconds:
            quick = next((name for name, s in QUICK.items() if s == self.seconds), f"{self.seconds}s")
            return f"{quick}@newest" if self.newest else quick
        return f"{self.start_us},{self.end_us}"


@dataclass(frozen=True, slots=True)
class Span:
    """A range at a moment: microseconds since the epoch, `end_us` exclusive. `step_s`: of its chart's buckets."""

    start_us: int
    end_us: int
    live: bool
    step_s: int

    @property
    def seconds(self) -> float:
        return (self.end_us - self.start_us) / US

    @property
    def start(self) -> datetime:
        """UTC without a zone, as columns of the lake are."""
        return from_us(self.start_us)

    @property
    def end(self) -> datetime:
        return from_us(self.end_us)

    @property
    def first_bucket_s(self) -> int:
        """Where the chart begins: seconds since the epoch, a multiple of the step."""
        return self.start_us // US // self.step_s * self.step_s

    def buckets(self) -> int:
        """How many buckets the chart has; live, the one that is not complete yet is left out."""
        end_s = (self.end_us - (int(SETTLE_S * US) if self.live else 0)) / US
        whole = int((end_s - self.first_bucket_s) // self.step_s)
        if not self.live and whole * self.step_s < end_s - self.first_bucket_s:
            whole += 1
        return max(0, min(whole, MAX_BUCKETS + 2))


def parse(text: str | None) -> TimeRange:
    """Raises ConfigError, one line."""
    text = (text or DEFAULT).strip()
    if text == "all":
        return TimeRange(everything=True)
    relative, at, where = text.partition("@")
    found = _RELATIVE.fullmatch(relative)
    if found is not None and where in ("", "newest"):
        seconds = int(found[1]) * _UNITS[found[2]]
        if not 1 <= seconds <= 400 * 86_400:
            raise ConfigError(f"range {text!r} is out of range: use 1s to 400d")
        return TimeRange(seconds=seconds, newest=bool(at))
    first, comma, last = text.partition(",")
    if comma:
        start, end = _moment(first), _moment(last)
        if start >= end:
            raise ConfigError(f"range {text[:80]!r} ends before it begins; give FROM,TO")
        return TimeRange(start_us=start, end_us=end)
    raise ConfigError(f"range {text[:40]!r} is unknown; use {', '.join(QUICK)}, FROM,TO or all")


def _moment(text: str) -> int:
    text = text.strip()
    if text.lstrip("-").isdecimal() and text.isascii() and len(text) <= 20:
        value = int(text)
    else:
        try:
            given = datetime.fromisoformat(text)
        except ValueError:
            raise ConfigError(
                f"range: {text[:40]!r} is no time; use microseconds since the epoch, or 2026-11-24T12:00:00 (UTC)"
            ) from None
        value = to_us(given if given.tzinfo is not None else given.replace(tzinfo=UTC))
    if not _OLDEST < value < _NEWEST:
        raise ConfigError(f"range: {text[:40]!r} is out of range; use the years 1000 to 6000")
    return value


def resolve(asked: TimeRange, now: float, newest_us: int | None = None, bounds: tuple[int, int] | None = None) -> Span:
    """The range at a moment.

    Args:
        now: seconds since the epoch. Live ranges end at the next whole second; long ones every few seconds.
        newest_us: the lake's newest packet, for `@newest`.
        bounds: first and last packet of the lake, for `all`.
    """
    if asked.everything:
        first, last = bounds or (int(now * US) - US, int(now * US))
        return _span(first, max(first, last) + 1, live=False)
    if asked.seconds and asked.newest and newest_us is not None:
        end = -(-(newest_us + 1) // US) * US
        return _span(end - asked.seconds * US, end, live=False)
    if asked.seconds:
        grain = refresh_s(asked.seconds)
        end = (int(now) // grain + 1) * grain * US
        return _span(end - asked.seconds * US, end, live=True)
    return _span(asked.start_us, asked.end_us, live=False)


def refresh_s(seconds: float) -> int:
    """How often a live range of that length moves on."""
    return 1 if seconds <= 7200 else 5 if seconds <= 172_800 else 30


def step_for(seconds: float) -> int:
    """The shortest step that gives at most MAX_BUCKETS buckets."""
    return next((s for s in STEPS_S if seconds <= s * MAX_BUCKETS), int(seconds / MAX_BUCKETS) + 1)


def _span(start: int, end: int, live: bool) -> Span:
    return Span(start, end, live, step_for((end - start) / US))


def from_us(us: int) -> datetime:
    """UTC without a zone."""
    return (_EPOCH + timedelta(microseconds=us)).replace(tzinfo=None)


def to_us(moment: datetime) -> int:
    """Microseconds since the epoch of a time with a zone, or of one in UTC without."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)
