"""Lists of bad addresses, names and fingerprints: plain lines, CSV, MISP and STIX JSON, to entries."""

from __future__ import annotations

import csv
import io
import ipaddress
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

MAX_LIST: Final = 256 << 20
MAX_ENTRIES: Final = 4_000_000
_JA3: Final = re.compile(r"[0-9a-f]{32}\Z")
_JA4: Final = re.compile(r"[tqd][0-9s]{2}[di][0-9]{4}[0-9a-z]{2}_[0-9a-f]{12}_[0-9a-f]{12}\Z")
_NAME: Final = re.compile(
    r"(?=.{4,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+(?:[a-z]{2,63}|xn--[a-z0-9-]{1,59})\Z"
)
_STIX: Final = re.compile(
    r"(ipv4-addr|ipv6-addr|domain-name|url|x509-certificate|network-traffic)[^\[\]=]{0,64}=\s*'([^']{1,512})'"
)
_UNTIL: Final = ("valid_until", "expires", "expiry", "expiration", "valid_to")
_ABOUT: Final = (
    "description",
    "comment",
    "malware",
    "malware_printable",
    "threat",
    "threat_type",
    "tags",
    "listingreason",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One indicator. `kind`: ip, domain, ja3 or ja4. `until`: void after that second since the epoch; 0: never."""

    kind: str
    value: str
    list_name: str
    about: str = ""
    until: int = 0


def read_entries(text: str, list_name: str) -> Iterator[Entry]:
    """Every indicator of a list, whatever its format. What is none is passed over."""
    head = text.lstrip("\ufeff \r\n\t")[:1]
    if head in ("{", "["):
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return
        yield from _json(document, list_name)
        return
    lines = [line for line in text.lstrip("\ufeff").splitlines() if line.strip() and line.lstrip()[0] not in "#;"]
    header = [cell.strip().strip('"#').lower() for cell in lines[0].split(",")] if lines else []
    if len(header) > 1 and not any(classify(cell) for cell in header):
        yield from _csv(lines, header, list_name)
        return
    for line in lines:
        yield from _line(line, list_name)


def classify(text: str) -> tuple[str, str] | None:
    """(kind, value in its one spelling) of an indicator, or None."""
    value = text.strip().strip("\"'").lower().replace("[.]", ".").removesuffix(".")
    if not value or len(value) > 512:
        return None
    if _JA3.match(value):
        return "ja3", value
    if _JA4.match(value):
        return "ja4", value
    if "://" in value:
        value = value.split("://", 1)[1].split("/", 1)[0].rsplit("@", 1)[-1]
    if value.count(":") == 1:  # address:port
        value = value.split(":")[0]
    network = _network(value)
    if network:
        return "ip", network
    value = value.removeprefix("*.").removeprefix(".")
    return ("domain", value) if _NAME.match(value) else None


def _network(value: str) -> str | None:
    """An address or network that can be on a list: not unspecified, not loopback, not everything."""
    if not value[:1].isalnum() and value[:1] != ":":
        return None
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        return None
    shortest = 8 if network.version == 4 else 16
    if network.prefixlen < shortest or network[0].is_loopback or network[0].is_unspecified or network[0].is_multicast:
        return None
    return str(network) if network.num_addresses > 1 else str(network[0])


def _line(line: str, list_name: str) -> Iterator[Entry]:
    """A plain line: an indicator, perhaps with a comment, or a line of a hosts file."""
    body, _, comment = line.partition("#")
    words = re.split(r"[\s,;|]+", body.strip())
    if len(words) > 1 and words[0] in ("0.0.0.0", "127.0.0.1", "::1", "::"):  # noqa: S104 - a hosts file
        words = words[1:]
    found = classify(words[0]) if words else None
    if found:
        yield Entry(*found, list_name, comment.strip()[:200])


def _csv(lines: list[str], header: list[str], list_name: str) -> Iterator[Entry]:
    """Every cell that is an indicator; what it is about and how long it holds by the names of other columns."""
    rows = csv.reader(io.StringIO("\n".join(lines[1:])), skipinitialspace=True)
    try:
        for row in rows:
            named = dict(zip(header, row, strict=False))
            until = next((_time(named[c]) for c in _UNTIL if named.get(c)), 0)
            about = next((named[c] for c in _ABOUT if named.get(c)), "")[:200]
            for column, cell in named.items():
                found = classify(cell) if column not in (*_UNTIL, *_ABOUT, "reference", "reporter", "source") else None
                if found:
                    yield Entry(*found, list_name, about, until)
    except csv.Error:
        return


def _json(document: Any, list_name: str) -> Iterator[Entry]:
    """MISP events, STIX bundles, arrays of either or of plain texts."""
    waiting: list[tuple[Any, str]] = [(document, "")]
    while waiting:
        node, about = waiting.pop()
        if isinstance(node, str):
            yield from _made([node], list_name, about, 0)
        elif isinstance(node, list):
            waiting += [(item, about) for item in reversed(node)]
        elif isinstance(node, dict):
            if node.get("type") == "indicator" and isinstance(node.get("pattern"), str):
                values = [value for _, value in _STIX.findall(node["pattern"])]
                yield from _made(values, list_name, str(node.get("name", "")), _time(node.get("valid_until")))
            elif isinstance(node.get("value"), str) and "type" in node:
                parts = node["value"].split("|")
                yield from _made(parts, list_name, str(node.get("comment") or about), 0)
            else:
                about = str(node.get("info") or about)
                keys = ("response", "Event", "Attribute", "Object", "objects", "data", "indicators", "iocs")
                waiting += [(node[key], about) for key in reversed(keys) if key in node]


def _made(values: Iterable[str], list_name: str, about: str, until: int) -> Iterator[Entry]:
    for value in values:
        found = classify(value)
        if found:
            yield Entry(*found, list_name, about[:200], until)


def _time(value: object) -> int:
    """Seconds since the epoch of an ISO time or a number; 0 for what is neither."""
    text = str(value or "").strip()
    if text.isdecimal() and len(text) < 12:
        return int(text)
    try:
        when = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return 0
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())
