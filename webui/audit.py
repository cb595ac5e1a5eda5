"""What people did: logins, exports, changes. JSON lines in the lake, appended only, for the lake's owner alone.

Each line is one write of less than a page, so several processes may append. At LIMIT_BYTES the file becomes
`audit.1.jsonl` and the one before it goes.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Final

from flask import current_app, g, has_request_context, request

from webui import auth

LIMIT_BYTES: Final = 16 << 20
MAX_VALUE: Final = 500  # characters kept of one fact


def note(event: str, **facts: Any) -> None:
    """Write down what the present request does; who asks and from where is added."""
    if has_request_context():
        facts = {"user": getattr(g, "user", ""), "address": client_address(), **facts}
    append(current_app.config["PACKETLAKE_LAKE"], event, **facts)


def append(lake: Path, event: str, **facts: Any) -> None:
    """Write a line."""
    folder = auth.directory(lake, "")
    path = folder / "audit.jsonl"
    told = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": event}
    line = json.dumps(told | {k: _short(v) for k, v in facts.items()}, ensure_ascii=True)[:4000]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        if os.fstat(descriptor).st_size == 0:
            auth.give_to_owner(lake, path)
        os.write(descriptor, line.encode() + b"\n")
        full = os.fstat(descriptor).st_size > LIMIT_BYTES
    finally:
        os.close(descriptor)
    if full:
        path.replace(folder / "audit.1.jsonl")


def read(lake: Path, limit: int = 200, before: int = 0) -> list[dict[str, Any]]:
    """The newest lines first, after leaving out the `before` newest."""
    lines: list[bytes] = []
    for name in ("audit.jsonl", "audit.1.jsonl"):
        try:
            lines += reversed((auth.root(lake) / name).read_bytes().splitlines())
        except FileNotFoundError:
            continue
        if len(lines) >= before + limit:
            break
    found = []
    for line in lines[before : before + limit]:
        try:
            found.append(json.loads(line))
        except ValueError:  # cut by a full disk
            continue
    return found


def client_address() -> str:
    """Where the present request comes from: the peer of our socket, never a header that anybody can write."""
    return str(request.environ.get("packetlake.peer") or request.remote_addr or "")


def _short(value: Any) -> Any:
    return value if isinstance(value, int | float | bool) or value is None else str(value)[:MAX_VALUE]
