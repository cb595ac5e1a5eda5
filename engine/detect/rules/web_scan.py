"""One host asks a web server for many things that are not there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from engine.detect.finding import Finding
from engine.detect.rules.base import Count, Parameters, Recent, Rule

_MINUTE_US: Final = 60_000_000
_REFUSED: Final = frozenset((400, 401, 403, 404, 405, 410, 501))


@dataclass(frozen=True, slots=True, kw_only=True)
class WebScan(Parameters):
    """Distinct paths that a server refused one host within 60 to 120 s, and their share of all it asked for.

    Maltrail takes 10 and calls monitors scanners; a page with broken links has a few, and mostly works.
    """

    paths: int = 15
    refused_share: float = 0.6


class WebScanRule(Rule[WebScan]):
    name = "web_scan"
    parameters = WebScan
    tables = ("http",)
    columns = ("src_ip", "dst_ip", "dst_port", "ts", "flow_id", "status", "path")

    def __init__(self, p: WebScan) -> None:
        super().__init__(p)
        self._keys: Recent[tuple[Count, Count]] = Recent()

    def forget(self) -> None:
        self._keys.clear()

    def row(self, table: str, row: dict[str, Any]) -> Iterable[Finding]:
        status = row.get("status")
        if status is None or row.get("path") is None:
            return
        key = row["src_ip"], row["dst_ip"], row["dst_port"]
        bad, good = self._keys.get(key) or self._keys.put(key, (Count(), Count()))
        path = row["path"].partition("?")[0]
        if status not in _REFUSED:
            good.add(row["ts"], path, _MINUTE_US)
            return
        n = bad.add(row["ts"], path, _MINUTE_US)
        if n >= self.p.paths and n >= (n + len(good)) * self.p.refused_share:
            src, dst, port = key
            yield Finding(
                ts=row["ts"], kind=self.name, severity="medium", src_ip=src, dst_ip=dst, dst_port=port, proto=6,
                count=bad.times(), first_ts=bad.first_ts,
                why=f"{src} asked {dst} port {port} for {n} paths that it refused, and for {len(good)} that it has",
                evidence={"paths": n, "threshold": self.p.paths, "found": len(good), "example": path[:256]},
                flow_ids=(row["flow_id"],),
            )  # fmt: skip
