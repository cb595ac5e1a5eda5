"""GeoIP databases: choosing, downloading, looking up, and being without one."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import analytics
from analytics import geo, geoip
from engine.errors import ConfigError, StoreError
from tests.analytics.small_lake import FLAT, NESTED, make_lake, segment, write_mmdb
from tests.commands import ROOT

COLUMNS = "ip, scope, country, country_name, iso3, city, latitude, longitude, asn, as_org"
PLACES = {"81.2.69.0/24": NESTED, "2a00::/16": FLAT}


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes of the settings are noticed at the next query."""
    monkeypatch.setattr(geo, "CHECK_S", 0.0)


def rows(lake: Path, query: str = f"SELECT {COLUMNS} FROM geo ORDER BY ip_key(ip)") -> list[tuple[Any, ...]]:
    with analytics.connect(lake) as con:
        return con.execute(query).fetchall()


# --- the view ---------------------------------------------------------------------------------------------------


def test_geo__without_a_database_has_labels_only(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make_lake(tmp_path, "10.0.0.1", "8.8.8.8", "fe80::1")
    assert rows(tmp_path) == [
        ("8.8.8.8", "public", *[None] * 8),
        ("10.0.0.1", "private", *[None] * 8),
        ("fe80::1", "link_local", *[None] * 8),
    ]
    assert capfd.readouterr().err == ""


def test_geo__nested_and_flat_records(tmp_path: Path) -> None:
    lake = make_lake(tmp_path / "lake", "10.0.0.1", "81.2.69.7", "2a00::1", "::ffff:81.2.69.9")
    geoip.use(lake, write_mmdb(tmp_path / "x.mmdb", PLACES))
    berlin = ("public", "DE", "Germany", "DEU", "Berlin", 52.5, 13.4, None, None)
    assert rows(lake) == [
        ("10.0.0.1", "private", *[None] * 8),
        ("81.2.69.7", *berlin),
        ("::ffff:81.2.69.9", *berlin),
        ("2a00::1", "public", "JP", "Japan", "JPN", "Tokyo", 35.7, 139.7, None, None),
    ]


def test_geo__joins_packets_by_country(tmp_path: Path) -> None:
    lake = make_lake(tmp_path / "lake", "10.0.0.1", "81.2.69.7", "2a00::1")
    geoip.use(lake, write_mmdb(tmp_path / "x.mmdb", PLACES))
    query = "SELECT g.country, sum(wirelen)::BIGINT FROM packets p JOIN geo g ON g.ip = p.dst_ip GROUP BY 1 ORDER BY 1"
    assert rows(lake, query) == [("DE", 100), ("JP", 200), (None, 300)]


def test_geo__has_one_row_per_address_however_often_it_was_seen(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, "8.8.8.8")
    for i in range(3):
        segment(lake, "addresses", [{"ip": "8.8.8.8"}, {"ip": "1.1.1.1"}], name=f"{i}-1")
    assert [r[0] for r in rows(lake)] == ["1.1.1.1", "8.8.8.8"]


@pytest.mark.usefixtures("at_once")
def test_geo__new_addresses_and_a_new_database_are_seen_by_an_open_connection(tmp_path: Path) -> None:
    lake = make_lake(tmp_path / "lake", "81.2.69.7")
    with analytics.connect(lake) as con:
        query = "SELECT ip, country FROM geo ORDER BY ip"
        assert con.execute(query).fetchall() == [("81.2.69.7", None)]
        geoip.use(lake, write_mmdb(tmp_path / "x.mmdb", PLACES))
        assert con.execute(query).fetchall() == [("81.2.69.7", "DE")]
        segment(lake, "addresses", [{"ip": "2a00::5"}], name="7-7")
        assert con.execute(query).fetchall() == [("2a00::5", "JP"), ("81.2.69.7", "DE")]


def test_geo__asn_database_beside_one_of_places(tmp_path: Path) -> None:
    lake = make_lake(tmp_path / "lake", "81.2.69.7")
    record = {"autonomous_system_number": 64500, "autonomous_system_organization": "Example Net"}
    geoip.use(lake, write_mmdb(tmp_path / "asn.mmdb", {"81.2.0.0/16": record}, "GeoLite2-ASN"))
    assert rows(lake, "SELECT country, asn, as_org FROM geo") == [(None, 64500, "Example Net")]
    geoip.use(lake, write_mmdb(tmp_path / "city.mmdb", PLACES))
    with analytics.connect(lake) as con:
        time.sleep(geo.CHECK_S)
        assert con.execute("SELECT country, asn, as_org FROM geo").fetchall() == [("DE", 64500, "Example Net")]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("damage", ["missing", "emptied", "garbage"])
def test_geo__lost_or_damaged_database_leaves_labels_and_one_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], damage: str
) -> None:
    lake = make_lake(tmp_path / "lake", "81.2.69.7")
    database = write_mmdb(tmp_path / "x.mmdb", PLACES)
    geoip.use(lake, database)
    with analytics.connect(lake) as con:
        assert con.execute("SELECT country FROM geo").fetchall() == [("DE",)]
        database.unlink()
        if damage != "missing":
            database.write_bytes(b"" if damage == "emptied" else os.urandom(5000))
        for _ in range(3):
            assert con.execute("SELECT ip, scope, country FROM geo").fetchall() == [("81.2.69.7", "public", None)]
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == 1
        assert str(database) in lines[0]
        assert "engine geoip use" in lines[0]


