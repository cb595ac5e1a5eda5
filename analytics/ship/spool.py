"""What a lake has published and its destination does not have yet: `<lake>/.ship/`.

    spool/<table>/<partition>/<name>    second names (hard links) of segments that were taken: merging and retention
                                        of the lake do not touch them
    out/<table>/<partition>/<name>      files as they are shipped, several small segments in one
    out/.../<name>.members              which of the spool such a file replaces; deleted when they are

Each step is one rename or link, and is repeated after a crash without a segment being lost or shipped twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from analytics.listing import SUFFIX, names_in, partitions
from analytics.segments import SEGMENT_NAME, SETTLE_NS
from analytics.ship.ledger import SHIP, Ledger, being_merged, deciding, intent
from analytics.ship.names import SERVED, name_for, shipped
from engine.segment_file import make_directories, store_error, sync
from engine.tables import TABLES

SMALL: Final = 4 << 20  # larger segments go as they are
TARGET: Final = 32 << 20
MEMBERS: Final = ".members"
REFUSED: Final = "refused"


@dataclass(frozen=True, slots=True, order=True)
class Waiting:
    """A file of the spool: seconds since the epoch when its oldest rows were published; path; place at the
    destination, or in the lake; bytes; whether the lake itself does not have it any more."""

    since: float
    path: str
    place: str
    size: int
    own: bool


class Spool:
    """The spool of one lake. `take` and `limit` may be called while another thread is in `bundles` or ships.

    Args:
        tables: what is shipped; empty for all.
        report: told in a line what is wrong with a segment.
    """

    def __init__(self, lake: Path, tables: Sequence[str], ledger: Ledger, report: Callable[[str], None]) -> None:
        self.lake = lake
        self.ledger = ledger
        self.refused = 0  # segments that cannot be read, here
        self._tables = tuple(tables) or tuple(TABLES)
        self._report = report
        self._folder = lake / SHIP
        self._mutex = threading.Lock()
        self._shipping = ""  # path of the file that is on its way
        self._settled: dict[str, int] = {}  # directories all of whose segments are taken, and their modification time
        if ledger.began:
            shutil.rmtree(self._folder / "spool", ignore_errors=True)
            shutil.rmtree(self._folder / "out", ignore_errors=True)
        self._recover()
        with deciding(lake):
            if unfinished := intent(lake):
                self._link(unfinished)

    # --- taking ---------------------------------------------------------------------------------------------------

    def take(self) -> int:
        """Give every segment that is new in the lake its second name. Returns how many. Raises StoreError."""
        try:
            with deciding(self.lake), self._mutex:
                merging, new, settled = being_merged(self.lake), list[str](), dict[str, int]()
                for table in self._tables:
                    for partition in partitions(self.lake / table):
                        if SERVED.fullmatch(partition) and not partition.startswith("sensor=none/"):
                            new += self._new(f"{table}/{partition}", merging, settled)
                if new:
                    self._link(new)
                self._settled |= settled
                return len(new)
        except OSError as error:
            raise store_error(self._folder, error) from None

    def _new(self, folder: str, merging: set[str], settled: dict[str, int]) -> list[str]:
        """Segments of a directory that were not taken, as table/partition/name."""
        directory = f"{self.lake}/{folder}"
        try:
            changed = os.stat(directory).st_mtime_ns
        except FileNotFoundError:
            return []
        if self._settled.get(folder) == changed:
            return []
        names = [n for n in names_in(directory) if n.endswith(SUFFIX) and SEGMENT_NAME.fullmatch(n)]
        new = [place for name in names if not self.ledger.has(place := f"{folder}/{name}")]
        if not merging.intersection(new) and changed + SETTLE_NS < time.time_ns():
            settled[folder] = changed
        return [place for place in new if place not in merging]

    def _link(self, places: list[str]) -> None:
        self.ledger.begin(places)
        done, folders = [], set[Path]()
        for place in places:
            target = self._folder / "spool" / place
            make_directories(target.parent)
            try:
                os.link(self.lake / place, target)
            except FileNotFoundError:  # deleted, as too old, since it was listed
                continue
            except FileExistsError:  # before we died
                pass
            done.append(place)
            folders.add(target.parent)
        for folder in folders:
            sync(str(folder))
        self.ledger.add(done)

    # --- what waits -----------------------------------------------------------------------------------------------

    def waiting(self) -> list[Waiting]:
        """Everything that is to be shipped, the oldest first."""
        return sorted([*self._files("out"), *self._files("spool")])

    def _files(self, part: str, only: str = "", hour: str = "") -> Iterator[Waiting]:
        base = self._folder / part
        for table in [only] if only else names_in(base):
            for partition in [hour] if hour else partitions(base / table):
                for name in names_in(base / table / partition):
                    if name.endswith(SUFFIX):
                        place = f"{table}/{partition}/{name}"
                        with contextlib.suppress(FileNotFoundError):
                            status = os.stat(base / place)
                            yield Waiting(
                                status.st_mtime, f"{base}/{place}", place, status.st_size, status.st_nlink == 1
                            )

    def limit(self, most: int) -> tuple[int, int, int]:
        """Give up the oldest of what waits until `most` bytes are left. Returns segments, rows and bytes lost.

        What the lake itself still holds takes no room here, and is neither counted nor given up.
        """
        with self._mutex:
            files = [w for w in self.waiting() if w.own and w.path != self._shipping]
            over, lost, rows, size = sum(w.size for w in files) - most, 0, 0, 0
            for waiting in files:
                if over <= size:
                    break
                rows += _rows(waiting.path)
                os.unlink(waiting.path)
                lost += 1
                size += waiting.size
            return lost, rows, size

    # --- as it is shipped -----------------------------------------------------------------------------------------

    def ready(self) -> Iterator[Waiting]:
        """Files for shipping, made as they are asked for, the oldest hour first. Raises StoreError."""
        yield from sorted(self._files("out"))
        base = self._folder / "spool"
        places = [(p.partition("/")[2], p, table) for table in names_in(base) for p in partitions(base / table)]
        for _, partition, table in sorted(places):
            try:
                with self._mutex:
                    self._bundle(table, partition)
            except OSError as error:
                raise store_error(self._folder, error) from None
            yield from sorted(self._files("out", table, partition))

    def _bundle(self, table: str, partition: str) -> None:
        from analytics.merging import rows_of

        folder, out = self._folder / "spool" / table / partition, self._folder / "out" / table / partition
        names = [name for name in names_in(folder) if name.endswith(SUFFIX)]
        if not names:
            for empty in (folder, folder.parent, out, out.parent):
                with contextlib.suppress(OSError):
                    os.rmdir(empty)
            return
        make_directories(out)
        group, size = list[str](), 0
        for name in sorted(names, key=lambda n: (int(n.partition("-")[0]), n)):
            rows, found = rows_of(str(folder / name), table), (folder / name).stat().st_size
            if rows == 0:
                os.unlink(folder / name)
            elif rows is None or found >= SMALL:
                self._alone(table, folder / name, out)
            else:
                group.append(name)
                size += found
                if size >= TARGET:
                    self._together(table, folder, out, group)
                    group, size = [], 0
        self._together(table, folder, out, group)

    def _alone(self, table: str, path: Path, out: Path) -> None:
        try:
            start, end, rows = span_of(path, table)
        except ValueError as error:
            self.refused += 1
            home = self._folder / REFUSED
            make_directories(home)
            os.rename(path, home / f"{table}-{path.name}")
            self._report(f"segment {table}/{path.name} cannot be read and is not shipped: {error}; kept in {home}")
            return
        os.rename(path, out / name_for(path, start, end, rows))
        sync(str(out))

    def _together(self, table: str, folder: Path, out: Path, group: list[str]) -> None:
        from analytics.merging import merge

        if len(group) < 2:
            for name in group:
                self._alone(table, folder / name, out)
            return
        paths = [str(folder / name) for name in group]
        times = min(os.stat(path).st_mtime for path in paths)
        partial = out / ".bundle.inprogress"
        try:
            merge(paths, partial, table)
            start, end, rows = span_of(partial, table)
        except ValueError:  # damaged inside: find out which, one by one
            for name in group:
                self._alone(table, folder / name, out)
            return
        final = out / name_for(partial, start, end, rows)
        os.utime(partial, (times, times))
        sync(str(partial))
        members = Path(f"{final}{MEMBERS}")
        members.write_text(json.dumps(paths))
        sync(str(members))
        os.rename(partial, final)
        sync(str(out))
        _drop_members(members)

    @contextlib.contextmanager
    def on_its_way(self, waiting: Waiting) -> Iterator[bytes | None]:
        """The bytes of a file that is being shipped, None when it was given up. The limit leaves it alone meanwhile."""
        with self._mutex:
            self._shipping = waiting.path
            try:
                data: bytes | None = Path(waiting.path).read_bytes()
            except FileNotFoundError:
                data = None
        try:
            yield data
        finally:
            with self._mutex:
                self._shipping = ""

    def arrived(self, waiting: Waiting) -> None:
        """It is at its destination."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(waiting.path)

    def _recover(self) -> None:
        """Finish, or undo, what a process that died had begun."""
        for folder, _, names in os.walk(self._folder / "out"):
            for name in names:
                path = Path(folder) / name
                if name.endswith(".inprogress"):
                    path.unlink()
                elif name.endswith(MEMBERS):
                    if path.with_name(name.removesuffix(MEMBERS)).exists():
                        _drop_members(path)
                    else:  # it was not complete; or it has been shipped, and then its members had gone before
                        path.unlink()


def _drop_members(members: Path) -> None:
    for path in json.loads(members.read_text()):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        folder = os.path.dirname(path)
    sync(folder)
    members.unlink()


def _rows(path: str) -> int:
    import pyarrow.parquet as pq

    promised = shipped(os.path.basename(path))
    if promised is not None:
        return promised.rows
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, ValueError):
        return 0


def span_of(path: Path, table: str) -> tuple[int, int, int]:
    """First and last time in microseconds, and rows. Raises ValueError when it is no segment of this table."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from analytics.merging import time_column

    try:
        column: Any = pq.read_table(path, columns=[time_column(table)], partitioning=None, use_threads=False).column(0)
        times = pc.min_max(column.cast(pa.int64())).as_py()
    except (pa.ArrowException, OSError, ValueError, IndexError) as error:
        raise ValueError(str(error).partition("\n")[0][:200]) from None
    return int(times["min"] or 0), int(times["max"] or 0), len(column)
