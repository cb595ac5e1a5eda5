"""The configuration over HTTP. Operators read, admins change.

GET  /api/v1/settings               see webui.settings.read
POST /api/v1/settings               {etag, changes: {section: {key: value}}}: see webui.settings.save
POST /api/v1/settings/test          {target}: sends a message; {sent, problem}
GET  /api/v1/settings/geoip?ip=     the database, and what it says of an address
GET  /api/v1/settings/about         {version, parts: [{name, version, licence}]}
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request

from engine import __version__
from engine.errors import ConfigError
from webui import about, audit, settings
from webui.api import answered


def blueprint() -> Blueprint:
    """The routes."""
    routes = Blueprint("settings", __name__, url_prefix="/api/v1/settings")

    @routes.get("")
    @answered("operator")
    def show() -> Response:
        return jsonify(settings.read(_lake()))

    @routes.post("")
    @answered("admin")
    def change() -> Response:
        given = _body()
        changes, etag = given.get("changes"), given.get("etag")
        if not isinstance(changes, dict) or not changes or not isinstance(etag, str):
            raise ConfigError("etag or changes are missing: {section: {key: value}}")
        try:
            done = settings.save(_lake(), changes, etag)
        except ConfigError as error:
            if given.get("tell") is not True:
                raise
            return jsonify({"error": str(error)})  # to a form, what is wrong with it is an answer
        audit.note("configuration", changed=", ".join(done["changed"]), applied=", ".join(done["applied"]))
        return jsonify(done)

    @routes.post("/test")
    @answered("admin")
    def test() -> Response:
        name = str(_body().get("target", ""))
        problem = settings.send_test(_lake(), name)
        audit.note("notification test", of=name, problem=problem)
        return jsonify({"sent": problem is None, "problem": problem})

    @routes.get("/geoip")
    @answered("operator")
    def geoip() -> Response:
        return jsonify(look_up(_lake(), request.args.get("ip", "")))

    @routes.get("/about")
    @answered("operator")
    def versions() -> Response:
        return jsonify({"version": __version__, "parts": about.parts()})

    return routes


def look_up(lake: Path, address: str) -> dict[str, Any]:
    """What `engine geoip` says, and of an address: {ip, country, city, asn, ...}, null when none is given."""
    from analytics import geoip

    told = geoip.status(lake)
    found: dict[str, Any] | None = None
    if address:
        try:
            ip = str(ipaddress.ip_address(address.strip()))
        except ValueError:
            return {**told, "found": None, "problem": f"{address[:60]!r} is no address; give one such as 8.8.8.8"}
        found = {"ip": ip, "country": None, "city": None, "network": None}
        if told["database"] and not told["advice"]:
            try:
                with geoip.open_database(Path(told["database"])) as reader:
                    record, prefix = reader.get_with_prefix_len(ip)
            except geoip.DAMAGED as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                return {**told, "found": None, "problem": f"The database says nothing of {ip}: {reason}"}
            if isinstance(record, dict):
                found |= {"country": _word(record, "country", "iso_code"), "city": _word(record, "city", "names", "en")}
                found["network"] = str(ipaddress.ip_network(f"{ip}/{prefix}", strict=False))
    return {**told, "found": found, "problem": None}


def _word(record: Any, *names: str) -> str | None:
    for name in names:
        record = record.get(name) if isinstance(record, dict) else None
    return record if isinstance(record, str) else None


def _body() -> dict[str, Any]:
    given = request.get_json(silent=True)
    if not isinstance(given, dict):
        raise ConfigError("the request has no JSON object as its body")
    return given


def _lake() -> Path:
    lake: Path = current_app.config["PACKETLAKE_LAKE"]
    return lake
