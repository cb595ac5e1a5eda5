"""The SQL page in a real browser: editing, completion, running, errors, cancelling, lists, chart, exports."""

from __future__ import annotations

import re

import pyarrow.parquet as pq
import pytest

from engine.errors import ConfigError
from tests.webui import axe
from tests.webui.traffic import EVIL
from webui import sql_book

pytestmark = pytest.mark.browser
READY = "[data-painted=true]"
ENDLESS = "SELECT count(*) FROM range(1000000) a, range(1000000) b"


@pytest.fixture
def sql(open_page, expect):
    """The page, with `text` in the editor; `run` presses Run."""

    def open_(text="", **options):
        page = open_page("/sql", **options)
        expect(page.locator(READY)).to_have_count(1)
        if text:
            write(page, text)
        return page

    return open_


def write(page, text):
    page.evaluate("text => ace.edit('sql-editor').setValue(text, 1)", text)


def run(page):
    page.locator("#sql-run").click()


def text_of(page):
    return page.evaluate("ace.edit('sql-editor').getValue()")


def rows(page):
    return page.locator("#sql-grid .grid-row")


def test_run__by_key_gives_a_grid_and_a_status(sql, recorded, expect):
    page = sql("SELECT proto, count(*) AS n FROM packets GROUP BY ALL ORDER BY ALL")
    page.locator("#sql-editor textarea").press("Control+Enter")
    expect(page.locator("#sql-status")).to_have_text(re.compile(r"^\d+ rows · [\d.]+\s(ms|s)$"))
    expect(page.locator("#sql-grid .grid-head")).to_contain_text("proto")
    expect(rows(page)).not_to_have_count(0)
    total = sum(int(cell.replace(",", "")) for cell in rows(page).locator("span.number:nth-child(2)").all_inner_texts())
    assert total == recorded.packets


def test_run__only_what_is_marked(sql, expect):
    page = sql("SELECT 1 AS one;\nSELECT 2 AS two")
    page.evaluate("ace.edit('sql-editor').selection.setRange({start: {row: 0, column: 0}, end: {row: 0, column: 15}})")
    run(page)
    expect(page.locator("#sql-grid .grid-head")).to_have_text("one")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("SELECT 1\nFROM packets\nWHRE x", 3, "syntax error"),
        ("SELECT 1;\n\nSELECT *\nFROM nowhere", 4, "nowhere does not exist"),
        ("SELECT\n  no_such FROM packets", 2, "no_such"),
        ("COPY packets TO 'x.csv'", None, "COPY is refused"),
    ],
)
def test_error__says_why_and_marks_the_line(sql, expect, text, line, says):
    page = sql(text)
    run(page)
    expect(page.locator("#sql-error")).to_contain_text(says)
    marks = page.evaluate("ace.edit('sql-editor').session.getAnnotations().map(a => a.row + 1)")
    assert marks == ([] if line is None else [line])
    write(page, "SELECT 1")
    expect(page.locator("#sql-error")).to_be_hidden()


def test_cancel__ends_a_query_that_never_would(sql, expect):
    page = sql(ENDLESS)
    run(page)
    expect(page.locator("#sql-status")).to_contain_text("running")
    page.locator("#sql-cancel").click()
    expect(page.locator("#sql-error")).to_have_text("the query was cancelled")
    expect(page.locator("#sql-cancel")).to_be_hidden()
    write(page, "SELECT 42 AS answer")
    run(page)
    expect(rows(page)).to_have_text("42")


def test_completion__offers_tables_and_the_columns_of_those_named(sql, expect):
    page = sql("SELECT  FROM flows")
    page.evaluate("ace.edit('sql-editor').gotoLine(1, 7)")
    page.locator("#sql-editor textarea").focus()
    page.keyboard.type("src_por")
    expect(page.locator(".ace_autocomplete")).to_be_visible()
    expect(page.locator(".ace_autocomplete .ace_line").first).to_contain_text("src_port")
    page.keyboard.press("Enter")
    assert text_of(page).startswith("SELECT src_port FROM flows")


def test_schema__a_click_inserts_and_the_search_finds(sql, expect):
    page = sql("SELECT ")
    page.locator("#sql-search-text").fill("ja4")
    page.locator(".sql-column").get_by_text("ja4", exact=True).first.click()
    assert text_of(page) == "SELECT ja4"
    page.locator("#sql-search-text").fill("")
    page.get_by_role("button", name="Columns of dns", exact=True).click()
    expect(page.get_by_role("button", name="Columns of dns", exact=True)).to_have_attribute("aria-expanded", "true")
    page.get_by_role("button", name="Columns of packets").click()
    expect(page.locator(".sql-column", has_text="ts_nanos")).to_have_count(0)


def test_saved_and_history__are_kept_by_the_server_for_each_person(sql, site, expect):
    page = sql("-- Names asked\nSELECT count(*) FROM dns", user="otto")
    run(page)
    expect(page.locator("#sql-status")).to_contain_text("1 row ·")
    page.locator("#sql-save").click()
    expect(page.locator("#sql-save-name")).to_have_value("Names asked")
    page.get_by_role("button", name="Save", exact=True).last.click()
    expect(page.locator(".sql-query-item")).to_contain_text("Names asked")
    write(page, "SELECT 1")
    page.locator(".sql-query-item").click()
    assert "FROM dns" in text_of(page)
    page.locator("[data-tab=history]").click()
    expect(page.locator(".sql-query-item").first).to_contain_text("SELECT count(*) FROM dns")
    assert [q["name"] for q in sql_book.read(site.lake, "otto")["saved"]] == ["Names asked"]
    assert sql_book.read(site.lake, "vera") == {"saved": [], "history": []}
    page.locator("[data-tab=saved]").click()
    page.get_by_role("button", name="Remove Names asked").click()
    expect(page.locator("#sql-list")).to_contain_text("Nothing saved yet")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".sql-query-item")).to_contain_text("Names asked")


