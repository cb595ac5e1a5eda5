"""A realistic mix of traffic, made up and seeded: sessions of DNS, TLS, QUIC, HTTP, SSH, voice, scans, interleaved.

Addresses, names and sizes are drawn with few common ones and many rare ones. Everything is well-formed as far as
meters look: lengths, IPv4 header checksums, TCP numbers, server names in TLS and QUIC. Checksums of TCP and UDP are 0.
"""

from __future__ import annotations

import hashlib
import hmac
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_IP4 = struct.Struct(">6s6sHBBHHHBBH4s4s")
_IP6 = struct.Struct(">6s6sHIHBB16s16s")
_TCP = struct.Struct(">HHIIBBHHH")
_UDP = struct.Struct(">HHHH")
_ROUTER = bytes.fromhex("020000000001")
_FIN, _SYN, _RST, _PSH, _ACK = 1, 2, 4, 8, 16
_MSS = 1448
_QUIC_SALT = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")  # RFC 9001 5.2
PACKETS_PER_S = 100_000  # of the mix's own clock: a link worth measuring on
Timed = tuple[int, bytes]  # nanoseconds after the start, frame


@dataclass(slots=True)
class _Session:
    """Two hosts and a clock; `frames` is what they said to each other."""

    rng: random.Random
    at_ns: int
    client: bytes  # addresses, 4 or 16 bytes
    server: bytes
    client_port: int
    server_port: int
    blob: bytes
    name: str
    frames: list[Timed] = field(default_factory=list)
    numbers: list[int] = field(default_factory=lambda: [0, 0])  # next TCP sequence of server, client

    def wait(self, mean_ms: float) -> None:
        self.at_ns += int(self.rng.expovariate(1e-6 / mean_ms))

    def random_bytes(self, size: int) -> bytes:
        at = self.rng.randrange(len(self.blob) - size)
        return self.blob[at : at + size]

    def ip(self, outgoing: bool, proto: int, body: bytes) -> None:
        """Put a packet on the wire."""
        src, dst = (self.client, self.server) if outgoing else (self.server, self.client)
        mac = b"\x02\x10" + self.client[-4:]
        ends = (_ROUTER, mac) if outgoing else (mac, _ROUTER)
        if len(src) == 4:
            values = [*ends, 0x0800, 0x45, 0, 20 + len(body), len(self.frames), 0x4000, 64 if outgoing else 54, proto,
                      0, src, dst]  # fmt: skip
            words = sum(struct.unpack_from(">10H", _IP4.pack(*values), 14))
            words = (words & 0xFFFF) + (words >> 16)
            values[10] = ~((words & 0xFFFF) + (words >> 16)) & 0xFFFF
            frame = _IP4.pack(*values) + body
        else:
            frame = _IP6.pack(*ends, 0x86DD, 6 << 28, len(body), proto, 64 if outgoing else 54, src, dst) + body
        self.frames.append((self.at_ns, frame.ljust(60, b"\0")))

    def udp(self, outgoing: bool, data: bytes) -> None:
        ports = (self.client_port, self.server_port) if outgoing else (self.server_port, self.client_port)
        self.ip(outgoing, 17, _UDP.pack(*ports, 8 + len(data), 0) + data)

    def tcp(self, outgoing: bool, data: bytes = b"", flags: int = _ACK, options: bytes = b"") -> None:
        ports = (self.client_port, self.server_port) if outgoing else (self.server_port, self.client_port)
        ack = self.numbers[not outgoing] if flags & _ACK else 0
        words = (20 + len(options)) // 4 << 4
        head = _TCP.pack(*ports, self.numbers[outgoing], ack, words, flags, 502, 0, 0)
        self.ip(outgoing, 6, head + options + data)
        self.numbers[outgoing] = (self.numbers[outgoing] + len(data) + bool(flags & (_SYN | _FIN))) & 0xFFFFFFFF

    def connect(self) -> None:
        self.numbers = [self.rng.getrandbits(32), self.rng.getrandbits(32)]
        options = bytes.fromhex("020405b40402080a00000001000000000103" + "0307")
        self.tcp(True, flags=_SYN, options=options)
        self.wait(15)
        self.tcp(False, flags=_SYN | _ACK, options=options)
        self.wait(0.2)
        self.tcp(True)

    def say(self, outgoing: bool, data: bytes) -> None:
        """A message in segments; the other side acknowledges every second one."""
        for number, at in enumerate(range(0, len(data), _MSS)):
            part = data[at : at + _MSS]
            self.tcp(outgoing, part, _ACK | (_PSH if at + _MSS >= len(data) else 0))
            self.wait(0.05)
            if number % 2:
                self.tcp(not outgoing)
        self.wait(10)

    def close(self) -> None:
        self.tcp(True, flags=_FIN | _ACK)
        self.wait(10)
        self.tcp(False, flags=_FIN | _ACK)
        self.tcp(True)

    def many(self, mean: float, limit: int = 200_000) -> int:
        """Bytes of a transfer: most small, a few large."""
        return min(limit, int(mean * self.rng.paretovariate(1.2)))


