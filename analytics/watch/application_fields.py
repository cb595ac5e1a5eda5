"""Fields of filters that only application tables know: name -> (meaning, column, tables).

Elsewhere they stand for the flows of those rows: `ja4=...` on packets are the packets of connections with it.
"""

from __future__ import annotations

from typing import Final

_HANDSHAKES: Final = ("tls", "quic")
APPLICATION_FIELDS: Final[dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "rcode": ("DNS answer: noerror, nxdomain; none without one", "rcode", ("dns",)),
    "qtype": ("DNS record type", "qtype", ("dns",)),
    "method": ("HTTP method", "method", ("http",)),
    "path": ("HTTP path, as sent", "path", ("http",)),
    "code": ("HTTP status code; none without a response", "status", ("http",)),
    "media": ("HTTP media type of the response", "content_type", ("http",)),
    "software": ("HTTP server software", "server", ("http",)),
    "agent": ("User agent of HTTP or QUIC", "user_agent", ("http", "quic")),
    "version": ("Version of TLS or QUIC", "version", _HANDSHAKES),
    "cipher": ("Cipher suite of TLS or QUIC, such as 0x1301", "cipher", _HANDSHAKES),
    "alpn": ("Application protocol that TLS or QUIC agreed on", "alpn", _HANDSHAKES),
    "ja3": ("JA3 fingerprint of the client", "ja3", _HANDSHAKES),
    "ja4": ("JA4 fingerprint of the client", "ja4", _HANDSHAKES),
    "ja4s": ("JA4S fingerprint of the server", "ja4s", _HANDSHAKES),
    "cert": ("SHA-256 of the server's certificate", "cert_sha256", ("tls",)),
    "issuer": ("Issuer of the server's certificate", "cert_issuer", ("tls",)),
}
