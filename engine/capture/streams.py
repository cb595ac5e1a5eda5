"""The bytes of a savefile: a file, standard input, or either of them compressed with gzip, zstd or lz4."""

from __future__ import annotations

import io
import select
import sys
from typing import Any, Final, Protocol

from engine.errors import CaptureError, CorruptFile

STDIN: Final = "-"
_COMPRESSED: Final = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\x04\x22\x4d\x18", "lz4"))


class ByteStream(Protocol):
    """Bytes in order. `readinto` gives 0 at the end and -1 when nothing has arrived yet (a pipe)."""

    def readinto(self, target: memoryview) -> int:
        """Read at most len(target) bytes. Raises CorruptFile when a compressed stream is damaged or cut."""

    def close(self) -> None:
        """Close; safe to call twice."""


class _PlainStream:
    """A file or pipe, read without waiting for more than is there.

    `buffered` bytes were read ahead to look at the head. They come first and at once, since a pipe that goes quiet
    after them is not readable; what follows is read past the buffer.
    """

    def __init__(self, file: io.BufferedReader, buffered: int, name: str) -> None:
        self._file = file
        self._waits = not file.seekable()
        self._buffered = buffered
        self._name = name

    def readinto(self, target: memoryview) -> int:
        try:
            if self._buffered:
                ahead = self._file.readinto(target[: self._buffered])
                self._buffered -= ahead
                return ahead
            if self._waits and not select.select([self._file], [], [], 0.05)[0]:
                return -1
            got = self._file.raw.readinto(target)
            return -1 if got is None else got
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise CaptureError(f"savefile {self._name} cannot be read further: {reason}; check its disk") from None

    def close(self) -> None:
        self._file.close()


class _Unlocked:
    """The file for pyarrow to read from. The bytes read ahead come first; what follows is read past the buffer:

    a thread that waits for a pipe inside a BufferedReader holds its lock, and the interpreter cannot end then.
    """

    closed = False

    def __init__(self, file: io.BufferedReader, buffered: int) -> None:
        self._file = file
        self._buffered = buffered

    def read(self, n: int) -> bytes:
        if self._buffered:
            ahead = self._file.read(min(n, self._buffered))
            self._buffered -= len(ahead)
            return ahead
        data: bytes | None = None
        while data is None:  # nothing yet, in a pipe that its owner made non-blocking
            select.select([self._file], [], [])
            data = self._file.raw.read(n)
        return data

    def close(self) -> None:
        """The stream closes the file."""


class _CompressedStream:
    """pyarrow's decompressors read many members or frames in a row and give all bytes before a cut."""

    def __init__(self, file: io.BufferedReader, buffered: int, codec: str, name: str) -> None:
        import pyarrow as pa

        self._file = file
        self._stream: Any = pa.CompressedInputStream(pa.PythonFile(_Unlocked(file, buffered), "r"), codec)
        self._what = f"savefile {name} ({codec})"

    def readinto(self, target: memoryview) -> int:
        try:
            return int(self._stream.readinto(target))
        except OSError as error:
            reason = str(error).split(". ")[0].strip()
            raise CorruptFile(f"{self._what} is damaged or cut off: {reason}; frames before that were read") from None

    def close(self) -> None:
        self._stream.close()
        self._file.close()


def open_stream(name: str) -> ByteStream:
    """Open a path, or `-` for standard input. Raises CaptureError when it cannot be opened, CorruptFile when empty."""
    if name == STDIN and (sys.stdin is None or sys.stdin.isatty()):
        what = "closed" if sys.stdin is None else "a terminal"
        raise CaptureError(
            f"standard input is {what}; pipe a savefile into it, for example: tcpdump -w - | engine replay -"
        )
    file: Any = None
    try:
        file = sys.stdin.buffer if name == STDIN else open(name, "rb")  # noqa: SIM115 — closed by the stream
        head = file.peek(4)
    except OSError as error:
        if file is not None:
            file.close()
        raise CaptureError(
            f"savefile {name}: {(error.strerror or str(error)).lower()}; give a readable pcap or pcapng file"
        ) from None
    if not head:
        file.close()
        raise CorruptFile(f"savefile {name} is empty; give a pcap or pcapng file")
    for magic, codec in _COMPRESSED:
        if head.startswith(magic):
            return _CompressedStream(file, len(head), codec, name)
    return _PlainStream(file, len(head), name)
