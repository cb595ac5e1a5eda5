"""Asking ipinfo.io about public addresses that the GeoIP database does not know. Only when the operator says so.

    python -m analytics.ipinfo --lake DIR --with-parent PID      [geo] and the token as JSON on standard input
    engine geoip ipinfo [--lake DIR] --config FILE               the same once, in the foreground

A process of its own, never the capture's, and never within a query: answers go into the lake's cache, which the view
`geo` reads (`analytics.ipinfo_cache`). Addresses leave this machine, which is why it is off by default.
API: https://ipinfo.io/developers (Lite, Core and the older form of answers).
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import duckdb

from analytics import ipinfo_cache as cached
from analytics.readonly import one_line
from analytics.store import connect
from analytics.system import stop_with_parent
from engine.companion_config import GeoConfig
from engine.errors import EngineError, StoreError
from engine.log import report

TIMEOUT_S: Final = 10.0
MAX_ANSWER: Final = 64 << 10
LOOK_S: Final = 30.0  # between looks for new addresses
FIRST_PAUSE_S: Final = 60.0  # after a failure, then twice as long each time
LAST_PAUSE_S: Final = 3_600.0
_AT_ONCE: Final = 1_000  # addresses of a look
_SAVE_S: Final = 10.0
_TEXT: Final = 200
_UNKNOWN: Final = """
SELECT ip FROM geo JOIN (SELECT ip, max(first_seen) AS seen FROM addresses GROUP BY ip) USING (ip)
WHERE scope = 'public' AND geo_source IS NULL ORDER BY seen DESC LIMIT ?
"""


class Unavailable(Exception):  # noqa: N818 — a state of the service, not a fault here
    """It does not answer now. `final`: nor will it without a change of the configuration."""

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the token elsewhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPEN: Final = urllib.request.build_opener(_NoRedirect)


def ask(config: GeoConfig, ip: str) -> dict[str, Any]:
    """What the service says, in the cache's words; empty when it knows nothing. Raises Unavailable."""
    headers = {"Accept": "application/json", "User-Agent": "packetlake"}
    if config.token:
        headers["Authorization"] = f"Bearer {config.token}"
    request = urllib.request.Request(config.ipinfo_url.replace("{ip}", quote(ip, safe=":")), headers=headers)  # noqa: S310
    try:
        with _OPEN.open(request, timeout=TIMEOUT_S) as answer:
            body = answer.read(MAX_ANSWER + 1)
    except urllib.error.HTTPError as error:
        with error:
            if error.code in (400, 404):  # of this address
                return {}
            refused = error.code in (401, 403)
            advice = "; check the token" if refused else ""
            raise Unavailable(f"answered {error.code} {error.reason}{advice}", refused) from None
    except (OSError, ValueError, urllib.error.URLError) as error:  # also what http.client raises
        raise Unavailable(str(getattr(error, "reason", error)) or type(error).__name__) from None
    except Exception as error:  # noqa: BLE001 — HTTPException and whatever a broken server provokes
        raise Unavailable(f"{type(error).__name__} {error}".strip()) from None
    if len(body) > MAX_ANSWER:
        raise Unavailable(f"its answer is larger than {MAX_ANSWER >> 10} KiB")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise Unavailable("its answer is no JSON") from None
    if not isinstance(document, dict):
        raise Unavailable("its answer is no JSON object")
    return flat(document)


def flat(answer: dict[str, Any]) -> dict[str, Any]:
    """Any of its forms of answers as one: country_code, city, latitude, longitude, asn, as_name."""
    geo, network = (v if isinstance(v, dict) else {} for v in (answer.get("geo"), answer.get("as")))
    country = answer.get("country_code") or geo.get("country_code") or answer.get("country")
    place = str(answer.get("loc") or "").split(",")
    asn, name = network.get("asn") or answer.get("asn"), network.get("name") or answer.get("as_name")
    org = str(answer.get("org") or "")
    if not asn and org.startswith("AS"):
        asn, _, name = org.partition(" ")
    latitude, longitude = geo.get("latitude"), geo.get("longitude")
    if len(place) == 2:
        latitude, longitude = place
    found = {
        "country_code": country, "city": answer.get("city") or geo.get("city"), "latitude": latitude,
        "longitude": longitude, "asn": asn, "as_name": name,
    }  # fmt: skip
    return {
        k: v[:_TEXT] if isinstance(v, str) else v for k, v in found.items() if v and isinstance(v, str | int | float)
    }


