"""The fields of filters, and what each means as SQL for every table.

A field says which columns of a table it is about; a table that has none of them cannot apply it, and the answer names
the term as ignored. Values reach SQL as parameters, never as text.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from analytics.countries import COUNTRIES
from analytics.watch.application_fields import APPLICATION_FIELDS
from engine.constants import ETHERTYPE_ARP, PROTO_NAMES
from engine.packets import STATUS_NAMES
from engine.tables import TABLES

Value = Any
Condition = tuple[str, list[Any]]  # SQL with ? for each value, in order
NONE: Final = "none"  # a value that stands for absent
PROTOS: Final = {name.lower(): number for number, name in PROTO_NAMES.items()} | {"icmp6": 58}
_NAME: Final = {number: name.lower() for number, name in PROTO_NAMES.items()}
_INT64: Final = (1 << 63) - 1
_ISO2: Final = {iso3: iso2 for iso2, (iso3, _) in COUNTRIES.items()}


@dataclass(frozen=True, slots=True)
class Span:
    """Numbers from `low` to `high`, both inside."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Field:
    """`parse` makes a value of a text or raises ValueError with what is expected; `text` writes it back.

    `columns` are the names to look for in a table, in order: every one that it has is compared, and any may fit.
    """

    meaning: str
    parse: Callable[[str], Value]
    text: Callable[[Value], str]
    condition: Callable[[str, Value], Condition]
    columns: tuple[str, ...]
    operators: tuple[str, ...] = ("=",)
    tables: tuple[str, ...] = ()  # the only ones that know it; other rows are meant by their flow


# --- values ----------------------------------------------------------------------------------------------------------


def _address(text: str) -> Value:
    try:
        if "/" in text:
            return ipaddress.ip_network(text, strict=False)
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("an address or a network such as 10.0.0.7, 2001:db8::1 or 10.0.0.0/8") from None
    if getattr(address, "scope_id", None):
        raise ValueError("an address without a zone")
    return address


def _network(text: str) -> Value:
    value = _address(text)
    return value if hasattr(value, "prefixlen") else ipaddress.ip_network(value)


def _port(text: str) -> Value:
    low, dash, high = text.partition("-")
    if not (low.isdecimal() and low.isascii() and (not dash or (high.isdecimal() and high.isascii()))):
        raise ValueError("a port or a range such as 443 or 8000-8999")
    span = Span(_bounded(low, 65535), _bounded(high or low, 65535))
    if span.low > span.high:
        raise ValueError("a range whose first port is the lower one")
    return span


def _bounded(text: str, most: int) -> int:
    number = int(text) if len(text) <= 20 else most + 1
    if number > most:
        raise ValueError(f"a number up to {most}")
    return number


def _proto(text: str) -> Value:
    name = text.lower()
    if name == "arp":
        return "arp"
    if name in PROTOS:
        return PROTOS[name]
    if name.isdecimal() and name.isascii():
        return _bounded(name, 255)
    raise ValueError("tcp, udp, icmp, arp and so on, or a protocol number")


def _word(text: str) -> Value:
    return None if text.lower() == NONE else text.lower()


def _exact(text: str) -> Value:
    return text


def _country(text: str) -> Value:
    name = text.upper()
    if name in ("NONE", "PRIVATE"):
        return name.lower()
    name = _ISO2.get(name, name)
    if not re.fullmatch("[A-Z]{2}", name):
        raise ValueError("a code of two or three letters such as DE or DEU, or private, or none")
    return name


def _integer(text: str) -> Value:
    digits = text.removeprefix("-")
    if not (digits.isdecimal() and digits.isascii()):
        raise ValueError("a whole number")
    return int(text) if abs(_bounded(digits, _INT64)) else 0


def _share(text: str) -> Value:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise ValueError("a number from 0 to 1")
    return number


# --- SQL -------------------------------------------------------------------------------------------------------------


