"""From a source into batches: what one capture thread does, one `Feed` per source."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from engine.capture.pacing import Pace
from engine.capture.savefile import SavefileSource
from engine.capture.source import ReadResult, Source
from engine.errors import EngineError, TruncatedFile
from engine.packets import FrameBatch
from engine.usage import Usage

HAND_OFF_S: Final = 0.3  # a batch is passed on at this age, full or not: with publishing, rows show within 2 s
POLL_S: Final = 0.05
_DRAIN_S: Final = 1.0  # at stop, the kernel's buffer is read for at most this long
_SAMPLE_S: Final = 0.2


class LiveSourceLike(Source, Protocol):
    """A source with a descriptor to wait on. `down`: the interface is, and the source waits for it to be up again."""

    down: bool

    def fileno(self) -> int:
        """Readable when frames wait. `read` is also called when none do: a vanished interface is noticed there."""

    def unread(self) -> int:
        """Frames that the kernel holds and `read` has not delivered."""


@dataclass(frozen=True, slots=True)
class Counts:
    """A feed's frames so far: received, dropped by the kernel and by the interface, and not read when it stopped.
    `waiting`: in the kernel's ring just now."""

    received: int = 0
    kernel_drops: int = 0
    interface_drops: int = 0
    unread: int = 0
    waiting: int = 0


class Exchange(Protocol):
    """What feeds need of the pipeline."""

    stopping: threading.Event
    usage: Usage

    @property
    def crowded(self) -> bool:
        """More batches are under way than usual: better few full ones than many small ones."""

    def take(self) -> FrameBatch | None:
        """A free batch; waits for one. None when none will come."""

    def give_back(self, batch: FrameBatch) -> None:
        """An unused batch."""

    def send(self, name: str, batch: FrameBatch) -> None:
        """Pass frames of a source on."""


class Feed:
    """One source on its way into batches. Used by one thread; `counts` may be read by any.

    Args:
        report: told in one line what the operator should know, "error" or "warning" first.
    """

    def __init__(self, source: Source, exchange: Exchange, report: Callable[[str, str], None]) -> None:
        self.source = source
        self.counts = Counts()
        self.refused = False
        self.trouble = ""  # of a live source, for `engine status`: down, or ended
        self._exchange = exchange
        self._report = report
        self._batch: FrameBatch | None = None
        self._since = 0.0
        self._delivered = 0  # frames handed on

    @property
    def name(self) -> str:
        return self.source.name

    def read(self) -> ReadResult:
        """One read; a full batch is handed on. A source that fails is reported and counts as ended."""
        if self._batch is None:
            self._batch = self._exchange.take()
            self._since = time.monotonic()
        if self._batch is None:
            return ReadResult.END
        try:
            result = self.source.read(self._batch)
        except EngineError as error:
            self._refuse(error)
            result = ReadResult.END
        if result in (ReadResult.FULL, ReadResult.END):
            self.hand_on()
        return result

    def _refuse(self, error: EngineError) -> None:
        warning = isinstance(error, TruncatedFile)
        self._report("warning" if warning else "error", str(error))
        self.refused |= not warning

    def hand_on(self, older_than_s: float = 0.0) -> None:
        """Pass the batch on, if there is one of that age."""
        batch = self._batch
        if batch is None or time.monotonic() - self._since < older_than_s:
            return
        self._batch = None
        if batch.count == 0:
            self._exchange.give_back(batch)
            return
        self._delivered += batch.count
        self._exchange.send(self.name, batch)

    def observe(self, final: bool = False) -> None:
        """Take the source's own counters over; at the end, what it counted and never delivered is unread."""
        now = self.source.counters()
        held = self._batch.count if self._batch is not None else 0
        waiting = max(0, now.received - now.kernel_drops - self._delivered - held)
        self.counts = Counts(now.received, now.kernel_drops, now.interface_drops, waiting if final else 0, waiting)
        self._exchange.usage.tick("capture")

    def abandon(self) -> None:
        """The thread that reads does not come back (it waits for a pipe): what it holds counts as unread."""
        held = self._batch.count if self._batch is not None else 0
        settled = self._delivered + self.counts.kernel_drops
        received = max(self.counts.received, settled + held)  # the read that hangs has not told its frames
        self.counts = Counts(received, self.counts.kernel_drops, self.counts.interface_drops, received - settled)

    # --- whole runs ----------------------------------------------------------------------------------------------

    def capture(self) -> None:
        """Live: until the source fails or a stop; then what the kernel still holds. Closes the source."""
        source: LiveSourceLike = self.source  # type: ignore[assignment]
        poller = select.poll()
        poller.register(source.fileno(), select.POLLIN)
        sampled, ended = 0.0, False
        while not ended and not self._exchange.stopping.is_set():
            poller.poll(POLL_S * 1000)
            ended = self.read() is ReadResult.END
            self._follow(source, ended)
            if not self._exchange.crowded:
                self.hand_on(HAND_OFF_S)
            if time.monotonic() - sampled >= _SAMPLE_S:
                sampled = time.monotonic()
                self.observe()
        if not ended:
            self._drain(source)
        self.hand_on()
        self.observe(final=True)
        source.close()

    def _follow(self, source: LiveSourceLike, ended: bool) -> None:
        """Say it when the interface goes down and when it is up again."""
        before = self.trouble
        self.trouble = "capture has ended" if ended else "is down" if source.down else ""
        if before != self.trouble and not ended:
            news = "went down; capture goes on when it is up again" if source.down else "is up again"
            self._report("warning", f"interface {self.name} {news}")

    def _drain(self, source: LiveSourceLike) -> None:
        """At stop: what the kernel still holds is read for a bounded time; the rest is an own drop."""
        deadline = time.monotonic() + _DRAIN_S
        while source.unread() > 0 and time.monotonic() < deadline:
            result = self.read()
            if result is ReadResult.END:
                break
            if result is ReadResult.IDLE:  # in a block that the kernel has not handed over yet
                time.sleep(0.01)

    def replay(self, pace: Pace) -> None:
        """A savefile: to its end or a stop. Opens and closes the source; one that cannot be opened is reported."""
        source: SavefileSource = self.source  # type: ignore[assignment]
        try:
            source.open()
        except EngineError as error:
            self._refuse(error)
            source.close()
            return
        pace.begin()
        while not self._exchange.stopping.is_set():
            pause_s = pace.allow(source)
            if pause_s:
                self._exchange.stopping.wait(pause_s)
            result = self.read()
            self.observe()
            if result is ReadResult.END:
                break
            self.hand_on(HAND_OFF_S)
        self.hand_on()
        self.observe()
        source.close()
