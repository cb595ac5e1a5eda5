"""What a chart shows is there as a table and as CSV: by keyboard, with the same numbers, for a screen reader."""

from __future__ import annotations

import csv
import io
import re

import pytest

from tests.webui import axe
from tests.webui.test_page_overview import counted  # noqa: F401 — a fixture

pytestmark = pytest.mark.browser

# Page, card, and what its columns are.
CHARTS = [
    ("/", "Traffic", ["Time", "TCP"]),
    ("/", "Protocol mix", ["Name", "Bytes"]),
    ("/packets", "Packets", ["Time", "TCP"]),
    ("/flows", "Flows", ["Time", "TCP"]),
    ("/hosts/10.20.0.99", "Bits per second", ["Time", "Sent", "Received"]),
    ("/hosts?view=graph", "Who talks to whom", ["Host", "Other host", "Application", "Bytes", "Flows", "Failed"]),
    ("/applications", "Queries", ["Time", "Answered"]),
    ("/applications", "Latency", ["Time", "Median"]),
    ("/alerts", "Alerts that began", ["Time", "medium"]),
    ("/health", "CPU by stage", ["Time"]),
    ("/health", "Frames", ["Time"]),
    ("/health", "Disk", ["Name", "Bytes"]),
]  # fmt: skip


def opened(page, card, expect):
    """The table of a card, by keyboard alone from the button of its menu on."""
    button = page.get_by_role("button", name=re.compile(f"^Export or explain {card}"), exact=False).first
    expect(page.locator("main[data-painted]")).to_be_visible()
    expect(page.locator(".card", has=button).locator("[data-told=chart]").first).to_be_visible()
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("menuitem").first).to_be_focused()
    expect(page.get_by_role("menuitem").first).to_have_text("View as table")
    page.keyboard.press("Enter")
    dialog = page.locator("dialog.modal.wide")
    expect(dialog).to_be_visible()
    return button, dialog


@pytest.mark.parametrize(("path", "card", "columns"), CHARTS)
def test_chart__is_a_table_by_key(open_page, counted, expect, path, card, columns):  # noqa: F811
    at = counted if path == "/health" else None
    page = open_page(f"{path}{'&' if '?' in path else '?'}range=15m", at=at)
    button, dialog = opened(page, card, expect)
    heads = dialog.locator("thead th").all_inner_texts()
    for column in columns:
        assert any(head.lower().startswith(column.lower()) for head in heads), heads
    assert dialog.locator("tbody tr").count() > 1
    axe.check(page)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(button).to_be_focused()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_table__has_the_numbers_of_the_chart_as_a_file_too(site, open_page, expect, theme):
    page = open_page("/?range=15m", color_scheme=theme)
    _, dialog = opened(page, "Traffic", expect)
    axe.check(page)
    timeline = site.watch.answer("overview", range_text="15m", params={"tail": 40, "top": 10})["timeline"]
    with page.expect_download() as file:
        dialog.get_by_role("button", name="Download CSV").click()
    head, *rows = csv.reader(io.StringIO(file.value.path().read_text()))
    assert len(rows) == len(timeline["total_pps"]) == dialog.locator("tbody tr").count()
    sums = [sum(float(v) for v, name in zip(row, head, strict=True) if "pps" in name) for row in rows]
    assert sums == pytest.approx(timeline["total_pps"], rel=0.02)
    assert rows[0][0].endswith("Z")
    busiest = max(range(len(rows)), key=sums.__getitem__)
    shown = dialog.locator("tbody tr").nth(busiest).locator("td").all_inner_texts()
    at = head.index(next(name for name in head if name.startswith("TCP")))
    assert float(shown[at - 1].replace(",", "").replace("–", "0")) == float(rows[busiest][at] or 0)
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name="Close").last.press("Enter")
    expect(dialog).to_have_count(0)


def test_card__without_a_question_has_its_file(open_page, expect):
    page = open_page("/health?range=15m")
    expect(page.locator("main[data-painted]")).to_be_visible()
    page.get_by_role("button", name="Export or explain Disk").click()
    with page.expect_download() as file:
        page.get_by_role("menuitem", name="Export CSV").click()
    assert file.value.suggested_filename == "disk.csv"
    assert file.value.path().read_text().startswith("Name,Bytes\n")
