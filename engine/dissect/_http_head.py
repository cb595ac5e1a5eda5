"""The head of an HTTP/1 message: start line and the fields that are kept (RFC 9112 2 to 5). Tolerant and bounded."""

from __future__ import annotations

import re
from typing import Any, Final

from engine.dissect.base import text_of

MAX_HEAD: Final = 16_384
_LINES: Final = 256
_METHOD_ONLY: Final = 1024  # bytes to wait for the version after an unknown method
_TARGET: Final = 2048

_SPACE: Final = b" \t\r\n"
_END: Final = re.compile(rb"\n\r?\n")
_STATUS: Final = re.compile(rb"HTTP/(\d\.\d)[ \t]{1,8}(\d{3})(?!\d)")
_VERSION: Final = re.compile(rb"HTTP/(\d\.\d)[ \t]*\Z")
_PATH: Final = re.compile(rb"/|https?://")
_OTHERS: Final = re.compile(rb"RTSP|SIP|ICAP")
_START: Final = re.compile(rb"[\r\n]*(?:HTTP/|([A-Z][A-Z0-9_-]{0,31}) |[A-Z][A-Z0-9_/-]{0,31}\Z)")
_USERINFO: Final = re.compile(rb"\A([A-Za-z][A-Za-z0-9+.-]{0,31}://)[^/?#@]*@")
_AUTHORITY: Final = re.compile(rb"\A(?:[A-Za-z][A-Za-z0-9+.-]{0,31}:)?//([^/?#]*)")

_METHODS: Final = frozenset((b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"PATCH", b"CONNECT", b"TRACE"))
_KEPT: Final = frozenset((
    b"host", b"user-agent", b"referer", b"content-type", b"content-length", b"transfer-encoding", b"server",
    b"authorization", b"proxy-authorization",
))  # fmt: skip
# The IANA registry and what is usual; anything else might be a secret itself.
_SCHEMES: Final = {
    name.lower().encode(): name
    for name in (
        "Basic", "Bearer", "Concealed", "Digest", "DPoP", "GNAP", "HOBA", "Mutual", "Negotiate", "NTLM", "OAuth",
        "PrivateToken", "SCRAM-SHA-1", "SCRAM-SHA-256", "vapid", "AWS", "AWS4-HMAC-SHA256", "ApiKey", "Token",
        "SharedKey", "Kerberos", "WSSE", "Hawk", "GoogleLogin", "Passport1.4",
    )
}  # fmt: skip


class Head:
    """A parsed head: a request has a method, a response has a status."""

    __slots__ = ("_fields", "_target", "chunked", "length", "method", "status", "version")

    def __init__(self, method: str, target: bytes, status: int, version: str, fields: dict[bytes, bytes]) -> None:
        self.method, self._target, self.status, self.version, self._fields = method, target, status, version, fields
        length = fields.get(b"content-length", b"")
        self.length = int(length) if length.isdigit() and len(length) < 19 else None
        self.chunked = b"chunked" in fields.get(b"transfer-encoding", b"").lower()

    def request_columns(self) -> dict[str, Any]:
        """Columns of a row that a request knows."""
        scheme, exposed = self._authorization()
        path, hidden = _without_password(self._target)
        return {
            "method": self.method,
            "host": self._host(),
            "path": text_of(path, _TARGET),
            "user_agent": self._text(b"user-agent"),
            "referer": self._text(b"referer"),
            "request_bytes": self.length,
            "version": self.version or None,
            "server": self._text(b"server"),
            "auth_scheme": scheme,
            "has_credentials": exposed or hidden,
        }

    def response_columns(self) -> dict[str, Any]:
        """Columns of a row that a response knows."""
        kind = self._fields.get(b"content-type")
        return {
            "status": self.status,
            "content_type": None if kind is None else text_of(kind.partition(b";")[0].strip().lower(), 128),
            "content_length": self.length,
            "version": self.version or None,
            "server": self._text(b"server"),
        }

    def server_name(self) -> str:
        """The host without its port."""
        host = self._host() or ""
        if host.startswith("["):
            return host[1:].partition("]")[0]
        return host.partition(":")[0]

    def _host(self) -> str | None:
        host = self._fields.get(b"host")
        if host:
            return text_of(host, 256)
        if self.method == "CONNECT":  # RFC 9110 9.3.6: the target is an authority
            return text_of(self._target, 256)
        authority = _AUTHORITY.match(self._target)
        return text_of(authority[1].rpartition(b"@")[2], 256) if authority else None

    def _text(self, name: bytes) -> str | None:
        value = self._fields.get(name)
        if value is None:
            return None
        return text_of(_without_password(value)[0] if name == b"referer" else value)

    def _authorization(self) -> tuple[str | None, bool]:
        """The scheme, and whether a name and password can be read from it."""
        value = self._fields.get(b"authorization") or self._fields.get(b"proxy-authorization")
        if not value:
            return None, False
        name, _, rest = value.partition(b" ")
        scheme = _SCHEMES.get(name.lower(), "other")
        return scheme, scheme == "Basic" and bool(rest.strip())


