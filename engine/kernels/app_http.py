"""HTTP/1 over TCP, read by a kernel: heads in one segment each, a request then its response (RFC 9112).

Bodies are passed over as `engine.dissect.http` does; whatever is not as usual is left to it, with what is known so far.
"""

import numpy as np

from engine.jit import helper, u8
from engine.kernels.app_rows import (
    E_COUNT,
    E_MESSAGE,
    E_OWN,
    M_LENGTH,
    M_START,
    M_TS,
    MISSING,
    NO_TEXT,
    SLAB,
    T_TEXT,
    W_OWN,
    keep,
    new_row,
)

# The row's own words.
(
    P_METHOD, P_HOST, P_PATH, P_AGENT, P_REFERER, P_STATUS, P_TYPE, P_REQUEST, P_LENGTH, P_VERSION, P_SERVER,
    P_LATENCY,
) = range(W_OWN, W_OWN + 12)  # fmt: skip

# Words of an entry. Of a side, the server's first: next sequence number, where the body ends (both -1 unknown), time
# of its last head, time of its last segment. Then what became of the client's last request.
E_NEXT, E_BODY_END, E_HEAD_TS, E_TS = E_OWN, E_OWN + 2, E_OWN + 4, E_OWN + 6
E_REQUEST = E_OWN + 8
ASKED_NOTHING, WAITING, ANSWERED = range(3)

_LINES, _MOST_HEAD, _MOST_METHOD = 200, 3072, 32
_CHUNKS, _MOST_CHUNKED = 256, 16_384 - _MOST_HEAD  # as far as one segment reaches into what Python looks at
_CHUNKED = np.frombuffer(b"chunked", np.uint8).copy()
_BODY = 1 << 30
# Kept fields, by the length of their names: no two have the same.
_NAMES = (
    "host", "server", "referer", "user-agent", "content-type", "authorization", "content-length", "transfer-encoding",
    "proxy-authorization",
)  # fmt: skip
_KEYS = np.frombuffer("".join(_NAMES).encode(), np.uint8).copy()
_NUMBER_OF = np.full(20, -1, np.int64)
_KEY_AT = np.zeros(20, np.int64)
for _n, _name in enumerate(_NAMES):
    _NUMBER_OF[len(_name)] = _n
    _KEY_AT[len(_name)] = sum(map(len, _NAMES[:_n]))
(_HOST, _SERVER, _REFERER, _AGENT, _TYPE, _AUTH, _CONTENT_LENGTH, _ENCODING, _PROXY_AUTH) = range(9)

# Words of a head, int64[N_HEAD]: start and length of each field (start -1 without), then
G_METHOD_N, G_TARGET, G_TARGET_N, G_VERSION, G_STATUS, G_END, N_HEAD = range(18, 25)


@helper
def _is_space(c):
    return c == 32 or 9 <= c <= 13


@helper
def _is_digit(c):
    return 48 <= c <= 57


@helper
def _read_version(buf, at, end, g):
    """HTTP/d.d at buf[at:], its digits to G_VERSION."""
    if end - at < 8 or u8(buf, at) != 72 or u8(buf, at + 1) != 84 or u8(buf, at + 2) != 84 or u8(buf, at + 3) != 80:
        return False
    if u8(buf, at + 4) != 47 or u8(buf, at + 6) != 46:
        return False
    if not _is_digit(u8(buf, at + 5)) or not _is_digit(u8(buf, at + 7)):
        return False
    g[G_VERSION] = (u8(buf, at + 5) - 48) * 10 + u8(buf, at + 7) - 48
    return True


@helper
def _read_status(buf, start, stop, g):
    if not _read_version(buf, start, stop, g) or stop - start < 12 or u8(buf, start + 8) != 32:
        return False
    status = np.int64(0)
    for i in range(start + 9, start + 12):
        if not _is_digit(u8(buf, i)):
            return False
        status = status * 10 + u8(buf, i) - 48
    g[G_STATUS] = status
    return stop - start == 12 or not _is_digit(u8(buf, start + 12))


@helper
def _read_request(buf, start, stop, g):
    at = start
    while at < stop and u8(buf, at) != 32:
        c = u8(buf, at)
        if not (65 <= c <= 90 or (at > start and (48 <= c <= 57 or c == 95 or c == 45))):
            return False
        at += 1
    g[G_METHOD_N] = at - start
    if at - start > _MOST_METHOD or at == start or stop - at < 11:
        return False
    target, version = at + 1, stop - 8
    if u8(buf, version - 1) != 32 or not _read_version(buf, version, stop, g) or g[G_VERSION] >= 20:
        return False
    g[G_TARGET] = target
    g[G_TARGET_N] = version - 1 - target
    if g[G_TARGET_N] < 1 or u8(buf, target) != 47 or (g[G_TARGET_N] > 1 and u8(buf, target + 1) == 47):
        return False
    for i in range(target, version - 1):
        c = u8(buf, i)
        if c < 33 or c > 126 or c == 64:
            return False
    return at - start != 7 or u8(buf, start) != 67 or u8(buf, start + 3) != 78  # CONNECT


