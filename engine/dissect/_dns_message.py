"""How DNS messages are written (RFC 1035 4): names, records and the numbers that have texts.

Used for DNS, multicast DNS and LLMNR, and for the domain names of DHCPv6. Every reader is bounded: a name by 255 bytes
and 24 compression pointers, a message by 128 records.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from socket import AF_INET6, inet_ntoa, inet_ntop
from struct import Struct
from typing import Final

from engine.dissect.base import Malformed, text_of

HEADER: Final = Struct(">6H")  # id, flags, counts of question, answer, authority, additional
RECORD: Final = Struct(">HHIH")  # type, class, ttl, length of the data
PAIR: Final = Struct(">HH")

MAX_RECORDS: Final = 128  # looked at in one message
MAX_ANSWERS: Final = 32  # kept of one message
MAX_TEXT: Final = 512  # characters of one name or answer
_MAX_NAME: Final = 255  # RFC 1035 2.3.4
_MAX_JUMPS: Final = 24

OPT: Final = 41
_NSEC: Final = 47
_HIDDEN: Final = frozenset((OPT, 46))  # never an answer: EDNS, and the signatures beside what they sign

# IANA "DNS Parameters", resource record types.
_FIRST_TYPES: Final = """
A NS MD MF CNAME SOA MB MG MR NULL WKS PTR HINFO MINFO MX TXT RP AFSDB X25 ISDN RT NSAP NSAP-PTR SIG KEY PX GPOS AAAA
LOC NXT EID NIMLOC SRV ATMA NAPTR KX CERT A6 DNAME SINK OPT APL DS SSHFP IPSECKEY RRSIG NSEC DNSKEY DHCID NSEC3
NSEC3PARAM TLSA SMIMEA
"""
TYPES: Final = dict(enumerate(_FIRST_TYPES.split(), 1)) | {
    55: "HIP", 56: "NINFO", 57: "RKEY", 58: "TALINK", 59: "CDS", 60: "CDNSKEY", 61: "OPENPGPKEY", 62: "CSYNC",
    63: "ZONEMD", 64: "SVCB", 65: "HTTPS", 66: "DSYNC", 99: "SPF", 104: "NID", 105: "L32", 106: "L64", 107: "LP",
    108: "EUI48", 109: "EUI64", 128: "NXNAME", 249: "TKEY", 250: "TSIG", 251: "IXFR", 252: "AXFR", 253: "MAILB",
    254: "MAILA", 255: "ANY", 256: "URI", 257: "CAA", 258: "AVC", 259: "DOA", 260: "AMTRELAY", 261: "RESINFO",
    262: "WALLET", 32768: "TA", 32769: "DLV",
}  # fmt: skip
CLASSES: Final = {1: "IN", 3: "CH", 4: "HS", 254: "NONE", 255: "ANY"}
OPCODES: Final = {0: "query", 1: "iquery", 2: "status", 4: "notify", 5: "update", 6: "dso"}
# RFC 1035 4.1.1, RFC 2136 2.2, RFC 8490 10.3; from 16 on the upper bits are in the OPT record (RFC 6891 6.1.3).
RCODES: Final = {
    0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 6: "YXDOMAIN", 7: "YXRRSET",
    8: "NXRRSET", 9: "NOTAUTH", 10: "NOTZONE", 11: "DSOTYPENI", 16: "BADVERS", 17: "BADKEY", 18: "BADTIME",
    19: "BADMODE", 20: "BADNAME", 21: "BADALG", 22: "BADTRUNC", 23: "BADCOOKIE",
}  # fmt: skip

# What stands in a name as it is; a name with any other byte goes through `_escaped`.
_PLAIN: Final = bytes(b for b in range(33, 127) if b != 92)
_UNREADABLE: Final = (ValueError, IndexError, struct.error)  # what readers raise: Malformed is a ValueError


def type_text(number: int) -> str:
    """A record type as zone files write it; RFC 3597 5 for one without a name."""
    return TYPES.get(number) or f"TYPE{number}"


def class_text(number: int) -> str | None:
    """A class as zone files write it, None for IN."""
    return None if number == 1 else CLASSES.get(number) or f"CLASS{number}"


def read_name(data: bytes, pos: int) -> tuple[str, int]:
    """The name at `pos` as text, and where the next field begins (RFC 1035 3.1 and 4.1.4). The root is '.'."""
    parts: list[bytes] = []
    size = jumps = end = 0
    while length := data[pos]:
        pos += 1
        if length < 64:
            size += length + 1
            part = data[pos : pos + length]
            if size >= _MAX_NAME or len(part) != length:
                raise Malformed("name too long or cut")
            parts.append(part)
            pos += length
        elif length >= 192:
            jumps += 1
            if jumps > _MAX_JUMPS:
                raise Malformed("compression pointers go in circles")
            end = end or pos + 1
            pos = (length & 0x3F) << 8 | data[pos]
        else:
            raise Malformed("unknown kind of label")
    raw = b".".join(parts)
    if raw.translate(None, _PLAIN) or raw.count(b".") != len(parts) - 1:
        text = ".".join(_escaped(part) for part in parts)[:MAX_TEXT] or "."
    else:
        text = raw.decode("ascii")
    return text, end or pos + 1


def _escaped(label: bytes) -> str:
    r"""UTF-8 as it is (RFC 6763 4.1.1), `\.` and `\\` inside a label, `\DDD` for the rest (RFC 1035 5.1)."""
    text = label.decode("utf-8", "surrogateescape").replace("\\", "\\\\").replace(".", "\\.")
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else "".join(f"\\{b:03d}" for b in c.encode("utf-8", "surrogateescape")) for c in text
    )


def skip_name(data: bytes, pos: int) -> int:
    """Where the field after the name at `pos` begins."""
    for _ in range(_MAX_NAME):
        length = data[pos]
        if length >= 192:
            return pos + 2
        if length >= 64:
            raise Malformed("unknown kind of label")
        pos += length + 1
        if not length:
            return pos
    raise Malformed("name too long")


def skip_records(data: bytes, pos: int, count: int) -> int:
    """Where the field after `count` records begins; raises when they are not all there or of an unknown type."""
    for _ in range(count):
        pos = skip_name(data, pos)
        kind, _, _, size = RECORD.unpack_from(data, pos)
        pos += 10 + size
        if kind not in TYPES or pos > len(data):
            raise Malformed("record")
    return pos


def read_answers(data: bytes, pos: int, count: int, others: int) -> tuple[list[str], int | None, int]:
    """Texts and lowest TTL of `count` answers at `pos`, and the upper bits of the response code from the OPT record
    among `others` after them. What comes after a fault or a cut is not read.
    """
    texts: list[str] = []
    ttl_min: int | None = None
    try:
        for index in range(min(count + others, MAX_RECORDS)):
            pos = pos + 2 if data[pos] >= 192 else skip_name(data, pos)
            kind, _, ttl, size = RECORD.unpack_from(data, pos)
            pos += 10
            if index >= count:
                if kind == OPT:
                    return texts, ttl_min, ttl >> 24 << 4
            elif kind not in _HIDDEN and len(texts) < MAX_ANSWERS:
                texts.append(data_text(kind, data, pos, size))
                ttl_min = ttl if ttl_min is None or ttl < ttl_min else ttl_min
            pos += size
    except _UNREADABLE:
        pass
    return texts, ttl_min, 0


Owned = tuple[str | None, int, list[str], int | None]  # name, type, texts, lowest TTL


def read_owned(data: bytes, pos: int, count: int) -> list[Owned]:
    """Records at `pos` by who owns them and type. Negative ones (NSEC) are left out.

    What comes after a fault or a cut is not read.
    """
    found: dict[tuple[str, int], tuple[list[str], int]] = {}
    try:
        for _ in range(min(count, MAX_RECORDS)):
            name, pos = read_name(data, pos)
            kind, _, ttl, size = RECORD.unpack_from(data, pos)
            pos += 10
            if kind not in _HIDDEN and kind != _NSEC:
                texts, lowest = found.get((name, kind)) or ([], ttl)
                if not texts and len(found) >= MAX_ANSWERS:
                    break
                if len(texts) < MAX_ANSWERS:
                    texts.append(data_text(kind, data, pos, size))
                found[name, kind] = texts, min(lowest, ttl)
            pos += size
    except _UNREADABLE:
        pass
    return [(name, kind, texts, lowest) for (name, kind), (texts, lowest) in found.items()]


def data_text(kind: int, data: bytes, pos: int, size: int) -> str:
    """The data of a record as text: an address, the name it points to, or what zone files would say, shortened."""
    if pos + size > len(data):
        raise Malformed("record cut")
    reader = _READERS.get(kind)
    if reader is None:
        return f"\\# {size} {data[pos : pos + min(size, 200)].hex()}"  # RFC 3597 5
    return reader(data, pos, size)[:MAX_TEXT]


def _address(data: bytes, pos: int, size: int) -> str:
    if size != 4:
        raise Malformed("A")
    return inet_ntoa(data[pos : pos + 4])


def _address6(data: bytes, pos: int, size: int) -> str:
    if size != 16:
        raise Malformed("AAAA")
    return inet_ntop(AF_INET6, data[pos : pos + 16])


def _name(data: bytes, pos: int, size: int) -> str:
    return read_name(data, pos)[0]


def _strings(data: bytes, pos: int, size: int) -> str:
    """Strings with a length byte each (RFC 1035 3.3.14). One of 255 bytes goes on in the next, others are apart."""
    parts, end, left = list[bytes](), pos + size, MAX_TEXT
    while pos < end and left > 0:
        length = data[pos]
        parts.append(data[pos + 1 : min(pos + 1 + length, end)])
        if length < 255:
            parts.append(b" ")
        left -= length + 1
        pos += 1 + length
    return text_of(b"".join(parts).rstrip(b" "))


def _mail(data: bytes, pos: int, size: int) -> str:
    """MX: the host alone, so that it can be compared with names."""
    return read_name(data, pos + 2)[0]


def _service(data: bytes, pos: int, size: int) -> str:
    """SRV as host:port (RFC 2782)."""
    return f"{read_name(data, pos + 6)[0]}:{int.from_bytes(data[pos + 4 : pos + 6])}"


def _authority(data: bytes, pos: int, size: int) -> str:
    """SOA: its primary server and the mailbox of who is responsible (RFC 1035 3.3.13)."""
    server, pos = read_name(data, pos)
    return f"{server} {read_name(data, pos)[0]}"


def _permission(data: bytes, pos: int, size: int) -> str:
    """CAA: flags, tag, value (RFC 8659 4.1.1)."""
    flags, length = data[pos], data[pos + 1]
    tag = text_of(data[pos + 2 : pos + 2 + min(length, size - 2)])
    return f'{flags} {tag} "{text_of(data[pos + 2 + length : pos + size])}"'


def _binding(data: bytes, pos: int, size: int) -> str:
    """SVCB and HTTPS: priority, target, and the parameters that say where and how to connect (RFC 9460 2.1 and 7)."""
    end = pos + size
    priority = int.from_bytes(data[pos : pos + 2])
    target, pos = read_name(data, pos + 2)
    parts = [f"{priority} {target}"]
    while pos + 4 <= end and len(parts) < 8:
        key, length = PAIR.unpack_from(data, pos)
        value = data[pos + 4 : min(pos + 4 + length, end)]
        pos += 4 + length
        if key == 1:
            at, protocols = 0, list[str]()
            while at < len(value) and len(protocols) < 8:
                protocols.append(text_of(value[at + 1 : at + 1 + value[at]]))
                at += 1 + value[at]
            parts.append("alpn=" + ",".join(protocols))
        elif key == 3 and length == 2:
            parts.append(f"port={int.from_bytes(value)}")
        elif key == 4:
            parts.append("ipv4hint=" + ",".join(inet_ntoa(value[i : i + 4]) for i in range(0, len(value) & ~3, 4)[:8]))
        elif key == 5:
            parts.append("ech")
        elif key == 6:
            hints = [inet_ntop(AF_INET6, value[i : i + 16]) for i in range(0, len(value) & ~15, 16)[:8]]
            parts.append("ipv6hint=" + ",".join(hints))
    return " ".join(parts)


_READERS: Final[dict[int, Callable[[bytes, int, int], str]]] = {
    1: _address, 28: _address6, 2: _name, 5: _name, 12: _name, 39: _name, 15: _mail, 33: _service, 6: _authority,
    16: _strings, 99: _strings, 13: _strings, 64: _binding, 65: _binding, 257: _permission,
}  # fmt: skip
