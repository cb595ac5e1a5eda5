"""QUIC version 1: the client's first datagram and the server's answer, opened and read by a kernel (RFC 9000, 9001).

Equal to `engine.dissect.quic` where a ClientHello is whole in one datagram and what the server sends first is whole,
too; all else is left to it. Keys of Initial packets are known to everyone: what is protected here is nobody's secret.
"""

import numpy as np

from engine.jit import be32, helper, u8
from engine.kernels.app_aes import N_KEY, aes_block, aes_key, open_gcm
from engine.kernels.app_hash import sha256, sha256_block, sha256_start
from engine.kernels.app_hello import (
    H_AGENT,
    H_DCID,
    H_SCID,
    X_TRANSPORT,
    X_TRANSPORT_N,
    can_show,
    put_client,
    put_server,
    read_client_hello,
    read_server_hello,
)
from engine.kernels.app_rows import (
    E_MESSAGE,
    E_OWN,
    M_LENGTH,
    M_START,
    M_TS,
    SLAB,
    T_ROWS,
    T_TEXT,
    new_row,
    put_hex,
    put_printable,
)

# Words of an entry: where the ClientHello lies in the slab and how long it is, both without its header.
E_HELLO, E_HELLO_N = E_OWN, E_OWN + 1
HELLO_AT = 2048
MOST_DATAGRAM, MOST_HELLO = 1500, 2000

