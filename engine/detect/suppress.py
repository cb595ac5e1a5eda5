"""Which findings are not to become incidents: by kind, address, network, port, domain, time of day."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from engine.alert_config import SuppressConfig
from engine.detect.finding import Finding

_REMEMBERED: Final = 8_192  # addresses whose networks are known
_DAY_MIN: Final = 24 * 60


class Suppression:
    """One entry of the configuration, or one mute, ready to be asked."""

    def __init__(self, config: SuppressConfig, label: str) -> None:
        self.label = label
        self._kinds = frozenset(config.kinds)
        self._src = _within(config.src)
        self._dst = _within(config.dst)
        self._address = _within(config.address)
        self._ports = frozenset(config.ports)
        self._domains = tuple(d.lower().rstrip(".") for d in config.domains)
        self._time = _minutes(config.time)
        self._zone = UTC if config.timezone == "UTC" else ZoneInfo(config.timezone)

    def matches(self, finding: Finding) -> bool:
        """True when all conditions hold. What a finding lacks holds no condition."""
        return (
            (not self._kinds or finding.kind in self._kinds)
            and (self._src is None or self._src(finding.src_ip))
            and (self._dst is None or self._dst(finding.dst_ip))
            and (self._address is None or self._address(finding.src_ip) or self._address(finding.dst_ip))
            and (not self._ports or finding.dst_port in self._ports)
            and (not self._domains or self._in_domains(finding.domain))
            and (self._time is None or self._in_time(finding.ts, *self._time))
        )

    def _in_domains(self, domain: str | None) -> bool:
        if not domain:
            return False
        name = domain.lower().rstrip(".")
        return any(name.endswith(d[1:]) if d.startswith("*.") else name == d for d in self._domains)

    def _in_time(self, ts: int, begin: int, end: int) -> bool:
        try:
            at = datetime.fromtimestamp(ts // 1_000_000, UTC).astimezone(self._zone)
        except (ValueError, OverflowError, OSError):  # a packet's clock of another age
            return False
        now = at.hour * 60 + at.minute
        return begin <= now < end if begin < end else now >= begin or now < end


def suppressions(entries: Iterable[SuppressConfig]) -> tuple[Suppression, ...]:
    """Those of the configuration, each labelled with its number and reason."""
    return tuple(
        Suppression(e, f"alerts.suppress number {n}" + (f" ({e.reason})" if e.reason else ""))
        for n, e in enumerate(entries, 1)
    )


def _minutes(text: str) -> tuple[int, int] | None:
    """The two ends of HH:MM-HH:MM in minutes of the day."""
    if not text:
        return None
    begin, end = (int(part[:2]) * 60 + int(part[3:]) for part in text.split("-"))
    return (begin, end) if begin != end else (0, _DAY_MIN)


def _within(texts: tuple[str, ...]) -> Callable[[str | None], bool] | None:
    """A test for addresses in any of the networks; None without networks."""
    if not texts:
        return None
    networks = [ipaddress.ip_network(text, strict=False) for text in texts]

    @lru_cache(_REMEMBERED)
    def within(ip: str | None) -> bool:
        try:
            address = ipaddress.ip_address(ip or "")
        except ValueError:
            return False
        return any(address in network for network in networks)

    return within
