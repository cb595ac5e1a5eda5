"""Savefiles (pcap and pcapng) as a source of frames.

The file is read straight into the batch's arena in chunks, and a kernel notes where each frame lies. libpcap's own
reader is not used: it refuses compressed files and pcapng files whose interfaces differ in link type or snaplen.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from engine.capture.bpf import BpfProgram, compile_filter
from engine.capture.source import ReadResult
from engine.capture.streams import STDIN, ByteStream, open_stream
from engine.constants import (
    LINK_TYPE_NAMES,
    MAX_CAPLEN,
    PCAP_MAGIC_MODIFIED,
    PCAP_MAGIC_NS,
    PCAP_MAGIC_US,
    PCAPNG_BLOCK_SHB,
)
from engine.errors import CorruptFile, EngineError, TruncatedFile
from engine.kernels import walk
from engine.metrics import SourceCounters
from engine.packets import F_CAPLEN, F_OFFSET, FrameBatch

_CHUNK: Final = 256 << 10
_ALWAYS: Final = np.iinfo(np.int64).max
NEVER_NS: Final = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class _PcapForm:
    """What the file header says about the records."""

    link_type: int
    form: np.ndarray[Any, np.dtype[np.int64]]


class SavefileSource:
    """One savefile, by its path, or `-` for standard input; `stream` replaces opening it.

    `name` is the path as given; bytes in it that are not UTF-8 show as escapes, since `source` is text.
    """

    def __init__(self, path: str, bpf_filter: str = "", stream: ByteStream | None = None) -> None:
        self._path = path
        self.name = os.fsencode(path).decode("utf-8", "backslashreplace")
        self._given_stream = stream
        self._filter_text = bpf_filter
        self._filters: dict[int, BpfProgram] = {}
        self._stream: ByteStream | None = None
        self._pcap: _PcapForm | None = None
        self._interfaces = np.zeros((walk.N_INTERFACE_ROWS, 0), np.int64)
        self._swapped = 0
        self._tail = np.empty(0, np.uint8)  # bytes read but not walked, between calls
        self._skip = 0  # bytes of an oversized pcapng block still to be passed over
        self._frames = 0
        self._limits = np.array([0, _ALWAYS], np.int64)
        self._state = np.array([0, 0, 0, NEVER_NS], np.int64)
        self._failure: EngineError | None = None
        self._ended = False
        self._base = 0  # frames read before those in the present batch
        self._budget: int | None = None
        self._taken = 0  # bytes of the block that `_read_block` took in

    def open(self) -> None:
        self._stream = self._given_stream or open_stream(self._path)
        head = self._need(4)
        magic = struct.unpack("<I", head)[0]
        swapped = struct.unpack(">I", head)[0]
        if magic == PCAPNG_BLOCK_SHB:
            return  # the section header is a block like any other
        for value, big_endian in ((magic, 0), (swapped, 1)):
            if value in (PCAP_MAGIC_US, PCAP_MAGIC_NS, PCAP_MAGIC_MODIFIED):
                self._open_pcap(value, big_endian)
                return
        raise CorruptFile(
            f"savefile {self._label} is neither pcap nor pcapng (it begins with {head.hex(' ')}); give a capture file"
        )

    @property
    def _label(self) -> str:
        return "on standard input" if self._path == STDIN else self.name

    def _need(self, n: int) -> bytes:
        """The first `n` bytes of the file, kept for the walker. For `open` only."""
        while len(self._tail) < n:
            chunk = np.empty(n - len(self._tail), np.uint8)
            got = self._stream_into(chunk.data)
            if got == 0:
                raise TruncatedFile(f"savefile {self._label} ends inside its header; it holds no frames")
            if got > 0:
                self._tail = np.concatenate([self._tail, chunk[:got]])
        return self._tail[:n].tobytes()

    def _open_pcap(self, magic: int, big_endian: int) -> None:
        """The 24-byte file header (draft-ietf-opsawg-pcap 4). The link type is the low 16 bits of its last word."""
        major, minor, _, _, _, network = struct.unpack(">HHIIII" if big_endian else "<HHIIII", self._need(24)[4:])
        if not (major == 2 and minor <= 4) and major != 543:
            raise CorruptFile(
                f"savefile {self._label} has pcap version {major}.{minor}; versions 2.0 to 2.4 can be read"
            )
        link_type = network & 0xFFFF
        self._check_link_type(link_type)
        header = 24 if magic == PCAP_MAGIC_MODIFIED else 16
        unit = 1 if magic == PCAP_MAGIC_NS else 1000
        order = 2 if minor == 3 else int(minor < 3)
        self._pcap = _PcapForm(link_type, np.array([big_endian, header, unit, order], np.int64))
        self._tail = self._tail[24:]
        if self._filter_text:
            self._filters[link_type] = compile_filter(self._filter_text, link_type, MAX_CAPLEN)

    def _check_link_type(self, link_type: int) -> None:
        if link_type not in LINK_TYPE_NAMES:
            known = ", ".join(f"{name} ({number})" for number, name in LINK_TYPE_NAMES.items())
            raise CorruptFile(
                f"savefile {self._label} has link type {link_type}, which has no decoder; known are {known}"
            )

    def limit(self, frames: int | None = None, until_ns: int | None = None) -> None:
        """For the next reads: stop after this many frames more in all, and before frames later than `until_ns`."""
        self._budget = frames
        self._limits[walk.UNTIL_NS] = _ALWAYS if until_ns is None else until_ns

    def _is_limited(self) -> bool:
        return self._budget is not None or self._limits[walk.UNTIL_NS] != _ALWAYS

    @property
    def next_ns(self) -> int | None:
        """Time of the frame that a `limit` held back, None before the first."""
        ns = int(self._state[walk.NEXT_NS])
        return None if ns == NEVER_NS else ns

    def read(self, batch: FrameBatch) -> ReadResult:
        if self._failure is not None:
            failure, self._failure, self._ended = self._failure, None, True
            raise failure
        if self._ended:
            return ReadResult.END
        before = batch.count
        self._base = self._frames - before
        try:
            result = self._fill(batch)
        except EngineError as error:
            if batch.count == before:
                self._ended = True
                raise
            self._failure = error  # first the frames that were whole, then the news
            result = ReadResult.FULL
        self._frames += batch.count - before
        if self._budget is not None:
            self._budget -= batch.count - before
        return result

    def _fill(self, batch: FrameBatch) -> ReadResult:
        arena = batch.arena
        start = self._end_of(batch)
        if len(arena) - start < len(self._tail) + _CHUNK:
            return ReadResult.FULL
        stop = start + len(self._tail)
        arena[start:stop] = self._tail
        rows = batch.frames.shape[1]
        self._limits[walk.MAX_COUNT] = rows if self._budget is None else min(rows, batch.count + self._budget)
        try:
            while True:
                start, reason = self._walk(batch, start, stop)
                if reason == walk.LIMIT and (batch.count >= rows or self._is_limited()):
                    return ReadResult.FULL if batch.count >= rows else ReadResult.IDLE
                if reason == walk.LIMIT:
                    continue  # the filter made room
                if reason == walk.BLOCK and self._read_block(arena, start, stop):
                    start += self._taken
                    continue
                if reason == walk.BAD_RECORD:
                    whole = self._base + batch.count
                    raise CorruptFile(
                        f"savefile {self._label} is damaged after frame {whole}; the frames before were read"
                    )
                if len(arena) - stop < _CHUNK:
                    return ReadResult.FULL
                got = self._stream_into(arena.data[stop : stop + _CHUNK])
                if got < 0:
                    return ReadResult.IDLE
                if got == 0:
                    self._at_end(stop - start, batch.count)
                    return ReadResult.END
                stop += got
        finally:
            self._tail = arena[start:stop].copy()

    @staticmethod
    def _end_of(batch: FrameBatch) -> int:
        return (
            int(batch.frames[F_OFFSET, batch.count - 1] + batch.frames[F_CAPLEN, batch.count - 1]) if batch.count else 0
        )

    def _stream_into(self, target: memoryview) -> int:
        assert self._stream is not None
        while self._skip:
            got = self._stream.readinto(target[: min(len(target), self._skip)])
            if got <= 0:
                return got
            self._skip -= got
        return self._stream.readinto(target)

    def _walk(self, batch: FrameBatch, start: int, stop: int) -> tuple[int, int]:
        first = batch.count
        self._state[walk.COUNT] = first
        if self._pcap is not None:
            walk.walk_pcap(
                batch.arena, start, stop, self._pcap.form, self._pcap.link_type, batch.frames, self._limits, self._state
            )
        else:
            walk.walk_pcapng(
                batch.arena, start, stop, self._swapped, self._interfaces, self._interfaces.shape[1],
                batch.frames, self._limits, self._state,
            )  # fmt: skip
        batch.count = int(self._state[walk.COUNT])
        for program in self._filters.values():
            program.apply(batch, first)
        return int(self._state[walk.AT]), int(self._state[walk.REASON])

    def _read_block(self, arena: Any, start: int, stop: int) -> bool:
        """Take in a section header or interface description at `start`; False when it is not all there yet."""
        head = arena[start : start + 28].tobytes()
        kind = struct.unpack_from(">I" if self._swapped else "<I", head)[0]
        if kind == PCAPNG_BLOCK_SHB:
            if stop - start < 28:
                return False
            self._begin_section(head)
        size = struct.unpack_from(">I" if self._swapped else "<I", head, 4)[0]
        least = 28 if kind == PCAPNG_BLOCK_SHB else 20
        if size < least or size % 4 or (kind == 1 and size > MAX_CAPLEN):
            raise CorruptFile(
                f"savefile {self._label} is damaged: a pcapng block of {size} bytes; frames before that were read"
            )
        if size > MAX_CAPLEN:  # too large to hold and nothing in it is ours: pass over it
            self._skip = max(0, size - (stop - start))
            self._taken = min(size, stop - start)
            return True
        if stop - start < size:
            return False
        if kind == 1:
            self._add_interface(arena[start : start + size].tobytes())
        self._taken = size
        return True

    def _begin_section(self, head: bytes) -> None:
        """Section header block (draft-ietf-opsawg-pcapng 4.1): byte order, version; interfaces start anew."""
        order = head[8:12]
        if order not in (b"\x4d\x3c\x2b\x1a", b"\x1a\x2b\x3c\x4d"):
            raise CorruptFile(
                f"savefile {self._label} has a pcapng section without byte-order magic; frames before that were read"
            )
        self._swapped = int(order == b"\x1a\x2b\x3c\x4d")
        major, minor = struct.unpack_from(">HH" if self._swapped else "<HH", head, 12)
        if major != 1:
            raise CorruptFile(f"savefile {self._label} has pcapng version {major}.{minor}; version 1 can be read")
        self._interfaces = np.zeros((walk.N_INTERFACE_ROWS, 0), np.int64)

    def _add_interface(self, block: bytes) -> None:
        """Interface description block (4.2) with the options that change timestamps: if_tsresol 9, if_tsoffset 14."""
        end = ">" if self._swapped else "<"
        link_type, _, snaplen = struct.unpack_from(end + "HHI", block, 8)
        power_of_10, exponent, offset = 1, 6, 0
        at = 16
        while at + 4 <= len(block) - 4:
            code, length = struct.unpack_from(end + "HH", block, at)
            value = block[at + 4 : at + 4 + length]
            if code == 0 or len(value) < length:
                break
            if code == 9 and length == 1:
                power_of_10, exponent = int(value[0] < 128), value[0] & 0x7F
            elif code == 14 and length == 8:
                offset = struct.unpack(end + "q", value)[0]
            at += 4 + (length + 3 & ~3)
        if exponent > (28 if power_of_10 else 63):  # finer than 64 bits can scale: every time would be 0
            raise CorruptFile(
                f"savefile {self._label} has an interface with timestamp resolution {exponent}; at most 28 can be read"
            )
        row = np.array([[link_type], [snaplen], [power_of_10], [exponent], [offset]], np.int64)
        self._interfaces = np.ascontiguousarray(np.hstack([self._interfaces, row]))
        if self._filter_text and link_type in LINK_TYPE_NAMES and link_type not in self._filters:
            self._filters[link_type] = compile_filter(self._filter_text, link_type, MAX_CAPLEN)

    def _at_end(self, left: int, count: int) -> None:
        if left or self._skip:
            raise TruncatedFile(
                f"savefile {self._label} is cut off inside a record; its {self._base + count} whole frames were read"
            )

    def counters(self) -> SourceCounters:
        return SourceCounters(received=self._frames)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        for program in self._filters.values():
            program.close()
        self._filters = {}
