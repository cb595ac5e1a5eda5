"""Too many queries for one name server, or for names that do not exist below one domain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from engine.detect.finding import Finding
from engine.detect.rules.base import Count, Parameters, Recent
from engine.detect.rules.dns_tunnel import split_name
from engine.detect.rules.floods import Flood
from engine.detect.tick import Peaks, Tick
from engine.kernels import window_layout as w

_NOTEWORTHY: Final = 20  # queries a second, from which a server's usual rate is learned
_LEARN_US: Final = 5_000_000
_MINUTE_US: Final = 60_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsFlood(Parameters):
    """Queries to one host in each of two seconds in a row, and how many times more than it usually gets in a second.

    A household's resolver sees tens a second, for a moment more (a page, the start of a tunnel); a large one has its
    usual thousands, hence the factor. Or distinct names below one domain that a client asks for within 60 to 120 s and
    the share that does not exist (random subdomains, "water torture"): 120 of which 80 %. Queries longer on average
    than `mean_bytes` are a tunnel's.
    """

    queries_per_s: int = 100
    usual_factor: float = 4.0
    mean_bytes: int = 120
    missing_names: int = 120
    missing_share: float = 0.8


class DnsFloodRule(Flood):
    name = "dns_flood"
    parameters = DnsFlood
    tables = ("dns",)
    columns = ("src_ip", "dst_ip", "dst_port", "ts", "flow_id", "query", "rcode")

    def __init__(self, p: DnsFlood) -> None:
        super().__init__(p)
        self._names: Recent[tuple[Count, Count]] = Recent()
        self._usual: Recent[list[float]] = Recent(4096)  # by host: queries a second, the last second with too many

    def forget(self) -> None:
        self._usual.clear()
        self._names.clear()

    def may_find(self, peaks: Peaks) -> bool:
        return peaks.hosts[w.C_IN_DNS] >= _NOTEWORTHY

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        tick = tick.of_hosts(w.C_IN_DNS, _NOTEWORTHY)
        h, p = tick.hosts, self.p
        now = (tick.ts - 1) // 1_000_000
        for n in np.flatnonzero(h[:, w.C_IN_DNS] >= _NOTEWORTHY).tolist():
            number, queries = tick.host_word(n, w.H_ID), int(h[n, w.C_IN_DNS])
            known = self._usual.get(number)
            if known is None:
                fresh = tick.ts - tick.host_word(n, w.H_FIRST) // 1000 < _LEARN_US
                known = self._usual.put(number, [queries if fresh else 0, 0])
            usual, before = known
            long = h[n, w.C_IN_PAYLOAD] > h[n, w.C_IN_PACKETS] * p.mean_bytes
            if long or queries < p.queries_per_s or queries < usual * p.usual_factor:
                if second:
                    known[0] += 0.1 * (queries - usual)
            elif before == now - 1:
                known[1] = now if second else before
                yield self._found(tick, n, queries, usual)
            elif second:
                known[1] = now

    def _found(self, tick: Tick, n: int, queries: int, usual: float) -> Finding:
        return self.finding(
            tick, n, queries, 17, "DNS queries", threshold=self.p.queries_per_s, usual_per_s=round(usual, 1)
        )

    def row(self, table: str, row: dict[str, Any]) -> Iterable[Finding]:
        name = row.get("query")
        if not name:
            return
        below, domain = split_name(name)
        if not below or below.isdigit() or domain.endswith((".arpa", "local")):  # digits: block lists of mail servers
            return
        key = row["src_ip"], row["dst_ip"], domain
        missing, there = self._names.get(key) or self._names.put(key, (Count(256), Count(256)))
        if row.get("rcode") not in ("NXDOMAIN", "SERVFAIL", "REFUSED", None):
            there.add(row["ts"], below, _MINUTE_US)
            return
        n = missing.add(row["ts"], below, _MINUTE_US)
        if n >= self.p.missing_names and n >= (n + len(there)) * self.p.missing_share:
            src, dst, _ = key
            yield Finding(
                ts=row["ts"], kind=self.name, severity="medium", dst_ip=dst, dst_port=row["dst_port"], proto=17,
                domain=domain, count=missing.times(), first_ts=missing.first_ts,
                why=f"{src} asked {dst} for {n} names below {domain} that do not exist",
                evidence={"names": n, "threshold": self.p.missing_names, "client": src, "example": name[:256]},
                flow_ids=(row["flow_id"],),
            )  # fmt: skip
