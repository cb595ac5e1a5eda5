"""TLS 1.3 over TCP, read by a kernel: a ClientHello in a few segments, then a ServerHello at the beginning of one.

All else (retries, certificates of earlier versions, alerts) is left to `engine.dissect.tls`.
"""

import numpy as np

from engine.jit import be16, be32, helper, u8
from engine.kernels.app_hello import can_show, put_client, put_server, read_client_hello, read_server_hello
from engine.kernels.app_rows import (
    E_COUNT,
    E_MESSAGE,
    E_OWN,
    M_LENGTH,
    M_SEQ,
    M_TS,
    M_WORDS,
    MESSAGES,
    SLAB,
    T_ROWS,
    T_TEXT,
    keep,
    new_row,
)

# Words of an entry: bytes of the ClientHello, and those that are there, from the beginning of the slab.
E_SIZE, E_HAVE = E_OWN, E_OWN + 1

_T = np.int64(ord("t"))
_HANDSHAKE, _CCS, _DATA = 22, 20, 23
_LIMIT = 16_384 + 2_048  # of a record


@helper
def _body(buf, start, end, kind):
    """Length of the hello that a segment begins with, header included, -1 when it does not: one record, one message."""
    if end - start < 48 or be16(buf, start) != 0x1603 or u8(buf, start + 2) > 4:
        return np.int64(-1)
    size = be16(buf, start + 3)
    if size > _LIMIT or size < 43 or start + 5 + size > end or be32(buf, start + 5) != kind << 24 | (size - 4):
        return np.int64(-1)
    return size


@helper
def is_client_hello(buf, start, end, scratch, x):
    """Whether the segment is a ClientHello that can be shown; its parts are in x then."""
    size = _body(buf, start, end, 1)
    if size < 0 or start + 5 + size != end or u8(buf, start + 9) != 3:
        return False
    return read_client_hello(buf, start + 9, end, x) and can_show(buf, x, scratch)


@helper
def hello_size(buf, start, end):
    """Bytes that a ClientHello has, record header included, whose first segment ends before it does; -1 for all else.
    Those with keys of 1,184 bytes (ML-KEM) do not fit one segment."""
    if end - start < 48 or be16(buf, start) != 0x1603 or u8(buf, start + 2) > 4 or u8(buf, start + 9) != 3:
        return np.int64(-1)
    size = be16(buf, start + 3)
    if size + 5 > SLAB or start + 5 + size <= end or be32(buf, start + 5) != 1 << 24 | (size - 4):
        return np.int64(-1)
    return size + 5


@helper
def take_rest(e, side, buf, start, end, seq, ts, entries, slabs, scratch, x):
    """A segment that continues the kept ClientHello. False, and nothing is changed, when Python must read it."""
    have = np.int64(0)
    for n in range(entries[e, E_COUNT]):
        have += entries[e, E_MESSAGE + n * M_WORDS + M_LENGTH]
    length = end - start
    following = entries[e, E_MESSAGE + M_SEQ] + have & 0xFFFFFFFF
    if side == 0 or seq != following or have + length > entries[e, E_SIZE] or entries[e, E_COUNT] == MESSAGES:
        return False
    keep(e, ts, side, seq, have, buf, start, length, entries, slabs)
    first = e * SLAB
    if have + length == entries[e, E_SIZE] and not is_client_hello(slabs, first, first + have + length, scratch, x):
        entries[e, E_COUNT] -= 1
        return False
    entries[e, E_HAVE] = have + length
    return True


@helper
def emit_hellos(e, buf, start, end, table, order, slot, records, entries, slabs, words, text, scratch, w, x, state):
    """A row for the kept ClientHello and the ServerHello that the segment begins with. False when Python must."""
    size = _body(buf, start, end, 2)
    if size < 0 or u8(buf, start + 9) != 3 or entries[e, E_HAVE] != entries[e, E_SIZE]:
        return False
    at = start + 5 + size
    if end - at >= 5 and u8(buf, at) != _CCS and u8(buf, at) != _DATA:
        return False
    if not read_server_hello(buf, start + 9, start + 5 + size, x):
        return False
    rows, used = state[T_ROWS], state[T_TEXT]
    first = e * SLAB
    n = new_row(table, entries[e, E_MESSAGE + M_TS], order, slot, records, words, state)
    read_client_hello(slabs, first + 9, first + entries[e, E_SIZE], x)
    put_client(_T, slabs, x, w, scratch, words, n, text, state)
    read_server_hello(buf, start + 9, start + 5 + size, x)
    if not put_server(_T, buf, x, w, scratch, words, n, text, state):
        state[T_ROWS], state[T_TEXT] = rows, used
        return False
    return True
