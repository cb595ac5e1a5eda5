"""The Flows page in a real browser: list, sorting, filter, the drawer of one connection, exports."""

from __future__ import annotations

import re

import dpkt
import pytest

import analytics
from tests.webui import axe
from tests.webui.traffic import EVIL

pytestmark = pytest.mark.browser
READY = "[data-painted=true]"
ROWS = "#flows-grid .grid-row"
NEWEST = "/flows?range=5m@newest"


@pytest.fixture(scope="module")
def con(recorded):
    with analytics.connect(recorded.lake, threads=1) as con:
        yield con


@pytest.fixture
def flows(open_page, expect):
    """The page, painted, with rows in it."""

    def open_(path=NEWEST, **options):
        options = {"timezone_id": "Etc/UTC", **options}
        page = open_page(path, **options)
        expect(page.locator(READY)).to_have_count(1)
        expect(page.locator(ROWS).first).to_contain_text(re.compile(r"\d"))
        return page

    return open_


def parameter(page, name):
    return page.evaluate("name => new URLSearchParams(location.search).get(name)", name)


def column(page, n):
    return page.locator(f"{ROWS} > span:nth-child({n})").all_inner_texts()


def test_list__counts_sorts_and_reaches_the_last(flows, con, expect):
    page = flows()
    [(total,)] = con.execute("SELECT count(DISTINCT flow_id) FROM flows").fetchall()
    expect(page.locator("#flows-note")).to_have_text(re.compile(rf"^{total:,} connections · "))
    expect(page.locator("#flows-timeline .scatterlayer .trace")).not_to_have_count(0)
    begun = column(page, 1)
    assert begun == sorted(begun, reverse=True)
    page.locator("#flows-grid").get_by_role("button", name="Received").click()
    assert parameter(page, "sort") == "dst_bytes"
    [(most,)] = con.execute(
        "SELECT max(b) FROM (SELECT sum(dst_bytes) b FROM flows GROUP BY flow_id)"
    ).fetchall()  # fmt: skip
    shown = page.evaluate("n => packetlake.format.bytes(n)", int(most))
    expect(page.locator(f"{ROWS} > span:nth-child(8)").first).to_have_text(shown)
    page.locator("#flows-grid").get_by_role("button", name="Received").click()
    expect(page.locator(f"{ROWS} > span:nth-child(8)").first).to_have_text("0 B")
    page.locator("#flows-grid .grid-view").evaluate("v => { v.scrollTop = v.scrollHeight; }")
    expect(page.locator(f"{ROWS}[data-row='{total - 1}'] > span:nth-child(8)")).to_have_text(shown)


def test_value__click_filters_by_state_and_alt_click_excludes(flows, con, expect):
    page = flows()
    value = page.locator(f"{ROWS} [data-field=state]", has_text="established").first
    value.click()
    expect(page.locator(".chip")).to_have_text("state=established×")
    [(want,)] = con.execute("SELECT count(DISTINCT flow_id) FROM flows WHERE outcome = 'established'").fetchall()
    expect(page.locator("#flows-note")).to_have_text(re.compile(rf"^{want:,} connections"))
    page.locator(f"{ROWS} [data-field=src]").first.click(modifiers=["Alt"])
    expect(page.locator(".chip")).to_have_count(2)


def test_drawer__one_connection_with_packets_messages_and_its_pcap(flows, con, expect):
    page = flows(NEWEST + "&filter=app%3Dhttp%20host%3D10.20.0.0%2F16")
    row = page.locator(ROWS).nth(2)
    client, name = row.locator("[data-field=src]").inner_text(), row.locator("[data-field=sni]").inner_text()
    row.click(position={"x": 12, "y": 12})
    drawer = page.locator(".flow-drawer")
    expect(drawer.locator("h2")).to_have_text(f"HTTP {client} → {name}")
    flow = parameter(page, "flow")
    [(packets, sent, community)] = con.execute(
        "SELECT sum(src_packets + dst_packets)::BIGINT, sum(src_bytes)::BIGINT, any_value(community_id) FROM flows "
        "WHERE flow_id = ?", [int(flow)],
    ).fetchall()  # fmt: skip
    expect(drawer).to_contain_text(community)
    expect(drawer).to_contain_text(f"Client sent {page.evaluate('n => packetlake.format.bytes(n)', sent)}")
    expect(drawer.locator("#flows-packets tbody tr")).to_have_count(packets)
    expect(drawer.locator("#flows-one .scatterlayer .trace")).to_have_count(2)
    expect(drawer.locator(".message summary").first).to_contain_text("GET")
    axe.check(page)
    drawer.get_by_role("button", name="Download pcap").click()
    expect(page.locator("dialog.modal")).to_contain_text(f"{packets} packets,")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download pcap").last.click()
    with download.value.path().open("rb") as opened:
        assert sum(1 for _ in dpkt.pcapng.Reader(opened)) == packets
    # It is in the address, Escape and the way back close it.
    page.reload()
    expect(drawer.locator("h2")).to_contain_text("HTTP")
    page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)
    assert parameter(page, "flow") is None
    page.go_back()
    expect(drawer.locator("h2")).to_contain_text("HTTP")
    drawer.get_by_role("button", name="All its packets").click()
    expect(page.locator("#packets-note")).to_have_text(re.compile(rf"^{packets} of "))


