"""The dashboard in a real Chromium: how much comes over the wire at first, and how long a person waits.

    python -m benchmarks.watch_browser URL          prints one line of JSON; needs playwright and a Chromium

Times are those of the page's own clock, from the event to the frame after the change is drawn. They include the
browser's work, which shares the machine with everything else. `benchmarks.watch --browser` runs this beside a capture.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from typing import Any

TIMES = 5
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
          "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
# From the next `event` on, in milliseconds, until what `done` names has changed, and the two frames after it.
_TIMED = """([selector, event, done]) => {
    const box = () => document.querySelector(selector);
    const span = () => String((box().closest("[data-graph]") || box()).packetlakeSpan);
    const until = {
        span: (before) => span() !== before.span,
        layers: (before) => box().textContent !== before.text && box().querySelector("summary"),
    }[done];
    delete window.took;
    window.addEventListener(event, () => {
        const began = performance.now(), before = { span: span(), text: box().textContent };
        const look = () => until(before)
            ? requestAnimationFrame(() => requestAnimationFrame(() => { window.took = performance.now() - began; }))
            : requestAnimationFrame(look);
        requestAnimationFrame(look);
    }, { once: true, capture: true });
}"""


def _measured(page: Any) -> float:
    """What `_TIMED` measured. Raises RuntimeError when that takes ten seconds."""
    for _ in range(400):
        took = page.evaluate("() => window.took")
        if took is not None:
            return float(took)
        page.wait_for_timeout(25)
    raise RuntimeError(f"nothing was redrawn within ten seconds at {page.url}")


def first_load(browser: Any, url: str) -> int:
    """Bytes over the wire until the overview is painted, with an empty cache."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    sizes: list[float] = []
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    page.goto(f"{url}/?range=5m")
    page.wait_for_selector("[data-painted=true]", timeout=60_000)
    page.wait_for_timeout(2000)
    context.close()
    return int(sum(sizes))


def brush(browser: Any, url: str, path: str, chart: str) -> list[float]:
    """From letting go of a drag over the chart to its redrawing, milliseconds; each drag is another one."""
    found: list[float] = []
    for i in range(TIMES):
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        page = context.new_page()
        page.goto(url + path)
        page.wait_for_selector(f"{chart} .nsewdrag", state="attached", timeout=60_000)
        page.wait_for_timeout(1500)
        area = page.locator(f"{chart} .nsewdrag").first.bounding_box()
        y = area["y"] + area["height"] / 2
        page.mouse.move(area["x"] + area["width"] * (0.2 + 0.03 * i), y)
        page.mouse.down()
        page.mouse.move(area["x"] + area["width"] * (0.6 + 0.03 * i), y, steps=4)
        page.evaluate(_TIMED, [chart, "pointerup", "span"])
        page.mouse.up()
        found.append(_measured(page))
        context.close()
    return found


def inspect(browser: Any, url: str) -> list[float]:
    """From the click on a packet to its layers, milliseconds."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto(f"{url}/packets?range=5m")
    page.wait_for_selector("#packets-grid .grid-row [data-field]", timeout=60_000)
    found: list[float] = []
    for i in range(TIMES + 1):
        row = page.locator("#packets-grid .grid-row").nth(2 + i)
        page.evaluate(_TIMED, ["#packets-layers", "click", "layers"])
        row.locator("> span").first.click()
        found.append(_measured(page))
        page.wait_for_timeout(400)
    context.close()
    return found[1:]


def main() -> int:
    url = sys.argv[1].rstrip("/")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        print("watch_browser: no playwright or no Chromium on this machine", file=sys.stderr)
        return 2
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=_FLAGS)
        size = first_load(browser, url)
        ms = {
            "brush": brush(browser, url, "/?range=1h", "#overview-timeline"),
            "brush_packets": brush(browser, url, "/packets?range=1h", "#packets-timeline"),
            "inspect": inspect(browser, url),
        }
        browser.close()
    told = {f"{name}_ms": round(statistics.median(values)) for name, values in ms.items()}
    print(json.dumps({"first_load_bytes": size, **told, "all_ms": {n: [round(v) for v in vs] for n, vs in ms.items()}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
