"""The pages about hosts in a real browser: list, map, graph, one host."""

from __future__ import annotations

import json
import re
import shutil

import pytest

import analytics
from analytics import geoip
from tests.analytics.small_lake import write_mmdb
from tests.webui import axe
from tests.webui.conftest import Site
from tests.webui.traffic import EVIL

pytestmark = pytest.mark.browser
READY = "[data-painted=true]"
CLIENT, SCANNER, VICTIM, EVIL_HOST = "10.20.0.10", "10.20.0.99", "10.20.0.14", "203.0.113.66"


@pytest.fixture(scope="module")
def con(recorded):
    with analytics.connect(recorded.lake, threads=1) as con:
        yield con


@pytest.fixture(scope="module")
def located(recorded, tmp_path_factory):
    """The same lake with a GeoIP database: the office's servers are in two countries."""
    lake = tmp_path_factory.mktemp("located") / "lake"
    shutil.copytree(recorded.lake, lake)
    places = {
        "93.184.216.0/28": ("AU", "Sydney", -33.87, 151.2),
        "93.184.216.16/28": ("US", "Los Angeles", 34.05, -118.24),
        "93.184.216.32/28": ("US", "New York", 40.71, -74.0),
    }
    records = {
        net: {
            "country": {"iso_code": code},
            "city": {"names": {"en": city}},
            "location": {"latitude": lat, "longitude": lon},
        }
        for net, (code, city, lat, lon) in places.items()
    }
    geoip.use(lake, write_mmdb(lake / "places.mmdb", records))
    site = Site(lake, recorded.now)
    yield site
    site.close()


@pytest.fixture
def shown(open_page, expect):
    """A page, painted."""

    def open_(path, **options):
        page = open_page(path, **options)
        expect(page.locator(READY)).to_have_count(1)
        return page

    return open_


def parameter(page, name):
    return page.evaluate("name => new URLSearchParams(location.search).get(name)", name)


def one(con, sql):
    return con.execute(sql).fetchall()[0]


def asked(page, question, **params):
    return page.evaluate("([q, p]) => packetlake.feed.ask(q, p)", [question, params])


# --- list -------------------------------------------------------------------------------------------------------


def test_list__is_sorted_filtered_and_opened(shown, con, expect):
    page = shown("/hosts?range=5m")
    heaviest, size, hosts = one(
        con,
        "SELECT arg_max(ip, bytes_sent + bytes_received), max(bytes_sent + bytes_received), count(*) FROM hosts "
        "WHERE flows > 0",
    )
    rows = page.locator("#hosts-grid .grid-row")
    expect(rows.first).to_contain_text(heaviest)
    assert page.evaluate("size => packetlake.format.bytes(size)", size) in rows.first.inner_text()
    expect(page.locator("#hosts-note")).to_contain_text(f"{hosts:,} hosts")
    page.get_by_role("button", name="Sent").click()
    assert parameter(page, "sort") == "bytes_sent"
    most = one(con, "SELECT arg_max(ip, bytes_sent) FROM hosts WHERE flows > 0")[0]
    expect(rows.first).to_contain_text(most)
    page.get_by_role("button", name="Sent").click()
    assert parameter(page, "order") == "asc"
    page.get_by_role("button", name="Alerts", exact=True).click()
    expect(rows.first.locator(".severity")).to_be_visible()
    page.locator(f"#hosts-grid .value[data-value='{SCANNER}']").first.click()
    expect(page.locator(".chip")).to_have_text(f"host={SCANNER}×")
    expect(rows).to_have_count(2)
    page.locator(f"#hosts-grid .value[data-value='{VICTIM}']").click(modifiers=["Alt"])
    expect(page.locator("#hosts-grid .empty")).to_contain_text("No host had a connection")
    page.get_by_role("button", name="Clear filter").click()
    expect(rows.first.locator(".severity")).to_be_visible()
    page.locator("#hosts-grid .grid-view").focus()
    page.keyboard.press("ArrowDown")
    chosen = page.locator(".grid-row.selected .host .value").inner_text()
    page.keyboard.press("Enter")
    expect(page.locator(".hosts-ip")).to_have_text(chosen)
    page.go_back()
    expect(rows.first).to_be_visible()
    axe.check(page)


