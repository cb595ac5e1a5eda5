"""Addresses asked for under many names, until the server has none left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from engine.detect.finding import Finding
from engine.detect.rules.base import Count, Parameters, Rule

_INTERVAL_US: Final = 10_000_000
_ASKING: Final = ("DISCOVER", "REQUEST", "SOLICIT")


@dataclass(frozen=True, slots=True, kw_only=True)
class DhcpStarvation(Parameters):
    """Distinct client addresses that ask within 10 to 20 s. An office whose power comes back asks at its size, once;
    the usual tools ask hundreds of times a second."""

    clients: int = 50


class DhcpStarvationRule(Rule[DhcpStarvation]):
    name = "dhcp_starvation"
    parameters = DhcpStarvation
    tables = ("dhcp",)

    def __init__(self, p: DhcpStarvation) -> None:
        super().__init__(p)
        self._clients = Count(4096)

    def forget(self) -> None:
        self._clients = Count(4096)

    def row(self, table: str, row: dict[str, Any]) -> Iterable[Finding]:
        if not row.get("client_mac") or not str(row.get("message_type", "")).upper().endswith(_ASKING):
            return
        n = self._clients.add(row["ts"], row["client_mac"], _INTERVAL_US)
        if n >= self.p.clients:
            yield Finding(
                ts=row["ts"], kind=self.name, severity="high", dst_ip=row["dst_ip"], dst_port=67, proto=17,
                count=self._clients.times(), first_ts=self._clients.first_ts,
                why=f"{n} clients asked for an address within 20 s",
                evidence={"clients": n, "threshold": self.p.clients, "example": row["client_mac"]},
            )  # fmt: skip
