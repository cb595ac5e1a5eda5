"""The one file that wires stages: sources -> frame batches -> decoded rows -> publisher, with bounded pools.

    capture threads  one per source: fill FrameBatches and hand them on (engine.feed)
    decode threads   decode them into PacketBatches, each every n-th batch
    analyse thread   takes them in the order of capture: flows, applications, raw frames; gives the frames back
    publish thread   turns rows into segments and gives the rows back

Batches come from fixed pools. When a later thread falls behind, its pool runs empty and the earlier one waits: the
kernel's ring then absorbs the burst, and what does not fit there is counted by the kernel. Before that happens to a
live capture, the analyser gives up work in the order of engine.pressure; a savefile simply waits.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.analyse import Analyser, SideRows
from engine.capture.pacing import Pace
from engine.capture.savefile import SavefileSource
from engine.config import EngineConfig
from engine.decode import Decoder
from engine.detect.finding import Finding
from engine.errors import StoreError
from engine.feed import POLL_S, Counts, Feed, LiveSourceLike
from engine.metrics import Books, SourceTotals
from engine.packets import FrameBatch, PacketBatch
from engine.pressure import Level, Pressure
from engine.publish import Publisher
from engine.usage import Usage
from engine.writer import run_name

_LIVE_POOL: Final = 16
_REPLAY_POOL: Final = 4
_ROW_BATCHES: Final = 4  # of each decode thread: one decoded, one analysed, one written, one to spare


@dataclass(frozen=True, slots=True)
class EndOfSource:
    """In the place of a batch: the source of this name will send no more."""

    name: str


_NOTHING: Final = EndOfSource("")


class _DecodeWorker:
    """A thread that decodes. Its row batches are its own: shared ones could all wait behind a slower thread's batch."""

    def __init__(self, on_failure: Callable[[BaseException], None], usage: Usage) -> None:
        self.todo: queue.SimpleQueue[FrameBatch | EndOfSource | None] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[tuple[FrameBatch, PacketBatch] | EndOfSource | None] = queue.SimpleQueue()
        self.free: queue.SimpleQueue[PacketBatch] = queue.SimpleQueue()
        for _ in range(_ROW_BATCHES):
            self.free.put(PacketBatch())
        self._decoder = Decoder()
        self._on_failure = on_failure
        self._usage = usage

    def run(self) -> None:
        """Until None comes, which is passed on like everything else."""
        try:
            while True:
                item = self.todo.get()
                if isinstance(item, FrameBatch):
                    self.done.put((item, self._decoder.decode(item, self.free.get())))
                    self._usage.tick("decode")
                    continue
                self.done.put(item)
                if item is None:
                    return
        except BaseException as error:  # noqa: BLE001 — a thread's top: remembered, and the engine stops
            self._on_failure(error)
            self.done.put(None)


_Row = tuple[PacketBatch, _DecodeWorker] | SideRows | EndOfSource | None  # what the publish thread is handed


def decode_threads(config: EngineConfig) -> int:
    """Threads that decode; by default as many as leave a core each for capturing and publishing, at least one."""
    return config.pipeline.decode_threads or max(1, min(8, len(os.sched_getaffinity(0)) - 2))


