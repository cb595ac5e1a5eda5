"""The one file that wires stages: sources -> frame batches -> decoded rows -> publisher, with bounded pools.

    capture thread   fills FrameBatches from the sources and hands them on
    decode threads   decode them into PacketBatches, each every n-th batch
    publish thread   takes them in the order of capture: flows, frames, rows, segments; and gives them back

Batches come from fixed pools. When a later thread falls behind, its pool runs empty and the earlier one waits: the
kernel's ring then absorbs the burst, and what does not fit there is counted by the kernel.
"""

from __future__ import annotations

import os
import queue
import select
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from engine.capture.pacing import Pace
from engine.capture.savefile import SavefileSource
from engine.capture.source import ReadResult, Source
from engine.config import EngineConfig
from engine.decode import Decoder
from engine.errors import EngineError, StoreError, TruncatedFile
from engine.metrics import SourceTotals
from engine.packets import FrameBatch, PacketBatch
from engine.publish import Publisher

_HAND_OFF_S: Final = 0.3  # a batch is passed on at this age, full or not: with publishing, rows show within 2 s
_POLL_S: Final = 0.05
_DRAIN_S: Final = 1.0  # at stop, the kernel's buffer is read for at most this long
_SAMPLE_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class EndOfSource:
    """In the place of a batch: the source of this name will send no more."""

    name: str


_NOTHING: Final = EndOfSource("")


class _DecodeWorker:
    """A thread that decodes. Its row batches are its own: shared ones could all wait behind a slower thread's batch."""

    def __init__(self, on_failure: Callable[[BaseException], None]) -> None:
        self.todo: queue.SimpleQueue[FrameBatch | EndOfSource | None] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[tuple[FrameBatch, PacketBatch] | EndOfSource | None] = queue.SimpleQueue()
        self.free: queue.SimpleQueue[PacketBatch] = queue.SimpleQueue()
        for _ in range(2):
            self.free.put(PacketBatch())
        self._decoder = Decoder()
        self._on_failure = on_failure

    def run(self) -> None:
        """Until None comes, which is passed on like everything else."""
        try:
            while True:
                item = self.todo.get()
                if isinstance(item, FrameBatch):
                    self.done.put((item, self._decoder.decode(item, self.free.get())))
                    continue
                self.done.put(item)
                if item is None:
                    return
        except BaseException as error:  # noqa: BLE001 — a thread's top: remembered, and the engine stops
            self._on_failure(error)
            self.done.put(None)


def decode_threads(config: EngineConfig) -> int:
    """Threads that decode; by default as many as leave a core each for capturing and publishing, at least one."""
    return config.pipeline.decode_threads or max(1, min(8, len(os.sched_getaffinity(0)) - 2))


class LiveSourceLike(Source, Protocol):
    """A source with a descriptor to wait on."""

    def fileno(self) -> int:
        """Readable when frames wait. `read` is also called when none do: a vanished interface is noticed there."""

    def unread(self) -> int:
        """Frames that the kernel holds and `read` has not delivered."""


