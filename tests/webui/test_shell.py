"""The frame in a real browser: signing in, filter, range, zone, theme, keys, feeds, states."""

from __future__ import annotations

import re

import pytest
from dash import html

from tests.lakes import write_empty_lake
from tests.webui import axe
from tests.webui.conftest import PASSWORD, Site
from tests.webui.traffic import EVIL
from webui import auth, pages, users
from webui.pages import shell

pytestmark = pytest.mark.browser
READY = "[data-painted=true]"


@pytest.fixture
def overview(open_page, expect):
    """The Overview over the five minutes of the lake, painted."""

    def open_(path="/?range=5m", **options):
        page = open_page(path, **options)
        expect(page.locator(READY)).to_have_count(1)
        return page

    return open_


def parameter(page, name):
    return page.evaluate("name => new URLSearchParams(location.search).get(name)", name)


# --- signing in -------------------------------------------------------------------------------------------------


def test_sign_in__leads_to_where_one_wanted_to_go_and_out_again(site, open_page, expect):
    page = open_page("/?range=1h&filter=proto%3Dtcp", user=None)
    expect(page.locator("h1")).to_have_text("Sign in")
    page.locator("#name").fill("vera")
    page.locator("#password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator(READY)).to_have_count(1)
    assert (parameter(page, "range"), parameter(page, "filter")) == ("1h", "proto=tcp")
    page.locator("#shell-user").click()
    expect(page.locator(".menu")).to_contain_text("vera · viewer")
    page.get_by_role("menuitem", name="Sign out").click()
    expect(page.locator("h1")).to_have_text("Sign in")
    page.go_back()
    expect(page.locator("h1")).to_have_text("Sign in")


def test_setup__link_of_the_first_start(tmp_path, open_page, expect):
    write_empty_lake(tmp_path / "lake")
    new = Site(tmp_path / "lake", 1_800_000_000.0)
    token = auth.issue_token(new.lake)
    page = open_page("/login", user=None, at=new)
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url))
    page.goto(f"{new.url}/setup#token={token}")
    page.locator("#password").fill(PASSWORD)
    page.locator("#again").fill(PASSWORD)
    page.get_by_role("button", name="Set password and open").click()
    expect(page.locator("#shell-capture .label")).to_have_text("No capture yet")
    assert users.listing(new.lake) == {"admin": "admin"}
    assert not any(token in url for url in asked)
    new.close()


def test_link__signs_in_without_a_password(site, open_page, expect):
    page = open_page(f"/login#token={auth.issue_token(site.lake, 'otto')}", user=None)
    expect(page.locator("#shell-user")).to_contain_text("OT")
    assert page.evaluate("location.hash") == ""


