"""The server's certificate as it goes over the wire before TLS 1.3 (RFC 5246 7.4.2, RFC 5280)."""

from __future__ import annotations

import calendar
import warnings
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from engine.dissect.base import text_of

if TYPE_CHECKING:
    from cryptography import x509

_SAN_LIMIT: Final = 64
_REMEMBER_BYTES: Final = 8192


def certificate_fields(message: bytes) -> dict[str, Any]:
    """Columns of the first certificate in a Certificate message; none when there is none.

    Whatever the library makes of the bytes of an attacker, a row without certificate comes of it. That is why even
    the panic of its Rust part, which is no `Exception`, is caught.
    """
    size = int.from_bytes(message[3:6], "big")
    leaf = message[6 : 6 + size]
    if not leaf or len(leaf) < size:
        return {}
    return (_remembered if size <= _REMEMBER_BYTES else _fields)(leaf)


def _fields(leaf: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = {"cert_sha256": sha256(leaf).hexdigest()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what certificates should not contain
            fields |= _read(leaf)
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
    return fields


_remembered = lru_cache(maxsize=512)(_fields)  # servers show the same certificate again and again


def _read(leaf: bytes) -> dict[str, Any]:
    from cryptography.x509 import load_der_x509_certificate

    certificate = load_der_x509_certificate(leaf)
    subject, issuer = certificate.subject, certificate.issuer
    return {
        "cert_subject": _text(subject.rfc4514_string()),
        "cert_issuer": _text(issuer.rfc4514_string()),
        "cert_not_before": _microseconds(certificate.not_valid_before_utc),
        "cert_not_after": _microseconds(certificate.not_valid_after_utc),
        "cert_self_signed": subject == issuer,
        "cert_san": _alternative_names(certificate),
    }


def _alternative_names(certificate: x509.Certificate) -> list[str] | None:
    """Names and addresses of the extension (RFC 5280 4.2.1.6); an unreadable one costs no other field."""
    from cryptography.x509 import DirectoryName, OtherName, RegisteredID, SubjectAlternativeName

    try:
        names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    except Exception:  # noqa: BLE001 — as in certificate_fields
        return None
    named = (n.value for n in names if not isinstance(n, DirectoryName | OtherName | RegisteredID))
    return [_text(str(value), 255) for value, _ in zip(named, range(_SAN_LIMIT), strict=False)]


def _text(value: str, limit: int = 512) -> str:
    return text_of(value.encode("utf-8", "backslashreplace"), limit)


def _microseconds(time: datetime) -> int:
    return calendar.timegm(time.utctimetuple()) * 1_000_000
