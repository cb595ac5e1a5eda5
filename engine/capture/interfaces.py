"""The interfaces of this machine, for people to choose from."""

from __future__ import annotations

import contextlib
import ctypes
import socket
from ctypes import POINTER, Structure, c_char_p, c_uint, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine.capture.libpcap import ERRBUF_SIZE, library, text
from engine.errors import CaptureError

# pcap_findalldevs(3PCAP).
_IF_LOOPBACK: Final = 1
_IF_UP: Final = 2
_IF_RUNNING: Final = 4
_IF_WIRELESS: Final = 8
_RTF_UP: Final = 1  # linux/route.h
_NET: Final = Path("/proc/thread-self/net")  # the caller's network namespace
_SPEEDS: Final = Path("/sys/class/net")


class _Address(Structure):
    """struct pcap_addr."""


_Address._fields_ = (
    ("next", POINTER(_Address)), ("addr", c_void_p), ("netmask", c_void_p), ("broadaddr", c_void_p),
    ("dstaddr", c_void_p),
)  # fmt: skip


class _Device(Structure):
    """struct pcap_if."""


_Device._fields_ = (
    ("next", POINTER(_Device)), ("name", c_char_p), ("description", c_char_p), ("addresses", POINTER(_Address)),
    ("flags", c_uint),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface. `addresses` are IPv4 and IPv6 as text; `speed_mbps` is None where the driver tells none."""

    name: str
    description: str
    addresses: tuple[str, ...]
    up: bool
    running: bool
    loopback: bool
    wireless: bool
    default_route: bool
    speed_mbps: int | None


def list_interfaces() -> list[Interface]:
    """All network interfaces, and `any`; those that also carry the default route first.

    What libpcap lists beside them (USB, D-Bus, netfilter queues) carries no IP and is left out.
    Raises CaptureError when libpcap cannot ask the system.
    """
    head = c_void_p()
    errors = ctypes.create_string_buffer(ERRBUF_SIZE)
    if library().pcap_findalldevs(ctypes.byref(head), errors) < 0:
        raise CaptureError(f"the interfaces cannot be listed: {text(errors.value)}; is /proc mounted?")
    try:
        present = {name for _, name in socket.if_nameindex()} | {"any"}
        routed = _default_routes()
        found = [
            _interface(device, routed)
            for device in _chain(ctypes.cast(head, POINTER(_Device)))
            if text(device.name) in present
        ]
    finally:
        library().pcap_freealldevs(head)
    return sorted(found, key=lambda i: (i.name == "any", i.loopback, not i.default_route, not i.up, i.name))


def default_interface() -> str:
    """The interface to capture on when none is named: that of the default route, else the only one that is running.

    Raises CaptureError when there is no clear choice.
    """
    interfaces = [i for i in list_interfaces() if i.name != "any" and not i.loopback]
    for name in _default_routes():
        if name in {i.name for i in interfaces}:
            return name
    running = [i.name for i in interfaces if i.up and i.running]
    if len(running) == 1:
        return running[0]
    names = ", ".join(i.name for i in interfaces) or "only the loopback, lo"
    raise CaptureError(f"no default route tells which interface to use; name one with --iface (present: {names})")


def _chain(pointer: Any) -> Any:
    while pointer:
        yield pointer.contents
        pointer = pointer.contents.next


def _interface(device: Any, routed: list[str]) -> Interface:
    name, flags = text(device.name), device.flags
    addresses = tuple(dict.fromkeys(a for a in map(_address_text, _chain(device.addresses)) if a))
    return Interface(
        name, text(device.description), addresses,
        up=bool(flags & _IF_UP), running=bool(flags & _IF_RUNNING), loopback=bool(flags & _IF_LOOPBACK),
        wireless=bool(flags & _IF_WIRELESS), default_route=name in routed, speed_mbps=_speed(name),
    )  # fmt: skip


def _address_text(address: Any) -> str:
    """A sockaddr as text; empty for what is neither IPv4 nor IPv6."""
    if not address.addr:
        return ""
    family = ctypes.c_ushort.from_address(address.addr).value
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, ctypes.string_at(address.addr + 4, 4))
    if family == socket.AF_INET6:
        return socket.inet_ntop(socket.AF_INET6, ctypes.string_at(address.addr + 8, 16))
    return ""


def _default_routes() -> list[str]:
    """Interfaces that carry a default route, the preferred one first (lowest metric, IPv4 before IPv6)."""
    found: list[tuple[int, int, str]] = []
    with contextlib.suppress(OSError):  # no IPv4, or no /proc
        for line in (_NET / "route").read_text().splitlines()[1:]:
            name, destination, _, flags, _, _, metric, mask = line.split()[:8]
            if destination == mask == "00000000" and int(flags, 16) & _RTF_UP:
                found.append((4, int(metric), name))
    with contextlib.suppress(OSError):
        for line in (_NET / "ipv6_route").read_text().splitlines():
            destination, length, _, _, _, metric, _, _, flags, name = line.split()
            if destination.strip("0") == "" and length == "00" and int(flags, 16) & _RTF_UP and name != "lo":
                found.append((6, int(metric, 16), name))
    return [name for _, _, name in sorted(found)]


def _speed(name: str) -> int | None:
    try:
        speed = int((_SPEEDS / name / "speed").read_text())
    except (OSError, ValueError):
        return None
    return speed if speed > 0 else None