@helper
def _read_field(buf, start, stop, g):
    """Take the line buf[start:stop], without its line feed, in if it is of a kept field. False when Python must."""
    if u8(buf, start) == 32 or u8(buf, start) == 9:
        return False
    colon = start
    while colon < stop and u8(buf, colon) != 58:
        colon += 1
    if colon == stop:
        return False
    end = colon
    while end > start and _is_space(u8(buf, end - 1)):
        end -= 1
    size = end - start
    if size >= 20 or _NUMBER_OF[size] < 0:
        return True
    key = _KEY_AT[size]
    for i in range(size):
        c = u8(buf, start + i)
        if (c + 32 if 65 <= c <= 90 else c) != np.int64(_KEYS[key + i]):
            return True
    number = _NUMBER_OF[size]
    if number == _AUTH or number == _PROXY_AUTH:
        return False
    if g[2 * number] >= 0:
        return True
    first, last = colon + 1, stop
    while first < last and _is_space(u8(buf, first)):
        first += 1
    while last > first and _is_space(u8(buf, last - 1)):
        last -= 1
    for i in range(first, last):
        c = u8(buf, i)
        if c < 32 or c > 126 or (c == 64 and number == _REFERER):
            return False
    g[2 * number] = first
    g[2 * number + 1] = last - first
    return True


@helper
def read_head(buf, start, end, g):
    """Read a whole head that buf[start:end] begins with; G_END is where it ends. False when Python must."""
    for n in range(9):
        g[2 * n] = -1
    g[G_STATUS] = 0
    g[G_METHOD_N] = 0
    end = min(end, start + _MOST_HEAD)
    at = start
    for number in range(_LINES):
        stop = at
        while stop < end and u8(buf, stop) != 10:
            stop += 1
        if stop == end:
            return False
        if number == 0:
            last = stop
            while last > at and (u8(buf, last - 1) == 32 or u8(buf, last - 1) == 9 or u8(buf, last - 1) == 13):
                last -= 1
            if last - at < 12:
                return False
            reply = u8(buf, at) == 72 and u8(buf, at + 1) == 84 and u8(buf, at + 4) == 47
            if not (_read_status(buf, at, last, g) if reply else _read_request(buf, at, last, g)):
                return False
        elif stop == at or (stop == at + 1 and u8(buf, at) == 13):
            g[G_END] = stop + 1
            return True
        elif not _read_field(buf, at, stop, g):
            return False
        at = stop + 1
    return False


@helper
def _length(buf, g):
    """Content-Length, MISSING without a number."""
    n = g[2 * _CONTENT_LENGTH + 1]
    first = g[2 * _CONTENT_LENGTH]
    if first < 0 or n == 0 or n > 18:
        return np.int64(MISSING)
    value = np.int64(0)
    for i in range(first, first + n):
        if not _is_digit(u8(buf, i)):
            return np.int64(MISSING)
        value = value * 10 + u8(buf, i) - 48
    return value


@helper
def distance(seq, origin):
    """How far `seq` is ahead, modulo 2^32."""
    return (seq - origin + 0x80000000 & 0xFFFFFFFF) - 0x80000000


@helper
def _span(buf, first, n, most, words, row, word, text, state):
    """Up to `most` bytes of a text to a word of the row; NULL where first < 0."""
    words[row, word] = NO_TEXT
    if first >= 0:
        n = min(n, most)
        at = state[T_TEXT]
        for i in range(n):
            text[at + i] = buf[first + i]
        words[row, word] = at << 16 | n
        state[T_TEXT] = at + n


@helper
def _fill_request(buf, start, g, words, n, text, state):
    _span(buf, start, g[G_METHOD_N], 32, words, n, P_METHOD, text, state)
    host = g[2 * _HOST] if g[2 * _HOST + 1] > 0 else np.int64(-1)
    _span(buf, host, g[2 * _HOST + 1], 256, words, n, P_HOST, text, state)
    _span(buf, g[G_TARGET], g[G_TARGET_N], 2048, words, n, P_PATH, text, state)
    _span(buf, g[2 * _AGENT], g[2 * _AGENT + 1], 512, words, n, P_AGENT, text, state)
    _span(buf, g[2 * _REFERER], g[2 * _REFERER + 1], 512, words, n, P_REFERER, text, state)
    words[n, P_REQUEST] = _length(buf, g)
    words[n, P_VERSION] = g[G_VERSION]


