"""Raw frames as records of a pcap file, and where each row's record lies."""

import numpy as np

from engine.constants import MAX_CAPLEN
from engine.jit import copy_bytes, helper, is_compiled, kernel, store_i64
from engine.packets import (
    F_CAPLEN,
    F_LINK_TYPE,
    F_OFFSET,
    F_TS_NS,
    F_WIRELEN,
    HAS_FRAME,
    I_FRAME_FILE,
    L_FRAME_OFFSET,
)

RECORD_HEADER = 16
# Words of `state`: frame to go on with, bytes written to `out`, records among them.
NEXT, USED, STORED, N_STATE = range(4)
_MAX_U32 = (1 << 32) - 1


if is_compiled():

    @helper
    def _put(out, at, word):
        store_i64(out.ctypes.data + at, word)

    @helper
    def _copy(out, at, arena, start, n):
        copy_bytes(out.ctypes.data + at, arena.ctypes.data + start, n)

else:

    def _put(out, at, word):
        for i in range(8):
            out[at + i] = word >> 8 * i & 0xFF

    def _copy(out, at, arena, start, n):
        out[at : at + n] = arena[start : start + n]


@helper
def _is_whole(arena, frames, i):
    """Whether frame `i` lies in the arena. Everything below reads and copies by address: nothing else is touched."""
    start = frames[F_OFFSET, i]
    caplen = frames[F_CAPLEN, i]
    return 0 <= start <= arena.shape[0] and 0 <= caplen <= arena.shape[0] - start


@helper
def _forget(present, i):
    present[i] = np.uint32(np.int64(present[i]) & ~HAS_FRAME)


@kernel
def find_link_types(arena, frames, count, present, found):
    """Mark all rows as without a stored frame, and list the link types of the batch.

    Args:
        arena, frames: as in FrameBatch. count: frames in it.
        present: uint32[at least count], as in PacketBatch. HAS_FRAME is cleared.
        found: int64[k], written. Distinct link types in order of appearance, 0 to 65535; what exceeds k is left out.

    Returns:
        How many were found.
    """
    n = 0
    for i in range(count):
        _forget(present, i)
        link_type = frames[F_LINK_TYPE, i]
        if link_type < 0 or link_type > 0xFFFF or not _is_whole(arena, frames, i):
            continue
        known = False
        for j in range(n):
            if found[j] == link_type:
                known = True
                break
        if not known and n < found.shape[0]:
            found[n] = link_type
            n += 1
    return n


@kernel
def build_records(arena, frames, first, count, link_type, keep, at, file, room, out, long, int_, present, state):
    """Write frames of one link type as little-endian pcap records with nanoseconds, until `room` is used up.

    Args:
        arena, frames: as in FrameBatch. Frames `first` to `count` - 1 are looked at; one that does not lie in the
            arena is passed over.
        keep: bytes kept of each frame, at most MAX_CAPLEN.
        at: offset in the file of the first record. file: index of the file in the batch's dictionary.
        room: bytes of `out` (uint8[n], room <= n) that may be used.
        long, int_, present: as in PacketBatch; L_FRAME_OFFSET, I_FRAME_FILE and HAS_FRAME of stored rows are set.
        state: int64[N_STATE], written.

    Times before 1970 or beyond 32 bits of seconds (the year 2106) are stored as the nearest that fits.

    Source: draft-ietf-opsawg-pcap 5.
    """
    used = 0
    stored = 0
    i = first
    keep = min(keep, MAX_CAPLEN)
    room = min(room, out.shape[0])
    while i < count:
        if frames[F_LINK_TYPE, i] != link_type or not _is_whole(arena, frames, i):
            i += 1
            continue
        caplen = min(frames[F_CAPLEN, i], keep)
        if used + RECORD_HEADER + caplen > room:
            break
        ts = max(frames[F_TS_NS, i], 0)
        seconds = ts // 1_000_000_000
        fraction = ts - seconds * 1_000_000_000
        if seconds > _MAX_U32:
            seconds = _MAX_U32
            fraction = 999_999_999
        wirelen = min(max(frames[F_WIRELEN, i], 0), _MAX_U32)
        _put(out, used, fraction << 32 | seconds)
        _put(out, used + 8, np.int64(wirelen) << 32 | caplen)
        _copy(out, used + RECORD_HEADER, arena, frames[F_OFFSET, i], caplen)
        long[L_FRAME_OFFSET, i] = at + used
        int_[I_FRAME_FILE, i] = file
        present[i] = np.uint32(np.int64(present[i]) | HAS_FRAME)
        used += RECORD_HEADER + caplen
        stored += 1
        i += 1
    state[NEXT] = i
    state[USED] = used
    state[STORED] = stored


@kernel
def forget_records(frames, first, count, link_type, present):
    """Clear HAS_FRAME of rows `first` to `count` - 1 of a link type: their records could not be written."""
    for i in range(first, count):
        if frames[F_LINK_TYPE, i] == link_type:
            _forget(present, i)
