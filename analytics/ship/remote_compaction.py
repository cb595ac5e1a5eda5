"""Objects of an hour at the destination become few, and no reader sees a row twice or misses one.

    .compact/claims/<id>                      who compacts: one at a time
    .compact/jobs/<table>@<id>-<n>.json       what becomes what
    .compact/made/<table>@<id>-<n>.parquet    the rows of the new object, where no reader looks
    .retired/<table>@compact-<id>-<n>         a note of `analytics.ship.remote_retention`: what no reader reads

No store can exchange two objects for one. It can replace one object by another, and readers leave out what a note
names: so the note of a job is the switch.

1. The rows are merged into `made/`, and the job is written.
2. The note appears and names the new object, which is not there yet. After `grace_s` every reader knows.
3. The new object is put in its place. Readers are told (`.fleet/lakes/compact.json`): they list its date again, and
   leave it out.
4. After `grace_s` the note is replaced: it names the old objects now. From then on readers read the new one.
5. After `grace_s` no query reads the old ones any more: they are deleted, then the note and the job.

Whoever finds a job of a process that died undoes it if its note names the new object, finishes it if it names the old
ones, and forgets it without a note: then it had not begun, or was done.
Engines that list objects by a pattern know no notes: they see rows twice between 3 and 5.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from analytics.listing import RETIRED
from analytics.merging import merge, rows_of
from analytics.segments import HOUR_S, partition_hour
from analytics.ship.destination import Destination, Item
from analytics.ship.names import LAKES, SERVED, matches, name_for, shipped
from analytics.ship.spool import SMALL, TARGET, span_of
from engine.errors import StoreError
from engine.tables import TABLES

GRACE_S: Final = 300.0  # longer than any query, and than a reader takes from the notes to its listing
CLAIM_S: Final = 1800.0  # a claim that was not renewed for so long is nobody's
SETTLE_S: Final = 3.0  # claims of the same moment see each other after that
_CLAIMS: Final = ".compact/claims"
_JOBS: Final = ".compact/jobs"
_MADE: Final = ".compact/made"
_TOLD: Final = f"{LAKES}/compact.json"
OVER_S: Final = 1800.0  # an hour that ended so long ago gets hardly any objects any more
_DATE: Final = re.compile(r"date=(\d{4}-\d\d-\d\d)")


@dataclass(frozen=True, slots=True)
class Group:
    """Objects that become one: the table, their partition, their places. `name` is the job's, as `table@id-n`."""

    name: str
    table: str
    partition: str
    originals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """A group whose rows are in `made/`; `target` is where they go."""

    name: str
    table: str
    target: str
    size: int
    originals: tuple[str, ...]

    @property
    def note(self) -> str:
        return f"{RETIRED}/{self.table}@compact-{self.name.partition('@')[2]}"

    @property
    def made(self) -> str:
        return f"{_MADE}/{self.name}.parquet"

    @property
    def record(self) -> str:
        return f"{_JOBS}/{self.name}.json"


@dataclass(slots=True)
class Done:
    """What was done: objects that became how many others, and jobs of a process that died."""

    objects: int = 0
    merged: int = 0
    undone: int = 0


def make(url: str, group: Group) -> Job | None:
    """Step 1 for one group, in any process that reaches the store; None when an object went or is damaged meanwhile.

    Raises StoreError.
    """
    destination = Destination(url)
    with tempfile.TemporaryDirectory(prefix="packetlake-") as folder:
        paths = []
        for place in group.originals:
            path = Path(folder, place.rpartition("/")[2])
            data, promised = destination.get(place), shipped(path.name)
            if data is None or promised is None or not matches(data, promised):
                return None
            path.write_bytes(data)
            if rows_of(str(path), group.table) is None:
                return None
            paths.append(str(path))
        made = Path(folder, "merged")
        try:
            merge(paths, made, group.table)
            start, end, rows = span_of(made, group.table)
        except ValueError:
            return None
        content = made.read_bytes()
        target = f"{group.table}/{group.partition}/{name_for(made, start, end, rows)}"
    job = Job(group.name, group.table, target, len(content), group.originals)
    destination.put(content, job.made)
    return job


