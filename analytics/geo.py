"""The `geo` view: what is known about each address of the lake, looked up once and remembered.

    SELECT g.country, sum(p.wirelen) FROM packets p JOIN geo g ON g.ip = p.dst_ip GROUP BY 1

`geo_source` says who knew it: `database`, `ipinfo` (see `analytics.ipinfo`), or NULL when nobody did.
One row per distinct address of `addresses`, live like every view. The lookup is a function that DuckDB calls with
2,048 addresses at a time. It must never refer to a connection: the connection refers to it, and such a cycle is never
freed, which DuckDB's bindings report on stderr when the interpreter ends.
"""

from __future__ import annotations

import sys
import threading
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
from duckdb.func import PythonUDFType

from analytics import ipinfo_cache
from analytics.addresses import Address, parse, scope
from analytics.countries import COUNTRIES
from analytics.geoip import Settings, open_database, read_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from duckdb import DuckDBPyConnection
    from maxminddb import Reader

REMEMBERED: Final = 500_000  # addresses per lake (about 400 bytes each); with more than that, all are looked up anew
CHECK_S: Final = 1.0  # how old the knowledge of which database is in use may be

FIELDS: Final = pa.struct({
    "scope": pa.string(), "country": pa.string(), "country_name": pa.string(), "iso3": pa.string(),
    "city": pa.string(), "latitude": pa.float64(), "longitude": pa.float64(), "asn": pa.int64(), "as_org": pa.string(),
    "geo_source": pa.string(),
})  # fmt: skip
_SQL_TYPE: Final = (
    "STRUCT(scope VARCHAR, country VARCHAR, country_name VARCHAR, iso3 VARCHAR, city VARCHAR, "
    "latitude DOUBLE, longitude DOUBLE, asn BIGINT, as_org VARCHAR, geo_source VARCHAR)"
)
_VIEW: Final = """
CREATE OR REPLACE VIEW geo AS
SELECT ip, unnest(_geo(ip)) FROM (SELECT DISTINCT ip FROM addresses)
"""

Row = tuple[Any, ...]


def register(con: DuckDBPyConnection, lake: Path) -> None:
    """Give a connection (and its cursors) the view `geo`. The view `addresses` must exist."""
    con.create_function("_geo", _locate(lake), ["VARCHAR"], _SQL_TYPE, type=PythonUDFType.ARROW)
    con.execute(_VIEW)


@cache
def _locate(lake: Path) -> Callable[[pa.Array], pa.StructArray]:
    """The lookup of a lake, the same for all connections of this process, and never freed.

    Never, because DuckDB calls it from every cursor, but only the connection that registered it keeps it alive: a
    cursor that outlives that connection would call freed memory.
    """
    return Locator(lake).locate


