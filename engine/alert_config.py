"""What the operator can set about alerts: incidents, what is not to become one, EVE output, notifications."""

from __future__ import annotations

import ipaddress
import re
import zoneinfo
from dataclasses import dataclass, field
from typing import Final

from engine.alert_row import SEVERITIES
from engine.toml_values import MASK, check, integers, secret, tables

_TIME: Final = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SYSLOG: Final = re.compile(r"udp://(\[[0-9A-Fa-f:.]+\]|[^:/\[\]\s]+)(:\d{1,5})?|unix:///.+")
FACILITIES: Final = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", *(f"local{n}" for n in range(8)),
)  # fmt: skip


def _severity(name: str, value: str, empty: bool = False) -> None:
    check(value in SEVERITIES or (empty and not value), name, value, f"use {', '.join(SEVERITIES)}")


def _networks(name: str, values: tuple[str, ...]) -> None:
    for value in values:
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError:
            check(False, name, value, "use an address or a network such as 10.0.0.0/8")


@dataclass(frozen=True, slots=True, kw_only=True)
class KindConfig:
    """What is different for one kind of incident. Cooldown 0 and severity "" leave the general one."""

    name: str = ""
    cooldown_s: float = 0.0
    severity: str = ""

    def __post_init__(self) -> None:
        check(bool(self.name), "alerts.kind.name", self.name, 'name a kind of incident, as in name = "beacon"')
        check(0 <= self.cooldown_s <= 86_400, "alerts.kind.cooldown_s", self.cooldown_s, "use 0 to 86400 seconds")
        _severity("alerts.kind.severity", self.severity, empty=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuppressConfig:
    """Findings that are not to become incidents. All conditions given must hold; a list holds when one of it does.

    `address` is either end. `domains` are names, or `*.example.com` for all below one. `time` is a daily range such as
    22:00-06:00, in `timezone`.
    """

    kinds: tuple[str, ...] = ()
    src: tuple[str, ...] = ()
    dst: tuple[str, ...] = ()
    address: tuple[str, ...] = ()
    ports: tuple[int, ...] = field(default=(), metadata=integers())
    domains: tuple[str, ...] = ()
    time: str = ""
    timezone: str = "UTC"
    reason: str = ""

    def __post_init__(self) -> None:
        given = (self.kinds, self.src, self.dst, self.address, self.ports, self.domains, self.time)
        check(any(given), "alerts.suppress", "{}", "give kinds, src, dst, address, ports, domains or time")
        for name in ("src", "dst", "address"):
            _networks(f"alerts.suppress.{name}", getattr(self, name))
        for port in self.ports:
            check(0 <= port <= 65_535, "alerts.suppress.ports", port, "use 0 to 65535")
        check(
            not self.time or _TIME.fullmatch(self.time) is not None,
            "alerts.suppress.time",
            self.time,
            "use HH:MM-HH:MM, as in 22:00-06:00",
        )
        try:
            zoneinfo.ZoneInfo(self.timezone)
            known = True
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            known = self.timezone == "UTC"  # a system without the database still knows this one
        check(known, "alerts.suppress.timezone", self.timezone, "use UTC or a name such as Europe/Berlin")


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertsConfig:
    """Incidents. One goes on while findings of its kind and addresses come within `cooldown_s`. At most
    `budget_per_hour` new ones above low (and `low_budget_per_hour` low ones); the rest is counted into one of the kind
    budget_exceeded. `max_open` bounds memory. Changes are written `update_s` apart at least."""

    cooldown_s: float = 60.0
    budget_per_hour: int = 60
    low_budget_per_hour: int = 300
    max_open: int = 2_000
    update_s: float = 5.0
    min_severity: str = "low"
    kind: tuple[KindConfig, ...] = field(default=(), metadata=tables(KindConfig))
    suppress: tuple[SuppressConfig, ...] = field(default=(), metadata=tables(SuppressConfig))

    def __post_init__(self) -> None:
        check(1 <= self.cooldown_s <= 86_400, "alerts.cooldown_s", self.cooldown_s, "use 1 to 86400 seconds")
        check(1 <= self.budget_per_hour <= 100_000, "alerts.budget_per_hour", self.budget_per_hour, "use 1 to 100000")
        check(
            0 <= self.low_budget_per_hour <= 100_000,
            "alerts.low_budget_per_hour",
            self.low_budget_per_hour,
            "use 0 to 100000",
        )
        check(1 <= self.max_open <= 100_000, "alerts.max_open", self.max_open, "use 1 to 100000")
        check(1 <= self.update_s <= 3_600, "alerts.update_s", self.update_s, "use 1 to 3600 seconds")
        _severity("alerts.min_severity", self.min_severity)


@dataclass(frozen=True, slots=True, kw_only=True)
class EveConfig:
    """Incidents as Suricata's EVE JSON: lines of `file`, moved aside at `rotate_mib` (the newest `keep` stay), and
    syslog messages (RFC 5424) to udp://HOST:PORT or unix:///PATH. `closed`: also when an incident has ended."""

    file: str = ""
    rotate_mib: int = 64
    keep: int = 4
    syslog: str = ""
    facility: str = "local0"
    min_severity: str = "low"
    closed: bool = False

    def __post_init__(self) -> None:
        check(1 <= self.rotate_mib <= 10_240, "eve.rotate_mib", self.rotate_mib, "use 1 to 10240 MiB")
        check(1 <= self.keep <= 1_000, "eve.keep", self.keep, "use 1 to 1000 files")
        check(
            not self.syslog or _SYSLOG.fullmatch(self.syslog) is not None,
            "eve.syslog",
            self.syslog,
            "use udp://HOST:PORT or unix:///dev/log",
        )
        check(self.facility in FACILITIES, "eve.facility", self.facility, f"use {', '.join(FACILITIES)}")
        _severity("eve.min_severity", self.min_severity)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetConfig:
    """One receiver. `url` is apprise's (slack://, discord://, mailtos://, jsons:// ...); `url_file` names a file that
    holds it instead. Incidents of these `kinds` (all, when empty) from `min_severity` on are sent when they open, and
    with `on_close` when they end; more than `burst` in a minute become one message."""

    name: str = ""
    url: str = field(default="", repr=False, metadata=secret())
    url_file: str = ""
    min_severity: str = "medium"
    kinds: tuple[str, ...] = ()
    on_close: bool = False
    burst: int = 10

    def __post_init__(self) -> None:
        where = "notify.targets"
        check(_NAME.fullmatch(self.name) is not None, f"{where}.name", self.name, "use letters, digits, . _ and -")
        check(bool(self.url or self.url_file), f"{where}.url", "", "give url, or url_file with a file that holds it")
        check("://" in (self.url or "://"), f"{where}.url", MASK, "use an apprise URL such as slack://TOKENS")
        hidden = MASK in self.url and not self.url_file
        check(not hidden, f"{where}.url", MASK, "this is how `engine config` hides it: put the real one in")
        check(1 <= self.burst <= 1_000, f"{where}.burst", self.burst, "use 1 to 1000 messages a minute")
        _severity(f"{where}.min_severity", self.min_severity)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyConfig:
    """Messages about incidents. At most `queue` wait for each target; those that wait longer than `give_up_h` go."""

    queue: int = 1_000
    give_up_h: float = 24.0
    targets: tuple[TargetConfig, ...] = field(default=(), metadata=tables(TargetConfig))

    def __post_init__(self) -> None:
        check(1 <= self.queue <= 100_000, "notify.queue", self.queue, "use 1 to 100000 messages")
        check(0.01 <= self.give_up_h <= 8_760, "notify.give_up_h", self.give_up_h, "use 0.01 to 8760 hours")
        names = [t.name for t in self.targets]
        twice = next((n for n in names if names.count(n) > 1), None)
        check(twice is None, "notify.targets.name", twice, "give each target a name of its own")
