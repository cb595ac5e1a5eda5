"""Rows of application messages, written by kernels: numbers as words, texts as spans of one buffer.

A row is N_ROW words. The first say which table, flow and time, the rest are the table's own (`engine.message_rows`
names them). A text is `start << 16 | length`, a list of texts one span in which each ends with a line feed.
"""

import numpy as np

from engine import flow_row as r
from engine.jit import helper, kernel, u8
from engine.kernels.address import KIND_IPV4, KIND_IPV6, find_entry

(W_TABLE, W_ORDER, W_TS, W_FLOW, W_SRC_HI, W_SRC_LO, W_DST_HI, W_DST_LO, W_PORTS, W_V6, W_OWN) = range(11)
N_ROW = 32
MISSING = r.MISSING  # NULL of a number
NO_TEXT = -1
FEED = 10  # ends each text of a list

# Words of the state, int64[N_STATE].
(
    T_ROWS,  # rows written
    T_TEXT,  # bytes of the text in use
    T_FREE,  # entries on the free stack
    T_NAMES,  # names that Python must number
    T_REST,  # taps that Python must read
    T_MESSAGES,  # messages read
    T_FOUND,  # applications and names that were found
    T_ORDER,  # position of the first tap or end among all
    T_PACKET,  # number of row 0
    N_STATE,
) = range(10)

# Who reads a flow: int32[slots]. An entry's number + 1, or
NOBODY, PYTHON = 0, -1
# Words of an entry: what is known of a flow that kernels read, and the messages Python would need to go on from here.
E_SLOT, E_APP, E_COUNT, E_OWN = 0, 1, 2, 3
E_MESSAGE = 16  # first of the messages, M_WORDS each
M_TS, M_SIDE, M_SEQ, M_START, M_LENGTH, M_WORDS = range(6)
MESSAGES = 4
N_ENTRY = E_MESSAGE + MESSAGES * M_WORDS
SLAB = 4096  # bytes of an entry

# A name for Python to number: record, span, packet, place in the cache, hash.
N_SLOT, N_SPAN, N_PACKET, N_PLACE, N_HASH, N_NAME = range(6)
# Words of a cached name; its bytes are at NAME_BYTES * place.
C_HASH, C_NUMBER, C_LENGTH, N_CACHED = range(4)
NAME_BYTES = 256


@helper
def new_row(table, ts, order, slot, records, words, state):
    """Begin a row about the flow at `slot`; its own words are the caller's. Returns its number."""
    n = state[T_ROWS]
    state[T_ROWS] = n + 1
    rest = records[slot, r.R_REST]
    words[n, W_TABLE] = table
    words[n, W_ORDER] = order
    words[n, W_TS] = ts
    words[n, W_FLOW] = records[slot, r.R_FLOW_ID]
    port_a, port_b = rest & 0xFFFF, rest >> r.REST_PORT_B & 0xFFFF
    if records[slot, r.R_STATE] & r.STATE_CLIENT_B:
        words[n, W_SRC_HI] = records[slot, r.R_B_HI]
        words[n, W_SRC_LO] = records[slot, r.R_B_LO]
        words[n, W_DST_HI] = records[slot, r.R_A_HI]
        words[n, W_DST_LO] = records[slot, r.R_A_LO]
        words[n, W_PORTS] = port_b << 16 | port_a
    else:
        words[n, W_SRC_HI] = records[slot, r.R_A_HI]
        words[n, W_SRC_LO] = records[slot, r.R_A_LO]
        words[n, W_DST_HI] = records[slot, r.R_B_HI]
        words[n, W_DST_LO] = records[slot, r.R_B_LO]
        words[n, W_PORTS] = port_a << 16 | port_b
    words[n, W_V6] = rest >> r.REST_V6 & 1
    return n


@helper
def note(slot, app, packet, records, state):
    """The flow's application is known from this packet on."""
    if records[slot, r.R_STATE] >> r.STATE_APP == 0:
        records[slot, r.R_STATE] |= np.int64(app) << r.STATE_APP
        records[slot, r.R_APP_SINCE] = packet
        state[T_FOUND] += 1


@helper
def note_name(slot, start, length, packet, text, records, names, cache, cached, state):
    """The flow's server name is text[start : start + length], unless it has one. 0 < length < NAME_BYTES."""
    if records[slot, r.R_NAME] != 0:
        return
    h = np.int64(0x1DE5_71F3)
    for i in range(length):
        h = (h ^ u8(text, start + i)) * 0x01000193 & 0x7FFFFFFF
    place = (h ^ h >> 13) & (cache.shape[0] - 1)
    if cache[place, C_HASH] == h and cache[place, C_LENGTH] == length and cache[place, C_NUMBER] != 0:
        same = True
        for i in range(length):
            if cached[place * NAME_BYTES + i] != text[start + i]:
                same = False
                break
        if same:
            records[slot, r.R_NAME] = cache[place, C_NUMBER]
            records[slot, r.R_NAME_SINCE] = packet
            state[T_FOUND] += 1
            return
    records[slot, r.R_NAME] = -1  # until Python has numbered it
    n = state[T_NAMES]
    names[n, N_SLOT] = slot
    names[n, N_SPAN] = start << 16 | length
    names[n, N_PACKET] = packet
    names[n, N_PLACE] = place
    names[n, N_HASH] = h
    state[T_NAMES] = n + 1