def test_list__exports_what_is_shown(shown, con, expect):
    page = shown(f"/hosts?range=5m&filter=host%3D{SCANNER}")
    page.get_by_role("button", name="Export or explain All hosts").click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="Export CSV").click()
    head, *lines = download.value.path().read_text().splitlines()
    assert {"ip", "name", "scope", "country", "bytes_sent", "alerts", "severity"} <= set(head.split(","))
    assert sorted(line.split(",")[0] for line in lines) == [VICTIM, SCANNER]
    page.get_by_role("button", name="Export or explain All hosts").click()
    page.get_by_role("menuitem", name="Show the SQL").click()
    sql = page.locator(".drawer pre").inner_text()
    assert len(con.execute(sql).fetchall()) == 2


# --- map --------------------------------------------------------------------------------------------------------


def test_map__countries_and_cities_filter(located, open_page, expect):
    page = open_page("/hosts?range=5m&view=map", at=located)
    rows = page.locator("#hosts-countries tbody tr")
    expect(rows).to_have_count(2)
    expect(page.locator("#hosts-cities")).to_contain_text("Los Angeles")
    expect(page.locator("#hosts-map .choroplethlayer path")).to_have_count(2)
    found = asked(page, "places")
    assert (
        sum(found["countries"]["hosts"]) + found["unlocated"]["hosts"] + found["internal"]["hosts"]
        == asked(page, "hosts")["total"]
    )
    expect(page.locator("#hosts-note")).to_contain_text("in 2 countries")
    page.get_by_role("button", name="Hosts", exact=True).click()
    expect(rows.first).to_contain_text("United States")
    expect(page.locator("[data-graph=hosts-map]")).to_have_attribute(
        "aria-label", re.compile(r"United States \d+ hosts")
    )
    rows.filter(has_text="Australia").locator(".value").click()
    expect(page.locator(".chip")).to_have_text("country=AU×")
    expect(rows).to_have_count(1)
    page.get_by_role("button", name="Table").click()
    expect(page.locator("#hosts-grid")).to_contain_text("Australia")
    expect(page.locator("#hosts-grid")).not_to_contain_text("United States")
    assert parameter(page, "view") is None
    page.go_back()
    expect(page.locator("#hosts-countries")).to_be_visible()


def test_map__without_a_database_says_what_to_do(shown, expect):
    page = shown("/hosts?range=5m&view=map")
    expect(page.locator("[data-graph=hosts-map] .empty")).to_contain_text("engine geoip install")
    expect(page.locator("#hosts-map-foot")).to_contain_text("not located")


# --- graph ------------------------------------------------------------------------------------------------------


def test_graph__shows_the_heaviest_conversations_and_what_hangs_on_a_host(shown, expect):
    page = shown("/hosts?range=5m&view=graph")
    expect(page.locator("#hosts-graph canvas")).not_to_have_count(0)
    answer = asked(page, "graph")
    loops = sum(a == b for a, b in zip(answer["edges"]["a"], answer["edges"]["b"], strict=True))
    drawn = json.loads(page.evaluate("JSON.stringify(packetlake.hosts.graph.drawn)"))
    assert (drawn["hosts"], drawn["conversations"], drawn["faint"]) == (
        len(answer["nodes"]["ip"]), len(answer["edges"]["a"]) - loops, 0)  # fmt: skip
    rows = page.locator("#hosts-edges tbody tr")
    expect(rows).to_have_count(len(answer["edges"]["a"]))
    box = page.locator("#hosts-graph").bounding_box()
    at = page.evaluate("ip => packetlake.hosts.graph.drawn.at(ip)", CLIENT)
    page.mouse.click(box["x"] + at["x"], box["y"] + at["y"])
    expect(page.locator("#hosts-graph-foot")).to_contain_text(CLIENT)
    mine = sum(CLIENT in pair for pair in zip(answer["edges"]["a"], answer["edges"]["b"], strict=True))
    expect(rows).to_have_count(mine)
    assert page.evaluate("packetlake.hosts.graph.drawn.faint") > 0
    page.locator("#hosts-graph").press("Escape")
    assert page.evaluate("packetlake.hosts.graph.drawn.faint") == 0
    page.locator("#shell-theme").click()
    axe.check(page)
    rows.first.focus()
    page.keyboard.press("Enter")
    expect(rows).to_have_count(1)
    page.mouse.dblclick(box["x"] + at["x"], box["y"] + at["y"])
    expect(page.locator(".hosts-ip")).to_have_text(CLIENT)


