"""Messages of the commonest protocols, read without Python: DNS, TLS 1.3, HTTP/1, QUIC.

A flow belongs to the kernel while all that it says is of the usual form. The first message that is not goes to the
parser in Python, before it the messages that the kernel has kept, and so does the rest of the flow.
"""

import numpy as np

from engine import flow_row as r
from engine import packets as k
from engine.constants import PROTO_TCP, PROTO_UDP
from engine.jit import helper, kernel, u8
from engine.kernels import app_dns, app_http, app_quic, app_tls
from engine.kernels.app_hello import X_SNI, X_SNI_N
from engine.kernels.app_rows import (
    E_APP,
    E_COUNT,
    NOBODY,
    PYTHON,
    SLAB,
    T_MESSAGES,
    T_ORDER,
    T_PACKET,
    T_REST,
    T_ROWS,
    T_TEXT,
    give_entry,
    keep,
    note,
    note_name,
    put_printable,
    take_entry,
)
from engine.kernels.flow import P_CANDIDATES, P_FROM_CLIENT, P_ROW, P_SLOT

# The protocols: rows of int64[N_PROTOCOLS, 2], number among the applications (-1: not wanted) and among the names.
DNS, TLS, HTTP, QUIC, N_PROTOCOLS = range(5)
TABLE, APP = range(2)
ROOM_ROWS, ROOM_TEXT = 8, 49_152  # that one message or the end of a flow may need
_DNS_PORT = 53


@kernel
def read_taps(
    arena, int_, long, present, taps, first, count, records, owner, protocols, entries, slabs, free, words, text,
    names, cache, cached, rest, scratch, w, x, g, q, tables, state,
):  # fmt: skip
    """Read taps `first` to count - 1; returns the tap reached, less than `count` when rows must be taken first.

    Args:
        arena, int_, long, present, taps, records: as in `flow.follow`.
        owner: int32[slots]. protocols: see above. entries: int64[n, N_ENTRY]. slabs: uint8[n * SLAB]. free: int32[n].
        words: int64[rows, N_ROW]. text: uint8[n], both appended, see `app_rows`.
        names: int64[rows, N_NAME], appended. cache: int64[power of two, N_CACHED]. cached: its names' bytes.
        rest: int64[taps], appended: taps for Python, the flow's entry + 1 << 32 where there is one.
        scratch: uint8[n]. w, x, g, q: int64, see `app_hash`, `app_hello`, `app_http`, `app_quic`.
        tables: see `app_aes`.
        state: int64[N_STATE].
    """
    for n in range(first, count):
        if state[T_ROWS] + ROOM_ROWS > words.shape[0] or state[T_TEXT] + ROOM_TEXT > text.shape[0]:
            return n
        slot = taps[P_SLOT, n]
        mine = np.int64(owner[slot])
        if mine == NOBODY and records[slot, r.R_STATE] & r.STATE_APP_DONE:
            continue
        e = mine - 1
        done = False
        if mine != PYTHON:
            i = taps[P_ROW, n]
            inner = np.int64(present[i]) & k.HAS_INNER_IP != 0
            start, end = np.int64(int_[k.I_PAYLOAD, i]), np.int64(int_[k.I_PAYLOAD_END, i])
            whole = end - start == long[k.L_INNER_PAYLOAD_LEN if inner else k.L_PAYLOAD_LEN, i]
            seq = long[k.L_INNER_SEQ if inner else k.L_TCP_SEQ, i]
            ts = long[k.L_TS, i]
            side = taps[P_FROM_CLIENT, n]
            if mine != NOBODY:
                kind = entries[e, E_APP]
            else:
                kind = _first_kind(taps[P_CANDIDATES, n], slot, records, protocols)
            order = state[T_ORDER] + n
            packet = state[T_PACKET] + i
            if kind >= 0:
                table, app = protocols[kind, TABLE], protocols[kind, APP]
            if not whole and (kind != HTTP or mine == NOBODY):
                done = False
            elif kind == DNS:
                done = _dns(
                    e, side, arena, start, end, ts, table, app, order, packet, slot, records, owner, entries, slabs,
                    free, words, text, names, cache, cached, g, state,
                )  # fmt: skip
            elif kind == TLS:
                done = _tls(
                    e, side, arena, start, end, ts, seq, table, app, order, packet, slot, records, owner, entries,
                    slabs, free, words, text, names, cache, cached, scratch, w, x, state,
                )  # fmt: skip
            elif kind == HTTP:
                done = _http(
                    e, side, arena, start, end, ts, seq, whole, table, app, order, packet, slot, records, owner,
                    entries, slabs, free, words, text, names, cache, cached, g, state,
                )  # fmt: skip
            elif kind == QUIC:
                done = _quic(
                    e, side, arena, start, end, ts, table, app, order, packet, slot, records, owner, entries, slabs,
                    free, words, text, names, cache, cached, scratch, w, x, q, tables, state,
                )  # fmt: skip
        if done:
            state[T_MESSAGES] += 1
        else:
            rest[state[T_REST]] = n if mine == PYTHON or owner[slot] <= 0 else n | np.int64(owner[slot]) << 32
            state[T_REST] += 1
            owner[slot] = PYTHON
    return count


