"""SQL that somebody typed into a browser: confined to reading the lake, limited in time, memory and rows; stoppable.

Every query runs in a process (`analytics.watch.sql_worker`) that is killed at the limit, whatever DuckDB is doing: an
interrupt is seen between values only, and one regular expression over a long text may take minutes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from analytics.watch.context import Stopped
from analytics.watch.sql_worker import HEAD, IDLE_S, TOO_LARGE
from engine.errors import ConfigError, StoreError

LIMIT_S: Final = 30.0
EXPORT_S: Final = 120.0
START_S: Final = 60.0  # a machine that needs longer for a process has no time for a query
ROWS: Final = 10_000  # shown
AT_ONCE: Final = 2
SPARE: Final = 1  # processes kept without work: starting one takes 0.5 s of CPU
MAX_TEXT: Final = 100_000
_LOOK_MS: Final = 250  # how soon it is seen that nobody waits any more
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class SqlError(ConfigError):
    """SQL that is wrong or refused; `line` of it, from 1, where that is known."""

    def __init__(self, text: str, line: int | None) -> None:
        super().__init__(text)
        self.line = line


@dataclass(frozen=True, slots=True)
class Shown:
    """A result as JSON: {columns: [{name, type}], rows: [[...]], count, truncated, ms}."""

    body: bytes
    rows: int
    ms: float


class _Ended(Exception):  # noqa: N818 — names what happened
    """The process is no more."""


class _Worker:
    """A process for queries.

    A thread of its own starts it and waits for its end: the kernel ends a child when the thread that started it ends,
    and a thread that serves requests may.
    """

    def __init__(self, lake: Path) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._failed: OSError | None = None
        self._poll = select.poll()
        self._idle_since = time.monotonic()
        started = threading.Event()
        self.ended = threading.Event()
        threading.Thread(target=self._live, args=(lake, started), name="sql-worker", daemon=True).start()
        started.wait()
        if self._failed is not None:
            raise StoreError(f"no process for SQL: {self._failed.strerror}")

    def _live(self, lake: Path, started: threading.Event) -> None:
        command = [sys.executable, "-m", "analytics.watch.sql_worker", "--lake", str(lake)]
        folder = Path(tempfile.gettempdir()) / f"packetlake-sql-{secrets.token_hex(8)}"
        try:
            try:
                process = self._process = subprocess.Popen(
                    [*command, "--temporary", str(folder), "--with-parent", str(os.getpid())],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
                    # Arrow's own allocator takes a gigabyte of address space, which is counted here.
                    env=os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"},
                    start_new_session=True,  # Ctrl-C is the parent's to handle
                )  # fmt: skip
                self._poll.register(self._out, select.POLLIN)
            except OSError as error:
                self._failed = error
                return
            finally:
                started.set()
            process.wait()
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # a process that is killed tidies nothing up
        self.ended.set()

    @property
    def _out(self) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def send(self, request: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        left = memoryview(json.dumps(request).encode() + b"\n")
        try:
            while left:
                left = left[self._process.stdin.write(left) or 0 :]
        except OSError:
            raise _Ended from None

    def frame(self, look: Callable[[], None]) -> tuple[bytes, bytes]:
        """The next frame; `look` is called while it is waited for. Raises _Ended."""
        kind, size = HEAD.unpack(self._read(HEAD.size, look))
        return kind, self._read(size, look)

    def _read(self, size: int, look: Callable[[], None]) -> bytes:
        found = bytearray()
        while len(found) < size:
            look()
            if self._poll.poll(_LOOK_MS):
                part = os.read(self._out, size - len(found))
                if not part:
                    raise _Ended
                found += part
        return bytes(found)

    def kill(self) -> None:
        """At once, whatever it does."""
        if self._process is not None:
            self._process.kill()

    def rest(self) -> None:
        """It has nothing to do from now on."""
        self._idle_since = time.monotonic()

    def usable(self) -> bool:
        """Whether a request still finds it: it ends itself after IDLE_S."""
        return not self.ended.is_set() and time.monotonic() - self._idle_since < IDLE_S / 2

    def close(self) -> None:
        """End it, and its pipes: nobody reads from it any more."""
        self.kill()
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                pipe.close()

    def code(self) -> int:
        """How it ended."""
        self.ended.wait(5)
        return self._process.returncode if self._process is not None and self._process.returncode is not None else 1


@dataclass(slots=True)
class _Run:
    owner: str
    worker: _Worker | None = None
    reason: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def stop(self, reason: str) -> None:
        with self.lock:
            self.reason = self.reason or reason
            if self.worker is not None:
                self.worker.kill()

    def have(self, worker: _Worker | None) -> None:
        """From now on a stop ends this process, and a stop that came before does too."""
        with self.lock:
            self.worker = worker
            if worker is not None and self.reason is not None:
                worker.kill()


class SqlRunner:
    """Runs SQL for many people, AT_ONCE at a time. Thread-safe."""

    def __init__(self, lake: Path) -> None:
        self.lake = lake
        self._free = threading.BoundedSemaphore(AT_ONCE)
        self._lock = threading.Lock()
        self._runs: dict[str, _Run] = {}
        self._idle: list[_Worker] = []
        self._closed = False

    def warm(self) -> None:
        """Somebody will want a process soon."""
        with self._lock:
            if not self._runs:
                self._keep(None)

    def close(self) -> None:
        """End all processes; a query under way is one that was stopped."""
        with self._lock:
            self._closed = True
            runs, idle, self._idle = list(self._runs.values()), self._idle, []
        for run in runs:
            run.stop("the dashboard stops")
        for worker in idle:
            worker.close()

    def show(
        self, sql: str, owner: str, run_id: str | None = None, rows: int = ROWS,
        alive: Callable[[], bool] = lambda: True,
    ) -> Shown:  # fmt: skip
        """The result as JSON.

        Raises ConfigError for SQL that is refused or wrong, Stopped when it was stopped, StoreError.
        """
        parts: list[bytes] = []
        facts: dict[str, Any] = {}
        for part in self._run(sql, owner, "json", run_id, LIMIT_S, min(rows, ROWS), alive, facts):
            parts.append(part)  # noqa: PERF402 — a run that ends early is closed where it is known
        return Shown(b"".join(parts), facts["rows"], facts["ms"])

    def export(
        self, sql: str, owner: str, form: str, run_id: str | None = None, alive: Callable[[], bool] = lambda: True
    ) -> Generator[bytes, None, None]:
        """The result as a file of `analytics.watch.export.MEDIA`, part by part. Close it, or take all of it."""
        return self._run(sql, owner, form, run_id, EXPORT_S, ROWS, alive, {})

    def stop(self, run_id: str, owner: str | None) -> bool:
        """Stop a run of this owner (None: anybody's). Returns whether there was one."""
        with self._lock:
            run = self._runs.get(run_id)
        if run is None or (owner is not None and run.owner != owner):
            return False
        run.stop("the query was cancelled")
        return True

    def _run(
        self, sql: str, owner: str, form: str, run_id: str | None, limit_s: float, rows: int,
        alive: Callable[[], bool], facts: dict[str, Any],
    ) -> Generator[bytes, None, None]:  # fmt: skip
        if len(sql) > MAX_TEXT:
            raise ConfigError(f"the SQL has {len(sql)} characters; use at most {MAX_TEXT}")
        request = {"sql": sql, "form": form, "rows": rows, "began": time.monotonic()}
        with self._registered(owner, run_id) as run:

            def look() -> None:
                if not alive():
                    run.stop("nobody waits for the answer")

            worker = self._sent(run, request, look)
            limit = threading.Timer(
                limit_s, run.stop, [f"the query took longer than {limit_s:g} s; ask for less, or a shorter range"]
            )
            limit.daemon = True
            limit.start()
            ended = False
            try:
                while not ended:
                    kind, content = worker.frame(look)
                    if kind == b"B":
                        yield content
                    else:
                        ended = True
                        _told(kind, content, facts)
            except _Ended:
                raise _why(run, worker) from None
            finally:
                limit.cancel()
                run.have(None)
                self._done_with(worker, ended)

    @contextlib.contextmanager
    def _registered(self, owner: str, run_id: str | None) -> Iterator[_Run]:
        name = run_id or secrets.token_hex(8)
        if not _ID.fullmatch(name):
            raise ConfigError("id is none; use up to 64 letters, digits, - and _")
        if not self._free.acquire(timeout=2):
            raise Stopped(f"{AT_ONCE} queries are running already; wait for one, or cancel it")
        try:
            run = _Run(owner)
            with self._lock:
                if name in self._runs:
                    raise ConfigError(f"id {name} is that of a query under way; use another")
                self._runs[name] = run
            try:
                yield run
            finally:
                with self._lock:
                    del self._runs[name]
        finally:
            self._free.release()

    def _sent(self, run: _Run, request: dict[str, Any], look: Callable[[], None]) -> _Worker:
        """A process that has the request and works on it. One that was kept may have ended in this moment."""
        deadline = time.monotonic() + START_S
        while True:
            with self._lock:
                kept = next((one for one in self._idle if one.usable()), None)
                if kept is not None:
                    self._idle.remove(kept)
            worker = kept or _Worker(self.lake)
            run.have(worker)

            def patient() -> None:
                look()
                if time.monotonic() > deadline:
                    run.stop(f"no process for SQL within {START_S:g} s; the machine is busy, try again")

            try:
                kind, content = worker.frame(patient)
                if kind == b"E":  # without this it would wait for a request
                    _told(kind, content, {})
                worker.send(request)
            except _Ended:
                why = _why(run, worker)
                worker.close()
                if run.reason is not None or kept is None:
                    raise why from None
            except BaseException:
                worker.close()
                raise
            else:
                return worker

    def _done_with(self, worker: _Worker, ended: bool) -> None:
        """Keep it for the next query. One that was not through is of no use: another takes its place."""
        if not ended:
            worker.close()
        with self._lock:
            self._keep(worker if ended else None)

    def _keep(self, worker: _Worker | None) -> None:
        """Have SPARE processes wait for work, this one if there is room for it. The lock is held."""
        fresh = [one for one in self._idle if one.usable()]
        for old in (one for one in self._idle if one not in fresh):
            old.close()
        self._idle = fresh
        if worker is not None and (self._closed or len(fresh) >= SPARE):
            worker.close()
        elif not self._closed and len(fresh) < SPARE:
            with contextlib.suppress(StoreError):  # the next query says so
                fresh.append(worker or _Worker(self.lake))
                fresh[-1].rest()


def _told(kind: bytes, content: bytes, facts: dict[str, Any]) -> None:
    """What the process says at the end of an answer."""
    said = json.loads(content)
    if kind == b"D":
        facts |= said
    elif said.get("store"):
        raise StoreError(said["error"])
    else:
        raise SqlError(said["error"], said.get("line"))


def _why(run: _Run, worker: _Worker) -> Exception:
    """A process ended that should not have."""
    if run.reason is not None:
        return Stopped(run.reason)
    code = worker.code()
    if code in (-signal.SIGKILL, -signal.SIGABRT):  # the kernel's, or C++'s, answer to too little memory
        return ConfigError(TOO_LARGE)
    return StoreError(f"the query ended the process that ran it (code {code}); ask in another way")
