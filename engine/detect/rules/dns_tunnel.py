"""Names asked for that are data: many, long and random below one domain."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from engine.detect.finding import Finding
from engine.detect.rules.base import Count, Parameters, Recent, Rule

_MINUTE_US: Final = 60_000_000
_BINARY: Final = re.compile(r"\\\d")


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsTunnel(Parameters):
    """Distinct names below one domain that one host asks another for within 60 to 120 s, and the mean length
    (characters, without dots) and entropy (bits per character) of what is below the domain.

    Tunnels need as many bytes in names as they carry; content networks have names of 8 to 14 characters. Maltrail
    takes names of 24 or more with 3.5 bits. Reverse look-ups are left out. Of names so long that only data fills them,
    few are enough (the 253 characters of a name are 4 labels of 63), and so of names with bytes that no host name has
    (RFC 1123 2.1; written as \\ddd): iodine tries them first.
    """

    names: int = 20
    long_names: int = 6
    long_length: float = 120.0
    binary_names: int = 4
    mean_length: float = 18.0
    mean_entropy: float = 3.0


def entropy_of(text: str) -> float:
    """Shannon entropy, bits per character."""
    n = len(text)
    return -sum(c / n * math.log2(c / n) for c in Counter(text).values()) if n else 0.0


@lru_cache(4096)
def split_name(name: str) -> tuple[str, str]:
    """(what is below the registered domain, the domain). Two labels, or three where the second is short (co.uk)."""
    labels = name.rstrip(".").split(".")
    keep = 3 if len(labels) > 2 and len(labels[-2]) <= 3 and len(labels[-1]) == 2 else 2
    return "".join(labels[:-keep]), ".".join(labels[-keep:]).lower()


class DnsTunnelRule(Rule[DnsTunnel]):
    name = "dns_tunnel"
    parameters = DnsTunnel
    tables = ("dns",)
    columns = ("src_ip", "dst_ip", "dst_port", "ts", "flow_id", "query", "qtype")

    def __init__(self, p: DnsTunnel) -> None:
        super().__init__(p)
        self._keys: Recent[Count] = Recent()

    def forget(self) -> None:
        self._keys.clear()

    def row(self, table: str, row: dict[str, Any]) -> Iterable[Finding]:
        name = row.get("query")
        if not name or len(name) < self.p.mean_length:
            return
        below, domain = split_name(name)
        if not below or domain.endswith((".arpa", "local")):
            return
        key = row["src_ip"], row["dst_ip"], domain
        count = self._keys.get(key) or self._keys.put(key, Count(128))
        n = count.add(row["ts"], below, _MINUTE_US)
        is_binary = _BINARY.search(below) is not None
        rare = n < self.p.names and (is_binary or len(below) >= self.p.long_length)
        if n < min(self.p.long_names, self.p.binary_names) or (n % 5 and not rare):
            return
        names = count.values()
        length = sum(map(len, names)) / n
        entropy = sum(map(entropy_of, names)) / n
        enough = n >= self.p.names or (n >= self.p.long_names and length >= self.p.long_length)
        if not enough and is_binary:
            enough = sum(_BINARY.search(name) is not None for name in names) >= self.p.binary_names
        if enough and length >= self.p.mean_length and entropy >= self.p.mean_entropy:
            src, dst, _ = key
            yield Finding(
                ts=row["ts"], kind=self.name, severity="high", src_ip=src, dst_ip=dst, dst_port=row["dst_port"],
                proto=17, domain=domain, count=count.times(), first_ts=count.first_ts,
                why=f"{src} asked {dst} for {n} names below {domain}, {length:.0f} characters long on average with "
                f"{entropy:.1f} bits each",
                evidence={
                    "names": n, "threshold": self.p.names, "mean_length": round(length, 1),
                    "mean_entropy": round(entropy, 2), "qtype": row.get("qtype"), "example": name[:256],
                },
                flow_ids=(row["flow_id"],),
            )  # fmt: skip
