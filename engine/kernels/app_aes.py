"""AES-128 (FIPS 197) and its mode GCM (SP 800-38D), to open packets whose key is known to everyone.

Tables make it quick and its time dependent on the key: never use it for a secret.
"""

import numpy as np

from engine.jit import be32, be64, helper

N_KEY = 44 + 32  # words of a key schedule, then multiples of GHASH's key
_WORD = 0xFFFFFFFF


def _make_sbox() -> np.ndarray:
    p = q = 1
    box = [0] * 256
    while True:
        p = p ^ (p << 1 & 0xFF) ^ (0x1B if p & 0x80 else 0)
        q ^= q << 1
        q ^= q << 2
        q = (q ^ q << 4) & 0xFF
        q ^= 0x09 if q & 0x80 else 0
        box[p] = (q ^ _turn(q, 1) ^ _turn(q, 2) ^ _turn(q, 3) ^ _turn(q, 4)) ^ 0x63
        if p == 1:
            break
    box[0] = 0x63
    return np.array(box, np.int64)


def _turn(x: int, n: int) -> int:
    return (x << n | x >> (8 - n)) & 0xFF


def make_tables() -> np.ndarray:
    """int64[6, 256]: S-box; S-box and MixColumns for each of the four rows; GHASH's reduction by four bits."""
    box = _make_sbox()
    two = (box << 1 ^ np.where(box & 0x80, 0x1B, 0)) & 0xFF
    first = two << 24 | box << 16 | box << 8 | (two ^ box)
    rows = [box, *(((first >> 8 * n) | (first << (32 - 8 * n))) & _WORD for n in range(4))]
    reduction = np.zeros(256, np.int64)
    for nibble in range(16):
        for bit in range(4):
            if nibble >> bit & 1:
                reduction[nibble] ^= 0xE100 >> (3 - bit)
    return np.ascontiguousarray(np.array([*rows, reduction], np.int64))


@helper
def aes_key(q, key, schedule, tables):
    """Expand the four words at q[key:] to q[schedule:]."""
    constant = np.int64(1)
    for n in range(4):
        q[schedule + n] = q[key + n]
    for n in range(4, 44):
        v = q[schedule + n - 1]
        if n & 3 == 0:
            v = (v << 8 | v >> 24) & _WORD
            v = _last(v, v, v, v, tables)
            v ^= constant << 24
            constant = (constant << 1) ^ (0x11B if constant & 0x80 else 0)
        q[schedule + n] = q[schedule + n - 4] ^ v


@helper
def _encrypt(a, b, c, d, q, schedule, tables):
    """The block of four words."""
    a, b, c, d = a ^ q[schedule], b ^ q[schedule + 1], c ^ q[schedule + 2], d ^ q[schedule + 3]
    for n in range(schedule + 4, schedule + 40, 4):
        e = tables[1, a >> 24] ^ tables[2, b >> 16 & 255] ^ tables[3, c >> 8 & 255] ^ tables[4, d & 255] ^ q[n]
        f = tables[1, b >> 24] ^ tables[2, c >> 16 & 255] ^ tables[3, d >> 8 & 255] ^ tables[4, a & 255] ^ q[n + 1]
        g = tables[1, c >> 24] ^ tables[2, d >> 16 & 255] ^ tables[3, a >> 8 & 255] ^ tables[4, b & 255] ^ q[n + 2]
        h = tables[1, d >> 24] ^ tables[2, a >> 16 & 255] ^ tables[3, b >> 8 & 255] ^ tables[4, c & 255] ^ q[n + 3]
        a, b, c, d = e, f, g, h
    n = schedule + 40
    e = _last(a, b, c, d, tables) ^ q[n]
    f = _last(b, c, d, a, tables) ^ q[n + 1]
    g = _last(c, d, a, b, tables) ^ q[n + 2]
    h = _last(d, a, b, c, tables) ^ q[n + 3]
    return e, f, g, h


@helper
def _last(a, b, c, d, tables):
    return tables[0, a >> 24] << 24 | tables[0, b >> 16 & 255] << 16 | tables[0, c >> 8 & 255] << 8 | tables[0, d & 255]


@helper
def _store(v, buf, at):
    for i in range(4):
        buf[at + i] = v >> (24 - 8 * i) & 0xFF


