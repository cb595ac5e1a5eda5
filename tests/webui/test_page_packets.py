"""The Packets page in a real browser: list, chart, layers and bytes, payload, exports, keys, live."""

from __future__ import annotations

import ast
import re

import dpkt
import pytest

import analytics
from analytics.watch.filters import parse
from tests.webui import axe
from tests.webui.traffic import EVIL

pytestmark = pytest.mark.browser
READY = "[data-painted=true]"
ROWS = "#packets-grid .grid-row"
NEWEST = "/packets?range=5m@newest"


@pytest.fixture(scope="module")
def con(recorded):
    with analytics.connect(recorded.lake, threads=1) as con:
        yield con


@pytest.fixture
def packets(open_page, expect):
    """The page, painted, with rows in it."""

    def open_(path=NEWEST, **options):
        options = {"timezone_id": "Etc/UTC", **options}
        page = open_page(path, **options)
        expect(page.locator(READY)).to_have_count(1)
        expect(page.locator(ROWS).first).to_contain_text(re.compile(r"\d"))
        return page

    return open_


def cells(row):
    return row.locator("> span").all_inner_texts()


def parameter(page, name):
    return page.evaluate("name => new URLSearchParams(location.search).get(name)", name)


def number(text):
    return int(re.sub(r"\D", "", text))


def test_list__newest_first_then_oldest_and_its_last_row(packets, con, expect):
    page = packets()
    [(total, last, first)] = con.execute(
        "SELECT count(*), arg_max(frame_no, (ts, ts_nanos)), arg_min(frame_no, (ts, ts_nanos)) FROM packets"
    ).fetchall()
    note = page.locator("#packets-note")
    expect(note).to_have_text(re.compile(rf"^{total:,} packets"))
    assert number(cells(page.locator(ROWS).first)[0]) == last
    page.locator("#packets-grid .grid-view").focus()
    page.keyboard.press("End")
    expect(page.locator(f"{ROWS}.selected > span").first).to_have_text(str(first))
    expect(page.locator("#packets-layers")).to_contain_text("Frame")
    page.locator("#packets-grid").get_by_role("button", name="Time").click()
    expect(page.locator(f"{ROWS} > span").first).to_have_text(str(first))
    assert parameter(page, "order") == "asc"


@pytest.mark.parametrize("text", ["app=dns", "src=10.20.0.0/16 -port=53"])
def test_filter__counts_and_every_page_of_it(packets, con, expect, text):
    page = packets(f"{NEWEST}&filter={text.replace('=', '%3D').replace(' ', '%20')}")
    where = parse(text).where("packets")
    numbers = [n for (n,) in con.execute(
        f"SELECT frame_no FROM packets WHERE {where.sql} ORDER BY ts DESC, ts_nanos DESC, frame_no DESC", where.values
    ).fetchall()]  # fmt: skip
    [(total,)] = con.execute("SELECT count(*) FROM packets").fetchall()
    expect(page.locator("#packets-note")).to_have_text(re.compile(rf"^{len(numbers):,} of {total:,} packets"))
    expect(page.locator("#packets-timeline .scatterlayer .trace")).not_to_have_count(0)
    assert number(cells(page.locator(ROWS).first)[0]) == numbers[0]
    page.locator("#packets-grid .grid-view").focus()
    page.keyboard.press("End")
    expect(page.locator(f"{ROWS}.selected > span").first).to_have_text(str(numbers[-1]))


def test_value__click_filters_alt_click_excludes(packets, expect):
    page = packets()
    port = page.locator(f"{ROWS} [data-field=dport]").first
    text = port.inner_text()
    port.click()
    expect(page.locator(".chip")).to_have_text(f"dport={text}×")
    expect(page.locator("#packets-note")).to_contain_text(" of ")
    assert set(page.locator(f"{ROWS} [data-field=dport]").all_inner_texts()) == {text}
    page.locator(f"{ROWS} [data-field=dport]").first.click(modifiers=["Alt"])
    expect(page.locator(".chip")).to_have_text(f"-dport={text}×")


