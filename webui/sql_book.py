"""What a person keeps of the SQL page: queries saved by name, and the last ones that ran; a file for each person.

`<lake>/.dashboard/queries/<hash of the name>.json`, for the lake's owner alone. Bounded in number and size.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from engine.errors import ConfigError
from webui import auth

MAX_SAVED: Final = 100
MAX_HISTORY: Final = 50
MAX_NAME: Final = 80  # characters
MAX_SQL: Final = 20_000  # characters that are kept of one query
Book = dict[str, list[dict[str, Any]]]


def read(lake: Path, user: str) -> Book:
    """{saved: [{name, sql}] by name, history: [{sql, at_us, ms, rows, error}] newest first}."""
    try:
        found = json.loads(_path(lake, user).read_bytes())
        return {"saved": list(found["saved"]), "history": list(found["history"])}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {"saved": [], "history": []}


def save(lake: Path, user: str, name: str, sql: str) -> Book:
    """Keep a query under a name; one of the same name is replaced."""
    name, sql = name.strip(), sql.strip()
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise ConfigError(f"the name has {len(name)} characters; use 1 to {MAX_NAME} printable ones")
    if not 0 < len(sql) <= MAX_SQL:
        raise ConfigError(f"the query has {len(sql)} characters; 1 to {MAX_SQL} can be saved")
    with _editing(lake, user) as book:
        kept = [entry for entry in book["saved"] if entry["name"] != name]
        if len(kept) >= MAX_SAVED:
            raise ConfigError(f"{MAX_SAVED} queries are saved; remove one first")
        book["saved"] = sorted([*kept, {"name": name, "sql": sql}], key=lambda entry: str(entry["name"]).lower())
    return book


def remove(lake: Path, user: str, name: str) -> Book:
    """Forget a saved query."""
    with _editing(lake, user) as book:
        kept = [entry for entry in book["saved"] if entry["name"] != name]
        if len(kept) == len(book["saved"]):
            raise ConfigError(f"no query is saved as {name[:MAX_NAME]!r}")
        book["saved"] = kept
    return book


def note(lake: Path, user: str, sql: str, **outcome: Any) -> None:
    """Remember that it ran; the same text again moves to the front. A full disk is no reason not to answer."""
    sql = sql.strip()
    if not sql or len(sql) > MAX_SQL:
        return
    with contextlib.suppress(OSError), _editing(lake, user) as book:
        kept = [entry for entry in book["history"] if entry["sql"] != sql]
        book["history"] = [{"sql": sql, "at_us": time.time_ns() // 1000, **outcome}, *kept][:MAX_HISTORY]


def clear(lake: Path, user: str) -> Book:
    """Forget what ran."""
    with _editing(lake, user) as book:
        book["history"] = []
    return book


def _path(lake: Path, user: str) -> Path:
    return auth.root(lake) / "queries" / f"{auth.digest(user)[:32]}.json"


@contextmanager
def _editing(lake: Path, user: str) -> Iterator[Book]:
    """The book; what is left of it at the end is published. One writer at a time, in all processes."""
    folder = auth.directory(lake, "queries")
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        auth.give_to_owner(lake, folder / ".lock")
        fcntl.flock(lock, fcntl.LOCK_EX)
        book = read(lake, user)
        yield book
        part = folder / f".{secrets.token_hex(8)}.part"
        auth.create(lake, part, json.dumps(book).encode())
        part.replace(_path(lake, user))
    finally:
        os.close(lock)
