"""Brings what the spool holds to its destination, tells how that goes, and keeps the destination within its limits.

Two threads: one takes what is new in the lake and keeps the spool within its limit, each second, whatever the
destination does; one ships. State for `engine status` is in `<lake>/.ship/state.json`; the destination gets the same
as `.fleet/lakes/<id>.json`, from which readers also learn which dates have something new.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from analytics.ship.destination import Destination, Item, Refused
from analytics.ship.ledger import SHIP, Ledger, replace
from analytics.ship.names import LAKES, OWNERS, matches, shipped
from analytics.ship.remote_retention import RemoteRetention
from analytics.ship.spool import Spool, Waiting
from analytics.ship.state import State, left
from engine import __version__
from engine.alert_row import OPERATORS
from engine.errors import EngineError, StoreError
from engine.ship_config import ShipConfig
from engine.tables import TABLES

STATE: Final = "state.json"
TAKE_S: Final = 1.0
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
OWN_S: Final = 60.0  # how often it is looked whether the names are still ours
RETAIN_S: Final = 600.0
_GIB: Final = 1 << 30
_DATE: Final = re.compile(r"date=(\d{4}-\d\d-\d\d)")


class Shipper:
    """Ships one lake. Use inside `with`: one process at a time.

    Args:
        report: told in a line what is wrong, once, and when it is well again.

    Raises StoreError when another process ships this lake, or it cannot be written.
    """

    def __init__(self, lake: Path, config: ShipConfig, report: Callable[[str], None]) -> None:
        unknown = [table for table in config.tables if table not in TABLES]
        if unknown:
            raise StoreError(f"ship.tables: there is no table {unknown[0]!r}; known are {', '.join(TABLES)}")
        self.lake = lake
        self.config = config
        self._report = report
        self._destination = Destination(config.url)
        self._lock = -1
        self._mutex = threading.Lock()
        self._retention = RemoteRetention(self._destination, config)
        self._owned: set[str] = set()
        self._own_at = self._retain_at = self._told_at = 0.0
        self._stopping = threading.Event()

    def __enter__(self) -> Shipper:
        folder = self.lake / SHIP
        try:
            folder.mkdir(exist_ok=True)
            (folder / "spool").mkdir(exist_ok=True)
            self._lock = _lock(folder / "shipping", self.lake)
            self.ledger = Ledger(self.lake, self._destination.url)
            self.spool = Spool(self.lake, self.config.tables, self.ledger, self._report)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise StoreError(f"lake {self.lake}: cannot prepare to ship: {reason}") from None
        self.state = State(**left(folder / STATE, self.ledger.id)) if not self.ledger.began else self._new_state()
        self.state.version, self.state.url = __version__, self._destination.url
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._lock >= 0:
            os.close(self._lock)

    def _new_state(self) -> State:
        return State(self.ledger.id, self._destination.url)

    # --- the thread that takes ------------------------------------------------------------------------------------

    def take(self) -> None:
        """Take what is new, and give up what is beyond the limit. Raises StoreError."""
        self.spool.take()
        free = shutil.disk_usage(self.lake).free
        held = sum(w.size for w in self.spool.waiting() if w.own)
        # Never more than half of what would be free without it: the capture goes first.
        most = min(int(self.config.spool_gib * _GIB), (free + held) // 2)
        if held <= most:
            return
        segments, rows, size = self.spool.limit(most)
        if segments:
            with self._mutex:
                first = not self.state.lost_segments
                self.state.lost_segments += segments
                self.state.lost_rows += rows
                self.state.lost_bytes += size
                self._keep_state()
            if first:
                self._report(f"the spool is full at {most / _GIB:,.3g} GiB: the oldest segments are not shipped; "
                             "`engine status` counts them")  # fmt: skip

    def run(self) -> None:
        """Until `stop`."""
        thread = threading.Thread(target=self._ship_on, name="ship", daemon=True)
        thread.start()
        said = ""
        while not self._stopping.wait(TAKE_S):
            try:
                self.take()
                said = ""
            except (EngineError, OSError) as error:
                if str(error) != said:
                    said = str(error)
                    self._report(said)
            if not thread.is_alive():
                raise StoreError("the thread that ships has ended")

    def stop(self) -> None:
        """Have `run` end."""
        self._stopping.set()

    # --- the thread that ships ------------------------------------------------------------------------------------

    def _ship_on(self) -> None:
        pause, said = FIRST_PAUSE_S, ""
        while not self._stopping.is_set():
            try:
                self.round()
                if said:
                    self._report(f"{self._destination.url}: shipping goes on")
                pause, said = FIRST_PAUSE_S, ""
                wait = self.config.every_s
            except (EngineError, OSError) as error:
                text = str(error)
                with self._mutex:
                    self.state.failures += 1
                    self.state.problem = text
                if text != said:
                    said = text
                    self._report(f"{text}; capture goes on, segments wait in the spool")
                wait, pause = pause * random.uniform(0.5, 1), min(2 * pause, LONGEST_PAUSE_S)  # noqa: S311
            with contextlib.suppress(OSError):
                self._measure()
                with self._mutex:
                    self._keep_state()
            self._stopping.wait(wait)

    def round(self) -> int:
        """Ship what waits. Returns how many objects arrived. Raises StoreError at the first that does not."""
        self._own(time.monotonic() >= self._own_at)
        arrived = 0
        try:
            for waiting in self.spool.ready():
                if self._stopping.is_set():
                    break
                arrived += self._ship(waiting)
                if time.monotonic() - self._told_at >= self.config.every_s:
                    self._tell()
        finally:
            with self._mutex:
                self._keep_state()
        with self._mutex:
            self.state.problem = ""
        self._tell()
        if (self.config.keep_days or self.config.keep_gib) and time.monotonic() >= self._retain_at:
            self._retain_at = time.monotonic() + RETAIN_S
            self._retain()
        return arrived

    def _ship(self, waiting: Waiting) -> bool:
        self._own_sensor(waiting.place)
        with self.spool.on_its_way(waiting) as data:
            if data is None:
                return False
            promised = shipped(waiting.place.rpartition("/")[2])
            if promised is None or not matches(data, promised):
                with contextlib.suppress(OSError):
                    os.rename(waiting.path, self.lake / SHIP / ("damaged-" + os.path.basename(waiting.path)))
                with self._mutex:
                    self.state.lost_segments += 1
                    self.state.lost_rows += promised.rows if promised else 0
                    self.state.lost_bytes += waiting.size
                self._report(f"{waiting.path}: it changed on this disk and is not shipped; kept in {self.lake / SHIP}")
                return False
            self._destination.put(data, waiting.place)
            found = self._destination.size(waiting.place)
            if found != len(data):
                raise StoreError(f"{self._destination.url}/{waiting.place}: {found or 0} of {len(data)} bytes arrived")
            with self._mutex:
                self.state.shipped_objects += 1
                self.state.shipped_rows += promised.rows
                self.state.shipped_bytes += len(data)
                self.state.last_arrival = time.time()
                self._touched(waiting.place)
            self.spool.arrived(waiting)
        return True

    def _touched(self, place: str) -> None:
        if match := _DATE.search(place):
            self.state.dates[match[1]] = self.state.dates.get(match[1], 0) + 1

    # --- whose names they are -------------------------------------------------------------------------------------

    def _own_sensor(self, place: str) -> None:
        """Make sure that no other lake ships as this sensor."""
        sensor = place.split("/")[1].removeprefix("sensor=")
        if sensor == OPERATORS or sensor in self._owned:
            return
        self._destination.check_format(prepare=True)
        mine = f"{sensor}@{self.ledger.id}"
        known = {item.place.rpartition("/")[2]: item for item in self._destination.list(OWNERS)}
        if mine not in known:
            text = json.dumps({"host": os.uname().nodename, "since": time.time()})
            self._destination.put(text.encode(), f"{OWNERS}/{mine}")
            known = {item.place.rpartition("/")[2]: item for item in self._destination.list(OWNERS)}
        if _first_of(sensor, known) != mine:
            self._destination.delete(f"{OWNERS}/{mine}")
            other = _first_of(sensor, known)
            raise Refused(
                f"{self._destination.url}: another lake ships as sensor {sensor} already; give --sensor NAME to one "
                f"of the two, or delete {OWNERS}/{other} there when it has gone for good"
            )
        self._owned.add(sensor)
        with self._mutex:
            self.state.sensors = sorted(self._owned)

    def _own(self, look: bool) -> None:
        if look:
            self._owned.clear()
            self._destination.check_format(prepare=True)
            self._own_at = time.monotonic() + OWN_S

    # --- what is told ---------------------------------------------------------------------------------------------

    def _measure(self) -> None:
        waiting = self.spool.waiting()
        now = time.time()
        with self._mutex:
            self.state.at = now
            self.state.waiting_segments = len(waiting)
            self.state.waiting_bytes = sum(w.size for w in waiting)
            self.state.lag_s = round(max(0.0, now - waiting[0].since), 1) if waiting else 0.0
            self.state.refused_segments = max(self.state.refused_segments, self.spool.refused)

    def _tell(self) -> None:
        """Have readers learn of what arrived."""
        self._measure()
        with self._mutex:
            text = json.dumps(self.state.clear_of())
            self._keep_state()
        self._destination.put(text.encode(), f"{LAKES}/{self.ledger.id}.json")
        self._told_at = time.monotonic()

    def _keep_state(self) -> None:
        replace(self.lake / SHIP / STATE, json.dumps(self.state.clear_of()))

    def _retain(self) -> None:
        item = next((i for i in self._destination.list(LAKES) if self.ledger.id in i.place), None)
        if item is None:
            return
        gone = self._retention.round(self.state.sensors, self.ledger.id, item.written)
        if gone:
            with self._mutex:
                for place in gone:
                    self._touched(place)
            self._tell()


def _first_of(sensor: str, known: dict[str, Item]) -> str:
    """Who was first to say that it ships as the sensor; by the store's clock, then by id."""
    claims = [(item.written, name) for name, item in known.items() if name.rpartition("@")[0] == sensor]
    return min(claims)[1] if claims else ""


def _lock(path: Path, lake: Path) -> int:
    import fcntl

    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise StoreError(f"lake {lake}: another process ships its segments; it needs no help") from None
    return fd