@pytest.mark.parametrize("path", ["/login", "/setup"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_sign_in__pages_are_accessible(open_page, path, theme):
    axe.check(open_page(path, user=None, color_scheme=theme))


# --- what the frame shows ---------------------------------------------------------------------------------------


def test_overview__fills_from_the_lake(recorded, overview, expect):
    page = overview()
    expect(page.locator("#overview-packets .value")).not_to_have_text("–")
    expect(page.locator("#overview-timeline .scatterlayer .trace")).not_to_have_count(0)
    expect(page.locator("[data-graph=overview-timeline]")).to_have_attribute("aria-label", re.compile("peak .* at "))
    expect(page.locator("#overview-map-empty")).to_contain_text("GeoIP")
    expect(page.locator("#overview-recent tbody tr")).to_have_count(40)
    expect(page.locator("#shell-capture")).to_contain_text("eth0.pcap")
    assert page.evaluate("document.fonts.check('12px Inter')")
    assert page.locator("h1").count() == 1
    assert page.title() == "Overview · PacketLake"


def test_hostile__texts_of_packets_stay_texts(overview, expect):
    page = overview("/?range=5m&filter=host%3D203.0.113.66")
    expect(page.locator("#overview-recent tbody")).to_contain_text("203.0.113.66")
    assert page.locator("main img").count() == 0
    assert page.evaluate("html => packetlake.el('p', {}, html).children.length", EVIL) == 0


@pytest.mark.parametrize(("theme", "ground"), [("light", "rgb(245, 246, 248)"), ("dark", "rgb(13, 18, 25)")])
def test_theme__follows_the_system_is_accessible_and_flips(overview, expect, theme, ground):
    page = overview(color_scheme=theme)
    colour = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(colour) == ground
    axe.check(page)
    page.locator("#shell-theme").click()
    assert page.evaluate(colour) != ground
    page.reload()
    assert page.evaluate(colour) != ground


@pytest.mark.parametrize("size", [(1440, 900), (1024, 768), (720, 450)])
def test_size__nothing_sticks_out(overview, size):
    page = overview(viewport={"width": size[0], "height": size[1]})
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= size[0]
    box = page.locator("#shell-user").bounding_box()
    assert box["x"] + box["width"] <= size[0]
    assert page.locator(".side").bounding_box()["width"] == (204 if size[0] >= 1280 else 56)


def test_load__first_one_is_small(open_page, expect):
    page = open_page("/healthz")
    sizes: list[int] = []
    page.on("requestfinished", lambda r: sizes.append(r.sizes()["responseBodySize"]))
    page.goto(page.url.replace("/healthz", "/?range=5m"))
    expect(page.locator("#overview-timeline .scatterlayer .trace")).not_to_have_count(0)
    assert 1_000_000 < sum(sizes) <= 3_000_000


# --- filter -----------------------------------------------------------------------------------------------------


def test_filter__chips_are_made_negated_and_removed_and_back_works(overview, expect):
    page = overview()
    box = page.locator("#shell-filter-text")
    box.fill("proto=tcp")
    box.press("Enter")
    chip = page.locator(".chip")
    expect(chip).to_have_text("proto=tcp×")
    assert parameter(page, "filter") == "proto=tcp"
    chip.click(modifiers=["Alt"])
    expect(chip).to_have_text("-proto=tcp×")
    page.locator("#shell-filter-text").fill("port=53")
    page.locator("#shell-filter-text").press("Enter")
    expect(chip).to_have_count(2)
    page.go_back()
    expect(chip).to_have_count(1)
    page.go_back()
    expect(chip).to_have_text("proto=tcp×")
    chip.click()
    expect(chip).to_have_count(0)
    assert parameter(page, "filter") is None


def test_filter__slip_is_explained_and_changes_nothing(overview, expect):
    page = overview()
    page.locator("#shell-filter-text").fill("prot=tcp")
    page.locator("#shell-filter-text").press("Enter")
    expect(page.locator(".filter-problem")).to_contain_text("prot")
    assert parameter(page, "filter") is None
    page.locator("#shell-filter-text").press("Escape")
    expect(page.locator(".filter-problem")).to_be_hidden()


def test_filter__completes_fields_and_values(overview, expect):
    page = overview()
    page.locator("#shell-filter-text").press_sequentially("pro")
    option = page.locator("#shell-filter-list [role=option]")
    expect(option.first).to_contain_text("proto=")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#shell-filter-text")).to_have_value("proto=")
    expect(page.locator("#shell-filter-list")).to_contain_text("tcp")


def test_value__click_filters_alt_click_excludes_and_the_menu_offers_more(overview, expect):
    page = overview()
    value = page.locator("#overview-talkers .value").first
    text = value.inner_text()
    value.click()
    expect(page.locator(".chip")).to_have_text(f"src={text}×")
    expect(page.locator("#overview-talkers tbody tr")).to_have_count(1)
    page.locator("#overview-talkers .value").first.click(modifiers=["Alt"])
    expect(page.locator(".chip")).to_have_text(f"-src={text}×")
    page.locator("#overview-talkers .value").first.click(button="right")
    expect(page.get_by_role("menuitem", name="Copy")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".menu")).to_have_count(0)


# --- range and zone ---------------------------------------------------------------------------------------------


def test_range__brush_pauses_zoom_out_and_live_again(overview, expect):
    page = overview()
    expect(page.locator("#shell-live")).to_have_attribute("aria-pressed", "true")
    plot = page.locator("#overview-timeline .nsewdrag").first
    box = plot.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.25, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, y, steps=5)
    page.mouse.up()
    expect(page.locator("#shell-live")).to_have_attribute("aria-pressed", "false")
    start, end = map(int, parameter(page, "range").split(","))
    assert 120e6 < end - start < 180e6
    page.locator("main").press("z")
    wider = [int(v) for v in parameter(page, "range").split(",")]
    assert abs((wider[1] - wider[0]) - 2 * (end - start)) < 4
    page.locator("main").press("Escape")
    assert parameter(page, "range") == f"{start},{end}"
    page.locator("main").press("l")
    expect(page.locator("#shell-live")).to_have_attribute("aria-pressed", "true")
    assert parameter(page, "range") == "5m"


