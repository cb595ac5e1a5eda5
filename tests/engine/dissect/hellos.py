"""Hellos, records and packets made byte by byte, and a driver that gives them to a parser."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from engine.dissect.base import TCP, Application, Flow, Message, Verdict

GREASE = 0x7A7A
# Chrome's lists, as FoxIO's description of JA4 prints them, with GREASE as Chrome sends it.
CIPHERS = (
    GREASE, 0x1301, 0x1302, 0x1303, 0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8, 0xC013, 0xC014, 0x009C, 0x009D,
    0x002F, 0x0035,
)  # fmt: skip
SIGNATURES = (0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601)


def u16s(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}H", *numbers)


def vector(data: bytes, size: int = 2) -> bytes:
    """Bytes behind their length."""
    return len(data).to_bytes(size, "big") + data


def sni(name: bytes) -> tuple[int, bytes]:
    return 0, vector(b"\0" + vector(name))


def alpn(*names: bytes) -> tuple[int, bytes]:
    return 16, vector(b"".join(vector(n, 1) for n in names))


def chrome(name: bytes = b"www.example.org", *protocols: bytes) -> list[tuple[int, bytes]]:
    """Extensions of Chrome in an order of our own."""
    return [
        (GREASE, b""), (0x001B, b"\2\0\2"), sni(name), (0x0033, vector(u16s(29) + vector(b"k" * 32))),
        alpn(*(protocols or (b"h2", b"http/1.1"))), (0x4469, vector(vector(b"h2", 1))), (0x0017, b""),
        (0xFF01, b"\0"), (0x000A, vector(u16s(GREASE, 29, 23, 24))), (0x000B, b"\1\0"), (0x0023, b""),
        (0x0005, b"\1\0\0\0\0"), (0x000D, vector(u16s(*SIGNATURES))), (0x0012, b""), (0x002D, b"\1\1"),
        (0x002B, vector(u16s(GREASE, 0x0304, 0x0303), 1)), (0x1A1A, b"\0"), (0x0015, bytes(40)),
    ]  # fmt: skip


def handshake(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + vector(body, 3)


def client_hello(
    extensions: Sequence[tuple[int, bytes]] | None = None,
    ciphers: Sequence[int] = CIPHERS,
    version: int = 0x0303,
    session: bytes = b"s" * 32,
    cookie: bytes | None = None,
) -> bytes:
    """A ClientHello; with a cookie it is one of DTLS."""
    body = u16s(version) + b"r" * 32 + vector(session, 1)
    body += b"" if cookie is None else vector(cookie, 1)
    body += vector(u16s(*ciphers)) + b"\1\0"
    if extensions is None:
        return handshake(1, body)
    return handshake(1, body + vector(b"".join(u16s(kind) + vector(data) for kind, data in extensions)))


def server_hello(
    extensions: Sequence[tuple[int, bytes]] = ((0x0033, bytes(36)), (0x002B, b"\3\4")),
    cipher: int = 0x1301,
    version: int = 0x0303,
    session: bytes = b"s" * 32,
    random: bytes = b"R" * 32,
) -> bytes:
    body = u16s(version) + random + vector(session, 1) + u16s(cipher) + b"\0"
    return handshake(2, body + vector(b"".join(u16s(kind) + vector(data) for kind, data in extensions)))


def record(data: bytes, kind: int = 22, version: int = 0x0301, size: int = 16_384) -> bytes:
    """TLS records of at most `size` bytes each."""
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    return b"".join(bytes((kind,)) + u16s(version) + vector(p) for p in pieces)


class Talk:
    """One flow and its parser; counts sequence numbers of both sides."""

    def __init__(self, application: Application, proto: int = TCP) -> None:
        self.flow = Flow(proto, "192.0.2.1", "198.51.100.2", 50_000, 443)
        self.parser = application.parser(self.flow)
        self.seq = {True: 0xFFFF_FFF0, False: 1000}
        self.verdict = Verdict.MORE
        self.ts = 1_700_000_000_000_000

    def say(self, from_client: bool, data: bytes, seq: int | None = None, whole: bool = True) -> Talk:
        """One packet, in order unless `seq` says where it belongs."""
        self.ts += 1
        at = self.seq[from_client] if seq is None else seq
        self.verdict = self.parser.feed(Message(data, self.ts, from_client, at if self.flow.proto == TCP else 0, whole))
        if seq is None:
            self.seq[from_client] = at + len(data) & 0xFFFF_FFFF
        return self

    def client(self, data: bytes, **more: Any) -> Talk:
        return self.say(True, data, **more)

    def server(self, data: bytes, **more: Any) -> Talk:
        return self.say(False, data, **more)

    def row(self) -> dict[str, Any]:
        """The only row, without its time."""
        self.parser.finish()
        assert len(self.flow.rows) == 1, self.flow.rows
        row = dict(self.flow.rows[0])
        assert isinstance(row.pop("ts"), int)
        return row

    def rows(self) -> list[dict[str, Any]]:
        self.parser.finish()
        return self.flow.rows


def check_columns(application: Application, row: dict[str, Any]) -> None:
    """Each value is of its column's type, each key a column."""
    types = {"text": str, "texts": list, "bool": bool, "timestamp": int, "int16": int}
    columns = {c.name: types[c.type] for c in application.columns}
    for name, value in row.items():
        assert value is None or type(value) is columns[name], (name, value)
