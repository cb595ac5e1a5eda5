"""Serve the dashboard: `python -m webui --lake DIR [--host ADDRESS --port 8050 | --fd N] [--with-parent [PID]]`.

It listens on 127.0.0.1 unless told otherwise, and beyond it only when somebody has a password. With --fd it serves on
a socket that the parent has bound and listens on already, so that a port in use is found out before a capture starts.
ENGINE_PASSWORD_FILE names a file with the password of the user `admin`, for containers.
Exit codes: 0 stopped by a signal, 2 cannot start.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final, NoReturn

from analytics.system import stop_with_parent, yield_to_others

NICENESS: Final = 10  # the capture goes first
OOM_SCORE: Final = 500  # and when memory runs out, the kernel ends this process and not the capture: proc(5)


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal comes."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    if options.with_parent is not None:
        stop_with_parent(options.with_parent)
    try:
        listener = _inherited(options.fd) if options.fd is not None else _bind(options.host, options.port)
    except OSError as error:
        where = f"descriptor {options.fd}" if options.fd is not None else f"{options.host}:{options.port}"
        reason = os.strerror(error.errno) if error.errno else error.strerror
        return _refuse(f"dashboard: cannot listen on {where}: {reason}; choose another with --port")
    from engine.errors import ConfigError
    from webui import auth, serving

    try:
        auth.prepare(options.lake)
        access = serving.access(options.lake, listener, options.allow_host, not options.no_login)
        context = serving.tls_context(options.tls_cert, options.tls_key)
    except ConfigError as error:
        return _refuse(f"dashboard: {error}")
    except OSError as error:
        return _refuse(f"dashboard: {error.filename} is not writable ({error.strerror}); run as the owner of the lake")
    yield_to_others(NICENESS)
    with contextlib.suppress(OSError):  # SQL may build texts that DuckDB's limit does not count
        Path("/proc/self/oom_score_adj").write_text(f"{OOM_SCORE}")
    serving.serve(access, listener, context)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m webui", description="Serve the PacketLake dashboard.")
    parser.add_argument("--lake", type=Path, required=True, help="directory of the lake")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8050, help="TCP port (0: any free one)")
    parser.add_argument("--tls-cert", default="", metavar="FILE", help="certificate chain, PEM")
    parser.add_argument("--tls-key", default="", metavar="FILE", help="its key, PEM, without a passphrase")
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="a name it is reached by")
    parser.add_argument("--no-login", action="store_true", help="whoever reaches 127.0.0.1 may look")
    parser.add_argument("--fd", type=int, help="serve on this inherited, listening socket instead")
    parser.add_argument(
        "--with-parent", type=int, nargs="?", const=os.getppid(), metavar="PID", help="stop when the parent (PID) ends"
    )
    return parser


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=128)


def _inherited(descriptor: int) -> socket.socket:
    listener = socket.socket(fileno=descriptor)
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise OSError(0, "the socket does not listen")
    os.set_inheritable(descriptor, False)
    return listener


def _stop(_signal: int, _frame: object) -> NoReturn:
    # Nothing here needs saving, and a request under way may take long: leave at once.
    os._exit(0)


def _refuse(why: str) -> int:
    print(why, file=sys.stderr)  # noqa: T201 — the one line that this command says
    return 2


if __name__ == "__main__":
    sys.exit(main())
