"""The hellos of TLS 1.3 and before, read by a kernel, and what is shown of them (RFC 8446 4.1, JA3, JA4).

Equal to `engine.dissect._handshake`, `_fingerprint` and `_connection` for well-formed hellos with ASCII names; others
are left to them.
"""

import numpy as np

from engine.jit import be16, be64, helper, u8
from engine.kernels.app_hash import put_md5, put_sha256_12
from engine.kernels.app_rows import FEED, MISSING, NO_TEXT, T_TEXT, W_OWN, put_decimal, put_hex, put_printable

# The row's own words.
(
    H_VERSION, H_CLIENT_VERSION, H_SNI, H_ALPN, H_OFFERED, H_JA3, H_JA4, H_JA3S, H_JA4S, H_CIPHER, H_RESUMED, H_EARLY,
    H_DCID, H_SCID, H_AGENT,
) = range(W_OWN, W_OWN + 15)  # fmt: skip

# Words of a hello, int64[N_HELLO]: where its parts are in the buffer (start, then length in bytes), and numbers.
(
    X_VERSION, X_CIPHERS, X_CIPHERS_N, X_EXTENSIONS, X_END, X_HAS_SNI, X_SNI, X_SNI_N, X_ALPN, X_ALPN_N, X_GROUPS,
    X_GROUPS_N, X_FORMATS, X_FORMATS_N, X_SIGNATURES, X_SIGNATURES_N, X_VERSIONS, X_VERSIONS_N, X_EARLY, X_TRANSPORT,
    X_TRANSPORT_N, X_CIPHER, X_CHOSEN, X_RESUMED, X_COUNT,
    X_SORT,  # scratch for numbers to sort
) = range(26)  # fmt: skip
_MOST = 200  # ciphers or extensions
N_HELLO = X_SORT + _MOST
MOST_BYTES = 4096  # of a hello
_NAMES, _TEXT = 32, 255
_RETRY = np.frombuffer(bytes.fromhex("cf21ad74e59a6111"), ">i8").astype(np.int64)[0]


@helper
def is_grease(v):
    """RFC 8701 2."""
    return v & 0x0F0F == 0x0A0A and v >> 8 == v & 0xFF


@helper
def read_client_hello(buf, start, end, x):
    """Find the parts of the ClientHello body buf[start:end]. False when Python must read it."""
    for n in range(X_SORT):
        x[n] = 0
    if end - start < 42 or end - start > MOST_BYTES or u8(buf, start) != 3:
        return False
    x[X_VERSION] = be16(buf, start)
    at = start + 35 + u8(buf, start + 34)
    if at + 2 > end:
        return False
    size = be16(buf, at)
    at += 2
    if size & 1 or size > 2 * _MOST or at + size + 1 > end:
        return False
    x[X_CIPHERS] = at
    x[X_CIPHERS_N] = size
    at += size
    at += 1 + u8(buf, at)
    x[X_EXTENSIONS] = at
    x[X_END] = at
    if at == end:
        return True
    if at + 2 > end or at + 2 + be16(buf, at) != end:
        return False
    at += 2
    x[X_EXTENSIONS] = at
    seen = np.int64(0)
    while end - at >= 4:
        kind, size = be16(buf, at), be16(buf, at + 2)
        at += 4
        if at + size > end or x[X_COUNT] >= _MOST:
            return False
        x[X_COUNT] += 1
        x[X_END] = at + size
        bit = np.int64(0)
        if kind == 0x0000:
            bit = 1
            x[X_HAS_SNI] = 1
            if size > 5 and u8(buf, at + 2) == 0:
                x[X_SNI] = at + 5
                x[X_SNI_N] = min(be16(buf, at + 3), size - 5, _TEXT)
        elif kind == 0x000A:
            bit = 2
            _list16(x, X_GROUPS, buf, at, size)
        elif kind == 0x000B:
            bit = 4
            if size > 0:
                x[X_FORMATS] = at + 1
                x[X_FORMATS_N] = min(u8(buf, at), size - 1)
        elif kind == 0x000D:
            bit = 8
            _list16(x, X_SIGNATURES, buf, at, size)
        elif kind == 0x0010:
            bit = 16
            x[X_ALPN] = at
            x[X_ALPN_N] = size
        elif kind == 0x002A:
            bit = 32
            x[X_EARLY] = 1
        elif kind == 0x002B:
            bit = 64
            if size > 0:
                x[X_VERSIONS] = at + 1
                x[X_VERSIONS_N] = min(u8(buf, at), size - 1) & ~1
        elif kind == 0x0039 or kind == 0xFFA5:
            bit = 128
            x[X_TRANSPORT] = at
            x[X_TRANSPORT_N] = size
        if bit & seen:
            return False
        seen |= bit
        at += size
    return True


