"""Walk the records of a savefile where they lie in the arena: no byte of a frame is copied.

Both walkers append (ts, offset, caplen, wirelen, link type) of whole records to `frames` and stop for one reason:
"""

import numpy as np

from engine.constants import MAX_CAPLEN
from engine.jit import helper, kernel
from engine.packets import F_CAPLEN, F_LINK_TYPE, F_OFFSET, F_TS_NS, F_WIRELEN

NEED_BYTES = 0  # the next record is not complete
LIMIT = 1  # the frame, row or time limit was reached
BAD_RECORD = 2  # a record that cannot be, at the returned position
BLOCK = 3  # pcapng: a block that changes how later ones are read (section header, interface description)
# Rows of `limits`: stop at this many frames in the batch, and before a frame later than this time.
MAX_COUNT, UNTIL_NS = range(2)
# Rows of `state`: where the walk stopped, frames in the batch, reason, and the time of the frame it stopped before.
AT, COUNT, REASON, NEXT_NS = range(4)

# pcapng block types (draft-ietf-opsawg-pcapng 4) and rows of the interface table.
_IDB, _PB, _SPB, _EPB = 1, 2, 3, 6
_SHB = 0x0A0D0D0A
IF_LINK_TYPE, IF_SNAPLEN, IF_POWER_OF_10, IF_EXPONENT, IF_OFFSET_S, N_INTERFACE_ROWS = range(6)


@helper
def _u32(buf, at, swapped):
    a, b, c, d = np.int64(buf[at]), np.int64(buf[at + 1]), np.int64(buf[at + 2]), np.int64(buf[at + 3])
    if swapped:
        return a << 24 | b << 16 | c << 8 | d
    return d << 24 | c << 16 | b << 8 | a


@helper
def _u16(buf, at, swapped):
    a, b = np.int64(buf[at]), np.int64(buf[at + 1])
    return a << 8 | b if swapped else b << 8 | a


@helper
def _append(frames, n, ts, at, caplen, wirelen, link_type):
    frames[F_TS_NS, n] = ts
    frames[F_OFFSET, n] = at
    frames[F_CAPLEN, n] = caplen
    frames[F_WIRELEN, n] = wirelen
    frames[F_LINK_TYPE, n] = link_type


@kernel
def walk_pcap(arena, start, stop, form, link_type, frames, limits, state):
    """Records of a pcap file (draft-ietf-opsawg-pcap 5).

    Args:
        arena: uint8[n], records from `start` to `stop`.
        form: int64[4]. Big-endian file (0, 1), record header bytes (16, or 24 modified), ns per fraction unit
            (1000 or 1), order of lengths (0 as now, 1 original first as before version 2.3, 2 either).
        frames: int64[N_FRAME, rows]. limits: int64[2]. state: int64[4], COUNT read and written, the rest written.
    """
    swapped = form[0]
    header = form[1]
    unit = form[2]
    n = state[COUNT]
    p = start
    reason = NEED_BYTES
    while p + header <= stop:
        caplen = _u32(arena, p + 8, swapped)
        wirelen = _u32(arena, p + 12, swapped)
        if form[3] == 1 or (form[3] == 2 and caplen > wirelen):
            caplen, wirelen = wirelen, caplen
        if caplen > MAX_CAPLEN:
            reason = BAD_RECORD
            break
        if p + header + caplen > stop:
            break
        ts = _u32(arena, p, swapped) * 1_000_000_000 + _u32(arena, p + 4, swapped) * unit
        if n >= limits[MAX_COUNT] or ts > limits[UNTIL_NS]:
            state[NEXT_NS] = ts
            reason = LIMIT
            break
        _append(frames, n, ts, p + header, caplen, wirelen, link_type)
        n += 1
        p += header + caplen
    state[AT] = p
    state[COUNT] = n
    state[REASON] = reason


@helper
def _pcapng_ns(high, low, interfaces, interface):
    """Nanoseconds since the epoch of a 64-bit timestamp in the interface's resolution and offset."""
    ticks = np.uint64(high) << np.uint64(32) | np.uint64(low)
    exponent = interfaces[IF_EXPONENT, interface]
    if interfaces[IF_POWER_OF_10, interface]:
        scale = np.uint64(1)
        for _ in range(abs(9 - exponent)):
            scale *= np.uint64(10)
        ns = np.int64(ticks * scale if exponent <= 9 else ticks // scale)
    else:
        shift = np.uint64(exponent)
        seconds = ticks >> shift
        fraction = ticks & ((np.uint64(1) << shift) - np.uint64(1))
        if exponent > 32:
            fraction >>= shift - np.uint64(32)
            shift = np.uint64(32)
        ns = np.int64(seconds) * 1_000_000_000 + np.int64((fraction * np.uint64(1_000_000_000)) >> shift)
    return ns + interfaces[IF_OFFSET_S, interface] * 1_000_000_000


@kernel
def walk_pcapng(arena, start, stop, swapped, interfaces, n_interfaces, frames, limits, state):
    """Blocks of a pcapng section (draft-ietf-opsawg-pcapng 4). Unknown blocks are stepped over.

    Args:
        interfaces: int64[N_INTERFACE_ROWS, at least n_interfaces], the table of this section.
        The rest as in `walk_pcap`; `swapped` is 1 for a big-endian section.
    """
    n = state[COUNT]
    p = start
    reason = NEED_BYTES
    while p + 12 <= stop:
        kind = _u32(arena, p, swapped)
        if kind == _SHB or kind == _IDB:
            reason = BLOCK
            break
        size = _u32(arena, p + 4, swapped)
        if size < 12 or size % 4:
            reason = BAD_RECORD
            break
        if kind != _EPB and kind != _SPB and kind != _PB:
            if p + size > stop:
                reason = NEED_BYTES if size <= MAX_CAPLEN else BLOCK
                break
            p += size
            continue
        if size > 2 * MAX_CAPLEN:
            reason = BAD_RECORD
            break
        if p + size > stop:
            break
        fixed = 12 if kind == _SPB else 28
        if size < fixed + 4 or _u32(arena, p + size - 4, swapped) != size:
            reason = BAD_RECORD
            break
        ts = np.int64(0)
        interface = 0
        if kind == _SPB:
            wirelen = _u32(arena, p + 8, swapped)
            caplen = min(wirelen, size - 16)
            if n_interfaces and 0 < interfaces[IF_SNAPLEN, 0] < caplen:
                caplen = interfaces[IF_SNAPLEN, 0]
        else:
            interface = _u16(arena, p + 8, swapped) if kind == _PB else _u32(arena, p + 8, swapped)
            caplen = _u32(arena, p + 20, swapped)
            wirelen = _u32(arena, p + 24, swapped)
        if interface >= n_interfaces or caplen > size - fixed - 4 or caplen > MAX_CAPLEN:
            reason = BAD_RECORD
            break
        if kind != _SPB:
            ts = _pcapng_ns(_u32(arena, p + 12, swapped), _u32(arena, p + 16, swapped), interfaces, interface)
        if n >= limits[MAX_COUNT] or ts > limits[UNTIL_NS]:
            state[NEXT_NS] = ts
            reason = LIMIT
            break
        _append(frames, n, ts, p + fixed, caplen, wirelen, interfaces[IF_LINK_TYPE, interface])
        n += 1
        p += size
    state[AT] = p
    state[COUNT] = n
    state[REASON] = reason