@helper
def _fill_response(buf, g, words, n, text, state):
    words[n, P_STATUS] = g[G_STATUS]
    words[n, P_LENGTH] = _length(buf, g)
    _span(buf, g[2 * _SERVER], g[2 * _SERVER + 1], 512, words, n, P_SERVER, text, state)
    words[n, P_TYPE] = NO_TEXT
    if g[2 * _TYPE] >= 0:
        first, size = g[2 * _TYPE], np.int64(0)
        while size < g[2 * _TYPE + 1] and u8(buf, first + size) != 59:
            size += 1
        while size > 0 and _is_space(u8(buf, first + size - 1)):
            size -= 1
        at = state[T_TEXT]
        _span(buf, first, size, 128, words, n, P_TYPE, text, state)
        for i in range(at, state[T_TEXT]):
            if 65 <= text[i] <= 90:
                text[i] += 32


@helper
def host_of(g, buf):
    """(start, length) of the server's name in a request's head; length 0 without, -1 when Python must."""
    first, n = g[2 * _HOST], g[2 * _HOST + 1]
    if first < 0 or n == 0:
        return first, np.int64(0)
    if n > 255 or u8(buf, first) == 91:
        return first, np.int64(-1)
    size = np.int64(0)
    while size < n and u8(buf, first + size) != 58:
        size += 1
    return first, size


@helper
def start_entry(e, entries):
    """What is known of a connection of which nothing was seen."""
    for side in range(2):
        entries[e, E_NEXT + side] = -1
        entries[e, E_BODY_END + side] = -1
        entries[e, E_HEAD_TS + side] = 0
        entries[e, E_TS + side] = 0
    entries[e, E_REQUEST] = ASKED_NOTHING


@helper
def is_request(buf, start, end, g):
    """Whether a segment begins with a whole request that may be a connection's first."""
    if not 65 <= u8(buf, start) <= 90 or not read_head(buf, start, end, g) or g[G_STATUS] or g[G_METHOD_N] == 0:
        return False
    if g[2 * _ENCODING] >= 0 or g[G_END] - start > SLAB:
        return False
    _, size = host_of(g, buf)
    length = _length(buf, g)
    most = end - g[G_END]
    return size >= 0 and most <= (length if length >= 0 else 0) and length < _BODY


@helper
def step(e, side, buf, start, end, seq, ts, table, order, slot, records, entries, slabs, words, text, g, state):
    """Take a segment of a known connection in. Returns 1 when done, 2 for a request whose head is in g, 0 when Python
    must go on from where the entry is."""
    length = end - start
    was = entries[e, E_NEXT + side]
    body_end = entries[e, E_BODY_END + side]
    ahead = distance(seq, was) if was >= 0 else np.int64(0)
    c = u8(buf, start)
    head = 65 <= c <= 90 or c == 13 or c == 10
    if ahead < 0 or (ahead > 0 and body_end >= 0 and distance(seq, body_end) > 0 and not head):
        return 0
    left = distance(body_end, seq) if body_end >= 0 else np.int64(0)
    if left > 0:
        if length > left:
            return 0
        if head:
            if side:
                over = entries[e, E_REQUEST] == ANSWERED
            else:
                over = entries[e, E_REQUEST] == WAITING and (entries[e, E_MESSAGE + M_TS] > entries[e, E_HEAD_TS])
            if over:
                return 0
        return _pass_over(e, side, was, seq, ts, entries)
    if not head:  # of a body whose length is not known
        return _pass_over(e, side, was, seq, ts, entries)
    if side:
        if entries[e, E_REQUEST] == WAITING or not is_request(buf, start, end, g):
            return 0
        _take_request(e, buf, start, end, seq, ts, entries, slabs, g)
        return 2
    if entries[e, E_REQUEST] != WAITING or not read_head(buf, start, end, g):
        return 0
    status = g[G_STATUS]
    if status < 100 or status == 101:
        return 0
    if status < 200:  # interim: the response is still to come
        if end > g[G_END]:
            return 0
        _passed(e, seq + length, seq + length, ts, entries)
        return 1
    size = _length(buf, g)
    if _is_chunked(buf, g) and size != 0:
        if end - g[G_END] > _MOST_CHUNKED:
            return 0
        size = _chunked_length(buf, g[G_END], end)
    first = e * SLAB + entries[e, E_MESSAGE + M_START]
    if status == 204 or status == 304 or (entries[e, E_MESSAGE + M_LENGTH] > 4 and _is_head(slabs, first)):
        size = np.int64(0)
    if size >= 0 and (size > _BODY or end - g[G_END] > size):
        return 0
    after = g[G_END]
    asked = entries[e, E_MESSAGE + M_TS]
    n = new_row(table, asked, order, slot, records, words, state)
    _fill_response(buf, g, words, n, text, state)
    words[n, P_LATENCY] = ts - asked if ts >= asked else MISSING
    read_head(slabs, first, first + entries[e, E_MESSAGE + M_LENGTH], g)
    _fill_request(slabs, first, g, words, n, text, state)
    entries[e, E_REQUEST] = ANSWERED
    entries[e, E_COUNT] = 0
    _passed(e, seq + length, seq + after - start + size if size >= 0 else np.int64(-1), ts, entries)
    return 1