def start_of(buffer: bytes | bytearray) -> int | None:
    """Where the start line begins if the buffer may be the beginning of a head, else None."""
    found = _START.match(buffer)
    if found is None:
        return None
    method = found[1]
    if (
        method is not None
        and method not in _METHODS
        and len(buffer) > _METHOD_ONLY
        and b"\n" not in buffer[found.end() :]
    ):
        return None
    return found.end()


def head_end(buffer: bytearray, begin: int) -> int:
    """One past the empty line that ends the head, or the limit when it is too long; 0 when it is not there yet."""
    end = _END.search(buffer, begin, MAX_HEAD)
    if end is not None:
        return end.end()
    return MAX_HEAD if len(buffer) >= MAX_HEAD else 0


def impossible(buffer: bytearray, begin: int) -> bool:
    """True when the start line is there and is not HTTP's, so that the rest of the head need not be awaited."""
    end = buffer.find(b"\n", begin)
    return end >= 0 and _start_line(bytes(buffer[:end]).lstrip(b"\r\n")) is None


def parse(head: bytes) -> Head | None:
    """Read a head, whole or cut; None when it is not HTTP/1."""
    lines = head.lstrip(b"\r\n").split(b"\n", _LINES)
    start = _start_line(lines[0])
    return None if start is None else Head(*start, _fields(lines))


def _start_line(line: bytes) -> tuple[str, bytes, int, str] | None:
    """Method and target or status, and version, of a start line (RFC 9112 3, 4)."""
    start = line.rstrip(_SPACE)
    reply = _STATUS.match(start)
    if reply is not None:
        return "", b"", int(reply[2]), reply[1].decode()
    method, _, rest = start.partition(b" ")
    target, _, protocol = rest.rpartition(b" ")
    version = _VERSION.match(protocol)
    if version is not None and target and _START.match(method + b" "):
        return method.decode(), target.strip(), 0, version[1].decode()
    target, _, protocol = rest.partition(b" ")
    if method in _METHODS and _PATH.match(target) and not _OTHERS.match(protocol):  # damaged, or malware that errs
        return method.decode(), target, 0, "" if protocol else "0.9"
    return None


def _fields(lines: list[bytes]) -> dict[bytes, bytes]:
    """The kept fields; the first of a name counts, and folded lines are put together (RFC 9112 5.2)."""
    fields: dict[bytes, bytes] = {}
    last = b""
    for line in lines[1:_LINES]:
        if line[:1] in (b" ", b"\t"):
            if last:
                fields[last] += b" " + line.strip()
            continue
        name, _, value = line.partition(b":")
        key = name.lower().rstrip()
        last = key if key in _KEPT and key not in fields else b""
        if last:
            fields[key] = value.strip()
    return fields


def _without_password(target: bytes) -> tuple[bytes, bool]:
    """A target or URI whose user information is masked (RFC 3986 3.2.1), and whether it had any."""
    if b"@" not in target or not _USERINFO.match(target):
        return target, False
    return _USERINFO.sub(rb"\1***@", target, count=1), True
