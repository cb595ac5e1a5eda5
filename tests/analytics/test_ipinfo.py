"""ipinfo.io, by a real HTTP server that answers as it does: who is asked about, limits, failures, secrets."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import analytics
from analytics import geo, geoip, ipinfo, ipinfo_cache
from engine.companion_config import GeoConfig, with_token
from engine.errors import ConfigError
from tests.analytics.small_lake import NESTED, make_lake, write_mmdb
from tests.commands import engine

TOKEN = "s3cret0token"
LITE = {"asn": "AS15169", "as_name": "Google LLC", "country_code": "US", "country": "United States", "continent": "NA"}
OLDER = {"city": "Zurich", "country": "CH", "loc": "47.3667,8.5500", "org": "AS19281 Quad9", "postal": "8090"}
CORE = {
    "geo": {"city": "Sydney", "country_code": "AU", "latitude": -33.87, "longitude": 151.2},
    "as": {"asn": "AS13335", "name": "Cloudflare, Inc."},
}
IPS = ("8.8.8.8", "9.9.9.9", "1.1.1.1")
ANSWERS = dict(zip(IPS, (LITE, OLDER, CORE), strict=True))


class Service:
    """Answers `/lite/ADDRESS`; `status` and `body` replace its answers. `asked`: (address, Authorization)."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.status = 200
        self.body: bytes | None = None
        self.location = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                ip = self.path.removeprefix("/lite/")
                outer.asked.append((ip, self.headers["Authorization"]))
                known = ip in ANSWERS or outer.status != 200 or outer.body is not None
                self.send_response(outer.status if known else 404)
                if outer.location:
                    self.send_header("Location", outer.location)
                self.end_headers()
                self.wfile.write(json.dumps(ANSWERS.get(ip, {})).encode() if outer.body is None else outer.body)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}/lite/{{ip}}"

    def addresses(self) -> list[str]:
        return [ip for ip, _ in self.asked]

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geo, "CHECK_S", 0.0)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return make_lake(tmp_path / "data/lake", "10.0.0.1", "81.2.69.7", *IPS, "192.0.2.1", "fe80::1")


def config(service: Service, **values: Any) -> GeoConfig:
    return GeoConfig(**{"ipinfo": True, "token": TOKEN, "ipinfo_url": service.url, "per_second": 100.0} | values)


def look(lake: Path, settings: GeoConfig, said: list[str] | None = None) -> int:
    return ipinfo.Enricher(lake, settings, ([] if said is None else said).append).look(threading.Event())


def places(lake: Path) -> dict[str, tuple[Any, ...]]:
    with analytics.connect(lake) as con:
        rows = con.execute("SELECT ip, country, city, latitude, asn, as_org, geo_source FROM geo").fetchall()
    return {row[0]: row[1:] for row in rows}


def test_geo__has_what_each_form_of_answer_says(lake: Path, service: Service, tmp_path: Path) -> None:
    geoip.use(lake, write_mmdb(tmp_path / "x.mmdb", {"81.2.69.0/24": NESTED}))
    before = places(lake)  # remembered by this process, which has to follow
    assert before["8.8.8.8"] == (None,) * 6
    assert look(lake, config(service)) == 3
    assert sorted(service.asked) == sorted((ip, f"Bearer {TOKEN}") for ip in IPS)  # no private, no known address
    assert places(lake) == {
        "8.8.8.8": ("US", None, None, 15169, "Google LLC", "ipinfo"),
        "9.9.9.9": ("CH", "Zurich", 47.3667, 19281, "Quad9", "ipinfo"),
        "1.1.1.1": ("AU", "Sydney", -33.87, 13335, "Cloudflare, Inc.", "ipinfo"),
        "81.2.69.7": ("DE", "Berlin", 52.5, None, None, "database"),
        **dict.fromkeys(("10.0.0.1", "192.0.2.1", "fe80::1"), (None,) * 6),
    }


def test_an_address__is_asked_once_until_its_answer_is_old(tmp_path: Path, service: Service) -> None:
    lake = make_lake(tmp_path / "lake", "8.8.8.8", "203.5.5.5")  # nothing is known of the second: an answer too
    assert look(lake, config(service)) == 2
    assert look(lake, config(service)) == 0
    assert len(service.asked) == 2
    assert places(lake)["203.5.5.5"] == (*[None] * 5, "ipinfo")
    cache = ipinfo_cache.load(lake)
    cache.addresses["8.8.8.8"]["at"] -= ipinfo_cache.MAX_AGE_S + 10
    ipinfo_cache.save(lake, cache)
    assert look(lake, config(service)) == 1
    assert sorted(service.addresses()) == ["203.5.5.5", "8.8.8.8", "8.8.8.8"]


def test_cache__is_bounded_and_a_damaged_one_is_none(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipinfo_cache, "MOST", 3)
    cache = ipinfo_cache.Cache()
    for n in range(5):
        cache.add(f"8.8.8.{n}", {"country_code": "US"}, 100.0 + n)
    assert list(cache.addresses) == ["8.8.8.2", "8.8.8.3", "8.8.8.4"]
    for text in ("", "[]", '{"addresses": {"1.1.1.1": 3}}', '{"day": 1, "asked": "x", "addresses": {}}', "[" * 99_999):
        ipinfo_cache.path_of(lake).parent.mkdir(exist_ok=True)
        ipinfo_cache.path_of(lake).write_text(text)
        assert ipinfo_cache.load(lake) == ipinfo_cache.Cache()
        assert places(lake)["8.8.8.8"] == (None,) * 6


