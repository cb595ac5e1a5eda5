"""Payloads of a batch into one buffer, with what precedes them in their stream, and which side of its flow each row is.

A small table of flows is kept for that: who began, whether both sides spoke, and the last bytes of each direction's
first few kilobytes. It is bounded; where it is full the flow of its neighbourhood that was quiet longest makes room.
"""

import numpy as np

from engine import packets as k
from engine.jit import copy_bytes, helper, is_compiled, kernel, prefetch
from engine.kernels.window_tables import WAYS, claim, find_or_oldest, set_of

# Columns of the entries, int64[8 * sets, N_ENTRY]. The words of a direction stand twice, the client's first.
E_FLOW, E_STATE, E_HI, E_LO, E_PORT, E_NEXT, N_ENTRY = 0, 1, 2, 3, 4, 5, 11
X_NEXT, X_SEEN, X_TAIL = range(3)  # of a direction: next sequence number, bytes so far, bytes kept
# E_STATE
_SYN, _SYN_ACK, _CLIENT, _SERVER, _ESTABLISHED = 1, 2, 4, 8, 16
# Bits of a row's side: from the client, the flow is established, the flow is known.
FROM_CLIENT, ESTABLISHED, KNOWN = 1, 2, 4
# Rows of the pieces, int64[N_PIECE, 2 * rows]: row of the batch; in the buffer: first byte, first byte of the payload
# (after it, where the piece joins two segments), one past its end; bytes of the stream before the first.
P_ROW, P_START, P_PAYLOAD, P_END, P_BASE, N_PIECE = range(6)
# Rows of the state, int64[N_STATE]: pieces and bytes of the buffer in use.
S_PIECES, S_USED, N_STATE = range(3)

TAIL_BYTES = 512
_NONE = -1
_WORD = 0xFFFFFFFF
_ODD = np.uint64(0x9E3779B97F4A7C15)
_SIGNED = np.uint64((1 << 63) - 1)
# Of each direction of an application that encrypts, as much is searched: greetings and certificates. What follows
# looks like random bytes (Suricata's default, `encryption-handling: track-only`, leaves it out too).
ENCRYPTED_BYTES = 4096


if is_compiled():

    @helper
    def _copy(out, at, buf, start, n):
        copy_bytes(out.ctypes.data + at, buf.ctypes.data + start, n)

else:

    @helper
    def _copy(out, at, buf, start, n):
        out[at : at + n] = buf[start : start + n]


@helper
def _hash(flow):
    """63 bits, as uint64, of a flow's number: consecutive ones are spread over the sets."""
    return (np.uint64(flow) * _ODD) & _SIGNED