def test_layers_and_bytes__light_each_other_up(packets, expect):
    page = packets(NEWEST + "&filter=app%3Dhttp")
    layers, bytes_ = page.locator("#packets-layers"), page.locator("#packets-bytes")
    names = ["Frame", "Ethernet II", "IPv4", "TCP", "HTTP"]
    expect(layers.locator("summary strong")).to_have_text([*names, "Payload"])
    source = layers.locator(".field-line", has=page.get_by_role("button", name="Source port", exact=True))
    source.hover()
    expect(bytes_.locator(".hex-bytes .on")).to_have_count(2)
    shown = int("".join(bytes_.locator(".hex-bytes .on").all_inner_texts()), 16)
    assert str(shown) == source.locator(".field-value").inner_text()
    first = int(bytes_.locator(".hex-bytes .on").first.get_attribute("data-at"))
    source.get_by_role("button", name="Source port", exact=True).click()
    expect(bytes_.locator(".hex-bytes .on, .hex-bytes .pin")).to_have_count(2)
    # And back: the bytes after it are the destination port.
    bytes_.locator(f".hex-bytes [data-at='{first + 2}']").hover()
    expect(layers.locator(".field-line.on .field-name")).to_have_text("Destination port")
    bytes_.locator(f".hex-bytes [data-at='{first + 3}']").click()
    expect(layers.locator(".field-line.pin .field-name")).to_have_text("Destination port")
    page.keyboard.press("ArrowRight")
    expect(layers.locator(".field-line.pin .field-name")).to_have_text(re.compile("^Sequence|^seq", re.IGNORECASE))
    axe.check(page)


def test_copy__hex_and_python_are_the_frame_and_the_file_is_it_too(packets, con, expect, tmp_path):
    page = packets(NEWEST + "&filter=app%3Dhttp", permissions=["clipboard-read", "clipboard-write"])
    expect(page.get_by_role("button", name="Copy hex")).to_be_enabled()
    page.get_by_role("button", name="Copy hex").click()
    expect(page.locator(".toast").first).to_contain_text("Copied")
    raw = bytes.fromhex(page.evaluate("navigator.clipboard.readText()"))
    page.get_by_role("button", name="Copy as Python").click()
    expect(page.locator(".toast")).to_have_count(2)
    assert ast.literal_eval(page.evaluate("navigator.clipboard.readText()")) == raw
    shown = "".join(page.locator("#packets-bytes .hex-bytes i").all_inner_texts())
    assert raw.hex().startswith(shown)
    assert len(shown) > 100
    with page.expect_download() as download:
        page.get_by_role("button", name="Download", exact=True).click()
    file = tmp_path / "one.pcapng"
    download.value.save_as(file)
    with file.open("rb") as opened:
        assert [bytes(frame) for _, frame in dpkt.pcapng.Reader(opened)] == [raw]


def test_keys__j_k_move_enter_goes_to_the_tree_escape_lets_go(packets, expect):
    page = packets()
    expect(page.locator(f"{ROWS}.selected")).to_have_attribute("data-row", "0")
    page.locator("main").press("j")
    page.locator("main").press("j")
    page.locator("main").press("k")
    expect(page.locator(f"{ROWS}.selected")).to_have_attribute("data-row", "1")
    want = cells(page.locator(f"{ROWS}.selected"))[0]
    expect(page.locator("#packets-layers .field-line", has_text="Number")).to_contain_text(f"{int(want):,}")
    page.locator("#packets-grid .grid-view").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#packets-layers details").first).not_to_have_attribute("open", "")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.textContent").startswith("Ethernet II")
    page.keyboard.press("Escape")
    expect(page.locator("#packets-layers")).to_contain_text("Choose a packet")
    page.wait_for_timeout(1500)  # longer than the list takes to come again, which chose its first row then
    expect(page.locator("#packets-layers")).to_contain_text("Choose a packet")
    expect(page.locator(f"{ROWS}.selected")).to_have_count(0)
    assert parameter(page, "packet") is None


def test_address__names_the_packet(packets, open_page, expect):
    page = packets()
    row = page.locator(ROWS).nth(4)
    row.click(position={"x": 1100, "y": 12})
    number_of = page.locator("#packets-layers .field-line", has_text="Number")
    expect(number_of).to_contain_text(f"{int(cells(row)[0]):,}")
    want = page.locator("#packets-bytes").inner_text()
    again = packets(page.evaluate("location.pathname + location.search"))
    expect(again.locator("#packets-hex")).to_be_enabled()
    assert again.locator("#packets-bytes").inner_text() == want


def test_flow__is_followed_and_opened(packets, expect):
    page = packets(NEWEST + "&filter=app%3Dhttp")
    page.get_by_role("button", name="Follow flow").click()
    expect(page.locator(".chip")).to_have_count(2)
    expect(page.locator("#packets-note")).to_have_text(re.compile(r"^\d of "))
    page.get_by_role("button", name="Open flow").click()
    expect(page.locator(".flow-drawer h2")).to_contain_text("HTTP")


