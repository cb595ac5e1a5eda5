"""SSH: the software of both sides and the algorithms they agree on (RFC 4253 4.2, 7.1). Of version 1 the banners."""

from __future__ import annotations

import struct
from typing import Any, Final

from engine.dissect._fingerprint import hassh
from engine.dissect.base import TCP, Application, Flow, Malformed, Message, Pattern, Stream, Verdict, column, text_of

# A packet may have 35,000 bytes (RFC 4253 6.1), a banner 255 (4.2).
_LIMIT: Final = 35_000 + 256
_BANNER_LIMIT: Final = 255
_KEXINIT: Final = 20
_PATIENCE: Final = 40
_LISTS: Final = 8
# The lists of a KEXINIT (RFC 4253 7.1), in order: to the server, and back.
_KEX, _HOST_KEY, _CIPHER, _CIPHER_BACK, _MAC, _MAC_BACK, _COMPRESSION, _COMPRESSION_BACK = range(_LISTS)
# Only one side says these (RFC 8308 2.1, OpenSSH's PROTOCOL 1.10): they tell who is who if the start was not seen.
_CLIENT_MARKS: Final = frozenset((b"ext-info-c", b"kex-strict-c-v00@openssh.com"))
_SERVER_MARKS: Final = frozenset((b"ext-info-s", b"kex-strict-s-v00@openssh.com"))


class _Side:
    """One direction: its banner, then its KEXINIT."""

    __slots__ = ("at", "banner", "ended", "lists", "stream")

    def __init__(self) -> None:
        self.stream = Stream(_LIMIT)
        self.at = 0
        self.banner = b""
        self.lists: list[bytes] = []
        self.ended = False

    @property
    def version(self) -> str:
        return text_of(self.banner[4:].split(b"-", 1)[0], 16)

    @property
    def is_old(self) -> bool:
        """Version 1 only; 1.99 speaks version 2 too (RFC 4253 5.1)."""
        return self.banner.startswith(b"SSH-1.") and not self.banner.startswith(b"SSH-1.99-")

    def read(self) -> None:
        """What has come of the banner and the packet after it. The banner ends with LF, older ones without CR."""
        data = self.stream.data
        if not self.banner:
            end = data.find(b"\n", 0, _BANNER_LIMIT + 1)
            if end < 0:
                if len(data) > _BANNER_LIMIT:
                    raise Malformed("banner does not end")
                return
            if not data.startswith(b"SSH-") or data.find(b"-", 4, end) < 5 or not chr(data[4]).isdigit():
                raise Malformed("no SSH banner")
            self.banner, self.at = bytes(data[:end].rstrip(b"\r")), end + 1
        if self.is_old:
            self.ended = True
        elif len(data) >= self.at + 4:
            self._read_packet(data)

    def _read_packet(self, data: bytearray) -> None:
        """Length, padding length, message (RFC 4253 6)."""
        size = int.from_bytes(data[self.at : self.at + 4], "big")
        if not 2 <= size <= _LIMIT:
            raise Malformed("no SSH packet")
        packet = bytes(data[self.at + 4 : self.at + 4 + size])
        if len(packet) == size:
            self.ended = True
            if packet[1] == _KEXINIT:
                self.lists = _lists(packet)


