"""What is too old, or too much, leaves the lake: the oldest files first, and no reader notices.

A query lists the segments it will read and opens them as it goes. So a segment is deleted in two steps:

1. A note `<lake>/.retired/<table>@<id>` appears, by one rename, with the names of the segments. Queries that begin now
   leave them out (`analytics.listing`).
2. After `grace_s` no query that listed them can still be running: they are deleted, then the note.

Killed at any moment, the next process goes on from the notes. Raw frames have no first step: readers of the ring expect
that its oldest segments go.

Ages and order go by when a file was written, not by the times of its packets: a replayed savefile is as old as its
replay, and packets with the clock of an attacker neither stay for ever nor push others out.

Works inside `with Compactor`, whose lock it shares: a directory that is being merged is left alone, and the other way
round.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from analytics.inventory import FRAMES, KINDS, Held, Inventory
from analytics.listing import RETIRED, names_in, noted, open_merges, retired_segments
from analytics.merge_jobs import swapping
from analytics.segments import HOUR_S, partition_hour
from engine.retention_config import RetentionConfig
from engine.segment_file import sync

DAY_S: Final = 86_400.0
ACUTE: Final = 4  # less than this part of the free space that is wanted: hurry
ACUTE_GRACE_S: Final = 2.0
YOUNG_S: Final = 30.0  # raw frames written so recently are still being written
NOTE_SEGMENTS: Final = 2_000
TELL_EVERY_S: Final = 600.0
_UNFINISHED: Final = "unfinished-"
AGE, SIZE, SPACE = "age", "size", "free space"


@dataclass(slots=True)
class Cut:
    """What goes of one kind of tables, and why."""

    kind: str
    reason: str
    files: list[Held] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(held.size for held in self.files)

    def text(self) -> str:
        return f"{self.kind}: {len(self.files):,} files, {self.size / (1 << 20):,.1f} MiB ({self.reason})"


@dataclass(slots=True)
class Space:
    """The lake's disk, in bytes. `wanted` is to be free."""

    total: int
    free: int
    wanted: int

    @property
    def short(self) -> bool:
        return self.free < self.wanted

    @property
    def acute(self) -> bool:
        return self.free < self.wanted // ACUTE


