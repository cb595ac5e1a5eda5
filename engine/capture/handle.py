"""Opening a libpcap handle on an interface, and what libpcap has no call for: two socket options on Linux."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from fcntl import ioctl
from typing import Final

from engine.capture.bpf import compile_with
from engine.capture.libpcap import (
    ERRBUF_SIZE,
    PCAP_ERROR_IFACE_NOT_UP,
    PCAP_ERROR_NO_SUCH_DEVICE,
    PCAP_ERROR_PERM_DENIED,
    PCAP_ERROR_PROMISC_PERM_DENIED,
    PCAP_NETMASK_UNKNOWN,
    PCAP_TSTAMP_PRECISION_NANO,
    error_text,
    library,
    status_text,
    text,
)
from engine.config import CaptureConfig
from engine.errors import CaptureError, ConfigError

# Linux uapi: asm-generic/socket.h, linux/if_packet.h, linux/sockios.h, linux/if.h.
_SO_ATTACH_FILTER: Final = 26
_SO_GET_FILTER: Final = 26  # the same number, for getsockopt
_MAX_INSTRUCTIONS: Final = 4096  # BPF_MAXINSNS
REJECT_ALL: Final = struct.pack("@HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K: accept 0 bytes of each frame
_SOL_PACKET: Final = 263
_PACKET_IGNORE_OUTGOING: Final = 23  # since Linux 4.20
_PACKET_FANOUT: Final = 18
_FANOUT_HASH: Final = 0  # by flow, both directions alike
_SIOCGIFFLAGS: Final = 0x8913
_IFF_LOOPBACK: Final = 0x8


def open_handle(name: str, config: CaptureConfig, retire_ms: int) -> tuple[int, list[str]]:
    """An activated, non-blocking handle, and libpcap's warnings. Raises CaptureError with the remedy."""
    pcap = library()
    errors = ctypes.create_string_buffer(ERRBUF_SIZE)
    handle = pcap.pcap_create(os.fsencode(name), errors)
    if not handle:
        raise CaptureError(f"interface {name} cannot be opened: {text(errors.value)}; `engine interfaces` lists all")
    try:
        pcap.pcap_set_snaplen(handle, config.snaplen)
        pcap.pcap_set_promisc(handle, config.promiscuous)
        pcap.pcap_set_buffer_size(handle, config.buffer_bytes)
        pcap.pcap_set_timeout(handle, retire_ms)
        if config.nanoseconds:  # a refusal leaves microseconds; pcap_get_tstamp_precision tells which it is
            pcap.pcap_set_tstamp_precision(handle, PCAP_TSTAMP_PRECISION_NANO)
        status = pcap.pcap_activate(handle)
        if status < 0:
            raise CaptureError(_refusal(name, status, error_text(handle)))
        if pcap.pcap_setnonblock(handle, 1, errors) < 0:
            raise CaptureError(f"interface {name} cannot be polled: {text(errors.value)}; try --driver pypcap")
        detail = error_text(handle) if status else ""
        warning = f"interface {name}: {status_text(status)}" + (f" ({detail})" if detail else "")
    except BaseException:
        pcap.pcap_close(handle)
        raise
    return handle, [warning] if status else []


def _refusal(name: str, status: int, detail: str) -> str:
    if status == PCAP_ERROR_NO_SUCH_DEVICE:
        names = ", ".join(sorted(n for _, n in socket.if_nameindex())) or "none"
        return f"no interface {name!r}; present are {names}: `engine interfaces` shows them"
    if status in (PCAP_ERROR_PERM_DENIED, PCAP_ERROR_PROMISC_PERM_DENIED):
        return f"no permission to capture on {name}: run with sudo, or as a user with CAP_NET_RAW"
    if status == PCAP_ERROR_IFACE_NOT_UP:
        return f"interface {name} is down: bring it up with `ip link set {name} up`"
    reason = status_text(status) + (f" ({detail})" if detail else "") if status != -1 else detail
    return f"interface {name} cannot be opened: {reason}; `engine interfaces` lists all"


