"""`engine backup` and `engine restore`: a lake copied while engines write, merge and delete, and put back.

    <backup>/...                    a lake like any other: `engine sql --lake BACKUP` reads it
    <backup>/.backup/manifest.json  when it was made, and of every file its size, SHA-256 and modification time; removed
                                    first and written last, so that a backup without it is not complete

A backup holds, of every table, the segments that a query would have read when its last pass began. Files
that have not changed are not copied again. What merging or retention took away meanwhile is looked
for in another pass. Modification times and modes are kept: retention goes by the one, secrets are kept by the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from analytics.inventory import FRAMES
from analytics.listing import MERGING, RETIRED, live_segments, names_in
from analytics.store import require_lake
from engine import lake_format, sensor_lock
from engine.errors import ConfigError, StoreError
from engine.notify.outbox import FOLDER as OUTBOX
from engine.segment_file import UNFINISHED
from engine.tables import TABLES

FOLDER: Final = ".backup"
MANIFEST: Final = "manifest.json"
PASSES: Final = 20
# Of the processes that run now, or of messages that were sent since.
LEFT_OUT: Final = frozenset({MERGING, RETIRED, sensor_lock.FOLDER, OUTBOX, FOLDER})
_BLOCK: Final = 1 << 20


@dataclass(slots=True)
class Copied:
    """What a command did: files and bytes that were copied, files that were there already, and what did not fit."""

    files: int = 0
    bytes: int = 0
    kept: int = 0
    removed: int = 0
    damaged: tuple[str, ...] = ()


def backup(lake: Path, target: Path, *, frames: bool = True) -> Copied:
    """Copy a lake to a directory, or bring the backup there up to date. Raises ConfigError, StoreError."""
    root = require_lake(lake)
    lake_format.check(root)
    if target.resolve() == root.resolve() or root.resolve() in target.resolve().parents:
        raise ConfigError(f"backup {target} lies in the lake itself; name a directory elsewhere, best on another disk")
    if target.exists() and names_in(target) and FOLDER not in names_in(target):
        raise ConfigError(f"backup {target} holds something else; name an empty directory or an earlier backup")
    try:
        with _alone(target):
            known = _manifest(target) or {}
            with contextlib.suppress(FileNotFoundError):
                os.unlink(target / FOLDER / MANIFEST)
            done, files = Copied(), dict[str, list[Any]]()
            for _ in range(PASSES):
                wanted = _wanted(root, frames)
                if all(_bring(source, target / place, place, known, files, done) for place, source in wanted.items()):
                    break
            else:
                raise StoreError(f"lake {root} changes faster than it can be copied to {target}; try again")
            files = {place: files[place] for place in wanted}
            done.removed = _remove_others(target, files)
            os.sync()
            _write(target / FOLDER / MANIFEST, {"made": time.time(), "lake": str(root), "files": files})
            return done
    except OSError as error:
        raise _store_error(target, error) from None


def restore(source: Path, lake: Path) -> Copied:
    """Make a lake of a backup. Files that are not as they were copied are left out and named. Raises ConfigError,
    StoreError."""
    found = _manifest(source)
    if found is None:
        raise ConfigError(f"{source} is no complete backup; run `engine backup {source}` to its end, or name another")
    if names_in(lake):
        raise ConfigError(f"lake {lake} is there already; move it away, or name another with --lake")
    lake_format.check(source)
    partial = lake.with_name(f"{lake.name}{UNFINISHED}")
    done, damaged = Copied(), []
    try:
        shutil.rmtree(partial, ignore_errors=True)
        for place, (size, digest, _) in found.items():
            try:
                same = _copy(source / place, partial / place)[:2] == [size, digest]
            except FileNotFoundError:
                same = False
            if same:
                done.files, done.bytes = done.files + 1, done.bytes + size
            else:
                damaged.append(place)
                (partial / place).unlink(missing_ok=True)
        os.sync()
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(lake)
        os.rename(partial, lake)
    except OSError as error:
        raise _store_error(lake, error) from None
    done.damaged = tuple(damaged)
    return done


# --- which files ---------------------------------------------------------------------------------------------------


def _wanted(root: Path, frames: bool) -> dict[str, str]:
    """By place in the lake, the file that holds it now."""
    found: dict[str, str] = {}
    for table in TABLES:
        for path in live_segments(root, table):
            partition, _, name = path.rpartition("/")
            place = partition.partition(f"{root}/{table}/")[2] or _kept_partition(partition)
            found[f"{table}/{place}/{name}"] = path
    for name in names_in(root):
        if name not in LEFT_OUT and name not in TABLES and (frames or name != FRAMES):
            found |= {place: f"{root}/{place}" for place in _files(root, name)}
    return found


def _kept_partition(directory: str) -> str:
    """Of a segment's second name, while it is being merged: the directory of its first."""
    return "/".join(directory.split("/")[-3:])


