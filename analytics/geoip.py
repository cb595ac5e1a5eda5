"""Which GeoIP database a lake uses: choose one, download one, say which.

Any file in MaxMind's format will do. The choice is kept in the lake, `<lake>/.settings/geoip.json`, so every reader
of the lake (dashboard, SQL, notebooks) shows the same. A database of the type "ASN" is kept beside one of places.
"""

from __future__ import annotations

import gzip
import json
import os
import struct
import tempfile
import urllib.error
import urllib.request
import zlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import maxminddb

from engine.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

DBIP_URL: Final = "https://download.db-ip.com/free/dbip-city-lite-{month}.mmdb.gz"
DBIP_ATTRIBUTION: Final = "IP Geolocation by DB-IP"  # the licence (CC BY 4.0) asks for this text with this link
DBIP_LINK: Final = "https://db-ip.com"
MAX_BYTES: Final = 2 << 30  # of a database, unpacked; the largest known one has about a quarter
TIMEOUT_S: Final = 30.0  # without a byte from the server
_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """What `geoip.json` holds. Empty: nothing chosen."""

    database: str = ""
    attribution: str = ""
    link: str = ""
    asn_database: str = ""

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(path for path in (self.database, self.asn_database) if path)


def read_settings(lake: str | Path) -> Settings:
    """The lake's choice. Settings that are missing or damaged are none: a query must not fail for them."""
    try:
        document = json.loads(_settings_file(lake).read_text())
    except (OSError, ValueError):
        return Settings()
    if not isinstance(document, dict):
        return Settings()
    known = asdict(Settings())
    return Settings(**{k: v for k, v in document.items() if k in known and isinstance(v, str)})


# What a reader raises for a damaged database. The compiled reader of maxminddb 3.2 crashes on some instead, for example
# where a key of a map is no text: so the one in Python reads, 57 instead of 6 us an address, once for each.
DAMAGED: Final = (maxminddb.InvalidDatabaseError, ValueError, TypeError, LookupError, RecursionError, struct.error)


def open_database(path: Path) -> maxminddb.Reader:
    """A reader of the database. Raises ConfigError when the file is missing or of another format. Reading from it
    raises one of DAMAGED where it is damaged."""
    try:
        with path.open("rb"):
            pass
        return maxminddb.open_database(str(path), maxminddb.MODE_MMAP)
    except OSError as error:
        raise ConfigError(f"GeoIP database {path} cannot be read: {error.strerror}; {_REMEDY}") from None
    except DAMAGED:
        raise ConfigError(f"GeoIP database {path} is damaged or not in MaxMind's format; {_REMEDY}") from None


_REMEDY: Final = "choose a file with `engine geoip use PATH`, or get one with `engine geoip install`"


def use(lake: str | Path, path: str | Path, *, attribution: str = "", link: str = "") -> Settings:
    """Make the lake use a database from now on; readers that are running notice within seconds.

    Raises ConfigError when the file is not a database, StoreError when the choice cannot be written.
    """
    database = Path(path).expanduser().absolute()
    with open_database(database) as reader:
        kind = reader.metadata().database_type
        try:
            reader.get("192.0.2.1")
        except DAMAGED as error:
            raise ConfigError(f"GeoIP database {database} is damaged: {error}; {_REMEDY}") from None
    if not attribution and "dbip" in kind.lower():
        attribution, link = DBIP_ATTRIBUTION, DBIP_LINK
    old = read_settings(lake)
    if "asn" in kind.lower():
        new = Settings(old.database, old.attribution, old.link, str(database))
    else:
        new = Settings(str(database), attribution, link, old.asn_database)
    target = _settings_file(lake)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(target) as file:
            file.write((json.dumps(asdict(new), indent=2) + "\n").encode())
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error.strerror}; check the lake's rights and free space") from None
    return new