def test_range__from_to_in_the_zone_that_is_shown(overview, recorded, expect):
    page = overview(timezone_id="America/New_York")
    page.locator("#shell-custom").click()
    expect(page.locator(".range-picker")).to_contain_text(re.compile("From .UTC−[45]."))
    page.locator("#shell-from").fill("2026-01-02T03:04:05")
    page.locator("#shell-to").fill("2026-01-02T02:00:00")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator(".problem")).to_contain_text("later")
    page.locator("#shell-to").fill("2026-01-02T04:00:00")
    page.get_by_role("button", name="Apply").click()
    assert parameter(page, "range") == "1767341045000000,1767344400000000"  # 08:04:05 and 09:00:00 UTC
    expect(page.locator("#shell-custom")).to_contain_text("03:04:05")


def test_zone__holds_for_every_time_and_is_in_the_address(overview, expect):
    page = overview(timezone_id="Asia/Tokyo")
    cell = page.locator("#overview-recent tbody td").first
    expect(cell).to_contain_text(":")
    end = page.evaluate("packetlake.feed.answers.overview.range.end")
    page.locator("#shell-live").click()
    expect(page.locator("#shell-live")).to_have_attribute("aria-pressed", "false")
    assert parameter(page, "range").split(",")[1] == str(end)  # of what was shown, by the server's clock
    expect(cell).to_contain_text(":")
    tokyo = cell.inner_text()
    page.locator("#shell-zone").click()
    expect(page.locator("#shell-zone")).to_have_text("UTC")
    expect(cell).not_to_have_text(tokyo)
    assert (int(tokyo[:2]) - int(cell.inner_text()[:2])) % 24 == 9
    assert parameter(page, "tz") == "utc"
    page.reload()
    expect(page.locator("#shell-zone")).to_have_text("UTC")


# --- feeds ------------------------------------------------------------------------------------------------------


HIDDEN = """hidden => {
  Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
  document.dispatchEvent(new Event('visibilitychange'));
}"""


def test_feed__one_at_a_time_none_while_hidden_or_paused(overview, expect):
    page = overview()
    asked: list[str] = []
    under_way: list[int] = [0]

    def begin(request):
        if "/api/v1/overview" in request.url:
            under_way.append(under_way[-1] + 1)
        if "/api/v1/" in request.url:
            asked.append(request.url.split("?")[0].split("/")[-1])

    page.on("request", begin)
    page.on("requestfinished", lambda r: under_way.append(under_way[-1] - 1) if "/api/v1/overview" in r.url else None)
    page.on("requestfailed", lambda r: under_way.append(under_way[-1] - 1) if "/api/v1/overview" in r.url else None)
    for _ in range(3):
        with page.expect_response("**/api/v1/overview*"):
            pass
    assert max(under_way) == 1
    page.evaluate(HIDDEN, True)
    page.wait_for_timeout(1_500)
    asked.clear()
    page.wait_for_timeout(2_000)
    assert asked == []
    with page.expect_response("**/api/v1/overview*"):
        page.evaluate(HIDDEN, False)
    with page.expect_response("**/api/v1/overview*"):
        page.locator("#shell-live").click()  # paused: the frame's state goes on, the page does not
    asked.clear()
    with page.expect_response("**/api/v1/state*"), page.expect_response("**/api/v1/state*"):
        page.wait_for_timeout(1_500)
    assert "overview" not in asked