@helper
def _list16(x, word, buf, at, size):
    """A list of 16-bit numbers after its length in bytes; what is there of it."""
    if size >= 2:
        x[word] = at + 2
        x[word + 1] = min(be16(buf, at), size - 2) & ~1


@helper
def _versions(buf, x):
    """(highest, best) as ClientHello says them."""
    first = highest = lowest = np.int64(-1)
    best = False
    for i in range(x[X_VERSIONS], x[X_VERSIONS] + x[X_VERSIONS_N], 2):
        v = be16(buf, i)
        best |= v == 0x0304
        if not is_grease(v):
            first = v if first < 0 else first
            highest = max(highest, v)
            lowest = v if lowest < 0 else min(lowest, v)
    if first < 0:
        first = highest = lowest = x[X_VERSION]
    chosen = lowest if first >= 0xFE00 else highest
    return chosen, (np.int64(0x0304) if best else chosen)


@helper
def put_names(buf, start, size, text, at):
    """Append a ProtocolNameList as a list; -1 when Python must (RFC 7301 3.1). Extension data from `start`."""
    pos = start + 2
    end = start + size
    for _ in range(_NAMES):
        if pos >= end:
            break
        stop = min(pos + 1 + u8(buf, pos), end)
        at = put_printable(buf, pos + 1, stop, text, at)
        if at < 0:
            return at
        text[at] = FEED
        at += 1
        pos = pos + 1 + u8(buf, pos)
    return at


@helper
def _put_dashed(buf, start, size, text, at):
    """Append 16-bit numbers without GREASE, between hyphens."""
    first = True
    for i in range(start, start + size, 2):
        v = be16(buf, i)
        if not is_grease(v):
            if not first:
                text[at] = 45
                at += 1
            at = put_decimal(v, text, at)
            first = False
    return at


@helper
def _put_list(x, n, text, at):
    """Append the first n numbers to sort, in hexadecimal between commas."""
    for i in range(n):
        if i:
            text[at] = 44
            at += 1
        at = put_hex(x[X_SORT + i], 4, text, at)
    return at


@helper
def _sort(x, n):
    for i in range(1, n):
        v = x[X_SORT + i]
        j = i
        while j > 0 and x[X_SORT + j - 1] > v:
            x[X_SORT + j] = x[X_SORT + j - 1]
            j -= 1
        x[X_SORT + j] = v


@helper
def _put_ja3(buf, x, w, scratch, text, at):
    end = _comma(scratch, put_decimal(x[X_VERSION], scratch, np.int64(0)))
    end = _comma(scratch, _put_dashed(buf, x[X_CIPHERS], x[X_CIPHERS_N], scratch, end))
    first = True
    pos = x[X_EXTENSIONS]
    while pos < x[X_END]:
        v = be16(buf, pos)
        if not is_grease(v):
            if not first:
                scratch[end] = 45
                end += 1
            end = put_decimal(v, scratch, end)
            first = False
        pos += 4 + be16(buf, pos + 2)
    end = _comma(scratch, end)
    end = _comma(scratch, _put_dashed(buf, x[X_GROUPS], x[X_GROUPS_N], scratch, end))
    for i in range(x[X_FORMATS_N]):
        if i:
            scratch[end] = 45
            end += 1
        end = put_decimal(u8(buf, x[X_FORMATS] + i), scratch, end)
    return put_md5(scratch, np.int64(0), end, w, text, at)


@helper
def _comma(text, at):
    text[at] = 44
    return at + 1


