"""`engine user ...`: who may look at the dashboard, and what scripts may ask. It need not run for that."""

from __future__ import annotations

import argparse
import getpass
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from webui import audit, auth, users

Command = Callable[[str, Any, str], argparse.ArgumentParser]


def run(lake: Path, options: argparse.Namespace) -> int:
    """One action. Raises ConfigError, one line."""
    if not lake.is_dir():
        raise ConfigError(f"lake {lake} does not exist; capture something first, or name another with --lake")
    try:
        ACTIONS[options.action](lake, options)
    except PermissionError:
        raise ConfigError(f"users of lake {lake}: permission denied; become the lake's owner") from None
    except OSError as error:
        raise ConfigError(f"users of lake {lake}: {error.filename}: {error.strerror}") from None
    return 0


def _add(lake: Path, options: argparse.Namespace) -> None:
    users.add(lake, _name(options), _password(options), options.role or "viewer")
    _did(lake, "user added", options, role=options.role or "viewer")


def _list(lake: Path, options: argparse.Namespace) -> None:
    for name, role in users.listing(lake).items():
        _say(f"{name}\t{role}")


def _role(lake: Path, options: argparse.Namespace) -> None:
    if options.role is None:
        raise ConfigError(f"which role? --role with {', '.join(users.ROLES)}")
    users.set_role(lake, _name(options), options.role)
    _did(lake, "role changed", options, role=options.role)


def _remove(lake: Path, options: argparse.Namespace) -> None:
    users.remove(lake, _name(options))
    _did(lake, "user removed", options)


def _set_password(lake: Path, options: argparse.Namespace) -> None:
    users.set_password(lake, _name(options), _password(options))
    _did(lake, "password changed", options)


def _sessions(lake: Path, options: argparse.Namespace) -> None:
    if options.revoke is not None:
        everyone = options.revoke == "all"
        ended = auth.revoke(lake, user=options.name, identity=None if everyone else options.revoke)
        if not ended and not everyone:
            raise ConfigError(f"session {options.revoke!r} is unknown; `engine user sessions` says which exist")
        _did(lake, "sessions revoked", options, count=ended)
        _say(f"{ended} ended")
        return
    for session in auth.sessions(lake):
        if options.name in (None, session.user):
            _say(
                f"{session.identity}\t{session.user}\t{_when(session.begun)}\t{_when(session.used)}\t{session.address}"
            )


def _token(lake: Path, options: argparse.Namespace) -> None:
    if options.revoke is not None:
        users.remove_token(lake, options.revoke)
        _did(lake, "token revoked", options, token=options.revoke)
    elif options.name is None:
        for t in users.tokens(lake):
            _say(f"{t['id']}\t{t['user']}\t{t['role']}\t{_when(t['expires'])}\t{t['label']}")
    else:
        role = options.role or "viewer"
        token = users.add_token(lake, options.name, role, options.days, options.label)
        _did(lake, "token added", options, role=role, days=options.days)
        _say(token)


ACTIONS: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "add": _add,
    "list": _list,
    "role": _role,
    "remove": _remove,
    "set-password": _set_password,
    "sessions": _sessions,
    "token": _token,
}


def _name(options: argparse.Namespace) -> str:
    if options.name is None:
        raise ConfigError(f"which user? `engine user {options.action} NAME`")
    return str(options.name)


def _password(options: argparse.Namespace) -> str:
    """From a file, from the first line of a pipe, or asked for twice."""
    if options.password_file is not None:
        try:
            return Path(options.password_file).read_text(encoding="utf-8").split("\n")[0].rstrip("\r")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise ConfigError(f"password file {options.password_file}: {reason.lower()}") from None
    if not sys.stdin.isatty():
        return sys.stdin.readline(users.MAX_PASSWORD + 2).rstrip("\r\n")
    password = getpass.getpass(f"Password ({users.MIN_PASSWORD} characters or more): ")
    if getpass.getpass("The same again: ") != password:
        raise ConfigError("the two passwords differ")
    return password


def _did(lake: Path, event: str, options: argparse.Namespace, **facts: Any) -> None:
    audit.append(lake, event, user="(command line)", of=options.name or "", **facts)


def _when(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _say(line: str) -> None:
    print(line)  # noqa: T201 — what the command answers
