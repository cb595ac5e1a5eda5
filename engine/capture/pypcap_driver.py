"""The portable driver: capture through the pypcap API (`import pcap`), for `--driver pypcap`.

It works with pypcap itself and with pcap-ct, its pure-Python twin that we depend on. Each frame passes through Python
(pcap-ct: about 10 us a frame), so it is for machines where the compiled callback cannot run, and the reference that
tests hold the other driver against.

What the API cannot tell: the length on the wire. `wirelen` is the caplen here, so a frame cut by a small snaplen looks
as if it had been that short. Its statistics are libpcap's 32-bit totals, and count what `LiveSource` excludes: frames
that came before the filter was set, and outgoing copies on loopback.
"""

from __future__ import annotations

import ctypes.util
import os
import socket
import sys
from typing import Any

import numpy as np

from engine.capture.libpcap import library_path, link_type_of
from engine.capture.source import ReadResult
from engine.config import CaptureConfig
from engine.constants import LINK_TYPE_NAMES
from engine.errors import CaptureError, ConfigError
from engine.metrics import SourceCounters
from engine.packets import F_CAPLEN, F_LINK_TYPE, F_OFFSET, F_TS_NS, F_WIRELEN, FrameBatch

_TIMEOUT_MS = 100
_FRAMES_PER_CALL = 1024  # bounds how long one call of `read` keeps the interpreter


def pcap_module() -> Any:
    """The module `pcap`. pcap-ct looks for the system's libpcap; we point it at the one its wheel carries."""
    if "libpcap" in sys.modules or "pcap" in sys.modules:
        import pcap

        return pcap
    find = ctypes.util.find_library
    ctypes.util.find_library = lambda name: library_path() if name == "pcap" else find(name)
    try:
        import pcap
    except (ImportError, OSError) as error:
        raise CaptureError(f"the pypcap driver cannot be loaded: {error}; install the Python package pcap-ct") from None
    finally:
        ctypes.util.find_library = find
    return pcap


class PypcapSource:
    """One interface through the pypcap API; the same batches as LiveSource. All calls come from one thread."""

    def __init__(self, name: str, config: CaptureConfig) -> None:
        self.name = name
        self.link_type = -1
        self.warnings: list[str] = []
        self._config = config
        self._pcap: Any = None
        self._delivered = 0
        self._totals = SourceCounters()
        self._last = (0, 0, 0)
        self.down = False  # this API does not tell

    def open(self) -> None:
        """Open the interface. Raises CaptureError, or ConfigError for the filter."""
        if self.name != "any" and self.name not in {name for _, name in socket.if_nameindex()}:
            names = ", ".join(sorted(name for _, name in socket.if_nameindex()))
            raise CaptureError(f"no interface {self.name!r}; present are {names}: `engine interfaces` shows them")
        if os.path.exists(self.name):  # the API tries savefiles first
            raise CaptureError(f"a file {self.name!r} lies in this directory and would be read; start elsewhere")
        config = self._config
        try:
            self._pcap = pcap_module().pcap(
                self.name, snaplen=config.snaplen, promisc=config.promiscuous, timeout_ms=_TIMEOUT_MS,
                timestamp_in_ns=True, buffer_size=config.buffer_bytes,
            )  # fmt: skip
        except OSError as error:
            reason = " ".join(str(error).split())
            raise CaptureError(
                f"interface {self.name} cannot be opened: {reason}; run with sudo, and check that it is up"
            ) from None
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        self._pcap.setnonblock(True)
        self.link_type = link_type_of(self._pcap.datalink())
        if self.link_type not in LINK_TYPE_NAMES:
            raise CaptureError(f"interface {self.name} has link type {self.link_type}, which has no decoder")
        if self._config.bpf_filter:
            try:
                self._pcap.setfilter(self._config.bpf_filter)
            except OSError as error:
                raise ConfigError(
                    f"BPF filter {self._config.bpf_filter!r} is wrong: {error}; see `man pcap-filter`"
                ) from None

    def fileno(self) -> int:
        """Descriptor to poll. Raises CaptureError when closed."""
        if self._pcap is None:
            raise CaptureError(f"interface {self.name} is not open")
        return int(self._pcap.fileno())

    def read(self, batch: FrameBatch) -> ReadResult:
        """Append what is waiting, some hundred frames a call. Raises CaptureError when the interface is gone."""
        if self._pcap is None:
            raise CaptureError(f"interface {self.name} is not open")
        first = batch.count
        used = int(batch.frames[F_OFFSET, first - 1] + batch.frames[F_CAPLEN, first - 1]) if first else 0
        # The API cannot stop in the middle, so only as many frames are asked for as are sure to fit.
        room = min(batch.frames.shape[1] - first, (batch.arena.size - used) // self._config.snaplen, _FRAMES_PER_CALL)
        if room <= 0:
            if not first:
                raise ConfigError(f"snaplen {self._config.snaplen} is more than a batch's {batch.arena.size} bytes")
            return ReadResult.FULL
        status = self._pcap.dispatch(room, self._append, batch)
        fresh = batch.count - first
        self._delivered += fresh
        if status < 0:
            raise CaptureError(
                f"interface {self.name}: {self._pcap.geterr()}; check `ip link show {self.name}` and start again"
            )
        return ReadResult.MORE if fresh == room else ReadResult.IDLE

    def _append(self, ts_ns: int, data: bytes, batch: FrameBatch) -> None:
        row = batch.count
        offset = int(batch.frames[F_OFFSET, row - 1] + batch.frames[F_CAPLEN, row - 1]) if row else 0
        batch.arena[offset : offset + len(data)] = np.frombuffer(data, np.uint8)
        batch.frames[F_TS_NS, row] = ts_ns
        batch.frames[F_OFFSET, row] = offset
        batch.frames[F_CAPLEN, row] = batch.frames[F_WIRELEN, row] = len(data)
        batch.frames[F_LINK_TYPE, row] = self.link_type
        batch.count = row + 1

    def counters(self) -> SourceCounters:
        """Totals since open, extended to more than 32 bits; after close, those at close."""
        if self._pcap is not None:
            now = tuple(self._pcap.stats())
            steps = [(new - old) & 0xFFFFFFFF for new, old in zip(now, self._last, strict=True)]
            self._last = now
            self._totals.received += steps[0]
            self._totals.kernel_drops += steps[1]
            self._totals.interface_drops += steps[2] if steps[2] < 1 << 31 else 0
        return SourceCounters(self._totals.received, self._totals.kernel_drops, self._totals.interface_drops)

    def unread(self) -> int:
        """Frames counted and not delivered."""
        counted = self.counters()
        return counted.received - counted.kernel_drops - self._delivered

    def close(self) -> None:
        if self._pcap is not None:
            self.counters()
            handle, self._pcap = self._pcap, None
            handle.close()