def _is_address(column: str, value: Value) -> Condition:
    """As `in_net` of analytics/sql/addresses.sql, but with the pattern made here: planning that macro takes 35 ms."""
    if not hasattr(value, "prefixlen"):
        return f"{column} = ?", [str(value)]
    if value.version == 4:
        return f"regexp_full_match({column}, ?)", [_pattern4(value)]
    # The digits are those of any text: an address of the other family is told by its colons.
    return (
        f"(contains({column}, ':') AND starts_with(_hex6({column}), ?) AND _hex6({column})[?:?] BETWEEN ? AND ?)",
        _digits6(value),
    )


def _pattern4(net: Value) -> str:
    """Whole octets, then the alternatives that the prefix leaves of the next one, then anything."""
    octets = str(net.network_address).split(".")
    whole, bits = divmod(net.prefixlen, 8)
    parts = octets[:whole]
    if bits:
        first = int(octets[whole])
        parts.append(f"(?:{'|'.join(map(str, range(first, first + (1 << (8 - bits)))))})")
    return r"\.".join([*parts, *["[0-9]{1,3}"] * (4 - len(parts))])


def _digits6(net: Value) -> list[Any]:
    """The hex digits that the prefix fixes whole; place, lowest and highest of the one that it fixes in part."""
    digits = f"{int(net.network_address):032x}"
    whole, bits = divmod(net.prefixlen, 4)
    if not bits:  # any digit will do; a prefix of 128 bits has none left, and '' is between '' and 'f'
        return [digits[:whole], whole + 1, whole + 1, "", "f"]
    low = int(digits[whole], 16)
    return [digits[:whole], whole + 1, whole + 1, f"{low:x}", f"{low + (1 << (4 - bits)) - 1:x}"]


def _is_port(column: str, value: Value) -> Condition:
    if value.low == value.high:
        return f"{column} = ?", [value.low]
    return f"{column} BETWEEN ? AND ?", [value.low, value.high]


def _is_proto(column: str, value: Value) -> Condition:
    """Of the two columns only one can say it: ARP has an EtherType, all others a protocol number."""
    if (value == "arp") != (column == "ethertype"):
        return "false", []
    return (f"{column} = ?", [ETHERTYPE_ARP if value == "arp" else value])


def _is_word(column: str, value: Value) -> Condition:
    return (f"{column} IS NULL", []) if value is None else (f"lower({column}) = ?", [value])


def _is_app(column: str, value: Value) -> Condition:
    """Applications are lower case in the lake: compared as they are, so that Parquet's statistics help."""
    return (f"{column} IS NULL", []) if value is None else (f"{column} = ?", [value])


def _is_name(column: str, value: Value) -> Condition:
    """A name, or with `*.` in front everything below it, the name itself included."""
    if value is not None and value.startswith("*."):
        name = f"rtrim(lower({column}), '.')"
        return f"({name} = ? OR ends_with({name}, ?))", [value[2:], value[1:]]
    if value is None:
        return f"{column} IS NULL", []
    return f"rtrim(lower({column}), '.') = ?", [value.rstrip(".")]


def _is_country(column: str, value: Value) -> Condition:
    """Through the addresses of the lake: each is looked up once, and not in every row."""
    if value == "private":
        return f"{column} IN (SELECT ip FROM geo WHERE scope <> 'public')", []
    if value == NONE:
        return f"{column} IN (SELECT ip FROM geo WHERE scope = 'public' AND country IS NULL)", []
    return f"{column} IN (SELECT ip FROM geo WHERE country = ?)", [value]


def _is_equal(column: str, value: Value) -> Condition:
    return f"{column} = ?", [value]


def _is_word_text(column: str, value: Value) -> Condition:
    """Of a column that may be a number."""
    return (f"{column} IS NULL", []) if value is None else (f"lower({column}::VARCHAR) = ?", [value])


def _plain(value: Value) -> str:
    return NONE if value is None else str(value)


def _span_text(value: Span) -> str:
    return str(value.low) if value.low == value.high else f"{value.low}-{value.high}"


def _proto_text(value: Value) -> str:
    return str(_NAME.get(value, value))


