"""Pictures of pages for the documentation, from a real browser over the recorded lake.

python -m tests.webui.screenshots overview health        four each, into docs/screens/
python -m tests.webui.screenshots hosts --path "/hosts/10.20.0.10?range=5m" --name host
... --lake DIR    a lake that is kept there and used again, else a new one     --out DIR
... --click SELECTOR    before the picture (may be repeated)     --sizes 1440     --themes dark
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tests.analytics.small_lake import write_mmdb
from tests.commands import ROOT
from tests.webui.conftest import CHROME, Site, add_people
from tests.webui.counters import last_second, write_counters
from tests.webui.traffic import CAPTURES, record

SIZES = {"1440": (1440, 900), "1024": (1024, 768)}
THEMES = ("light", "dark")
SETTLE_MS = 1500  # fonts, the map, figures after their library has loaded
# Where the recorded public addresses are: a database for the pictures, enough to colour the map.
PLACES = {
    "93.184.216.0/24": ("US", "Los Angeles", 34.05, -118.24), "203.0.113.0/24": ("AU", "Sydney", -33.87, 151.21),
    "157.240.0.0/16": ("IE", "Dublin", 53.35, -6.26), "216.58.0.0/16": ("US", "Mountain View", 37.39, -122.08),
    "172.217.0.0/16": ("DE", "Frankfurt am Main", 50.11, 8.68), "217.0.0.0/9": ("DE", "Berlin", 52.52, 13.4),
    "2001:4860::/32": ("US", "Mountain View", 37.39, -122.08), "2001:200::/32": ("JP", "Tokyo", 35.68, 139.69),
    "2001:470::/32": ("CH", "Zurich", 47.37, 8.54),
}  # fmt: skip


def dress(lake: Path, now: float, geoip_file: Path | None) -> dict[str, int]:
    """People, a GeoIP database, and the counters of a capture. Returns its losses by cause."""
    from analytics import geoip

    add_people(lake)
    records = {
        net: {
            "country": {"iso_code": code},
            "city": {"names": {"en": city}},
            "location": {"latitude": lat, "longitude": lon},
        }
        for net, (code, city, lat, lon) in PLACES.items()
    }
    if geoip_file is None:
        geoip.use(lake, write_mmdb(lake / "places.mmdb", records))
    else:
        geoip.use(lake, geoip_file, attribution=geoip.DBIP_ATTRIBUTION, link=geoip.DBIP_LINK)
    return write_counters(lake, now)


def busy() -> list[str]:
    """Real captures of Ethernet frames, enough for a picture of a network in use."""
    names = sorted(p.name for p in CAPTURES.glob("*.pcap*") if 2_000 < p.stat().st_size < 400_000)
    return [name for name in names if "fuzz" not in name]


def make_lake(directory: Path, geoip_file: Path | None) -> tuple[Path, float]:
    """The recorded lake in the directory, made if it is not there, and its moment."""
    told = directory / "recorded.json"
    if not told.exists():
        directory.mkdir(parents=True, exist_ok=True)
        recorded = record(directory, busy(), 400, drawn_out=True)
        now = last_second(recorded.lake) + 3.0  # as a viewer of the running capture saw it
        dress(recorded.lake, now, geoip_file)
        told.write_text(json.dumps(now))
    return directory / "lake", float(json.loads(told.read_text()))


def smaller(png: bytes) -> bytes:
    """The same picture with 256 colours: the most frequent, and those that are farthest from all others."""
    pixels = _pixels(png)
    height, width = pixels.shape[:2]
    packed = (pixels[..., 0].astype(np.uint32) << 16) | (pixels[..., 1].astype(np.uint32) << 8) | pixels[..., 2]
    colours, inverse, counts = np.unique(packed.ravel(), return_inverse=True, return_counts=True)
    rgb = np.stack([(colours >> s) & 255 for s in (16, 8, 0)], 1).astype(np.int32)
    palette = rgb[np.argsort(counts)[::-1][:144]]
    away = np.full(len(rgb), 1 << 30)
    for i in range(min(256, len(rgb))):
        if i == len(palette):
            palette = np.vstack([palette, rgb[(away * np.sqrt(counts)).argmax()]])
        away = np.minimum(away, ((rgb - palette[i]) ** 2).sum(1))
    nearest = np.empty(len(rgb), np.uint8)
    for at in range(0, len(rgb), 2048):
        nearest[at : at + 2048] = ((rgb[at : at + 2048, None] - palette[None]) ** 2).sum(2).argmin(1)
    rows = np.zeros((height, width + 1), np.uint8)  # each begins with its filter: none
    rows[:, 1:] = nearest[inverse.ravel()].reshape(height, width)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = [
        (b"IHDR", header),
        (b"PLTE", palette.astype(np.uint8).tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in [*parts, (b"IEND", b"")])


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _pixels(png: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Red, green and blue of a picture as browsers write it: 8 bits, with or without alpha."""
    at, data = 8, b""
    while at < len(png):
        size, kind = struct.unpack_from(">I4s", png, at)
        body = png[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            width, height, _, colour = struct.unpack_from(">IIBB", body)
        if kind == b"IDAT":
            data += body
        at += 12 + size
    each = {2: 3, 6: 4}[colour]
    lines = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, 1 + width * each)
    out = np.zeros((height + 1, width * each + each), np.uint8)  # a pixel of zeros before and a line above
    for y, line in enumerate(lines):
        out[y + 1, each:] = _unfiltered(int(line[0]), line[1:], out[y, each:], each)
    return out[1:, each:].reshape(height, width, each)[..., :3]