class _Parser:
    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._sides = {True: _Side(), False: _Side()}
        self._ts = 0
        self._seen = 0

    def feed(self, message: Message) -> Verdict:
        """Take a segment in; done when both sides have said what they can."""
        side = self._sides[message.from_client]
        if not side.stream.data and not message.data.startswith(b"SSH-"[: len(message.data)]):
            return Verdict.MORE if self._seen else self._foreign()
        self._seen += 1
        self._ts = self._ts or message.ts
        if not side.ended:
            side.stream.add(message.seq, message.data)
            try:
                side.read()
            except (Malformed, IndexError, struct.error):
                side.ended = True
            side.ended |= side.stream.full or not message.whole
        if side.banner:
            self._flow.app = "ssh"
        elif side.ended:
            return self._foreign()
        if all(s.ended for s in self._sides.values()) or self._seen >= _PATIENCE:
            self.finish()
            return Verdict.DONE
        return Verdict.MORE

    def finish(self) -> None:
        """One row per connection, of one side if there was no other."""
        client, server = self._sides[True], self._sides[False]
        if not self._ts or not (client.banner or server.banner):
            return
        if _SERVER_MARKS & _split(client, _KEX) or _CLIENT_MARKS & _split(server, _KEX):
            client, server = server, client
        row: dict[str, Any] = {"version": (server if server.banner else client).version}
        for name, side in (("client", client), ("server", server)):
            if side.banner:
                row[f"{name}_banner"] = text_of(side.banner, _BANNER_LIMIT)
                row[f"{name}_software"] = text_of(_software(side.banner), _BANNER_LIMIT)
        if client.lists:
            row["hassh"] = hassh(*(client.lists[i] for i in (_KEX, _CIPHER, _MAC, _COMPRESSION)))
        if server.lists:
            row["hassh_server"] = hassh(*(server.lists[i] for i in (_KEX, _CIPHER_BACK, _MAC_BACK, _COMPRESSION_BACK)))
        for name, index in (("kex", _KEX), ("host_key", _HOST_KEY), ("cipher", _CIPHER)):
            row[name] = _agreed(client, server, index)
        self._flow.emit(ts=self._ts, **row)
        self._ts = 0

    def _foreign(self) -> Verdict:
        return Verdict.RELEASE if self._flow.app else Verdict.FOREIGN


def _lists(packet: bytes) -> list[bytes]:
    """The name-lists of a KEXINIT: after padding length, type and 16 random bytes (RFC 4253 7.1)."""
    at = 18
    lists = []
    for _ in range(_LISTS):
        (size,) = struct.unpack_from(">I", packet, at)
        at += 4 + size
        if at > len(packet):
            raise Malformed("list reaches beyond the packet")
        lists.append(packet[at - size : at])
    return lists


def _split(side: _Side, index: int) -> frozenset[bytes]:
    return frozenset(side.lists[index].split(b",")) if side.lists else frozenset()


def _agreed(client: _Side, server: _Side, index: int) -> str | None:
    """The first of the client's that the server has too (RFC 4253 7.1)."""
    if not client.lists or not server.lists:
        return None
    known = _split(server, index)
    return next((text_of(n, 128) for n in client.lists[index].split(b",") if n in known), None)


def _software(banner: bytes) -> bytes:
    """What follows the version, up to the comment (RFC 4253 4.2)."""
    return banner.split(b"-", 2)[2].split(b" ", 1)[0]


APPLICATION = Application(
    name="ssh",
    meaning="Secure Shell: one row per connection",
    # The banner; the KEXINIT comes in it or in the few packets after it.
    patterns=(Pattern(transport=TCP, value=b"SSH-", follow=6),),
    parser=_Parser,
    columns=(
        column("version", "text", "", "Protocol version that the server names: 2.0, 1.99, 1.5", "RFC 4253 4.2"),
        column("client_banner", "text", "", "First line of the client", "RFC 4253 4.2"),
        column("server_banner", "text", "", "First line of the server", "RFC 4253 4.2"),
        column("client_software", "text", "", "Software in it, without the comment", "RFC 4253 4.2"),
        column("server_software", "text", "", "Software in it, without the comment", "RFC 4253 4.2"),
        column("hassh", "text", "", "Fingerprint of the client's algorithms, MD5", "HASSH"),
        column("hassh_server", "text", "", "Fingerprint of the server's algorithms, MD5", "HASSH"),
        column("kex", "text", "", "Key exchange agreed on", "RFC 4253 7.1"),
        column("host_key", "text", "", "Algorithm of the server's key", "RFC 4253 7.1"),
        column("cipher", "text", "", "Cipher from client to server", "RFC 4253 7.1"),
    ),
    encrypted=True,
)
