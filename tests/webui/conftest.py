"""A running dashboard over a real lake, and a browser page that fails the test on any error or outside request."""

from __future__ import annotations

import logging
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import waitress

from analytics.queries import Snapshots
from tests.lakes import Lake, write_empty_lake, write_lake
from webui import auth
from webui.app import create_app

CHROME = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
          "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
OURS = re.compile(r"(http|ws)s?://127\.0\.0\.1[:/]|data:|blob:")


class Site:
    """A dashboard served by this process, whose clock stands still at the end of the lake."""

    def __init__(self, lake: Path, now: float) -> None:
        self.lake = lake
        self.now = now
        self.snapshots = Snapshots(lake, clock=lambda: self.now, read_s=60)
        server: Any = waitress.create_server(create_app(self.snapshots).server, host="127.0.0.1", port=0, ident=None)
        self.url = f"http://127.0.0.1:{server.effective_port}"
        self.server = server
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        threading.Thread(target=server.run, daemon=True).start()

    def link(self) -> str:
        return f"{self.url}/?token={auth.issue_token(self.lake)}"


@pytest.fixture(scope="session")
def full_lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return write_lake(tmp_path_factory.mktemp("full"), 40_000, 300)


@pytest.fixture(scope="session")
def site(full_lake: Lake) -> Iterator[Site]:
    last = full_lake.stats["ts"][-1].as_py()
    site = Site(full_lake.path, last.timestamp() + 0.2 if last.tzinfo else _utc(last) + 0.2)
    yield site
    site.server.close()


@pytest.fixture
def empty_site(tmp_path: Path) -> Iterator[Site]:
    write_empty_lake(tmp_path)
    site = Site(tmp_path, 1_800_000_000.0)
    yield site
    site.server.close()


def _utc(naive: Any) -> float:
    from datetime import UTC

    return float(naive.replace(tzinfo=UTC).timestamp())


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    api.expect.set_options(timeout=60_000)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=CHROME)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """`open_page(url, **context)`; afterwards nothing may have gone wrong in it, and nothing have left this machine."""
    contexts: list[Any] = []
    bad: list[str] = []

    def open_(url: str, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": 1440, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: bad.append(f"page error: {error} {error.stack}"))
        page.on("console", lambda m: bad.append(f"console: {m.text}") if m.type == "error" else None)
        page.on("request", lambda r: None if OURS.match(r.url) else bad.append(f"outside request: {r.url}"))
        page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert bad == []
