"""The function libpcap calls for each frame: copy it into the batch, note where, stop when the batch is full."""

from __future__ import annotations

import numpy as np

from engine.jit import call_void, callback, copy_bytes, load_i64, load_u32, store_i64
from engine.packets import F_CAPLEN, F_LINK_TYPE, F_OFFSET, F_TS_NS, F_WIRELEN

# Words of the state, int64[N_STATE], that `pcap_dispatch` hands to the callback.
(
    S_COUNT,  # frames in the batch; the callback raises it
    S_USED,  # bytes of the arena in use; the callback raises it
    S_ARENA,  # address of the arena
    S_ARENA_BYTES,  # its size
    S_FRAMES,  # address of FrameBatch.frames, C-contiguous
    S_ROWS,  # its second dimension
    S_RESERVE,  # bytes one more frame may need; with less left the batch is full
    S_LINK_TYPE,  # written to each frame
    S_TICK_NS,  # ns per unit of the header's fraction: 1, or 1000 for microseconds
    S_HANDLE,  # pcap_t *
    S_BREAKLOOP,  # address of pcap_breakloop
    N_STATE,
) = range(12)


@callback("void(int64, int64, int64)")
def on_frame(state, header, data):
    """A pcap_handler. Copies one frame; asks libpcap to stop after it when no further one is sure to fit.

    Args:
        state: address of the int64[N_STATE] above. The caller leaves room for one row and S_RESERVE bytes.
        header: address of struct pcap_pkthdr: int64 seconds, int64 fraction, uint32 caplen, uint32 len (64-bit Linux).
        data: address of the frame's bytes, valid during the call only.

    The frame in hand is always kept: libpcap honours pcap_breakloop after it, and keeps its place inside the
    kernel's block, so that the next pcap_dispatch goes on with the following frame (pcap_read_linux_mmap_v3).

    Source: pcap/pcap.h; pcap-linux.c of libpcap 1.10.
    """
    row = load_i64(state + 8 * S_COUNT)
    used = load_i64(state + 8 * S_USED)
    space = load_i64(state + 8 * S_ARENA_BYTES) - used
    caplen = np.int64(load_u32(header + 16))
    if caplen > space:  # libpcap keeps caplen <= snaplen = S_RESERVE; were it ever wrong, cut rather than overrun
        caplen = space
    copy_bytes(load_i64(state + 8 * S_ARENA) + used, data, caplen)
    cell = load_i64(state + 8 * S_FRAMES) + 8 * row
    column = 8 * load_i64(state + 8 * S_ROWS)
    ts_ns = load_i64(header) * 1_000_000_000 + load_i64(header + 8) * load_i64(state + 8 * S_TICK_NS)
    store_i64(cell + F_TS_NS * column, ts_ns)
    store_i64(cell + F_OFFSET * column, used)
    store_i64(cell + F_CAPLEN * column, caplen)
    store_i64(cell + F_WIRELEN * column, np.int64(load_u32(header + 20)))
    store_i64(cell + F_LINK_TYPE * column, load_i64(state + 8 * S_LINK_TYPE))
    store_i64(state + 8 * S_COUNT, row + 1)
    store_i64(state + 8 * S_USED, used + caplen)
    if space - caplen < load_i64(state + 8 * S_RESERVE):
        call_void(load_i64(state + 8 * S_BREAKLOOP), load_i64(state + 8 * S_HANDLE))
