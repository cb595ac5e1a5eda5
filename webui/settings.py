"""The Configuration page's side of the TOML file: read, checked as the engine does, written, handed to the engine.

Secrets go in and never come out: a target that is sent without its url keeps the one it has.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from engine import settings, toml_edit
from engine.config import parse_config
from engine.errors import ConfigError
from webui import auth

CHECK_S: Final = 60.0
APPLY_S: Final = 8.0
MAX_ENTRIES: Final = 200  # of a list of tables
_RULE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_described: dict[str, dict[str, Any]] = {}
_lock = threading.Lock()


def read(lake: Path) -> dict[str, Any]:
    """What there is to set and how it is set: see `engine.config_check`, and
    {file, etag, writable, problem, running: {since_us} or null, error: why the file cannot be used, or null}."""
    path, text = _file(lake)
    engine = settings.running(lake)
    told = _checked(path, text)
    if "error" in told:  # damaged by hand: the rest of the page is still of use
        told = _checked(path, "") | {"error": told["error"]}
    problem = _why_not_writable(path)
    return {
        "error": None, **told, "file": str(path), "etag": _etag(text), "writable": problem is None, "problem": problem,
        "running": None if engine is None else {"since_us": int(engine.started_s * 1e6)},
        "waits": _waits(lake),
    }  # fmt: skip


def save(lake: Path, given: Mapping[str, Any], etag: str) -> dict[str, Any]:
    """Write changes {section: {key: value, or null for the default}} and hand them to the engine.

    Returns {changed: [keys], applied: [keys], waits: [keys that wait for the next start], running, file, etag}.
    Raises ConfigError, and nothing is written then.
    """
    with _alone(lake):
        path, text = _file(lake)
        _check_text(given)
        if etag != _etag(text):
            raise ConfigError("the configuration has changed meanwhile; load it again, then change it")
        changes, tables = _sorted(given, text)
        made = toml_edit.edit(text, changes, tables)
        told = _checked(path, made)
        if "error" in told:
            raise ConfigError(str(told["error"]))
        live, later = settings.difference(parse_config(text, path.name), parse_config(made, path.name))
        if live or later:
            _publish(path, made)
        outcome = _apply(lake) if live or later else None
    engine = settings.running(lake)
    if outcome is not None and outcome.get("error"):
        raise ConfigError(f"saved, but the engine did not take it over: {outcome['error']}")
    return {
        "changed": [*live, *later], "applied": [] if outcome is None else outcome["applied"],
        "waits": _waits(lake), "running": engine is not None, "file": str(path), "etag": _etag(made),
    }  # fmt: skip


def target(lake: Path, name: str) -> Any:
    """A notification target, with its secret."""
    path, text = _file(lake)
    found = next((t for t in parse_config(text, path.name).notify.targets if t.name == name), None)
    if found is None:
        raise ConfigError(f"notify target {name[:70]!r} is unknown; save it first")
    if found.url_file:
        from engine.config import load_config

        return next(t for t in load_config(str(path)).notify.targets if t.name == name)
    return found


def send_test(lake: Path, name: str) -> str | None:
    """Send a message to a target; None, or why it failed. Blocks as long as the endpoint takes."""
    from engine.notify.apprise_sender import AppriseSender
    from engine.notify.message import Message

    text = "A test of notifications: this target works."
    return AppriseSender(target(lake, name).url).send(Message("PacketLake: test", text, "info", []))


def _file(lake: Path) -> tuple[Path, str]:
    path = Path(os.path.realpath(settings.last_file(lake)))
    try:
        return path, path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return path, ""
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"configuration file {path}: {reason.lower()}; let the lake's owner read it") from None


def _checked(path: Path, text: str) -> dict[str, Any]:
    """What `engine.config_check` says of the text."""
    ours = path.parent.name == settings.FOLDER  # of this lake, or of the one whose generated traffic is shown
    key = f"{ours}{_etag(text)}"
    with _lock:
        if key not in _described:
            words = [sys.executable, "-m", "engine.config_check", *(["--lake-file"] if ours else [])]
            root = Path(settings.__file__).parents[1]
            try:
                done = subprocess.run(
                    words, input=text.encode(), capture_output=True, timeout=CHECK_S, check=True, cwd=root
                )
                told: dict[str, Any] = json.loads(done.stdout)
            except (subprocess.SubprocessError, OSError, ValueError) as error:
                raise ConfigError(
                    f"the configuration could not be checked: {type(error).__name__}; try again"
                ) from None
            while len(_described) >= 8:
                del _described[next(iter(_described))]
            _described[key] = told
        return dict(_described[key])


def _sorted(given: Mapping[str, Any], text: str) -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Values and lists of tables, of keys that may be changed here."""
    changes: dict[str, dict[str, Any]] = {}
    tables: dict[str, list[dict[str, Any]]] = {}
    for section, values in given.items():
        if not isinstance(values, dict):
            raise ConfigError(f"changes of {section[:70]!r} are no object of keys and values")
        rule = section.startswith("rules.") and _RULE.fullmatch(section[6:]) is not None
        if not rule and section not in settings.EDITABLE:
            raise ConfigError(f"section {section[:70]!r} cannot be changed here; edit the file")
        for key, value in values.items():
            name = f"{section}.{key}"
            if not (rule and _RULE.fullmatch(key)) and key not in settings.EDITABLE.get(section, ()):
                raise ConfigError(f"{name[:100]} cannot be changed here; edit the file")
            if name in settings.TABLES:
                tables[name] = _entries(name, value, text)
            elif value is None or isinstance(value, bool | int | float | str):
                changes.setdefault(section, {})[key] = value
            elif isinstance(value, list) and all(isinstance(v, str) for v in value) and len(value) <= MAX_ENTRIES:
                changes.setdefault(section, {})[key] = tuple(value)
            else:
                raise ConfigError(f"{name[:100]} must be a number, a text, true, false or a list of texts")
    return changes, tables