@helper
def keep(e, ts, side, seq, at, buf, start, length, entries, slabs):
    """Keep a message at byte `at` of the entry's slab."""
    m = E_MESSAGE + entries[e, E_COUNT] * M_WORDS
    entries[e, m + M_TS] = ts
    entries[e, m + M_SIDE] = side
    entries[e, m + M_SEQ] = seq
    entries[e, m + M_START] = at
    entries[e, m + M_LENGTH] = length
    entries[e, E_COUNT] += 1
    for i in range(length):
        slabs[e * SLAB + at + i] = buf[start + i]


@helper
def take_entry(slot, app, owner, entries, free, state):
    """An entry for the flow, -1 when there is none left."""
    if state[T_FREE] == 0:
        return np.int64(-1)
    state[T_FREE] -= 1
    e = np.int64(free[state[T_FREE]])
    entries[e, E_SLOT] = slot
    entries[e, E_APP] = app
    entries[e, E_COUNT] = 0
    owner[slot] = e + 1
    return e


@helper
def give_entry(e, owner, entries, free, state):
    """The flow has none any more."""
    owner[entries[e, E_SLOT]] = NOBODY
    free[state[T_FREE]] = e
    state[T_FREE] += 1


@helper
def put_printable(buf, start, end, text, at):
    """Append ASCII that can be shown as it is; -1 if it is not all that. Returns where it ends."""
    for i in range(start, end):
        c = buf[i]
        if c < 32 or c > 126:
            return np.int64(-1)
        text[at] = c
        at += 1
    return at


@helper
def put_decimal(value, text, at):
    """Append a number >= 0."""
    size = np.int64(1)
    rest = value // 10
    while rest > 0:
        size += 1
        rest //= 10
    for i in range(size):
        text[at + size - 1 - i] = 48 + value % 10
        value //= 10
    return at + size


@helper
def put_hex(value, digits, text, at):
    """Append the low `digits` of a number, lower case."""
    for i in range(digits):
        d = value >> (4 * (digits - 1 - i)) & 15
        text[at + i] = d + (48 if d < 10 else 87)
    return at + digits


@kernel
def gather_texts(words, column, text, offsets, out):
    """Column `column` of spans, back to back. offsets: int32[rows + 1], where each is to lie. out: uint8[total]."""
    for n in range(words.shape[0]):
        span = words[n, column]
        if span >= 0:
            start, at = span >> 16, np.int64(offsets[n])
            for i in range(span & 0xFFFF):
                out[at + i] = text[start + i]


@kernel
def gather_lists(words, column, text, list_offsets, offsets, out):
    """Column `column` of lists. list_offsets: int32[rows + 1] and offsets: int32[texts + 1] written; out: uint8[total
    bytes]. The number of texts is that of their line feeds."""
    item = np.int64(0)
    at = np.int64(0)
    offsets[0] = 0
    for n in range(words.shape[0]):
        list_offsets[n] = item
        span = words[n, column]
        if span >= 0:
            start = span >> 16
            for i in range(span & 0xFFFF):
                c = text[start + i]
                if c == FEED:
                    item += 1
                    offsets[item] = at
                else:
                    out[at] = c
                    at += 1
    list_offsets[words.shape[0]] = item


@kernel
def count_items(words, column, text):
    """(texts, bytes) of a column of lists."""
    items = np.int64(0)
    size = np.int64(0)
    for n in range(words.shape[0]):
        span = words[n, column]
        if span >= 0:
            start = span >> 16
            for i in range(span & 0xFFFF):
                if text[start + i] == FEED:
                    items += 1
                else:
                    size += 1
    return items, size


@kernel
def index_addresses(words, generation, keys, tags, found, entries, kinds, n, out):
    """Number the addresses of the rows, see `engine.kernels.address`. out: int32[2, rows], client and server."""
    for i in range(words.shape[0]):
        kind = KIND_IPV6 if words[i, W_V6] else KIND_IPV4
        for side in range(2):
            hi, lo = words[i, W_SRC_HI + 2 * side], words[i, W_SRC_LO + 2 * side]
            if kind == KIND_IPV4:
                hi, lo = np.int64(0), lo & 0xFFFFFFFF
            out[side, i] = find_entry(
                np.uint64(hi), np.uint64(lo), kind, generation, keys, tags, found, entries, kinds, n
            )
