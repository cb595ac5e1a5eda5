"""A frame as layers and fields with their places in it, for the inspector's tree and its bytes.

    for layer in layers(frame, link_type): print(layer.name, layer.start, layer.end, layer.fields)

Layers follow one another and cover the frame without gap or overlap: each is one header, or one message of an
application; what is left is `payload`, `padding` behind the length that IP claims, or `damaged` where something does
not fit its protocol. Fields lie in their layer. Fixed headers are laid out as dpkt defines them; names are those of
our columns where there is one, else the RFC's. Nothing here raises for bad bytes, and every text is safe to print.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import dpkt

MAX_LAYERS: Final = 256
_MAX_TEXT: Final = 200
# What parsers here, and dpkt, may raise for bytes that are not what they should be.
BAD_BYTES: Final = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, struct.error, dpkt.Error)


@dataclass(frozen=True, slots=True)
class Field:
    """A value, and the bytes of the frame that hold it: start to end - 1. Values of bits share their bytes."""

    name: str
    value: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Layer:
    """A header or message: bytes start to end - 1 of the frame."""

    name: str
    start: int
    end: int
    fields: list[Field] = field(default_factory=list)


class DamagedError(ValueError):
    """The bytes end too early, or contradict themselves."""


# A name, and how its value is shown; None hides a field (reserved bits).
Names = Mapping[str, tuple[str, Callable[[Any], str]] | None]


class Walk:
    """The way through one frame: what is done, where the next layer begins (`at`) and where it must end (`end`)."""

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.at = 0
        self.end = len(frame)
        self.layers: list[Layer] = []

    def need(self, size: int) -> int:
        """The place of the next `size` bytes. Raises DamagedError when fewer are left."""
        if size < 0 or self.at + size > self.end:
            raise DamagedError
        return self.at

    def add(self, name: str, size: int, fields: list[Field]) -> None:
        """The next `size` bytes are a layer, unless that is none. What lies beyond it of a field is cut off."""
        stop = min(self.at + size, self.end)
        if stop > self.at:
            inside = [Field(f.name, f.value, f.start, min(f.end, stop)) for f in fields if f.start < min(f.end, stop)]
            self.layers.append(Layer(name, self.at, stop, inside))
            self.at = stop

    def narrow(self, size: int) -> None:
        """What follows is at most `size` bytes; the rest of the frame is padding."""
        self.end = min(self.end, self.at + max(0, size))

    def number(self, at: int, size: int) -> int:
        """The big-endian number at a place. Raises DamagedError outside the present layer's bounds."""
        if at < 0 or at + size > self.end:
            raise DamagedError
        return int.from_bytes(self.frame[at : at + size], "big")

    def item(self, name: str, offset: int, size: int, show: Callable[[int], str] = str) -> Field:
        """A field of the layer that begins here: a big-endian number `offset` bytes into it."""
        at = self.at + offset
        return Field(name, show(self.number(at, size)), at, at + size)

    def octets(self, name: str, offset: int, stop: int, show: Callable[[bytes], str] | None = None) -> Field:
        """A field of the layer that begins here: its bytes `offset` to `stop` - 1, in hexadecimal unless shown else."""
        self.need(stop)
        at, end = self.at + offset, self.at + stop
        return Field(name, (show or hexadecimal)(self.frame[at:end]), at, end)

    def fixed(self, header: Any, names: Names, at: int | None = None) -> tuple[dict[str, Any], list[Field]]:
        """A header as a dpkt class lays it out: its values by dpkt's names, and its fields by ours."""
        place = self.at if at is None else at
        if place + header.__hdr_len__ > self.end:
            raise DamagedError
        values: dict[str, Any] = {}
        fields: list[Field] = []
        order = getattr(header, "__byte_order__", ">")
        bits = getattr(header, "__bit_fields__", {})
        for name, form, _ in header.__hdr__:
            size = struct.calcsize(order + form)
            value = struct.unpack_from(order + form, self.frame, place)[0]
            for part, number in _parts(name, value, bits.get(name), size):
                values[part] = number
                shown = names.get(part, (part, str))
                if shown is not None and not part.startswith("_"):
                    fields.append(Field(shown[0], safe(shown[1](number)), place, place + size))
            place += size
        return values, fields


def _parts(name: str, value: Any, bits: Any, size: int) -> list[tuple[str, Any]]:
    """A field, or the bit fields that share its bytes, from the highest."""
    if bits is None:
        return [(name, value)]
    left, out = 8 * size, []
    for part, width in bits:
        left -= width
        out.append((part, value >> left & (1 << width) - 1))
    return out


def layers(frame: bytes, link_type: int) -> list[Layer]:
    """The layers of a frame of a link type (as savefiles number them), outermost first."""
    from analytics.layer_links import LINKS
    from analytics.layer_parsers import PARSERS

    walk = Walk(frame)
    kind = LINKS.get(link_type)
    for _ in range(MAX_LAYERS):
        if kind is None or walk.at >= walk.end:
            break
        try:
            kind = PARSERS[kind](walk)
        except BAD_BYTES:
            walk.add("damaged", walk.end - walk.at, [])
            kind = None
    walk.add("payload", walk.end - walk.at, [])
    walk.end = len(frame)
    walk.add("padding", walk.end - walk.at, [])
    return walk.layers


# --- values as text -------------------------------------------------------------------------------------------------


def safe(text: str) -> str:
    """Text without control or invisible characters, bounded."""
    short = text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "..."
    if short.isprintable():
        return short
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)


def text(data: bytes) -> str:
    """Bytes of the wire as text."""
    return safe(data[: _MAX_TEXT + 1].decode("utf-8", "backslashreplace"))


def mac(data: bytes) -> str:
    return data.hex(":")


def hexadecimal(data: bytes) -> str:
    return safe(data[:_MAX_TEXT].hex())


def address(data: bytes) -> str:
    """4 or 16 bytes as an IP address, anything else in hexadecimal."""
    return str(ipaddress.ip_address(data)) if len(data) in (4, 16) else data.hex()


def hex16(value: int) -> str:
    return f"0x{value:04x}"


def named(names: Mapping[int, str], form: str = "{}") -> Callable[[int], str]:
    """Shows a number with its name, where it has one."""

    def show(value: int) -> str:
        number = form.format(value)
        return f"{number} ({names[value]})" if value in names else number

    return show
