"""Fingerprints of TLS clients and servers, as their authors publish them.

JA3 and JA3S: MD5 over decimal numbers (Salesforce, 2017). JA4 and JA4S: a part to read and a cut SHA-256 (FoxIO,
2023). HASSH: MD5 over lists of algorithms (Salesforce, 2018). GREASE (RFC 8701) is left out of all that a client sends.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import md5, sha256
from typing import Final

from engine.dissect._handshake import GREASE, ClientHello, ServerHello

_JA4_VERSIONS: Final = {
    0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2", 0x0200: "s2", 0x0100: "s1",
    0xFEFF: "d1", 0xFEFD: "d2", 0xFEFC: "d3",
}  # fmt: skip
_NOTHING: Final = "000000000000"
_NAMES: Final = frozenset((0x0000, 0x0010))  # SNI and ALPN vary with the destination


def ja3(hello: ClientHello) -> str:
    """Version, ciphers, extensions, groups and point formats of a client."""
    ciphers = "-".join([str(c) for c in hello.ciphers if c not in GREASE])
    extensions = "-".join([str(e) for e in hello.extensions if e not in GREASE])
    groups = "-".join([str(g) for g in hello.groups if g not in GREASE])
    formats = "-".join(map(str, hello.formats))
    return _md5(f"{hello.version},{ciphers},{extensions},{groups},{formats}")


def ja3s(hello: ServerHello) -> str:
    """Version, cipher and extensions of a server."""
    return _md5(f"{hello.version},{hello.cipher},{'-'.join(map(str, hello.extensions))}")


def ja4(hello: ClientHello, protocol: str) -> str:
    """JA4 of a client; `protocol` is t (TCP), q (QUIC) or d (DTLS)."""
    ciphers = [c for c in hello.ciphers if c not in GREASE]
    extensions = [e for e in hello.extensions if e not in GREASE]
    hashed = _hex(sorted([e for e in extensions if e not in _NAMES]))
    signatures = [s for s in hello.signatures if s not in GREASE]
    if signatures:
        hashed = f"{hashed}_{_hex(signatures)}"
    return (
        f"{protocol}{_JA4_VERSIONS.get(hello.highest, '00')}{'d' if hello.has_sni else 'i'}"
        f"{min(len(ciphers), 99):02d}{min(len(extensions), 99):02d}{_ends(hello.alpn[0] if hello.alpn else b'')}"
        f"_{_sha256(_hex(sorted(ciphers)))}_{_sha256(hashed) if extensions else _NOTHING}"
    )


def ja4s(hello: ServerHello, protocol: str) -> str:
    """JA4S of a server; extensions in the order of the message."""
    return (
        f"{protocol}{_JA4_VERSIONS.get(hello.chosen, '00')}{min(len(hello.extensions), 99):02d}{_ends(hello.alpn)}"
        f"_{hello.cipher:04x}_{_sha256(_hex(hello.extensions))}"
    )


def hassh(*lists: bytes) -> str:
    """HASSH: MD5 over lists of algorithms: key exchange, then encryption, integrity and compression of what is sent."""
    return md5(b";".join(lists), usedforsecurity=False).hexdigest()


def _ends(protocol: bytes) -> str:
    """First and last character of an ALPN value, of its hexadecimal form where either is not a letter or digit."""
    if not protocol:
        return "00"
    ends = protocol[:1] + protocol[-1:]
    if ends.isalnum():
        return ends.decode("ascii")
    text = protocol.hex()
    return text[0] + text[-1]


def _hex(numbers: Iterable[int]) -> str:
    return ",".join(["%04x" % n for n in numbers])  # noqa: UP031 — half the time of a format string


def _sha256(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:12] if text else _NOTHING


def _md5(text: str) -> str:
    return md5(text.encode(), usedforsecurity=False).hexdigest()