def _unfiltered(kind: int, line: Any, above: Any, each: int) -> Any:
    if kind == 0:
        return line
    if kind == 2:
        return line + above
    if kind == 1:
        return np.cumsum(line.reshape(-1, each), axis=0, dtype=np.uint8).ravel()
    done = bytearray(each) + bytearray(line.tobytes())
    up = bytes(each) + above.tobytes()
    for i in range(each, len(done)):
        a, b, c = done[i - each], up[i], up[i - each]
        if kind == 3:
            near = (a + b) // 2
        else:
            p = a + b - c
            pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
            near = a if pa <= pb and pa <= pc else b if pb <= pc else c
        done[i] = (done[i] + near) & 255
    return np.frombuffer(bytes(done[each:]), np.uint8)


def shoot(site: Site, name: str, path: str, out: Path, given: argparse.Namespace) -> None:
    """All sizes and themes of one page."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=CHROME)
        for size in given.sizes:
            width, height = SIZES[size]
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=given.themes[0])
            context.add_cookies([site.cookie("ada")])
            page = context.new_page()
            page.on("console", lambda m: print(f"console: {m.text}", file=sys.stderr) if m.type == "error" else None)
            page.on("pageerror", lambda error: print(f"page error: {error}", file=sys.stderr))
            page.goto(site.url + path)
            page.locator("[data-painted=true]").wait_for(timeout=60_000)
            for selector in given.click:
                page.locator(selector).first.click()
            for theme in given.themes:
                if page.evaluate("document.documentElement.dataset.theme") != theme:
                    page.locator("#shell-theme").click()
                    page.mouse.move(0, 0)
                page.wait_for_timeout(SETTLE_MS)
                picture = smaller(page.screenshot())
                (out / f"{name}-{theme}-{size}.png").write_bytes(picture)
                print(f"{name}-{theme}-{size}.png: {len(picture) // 1000} kB")
            context.close()
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+")
    parser.add_argument("--path", help="the address, of one page")
    parser.add_argument("--name", help="of the files, of one page")
    parser.add_argument("--lake", type=Path)
    parser.add_argument("--geoip", type=Path, help="a database for the map, when the lake is made; DB-IP's is assumed")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "screens")
    parser.add_argument("--click", action="append", default=[])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--themes", nargs="+", choices=THEMES, default=list(THEMES))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as kept:
        lake, now = make_lake(given.lake or Path(kept), given.geoip)
        site = Site(lake, now)
        for name in given.pages:
            path = given.path or ("/?range=5m" if name == "overview" else f"/{name}?range=5m")
            shoot(site, given.name or name, path, given.out, given)
        site.close()


if __name__ == "__main__":
    main()
