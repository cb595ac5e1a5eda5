"""The systemd unit of `engine service`: capture from boot on, never as root, with nothing but what it needs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_UNIT: Final = """\
# Made by `engine service`; see docs/operations.md.
[Unit]
Description=PacketLake: packet capture into columns
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
# It stops in order within 5 s. It is tried again for ever: an interface may come later than we do.
KillMode=mixed
TimeoutStopSec=15
Restart=on-failure
RestartSec=10

# An account of its own, and of root's rights only what opening an interface takes; given up once it is open.
DynamicUser=yes
User={user}
StateDirectory={user}
StateDirectoryMode=0750
CacheDirectory={user}
CacheDirectoryMode=0700
UMask=0027
Environment=HOME=%S/{user} XDG_CACHE_HOME=%C/{user}/home
AmbientCapabilities=CAP_NET_RAW CAP_NET_ADMIN
CapabilityBoundingSet=CAP_NET_RAW CAP_NET_ADMIN
NoNewPrivileges=yes

ProtectSystem=strict
ProtectHome={home}
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_PACKET AF_NETLINK AF_INET AF_INET6 AF_UNIX
SystemCallArchitectures=native
SystemCallFilter=@system-service seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
SystemCallErrorNumber=EPERM
# Not MemoryDenyWriteExecute: kernels are compiled while it runs.

# Before others when processor and disk are short, and the last to be killed when memory is.
CPUWeight=1000
IOWeight=1000
OOMScoreAdjust=-500
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
"""
USER: Final = "packetlake"  # the account, and the names below /var/lib and /var/cache


def unit(interfaces: Sequence[str], config: str | None, port: int | None, dashboard: bool) -> str:
    """The unit's text. The engine is the one that makes it, wherever it is installed."""
    words = [sys.executable, "-m", "engine", "run", "--lake", f"/var/lib/{USER}/lake"]
    for name in interfaces:
        words += ["--iface", name]
    if config is not None:
        words += ["--config", str(Path(config).absolute())]
    if port is not None:
        words += ["--port", str(port)]
    if not dashboard:
        words.append("--no-dashboard")
    # A Python or a configuration in somebody's home must at least be readable there.
    ours = [Path(sys.executable), Path(sys.prefix), Path(__file__).resolve(), *map(Path, [config] if config else [])]
    homes = any(path.absolute().is_relative_to(home) for path in ours for home in ("/home", "/root", "/run/user"))
    command = " ".join(shlex.quote(word).replace("%", "%%").replace("$", "$$") for word in words)
    return _UNIT.format(command=command, user=USER, home="read-only" if homes else "yes")