def test_geo__database_with_a_damaged_tree_leaves_labels(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lake = make_lake(tmp_path / "lake", "81.2.69.7", "2a00::1")
    database = write_mmdb(tmp_path / "x.mmdb", PLACES)
    geoip.use(lake, database)
    whole = database.read_bytes()
    tree = whole.index(b"\0" * 16)
    database.write_bytes(b"\xff" * tree + whole[tree:])
    assert {r[1:3] for r in rows(lake)} == {("public", None)}
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_geo__forgets_before_it_grows_without_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geo, "REMEMBERED", 10)
    lake = make_lake(tmp_path, *(f"8.8.{i // 250}.{i % 250}" for i in range(5000)))
    assert rows(lake, "SELECT count(*), count(scope) FROM geo") == [(5000, 5000)]
    assert rows(lake, "SELECT count(*), count(scope) FROM geo") == [(5000, 5000)]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({}, (None,) * 8),
        ({"country": "fr"}, ("FR", "France", "FRA", *[None] * 5)),
        ({"country_code": "GB", "country_name": "Britain"}, ("GB", "Britain", "GBR", *[None] * 5)),
        ({"registered_country": {"iso_code": "US"}}, ("US", "United States", "USA", *[None] * 5)),
        ({"latitude": "1.5", "lon": 2}, (None, None, None, None, 1.5, 2.0, None, None)),
        ({"latitude": 91, "longitude": 2}, (None,) * 8),
        ({"latitude": 1}, (None,) * 8),
        ({"asn": "AS15169", "as_name": "Google"}, (*[None] * 6, 15169, "Google")),
        ({"country": 7, "city": ["x"], "location": "x", "asn": {}, "latitude": float("nan")}, (None,) * 8),
    ],
)
def test_fields_of__takes_what_it_knows(record: dict[str, Any], expected: tuple[Any, ...]) -> None:
    assert geo.fields_of(record) == expected


# --- choosing ---------------------------------------------------------------------------------------------------


