"""What `engine doctor` says of the lake: its disk, its rights, its GeoIP database."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Final

from analytics import geoip
from analytics.status_text import size
from analytics.system import UNSUPPORTED, exchange
from engine import lake_format
from engine.checks import ADVICE, OK, PROBLEM, Check, disk_speed
from engine.errors import EngineError
from engine.retention_config import RetentionConfig

OLD_DAYS: Final = 100  # DB-IP makes a new database each month, MaxMind each week
# Rows of ordinary traffic take 34 bytes, its frames 650: 100,000 packets a second write 70 MB.
WANTED_MB_S: Final = 70.0


def lake(root: Path, retention: RetentionConfig, frames: bool) -> Iterator[Check]:
    """Checks of a lake that may not exist yet."""
    there = next(folder for folder in (root, *root.parents) if folder.is_dir())
    try:
        number = lake_format.check(root)
    except EngineError as error:
        yield Check("lake", PROBLEM, str(error), f"engine doctor --lake {root}-new")
        return
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        yield Check("lake", PROBLEM, f"the file system of {there} is read-only", f"mount -o remount,rw {there}")
        return
    if not os.access(there, os.W_OK | os.X_OK):
        # The lake alone: what it lies in may be /var/lib.
        mend = f"sudo -u {_owner(root)} engine doctor" if root.is_dir() else f'sudo install -d -o "$USER" {root}'
        yield Check("lake", PROBLEM, f"{there} cannot be written by this account", mend)
        return
    yield Check("lake", OK, f"{root}, format {number}" if root.is_dir() else f"{root} does not exist yet")
    yield _space(there, retention)
    yield _speed(there, frames)
    yield _swaps(there)
    yield _places(root)


def _owner(folder: Path) -> str:
    try:
        return folder.owner()
    except KeyError:  # an account of a container, or one that is gone
        return f"#{folder.stat().st_uid}"


def _space(folder: Path, retention: RetentionConfig) -> Check:
    usage = shutil.disk_usage(folder)
    wanted = retention.wanted_free(usage.total)
    found = f"{size(usage.free)} of {size(usage.total)} free"
    if not retention.enabled:
        return Check("disk", ADVICE, f"{found}, and retention is off", "engine config  # [retention] enabled = true")
    if usage.free < wanted:
        return Check("disk", PROBLEM, f"{found}, retention keeps {size(wanted)}", "engine retain --dry-run")
    return Check("disk", OK, found)


def _speed(folder: Path, frames: bool) -> Check:
    speed = disk_speed(folder)
    if speed is None:
        return Check("disk: speed", PROBLEM, f"nothing can be written in {folder}", f"df -h {folder}")
    packets = speed / (WANTED_MB_S if frames else WANTED_MB_S / 20) * 100_000
    found = f"{speed:,.0f} MB/s synced, for about {packets:,.0f} packets/s of ordinary traffic"
    if packets < 100_000:
        return Check("disk: speed", ADVICE, found, "engine run --frames off" if frames else "engine run --lake DIR")
    return Check("disk: speed", OK, found)


def _swaps(folder: Path) -> Check:
    """Merging needs to swap two directories."""
    try:
        with tempfile.TemporaryDirectory(prefix=".probe-", dir=folder) as name:
            one, other = Path(name) / "one", Path(name) / "other"
            one.mkdir()
            other.mkdir()
            exchange(one, other)
    except OSError as error:
        if error.errno in UNSUPPORTED:
            what = "this file system cannot swap directories: small segments stay as they are"
            return Check("disk: merging", ADVICE, what, "engine run --lake DIR  # on ext4, xfs or btrfs")
        return Check("disk: merging", PROBLEM, f"{folder}: {(error.strerror or str(error)).lower()}", f"df -h {folder}")
    return Check("disk: merging", OK, "possible")


def _places(root: Path) -> Check:
    told = geoip.status(root)
    if told["advice"]:
        return Check("GeoIP", ADVICE, str(told["advice"]).partition(";")[0].partition(":")[0], "engine geoip install")
    age = (date.today() - date.fromisoformat(told["built"])).days  # noqa: DTZ011 — a day more or less is no matter
    found = f"{told['type']}, {age} days old"
    return Check("GeoIP", ADVICE, found, "engine geoip install") if age > OLD_DAYS else Check("GeoIP", OK, found)
