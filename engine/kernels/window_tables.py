"""Bounded hash tables for windows: rows found by a keyed 64-bit hash, in sets of eight; the quietest goes first.

A set is one cache line of eight tags: 47 bits of the hash << 16 | 16 bits of the second it was last used in. The hash
is multilinear with multipliers drawn at each start, so that nobody outside can aim at a set or make two keys meet.
"""

import numpy as np

from engine.jit import helper

WAYS = 8
_KEY = (1 << 47) - 1
_AGE = 0xFFFF
_MIX = np.uint64(0xD6E8FEB86659FD93)
_SHIFT = np.uint64(32)
_SIGNED = np.uint64((1 << 63) - 1)  # so that a hash is the same number as int64

# What `note` says of a value.
KNOWN, MOVED, NEW = range(3)


@helper
def mix(a, b, seeds):
    """63 bits, as uint64, of two 64-bit words (uint64); `seeds` are odd."""
    h = (a ^ (a >> _SHIFT)) * seeds[0] + (b ^ (b >> _SHIFT)) * seeds[1] + seeds[2]
    h ^= h >> _SHIFT
    h *= _MIX
    return (h ^ (h >> _SHIFT)) & _SIGNED


@helper
def set_of(tags, h):
    """The set that a hash belongs to."""
    return np.int64(h >> np.uint64(46)) & (tags.shape[0] - 1)


@helper
def _way_of(tags, at, key):
    """Where in a set a key is, -1 for nowhere."""
    for way in range(WAYS):
        if tags[at, way] >> 16 == key:
            return np.int64(way)
    return np.int64(-1)


@helper
def _oldest(tags, at, now, key):
    """(the way that was quiet longest or is free, how long, _AGE + 1 when it is free).

    Among equals chance decides, by the newcomer's key: were it always the first, a host that is flooded by forged
    sources would go whenever its set is full of this second's, and come back to the same place.
    """
    oldest = np.int64(0)
    age = np.int64(-1)
    for step in range(WAYS):
        way = ((key >> 1) + step) & (WAYS - 1)
        entry = tags[at, way]
        quiet = np.int64(_AGE + 1) if entry == 0 else (now - entry) & _AGE
        oldest = np.int64(way) if quiet > age else oldest
        age = max(age, quiet)
    return oldest, age


@helper
def find(tags, h):
    """The row of a hash, -1 when it is not there. tags: int64[sets, 8]."""
    at = set_of(tags, h)
    way = _way_of(tags, at, np.int64(h & np.uint64(_KEY)) | 1)
    return at * WAYS + way if way >= 0 else np.int64(-1)


@helper
def find_or_oldest(tags, h, second):
    """(the row that `claim` would give, whether the hash is there)."""
    at = set_of(tags, h)
    key = np.int64(h & np.uint64(_KEY)) | 1
    way = _way_of(tags, at, key)
    if way >= 0:
        return at * WAYS + way, True
    return at * WAYS + _oldest(tags, at, second & _AGE, key)[0], False


@helper
def claim(tags, h, second):
    """(row, whether it is new, whether another had to go for it). The caller clears a new row."""
    at = set_of(tags, h)
    key = np.int64(h & np.uint64(_KEY)) | 1
    now = second & _AGE
    way = _way_of(tags, at, key)
    if way >= 0:
        if tags[at, way] & _AGE != now:
            tags[at, way] = key << 16 | now
        return at * WAYS + way, False, False
    oldest, age = _oldest(tags, at, now, key)
    tags[at, oldest] = key << 16 | now
    return at * WAYS + oldest, True, age <= _AGE


@helper
def note(seen, h, epoch):
    """Remember a value in this epoch: KNOWN in it already, MOVED from the one before, or NEW.

    seen: int64[sets, 8] of 47 bits of the hash << 16 | 16 bits of the epoch. A full set forgets its oldest value.
    """
    at = set_of(seen, h)
    key = np.int64(h & np.uint64(_KEY)) | 1
    now = epoch & _AGE
    way = _way_of(seen, at, key)
    if way >= 0:
        quiet = (now - seen[at, way]) & _AGE
        seen[at, way] = key << 16 | now
        return KNOWN if quiet == 0 else (MOVED if quiet == 1 else NEW)
    seen[at, _oldest(seen, at, now, key)[0]] = key << 16 | now
    return NEW
