"""DHCP for IPv4 (RFC 2131) and IPv6 (RFC 8415): which machine asked for an address, what it is called, what it got.

Every message is a row. Options are read here and not by dpkt, which does not join split ones, ignores overloaded fields
and raises on a cut list.
"""

from __future__ import annotations

import struct
from socket import AF_INET6, inet_ntoa, inet_ntop
from typing import Any, Final

from engine.dissect._dns_message import read_name
from engine.dissect.base import UDP, Application, Flow, Malformed, Message, Pattern, Verdict, column, text_of

_COOKIE: Final = b"\x63\x82\x53\x63"
_MAX_OPTIONS: Final = 256  # of one message
_MAX_VALUE: Final = 1024  # bytes of one option, its pieces joined
_MAX_LISTED: Final = 16  # addresses of one option
_MAX_REQUESTED: Final = 128  # numbers in a list of options asked for
_MAX_RELAYS: Final = 8  # RFC 8415 7.6 HOP_COUNT_LIMIT

_TYPES: Final = {  # RFC 2132 9.6, RFC 3203, RFC 4388, RFC 6926, RFC 7724
    1: "DISCOVER", 2: "OFFER", 3: "REQUEST", 4: "DECLINE", 5: "ACK", 6: "NAK", 7: "RELEASE", 8: "INFORM",
    9: "FORCERENEW", 10: "LEASEQUERY", 11: "LEASEUNASSIGNED", 12: "LEASEUNKNOWN", 13: "LEASEACTIVE",
    14: "BULKLEASEQUERY", 15: "LEASEQUERYDONE", 16: "ACTIVELEASEQUERY", 17: "LEASEQUERYSTATUS", 18: "TLS",
}  # fmt: skip
_TYPES6: Final = {  # RFC 8415 7.3, RFC 5007
    1: "SOLICIT", 2: "ADVERTISE", 3: "REQUEST", 4: "CONFIRM", 5: "RENEW", 6: "REBIND", 7: "REPLY", 8: "RELEASE",
    9: "DECLINE", 10: "RECONFIGURE", 11: "INFORMATION-REQUEST", 12: "RELAY-FORW", 13: "RELAY-REPL",
    14: "LEASEQUERY", 15: "LEASEQUERY-REPLY", 16: "LEASEQUERY-DONE", 17: "LEASEQUERY-DATA", 18: "RECONFIGURE-REQUEST",
    19: "RECONFIGURE-REPLY", 20: "DHCPV4-QUERY", 21: "DHCPV4-RESPONSE", 22: "ACTIVELEASEQUERY", 23: "STARTTLS",
}  # fmt: skip
_FROM_SERVER6: Final = frozenset((2, 7, 10))


class _Parser:
    __slots__ = ("_flow", "_version6")

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        ports = (flow.src_port, flow.dst_port)
        self._version6 = 67 not in ports and 68 not in ports

    def feed(self, message: Message) -> Verdict:
        """One message, one row. A message that the capture cut off says what it can."""
        fields = _read6(message.data, message.whole) if self._version6 else _read4(message.data, message.whole)
        if fields is None:
            if not self._flow.app:
                return Verdict.FOREIGN
            raise Malformed("not a message of DHCP")
        self._flow.app = "dhcp6" if self._version6 else "dhcp"
        self._flow.emit(ts=message.ts, **fields)
        return Verdict.MORE

    def finish(self) -> None:
        """Nothing is open between messages."""


def _read4(data: bytes, whole: bool) -> dict[str, Any] | None:
    """The columns of a message (RFC 2131 2), None if it is not one; without options it is BOOTP (RFC 951)."""
    operation, kind, length = data[0], data[1], data[2]
    if operation not in (1, 2) or length > 16 or len(data) < (236 if whole else 44):
        return None
    options: dict[int, bytes] = {}
    if data[236:240] == _COOKIE:
        _collect(data[240:], options)
        overload = options.get(52, b"\0")[:1]  # RFC 2132 9.3: `file` and `sname` hold options too
        if overload in (b"\1", b"\3"):
            _collect(data[108:236], options)
        if overload in (b"\2", b"\3"):
            _collect(data[44:108], options)
    number = int.from_bytes(options.get(53, b"")[:1])
    message_type = _TYPES.get(number) or (
        f"TYPE{number}" if number else "BOOTREQUEST" if operation == 1 else "BOOTREPLY"
    )
    listed = options.get(55, b"")[:_MAX_REQUESTED]
    return {
        "message_type": message_type,
        "transaction_id": int.from_bytes(data[4:8]),
        "client_mac": _mac(data[28:34]) if kind == 1 and length == 6 else None,
        "client_id": options[61].hex()[:128] if options.get(61) else None,
        "client_ip": _address(data[12:16]),
        "requested_ip": _address(options.get(50)),
        "assigned_ip": _address(data[16:20]),
        "relay_ip": _address(data[24:28]),
        "server_id": _address(options.get(54)),
        "host_name": _text(options.get(12)) or _client_name(options.get(81)),
        "vendor_class": _text(options.get(60)),
        "parameter_request_list": ",".join(map(str, listed)) if listed else None,
        "lease_s": int.from_bytes(options[51]) if len(options.get(51, b"")) == 4 else None,
        "router": _address(options.get(3, b"")[:4]),
        "domain_name": _text(options.get(15)),
        "dns_servers": _addresses(options.get(6, b"")),
    }


