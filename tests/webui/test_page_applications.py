"""The page about applications in a real browser."""

from __future__ import annotations

import pytest

import analytics
from tests.webui import axe
from tests.webui.traffic import EVIL

pytestmark = pytest.mark.browser
READY = "[data-painted=true]"


@pytest.fixture(scope="module")
def con(recorded):
    with analytics.connect(recorded.lake, threads=1) as con:
        yield con


@pytest.fixture
def shown(open_page, expect):
    """A view, painted."""

    def open_(path, **options):
        page = open_page(path, **options)
        expect(page.locator(READY)).to_have_count(1)
        return page

    return open_


def parameter(page, name):
    return page.evaluate("name => new URLSearchParams(location.search).get(name)", name)


def one(con, sql):
    return con.execute(sql).fetchall()[0][0]


def test_dns__counts_are_the_lakes_and_values_filter(shown, con, expect):
    page = shown("/applications?range=5m")
    expect(page.locator("#applications-kpi-count .value")).to_have_text(str(one(con, "SELECT count(*) FROM dns")))
    errors = one(con, "SELECT count(*) FROM dns WHERE rcode <> 'NOERROR'")
    expect(page.locator("#applications-kpi-errors .value")).to_have_text(str(errors))
    expect(page.locator("#applications-timeline .scatterlayer .trace")).not_to_have_count(0)
    expect(page.locator("#applications-latency .scatterlayer .trace")).to_have_count(3)
    expect(page.locator("#applications-list-0 tbody tr").first).to_contain_text("www.example.org")
    code = page.locator("#applications-list-1 .value").filter(has_text="NXDOMAIN")
    code.click()
    expect(page.locator(".chip")).to_have_text("rcode=NXDOMAIN×")
    missing = one(con, "SELECT count(*) FROM dns WHERE rcode = 'NXDOMAIN'")
    expect(page.locator("#applications-kpi-count .value")).to_have_text(str(missing))
    expect(page.locator("#applications-list-1 tbody tr")).to_have_count(1)
    code.click(modifiers=["Alt"])
    rest = one(con, "SELECT count(*) FROM dns WHERE rcode IS DISTINCT FROM 'NXDOMAIN'")
    expect(page.locator("#applications-kpi-count .value")).to_have_text(str(rest))
    page.locator(".chip").click()
    page.get_by_role("button", name="Types").click()
    expect(page.locator("#applications-list-1 thead")).to_contain_text("Record type")
    page.get_by_role("button", name="Export or explain Answers").click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="Export CSV").click()
    assert download.value.path().read_text().startswith("qtype,count\n")
    axe.check(page)


def test_dns__brush_sets_the_range(shown, expect):
    page = shown("/applications/dns?range=5m")
    box = page.locator("#applications-timeline .nsewdrag").first.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.3, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, y, steps=4)
    page.mouse.up()
    expect(page.locator("#shell-live")).to_have_attribute("aria-pressed", "false")
    start, end = map(int, parameter(page, "range").split(","))
    assert 80e6 < end - start < 100e6


def test_http__hostile_texts_are_text_and_a_row_tells_all(shown, con, expect):
    page = shown("/applications/http?range=5m&filter=code%3D404", user="vera")
    missing = one(con, "SELECT count(*) FROM http WHERE status = 404")
    expect(page.locator("#applications-kpi-count .value")).to_have_text(str(missing))
    row = page.locator("#applications-rows tbody tr").filter(has_text=EVIL)
    expect(row).to_have_count(1)
    row.focus()
    page.keyboard.press("Enter")
    drawer = page.locator(".drawer")
    expect(drawer.locator("h2")).to_have_text(f"HTTP {EVIL}")
    expect(drawer.locator(".value[data-field=agent]")).to_have_text(EVIL)
    expect(drawer.get_by_role("button", name="Export pcap")).to_have_count(0)
    expect(page.locator("main img, .drawer img")).to_have_count(0)
    axe.check(page)
    drawer.locator(".value[data-field=agent]").click()
    expect(page.locator(".chip")).to_have_count(2)
    expect(page.locator("#applications-kpi-count .value")).to_have_text("1")
    expect(page.locator("#applications-list-0")).to_contain_text(EVIL)
    page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)


def test_tls__certificates_and_fingerprints(shown, con, expect):
    if not one(con, "SELECT count(*) FROM tls"):
        pytest.skip("no TLS in this lake: the captures beside the project are missing")
    page = shown("/applications/tls?range=5m")
    doubtful = one(con, "SELECT count(DISTINCT cert_sha256) FROM tls WHERE cert_self_signed OR cert_not_after < ts")
    expect(page.locator("#applications-kpi-certificates .value")).to_have_text(str(doubtful))
    expect(page.locator("#applications-certificates tbody tr").first.locator(".severity")).not_to_have_count(0)
    page.get_by_role("button", name="JA3", exact=True).click()
    value = page.locator("#applications-list-1 .value").first
    ja3, count = value.inner_text(), one(con, "SELECT count(*) FROM tls GROUP BY ja3 ORDER BY 1 DESC LIMIT 1")
    value.click()
    expect(page.locator(".chip")).to_have_text(f"ja3={ja3}×")
    expect(page.locator("#applications-kpi-count .value")).to_have_text(str(count))
    page.locator("#shell-theme").click()
    axe.check(page)


def test_views__keep_range_and_filter_and_have_their_own_address(shown, expect):
    page = shown("/applications?range=1h&filter=proto%3Dudp")
    page.get_by_role("button", name="QUIC").click()
    expect(page.get_by_role("button", name="QUIC")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#applications-kpi-early_data")).to_be_visible()
    assert page.evaluate("location.pathname") == "/applications/quic"
    assert (parameter(page, "range"), parameter(page, "filter")) == ("1h", "proto=udp")
    assert page.title() == "QUIC · PacketLake"
    page.go_back()
    expect(page.locator("#applications-kpi-answered")).to_be_visible()


def test_views__empty_ones_say_so(shown, expect):
    page = shown("/applications/tls?range=5m&filter=host%3D10.20.0.10")
    expect(page.locator("#applications-rows .empty")).to_contain_text("No TLS in this range")
    page.get_by_role("button", name="Clear filter").click()
    expect(page.locator(".chip")).to_have_count(0)
