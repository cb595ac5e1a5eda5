"""Serve the dashboard: `python -m webui --lake DIR [--port 8050 | --fd N] [--with-parent [PID]]`.

It listens on 127.0.0.1 only. With --fd it serves on a socket that the parent has bound and listens on already, so
that a port in use is found out before a capture starts. Exit codes: 0 stopped by a signal, 2 cannot start.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
THREADS: Final = 8
NICENESS: Final = 5  # the capture goes first


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal comes."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    if options.with_parent is not None:
        _die_with_parent(options.with_parent)
    try:
        listener = _inherited(options.fd) if options.fd is not None else _bind(options.port)
    except OSError as error:
        where = f"descriptor {options.fd}" if options.fd is not None else f"127.0.0.1:{options.port}"
        return _refuse(f"dashboard: cannot listen on {where}: {error.strerror}; choose another with --port")
    from webui import auth

    try:
        auth.prepare(options.lake)
    except OSError as error:
        return _refuse(f"dashboard: {error.filename} is not writable ({error.strerror}); run as the owner of the lake")
    _serve(options.lake, listener)
    return 0


def _serve(lake: Path, listener: socket.socket) -> None:
    os.nice(max(0, NICENESS - os.nice(0)))
    # Imported late: a port in use is said at once, not after the seconds that Dash takes to load.
    import waitress

    from webui.app import create_app

    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # "queue depth" is no news for a page that polls
    server: Any = waitress.create_server(
        create_app(lake).server, sockets=[listener], threads=THREADS, ident=None, clear_untrusted_proxy_headers=True
    )
    try:
        server.run()
    finally:
        server.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m webui", description="Serve the PacketLake dashboard on 127.0.0.1.")
    parser.add_argument("--lake", type=Path, required=True, help="directory of the lake")
    parser.add_argument("--port", type=int, default=8050, help="TCP port on 127.0.0.1 (0: any free one)")
    parser.add_argument("--fd", type=int, help="serve on this inherited, listening socket instead")
    parser.add_argument(
        "--with-parent", type=int, nargs="?", const=os.getppid(), metavar="PID", help="stop when the parent (PID) ends"
    )
    return parser


def _bind(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def _inherited(descriptor: int) -> socket.socket:
    listener = socket.socket(fileno=descriptor)
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise OSError(0, "the socket does not listen")
    os.set_inheritable(descriptor, False)
    return listener


def _die_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM when the parent ends (for a threaded parent: the thread that started us)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it ended before the kernel knew
        sys.exit(0)


def _stop(_signal: int, _frame: object) -> NoReturn:
    # Nothing here needs saving, and a request under way may take long: leave at once.
    os._exit(0)


def _refuse(why: str) -> int:
    print(why, file=sys.stderr)  # noqa: T201 — the one line that this command says
    return 2


if __name__ == "__main__":
    sys.exit(main())
