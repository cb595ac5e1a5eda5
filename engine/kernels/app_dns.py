"""DNS over UDP, read by a kernel: one question, answers that are addresses or names (RFC 1035 4).

What is written here equals what `engine.dissect.dns` says of the same messages (tests compare them); any other message
is left to it.
"""

import numpy as np

from engine.jit import be16, be32, be64, helper, u8
from engine.kernels.address import put_ipv4, put_ipv6
from engine.kernels.app_rows import (
    E_COUNT,
    E_MESSAGE,
    FEED,
    M_LENGTH,
    M_START,
    M_TS,
    M_WORDS,
    MESSAGES,
    MISSING,
    NO_TEXT,
    SLAB,
    T_TEXT,
    W_OWN,
    keep,
    new_row,
    put_decimal,
    put_printable,
)

# The row's own words.
(
    D_QUERY, D_QTYPE, D_QCLASS, D_RCODE, D_ANSWERED, D_ANSWERS, D_COUNT, D_TTL, D_LATENCY, D_AUTHORITATIVE, D_TRUNCATED,
    D_DESIRED, D_AVAILABLE, D_AUTHENTIC, D_REQUEST, D_RESPONSE, D_ID,
) = range(W_OWN, W_OWN + 17)  # fmt: skip

ROOM = 512  # bytes of a query that is kept
_A, _NS, _CNAME, _PTR, _HINFO, _MX, _TXT, _AAAA, _SRV, _DNAME, _OPT, _RRSIG = (
    1,
    2,
    5,
    12,
    13,
    15,
    16,
    28,
    33,
    39,
    41,
    46,
)
_SVCB, _HTTPS, _SPF = 64, 65, 99
_MOST_TEXT, _MOST_PARTS = 512, 8
_MOST_ANSWERS, _MOST_RECORDS = 32, 128  # as in _dns_message.py
_NAME, _JUMPS = 255, 24
_ABSENT = np.int64(-1)


@helper
def put_name(buf, first, pos, end, text, at):
    """Append the name at `pos` of the message buf[first:end]. Returns (where its text ends, the next field).

    -1 for one that cannot be read, or has bytes that are written otherwise (RFC 1035 5.1)."""
    begin = at
    size = jumps = np.int64(0)
    after = np.int64(-1)
    while True:
        if pos >= end:
            return _ABSENT, pos
        length = u8(buf, pos)
        pos += 1
        if length == 0:
            break
        if length < 64:
            size += length + 1
            if size >= _NAME or pos + length > end:
                return _ABSENT, pos
            if at > begin:
                text[at] = 46
                at += 1
            for i in range(length):
                c = u8(buf, pos + i)
                if c < 33 or c > 126 or c == 92 or c == 46:
                    return _ABSENT, pos
                text[at] = c
                at += 1
            pos += length
        elif length >= 192:
            jumps += 1
            if jumps > _JUMPS or pos >= end:
                return _ABSENT, pos
            if after < 0:
                after = pos + 1
            pos = first + ((length & 0x3F) << 8 | u8(buf, pos))
        else:
            return _ABSENT, pos
    if at == begin:
        text[at] = 46
        at += 1
    return at, (after if after >= 0 else pos)


@helper
def _skip_name(buf, pos, end):
    """Where the field after the name begins, -1 if it does not."""
    for _ in range(_NAME):
        if pos >= end:
            return _ABSENT
        length = u8(buf, pos)
        if length >= 192:
            return pos + 2
        if length >= 64:
            return _ABSENT
        pos += length + 1
        if length == 0:
            return pos
    return _ABSENT


@helper
def question_end(buf, start, end):
    """Where the one question of a simple message ends, -1 for another: its name is plain and not compressed."""
    if end - start < 17 or be16(buf, start + 4) != 1 or u8(buf, start + 2) & 0x78:
        return _ABSENT
    pos = start + 12
    while True:
        length = u8(buf, pos)
        if length == 0:
            break
        if length >= 64 or pos + length + 1 >= end or pos + length - start - 11 >= _NAME:
            return _ABSENT
        for i in range(pos + 1, pos + 1 + length):
            c = u8(buf, i)
            if c < 33 or c > 126 or c == 92 or c == 46:
                return _ABSENT
        pos += length + 1
    return pos + 5 if pos + 5 <= end else _ABSENT


@helper
def _lower(c):
    return c + 32 if 65 <= c <= 90 else c


@helper
def _same_question(slabs, a, a_length, buf, start, stop):
    """Whether the message kept at `a` has the id of the one at `start`, and the question that ends at `stop`."""
    if a_length < stop - start or slabs[a] != buf[start] or slabs[a + 1] != buf[start + 1]:
        return False
    different = 0
    for i in range(12, stop - start):
        different += _lower(u8(slabs, a + i)) != _lower(u8(buf, start + i))
    return different == 0


@helper
def waiting(e, buf, start, stop, entries, slabs):
    """Number of the kept query that asks the question at buf[start:stop], -1 without one."""
    for n in range(entries[e, E_COUNT]):
        m = E_MESSAGE + n * M_WORDS
        if _same_question(slabs, e * SLAB + entries[e, m + M_START], entries[e, m + M_LENGTH], buf, start, stop):
            return n
    return -1