@helper
def aes_block(buf, at, q, schedule, tables):
    """Encrypt 16 bytes in place."""
    a, b, c, d = _encrypt(be32(buf, at), be32(buf, at + 4), be32(buf, at + 8), be32(buf, at + 12), q, schedule, tables)
    _store(a, buf, at)
    _store(b, buf, at + 4)
    _store(c, buf, at + 8)
    _store(d, buf, at + 12)


_LOW_60 = (1 << 60) - 1


@helper
def _set_ghash(h, low, q, m):
    """Multiples of the key (h, low) by four bits at q[m:], high words then low words (SP 800-38D 6.3, Shoup)."""
    q[m] = 0
    q[m + 16] = 0
    q[m + 8] = h
    q[m + 24] = low
    i = 4
    while i > 0:
        carry = low & 1
        low = (h & 1) << 63 | (low >> 1 & 0x7FFFFFFFFFFFFFFF)
        h = (h >> 1 & 0x7FFFFFFFFFFFFFFF) ^ (np.int64(0xE1) * carry) << 56
        q[m + i] = h
        q[m + 16 + i] = low
        i >>= 1
    i = 2
    while i <= 8:
        for j in range(1, i):
            q[m + i + j] = q[m + i] ^ q[m + j]
            q[m + 16 + i + j] = q[m + 16 + i] ^ q[m + 16 + j]
        i <<= 1


@helper
def _multiply(h, low, q, m, tables):
    """(h, low) times the key."""
    z = np.int64(0)
    z_low = np.int64(0)
    for n in range(32):
        word = low if n < 16 else h
        if n:
            rest = z_low & 15
            z_low = (z & 15) << 60 | (z_low >> 4 & _LOW_60)
            z = (z >> 4 & _LOW_60) ^ tables[5, rest] << 48
        nibble = word >> (4 * (n & 15)) & 15
        z ^= q[m + nibble]
        z_low ^= q[m + 16 + nibble]
    return z, z_low


@helper
def _ghash(h, low, buf, at, n, q, m, tables):
    """Take n bytes into the sum, padded with zeros."""
    stop = at + n
    while at + 16 <= stop:
        h, low = _multiply(h ^ be64(buf, at), low ^ be64(buf, at + 8), q, m, tables)
        at += 16
    if at < stop:
        x = np.int64(0)
        y = np.int64(0)
        for i in range(stop - at):
            if i < 8:
                x |= np.int64(buf[at + i]) << (56 - 8 * i)
            else:
                y |= np.int64(buf[at + i]) << (120 - 8 * i)
        h, low = _multiply(h ^ x, low ^ y, q, m, tables)
    return h, low


@helper
def open_gcm(buf, start, n, scratch, aad, aad_n, iv0, iv1, iv2, out, q, schedule, tables):
    """Decrypt buf[start : start + n], whose tag of 16 bytes follows, to scratch[out:]. False when the tag is wrong.

    scratch[aad : aad + aad_n]: what is authenticated beside it. iv0, iv1, iv2: the nonce's 32-bit words.
    """
    m = schedule + 44
    zero = np.int64(0)
    a, b, c, d = _encrypt(zero, zero, zero, zero, q, schedule, tables)
    _set_ghash(a << 32 | b, c << 32 | d, q, m)
    h, low = _ghash(zero, zero, scratch, aad, aad_n, q, m, tables)
    h, low = _ghash(h, low, buf, start, n, q, m, tables)
    h, low = _multiply(h ^ (aad_n * 8), low ^ (n * 8), q, m, tables)
    a, b, c, d = _encrypt(iv0, iv1, iv2, zero + 1, q, schedule, tables)
    if be64(buf, start + n) != h ^ (a << 32 | b) or be64(buf, start + n + 8) != low ^ (c << 32 | d):
        return False
    block = np.int64(2)
    for at in range(0, n, 16):
        a, b, c, d = _encrypt(iv0, iv1, iv2, block, q, schedule, tables)
        block += 1
        for i in range(min(16, n - at)):
            word = a if i < 4 else b if i < 8 else c if i < 12 else d
            scratch[out + at + i] = np.int64(buf[start + at + i]) ^ (word >> (24 - 8 * (i & 3)) & 255)
    return True
