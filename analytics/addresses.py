"""What kind of address an address is, by the special-purpose registries."""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Source: IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890 and updates), RFC 5771, RFC 4291.
# Within a family, a later entry lies inside an earlier one or beside it.
_NETS: Final = {
    4: (
        ("0.0.0.0/0", "public"),
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared"),  # carrier-grade NAT, RFC 6598
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link_local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "documentation"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("255.255.255.255/32", "broadcast"),
    ),
    6: (
        ("::/0", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("64:ff9b::/96", "public"),  # IPv4 hosts behind NAT64, RFC 6052
        ("64:ff9b:1::/48", "private"),
        ("2000::/3", "public"),
        ("2001:2::/48", "benchmarking"),
        ("2001:10::/28", "reserved"),
        ("2001:db8::/32", "documentation"),
        ("3fff::/20", "documentation"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link_local"),
        ("ff00::/8", "multicast"),
    ),
}


def _boundaries(family: int) -> tuple[list[int], list[str]]:
    """Where a new kind begins, ascending, and which."""
    starts: dict[int, str] = {}
    outer: list[tuple[int, str]] = []  # (last address, kind) of the networks that enclose the current one
    for text, kind in _NETS[family]:
        net = ipaddress.ip_network(text)
        first, last = int(net.network_address), int(net.broadcast_address)
        while outer and outer[-1][0] < first:
            ended, _ = outer.pop()
            starts.setdefault(ended + 1, outer[-1][1])
        starts[first] = kind
        outer.append((last, kind))
    while len(outer) > 1:
        ended, _ = outer.pop()
        if ended < outer[-1][0]:
            starts.setdefault(ended + 1, outer[-1][1])
    ordered = sorted(starts.items())
    return [start for start, _ in ordered], [kind for _, kind in ordered]


_BOUNDARIES: Final = {family: _boundaries(family) for family in _NETS}


def parse(ip: str) -> Address | None:
    """The address a text is, else None. An IPv4 address inside an IPv6 one (::ffff:0:0/96) counts as itself."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def scope(address: Address) -> str:
    """public, private, shared, loopback, link_local, multicast, broadcast, documentation, benchmarking, unspecified
    or reserved.
    """
    starts, kinds = _BOUNDARIES[address.version]
    return kinds[bisect_right(starts, int(address)) - 1]