class Pipeline:
    """Runs sources into a lake until they end or `stop` is called. It is the feeds' Exchange.

    Args:
        report: told in one line what the operator should know; its first argument is "error" or "warning".
        live: for `start_live`; else for `start_replay`.
    """

    def __init__(
        self, lake: Path, config: EngineConfig, report: Callable[[str, str], None], live: bool = False
    ) -> None:
        self._report = report
        self._live = live
        self._free: queue.LifoQueue[FrameBatch] = queue.LifoQueue()  # the last used is warm in the caches
        self._pool = 0
        self.usage = Usage()
        self._workers = [_DecodeWorker(self._failed, self.usage) for _ in range(decode_threads(config))]
        self._sent = 0
        self._send_lock = threading.Lock()
        self._frame_no: dict[str, int] = {}
        self.run, self._books = run_name(), Books()
        # Bounded by what circulates: row batches, and the buffers of ended flows, for which the analyse thread waits.
        self._rows: queue.SimpleQueue[_Row] = queue.SimpleQueue()
        self._publisher = Publisher(lake, config.lake, self.run, self._books, self._store_failed, self.usage)
        self._analyser = Analyser(lake, config, self.run, self._books, self._rows.put, report, live)
        self._notices: queue.SimpleQueue[Finding] = queue.SimpleQueue()
        self._pressure = Pressure()
        self._done = threading.Event()
        self._feeds: list[Feed] = []
        self._earlier: defaultdict[str, int] = defaultdict(int)  # frames of files of the same name that ended before
        self._failure: BaseException | None = None
        self._last_store_report = 0.0
        self._running = 0  # capture threads that have not ended
        self.stopping = threading.Event()
        self.store_failures = 0
        self.refused = 0

    # --- control, from the main thread ---------------------------------------------------------------------

    def start_live(self, sources: Sequence[LiveSourceLike]) -> None:
        """Capture from opened sources until `stop`, each in a thread of its own."""
        self._feeds = [Feed(source, self, self._report) for source in sources]
        self._start(_LIVE_POOL + 4 * (len(sources) - 1), [feed.capture for feed in self._feeds])

    def start_replay(self, files: Sequence[SavefileSource], pace: Pace) -> None:
        """Read savefiles one after the other. A refused one is reported and the rest go on."""
        self._start(_REPLAY_POOL + len(self._workers), [lambda: self._replay(files, pace)])

    def _replay(self, files: Sequence[SavefileSource], pace: Pace) -> None:
        for source in files:
            if self.stopping.is_set():
                break
            with self._send_lock:
                self._frame_no[source.name] = 1
            feed = Feed(source, self, self._report)
            self._feeds = [feed]
            feed.replay(pace)
            self.refused += feed.refused
            with self._send_lock:  # the publish thread adds both
                self._feeds = []
                self._earlier[source.name] += feed.counts.received
            self._pass_on(EndOfSource(source.name))

    def _start(self, pool: int, captures: Sequence[Callable[[], None]]) -> None:
        self._pool = pool
        for _ in range(pool):
            self._free.put(FrameBatch())
        self._running = len(captures)
        threads = [
            *(threading.Thread(target=self._capture, args=(work,), name="capture", daemon=True) for work in captures),
            *(threading.Thread(target=worker.run, name="decode", daemon=True) for worker in self._workers),
            threading.Thread(
                target=self._guard, args=(self._analyse, lambda: self._rows.put(None)), name="analyse", daemon=True
            ),
            threading.Thread(target=self._guard, args=(self._publish, self._done.set), name="publish", daemon=True),
        ]
        for thread in threads:
            thread.start()

    def stop(self) -> None:
        """Ask for an orderly end; `wait` returns when everything captured is published."""
        self.stopping.set()

    def abandon(self) -> None:
        """Publish what was handed on although a capture thread does not come back: it waits for a pipe."""
        for feed in self._feeds:
            feed.abandon()
        self._pass_on(None)

    def wait(self, timeout_s: float) -> bool:
        """True when the run has ended. Raises what stopped a thread unexpectedly."""
        ended = self._done.wait(timeout_s)
        if ended and self._failure is not None:
            raise self._failure
        return ended

    @property
    def flow_memory(self) -> tuple[int, int]:
        """Most flows that lived at once, and the bytes that the flow table is bounded to."""
        return self._analyser.flow_memory

    @property
    def totals(self) -> dict[str, SourceTotals]:
        """Counters per source; exact once the run has ended."""
        return self._books.all()

    @property
    def received(self) -> dict[str, int]:
        """Frames by source as the capture threads count them now."""
        sums: defaultdict[str, int] = defaultdict(int)
        for feed in self._feeds:
            sums[feed.name] += feed.counts.received
        return sums

    @property
    def troubles(self) -> list[str]:
        """Interfaces that deliver nothing just now, and why."""
        return [f"interface {feed.name}: {feed.trouble}" for feed in self._feeds if feed.trouble]

    def notice(self, found: Finding) -> None:
        """Have the analyse thread make an alert of it."""
        self._notices.put(found)

    def configure(self, config: EngineConfig) -> None:
        """Have what a running capture can take over used soon. Raises ConfigError, and nothing changes then."""
        self._analyser.configure(config)

    # --- the feeds' exchange ---------------------------------------------------------------------------------

    @property
    def crowded(self) -> bool:
        """More than a quarter of the batches are under way, beside those that are being filled."""
        return 4 * (self._pool - self._free.qsize() - len(self._feeds)) > self._pool

    def take(self) -> FrameBatch | None:
        """A free batch; waits for one. None when none will come: the run has failed."""
        while True:
            try:
                return self._free.get(timeout=POLL_S)
            except queue.Empty:
                if self.stopping.is_set() and self._failure is not None:
                    return None

    def give_back(self, batch: FrameBatch) -> None:
        """A batch that may be filled again."""
        batch.clear()
        self._free.put(batch)

    def send(self, name: str, batch: FrameBatch) -> None:
        """Pass frames of a source on; they get their numbers here, since several feeds may share a name."""
        with self._send_lock:
            batch.source = name
            batch.first_frame_no = self._frame_no.get(name, 1)
            self._frame_no[name] = batch.first_frame_no + batch.count
            self._to_worker(batch)

    def _pass_on(self, item: EndOfSource | None) -> None:
        with self._send_lock:
            self._to_worker(item)

    def _to_worker(self, item: FrameBatch | EndOfSource | None) -> None:
        """To the next decode thread, and so to the publish thread in this order; None ends all of them."""
        for worker in self._workers if item is None else [self._workers[self._sent % len(self._workers)]]:
            worker.todo.put(item)
        self._sent += 1

    # --- threads ---------------------------------------------------------------------------------------------

    def _failed(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self.stopping.set()

    def _store_failed(self, error: StoreError) -> None:
        self.store_failures += 1
        now = time.monotonic()
        if now - self._last_store_report > 10 or self.store_failures == 1:
            self._last_store_report = now
            self._report("error", str(error))
        if not self._live:  # a file can be read again when there is room; live frames cannot
            self.stopping.set()

    @property
    def incomplete(self) -> bool:
        """A file was refused, or could not be stored."""
        return bool(self.refused or (self.store_failures and not self._live))

    def _capture(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 — a thread's top: remembered, and the engine stops
            self._failed(error)
        with self._send_lock:
            self._running -= 1
            if self._running == 0:
                self._to_worker(None)

    def _guard(self, work: Callable[[], None], at_end: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 — a thread's top: remembered, and the engine stops
            self._failed(error)
        finally:
            at_end()

    def _analyse(self) -> None:
        turn = 0
        while True:
            worker = self._workers[turn % len(self._workers)]
            try:
                item = worker.done.get(timeout=POLL_S)
            except queue.Empty:
                item = _NOTHING
            else:
                turn += 1
            if isinstance(item, tuple):
                frames, rows = item
                wanted = self._analyser.take(frames, rows, self._level())
                self.give_back(frames)
                if wanted:
                    self._rows.put((rows, worker))
                else:
                    worker.free.put(rows)
            elif item is None:
                self._analyser.finish()
                return
            elif item is not _NOTHING:
                self._analyser.end_source(item.name)
                self._rows.put(item)
            while not self._notices.empty():
                self._analyser.notice(self._notices.get())
            self._analyser.pass_on_due()
            self.usage.tick("analyse")

    def _publish(self) -> None:
        while True:
            try:
                row = self._rows.get(timeout=POLL_S)
            except queue.Empty:
                row = _NOTHING
            if isinstance(row, tuple):
                rows, worker = row
                self._publisher.take(rows)
                worker.free.put(rows)
            elif isinstance(row, SideRows):
                self._publisher.take_side(row)
            elif isinstance(row, EndOfSource):
                self._publisher.end_source(row.name)
            self._observe()
            self.usage.tick("publish")
            if row is None:
                self._publisher.finish()
                return
            self._publisher.publish_due()

    def _level(self) -> Level:
        """What is to be given up now."""
        fill = 1 - self._free.qsize() / self._pool
        self.usage.filled(fill)
        if not self._live:
            return Level.NONE
        level = self._pressure.update(fill)
        self._analyser.limit(self._pressure.budget)
        line = self._pressure.news(time.monotonic())
        if line:
            self._report("warning", line)
        return level

    def _observe(self) -> None:
        """Tell the publisher what the sources counted; feeds of one name are added up."""
        sums: defaultdict[str, list[Counts]] = defaultdict(list)
        with self._send_lock:
            for feed in self._feeds:
                sums[feed.name].append(feed.counts)
            earlier = dict(self._earlier)
        for name in {*sums, *earlier}:
            counts = sums.get(name, [])
            self.usage.waiting(name, sum(c.waiting for c in counts))
            self._publisher.observe(
                name,
                earlier.get(name, 0) + sum(c.received for c in counts),
                sum(c.kernel_drops for c in counts),
                sum(c.interface_drops for c in counts),
                sum(c.unread for c in counts),
            )
