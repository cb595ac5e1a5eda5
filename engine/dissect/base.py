"""What an application protocol is to the engine: how its messages begin, which table it fills, and who reads them.

One file of this package per protocol defines `APPLICATION`; nothing else has to be changed to add one (see "How to
add" in ARCHITECTURE.md). A kernel compares the first bytes of payloads with the patterns; what matches is handed, with
`follow` further packets of the same direction, to the parser of the flow. Parsers see bytes that an attacker chose:
they bound what they keep, and raise nothing but `ValueError` (`Malformed`), `LookupError`, `ArithmeticError`,
`struct.error` and dpkt's `UnpackError`, which all mean "this message cannot be read".

Modules of this package import only the standard library and this package at the top: readers of the lake load them
for the columns. dpkt and cryptography are imported inside the functions that need them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Protocol

from engine.schema import Column

TCP: Final = 6
UDP: Final = 17


class Malformed(ValueError):
    """The message contradicts its protocol."""


class Verdict(IntEnum):
    """What a parser says after a message."""

    MORE = 0  # go on handing over what matches
    DONE = 1  # nothing more of this flow is wanted
    FOREIGN = 2  # not this protocol; allowed only while the parser has not set `flow.app`
    RELEASE = 3  # read to its end; what follows may be another protocol (STARTTLS, CONNECT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """How a payload may begin: up to 8 bytes, compared under a mask (all ones when empty).

    `transport` is TCP or UDP. With `ports`, one of the flow's ports must be among them: for protocols whose first
    bytes say too little. `length` bounds the payload's length in bytes. `follow` is how many further payload packets
    of the same direction are handed over, because a message may be split.
    """

    transport: int
    value: bytes = b""
    mask: bytes = b""
    ports: tuple[int, ...] = ()
    length: tuple[int, int] = (1, 1 << 30)
    follow: int = 0


@dataclass(slots=True)
class Message:
    """The captured payload of one packet.

    `ts` is in microseconds since the epoch, UTC. `seq` is the TCP sequence number of the first byte, 0 for UDP.
    `whole` is false when the capture cut the payload off (snaplen).
    """

    data: bytes
    ts: int
    from_client: bool
    seq: int = 0
    whole: bool = True


@dataclass(slots=True)
class Flow:
    """What a parser knows about its flow and tells about it. The client is the side that sent first.

    A parser sets `app` (one of its application's names) once it is sure, and `server_name` (as the client asked for
    it: SNI, Host, query) when it learns it. `emit(**columns)` adds a row to the application's table; `ts` (int,
    microseconds) must be among them, the flow's own columns are added by the engine.
    """

    proto: int
    src_ip: str
    dst_ip: str
    src_port: int
    dst_port: int
    flow_id: int = 0
    app: str = ""
    server_name: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)

    def emit(self, **columns: Any) -> None:
        """Add a row to the application's table."""
        self.rows.append(columns)


class Parser(Protocol):
    """Reads the messages of one flow. Made by `Application.parser(flow)`."""

    def feed(self, message: Message) -> Verdict:
        """Take one message in."""

    def finish(self) -> None:
        """The flow has ended, or nothing more is wanted: emit what is still open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """An application protocol. `name` is the value of `app` and the name of the table it fills.

    Args:
        variants: further values of `app` that its parser may set (mdns and llmnr fill the table `dns`).
        columns: the table's columns after FLOW_COLUMNS; empty for one that is only recognised.
        protos: IP protocols whose packets all belong to it (ESP).
        encrypted: payload is expected to look random, so that entropy can be read in context.
    """

    name: str
    meaning: str
    patterns: tuple[Pattern, ...]
    parser: Callable[[Flow], Parser]
    columns: tuple[Column, ...] = ()
    variants: tuple[str, ...] = ()
    encrypted: bool = False
    protos: tuple[int, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.variants)


# The first columns of every application's table, filled by the engine.
FLOW_COLUMNS: Final = (
    Column("ts", "timestamp", "UTC", "Time of the message that began it", "libpcap ts"),
    Column("flow_id", "int64", "", "The flow, as in `flows` and `packets`", "engine"),
    Column("src_ip", "text", "", "The client: who sent first", "flow"),
    Column("src_port", "int32", "", "The client's port", "flow"),
    Column("dst_ip", "text", "", "The server", "flow"),
    Column("dst_port", "int32", "", "The server's port", "flow"),
)


def column(name: str, kind: str, unit: str, meaning: str, source: str) -> Column:
    """A column of an application's table; any of them may be NULL."""
    return Column(name, kind, unit, meaning, source, nullable=True)


class Stream:
    """The bytes of one direction of a TCP connection, in order from the first segment given. Bounded.

    Segments may come late, twice or overlapping; bytes already there win. What would lie beyond `limit` bytes, or
    beyond `segments` out-of-order pieces, is not kept.
    """

    __slots__ = ("_late", "_next", "_segments", "data", "full", "limit")

    def __init__(self, limit: int = 32_768, segments: int = 32) -> None:
        self.data = bytearray()
        self.limit = limit
        self.full = False  # bytes were refused
        self._segments = segments
        self._next: int | None = None  # sequence number that continues `data`
        self._late: dict[int, bytes] = {}

    def add(self, seq: int, data: bytes) -> None:
        """Take a segment in; `data` grows when it continues what is there."""
        if self._next is None:
            self._next = seq
        ahead = (seq - self._next + 0x8000_0000 & 0xFFFF_FFFF) - 0x8000_0000
        if ahead > 0:
            if len(self._late) < self._segments and ahead < self.limit:
                self._late.setdefault(seq, data)
            else:
                self.full = True
            return
        self._append(data[-ahead:] if ahead else data)
        while self._late:
            ready = [s for s in self._late if (s - self._next + 0x8000_0000 & 0xFFFF_FFFF) - 0x8000_0000 <= 0]
            if not ready:
                return
            for s in ready:
                piece = self._late.pop(s)
                behind = (self._next - s) & 0xFFFF_FFFF
                self._append(piece[behind:])

    def _append(self, data: bytes) -> None:
        assert self._next is not None
        room = self.limit - len(self.data)
        if len(data) > room:
            self.full = True
            data = data[:room]
        self.data += data
        self._next = (self._next + len(data)) & 0xFFFF_FFFF


def text_of(data: bytes | bytearray | memoryview, limit: int = 512) -> str:
    """Bytes of the wire as text that is safe to store and show: UTF-8 or escapes, no control characters, bounded."""
    raw = bytes(data[:limit]).decode("utf-8", "backslashreplace")
    return raw if raw.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in raw)
