"""The bytes of one direction of a connection whose parser wants heads and lines but not what lies between them."""

from __future__ import annotations

from typing import Final

_HELD: Final = 8  # segments kept while one before them is missing
_PATIENCE_US: Final = 3_000_000  # a missing segment that is not there by then was not captured
_BEHIND: Final = 1 << 24  # further back than this is another stream, not a retransmission


def distance(seq: int, origin: int) -> int:
    """How far `seq` is ahead of `origin`, in TCP's arithmetic modulo 2^32 (RFC 9293 3.4)."""
    return (seq - origin + 0x8000_0000 & 0xFFFF_FFFF) - 0x8000_0000


class Segments:
    """Bytes in order in `buffer`, from which the parser consumes what it has read. Bounded.

    The kernel hands over some segments of a connection, not all. While `buffer` is empty a gap is taken to be payload
    that was not wanted: the segment after it is simply next. While something is half read in `buffer`, segments after
    a gap are held until the missing one comes (late or again); bytes already there win over other copies. A subclass
    may say that more must wait.

        segments.add(message.seq, message.data, message.ts)
        while segments.ready():
            ... read segments.buffer, then consume() or discard() ...
    """

    __slots__ = ("_back", "_held", "_latest", "_next", "buffer", "ts")

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.ts = 0  # time of the segment that began `buffer`
        self._next: int | None = None  # sequence number of the first byte after `buffer`
        self._back: int | None = None  # what `_next` was before `buffer` began, while nothing of it is consumed
        self._latest = 0
        self._held: list[tuple[int, int, bytes]] = []

    @property
    def position(self) -> int:
        """Sequence number of the first byte of `buffer`."""
        return ((self._next or 0) - len(self.buffer)) & 0xFFFF_FFFF

    @property
    def stuck(self) -> bool:
        """What is missing will not come any more: too much or too late came what is after it."""
        return bool(self._held) and (len(self._held) >= _HELD or self._latest - self.ts > _PATIENCE_US)

    def add(self, seq: int, data: bytes, ts: int) -> None:
        """Take a segment in."""
        if self._next is None or distance(seq, self._next) < -_BEHIND:
            self._next = seq
            self._held.clear()
            self.buffer.clear()
        self._latest = ts
        if len(self._held) < _HELD:
            self._held.append((seq, ts, data))

    def ready(self, anything: bool = False) -> bool:
        """Move what can be read now from the held segments to `buffer`; False when there is none.

        With `anything`, what is held for something else that must come first is read as well.
        """
        while self._held and self._next is not None:
            at = self._first() if len(self._held) > 1 else 0
            seq, ts, data = self._held[at]
            ahead = distance(seq, self._next)
            if ahead > 0 and (self.buffer or (not anything and self.must_wait(seq, data))):
                return False
            del self._held[at]
            if ahead < 0:
                data = data[-ahead:]
            if not data:
                continue
            if not self.buffer:
                self.ts, self._back = ts, self._next
            self._next = (self._next + max(ahead, 0) + len(data)) & 0xFFFF_FFFF
            self.buffer += data
            return True
        return False

    def must_wait(self, seq: int, data: bytes) -> bool:
        """True when a segment after a gap is of no use before what is missing."""
        return False

    def consume(self, length: int) -> None:
        """The first bytes of `buffer` have been read."""
        del self.buffer[:length]
        self._back = None

    def discard(self) -> None:
        """Forget `buffer`; when nothing of it was consumed, its bytes and those before it may still come."""
        self.buffer.clear()
        if self._back is not None:
            self._next, self._back = self._back, None

    def _first(self) -> int:
        """Index of the held segment that is next in the stream."""
        origin = self._held[0][0]
        return min(range(len(self._held)), key=lambda i: distance(self._held[i][0], origin))
