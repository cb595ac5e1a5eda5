"""The gate before every request and the headers after it. Nothing is served without a session unless named here.

The gate leaves `flask.g.user` and `flask.g.role` (viewer, operator, admin) for whoever answers.
"""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from flask import Flask, Request, Response, g, redirect, request
from flask.json.provider import DefaultJSONProvider

from engine.errors import ConfigError
from webui import auth, users

COOKIE: Final = "packetlake_session"
# Whole paths, never beginnings: what stands behind one may lead back up.
OPEN_ASSETS: Final = frozenset({"boot/login.css", "boot/login.js", "boot/theme.js", "icons/brand.svg"})
OPEN_PATHS: Final = frozenset({"/healthz", "/login", "/setup"} | {f"/assets/{name}" for name in OPEN_ASSETS})
METRICS: Final = "/metrics"  # where Prometheus looks
STATIC: Final = ("/assets/", "/_dash-component-suites/")
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?", re.IGNORECASE)
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_BODY: Final = 2 << 20  # bytes of a request
CSP: Final = (
    "default-src 'self'; script-src 'self'{hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'"
)
SIGN_IN: Final = "sign in: open the dashboard in a browser, or send a token made by `engine user token`"


@dataclass(frozen=True, slots=True)
class Access:
    """How the dashboard may be reached. `hosts` are the names it answers to beside those of this machine."""

    lake: Path
    loopback: bool = True  # it listens there only
    hosts: tuple[str, ...] = ()
    login: bool = True  # False: whoever reaches it is an operator; loopback only

    def names(self) -> frozenset[str]:
        """The Host names that are ours. Another one is DNS rebinding: a page elsewhere whose name leads here."""
        own = frozenset() if self.loopback else frozenset({socket.gethostname().lower()})
        return LOOPBACK | own | frozenset(h.lower() for h in self.hosts)


class _Json(DefaultJSONProvider):
    """What comes in as JSON can hold halves of characters, which no file and no database takes, and go very deep."""

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        try:
            found = super().loads(s, **kwargs)
            json.dumps(found, ensure_ascii=False).encode()
        except RecursionError:
            raise ConfigError("the JSON goes too deep") from None
        except UnicodeEncodeError:
            raise ConfigError("a text holds half a character; type it again") from None
        return found


def protect(server: Flask, access: Access, script_hashes: list[str]) -> None:
    """Put the gate before, and the headers after, every request of the server."""
    policy = CSP.format(hashes="".join(f" {h}" for h in script_hashes))
    names = access.names()
    server.json = _Json(server)
    server.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    server.config["PACKETLAKE_LAKE"] = access.lake
    server.config["PACKETLAKE_ACCESS"] = access

    def gate() -> Response | None:
        return _answer(access, names, request)

    server.before_request_funcs.setdefault(None, []).insert(0, gate)  # before what Dash has put there

    @server.after_request
    def headers(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "same-origin"
        response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        response.headers.pop("Server", None)
        if not request.path.startswith(STATIC) or response.status_code != 200:
            response.headers["Cache-Control"] = "no-store"
        return response


def _answer(access: Access, names: frozenset[str], asked: Request) -> Response | None:
    """None lets the request through."""
    g.user, g.role = "", ""
    if not _ours(asked.host, access, names):
        return refuse(400, "the dashboard does not answer to this name; allow it with --allow-host NAME")
    authorization = asked.headers.get("Authorization", "")
    if authorization.startswith("Bearer ") and (asked.path.startswith("/api/") or asked.path == METRICS):
        # A script, not a browser: nobody can make one send this header from another site.
        identity = users.bearer(access.lake, authorization[7:].strip())
        if identity is None:
            return refuse(401, "this token is unknown or has expired")
        g.user, g.role = identity.user, identity.role
        return None
    if asked.method not in SAFE_METHODS and not _same_origin(asked):
        return refuse(403, "requests from other sites are refused")
    if asked.path in OPEN_PATHS:
        return None
    identity = who(access, asked)
    if identity is not None:
        g.user, g.role = identity.user, identity.role
        return None
    if asked.method in SAFE_METHODS and "text/html" in asked.headers.get("Accept", ""):
        onward = quote(asked.full_path.rstrip("?"), safe="/")
        return redirect(f"/login?next={onward}" if onward != "/" else "/login", 303)  # type: ignore[return-value]
    return refuse(401, SIGN_IN)


def who(access: Access, asked: Request) -> users.Identity | None:
    """The person behind the session cookie, with the role of this moment."""
    if not access.login:
        return users.Identity("local", "operator")
    session = auth.read_session(access.lake, asked.cookies.get(COOKIE, ""))
    role = None if session is None else users.role_of(access.lake, session.user)
    return None if session is None or role is None else users.Identity(session.user, role)


def _ours(host: str, access: Access, names: frozenset[str]) -> bool:
    match = HOST.fullmatch(host)  # any port: an `ssh -L` forward may use another one
    if match is None:
        return False
    name = match[1].strip("[]").lower()
    return name in names or (not access.loopback and _is_address(name))  # a number cannot be rebound


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _same_origin(asked: Request) -> bool:
    """A browser says where a request comes from; one that says nothing must at least name our own host."""
    site = asked.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    try:
        origin = urlsplit(asked.headers.get("Origin", ""))
    except ValueError:  # such as http://[
        return False
    return origin.scheme in ("http", "https") and origin.netloc == asked.host


def refuse(status: int, error: str) -> Response:
    """A refusal as JSON; the texts are ours."""
    return Response(f'{{"error": "{error}"}}\n', status, mimetype="application/json")