def _vector(size: int, data: bytes) -> bytes:
    return len(data).to_bytes(size, "big") + data


def client_hello(rng: random.Random, name: str) -> bytes:
    """A TLS 1.3 ClientHello handshake message (RFC 8446 4.1.2) with server name and ALPN."""
    extensions = [
        (0, _vector(2, b"\0" + _vector(2, name.encode()))),
        (10, _vector(2, bytes.fromhex("001d00170018"))),
        (13, _vector(2, bytes.fromhex("040308040401050308050501"))),
        (16, _vector(2, _vector(1, b"h2") + _vector(1, b"http/1.1"))),
        (43, _vector(1, bytes.fromhex("03040303"))),
        (51, _vector(2, b"\0\x1d" + _vector(2, rng.randbytes(32)))),
    ]
    packed = b"".join(kind.to_bytes(2, "big") + _vector(2, data) for kind, data in extensions)
    body = b"\3\3" + rng.randbytes(32) + _vector(1, rng.randbytes(32))
    body += _vector(2, bytes.fromhex("130113021303c02bc02fc02cc030cca9cca8")) + b"\1\0" + _vector(2, packed)
    return b"\1" + _vector(3, body)


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446 7.1) of at most one hash block."""
    info = size.to_bytes(2, "big") + _vector(1, b"tls13 " + label) + b"\0"
    return hmac.digest(secret, info + b"\1", hashlib.sha256)[:size]


def quic_initial(rng: random.Random, name: str) -> bytes:
    """A client's first QUIC datagram (RFC 9000 17.2.2), encrypted as RFC 9001 5 says: 1,200 bytes."""
    destination = rng.randbytes(8)
    secret = _expand(hmac.digest(_QUIC_SALT, destination, hashlib.sha256), b"client in", 32)
    key, iv, mask_key = (_expand(secret, b, n) for b, n in ((b"quic key", 16), (b"quic iv", 12), (b"quic hp", 16)))
    hello = client_hello(rng, name)
    head = b"\xc3" + (1).to_bytes(4, "big") + _vector(1, destination) + b"\0\0"
    size = 1200 - len(head) - 2
    head += (0x4000 | size).to_bytes(2, "big") + bytes(4)
    plain = (b"\x06\0" + (0x4000 | len(hello)).to_bytes(2, "big") + hello).ljust(size - 20, b"\0")
    sealed = AESGCM(key).encrypt(iv, plain, head)  # packet number 0: the nonce is the iv
    encryptor = Cipher(algorithms.AES(mask_key), modes.ECB()).encryptor()  # RFC 9001 5.4.3
    mask = encryptor.update(sealed[:16])
    number = bytes(a ^ b for a, b in zip(bytes(4), mask[1:], strict=False))
    return bytes([head[0] ^ mask[0] & 0x0F]) + head[1:-4] + number + sealed


def _dns(s: _Session) -> None:
    labels = b"".join(_vector(1, label.encode()) for label in s.name.split(".")) + b"\0"
    number, kind = s.rng.randbytes(2), b"\0\x1c" if s.rng.random() < 0.3 else b"\0\1"
    question = labels + kind + b"\0\1"
    s.udp(True, number + bytes.fromhex("01000001000000000000") + question)
    s.wait(12)
    answer = b"\xc0\x0c" + kind + b"\0\1\0\0\1\x2c" + _vector(2, s.rng.randbytes(16 if kind == b"\0\x1c" else 4))
    s.udp(False, number + bytes.fromhex("818000010001") + bytes(4) + question + answer)


def _tls(s: _Session) -> None:
    s.connect()
    s.say(True, b"\x16\3\1" + _vector(2, client_hello(s.rng, s.name)))
    hello = b"\3\3" + s.rng.randbytes(32) + _vector(1, s.rng.randbytes(32)) + b"\x13\1\0"
    hello += _vector(2, bytes.fromhex("002b00020304") + b"\0\x33" + _vector(2, b"\0\x1d" + _vector(2, bytes(32))))
    sealed = b"\x17\3\3" + _vector(2, s.random_bytes(2800))
    s.say(False, b"\x16\3\3" + _vector(2, b"\2" + _vector(3, hello)) + b"\x14\3\3\0\1\1" + sealed)
    s.say(True, b"\x14\3\3\0\1\1\x17\3\3" + _vector(2, s.random_bytes(53)))
    for _ in range(s.rng.randrange(1, 5)):
        s.say(True, b"\x17\3\3" + _vector(2, s.random_bytes(s.rng.randrange(80, 900))))
        left = s.many(2500)
        records = []
        while left > 0:
            size = min(left, 16_384)
            records.append(b"\x17\3\3" + _vector(2, s.random_bytes(size)))
            left -= size
        s.say(False, b"".join(records))
    s.close()


