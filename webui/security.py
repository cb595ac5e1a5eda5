"""The gate before every request and the headers after it. Nothing is served without a session unless named here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from flask import Flask, Request, Response, redirect, request

from webui import auth

COOKIE: Final = "packetlake_session"
OPEN_PATHS: Final = frozenset({"/healthz"})
# Any port: an `ssh -L` forward may use another one. The name is what stops DNS rebinding.
HOST: Final = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
CSP: Final = (
    "default-src 'self'; script-src 'self'{hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'"
)
SIGN_IN: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>PacketLake</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<style>
body{{font:15px/1.5 system-ui,sans-serif;display:grid;place-items:center;min-height:90vh;margin:0 16px}}
main{{max-width:26rem}}h1{{font-size:20px}}code{{font:14px ui-monospace,monospace}}
</style>
<main><h1>PacketLake</h1><p>{why}</p>
<p>Open the link that the engine printed when it started, or run <code>engine link</code> for a new one.
A link works once, for 15 minutes.</p></main></html>
"""
NO_SESSION: Final = "This dashboard is open to the person who started it."
USED_LINK: Final = "This link was used already, or is older than 15 minutes."


def protect(server: Flask, lake: Path, script_hashes: list[str]) -> None:
    """Put the gate before, and the headers after, every request of the server."""
    policy = CSP.format(hashes="".join(f" {h}" for h in script_hashes))

    @server.before_request
    def gate() -> Response | None:
        return _answer(lake, request)

    @server.after_request
    def headers(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "same-origin"
        response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        response.headers.pop("Server", None)
        if not _is_static(request.path) or response.status_code != 200:
            response.headers["Cache-Control"] = "no-store"
        return response


def _answer(lake: Path, asked: Request) -> Response | None:
    """None lets the request through."""
    if not HOST.fullmatch(asked.host):
        return _json(400, "the dashboard answers to 127.0.0.1 and localhost only")
    if asked.method not in SAFE_METHODS and not _same_origin(asked):
        return _json(403, "requests from other sites are refused")
    if asked.path in OPEN_PATHS:
        return None
    token = asked.args.get("token")
    if token is not None and asked.path == "/" and asked.method == "GET":
        return _sign_in(lake, asked, token)
    if auth.check_session(lake, asked.cookies.get(COOKIE, "")):
        return None
    if asked.path == "/" and asked.method in SAFE_METHODS:
        return Response(SIGN_IN.format(why=NO_SESSION), 401, mimetype="text/html")
    return _json(401, "sign in: open the link that the engine printed, or run `engine link`")


def _sign_in(lake: Path, asked: Request, token: str) -> Response:
    if auth.consume(lake, token):
        response = redirect("/", 303)
        response.set_cookie(
            COOKIE, auth.start_session(lake), max_age=auth.SESSION_LIFE_S, path="/", httponly=True, samesite="Strict"
        )
        return response  # type: ignore[return-value] # werkzeug's own Response, which Flask takes
    if auth.check_session(lake, asked.cookies.get(COOKIE, "")):
        return redirect("/", 303)  # type: ignore[return-value]
    return Response(SIGN_IN.format(why=USED_LINK), 401, mimetype="text/html")


def _same_origin(asked: Request) -> bool:
    """A browser says where a request comes from; one that says nothing must at least name our own origin."""
    site = asked.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    return asked.headers.get("Origin") == f"http://{asked.host}"


def _is_static(path: str) -> bool:
    return path.startswith(("/assets/", "/_dash-component-suites/"))


def _json(status: int, error: str) -> Response:
    return Response(f'{{"error": "{error}"}}\n', status, mimetype="application/json")