@helper
def _entry_of(flow, ts, tags, entries):
    """The flow's entry, made where there is none. Returns (entry, whether it is new)."""
    at, new, _ = claim(tags, _hash(flow), ts // 1_000_000)
    if not new and entries[at, E_FLOW] == flow:
        return at, False
    for word in range(N_ENTRY):
        entries[at, word] = 0
    entries[at, E_FLOW] = flow
    entries[at, E_NEXT + X_NEXT] = _NONE
    entries[at, E_NEXT + 3 + X_NEXT] = _NONE
    return at, True


@helper
def _fetch(i, count, long, present, tags, entries):
    """Bring nearer what a few rows later will be read."""
    if i + 8 < count and present[i + 8] & k.HAS_FLOW:
        prefetch(tags, set_of(tags, _hash(long[k.L_FLOW_ID, i + 8])) * WAYS)
    if i + 4 < count and present[i + 4] & k.HAS_FLOW:
        row, _ = find_or_oldest(tags, _hash(long[k.L_FLOW_ID, i + 4]), long[k.L_TS, i + 4] // 1_000_000)
        prefetch(entries, row * N_ENTRY)
        prefetch(entries, row * N_ENTRY + 8)


@helper
def _side(e, new, hi, lo, port, tcp_flags, entries):
    """Note the packet in its flow's state; returns the row's side."""
    state = entries[e, E_STATE]
    begins = tcp_flags >= 0 and tcp_flags & 0x12 == 0x02
    if new or (begins and state & (_SYN | _SYN_ACK) == 0 and state & _ESTABLISHED == 0):
        entries[e, E_HI] = hi
        entries[e, E_LO] = lo
        entries[e, E_PORT] = port
    client = entries[e, E_HI] == hi and entries[e, E_LO] == lo and entries[e, E_PORT] == port
    if new and tcp_flags >= 0 and tcp_flags & 0x12 == 0x12:  # its SYN was not seen: the other side is the client
        entries[e, E_PORT] = ~port
        client = False
    elif entries[e, E_PORT] < 0 and (entries[e, E_HI] != hi or entries[e, E_LO] != lo or entries[e, E_PORT] != ~port):
        entries[e, E_HI] = hi
        entries[e, E_LO] = lo
        entries[e, E_PORT] = port
        client = True
    if tcp_flags < 0:
        state |= _CLIENT if client else _SERVER
    elif tcp_flags & 0x02:
        state |= _SYN if tcp_flags & 0x10 == 0 else _SYN_ACK
    elif tcp_flags & 0x04 == 0:
        state |= _CLIENT if client else _SERVER
    if state & _CLIENT and state & (_SERVER | _SYN_ACK):
        state |= _ESTABLISHED
    entries[e, E_STATE] = state
    return KNOWN | (FROM_CLIENT if client else 0) | (ESTABLISHED if state & _ESTABLISHED else 0)


@helper
def _put(arena, start, end, at, base, border, buffer, pieces, n):
    """Write bytes of the arena to the buffer, and note them as piece `n` that begins `border` bytes earlier.

    Returns one past the line feed behind them."""
    _copy(buffer, at, arena, start, end - start)
    pieces[P_START, n] = at - border
    pieces[P_PAYLOAD, n] = at
    pieces[P_END, n] = at + end - start
    pieces[P_BASE, n] = base
    at += end - start
    buffer[at] = 10
    return at + 1


@helper
def _join(arena, start, end, seq, wire, at, e, w, first, tails, entries, buffer, limit, pieces, n):
    """Put what precedes the payload in its stream and the payload's first bytes into a piece; keep the new tail.

    Args: e, w: entry and first word of the direction. first: where its tail is in `tails`.

    Returns one past the last byte written."""
    ahead = np.int64(0)
    if entries[e, w + X_NEXT] != _NONE:
        ahead = (seq - entries[e, w + X_NEXT] + 0x80000000 & _WORD) - 0x80000000
    if ahead < 0:  # seen before
        return at
    if ahead > 0:  # a gap
        entries[e, w + X_TAIL] = 0
        entries[e, w + X_SEEN] += ahead
    seen = entries[e, w + X_SEEN]
    kept = entries[e, w + X_TAIL]
    if kept > 0:
        _copy(buffer, at, tails, first, kept)
        at = _put(arena, start, min(end, start + TAIL_BYTES), at + kept, seen - kept, kept, buffer, pieces, n)
    entries[e, w + X_NEXT] = seq + wire & _WORD
    entries[e, w + X_SEEN] = seen + wire
    length = end - start
    if wire != length or seen + wire > limit:
        entries[e, w + X_TAIL] = 0
        return at
    old = max(np.int64(0), min(kept, TAIL_BYTES - length))
    for b in range(old):
        tails[first + b] = tails[first + kept - old + b]
    fresh = min(length, TAIL_BYTES)
    _copy(tails, first + old, arena, end - fresh, fresh)
    entries[e, w + X_TAIL] = old + fresh
    return at


@kernel
def gather(
    arena, short, int_, long, address, present, first, count, tags, entries, tails, limit, buffer, pieces, sides, state
):
    """Gather the payloads of rows `first` to count - 1 until the buffer is full; returns the row reached.

    A payload is a piece. Where another of its stream came before, the end of that and the beginning of this are one
    more piece. Between pieces, before the first and after the last lies a line feed.

    Args:
        arena, short, int_, long, address, present: as in FrameBatch and PacketBatch, after the flow table.
        tags: int64[sets, 8]. entries: int64[8 * sets, N_ENTRY].
        tails: uint8[2 * entries * TAIL_BYTES], client's and server's.
        limit: bytes of a direction that are joined across segments, 0 for none.
        buffer: uint8[n], n more than the longest payload + 2 * TAIL_BYTES + 3. pieces: int64[N_PIECE, 2 * rows].
        sides: uint8[rows], written. state: int64[N_STATE], written.
    """
    n = np.int64(0)
    at = np.int64(1)
    buffer[0] = 10
    i = first
    while i < count:
        _fetch(i, count, long, present, tags, entries)
        flags = np.int64(present[i])
        if flags & k.HAS_FLOW == 0:
            sides[i] = 0
            i += 1
            continue
        inner = flags & k.HAS_INNER_IP != 0
        has_payload = flags & (k.HAS_INNER_PAYLOAD if inner else k.HAS_PAYLOAD) != 0
        start, end = np.int64(0), np.int64(0)
        if has_payload:
            start, end = np.int64(int_[k.I_PAYLOAD, i]), np.int64(int_[k.I_PAYLOAD_END, i])
        if end > start and at + (end - start) + 2 * TAIL_BYTES + 2 > buffer.shape[0]:
            break
        a = k.A_INNER_SRC_HI if inner else k.A_SRC_HI
        tcp = flags & (k.HAS_INNER_TCP if inner else k.HAS_TCP) != 0
        ports = flags & (k.HAS_INNER_PORTS if inner else k.HAS_PORTS) != 0
        port = np.int64(int_[k.I_INNER_SRC_PORT if inner else k.I_SRC_PORT, i]) if ports else np.int64(0)
        tcp_flags = np.int64(short[k.S_INNER_TCP_FLAGS if inner else k.S_TCP_FLAGS, i]) if tcp else np.int64(-1)
        later = flags & k.IS_LATER_FRAGMENT != 0 and not inner
        side = np.int64(0)
        e, w = np.int64(-1), np.int64(0)
        if not later:
            e, new = _entry_of(long[k.L_FLOW_ID, i], long[k.L_TS, i], tags, entries)
            side = _side(e, new, np.int64(address[a, i]), np.int64(address[a + 1, i]), port, tcp_flags, entries)
            w = np.int64(E_NEXT + (0 if side & FROM_CLIENT else 3))
            if tcp and tcp_flags & 0x02:
                entries[e, w + X_NEXT] = (long[k.L_INNER_SEQ if inner else k.L_TCP_SEQ, i] + 1) & _WORD
                entries[e, w + X_SEEN] = 0
                entries[e, w + X_TAIL] = 0
        sides[i] = side
        if end > start and e >= 0 and flags & k.IS_ENCRYPTED and entries[e, w + X_SEEN] >= ENCRYPTED_BYTES:
            i += 1
            continue
        if end > start:
            pieces[P_ROW, n] = i
            at = _put(arena, start, end, at, 0, 0, buffer, pieces, n)
            n += 1
            if tcp and e >= 0 and limit > 0 and tcp_flags & 0x02 == 0:
                seq = long[k.L_INNER_SEQ if inner else k.L_TCP_SEQ, i]
                wire = long[k.L_INNER_PAYLOAD_LEN if inner else k.L_PAYLOAD_LEN, i]
                pieces[P_ROW, n] = i
                tail = (2 * e + (0 if side & FROM_CLIENT else 1)) * TAIL_BYTES
                was = at
                at = _join(arena, start, end, seq, wire, at, e, w, tail, tails, entries, buffer, limit, pieces, n)
                n += at != was
            elif e >= 0:
                entries[e, w + X_SEEN] += end - start
        i += 1
    state[S_PIECES] = n
    state[S_USED] = at
    return i
