"""Live capture from one interface: libpcap with TPACKET_V3, and a compiled callback that fills the batch.

No Python runs per frame and the GIL is free during `pcap_dispatch`. The handle is non-blocking, because a blocking
dispatch on TPACKET_V3 does not return on a quiet link: the caller polls `fileno()` with a timeout of its own and reads
also when that timeout passes (that is how a vanished interface is noticed).

What `received` counts. The kernel counts frames that passed the filter it has, including those it then drops. Three
kinds would be counted and yet never delivered: frames queued before the filter was attached, the outgoing copy of
each loopback frame (libpcap skips it), and what libpcap filters itself because the kernel refused the program. `open`
excludes all three, so that received = delivered + kernel drops + not yet read holds exactly.
"""

from __future__ import annotations

import ctypes
import time
from typing import Final

import numpy as np

from engine.capture.handle import (
    REJECT_ALL,
    attach_program,
    ignore_outgoing,
    join_fanout,
    loopback_index,
    open_handle,
    set_filter,
)
from engine.capture.libpcap import (
    PCAP_ERROR_BREAK,
    PCAP_TSTAMP_PRECISION_NANO,
    Stats,
    address_of,
    error_text,
    library,
    link_type_of,
    text,
)
from engine.capture.source import ReadResult
from engine.config import CaptureConfig
from engine.constants import LINK_TYPE_NAMES, LINKTYPE_LINUX_SLL2
from engine.errors import CaptureError, ConfigError
from engine.jit import is_compiled
from engine.kernels import live as kernel
from engine.metrics import SourceCounters
from engine.packets import F_CAPLEN, F_OFFSET, FrameBatch

ANY: Final = "any"
RETIRE_MS: Final = 100  # the kernel hands over a block that is not full after this time: it bounds freshness
_GRACE_S: Final = 3 * RETIRE_MS / 1000  # by then the kernel has handed over the last block


