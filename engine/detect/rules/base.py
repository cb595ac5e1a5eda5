"""What a rule is: parameters with reasons, a look at each tick of the windows, and at the rows that parsers make."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from engine.detect.finding import Finding
from engine.detect.tick import Peaks, Tick


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What the operator can set for a rule: `[rules.NAME]` in the configuration file."""

    enabled: bool = True


P = TypeVar("P", bound=Parameters)


class Rule(Generic[P]):
    """A rule. `tables`: the application tables whose rows it wants; `columns`: what it reads of them, which in rules
    of this package makes them faster; none stands for all. State that it keeps is bounded (`Recent`)."""

    name: ClassVar[str]
    parameters: ClassVar[type[Parameters]]
    tables: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar[tuple[str, ...]] = ()

    def __init__(self, p: P) -> None:
        self.p = p

    def may_find(self, peaks: Peaks) -> bool:
        """False where `look` at a tick with these peaks would neither find nor learn anything: it is not called."""
        return True

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        """At the end of a tick; `second`: a second has ended with it."""
        return ()

    def row(self, table: str, row: dict[str, Any]) -> Iterable[Finding]:
        """A row of an application's table."""
        return ()

    def forget(self) -> None:
        """The source has ended: the next one may be of another time."""


V = TypeVar("V")


class Recent(Generic[V]):
    """A dictionary of what was used lately: beyond `limit` the entry that was not used for longest goes."""

    def __init__(self, limit: int = 16_384) -> None:
        self._items: OrderedDict[Any, V] = OrderedDict()
        self._limit = limit
        self.dropped = 0

    def get(self, key: Any) -> V | None:
        """The value, which counts as used."""
        value = self._items.get(key)
        if value is not None:
            self._items.move_to_end(key)
        return value

    def put(self, key: Any, value: V) -> V:
        """Keep a value."""
        self._items[key] = value
        self._items.move_to_end(key)
        if len(self._items) > self._limit:
            self._items.popitem(last=False)
            self.dropped += 1
        return value

    def clear(self) -> None:
        self._items.clear()

    def __len__(self) -> int:
        return len(self._items)


class Count:
    """Distinct values of this interval and the one before, by the rows' own times; bounded at `most` values."""

    __slots__ = ("_at", "_last", "_now", "first_ts", "most")

    def __init__(self, most: int = 512) -> None:
        self._at: int | None = None
        self._now: dict[Any, int] = {}
        self._last: dict[Any, int] = {}
        self.first_ts = 0
        self.most = most

    def add(self, ts: int, value: Any, interval_us: int) -> int:
        """Note a value; returns how many distinct ones there are. A time that jumps begins anew."""
        at = ts // interval_us
        if at != self._at:
            self._last = self._now if self._at is not None and at == self._at + 1 else {}
            self._now = {}
            self.first_ts = self.first_ts if self._last else ts
            self._at = at
        if len(self._now) < self.most or value in self._now:
            self._now[value] = self._now.get(value, 0) + 1
        return len(self)

    def __len__(self) -> int:
        return len(self._now.keys() | self._last.keys()) if self._last else len(self._now)

    def values(self) -> list[Any]:
        """The distinct values."""
        return list(self._now.keys() | self._last.keys())

    def times(self) -> int:
        """How often values were noted."""
        return sum(self._now.values()) + sum(self._last.values())


PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}


def port_of(word: int) -> tuple[int, int | None]:
    """(protocol, port) of a word of the windows; ICMP has no port."""
    proto, port = word >> 16, word & 0xFFFF
    return proto, port if proto in (6, 17, 132) else None