def test_use__keeps_the_choice_in_the_lake(tmp_path: Path) -> None:
    lake = make_lake(tmp_path / "lake")
    database = write_mmdb(tmp_path / "x.mmdb", PLACES, "DBIP-City-Lite")
    geoip.use(lake, database)
    kept = json.loads((lake / ".settings/geoip.json").read_text())
    assert kept["database"] == str(database)
    assert kept["attribution"] == "IP Geolocation by DB-IP"
    assert kept["link"] == "https://db-ip.com"
    status = geoip.status(lake)
    assert (status["type"], status["advice"]) == ("DBIP-City-Lite", "")
    assert status["built"] == f"{datetime.now(UTC):%Y-%m-%d}"


@pytest.mark.parametrize("content", [None, b"", b"hello", b"PK\x03\x04" * 500])
def test_use__refuses_what_is_no_database(tmp_path: Path, content: bytes | None) -> None:
    lake = make_lake(tmp_path / "lake")
    path = tmp_path / "x.mmdb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^GeoIP database {path} [^\n]*engine geoip use PATH[^\n]*$"):
        geoip.use(lake, path)
    assert geoip.read_settings(lake) == geoip.Settings()


def test_status__without_a_database_says_how_to_get_one(tmp_path: Path) -> None:
    status = geoip.status(make_lake(tmp_path))
    assert status["database"] is None
    assert "engine geoip install" in status["advice"]


def test_status__of_a_lost_database_says_so(tmp_path: Path) -> None:
    lake = make_lake(tmp_path / "lake")
    database = write_mmdb(tmp_path / "x.mmdb", PLACES)
    geoip.use(lake, database)
    database.unlink()
    assert f"{database} cannot be read" in geoip.status(lake)["advice"]


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"database": 7}', "\x00"])
def test_settings__damaged_are_none(tmp_path: Path, text: str) -> None:
    lake = make_lake(tmp_path, "8.8.8.8")
    (lake / ".settings").mkdir()
    (lake / ".settings/geoip.json").write_text(text)
    assert geoip.read_settings(lake) == geoip.Settings()
    assert len(rows(lake)) == 1


# --- downloading ------------------------------------------------------------------------------------------------