@helper
def forget(e, n, entries):
    """Query `n` of the entry waits no more."""
    entries[e, E_COUNT] -= 1
    for m in range(E_MESSAGE + n * M_WORDS, E_MESSAGE + entries[e, E_COUNT] * M_WORDS):
        entries[e, m] = entries[e, m + M_WORDS]


@helper
def keep_query(e, ts, side, buf, start, end, entries, slabs):
    """Keep a query where none lies."""
    for place in range(MESSAGES):
        taken = False
        for n in range(entries[e, E_COUNT]):
            taken |= entries[e, E_MESSAGE + n * M_WORDS + M_START] == place * ROOM
        if not taken:
            keep(e, ts, side, 0, np.int64(place * ROOM), buf, start, end - start, entries, slabs)
            return


@helper
def _begin_row(buf, start, end, ts, table, order, slot, records, words, text, state):
    """A row with the question of the simple message buf[start:end]."""
    n = new_row(table, ts, order, slot, records, words, state)
    at = state[T_TEXT]
    stop, pos = put_name(buf, start, start + 12, end, text, at)
    state[T_TEXT] = stop
    flags = be16(buf, start + 2)
    words[n, D_QUERY] = at << 16 | (stop - at)
    words[n, D_QTYPE] = be16(buf, pos)
    words[n, D_QCLASS] = be16(buf, pos + 2)
    words[n, D_DESIRED] = flags >> 8 & 1
    words[n, D_TRUNCATED] = flags >> 9 & 1
    words[n, D_ID] = be16(buf, start)
    words[n, D_REQUEST] = end - start
    for w in (D_RCODE, D_COUNT, D_TTL, D_LATENCY, D_RESPONSE):
        words[n, w] = MISSING
    for w in (D_AUTHORITATIVE, D_AVAILABLE, D_AUTHENTIC, D_ANSWERS):
        words[n, w] = NO_TEXT
    words[n, D_ANSWERED] = 0
    return n


@helper
def emit_unanswered(e, i, table, order, slot, records, entries, slabs, words, text, state):
    """A row for kept query `i`."""
    m = E_MESSAGE + i * M_WORDS
    start = e * SLAB + entries[e, m + M_START]
    _begin_row(
        slabs, start, start + entries[e, m + M_LENGTH], entries[e, m + M_TS], table, order, slot, records, words, text,
        state,
    )  # fmt: skip


@helper
def _put_strings(buf, pos, end, text, at):
    """Append strings with a length byte each; one of 255 bytes goes on in the next, others are apart."""
    begin = at
    left = np.int64(_MOST_TEXT)
    while pos < end and left > 0:
        length = u8(buf, pos)
        at = put_printable(buf, pos + 1, min(pos + 1 + length, end), text, at)
        if at < 0:
            return at
        if length < 255:
            text[at] = 32
            at += 1
        left -= length + 1
        pos += 1 + length
    while at > begin and text[at - 1] == 32:
        at -= 1
    return min(at, begin + _MOST_TEXT)


@helper
def _put_word(word, n, text, at):
    """Append n characters, the first the highest byte of a number."""
    for i in range(n):
        text[at + i] = word >> (8 * (n - 1 - i)) & 0xFF
    return at + n


@helper
def _put_address6(buf, pos, text, at):
    if be64(buf, pos) == 0 and be32(buf, pos + 8) == 0:  # Python writes ::192.0.2.1
        return _ABSENT
    return put_ipv6(np.uint64(be64(buf, pos)), np.uint64(be64(buf, pos + 8)), text, at)


