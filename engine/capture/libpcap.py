"""The libpcap calls we need, by ctypes, from the shared object that the `libpcap` wheel carries.

The wheel's own Python modules are not imported: they take 0.2 to 0.4 s (they load a packaging library) and look for
the *system's* libpcap unless told otherwise. The shared object needs only libc. Where the wheel has none for this
machine, a libpcap of the system is used.
"""

from __future__ import annotations

import ctypes
import importlib.util
import platform
from ctypes import POINTER, Structure, c_char_p, c_int, c_uint, c_void_p
from functools import cache
from pathlib import Path
from typing import Final

from engine.constants import LINKTYPE_RAW, LINKTYPE_RAW_BSD, LINKTYPE_RAW_OPENBSD
from engine.errors import CaptureError

# Values of pcap/pcap.h, libpcap 1.10.
ERRBUF_SIZE: Final = 256
PCAP_ERROR_BREAK: Final = -2
PCAP_ERROR_NO_SUCH_DEVICE: Final = -5
PCAP_ERROR_PERM_DENIED: Final = -8
PCAP_ERROR_IFACE_NOT_UP: Final = -9
PCAP_ERROR_PROMISC_PERM_DENIED: Final = -11
PCAP_TSTAMP_PRECISION_NANO: Final = 1
PCAP_NETMASK_UNKNOWN: Final = 0xFFFFFFFF
DLT_RAW: Final = 12  # on Linux; in savefiles the same is LINKTYPE_RAW, 101


class BpfCode(Structure):
    """struct bpf_program: a compiled filter, owned by libpcap until pcap_freecode."""

    _fields_ = (("bf_len", c_uint), ("bf_insns", c_void_p))


class Stats(Structure):
    """struct pcap_stat: 32-bit totals since activation, which wrap."""

    _fields_ = (("ps_recv", c_uint), ("ps_drop", c_uint), ("ps_ifdrop", c_uint))


_PROTOTYPES: Final = {
    "pcap_lib_version": (c_char_p, ()),
    "pcap_create": (c_void_p, (c_char_p, c_char_p)),
    "pcap_set_snaplen": (c_int, (c_void_p, c_int)),
    "pcap_set_promisc": (c_int, (c_void_p, c_int)),
    "pcap_set_buffer_size": (c_int, (c_void_p, c_int)),
    "pcap_set_timeout": (c_int, (c_void_p, c_int)),
    "pcap_set_tstamp_precision": (c_int, (c_void_p, c_int)),
    "pcap_get_tstamp_precision": (c_int, (c_void_p,)),
    "pcap_activate": (c_int, (c_void_p,)),
    "pcap_setnonblock": (c_int, (c_void_p, c_int, c_char_p)),
    "pcap_snapshot": (c_int, (c_void_p,)),
    "pcap_datalink": (c_int, (c_void_p,)),
    "pcap_set_datalink": (c_int, (c_void_p, c_int)),
    "pcap_datalink_val_to_name": (c_char_p, (c_int,)),
    "pcap_datalink_val_to_description": (c_char_p, (c_int,)),
    "pcap_get_selectable_fd": (c_int, (c_void_p,)),
    "pcap_get_required_select_timeout": (c_void_p, (c_void_p,)),
    "pcap_dispatch": (c_int, (c_void_p, c_int, c_void_p, c_void_p)),
    "pcap_stats": (c_int, (c_void_p, POINTER(Stats))),
    "pcap_close": (None, (c_void_p,)),
    "pcap_geterr": (c_char_p, (c_void_p,)),
    "pcap_statustostr": (c_char_p, (c_int,)),
    "pcap_open_dead": (c_void_p, (c_int, c_int)),
    "pcap_compile": (c_int, (c_void_p, POINTER(BpfCode), c_char_p, c_int, c_uint)),
    "pcap_setfilter": (c_int, (c_void_p, POINTER(BpfCode))),
    "pcap_freecode": (None, (POINTER(BpfCode),)),
    "pcap_lookupnet": (c_int, (c_char_p, POINTER(c_uint), POINTER(c_uint), c_char_p)),
    "pcap_findalldevs": (c_int, (POINTER(c_void_p), c_char_p)),
    "pcap_freealldevs": (None, (c_void_p,)),
}


def library_path() -> str:
    """The wheel's shared object for this machine, or the name of the system's library."""
    spec = importlib.util.find_spec("libpcap")  # finds the package without running it
    machine = {"i686": "x86", "i386": "x86", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, "_platform", "linux", machine, "tcpdump", "libpcap.so")
        if path.is_file():
            return str(path)
    return "libpcap.so.1"


@cache
def library() -> ctypes.CDLL:
    """libpcap with typed functions; calls release the GIL. Raises CaptureError when no libpcap can be loaded."""
    reasons = []
    for path in dict.fromkeys((library_path(), "libpcap.so.1", "libpcap.so.0.8")):
        try:
            dll = ctypes.CDLL(path)
        except OSError as error:
            reasons.append(str(error))
            continue
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(dll, name)
            function.restype = result
            function.argtypes = arguments
        return dll
    raise CaptureError(f"libpcap cannot be loaded ({'; '.join(reasons)}); reinstall the Python package libpcap")


def address_of(name: str) -> int:
    """Address of a libpcap function, for compiled code."""
    return ctypes.cast(getattr(library(), name), c_void_p).value or 0


def text(raw: bytes | None) -> str:
    """A C string for people: never fails, one line."""
    return " ".join((raw or b"").decode("utf-8", "replace").split())


def error_text(handle: int) -> str:
    """The last error of a handle."""
    return text(library().pcap_geterr(handle))


def status_text(status: int) -> str:
    """A status or warning number of pcap_activate in words."""
    return text(library().pcap_statustostr(status))


def link_type_of(dlt: int) -> int:
    """The savefile link type of a DLT_ value as used on Linux (they differ for raw IP only, of those we decode)."""
    return LINKTYPE_RAW if dlt == DLT_RAW else dlt


def dlt_of(link_type: int) -> int:
    """The Linux DLT_ value of a savefile's link type."""
    return DLT_RAW if link_type in (LINKTYPE_RAW, LINKTYPE_RAW_BSD, LINKTYPE_RAW_OPENBSD) else link_type