def test_limit__of_a_day_holds_across_restarts(lake: Path, service: Service) -> None:
    said: list[str] = []
    assert look(lake, config(service, per_day=2), said) == 2
    assert look(lake, config(service, per_day=2), said) == 0
    assert len(service.asked) == 2
    assert said == ["ipinfo: 2 addresses asked today (UTC), the limit geo.per_day; on tomorrow"] * 2


def test_limit__of_a_second(lake: Path, service: Service) -> None:
    started = time.monotonic()
    look(lake, config(service, per_second=10.0))
    assert len(service.asked) == 4
    assert time.monotonic() - started >= 0.29  # three pauses of a tenth of a second, whatever the machine


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (429, b"", "answered 429 Too Many Requests"),
        (500, b"", "answered 500"),
        (401, b"", "check the token"),
        (302, b"", "answered 302"),
        (200, b"<html>", "no JSON"),
        (200, b"[1]", "no JSON object"),
        (200, b" " * (65 << 10), "larger than 64 KiB"),
        (200, b"[" * 60_000, "no JSON"),
    ],
)
def test_failure__is_one_line_and_a_pause(
    status: int, body: bytes, reason: str, lake: Path, service: Service, tmp_path: Path
) -> None:
    other = Service()
    try:
        service.status, service.body = status, body
        service.location = other.url if status == 302 else ""
        said: list[str] = []
        enricher = ipinfo.Enricher(lake, config(service), said.append)
        assert [enricher.look(threading.Event()) for _ in range(3)] == [0, 0, 0]
        assert len(service.asked) == 1  # backed off
        assert other.asked == []  # the token goes nowhere else
        assert len(said) == 1
        assert reason in said[0]
        assert TOKEN not in said[0]
        assert "\n" not in said[0]
    finally:
        other.close()


def test_failure__pauses_grow_and_end_with_an_answer(
    lake: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    enricher = ipinfo.Enricher(lake, config(service), said.append)
    service.status = 503
    pauses = []
    for _ in range(9):
        enricher._not_before = 0.0
        enricher.look(threading.Event())
        pauses.append(enricher._pause_s)
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    assert len(said) == 1
    service.status, enricher._not_before = 200, 0.0
    assert enricher.look(threading.Event()) == 4
    assert enricher._pause_s == 0


def test_nobody_there__is_one_line(lake: Path, service: Service) -> None:
    said: list[str] = []
    assert look(lake, config(service, ipinfo_url="http://127.0.0.1:1/{ip}"), said) == 0
    assert len(said) == 1
    assert "refused" in said[0].lower()


def test_answers__of_any_shape_are_taken_as_they_are() -> None:
    for answer in (
        {"loc": 5},
        {"geo": [], "as": "x"},
        {"org": 3},
        {"country": ["US"]},
        {"city": "x" * 999},
        {"loc": "a,b"},
    ):
        assert all(isinstance(v, str | int | float) and len(str(v)) <= 200 for v in ipinfo.flat(answer).values())


def test_token__from_a_file_or_the_environment_and_never_shown(
    lake: Path, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PACKETLAKE_IPINFO_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="needs a token"):
        with_token(GeoConfig(ipinfo=True))
    monkeypatch.setenv("PACKETLAKE_IPINFO_TOKEN", "other")
    assert with_token(GeoConfig(ipinfo=True)).token == "other"
    (tmp_path / "token").write_text(TOKEN + "\n")
    (tmp_path / "a.toml").write_text(
        f'[geo]\nipinfo = true\ntoken_file = "{tmp_path}/token"\nipinfo_url = "{service.url}"\nper_second = 100\n'
    )
    done = engine("geoip", "ipinfo", "--lake", lake, "--config", tmp_path / "a.toml")
    assert (done.returncode, done.stdout, done.stderr) == (0, "4 addresses answered by ipinfo\n", "")
    assert service.asked[0][1] == f"Bearer {TOKEN}"
    (tmp_path / "b.toml").write_text(f'[geo]\nipinfo = true\ntoken = "{TOKEN}"\n')
    shown = engine("config", "--config", tmp_path / "b.toml").stdout
    assert 'token = "***"' in shown
    assert all(TOKEN.encode() not in p.read_bytes() for p in lake.rglob("*") if p.is_file())
    for text in ("", "two\nlines"):
        (tmp_path / "token").write_text(text)
        with pytest.raises(ConfigError, match="does not hold one token"):
            with_token(replace(GeoConfig(ipinfo=True), token_file=str(tmp_path / "token")))


def test_command__is_refused_unless_asked_for(lake: Path) -> None:
    done = engine("geoip", "ipinfo", "--lake", lake)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "set [geo] ipinfo = true" in done.stderr


@pytest.mark.parametrize(
    "url", ["http://ipinfo.io/{ip}", "https://ipinfo.io/", "file:///{ip}", "http://127.0.0.1.evil.example/{ip}"]
)
def test_config__takes_secure_addresses_only(url: str) -> None:
    with pytest.raises(ConfigError, match=r"geo\.ipinfo_url"):
        GeoConfig(ipinfo_url=url)
