"""A rule as it is evaluated: what its header admits, what its payload or application row must hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from engine.detect.signatures.networks import Addresses, Ports
from engine.detect.signatures.regex import Regex
from engine.detect.signatures.scanner import Pattern

# Buffers of application rows: the tables and the column that fill them.
STICKY: Final = {
    "dns.query": (("dns", "query"),),
    "tls.sni": (("tls", "sni"), ("quic", "sni")),
    "ja3.hash": (("tls", "ja3"), ("quic", "ja3")),
    "ja4.hash": (("tls", "ja4"), ("quic", "ja4")),
    "http.host": (("http", "host"),),
    "http.uri": (("http", "path"),),
    "http.uri.raw": (("http", "path"),),
    "http.method": (("http", "method"),),
    "http.user_agent": (("http", "user_agent"),),
}
PAYLOAD: Final = ""  # the buffer of contents that stand in no other


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Bytes to find, or not to find, in a buffer. `low` is compared with the buffer in lower case."""

    data: bytes
    buffer: str = PAYLOAD
    negated: bool = False
    nocase: bool = False
    offset: int = 0
    depth: int | None = None
    distance: int | None = None
    within: int | None = None
    startswith: bool = False
    endswith: bool = False
    fast: bool = False

    @property
    def relative(self) -> bool:
        """It counts from the end of the match before."""
        return self.distance is not None or self.within is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pcre:
    """A regular expression to find, or not to find; `relative`: behind the match before."""

    regex: Regex
    buffer: str = PAYLOAD
    negated: bool = False
    relative: bool = False


Item = Content | Pcre


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Flags:
    """TCP flags: `wanted` under `mask`; mode "=" exactly, "+" and perhaps others, "*" any of them, "!" none of them."""

    wanted: int
    mask: int
    mode: str

    def hold(self, flags: int) -> bool:
        """Whether a packet with these flags fits."""
        flags &= self.mask
        if self.mode == "+":
            return flags & self.wanted == self.wanted
        if self.mode == "*":
            return flags & self.wanted != 0
        return flags & self.wanted == 0 if self.mode == "!" else flags == self.wanted


@dataclass(frozen=True, slots=True)
class Threshold:
    """How often a rule may report: limit, threshold or both, by source or destination."""

    kind: str
    by_src: bool
    count: int
    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. `protos`: IP protocol numbers, empty for any. `app`: application the flow must have, "" for any.

    `to_server`, `established`: what the flow must be, None for either. `table_buffers`: it is about application rows.
    """

    sid: int
    rev: int
    message: str
    kind: str
    severity: str
    origin: str
    protos: frozenset[int] = frozenset()
    app: str = ""
    src: Addresses
    src_ports: Ports
    dst: Addresses
    dst_ports: Ports
    both_ways: bool = False
    to_server: bool | None = None
    established: bool | None = None
    items: tuple[Item, ...] = ()
    sizes: tuple[tuple[str, Range], ...] = ()  # of application buffers
    dsize: Range | None = None
    itype: Range | None = None
    icode: Range | None = None
    flags: Flags | None = None
    threshold: Threshold | None = None
    target: str = ""
    classtype: str = ""
    reference: tuple[str, ...] = ()

    @property
    def buffers(self) -> frozenset[str]:
        """The application buffers its items look at; empty: payloads."""
        return (frozenset(item.buffer for item in self.items) | {b for b, _ in self.sizes}) - {PAYLOAD}

    @property
    def tables(self) -> frozenset[str]:
        """The application tables whose rows have all of its buffers."""
        tables = [{table for table, _ in STICKY[b]} for b in self.buffers]
        return frozenset(set.intersection(*tables)) if tables else frozenset()


def fast_item(rule: Rule) -> Item | None:
    """What the scanner looks for: the content marked, the longest one, or a regular expression; None: every packet."""
    contents = [i for i in rule.items if isinstance(i, Content) and not i.negated]
    if contents:
        return max(contents, key=lambda c: (c.fast, len(c.data)))
    return next((i for i in rule.items if isinstance(i, Pcre) and not i.negated), None)


def pattern_of(item: Item) -> Pattern:
    """The item as a scanner's pattern."""
    if isinstance(item, Content):
        return Pattern(item.data, item.nocase)
    return Pattern(regex=item.regex)