@helper
def _put_version(v, text, at):
    """Two characters (JA4)."""
    a, b = np.int64(48), np.int64(48)
    if 0x0301 <= v <= 0x0304:
        a, b = np.int64(49), np.int64(48) + v - 0x0301
    elif v == 0x0300:
        a, b = np.int64(115), np.int64(51)
    elif v == 0x0002 or v == 0x0200:
        a, b = np.int64(115), np.int64(50)
    elif v == 0x0100:
        a, b = np.int64(115), np.int64(49)
    elif 0xFEFD <= v <= 0xFEFF and v != 0xFEFE:
        a, b = np.int64(100), np.int64(49 if v == 0xFEFF else 50)
    elif v == 0xFEFC:
        a, b = np.int64(100), np.int64(51)
    text[at] = a
    text[at + 1] = b
    return at + 2


@helper
def _put_count(n, text, at):
    n = min(n, 99)
    text[at] = 48 + n // 10
    text[at + 1] = 48 + n % 10
    return at + 2


@helper
def _is_alnum(c):
    return 48 <= c <= 57 or 65 <= c <= 90 or 97 <= c <= 122


@helper
def _put_ends(buf, start, size, text, at):
    """First and last character of the first name of a ProtocolNameList, see `_fingerprint.py`."""
    n = np.int64(0)
    if size > 2:
        n = min(u8(buf, start + 2), size - 3)
    if n == 0:
        text[at] = 48
        text[at + 1] = 48
        return at + 2
    a, b = u8(buf, start + 3), u8(buf, start + 2 + n)
    if _is_alnum(a) and _is_alnum(b):
        text[at] = a
        text[at + 1] = b
        return at + 2
    return put_hex(b & 15, 1, text, put_hex(a >> 4, 1, text, at))


@helper
def _put_ja4(protocol, highest, buf, x, w, scratch, text, at):
    ciphers = np.int64(0)
    for i in range(x[X_CIPHERS], x[X_CIPHERS] + x[X_CIPHERS_N], 2):
        v = be16(buf, i)
        if not is_grease(v):
            x[X_SORT + ciphers] = v
            ciphers += 1
    _sort(x, ciphers)
    ciphers_end = _put_list(x, ciphers, scratch, np.int64(0))
    hashed = ciphers_end + 80  # room for the padding of the first hash
    extensions = np.int64(0)
    n = np.int64(0)
    pos = x[X_EXTENSIONS]
    while pos < x[X_END]:
        v = be16(buf, pos)
        if not is_grease(v):
            extensions += 1
            if v != 0x0000 and v != 0x0010:
                x[X_SORT + n] = v
                n += 1
        pos += 4 + be16(buf, pos + 2)
    _sort(x, n)
    end = _put_list(x, n, scratch, hashed)
    first = True
    for i in range(x[X_SIGNATURES], x[X_SIGNATURES] + x[X_SIGNATURES_N], 2):
        v = be16(buf, i)
        if not is_grease(v):
            scratch[end] = 95 if first else 44
            end = put_hex(v, 4, scratch, end + 1)
            first = False
    text[at] = protocol
    at = _put_version(highest, text, at + 1)
    text[at] = 100 if x[X_HAS_SNI] else 105
    at = _put_count(extensions, text, _put_count(ciphers, text, at + 1))
    at = _put_ends(buf, x[X_ALPN], x[X_ALPN_N], text, at)
    text[at] = 95
    at = put_sha256_12(scratch, np.int64(0), ciphers_end, w, text, at + 1)
    text[at] = 95
    return put_sha256_12(scratch, hashed, end - hashed if extensions else np.int64(0), w, text, at + 1)


@helper
def can_show(buf, x, scratch):
    """Whether the names of a ClientHello can be shown as they are."""
    if put_printable(buf, x[X_SNI], x[X_SNI] + x[X_SNI_N], scratch, np.int64(0)) < 0:
        return False
    return x[X_ALPN_N] == 0 or put_names(buf, x[X_ALPN], x[X_ALPN_N], scratch, np.int64(0)) >= 0