_SOURCES: Final = ("src_ip", "inner_src_ip", "arp_src_ip")
_DESTINATIONS: Final = ("dst_ip", "inner_dst_ip", "arp_dst_ip")
_SOURCE_PORTS: Final = ("src_port", "inner_src_port")
_DESTINATION_PORTS: Final = ("dst_port", "inner_dst_port")
FIELDS: Final[dict[str, Field]] = {
    "host": Field("Address or network of either side", _address, str, _is_address, (*_SOURCES, *_DESTINATIONS, "ip")),
    "src": Field("Source address or network", _address, str, _is_address, _SOURCES),
    "dst": Field("Destination address or network", _address, str, _is_address, _DESTINATIONS),
    "net": Field("Network of either side", _network, str, _is_address, (*_SOURCES, *_DESTINATIONS, "ip")),
    "port": Field("Port of either side", _port, _span_text, _is_port, (*_SOURCE_PORTS, *_DESTINATION_PORTS)),
    "sport": Field("Source port", _port, _span_text, _is_port, _SOURCE_PORTS),
    "dport": Field("Destination port", _port, _span_text, _is_port, _DESTINATION_PORTS),
    "proto": Field("Protocol", _proto, _proto_text, _is_proto, ("proto", "inner_proto", "ethertype")),
    "app": Field("Application; none where it is not known", _word, _plain, _is_app, ("app",)),
    "country": Field("Country of either side; private, none", _country, str, _is_country, ("src_ip", "dst_ip", "ip")),
    "sni": Field(
        "Server name; *.example.org for all below", _word, _plain, _is_name, ("server_name", "sni", "host", "query")
    ),
    "flow": Field("Number of the flow", _integer, str, _is_equal, ("flow_id",)),
    "sensor": Field("Name of the sensor", _exact, str, _is_equal, ("sensor",)),
    "source": Field("Interface, or savefile", _exact, str, _is_equal, ("source",)),
    "status": Field("How far decoding got, an alert's status, or HTTP's", _word, _plain, _is_word_text, ("status",)),
    "state": Field("How a connection went", _word, _plain, _is_word, ("outcome",)),
    "len": Field("Length on the wire in bytes", _integer, str, _is_equal, ("wirelen",), (">", ">=", "<", "<=", "=")),
    "anomaly": Field("Anomaly score, 0 to 1", _share, str, _is_equal, ("anomaly", "score"), (">", ">=", "<", "<=")),
} | {
    name: Field(meaning, _word, _plain, _is_word_text, (column,), tables=tables)
    for name, (meaning, column, tables) in APPLICATION_FIELDS.items()
}
CLOSED_VALUES: Final[dict[str, tuple[str, ...]]] = {
    "proto": ("tcp", "udp", "icmp", "icmpv6", "arp", "igmp", "gre", "sctp", "esp"),
    "status": (*STATUS_NAMES, "open", "acknowledged"),
    "country": ("private", "none"),
    "rcode": ("noerror", "nxdomain", "servfail", "refused", "none"),
    "method": ("get", "post", "put", "delete", "head"),
}

# Tables, and the views over them that answers read, with the columns that filters know.
_VIEW_COLUMNS: Final = {
    "connections": ("src_ip", "dst_ip", "src_port", "dst_port", "proto", "app", "server_name", "flow_id", "sensor"),
    "alerts": ("src_ip", "dst_ip", "dst_port", "proto", "status", "sensor"),
    "geo": ("ip",),
}
_PATH: Final = ("sensor",)


def columns_of(table: str) -> frozenset[str]:
    """The columns of a table that filters may be about."""
    if table in _VIEW_COLUMNS:
        return frozenset(_VIEW_COLUMNS[table])
    return frozenset((*(c.name for c in TABLES[table]), *_PATH))


def columns_for(table: str, field: str) -> list[str]:
    """The columns of the table that a field compares; none if the table cannot apply it."""
    has = columns_of(table)
    if FIELDS[field].tables:
        return list(FIELDS[field].columns) if table in FIELDS[field].tables else []
    if table not in ("tls", "quic", "http", "dns") and field == "sni":
        return [c for c in ("server_name",) if c in has]
    if table == "rollup_1m":
        return [c for c in _PATH if field == "sensor"]
    if field == "proto" and "proto" not in has:
        return []
    return [c for c in FIELDS[field].columns if c in has]
