"""Where DNS messages are: which payloads are messages at all, and how TCP carries them (RFC 7766)."""

from __future__ import annotations

import struct
from typing import Final

from engine.dissect._dns_message import CLASSES, HEADER, OPCODES, PAIR, TYPES, read_name, skip_records
from engine.dissect.base import Message

_MAX_MESSAGE: Final = 65_537  # a whole message over TCP
_MAX_LATE: Final = 16  # segments that wait for an earlier one
_OTHER: Final = 1 << 24  # further back than this is another connection, not a retransmission
_HOST_BYTES: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
UNREADABLE: Final = (ValueError, IndexError, struct.error)


def fits(data: bytes, room: int) -> bool:
    """Whether a header is of a kind that exists, with the usual one question or no more than fit in `room` bytes."""
    _, flags, questions, answers, authority, additional = HEADER.unpack_from(data)
    least = 12 + 5 * questions + 11 * (answers + authority + additional)
    return flags >> 11 & 15 in OPCODES and (questions == 1 or least <= room)


def is_dns(data: bytes, size: int, whole: bool, known: bool) -> bool:
    """Whether a first message of `size` bytes, `data` what there is of it, is one.

    On a known port it is unless the header contradicts that, and even then if a question can be read. On any other the
    whole of it must be as common messages are: one question for a host name, records of known types, nothing after.
    """
    _, flags, questions, answers, authority, additional = HEADER.unpack_from(data)
    if known:
        return fits(data, size if whole else 65_535) or _has_question(data)
    is_query = not flags & 0x8000
    if questions != 1 or flags & 0x7840 or answers + authority + additional > 200:
        return False
    if is_query and (flags & 0x068F or answers or authority or additional > 2):
        return False
    try:
        name, pos = read_name(data, 12)
        qtype, qclass = PAIR.unpack_from(data, pos)
        if name == "." or not _HOST_BYTES.issuperset(name.encode()) or qtype not in TYPES or qclass not in CLASSES:
            return False
        return len(data) < size or skip_records(data, pos + 4, answers + authority + additional) == size
    except UNREADABLE:
        return False


def _has_question(data: bytes) -> bool:
    """Whether a question of a common class for a printable name comes after the header."""
    try:
        name, pos = read_name(data, 12)
        return "\\" not in name and PAIR.unpack_from(data, pos)[1] & 0x7FFF in CLASSES
    except UNREADABLE:
        return False


Found = list[tuple[bytes, int, bool]]  # messages, the time of the segment that ended each, False if it was cut off


class Splitter:
    """The messages of one direction of a TCP connection, each after its length in two bytes (RFC 7766 8). Bounded.

    Where a segment is missing for good, it begins anew with one that looks like the beginning of a message.
    """

    __slots__ = ("_buffer", "_known", "_late", "_next", "in_step")

    def __init__(self, known: bool) -> None:
        self._known = known
        self._buffer = bytearray()
        self._late: dict[int, tuple[bytes, int]] = {}  # by sequence number, with their times
        self._next = 0
        self.in_step = False  # `_next` and the buffer mean something

    def add(self, message: Message) -> Found:
        """Take a segment in; the messages that are complete now."""
        done = self._take(message.seq, message.data, message.ts, message.whole)
        if not message.whole:
            if len(self._buffer) > 14:
                done.append((bytes(self._buffer[2:]), message.ts, False))
            self._restart()
        return done

    def finish(self) -> Found:
        """Nothing more comes: the messages in what still waits for an earlier segment."""
        done: Found = []
        while self._late:
            done += self._begin_anew()
        return done

    def _take(self, seq: int, data: bytes, ts: int, whole: bool = True) -> Found:
        ahead = self._ahead(seq) if self.in_step else 0
        if ahead < -_OTHER:
            self._restart()
        elif ahead > 0:
            # On other ports the kernel hands over what looks like a beginning: what is between was not wanted.
            if (self._known or not _begins(data, False)) and self._has_room(ahead, len(data)) and whole:
                self._late.setdefault(seq, (data, ts))
                return []
            return self._begin_anew((seq, (data, ts)))
        if not self.in_step:
            if not _begins(data, self._known):
                return []
            self.in_step, self._next, ahead = True, seq, 0
        done = self._append(data[-ahead:] if ahead else data, ts)
        while self._late:
            first = min(self._late, key=self._ahead)
            ahead = self._ahead(first)
            if ahead > 0:
                break
            piece, at = self._late.pop(first)
            done += self._append(piece[-ahead:], at)
        return done

    def _has_room(self, ahead: int, size: int) -> bool:
        kept = sum(len(data) for data, _ in self._late.values())
        return len(self._late) < _MAX_LATE and max(ahead, kept) + size <= _MAX_MESSAGE

    def _begin_anew(self, *last: tuple[int, tuple[bytes, int]]) -> Found:
        """A segment was lost: go on with those that waited for it. The first is taken or dropped, so this ends."""
        waiting = sorted(self._late.items(), key=lambda item: self._ahead(item[0]))
        self._restart()
        done: Found = []
        for seq, (data, ts) in (*waiting, *last):
            done += self._take(seq, data, ts)
        return done

    def _ahead(self, seq: int) -> int:
        """How many bytes are missing before `seq`; negative when some are there already."""
        return (seq - self._next + 0x8000_0000 & 0xFFFF_FFFF) - 0x8000_0000

    def _restart(self) -> None:
        self._buffer.clear()
        self._late.clear()
        self.in_step = False

    def _append(self, data: bytes, ts: int) -> Found:
        """Continue the buffer and take the complete messages out."""
        buffer, pos, done = self._buffer, 0, Found()
        buffer += data
        self._next = self._next + len(data) & 0xFFFF_FFFF
        while len(buffer) - pos >= 2:
            size = buffer[pos] << 8 | buffer[pos + 1]
            if size < 12:  # shorter than a header: these are not the two bytes of a length
                self._restart()
                return done
            if pos + 2 + size > len(buffer):
                break
            done.append((bytes(buffer[pos + 2 : pos + 2 + size]), ts, True))
            pos += 2 + size
        if pos:
            del buffer[:pos]
        return done


def _begins(data: bytes, known: bool) -> bool:
    """Whether a segment looks like the beginning of a message; some send its length, or half of it, alone."""
    if len(data) < 2:
        return known
    size = data[0] << 8 | data[1]
    if len(data) < 14:
        return known and size >= 12
    # Nobody sends two questions; in the middle of a message any number of them can seem to stand here.
    return size >= 12 and not data[6] and data[7] < 2 and is_dns(data[2 : 2 + size], size, True, known)