def install(lake: str | Path, url: str | None = None) -> Settings:
    """Download a database, put it beside the lake in `geoip/`, and use it.

    Without a `url`: DB-IP City Lite of this month, else of the last (a month's file appears on its first days).
    The file is unpacked, opened and only then put in place, so a broken download changes nothing.

    Raises StoreError when it cannot be fetched or stored, ConfigError when what was fetched is no database.
    """
    urls = [url] if url else [DBIP_URL.format(month=month) for month in _months(datetime.now(UTC))]
    directory = Path(lake).expanduser().absolute().parent / "geoip"
    for last, each in zip([False] * (len(urls) - 1) + [True], urls, strict=True):
        if not each.startswith(("http://", "https://")):
            raise ConfigError(f"{each} is not a web address; for a file you have, `engine geoip use PATH`")
        target = directory / (each.rsplit("/", 1)[-1].split("?")[0].removesuffix(".gz") or "database.mmdb")
        try:
            directory.mkdir(parents=True, exist_ok=True)
            _download(each, target)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404 and not last:
                    continue
                raise _not_fetched(each, f"the server answered {error.code} {error.reason}") from None
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise _not_fetched(each, str(getattr(error, "reason", error))) from None
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _not_fetched(each, f"the download is incomplete or damaged ({error})") from None
        except OSError as error:
            reason = error.strerror or error
            raise StoreError(f"cannot write {target}: {reason}; check the rights and free space") from None
        if url:
            return use(lake, target)
        return use(lake, target, attribution=DBIP_ATTRIBUTION, link=DBIP_LINK)
    raise AssertionError("the last URL returns or raises")


def status(lake: str | Path) -> dict[str, Any]:
    """What `engine geoip` prints: `database` (path or None), `type`, `built` (YYYY-MM-DD), `attribution`, `link`,
    `asn_database`, and `advice`: one line when there is something to do, else empty.
    """
    settings = read_settings(lake)
    answer: dict[str, Any] = {
        "database": settings.database or None, "type": None, "built": None, "attribution": settings.attribution,
        "link": settings.link, "asn_database": settings.asn_database or None, "advice": "",
    }  # fmt: skip
    if not settings.database:
        answer["advice"] = (
            "no GeoIP database: get the free DB-IP City Lite with `engine geoip install`, or use your own, "
            "in MaxMind's format, with `engine geoip use PATH`"
        )
        return answer
    try:
        with open_database(Path(settings.database)) as reader:
            metadata = reader.metadata()
    except ConfigError as error:
        answer["advice"] = str(error)
        return answer
    answer["type"] = metadata.database_type
    answer["built"] = datetime.fromtimestamp(metadata.build_epoch, UTC).date().isoformat()
    return answer


def _settings_file(lake: str | Path) -> Path:
    return Path(lake).expanduser().absolute() / ".settings" / "geoip.json"


def _months(now: datetime) -> Iterable[str]:
    return f"{now:%Y-%m}", f"{now.replace(day=1) - timedelta(days=1):%Y-%m}"


def _not_fetched(url: str, reason: str) -> StoreError:
    return StoreError(f"cannot fetch {url}: {reason}; download it yourself and run `engine geoip use PATH`")


class _replacing:  # noqa: N801 — reads as a function: with _replacing(path) as file
    """A new file that takes the target's place when it is complete, and vanishes when it is not."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __enter__(self) -> IO[bytes]:
        handle, name = tempfile.mkstemp(prefix=f".{self._target.name}-", dir=self._target.parent)
        self._new = Path(name)
        self._file = os.fdopen(handle, "wb")
        return self._file

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            with self._file:
                if kind is None:
                    self._file.flush()
                    os.fsync(self._file.fileno())
                    os.fchmod(self._file.fileno(), 0o644)
            if kind is None:
                self._check()
                self._new.replace(self._target)
        finally:
            self._new.unlink(missing_ok=True)

    def _check(self) -> None:
        """Raise when the file must not be put in place."""


class _ReplacingDatabase(_replacing):
    def _check(self) -> None:
        try:
            open_database(self._new).close()
        except ConfigError:
            raise ConfigError(f"what was fetched for {self._target.name} is not a GeoIP database; {_REMEDY}") from None


def _download(url: str, target: Path) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "packetlake"})  # noqa: S310 — install() checked the scheme
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
        expected = response.headers.get("Content-Length")
        raw = _Counted(response)
        packed = url.split("?")[0].endswith(".gz")
        with _ReplacingDatabase(target) as file:
            source: Any = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[call-overload]
            size = 0
            while chunk := source.read(_CHUNK_BYTES):
                size += len(chunk)
                if size > MAX_BYTES:
                    raise ConfigError(f"{url} unpacks to more than {MAX_BYTES >> 20} MiB: not a GeoIP database")
                file.write(chunk)
            if expected is not None and raw.count < int(expected):
                raise EOFError(f"{raw.count} of {expected} bytes")


class _Counted:
    """The response, counting what was read: http.client does not report a body that ends early."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._response.read(size)
        self.count += len(data)
        return data