# --- one host ---------------------------------------------------------------------------------------------------


def test_host__says_what_it_is_and_its_values_filter(shown, con, expect):
    page = shown(f"/hosts/{CLIENT}?range=5m")
    sent, flows = one(con, f"SELECT bytes_sent, flows FROM hosts WHERE ip = '{CLIENT}'")
    expect(page.locator("#hosts-verdict")).to_contain_text(re.compile("^Internal host, .*talked to .* peers"))
    expect(page.locator("#hosts-flows .value")).to_have_text(str(flows))
    value, unit = page.evaluate("size => packetlake.format.si(size)", sent)
    expect(page.locator("#hosts-sent .kpi-value")).to_have_text(f"{value}{unit}B")
    expect(page.locator("#hosts-timeline .scatterlayer .trace")).not_to_have_count(0)
    expect(page.locator("#hosts-uses")).to_contain_text("53 udp")
    expect(page.locator("#hosts-name-list")).to_contain_text("example.org")
    page.locator("#hosts-uses .value[data-value='80']").first.click()
    expect(page.locator(".chip")).to_have_text("dport=80×")
    expect(page.locator("#hosts-uses tbody tr")).to_have_count(1)
    expect(page.locator("#hosts-protocols tbody")).not_to_contain_text("DNS")
    page.get_by_role("button", name="Packets of this host").click()
    assert (parameter(page, "filter"), parameter(page, "range")) == (f"dport=80 host={CLIENT}", "5m")
    page.go_back()
    page.locator("#hosts-peer-list .host-open").first.click()
    expect(page.locator(".hosts-ip")).not_to_have_text(CLIENT)
    axe.check(page)


def test_host__brush_zone_exports_and_names(shown, expect):
    page = shown(f"/hosts/{SCANNER}?range=5m", timezone_id="Asia/Tokyo")
    expect(page.locator("#hosts-alert-list")).to_contain_text("port scan")
    expect(page.locator("#hosts-about")).to_contain_text("UTC+9")
    page.locator("#shell-zone").click()
    expect(page.locator("#hosts-about")).to_contain_text("UTC")
    expect(page.locator("#hosts-about")).not_to_contain_text("UTC+9")
    page.get_by_role("button", name="It is called").click()
    expect(page.locator("#hosts-name-list")).to_contain_text("Nobody called it")
    page.get_by_role("button", name="Export or explain Peers").click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="Export CSV").click()
    assert download.value.path().read_text().splitlines()[1].startswith(VICTIM)
    box = page.locator("#hosts-timeline .nsewdrag").first.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 10, y)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, y, steps=4)
    page.mouse.up()
    expect(page.locator("#shell-live")).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#hosts-verdict")).to_contain_text("no connection that began in this range")


def test_host__hostile_names_are_text(shown, expect):
    page = shown(f"/hosts/{EVIL_HOST}?range=5m", user="vera")
    expect(page.locator("#hosts-about")).to_contain_text(EVIL)
    page.get_by_role("button", name="It is called").click()
    expect(page.locator("#hosts-name-list")).to_contain_text(EVIL)
    expect(page.locator("main img")).to_have_count(0)
    expect(page.get_by_role("button", name="Export pcap")).to_have_count(0)  # a viewer sees no payload
    page.locator("#hosts-name-list .value").first.click()
    expect(page.locator(".chip")).to_have_text(f'sni="{EVIL}"×')
    expect(page.locator("#hosts-flows .value")).to_have_text("1")


def test_host__unknown_one_says_so(site, browser, expect):
    context = browser.new_context()
    context.add_cookies([site.cookie()])
    page = context.new_page()
    for address, said in (("198.51.100.77", "is not in the lake"), ("nonsense", "is no address")):
        page.goto(f"{site.url}/hosts/{address}?range=5m")
        expect(page.locator("#hosts-verdict")).to_contain_text(said)
    context.close()
