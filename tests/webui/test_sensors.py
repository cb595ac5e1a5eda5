"""The list of sensors above every page, for a lake that several write."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.webui import axe, traffic
from tests.webui.conftest import Site, add_people

pytestmark = pytest.mark.browser
LIST = "#shell-sensor select"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    place = tmp_path_factory.mktemp("two")
    traffic.record(place, traffic.REAL[::2], sensor="berlin")
    recorded = traffic.record(place, traffic.REAL[1::2], sensor="paris")
    add_people(recorded.lake)
    site = Site(recorded.lake, recorded.now)
    yield site
    site.close()


def test_sensor__one_needs_no_list(open_page, expect):
    page = open_page("/?range=15m")
    expect(page.locator("main[data-painted]")).to_be_visible()
    expect(page.locator("#shell-sensor")).to_be_hidden()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_sensor__is_chosen_once_for_every_page(two, open_page, expect, theme):
    page = open_page("/?range=15m&filter=proto%3Dtcp%2Cudp", at=two, color_scheme=theme)
    expect(page.locator(f"{LIST} option")).to_have_text(["All sensors", "berlin", "paris"])
    page.get_by_label("Sensor", exact=True).select_option("paris")
    expect(page).to_have_url(re.compile(r"filter=sensor%3Dparis\+proto%3D"))
    expect(page.locator("#shell-filter .chip")).to_have_count(2)
    seen = two.watch.answer("overview", range_text="15m", filter_text="sensor=paris proto=tcp,udp")
    assert (
        seen["kpi"]["packets"]
        < two.watch.answer("overview", range_text="15m", filter_text="proto=tcp,udp")["kpi"]["packets"]
    )
    for name in ("packets", "flows", "hosts", "applications", "alerts", "anomalies", "health", "overview"):
        with page.expect_request(re.compile(r"/api/v1/state\?filter=sensor%3Dparis$")):
            page.locator(f"[data-nav={name}]").click()
        expect(page.locator(f"main.page-{name}[data-painted]")).to_be_visible()
        expect(page.locator(LIST)).to_have_value("paris")
        axe.check(page)
    page.locator("[data-nav=health]").click()
    expect(page.locator("#health-sources tbody tr")).to_have_count(1)
    page.locator(LIST).select_option("")
    expect(page).not_to_have_url(re.compile("sensor"))
    expect(page.locator("#health-sources tbody tr")).to_have_count(2)
    page.go_back()
    expect(page.locator(LIST)).to_have_value("paris")


def test_sensor__a_link_to_something_else_is_about_the_same_one(two, open_page, expect):
    page = open_page("/hosts/10.20.0.99?range=15m&filter=sensor%3Dberlin", at=two)
    expect(page.locator("main[data-painted]")).to_be_visible()
    page.evaluate("packetlake.url.go('/flows', { filter: 'host=10.20.0.99' })")
    expect(page).to_have_url(re.compile(r"/flows\?.*filter=sensor%3Dberlin\+host%3D10\.20\.0\.99"))
    page.evaluate("packetlake.url.go('/flows', { filter: 'sensor=paris' })")
    expect(page.locator(LIST)).to_have_value("paris")
    page.evaluate("packetlake.url.setTerms(['-sensor=paris'])")
    expect(page.locator(f"{LIST} option:checked")).to_have_text("As filtered")
