"""Where segments are shipped to: a directory or a prefix of an S3-compatible store, alike for whoever uses it.

Keys, region and endpoint come from where other S3 programs look: AWS_ACCESS_KEY_ID and its kin, ~/.aws,
AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL. They stand in no message.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from analytics.ship.names import FLEET
from engine import __version__, lake_format
from engine.errors import StoreError
from engine.segment_file import make_directories, sync
from engine.ship_config import check_url

CONNECT_S: Final = 5.0
REQUEST_S: Final = 30.0
# What stores answer, and what the operator must do. Other failures are expected to pass.
_TELLS: Final = (
    (("NO_SUCH_BUCKET", "NoSuchBucket"), "the bucket does not exist; make it, or name another"),
    (("SIGNATURE_DOES_NOT_MATCH", "INVALID_ACCESS_KEY_ID", "INVALID_CLIENT_TOKEN_ID", "UNRECOGNIZED_CLIENT",
      "InvalidAccessKeyId", "EXPIRED_TOKEN", "ExpiredToken", "MISSING_AUTHENTICATION_TOKEN"),
     "the keys are refused; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials"),
    (("REQUEST_TIME_TOO_SKEWED", "RequestTimeTooSkewed", "REQUEST_EXPIRED"),
     "the store's clock and ours are too far apart; set this machine's clock"),
    (("ACCESS_DENIED", "AccessDenied", "HTTP status 403"),
     "access is denied; give these keys the right to list, read, write and delete there"),
)  # fmt: skip
_UNREACHABLE: Final = ("NETWORK_CONNECTION", "curlCode", "REQUEST_TIMEOUT")


class Refused(StoreError):  # noqa: N818 — as those of engine.errors, named for what happened
    """It will not work until the operator does something."""


@dataclass(frozen=True, slots=True)
class Item:
    """An object: its place below the destination, bytes, and when it was written, by the store's clock (seconds)."""

    place: str
    size: int
    written: float


