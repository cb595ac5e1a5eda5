"""A compiled BPF filter over frames already in a batch."""

from __future__ import annotations

from engine.jit import call_int3, kernel
from engine.packets import F_CAPLEN, F_LINK_TYPE, F_OFFSET, F_WIRELEN


@kernel
def filter_frames(arena, frames, first, count, link_type, program, offline_filter, scratch):
    """Keep the frames that a filter accepts, moving their rows together in place.

    Args:
        arena: uint8[n_bytes], C-contiguous. Captured bytes.
        frames: int64[N_FRAME, n]. Rows of FrameBatch.frames; changed from column `first` on.
        first, count: columns first to count-1 are looked at.
        link_type: the filter was compiled for this one; frames of another link type are kept unseen.
        program: address of struct bpf_program. offline_filter: address of pcap_offline_filter.
        scratch: int64[3], written. A struct pcap_pkthdr whose lengths the filter reads (little-endian).

    Returns:
        The new count. Every frame must lie inside the arena (0 <= offset, offset + caplen <= n_bytes).

    Source: pcap_offline_filter(3PCAP).
    """
    data = arena.ctypes.data
    header = scratch.ctypes.data
    kept = first
    scratch[0] = 0
    scratch[1] = 0
    for i in range(first, count):
        if frames[F_LINK_TYPE, i] == link_type:
            scratch[2] = (frames[F_WIRELEN, i] << 32) | frames[F_CAPLEN, i]
            if call_int3(offline_filter, program, header, data + frames[F_OFFSET, i]) == 0:
                continue
        if kept != i:
            for f in range(frames.shape[0]):
                frames[f, kept] = frames[f, i]
        kept += 1
    return kept
