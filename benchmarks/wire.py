"""A private wire: two network namespaces joined by a veth pair, for what captures live traffic.

Nothing leaves the pair. Names carry the process id, so that runs side by side do not meet. Both ends are silent
(no IPv6 autoconfiguration, no ARP, no offloads): what is sent on purpose is all that is on the wire.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

CLONE_NEWNET = 0x40000000
_numbers = itertools.count()


def usable() -> str:
    """Why namespaces cannot be made here, or empty."""
    if os.geteuid() != 0:
        return "needs root"
    if sys.platform != "linux" or not shutil.which("ip"):
        return "needs Linux with iproute2"
    name = f"plprobe{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return "needs the right to create network namespaces"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


def ip(*words: str) -> None:
    """Run `ip`, with its message in the exception."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Run the block's calls of this thread in a namespace (sockets made there stay there)."""
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns came with Python 3.12
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{namespace}") as there:
        if libc.setns(there.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
        try:
            yield
        finally:
            if libc.setns(home.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns back")


@dataclass(frozen=True)
class Wire:
    """`capture` is the interface to listen on, in namespace `here`; `send` is its peer, in namespace `there`."""

    here: str
    there: str
    capture: str
    send: str

    def inside(self) -> contextlib.AbstractContextManager[None]:
        """The capturing namespace."""
        return inside(self.here)

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in the capturing namespace."""
        options.setdefault("check", False)
        return subprocess.run(["ip", "netns", "exec", self.here, *words], capture_output=True, text=True, **options)  # noqa: PLW1510

    def transmit(self, frames: Sequence[bytes]) -> None:
        """Put frames on the wire, in order, without losing one on the sending side."""
        with inside(self.there):
            sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        with sender:
            sender.bind((self.send, 0))
            for frame in frames:
                sender.send(frame)

    def replay(self, path: str, *options: str) -> str:
        """Send a savefile with tcpreplay; returns its report."""
        words = ["ip", "netns", "exec", self.there, "tcpreplay", "-q", *options, "-i", self.send, path]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    def spawn(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command in the capturing namespace."""
        return subprocess.Popen(["ip", "netns", "exec", self.here, *words], text=True, **options)


@contextlib.contextmanager
def wire(mtu: int = 1500, up: bool = True) -> Iterator[Wire]:
    """Build a wire and take it down again, whatever happens."""
    tag = f"{os.getpid()}x{next(_numbers)}"
    pair = Wire(f"plh{tag}", f"plt{tag}", "cap0", "snd0")
    try:
        for namespace in (pair.here, pair.there):
            ip("netns", "add", namespace)
            for key in ("all", "default"):
                path = f"/proc/sys/net/ipv6/conf/{key}/disable_ipv6"
                subprocess.run(["ip", "netns", "exec", namespace, "sh", "-c", f"echo 1 > {path}"], check=True)
        ip("link", "add", pair.capture, "mtu", str(mtu), "netns", pair.here, "type", "veth",
           "peer", "name", pair.send, "mtu", str(mtu), "netns", pair.there)  # fmt: skip
        for namespace, name in ((pair.here, pair.capture), (pair.there, pair.send)):
            subprocess.run(
                ["ip", "netns", "exec", namespace, "ethtool", "-K", name, "tx", "off", "rx", "off", "tso", "off",
                 "gso", "off", "gro", "off"], capture_output=True, check=False,
            )  # fmt: skip
            ip("-n", namespace, "link", "set", name, "arp", "off", "multicast", "off")
            if up:
                ip("-n", namespace, "link", "set", name, "up")
        yield pair
    finally:
        for namespace in (pair.here, pair.there):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)
