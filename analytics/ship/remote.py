"""A lake in an object store, as DuckDB reads it: which segments there are, and their bytes.

Listing costs a request per thousand objects, so it is done once for each table. Afterwards only those dates are listed
again of which a sensor says that something came or went (`.fleet/lakes/*.json`, looked at every LOOK_S).
Objects never change, so what was read of one is kept: small ones whole, of large ones blocks of 1 MiB, at most
CACHE_BYTES of all in a process.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import threading
import time
from collections import OrderedDict
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from fsspec import AbstractFileSystem

from analytics.listing import RETIRED
from analytics.segments import SEGMENT_NAME
from analytics.ship.destination import Destination, Item
from analytics.ship.names import LAKES, shipped
from engine.alert_row import OPERATORS
from engine.errors import StoreError
from engine.log import report
from engine.tables import TABLES

PROTOCOL: Final = "packetlake"
LOOK_S: Final = 2.0
ALL_AGAIN_S: Final = 60.0  # for objects that were not shipped but copied there
SETTLE_S: Final = 5.0  # an object written so recently may be written again within its time's grain
BLOCK: Final = 1 << 20
CACHE_BYTES: Final = 256 << 20
_PLACE: Final = re.compile(r"\w+/(sensor=[^/]+)/date=(\d{4}-\d\d-\d\d)/hour=\d\d/([^/]+)")


@cache
def remote_lake(url: str) -> RemoteLake:
    """The lake at an s3:// URL, one for all connections of this process."""
    return RemoteLake(url)


class RemoteLake:
    """What is in a lake. Thread-safe. Methods raise StoreError."""

    def __init__(self, url: str) -> None:
        self.destination = Destination(url)
        self.prefix = f"{PROTOCOL}://{url.removeprefix('s3://').rstrip('/')}/"
        self.files = LakeFiles(self)
        self._mutex = threading.RLock()
        self._looked = float("-inf")
        self._states: dict[str, dict[str, Any]] = {}  # place in .fleet/lakes: what it says
        self._read_at: dict[str, float] = {}  # and when it was written, when that has settled
        self._notes: dict[tuple[str, float, int], frozenset[str]] = {}  # a compaction's note changes what it names
        self._tables: dict[str, _Table] = {}
        self._warned: set[str] = set()
        self.sizes: dict[str, int] = {}

    def check(self) -> None:
        """Raises StoreError, one line, when it cannot be read or is no lake."""
        self.destination.check_format(prepare=False)
        with self._mutex:
            self._look()
            if self._states or any(self.destination.list(table) for table in ("capture_stats", "packets")):
                return
        raise StoreError(f"{self.destination.url} is not a lake: no sensor has shipped there; see `engine ship`")

    def segments(self, table: str) -> list[str]:
        """What a query that begins now reads, as names for DuckDB."""
        with self._mutex:
            self._look()
            known = self._tables.get(table)
            if known is None:
                known = self._tables[table] = _Table()
            self._list(table, known)
            gone = set[str]().union(*(self._notes[n] for n in self._notes if n[0].startswith(f"{RETIRED}/{table}@")))
            return [self.prefix + place for place in known.places() if place.partition("/")[2] not in gone]

    def states(self) -> list[dict[str, Any]]:
        """What each lake that ships there said last of itself; `written` is when, by the store's clock."""
        with self._mutex:
            self._look()
            return list(self._states.values())

    # --- listing --------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        if time.monotonic() - self._looked < LOOK_S:
            return
        items = self.destination.list(LAKES)
        for item in items:
            if self._read_at.get(item.place) == item.written:
                continue
            with contextlib.suppress(ValueError, RecursionError):
                found = json.loads(self.destination.get(item.place) or b"")
                if isinstance(found, dict) and isinstance(found.get("dates"), dict):
                    self._states[item.place] = found | {"written": item.written}
            if time.time() - item.written > SETTLE_S:
                self._read_at[item.place] = item.written
        notes = [(item.place, item.written, item.size) for item in self.destination.list(RETIRED)]
        self._notes = {note: self._notes.get(note) or self._note(note[0]) for note in notes}
        self._looked = time.monotonic()

    def _note(self, place: str) -> frozenset[str]:
        with contextlib.suppress(ValueError, TypeError):
            return frozenset(json.loads(self.destination.get(place) or b"[]"))
        return frozenset()

    def _list(self, table: str, known: _Table) -> None:
        now = {(place, date): n for place, state in self._states.items() for date, n in state["dates"].items()}
        if known.never or (not now and time.monotonic() - known.listed > ALL_AGAIN_S):
            known.hours = {}
            known.add(self._good(self.destination.list(table)))
            known.listed, known.never = time.monotonic(), False
        else:
            for place, date in [key for key, n in now.items() if known.seen.get(key) != n]:
                state = self._states[place]
                for sensor in (*state.get("sensors", ()), *state.get("compacted", ()), OPERATORS):
                    where = f"{table}/sensor={sensor}/date={date}"
                    known.hours.pop((f"sensor={sensor}", date), None)
                    known.add(self._good(self.destination.list(where)))
        known.seen = now

    def _good(self, items: list[Item]) -> list[Item]:
        """Those that are whole; of the others it is said, once."""
        good = []
        for item in items:
            name = item.place.rpartition("/")[2]
            promised = shipped(name)
            if promised is not None and promised.size != item.size:
                if item.place not in self._warned:
                    self._warned.add(item.place)
                    report(
                        "warning",
                        f"{self.destination.url}/{item.place} has {item.size:,} of {promised.size:,} bytes and is "
                        f"left out, with its {promised.rows:,} rows; delete it, or bring it again",
                    )
            elif SEGMENT_NAME.fullmatch(name):
                good.append(item)
                self.sizes[item.place] = item.size
        return good


