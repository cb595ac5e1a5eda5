"""Which segments of a lake the spool has taken, so that each goes once, whatever merging makes of them.

    <lake>/.ship/ledger.json    id of this lake at its destination, and which that is
    <lake>/.ship/taken          lines: table, partition and name of segments that were taken and may still be here
    <lake>/.ship/intent         segments that are being taken just now
    <lake>/.ship/lock           held while segments are taken, and while a merge says which it merges

A merge (`analytics.merge_jobs`) keeps segments that were taken apart from others, and tells by two names what it made:
a file of taken ones has the ledger's id in its name, so that it is not taken again. Which of the others it merges
stands in its job's directory before it begins; they are not taken until it is done, and then as one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from analytics.listing import MERGING, names_in
from engine.segment_file import sync

SHIP: Final = ".ship"
LEDGER: Final = "ledger.json"
INTENT: Final = "intent"
UNTAKEN: Final = "untaken"
_MOST_LINES: Final = 200_000  # then those whose segments have gone are dropped


@contextlib.contextmanager
def deciding(lake: Path) -> Iterator[None]:
    """Nobody else takes segments, or decides what to merge, meanwhile."""
    fd = os.open(lake / SHIP / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def ledger_id(lake: Path) -> str:
    """Empty for a lake that does not ship."""
    return read(lake).get("id", "")


def read(lake: Path) -> dict[str, str]:
    """What ledger.json says."""
    try:
        found = json.loads((lake / SHIP / LEDGER).read_text())
        return {"id": str(found["id"]), "url": str(found["url"])}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


class Taken:
    """Which segments of a lake are taken, as it is now. Ask inside `deciding`."""

    def __init__(self, lake: Path) -> None:
        self.id = ledger_id(lake)
        self.about_to_be = set(intent(lake))
        self._places = taken(lake)

    def has(self, place: str) -> bool:
        """Whether a segment was taken: `place` is table/partition/name."""
        return place in self._places or place.endswith(f"-{self.id}.parquet")


class Ledger:
    """The ledger of one lake for one destination. For whoever ships, and one thread."""

    def __init__(self, lake: Path, url: str) -> None:
        self._folder = lake / SHIP
        self._lake = lake
        known = read(lake)
        self.began = known.get("url") != url  # another destination: everything goes there, once
        if self.began:
            for name in ("taken", INTENT):
                (self._folder / name).unlink(missing_ok=True)
            known = {"id": secrets.token_hex(6), "url": url}
            replace(self._folder / LEDGER, json.dumps(known))
        self.id = known["id"]
        self._taken = taken(lake)
        self._compact_at = _MOST_LINES

    def has(self, place: str) -> bool:
        """Whether a segment was taken: `place` is table/partition/name."""
        return place in self._taken or place.endswith(f"-{self.id}.parquet")

    def begin(self, places: list[str]) -> None:
        """These are about to be taken: nobody merges them before `add`, whatever happens to us."""
        replace(self._folder / INTENT, json.dumps(places))

    def add(self, places: Iterable[str]) -> None:
        """These are taken, also after a power cut; what `begin` said is settled."""
        new = [place for place in places if place not in self._taken]
        self._taken.update(new)
        if len(self._taken) > self._compact_at:
            self._taken = {place for place in self._taken if (self._lake / place).exists()}
            self._compact_at = max(_MOST_LINES, 2 * len(self._taken))
            replace(self._folder / "taken", "".join(f"{place}\n" for place in sorted(self._taken)))
        elif new:
            with open(self._folder / "taken", "a", encoding="utf-8") as file:
                file.write("".join(f"{place}\n" for place in new))
                file.flush()
                os.fsync(file.fileno())
        (self._folder / INTENT).unlink(missing_ok=True)


def intent(lake: Path) -> list[str]:
    """What was about to be taken when the process died; usually nothing."""
    try:
        return list(json.loads((lake / SHIP / INTENT).read_text()))
    except (OSError, ValueError, TypeError):
        return []


def taken(lake: Path) -> set[str]:
    """The lines of the ledger; a torn last one names nothing that is there."""
    try:
        text = (lake / SHIP / "taken").read_text(encoding="utf-8")
    except FileNotFoundError:
        return set()
    return set(text.splitlines())


def being_merged(lake: Path) -> set[str]:
    """Segments that were not taken and are about to be merged, as table/partition/name."""
    found: set[str] = set()
    for job in names_in(lake / MERGING):
        with contextlib.suppress(OSError, ValueError, NotADirectoryError):
            found.update(json.loads((lake / MERGING / job / UNTAKEN).read_text()))
    return found


def replace(path: Path, text: str) -> None:
    """Write a small file so that it is the old or the new one, also after a power cut."""
    partial = path.with_name(f".{path.name}.inprogress")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(partial, path)
    sync(str(path.parent))