def test_payload__is_text_for_operators_and_not_there_for_viewers(packets, expect):
    page = packets(NEWEST + "&filter=app%3Dhttp")
    expect(page.locator("#packets-grid")).not_to_contain_text("HTTP/1.1")
    page.get_by_role("button", name="Payload").click()
    expect(page.locator(ROWS, has_text="HTTP/1.1 200 OK").first).to_be_visible()
    evil = packets(NEWEST + "&filter=host%3D203.0.113.66")
    evil.get_by_role("button", name="Payload").click()
    expect(evil.locator(ROWS, has_text=EVIL).first).to_be_visible()
    expect(evil.locator("main img")).to_have_count(0)
    viewer = packets(NEWEST + "&filter=app%3Dhttp", user="vera")
    expect(viewer.locator("#packets-payload, #packets-pcap, #packets-download")).to_have_count(0)
    expect(viewer.locator(".hex-foot")).to_contain_text("for operators")
    expect(viewer.locator("#packets-layers")).not_to_contain_text("Method")


def test_brush__sets_the_range_of_the_list(packets, expect):
    page = packets()
    before = number(page.locator("#packets-note").inner_text().split("·")[0])
    expect(page.locator("#packets-timeline .scatterlayer .trace")).not_to_have_count(0)
    box = page.locator("#packets-timeline .nsewdrag").first.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.5, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, y, steps=4)
    page.mouse.up()
    expect(page.locator("#packets-note")).not_to_contain_text(f"{before:,} packets")
    start, end = map(int, parameter(page, "range").split(","))
    assert 80e6 < end - start < 100e6
    assert 0 < number(page.locator("#packets-note").inner_text().split("·")[0]) < before


def test_live__moves_until_a_packet_is_chosen_then_resumes(site, packets, recorded, expect):
    page = packets("/packets?range=15m")
    top = page.locator(f"{ROWS} > span").first
    newest = top.inner_text()
    expect(page.locator("#packets-resume")).to_be_hidden()
    page.locator(ROWS).nth(2).click(position={"x": 1100, "y": 12})
    expect(page.locator("#packets-resume")).to_be_visible()
    chosen = parameter(page, "packet")
    page.wait_for_timeout(1_200)
    expect(page.locator(f"{ROWS}.selected")).to_have_attribute("data-row", "2")
    assert parameter(page, "packet") == chosen
    page.locator("#packets-resume").click()
    expect(page.locator("#packets-resume")).to_be_hidden()
    expect(page.locator(f"{ROWS}.selected")).to_have_count(0)
    expect(top).to_have_text(newest)


def test_export__csv_is_what_is_shown_and_pcap_says_its_size_first(packets, con, expect, tmp_path):
    page = packets(NEWEST + "&filter=app%3Ddns")
    [(want,)] = con.execute("SELECT count(*) FROM packets WHERE app = 'dns'").fetchall()
    page.get_by_role("button", name="Export or explain Packets").click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="Export CSV").click()
    assert len(download.value.path().read_text().splitlines()) == want + 1
    page.get_by_role("button", name="Export pcap").click()
    expect(page.locator("dialog.modal")).to_contain_text(f"{want:,} packets,")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download pcap").click()
    with download.value.path().open("rb") as opened:
        assert sum(1 for _ in dpkt.pcapng.Reader(opened)) == want
    page.get_by_role("button", name="Export or explain Packets").click()
    page.get_by_role("menuitem", name="Show the SQL").click()
    expect(page.locator(".drawer pre").first).to_contain_text("app = 'dns'")


def test_states__nothing_found_and_failed(packets, open_page, expect):
    page = open_page(NEWEST + "&filter=host%3D192.0.2.222")
    expect(page.locator("#packets-grid")).to_contain_text("No packets here.")
    page.locator("#packets-grid").get_by_role("button", name="Clear filter").click()
    expect(page.locator(ROWS).first).to_contain_text(re.compile(r"\d"))
    # Its bytes are gone from the ring: what the row says is shown, and why there is no more.
    why = "frame 7 of eth0 is no longer on disk"
    row = {"ts": 1, "frame_no": 7, "source": "eth0", "sensor": "s1", "wirelen": 60}
    gone = {"row": row, "layers": [], "bytes": None, "missing": why, "wirelen": 60, "captured": 0, "link_type": None}
    page.route("**/api/v1/packet?*", lambda route: route.fulfill(status=200, json=gone))
    page.locator("main").press("j")
    expect(page.locator("#packets-bytes")).to_contain_text("no longer on disk")
    expect(page.locator("#packets-hex")).to_be_disabled()
    page.unroute("**/api/v1/packet?*")


@pytest.mark.parametrize(("theme", "size"), [("light", (1440, 900)), ("dark", (1024, 768))])
def test_layout__fits_and_is_accessible(packets, expect, theme, size):
    page = packets(color_scheme=theme, viewport={"width": size[0], "height": size[1]})
    expect(page.locator("#packets-hex")).to_be_enabled()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= size[0]
    main = page.locator("main").evaluate("m => [m.scrollHeight, m.clientHeight]")
    assert main[0] <= main[1]
    hexes = page.locator(".hex").evaluate("h => [h.scrollWidth, h.clientWidth]")
    assert hexes[0] <= hexes[1]
    axe.check(page)
