"""The Overview in a browser, over real captures whose counters, places and losses are known."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime

import pytest

from tests.lakes import packets_table, write_segment
from tests.webui import axe
from tests.webui.conftest import Site
from tests.webui.counters import last_second
from tests.webui.screenshots import dress

pytestmark = pytest.mark.browser
READY = "[data-painted=true]"


@pytest.fixture(scope="module")
def counted(recorded, tmp_path_factory):
    """The recorded lake as a running capture shows it: two interfaces, losses, and a GeoIP database."""
    lake = tmp_path_factory.mktemp("counted") / "lake"
    shutil.copytree(recorded.lake, lake)
    now = last_second(lake) + 3.0
    site = Site(lake, now)
    site.lost = dress(lake, now, None)
    yield site
    site.close()


@pytest.fixture
def overview(open_page, counted, expect):
    def open_(path="/?range=5m", **options):
        page = open_page(path, **{"at": counted, **options})
        expect(page.locator(READY)).to_have_count(1)
        return page

    return open_


def parameter(page, name):
    return page.evaluate("name => new URLSearchParams(location.search).get(name)", name)


def overflowing(page):
    """Card heads and rows of figures that do not fit, and whether the page scrolls sideways."""
    return page.evaluate("""() => [...document.querySelectorAll('main, .card-head, .kpi-value, .top')]
      .filter((n) => n.scrollWidth > n.clientWidth + 1).map((n) => n.className + ': ' + n.textContent.slice(0, 60))""")


def test_figures__are_those_of_the_lake(recorded, counted, overview, expect):
    page = overview("/?range=15m")
    answer = counted.watch.answer("overview", range_text="15m")
    assert answer["kpi"]["packets"] == recorded.packets
    expect(page.locator("#overview-packets")).to_contain_text(f"{recorded.packets / 1000:.2f}k")
    lost, seen = sum(counted.lost.values()), answer["kpi"]["drops"]["seen"]
    expect(page.locator("#overview-drops")).to_contain_text(f"{100 * lost / seen:.2f}".rstrip("0"))
    expect(page.locator("#overview-drops")).to_contain_text(f"{lost} of")
    expect(page.locator("#overview-legend")).to_contain_text("Loss")
    assert sum(answer["timeline"]["dropped"]) == lost
    assert page.locator("#overview-mix .bar-line").count() == len(answer["mix"]["class"])
    page.locator("#overview-drops").click()
    expect(page.locator("h1")).to_have_text("Health")


def test_class__click_filters_alt_click_excludes(counted, overview, expect):
    page = overview()
    page.locator("#overview-mix").get_by_role("button", name="DNS").click()
    assert parameter(page, "filter") == "app=dns,mdns,llmnr,nbns"
    expect(page.locator("#overview-mix .bar-line")).to_have_count(1)
    page.locator("#overview-legend").get_by_role("button", name="DNS").click(modifiers=["Alt"])
    assert parameter(page, "filter") == "-app=dns,mdns,llmnr,nbns"
    expect(page.locator("#overview-mix")).not_to_contain_text("DNS")
    page.locator("[data-tabs=overview-mix] [data-tab=packets]").click()
    expect(page.locator("#overview-mix .bar-text").first).not_to_contain_text("B")


def test_talkers__tabs_and_their_export_show_the_same(counted, overview, expect):
    page = overview()
    page.locator("[data-tabs=overview-talkers] [data-tab=conversations]").click()
    expect(page.locator("#overview-talkers thead")).to_contain_text("Between")
    page.locator("[data-tabs=overview-talkers] [data-tab=ports]").click()
    first = page.locator("#overview-talkers tbody tr").first
    expect(first).to_contain_text("tcp")
    menu = page.get_by_role("button", name="Export or explain Top talkers")
    menu.click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="Export CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert lines[0] == "key,packets,bytes"
    expect(first).to_contain_text(lines[1].split(",")[0])
    menu.click()
    page.get_by_role("menuitem", name="Show the SQL").click()
    expect(page.locator(".drawer pre")).to_have_count(1)
    expect(page.locator(".drawer pre")).to_contain_text("'port'")
    page.keyboard.press("Escape")
    first.locator(".value").click()
    assert parameter(page, "filter") == f"port={lines[1].split()[0]}"


def test_values__keep_the_focus_while_the_page_is_painted_anew(overview, counted):
    page = overview()
    value = page.locator("#overview-talkers .value").nth(2)
    value.focus()
    text = value.inner_text()
    counted.now += 1
    with page.expect_response(lambda r: "/api/v1/overview" in r.url and r.status == 200):
        pass
    page.wait_for_timeout(200)
    assert page.evaluate("document.activeElement.textContent") == text


def test_parts__are_exported_with_and_without_a_filter(open_page, counted):
    page = open_page("/login", at=counted)
    for part in ("timeline", "mix", "sources", "conversations", "countries", "recent"):
        for filtered in ("", "proto=tcp", "-host=10.20.0.11"):
            query = f"range=5m&filter={filtered}&format=csv&part={part}"
            answer = page.request.get(f"{counted.url}/api/v1/overview?{query}")
            assert answer.status == 200, answer.text()
            assert len(answer.text().splitlines()) > 1


def test_map__colours_countries_and_filters(overview, expect):
    page = overview()
    expect(page.locator("[data-graph=overview-map]")).to_have_attribute(
        "aria-label", re.compile("Map. United States .* kB, Australia")
    )
    expect(page.locator("#overview-map-foot")).to_contain_text("private")
    expect(page.locator("#overview-map .choroplethlayer path").first).to_be_visible()
    page.locator("#overview-map-note .value").first.click()
    assert parameter(page, "filter") == "country=USA"
    expect(page.locator("#overview-packets .value")).not_to_have_text("–")


def test_map__without_a_database_says_how_to_get_one(overview, site, expect):
    page = overview(at=site)
    expect(page.locator("#overview-map-empty")).to_contain_text("engine geoip install")
    expect(page.locator("[data-graph=overview-map]")).to_be_hidden()


def test_alert__mark_on_the_timeline_leads_to_it(overview, expect):
    page = overview()
    plot = page.locator("#overview-timeline .nsewdrag").first
    expect(plot).to_be_visible()
    mark = page.evaluate("""() => {
      const box = document.querySelector('[data-graph=overview-timeline]');
      const [a, b] = box.packetlakeSpan, m = box.packetlakeMarks[0];
      return {share: (m.at_us - a) / (b - a), href: m.href};
    }""")
    box = plot.bounding_box()
    page.mouse.click(box["x"] + mark["share"] * box["width"], box["y"] + 10)
    page.wait_for_url(f"**{mark['href']}*")


def test_recent__stands_still_while_it_is_read_and_tells_what_is_new(counted, overview, expect):
    page = overview()
    cell, note = page.locator("#overview-recent tbody td").first, page.locator("#overview-recent-note")
    expect(note).to_contain_text("newest 40")
    page.locator("#overview-freeze").press("Enter")
    expect(note).to_contain_text("held")
    was = cell.inner_text()
    counted.now += 20
    end = datetime.fromtimestamp(counted.now - 2, UTC)
    write_segment(counted.lake, "packets", packets_table(25, 5, end), 9_000)
    expect(note).to_contain_text("25 new")
    assert cell.inner_text() == was
    note.get_by_role("button", name="Resume").click()
    expect(cell).not_to_have_text(was)
    expect(note).to_contain_text("newest 40")
    page.locator("#overview-recent tbody tr").nth(3).hover()
    expect(note).to_contain_text("held")
    page.locator("h2").first.hover()
    expect(note).to_contain_text("newest 40")


def test_empty__range_says_so_and_offers_a_way_out(overview, expect):
    page = overview("/?range=5m&filter=host%3D198.51.100.1")
    expect(page.locator("[data-graph=overview-timeline]")).to_contain_text("No packets in this range")
    page.locator("#overview-recent").get_by_role("button", name="Clear filter").click()
    expect(page.locator("#overview-recent tbody tr").first).to_be_visible()


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 1024)])
def test_page__is_accessible_and_fits(overview, theme, width):
    page = overview(color_scheme=theme, viewport={"width": width, "height": 768}, user="vera")
    page.wait_for_timeout(300)
    assert overflowing(page) == []
    axe.check(page)
