"""Addresses as text: a hash finds the distinct ones of a batch, and only those are formatted.

A table is three arrays, reused for every batch and never cleared: a slot counts only when its tag is of this batch.
    keys: uint64[2, slots], the 128 bits. tags: int64[slots], generation * 2 + 1 for IPv6, + 0 for all else.
    found: int32[slots], the entry's number.
Entries, in order of first appearance: entries: uint64[2, max], kinds: uint8[max] (KIND_*).
"""

import numpy as np

from engine import packets as k
from engine.jit import helper, kernel

KIND_IPV4, KIND_IPV6, KIND_MAC = 0, 1, 2
MAX_TEXT = 45  # bytes of the longest address


@helper
def _slot(hi, lo, mask):
    """Fibonacci hashing of both words, high bits folded down."""
    h = (hi ^ (lo * np.uint64(0x9E3779B97F4A7C15))) * np.uint64(0xD6E8FEB86659FD93)
    return np.int64((h ^ (h >> np.uint64(32))) & np.uint64(mask))


@helper
def find_entry(hi, lo, kind, generation, keys, tags, found, entries, kinds, n):
    """Number of the address among the batch's entries; n[0] grows by one when it is new."""
    mask = tags.shape[0] - 1
    tag = generation * 2 + (kind & 1)
    s = _slot(hi, lo, mask)
    while tags[s] >> 1 == generation:
        if tags[s] == tag and keys[0, s] == hi and keys[1, s] == lo:
            return found[s]
        s = (s + 1) & mask
    number = n[0]
    n[0] = number + 1
    keys[0, s] = hi
    keys[1, s] = lo
    tags[s] = tag
    found[s] = number
    entries[0, number] = hi
    entries[1, number] = lo
    kinds[number] = kind
    return number


@kernel
def index_ips(address, present, versions, count, int_, generation, keys, tags, found, entries, kinds, n):
    """Number the IP addresses of rows 0 to count - 1 into the index columns of `int_` (0 where absent).

    Args:
        address: uint64[N_ADDRESS, rows]. present: uint32[rows]. versions: int16[rows], 4 or 6 of the outer header.
        int_: int32[N_INT, rows], written. generation: > any used with this table before.
        n: int64[1], the number of entries, 0 before. The rest as in the module text.
    """
    for i in range(count):
        flags = present[i]
        src = dst = inner_src = inner_dst = arp_src = arp_dst = np.int32(0)
        if flags & np.uint32(k.HAS_IP):
            kind = KIND_IPV6 if versions[i] == 6 else KIND_IPV4
            src = find_entry(
                address[k.A_SRC_HI, i], address[k.A_SRC_LO, i], kind, generation, keys, tags, found, entries, kinds, n
            )
            dst = find_entry(
                address[k.A_DST_HI, i], address[k.A_DST_LO, i], kind, generation, keys, tags, found, entries, kinds, n
            )
            if flags & np.uint32(k.HAS_INNER_IP):
                kind = KIND_IPV6 if flags & np.uint32(k.IS_INNER_IPV6) else KIND_IPV4
                inner_src = find_entry(
                    address[k.A_INNER_SRC_HI, i],
                    address[k.A_INNER_SRC_LO, i],
                    kind,
                    generation,
                    keys,
                    tags,
                    found,
                    entries,
                    kinds,
                    n,
                )
                inner_dst = find_entry(
                    address[k.A_INNER_DST_HI, i],
                    address[k.A_INNER_DST_LO, i],
                    kind,
                    generation,
                    keys,
                    tags,
                    found,
                    entries,
                    kinds,
                    n,
                )
        elif flags & np.uint32(k.HAS_ARP):
            zero = np.uint64(0)
            arp_src = find_entry(
                zero, address[k.A_ARP_SRC, i], KIND_IPV4, generation, keys, tags, found, entries, kinds, n
            )
            arp_dst = find_entry(
                zero, address[k.A_ARP_DST, i], KIND_IPV4, generation, keys, tags, found, entries, kinds, n
            )
        int_[k.I_SRC_IP, i] = src
        int_[k.I_DST_IP, i] = dst
        int_[k.I_INNER_SRC_IP, i] = inner_src
        int_[k.I_INNER_DST_IP, i] = inner_dst
        int_[k.I_ARP_SRC_IP, i] = arp_src
        int_[k.I_ARP_DST_IP, i] = arp_dst


@kernel
def index_macs(address, present, count, int_, generation, keys, tags, found, entries, kinds, n):
    """As `index_ips`, for the MAC columns."""
    zero = np.uint64(0)
    for i in range(count):
        src = dst = np.int32(0)
        if present[i] & np.uint32(k.HAS_MAC):
            src = find_entry(zero, address[k.A_SRC_MAC, i], KIND_MAC, generation, keys, tags, found, entries, kinds, n)
            dst = find_entry(zero, address[k.A_DST_MAC, i], KIND_MAC, generation, keys, tags, found, entries, kinds, n)
        int_[k.I_SRC_MAC, i] = src
        int_[k.I_DST_MAC, i] = dst