def test_feed__stale_is_said_and_goes_away(overview, expect):
    page = overview()
    page.route("**/api/v1/**", lambda route: route.fulfill(status=204))
    expect(page.locator("[data-banner]")).to_contain_text("reconnecting")
    page.unroute("**/api/v1/**")
    expect(page.locator("[data-banner]")).to_be_hidden()


def test_feed__ended_session_leads_to_sign_in(site, browser, expect):
    context = browser.new_context()
    context.add_cookies([site.cookie("vera")])
    page = context.new_page()
    page.goto(site.url + "/?range=5m")
    expect(page.locator(READY)).to_have_count(1)
    auth.revoke(site.lake, user="vera")
    expect(page.locator("h1")).to_have_text("Sign in")
    context.close()


def test_feed__refusal_is_on_the_page_with_a_retry(site, browser, expect):
    context = browser.new_context()
    context.add_cookies([site.cookie()])
    page = context.new_page()
    page.goto(site.url + "/?range=5m&filter=nonsense")
    expect(page.locator("[data-banner]")).to_contain_text("nonsense")
    expect(page.locator("[data-banner]").get_by_role("button", name="Retry")).to_be_visible()
    context.close()


# --- menus, keys ------------------------------------------------------------------------------------------------


def test_card__exports_what_is_shown_and_explains_it(overview, expect):
    page = overview("/?range=5m&filter=proto%3Dtcp")
    page.get_by_role("button", name="Export or explain Traffic").click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="Export CSV").click()
    text = download.value.path().read_text()
    assert len(text.splitlines()) > 10
    page.get_by_role("button", name="Export or explain Traffic").click()
    page.get_by_role("menuitem", name="Show the SQL").click()
    expect(page.locator(".drawer pre").first).to_contain_text("SELECT")
    page.keyboard.press("Escape")
    expect(page.locator(".drawer")).to_have_count(0)


def test_keys__help_filter_and_off(overview, expect):
    page = overview()
    page.keyboard.press("?")
    expect(page.locator("dialog.modal")).to_contain_text("Zoom out")
    axe.check(page)
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    expect(page.locator("#shell-filter-text")).to_be_focused()
    page.keyboard.type("l?")  # typing is typing
    expect(page.locator("#shell-filter-text")).to_have_value("l?")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.locator("#shell-user").click()
    page.get_by_role("menuitem", name="Switch keys off").click()
    page.locator("main").press("?")
    expect(page.locator("dialog.modal")).to_have_count(0)


def test_keys__skip_link_comes_first(overview):
    page = overview()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


@pytest.fixture
def probe(monkeypatch):
    """A second page, for admins, with the same elements at the same places as a deeper address of itself."""

    def layout(context):
        return [html.Section(html.Div(id="probe-list"), className="kpis card"), html.P(context.rest, id="probe-rest")]

    page = pages.Page(path="/probe", title="Probe", icon="flows", key="x", order=99, layout=layout, role="operator")
    both = (*pages.all_pages(), page)
    for module in (pages, shell):
        monkeypatch.setattr(module, "all_pages", lambda: both)


PROBE = """() => {
  window.told = [];
  packetlake.page('probe', {
    mount: (page) => {
      told.push('mount ' + page.rest);
      document.getElementById('probe-list').append('painted ' + page.rest);
    },
    unmount: (page) => told.push('unmount ' + page.rest),
  });
}"""


