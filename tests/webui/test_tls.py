"""TLS by certificate files, over a real socket: who is asked for, who asks, and what hostile clients cannot do."""

from __future__ import annotations

import datetime
import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import waitress
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from engine.errors import ConfigError
from webui import tls

LARGE = 8 << 20


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "cert.pem", directory / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))
    return paths


def application(environ, start_response):
    """Says who asks and how; /large sends a file, /echo what it was sent."""
    if environ["PATH_INFO"] == "/large":
        body = b"x" * LARGE
    elif environ["PATH_INFO"] == "/echo":
        body = environ["wsgi.input"].read()
    else:
        body = f"{environ['wsgi.url_scheme']} {environ['packetlake.peer']}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


@pytest.fixture(scope="module")
def served(certificate) -> Iterator[tuple[int, int, tls.Terminator]]:
    """The public port, the inner one of the web server, and what is between."""
    listener = socket.create_server(("127.0.0.1", 0))
    terminator = tls.Terminator(listener, tls.context(*map(str, certificate)))
    terminator.start()
    inner = terminator.inner.getsockname()[1]
    server = waitress.create_server(
        terminator.identify(application), sockets=[terminator.inner], threads=4, url_scheme="https"
    )
    threading.Thread(target=server.run, daemon=True).start()
    yield listener.getsockname()[1], inner, terminator
    server.close()


@contextmanager
def asking(port: int, certificate: Path) -> Iterator[http.client.HTTPSConnection]:
    trusted = ssl.create_default_context(cafile=str(certificate))
    connection = http.client.HTTPSConnection("localhost", port, context=trusted, timeout=30)
    yield connection
    connection.close()


def test_tls__serves_requests_over_one_connection_and_knows_the_peer(served, certificate):
    with asking(served[0], certificate[0]) as connection:
        for _ in range(3):
            connection.request("GET", "/")
            assert connection.getresponse().read() == b"https 127.0.0.1"
        assert connection.sock.version() in ("TLSv1.2", "TLSv1.3")


def test_tls__carries_large_bodies_both_ways(served, certificate):
    sent = os.urandom(3 << 20)
    with asking(served[0], certificate[0]) as connection:
        connection.request("GET", "/large")
        assert len(connection.getresponse().read()) == LARGE
        connection.request("POST", "/echo", body=sent)
        assert connection.getresponse().read() == sent


def test_tls__plain_requests_and_silent_clients_do_not_stop_others(served, certificate):
    silent = [socket.create_connection(("127.0.0.1", served[0])) for _ in range(50)]
    with socket.create_connection(("127.0.0.1", served[0]), timeout=10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with suppress(ConnectionError):
            assert not plain.recv(100).startswith(b"HTTP")
    with asking(served[0], certificate[0]) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
    for one in silent:
        one.close()


def test_tls__the_web_servers_own_port_answers_nobody_else(served):
    connection = http.client.HTTPConnection("127.0.0.1", served[1], timeout=30)
    connection.request("GET", "/")
    assert connection.getresponse().status == 403
    connection.close()


def test_tls__the_port_of_a_connection_on_another_address_is_nobodys(served, certificate):
    with asking(served[0], certificate[0]) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"https 127.0.0.1"
        own = http.client.HTTPConnection(
            "127.0.0.1", served[1], 30, source_address=("127.0.0.2", [*served[2]._peers][-1])
        )
        own.request("GET", "/")
        assert own.getresponse().status == 403
        own.close()


def test_tls__old_versions_are_refused(served):
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", served[0]), timeout=10) as plain,
        pytest.raises((ssl.SSLError, OSError)),
    ):
        old.wrap_socket(plain)


def test_tls__connections_are_forgotten(served, certificate):
    for _ in range(20):
        with asking(served[0], certificate[0]) as connection:
            connection.request("GET", "/")
            connection.getresponse().read()
    deadline = time.monotonic() + 10
    while served[2]._peers and time.monotonic() < deadline:
        time.sleep(0.05)
    assert served[2]._peers == {}


def test_context__errors_are_one_line(certificate, tmp_path):
    cert, key = map(str, certificate)
    (tmp_path / "bad.pem").write_text("no certificate")
    for given in (
        (str(tmp_path / "none"), key),
        (cert, str(tmp_path / "none")),
        (cert, cert),
        (str(tmp_path / "bad.pem"), key),
    ):
        with pytest.raises(ConfigError) as caught:
            tls.context(*given)
        assert "\n" not in str(caught.value)
        assert "TLS" in str(caught.value)