class Locator:
    """Looks addresses up in the databases that the lake's settings name, and remembers them. Thread-safe.

    Without a database, or with one that went missing or is damaged, there are labels (`scope`) only, and one line on
    stderr says so. A change of the settings or of a database is noticed within CHECK_S.
    """

    def __init__(self, lake: Path) -> None:
        self._lake = lake
        self._lock = threading.Lock()
        self._known: dict[str, Row] = {}
        self._asked: dict[str, dict[str, Any]] = {}  # what ipinfo.io said
        self._asked_version: tuple[int, int, int] | None = None
        self._readers: list[Reader] = []
        self._signature: tuple[Any, ...] | None = None
        self._checked = float("-inf")
        self._warned: set[str] = set()

    def locate(self, ips: pa.Array) -> pa.StructArray:
        """FIELDS of each address; for text that is no address, all NULL."""
        if isinstance(ips, pa.ChunkedArray):
            ips = ips.combine_chunks()
        with self._lock:
            self._follow_settings()
            if len(self._known) > REMEMBERED:
                self._known.clear()
            rows = [self._known.get(ip) or self._look_up(ip) for ip in ips.to_pylist()]
        columns = zip(*rows, strict=True) if rows else [()] * FIELDS.num_fields
        arrays = [pa.array(column, field.type) for column, field in zip(columns, FIELDS, strict=True)]
        return pa.StructArray.from_arrays(arrays, fields=list(FIELDS))

    def _look_up(self, ip: str) -> Row:
        address = parse(ip)
        record: dict[str, Any] = {}
        if address is not None:
            for reader in self._readers:
                record.update(self._ask(reader, address))
        origin = "database" if record else None
        if not record and (asked := self._asked.get(ip)) is not None:
            record, origin = asked, "ipinfo"
        row = (scope(address) if address is not None else None, *fields_of(record), origin)
        self._known[ip] = row
        return row

    def _ask(self, reader: Reader, address: Address) -> Mapping[str, Any]:
        try:
            found = reader.get(address)
        except ValueError:  # an IPv6 address in a database of IPv4 only
            return {}
        except Exception as error:  # noqa: BLE001 — a damaged database raises what its reader happened to trip over
            self._warn(f"GeoIP database is damaged ({error}); choose another with `engine geoip use PATH`")
            self._readers = [r for r in self._readers if r is not reader]
            return {}
        return found if isinstance(found, dict) else {}

    def _follow_settings(self) -> None:
        now = time.monotonic()
        if now - self._checked < CHECK_S:
            return
        self._checked = now
        self._follow_ipinfo()
        settings = read_settings(self._lake)
        signature = tuple((path, _version(path)) for path in settings.paths)
        if signature != self._signature:
            self._signature = signature
            self._known.clear()
            self._open(settings)

    def _follow_ipinfo(self) -> None:
        version = _version(str(ipinfo_cache.path_of(self._lake)))
        if version != self._asked_version:
            self._asked_version = version
            before, self._asked = self._asked, ipinfo_cache.load(self._lake).addresses if version else {}
            for ip in before.keys() ^ self._asked.keys():
                self._known.pop(ip, None)

    def _open(self, settings: Settings) -> None:
        self._readers = []
        for path in settings.paths:
            try:
                self._readers.append(open_database(Path(path)))
            except Exception as error:  # noqa: BLE001 — whatever is wrong with it, queries go on without
                self._warn(f"{error}; addresses keep their labels only")

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            print(f"warning: {message}", file=sys.stderr)  # noqa: T201 — there is no caller to raise to


def _version(path: str) -> tuple[int, int, int] | None:
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def fields_of(record: Mapping[str, Any]) -> Row:
    """country, country_name, iso3, city, latitude, longitude, asn and as_org of a database's record.

    Databases differ: MaxMind's and DB-IP's own nest (`country.iso_code`, `city.names.en`, `location.latitude`),
    republished ones are flat (`country_code`, `city`, `latitude`). Anything of another type counts as absent.
    """
    country = _part(record, "country") or _part(record, "registered_country")
    place = _part(record, "location") or record
    flat_country = _string(record.get("country"))
    code = _string(country.get("iso_code")) or _string(record.get("country_code")) or flat_country
    code = code.upper() if code is not None and len(code) == 2 else None
    iso3, known_name = COUNTRIES.get(code or "", (None, None))
    name = _string(_part(country, "names").get("en")) or _string(record.get("country_name")) or known_name
    city = _string(_part(_part(record, "city"), "names").get("en")) or _string(record.get("city"))
    latitude = _number(place.get("latitude", place.get("lat")), 90)
    longitude = _number(place.get("longitude", place.get("lng", place.get("lon"))), 180)
    if latitude is None or longitude is None:
        latitude = longitude = None
    asn = record.get("autonomous_system_number", record.get("asn"))
    number = str(asn).upper().removeprefix("AS")
    org = next((o for key in _ORGANISATIONS if (o := _string(record.get(key)))), None)
    return code, name, iso3, city, latitude, longitude, int(number) if number.isdecimal() else None, org


_ORGANISATIONS: Final = ("autonomous_system_organization", "as_organization", "as_name", "as_org")


def _part(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _string(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object, limit: float) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if -limit <= number <= limit else None
