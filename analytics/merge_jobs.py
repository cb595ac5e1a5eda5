"""The jobs of `analytics.compaction`: segments of one directory become few, and nobody notices.

A *job* merges small segments of one directory (a table's sensor, date and hour). Queries that started before must
find the files they have listed, queries that start later must see every row once, and the process may be killed at any
moment. So a job goes through steps, each begun by one rename:

1. Merged files are written into `<lake>/.merging/<table>@<id>/next/`, second names (hard links) of the segments into
   `kept/`. Nobody looks there. After a crash: deleted.
2. `<table>@<id>.open` appears. From now on queries read the segments by their second names (`analytics.listing`).
   After `grace_s` none that lists the first names can still be running.
3. The directory and `next/` change places (renameat2 with RENAME_EXCHANGE). What else the directory holds was linked
   into `next/` before, so that a running capture notices nothing.
4. `.open` is renamed to `.swapped`: queries read the directory again, where the merged files are.
5. After `grace_s` no query uses the second names: the job's directory is deleted.

Other readers, which list the files by a pattern, never get rows twice: one that runs across step 3 does not find a
file it has listed, and has to be repeated.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pickle
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from analytics.listing import KEPT, MERGING, OPEN, SUFFIX, names_in, partitions, retired_segments
from analytics.segments import SEGMENT_NAME, partition_hour
from analytics.ship.ledger import UNTAKEN, Taken, deciding, ledger_id
from analytics.system import UNSUPPORTED, exchange, stop_with_parent
from engine import lake_format
from engine.errors import StoreError
from engine.tables import TABLES

SWAPPED: Final = ".swapped"
NEXT: Final = "next"
HOUR_S: Final = 3600
EAGER: Final = {"alert_events": (32, 120.0)}  # least and older_s of tables that are read whole, again and again
RETRY_S: Final = 600.0  # after a failure, for example of a full disk
_PROBLEMS: Final = (OSError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is merged, and how patiently.

    A directory is due when it holds `least` segments that are smaller than `small_bytes` and older than `older_s`; when
    its hour has been over for so long, two are enough. Merged files have about `target_bytes`. `grace_s` is longer
    than any query.
    """

    small_bytes: int = 4 << 20
    target_bytes: int = 64 << 20
    older_s: float = 600.0
    least: int = 256
    grace_s: float = 300.0


@dataclass(slots=True)
class Done:
    """What a process has merged so far."""

    segments: int = 0
    merged: int = 0
    rows: int = 0
    bytes_read: int = 0


