"""MD5 (RFC 1321) and SHA-256 (FIPS 180-4) of short messages, for fingerprints and keys that are made of them."""

import numpy as np

from engine.jit import be32, helper
from engine.kernels.app_rows import put_hex

_WORD = 0xFFFFFFFF
N_HASH = 96  # words of scratch
_DIGEST = 80  # where the digest begins in it

_SINES = np.floor(np.abs(np.sin(np.arange(1, 65))) * 4294967296.0).astype(np.int64)
_TURNS = np.array([7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21], np.int64)


def _roots(power: int, count: int) -> np.ndarray:
    """First 32 bits of the fractions of the square or cube roots of the first primes."""
    primes = [n for n in range(2, 400) if all(n % p for p in range(2, int(n**0.5) + 1))][:count]
    found = []
    for prime in primes:
        wanted, root = prime << (32 * power), 1
        while root**power <= wanted:
            root <<= 1
        low, high = root >> 1, root
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if middle**power <= wanted else (low, middle)
        found.append(low & _WORD)
    return np.array(found, np.int64)


_START = _roots(2, 8)
_ROUNDS = _roots(3, 64)


@helper
def _left(x, n):
    return (x << n | x >> (32 - n)) & _WORD


@helper
def _right(x, n):
    return (x >> n | x << (32 - n)) & _WORD


@helper
def _pad(buf, start, length, bits, little):
    """Append 0x80, zeros and the length to the message; returns the blocks it has. The buffer has room for 72 more."""
    at = start + length
    buf[at] = 0x80
    blocks = (length + 72) >> 6
    stop = start + 64 * blocks
    for i in range(at + 1, stop):
        buf[i] = 0
    for i in range(8):
        buf[stop - 8 + i if little else stop - 1 - i] = bits >> (8 * i) & 0xFF
    return blocks


@helper
def md5(buf, start, length, w):
    """The digest of buf[start : start + length] as four words in w[_DIGEST:]. w: int64[N_HASH]."""
    blocks = _pad(buf, start, length, 8 * length, True)
    w[80], w[81], w[82], w[83] = 0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476
    for block in range(blocks):
        for t in range(16):
            v = be32(buf, start + 64 * block + 4 * t)
            w[t] = v >> 24 | (v >> 8 & 0xFF00) | (v << 8 & 0xFF0000) | (v << 24 & 0xFF000000)
        a, b, c, d = w[80], w[81], w[82], w[83]
        for t in range(64):
            kind = t >> 4
            if kind == 0:
                f, g = (b & c) | (~b & d), t
            elif kind == 1:
                f, g = (d & b) | (~d & c), (5 * t + 1) & 15
            elif kind == 2:
                f, g = b ^ c ^ d, (3 * t + 5) & 15
            else:
                f, g = c ^ (b | (~d & _WORD)), (7 * t) & 15
            turned = _left((a + (f & _WORD) + _SINES[t] + w[g]) & _WORD, _TURNS[kind * 4 + (t & 3)])
            a, d, c, b = d, c, b, (b + turned) & _WORD
        w[80] = (w[80] + a) & _WORD
        w[81] = (w[81] + b) & _WORD
        w[82] = (w[82] + c) & _WORD
        w[83] = (w[83] + d) & _WORD


@helper
def put_md5(buf, start, length, w, text, at):
    """Append the digest in hexadecimal."""
    md5(buf, start, length, w)
    for n in range(4):
        v = w[80 + n]
        at = put_hex(v >> 24 | (v >> 8 & 0xFF00) | (v << 8 & 0xFF0000) | (v << 24 & 0xFF000000), 8, text, at)
    return at


@helper
def sha256_start(w):
    """The state before the first block."""
    for n in range(8):
        w[80 + n] = _START[n]


@helper
def sha256_block(buf, at, w):
    """Take the block at buf[at : at + 64] into the state w[_DIGEST:]."""
    for t in range(16):
        w[t] = be32(buf, at + 4 * t)
    for t in range(16, 64):
        x, y = w[t - 15], w[t - 2]
        s0 = _right(x, 7) ^ _right(x, 18) ^ x >> 3
        s1 = _right(y, 17) ^ _right(y, 19) ^ y >> 10
        w[t] = (w[t - 16] + s0 + w[t - 7] + s1) & _WORD
    a, b, c, d, e, f, g, h = w[80], w[81], w[82], w[83], w[84], w[85], w[86], w[87]
    for t in range(64):
        s1 = _right(e, 6) ^ _right(e, 11) ^ _right(e, 25)
        one = (h + s1 + ((e & f) ^ (~e & g)) + _ROUNDS[t] + w[t]) & _WORD
        s0 = _right(a, 2) ^ _right(a, 13) ^ _right(a, 22)
        two = (s0 + ((a & b) ^ (a & c) ^ (b & c))) & _WORD
        a, b, c, d, e, f, g, h = (one + two) & _WORD, a, b, c, (d + one) & _WORD, e, f, g
    w[80] = (w[80] + a) & _WORD
    w[81] = (w[81] + b) & _WORD
    w[82] = (w[82] + c) & _WORD
    w[83] = (w[83] + d) & _WORD
    w[84] = (w[84] + e) & _WORD
    w[85] = (w[85] + f) & _WORD
    w[86] = (w[86] + g) & _WORD
    w[87] = (w[87] + h) & _WORD


@helper
def sha256(buf, start, length, before, w):
    """Take the rest of a message into the state: buf[start : start + length], after `before` bytes, and its padding."""
    blocks = _pad(buf, start, length, 8 * (before + length), False)
    for block in range(blocks):
        sha256_block(buf, start + 64 * block, w)


@helper
def put_sha256_12(buf, start, length, w, text, at):
    """Append the first 12 hexadecimal digits of SHA-256, zeros for an empty message (JA4)."""
    if length == 0:
        return put_hex(np.int64(0), 12, text, at)
    sha256_start(w)
    sha256(buf, start, length, np.int64(0), w)
    return put_hex(w[81] >> 16, 4, text, put_hex(w[80], 8, text, at))
