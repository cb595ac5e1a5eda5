"""Raw frames on disk: a ring of pcap segments beside the rows, so that every row can show its bytes.

    <lake>/frames/sensor=<name>/<start_ns>-<run><seq>.pcap

Segments are ordinary pcap files (nanosecond magic, one link type each) that are appended to and never rewritten; the
oldest are deleted when the ring is full. A row knows its file and the offset of its record there.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from engine.config import FramesConfig
from engine.constants import MAX_CAPLEN, PCAP_MAGIC_NS
from engine.errors import StoreError
from engine.kernels import frames as kernel
from engine.packets import F_TS_NS, FrameBatch, PacketBatch
from engine.segment_file import make_directories

FOLDER: Final = "frames"
_SEGMENTS_PER_RING: Final = 16
_SMALLEST_SEGMENT: Final = 1 << 20
_LARGEST_SEGMENT: Final = 256 << 20
_PIECE_BYTES: Final = 512 << 10  # built in the second-level cache, then written; a record is at most half of it
_MAX_LINK_TYPES: Final = 16  # open segments; a hostile pcapng file must not make one file per frame
_DISK_BLOCK: Final = 4096
_REPORT_EVERY_S: Final = 10.0
_NAME: Final = re.compile(r"\d+-([0-9a-f]+)\.pcap")


@dataclass(slots=True)
class _Segment:
    """An open segment. `name` is relative to `<lake>/frames/`; `size` is the end of its last whole record."""

    path: Path
    name: str
    fd: int
    size: int
    dirty: bool = True


def _on_disk(size: int) -> int:
    return -(-size // _DISK_BLOCK) * _DISK_BLOCK


class FrameRing:
    """Stores the frames of batches and tells their rows where. For one thread; nothing is touched before `store`.

    Args:
        lake: the lake's directory. config: mode, size and limit. sensor: as in the lake's paths. run: `run_name()`.
        on_failure: told at most every 10 s that frames cannot be stored; rows are never held up by that.

    Attributes:
        enabled: False when no frames are to be stored. stored, not_stored: frames since the start.
    """

    def __init__(
        self,
        lake: Path,
        config: FramesConfig,
        sensor: str,
        run: str,
        on_failure: Callable[[StoreError], None] | None = None,
    ) -> None:
        self._sensor = f"sensor={sensor}"
        self._folder = lake / FOLDER / self._sensor
        self._run = run
        self._limit = config.limit_bytes
        self._segment_bytes = min(max(self._limit // _SEGMENTS_PER_RING, _SMALLEST_SEGMENT), _LARGEST_SEGMENT)
        self._keep = config.head_bytes if config.mode == "head" else MAX_CAPLEN
        self._on_failure = on_failure
        self._out = np.empty(_PIECE_BYTES if config.mode != "off" else 0, np.uint8)
        self._state = np.zeros(kernel.N_STATE, np.int64)
        self._link_types = np.zeros(_MAX_LINK_TYPES, np.int64)
        self._open: dict[int, _Segment] = {}  # by link type
        self._closed: deque[tuple[Path, int]] = deque()  # oldest first, with bytes on disk
        self._closed_bytes = 0
        self._sequence = 0
        self._reported_at = -_REPORT_EVERY_S
        self.enabled = config.mode != "off"
        self.stored = 0
        self.not_stored = 0

    def store(self, frames: FrameBatch, packets: PacketBatch) -> int:
        """Write the frames of a batch; rows whose frame is in a file on return say so. Never raises OSError.

        Args:
            frames: the batch. packets: its decoded rows; `frame_files`, I_FRAME_FILE, L_FRAME_OFFSET and HAS_FRAME
                are written.

        Returns:
            Number of frames stored.
        """
        packets.frame_files.clear()
        if not self.enabled or frames.count == 0:
            return 0
        found = kernel.find_link_types(frames.arena, frames.frames, frames.count, packets.present, self._link_types)
        before = self.stored
        try:
            for link_type in self._link_types[:found].tolist():
                if link_type in self._open or len(self._open) < _MAX_LINK_TYPES:
                    self._store_link_type(frames, packets, link_type)
        except OSError as error:
            self._report(error)
        stored = self.stored - before
        self.not_stored += frames.count - stored
        return stored

    def skip(self, frames: FrameBatch, packets: PacketBatch) -> None:
        """Give the frames of a batch up without trying: what an engine that is late does first."""
        packets.frame_files.clear()
        if self.enabled:
            self.not_stored += frames.count

    def _store_link_type(self, frames: FrameBatch, packets: PacketBatch, link_type: int) -> None:
        """All frames of one link type. On OSError, rows from the failed piece on are without a frame."""
        row = 0
        while row < frames.count:
            segment = self._segment(link_type, int(frames.frames[F_TS_NS, row]))
            if segment.name not in packets.frame_files:
                packets.frame_files.append(segment.name)
            kernel.build_records(
                frames.arena, frames.frames, row, frames.count, link_type, self._keep,
                segment.size, packets.frame_files.index(segment.name), self._segment_bytes - segment.size, self._out,
                packets.long, packets.int_, packets.present, self._state,
            )  # fmt: skip
            following, used, stored = self._state.tolist()
            if used == 0 and following < frames.count:
                self._close_segment(link_type)
                continue
            try:
                self._append(link_type, segment, used)
            except OSError:
                kernel.forget_records(frames.frames, row, frames.count, link_type, packets.present)
                raise
            self.stored += stored
            row = following

    def _append(self, link_type: int, segment: _Segment, used: int) -> None:
        """Write a piece at the end of the segment, whole or not at all."""
        self._make_room(used, link_type)
        try:
            _write(segment.fd, memoryview(self._out)[:used])  # type: ignore[arg-type]
        except OSError:
            try:
                os.ftruncate(segment.fd, segment.size)
                os.lseek(segment.fd, segment.size, os.SEEK_SET)
            except OSError:  # the next batch gets another file
                self._close_segment(link_type)
            raise
        segment.size += used
        segment.dirty = True

    # --- segments --------------------------------------------------------------------------------------------------

    def _segment(self, link_type: int, ts_ns: int) -> _Segment:
        """The open segment for a link type, or a new one that begins at this time."""
        segment = self._open.get(link_type)
        if segment is not None:
            if os.fstat(segment.fd).st_nlink:
                return segment
            self._close_segment(link_type)  # deleted by the operator, or by the ring of another process
        self._scan()
        self._make_room(_DISK_BLOCK, link_type)
        self._sequence += 1
        name = f"{max(0, ts_ns):019d}-{self._run}{self._sequence:06d}.pcap"
        path = self._folder / name
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        header = struct.pack("<IHHiIII", PCAP_MAGIC_NS, 2, 4, 0, 0, MAX_CAPLEN, link_type)
        try:
            _write(fd, memoryview(header))
        except OSError:
            os.close(fd)
            path.unlink()
            raise
        segment = self._open[link_type] = _Segment(path, f"{self._sensor}/{name}", fd, len(header))
        return segment

    def _scan(self) -> None:
        """Take stock of the directory: segments of earlier runs count and are deleted first."""
        make_directories(self._folder)
        ours = {segment.path.name for segment in self._open.values()}
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                match = _NAME.fullmatch(entry.name)
                if match is not None and entry.name not in ours:
                    with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                        found.append((match[1], Path(entry.path), _on_disk(entry.stat().st_size)))
        found.sort()  # by run and number: in the order they were written, whatever their frames' times are
        self._closed = deque((path, size) for _, path, size in found)
        self._closed_bytes = sum(size for _, size in self._closed)

    def _make_room(self, more: int, link_type: int) -> None:
        """Delete the oldest segments until `more` bytes for a segment of `link_type` stay within the limit."""
        while self._closed_bytes + sum(_on_disk(s.size) for s in self._open.values()) + _on_disk(more) > self._limit:
            if not self._closed:
                other = next((kind for kind in self._open if kind != link_type), None)
                if other is None:
                    return
                self._close_segment(other)
            path, size = self._closed[0]
            path.unlink(missing_ok=True)
            self._closed.popleft()
            self._closed_bytes -= size

    def _close_segment(self, link_type: int) -> None:
        segment = self._open.pop(link_type)
        with contextlib.suppress(OSError):
            os.close(segment.fd)
        size = _on_disk(segment.size)
        self._closed.append((segment.path, size))
        self._closed_bytes += size

    # --- the end ---------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """fsync what was written to open segments. A failure is reported, not raised.

        A full segment is closed without it: its last seconds may be missing after a power cut, never after a crash of
        the engine. Readers compare each record with its row and count such frames as missing.
        """
        for segment in self._open.values():
            if segment.dirty:
                try:
                    os.fsync(segment.fd)
                    segment.dirty = False
                except OSError as error:
                    self._report(error)

    def close(self) -> None:
        """fsync and close everything. The ring can be used again; it then begins new segments."""
        self.sync()
        for link_type in list(self._open):
            self._close_segment(link_type)

    def _report(self, error: OSError) -> None:
        now = time.monotonic()
        if self._on_failure is None or now - self._reported_at < _REPORT_EVERY_S:
            return
        self._reported_at = now
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        self._on_failure(StoreError(
            f"raw frames {error.filename or self._folder}: cannot write: {reason}; rows go on without them; "
            "free some space, or use --frames-limit or --frames off"
        ))  # fmt: skip


def _write(fd: int, data: memoryview) -> None:
    """All of it, in as few calls as the system allows."""
    done = os.write(fd, data)
    while done < len(data):
        done += os.write(fd, data[done:])
