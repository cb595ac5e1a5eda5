"""SNMP versions 1, 2c and 3 (RFC 1157, RFC 3416, RFC 3412): who manages which device, with which community or user.

Every message is a row. Community strings are passwords sent in clear: that they can be seen is what a defender wants
to know. Messages are BER (X.690); of that only definite lengths and tags below 31 occur here (RFC 3417 8).
"""

from __future__ import annotations

from typing import Any, Final

from engine.dissect.base import UDP, Application, Flow, Malformed, Message, Pattern, Verdict, column, text_of

_INTEGER: Final = 0x02
_OCTETS: Final = 0x04
_OID: Final = 0x06
_SEQUENCE: Final = 0x30
_VERSIONS: Final = {0: "1", 1: "2c", 3: "3"}
_PDUS: Final = {  # RFC 1157 4.1, RFC 3416 3
    0xA0: "get", 0xA1: "getnext", 0xA2: "response", 0xA3: "set", 0xA4: "trap", 0xA5: "bulk", 0xA6: "inform",
    0xA7: "trap", 0xA8: "report",
}  # fmt: skip
_ERRORS: Final = (  # RFC 3416 3
    "noError tooBig noSuchName badValue readOnly genErr noAccess wrongType wrongLength wrongEncoding wrongValue "
    "noCreation inconsistentValue resourceUnavailable commitFailed undoFailed authorizationError notWritable "
    "inconsistentName"
)
_ERROR_NAMES: Final = tuple(_ERRORS.split(" "))
_TRAP1: Final = 0xA4
_MAX_OIDS: Final = 32
_MAX_OID_BYTES: Final = 160  # RFC 2578 3.5: 128 sub-identifiers


class _Parser:
    __slots__ = ("_flow",)

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def feed(self, message: Message) -> Verdict:
        """One message, one row. Of one that the capture cut off, what there is."""
        data = message.data
        try:
            start, stop = _open(data, 0, len(data), _SEQUENCE, message.whole)
            value, pos = _integer(data, start, stop)
            if value not in _VERSIONS:
                raise Malformed("version")
            fields = _read3(data, pos, stop) if value == 3 else _read12(data, pos, stop, message.whole)
        except (ValueError, IndexError):
            if not self._flow.app:
                return Verdict.FOREIGN
            raise
        self._flow.app = "snmp"
        self._flow.emit(ts=message.ts, version=_VERSIONS[value], **fields)
        return Verdict.MORE

    def finish(self) -> None:
        """Nothing is open between messages."""


def _head(data: bytes, pos: int, stop: int) -> tuple[int, int, int]:
    """Tag of the element at `pos`, where its content begins, and where it should end (X.690 8.1)."""
    if pos + 2 > stop:
        raise Malformed("element cut")
    tag, size = data[pos], data[pos + 1]
    pos += 2
    if size >= 0x80:
        count = size & 0x7F
        if not 1 <= count <= 4 or pos + count > stop:
            raise Malformed("length")
        size = int.from_bytes(data[pos : pos + count])
        pos += count
    return tag, pos, pos + size


def _open(data: bytes, pos: int, stop: int, wanted: int, whole: bool = True) -> tuple[int, int]:
    """Content of the element with the tag `wanted` at `pos`; it may be cut only if the message is not `whole`."""
    tag, start, end = _head(data, pos, stop)
    if tag != wanted or (end > stop and whole):
        raise Malformed("element")
    return start, min(end, stop)


def _integer(data: bytes, pos: int, stop: int) -> tuple[int, int]:
    """A number of up to eight bytes, and where the next element begins."""
    start, end = _open(data, pos, stop, _INTEGER)
    if not 1 <= end - start <= 8:
        raise Malformed("number")
    return int.from_bytes(data[start:end], signed=True), end


def _octets(data: bytes, pos: int, stop: int) -> tuple[bytes, int]:
    """A string, and where the next element begins."""
    start, end = _open(data, pos, stop, _OCTETS)
    return data[start:end], end


def _read12(data: bytes, pos: int, stop: int, whole: bool) -> dict[str, Any]:
    """Community and PDU (RFC 1157 4, RFC 1901 3)."""
    community, pos = _octets(data, pos, stop)
    return {"community": text_of(community, 255), **_pdu(data, pos, stop, whole)}


def _pdu(data: bytes, pos: int, stop: int, whole: bool) -> dict[str, Any]:
    """Kind, number, error and object names of a PDU (RFC 3416 3; trap of version 1: RFC 1157 4.1.6)."""
    tag, start, end = _head(data, pos, stop)
    if tag not in _PDUS or (end > stop and whole):
        raise Malformed("PDU")
    fields: dict[str, Any] = {"pdu": _PDUS[tag]}
    end = min(end, stop)
    try:
        if tag == _TRAP1:
            fields["oids"] = _trap1(data, start, end)
            return fields
        number, pos = _integer(data, start, end)
        status, pos = _integer(data, pos, end)
        _, pos = _integer(data, pos, end)
        fields["request_id"] = number
        if tag in (0xA2, 0xA8):  # in requests it says nothing, in a bulk request it is another number
            fields["error_status"] = _ERROR_NAMES[status] if 0 <= status < len(_ERROR_NAMES) else str(status)
        fields["oids"] = _names(data, pos, end)
    except (ValueError, IndexError):
        if whole:
            raise
    return fields