def _files(root: Path, place: str) -> Iterator[str]:
    """Regular files at or below a place, none of them unfinished."""
    try:
        mode = os.lstat(root / place).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISREG(mode) and not place.endswith(UNFINISHED):
        yield place
    elif stat.S_ISDIR(mode):
        for name in names_in(root / place):
            yield from _files(root, f"{place}/{name}")


def _remove_others(target: Path, files: dict[str, list[Any]]) -> int:
    """What an earlier backup had and this one has not, for example segments that were merged since."""
    others = [place for name in names_in(target) if name != FOLDER for place in _files(target, name)]
    gone = [place for place in others if place not in files]
    for place in gone:
        os.unlink(target / place)
    return len(gone)


# --- one file ------------------------------------------------------------------------------------------------------


def _bring(
    source: str, copy: Path, place: str, known: dict[str, Any], files: dict[str, list[Any]], done: Copied
) -> bool:
    """Have a file in the backup. False when it has gone meanwhile."""
    before = files.get(place) or known.get(place)
    try:
        status = os.stat(source)
        if before is not None and before[2] == status.st_mtime_ns and before[0] == status.st_size and copy.exists():
            done.kept += place not in files
            files[place] = before
            return True
        files[place] = _copy(Path(source), copy)
    except FileNotFoundError:
        return False
    done.files, done.bytes = done.files + 1, done.bytes + files[place][0]
    return True


def _copy(source: Path, copy: Path) -> list[Any]:
    """Copy bytes, times, mode and, for root, owner. Returns size, SHA-256 and modification time of what was written."""
    # No link is followed: root may be copying what another account could put there.
    with open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        _directories(source.parent, copy.parent)
        partial = copy.with_name(f"{copy.name}{UNFINISHED}")
        digest, left = hashlib.sha256(), status.st_size  # raw frames grow: as much as there was at the beginning
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as written:
            while left and (block := file.read(min(_BLOCK, left))):
                digest.update(block)
                written.write(block)
                left -= len(block)
            _own(written.fileno(), status)
            os.fchmod(written.fileno(), stat.S_IMODE(status.st_mode))
        os.utime(partial, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.rename(partial, copy)
    return [status.st_size - left, digest.hexdigest(), status.st_mtime_ns]


def _directories(source: Path, copy: Path) -> None:
    """Make the directory and those above it as they are in the lake."""
    if not copy.is_dir():
        _directories(source.parent, copy.parent)
        status = source.stat()
        with contextlib.suppress(FileExistsError):
            copy.mkdir(stat.S_IMODE(status.st_mode))
        _own(copy, status)


def _own(what: int | Path, status: os.stat_result) -> None:
    if os.geteuid() == 0:
        os.chown(what, status.st_uid, status.st_gid)


# --- the manifest ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """One backup to a directory at a time."""
    (target / FOLDER).mkdir(parents=True, exist_ok=True)
    fd = os.open(target / FOLDER / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise StoreError(f"backup {target}: another process is writing it; wait for it") from None
    finally:
        os.close(fd)


def _manifest(target: Path) -> dict[str, Any] | None:
    """Size, digest and modification time by place; None without a sound manifest."""
    try:
        files = json.loads((target / FOLDER / MANIFEST).read_text(encoding="utf-8"))["files"]
        checked = {str(place): [int(size), str(digest), int(ns)] for place, (size, digest, ns) in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    outside = [place for place in checked if place.startswith("/") or ".." in place.split("/")]
    return None if outside else checked


def _write(path: Path, document: dict[str, Any]) -> None:
    partial = path.with_name(f"{path.name}{UNFINISHED}")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def _store_error(where: Path, error: OSError) -> StoreError:
    reason = (error.strerror or str(error)).lower()
    return StoreError(f"{where}: {reason} ({error.filename or 'writing'}); free some space, or name another directory")


def run_backup(lake: Path, target: Path, frames: bool, say: Callable[[str], None]) -> int:
    """The command. Returns the exit code."""
    done = backup(lake, target, frames=frames)
    say(f"{done.files:,} files copied, {done.bytes:,} bytes; {done.kept:,} were there; {done.removed:,} removed")
    return 0


def run_restore(source: Path, lake: Path, say: Callable[[str], None]) -> int:
    """The command. Exit code 1 when files of the backup were damaged."""
    done = restore(source, lake)
    say(f"{done.files:,} files restored, {done.bytes:,} bytes: lake {lake}")
    for place in done.damaged[:20]:
        say(f"damaged in the backup, and left out: {place}")
    if len(done.damaged) > 20:
        say(f"and {len(done.damaged) - 20:,} more")
    return 1 if done.damaged else 0
