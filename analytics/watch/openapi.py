"""The API's description as OpenAPI 3.1, made from the registry."""

from __future__ import annotations

import inspect
from typing import Any, Final

from analytics.watch import registry
from analytics.watch.fields import FIELDS
from analytics.watch.timerange import DEFAULT, QUICK

_JSON: Final = "application/json"
_ERRORS: Final = {
    "400": "Something asked is wrong; `error` says what", "401": "Not signed in", "403": "The role may not",
    "404": "Not there", "503": "The lake cannot be read", "504": "Stopped: it took too long, or was cancelled",
}  # fmt: skip


def document() -> dict[str, Any]:
    """The whole description."""
    paths: dict[str, Any] = {f"/{q.name}": {"get": _question(q)} for q in registry.every()}
    for path, (role, summary, body) in _ACTS.items():
        about = _operation(summary, role, [])
        about["requestBody"] = {"required": True, "content": {_JSON: {"schema": _object(body)}}}
        if "{incident}" in path:
            about["parameters"] = [{"name": "incident", "in": "path", "required": True, "schema": {"type": "string"}}]
        paths.setdefault(path, {})["post"] = about
    pcap = _operation("Frames of a range and filter as a pcapng file", "operator", [
        *_common(ranged=True, filtered=True), _parameter("limit", "At most so many frames", {"type": "integer"}),
        _parameter("estimate", "1: say {frames, bytes, not_stored, gone, most} only", {"enum": ["0", "1"]}),
        _parameter("source", "With frame: only this packet of the range", {"type": "string"}),
        _parameter("frame", "frame_no within the source", {"type": "integer"}),
    ])  # fmt: skip
    paths["/pcap"] = {"get": pcap}
    paths["/status"] = {"get": _operation("What `engine status --json` says; 503 while nothing captures", "viewer", [])}
    return {
        "openapi": "3.1.0",
        "info": {"title": "PacketLake", "version": "1", "description": _ABOUT},
        "servers": [{"url": "/api/v1"}],
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{"token": []}],
    }


_ABOUT: Final = (
    "Columns are lists of equal length. Times are microseconds since the epoch, UTC, where a name does not end in _s. "
    "Filters: terms `field=value` joined by spaces, commas for or, `-` for not; fields are "
    + "; ".join(f"{name}: {field.meaning}" for name, field in FIELDS.items())
    + "."
)
_ACTS: Final[dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "/sql": ("operator", "Run SQL that reads the lake", ("sql", "id", "format")),
    "/sql/cancel": ("operator", "Stop a query by the id it was given", ("id",)),
    "/alerts": ("operator", "Enter an alert", ("kind", "severity", "why", "src", "dst")),
    "/alerts/ack": ("operator", "Acknowledge several, at most 1000", ("ids",)),
    "/alerts/reopen": ("operator", "Take several acknowledgements back", ("ids",)),
    "/alerts/{incident}/ack": ("operator", "Acknowledge", ("note",)),
    "/alerts/{incident}/reopen": ("operator", "Take an acknowledgement back", ("note",)),
    "/alerts/{incident}/note": ("operator", "Add a remark", ("note",)),
    "/mutes": ("operator", "No new alerts of a kind, source or destination", ("kind", "src", "dst", "hours", "note")),
    "/mutes/remove": ("operator", "Take a mute back", ("kind", "src", "dst")),
    "/sql/book/save": ("operator", "Keep a query under a name, for oneself", ("name", "sql")),
    "/sql/book/remove": ("operator", "Forget a query that was kept", ("name",)),
    "/settings": ("admin", "Change the configuration; GET tells it, and the etag", ("etag", "changes")),
    "/settings/test": ("admin", "Send a message to a notification target", ("target",)),
}


def _question(question: registry.Question) -> dict[str, Any]:
    parameters = _common(question.ranged, question.filtered)
    for param in question.params:
        parameters.append(_parameter(param.name, param.meaning, param.schema(), param.required))
    if question.statements is not None:
        parameters += [
            _parameter("format", "csv, parquet and arrow are one part, as a file",
                       {"enum": ["json", "csv", "parquet", "arrow"], "default": "json"}),
            _parameter("part", "Which part of the answer; the first if left out", {"type": "string"}),
            _parameter("rows", "At most so many rows of a file", {"type": "integer"}),
            _parameter("explain", "sql: the SQL instead of the answer", {"enum": ["sql"]}),
        ]  # fmt: skip
    about = _operation(question.title, question.role, parameters)
    about["operationId"] = question.name
    about["description"] += "\n\n" + inspect.cleandoc(question.answer.__doc__ or "")
    return about


def _common(ranged: bool, filtered: bool) -> list[dict[str, Any]]:
    found = []
    if ranged:
        meaning = f"{', '.join(QUICK)}; FROM,TO in microseconds or ISO times; 5m@newest ends at the newest packet; all"
        found.append(_parameter("range", meaning, {"type": "string", "default": DEFAULT}))
    if filtered:
        found.append(_parameter("filter", "Terms as in the dashboard's filter box", {"type": "string"}))
    return found


def _operation(summary: str, role: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    responses: dict[str, Any] = {
        "200": {"description": "The answer", "content": {_JSON: {"schema": {"type": "object"}}}}
    }
    error = {"schema": _object(("error",))}
    responses |= {code: {"description": text, "content": {_JSON: error}} for code, text in _ERRORS.items()}
    return {"summary": summary, "description": f"Role: {role}.", "parameters": parameters, "responses": responses}


def _parameter(name: str, meaning: str, schema: dict[str, Any], required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "description": meaning, "schema": schema}


def _object(names: tuple[str, ...]) -> dict[str, Any]:
    texts = {"type": "array", "items": {"type": "string"}}
    kinds: dict[str, dict[str, Any]] = {"hours": {"type": "number"}, "ids": texts}
    return {"type": "object", "properties": {name: kinds.get(name, {"type": "string"}) for name in names}}