class Pipeline:
    """Runs sources into a lake until they end or `stop` is called.

    Args:
        report: told in one line what the operator should know; its first argument is "error" or "warning".
        pool: FrameBatches in circulation.
    """

    def __init__(self, lake: Path, config: EngineConfig, report: Callable[[str, str], None], pool: int = 6) -> None:
        self._report = report
        self._free: queue.SimpleQueue[FrameBatch] = queue.SimpleQueue()
        for _ in range(pool):
            self._free.put(FrameBatch())
        self._workers = [_DecodeWorker(self._decode_failed) for _ in range(decode_threads(config))]
        self._sent = 0
        self._send_lock = threading.Lock()
        self._publisher = Publisher(
            lake, config, self._store_failed, lambda error: self._report("error", str(error))
        )
        self._stop = threading.Event()
        self._done = threading.Event()
        self._filling: dict[str, tuple[FrameBatch, float]] = {}
        self._next_frame_no: dict[str, int] = {}
        self._observed: dict[str, tuple[int, int, int, int]] = {}
        self._earlier: dict[str, int] = {}  # frames received from files of the same name that ended before
        self._failure: BaseException | None = None
        self._last_store_report = 0.0
        self.store_failures = 0
        self.refused = 0
        self.stop_when_full = False

    # --- control, from the main thread ---------------------------------------------------------------------

    def start_live(self, sources: Sequence[LiveSourceLike]) -> None:
        """Capture from opened sources until `stop`."""
        self._publisher.live = True
        self._start(lambda: self._capture_live(sources))

    def start_replay(self, files: Sequence[SavefileSource], pace: Pace) -> None:
        """Read savefiles one after the other. A refused one is reported and the rest go on."""
        self.stop_when_full = True
        self._start(lambda: self._capture_files(files, pace))

    def _start(self, capture: Callable[[], None]) -> None:
        self._threads = [
            threading.Thread(target=self._guard, args=(capture, True), name="capture", daemon=True),
            threading.Thread(target=self._guard, args=(self._publish_loop, False), name="publish", daemon=True),
            *(threading.Thread(target=worker.run, name="decode", daemon=True) for worker in self._workers),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask for an orderly end; `wait` returns when everything captured is published."""
        self._stop.set()

    def abandon(self) -> None:
        """Publish what was handed on although the capture thread does not come back: it waits for a pipe."""
        for name, (batch, _) in list(self._filling.items()):
            received, kernel_drops, interface_drops, _ = self._observed.get(name, (0, 0, 0, 0))
            settled = self._earlier.get(name, 0) + self._next_frame_no[name] - 1 + kernel_drops
            received = max(received, settled + batch.count)  # the read that does not return has not told its frames
            self._observed[name] = (received, kernel_drops, interface_drops, received - settled)
        self._send(None)

    def wait(self, timeout_s: float) -> bool:
        """True when the run has ended. Raises what stopped a thread unexpectedly."""
        ended = self._done.wait(timeout_s)
        if ended and self._failure is not None:
            raise self._failure
        return ended

    @property
    def flow_memory(self) -> tuple[int, int]:
        """Most flows that lived at once, and the bytes that the flow table is bounded to."""
        return self._publisher.peak_flows, self._publisher.flow_bound_bytes

    @property
    def totals(self) -> dict[str, SourceTotals]:
        """Counters per source; exact once the run has ended."""
        return dict(self._publisher.totals)

    # --- threads ---------------------------------------------------------------------------------------------

    def _guard(self, work: Callable[[], None], is_capture: bool) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 — a thread's top: remembered, and the engine stops
            self._failure = self._failure or error
            self._stop.set()
        finally:
            if is_capture:
                self._send(None)
            else:
                self._done.set()

    def _send(self, item: FrameBatch | EndOfSource | None) -> None:
        """Pass something to the publish thread by way of the next decode thread; None ends all of them."""
        with self._send_lock:
            for worker in self._workers if item is None else [self._workers[self._sent % len(self._workers)]]:
                worker.todo.put(item)
            self._sent += 1

    def _decode_failed(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._stop.set()

    def _store_failed(self, error: StoreError) -> None:
        self.store_failures += 1
        now = time.monotonic()
        if now - self._last_store_report > 10 or self.store_failures == 1:
            self._last_store_report = now
            self._report("error", str(error))
        if self.stop_when_full:  # a file can be read again when there is room; live frames cannot
            self._stop.set()

    def _publish_loop(self) -> None:
        turn = 0
        while True:
            worker = self._workers[turn % len(self._workers)]
            try:
                item = worker.done.get(timeout=_POLL_S)
            except queue.Empty:
                item = _NOTHING
            else:
                turn += 1
            if isinstance(item, tuple):
                frames, rows = item
                self._publisher.take(frames, rows)
                worker.free.put(rows)
                frames.clear()
                self._free.put(frames)
            for source, counts in list(self._observed.items()):
                self._publisher.observe(source, *counts)
            if isinstance(item, EndOfSource) and item is not _NOTHING:
                self._publisher.end_source(item.name)
            if item is None:
                self._publisher.finish()
                return
            self._publisher.publish_due()

    # --- the capture thread ------------------------------------------------------------------------------------

    def _take(self, name: str) -> FrameBatch | None:
        """The batch that the source is filling, or a free one; None when none comes free before a stop."""
        if name in self._filling:
            return self._filling[name][0]
        while True:
            try:
                batch = self._free.get(timeout=_POLL_S)
                break
            except queue.Empty:
                if self._stop.is_set() and self._failure is not None:
                    return None
        batch.source = name
        batch.first_frame_no = self._next_frame_no.setdefault(name, 1)
        self._filling[name] = (batch, time.monotonic())
        return batch

    def _hand_on(self, name: str) -> None:
        batch, _ = self._filling.pop(name)
        if batch.count == 0:
            batch.clear()
            self._free.put(batch)
            return
        self._next_frame_no[name] += batch.count
        self._send(batch)

    def _hand_on_old(self) -> None:
        now = time.monotonic()
        for name, (_, since) in list(self._filling.items()):
            if now - since >= _HAND_OFF_S:
                self._hand_on(name)

    def _observe(self, source: Source, final: bool = False) -> None:
        counts = source.counters()
        unread = 0
        if final:
            delivered = self._next_frame_no.get(source.name, 1) - 1
            unread = max(0, counts.received - counts.kernel_drops - delivered)
        received = counts.received + self._earlier.get(source.name, 0)
        self._observed[source.name] = (received, counts.kernel_drops, counts.interface_drops, unread)

    def _read(self, source: Source) -> ReadResult:
        """One read; a full batch is handed on. A source that fails is reported and counts as ended."""
        batch = self._take(source.name)
        if batch is None:
            return ReadResult.END
        try:
            result = source.read(batch)
        except EngineError as error:
            warning = isinstance(error, TruncatedFile)
            self._report("warning" if warning else "error", str(error))
            self.refused += not warning
            result = ReadResult.END
        if result in (ReadResult.FULL, ReadResult.END):
            self._hand_on(source.name)
        return result

    def _capture_live(self, sources: Sequence[LiveSourceLike]) -> None:
        poller = select.poll()
        active = {s.fileno(): s for s in sources}
        for fd in active:
            poller.register(fd, select.POLLIN)
        sampled = 0.0
        while active and not self._stop.is_set():
            for fd in [fd for fd, _ in poller.poll(_POLL_S * 1000)] or list(active):
                if self._read(active[fd]) is ReadResult.END:
                    self._finish(active[fd])
                    poller.unregister(fd)
                    del active[fd]
            self._hand_on_old()
            if time.monotonic() - sampled >= _SAMPLE_S:
                sampled = time.monotonic()
                for source in active.values():
                    self._observe(source)
        for source in active.values():
            self._drain(source)

    def _drain(self, source: LiveSourceLike) -> None:
        """At stop: what the kernel still holds is read for a bounded time; the rest is an own drop."""
        deadline = time.monotonic() + _DRAIN_S
        while source.unread() > 0 and time.monotonic() < deadline:
            result = self._read(source)
            if result is ReadResult.END:
                break
            if result is ReadResult.IDLE:  # in a block that the kernel has not handed over yet
                time.sleep(0.01)
        self._finish(source)

    def _finish(self, source: Source) -> None:
        if source.name in self._filling:
            self._hand_on(source.name)
        self._observe(source, final=True)
        self._send(EndOfSource(source.name))
        source.close()

    def _capture_files(self, files: Sequence[SavefileSource], pace: Pace) -> None:
        for source in files:
            if self._stop.is_set():
                break
            self._next_frame_no[source.name] = 1
            try:
                source.open()
            except EngineError as error:
                self._report("error", str(error))
                self.refused += 1
                source.close()
                continue
            pace.begin()
            while not self._stop.is_set():
                pause_s = pace.allow(source)
                if pause_s:
                    self._stop.wait(pause_s)
                result = self._read(source)
                self._observe(source)
                if result is ReadResult.END:
                    break
                self._hand_on_old()
            if source.name in self._filling:
                self._hand_on(source.name)
            self._observe(source)
            self._earlier[source.name] = self._observed[source.name][0]
            self._send(EndOfSource(source.name))
            source.close()