class Retention:
    """Keeps one lake within its limits.

    Args:
        report: told in a line what went and what could not. clock: seconds since the epoch.

    Attributes:
        deleted: files and bytes by kind since the start. last: the newest cut, as text.
        problem: why something that is due could not be deleted, empty when all could.
    """

    def __init__(
        self, lake: Path, config: RetentionConfig, grace_s: float, report: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.lake = lake
        self.config = config
        self.grace_s = grace_s
        self.deleted: dict[str, list[int]] = {}
        self.last = self.problem = ""
        self._report = report
        self._clock = clock
        self._notes = lake / RETIRED
        self._inventory = Inventory(lake)
        self._told: dict[str, float] = {}
        self._untold: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])

    @property
    def space(self) -> Space:
        usage = shutil.disk_usage(self.lake)
        return Space(usage.total, usage.free, self.config.wanted_free(usage.total))

    @property
    def waiting(self) -> bool:
        """Segments wait for their deletion."""
        return any(not name.startswith(_UNFINISHED) for name in names_in(self._notes))

    def round(self) -> list[Cut]:
        """Delete what was retired long enough ago, then retire what is due. Returns that."""
        space = self.space
        self.finish(space.acute)
        cuts = self.plan() if self.config.enabled else []
        for cut in cuts:
            try:
                self._apply(cut)
            except OSError as error:
                self._say(f"cannot delete {cut.kind}: {error}", "problem")
        if any(cut.reason == SPACE for cut in cuts) and self.space.acute:
            self.finish(acute=True)
        self._tell(bool(cuts))
        return cuts

    # --- what is due ---------------------------------------------------------------------------------------------

    def plan(self) -> list[Cut]:
        """What is due now. Nothing is touched."""
        now, space, pending = self._clock(), self.space, 0
        left, cuts = dict[str, list[Held]](), list[Cut]()
        merging: set[tuple[str, str]] = set()
        for kind, tables in KINDS.items():
            gone = {(table, place) for table in tables for place in retired_segments(self.lake, table)}
            merging |= {(table, merge.partition) for table in tables for merge in open_merges(self.lake, table)}
            old, files = Cut(kind, AGE), list[Held]()
            youngest = now - YOUNG_S if kind == FRAMES else float("inf")
            for held in self._inventory.of(kind):
                if (held.table, held.place) in gone:
                    pending += held.size
                elif held.written > youngest:
                    continue
                elif 0 < self.config.days(kind) * DAY_S < now - held.written and not _within(held, merging):
                    old.files.append(held)
                else:
                    files.append(held)
            large = Cut(kind, SIZE)
            if most := self.config.most_bytes(kind):
                large.files = _oldest(files, sum(held.size for held in files) - most, merging, space.acute)
            large_ones = set(large.files)
            left[kind] = [held for held in files if held not in large_ones]
            cuts += [old, large]
        missing = space.wanted - space.free - pending - sum(cut.size for cut in cuts)
        for kind, files in left.items():
            cut = Cut(kind, SPACE, _oldest(files, missing, merging, space.acute))
            missing -= cut.size
            cuts.append(cut)
            if missing > 0 and not space.acute and len(cut.files) < len(files):  # what is older is being merged
                break
        return [cut for cut in cuts if cut.files]

    # --- how it goes ---------------------------------------------------------------------------------------------

    def _apply(self, cut: Cut) -> None:
        if cut.kind == FRAMES:
            self._delete(FRAMES, [held.place for held in cut.files])
        for table in KINDS[cut.kind]:
            places = [held.place for held in cut.files if held.table == table]
            for start in range(0, len(places), NOTE_SEGMENTS):
                part = places[start : start + NOTE_SEGMENTS]
                try:
                    self._note(table, part)
                except OSError as error:
                    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                        raise
                    self._say("the disk is full: deleting at once, a query that runs now may fail", "full")
                    self._delete(table, part)
        sums = self.deleted.setdefault(cut.kind, [0, 0])
        for counts in (sums, self._untold[cut.kind, cut.reason]):
            counts[0] += len(cut.files)
            counts[1] += cut.size
        self.last = cut.text()

    def _note(self, table: str, places: list[str]) -> None:
        """From now on queries do not read these segments."""
        self._notes.mkdir(exist_ok=True)
        name = f"{table}@{time.time_ns():x}"
        written = self._notes / f"{_UNFINISHED}{name}"
        try:
            written.write_text(json.dumps(places))
            sync(str(written))
            os.rename(written, self._notes / name)
        except BaseException:
            with contextlib.suppress(OSError):
                written.unlink()
            raise
        sync(str(self._notes))

    def finish(self, acute: bool = False) -> None:
        """Delete the segments whose note is old enough."""
        self.problem = ""
        grace = min(self.grace_s, ACUTE_GRACE_S) if acute else self.grace_s
        for name in sorted(names_in(self._notes)):
            path = self._notes / name
            try:
                age = self._clock() - path.stat().st_mtime
                if name.startswith(_UNFINISHED):  # of a process that died
                    path.unlink()
                elif age < 0:  # the clock was set back: from now on
                    os.utime(path, (self._clock(),) * 2)
                elif age >= grace:
                    if acute and grace < self.grace_s:
                        self._say(
                            f"the disk is nearly full: deleting after {grace:g} s instead of {self.grace_s:g}", "full"
                        )
                    table = name.partition("@")[0]
                    if table in _TABLES:
                        self._delete(table, noted(path))
                    path.unlink()
            except (OSError, ValueError) as error:
                self.problem = f"cannot delete what {path} names: {error}"
                self._say(self.problem, "problem")
                if isinstance(error, ValueError):  # damaged: its segments will be found again
                    path.unlink(missing_ok=True)

    def _delete(self, table: str, places: Iterable[str]) -> None:
        folders: set[Path] = set()
        for place in places:
            path = self.lake / table / place
            if ".." in path.parts or place.startswith("/"):  # the note is damaged
                continue
            path.unlink(missing_ok=True)
            folders.add(path.parent)
        for folder in folders:
            with contextlib.suppress(FileNotFoundError):
                sync(str(folder))
                if table != FRAMES:
                    self._remove_empty(folder)

    def _remove_empty(self, hour: Path) -> None:
        """Remove the directory of an hour that is over, and of its day, when nothing is left in it."""
        begins = partition_hour("/".join(hour.parts[-3:]))
        if begins is None or begins > self._clock() - 3 * HOUR_S or names_in(hour):
            return
        with swapping(hour.parent.parent), contextlib.suppress(OSError):  # not empty any more
            hour.rmdir()
            hour.parent.rmdir()

    # --- what the operator reads ---------------------------------------------------------------------------------

    def _tell(self, did: bool) -> None:
        now = self._clock()
        if self._untold and not 0 <= now - self._told.get("cuts", 0.0) < TELL_EVERY_S:
            self._told["cuts"] = now
            for (kind, reason), (files, size) in self._untold.items():
                self._report(f"retention: {files:,} files of {kind} deleted, {size / (1 << 20):,.1f} MiB ({reason})")
            self._untold.clear()
        space = self.space
        if space.short and not did and not self.waiting:
            wanted = f"{space.free >> 20:,} of the {space.wanted >> 20:,} MiB wanted"
            self._say(f"{self.lake}: {wanted} are free, and nothing of the lake can be deleted now", "short")

    def _say(self, text: str, what: str) -> None:
        now = self._clock()
        if not 0 <= now - self._told.get(what, 0.0) < TELL_EVERY_S:
            self._told[what] = now
            self._report(f"retention: {text}")


_TABLES: Final = frozenset(table for tables in KINDS.values() for table in tables)


def _within(held: Held, merging: set[tuple[str, str]]) -> bool:
    return (held.table, os.path.dirname(held.place)) in merging


def _oldest(files: list[Held], size: int, merging: set[tuple[str, str]], acute: bool) -> list[Held]:
    """The oldest files that together have `size` bytes. What is being merged cannot go: newer ones wait for it, unless
    the matter is urgent."""
    found: list[Held] = []
    for held in files:
        if size <= 0:
            break
        if _within(held, merging):
            if acute:
                continue
            break
        found.append(held)
        size -= held.size
    return found
