"""TLS in front of the web server, in the same process: certificate files, nothing else to configure.

waitress speaks no TLS. Here a thread accepts TLS connections on the public socket and carries their bytes to waitress
on a loopback port of its own. Which connection there is whose is known by its port, so the server sees the true peer;
connections that did not come through here are refused.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from engine.errors import ConfigError

HANDSHAKE_S: Final = 10.0
IDLE_S: Final = 120.0  # without a byte in either direction
MAX_CONNECTIONS: Final = 500
CHUNK: Final = 64 << 10


def context(certificate: str, key: str) -> ssl.SSLContext:
    """TLS 1.2 or newer with this certificate chain. Errors name the file."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in (certificate, key):
        try:
            with Path(path).open("rb"):
                pass
        except OSError as error:
            raise ConfigError(f"TLS file {path}: {(error.strerror or str(error)).lower()}") from None
    try:
        made.load_cert_chain(certificate, key, password=lambda: b"")
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise ConfigError(
            f"TLS certificate {certificate} with key {key}: {reason}; give a PEM chain and its key without a passphrase"
        ) from None
    return made


class Terminator:
    """Carries bytes between TLS clients and the web server's own socket."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        self._listener = listener
        self._context = context
        self._peers: dict[int, str] = {}  # our port towards the web server -> address of the client
        self.inner = socket.create_server(("127.0.0.1", 0))
        self._inner_port = self.inner.getsockname()[1]

    def start(self) -> None:
        """Accept from now on, in a thread that ends with the process."""
        threading.Thread(target=lambda: asyncio.run(self._serve()), name="tls", daemon=True).start()

    def identify(self, application: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
        """The application, told who is behind each connection."""

        def identified(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            peer = self._peers.get(int(environ.get("REMOTE_PORT", "0")))
            if peer is None or environ.get("REMOTE_ADDR") != "127.0.0.1":  # 127.0.0.2 has ports of its own
                start_response("403 Forbidden", [("Content-Type", "text/plain")])
                return [b"use https\n"]
            environ["packetlake.peer"] = peer
            return application(environ, start_response)

        return identified

    async def _serve(self) -> None:
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        server = await asyncio.start_server(
            self._carry, sock=self._listener, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_S
        )
        async with server:
            await server.serve_forever()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._slots.locked():
            writer.transport.abort()
            return
        async with self._slots:
            port = 0
            try:
                inner_reader, inner_writer = await self._connect(writer.get_extra_info("peername")[0])
                port = inner_writer.get_extra_info("sockname")[1]
                last = [time.monotonic()]  # of a byte in either direction: a download sends nothing back
                ways = ((reader, inner_writer), (inner_reader, writer))
                await asyncio.wait([asyncio.create_task(_pump(*way, last)) for way in ways])
                inner_writer.transport.abort()
            except OSError:
                pass
            finally:
                self._peers.pop(port, None)
                writer.transport.abort()

    async def _connect(self, peer: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the web server, its port noted before the server can see a byte of it."""
        towards = socket.socket()
        towards.setblocking(False)
        towards.bind(("127.0.0.1", 0))
        self._peers[towards.getsockname()[1]] = peer
        await asyncio.get_running_loop().sock_connect(towards, ("127.0.0.1", self._inner_port))
        return await asyncio.open_connection(sock=towards)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, last: list[float]) -> None:
    """Bytes one way, until either side ends or both are idle; the other way is told."""
    try:
        while time.monotonic() - last[0] < IDLE_S:
            try:
                data = await asyncio.wait_for(reader.read(CHUNK), IDLE_S / 4)
            except TimeoutError:
                continue
            if not data:
                break
            last[0] = time.monotonic()
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        if not writer.is_closing():
            if writer.can_write_eof():
                writer.write_eof()
            else:  # TLS has no half-close here
                writer.close()
