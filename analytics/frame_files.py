"""Reading the ring of raw frames: records of its segments by file and offset, many at a time.

What is asked for may be gone: the ring deletes its oldest segments, also while we read. And after a power cut the end
of a segment may be missing. So nothing is taken for a record before its header agrees with the row.
"""

from __future__ import annotations

import os
import re
import struct
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engine.constants import MAX_CAPLEN, PCAP_MAGIC_NS
from engine.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RECORD_HEADER: Final = 16
FILE_HEADER: Final = 24
MAX_SECONDS: Final = (1 << 32) - 1
_OPEN_FILES: Final = 64
_GAP: Final = 4096  # reading so many bytes in vain costs less than another call
_NAME: Final = re.compile(r"sensor=[A-Za-z0-9_.-]{1,64}/\d+-[0-9a-f]+\.pcap")


@dataclass(frozen=True, slots=True)
class Rows:
    """Where records are and what their headers must say, one entry per row of `packets`.

    file: int64[n], index into the list of files. offset: int64[n], bytes. ts_us, ts_nanos: int64[n], time of the
    frame. wirelen, caplen: int64[n], bytes; the record may hold fewer bytes than caplen.
    """

    file: NDArray[np.int64]
    offset: NDArray[np.int64]
    ts_us: NDArray[np.int64]
    ts_nanos: NDArray[np.int64]
    wirelen: NDArray[np.int64]
    caplen: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.file)

    def part(self, start: int, stop: int) -> Rows:
        """Rows start to stop - 1."""
        return Rows(*(getattr(self, name)[start:stop] for name in self.__slots__))

    def header(self) -> NDArray[np.uint32]:
        """uint32[n, 4]: seconds, nanoseconds, caplen and wirelen as a pcap record header has them, clamped to it."""
        seconds, micros = np.divmod(self.ts_us, 1_000_000)
        late, early = seconds > MAX_SECONDS, seconds < 0
        out = np.empty((len(self), 4), np.uint32)
        out[:, 0] = np.clip(seconds, 0, MAX_SECONDS)
        out[:, 1] = np.where(late, 999_999_999, np.where(early, 0, micros * 1000 + self.ts_nanos))
        out[:, 2] = self.caplen
        out[:, 3] = np.clip(self.wirelen, 0, MAX_SECONDS)
        return out


@dataclass(frozen=True, slots=True)
class Records:
    """Records in memory. data: uint8. at: int64[n], first byte of each frame in it. caplen: int64[n], its length.
    ok: bool[n], whether the record is there; the other arrays mean nothing where it is not."""

    data: NDArray[np.uint8]
    at: NDArray[np.int64]
    caplen: NDArray[np.int64]
    ok: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Plan:
    """Pieces of files to read, for `FrameFiles.read`. `size` is bytes in all."""

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    begin: NDArray[np.int64]
    length: NDArray[np.int64]
    size: int


def items(data: NDArray[np.uint8], size: int) -> NDArray[Any]:
    """The memory as overlapping items of `size` bytes, one at each byte: to copy many pieces of a length at once."""
    return np.ndarray((len(data) - size + 1,), f"V{size}", data, 0, (1,))


def plan(rows: Rows) -> Plan:
    """Which pieces to read: records of a file that lie near each other make one piece."""
    order = np.lexsort((rows.offset, rows.file))
    file, offset = rows.file[order], rows.offset[order]
    end = offset + RECORD_HEADER + np.clip(rows.caplen[order], 0, MAX_CAPLEN)
    is_start = np.ones(len(rows), bool)
    is_start[1:] = (file[1:] != file[:-1]) | (offset[1:] - end[:-1] > _GAP)
    starts = np.flatnonzero(is_start)
    begin = offset[starts]
    length = np.maximum.reduceat(end, starts) - begin
    return Plan(order, starts, begin, length, int(length.sum()))


class FrameFiles:
    """Segments of one lake's ring. `close` it; not for several threads."""

    def __init__(self, lake: Path) -> None:
        self._root = lake / "frames"
        self._descriptors: OrderedDict[str, int] = OrderedDict()
        self._buffer = np.empty(0, np.uint8)

    def link_type(self, name: str) -> int | None:
        """The link type of a segment's frames, None when it is gone or no segment.

        Raises StoreError when it is there and may not be read.
        """
        try:
            header = os.pread(self._descriptor(name), FILE_HEADER, 0)
        except PermissionError:
            raise StoreError(
                f"raw frames {self._root / name} cannot be read: permission denied; become the lake's owner, "
                "for example with `sudo -u NAME`"
            ) from None
        except OSError:
            return None
        if len(header) < FILE_HEADER or struct.unpack_from("<I", header)[0] != PCAP_MAGIC_NS:
            return None
        return int(struct.unpack_from("<I", header, 20)[0]) & 0xFFFF

    def read(self, files: Sequence[str], rows: Rows, pieces: Plan) -> Records:
        """The records of rows, as planned; valid until the next call. Reads about `pieces.size` bytes."""
        if len(self._buffer) < pieces.size + RECORD_HEADER:
            self._buffer = np.empty(pieces.size + RECORD_HEADER, np.uint8)
        data = self._buffer
        base = np.cumsum(pieces.length) - pieces.length
        piece_of = np.repeat(np.arange(len(pieces.starts)), np.diff(pieces.starts, append=len(rows)))
        got = np.zeros(len(pieces.starts), np.int64)
        names = rows.file[pieces.order[pieces.starts]].tolist()
        view = memoryview(data)  # type: ignore[arg-type]
        todo = zip(names, pieces.begin.tolist(), base.tolist(), pieces.length.tolist(), strict=True)
        for i, (file, begin, to, length) in enumerate(todo):
            got[i] = self._read_piece(files[file], begin, view[to : to + length])
        header_at = np.empty(len(rows), np.int64)
        limit = np.empty(len(rows), np.int64)
        header_at[pieces.order] = (base - pieces.begin)[piece_of] + rows.offset[pieces.order]
        limit[pieces.order] = (base + got)[piece_of]
        found = items(data, RECORD_HEADER)[header_at].view(np.uint32).reshape(-1, 4)
        caplen = found[:, 2].astype(np.int64)
        wanted = rows.header()
        ok = (found[:, [0, 1, 3]] == wanted[:, [0, 1, 3]]).all(axis=1)
        ok &= (caplen <= rows.caplen) & (header_at + RECORD_HEADER + caplen <= limit)
        return Records(data, header_at + RECORD_HEADER, caplen, ok)

    def _read_piece(self, name: str, begin: int, target: memoryview) -> int:
        """Bytes read, fewer than asked for where the file ends, 0 when there is nothing to read."""
        done = 0
        try:
            while done < len(target):
                n = os.preadv(self._descriptor(name), [target[done:]], begin + done)
                if n == 0:
                    break
                done += n
        except OSError:
            pass
        return done

    def _descriptor(self, name: str) -> int:
        """The open file. Raises OSError when it is gone, or no name of a segment."""
        if name in self._descriptors:
            self._descriptors.move_to_end(name)
            return self._descriptors[name]
        if _NAME.fullmatch(name) is None:
            raise FileNotFoundError(name)
        while len(self._descriptors) >= _OPEN_FILES:
            os.close(self._descriptors.popitem(last=False)[1])
        descriptor = self._descriptors[name] = os.open(self._root / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        return descriptor

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])