def _trap1(data: bytes, pos: int, stop: int) -> list[str] | None:
    """Of a trap of version 1: the enterprise, then the objects."""
    start, end = _open(data, pos, stop, _OID)
    enterprise = _oid(data[start:end])
    pos = end
    for _ in range(4):  # agent's address, generic and specific trap, time
        _, _, pos = _head(data, pos, stop)
    return [enterprise, *(_names(data, pos, stop) or [])]


def _names(data: bytes, pos: int, stop: int) -> list[str] | None:
    """The object names of a list of variables, the first 32; the list may be cut."""
    names: list[str] = []
    try:
        _, pos, end = _head(data, pos, stop)
        end = min(end, stop)
        while pos < end and len(names) < _MAX_OIDS:
            start, after = _open(data, pos, end, _SEQUENCE, whole=False)
            first, last = _open(data, start, after, _OID)
            names.append(_oid(data[first:last]))
            pos = after
    except (ValueError, IndexError):
        pass
    return names or None


def _oid(data: bytes) -> str:
    """An object identifier in dots (X.690 8.19); one that is cut or has too large numbers ends where it can be read."""
    numbers: list[int] = []
    number = 0
    for byte in data[:_MAX_OID_BYTES]:
        number = number << 7 | byte & 0x7F
        if number > 0xFFFF_FFFF:
            break
        if byte < 0x80:
            numbers.append(number)
            number = 0
    if not numbers:
        return ""
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))


def _read3(data: bytes, pos: int, stop: int) -> dict[str, Any]:
    """Version 3 (RFC 3412 6): engine and user are in clear (RFC 3414 2.4), the PDU only if it is not encrypted."""
    start, after = _open(data, pos, stop, _SEQUENCE)
    number, at = _integer(data, start, after)
    _, at = _integer(data, at, after)
    flags, at = _octets(data, at, after)
    model, _ = _integer(data, at, after)
    fields: dict[str, Any] = {"message_id": number}
    bits = flags[0] if flags else 0
    fields["security"] = "authPriv" if bits & 2 else "authNoPriv" if bits & 1 else "noAuthNoPriv"
    start, end = _open(data, after, stop, _OCTETS)
    if model == 3:  # the user-based model
        start, last = _open(data, start, end, _SEQUENCE)
        engine, at = _octets(data, start, last)
        _, at = _integer(data, at, last)
        _, at = _integer(data, at, last)
        user, _ = _octets(data, at, last)
        fields["engine_id"] = engine[:32].hex() or None
        fields["user_name"] = text_of(user, 255) or None
    if not bits & 2:
        start, last = _open(data, end, stop, _SEQUENCE)
        engine, at = _octets(data, start, last)
        _, at = _octets(data, at, last)
        fields["engine_id"] = fields.get("engine_id") or engine[:32].hex() or None
        fields |= _pdu(data, at, last, whole=True)
    return fields


def _patterns() -> tuple[Pattern, ...]:
    """Sequence, length in one to three bytes, a version from 0 to 3, then a community or the header of version 3."""
    shapes = (
        (b"\x30\x00\x02\x01\x00", b"\xff\x80\xff\xff\xfc"),
        (b"\x30\x81\x00\x02\x01\x00", b"\xff\xff\x00\xff\xff\xfc"),
        (b"\x30\x82\x00\x00\x02\x01\x00", b"\xff\xff\x00\x00\xff\xff\xfc"),
    )
    return tuple(
        Pattern(transport=UDP, value=value + after, mask=mask + b"\xff", length=(20, 65_535))
        for value, mask in shapes
        for after in (b"\x04", b"\x30")
    )


APPLICATION = Application(
    name="snmp",
    meaning="Simple Network Management Protocol: a row per message",
    patterns=(Pattern(transport=UDP, value=b"\x30", ports=(161, 162), length=(16, 65_535)), *_patterns()),
    parser=_Parser,
    columns=(
        column("version", "text", "", "1, 2c or 3", "RFC 3416, RFC 3412 6"),
        column("community", "text", "", "Password of versions 1 and 2c, as sent", "RFC 1157 4"),
        column(
            "pdu",
            "text",
            "",
            "get, getnext, bulk, set, response, trap, inform, report; NULL if encrypted",
            "RFC 3416 3",
        ),
        column("request_id", "int64", "", "Number that joins a request and its response", "RFC 3416 3"),
        column("error_status", "text", "", "Of a response: noError, noSuchName, authorizationError", "RFC 3416 3"),
        column(
            "oids", "texts", "", "Object names, the first 32; of a version 1 trap after the enterprise", "RFC 3416 3"
        ),
        column("message_id", "int64", "", "Version 3: number that joins a request and its response", "RFC 3412 6.2"),
        column("security", "text", "", "Version 3: noAuthNoPriv, authNoPriv, authPriv", "RFC 3412 6.4"),
        column("engine_id", "text", "", "Version 3: the device's identifier in hexadecimal", "RFC 3411 5"),
        column("user_name", "text", "", "Version 3: name of the user", "RFC 3414 2.4"),
    ),
)
