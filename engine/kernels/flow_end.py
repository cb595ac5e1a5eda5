"""Ending flows by time, by number and at the end of a source; and giving their slots back."""

import numpy as np

from engine import flow_row as r
from engine.jit import helper, kernel
from engine.kernels.flow import (
    L_IDLE_NS,
    L_LINGER_NS,
    SWEEP_NS,
    T_CLOCK,
    T_ENDED,
    T_EVICTED,
    T_FREE,
    T_HIGH,
    T_LIVE,
    T_SWEEP_AT,
    end_flow,
    is_closed,
    quiet_reason,
)
from engine.kernels.flow_key import tag_of

_BINS = 1024
_AGE_SHIFT = 12  # times in units of 4 us: their differences fit 64 bits whatever a file claims


@helper
def _is_live(records, slot):
    return records[slot, r.R_FLOW_ID] != 0 and records[slot, r.R_STATE] >> r.STATE_ENDED & 0xF == 0


@helper
def _end(slot, reason, records, index, ended, seeds, state):
    mask = index.shape[0] - 1
    at = tag_of(records, slot, seeds) & mask
    while (index[at] & 0xFFFFFFFF) - 1 != slot:
        at = (at + 1) & mask
    end_flow(slot, at, reason, records, index, ended, state)


@kernel
def sweep(records, index, ended, seeds, limits, state):
    """End every flow that has been quiet too long at state[T_CLOCK], or is as far ahead of it: then the clock was set
    back. Arrays as in `flow.follow`."""
    now = state[T_CLOCK]
    for slot in range(state[T_HIGH]):
        if _is_live(records, slot):
            bits = records[slot, r.R_STATE]
            limit = limits[L_LINGER_NS] if is_closed(bits) else limits[L_IDLE_NS]
            quiet = now - records[slot, r.R_LAST]
            if quiet > limit or quiet < -limits[L_IDLE_NS]:
                _end(slot, quiet_reason(bits), records, index, ended, seeds, state)
    state[T_SWEEP_AT] = now + SWEEP_NS


@kernel
def evict(records, index, ended, seeds, bins, state):
    """End at least one flow in eight: those whose last packet is oldest. `bins`: int64[1024], scratch."""
    first, last = np.int64(1 << 62), np.int64(-(1 << 62))
    for slot in range(state[T_HIGH]):
        if _is_live(records, slot):
            age = records[slot, r.R_LAST] >> _AGE_SHIFT
            first = min(first, age)
            last = max(last, age)
    width = (last - first) // _BINS + 1
    bins[:] = 0
    for slot in range(state[T_HIGH]):
        if _is_live(records, slot):
            bins[((records[slot, r.R_LAST] >> _AGE_SHIFT) - first) // width] += 1
    wanted = (state[T_LIVE] + 7) // 8
    total = np.int64(0)
    oldest = 0
    while oldest < _BINS - 1:
        total += bins[oldest]
        if total >= wanted:
            break
        oldest += 1
    limit = first + (oldest + 1) * width
    done = np.int64(0)
    for slot in range(state[T_HIGH]):
        if done == wanted:
            break
        if _is_live(records, slot) and records[slot, r.R_LAST] >> _AGE_SHIFT < limit:
            _end(slot, r.END_EVICTED, records, index, ended, seeds, state)
            done += 1
    state[T_EVICTED] += done


@kernel
def end_source(records, index, ended, seeds, source, state):
    """End all flows of a source, since it has ended itself."""
    for slot in range(state[T_HIGH]):
        if _is_live(records, slot) and records[slot, r.R_REST] >> r.REST_SOURCE & 0xFF == source:
            _end(slot, r.END_STOP, records, index, ended, seeds, state)


@kernel
def release(records, free, ended, state):
    """Give the slots of all ended records back, when they have been written out."""
    for n in range(state[T_ENDED]):
        slot = ended[n]
        records[slot, r.R_FLOW_ID] = 0
        free[state[T_FREE]] = slot
        state[T_FREE] += 1
    state[T_ENDED] = 0
    if state[T_HIGH] > 4096 and state[T_LIVE] < state[T_HIGH] // 2:
        _sort_free(records, free, state)


@helper
def _sort_free(records, free, state):
    """Put the free stack in order, lowest slot on top: a table that was full once is not scanned whole for ever."""
    n = np.int64(0)
    high = np.int64(0)
    for back in range(records.shape[0]):
        slot = records.shape[0] - 1 - back
        if slot >= state[T_HIGH] or records[slot, r.R_FLOW_ID] == 0:
            free[n] = slot
            n += 1
        elif slot >= high:
            high = slot + 1
    state[T_FREE] = n
    state[T_HIGH] = high
