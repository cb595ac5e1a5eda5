"""Addresses as text: a hash finds the distinct ones of a batch, and only those are formatted.

A table is three arrays, reused for every batch and never cleared: a slot counts only when its tag is of this batch.
    keys: uint64[slots + 2, 2], the 128 bits; the last two rows hold odd multipliers of the hash, drawn at each start:
        nobody outside can aim at one chain of the table.
    tags: int64[slots], generation * 2 + 1 for IPv6, + 0 for all else.
    found: int32[slots], the entry's number.
Entries, in order of first appearance: entries: uint64[2, max], kinds: uint8[max] (KIND_*).
"""

import numpy as np

from engine import packets as k
from engine.jit import helper, kernel

KIND_IPV4, KIND_IPV6, KIND_MAC = 0, 1, 2
MAX_TEXT = 45  # bytes of the longest address


@helper
def _slot(hi, lo, mask, keys):
    """Multilinear in both words, then the high bits of another product."""
    h = hi * keys[mask + 1, 0] + lo * keys[mask + 1, 1] + keys[mask + 2, 0]
    h = (h ^ (h >> np.uint64(32))) * keys[mask + 2, 1]
    return np.int64((h >> np.uint64(32)) & np.uint64(mask))


@helper
def find_entry(hi, lo, kind, generation, keys, tags, found, entries, kinds, n):
    """Number of the address among the batch's entries; n[0] grows by one when it is new."""
    mask = tags.shape[0] - 1
    tag = generation * 2 + (kind & 1)
    s = _slot(hi, lo, mask, keys)
    while tags[s] >> 1 == generation:
        if tags[s] == tag and keys[s, 0] == hi and keys[s, 1] == lo:
            return found[s]
        s = (s + 1) & mask
    number = n[0]
    n[0] = number + 1
    keys[s, 0] = hi
    keys[s, 1] = lo
    tags[s] = tag
    found[s] = number
    entries[0, number] = hi
    entries[1, number] = lo
    kinds[number] = kind
    return number


@kernel
def index_ips(address, present, versions, count, int_, generation, keys, tags, found, entries, kinds, n):
    """Number the outer IP addresses of rows 0 to count - 1 into the index columns of `int_` (0 where absent).

    Args:
        address: uint64[N_ADDRESS, rows]. present: uint32[rows]. versions: int16[rows], 4 or 6 of the outer header.
        int_: int32[N_INT, rows], written. generation: > any used with this table before.
        n: int64[1], the number of entries, 0 before. The rest as in the module text.

    A row like the one before it, as in a burst of one flow, is not looked up.
    """
    last = np.int64(-1)  # row whose addresses are those numbered last
    for i in range(count):
        src = dst = np.int32(0)
        if present[i] & np.uint32(k.HAS_IP):
            kind = KIND_IPV6 if versions[i] == 6 else KIND_IPV4
            src_hi, src_lo = address[k.A_SRC_HI, i], address[k.A_SRC_LO, i]
            dst_hi, dst_lo = address[k.A_DST_HI, i], address[k.A_DST_LO, i]
            alike = last >= 0 and versions[i] == versions[last]
            if alike and src_lo == address[k.A_SRC_LO, last] and src_hi == address[k.A_SRC_HI, last]:
                src = int_[k.I_SRC_IP, last]
            else:
                src = find_entry(src_hi, src_lo, kind, generation, keys, tags, found, entries, kinds, n)
            if alike and dst_lo == address[k.A_DST_LO, last] and dst_hi == address[k.A_DST_HI, last]:
                dst = int_[k.I_DST_IP, last]
            else:
                dst = find_entry(dst_hi, dst_lo, kind, generation, keys, tags, found, entries, kinds, n)
            last = i
        int_[k.I_SRC_IP, i] = src
        int_[k.I_DST_IP, i] = dst


