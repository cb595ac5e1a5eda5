"""Beside `POST /api/v1/sql` (webui.api): what the SQL page keeps for each person, and what there is to query.

GET  /api/v1/sql/schema         {tables: [{name, stored, columns: [{name, type, about}]}], functions: [{name, call}]}
GET  /api/v1/sql/book           {saved: [{name, sql}], history: [{sql, at_us, ms, rows, error}]}
POST /api/v1/sql/book/save      {name, sql}
POST /api/v1/sql/book/remove    {name}
POST /api/v1/sql/book/clear     {}: the history
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, current_app, g, jsonify, request

from engine.errors import ConfigError
from webui import sql_book
from webui.api import SQL_RUNNER, answered

_schemas: dict[Path, dict[str, Any]] = {}
_lock = threading.Lock()


def blueprint() -> Blueprint:
    """The routes."""
    routes = Blueprint("sql_book", __name__, url_prefix="/api/v1/sql")

    @routes.get("/schema")
    @answered("operator")
    def schema() -> Response:
        current_app.config[SQL_RUNNER].warm()  # who opens the page will run something
        with _lock:  # it does not change while this version runs
            if _lake() not in _schemas:
                _schemas.clear()
                _schemas[_lake()] = schema_of(_lake())
            return jsonify(_schemas[_lake()])

    @routes.get("/book")
    @answered("operator")
    def book() -> Response:
        return jsonify(sql_book.read(_lake(), g.user))

    @routes.post("/book/<word>")
    @answered("operator")
    def change(word: str) -> Response:
        given = request.get_json(silent=True)
        text = {k: v for k, v in given.items() if isinstance(v, str)} if isinstance(given, dict) else {}
        acts: dict[str, Callable[[], sql_book.Book]] = {
            "save": lambda: sql_book.save(_lake(), g.user, text.get("name", ""), text.get("sql", "")),
            "remove": lambda: sql_book.remove(_lake(), g.user, text.get("name", "")),
            "clear": lambda: sql_book.clear(_lake(), g.user),
        }
        if word not in acts:
            raise ConfigError(f"{word[:20]!r} is unknown; use {', '.join(acts)}")
        return jsonify(acts[word]())

    return routes


def schema_of(lake: Path) -> dict[str, Any]:
    """Tables, views and table functions as the SQL page sees them, with the meanings of `engine.tables`."""
    from analytics.store import connect
    from engine.tables import TABLES

    con = connect(lake, untrusted=True, threads=1)
    try:
        columns = con.execute(
            "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal "
            "ORDER BY table_name, column_index"
        ).fetchall()
        functions = con.execute(
            "SELECT function_name, array_to_string(any_value(parameters), ', ') FROM duckdb_functions() "
            "WHERE NOT internal AND function_type = 'table_macro' AND function_name[1] <> '_' GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    finally:
        con.close()
    meanings = {
        (t, c.name): f"{c.meaning}{f' ({c.unit})' if c.unit else ''}" for t, all_ in TABLES.items() for c in all_
    }
    tables: dict[str, list[dict[str, str]]] = {}
    for table, name, kind in columns:
        about = meanings.get((table, name), "")
        tables.setdefault(table, []).append({"name": name, "type": short_type(kind), "about": about})
    first = [t for t in ("packets", "flows", "alerts", "connections") if t in tables]
    order = [*first, *(t for t in tables if t not in first)]
    return {
        "tables": [{"name": t, "columns": tables[t], "stored": t in TABLES} for t in order],
        "functions": [{"name": name, "call": f"{name}({parameters})"} for name, parameters in functions],
    }


def short_type(kind: str) -> str:
    """An ENUM of forty values is just that."""
    return "ENUM" if kind.startswith("ENUM(") else kind


def _lake() -> Path:
    lake: Path = current_app.config["PACKETLAKE_LAKE"]
    return lake
