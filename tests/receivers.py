"""Who receives notifications in tests: a web server and a mail server of our own, on real sockets."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from collections.abc import Callable
from email import message_from_bytes, policy
from typing import Any


def wait_for(what: Callable[[], Any], timeout_s: float = 20) -> None:
    """Until `what` is true; fails after a while."""
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Web:
    """An HTTP endpoint that remembers what it was sent, with the path. `status` is what it answers."""

    def __init__(self, delay_s: float = 0.0, status: int = 200) -> None:
        self.got: list[dict[str, Any]] = []
        self.status = status
        self.refused = 0
        self.closing = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.closing.wait(delay_s)
                if outer.status < 300:
                    outer.got.append(json.loads(body) | {"path": self.path})
                else:
                    outer.refused += 1
                self.send_response(outer.status)
                self.end_headers()
                if self.path.startswith("/services/"):  # as Slack answers
                    self.wfile.write(b"ok")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class Mailbox:
    """What aiosmtpd hands over."""

    def __init__(self) -> None:
        self.mails: list[Any] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 — aiosmtpd's name
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"