def _quic(s: _Session) -> None:
    s.udp(True, quic_initial(s.rng, s.name))
    s.wait(15)
    s.udp(False, b"\xc9\0\0\0\1\0" + _vector(1, s.rng.randbytes(8)) + b"\0\x44\xb0" + s.random_bytes(1183))
    s.udp(False, b"\xe4\0\0\0\1\0" + _vector(1, s.rng.randbytes(8)) + b"\x44\xb0" + s.random_bytes(1184))
    for at in range(0, s.many(4000), 1230):
        s.wait(0.2)
        s.udp(False, b"\x45" + s.random_bytes(1229))
        if at % 4 == 0:
            s.udp(True, b"\x52" + s.random_bytes(38))


def _http(s: _Session) -> None:
    s.connect()
    for _ in range(s.rng.randrange(1, 4)):
        path = f"/v1/items/{s.rng.randrange(10_000)}?lang=en"
        s.say(True, f"GET {path} HTTP/1.1\r\nHost: {s.name}\r\nUser-Agent: made-up/1.0\r\nAccept: */*\r\n\r\n".encode())
        size = s.many(1500)
        head = f"HTTP/1.1 200 OK\r\nServer: made-up\r\nContent-Type: text/html\r\nContent-Length: {size}\r\n\r\n"
        s.say(
            False, head.encode() + (b"<p>The quick brown fox jumps over the lazy dog</p>\n" * (size // 50 + 1))[:size]
        )
    s.close()


def _ssh(s: _Session) -> None:
    s.connect()
    s.say(True, b"SSH-2.0-OpenSSH_9.6\r\n")
    s.say(False, b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
    for _ in range(s.rng.randrange(20, 80)):
        s.say(s.rng.random() < 0.5, s.random_bytes(s.rng.choice((36, 52, 100, 420))))
        s.wait(30)
    s.close()


def _voice(s: _Session) -> None:
    for number in range(s.rng.randrange(50, 400)):
        head = struct.pack(">BBHII", 0x80, 8, number, number * 160, s.client_port)
        s.udp(bool(number % 2), head + s.random_bytes(160))
        s.at_ns += 10_000_000


def _ntp(s: _Session) -> None:
    s.udp(True, b"\x23" + bytes(47))
    s.wait(20)
    s.udp(False, b"\x24\2\6\xe9" + s.random_bytes(44))


def _ping(s: _Session) -> None:
    proto, kinds = (1, (8, 0)) if len(s.client) == 4 else (58, (128, 129))
    for number in range(4):
        for outgoing, kind in ((True, kinds[0]), (False, kinds[1])):
            s.ip(outgoing, proto, struct.pack(">BBHHH", kind, 0, 0, 7, number) + bytes(range(48)))
            s.wait(10)
        s.at_ns += 1_000_000_000


def _scan(s: _Session) -> None:
    """One host looks for open ports on one other."""
    for port in s.rng.sample(range(1, 10_000), 20):
        s.client_port, s.server_port, s.numbers = s.rng.randrange(32_768, 61_000), port, [0, s.rng.getrandbits(32)]
        s.tcp(True, flags=_SYN)
        s.wait(2)
        if s.rng.random() < 0.7:
            s.tcp(False, flags=_RST | _ACK)


# How many in a hundred sessions, what they do, the server's port.
_KINDS: tuple[tuple[int, Callable[[_Session], None], int], ...] = (
    (40, _dns, 53), (26, _tls, 443), (11, _quic, 443), (7, _http, 80), (4, _ntp, 123), (4, _ping, 0), (3, _scan, 0),
    (2, _ssh, 22), (3, _voice, 20_000),
)  # fmt: skip


class _Town:
    """Who there is: 200 clients, 3,000 servers, 1,000 names."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.blob = self.rng.randbytes(1 << 20)
        self.weights = [weight for weight, _, _ in _KINDS]

    def _common(self, count: int) -> int:
        """A number below `count`, the small ones more often."""
        return min(count - 1, int(self.rng.paretovariate(0.6)) - 1)

    def session(self, at_ns: int) -> list[Timed]:
        rng = self.rng
        _, talk, port = rng.choices(_KINDS, self.weights)[0]
        client, server = rng.randrange(200), self._common(3000)
        if rng.random() < 0.25:
            prefix = bytes.fromhex("20010db8")
            ends = (prefix + bytes(9) + b"\1" + client.to_bytes(2, "big"), prefix + b"\xff" * 2 + bytes(8) +
                    server.to_bytes(2, "big"))  # fmt: skip
        else:
            ends = (bytes([10, 20, client >> 6, 10 + (client & 63)]), bytes([203, server >> 8, server & 255, 7]))
        name = f"host{self._common(1000)}.{rng.choice(('shop', 'news', 'cdn', 'mail', 'api'))}.example"
        s = _Session(rng, at_ns, *ends, rng.randrange(32_768, 61_000), port, self.blob, name)
        talk(s)
        return s.frames


def frames(count: int, seed: int = 1, pps: int = PACKETS_PER_S) -> Iterator[Timed]:
    """`count` frames in the order of time, `pps` of them a second: the slower, the more each second's work weighs."""
    town, found = _Town(seed), list[Timed]()
    span_ns = count * 1_000_000_000 // pps
    while len(found) < count:
        found += town.session(town.rng.randrange(span_ns))
    found.sort(key=lambda frame: frame[0])
    yield from found[:count]