class Server:
    """A web server on the loopback interface. `files` maps a path to (status, body, claimed length or None)."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[int, bytes, int | None]] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                status, body, claimed = outer.files.get(self.path, (404, b"", None))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body) if claimed is None else claimed))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def packed(tmp_path: Path) -> bytes:
    return gzip.compress(write_mmdb(tmp_path / "made.mmdb", PLACES).read_bytes())


def left_behind(lake: Path) -> list[str]:
    folder = lake.parent / "geoip"
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_install__puts_the_database_beside_the_lake_and_uses_it(tmp_path: Path, server: Server, packed: bytes) -> None:
    lake = make_lake(tmp_path / "data/lake", "81.2.69.7")
    server.files["/city.mmdb.gz"] = (200, packed, None)
    geoip.install(lake, f"{server.url}/city.mmdb.gz")
    assert left_behind(lake) == ["city.mmdb"]
    assert (lake.parent / "geoip/city.mmdb").stat().st_mode & 0o777 == 0o644
    assert geoip.status(lake)["database"] == str(lake.parent / "geoip/city.mmdb")
    assert rows(lake, "SELECT country FROM geo") == [("DE",)]


def test_install__of_this_month_else_of_the_last(
    tmp_path: Path, server: Server, packed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geoip, "DBIP_URL", server.url + "/free/dbip-city-lite-{month}.mmdb.gz")
    this, last = geoip._months(datetime.now(UTC))
    server.files[f"/free/dbip-city-lite-{last}.mmdb.gz"] = (200, packed, None)
    settings = geoip.install(make_lake(tmp_path / "data/lake"))
    assert [path.removeprefix("/free/dbip-city-lite-")[:7] for path in server.asked] == [this, last]
    assert settings.attribution == "IP Geolocation by DB-IP"
    assert settings.link == "https://db-ip.com"


def test_months__at_the_turn_of_a_year() -> None:
    assert geoip._months(datetime(2027, 1, 1, tzinfo=UTC)) == ("2027-01", "2026-12")


@pytest.mark.parametrize("case", ["truncated", "short", "not gzip", "not a database", "404", "500", "nobody there"])
def test_install__that_fails_is_one_line_and_changes_nothing(
    tmp_path: Path, server: Server, packed: bytes, case: str
) -> None:
    lake = make_lake(tmp_path / "data/lake")
    url = f"{server.url}/x.mmdb.gz"
    server.files["/x.mmdb.gz"] = {
        "truncated": (200, packed[: len(packed) // 2], None),
        "short": (200, packed[: len(packed) // 2], len(packed)),
        "not gzip": (200, b"<html>", None),
        "not a database": (200, gzip.compress(b"<html>"), None),
        "500": (500, b"", None),
    }.get(case, (404, b"", None))
    if case == "nobody there":
        server.close()
        url = url.replace(server.url, "http://127.0.0.1:1")
    with pytest.raises((StoreError, ConfigError), match=r"^[^\n]*x\.mmdb[^\n]*engine geoip use PATH[^\n]*$"):
        geoip.install(lake, url)
    assert left_behind(lake) == []
    assert geoip.read_settings(lake) == geoip.Settings()


def test_install__stops_at_a_bound(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geoip, "MAX_BYTES", 3 << 20)
    server.files["/bomb.mmdb.gz"] = (200, gzip.compress(bytes(50 << 20)), None)
    lake = make_lake(tmp_path / "data/lake")
    with pytest.raises(ConfigError, match="more than 3 MiB"):
        geoip.install(lake, f"{server.url}/bomb.mmdb.gz")
    assert left_behind(lake) == []


def test_install__keeps_the_old_database_when_the_new_one_is_broken(
    tmp_path: Path, server: Server, packed: bytes
) -> None:
    lake = make_lake(tmp_path / "data/lake", "81.2.69.7")
    server.files["/city.mmdb.gz"] = (200, packed, None)
    geoip.install(lake, f"{server.url}/city.mmdb.gz")
    server.files["/city.mmdb.gz"] = (200, packed[:-20], None)
    with pytest.raises(StoreError):
        geoip.install(lake, f"{server.url}/city.mmdb.gz")
    assert rows(lake, "SELECT country FROM geo") == [("DE",)]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/some/file.mmdb"])
def test_install__takes_web_addresses_only(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="is not a web address"):
        geoip.install(make_lake(tmp_path / "lake"), url)


def test_install__where_nothing_can_be_written_names_the_place(tmp_path: Path, server: Server, packed: bytes) -> None:
    lake = make_lake(tmp_path / "data/lake")
    (lake.parent / "geoip").touch()
    server.files["/city.mmdb.gz"] = (200, packed, None)
    with pytest.raises(StoreError, match=r"cannot write .*geoip/city\.mmdb"):
        geoip.install(lake, f"{server.url}/city.mmdb.gz")


_WALK = """
import sys
from pathlib import Path
from analytics.geoip import DAMAGED, open_database
from engine.errors import ConfigError
good, path = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
opened = refused = 0
for at in range(len(good)):
    for value in (0, 255, good[at] ^ 1):
        path.write_bytes(good[:at] + bytes([value]) + good[at + 1 :])
        try:
            with open_database(path) as reader:
                for address in ("192.0.2.1", "2001:db8::1", "0.0.0.0", "ffff::"):
                    try:
                        reader.get(address)
                    except DAMAGED:
                        pass
                opened += 1
        except ConfigError:
            refused += 1
print(opened > 50, refused > 50)
"""


def test_open__any_changed_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    """In a process of its own, since the failure is a crash."""
    good = write_mmdb(tmp_path / "good.mmdb", {"192.0.2.0/24": NESTED, "2001:db8::/32": FLAT})
    done = subprocess.run(
        [sys.executable, "-c", _WALK, good, tmp_path / "changed.mmdb"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, "True True"), done.stderr[-500:]
