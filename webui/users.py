"""Who exists: names, roles, argon2 hashes of passwords, hashes of API tokens; one file in the lake, mode 0600.

A role includes those before it: a viewer sees rates, addresses and alerts but no payload; an operator also sees
payloads, exports pcap and answers alerts; an admin also configures. Several processes may write: a lock beside the file
orders them, and a rename publishes. Reading needs no lock.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from engine.errors import ConfigError
from webui import auth

ROLES: Final = ("viewer", "operator", "admin")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
MIN_PASSWORD: Final = 12  # characters
MAX_PASSWORD: Final = 256
MAX_TOKENS: Final = 200
TOKEN_PREFIX: Final = "plk_"  # noqa: S105 — so that a leaked token is recognised as one
WAIT_S: Final = 2.0
# Each check takes 64 MiB and 0.1 s of a core: a flood of logins may have two at a time, and not every thread waiting.
_checks = threading.BoundedSemaphore(2)


class Busy(ConfigError):  # noqa: N818 — names what it is
    """More sign in at this moment than passwords can be checked."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks."""

    user: str
    role: str


def at_least(role: str, wanted: str) -> bool:
    """Whether `role` includes `wanted`; an unknown role includes nothing."""
    return role in ROLES and ROLES.index(role) >= ROLES.index(wanted)


def listing(lake: Path) -> dict[str, str]:
    """Name -> role."""
    return {name: user["role"] for name, user in _load(lake)["users"].items()}


def role_of(lake: Path, name: str) -> str | None:
    """The user's role now, None when there is no such user."""
    user = _load(lake)["users"].get(name)
    return None if user is None else user["role"]


def add(lake: Path, name: str, password: str, role: str) -> None:
    """A new user."""
    _check_name(name)
    _check_role(role)
    check_password(name, password)
    hashed = _hasher().hash(password)
    with _editing(lake) as document:
        if name in document["users"]:
            raise ConfigError(f"user {name!r} exists; change it with `engine user set-password` or `engine user role`")
        document["users"][name] = {"role": role, "password": hashed, "created": int(time.time())}


def set_password(lake: Path, name: str, password: str) -> None:
    """Replace the password and end the user's sessions."""
    check_password(name, password)
    hashed = _hasher().hash(password)
    with _editing(lake) as document:
        _known(document, name)["password"] = hashed
    auth.revoke(lake, user=name)


def set_role(lake: Path, name: str, role: str) -> None:
    """Holds from the next request on."""
    _check_role(role)
    with _editing(lake) as document:
        _known(document, name)["role"] = role
        _keep_an_admin(document)


def remove(lake: Path, name: str) -> None:
    """Take a user away, with sessions and tokens."""
    with _editing(lake) as document:
        _known(document, name)
        del document["users"][name]
        _keep_an_admin(document)
        document["tokens"] = [t for t in document["tokens"] if t["user"] != name]
    auth.revoke(lake, user=name)


def verify(lake: Path, name: str, password: str) -> bool:
    """Whether the password is right. An unknown name takes as long as a known one."""
    from argon2.exceptions import InvalidHashError, VerificationError

    if len(password) > MAX_PASSWORD:
        return False
    user = _load(lake)["users"].get(name)
    if not _checks.acquire(timeout=WAIT_S):
        raise Busy("too many people sign in at the moment; try again")
    try:
        try:
            _hasher().verify(_nobody() if user is None else user["password"], password)
        except (VerificationError, InvalidHashError):
            return False
        if user is None:
            return False
        if _hasher().check_needs_rehash(user["password"]):
            hashed = _hasher().hash(password)
            with _editing(lake) as document:
                if name in document["users"]:
                    document["users"][name]["password"] = hashed
    finally:
        _checks.release()
    return True


def add_token(lake: Path, user: str, role: str, days: float, label: str) -> str:
    """A token for scripts, told once. It can do what its role and, at that moment, its user's role both allow."""
    _check_role(role)
    if not 0 < days <= 3660:
        raise ConfigError(f"days {str(days)[:20]} is out of range; use more than 0, up to 3660")
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    entry = {"hash": auth.digest(token), "user": user, "role": role, "label": auth.shown(label[:64]),
             "expires": int(time.time() + days * 86400)}  # fmt: skip
    with _editing(lake) as document:
        _known(document, user)
        document["tokens"] = [t for t in document["tokens"] if t["expires"] > time.time()]
        if len(document["tokens"]) >= MAX_TOKENS:
            raise ConfigError(f"{MAX_TOKENS} tokens exist; remove some with `engine user token --revoke ID`")
        document["tokens"].append(entry)
    return token