def _collect(data: bytes, options: dict[int, bytes]) -> None:
    """Add the options of a field; the pieces of a long one are joined (RFC 3396 7). It may end anywhere."""
    pos = 0
    for _ in range(_MAX_OPTIONS):
        while pos < len(data) and not data[pos]:  # padding
            pos += 1
        if pos + 2 > len(data) or data[pos] == 255:
            return
        code, length = data[pos], data[pos + 1]
        value = data[pos + 2 : pos + 2 + length]
        if len(value) == length:
            options[code] = (options.get(code, b"") + value)[:_MAX_VALUE]
        pos += 2 + length


def _client_name(value: bytes | None) -> str | None:
    """The client's name from option 81: flags, two codes, then text, or labels if the flag E is set (RFC 4702 2)."""
    if value is None or len(value) < 4:
        return None
    if not value[0] & 4:
        return _text(value[3:])
    return _name(value[3:])


def _name(value: bytes) -> str | None:
    """A name in labels; one that is not qualified has no empty label at its end (RFC 4704 4.2)."""
    try:
        return read_name(value + b"\0", 0)[0].strip(".") or None
    except (ValueError, IndexError):
        return None


def _text(value: bytes | None) -> str | None:
    return text_of(value.rstrip(b"\0"), 255) or None if value else None


def _mac(value: bytes) -> str | None:
    return value.hex(":") if len(value) == 6 and any(value) else None


def _address(value: bytes | None) -> str | None:
    """The text of four bytes, None for none and for 0.0.0.0."""
    return inet_ntoa(value) if value is not None and len(value) == 4 and any(value) else None


def _addresses(value: bytes) -> list[str] | None:
    return [inet_ntoa(value[i : i + 4]) for i in range(0, len(value) & ~3, 4)[:_MAX_LISTED]] or None


def _read6(data: bytes, whole: bool) -> dict[str, Any] | None:
    """The columns of a message (RFC 8415 8), of the innermost one if relays packed it in (RFC 8415 9)."""
    relay: str | None = None
    for _ in range(_MAX_RELAYS):
        kind = data[0]
        if kind not in _TYPES6 or len(data) < 4:
            return None
        if kind not in (12, 13):
            if whole and len(data) > 4 and (len(data) < 8 or 8 + int.from_bytes(data[6:8]) > len(data)):
                return None  # the first option is longer than the message
            return _message6(data, kind) | {"relay_ip": relay}
        if len(data) < 34:
            return None
        relay = relay or inet_ntop(AF_INET6, data[2:18])
        inner = _options6(data[34:]).get(9)
        if not inner:
            return None if whole else {"message_type": _TYPES6[kind], "relay_ip": relay}
        data = inner[0]
    return None


def _message6(data: bytes, kind: int) -> dict[str, Any]:
    options = _options6(data[4:])
    client, server = options.get(1, [b""])[0], options.get(2, [b""])[0]
    address, lease = _association(options)
    listed = options.get(6, [b""])[0][: 2 * _MAX_REQUESTED]
    names = options.get(39)
    domains = options.get(24)
    offered = kind in _FROM_SERVER6
    return {
        "message_type": _TYPES6[kind],
        "transaction_id": int.from_bytes(data[1:4]),
        "client_mac": _duid_mac(client),
        "client_id": client.hex()[:128] or None,
        "requested_ip": None if offered else address,
        "assigned_ip": address if offered else None,
        "server_id": server.hex()[:128] or None,
        "host_name": _name(names[0][1:]) if names else None,  # RFC 4704 4: flags, then labels
        "vendor_class": _vendor6(options.get(16, [b""])[0]),
        "parameter_request_list": ",".join(map(str, struct.unpack_from(f">{len(listed) // 2}H", listed))) or None,
        "lease_s": lease if offered else None,
        "domain_name": _first_name(domains[0]) if domains else None,
        "dns_servers": _addresses6(options.get(23, [b""])[0]),
    }


def _options6(data: bytes) -> dict[int, list[bytes]]:
    """Options by code (RFC 8415 21.1); the list may end anywhere."""
    options: dict[int, list[bytes]] = {}
    pos = 0
    for _ in range(_MAX_OPTIONS):
        if pos + 4 > len(data):
            break
        code, length = struct.unpack_from(">HH", data, pos)
        value = data[pos + 4 : pos + 4 + length]
        if len(value) == length:
            options.setdefault(code, []).append(value)
        pos += 4 + length
    return options