@helper
def _first_kind(candidates, slot, records, protocols):
    """The protocol that the first message of a flow can only be, -1 when Python must find out."""
    known = records[slot, r.R_STATE] >> r.STATE_APP
    for kind in range(N_PROTOCOLS):
        table = protocols[kind, TABLE]
        if table >= 0 and candidates == 1 << table and not _is_compatible(slot, records):
            if known == 0 or (kind == DNS and known == protocols[kind, APP]):
                return kind
    return -1


@helper
def _is_compatible(slot, records):
    """An IPv6 address that Python writes as ::192.0.2.1."""
    if records[slot, r.R_REST] >> r.REST_V6 & 1 == 0:
        return False
    return (records[slot, r.R_A_HI] == 0 and records[slot, r.R_A_LO] >> 32 == 0) or (
        records[slot, r.R_B_HI] == 0 and records[slot, r.R_B_LO] >> 32 == 0
    )


@helper
def _dns(
    e, side, buf, start, end, ts, table, app, order, packet, slot, records, owner, entries, slabs, free, words, text,
    names, cache, cached, out, state,
):  # fmt: skip
    rest = records[slot, r.R_REST]
    if rest >> r.REST_PROTO & 0xFF != PROTO_UDP:
        return False
    if rest & 0xFFFF != _DNS_PORT and rest >> r.REST_PORT_B & 0xFFFF != _DNS_PORT:
        return False
    stop = app_dns.question_end(buf, start, end)
    if stop < 0:
        return False
    asked = app_dns.waiting(e, buf, start, stop, entries, slabs) if e >= 0 else -1
    at = state[T_TEXT]
    if u8(buf, start + 2) & 0x80:
        ok = app_dns.emit_answer(
            e, asked, buf, start, end, stop, ts, table, order, slot, records, entries, slabs, words, text, out, state
        )
        if not ok:
            return False
        note(slot, app, packet, records, state)
        if asked < 0:
            span = words[state[T_ROWS] - 1, app_dns.D_QUERY]
            note_name(slot, span >> 16, span & 0xFFFF, packet, text, records, names, cache, cached, state)
        else:
            app_dns.forget(e, asked, entries)
            if entries[e, E_COUNT] == 0:
                give_entry(e, owner, entries, free, state)
        return True
    if end - start > app_dns.ROOM:
        return False
    if e < 0:
        e = take_entry(slot, DNS, owner, entries, free, state)
        if e < 0:
            return False
    if asked >= 0:
        app_dns.emit_unanswered(e, asked, table, order, slot, records, entries, slabs, words, text, state)
        app_dns.forget(e, asked, entries)
    elif entries[e, E_COUNT] == app_dns.MESSAGES:
        return False
    app_dns.keep_query(e, ts, side, buf, start, end, entries, slabs)
    note(slot, app, packet, records, state)
    if records[slot, r.R_NAME] == 0:
        at = state[T_TEXT]
        name_end, _ = app_dns.put_name(buf, start, start + 12, end, text, at)
        state[T_TEXT] = name_end
        note_name(slot, at, name_end - at, packet, text, records, names, cache, cached, state)
    return True


@helper
def _tls(
    e, side, buf, start, end, ts, seq, table, app, order, packet, slot, records, owner, entries, slabs, free, words,
    text, names, cache, cached, scratch, w, x, state,
):  # fmt: skip
    if e < 0:
        if records[slot, r.R_REST] >> r.REST_PROTO & 0xFF != PROTO_TCP or side == 0:
            return False
        size = end - start
        if not app_tls.is_client_hello(buf, start, end, scratch, x):
            size = app_tls.hello_size(buf, start, end)
        if size < 0 or end - start > SLAB:
            return False
        e = take_entry(slot, TLS, owner, entries, free, state)
        if e < 0:
            return False
        keep(e, ts, side, seq, np.int64(0), buf, start, end - start, entries, slabs)
        entries[e, app_tls.E_SIZE], entries[e, app_tls.E_HAVE] = size, end - start
        note(slot, app, packet, records, state)
        if size > end - start:
            return True
        _note_text(slot, x[X_SNI], x[X_SNI_N], packet, buf, text, records, names, cache, cached, state)
        return True
    if entries[e, app_tls.E_HAVE] < entries[e, app_tls.E_SIZE]:
        if not app_tls.take_rest(e, side, buf, start, end, seq, ts, entries, slabs, scratch, x):
            return False
        if entries[e, app_tls.E_HAVE] == entries[e, app_tls.E_SIZE]:
            _note_text(slot, x[X_SNI], x[X_SNI_N], packet, slabs, text, records, names, cache, cached, state)
        return True
    if side or not app_tls.emit_hellos(
        e, buf, start, end, table, order, slot, records, entries, slabs, words, text, scratch, w, x, state
    ):
        return False
    records[slot, r.R_STATE] |= r.STATE_APP_DONE
    give_entry(e, owner, entries, free, state)
    return True


