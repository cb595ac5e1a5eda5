"""A running dashboard over a real lake, people who may look at it, and a browser page that fails the test on any error,
policy violation or outside request."""

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

from analytics.watch.watch import Watch
from tests.webui import attacks
from tests.webui.traffic import Recorded, record
from webui import auth, users
from webui.api import SQL_RUNNER
from webui.app import create_app
from webui.security import Access

CHROME = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
          "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
OURS = re.compile(r"(http|ws)s?://(127\.0\.0\.1|localhost)[:/]|data:|blob:")
PASSWORD = "correct horse battery"
PEOPLE = {"vera": "viewer", "otto": "operator", "ada": "admin"}
# argon2 takes a tenth of a second each time, so the people are made once and copied into each lake.
_made: dict[str, bytes] = {}


def add_people(lake: Path) -> None:
    """vera (viewer), otto (operator), ada (admin), all with PASSWORD."""
    path = auth.directory(lake, "") / "users.json"
    if not _made:
        for name, role in PEOPLE.items():
            users.add(lake, name, PASSWORD, role)
        _made["users"] = path.read_bytes()
    path.write_bytes(_made["users"])
    path.chmod(0o600)


class Site:
    """A dashboard served by this process. Its clock stands still at `now`."""

    def __init__(self, lake: Path, now: float, login: bool = True) -> None:
        self.lake = lake
        self.now = now
        self.watch = Watch(lake, clock=lambda: self.now)
        self.app = create_app(self.watch, Access(lake, login=login)).server
        server: Any = waitress.create_server(self.app, host="127.0.0.1", port=0, ident=None, threads=8)
        self.url = f"http://127.0.0.1:{server.effective_port}"
        self.server = server
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        threading.Thread(target=server.run, daemon=True).start()

    def cookie(self, name: str = "ada") -> dict[str, Any]:
        """For a browser that is signed in as that person."""
        return {"name": "packetlake_session", "value": auth.start_session(self.lake, name), "url": self.url,
                "httpOnly": True, "sameSite": "Strict"}  # fmt: skip

    def close(self) -> None:
        self.server.close()
        self.app.config[SQL_RUNNER].close()
        self.watch.close()


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return record(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="session")
def site(recorded: Recorded) -> Iterator[Site]:
    add_people(recorded.lake)
    site = Site(recorded.lake, recorded.now)
    yield site
    site.close()


@pytest.fixture(scope="session")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Another one, over labelled attacks. Its clock is what a test sets it to."""
    recorded = attacks.record(tmp_path_factory.mktemp("attacked"))
    add_people(recorded.lake)
    site = Site(recorded.lake, recorded.now)
    yield site
    site.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    api.expect.set_options(timeout=30_000)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=CHROME)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def expect() -> Any:
    return pytest.importorskip("playwright.sync_api").expect


@pytest.fixture
def open_page(browser: Any, site: Site) -> Iterator[Callable[..., Any]]:
    """`open_page("/hosts?range=5m", user="vera", at=other_site, **context)`; user=None is nobody.

    Afterwards nothing may have gone wrong in it, and nothing have left this machine.
    """
    contexts: list[Any] = []
    bad: list[str] = []

    def open_(path: str, user: str | None = "ada", at: Site | None = None, **options: Any) -> Any:
        where = at or site
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        contexts.append(context)
        if user is not None:
            context.add_cookies([where.cookie(user)])
        page = context.new_page()
        page.on("pageerror", lambda error: bad.append(f"page error: {error} {error.stack}"))
        page.on("console", lambda m: bad.append(f"console: {m.text}") if m.type == "error" else None)
        page.on("request", lambda r: None if OURS.match(r.url) else bad.append(f"outside request: {r.url}"))
        page.goto(where.url + path)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert bad == []
