"""The web server around the application: who may reach it, TLS, threads."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from engine.errors import ConfigError
from webui import users
from webui.security import Access

THREADS: Final = 8


def access(lake: Path, listener: socket.socket, hosts: Sequence[str], login: bool) -> Access:
    """How the dashboard may be reached on this socket; sets the password of ENGINE_PASSWORD_FILE."""
    if password_file():
        users.from_password_file(lake, password_file())
    loopback = check(lake, listener, login)
    return Access(lake, loopback=loopback, hosts=tuple(hosts), login=login)


def check(lake: Path, listener: socket.socket, login: bool) -> bool:
    """Whether the socket is on loopback. Refuses what would leave the dashboard open to others."""
    address = listener.getsockname()[0]
    if ipaddress.ip_address(address).is_loopback:
        return True
    if not login:
        raise ConfigError(f"without a login it listens on 127.0.0.1 only, not on {address}; leave out --no-login")
    if not users.listing(lake) and not password_file():
        raise ConfigError(
            f"address {address} can be reached by others and nobody has a password; first `engine user add NAME`, "
            "or set ENGINE_PASSWORD_FILE"
        )
    return False


def password_file() -> str:
    """For containers: the file with the password of the user `admin`."""
    return os.environ.get("ENGINE_PASSWORD_FILE", "")


def tls_context(certificate: str, key: str) -> ssl.SSLContext | None:
    """From both files, or None without."""
    if not certificate and not key:
        return None
    if not certificate or not key:
        raise ConfigError("TLS needs both files: --tls-cert and --tls-key")
    from webui import tls

    return tls.context(certificate, key)


def serve(access: Access, listener: socket.socket, context: ssl.SSLContext | None) -> None:
    """Until a signal ends the process."""
    # Imported late: a port in use is said at once, not after the seconds that Dash takes to load.
    import waitress

    from webui.app import create_app

    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # "queue depth" is no news for a page that polls
    application: Any = create_app(access.lake, access).server
    scheme = "http"
    if context is not None:
        from webui.tls import Terminator

        terminator = Terminator(listener, context)
        application, listener, scheme = terminator.identify(application), terminator.inner, "https"
        terminator.start()
    server: Any = waitress.create_server(
        application,
        sockets=[listener],
        threads=THREADS,
        ident=None,
        url_scheme=scheme,
        clear_untrusted_proxy_headers=True,
        channel_request_lookahead=1,  # else nobody learns that a browser went away while its answer is made
    )
    try:
        server.run()
    finally:
        server.close()