@helper
def _put_hints(kind, buf, pos, length, text, at):
    """Append the addresses of a binding, with commas between."""
    size = 4 if kind == 4 else 16
    for n in range(min(length // size, 8)):
        if n:
            text[at] = 44
            at += 1
        if kind == 4:
            at = put_ipv4(be32(buf, pos + 4 * n), text, at)
        else:
            at = _put_address6(buf, pos + 16 * n, text, at)
            if at < 0:
                return at
    return at


@helper
def _put_protocols(buf, pos, length, text, at):
    """Append the protocols of a binding, with commas between."""
    end = pos + length
    for n in range(8):
        if pos >= end:
            break
        if n:
            text[at] = 44
            at += 1
        at = put_printable(buf, pos + 1, min(pos + 1 + u8(buf, pos), end), text, at)
        if at < 0:
            return at
        pos += 1 + u8(buf, pos)
    return at


@helper
def _put_binding(buf, first, pos, size, end, text, at):
    """SVCB and HTTPS (RFC 9460 2.1, 7)."""
    begin = at
    stop = pos + size
    if size < 3:
        return _ABSENT
    at = put_decimal(be16(buf, pos), text, at)
    text[at] = 32
    at, pos = put_name(buf, first, pos + 2, end, text, at + 1)
    if at < 0:
        return at
    parts = np.int64(1)
    while pos + 4 <= stop and parts < _MOST_PARTS:
        key, length = be16(buf, pos), be16(buf, pos + 2)
        pos += 4
        if pos + length > stop:
            return _ABSENT
        if key == 1 or (key == 3 and length == 2) or 4 <= key <= 6:
            parts += 1
            text[at] = 32
            at += 1
        if key == 1:
            at = _put_protocols(buf, pos, length, text, _put_word(0x616C706E3D, 5, text, at))
        elif key == 3 and length == 2:
            at = put_decimal(be16(buf, pos), text, _put_word(0x706F72743D, 5, text, at))
        elif key == 4 or key == 6:
            at = _put_word(0x6970763468696E74 if key == 4 else 0x6970763668696E74, 8, text, at)
            text[at] = 61
            at = _put_hints(key, buf, pos, length, text, at + 1)
        elif key == 5:
            at = _put_word(0x656368, 3, text, at)
        if at < 0:
            return at
        pos += length
    return at if at - begin <= _MOST_TEXT else _ABSENT


@helper
def _put_data(kind, buf, first, pos, size, end, text, at):
    """Append a record's data as text; -1 for what is left to Python."""
    if kind == _A:
        return put_ipv4(be32(buf, pos), text, at) if size == 4 else _ABSENT
    if kind == _AAAA:
        return _put_address6(buf, pos, text, at) if size == 16 else _ABSENT
    if kind == _CNAME or kind == _PTR or kind == _NS or kind == _DNAME:
        stop, _ = put_name(buf, first, pos, end, text, at)
        return stop
    if kind == _MX:
        stop, _ = put_name(buf, first, pos + 2, end, text, at)
        return stop
    if kind == _SRV and size >= 6:
        stop, _ = put_name(buf, first, pos + 6, end, text, at)
        if stop < 0:
            return stop
        text[stop] = 58
        return put_decimal(be16(buf, pos + 4), text, stop + 1)
    if kind == _TXT or kind == _SPF or kind == _HINFO:
        return _put_strings(buf, pos, pos + size, text, at)
    if kind == _HTTPS or kind == _SVCB:
        return _put_binding(buf, first, pos, size, end, text, at)
    return _ABSENT


@helper
def put_answers(buf, start, end, pos, text, at, out):
    """Append the answers of the message as a list. Returns where it ends, -1 for what is left to Python.

    out: int64[3], written: number of texts, lowest TTL, upper bits of the response code.
    """
    count = be16(buf, start + 6)
    total = min(count + be16(buf, start + 8) + be16(buf, start + 10), _MOST_RECORDS)
    out[0] = 0
    out[1] = MISSING
    out[2] = 0
    for index in range(total):
        if pos >= end:
            return _ABSENT
        pos = pos + 2 if u8(buf, pos) >= 192 else _skip_name(buf, pos, end)
        if pos < 0 or pos + 10 > end:
            return _ABSENT
        kind, ttl, size = be16(buf, pos), be32(buf, pos + 4), be16(buf, pos + 8)
        pos += 10
        if pos + size > end:
            return _ABSENT
        if index >= count:
            if kind == _OPT:
                out[2] = ttl >> 24 << 4
                return at
        elif kind != _OPT and kind != _RRSIG and out[0] < _MOST_ANSWERS:
            at = _put_data(kind, buf, start, pos, size, end, text, at)
            if at < 0:
                return at
            text[at] = FEED
            at += 1
            out[0] += 1
            out[1] = ttl if out[1] == MISSING else min(out[1], ttl)
        pos += size
    return at


@helper
def emit_answer(e, i, buf, start, end, stop, ts, table, order, slot, records, entries, slabs, words, text, out, state):
    """A row for the answer buf[start:end], whose question ends at `stop`, with kept query `i` of the entry (or -1).

    False, and nothing is written, when it is left to Python."""
    at = state[T_TEXT]
    listed = put_answers(buf, start, end, stop, text, at, out)
    if listed < 0:
        return False
    state[T_TEXT] = listed
    if i >= 0:
        m = E_MESSAGE + i * M_WORDS
        first = e * SLAB + entries[e, m + M_START]
        asked = entries[e, m + M_TS]
        n = _begin_row(
            slabs, first, first + entries[e, m + M_LENGTH], asked, table, order, slot, records, words, text, state
        )
        words[n, D_LATENCY] = ts - asked if ts >= asked else MISSING
    else:
        n = _begin_row(buf, start, end, ts, table, order, slot, records, words, text, state)
        words[n, D_REQUEST] = MISSING
    flags = be16(buf, start + 2)
    words[n, D_ANSWERED] = 1
    words[n, D_ANSWERS] = at << 16 | (listed - at) if out[0] > 0 else NO_TEXT
    words[n, D_COUNT] = be16(buf, start + 6)
    words[n, D_TTL] = out[1]
    words[n, D_RCODE] = flags & 15 | out[2]
    words[n, D_AUTHORITATIVE] = flags >> 10 & 1
    words[n, D_TRUNCATED] = flags >> 9 & 1
    words[n, D_AVAILABLE] = flags >> 7 & 1
    words[n, D_AUTHENTIC] = flags >> 5 & 1
    words[n, D_RESPONSE] = end - start
    return True