@kernel
def mark_new(entries, kinds, count, generation, keys, tags, limit, used, fresh):
    """Which of `count` entries a longer-lived table has not seen: their numbers into int32 `fresh`.

    `used` int64[1] counts the table's entries; at `limit` nothing more is remembered, the caller starts a new
    generation. Returns how many are new.
    """
    mask = tags.shape[0] - 1
    n = 0
    for i in range(count):
        hi, lo = entries[0, i], entries[1, i]
        tag = generation * 2 + np.int64(kinds[i] & 1)
        s = _slot(hi, lo, mask)
        known = False
        while tags[s] >> 1 == generation:
            if tags[s] == tag and keys[0, s] == hi and keys[1, s] == lo:
                known = True
                break
            s = (s + 1) & mask
        if known:
            continue
        fresh[n] = i
        n += 1
        if used[0] < limit:
            used[0] += 1
            keys[0, s] = hi
            keys[1, s] = lo
            tags[s] = tag
    return n


@kernel
def format_addresses(entries, kinds, count, offsets, text):
    """Text of each entry: dotted IPv4, IPv6 by RFC 5952, MAC as six lower-case pairs with colons.

    Args:
        offsets: int32[>= count + 1], written: entry i is text[offsets[i]:offsets[i + 1]].
        text: uint8[>= MAX_TEXT * count], written.
    """
    at = 0
    offsets[0] = 0
    for i in range(count):
        hi, lo = entries[0, i], entries[1, i]
        if kinds[i] == KIND_IPV4:
            at = _put_ipv4(np.int64(lo), text, at)
        elif kinds[i] == KIND_MAC:
            at = _put_mac(np.int64(lo), text, at)
        else:
            at = _put_ipv6(hi, lo, text, at)
        offsets[i + 1] = at


@helper
def _put_ipv4(value, text, at):
    for shift in (24, 16, 8, 0):
        b = (value >> shift) & 0xFF
        if b >= 100:
            text[at] = 48 + b // 100
            at += 1
        if b >= 10:
            text[at] = 48 + b // 10 % 10
            at += 1
        text[at] = 48 + b % 10
        text[at + 1] = 46
        at += 2
    return at - 1


@helper
def _digit(value):
    return 48 + value if value < 10 else 87 + value


@helper
def _put_mac(value, text, at):
    for i in range(6):
        b = (value >> (40 - 8 * i)) & 0xFF
        text[at] = _digit(b >> 4)
        text[at + 1] = _digit(b & 15)
        text[at + 2] = 58
        at += 3
    return at - 1


@helper
def _group(hi, lo, i):
    word = hi if i < 4 else lo
    return np.int64((word >> np.uint64(48 - 16 * (i & 3))) & np.uint64(0xFFFF))


@helper
def _put_ipv6(hi, lo, text, at):
    """RFC 5952 section 4: no leading zeros, the longest run of two or more zero groups as ::, the first if equal."""
    mapped = hi == np.uint64(0) and lo >> np.uint64(32) == np.uint64(0xFFFF)
    best, length = -1, 1
    start = -1
    for i in range(8):
        if _group(hi, lo, i) == 0:
            if start < 0:
                start = i
            if i - start + 1 > length:
                best, length = start, i - start + 1
        else:
            start = -1
    i = 0
    while i < (6 if mapped else 8):
        if i == best:
            text[at] = 58
            text[at + 1] = 58
            at += 2
            i += length
            continue
        if i > 0 and i != best + length:
            text[at] = 58
            at += 1
        group = _group(hi, lo, i)
        started = False
        for shift in (12, 8, 4, 0):
            nibble = (group >> shift) & 15
            if nibble or started or shift == 0:
                text[at] = _digit(nibble)
                at += 1
                started = True
        i += 1
    if mapped:  # ::ffff:a.b.c.d (section 5)
        text[at] = 58
        at = _put_ipv4(np.int64(lo & np.uint64(0xFFFFFFFF)), text, at + 1)
    return at


@kernel
def pack_bits(present, count, bits, counts):
    """Arrow validity bitmaps: bit i of bits[g] is group g of row i.

    Args:
        present: uint32[rows]. bits: uint8[N_GROUPS, rows / 8], written for the first `count` rows.
        counts: int64[N_GROUPS], written: rows that have the group.
    """
    for g in range(bits.shape[0]):
        total = 0
        shift = np.uint32(g)
        for block in range((count + 7) // 8):
            byte = np.uint32(0)
            first = block * 8
            for j in range(min(8, count - first)):
                byte |= ((present[first + j] >> shift) & np.uint32(1)) << np.uint32(j)
            bits[g, block] = byte
            for j in range(8):
                total += np.int64((byte >> np.uint32(j)) & np.uint32(1))
        counts[g] = total
