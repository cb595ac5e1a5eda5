"""The page of the capture's health: what was lost and what to do, how busy the engine is, and what is not there."""

from __future__ import annotations

import re

import pyarrow.parquet as pq
import pytest

from analytics.watch.answers.health import REMEDIES
from engine.usage import CPU
from tests.lakes import write_empty_lake
from tests.webui import axe
from tests.webui.conftest import Site, add_people
from tests.webui.test_page_overview import counted, overflowing, parameter  # noqa: F401 — a fixture

pytestmark = pytest.mark.browser
TITLES = {"kernel_drops": "Kernel's ring was full", "interface_drops": "Lost by the card",
          "drop_rows_shed": "Given up under pressure", "drop_not_written": "Could not be written"}  # fmt: skip
READY = "[data-painted=true]"


@pytest.fixture
def health(open_page, counted, expect):  # noqa: F811
    def open_(path="/health?range=5m", **options):
        page = open_page(path, **{"at": counted, **options})
        expect(page.locator(READY)).to_have_count(1)
        return page

    return open_


def test_engine__tells_its_own_cpu_time_and_fill(recorded):
    """As the engine itself wrote them when it replayed the recorded captures."""
    rows = [
        row
        for path in (recorded.lake / "capture_stats").rglob("*.parquet")
        for row in pq.ParquetFile(path).read().to_pylist()
    ]
    sums = {name: sum(row[name] for row in rows) for name in CPU}
    assert all(us > 0 for us in sums.values()), sums
    seconds = sum(row["interval_s"] for row in rows)
    assert sums["cpu_publish_us"] < 1e6 * seconds
    assert 0 < max(row["pool_fill"] for row in rows) <= 100


def test_losses__by_cause_with_what_to_do_and_books_that_balance(counted, health, expect):  # noqa: F811
    page = health()
    table = page.locator("#health-losses tbody")
    for cause, n in counted.lost.items():
        row = table.locator("tr", has_text=TITLES[cause])
        expect(row.locator("td").nth(1)).to_have_text(str(n))
        expect(row).to_contain_text(REMEDIES[cause][:12])
    expect(table).to_contain_text("Messages not read")
    totals = counted.watch.answer("health", range_text="5m")["totals"]
    lost = sum(n for cause, n in counted.lost.items() if cause != "interface_drops")
    expect(page.locator("#health-books")).to_have_text(
        f"{totals['received']:,} received = {totals['rows']:,} rows + {lost} lost"
    )
    expect(page.locator("#health-lost")).to_contain_text(f"{sum(counted.lost.values())} of")
    expect(page.locator("#health-lost")).to_have_attribute("data-level", "bad")


def test_charts__show_fates_sources_stages_and_pressure(health, expect):
    page = health()
    traces = page.locator("#health-frames .scatterlayer .trace")
    expect(page.locator("#health-legend")).to_contain_text("Kernel's ring was full")
    page.locator("[data-tabs=health-frames] [data-tab=source]").click()
    expect(page.locator("#health-legend")).to_have_text("eth0eth1")
    expect(traces).to_have_count(2)
    expect(page.locator("#health-stages .scatterlayer .trace")).to_have_count(5)
    label = page.locator("[data-graph=health-pressure]")
    expect(label).to_have_attribute("aria-label", re.compile("Batches in use"))
    page.locator("[data-tabs=health-pressure] [data-tab=ring_frames]").click()
    expect(label).to_have_attribute("aria-label", re.compile("kernel's ring"))
    expect(page.locator("#health-sources tbody tr")).to_have_count(2)
    expect(page.locator("#health-tables")).to_contain_text("raw frames")
    plot = page.locator("#health-frames .nsewdrag").first.bounding_box()
    page.mouse.move(plot["x"] + 300, plot["y"] + 50)
    page.mouse.down()
    page.mouse.move(plot["x"] + 600, plot["y"] + 50, steps=3)
    page.mouse.up()
    expect(page.locator("#shell-live")).to_have_attribute("aria-pressed", "false")
    assert "," in parameter(page, "range")


def test_exports__and_sql_of_each_card(counted, health, expect):  # noqa: F811
    page = health()
    page.get_by_role("button", name="Export or explain Losses, and what to do").click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="Export CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert lines[0].startswith("source,received,kernel_drops")
    assert {line.split(",")[0] for line in lines[1:]} == {"eth0", "eth1"}
    page.get_by_role("button", name="Export or explain Pressure").click()
    page.get_by_role("menuitem", name="Show the SQL").click()
    expect(page.locator(".drawer pre")).to_contain_text("max(pool_fill)")
    for part in ("counters", "usage", "sources"):
        answer = page.request.get(f"{counted.url}/api/v1/health?range=5m&format=csv&part={part}")
        assert answer.status == 200
        assert len(answer.text().splitlines()) > 2


def test_frame__says_what_the_capture_does_and_leads_here(open_page, counted, expect):  # noqa: F811
    page = open_page("/?range=5m", at=counted)
    state = page.locator("#shell-capture")
    expect(state).to_contain_text("Capturing on eth0, eth1")
    expect(state).to_contain_text(re.compile(r"0 drops · \S+ pps · "))
    expect(state).to_have_attribute("data-level", "ok")
    state.get_by_role("link").press("Enter")
    expect(page.locator("h1")).to_have_text("Health")


def test_states__stopped_nothing_and_a_damaged_segment(counted, tmp_path, open_page, health, expect):  # noqa: F811
    counted.now += 900
    page = health("/health?range=1h")
    expect(page.locator("#health-state")).to_contain_text("Stopped")
    expect(page.locator("#health-state")).to_contain_text("15 min ago")
    expect(page.locator("#shell-capture")).to_contain_text("Capture stopped")
    expect(page.locator("#shell-capture")).to_contain_text("15 min ago")
    page.locator("[data-range='5m']").click()
    expect(page.locator("#health-state")).to_contain_text("Stopped")
    expect(page.locator("[data-graph=health-frames]")).to_contain_text("Nothing was captured in this range")
    counted.now -= 900

    write_empty_lake(tmp_path / "lake")
    add_people(tmp_path / "lake")
    empty = Site(tmp_path / "lake", counted.now)
    hour = tmp_path / "lake" / "capture_stats" / "sensor=s1" / "date=2026-01-01" / "hour=00"
    hour.mkdir(parents=True)
    page = open_page("/health?range=5m", at=empty)
    expect(page.locator("#health-state .value")).to_have_text("None")
    expect(page.locator("[data-graph=health-frames]")).to_contain_text("Nothing was captured in this range")
    expect(page.locator("#health-sources")).to_contain_text("No source counted anything")
    expect(page.locator("#health-unreadable")).to_be_hidden()
    (good,) = (counted.lake / "capture_stats").rglob("*.parquet")
    place = tmp_path / "lake" / good.parent.relative_to(counted.lake)
    place.mkdir(parents=True, exist_ok=True)
    (place / good.name).write_bytes(good.read_bytes()[:-200])
    empty.now += 1
    expect(page.locator("#health-unreadable")).to_contain_text(good.name)
    empty.close()


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 1024)])
def test_page__is_accessible_and_fits(health, theme, width):
    page = health(color_scheme=theme, viewport={"width": width, "height": 768}, user="vera")
    page.wait_for_timeout(300)
    assert overflowing(page) == []
    axe.check(page)
