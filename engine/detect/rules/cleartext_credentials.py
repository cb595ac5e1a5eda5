"""A password that anybody on the way could read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from engine.detect.finding import Finding
from engine.detect.rules.base import Parameters, Recent, Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class CleartextCredentials(Parameters):
    """Told once per client, server and port in `again_s`: it is a habit, not an attack.

    Of SNMP nothing: its communities are in clear by design, and every poll would be an alert (table `snmp` has them).
    """

    again_s: float = 3600.0


class CleartextCredentialsRule(Rule[CleartextCredentials]):
    name = "cleartext_credentials"
    parameters = CleartextCredentials
    tables = ("http", "ftp", "smtp", "pop3", "imap", "ldap")
    columns = (
        "src_ip", "dst_ip", "dst_port", "ts", "flow_id", "auth", "has_credentials", "password_sent", "user",
        "auth_scheme", "host",
    )  # fmt: skip

    def __init__(self, p: CleartextCredentials) -> None:
        super().__init__(p)
        self._told: Recent[int] = Recent()

    def forget(self) -> None:
        self._told.clear()

    def row(self, table: str, row: dict[str, Any]) -> Iterable[Finding]:
        # What is read of SMTP's AUTH was not in TLS; other mechanisms than these two send no password.
        mechanism = row.get("auth") if table == "smtp" else None
        if not row.get("has_credentials") and not row.get("password_sent") and mechanism not in ("PLAIN", "LOGIN"):
            return
        user = row.get("user") or ""
        if table == "ftp" and user.lower() in ("anonymous", "ftp"):
            return
        key = row["src_ip"], row["dst_ip"], row["dst_port"]
        last = self._told.get(key)
        if last is not None and abs(row["ts"] - last) < self.p.again_s * 1e6:
            return
        self._told.put(key, row["ts"])
        src, dst, port = key
        detail = row.get("auth_scheme") or "URL" if table == "http" else row.get("auth") if table != "ftp" else ""
        how = f"{table.upper()} {detail or ''}".strip()
        yield Finding(
            ts=row["ts"], kind=self.name, severity="low", src_ip=src, dst_ip=dst, dst_port=port, proto=6,
            why=f"{src} sent a password in clear to {dst} port {port} ({how})",
            evidence={"application": table, "user": user or None, "host": row.get("host")},
            flow_ids=(row["flow_id"],),
        )  # fmt: skip
