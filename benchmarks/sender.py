"""Sends frames over one end of a private veth pair, as fast as the kernel takes them or at a given rate.

    ip netns exec NAMESPACE python -m benchmarks.sender --iface NAME [--file PCAP | --size BYTES] [--pps N]
        [--count FRAMES] [--seconds S] [--json]

Many frames go to the kernel in one call (sendmmsg on a packet socket that passes the queueing discipline by), from
memory that is laid out once. A ring shared with the kernel (PACKET_TX_RING) was measured too and is slower here. It
sends nowhere but on a veth interface without a default route, in a network namespace made with `ip netns`.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import os
import socket
import struct
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.data import udp_frame
from engine.capture.interfaces import list_interfaces
from engine.capture.savefile import SavefileSource
from engine.capture.source import ReadResult
from engine.errors import CaptureError, ConfigError, EngineError
from engine.packets import F_CAPLEN, F_LINK_TYPE, F_OFFSET, FrameBatch

_SIOCETHTOOL, _ETHTOOL_GDRVINFO = 0x8946, 3  # linux/sockios.h, linux/ethtool.h
_SOL_PACKET, _PACKET_QDISC_BYPASS = 263, 20  # linux/if_packet.h
_BURST = 256  # frames per call at most; a burst is at most a millisecond of a paced rate
_MOST_FRAMES, _MOST_BYTES = 262_144, 64 << 20  # distinct ones of a savefile, then they come again
# struct mmsghdr of 64-bit Linux.
_MESSAGE = np.dtype([
    ("name", "u8"), ("name_size", "u8"), ("iov", "u8"), ("iov_count", "u8"), ("control", "u8"), ("control_size", "u8"),
    ("flags", "u8"), ("sent", "u8"),
])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent: CPU is this thread's, which on a veth pair does much of the receiver's kernel work too."""

    frames: int
    bytes: int
    seconds: float
    cpu_s: float
    refused: int  # by the kernel, tried again

    @property
    def pps(self) -> float:
        return self.frames / self.seconds if self.seconds else 0.0


# --- where it may send -------------------------------------------------------------------------------------------


def check_interface(name: str) -> None:
    """Raises ConfigError unless frames sent on the interface stay on this machine, away from its own network."""
    if _driver(name) != "veth":
        raise ConfigError(f"interface {name} is not one end of a veth pair; the sender sends nowhere else")
    if any(i.default_route for i in list_interfaces() if i.name == name):
        raise ConfigError(f"interface {name} carries a default route; the sender sends only on a private wire")
    if not _in_named_namespace():
        raise ConfigError(f"interface {name} is not in a namespace of `ip netns`; make one for sending")


def _in_named_namespace() -> bool:
    """Whether the calling thread's network namespace was made with `ip netns add`; the machine's own was not."""
    own = os.stat("/proc/thread-self/ns/net")
    named = Path("/run/netns")
    return named.is_dir() and any(os.path.samestat(own, path.stat()) for path in named.iterdir())


def _driver(name: str) -> str:
    """The driver of an interface of the calling thread's namespace; empty when it has none."""
    info = ctypes.create_string_buffer(struct.pack("<I", _ETHTOOL_GDRVINFO), 196)
    request = struct.pack("16sQ16x", name.encode()[:15], ctypes.addressof(info))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
        except OSError:
            return ""
    return info.raw[4:36].split(b"\0")[0].decode()


# --- frames ------------------------------------------------------------------------------------------------------


