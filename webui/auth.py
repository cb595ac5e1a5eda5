"""One-time links and sessions, kept as files inside the lake so that every process sees the same.

The engine (or `engine link`) calls `issue_token` and prints a link that holds the token in its fragment, which no
browser sends in a request line. Only SHA-256 hashes of tokens and session ids are on disk, as file names in directories
closed to others, so reading the disk gives nobody a session. Standard library only: the CLI imports this.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TOKEN_LIFE_S: Final = 15 * 60
SESSION_IDLE_S: Final = 8 * 3600
SESSION_LIFE_S: Final = 7 * 24 * 3600
TOUCH_EVERY_S: Final = 60  # a session's last use is noted no more often than this
MAX_SECRET: Final = 128  # characters; longer input is not worth hashing
MAX_SESSIONS: Final = 1000  # of all users; the one used longest ago ends


@dataclass(frozen=True, slots=True)
class Session:
    """One browser that is signed in. `identity` names it to an operator and opens nothing."""

    identity: str
    user: str
    begun: int  # s since the epoch
    used: int  # to the minute
    address: str
    agent: str


def prepare(lake: Path | str) -> None:
    """Make the directories, so that a lake which cannot be written is found out at the start."""
    for name in ("tokens", "sessions"):
        path = directory(Path(lake), name)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(13, "permission denied", str(path))


def issue_token(lake: Path | str, user: str = "") -> str:
    """A new token, good once within TOKEN_LIFE_S: to sign in as `user`, or without one to set up the first.

    Called as root, it is the lake's owner who can use it.
    """
    tokens = directory(Path(lake), "tokens")
    for path in tokens.iterdir():
        if _age(path) > TOKEN_LIFE_S:
            path.unlink(missing_ok=True)
    token = secrets.token_urlsafe(24)
    create(Path(lake), tokens / digest(token), user.encode())
    return token


def peek(lake: Path | str, token: str) -> str | None:
    """The user a fresh token is for ("" is setup), without using it up."""
    if not 0 < len(token) <= MAX_SECRET:
        return None
    path = root(Path(lake)) / "tokens" / digest(token)
    try:
        return path.read_text() if _age(path) <= TOKEN_LIFE_S else None
    except FileNotFoundError:
        return None


def consume(lake: Path | str, token: str) -> str | None:
    """Use up a token: the user it is for, once, for whoever is first, while it is fresh."""
    user = peek(lake, token)
    if not 0 < len(token) <= MAX_SECRET:
        return None
    try:
        (root(Path(lake)) / "tokens" / digest(token)).unlink()  # of several at the same moment, exactly one succeeds
    except FileNotFoundError:
        return None
    return user


def start_session(lake: Path | str, user: str, address: str = "", agent: str = "") -> str:
    """A new session's id, 256 random bits, for the cookie."""
    into = directory(Path(lake), "sessions")
    alive = sorted(((s.used, path) for path, s in _sessions(Path(lake))), key=lambda pair: pair[0])
    for _, path in alive[: max(0, len(alive) - MAX_SESSIONS + 1)]:
        path.unlink(missing_ok=True)
    session = secrets.token_urlsafe(32)
    told = {"user": user, "begun": int(time.time()), "address": address[:64], "agent": shown(agent[:200])}
    create(Path(lake), into / digest(session), json.dumps(told).encode())
    return session


def read_session(lake: Path | str, session: str) -> Session | None:
    """The session, if it was used in the last 8 hours and begun in the last 7 days; this counts as a use."""
    if not 0 < len(session) <= MAX_SECRET:
        return None
    path = root(Path(lake)) / "sessions" / digest(session)
    found = _read(path)
    if found is not None and time.time() - found.used > TOUCH_EVERY_S:
        try:
            os.utime(path)
        except FileNotFoundError:  # ended at this moment
            return None
    return found


def end_session(lake: Path | str, session: str) -> None:
    """Sign out."""
    if 0 < len(session) <= MAX_SECRET:
        (root(Path(lake)) / "sessions" / digest(session)).unlink(missing_ok=True)


def sessions(lake: Path | str) -> list[Session]:
    """Every session that still holds, the one used last first."""
    return sorted((s for _, s in _sessions(Path(lake))), key=lambda s: -s.used)


def revoke(lake: Path | str, *, user: str | None = None, identity: str | None = None) -> int:
    """End sessions, of one user or the one named; neither: all. Returns how many."""
    ended = 0
    for path, session in _sessions(Path(lake)):
        if user in (None, session.user) and identity in (None, session.identity):
            path.unlink(missing_ok=True)
            ended += 1
    return ended


def _sessions(lake: Path) -> Iterator[tuple[Path, Session]]:
    """Those that hold; the others' files go."""
    for path in list(directory(lake, "sessions").iterdir()):
        session = _read(path)
        if session is None:
            path.unlink(missing_ok=True)
        else:
            yield path, session


def _read(path: Path) -> Session | None:
    try:
        told = json.loads(path.read_bytes())
        used = int(path.stat().st_mtime)
        session = Session(path.name[:12], told["user"], told["begun"], used, told["address"], told["agent"])
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
    now = time.time()
    return session if now - used <= SESSION_IDLE_S and now - session.begun <= SESSION_LIFE_S else None


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def digest(secret: str) -> str:
    """What is kept of a random secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def shown(text: str) -> str:
    """Text that somebody gave, without what moves a terminal's cursor."""
    return "".join(c if c.isprintable() else "·" for c in text)


def root(lake: Path) -> Path:
    """Where the dashboard's own files are."""
    return lake / ".dashboard"


def directory(lake: Path, name: str) -> Path:
    """A directory of ours, made when it is not there, closed to others. The name "" is the one above."""
    lake.mkdir(parents=True, exist_ok=True)
    for path in (root(lake), root(lake) / name):
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            if path.is_symlink():  # root must not be led elsewhere by the lake's owner
                raise NotADirectoryError(errno.ENOTDIR, "it is a symbolic link", str(path)) from None
            continue
        give_to_owner(lake, path)
    return root(lake) / name


def create(lake: Path, path: Path, content: bytes) -> None:
    """A new file for the lake's owner alone."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
    give_to_owner(lake, path)


def give_to_owner(lake: Path, path: Path) -> None:
    """The dashboard runs as the lake's owner and must be able to use what root made for it."""
    if os.geteuid() == 0:
        owner = lake.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