@helper
def _note_text(slot, start, length, packet, buf, text, records, names, cache, cached, state):
    """The flow's server name is buf[start : start + length], which can be shown."""
    if length > 0 and records[slot, r.R_NAME] == 0:
        at = state[T_TEXT]
        state[T_TEXT] = put_printable(buf, start, start + length, text, at)
        note_name(slot, at, length, packet, text, records, names, cache, cached, state)


@helper
def _http(
    e, side, buf, start, end, ts, seq, whole, table, app, order, packet, slot, records, owner, entries, slabs, free,
    words, text, names, cache, cached, g, state,
):  # fmt: skip
    if e < 0:
        proto = records[slot, r.R_REST] >> r.REST_PROTO & 0xFF
        if proto != PROTO_TCP or side == 0 or not app_http.is_request(buf, start, end, g):
            return False
        e = take_entry(slot, HTTP, owner, entries, free, state)
        if e < 0:
            return False
        app_http.take_first(e, buf, start, end, seq, ts, entries, slabs, g)
    else:
        c = u8(buf, start)
        if not whole and (65 <= c <= 90 or c == 10 or c == 13):  # it may be a head
            return False
        what = app_http.step(
            e, side, buf, start, end, seq, ts, table, order, slot, records, entries, slabs, words, text, g, state
        )
        if what != 2:
            return what == 1
    note(slot, app, packet, records, state)
    first, size = app_http.host_of(g, buf)
    _note_text(slot, first, size, packet, buf, text, records, names, cache, cached, state)
    return True


@helper
def _quic(
    e, side, buf, start, end, ts, table, app, order, packet, slot, records, owner, entries, slabs, free, words, text,
    names, cache, cached, scratch, w, x, q, tables, state,
):  # fmt: skip
    if e < 0:
        proto = records[slot, r.R_REST] >> r.REST_PROTO & 0xFF
        if proto != PROTO_UDP or side == 0 or not app_quic.is_first(buf, start, end, q, scratch, w, x, tables):
            return False
        e = take_entry(slot, QUIC, owner, entries, free, state)
        if e < 0:
            return False
        keep(e, ts, side, 0, np.int64(0), buf, start, end - start, entries, slabs)
        app_quic.keep_hello(e, entries, slabs, q, scratch)
        note(slot, app, packet, records, state)
        _note_text(slot, x[X_SNI], x[X_SNI_N], packet, scratch, text, records, names, cache, cached, state)
        return True
    if side:
        return app_quic.read_initial(buf, start, end, q) < 0
    what = app_quic.take_answer(
        e, buf, start, end, table, order, slot, records, entries, slabs, words, text, scratch, w, x, q, tables, state
    )
    if what == 1:
        records[slot, r.R_STATE] |= r.STATE_APP_DONE
        give_entry(e, owner, entries, free, state)
    return what != 0


@kernel
def end_flows(slots, first, count, records, owner, protocols, entries, slabs, free, words, text, scratch, w, x, q,
              rest, state):  # fmt: skip
    """The flows of these records have ended, except those of which only a part has. Returns the one reached.

    Args: slots: int32[n]. rest: int64[n], appended: numbers of slots for Python, with entries as in `read_taps`.
    """
    for n in range(first, count):
        if state[T_ROWS] + ROOM_ROWS > words.shape[0] or state[T_TEXT] + ROOM_TEXT > text.shape[0]:
            return n
        slot = np.int64(slots[n])
        mine = np.int64(owner[slot])
        if mine == NOBODY or (records[slot, r.R_STATE] >> r.STATE_ENDED & 0xF) - 1 == r.END_ACTIVE:
            continue
        owner[slot] = NOBODY
        if mine == PYTHON:
            rest[state[T_REST]] = n
            state[T_REST] += 1
            continue
        e = mine - 1
        kind = entries[e, E_APP]
        if kind == DNS:
            order = state[T_ORDER] + n
            for i in range(entries[e, E_COUNT]):
                app_dns.emit_unanswered(
                    e, i, protocols[DNS, TABLE], order, slot, records, entries, slabs, words, text, state
                )
            give_entry(e, owner, entries, free, state)
        elif kind == QUIC:
            app_quic.emit_client(
                e, protocols[QUIC, TABLE], state[T_ORDER] + n, slot, records, entries, slabs, words, text, scratch, w,
                x, q, state,
            )  # fmt: skip
            give_entry(e, owner, entries, free, state)
        else:
            rest[state[T_REST]] = n | mine << 32
            state[T_REST] += 1
    return count