class Destination:
    """One destination. Methods raise StoreError, one line; Refused when trying again would not help. Thread-safe."""

    def __init__(self, url: str) -> None:
        check_url(url, "destination")
        self.url = url.rstrip("/")
        self._root = self.url.removeprefix("s3://" if url.startswith("s3://") else "file://") or "/"
        self._fs: Any = None

    @property
    def directory(self) -> Path | None:
        """The directory, None for an object store."""
        return None if self.url.startswith("s3://") else Path(self._root)

    def put(self, data: bytes, place: str) -> None:
        """Write an object: it appears whole, or not at all."""
        try:
            if self.directory is not None:
                _write(self.directory / place, data)
                return
            # `data` is complete before the stream is opened: a stream that breaks must not end as a short object.
            with self._open_fs().open_output_stream(f"{self._root}/{place}", buffer_size=0) as stream:
                stream.write(data)
        except (OSError, ValueError) as error:
            raise self._error("cannot write", error) from None

    def size(self, place: str) -> int | None:
        """Bytes of an object, None when it is not there."""
        if self.directory is not None:
            with contextlib.suppress(OSError):
                return (self.directory / place).stat().st_size
            return None
        try:
            info = self._open_fs().get_file_info(f"{self._root}/{place}")
        except (OSError, ValueError) as error:
            raise self._error("cannot read", error) from None
        return int(info.size) if info.is_file else None

    def get(self, place: str) -> bytes | None:
        """An object's bytes, None when it is not there."""
        try:
            if self.directory is not None:
                return (self.directory / place).read_bytes()
            with self._open_fs().open_input_stream(f"{self._root}/{place}") as stream:
                return bytes(stream.readall())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise self._error("cannot read", error) from None

    def copy(self, place: str, to: str) -> None:
        """An object a second time; it appears whole, or not at all."""
        try:
            if self.directory is not None:
                _write(self.directory / to, (self.directory / place).read_bytes())
            else:
                self._open_fs().copy_file(f"{self._root}/{place}", f"{self._root}/{to}")
        except (OSError, ValueError) as error:
            raise self._error("cannot write", error) from None

    def open(self, place: str) -> Any:
        """An object as a pyarrow file, whose `read_at` threads may share."""
        try:
            if self.directory is not None:
                import pyarrow as pa

                return pa.OSFile(str(self.directory / place), "rb")
            return self._open_fs().open_input_file(f"{self._root}/{place}")
        except (OSError, ValueError) as error:
            raise self._error("cannot read", error) from None

    def list(self, place: str) -> list[Item]:
        """All objects below a place, hidden and unfinished ones of a directory left out; none when it is not there."""
        from pyarrow.fs import FileSelector

        if self.directory is not None:
            return list(_walk(self.directory, place))
        prefix = f"{self._root}/{place}".rstrip("/")
        try:
            found = self._open_fs().get_file_info(FileSelector(prefix, recursive=True, allow_not_found=True))
        except (OSError, ValueError) as error:
            raise self._error("cannot list", error) from None
        cut = len(self._root) + 1
        return [Item(f.path[cut:], int(f.size), (f.mtime_ns or 0) / 1e9) for f in found if f.is_file]

    def delete(self, place: str) -> None:
        """Whether it was there or not."""
        try:
            if self.directory is not None:
                (self.directory / place).unlink(missing_ok=True)
            else:
                self._open_fs().delete_file(f"{self._root}/{place}")
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise self._error("cannot delete", error) from None

    def check_format(self, prepare: bool) -> None:
        """Raises Refused for a lake that we do not know. With `prepare`, writes down the format of a new one."""
        if self.directory is not None:
            if not self.directory.is_dir():
                raise Refused(f"{self.url}: there is no such directory; make it, or mount it")
            try:
                lake_format.check(self.directory)
            except StoreError as error:
                raise Refused(str(error)) from None
        else:  # without a bucket objects are just missing, and some stores make it when something is written
            self.list(FLEET)
            if not self._bucket_exists():
                raise Refused(f"{self.url}: the bucket does not exist; make it, or name another")
        data = self.get(lake_format.FILE)
        if data is None:
            if prepare:
                text = json.dumps({"format": lake_format.FORMAT, "made_by": __version__})
                self.put(text.encode() + b"\n", lake_format.FILE)
            return
        try:
            number = int(json.loads(data)["format"])
        except (ValueError, TypeError, KeyError, RecursionError):
            raise Refused(f"{self.url}: {lake_format.FILE} there is damaged; see what is in this place") from None
        if not 1 <= number <= lake_format.FORMAT:
            raise Refused(
                f"{self.url} has format {number}; packetlake {__version__} knows formats up to {lake_format.FORMAT}: "
                "use a newer one, or another place"
            )

    def _bucket_exists(self) -> bool:
        from pyarrow.fs import FileType

        try:
            return bool(self._open_fs().get_file_info(self._root.partition("/")[0]).type != FileType.NotFound)
        except (OSError, ValueError) as error:
            raise self._error("cannot read", error) from None

    def _open_fs(self) -> Any:
        if self._fs is None:
            from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, S3LogLevel, initialize_s3

            with contextlib.suppress(OSError, ValueError):  # initialised already
                initialize_s3(S3LogLevel.Off)  # what went wrong is told by us
            endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
            given: dict[str, Any] = {}
            if endpoint:
                parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
                given = {"endpoint_override": parts.netloc, "scheme": parts.scheme}
                given["region"] = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
            try:
                self._fs = S3FileSystem(
                    connect_timeout=CONNECT_S, request_timeout=REQUEST_S, allow_delayed_open=True,
                    retry_strategy=AwsStandardS3RetryStrategy(max_attempts=2), **given,
                )  # fmt: skip
            except (OSError, ValueError) as error:
                raise self._error("cannot be used", error) from None
        return self._fs

    def _error(self, what: str, error: Exception) -> StoreError:
        text = str(error)
        for marks, advice in _TELLS:
            if any(mark in text for mark in marks):
                return Refused(f"{self.url}: {advice}")
        if isinstance(error, PermissionError):
            return Refused(f"{self.url}: {what}: permission denied; give this account the right to write there")
        if self.directory is None and any(mark in text for mark in _UNREACHABLE):
            return StoreError(f"{self.url}: the store cannot be reached; check the network and AWS_ENDPOINT_URL")
        number = getattr(error, "errno", None)
        reason = os.strerror(number).lower() if number else _plain(text)
        return StoreError(f"{self.url}: {what}: {reason}")


def use_own_home() -> None:
    """After sudo and a change of account: ~/.aws is that of the account that we are now."""
    with contextlib.suppress(KeyError):
        os.environ["HOME"] = pwd.getpwuid(os.geteuid()).pw_dir


def _plain(text: str) -> str:
    """What a store said, without what could hold a key, on one line."""
    text = re.sub(r"\(Request ID:[^)]*\)", "", text).strip()
    return re.sub(r"\s+", " ", text)[:200]


def _write(path: Path, data: bytes) -> None:
    make_directories(path.parent)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.inprogress")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(partial, path)
        sync(str(path.parent))
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def _walk(root: Path, place: str) -> Any:
    for folder, _, names in os.walk(root / place):
        for name in names:
            if not name.startswith(".") and not name.endswith(".inprogress"):
                with contextlib.suppress(OSError):
                    status = os.stat(f"{folder}/{name}")
                    yield Item(os.path.relpath(f"{folder}/{name}", root), status.st_size, status.st_mtime)