_Q = np.int64(ord("q"))
_VERSION = 1
_FRAMES, _PIECES = 512, 32
_AGENT = 0x3129
_SALT = np.frombuffer(bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"), np.uint8).copy()
# HKDF labels with their lengths (RFC 8446 7.1): client, server, key, iv, hp.
_LABELS = [
    size.to_bytes(2, "big") + bytes([6 + len(label)]) + b"tls13 " + label + b"\0\1"
    for size, label in ((32, b"client in"), (32, b"server in"), (16, b"quic key"), (12, b"quic iv"), (16, b"quic hp"))
]
_LABEL_BYTES = np.frombuffer(b"".join(_LABELS), np.uint8).copy()
_LABEL_AT = np.cumsum([0, *map(len, _LABELS)]).astype(np.int64)

# Words of a packet's scratch, in `q`, int64[N_QUIC]: parts of the long header, frames, pieces; then a key schedule.
(
    Q_DCID, Q_DCID_N, Q_SCID, Q_SCID_N, Q_NUMBER, Q_END, Q_PLAIN, Q_PLAIN_N, Q_HELLO_N,
) = range(9)  # fmt: skip
_Q_PIECES = 16
_Q_PRK = _Q_PIECES + 2 * _PIECES  # 8 words
_Q_SECRET = _Q_PRK + 8
_Q_KEY, _Q_IV, _Q_HP = _Q_SECRET + 8, _Q_SECRET + 16, _Q_SECRET + 24
_Q_SCHEDULE = _Q_HP + 8
N_QUIC = _Q_SCHEDULE + N_KEY
# Parts of the byte scratch: for hashes, opened frames, the hello.
_S_HASH, _S_PLAIN, _S_HELLO = 0, 1024, 8192


@helper
def _hmac(key, q, data_start, data_n, scratch, w, out):
    """HMAC-SHA-256 of scratch[_S_HASH + 256 + ...]: key of 8 words in q[key:], digest to q[out:] (RFC 2104).

    The message lies at scratch[data_start:]; 72 bytes after it are overwritten."""
    for i in range(64):
        v = q[key + (i >> 2)] >> (24 - 8 * (i & 3)) & 0xFF if i < 32 else 0
        scratch[_S_HASH + i] = v ^ 0x36
        scratch[_S_HASH + 64 + i] = v ^ 0x5C
    _hmac_padded(q, data_start, data_n, scratch, w, out)


@helper
def _hmac_padded(q, data_start, data_n, scratch, w, out):
    sha256_start(w)
    sha256_block(scratch, _S_HASH, w)
    sha256(scratch, data_start, data_n, 64, w)
    at = _S_HASH + 128
    for n in range(8):
        for i in range(4):
            scratch[at + 4 * n + i] = w[80 + n] >> (24 - 8 * i) & 0xFF
    sha256_start(w)
    sha256_block(scratch, _S_HASH + 64, w)
    sha256(scratch, at, np.int64(32), 64, w)
    for n in range(8):
        q[out + n] = w[80 + n]


@helper
def _expand(label, key, out, q, scratch, w):
    """HKDF-Expand-Label of one block."""
    start, stop = _LABEL_AT[label], _LABEL_AT[label + 1]
    at = np.int64(_S_HASH + 512)
    for i in range(start, stop):
        scratch[at + i - start] = _LABEL_BYTES[i]
    _hmac(key, q, at, stop - start, scratch, w, out)


@helper
def derive(buf, dcid, n, client, q, scratch, w):
    """Key, iv and header key of a side of the connection that began with this ID, to q (RFC 9001 5.2)."""
    for i in range(64):
        v = np.int64(_SALT[i]) if i < 20 else np.int64(0)
        scratch[_S_HASH + i] = v ^ 0x36
        scratch[_S_HASH + 64 + i] = v ^ 0x5C
    at = np.int64(_S_HASH + 512)
    for i in range(n):
        scratch[at + i] = buf[dcid + i]
    _hmac_padded(q, at, n, scratch, w, _Q_PRK)
    _expand(0 if client else 1, _Q_PRK, _Q_SECRET, q, scratch, w)
    for label, out in ((2, _Q_KEY), (3, _Q_IV), (4, _Q_HP)):
        _expand(label, _Q_SECRET, out, q, scratch, w)


@helper
def _varint(buf, at, end):
    """(number, where the next thing starts), -1 when it is not all there."""
    if at >= end:
        return np.int64(-1), at
    first = u8(buf, at)
    size = 1 << (first >> 6)
    if at + size > end:
        return np.int64(-1), at
    value = first & 0x3F
    for i in range(1, size):
        value = value << 8 | u8(buf, at + i)
    return value, at + size


@helper
def read_initial(buf, start, end, q):
    """Find the parts of the Initial packet of version 1 that the datagram begins with. Returns 1; -1 for a header that
    does not fit the datagram, which is not QUIC then; 0 when Python must read it."""
    if end - start < 40 or end - start > MOST_DATAGRAM or u8(buf, start) & 0xB0 != 0x80:
        return 0
    if be32(buf, start + 1) != _VERSION:
        return 0
    n = u8(buf, start + 5)
    at = start + 6
    if n > 20 or at + n + 1 > end:
        return -1
    q[Q_DCID], q[Q_DCID_N] = at, n
    at += n
    n = u8(buf, at)
    at += 1
    if n > 20 or at + n > end:
        return -1
    q[Q_SCID], q[Q_SCID_N] = at, n
    token, at = _varint(buf, at + n, end)
    if token < 0 or token > end:
        return -1
    size, at = _varint(buf, at + token, end)
    if size < 20 or at + size > end:
        return -1
    q[Q_NUMBER], q[Q_END] = at, at + size
    return 1


@helper
def open_initial(buf, start, q, scratch, w, tables):
    """Open the packet found with the keys in q; its frames are scratch[_S_PLAIN:] then. False when they do not fit."""
    number, end = q[Q_NUMBER], q[Q_END]
    aes_key(q, _Q_HP, _Q_SCHEDULE, tables)
    mask = np.int64(_S_HASH)
    for i in range(16):
        scratch[mask + i] = buf[number + 4 + i]
    aes_block(scratch, mask, q, _Q_SCHEDULE, tables)
    first = u8(buf, start) ^ (u8(scratch, mask) & 0x0F)
    size = (first & 3) + 1
    head = number + size - start
    # The header as it was before its protection lies before the frames.
    aad = np.int64(_S_HASH + 64)
    if head > 512:
        return False
    for i in range(head):
        scratch[aad + i] = buf[start + i]
    scratch[aad] = first
    plain = np.int64(0)
    for i in range(size):
        b = u8(buf, number + i) ^ u8(scratch, mask + 1 + i)
        scratch[aad + number - start + i] = b
        plain = plain << 8 | b
    n = end - number - size - 16
    if n < 0:
        return False
    q[Q_PLAIN_N] = n
    aes_key(q, _Q_KEY, _Q_SCHEDULE, tables)
    return open_gcm(
        buf, number + size, n, scratch, aad, head, q[_Q_IV], q[_Q_IV + 1], q[_Q_IV + 2] ^ plain, _S_PLAIN, q,
        _Q_SCHEDULE, tables,
    )  # fmt: skip


@helper
def join_crypto(q, scratch):
    """Put the CRYPTO frames among scratch[_S_PLAIN:] together at scratch[_S_HELLO:]. Returns the bytes there are from
    offset 0, -1 when Python must: overlapping, with gaps, or not to be read."""
    at = np.int64(_S_PLAIN)
    end = at + q[Q_PLAIN_N]
    pieces = np.int64(0)
    total = most = np.int64(0)
    for _ in range(_FRAMES):
        while at < end and scratch[at] == 0:
            at += 1
        if at >= end:
            break
        kind, at = _varint(scratch, at, end)
        if kind == 0x01:
            continue
        if kind == 0x02 or kind == 0x03:
            at = _skip_ack(scratch, at, end, 3 if kind == 0x03 else 0)
            if at < 0:
                return at
            continue
        if kind != 0x06:
            return np.int64(-1)
        offset, at = _varint(scratch, at, end)
        if offset < 0:
            return offset
        size, at = _varint(scratch, at, end)
        if size < 0 or at + size > end or offset + size > MOST_HELLO + 4 or pieces == _PIECES:
            return np.int64(-1)
        for i in range(pieces):
            a = q[_Q_PIECES + 2 * i]
            if offset < a + q[_Q_PIECES + 2 * i + 1] and a < offset + size:
                return np.int64(-1)
        q[_Q_PIECES + 2 * pieces], q[_Q_PIECES + 2 * pieces + 1] = offset, size
        pieces += 1
        for i in range(size):
            scratch[_S_HELLO + offset + i] = scratch[at + i]
        total += size
        most = max(most, offset + size)
        at += size
    return total if total == most else np.int64(-1)


@helper
def _skip_ack(buf, at, end, more):
    """RFC 9000 19.3."""
    count = np.int64(0)
    for n in range(4 + more):
        value, at = _varint(buf, at, end)
        if value < 0:
            return np.int64(-1)
        if n == 2:
            count = value
        if n == 3:
            if count > end:
                return np.int64(-1)
            for _ in range(2 * count):
                value, at = _varint(buf, at, end)
                if value < 0:
                    return np.int64(-1)
    return at


@helper
def _hello(q, scratch, kind):
    """Length of the one hello of this kind that the joined CRYPTO frames are, without its header; -1 for all else."""
    n = join_crypto(q, scratch)
    if n < 8 or be32(scratch, _S_HELLO) != kind << 24 | (n - 4):
        return np.int64(-1)
    return n - 4


@helper
def is_first(buf, start, end, q, scratch, w, x, tables):
    """Whether a datagram is a client's first, with its whole ClientHello: one packet, and what may be behind it is
    padding. Its parts are in x then."""
    if read_initial(buf, start, end, q) != 1:
        return False
    for i in range(q[Q_END], end):
        if u8(buf, i) != 0:
            return False
    derive(buf, q[Q_DCID], q[Q_DCID_N], True, q, scratch, w)
    if not open_initial(buf, start, q, scratch, w, tables):
        return False
    n = _hello(q, scratch, 1)
    if n < 0 or not read_client_hello(scratch, _S_HELLO + 4, _S_HELLO + 4 + n, x):
        return False
    q[Q_HELLO_N] = n
    out = scratch[_S_HELLO + 4096 :]
    return can_show(scratch, x, out) and _agent(scratch, x, out, np.int64(0)) != -2


@helper
def keep_hello(e, entries, slabs, q, scratch):
    """Keep the hello of `is_first`."""
    n = q[Q_HELLO_N]
    entries[e, E_HELLO], entries[e, E_HELLO_N] = HELLO_AT, n
    for i in range(n):
        slabs[e * SLAB + HELLO_AT + i] = scratch[_S_HELLO + 4 + i]


@helper
def _agent(buf, x, text, at):
    """Append the name of the software among the transport parameters. Returns where it ends, -1 without one, -2 when
    Python must."""
    pos, end = x[X_TRANSPORT], x[X_TRANSPORT] + x[X_TRANSPORT_N]
    for _ in range(64):
        kind, pos = _varint(buf, pos, end)
        if kind < 0:
            return np.int64(-1)
        size, pos = _varint(buf, pos, end)
        if size < 0:
            return np.int64(-1)
        if kind == _AGENT:
            stop = put_printable(buf, pos, min(pos + min(size, 255), end), text, at)
            return stop if stop >= 0 else np.int64(-2)
        pos += size
        if pos > end:
            return np.int64(-1)
    return np.int64(-1)


@helper
def emit_client(e, table, order, slot, records, entries, slabs, words, text, scratch, w, x, q, state):
    """A row with what the client said. Returns its number."""
    first = e * SLAB + entries[e, E_MESSAGE + M_START]
    n = new_row(table, entries[e, E_MESSAGE + M_TS], order, slot, records, words, state)
    hello = e * SLAB + entries[e, E_HELLO]
    read_client_hello(slabs, hello, hello + entries[e, E_HELLO_N], x)
    put_client(_Q, slabs, x, w, scratch, words, n, text, state)
    at = state[T_TEXT]
    stop = _agent(slabs, x, text, at)
    if stop >= 0:
        words[n, H_AGENT] = at << 16 | (stop - at)
        at = stop
    read_initial(slabs, first, first + entries[e, E_MESSAGE + M_LENGTH], q)
    for word, part in ((H_DCID, Q_DCID), (H_SCID, Q_SCID)):
        stop = at
        for i in range(q[part + 1]):
            stop = put_hex(u8(slabs, q[part] + i), 2, text, stop)
        words[n, word] = at << 16 | (stop - at)
        at = stop
    state[T_TEXT] = at
    return n


@helper
def take_answer(e, buf, start, end, table, order, slot, records, entries, slabs, words, text, scratch, w, x, q, tables,
                state):  # fmt: skip
    """The server's first datagram. 1: the row is made; 2: it is not QUIC; 0: Python must."""
    fits = read_initial(buf, start, end, q)
    if fits != 1:
        return 2 if fits < 0 else 0
    first = e * SLAB + entries[e, E_MESSAGE + M_START]
    read_initial(slabs, first, first + entries[e, E_MESSAGE + M_LENGTH], q)
    derive(slabs, q[Q_DCID], q[Q_DCID_N], False, q, scratch, w)
    read_initial(buf, start, end, q)
    if not open_initial(buf, start, q, scratch, w, tables):
        return 0
    size = _hello(q, scratch, 2)
    if size < 0:
        return 0
    if not read_server_hello(scratch, _S_HELLO + 4, _S_HELLO + 4 + size, x):
        return 0
    rows, used = state[T_ROWS], state[T_TEXT]
    out = scratch[_S_HELLO + 4096 :]
    n = emit_client(e, table, order, slot, records, entries, slabs, words, text, out, w, x, q, state)
    read_server_hello(scratch, _S_HELLO + 4, _S_HELLO + 4 + size, x)
    if not put_server(_Q, scratch, x, w, out, words, n, text, state):
        state[T_ROWS], state[T_TEXT] = rows, used
        return 0
    return 1