def tokens(lake: Path) -> list[dict[str, Any]]:
    """What may be told of each token: `id`, `user`, `role`, `label`, `expires` (s since the epoch)."""
    return [
        {"id": t["hash"][:12], **{k: t[k] for k in ("user", "role", "label", "expires")}}
        for t in _load(lake)["tokens"]
        if t["expires"] > time.time()
    ]


def remove_token(lake: Path, identity: str) -> None:
    """Revoke one by its id."""
    with _editing(lake) as document:
        kept = [t for t in document["tokens"] if t["hash"][:12] != identity]
        if len(kept) == len(document["tokens"]):
            raise ConfigError(f"token {identity!r} is unknown; `engine user token --list` says which exist")
        document["tokens"] = kept


def bearer(lake: Path, token: str) -> Identity | None:
    """Whose token this is, while it holds."""
    if not token.startswith(TOKEN_PREFIX) or len(token) > auth.MAX_SECRET:
        return None
    hashed, document = auth.digest(token), _load(lake)
    for entry in document["tokens"]:
        if secrets.compare_digest(entry["hash"], hashed) and entry["expires"] > time.time():
            user = document["users"].get(entry["user"])
            if user is not None:
                return Identity(entry["user"], min(entry["role"], user["role"], key=ROLES.index))
    return None


def from_password_file(lake: Path, path: str) -> None:
    """For containers: the user `admin` has the password in the first line of that file."""
    try:
        with open(path, encoding="utf-8") as file:
            password = file.readline(MAX_PASSWORD + 2).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"ENGINE_PASSWORD_FILE {path}: {reason.lower()}; name a readable file") from None
    if role_of(lake, "admin") is None:
        add(lake, "admin", password, "admin")
    elif not verify(lake, "admin", password):
        set_password(lake, "admin", password)


def check_password(name: str, password: str) -> None:
    """Long enough, not the name, and not one thing repeated."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise ConfigError(f"the password has {len(password)} characters; use {MIN_PASSWORD} to {MAX_PASSWORD}")
    if len(set(password)) < 5 or name.lower() * 2 in password.lower():
        raise ConfigError("the password is too easy to guess; use several words, or a password manager")


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError(f"user name {name[:70]!r} is not one; use letters, digits, and . _ @ - (at most 64)")


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise ConfigError(f"role {role!r} is unknown; use {', '.join(ROLES)}")


def _known(document: dict[str, Any], name: str) -> dict[str, Any]:
    user: dict[str, Any] | None = document["users"].get(name)
    if user is None:
        known = ", ".join(document["users"]) or "nobody yet"
        raise ConfigError(f"user {name[:70]!r} is unknown; there is {known}")
    return user


def _keep_an_admin(document: dict[str, Any]) -> None:
    if not any(user["role"] == "admin" for user in document["users"].values()):
        raise ConfigError("this is the last admin; make another one first")


@cache
def _hasher() -> Any:
    from argon2 import PasswordHasher

    return PasswordHasher()


@cache
def _nobody() -> str:
    return str(_hasher().hash(secrets.token_urlsafe()))


_cached: dict[Path, tuple[tuple[int, int], dict[str, Any]]] = {}


def _load(lake: Path) -> dict[str, Any]:
    """The document, read again when the file has changed."""
    path = auth.root(lake) / "users.json"
    try:
        status = path.stat()
    except FileNotFoundError:
        return {"users": {}, "tokens": []}
    key, known = (status.st_mtime_ns, status.st_ino), _cached.get(path)
    if known is not None and known[0] == key:
        return known[1]
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
        if set(document) != {"users", "tokens"}:
            raise ValueError
    except ValueError:
        raise ConfigError(f"{path} is damaged; restore it, or remove it to set up users again") from None
    _cached[path] = key, document
    return document


@contextmanager
def _editing(lake: Path) -> Iterator[dict[str, Any]]:
    """The document, for this process alone; what is left of it at the end is published."""
    folder = auth.directory(lake, "")
    lock = os.open(folder / "users.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        auth.give_to_owner(lake, folder / "users.lock")
        fcntl.flock(lock, fcntl.LOCK_EX)
        document = json.loads(json.dumps(_load(lake)))
        yield document
        part = folder / f"users.{os.getpid()}.{threading.get_ident()}.part"
        part.unlink(missing_ok=True)
        auth.create(lake, part, json.dumps(document, indent=1).encode())
        part.replace(folder / "users.json")
    finally:
        os.close(lock)