@helper
def _pass_over(e, side, was, seq, ts, entries):
    """A segment of a body: it may still be sent again as something else."""
    if was < 0:
        entries[e, E_NEXT + side] = seq
    entries[e, E_TS + side] = ts
    return 1


@helper
def _passed(e, following, body_end, ts, entries):
    """The server has sent a head in this segment."""
    entries[e, E_NEXT] = following & 0xFFFFFFFF
    entries[e, E_BODY_END] = body_end & 0xFFFFFFFF if body_end >= 0 else np.int64(-1)
    entries[e, E_HEAD_TS] = ts
    entries[e, E_TS] = ts


@helper
def _is_chunked(buf, g):
    """Whether the value of Transfer-Encoding has "chunked" in it."""
    first = g[2 * _ENCODING]
    if first < 0:
        return False
    for at in range(first, first + g[2 * _ENCODING + 1] - 6):
        same = True
        for i in range(7):
            c = u8(buf, at + i)
            if (c + 32 if 65 <= c <= 90 else c) != np.int64(_CHUNKED[i]):
                same = False
                break
        if same:
            return True
    return False


@helper
def _hex(c):
    """Value of a hexadecimal digit, -1 for another character."""
    if 48 <= c <= 57:
        return c - 48
    if 65 <= c <= 70:
        return c - 55
    return c - 87 if 97 <= c <= 102 else np.int64(-1)


@helper
def _chunked_length(buf, start, end):
    """Bytes of a chunked body that ends within buf[start:end], MISSING if it does not (RFC 9112 7.1)."""
    at = start
    for _ in range(_CHUNKS):
        first = at
        length = np.int64(0)
        while at < end and at - first < 8 and _hex(u8(buf, at)) >= 0:
            length = length << 4 | _hex(u8(buf, at))
            at += 1
        stop = at
        while stop < end and u8(buf, stop) != 10 and stop - at <= 256:
            stop += 1
        if at == first or stop == end or u8(buf, stop) != 10 or stop - at > 256:
            return np.int64(MISSING)
        if length == 0:
            while stop < end:
                if u8(buf, stop) == 10:
                    after = stop + 1
                    if after < end and u8(buf, after) == 13:
                        after += 1
                    if after < end and u8(buf, after) == 10:
                        return after + 1 - start
                stop += 1
            return np.int64(MISSING)
        at = stop + 1 + length + 2
        if at >= end:
            return np.int64(MISSING)
    return np.int64(MISSING)


@helper
def _is_head(buf, at):
    return u8(buf, at) == 72 and u8(buf, at + 1) == 69 and u8(buf, at + 2) == 65 and u8(buf, at + 4) == 32


@helper
def _take_request(e, buf, start, end, seq, ts, entries, slabs, g):
    """Keep the request whose head is in g."""
    size = _length(buf, g)
    keep(e, ts, 1, seq, np.int64(0), buf, start, g[G_END] - start, entries, slabs)
    entries[e, E_REQUEST] = WAITING
    entries[e, E_NEXT + 1] = (seq + end - start) & 0xFFFFFFFF
    entries[e, E_BODY_END + 1] = (seq + g[G_END] - start + (size if size >= 0 else 0)) & 0xFFFFFFFF
    entries[e, E_HEAD_TS + 1] = ts
    entries[e, E_TS + 1] = ts


@helper
def take_first(e, buf, start, end, seq, ts, entries, slabs, g):
    """Begin with a connection's first request, whose head is in g."""
    start_entry(e, entries)
    _take_request(e, buf, start, end, seq, ts, entries, slabs, g)
