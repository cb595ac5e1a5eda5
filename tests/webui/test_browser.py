"""The page in a real browser: it fills, draws, flips, pauses, and says in words when there is nothing to show."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.browser


@pytest.fixture
def expect():
    return pytest.importorskip("playwright.sync_api").expect


def test_page__fills_from_the_lake(site, full_lake, open_page, expect):
    page = open_page(site.link())
    expect(page).to_have_url(site.url + "/")  # the token is gone from the address
    expect(page.locator("#kpi-packets .value")).to_have_text("40.0")
    expect(page.locator("#kpi-packets .unit")).to_have_text("k")
    expect(page.locator("#kpi-pps .value")).not_to_have_text(re.compile("^[–0]$"))
    expect(page.locator("#kpi-drops .value")).to_have_text("0.00")
    expect(page.locator("#capture-state")).to_have_text("Capturing on eth0")
    expect(page.locator("#timeline .scatterlayer .trace")).to_have_count(5)
    expect(page.locator("#timeline")).to_have_attribute("aria-label", re.compile("peak .* at "))
    expect(page.locator("#recent tbody tr")).to_have_count(60)
    expect(page.locator("#mix .mix-line")).to_have_count(5)
    newest = full_lake.packets["src_ip"][-1].as_py()
    if newest:
        expect(page.locator("#recent tbody tr").first).to_contain_text(newest)
    expect(page.locator("#countries")).to_contain_text("engine geoip install")
    assert page.evaluate("document.fonts.check('12px Inter')")
    assert page.evaluate("[...document.querySelectorAll('h1')].length") == 1


def test_tabs__change_what_is_shown_without_a_request(site, open_page, expect):
    page = open_page(site.link())
    expect(page.locator("#talkers tbody tr")).to_have_count(10)
    page.locator("#live").click()
    page.get_by_role("button", name="Ports").click()
    expect(page.locator("#talkers th").first).to_have_text("Service port")
    expect(page.locator("#talkers td").first).to_contain_text("443 tcp")
    page.get_by_role("button", name="Packets", exact=True).click()
    expect(page.locator("#mix .mix-line").first).to_contain_text("TCP")
    expect(page.locator("#mix")).not_to_contain_text("MB")


def test_theme__flips_and_is_remembered(site, open_page, expect):
    page = open_page(site.link(), color_scheme="light")
    expect(page.locator("#recent tbody tr")).to_have_count(60)
    colour = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(colour) == "rgb(245, 246, 248)"
    page.locator("#theme").click()
    assert page.evaluate(colour) == "rgb(13, 18, 25)"
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert page.evaluate(colour) == "rgb(13, 18, 25)"


def test_live__pauses_and_resumes(site, open_page, expect):
    page = open_page(site.link())
    requests: list[str] = []
    expect(page.locator("#recent tbody tr")).to_have_count(60)
    page.locator("#live").click()
    expect(page.locator("#live")).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#live")).to_have_text("Paused")
    page.wait_for_timeout(1_500)  # what was under way has come
    page.on("request", lambda r: requests.append(r.url))
    page.wait_for_timeout(3_500)
    assert requests == []
    expect(page.locator("#banner")).to_be_hidden()
    with page.expect_request("**/_dash-update-component*", timeout=60_000):
        page.locator("#live").click()
    expect(page.locator("#live")).to_have_attribute("aria-pressed", "true")


def test_range__changes_the_window(site, open_page, expect):
    page = open_page(site.link())
    expect(page.locator("#kpi-packets .note, #kpi-packets .kpi-note")).to_contain_text("pps")
    before = page.locator("#window").inner_text()
    page.get_by_role("button", name="1 hour").click()
    expect(page.locator("#window")).not_to_have_text(before)
    expect(page.get_by_role("button", name="1 hour")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#timeline .scatterlayer .trace")).to_have_count(5)


def test_stale__is_said_when_nothing_comes(site, open_page, expect):
    page = open_page(site.link())
    expect(page.locator("#recent tbody tr")).to_have_count(60)
    # Answered without content, as by a server that hangs up politely: an abort would be a console error.
    page.route("**/_dash-update-component*", lambda route: route.fulfill(status=204))
    expect(page.locator("#banner")).to_contain_text("reconnecting")
    page.unroute("**/_dash-update-component*")


def test_empty__lake_says_how_to_begin(empty_site, open_page, expect):
    page = open_page(empty_site.link())
    expect(page.locator("#timeline-empty")).to_contain_text("No packets on this lake yet")
    expect(page.locator("#timeline-empty")).to_contain_text("engine run --iface")
    expect(page.locator("#capture-state")).to_have_text("No capture yet")
    expect(page.locator("#kpi-pps .value")).to_have_text("0")


def test_old__lake_offers_its_newest_packets(site, full_lake, open_page, expect):
    now = site.now
    site.now = now + 30 * 86400
    try:
        page = open_page(site.link())
        expect(page.locator("#timeline-empty")).to_contain_text("No packets in the last 5 min")
        expect(page.locator("#capture-state")).to_have_text("Capture stopped")
        page.get_by_role("button", name="Show the newest packets").click()
        expect(page.locator("#kpi-packets .value")).to_have_text("40.0")
        expect(page.locator("#window")).to_contain_text("newest packets")
    finally:
        site.now = now


def test_hostile__text_from_packets_stays_text(site, open_page, expect, monkeypatch):
    evil = "<img src=x onerror=alert(1)><b>bold</b>"
    real = site.snapshots.snapshot

    def snapshot(range_s: int, newest: bool = False) -> dict:
        answer = dict(real(range_s, newest))
        answer["recent"] = answer["recent"] | {"info": [evil] * 60, "src": [evil] * 60}
        answer["capture"] = answer["capture"] | {"sources": [evil]}
        return answer

    monkeypatch.setattr(site.snapshots, "snapshot", snapshot)
    page = open_page(site.link())
    expect(page.locator("#recent tbody tr").first).to_contain_text(evil)
    expect(page.locator("#capture-state")).to_have_text(f"Capturing on {evil}")
    assert page.locator("#recent img, #recent b, .side img").count() == 0


def test_signed_out__page_explains_itself(site, browser, expect):
    context = browser.new_context()
    page = context.new_page()
    response = page.goto(site.url)
    assert response.status == 401
    expect(page.locator("main")).to_contain_text("engine link")
    context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast__of_text_is_at_least_4_5(site, open_page, theme):
    page = open_page(site.link(), color_scheme=theme)
    names = ["bg", "surface", "surface-2", "hover", "text", "text-2", "text-3", "accent", "critical", "medium", "ok"]
    colours = page.evaluate(
        "names => names.map(n => getComputedStyle(document.documentElement).getPropertyValue('--' + n).trim())", names
    )
    light = {name: _luminance(value) for name, value in zip(names, colours, strict=True)}
    for text in names[4:]:
        for ground in ("bg", "surface", "hover"):
            high, low = max(light[text], light[ground]), min(light[text], light[ground])
            assert (high + 0.05) / (low + 0.05) >= 4.5, (theme, text, ground)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