def set_filter(name: str, handle: int, condition: str) -> bytes:
    """Compile a filter and let libpcap attach it; returns the program that the kernel now runs.

    Raises ConfigError when the filter is wrong, or the kernel refused it: libpcap would then filter in user space,
    behind the kernel's counters, and frames would be counted that are never delivered.
    """
    pcap = library()
    errors = ctypes.create_string_buffer(ERRBUF_SIZE)
    net, mask = ctypes.c_uint(), ctypes.c_uint(PCAP_NETMASK_UNKNOWN)
    if pcap.pcap_lookupnet(os.fsencode(name), ctypes.byref(net), ctypes.byref(mask), errors) < 0:
        mask.value = PCAP_NETMASK_UNKNOWN  # an interface without an IPv4 address; only `ip broadcast` needs it
    code = compile_with(handle, condition, mask.value)
    length = code.bf_len
    try:
        if length > _MAX_INSTRUCTIONS:
            status, program = 0, b""
        else:
            status = pcap.pcap_setfilter(handle, ctypes.byref(code))
            program = _attached(pcap.pcap_get_selectable_fd(handle))
    finally:
        pcap.pcap_freecode(ctypes.byref(code))
    shown = condition if len(condition) <= 60 else condition[:57] + "..."
    if status < 0:
        raise ConfigError(f"BPF filter {shown!r} cannot be used on {name}: {error_text(handle)}")
    if not program:
        raise ConfigError(
            f"BPF filter {shown!r} cannot run in the kernel ({length} instructions of at most {_MAX_INSTRUCTIONS}): "
            "shorten it, or raise the sysctl net.core.optmem_max"
        )
    return program


def _attached(fd: int) -> bytes:
    """The socket's filter in the kernel, 8 bytes an instruction; empty when there is none. Lengths count these."""
    libc = ctypes.CDLL(None, use_errno=True)
    length = ctypes.c_uint(0)
    libc.getsockopt(fd, socket.SOL_SOCKET, _SO_GET_FILTER, None, ctypes.byref(length))
    program = ctypes.create_string_buffer(8 * length.value)
    if length.value and libc.getsockopt(fd, socket.SOL_SOCKET, _SO_GET_FILTER, program, ctypes.byref(length)):
        return b""
    return program.raw


def attach_program(fd: int, program: bytes) -> None:
    """Replace the socket's filter in the kernel without libpcap's knowledge. Raises CaptureError."""
    data = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("@HP", len(program) // 8, ctypes.addressof(data))
    try:
        with socket.socket(fileno=os.dup(fd)) as view:
            view.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
    except OSError as error:
        raise CaptureError(f"the kernel refuses the BPF filter: {error.strerror}; capture without --filter") from None


def ignore_outgoing(fd: int) -> None:
    """Ask the kernel to leave out outgoing frames: on loopback each is also seen as incoming."""
    with socket.socket(fileno=os.dup(fd)) as view, contextlib.suppress(OSError):  # older than Linux 4.20
        view.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)


def join_fanout(fd: int, group: int) -> None:
    """Share the interface's frames with the other sockets of this group (packet(7)). Raises CaptureError."""
    try:
        with socket.socket(fileno=os.dup(fd)) as view:
            view.setsockopt(_SOL_PACKET, _PACKET_FANOUT, (group & 0xFFFF) | _FANOUT_HASH << 16)
    except OSError as error:
        raise CaptureError(f"the kernel refuses to share the interface (PACKET_FANOUT): {error.strerror}") from None


def loopback_index(only: str = "") -> int:
    """Index of the loopback interface (of `only`, when given), 0 when there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for index, name in socket.if_nameindex():
            if only in ("", name):
                with contextlib.suppress(OSError):
                    flags = ioctl(probe.fileno(), _SIOCGIFFLAGS, struct.pack("16sH14x", os.fsencode(name), 0))
                    if struct.unpack_from("16xH", flags)[0] & _IFF_LOOPBACK:
                        return index
    return 0
