"""What is known about one TLS or DTLS connection while its handshake goes by, and the row made of it."""

from __future__ import annotations

from typing import Any, Final

from engine.dissect._certificate import certificate_fields
from engine.dissect._fingerprint import ja3, ja3s, ja4, ja4s
from engine.dissect._handshake import (
    CERTIFICATE,
    CLIENT_HELLO,
    SERVER_HELLO,
    ClientHello,
    ServerHello,
    parse_client_hello,
    parse_server_hello,
    version_text,
)
from engine.dissect.base import Flow, column, text_of

# After these (RFC 5246 7.4) no certificate of the server comes any more: key exchange, request, done, finished.
_AFTER_CERTIFICATE: Final = frozenset((12, 13, 14, 20))
# RFC 8446 6, RFC 5246 7.2
_ALERTS: Final = {
    0: "close_notify", 10: "unexpected_message", 20: "bad_record_mac", 21: "decryption_failed", 22: "record_overflow",
    30: "decompression_failure", 40: "handshake_failure", 41: "no_certificate", 42: "bad_certificate",
    43: "unsupported_certificate", 44: "certificate_revoked", 45: "certificate_expired", 46: "certificate_unknown",
    47: "illegal_parameter", 48: "unknown_ca", 49: "access_denied", 50: "decode_error", 51: "decrypt_error",
    60: "export_restriction", 70: "protocol_version", 71: "insufficient_security", 80: "internal_error",
    86: "inappropriate_fallback", 90: "user_canceled", 100: "no_renegotiation", 109: "missing_extension",
    110: "unsupported_extension", 111: "certificate_unobtainable", 112: "unrecognized_name",
    113: "bad_certificate_status_response", 115: "unknown_psk_identity", 116: "certificate_required",
    120: "no_application_protocol", 121: "ech_required",
}  # fmt: skip


class Connection:
    """Takes handshake messages in and emits one row, at once when nothing more can come or in `close`."""

    __slots__ = ("_app", "_flow", "_protocol", "alert", "client", "emitted", "server", "settled", "shown", "sure", "ts")

    def __init__(self, flow: Flow, app: str, protocol: str) -> None:
        self._flow = flow
        self._app = app
        self._protocol = protocol  # the first letter of JA4
        self.ts = 0  # of the message that began it
        self.sure = False  # of the protocol
        self.client: ClientHello | None = None
        self.server: ServerHello | None = None
        self.shown: dict[str, Any] = {}  # columns of the certificate
        self.settled = False  # the certificate was seen, or none will be
        self.alert = ""
        self.emitted = False

    def begin(self) -> None:
        """Sure of the protocol."""
        self.sure = True
        self._flow.app = self._app

    def take_alert(self, body: bytes | bytearray) -> None:
        """A fatal alert in clear ends the handshake (RFC 8446 6.2)."""
        if len(body) == 2 and body[0] == 2:
            self.alert = _ALERTS.get(body[1]) or f"alert {body[1]}"

    def handshake(self, kind: int, body: bytes, from_client: bool) -> None:
        """One whole message. Certificates count from the side that is not the client's."""
        if kind == CLIENT_HELLO:
            if self.client is None:
                self._take_client(parse_client_hello(body, datagram=self._protocol == "d"))
        elif kind == SERVER_HELLO:
            if self.server is None or self.server.retry:
                self.server = parse_server_hello(body)
                self.begin()
        elif from_client:
            return
        elif kind == CERTIFICATE:
            self.shown = certificate_fields(body)
            self.settled = True
        elif kind in _AFTER_CERTIFICATE:
            self.settled = True

    def partial(self, kind: int, body: bytes) -> None:
        """The beginning of a message whose end was not seen."""
        if kind == CLIENT_HELLO and self.client is None:
            hello = parse_client_hello(body, datagram=self._protocol == "d", partial=True)
            if hello.version:
                self._take_client(hello)
        elif kind == SERVER_HELLO and self.server is None:
            answer = parse_server_hello(body, partial=True)
            if answer.version:
                self.server = answer
                self.begin()

    def _take_client(self, hello: ClientHello) -> None:
        self.begin()
        self.client = hello
        if hello.sni:
            self._flow.server_name = hello.sni

    @property
    def complete(self) -> bool:
        """Nothing more can come that the row would show."""
        if self.alert:
            return True
        if self.client is None or self.server is None or self.server.retry:
            return False
        return self.settled or self.server.hides_certificate

    def close(self) -> None:
        """Emit the row, if there is anything to say and it was not said."""
        if self.emitted or (self.client is None and self.server is None and not self.shown):
            return
        self.emitted = True
        self._flow.emit(ts=self.ts, **self.columns())

    def columns(self) -> dict[str, Any]:
        """What is known so far."""
        row: dict[str, Any] = {**self.shown, "alert": self.alert or None}
        if self.client is not None:
            row |= self._client_columns(self.client)
        if self.server is not None:
            row |= self._server_columns(self.server)
        return row

    def _client_columns(self, hello: ClientHello) -> dict[str, Any]:
        offered = [text_of(name, 255) for name in hello.alpn]
        return {
            "version": version_text(hello.best),
            "client_version": version_text(hello.best),
            "sni": hello.sni or None,
            "alpn": offered[0] if offered else None,
            "alpn_offered": offered or None,
            "ja3": ja3(hello) if hello.whole else None,
            "ja4": ja4(hello, self._protocol) if hello.whole else None,
            "early_data": hello.early_data if hello.whole else None,
        }

    def _server_columns(self, hello: ServerHello) -> dict[str, Any]:
        columns: dict[str, Any] = {
            "version": version_text(hello.chosen),
            "cipher": f"0x{hello.cipher:04x}",
            "ja3s": ja3s(hello) if hello.whole else None,
            "ja4s": ja4s(hello, self._protocol) if hello.whole else None,
            "resumed": self._resumed(hello),
        }
        if hello.alpn:
            columns["alpn"] = text_of(hello.alpn, 255)
        return columns

    def _resumed(self, hello: ServerHello) -> bool | None:
        """RFC 8446 4.2.11; before, the client's session comes back (RFC 5246 7.4.1.3, RFC 5077 3.4)."""
        if hello.hides_certificate:
            return hello.resumed if hello.whole else None
        if self.client is None or not self.settled:
            return None
        return bool(hello.session) and hello.session == self.client.session and not self.shown