class Compactor:
    """Merges the segments of one lake. One process at a time: use it inside `with`.

    Args:
        report: told in a line what could not be done.
        clock: seconds since the epoch.
    """

    def __init__(
        self, lake: Path, plan: Plan, report: Callable[[str], None], clock: Callable[[], float] = time.time
    ) -> None:
        self.lake = lake
        self.plan = plan
        self.done = Done()
        self._report = report
        self._clock = clock
        self._root = lake / MERGING
        self._lock = -1
        self._left_alone: set[str] = set()  # segments that cannot be merged
        self._settled: dict[str, int] = {}  # directories with nothing to merge, and their modification time
        self._not_before: dict[str, float] = {}  # directories where it failed
        self._possible = True

    def __enter__(self) -> Compactor:
        """Take the lake and clean up after a process that died. Raises StoreError when another process has it."""
        lake_format.check(self.lake)
        try:
            self._root.mkdir(exist_ok=True)
            self._lock = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise StoreError(f"lake {self.lake}: another process merges its segments; it needs no help") from None
        except OSError as error:
            raise StoreError(f"lake {self.lake}: cannot merge: {(error.strerror or str(error)).lower()}") from None
        noted = {name.rpartition(".")[0] for name in names_in(self._root) if name.endswith((OPEN, SWAPPED))}
        for name in names_in(self._root):
            if "@" in name and name not in noted and not name.endswith((OPEN, SWAPPED)):
                self._delete(name)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    # --- jobs ----------------------------------------------------------------------------------------------------

    @property
    def jobs(self) -> list[str]:
        """Names of the jobs that are not finished."""
        return sorted({n.rpartition(".")[0] for n in names_in(self._root) if n.endswith((OPEN, SWAPPED))})

    def advance(self) -> int:
        """Take each job whose time has come one step further. Returns how many are left."""
        for name in self.jobs:
            with self._reporting(name):
                if (self._root / (name + OPEN)).exists():
                    self._swap(name)
                else:
                    self._finish(name)
        return len(self.jobs)

    def begin(self, most: int = 1 << 30) -> int:
        """Begin jobs for the directories that are due, at most so many. Returns how many."""
        if not self._possible:
            return 0
        busy = {(name.partition("@")[0], self._note(name)["partition"]) for name in self.jobs}
        begun = 0
        for table in TABLES:
            retired = {place.rpartition("/")[0] for place in retired_segments(self.lake, table)}
            for partition in partitions(self.lake / table):
                if partition in retired:
                    continue
                if begun >= most:
                    return begun
                where = f"{table}/{partition}"
                if (table, partition) in busy or self._not_before.get(where, 0.0) > self._clock():
                    continue
                with self._reporting(where):
                    begun += self._begin(table, partition)
        return begun

    def begin_apart(self, most: int) -> int:
        """As `begin`, in a process of its own: what merging takes of memory is given back when it ends.

        For a process that merges nothing itself: a fork has none of the threads of Arrow and DuckDB. Raises StoreError
        when that process was killed.
        """
        reading, writing = os.pipe()
        parent, child = os.getpid(), os.fork()
        if child == 0:
            code = 1
            try:
                stop_with_parent(parent)
                begun = self.begin(most)
                with open(writing, "wb") as file:
                    pickle.dump((begun, self._memory()), file)
                code = 0
            except BaseException:  # noqa: BLE001 — nothing may go on into the parent's code
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(writing)
        with open(reading, "rb") as file:
            answer = file.read()
        status = os.waitpid(child, 0)[1]
        if status or not answer:  # told to end, it ends without an error and without an answer
            how = f"was killed by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "failed"
            raise StoreError(f"lake {self.lake}: merging {how}; trying again later")
        begun, memory = pickle.loads(answer)  # noqa: S301 — written by ourselves, above
        self.__dict__.update(memory)
        return int(begun)

    def _memory(self) -> dict[str, Any]:
        """What one round tells the next."""
        names = ("done", "_left_alone", "_settled", "_not_before", "_possible")
        return {name: getattr(self, name) for name in names}

    @contextlib.contextmanager
    def _reporting(self, what: str) -> Iterator[None]:
        try:
            yield
        except _PROBLEMS as error:
            self._not_before[what] = self._clock() + RETRY_S
            self._report(f"lake {self.lake}: cannot merge {what}: {error}; trying again later")

    def _old(self, name: str) -> bool:
        """True when the job's step is `grace_s` old."""
        return self._clock() - (self._root / name).stat().st_mtime >= self.plan.grace_s

    def _note(self, name: str) -> dict[str, Any]:
        for suffix in (OPEN, SWAPPED):
            with contextlib.suppress(FileNotFoundError):
                return dict(json.loads((self._root / (name + suffix)).read_text()))
        return {"partition": ""}

    # --- step 1 and 2 --------------------------------------------------------------------------------------------

    def candidates(self, table: str, partition: str) -> list[str]:
        """Names of the segments of a directory that are to be merged, in the order of their first rows."""
        directory, now, hour = self.lake / table / partition, self._clock(), partition_hour(partition)
        if not hour:  # of another name, or of segments without rows
            return []
        try:
            changed = os.stat(directory).st_mtime_ns
        except FileNotFoundError:
            return []
        if self._settled.get(str(directory)) == changed:
            return []
        least, older_s = self.plan.least, self.plan.older_s
        if table in EAGER:
            least, older_s = min(least, EAGER[table][0]), min(older_s, EAGER[table][1])
        small = []
        for name in names_in(directory):
            path = f"{directory}/{name}"
            if SEGMENT_NAME.fullmatch(name) and path not in self._left_alone:
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(path)
                    if status.st_size < self.plan.small_bytes and now - status.st_mtime >= older_s:
                        small.append(name)
        over = now >= hour + HOUR_S + self.plan.older_s
        if len(small) < (2 if over else max(2, least)):
            if over and now - changed / 1e9 >= self.plan.older_s:
                self._settled[str(directory)] = changed
            return []
        return sorted(small, key=lambda name: (int(name.partition("-")[0]), name))

    def _begin(self, table: str, partition: str) -> bool:
        from analytics.merging import rows_of

        directory = self.lake / table / partition
        names, rows = [], {}
        for name in self.candidates(table, partition):
            count = rows_of(f"{directory}/{name}", table)
            if count is None:
                self._left_alone.add(f"{directory}/{name}")
            else:
                names.append(name)
                rows[name] = count
        job = f"{table}@{time.time_ns():x}"
        try:
            groups, marks = self._decide(job, directory, names)
            if not groups:
                return False
            self._prepare(job, table, partition, groups, rows, marks)
        except BaseException:
            self._delete(job)
            raise
        return True

    def _decide(self, job: str, directory: Path, names: list[str]) -> tuple[list[list[str]], list[str]]:
        """Which segments become one, and what the names of these tell. In a lake that ships, those that its spool has
        taken are kept apart from the others, and these are not taken meanwhile (see `analytics.ship.ledger`)."""
        if not ledger_id(self.lake):
            groups = [group for group in self._groups(directory, names) if len(group) > 1]
            return groups, [""] * len(groups)
        folder = directory.relative_to(self.lake)
        with deciding(self.lake):
            known = Taken(self.lake)
            free = [name for name in names if f"{folder}/{name}" not in known.about_to_be]
            shipped = {name for name in free if known.has(f"{folder}/{name}")}
            own = [[name for name in free if (name in shipped) == which] for which in (True, False)]
            parts = [[g for g in self._groups(directory, part) if len(g) > 1] for part in own]
            groups, marks = [*parts[0], *parts[1]], [f"-{known.id}"] * len(parts[0]) + [""] * len(parts[1])
            if parts[1]:
                (self._root / job).mkdir()
                places = [f"{folder}/{name}" for group in parts[1] for name in group]
                (self._root / job / UNTAKEN).write_text(json.dumps(places))
        return groups, marks

    def _groups(self, directory: Path, names: list[str]) -> Iterator[list[str]]:
        """The names cut so that each group makes a file of about `target_bytes`."""
        group: list[str] = []
        size = 0
        for name in names:
            group.append(name)
            size += os.stat(directory / name).st_size
            if size >= self.plan.target_bytes:
                yield group
                group, size = [], 0
        yield group

    def _prepare(
        self, job: str, table: str, partition: str, groups: list[list[str]], rows: dict[str, int], marks: list[str]
    ) -> None:
        """Write everything that the job needs, then open it."""
        from analytics.merging import merge

        directory, home = self.lake / table / partition, self._root / job
        kept, following = home / KEPT / partition, home / NEXT
        kept.mkdir(parents=True)
        following.mkdir()
        os.chmod(following, os.stat(directory).st_mode & 0o7777)
        merged = []
        for number, (group, mark) in enumerate(zip(groups, marks, strict=True)):
            start = group[0].partition("-")[0]
            name = f"{start}-m{len(group)}-{job.rpartition('@')[2]}{number:03d}{mark}{SUFFIX}"
            paths = [f"{directory}/{n}" for n in group]
            times = max(os.stat(p).st_mtime for p in paths)
            found = merge(paths, following / name, table)
            if found != sum(rows[n] for n in group):
                raise ValueError(f"{found} rows of {sum(rows[n] for n in group)} arrived")
            os.utime(following / name, (times, times))  # no row is newer than that, see `analytics.segments`
            _sync(following / name)
            merged.append(name)
            for n in group:
                os.link(directory / n, kept / n)
            self.done.segments += len(group)
            self.done.merged += 1
            self.done.rows += found
            self.done.bytes_read += sum(os.stat(p).st_size for p in paths)
        for path in (kept, following, home, self._root):
            _sync(path)
        note = {"partition": partition, "merged": merged, "inode": os.stat(directory).st_ino}
        written = home / "note"
        written.write_text(json.dumps(note))
        _sync(written)
        os.rename(written, self._root / (job + OPEN))
        _sync(self._root)

    # --- step 3 to 5 ---------------------------------------------------------------------------------------------

    def _swap(self, job: str) -> None:
        if not self._old(job + OPEN):
            return
        note = self._note(job)
        table, partition = job.partition("@")[0], note["partition"]
        directory, following = self.lake / table / partition, self._root / job / NEXT
        originals, merged = set(names_in(self._root / job / KEPT / partition)), set(note["merged"])
        if not directory.is_dir():  # deleted by the operator: so are its rows
            self._report(f"{table}/{partition} has gone before it was merged")
        else:
            present: set[str] = set()
            try:
                with swapping(directory.parent.parent):
                    if os.stat(directory).st_ino == note["inode"]:  # else done before a crash
                        present = set(names_in(directory)) - originals
                        for name in set(names_in(following)) - merged - present:
                            os.unlink(following / name)
                        _link_missing(directory, following, present)
                        exchange(directory, following)
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise
                self._possible = False
                self._report(f"lake {self.lake}: segments cannot be merged on this file system: {error.strerror}")
                self._close(job)
                return
            # What a writer without `engine.swap` put there between our last look and the swap.
            late = set(names_in(following)) - originals - merged - present
            _link_missing(following, directory, late)
            _sync(directory)
            _sync(directory.parent)
        self._close(job)

    def _close(self, job: str) -> None:
        """From now on queries read the directory again."""
        os.utime(self._root / (job + OPEN))
        os.rename(self._root / (job + OPEN), self._root / (job + SWAPPED))
        _sync(self._root)

    def _finish(self, job: str) -> None:
        if self._old(job + SWAPPED):
            self._delete(job)
            (self._root / (job + SWAPPED)).unlink()

    def _delete(self, job: str) -> None:
        shutil.rmtree(self._root / job, ignore_errors=True)


def _link_missing(source: Path, target: Path, names: set[str]) -> None:
    """Give files of one directory a second name in another that has none of that name."""
    for name in names:
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            os.link(source / name, target / name)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def swapping(sensor: Path) -> Iterator[None]:
    """No segment of the sensor begins or is published meanwhile (see `engine.swap`)."""
    fd = os.open(sensor, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
