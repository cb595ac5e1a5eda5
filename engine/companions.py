"""Processes beside the engine: the dashboard, with its socket and one-time links, and the merger of small segments."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from engine.errors import ConfigError


def listen(port: int) -> socket.socket:
    """Bound before anything else starts, so that a port in use is said at once."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(
            f"dashboard port 127.0.0.1:{port}: {reason}; choose another with --port, or --no-dashboard"
        ) from None
    listener.listen(128)
    return listener


def start_dashboard(lake: Path, listener: socket.socket) -> Any:
    """The dashboard as a process of its own; it inherits the listening socket and our (dropped) rights."""
    from engine.run import Dashboard

    descriptor = listener.fileno()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "webui",
            "--lake",
            str(lake),
            "--fd",
            str(descriptor),
            "--with-parent",
            str(os.getpid()),
        ],
        pass_fds=[descriptor],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is ours to handle
    )
    return Dashboard(process, new_link(lake, f"http://127.0.0.1:{listener.getsockname()[1]}"))


def start_merging(lake: Path) -> None:
    """What merges small segments, as a process of its own at the lowest priority; it ends with us."""
    subprocess.Popen(
        [sys.executable, "-m", "analytics.compaction", "--lake", str(lake), "--with-parent", str(os.getpid())],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is ours to handle
    )


def new_link(lake: Path, address: str | None = None) -> str:
    """A one-time link; the address is remembered beside the tokens for `engine link`."""
    from webui import auth

    remembered = lake / ".dashboard" / "address"
    try:
        token = auth.issue_token(lake)
        if address is None:
            address = remembered.read_text().strip()
        else:
            remembered.write_text(address + "\n")
    except OSError as error:
        if isinstance(error, PermissionError):
            raise ConfigError(
                f"dashboard of lake {lake}: permission denied; become the lake's owner, for example with `sudo -u NAME`"
            ) from None
        raise ConfigError(
            f"no dashboard has served lake {lake} ({(error.strerror or str(error)).lower()}); "
            "start one with `engine run` or `engine dashboard`"
        ) from None
    return f"{address}/?token={token}"