@kernel
def index_rare_ips(address, present, count, int_, generation, keys, tags, found, entries, kinds, n):
    """As `index_ips`, for the addresses that few rows have: inside tunnels, and of ARP."""
    for i in range(count):
        flags = present[i]
        inner_src = inner_dst = arp_src = arp_dst = np.int32(0)
        if flags & np.uint32(k.HAS_INNER_IP):
            kind = KIND_IPV6 if flags & np.uint32(k.IS_INNER_IPV6) else KIND_IPV4
            hi, lo = address[k.A_INNER_SRC_HI, i], address[k.A_INNER_SRC_LO, i]
            inner_src = find_entry(hi, lo, kind, generation, keys, tags, found, entries, kinds, n)
            hi, lo = address[k.A_INNER_DST_HI, i], address[k.A_INNER_DST_LO, i]
            inner_dst = find_entry(hi, lo, kind, generation, keys, tags, found, entries, kinds, n)
        elif flags & np.uint32(k.HAS_ARP):
            zero, src, dst = np.uint64(0), address[k.A_ARP_SRC, i], address[k.A_ARP_DST, i]
            arp_src = find_entry(zero, src, KIND_IPV4, generation, keys, tags, found, entries, kinds, n)
            arp_dst = find_entry(zero, dst, KIND_IPV4, generation, keys, tags, found, entries, kinds, n)
        int_[k.I_INNER_SRC_IP, i] = inner_src
        int_[k.I_INNER_DST_IP, i] = inner_dst
        int_[k.I_ARP_SRC_IP, i] = arp_src
        int_[k.I_ARP_DST_IP, i] = arp_dst


@kernel
def index_macs(address, present, count, int_, generation, keys, tags, found, entries, kinds, n):
    """As `index_ips`, for the MAC columns."""
    zero = np.uint64(0)
    last = np.int64(-1)
    for i in range(count):
        src = dst = np.int32(0)
        if present[i] & np.uint32(k.HAS_MAC):
            a, b = address[k.A_SRC_MAC, i], address[k.A_DST_MAC, i]
            if last >= 0 and a == address[k.A_SRC_MAC, last] and b == address[k.A_DST_MAC, last]:
                src, dst = int_[k.I_SRC_MAC, last], int_[k.I_DST_MAC, last]
            else:
                src = find_entry(zero, a, KIND_MAC, generation, keys, tags, found, entries, kinds, n)
                dst = find_entry(zero, b, KIND_MAC, generation, keys, tags, found, entries, kinds, n)
            last = i
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
        s = _slot(hi, lo, mask, keys)
        known = False
        while tags[s] >> 1 == generation:
            if tags[s] == tag and keys[s, 0] == hi and keys[s, 1] == lo:
                known = True
                break
            s = (s + 1) & mask
        if known:
            continue
        fresh[n] = i
        n += 1
        if used[0] < limit:
            used[0] += 1
            keys[s, 0] = hi
            keys[s, 1] = lo
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
            at = put_ipv4(np.int64(lo), text, at)
        elif kinds[i] == KIND_MAC:
            at = _put_mac(np.int64(lo), text, at)
        else:
            at = put_ipv6(hi, lo, text, at)
        offsets[i + 1] = at


@helper
def put_ipv4(value, text, at):
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
def put_ipv6(hi, lo, text, at):
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
        at = put_ipv4(np.int64(lo & np.uint64(0xFFFFFFFF)), text, at + 1)
    return at


@kernel
def pack_bits(present, count, bits, counts):
    """Arrow validity bitmaps: bit i of bits[g] is group g of row i.

    Args:
        present: uint32[rows]. bits: uint8[N_GROUPS, rows / 8], written for the first `count` rows.
        counts: int64[N_GROUPS], written: rows that have the group.

    Most groups are in every row of a batch or in none, and filled without a look at the rows.
    """
    some, every = np.uint32(0), np.uint32(0xFFFFFFFF)
    for i in range(count):
        some |= present[i]
        every &= present[i]
    whole = count >> 3
    for g in range(bits.shape[0]):
        shift = np.uint32(g)
        if (some >> shift) & np.uint32(1) == 0 or (every >> shift) & np.uint32(1):
            counts[g] = count if (some >> shift) & np.uint32(1) else 0
            fill = np.uint8(255) if counts[g] else np.uint8(0)
            for block in range((count + 7) >> 3):
                bits[g, block] = fill
            continue
        total = np.int64(0)
        for block in range(whole):
            byte = np.uint32(0)
            for j in range(8):
                byte |= ((present[block * 8 + j] >> shift) & np.uint32(1)) << np.uint32(j)
            bits[g, block] = byte
            byte -= (byte >> np.uint32(1)) & np.uint32(0x55)  # how many bits are set
            byte = (byte & np.uint32(0x33)) + ((byte >> np.uint32(2)) & np.uint32(0x33))
            total += np.int64((byte + (byte >> np.uint32(4))) & np.uint32(15))
        if count & 7:
            byte = np.uint32(0)
            for j in range(count & 7):
                bit = (present[whole * 8 + j] >> shift) & np.uint32(1)
                byte |= bit << np.uint32(j)
                total += np.int64(bit)
            bits[g, whole] = byte
        counts[g] = total
