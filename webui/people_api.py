"""People, sessions, tokens and the audit log over HTTP, for the Configuration page and scripts. Admins only, but for
one's own password.

    GET  /api/v1/users                {users: [{name, role}], roles}
    POST /api/v1/users                {name, password, role}
    POST /api/v1/users/<name>/role    {role}
    POST /api/v1/users/<name>/password {password}
    POST /api/v1/users/<name>/remove
    GET  /api/v1/sessions             {sessions: [{id, user, begun_s, used_s, address, agent, own}]}
    POST /api/v1/sessions/revoke      {id} or {user}
    GET  /api/v1/tokens               {tokens: [{id, user, role, label, expires}]}
    POST /api/v1/tokens               {user, role, days, label} -> {token}, told once
    POST /api/v1/tokens/<id>/remove
    GET  /api/v1/audit?limit=&before= {lines: [{time, event, user, address, ...}]}, newest first
    POST /api/v1/password             {old, new}: one's own; the other sessions end
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, current_app, g, jsonify, request

from engine.errors import ConfigError
from webui import audit, auth, security, users
from webui.limits import LoginLimit

Handler = Callable[..., dict[str, Any]]


def blueprint() -> Blueprint:
    """The routes."""
    routes = Blueprint("people", __name__, url_prefix="/api/v1")
    _users(routes)
    _sessions(routes)
    _tokens(routes)
    return routes


def _for(role: str) -> Callable[[Handler], Callable[..., Response]]:
    """Refuse who lacks the role; our errors are answers."""

    def decorate(handler: Handler) -> Callable[..., Response]:
        @wraps(handler)
        def answer(*args: Any, **kwargs: Any) -> Response:
            if not users.at_least(g.get("role", ""), role):
                return security.refuse(403, f"this needs the role {role}")
            try:
                return jsonify(handler(*args, **kwargs))
            except ConfigError as error:
                response = jsonify({"error": str(error)})
                response.status_code = 400
                return response

        return answer

    return decorate


def _users(routes: Blueprint) -> None:
    limit = LoginLimit()

    @routes.get("/users")
    @_for("admin")
    def people() -> dict[str, Any]:
        listed = [{"name": name, "role": role} for name, role in users.listing(_lake()).items()]
        return {"users": listed, "roles": list(users.ROLES)}

    @routes.post("/users")
    @_for("admin")
    def add() -> dict[str, Any]:
        users.add(_lake(), _given("name"), _given("password"), _given("role"))
        audit.note("user added", of=_given("name"), role=_given("role"))
        return {"name": _given("name")}

    @routes.post("/users/<name>/<word>")
    @_for("admin")
    def change(name: str, word: str) -> dict[str, Any]:
        acts: dict[str, Callable[[], None]] = {
            "role": lambda: users.set_role(_lake(), name, _given("role")),
            "password": lambda: users.set_password(_lake(), name, _given("password")),
            "remove": lambda: users.remove(_lake(), name),
        }
        if word not in acts:
            raise ConfigError(f"{word[:20]!r} is unknown; use {', '.join(acts)}")
        acts[word]()
        audit.note(f"user {word}", of=name, **({"role": _given("role")} if word == "role" else {}))
        return {"name": name, "done": word}

    @routes.post("/password")
    @_for("viewer")
    def own() -> dict[str, Any]:
        lake, key = _lake(), f"user {g.user}"
        if limit.wait_s(key) > 0:
            raise ConfigError("too many wrong passwords; try again later")
        if not users.verify(lake, g.user, _given("old")):
            limit.failed(key)
            raise ConfigError("the present password is not right")
        users.set_password(lake, g.user, _given("new"))
        audit.note("password changed")
        return {"name": g.user}


def _sessions(routes: Blueprint) -> None:
    @routes.get("/sessions")
    @_for("admin")
    def all_sessions() -> dict[str, Any]:
        own = auth.digest(request.cookies.get(security.COOKIE, ""))
        return {
            "sessions": [
                {"id": s.identity, "user": s.user, "begun_s": s.begun, "used_s": s.used, "address": s.address,
                 "agent": s.agent, "own": own.startswith(s.identity)}
                for s in auth.sessions(_lake())
            ]
        }  # fmt: skip

    @routes.post("/sessions/revoke")
    @_for("admin")
    def revoke() -> dict[str, Any]:
        about = {"identity": _body().get("id"), "user": _body().get("user")}
        if not any(isinstance(value, str) and value for value in about.values()):
            raise ConfigError("id or user is missing: whose sessions end")
        ended = auth.revoke(_lake(), **about)
        audit.note("sessions revoked", of=about["user"] or about["identity"], count=ended)
        return {"ended": ended}

    @routes.get("/audit")
    @_for("admin")
    def log() -> dict[str, Any]:
        return {"lines": audit.read(_lake(), _number("limit", 200, 1000), _number("before", 0, 1_000_000))}


def _tokens(routes: Blueprint) -> None:
    @routes.get("/tokens")
    @_for("admin")
    def all_tokens() -> dict[str, Any]:
        return {"tokens": users.tokens(_lake())}

    @routes.post("/tokens")
    @_for("admin")
    def add_token() -> dict[str, Any]:
        days = _body().get("days", 90)
        if isinstance(days, bool) or not isinstance(days, int | float):
            raise ConfigError("days is no number")
        label = str(_body().get("label", ""))
        token = users.add_token(_lake(), _given("user"), _given("role"), days, label)
        audit.note("token added", of=_given("user"), role=_given("role"), days=days)
        return {"token": token}

    @routes.post("/tokens/<identity>/remove")
    @_for("admin")
    def remove_token(identity: str) -> dict[str, Any]:
        users.remove_token(_lake(), identity)
        audit.note("token revoked", token=identity)
        return {"id": identity}


def _lake() -> Path:
    lake: Path = current_app.config["PACKETLAKE_LAKE"]
    return lake


def _body() -> dict[str, Any]:
    given = request.get_json(silent=True)
    if not isinstance(given, dict):
        raise ConfigError("the request has no JSON object as its body")
    return given


def _given(name: str) -> str:
    value = _body().get(name)
    if not isinstance(value, str) or not value or len(value) > 1000:
        raise ConfigError(f"{name} is missing, or no text of at most 1000 characters")
    return value


def _number(name: str, default: int, most: int) -> int:
    text = request.args.get(name, str(default))
    if not (text.isascii() and text.isdigit() and int(text[:9]) <= most and len(text) < 9):
        raise ConfigError(f"{name} {text[:20]!r} is out of range: use 0 to {most}")
    return int(text)