class RemoteCompactor:
    """Compacts one destination, once. Methods raise StoreError.

    Args:
        report: told in a line what is being done.
        run: merges groups, here or on many machines; yields None for a group that cannot be.
        wait: sleeps so many seconds.
    """

    def __init__(
        self, url: str, report: Callable[[str], None], grace_s: float = GRACE_S,
        run: Callable[[list[Group]], Iterable[Job | None]] | None = None, wait: Callable[[float], None] = time.sleep,
        settle_s: float = SETTLE_S, over_s: float = OVER_S,
    ) -> None:  # fmt: skip
        self.destination = Destination(url)
        self._report = report
        self._grace_s = grace_s
        self._run = run or (lambda groups: (make(url, group) for group in groups))
        self._wait = wait
        self._settle_s, self._over_s = settle_s, over_s
        self._id = secrets.token_hex(6)
        self._renewed = time.clock_gettime(time.CLOCK_BOOTTIME)

    def compact(self) -> Done:
        """Finish what a process that died began, then merge what is due."""
        done = Done()
        self.destination.check_format(prepare=False)
        try:
            now = self._claim()
            self._recover(done)
            groups = self._groups(now)
            if groups:
                objects = sum(len(group.originals) for group in groups)
                self._report(
                    f"{objects:,} objects become {len(groups):,}; this takes {4 * self._grace_s / 60:.0f} minutes"
                )
            jobs = []
            for job in self._run(groups):
                if job is not None:
                    self.destination.put(json.dumps(asdict(job)).encode(), job.record)
                    jobs.append(job)
                self._renew()
            jobs = self._publish(jobs)
            self._finish(jobs)
            done.objects, done.merged = sum(len(job.originals) for job in jobs), len(jobs)
        finally:
            with contextlib.suppress(StoreError):
                self.destination.delete(f"{_CLAIMS}/{self._id}")
        return done

    # --- one at a time --------------------------------------------------------------------------------------------

    def _claim(self) -> float:
        """Returns the store's time. Who finds another's claim gives up: of two that begin at once, both may."""
        self._renew()
        self._wait(self._settle_s)
        now, others = self._claims()
        for name, written in others.items():
            if now - written < CLAIM_S:
                raise StoreError(
                    f"{self.destination.url}: another process compacts it; when that has died, try again in "
                    f"{CLAIM_S / 60:.0f} minutes or delete {_CLAIMS}/{name} there"
                )
            self.destination.delete(f"{_CLAIMS}/{name}")
        return now

    def _claims(self) -> tuple[float, dict[str, float]]:
        """The store's time when ours was renewed, and when each other's was."""
        claims = {item.place.rpartition("/")[2]: item.written for item in self.destination.list(_CLAIMS)}
        now = claims.pop(self._id, None)
        if now is None:
            raise StoreError(f"{self.destination.url}: the claim to compact it was taken away; try again")
        return now, claims

    def _renew(self) -> None:
        """Keep the claim. Raises StoreError when this process slept for so long that another may have taken over."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        if now - self._renewed > CLAIM_S / 2:
            raise StoreError(f"{self.destination.url}: compaction was held up for too long; try again")
        self.destination.put(b"{}", f"{_CLAIMS}/{self._id}")
        self._renewed = now

    def _rest(self) -> None:
        """`grace_s`, with the claim renewed."""
        until = time.monotonic() + self._grace_s
        while (left := until - time.monotonic()) > 0:
            self._wait(min(60.0, left))
            self._renew()
        self._claims()

    # --- what is due ----------------------------------------------------------------------------------------------

    def _groups(self, now: float) -> list[Group]:
        retired = self._noted()
        found: list[Group] = []
        for table in TABLES:
            small: dict[str, list[Item]] = {}
            for item in self.destination.list(table):
                _, _, place = item.place.partition("/")
                partition, _, name = place.rpartition("/")
                hour = partition_hour(partition) if SERVED.fullmatch(partition) else None
                over = hour is not None and now >= max(hour + HOUR_S, item.written) + self._over_s
                promised = shipped(name)
                if over and promised and promised.size == item.size < SMALL and item.place not in retired:
                    small.setdefault(partition, []).append(item)
            for partition, items in sorted(small.items()):
                for places in _filled(sorted(items, key=lambda i: i.place)):
                    found.append(Group(f"{table}@{self._id}-{len(found)}", table, partition, places))
        return found

    def _noted(self) -> set[str]:
        """Places that any note names: they are being deleted, or are not to be seen yet."""
        found: set[str] = set()
        for item in self.destination.list(RETIRED):
            found.update(self._names(item.place))
        return found

    def _names(self, note: str) -> list[str]:
        table = note.rpartition("/")[2].partition("@")[0]
        with contextlib.suppress(ValueError, TypeError):
            return [f"{table}/{place}" for place in json.loads(self.destination.get(note) or b"[]")]
        return []

    # --- steps ----------------------------------------------------------------------------------------------------

    def _note(self, job: Job, places: Iterable[str]) -> None:
        self.destination.put(json.dumps([place.partition("/")[2] for place in places]).encode(), job.note)

    def _publish(self, jobs: list[Job]) -> list[Job]:
        """Steps 2 to 4. Returns the jobs whose new objects are read now."""
        if not jobs:
            return []
        for job in jobs:
            self._note(job, [job.target])
        self._rest()
        for job in jobs:
            self.destination.copy(job.made, job.target)
            self._renew()
        self._tell(jobs)
        self._rest()
        kept, others = [], self._noted() - {job.target for job in jobs}
        for job in jobs:
            if others.isdisjoint(job.originals) and self.destination.size(job.target) == job.size:
                self._note(job, job.originals)
                kept.append(job)
        self._undo([job for job in jobs if job not in kept])  # retention wants an original, or has taken it
        return kept

    def _finish(self, jobs: list[Job]) -> None:
        """Step 5."""
        if not jobs:
            return
        self._rest()
        for job in jobs:
            for place in job.originals:
                self.destination.delete(place)
            self._renew()
        self._tell(jobs)
        self._rest()
        self._clean(jobs)

    def _undo(self, jobs: list[Job]) -> None:
        """The new objects go; nobody has read them."""
        if not jobs:
            return
        for job in jobs:
            self.destination.delete(job.target)
        self._tell(jobs)
        self._rest()
        self._clean(jobs)

    def _clean(self, jobs: list[Job]) -> None:
        for job in jobs:
            for place in (job.note, job.made, job.record):
                self.destination.delete(place)

    def _recover(self, done: Done) -> None:
        """What a process that died has left."""
        undo, finish, forget = list[Job](), list[Job](), list[Job]()
        for item in self.destination.list(_JOBS):
            try:
                data = json.loads(self.destination.get(item.place) or b"{}")
                job = Job(**{**data, "originals": tuple(data["originals"])})
            except (ValueError, TypeError, KeyError):
                raise StoreError(f"{self.destination.url}: {item.place} there is damaged; delete it") from None
            named = set(self._names(job.note))
            (finish if named == set(job.originals) else undo if named == {job.target} else forget).append(job)
        self._undo(undo)
        self._finish(finish)
        self._clean(forget)
        done.undone = len(undo)
        for item in self.destination.list(_MADE):  # of a job that was not written
            self.destination.delete(item.place)

    def _tell(self, jobs: Iterable[Job]) -> None:
        """Readers of an object store list these dates again."""
        try:
            known = json.loads(self.destination.get(_TOLD) or b"{}")
        except ValueError:
            known = {}
        dates, sensors = dict(known.get("dates", {})), set(known.get("compacted", []))
        for job in jobs:
            if match := _DATE.search(job.target):
                dates[match[1]] = time.time_ns()
                sensors.add(job.target.split("/")[1].removeprefix("sensor="))
        self.destination.put(json.dumps({"dates": dates, "compacted": sorted(sensors)}).encode(), _TOLD)


def _filled(items: list[Item]) -> Iterable[tuple[str, ...]]:
    """Two or more neighbours each, of about TARGET bytes."""
    group, size = list[str](), 0
    for item in items:
        group.append(item.place)
        size += item.size
        if size >= TARGET:
            yield tuple(group)
            group, size = [], 0
    if len(group) > 1:
        yield tuple(group)
