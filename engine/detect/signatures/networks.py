"""Addresses and ports of a rule's header: lists, negation, networks, ranges, variables."""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from engine.detect.signatures.syntax import Refused

_V4_ALL: Final = (0, (1 << 32) - 1)
_V6_ALL: Final = (0, (1 << 128) - 1)
_DEPTH: Final = 16

Intervals = list[tuple[int, int]]
Leaf = Callable[[str], tuple[int, int] | None]

# As in the file suricata.yaml that Suricata ships; HOME_NET comes from the configuration.
ADDRESS_VARIABLES: Final = {
    "EXTERNAL_NET": "!$HOME_NET",
    "AIM_SERVERS": "$EXTERNAL_NET",
    **dict.fromkeys(
        (
            "HTTP_SERVERS", "SMTP_SERVERS", "SQL_SERVERS", "DNS_SERVERS", "TELNET_SERVERS", "DC_SERVERS", "DNP3_SERVER",
            "DNP3_CLIENT", "MODBUS_CLIENT", "MODBUS_SERVER", "ENIP_CLIENT", "ENIP_SERVER",
        ),
        "$HOME_NET",
    ),
}  # fmt: skip
PORT_VARIABLES: Final = {
    "HTTP_PORTS": "80", "SHELLCODE_PORTS": "!80", "ORACLE_PORTS": "1521", "SSH_PORTS": "22", "DNP3_PORTS": "20000",
    "MODBUS_PORTS": "502", "FILE_DATA_PORTS": "[$HTTP_PORTS,110,143]", "FTP_PORTS": "21", "GENEVE_PORTS": "6081",
    "VXLAN_PORTS": "4789", "TEREDO_PORTS": "3544",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Addresses:
    """A set of addresses; `any` when it holds all."""

    any: bool
    v4: tuple[tuple[int, int], ...] = ()
    v6: tuple[tuple[int, int], ...] = ()

    def holds(self, address: int, is_v6: bool) -> bool:
        """Whether the address is in the set."""
        return self.any or _within(self.v6 if is_v6 else self.v4, address)


@dataclass(frozen=True, slots=True)
class Ports:
    """A set of ports."""

    any: bool
    ranges: tuple[tuple[int, int], ...] = ()

    def holds(self, port: int | None) -> bool:
        """Whether the port is in the set; what has no ports is in `any` only."""
        return self.any or (port is not None and _within(self.ranges, port))


def _within(intervals: tuple[tuple[int, int], ...], value: int) -> bool:
    at = bisect_right(intervals, (value, 1 << 130)) - 1
    return at >= 0 and intervals[at][1] >= value


def parse_addresses(text: str, variables: Mapping[str, str]) -> Addresses:
    """`any`, an address, a network, $NAME, !x, [x,!y,...]. Raises Refused."""
    names = {**ADDRESS_VARIABLES, **variables}
    v4 = _evaluate(text, names, lambda word: _network(word, 4), _V4_ALL, 0)
    v6 = _evaluate(text, names, lambda word: _network(word, 6), _V6_ALL, 0)
    if not v4 and not v6:
        raise Refused(f"address {text}: no address is in it")
    return Addresses(v4 == [_V4_ALL] and v6 == [_V6_ALL], tuple(v4), tuple(v6))


def parse_ports(text: str, variables: Mapping[str, str]) -> Ports:
    """`any`, a port, low:high, $NAME, !x, [x,!y,...]. Raises Refused."""
    ranges = _evaluate(text, {**PORT_VARIABLES, **variables}, _port_range, (0, 65535), 0)
    if not ranges:
        raise Refused(f"port {text}: no port is in it")
    return Ports(ranges == [(0, 65535)], tuple(ranges))


def _evaluate(text: str, names: Mapping[str, str], leaf: Leaf, everything: tuple[int, int], depth: int) -> Intervals:
    """The set as disjoint intervals in order."""
    text = text.strip()
    if depth > _DEPTH:
        raise Refused(f"{text[:40]}: nested too deeply")
    if text.startswith("!"):
        return _complement(_evaluate(text[1:], names, leaf, everything, depth + 1), everything)
    if text == "any":
        return [everything]
    if text.startswith("$"):
        if text[1:] not in names:
            raise Refused(f"variable {text} is not known")
        return _evaluate(names[text[1:]], names, leaf, everything, depth + 1)
    if text.startswith("["):
        if not text.endswith("]"):
            raise Refused(f"{text[:40]}: a bracket is missing")
        return _list(_split(text[1:-1]), names, leaf, everything, depth)
    found = leaf(text)
    return [found] if found else []


def _list(parts: list[str], names: Mapping[str, str], leaf: Leaf, everything: tuple[int, int], depth: int) -> Intervals:
    """What stands plainly (everything if nothing does) without what is negated."""
    plain: Intervals = []
    minus: Intervals = []
    for part in parts:
        inner = _evaluate(part.removeprefix("!"), names, leaf, everything, depth + 1)
        if part.startswith("!"):
            minus += inner
        else:
            plain += inner
    if all(part.startswith("!") for part in parts):
        plain = [everything]
    keep = _complement(_merge(minus), everything)
    return _merge([(max(a, c), min(b, d)) for a, b in _merge(plain) for c, d in keep if max(a, c) <= min(b, d)])


def _split(text: str) -> list[str]:
    """At commas outside brackets."""
    parts, part, level = [], "", 0
    for c in text:
        level += (c == "[") - (c == "]")
        if c == "," and not level:
            parts.append(part.strip())
            part = ""
        else:
            part += c
    return [*parts, part.strip()]


def _merge(intervals: Intervals) -> Intervals:
    out: Intervals = []
    for low, high in sorted(intervals):
        if out and low <= out[-1][1] + 1:
            out[-1] = out[-1][0], max(out[-1][1], high)
        else:
            out.append((low, high))
    return out


def _complement(intervals: Intervals, everything: tuple[int, int]) -> Intervals:
    out, at = [], everything[0]
    for low, high in _merge(intervals):
        if low > at:
            out.append((at, low - 1))
        at = high + 1
    return [*out, (at, everything[1])] if at <= everything[1] else out


def _network(word: str, version: int) -> tuple[int, int] | None:
    """First and last address; None for one of the other version."""
    try:
        if "-" in word:
            first, last = (ipaddress.ip_address(w.strip()) for w in word.split("-"))
            if first.version != last.version or int(first) > int(last):
                raise ValueError
            return (int(first), int(last)) if first.version == version else None
        net = ipaddress.ip_network(word, strict=False)
    except ValueError:
        raise Refused(f"address {word[:60]!r} is none") from None
    return (int(net[0]), int(net[-1])) if net.version == version else None


def _port_range(word: str) -> tuple[int, int]:
    low, colon, high = word.partition(":")
    first = low.strip() or ("0" if colon else "")
    last = (high.strip() or "65535") if colon else first
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last) <= 65535 and word.isascii()):
        raise Refused(f"port {word[:40]!r} is none")
    return int(first), int(last)