def test_page__navigation_loads_nothing_anew_keeps_the_range_and_leaves_nothing_behind(probe, overview, expect):
    page = overview("/?range=1h&filter=proto%3Dtcp")
    page.evaluate(PROBE)
    page.get_by_role("link", name="Probe").click()
    expect(page.locator("#probe-list")).to_have_text("painted")
    expect(page.get_by_role("link", name="Probe")).to_have_attribute("aria-current", "page")
    assert (parameter(page, "range"), parameter(page, "filter")) == ("1h", "proto=tcp")
    assert page.title() == "Probe · PacketLake"
    page.evaluate("packetlake.url.go('/probe/10.0.0.1')")
    expect(page.locator("#probe-rest")).to_have_text("10.0.0.1")
    expect(page.locator("#probe-list")).to_have_text("painted 10.0.0.1")
    page.locator("main").press("g")
    page.locator("main").press("o")
    expect(page.locator(READY)).to_have_count(1)
    expect(page.locator("#overview-recent tbody tr")).not_to_have_count(0)
    expect(page.locator("main")).not_to_contain_text("painted")
    page.go_back()
    expect(page.locator("#probe-list")).to_have_text("painted 10.0.0.1")
    told = ["mount ", "unmount ", "mount 10.0.0.1", "unmount 10.0.0.1", "mount 10.0.0.1"]
    assert page.evaluate("told") == told


def test_page__is_shown_to_its_roles_only(probe, open_page, expect):
    page = open_page("/probe", user="vera")
    expect(page.locator("h1")).to_have_text("Probe needs the role operator")
    expect(page.locator(".nav-link")).not_to_contain_text(["Probe"])


def test_page__unknown_one_says_so(open_page, expect):
    page = open_page("/nowhere")
    expect(page.locator("h1")).to_have_text("There is no such page")
    page.get_by_role("link", name="Go to the Overview").click()
    expect(page.locator(READY)).to_have_count(1)


# --- the endless grid -------------------------------------------------------------------------------------------

GRID = """total => {
  const host = packetlake.el('div', {id: 'test-grid', style: {height: '300px'}});
  document.querySelector('main').prepend(host);
  window.asked = [];
  window.chosen = [];
  window.grid = packetlake.grid(host, {
    columns: [{name: 'n', title: 'No.', number: true, width: 120}, {name: 'text', title: 'Text', field: 'host'}],
    load: async (offset, limit) => {
      window.asked.push(offset);
      const row = (_, i) => ({n: offset + i, text: 't' + (offset + i)});
      return {total, rows: Array.from({length: Math.min(limit, total - offset)}, row)};
    },
    onSelect: (row) => window.chosen.push(row.n),
  });
}"""


@pytest.mark.parametrize("total", [1_000, 5_000_000])
def test_grid__reaches_every_row_with_few_requests(overview, expect, total):
    page = overview()
    page.evaluate(GRID, total)
    rows = page.locator("#test-grid .grid-row")
    expect(rows.first).to_contain_text("t0")
    assert rows.count() < 20
    page.locator("#test-grid .grid-view").focus()
    page.keyboard.press("End")
    expect(page.locator("#test-grid .grid-row.selected")).to_contain_text(f"t{total - 1}")
    page.keyboard.press("ArrowUp")
    expect(page.locator("#test-grid .grid-row.selected")).to_contain_text(f"t{total - 2}")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#test-grid .grid-row.selected")).to_contain_text("t1")
    page.evaluate("document.querySelector('#test-grid .grid-view').scrollTop = 1e9")
    expect(rows.last).to_contain_text(f"t{total - 1}")
    page.evaluate("document.querySelector('#test-grid .grid-view').scrollTop = 0")
    expect(rows.first).to_contain_text("t0")
    page.locator("#test-grid .grid-view").hover()
    page.mouse.wheel(0, 260)
    expect(rows.first).to_contain_text(re.compile("t(9|10|11)$"))
    page.wait_for_timeout(300)
    assert page.evaluate("asked.length") <= 8
    assert page.evaluate("chosen")[-1] == 1