def test_keys__rows_are_walked_and_opened(flows, expect):
    page = flows()
    page.locator("main").press("j")
    expect(page.locator(f"{ROWS}.selected")).to_have_attribute("data-row", "0")
    expect(page.locator(".flow-drawer h2")).to_contain_text("→")
    first = parameter(page, "flow")
    page.locator("main").press("j")
    expect(page.locator(f"{ROWS}.selected")).to_have_attribute("data-row", "1")
    expect(page).not_to_have_url(re.compile(f"flow={first}"))
    expect(page.locator(".flow-drawer")).to_have_count(1)


def test_text__from_packets_is_text(flows, expect):
    page = flows(NEWEST + "&filter=host%3D203.0.113.66")
    expect(page.locator(ROWS).first).to_contain_text(EVIL)
    page.locator(ROWS).first.click(position={"x": 12, "y": 12})
    expect(page.locator(".flow-drawer")).to_contain_text(EVIL)
    expect(page.locator(".flow-drawer img, main img")).to_have_count(0)


def test_alert__marks_the_flows_that_it_names(flows, con, expect):
    found = con.execute("SELECT DISTINCT severity, unnest(flow_ids) FROM alerts").fetchall()
    if not found:
        pytest.skip("no alert names a flow: the captures beside the project are not there")
    severity, flow = found[0]
    page = flows(f"{NEWEST}&filter=flow%3D{flow}")
    marked = page.locator(f"{ROWS}.alerted.alerted-{severity}")
    expect(marked).to_have_count(1)
    marked.click(position={"x": 12, "y": 12})
    expect(page.locator(".flow-drawer .severity")).to_have_text(severity)
    page.locator(".flow-drawer").get_by_role("button", name="Open the alert").click()
    expect(page).to_have_url(re.compile("/alerts"))


def test_export__csv_of_what_is_shown_in_its_order_and_the_sql(flows, con, expect):
    page = flows(NEWEST + "&filter=app%3Ddns&sort=bytes")
    [(want,)] = con.execute("SELECT count(DISTINCT flow_id) FROM flows WHERE app = 'dns'").fetchall()
    page.get_by_role("button", name="Export or explain Flows").click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="Export CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert len(lines) == want + 1
    at = lines[0].replace('"', "").split(",").index("bytes")
    sizes = [int(line.split(",")[at]) for line in lines[1:6]]
    assert sizes == sorted(sizes, reverse=True)
    page.get_by_role("button", name="Export or explain Flows").click()
    page.get_by_role("menuitem", name="Show the SQL").click()
    expect(page.locator(".drawer pre").first).to_contain_text("GROUP BY flow_id")


def test_states__nothing_and_a_flow_that_is_not_there(flows, open_page, expect):
    page = flows()
    page.locator("#shell-filter-text").fill("host=192.0.2.222")
    page.locator("#shell-filter-text").press("Enter")
    expect(page.locator("#flows-grid")).to_contain_text("No connections began in this range.")
    page.locator("#flows-grid").get_by_role("button", name="Clear filter").click()
    expect(page.locator(ROWS).first).to_contain_text(re.compile(r"\d"))


@pytest.mark.parametrize(("theme", "size"), [("light", (1440, 900)), ("dark", (1024, 768))])
def test_layout__fits_and_is_accessible(flows, expect, theme, size):
    page = flows(color_scheme=theme, viewport={"width": size[0], "height": size[1]})
    assert page.evaluate("document.scrollingElement.scrollWidth") <= size[0]
    main = page.locator("main").evaluate("m => [m.scrollHeight, m.clientHeight]")
    assert main[0] <= main[1]
    axe.check(page)
