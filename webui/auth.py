"""Who may look: one-time links and sessions, kept as files inside the lake so that every process sees the same.

The engine (or `engine link`) calls `issue_token` and prints a link that holds the token. Opening it consumes the
token and starts a session. Only SHA-256 hashes of tokens and session ids are on disk, as file names in directories
closed to others, so reading the disk gives nobody a session. Standard library only: the CLI imports this.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from pathlib import Path
from typing import Final

TOKEN_LIFE_S: Final = 15 * 60
SESSION_IDLE_S: Final = 8 * 3600
SESSION_LIFE_S: Final = 7 * 24 * 3600
TOUCH_EVERY_S: Final = 60  # a session's last use is noted no more often than this
MAX_SECRET: Final = 128  # characters; longer input is not worth hashing


def prepare(lake: Path | str) -> None:
    """Make the directories, so that a lake which cannot be written is found out at the start."""
    for name in ("tokens", "sessions"):
        directory = _directory(Path(lake), name)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(13, "permission denied", str(directory))


def issue_token(lake: Path | str) -> str:
    """A new token, good for one login within TOKEN_LIFE_S. Called as root, it is the lake's owner who can use it."""
    directory = _directory(Path(lake), "tokens")
    for path in directory.iterdir():
        if _age(path) > TOKEN_LIFE_S:
            path.unlink(missing_ok=True)
    token = secrets.token_urlsafe(24)
    _create(Path(lake), directory / _hash(token), b"")
    return token


def consume(lake: Path | str, token: str) -> bool:
    """Use up a token: True once, for whoever is first, while it is fresh."""
    if not 0 < len(token) <= MAX_SECRET:
        return False
    path = _root(Path(lake)) / "tokens" / _hash(token)
    try:
        fresh = _age(path) <= TOKEN_LIFE_S
        path.unlink()  # of several at the same moment, exactly one succeeds
    except FileNotFoundError:
        return False
    return fresh


def start_session(lake: Path | str) -> str:
    """A new session's id, 256 random bits, for the cookie."""
    directory = _directory(Path(lake), "sessions")
    for path in directory.iterdir():
        if not _alive(path):
            path.unlink(missing_ok=True)
    session = secrets.token_urlsafe(32)
    _create(Path(lake), directory / _hash(session), str(int(time.time())).encode())
    return session


def check_session(lake: Path | str, session: str) -> bool:
    """Whether the id belongs to a session that was used in the last 8 hours and begun in the last 7 days."""
    if not 0 < len(session) <= MAX_SECRET:
        return False
    path = _root(Path(lake)) / "sessions" / _hash(session)
    if not _alive(path):
        return False
    if _age(path) > TOUCH_EVERY_S:
        try:
            os.utime(path)
        except FileNotFoundError:  # ended at this moment
            return False
    return True


def _alive(path: Path) -> bool:
    try:
        begun = int(path.read_bytes() or b"0")
        idle = _age(path)
    except (FileNotFoundError, ValueError):
        return False
    return idle <= SESSION_IDLE_S and time.time() - begun <= SESSION_LIFE_S


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _root(lake: Path) -> Path:
    return lake / ".dashboard"


def _directory(lake: Path, name: str) -> Path:
    lake.mkdir(parents=True, exist_ok=True)
    for path in (_root(lake), _root(lake) / name):
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            continue
        _give_to_owner(lake, path)
    return _root(lake) / name


def _create(lake: Path, path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
    _give_to_owner(lake, path)


def _give_to_owner(lake: Path, path: Path) -> None:
    """The dashboard runs as the lake's owner and must be able to use what root made for it."""
    if os.geteuid() == 0:
        owner = lake.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