COLUMNS: Final = (
    column("version", "text", "", "Version agreed on; the client's highest when no server was seen", "RFC 8446 4.2.1"),
    column("client_version", "text", "", "Highest version that the client offers", "RFC 8446 4.2.1"),
    column("sni", "text", "", "Server name that the client asks for", "RFC 6066 3"),
    column("alpn", "text", "", "Application protocol: the server's choice, else the client's first", "RFC 7301 3.1"),
    column("alpn_offered", "texts", "", "Application protocols that the client offers, at most 32", "RFC 7301 3.1"),
    column("ja3", "text", "", "Fingerprint of the client, MD5", "JA3"),
    column("ja4", "text", "", "Fingerprint of the client", "JA4"),
    column("ja3s", "text", "", "Fingerprint of the server's answer, MD5", "JA3S"),
    column("ja4s", "text", "", "Fingerprint of the server's answer", "JA4S"),
    column("cipher", "text", "", "Cipher suite chosen, as in IANA's registry: 0x1301", "RFC 8446 4.1.3"),
    column("resumed", "bool", "", "An earlier session goes on", "RFC 8446 4.2.11"),
    column("early_data", "bool", "", "The client sends data before the handshake is over", "RFC 8446 4.2.10"),
    column("alert", "text", "", "Alert in clear that ended the handshake", "RFC 8446 6"),
    column("cert_subject", "text", "", "Subject of the server's certificate; TLS 1.2 and before", "RFC 5280 4.1.2.6"),
    column("cert_issuer", "text", "", "Its issuer", "RFC 5280 4.1.2.4"),
    column("cert_not_before", "timestamp", "UTC", "Valid from", "RFC 5280 4.1.2.5"),
    column("cert_not_after", "timestamp", "UTC", "Valid until", "RFC 5280 4.1.2.5"),
    column("cert_san", "texts", "", "Names and addresses it is for, at most 64", "RFC 5280 4.2.1.6"),
    column("cert_self_signed", "bool", "", "Subject and issuer are the same; no signature is checked", "RFC 5280 3.2"),
    column("cert_sha256", "text", "", "SHA-256 of the certificate, hexadecimal", "RFC 5246 7.4.2"),
)
