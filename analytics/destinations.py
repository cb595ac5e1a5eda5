"""Where traffic goes: destinations of a window summed by country, with the GeoIP database the lake's settings name."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from analytics.geo import Locator
from analytics.geoip import read_settings

COUNTRIES: Final = 12
CITIES: Final = 16
ADDRESSES: Final = 2_000  # located at each snapshot, the heaviest first: the others count as unlocated


def by_country(locator: Locator, lake: Path, rows: list[tuple[str, int, int]], all_bytes: int) -> dict[str, Any]:
    """Countries by bytes for destinations given as (address, packets, bytes).

    `located`, `private` (no public address) and `unlocated` are bytes and add up to `all_bytes`.
    """
    settings = read_settings(lake)
    found = locator.locate(pa.array([row[0] for row in rows], pa.string()))
    scopes, names, codes, *place = (
        found.field(name).to_pylist() for name in ("scope", "country_name", "iso3", "city", "latitude", "longitude")
    )
    cities = _cities(rows, *place)
    packets: defaultdict[tuple[str, str], int] = defaultdict(int)
    sizes: defaultdict[tuple[str, str], int] = defaultdict(int)
    private = 0
    for (_, count, size), scope, name, code in zip(rows, scopes, names, codes, strict=True):
        if name is not None:
            packets[code or "", name] += count
            sizes[code or "", name] += size
        elif scope != "public":
            private += size
    best = sorted(sizes, key=lambda country: (-sizes[country], country))
    located = sum(sizes.values())
    return {
        "database": bool(settings.database),
        "attribution": settings.attribution,
        "link": settings.link,
        "iso3": [code for code, _ in best[:COUNTRIES]],
        "name": [name for _, name in best[:COUNTRIES]],
        "packets": [packets[country] for country in best[:COUNTRIES]],
        "bytes": [sizes[country] for country in best[:COUNTRIES]],
        "countries": len(best),
        "cities": cities,
        "located": located,
        "private": private,
        "unlocated": max(0, all_bytes - located - private),
    }


def _cities(rows: list[tuple[str, int, int]], *place: list[Any]) -> dict[str, list[Any]]:
    """Places by bytes. A database of countries has none."""
    sizes: defaultdict[tuple[str, float, float], int] = defaultdict(int)
    for (_, _, size), city, latitude, longitude in zip(rows, *place, strict=True):
        if latitude is not None and longitude is not None:
            sizes[city or "", round(latitude, 1), round(longitude, 1)] += size
    best = sorted(sizes, key=lambda at: (-sizes[at], at))[:CITIES]
    columns = list(zip(*best, strict=True)) or [(), (), ()]
    return {"name": [*columns[0]], "lat": [*columns[1]], "lon": [*columns[2]], "bytes": [sizes[at] for at in best]}