class LiveSource:
    """One interface, or with `fanout_group` one share of it. All calls come from one thread at a time.

    Attributes: name; link_type (savefile value, after open); warnings (lines for the operator, after open); down (the
    interface is; frames come again when it is up).
    """

    def __init__(self, name: str, config: CaptureConfig, fanout_group: int | None = None) -> None:
        self.name = name
        self._fanout_group = fanout_group
        self.link_type = -1
        self.warnings: list[str] = []
        self._config = config
        self._handle = 0
        self._reserve = 0
        self._state = np.zeros(kernel.N_STATE, np.int64)
        self._callback = 0
        self._delivered = 0
        self._totals = SourceCounters()
        self._last = Stats()
        self.down = False
        self._failure = ""
        self._failed_at = 0.0

    def open(self) -> None:
        """Open and activate the interface and attach the filter.

        Raises CaptureError (no such interface, no right, down, link type without decoder) or ConfigError (filter).
        """
        if self._handle:
            raise CaptureError(f"interface {self.name} is open already")
        if not is_compiled():
            raise CaptureError("live capture needs numba's compiler; unset NUMBA_DISABLE_JIT or use --driver pypcap")
        self._handle, self.warnings = open_handle(self.name, self._config, RETIRE_MS)
        try:
            self._choose_link_type()
            self._prepare_state()
            self._attach()
        except BaseException:
            self.close()
            raise

    def _choose_link_type(self) -> None:
        if self.name == ANY:
            library().pcap_set_datalink(self._handle, LINKTYPE_LINUX_SLL2)  # it tells the interfaces apart
        dlt = library().pcap_datalink(self._handle)
        self.link_type = link_type_of(dlt)
        if self.link_type not in LINK_TYPE_NAMES:
            name = text(library().pcap_datalink_val_to_name(dlt)) or f"DLT {dlt}"
            known = ", ".join(dict.fromkeys(LINK_TYPE_NAMES.values()))
            raise CaptureError(f"interface {self.name} has link type {name}, which has no decoder; known are {known}")

    def _prepare_state(self) -> None:
        nanoseconds = library().pcap_get_tstamp_precision(self._handle) == PCAP_TSTAMP_PRECISION_NANO
        self._reserve = library().pcap_snapshot(self._handle)
        self._state[kernel.S_RESERVE] = self._reserve
        self._state[kernel.S_LINK_TYPE] = self.link_type
        self._state[kernel.S_TICK_NS] = 1 if nanoseconds else 1000
        self._state[kernel.S_HANDLE] = self._handle
        self._state[kernel.S_BREAKLOOP] = address_of("pcap_breakloop")
        self._callback = kernel.on_frame.address

    def _attach(self) -> None:
        """Attach the filter, so that the counters start at zero with it. See the module's text."""
        condition = self._config.bpf_filter.strip()
        loopback = loopback_index()
        if self.name == ANY and loopback:
            both = f"not (ifindex {loopback} and outbound)"
            condition = f"({condition}) and {both}" if condition else both
        is_loopback = bool(loopback) and loopback == loopback_index(self.name)
        if not condition and not is_loopback and self._fanout_group is None:
            if self._config.snaplen < 65_536:  # only a filter makes the kernel cut frames, which saves ring space
                set_filter(self.name, self._handle, "")
            return
        program = set_filter(self.name, self._handle, condition)
        # After pcap_setfilter libpcap filters the first blocks once more itself, and does it wrongly: it refuses
        # tagged frames for `vlan`. So its own copy becomes one that accepts all, and the kernel gets ours back.
        set_filter(self.name, self._handle, "")
        fd = self.fileno()
        attach_program(fd, REJECT_ALL)
        if is_loopback:
            ignore_outgoing(fd)
        if self._fanout_group is not None:
            join_fanout(fd, self._fanout_group)
        self._settle()
        attach_program(fd, program)

    def _settle(self) -> None:
        """Discard what was queued before the rejecting filter came, and start counting from here."""
        scratch = FrameBatch(rows=4096, arena_bytes=self._reserve + (1 << 20))
        end = time.monotonic() + _GRACE_S
        while True:
            time.sleep(0.002)
            scratch.clear()
            quiet = self.read(scratch) is ReadResult.IDLE
            counted = self.counters()
            all_seen = counted.received - counted.kernel_drops == self._delivered
            if quiet and (all_seen or time.monotonic() > end):
                break
        self._totals = SourceCounters()
        self._delivered = 0

    def fileno(self) -> int:
        """Descriptor to poll for POLLIN. Raises CaptureError when closed."""
        if not self._handle:
            raise CaptureError(f"interface {self.name} is not open")
        return int(library().pcap_get_selectable_fd(self._handle))

    def read(self, batch: FrameBatch) -> ReadResult:
        """Append frames until the batch is full (FULL) or none is waiting (IDLE).

        Raises CaptureError when the interface went away, after all frames before that were delivered, and
        ConfigError when not even an empty batch can take a frame of snaplen bytes.
        """
        if not self._handle:
            raise CaptureError(f"interface {self.name} is not open")
        first = batch.count
        used = int(batch.frames[F_OFFSET, first - 1] + batch.frames[F_CAPLEN, first - 1]) if first else 0
        room = batch.frames.shape[1] - first
        if room <= 0 or batch.arena.size - used < self._reserve:
            if not first:
                raise ConfigError(f"snaplen {self._reserve} is more than a batch's {batch.arena.size} bytes; lower it")
            return ReadResult.FULL
        status = self._dispatch(batch, room, used)
        fresh = batch.count - first
        self._delivered += fresh
        if status == PCAP_ERROR_BREAK or fresh == room:
            return ReadResult.FULL
        if status < 0:
            self._note_failure(error_text(self._handle))
        else:  # libpcap asks to be polled often exactly while the interface is down, and says nothing
            self.down = fresh == 0 and bool(library().pcap_get_required_select_timeout(self._handle))
        if self._failure and fresh == 0:
            self._raise_when_drained()
        return ReadResult.IDLE

    def _dispatch(self, batch: FrameBatch, room: int, used: int) -> int:
        state = self._state
        state[kernel.S_COUNT] = batch.count
        state[kernel.S_USED] = used
        state[kernel.S_ARENA] = batch.arena.ctypes.data
        state[kernel.S_ARENA_BYTES] = batch.arena.size
        state[kernel.S_FRAMES] = batch.frames.ctypes.data
        state[kernel.S_ROWS] = batch.frames.shape[1]
        status = int(library().pcap_dispatch(self._handle, room, self._callback, state.ctypes.data))
        batch.count = int(state[kernel.S_COUNT])
        return status

    def _note_failure(self, reason: str) -> None:
        if not self._failure:
            self._failure, self._failed_at = reason, time.monotonic()

    def _raise_when_drained(self) -> None:
        """The kernel hands over its last, partly filled block only after RETIRE_MS: wait for it, then raise."""
        if time.monotonic() - self._failed_at < _GRACE_S:
            return
        raise CaptureError(
            f"interface {self.name}: {self._failure}; check `ip link show {self.name}` and start the capture again"
        )

    def counters(self) -> SourceCounters:
        """Totals since open; after close, those at close. `received` includes frames not read yet."""
        if self._handle:
            now = Stats()
            if library().pcap_stats(self._handle, ctypes.byref(now)) == 0:
                last, totals = self._last, self._totals
                totals.received += (now.ps_recv - last.ps_recv) & 0xFFFFFFFF  # 32-bit totals, wrapping
                totals.kernel_drops += (now.ps_drop - last.ps_drop) & 0xFFFFFFFF
                step = (now.ps_ifdrop - last.ps_ifdrop) & 0xFFFFFFFF
                # From sysfs, which reads as 0 once the interface is gone: then the difference is negative.
                totals.interface_drops += step if step < 1 << 31 else 0
                self._last = now
        return SourceCounters(self._totals.received, self._totals.kernel_drops, self._totals.interface_drops)

    def unread(self) -> int:
        """Frames that the kernel holds for us and `read` has not delivered."""
        counted = self.counters()
        return counted.received - counted.kernel_drops - self._delivered

    def close(self) -> None:
        if self._handle:
            self.counters()
            handle, self._handle = self._handle, 0
            library().pcap_close(handle)
