"""Guessing of passwords: refused log-ins, counted within sessions and answers, on any port."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from engine.detect.finding import Finding
from engine.detect.rules.base import Count, Parameters, Recent, Rule, port_of
from engine.detect.tick import Peaks, Tick
from engine.kernels import window_layout as w

_MINUTE_US: Final = 60_000_000
_LOGIN: Final = re.compile(r"log-?in|logon|sign-?in|auth|session|passw|token", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SshBruteforce(Parameters):
    """Refused log-ins of one host at another within 60 to 120 s, told from the lengths of encrypted replies: all, and
    those after the third of a session.

    ssh asks a user three times, so who mistypes has few beyond that however often he comes back; sshd allows 6, one of
    which is the client's question for methods, so a tool that uses a session up has two or three. 5 are two sessions.
    Tools that try once per connection need 30 (as many as Zeek's in 30 minutes).
    """

    refusals: int = 30
    refusals_after_third: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpBruteforce(Parameters):
    """Requests of one host for one path within 60 to 120 s that were answered 401 or 403, or that sent a log-in form;
    and how many other answers there may be for each: negotiated log-ins (NTLM) begin with 401 and end well.
    """

    attempts: int = 8
    success_share: float = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class FtpBruteforce(Parameters):
    """Passwords of one host refused (530) by another within 60 to 120 s. Zeek takes 20 in 15 minutes."""

    refusals: int = 8


class SshBruteforceRule(Rule[SshBruteforce]):
    name = "ssh_bruteforce"
    parameters = SshBruteforce

    def may_find(self, peaks: Peaks) -> bool:
        return peaks.pairs[w.Q_SSH] >= self.p.refusals or peaks.pairs[w.Q_SSH_MORE] >= self.p.refusals_after_third

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        q = tick.pairs
        hit = (q[:, w.Q_SSH] >= self.p.refusals) | (q[:, w.Q_SSH_MORE] >= self.p.refusals_after_third)
        for n in np.flatnonzero(hit).tolist():
            src, dst = tick.pair(n)
            _, port = port_of(tick.pair_word(n, w.P_SSH_PORT))
            refused, more = int(q[n, w.Q_SSH]), int(q[n, w.Q_SSH_MORE])
            yield Finding(
                ts=tick.ts, kind=self.name, severity="high", src_ip=src, dst_ip=dst, dst_port=port, proto=6,
                count=refused if refused >= self.p.refusals else more,
                first_ts=tick.window_start(tick.pair_word(n, w.P_FIRST)), source=tick.source,
                why=f"{dst} port {port} refused {refused} SSH log-ins from {src}",
                evidence={
                    "refusals": refused, "threshold": self.p.refusals, "refusals_after_third": more,
                    "threshold_after_third": self.p.refusals_after_third,
                },
            )  # fmt: skip


class HttpBruteforceRule(Rule[HttpBruteforce]):
    name = "http_bruteforce"
    parameters = HttpBruteforce
    tables = ("http",)
    columns = ("src_ip", "dst_ip", "dst_port", "ts", "flow_id", "path", "status", "method", "host")

    def __init__(self, p: HttpBruteforce) -> None:
        super().__init__(p)
        self._keys: Recent[tuple[Count, Count]] = Recent()

    def forget(self) -> None:
        self._keys.clear()

    def row(self, table: str, row: dict[str, Any]) -> Iterable[Finding]:
        path, status = (row.get("path") or "").partition("?"), row.get("status")
        refused = status in (401, 403)
        form = row.get("method") == "POST" or "pass" in path[2].lower()
        attempt = refused or (form and _LOGIN.search(path[0]) is not None)
        key = row["src_ip"], row["dst_ip"], row["dst_port"], path[0]
        counts = self._keys.get(key)
        if counts is None:
            if not attempt:
                return
            counts = self._keys.put(key, (Count(), Count()))
        tried, other = counts
        (tried if attempt else other).add(row["ts"], status, _MINUTE_US)
        attempts = tried.times()
        if attempt and attempts >= self.p.attempts and other.times() <= attempts * self.p.success_share:
            src, dst, port, _ = key
            yield Finding(
                ts=row["ts"], kind=self.name, severity="high", src_ip=src, dst_ip=dst, dst_port=port, proto=6,
                count=attempts, first_ts=tried.first_ts,
                why=f"{src} tried to log in {attempts} times at {dst} port {port}, {path[0][:80]}",
                evidence={
                    "attempts": attempts, "threshold": self.p.attempts, "path": path[0][:256],
                    "statuses": sorted(s for s in tried.values() if s is not None), "host": row.get("host"),
                },
                flow_ids=(row["flow_id"],),
            )  # fmt: skip


class FtpBruteforceRule(Rule[FtpBruteforce]):
    name = "ftp_bruteforce"
    parameters = FtpBruteforce
    tables = ("ftp",)

    def __init__(self, p: FtpBruteforce) -> None:
        super().__init__(p)
        self._keys: Recent[Count] = Recent()

    def forget(self) -> None:
        self._keys.clear()

    def row(self, table: str, row: dict[str, Any]) -> Iterable[Finding]:
        if row.get("command") != "PASS" or row.get("reply_code") not in (430, 530):
            return
        key = row["src_ip"], row["dst_ip"], row["dst_port"]
        count = self._keys.get(key) or self._keys.put(key, Count())
        count.add(row["ts"], row.get("user"), _MINUTE_US)
        if count.times() >= self.p.refusals:
            src, dst, port = key
            yield Finding(
                ts=row["ts"], kind=self.name, severity="high", src_ip=src, dst_ip=dst, dst_port=port, proto=6,
                count=count.times(), first_ts=count.first_ts,
                why=f"{dst} port {port} refused {count.times()} FTP passwords from {src}",
                evidence={"refusals": count.times(), "threshold": self.p.refusals, "users": len(count)},
                flow_ids=(row["flow_id"],),
            )  # fmt: skip