class _Table:
    """What is known of a table's objects."""

    def __init__(self) -> None:
        self.never = True
        self.listed = 0.0
        self.seen: dict[tuple[str, str], int] = {}
        self.hours: dict[tuple[str, str], list[str]] = {}  # by sensor and date

    def add(self, items: list[Item]) -> None:
        for item in items:
            if match := _PLACE.fullmatch(item.place):
                self.hours.setdefault((match[1], match[2]), []).append(item.place)

    def places(self) -> list[str]:
        return [place for _, places in sorted(self.hours.items()) for place in sorted(places)]


class LakeFiles(AbstractFileSystem):  # type: ignore[misc]
    """What DuckDB asks of a file system; it reads only, and only what was listed."""

    protocol = PROTOCOL
    cachable = False

    def __init__(self, lake: RemoteLake) -> None:
        super().__init__()
        self._lake = lake

    def _place(self, path: str) -> str:
        return path if path.startswith(tuple(TABLES)) else path.partition("://")[2][len(self._cut()) :]

    def _cut(self) -> str:
        return self._lake.prefix.partition("://")[2]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        place = self._place(path)
        if place not in self._lake.sizes:
            raise FileNotFoundError(path)
        return {"name": path, "size": self._lake.sizes[place], "type": "file"}

    def exists(self, path: str, **_: Any) -> bool:
        return self._place(path) in self._lake.sizes

    def glob(self, path: str, **_: Any) -> list[str]:
        return [path] if self.exists(path) else []

    def modified(self, path: str) -> datetime:
        """Objects never change."""
        return datetime(2000, 1, 1, tzinfo=UTC)

    def open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        if "w" in mode or "a" in mode or "+" in mode:
            raise PermissionError(f"{path}: a remote lake is only read here")
        place = self._place(path)
        if place not in self._lake.sizes:
            raise FileNotFoundError(path)
        return _Reader(self._lake.destination, place, self._lake.sizes[place])


class _Blocks:
    """What was read last, of all objects. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._blocks: OrderedDict[tuple[str, str, int], bytes] = OrderedDict()
        self._mutex = threading.Lock()

    def get(self, key: tuple[str, str, int]) -> bytes | None:
        with self._mutex:
            if key in self._blocks:
                self._blocks.move_to_end(key)
            return self._blocks.get(key)

    def put(self, key: tuple[str, str, int], data: bytes) -> None:
        with self._mutex:
            if key not in self._blocks:
                self._held += len(data)
            self._blocks[key] = data
            while self._held > self._most:
                self._held -= len(self._blocks.popitem(last=False)[1])


_BLOCKS: Final = _Blocks(CACHE_BYTES)


class _Reader(io.RawIOBase):
    """An object as a file. DuckDB's threads share one, each seeks and then reads: each has a position of its own."""

    def __init__(self, destination: Destination, place: str, size: int) -> None:
        super().__init__()
        self._destination, self._place, self.size = destination, place, size
        self._file: Any = None
        self._own = threading.local()
        self._mutex = threading.Lock()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._own.at = offset + (0 if whence == io.SEEK_SET else self.tell() if whence == io.SEEK_CUR else self.size)
        return int(self._own.at)

    def tell(self) -> int:
        return int(getattr(self._own, "at", 0))

    def read(self, count: int = -1) -> bytes:
        at = self.tell()
        end = self.size if count is None or count < 0 else min(self.size, at + count)
        parts = []
        while at < end:
            number, skip = divmod(at, BLOCK)
            part = self._block(number)[skip : skip + end - at]
            if not part:
                raise OSError(f"{self._destination.url}/{self._place} ends before its {self.size:,} bytes")
            parts.append(part)
            at += len(part)
        self._own.at = at
        return b"".join(parts)

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _block(self, number: int) -> bytes:
        key = (self._destination.url, self._place, number)
        data = _BLOCKS.get(key)
        if data is None:
            if self.size <= BLOCK:
                data = self._destination.get(self._place) or b""
            else:
                with self._mutex:
                    if self._file is None:
                        self._file = self._destination.open(self._place)
                data = bytes(self._file.read_at(BLOCK, number * BLOCK))
            _BLOCKS.put(key, data)
        return data

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        super().close()
