"""axe on every page and every view of it, light and dark, without serious findings."""

from __future__ import annotations

import pytest

from tests.webui import axe
from webui.pages import all_pages

pytestmark = pytest.mark.browser

VIEWS = {
    "/hosts": ["/hosts", "/hosts?view=map", "/hosts?view=graph", "/hosts/10.20.0.99"],
    "/applications": [f"/applications/{name}" for name in ("dns", "tls", "http", "quic")],
}
ADDRESSES = [address for page in all_pages() for address in VIEWS.get(page.path, [page.path])]


@pytest.mark.parametrize("address", ADDRESSES)
def test_page__has_no_serious_findings(open_page, expect, address):
    page = open_page(f"{address}{'&' if '?' in address else '?'}range=15m", color_scheme="light")
    expect(page.locator("main[data-painted], main.page-sql, main.page-configuration")).to_be_visible()
    page.wait_for_timeout(400)  # charts
    axe.check(page)
    page.locator("#shell-theme").click()
    axe.check(page)
    page.mouse.move(0, 0)
    with page.expect_response(lambda response: "/api/v1/state" in response.url):
        page.evaluate("packetlake.url.setRange('1s')")  # next to nothing
    page.wait_for_timeout(400)
    axe.check(page)
