"""Application messages for `analytics.layers`: DNS, HTTP, TLS records, DHCP, NTP. The same rules as in `layer_parsers`.

A message that ends in the middle keeps what was read as its layer; what follows is `damaged`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dpkt import dhcp, dns, ntp, ssl

from analytics.layers import DamagedError, Field, Names, Walk, address, hex16, hexadecimal, mac, named, text

if TYPE_CHECKING:
    from collections.abc import Callable

_METHODS: Final = (
    b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ", b"TRACE ", b"PROPFIND ",
    b"NOTIFY ", b"M-SEARCH ", b"SUBSCRIBE ",
)  # fmt: skip
_UDP_PORTS: Final = {53: "dns", 5353: "dns", 5355: "dns", 67: "dhcp", 68: "dhcp", 123: "ntp", 1900: "http"}
_MAX_LINES: Final = 100
_MAX_RECORDS: Final = 200


def over_udp(walk: Walk, dport: int, sport: int) -> str | None:
    """The parser for a UDP payload."""
    kind = _UDP_PORTS.get(dport) or _UDP_PORTS.get(sport)
    return None if kind == "http" and not _is_http(walk) else kind


def over_tcp(walk: Walk, sport: int, dport: int) -> str | None:
    """The parser for a TCP payload that begins like a message; one that goes on in the middle has none."""
    left = walk.end - walk.at
    if left >= 14 and 53 in (sport, dport) and walk.number(walk.at, 2) >= 12:
        return "dns_tcp"
    if _is_http(walk):
        return "http"
    return "tls" if _is_tls(walk) else None


def _is_http(walk: Walk) -> bool:
    return walk.frame.startswith((*_METHODS, b"HTTP/"), walk.at, walk.end)


def _is_tls(walk: Walk) -> bool:
    head = walk.frame[walk.at : min(walk.at + 5, walk.end)]
    return len(head) == 5 and 20 <= head[0] <= 24 and head[1] == 3 and head[2] <= 4


# --- DNS --------------------------------------------------------------------------------------------------------------
_DNS: Final[Names] = {
    "id": ("id", hex16), "op": ("flags", hex16), "qd": ("questions", str), "an": ("answers", str),
    "ns": ("authorities", str), "ar": ("additionals", str),
}  # fmt: skip
_RR_NAMES: Final = {
    1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 13: "HINFO", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV",
    41: "OPT", 43: "DS", 46: "RRSIG", 47: "NSEC", 48: "DNSKEY", 64: "SVCB", 65: "HTTPS", 255: "ANY",
}  # fmt: skip


def _dns(walk: Walk) -> str | None:
    """RFC 1035 4, also mDNS and LLMNR."""
    start = walk.at
    values, fields = walk.fixed(dns.DNS, _DNS)
    message = walk.frame[start : walk.end]
    at = 12
    sections = (
        ("question", values["qd"]),
        ("answer", values["an"]),
        ("authority", values["ns"]),
        ("additional", values["ar"]),
    )
    budget = _MAX_RECORDS
    try:
        for section, count in sections:
            for _ in range(min(count, budget)):
                shown, at = _record(message, at, section == "question")
                fields.append(Field(section, shown, fields[-1].end, start + at))
                budget -= 1
    finally:
        walk.add("dns", at, fields)
    return None


def _record(message: bytes, at: int, is_question: bool) -> tuple[str, int]:
    """A question or resource record as text, and where the next begins."""
    name, at = dns.unpack_name(message, at)
    size = 4 if is_question else 10
    if at + size > len(message):
        raise DamagedError
    kind = int.from_bytes(message[at : at + 2], "big")
    shown = f"{text(name.encode()) or '.'} {_RR_NAMES.get(kind, f'TYPE{kind}')}"
    if is_question:
        return shown, at + 4
    ttl, length = int.from_bytes(message[at + 4 : at + 8], "big"), int.from_bytes(message[at + 8 : at + 10], "big")
    at += 10
    if at + length > len(message):
        raise DamagedError
    return f"{shown} ttl {ttl} {_rdata(message, at, kind, message[at : at + length])}", at + length


def _rdata(message: bytes, at: int, kind: int, data: bytes) -> str:
    if kind in (1, 28):
        return address(data)
    if kind in (2, 5, 12):
        return text(dns.unpack_name(message, at)[0].encode())
    if kind == 15:
        return f"{int.from_bytes(data[:2], 'big')} {text(dns.unpack_name(message, at + 2)[0].encode())}"
    return text(data[1:]) if kind == 16 else hexadecimal(data)


def _dns_tcp(walk: Walk) -> str | None:
    """The length before a message over TCP (RFC 1035 4.2.2)."""
    at = walk.need(2)
    size = walk.number(at, 2)
    walk.add("dns_length", 2, [Field("length", str(size), at, at + 2)])
    return "dns" if size <= walk.end - walk.at else None


# --- HTTP -------------------------------------------------------------------------------------------------------------
def _http(walk: Walk) -> str | None:
    """Start line and header fields (RFC 9112 2.1); the body is payload."""
    at, fields = walk.at, []
    for i in range(_MAX_LINES):
        stop = walk.frame.find(b"\n", at, walk.end)
        if stop < 0:
            break
        line = walk.frame[at:stop].rstrip(b"\r")
        if line:
            name, colon, value = line.partition(b":")
            is_field = i > 0 and bool(colon)
            label = text(name).lower() if is_field else ("start_line" if i == 0 else "line")
            fields.append(Field(label, text(value.strip() if is_field else line), at, stop + 1))
        at = stop + 1
        if not line:
            break
    if at == walk.at:  # the first line is not complete
        return None
    walk.add("http", at - walk.at, fields)
    return None


# --- TLS --------------------------------------------------------------------------------------------------------------
_CONTENT: Final = named(
    {20: "change_cipher_spec", 21: "alert", 22: "handshake", 23: "application_data", 24: "heartbeat"}
)
_VERSIONS: Final = named(
    {0x0300: "SSL 3.0", 0x0301: "TLS 1.0", 0x0302: "TLS 1.1", 0x0303: "TLS 1.2", 0x0304: "TLS 1.3"}, "0x{:04x}"
)
_HANDSHAKE: Final = {
    0: "hello_request", 1: "client_hello", 2: "server_hello", 4: "new_session_ticket", 8: "encrypted_extensions",
    11: "certificate", 12: "server_key_exchange", 13: "certificate_request", 14: "server_hello_done",
    15: "certificate_verify", 16: "client_key_exchange", 20: "finished",
}  # fmt: skip
_RECORD: Final[Names] = {
    "type": ("content_type", _CONTENT),
    "version": ("record_version", _VERSIONS),
    "length": ("length", str),
}


def _tls(walk: Walk) -> str | None:
    """One record (RFC 8446 5.1), or its beginning when it goes on in the next segment."""
    at = walk.at
    values, fields = walk.fixed(ssl.TLSRecord, _RECORD)
    size = min(5 + values["length"], walk.end - at)
    try:
        if values["type"] == 22 and size > 9 and walk.frame[at + 5] in _HANDSHAKE:
            kind = walk.frame[at + 5]
            fields.append(Field("handshake_type", f"{kind} ({_HANDSHAKE[kind]})", at + 5, at + 6))
            if kind in (1, 2):
                fields += _hello(walk.frame, at + 9, at + size, kind == 1)
        elif values["type"] == 21 and values["length"] == 2:
            fields += [
                Field("level", str(walk.frame[at + 5]), at + 5, at + 6),
                Field("alert", str(walk.frame[at + 6]), at + 6, at + 7),
            ]
    finally:
        walk.add("tls", size, fields)
    return "tls" if _is_tls(walk) else None


def _hello(frame: bytes, at: int, end: int, is_client: bool) -> list[Field]:
    """ClientHello or ServerHello (RFC 8446 4.1), as far as this record holds it."""
    fields = []

    def take(name: str, size: int, show: Callable[[bytes], str]) -> bytes:
        nonlocal at
        data = frame[at : min(at + size, end)]
        if len(data) == size:
            fields.append(Field(name, show(data), at, at + size))
        at += size
        return data

    def length(size: int) -> int:
        nonlocal at
        at += size
        return int.from_bytes(frame[at - size : min(at, end)], "big")

    def numbers(data: bytes) -> str:
        return " ".join(data[i : i + 2].hex() for i in range(0, min(len(data), 64), 2)) + (
            " ..." if len(data) > 64 else ""
        )

    take("version", 2, lambda data: _VERSIONS(int.from_bytes(data, "big")))
    take("random", 32, bytes.hex)
    take("session_id", length(1), bytes.hex)
    if is_client:
        take("cipher_suites", length(2), numbers)
        take("compression_methods", length(1), bytes.hex)
    else:
        take("cipher_suite", 2, bytes.hex)
        take("compression_method", 1, bytes.hex)
    stop = min(end, at + 2 + length(2))
    while at + 4 <= stop:
        kind = int.from_bytes(frame[at : at + 2], "big")
        at += 2
        size = length(2)
        data = frame[at : min(at + size, end)]
        name, value = _extension(kind, data)
        fields.append(Field(name, value, at - 4, min(at + size, end)))
        at += size
    return fields


def _extension(kind: int, data: bytes) -> tuple[str, str]:
    if kind == 0 and len(data) > 5:
        return "server_name", text(data[5:])
    if kind == 16:
        names, at = [], 2
        while at < len(data):
            names.append(text(data[at + 1 : at + 1 + data[at]]))
            at += 1 + data[at]
        return "alpn", " ".join(names)
    return f"extension_{kind}", hexadecimal(data[:32])


# --- DHCP and NTP -----------------------------------------------------------------------------------------------------
_DHCP: Final[Names] = {
    "op": ("op", named({1: "request", 2: "reply"})), "hrd": ("htype", str), "hln": ("hlen", str), "hops": ("hops", str),
    "xid": ("xid", "0x{:08x}".format), "secs": ("secs", str), "flags": ("flags", hex16),
    **{name: (name, lambda n: address(n.to_bytes(4, "big"))) for name in ("ciaddr", "yiaddr", "siaddr", "giaddr")},
    "chaddr": ("chaddr", lambda data: mac(data[:6])), "sname": ("sname", lambda data: text(data.rstrip(b"\0"))),
    "file": ("file", lambda data: text(data.rstrip(b"\0"))), "magic": ("magic", "0x{:08x}".format),
}  # fmt: skip
_DHCP_OPTIONS: Final = {
    1: "subnet_mask", 3: "router", 6: "dns_server", 12: "hostname", 15: "domain_name", 50: "requested_ip",
    51: "lease_time", 53: "message_type", 54: "server_id", 55: "parameters", 60: "vendor_class", 61: "client_id",
    81: "fqdn",
}  # fmt: skip
_DHCP_TYPES: Final = named(
    {1: "discover", 2: "offer", 3: "request", 4: "decline", 5: "ack", 6: "nak", 7: "release", 8: "inform"}
)
_NTP_MODES: Final = {
    1: "active", 2: "passive", 3: "client", 4: "server", 5: "broadcast", 6: "control", 7: "private",
}  # fmt: skip
_NTP: Final[Names] = {
    "li": ("leap", str), "v": ("version", str),
    "mode": ("mode", named(_NTP_MODES)),
    "interval": ("poll", str), "precision": ("precision", lambda n: str(n - 256 if n > 127 else n)),
    "delay": ("root_delay", hex16), "dispersion": ("root_dispersion", hex16), "id": ("reference_id", hexadecimal),
    **{name: (f"{name.removesuffix('_time').replace('update', 'reference')}_timestamp", hexadecimal)
       for name in ("update_time", "originate_time", "receive_time", "transmit_time")},
}  # fmt: skip


def _dhcp(walk: Walk) -> str | None:
    """RFC 2131 2, options RFC 2132."""
    start = walk.at
    _, fields = walk.fixed(dhcp.DHCP, _DHCP)
    at = start + dhcp.DHCP.__hdr_len__
    try:
        while at < walk.end:
            code = walk.frame[at]
            if code in (0, 255):
                fields.append(Field("option", "end" if code else "pad", at, at + 1))
                at += 1
                if code:
                    break
                continue
            size = walk.number(at + 1, 1)
            if at + 2 + size > walk.end:
                raise DamagedError
            fields.append(
                Field(
                    _DHCP_OPTIONS.get(code, f"option_{code}"),
                    _dhcp_value(code, walk.frame[at + 2 : at + 2 + size]),
                    at,
                    at + 2 + size,
                )
            )
            at += 2 + size
    finally:
        walk.add("dhcp", at - start, fields)
    return None


def _dhcp_value(code: int, data: bytes) -> str:
    if code in (1, 3, 6, 50, 54) and data and len(data) % 4 == 0:
        return " ".join(address(data[i : i + 4]) for i in range(0, len(data), 4))
    if code in (12, 15, 60):
        return text(data)
    if code == 53 and len(data) == 1:
        return _DHCP_TYPES(data[0])
    return str(int.from_bytes(data, "big")) if code == 51 else hexadecimal(data)


def _ntp(walk: Walk) -> str | None:
    """RFC 5905 7.3."""
    walk.add("ntp", 48, walk.fixed(ntp.NTP, _NTP)[1])
    return None


PARSERS: Final = {"dns": _dns, "dns_tcp": _dns_tcp, "http": _http, "tls": _tls, "dhcp": _dhcp, "ntp": _ntp}