def _association(options: dict[int, list[bytes]]) -> tuple[str | None, int | None]:
    """The first address, else the first prefix, of the associations, and how long it is valid in seconds.

    RFC 8415 21.4 to 21.6 (addresses), 21.21 and 21.22 (prefixes).
    """
    for code, head in ((3, 12), (4, 4)):
        for value in options.get(code, [])[:_MAX_LISTED]:
            for item in _options6(value[head:]).get(5, []):
                if len(item) >= 24:
                    return inet_ntop(AF_INET6, item[:16]), int.from_bytes(item[20:24])
    for value in options.get(25, [])[:_MAX_LISTED]:
        for item in _options6(value[12:]).get(26, []):
            if len(item) >= 25:
                return f"{inet_ntop(AF_INET6, item[9:25])}/{item[8]}", int.from_bytes(item[4:8])
    return None, None


def _duid_mac(duid: bytes) -> str | None:
    """The Ethernet address in an identifier of type 1 (with time) or 3 (RFC 8415 11.2 and 11.4)."""
    head = duid[:4]
    if head == b"\0\1\0\1":
        return _mac(duid[8:])
    return _mac(duid[4:]) if head == b"\0\3\0\1" else None


def _vendor6(value: bytes) -> str | None:
    """The first string after the enterprise number (RFC 8415 21.16)."""
    return _text(value[6 : 6 + int.from_bytes(value[4:6])]) if len(value) > 6 else None


def _first_name(value: bytes) -> str | None:
    """The first name of a search list (RFC 3646 4)."""
    try:
        return read_name(value, 0)[0]
    except (ValueError, IndexError):
        return None


def _addresses6(value: bytes) -> list[str] | None:
    return [inet_ntop(AF_INET6, value[i : i + 16]) for i in range(0, len(value) & ~15, 16)[:_MAX_LISTED]] or None


APPLICATION = Application(
    name="dhcp",
    variants=("dhcp6",),
    meaning="Dynamic Host Configuration Protocol, for IPv4 and IPv6: a row per message",
    patterns=(
        # Request or reply, an address of at most 31 bytes.
        Pattern(transport=UDP, value=b"\x01\x00\x00", mask=b"\xff\x00\xe0", ports=(67, 68), length=(236, 65_535)),
        Pattern(transport=UDP, value=b"\x02\x00\x00", mask=b"\xff\x00\xe0", ports=(67, 68), length=(236, 65_535)),
        Pattern(transport=UDP, value=b"\x00", mask=b"\xe0", ports=(546, 547), length=(4, 65_535)),
    ),
    parser=_Parser,
    columns=(
        column(
            "message_type",
            "text",
            "",
            "DISCOVER, OFFER, REQUEST, ACK, SOLICIT, ADVERTISE",
            "RFC 2132 9.6, RFC 8415 7.3",
        ),
        column("transaction_id", "int64", "", "Number that joins a request and its replies", "RFC 2131 2, RFC 8415 8"),
        column(
            "client_mac",
            "text",
            "",
            "The client's Ethernet address; for IPv6 from its identifier",
            "RFC 2131 2, RFC 8415 11",
        ),
        column(
            "client_id",
            "text",
            "",
            "The client's identifier in hexadecimal (IPv6: DUID)",
            "RFC 2132 9.14, RFC 8415 21.2",
        ),
        column("client_ip", "text", "", "Address that the client has already", "RFC 2131 2"),
        column("requested_ip", "text", "", "Address or prefix that the client wants", "RFC 2132 9.1, RFC 8415 21.4"),
        column("assigned_ip", "text", "", "Address or prefix that the server gives", "RFC 2131 2, RFC 8415 21.4"),
        column(
            "relay_ip",
            "text",
            "",
            "Relay on the client's side; IPv6: link address of the outer relay",
            "RFC 2131 2, RFC 8415 9",
        ),
        column(
            "server_id",
            "text",
            "",
            "The server's address, or its identifier in hexadecimal",
            "RFC 2132 9.7, RFC 8415 21.3",
        ),
        column("host_name", "text", "", "What the client is called", "RFC 2132 3.14, RFC 4702, RFC 4704"),
        column(
            "vendor_class",
            "text",
            "",
            "What the client is: its DHCP software or product",
            "RFC 2132 9.13, RFC 8415 21.16",
        ),
        column(
            "parameter_request_list",
            "text",
            "",
            "Options asked for, in order: a fingerprint of the client",
            "RFC 2132 9.8, RFC 8415 21.7",
        ),
        column("lease_s", "int64", "s", "How long the address is given for", "RFC 2132 9.2, RFC 8415 21.6"),
        column("router", "text", "", "First default router", "RFC 2132 3.5"),
        column(
            "domain_name", "text", "", "Domain of the client, or first of its search list", "RFC 2132 3.17, RFC 3646 4"
        ),
        column("dns_servers", "texts", "", "Name servers, the first 16", "RFC 2132 3.8, RFC 3646 3"),
    ),
)