@helper
def put_client(protocol, buf, x, w, scratch, words, n, text, state):
    """Fill row `n` from a ClientHello that can be shown; what the server says is NULL."""
    at = state[T_TEXT]
    highest, best = _versions(buf, x)
    words[n, H_VERSION] = best
    words[n, H_CLIENT_VERSION] = best
    stop = put_printable(buf, x[X_SNI], x[X_SNI] + x[X_SNI_N], text, at)
    words[n, H_SNI] = at << 16 | (stop - at) if stop > at else NO_TEXT
    at = stop
    stop = put_names(buf, x[X_ALPN], x[X_ALPN_N], text, at) if x[X_ALPN_N] > 0 else at
    words[n, H_OFFERED] = at << 16 | (stop - at) if stop > at else NO_TEXT
    words[n, H_ALPN] = NO_TEXT
    if stop > at:
        first = np.int64(0)
        while text[at + first] != FEED:
            first += 1
        words[n, H_ALPN] = at << 16 | first
    at = stop
    stop = _put_ja3(buf, x, w, scratch, text, at)
    words[n, H_JA3] = at << 16 | (stop - at)
    at = stop
    stop = _put_ja4(protocol, highest, buf, x, w, scratch, text, at)
    words[n, H_JA4] = at << 16 | (stop - at)
    state[T_TEXT] = stop
    words[n, H_EARLY] = x[X_EARLY]
    words[n, H_CIPHER] = MISSING
    for word in (H_JA3S, H_JA4S, H_RESUMED, H_DCID, H_SCID, H_AGENT):
        words[n, word] = NO_TEXT


@helper
def read_server_hello(buf, start, end, x):
    """Find the parts of a ServerHello of TLS 1.3, buf[start:end]. False when Python must read it."""
    for n in range(X_SORT):
        x[n] = 0
    if end - start < 40 or end - start > MOST_BYTES or be16(buf, start) != 0x0303:
        return False
    if be64(buf, start + 2) == _RETRY:
        return False
    at = start + 35 + u8(buf, start + 34)
    if at + 5 > end or at + 5 + be16(buf, at + 3) != end:
        return False
    x[X_VERSION] = 0x0303
    x[X_CIPHER] = be16(buf, at)
    at += 5
    x[X_EXTENSIONS] = at
    x[X_END] = at
    while end - at >= 4:
        kind, size = be16(buf, at), be16(buf, at + 2)
        at += 4
        if at + size > end or x[X_COUNT] >= _MOST:
            return False
        x[X_COUNT] += 1
        x[X_END] = at + size
        if kind == 0x002B and size == 2:
            x[X_CHOSEN] = be16(buf, at)
        elif kind == 0x0010:
            if x[X_ALPN_N] > 0:
                return False
            x[X_ALPN] = at
            x[X_ALPN_N] = size
        elif kind == 0x0029:
            x[X_RESUMED] = 1
        at += size
    return x[X_CHOSEN] == 0x0304


@helper
def put_server(protocol, buf, x, w, scratch, words, n, text, state):
    """Fill in what the ServerHello says. False when Python must."""
    at = state[T_TEXT]
    if x[X_ALPN_N] > 2 and u8(buf, x[X_ALPN] + 2) > 0:
        first = x[X_ALPN] + 3
        stop = put_printable(buf, first, min(first + u8(buf, first - 1), x[X_ALPN] + x[X_ALPN_N]), text, at)
        if stop < 0:
            return False
        if stop > at:
            words[n, H_ALPN] = at << 16 | (stop - at)
        at = stop
    words[n, H_VERSION] = x[X_CHOSEN]
    words[n, H_CIPHER] = x[X_CIPHER]
    words[n, H_RESUMED] = x[X_RESUMED]
    end = _comma(scratch, put_decimal(x[X_VERSION], scratch, np.int64(0)))
    end = _comma(scratch, put_decimal(x[X_CIPHER], scratch, end))
    pos = x[X_EXTENSIONS]
    count = np.int64(0)
    while pos < x[X_END]:
        v = be16(buf, pos)
        if count:
            scratch[end] = 45
            end += 1
        end = put_decimal(v, scratch, end)
        x[X_SORT + count] = v
        count += 1
        pos += 4 + be16(buf, pos + 2)
    stop = put_md5(scratch, np.int64(0), end, w, text, at)
    words[n, H_JA3S] = at << 16 | (stop - at)
    at = stop
    text[at] = protocol
    stop = _put_count(count, text, _put_version(x[X_CHOSEN], text, at + 1))
    stop = _put_ends(buf, x[X_ALPN], x[X_ALPN_N], text, stop)
    text[stop] = 95
    stop = put_hex(x[X_CIPHER], 4, text, stop + 1)
    text[stop] = 95
    end = _put_list(x, count, scratch, np.int64(0))
    stop = put_sha256_12(scratch, np.int64(0), end, w, text, stop + 1)
    words[n, H_JA4S] = at << 16 | (stop - at)
    state[T_TEXT] = stop
    return True
