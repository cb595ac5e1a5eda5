"""Signing in and out, and setting up the first user: plain pages, before and beside Dash."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from flask import Blueprint, Response, current_app, redirect, render_template, request

from engine.errors import ConfigError
from webui import audit, auth, security, users
from webui.limits import LoginLimit

WRONG: Final = "The name or the password is not right."
USED: Final = "This link was used already, or is older than 15 minutes. Get another with: engine link"
NOBODY: Final = "Nobody can sign in yet. Open the link that the engine printed, or get another with: engine link"


def pages() -> Blueprint:
    """The routes /login, /setup, /logout."""
    blueprint = Blueprint("login", __name__, template_folder="templates")
    limit = LoginLimit()

    @blueprint.get("/login")
    def login_form() -> Response:
        access: security.Access = current_app.config["PACKETLAKE_ACCESS"]
        if security.who(access, request) is not None:
            return _go(request.args.get("next", "/"))
        return _form("login", NOBODY if not users.listing(_lake()) else "")

    @blueprint.post("/login")
    def login() -> Response:
        lake, address = _lake(), audit.client_address()
        if request.form.get("token"):
            return _by_link(request.form["token"])
        name, password = request.form.get("name", "")[:64], request.form.get("password", "")
        keys = (f"address {address}", f"user {name.lower()}")
        wait = limit.wait_s(*keys)
        if wait > 0:
            response = _form("login", f"Too many attempts. Try again in {_words(wait)}.", 429)
            response.headers["Retry-After"] = str(math.ceil(wait))
            return response
        try:
            right = users.verify(lake, name, password)
        except users.Busy as error:
            return _form("login", str(error).capitalize() + ".", 429)
        if not right:
            limit.failed(*keys)
            audit.note("login failed", name=name)
            return _form("login", WRONG, 401)
        limit.passed(*keys)
        return _enter(name, "login", _inside(request.form.get("next", "/")))

    @blueprint.get("/setup")
    def setup_form() -> Response:
        return _form("setup", "")

    @blueprint.post("/setup")
    def setup() -> Response:
        lake, token = _lake(), request.form.get("token", "")
        name, password = request.form.get("name", "").strip(), request.form.get("password", "")
        if auth.peek(lake, token) != "" or users.listing(lake):
            return _form("setup", USED, 401)
        try:
            if password != request.form.get("again", ""):
                raise ConfigError("the two passwords differ")
            users.add(lake, name, password, "admin")
        except ConfigError as error:
            text = str(error)
            return _form("setup", text[:1].upper() + text[1:] + ".", 400, token=token, name=name[:64])
        auth.consume(lake, token)
        return _enter(name, "setup", "/")

    @blueprint.post("/logout")
    def logout() -> Response:
        auth.end_session(_lake(), request.cookies.get(security.COOKIE, ""))
        audit.note("logout")
        response = redirect("/login", 303)
        response.delete_cookie(security.COOKIE, path="/")
        return response  # type: ignore[return-value] # werkzeug's own Response, which Flask takes

    return blueprint


def _by_link(token: str) -> Response:
    lake = _lake()
    if auth.peek(lake, token) == "":  # of the first start, opened at the wrong page
        return _form("setup", "", token=token)
    name = auth.consume(lake, token)
    if name is None or users.role_of(lake, name) is None:
        audit.note("login failed", by="link")
        return _form("login", USED, 401)
    return _enter(name, "login by link", "/")


def _enter(name: str, event: str, onward: str) -> Response:
    """A new session, never one that the browser brought."""
    lake = _lake()
    auth.end_session(lake, request.cookies.get(security.COOKIE, ""))
    session = auth.start_session(lake, name, audit.client_address(), request.headers.get("User-Agent", ""))
    audit.note(event, user=name)
    response = redirect(onward, 303)
    response.set_cookie(
        security.COOKIE,
        session,
        max_age=auth.SESSION_LIFE_S,
        path="/",
        httponly=True,
        samesite="Strict",
        secure=request.is_secure,
    )
    return response  # type: ignore[return-value]


def _form(page: str, error: str, status: int = 200, token: str = "", name: str = "") -> Response:
    onward = _inside(request.values.get("next", "/"))
    text = render_template(f"{page}.html", error=error, onward=onward, token=token, name=name)
    return Response(text, status, mimetype="text/html")


def _go(onward: str) -> Response:
    return redirect(_inside(onward), 303)  # type: ignore[return-value]


def _inside(onward: str) -> str:
    """A path of this dashboard; anything that could lead elsewhere is the first page."""
    try:
        parts = urlsplit(onward.replace("\\", "/"))
    except ValueError:  # such as //[
        return "/"
    inside = not parts.scheme and not parts.netloc and onward.startswith("/") and not onward.startswith("//")
    return onward if inside and onward.isprintable() and len(onward) < 2000 else "/"


def _lake() -> Path:
    lake: Path = current_app.config["PACKETLAKE_LAKE"]
    return lake


def _words(seconds: float) -> str:
    return f"{math.ceil(seconds)} s" if seconds < 90 else f"{math.ceil(seconds / 60)} min"
