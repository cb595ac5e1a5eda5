"""Lines of text protocols (SMTP, FTP): commands of one side, replies with three digits of the other."""

from __future__ import annotations

import re
from typing import Final

from engine.dissect._segments import Segments

LINE_LIMIT: Final = 4096
_REPLY: Final = re.compile(rb"([1-5]\d\d)(-|[ \t]|\Z|(?=[A-Za-z]))")


class Lines(Segments):
    """One direction as lines. Bounded: a line longer than LINE_LIMIT is handed out in parts."""

    __slots__ = ()

    def next_line(self, closing: bool = False) -> bytes | None:
        """The next line without its end, or None until there is one. With `closing` also what has no end."""
        end = self.buffer.find(b"\n", 0, LINE_LIMIT)
        if end < 0:
            if len(self.buffer) < LINE_LIMIT and not (closing and self.buffer):
                return None
            end = min(len(self.buffer), LINE_LIMIT) - 1
        line = bytes(self.buffer[: end + 1])
        self.consume(end + 1)
        return line.rstrip(b"\r\n")


def reply_of(line: bytes) -> tuple[int, bool, bytes] | None:
    """Code, whether it is the last line of its reply, and text (RFC 959 4.2, RFC 5321 4.2.1); None for other lines."""
    found = _REPLY.match(line)
    if found is None:
        return None
    return int(found[1]), found[2] != b"-", line[found.end() :].strip()


def is_reply(data: bytes) -> bool:
    """True when a message begins with a reply, so that its sender is the server."""
    return _REPLY.match(data[:4]) is not None
