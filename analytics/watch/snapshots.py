"""One answer for all viewers: whoever asks the same at the same moment gets the same bytes, and the lake is asked once.

An answer is made by a worker thread while those who asked wait. It is given up after its time limit, or when nobody
waits any more. Finished answers are kept, compressed, until the range moves on or memory is needed for others.
"""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from analytics.watch.context import Stopped

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

LIMIT_S: Final = 5.0
WORKERS: Final = 3  # a slow question leaves room for the others
KEPT_BYTES: Final = 32 << 20
KEPT: Final = 512  # answers
MAX_WAITING: Final = 64  # different questions under way or queued
_POLL_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Encoded:
    """An answer as it is sent. `ms` and `cpu_ms`: what it cost when it was made."""

    body: bytes
    etag: str
    size: int
    ms: float
    cpu_ms: float


@dataclass(slots=True)
class Flight:
    """An answer under way."""

    waiting: int = 0
    done: threading.Event = field(default_factory=threading.Event)
    result: Encoded | None = None
    error: BaseException | None = None
    reason: str | None = None
    con: DuckDBPyConnection | None = None
    begun: float = 0.0

    def stop(self, reason: str) -> None:
        self.reason = self.reason or reason
        con = self.con
        if con is not None:
            con.interrupt()


class Snapshots:
    """The cache. Thread-safe."""

    def __init__(self, workers: int = WORKERS, limit_s: float = LIMIT_S) -> None:
        self.limit_s = limit_s
        self.made = 0  # how many answers were made, not found
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, Encoded] = OrderedDict()
        self._bytes = 0
        self._flights: dict[Hashable, Flight] = {}
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="watch")

    def get(
        self, key: Hashable, make: Callable[[Flight], bytes], alive: Callable[[], bool] = lambda: True,
        keep: Callable[[], bool] = lambda: True,
    ) -> Encoded:  # fmt: skip
        """The answer of this key, made by `make` if there is none. Raises what `make` raises, or Stopped.

        Args:
            alive: whether the one who asks still waits.
            keep: asked when the answer is there: whether later callers may have it.
        """
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
            flight = self._flights.get(key)
            if flight is None:
                if len(self._flights) >= MAX_WAITING:
                    raise Stopped("too many questions at once; ask again in a moment")
                flight = self._flights[key] = Flight()
                self._workers.submit(self._fly, key, flight, make, keep)
            flight.waiting += 1
        try:
            self._wait(flight, alive)
        finally:
            with self._lock:
                flight.waiting -= 1
                if not flight.waiting and not flight.done.is_set():
                    flight.stop("nobody waits for the answer")
                    if self._flights.get(key) is flight:  # who asks now wants one that is not given up
                        del self._flights[key]
        if flight.error is not None:
            raise flight.error
        if flight.result is None:
            raise Stopped(flight.reason or "the answer was given up")
        return flight.result

    def _wait(self, flight: Flight, alive: Callable[[], bool]) -> None:
        asked = time.monotonic()
        while not flight.done.wait(_POLL_S):
            now = time.monotonic()
            if flight.begun and now - flight.begun > self.limit_s:
                flight.stop(
                    f"the answer took longer than {self.limit_s:g} s; choose a shorter range or a narrower filter"
                )
            if now - asked > 3 * self.limit_s:
                raise Stopped("the dashboard is busy; ask again in a moment")
            if not alive():
                raise Stopped("nobody waits for the answer")

    def _fly(self, key: Hashable, flight: Flight, make: Callable[[Flight], bytes], keep: Callable[[], bool]) -> None:
        began, cpu = time.monotonic(), time.thread_time()
        flight.begun = began
        try:
            if flight.reason is None:
                text = make(flight)
                body = gzip.compress(text, 5, mtime=0)
                etag = hashlib.blake2b(text, digest_size=12).hexdigest()
                cost = ((time.monotonic() - began) * 1000, (time.thread_time() - cpu) * 1000)
                flight.result = Encoded(body, etag, len(text), *cost)
        except BaseException as error:  # noqa: BLE001 — it is raised in the threads that wait
            flight.error = error
        finally:
            flight.con = None
            with self._lock:
                self.made += 1
                if self._flights.get(key) is flight:
                    del self._flights[key]
                if flight.result is not None and keep():
                    self._keep(key, flight.result)
            flight.done.set()

    def _keep(self, key: Hashable, answer: Encoded) -> None:
        before = self._kept.pop(key, None)
        self._bytes += len(answer.body) - (len(before.body) if before else 0)
        self._kept[key] = answer
        while len(self._kept) > KEPT or self._bytes > KEPT_BYTES:
            self._bytes -= len(self._kept.popitem(last=False)[1].body)

    def close(self) -> None:
        with self._lock:
            for flight in self._flights.values():
                flight.stop("the dashboard ends")
        self._workers.shutdown(cancel_futures=True)
