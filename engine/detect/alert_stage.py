"""The stage behind detection: findings to incidents, to rows of `alert_events`, to EVE and notifications.

What may wait (files of others, syslog, what operators write into the lake) is done by a thread of its own behind a
bounded queue; what is sent over the network by a process of its own (engine.notify).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import queue
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from engine.config import EngineConfig
from engine.detect.eve import EveOutput
from engine.detect.finding import Finding
from engine.detect.incidents import Counts, Incidents
from engine.detect.manual import ManualAlerts
from engine.detect.operator_words import Mutes, left_open
from engine.notify.outbox import Outbox

Rows = list[dict[str, Any]]
_EMIT_EVERY_S: Final = 1.0  # rows become a segment each time
_WAITING: Final = 10_000  # events that outlets have not taken yet
_RESTART_S: Final = 30.0
_CLOSE_S: Final = 1.5


def run_prefix(sensor: str, run: str) -> str:
    """What the ids of a run's incidents begin with: ten letters and digits, the same for no other run and sensor."""
    digest = hashlib.blake2s(f"{sensor}\0{run}".encode()).digest()
    return base64.b32encode(digest)[:10].decode().lower()


class AlertStage:
    """For one thread, except that it starts others.

    Args:
        emit: takes rows of `alert_events`, at most once a second; `close` may call it once more.
        report: told in one line what the operator should know; its first argument is "error" or "warning".
        poll_s: between two looks at what operators wrote.

    Attributes:
        live: the packets' clock is the machine's. Set it before the first findings: only then are notifications sent,
            alerts of operators passed on, and what a killed run left open is closed.
    """

    def __init__(
        self, lake: Path, config: EngineConfig, run: str, emit: Callable[[Rows], None],
        report: Callable[[str, str], None] | None = None, poll_s: float = 1.0,
    ) -> None:  # fmt: skip
        self._lake = lake
        self._poll_s = poll_s
        self._config = config
        self._prefix = run_prefix(config.lake.sensor, run)
        self._emit = emit
        self._report = report or (lambda _level, _text: None)
        self._incidents = Incidents(config.alerts, self._collect, self._prefix)
        self._rows: Rows = []
        self._emitted_at = float("-inf")
        self._outlets: _Outlets | None = None
        self.live = False

    @property
    def counts(self) -> Counts:
        """What became of the findings."""
        return self._incidents.counts

    @property
    def open(self) -> int:
        """Incidents that go on."""
        return self._incidents.open

    @property
    def serious(self) -> bool:
        """One of them is above low."""
        return self._incidents.serious

    @property
    def not_told(self) -> int:
        """Events that EVE or notifications did not get, because those were too slow or failed."""
        return self._outlets.missed if self._outlets is not None else 0

    def configure(self, config: EngineConfig) -> None:
        """From now on, with these [alerts] and [notify]."""
        self._config = config
        self._incidents.configure(config.alerts)
        if self._outlets is not None:
            self._outlets.configure(config)

    def take(self, findings: list[Finding], now_us: int) -> None:
        """Account findings; `now_us` is the packets' clock."""
        self._follow_outlets()
        self._incidents.take(findings, now_us)
        self._pass_on()

    def tick(self, now_us: int) -> None:
        """Without findings: close what is over, pass on what waits. Cheap; call it several times a second."""
        self.take([], now_us)

    def close(self) -> None:
        """The run ends: every incident is closed and passed on; the notifier goes on for some seconds by itself."""
        self._follow_outlets()
        self._incidents.close()
        self._pass_on(at_once=True)
        if self._outlets is not None:
            self._outlets.close()

    def _follow_outlets(self) -> None:
        if self._outlets is None:
            self._outlets = _Outlets(self._lake, self._config, self._prefix, self.live, self._report, self._poll_s)
        self._incidents.mutes = self._outlets.mutes
        if self._outlets.left:
            left, self._outlets.left = self._outlets.left, []
            self._rows += left

    def _collect(self, rows: Rows) -> None:
        self._rows += rows
        if self._outlets is not None:
            for row in rows:
                self._outlets.put(row)

    def _pass_on(self, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._rows and (at_once or now - self._emitted_at >= _EMIT_EVERY_S):
            rows, self._rows = self._rows, []
            self._emitted_at = now
            self._emit(rows)


class _Outlets:
    """The thread that tells the world, and listens to operators."""

    def __init__(
        self, lake: Path, config: EngineConfig, prefix: str, live: bool, report: Callable[[str, str], None],
        poll_s: float,
    ) -> None:  # fmt: skip
        self._lake = lake
        self._config = config
        self._prefix = prefix
        self._report = report
        self._mutes = Mutes(lake)
        self._live = live
        self._eve = EveOutput(config.eve, config.lake.sensor, partial(report, "warning"))
        self._open_outbox(config)
        self._poll_s = poll_s
        self._notifier: subprocess.Popen[bytes] | None = None
        self._ended: list[subprocess.Popen[bytes]] = []  # notifiers of an earlier configuration, sending what is left
        self._started_at = float("-inf")
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(_WAITING)
        self._failing = False
        self._overrun = 0
        self._next: EngineConfig | None = None
        self.left: Rows = []
        self.mutes = self._mutes.poll()  # before the first finding
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)
        self._thread.start()

    def _open_outbox(self, config: EngineConfig) -> None:
        wanted = self._live and config.notify.targets
        self._outbox = Outbox(self._lake, config.notify, config.lake.sensor) if wanted else None
        outlets: dict[str, Callable[[dict[str, Any]], object]] = {}
        if self._live and self._eve.enabled:
            outlets[f"eve@{config.lake.sensor}"] = self._eve.put
        if self._outbox is not None:
            outlets["notify"] = self._outbox.put
        self._manual = ManualAlerts(self._lake, outlets)

    def configure(self, config: EngineConfig) -> None:
        """Have the thread take other targets."""
        self._next = config

    def _follow(self) -> None:
        """Take what `configure` left. The notifier of before sends what waits for it, and ends."""
        config, self._next = self._next, None
        if config is None or config.notify == self._config.notify:
            return
        self._config = config
        self._open_outbox(config)
        if self._notifier is not None:
            assert self._notifier.stdin is not None
            with contextlib.suppress(OSError):
                self._notifier.stdin.close()
            self._ended.append(self._notifier)
            self._notifier, self._started_at = None, float("-inf")

    @property
    def missed(self) -> int:
        return self._overrun + self._eve.failed

    def put(self, row: dict[str, Any]) -> None:
        """Never waits: what does not fit is counted."""
        if self._outbox is None and not self._eve.enabled:
            return
        try:
            self._queue.put_nowait(row)
        except queue.Full:
            self._overrun += 1

    def close(self) -> None:
        """Tell what waits, within 1.5 s."""
        deadline = time.monotonic() + _CLOSE_S
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=_CLOSE_S)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        notifier = self._notifier
        if notifier is not None:
            assert notifier.stdin is not None
            with contextlib.suppress(OSError):
                notifier.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                notifier.wait(max(0.1, deadline - time.monotonic()))
            notifier.returncode = notifier.returncode or 0  # it ends by itself; nobody is to wait for it

    def _run(self) -> None:
        try:
            if self._live:
                self.left = left_open(self._lake, self._config.lake.sensor, self._prefix)
            self._work()
        except Exception as error:  # noqa: BLE001 — a thread's top: capture and the lake's alerts go on without it
            self._report(
                "error", f"alerts are not passed on any more: {type(error).__name__} {error}; restart to try again"
            )

    def _work(self) -> None:
        looked_at = float("-inf")
        while True:
            self._follow()
            self._ended = [process for process in self._ended if process.poll() is None]
            self._watch_notifier()
            with contextlib.suppress(queue.Empty):
                row = self._queue.get(timeout=self._poll_s / 2)
                if row is None:
                    self._eve.close()
                    return
                self._tell(row)
            if time.monotonic() - looked_at >= self._poll_s:
                looked_at = time.monotonic()
                self.mutes = self._mutes.poll()
                self._pass_manual()

    def _tell(self, row: dict[str, Any]) -> None:
        self._eve.put(row)
        if self._outbox is None:
            return
        try:
            self._outbox.put(row)
            self._failing = False
        except OSError as error:
            self._overrun += 1
            self._say_full(error)

    def _pass_manual(self) -> None:
        """Alerts that operators entered; what cannot be passed on now waits for the next time."""
        try:
            if self._manual.poll():
                self._say_full(self._manual.problem)
        except OSError as error:
            self._say_full(error)

    def _say_full(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            self._report(
                "error", f"notifications cannot be kept in {self._lake}/.notify: {error.strerror}; free some space"
            )

    def _watch_notifier(self) -> None:
        if self._outbox is None or time.monotonic() - self._started_at < _RESTART_S:
            return
        if self._notifier is None or self._notifier.poll() is not None:
            if self._notifier is not None:
                self._report("warning", f"the notifier ended with code {self._notifier.returncode}; started again")
            from engine.notify import process

            self._started_at = time.monotonic()
            try:
                self._notifier = process.start(self._lake, self._config.notify)
            except OSError as error:
                self._report("error", f"the notifier cannot be started: {error.strerror}; tried again")