def _check_text(given: Any) -> None:
    """JSON can hold halves of characters, which no file can."""
    try:
        json.dumps(given, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ConfigError("a text holds half a character; type it again") from None


def _entries(name: str, value: Any, text: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value) or len(value) > MAX_ENTRIES:
        raise ConfigError(f"{name} must be a list of at most {MAX_ENTRIES} tables")
    made = [{k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()} for entry in value]
    if name != "notify.targets":
        return made
    known = {t.get("name"): t for t in tomllib.loads(text).get("notify", {}).get("targets", []) if isinstance(t, dict)}
    for entry in made:
        before = known.get(entry.pop("was", None) or entry.get("name"), {})
        if entry.pop("url_file", None) not in (None, "", before.get("url_file")):
            raise ConfigError("notify.targets.url_file can only be set in the file itself")
        if not entry.get("url"):
            entry.pop("url", None)
            entry.update({k: before[k] for k in ("url", "url_file") if before.get(k)})
        elif settings.names_file(str(entry["url"])):
            raise ConfigError("notify.targets.url: one that names a file can only be set in the file itself")
    return made


def _publish(path: Path, text: str) -> None:
    """Replace the file, with the rights it has; nobody else may read what may hold secrets."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.inprogress")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = path.stat().st_mode & 0o660 if path.exists() else 0o600
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(mode)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise ConfigError(f"{path} cannot be written: {(error.strerror or '').lower()}; nothing was changed") from None


def _why_not_writable(path: Path) -> str | None:
    folder = next(parent for parent in path.parents if parent.exists())
    if os.access(folder, os.W_OK | os.X_OK) and (not path.exists() or os.access(path, os.W_OK)):
        return None
    return f"{path} and its directory cannot be written by the dashboard's account; let the lake's owner write there"


def _apply(lake: Path) -> dict[str, Any] | None:
    """Ask the engine to take the file over; what it says of it, or None when none runs."""
    engine = settings.running(lake)
    if engine is None:
        return None
    before = settings.last_reload(lake)
    try:
        os.kill(engine.pid, signal.SIGHUP)
    except ProcessLookupError:
        return None
    except PermissionError:
        return {"applied": [], "error": "it runs as another account; restart it, or send it SIGHUP"}
    deadline = time.monotonic() + APPLY_S
    while time.monotonic() < deadline:
        told = settings.last_reload(lake)
        if told and told != before:
            return told
        time.sleep(0.05)
    return {"applied": [], "error": f"it has not answered within {APPLY_S:g} s; its log says more"}


def _waits(lake: Path) -> list[str]:
    """Keys whose value in the file is not what the running engine uses."""
    if settings.running(lake) is None:
        return []
    told = settings.last_reload(lake)
    return list(told.get("waits", [])) if told else []


def _etag(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def _alone(lake: Path) -> Iterator[None]:
    """One change at a time, in all processes."""
    lock = os.open(auth.directory(lake, "") / "settings.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