def test_book__is_bounded(tmp_path):
    for i in range(sql_book.MAX_HISTORY + 5):
        sql_book.note(tmp_path, "a", f"SELECT {i}", ms=1, rows=1)
    sql_book.note(tmp_path, "a", "SELECT 7", ms=1, rows=1)
    sql_book.note(tmp_path, "a", "x" * (sql_book.MAX_SQL + 1))
    history = sql_book.read(tmp_path, "a")["history"]
    assert len(history) == sql_book.MAX_HISTORY
    assert [q["sql"] for q in history[:2]] == ["SELECT 7", f"SELECT {sql_book.MAX_HISTORY + 4}"]
    for i in range(sql_book.MAX_SAVED):
        sql_book.save(tmp_path, "a", f"q{i}", "SELECT 1")
    sql_book.save(tmp_path, "a", "q1", "SELECT 2")
    for name, text, says in (("one more", "SELECT 1", "remove one"), ("", "SELECT 1", "the name"), ("b", "", "query")):
        with pytest.raises(ConfigError, match=says):
            sql_book.save(tmp_path, "a", name, text)
    assert len(sql_book.read(tmp_path, "a")["saved"]) == sql_book.MAX_SAVED


def test_chart__of_a_column_against_another(sql, expect):
    page = sql("SELECT app, count(*) AS packets, sum(wirelen) AS bytes FROM packets GROUP BY ALL ORDER BY 2 DESC")
    run(page)
    expect(page.locator("#sql-grid")).to_be_visible()
    page.locator("[data-tab=chart]").click()
    expect(page.locator("#sql-chart .barlayer .point")).not_to_have_count(0)
    page.get_by_label("y", exact=True).select_option(label="packets")
    expect(page.locator("#sql-chart")).to_have_attribute("aria-label", re.compile("^packets by app, "))
    page.get_by_label("Type").select_option(label="Points")
    expect(page.locator("#sql-chart .scatterlayer .point")).not_to_have_count(0)
    write(page, "SELECT 'a' AS letter")
    run(page)
    expect(page.locator("#sql-chart")).to_contain_text("needs a column of numbers")


@pytest.mark.parametrize("form", ["CSV", "Parquet", "Arrow"])
def test_export__is_the_whole_result(sql, expect, tmp_path, form):
    page = sql("SELECT range AS n, '=1+1' AS risky FROM range(20000)")
    run(page)
    expect(page.locator("#sql-status")).to_contain_text("only the first 10,000")
    page.locator("#sql-export").click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name=form).click()
    path = tmp_path / "out"
    download.value.save_as(path)
    if form == "CSV":
        lines = path.read_text().splitlines()
        assert (len(lines), lines[1]) == (20_001, "0,'=1+1")
    elif form == "Parquet":
        assert pq.read_table(path).num_rows == 20_000
    else:
        import pyarrow as pa

        assert pa.ipc.open_stream(path.read_bytes()).read_all().num_rows == 20_000


def test_result__times_obey_the_zone_numbers_stay_exact_and_values_lead_on(sql, expect):
    page = sql(
        "SELECT TIMESTAMP '2026-01-02 03:04:05.000006' AS t, 9007199254740993 AS big, '10.20.0.99' AS src_ip",
        timezone_id="Asia/Tokyo",
    )
    run(page)
    expect(rows(page)).to_contain_text("2026-01-02 12:04:05.000006")
    expect(rows(page)).to_contain_text("9007199254740993")
    page.locator("#shell-zone").click()
    menu = page.locator(".menu [role=menuitem]", has_text="UTC")
    if menu.count():
        menu.first.click()
    expect(rows(page)).to_contain_text("2026-01-02 03:04:05.000006")
    page.locator(".pivot").click()
    expect(page.locator(".menu")).to_contain_text("Only src=10.20.0.99")


def test_result__hostile_texts_stay_texts(sql, expect):
    page = sql(f"SELECT '{EVIL}' AS x, '{EVIL}' AS src_ip")
    run(page)
    expect(rows(page)).to_contain_text("onerror")
    page.locator("#sql-grid .grid-view").press("ArrowDown")
    page.locator("#sql-grid .grid-view").press("Enter")
    expect(page.locator(".drawer")).to_contain_text("onerror")
    assert page.locator("img").count() == 0


def test_link__of_show_the_sql_runs_it(open_page, expect):
    page = open_page("/sql?q=SELECT%20'here'%20AS%20place")
    expect(rows(page)).to_have_text("here")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page__is_accessible_and_leaves_the_editor_by_key(sql, expect, theme):
    page = sql("SELECT app, count(*) AS n FROM packets GROUP BY ALL", color_scheme=theme)
    run(page)
    expect(page.locator("#sql-grid")).to_be_visible()
    axe.check(page)
    page.locator("#sql-editor textarea").focus()
    page.keyboard.press("Escape")
    expect(page.locator("#sql-run")).to_be_focused()


def test_viewer__has_no_page(open_page, expect):
    page = open_page("/sql", user="vera")
    expect(page.locator("h1")).to_have_text("SQL needs the role operator")
    expect(page.locator("[data-nav=sql]")).to_have_count(0)