class Frames:
    """Ethernet frames in memory, with one `mmsghdr` each."""

    def __init__(self, data: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> None:
        self.count = len(starts)
        self.sizes = sizes.astype(np.int64)
        self._data = data
        self._vectors = np.empty((self.count, 2), np.uint64)
        self._vectors[:, 0] = data.ctypes.data + starts
        self._vectors[:, 1] = sizes
        self.messages = np.zeros(self.count, _MESSAGE)
        self.messages["iov"] = self._vectors.ctypes.data + 16 * np.arange(self.count)
        self.messages["iov_count"] = 1


def generated(size: int, count: int = 4096) -> Frames:
    """UDP frames of one size with random addresses, ports and payloads."""
    random = np.random.default_rng(size)
    data = np.frombuffer(b"".join(udp_frame(size, random) for _ in range(count)), np.uint8)
    return Frames(data, np.arange(count) * size, np.full(count, size))


def of_savefile(path: Path, mtu: int = 1500) -> Frames:
    """The first Ethernet frames of a savefile that fit the wire and were captured whole."""
    source, batch = SavefileSource(str(path)), FrameBatch(_MOST_FRAMES, _MOST_BYTES)
    source.open()
    while source.read(batch) is ReadResult.MORE:
        pass
    source.close()
    table = batch.frames[:, : batch.count]
    table = table[:, (table[F_LINK_TYPE] == 1) & (table[F_CAPLEN] >= 14) & (table[F_CAPLEN] <= mtu + 14)]
    if not table.shape[1]:
        raise ConfigError(f"savefile {path} has no Ethernet frames of up to {mtu + 14} bytes to send")
    return Frames(batch.arena, table[F_OFFSET], table[F_CAPLEN])


# --- sending -----------------------------------------------------------------------------------------------------


def send(iface: str, frames: Frames, pps: float = 0, count: int = 0, seconds: float = 10) -> Sent:
    """Send the frames in turn, at `pps` (0: flat out), until `count` (0: no limit) are sent or the time is over."""
    check_interface(iface)
    try:
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except PermissionError:
        raise CaptureError(f"interface {iface}: no right to send raw frames; run as root") from None
    with wire:
        wire.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        wire.bind((iface, 0))
        return _send(wire.fileno(), frames, pps, count or 1 << 62, seconds)


def _send(fd: int, frames: Frames, pps: float, count: int, seconds: float) -> Sent:
    call = ctypes.CDLL(None, use_errno=True).sendmmsg
    call.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
    base, step = frames.messages.ctypes.data, _MESSAGE.itemsize
    most = max(1, min(_BURST, int(pps / 1000))) if pps else _BURST
    sent = at = refused = 0
    cpu, began = time.thread_time(), time.monotonic()
    now = began
    while sent < count and now - began < seconds:
        due = int((now - began) * pps) + 1 - sent if pps else most
        if due < most and pps:
            time.sleep(max(0.0, (sent + most) / pps - (now - began)))
            now = time.monotonic()
            continue
        done = call(fd, base + step * at, min(most, frames.count - at, count - sent), 0)
        if done < 0:
            _check_errno(ctypes.get_errno())
            refused += 1
            done = 0
        sent += done
        at = (at + done) % frames.count
        now = time.monotonic()
    cpu_s = time.thread_time() - cpu
    rounds, rest = divmod(sent, frames.count)
    size = rounds * int(frames.sizes.sum()) + int(frames.sizes[:rest].sum())
    return Sent(sent, size, now - began, cpu_s, refused)


def _check_errno(number: int) -> None:
    if number not in (11, 105):  # EAGAIN, ENOBUFS: full for the moment
        raise CaptureError(f"sending failed: {os.strerror(number).lower()}; is the interface up?")


def main() -> int:
    parser = argparse.ArgumentParser(description="Send frames over a private veth pair.")
    parser.add_argument("--iface", required=True, metavar="NAME", help="one end of a veth pair, in a namespace")
    parser.add_argument("--file", type=Path, metavar="PCAP", help="frames of this savefile, in a loop")
    parser.add_argument("--size", type=int, default=64, metavar="BYTES", help="else generated ones (64)")
    parser.add_argument("--pps", type=float, default=0, metavar="N", help="frames a second (flat out)")
    parser.add_argument("--count", type=int, default=0, metavar="FRAMES", help="stop after so many")
    parser.add_argument("--seconds", type=float, default=10, metavar="S", help="stop after so long (10)")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args()
    try:
        check_interface(options.iface)
        if not (0 < options.seconds <= 3600 and 60 <= options.size <= 1514 and options.count >= 0 and options.pps >= 0):
            raise ConfigError("use --seconds up to 3600, --size 60 to 1514, --count and --pps of at least 0")
        frames = of_savefile(options.file) if options.file else generated(options.size)
        sent = send(options.iface, frames, options.pps, options.count, options.seconds)
    except EngineError as error:
        print(f"sender: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(asdict(sent)))
    else:
        print(f"sent {sent.frames:,} frames in {sent.seconds:.2f} s: {sent.pps:,.0f} packets/s, "
              f"{sent.bytes * 8 / sent.seconds / 1e9:.2f} Gbit/s, CPU {sent.cpu_s / max(1, sent.frames) * 1e9:,.0f} ns "
              f"a frame, {100 * sent.cpu_s / sent.seconds:.0f} % of a core, refused {sent.refused:,}")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
