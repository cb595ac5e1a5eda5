"""NetBIOS name service (RFC 1002 4.2): names that Windows machines claim and look for on their network.

Every message is a row. The header is that of DNS, the names are not: 15 characters and a suffix that says what the name
stands for, written with two letters for each byte (RFC 1001 14.1).
"""

from __future__ import annotations

import struct
from socket import inet_ntoa
from typing import Final

from engine.dissect._dns_message import HEADER, PAIR, RECORD, skip_name
from engine.dissect.base import UDP, Application, Flow, Malformed, Message, Pattern, Verdict, column, text_of

_OPERATIONS: Final = {  # RFC 1002 4.2.1.1; 15 is Windows' multi-homed registration
    0: "query", 5: "registration", 6: "release", 7: "wack", 8: "refresh", 9: "refresh", 15: "multihomed registration",
}  # fmt: skip
_RCODES: Final = {  # RFC 1002 4.2.6, 4.2.11, 4.2.14
    0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 6: "ACTIVE", 7: "CONFLICT",
}  # fmt: skip
_NB: Final = 0x20
_NBSTAT: Final = 0x21
_MAX_LISTED: Final = 32


class _Parser:
    __slots__ = ("_flow",)

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def feed(self, message: Message) -> Verdict:
        """One message, one row."""
        data, flow = message.data, self._flow
        ident, flags, questions, answers, authority, additional = HEADER.unpack_from(data)
        operation = flags >> 11 & 15
        if operation not in _OPERATIONS or questions > 1 or answers + authority + additional > 4:
            return self._foreign()
        try:
            name, suffix, pos = _name(data, 12)
            kind, _ = PAIR.unpack_from(data, pos)
        except (ValueError, IndexError, struct.error):
            return self._foreign()
        if kind not in (_NB, _NBSTAT, 0x0A):  # 0x0A: a node that says "no such name" (RFC 1002 4.2.14)
            return self._foreign()
        flow.app = "nbns"
        response = bool(flags & 0x8000)
        if not response:
            flow.server_name = name
        code = flags & 15
        addresses, names, mac, group = _data(data, pos, questions, answers + authority + additional)
        flow.emit(
            ts=message.ts,
            name=name,
            suffix=suffix,
            op="status" if kind == _NBSTAT and operation == 0 else _OPERATIONS[operation],
            response=response,
            rcode=(_RCODES.get(code) or f"RCODE{code}") if response else None,
            addresses=addresses or None,
            is_group=group,
            names=names or None,
            mac=mac,
            id=ident,
        )
        return Verdict.MORE

    def _foreign(self) -> Verdict:
        if self._flow.app:
            raise Malformed("not a message of the NetBIOS name service")
        return Verdict.FOREIGN

    def finish(self) -> None:
        """Nothing is open between messages."""


def _name(data: bytes, pos: int) -> tuple[str, int, int]:
    """Name, suffix, and where the next field begins (RFC 1002 4.1)."""
    if data[pos] != 32:
        raise Malformed("a name has 32 letters")
    letters = data[pos + 1 : pos + 33]
    if len(letters) < 32 or min(letters) < 0x41 or max(letters) > 0x50:
        raise Malformed("letters are A to P")
    raw = bytes((letters[i] - 0x41) << 4 | letters[i + 1] - 0x41 for i in range(0, 32, 2))
    return _label(raw[:15]), raw[15], skip_name(data, pos)


def _label(raw: bytes) -> str:
    """The 15 characters without their padding; Windows writes them in its own character set."""
    return text_of(raw.rstrip(b" \0"), 15)


def _data(data: bytes, pos: int, questions: int, records: int) -> tuple[list[str], list[str], str | None, bool | None]:
    """Addresses, names, station and whether the name is a group's, from the first record after the name."""
    try:
        if questions:
            if not records:
                return [], [], None, None
            pos = skip_name(data, pos + 4)
        kind, _, _, size = RECORD.unpack_from(data, pos)
        pos += 10
        end = min(pos + size, len(data))
        if kind == _NB:
            return _addresses(data, pos, end)
        if kind == _NBSTAT:
            return _status(data, pos, end)
    except (ValueError, IndexError, struct.error):
        pass
    return [], [], None, None


def _addresses(data: bytes, pos: int, end: int) -> tuple[list[str], list[str], str | None, bool | None]:
    """Flags and an address, six bytes each (RFC 1002 4.2.13)."""
    found = [inet_ntoa(data[i + 2 : i + 6]) for i in range(pos, end - 5, 6)[:_MAX_LISTED]]
    return found, [], None, bool(data[pos] & 0x80) if found else None


def _status(data: bytes, pos: int, end: int) -> tuple[list[str], list[str], str | None, bool | None]:
    """The names of a node with their suffixes, then its station (RFC 1002 4.2.18)."""
    count = data[pos]
    entries = range(pos + 1, end - 17, 18)[: min(count, _MAX_LISTED)]
    names = [f"{_label(data[i : i + 15])}<{data[i + 15]:02x}>" for i in entries]
    at = pos + 1 + 18 * count
    station = data[at : at + 6] if at + 6 <= end else b""
    return [], names, station.hex(":") if any(station) else None, None


APPLICATION = Application(
    name="nbns",
    meaning="NetBIOS name service: a row per message",
    patterns=(Pattern(transport=UDP, ports=(137,), length=(50, 1500)),),
    parser=_Parser,
    columns=(
        column("name", "text", "", "Name asked for or claimed, without padding", "RFC 1001 14.1"),
        column(
            "suffix", "int16", "", "What it stands for: 0 workstation, 32 file server, 28 controllers", "RFC 1001 14.1"
        ),
        column("op", "text", "", "query, status, registration, release, refresh, wack", "RFC 1002 4.2.1.1"),
        column("response", "bool", "", "True for an answer", "RFC 1002 4.2.1.1"),
        column("rcode", "text", "", "Of an answer: NOERROR, NXDOMAIN, ACTIVE, CONFLICT", "RFC 1002 4.2"),
        column("addresses", "texts", "", "Addresses of the name, or that claim it; the first 32", "RFC 1002 4.2.13"),
        column("is_group", "bool", "", "The name belongs to a group, as a domain's does", "RFC 1002 4.2.13"),
        column(
            "names",
            "texts",
            "",
            "Of a status answer: the node's names as NAME<suffix>, the first 32",
            "RFC 1002 4.2.18",
        ),
        column("mac", "text", "", "Of a status answer: the node's Ethernet address", "RFC 1002 4.2.18"),
        column("id", "int32", "", "Transaction number", "RFC 1002 4.2.1.1"),
    ),
)
