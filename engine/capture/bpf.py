"""BPF filters (the language of tcpdump): compiled by libpcap, run over batches by compiled code."""

from __future__ import annotations

import ctypes
import threading

import numpy as np

from engine.capture.libpcap import PCAP_NETMASK_UNKNOWN, BpfCode, address_of, dlt_of, error_text, library
from engine.errors import ConfigError
from engine.kernels.bpf import filter_frames
from engine.packets import FrameBatch

_compiling = threading.Lock()  # pcap_compile kept its state in globals before libpcap 1.8


def compile_with(handle: int, text: str, netmask: int = PCAP_NETMASK_UNKNOWN) -> BpfCode:
    """Compile a filter for an open libpcap handle. The caller frees it with pcap_freecode.

    `netmask` (network byte order) is needed by `ip broadcast` only. Host names are looked up in DNS.
    Raises ConfigError with the filter and libpcap's message.
    """
    code = BpfCode()
    if "\0" in text:
        raise ConfigError(f"BPF filter {text!r} has a zero byte; see `man pcap-filter`")
    with _compiling:
        status = library().pcap_compile(handle, ctypes.byref(code), text.encode("utf-8", "surrogateescape"), 1, netmask)
    if status < 0:
        raise ConfigError(f"BPF filter {text!r} is wrong: {error_text(handle)}; see `man pcap-filter`")
    return code


class BpfProgram:
    """A filter for frames of one link type. `close` frees it; safe to call twice."""

    def __init__(self, text: str, link_type: int, code: BpfCode) -> None:
        self.text = text
        self.link_type = link_type
        self._code: BpfCode | None = code
        self._offline_filter = address_of("pcap_offline_filter")
        self._scratch = np.zeros(3, np.int64)

    def apply(self, batch: FrameBatch, first: int = 0) -> int:
        """Drop the frames from number `first` on that the filter refuses; returns how many were dropped.

        Frames of other link types stay: a source with several has one program for each and applies all of them.
        """
        if self._code is None:
            raise ValueError("the BPF program is closed")
        before = batch.count
        batch.count = int(filter_frames(
            batch.arena, batch.frames, first, before, self.link_type,
            ctypes.addressof(self._code), self._offline_filter, self._scratch,
        ))  # fmt: skip
        return before - batch.count

    def close(self) -> None:
        if self._code is not None:
            library().pcap_freecode(ctypes.byref(self._code))
            self._code = None

    def __del__(self) -> None:
        self.close()


def compile_filter(text: str, link_type: int, snaplen: int) -> BpfProgram:
    """Compile a filter for frames of a savefile's link type. Raises ConfigError with libpcap's message."""
    handle = library().pcap_open_dead(dlt_of(link_type), snaplen)
    if not handle:
        raise ConfigError(f"BPF filter {text!r} cannot be compiled for link type {link_type}: out of memory")
    try:
        return BpfProgram(text, link_type, compile_with(handle, text))
    finally:
        library().pcap_close(handle)