class Enricher:
    """Looks for addresses to ask about, and asks within the limits. For one thread."""

    def __init__(self, lake: Path, config: GeoConfig, say: Callable[[str], None]) -> None:
        self._lake = lake
        self._config = config
        self._say = say
        self._cache = cached.load(lake)
        self._pause_s = 0.0
        self._not_before = float("-inf")
        self._said_limit = ""

    def look(self, ending: threading.Event) -> int:
        """Ask about what is new, newest first. Returns how many answers came. Raises StoreError."""
        if time.monotonic() < self._not_before:
            return 0
        if self._cache.forget(time.time()):
            cached.save(self._lake, self._cache)  # so that the view lacks them too
        answers, saved = 0, time.monotonic()
        for ip in self._unknown():
            if ip in self._cache.addresses or not self._may_ask():
                continue
            started = time.monotonic()
            self._cache.asked += 1
            try:
                self._cache.add(ip, ask(self._config, ip), time.time())
            except Unavailable as error:
                self._back_off(error)
                break
            self._pause_s = 0.0
            answers += 1
            if time.monotonic() - saved > _SAVE_S:
                cached.save(self._lake, self._cache)
                saved = time.monotonic()
            if ending.wait(max(0.0, 1 / self._config.per_second - (time.monotonic() - started))):
                break
        if answers:
            cached.save(self._lake, self._cache)
        return answers

    def _unknown(self) -> list[str]:
        with connect(self._lake, threads=1, memory_limit="512MB") as con:
            try:
                return [ip for (ip,) in con.execute(_UNKNOWN, [_AT_ONCE]).fetchall()]
            except duckdb.Error as error:
                raise StoreError(f"addresses of lake {self._lake} cannot be read: {one_line(error)}") from None

    def _may_ask(self) -> bool:
        today = f"{datetime.now(UTC):%Y-%m-%d}"
        if self._cache.day != today:
            self._cache.day, self._cache.asked = today, 0
        if self._cache.asked < self._config.per_day:
            return True
        if self._said_limit != today:
            self._said_limit = today
            self._say(
                f"ipinfo: {self._config.per_day:,} addresses asked today (UTC), the limit geo.per_day; on tomorrow"
            )
        return False

    def _back_off(self, error: Unavailable) -> None:
        first = self._pause_s == 0
        self._pause_s = LAST_PAUSE_S if error.final else min(LAST_PAUSE_S, max(FIRST_PAUSE_S, 2 * self._pause_s))
        self._not_before = time.monotonic() + self._pause_s
        if first:
            host = self._config.ipinfo_url.split("/")[2]
            self._say(f"ipinfo: {host}: {error}; tried again in {self._pause_s:.0f} s, addresses keep what is known")


def main(arguments: list[str] | None = None) -> int:
    """Ask for as long as the parent lives."""
    parser = argparse.ArgumentParser(prog="python -m analytics.ipinfo", description="Ask ipinfo.io about addresses.")
    parser.add_argument("--lake", type=Path, required=True)
    parser.add_argument("--with-parent", type=int, required=True, metavar="PID", help="stop when this process ends")
    options = parser.parse_args(arguments)
    config = GeoConfig(**json.loads(sys.stdin.buffer.read()))
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    stop_with_parent(options.with_parent)
    enricher, said = Enricher(options.lake, config, partial(report, "warning")), ""
    while True:
        try:
            enricher.look(ending)
            said = ""
        except EngineError as error:
            if str(error) != said:
                said = str(error)
                report("error", said)
        if ending.wait(LOOK_S):
            return 0


if __name__ == "__main__":
    sys.exit(main())
