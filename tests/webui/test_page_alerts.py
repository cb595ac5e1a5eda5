"""The inbox of alerts in a real browser, over labelled attacks; and what its questions answer."""

from __future__ import annotations

import csv
import re
from datetime import UTC
from typing import Any

import pytest

from analytics import alerts as words
from engine.errors import ConfigError
from tests.webui import axe
from tests.webui.conftest import Site
from tests.webui.traffic import EVIL

READY = "[data-painted=true]"
ROWS = "#alerts-list tbody tr"


@pytest.fixture
def inbox(attacked, open_page, expect):
    """The page over the quarter of an hour that has the attacks, painted; a second later than the test before."""

    def open_(path="/alerts?range=20m", **options):
        later(attacked)
        page = open_page(path, at=attacked, **options)
        expect(page.locator(READY)).to_have_count(1)
        return page

    return open_


def later(site: Site) -> None:
    """Answers from now on are new ones."""
    site.now += 5  # ranges of 15 minutes end on whole steps of 5 s, and answers are kept by range


def ask(site: Site, name: str, role: str = "operator", **params: Any) -> Any:
    later(site)
    return site.watch.answer(name, range_text="20m", role=role, params=params)


def of_kind(page: Any, name: str) -> Any:
    return page.locator(ROWS).filter(has_text=name).first


# --- answers ----------------------------------------------------------------------------------------------------


def test_answer__counts_are_those_of_the_lake(attacked):
    answer = ask(attacked, "alerts", state="all", severity="high")
    found = words_of(attacked)
    assert answer["severities"]["medium"] == sum(a["severity"] == "medium" for a in found) > 0
    assert answer["total"] == sum(answer["groups"]["alerts"]) == sum(a["severity"] == "high" for a in found)
    began = {name: sum(v) for name, v in answer["timeline"].items() if isinstance(v, list)}
    assert began == {"high": answer["total"]}
    assert ask(attacked, "alerts", state="all", sort="count")["groups"]["count"][0] == max(a["count"] for a in found)


def words_of(site: Site) -> list[dict[str, Any]]:
    from analytics import connect

    with connect(site.lake) as con:
        return con.sql("SELECT * FROM alerts").to_arrow_table().to_pylist()


def test_answer__payload_is_for_those_who_may_see_it(attacked):
    shell = next(a for a in words_of(attacked) if a["kind"] == "cleartext_shell")
    seen = {
        role: str(ask(attacked, "alert", role, id=shell["incident_id"])["alert"]) for role in ("viewer", "operator")
    }
    assert "uid=0(root)" in seen["operator"]
    assert "uid=0(root)" not in seen["viewer"]
    assert "payload" not in seen["viewer"]


def test_mark_all__all_or_none(attacked):
    ids = [a["incident_id"] for a in words_of(attacked)][:2]
    with pytest.raises(ConfigError, match="'nope' is not in lake"):
        words.mark_all(attacked.lake, [*ids, "nope"], "ann", done=True)
    with pytest.raises(ConfigError, match="0 alerts at once"):
        words.mark_all(attacked.lake, [], "ann", done=True)
    assert all(words.find(attacked.lake, one)["status"] == "open" for one in ids)


# --- the page ---------------------------------------------------------------------------------------------------


@pytest.mark.browser
def test_list__shows_the_incidents_and_narrows(attacked, inbox, expect):
    page = inbox()
    groups = ask(attacked, "alerts")["groups"]
    expect(page.locator(ROWS)).to_have_count(len(groups["kind"]))
    expect(page.locator("#alerts-timeline .scatterlayer .trace")).not_to_have_count(0)
    expect(page.locator("[data-graph=alerts-timeline]")).to_have_attribute("aria-label", re.compile("peak .* at "))
    page.locator(".alerts-chip", has_text="medium").click()
    expect(page.locator(f"{ROWS} [data-severity=high]")).to_have_count(0)
    expect(page.locator(f"{ROWS} [data-severity=medium]")).not_to_have_count(0)
    expect(page.locator(".alerts-chip", has_text="high")).to_contain_text("10")
    page.get_by_label("Kind", exact=True).select_option("beacon")
    expect(page.locator(ROWS)).to_have_count(1)
    page.locator(f"{ROWS} .value[data-field=src]").click(modifiers=["Alt"])
    expect(page.locator("#alerts-list")).to_contain_text("match the filter")
    page.get_by_role("button", name="Clear filter").click()
    expect(page.locator(ROWS)).to_have_count(1)
    page.go_back()
    page.go_back()
    page.go_back()
    page.get_by_role("button", name="Count").click()
    expect(page.locator(ROWS).first).to_contain_text("Beacon")
    assert "severity=medium&sort=count" in page.url


@pytest.mark.browser
def test_timeline__brush_and_zone(attacked, inbox, expect):
    found = words_of(attacked)
    start, end = min(a["first_seen"] for a in found), max(a["last_seen"] for a in found)
    span = ",".join(str(int(t.replace(tzinfo=UTC).timestamp() * 1e6)) for t in (start, end))
    lines = len(ask(attacked, "alerts", state="open")["groups"]["count"])  # other tests may have added some
    page = inbox(f"/alerts?range={span}", timezone_id="Asia/Tokyo")
    expect(page.locator(ROWS)).to_have_count(lines)
    seen = of_kind(page, "Slowloris").locator("td").nth(6)
    tokyo = seen.inner_text()
    page.locator("#shell-zone").click()
    expect(seen).not_to_have_text(tokyo)
    assert (int(tokyo[:2]) - int(seen.inner_text()[:2])) % 24 == 9
    box = page.locator("#alerts-timeline .nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 20, steps=4)
    page.mouse.up()
    expect(page.locator(ROWS)).not_to_have_count(lines)
    assert 0 < page.locator(ROWS).count() < lines
    assert span.split(",")[0] not in page.url


@pytest.mark.browser
def test_drawer__says_why_and_leads_to_packets(attacked, inbox, expect):
    page = inbox()
    of_kind(page, "UDP flood").locator("td").last.click()
    drawer = page.locator(".alert-drawer[open]")
    expect(drawer.locator(".alert-why")).to_contain_text("UDP datagrams and sent 0 within a second")
    expect(drawer.locator(".alert-measure")).to_contain_text("threshold 100")
    expect(drawer.locator(".alert-traffic .trace")).not_to_have_count(0)
    expect(drawer.locator(".alert-packets tbody tr")).to_have_count(20)
    expect(drawer.locator(".alert-history")).to_contain_text("Began")
    page.locator("body").press("j")
    expect(drawer.locator("h2")).to_have_text("Cleartext shell")
    expect(drawer).to_contain_text("Answer of `id` in clear")
    assert "alert=" in page.url
    drawer.get_by_role("button", name="Its packets").click()
    expect(page.locator("h1")).to_have_text("Packets")
    assert re.search(r"range=\d+%2C\d+&filter=host%3D10.21.0.101\+host%3D198.18.210.9", page.url)
    page.go_back()
    expect(drawer.locator("h2")).to_have_text("Cleartext shell")
    page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)
    expect(page).not_to_have_url(re.compile("alert="))


@pytest.mark.browser
def test_drawer__opens_by_its_address_and_says_what_is_not_there(attacked, inbox, expect):
    beacon = next(a for a in words_of(attacked) if a["kind"] == "beacon")
    page = inbox(f"/alerts/{beacon['incident_id']}?range=20m")
    expect(page.locator(".alert-drawer h2")).to_have_text("Beacon")
    page.locator(".alert-drawer[open]").get_by_label("Close").click()
    expect(page.locator(".alert-drawer[open]")).to_have_count(0)
    expect(page).to_have_url(re.compile(r"/alerts\?range=20m$"))


@pytest.mark.browser
def test_operator__acknowledges_by_key_and_takes_it_back(attacked, inbox, expect):
    page = inbox(user="otto")
    shown = page.locator(ROWS).count()
    page.locator("body").press("j")
    page.locator("body").press("e")
    expect(page.locator(ROWS)).to_have_count(shown - 1)
    expect(page.locator(".toast")).to_contain_text("Acknowledged 1 alert")
    later(attacked)
    expect(page.locator("[data-tab=acknowledged]")).to_have_text("Acknowledged 1")
    page.locator("[data-tab=acknowledged]").click()
    expect(page.locator(ROWS)).to_have_count(1)
    expect(page.locator(ROWS)).to_contain_text("by otto")
    with page.expect_response("**/alerts/reopen"):
        page.get_by_role("button", name="Undo").click()
    later(attacked)
    expect(page.locator("#alerts-list")).to_contain_text("No acknowledged alerts")
    assert [a for a in words_of(attacked) if a["status"] != "open"] == []
    page.locator("[data-tab=open]").click()
    expect(page.locator(ROWS)).to_have_count(shown)


@pytest.mark.browser
def test_operator__several_at_once(attacked, inbox, expect):
    page = inbox(user="otto")
    for kind in ("Ping sweep", "Host sweep"):
        of_kind(page, kind).get_by_role("checkbox").check()
    expect(page.locator("#alerts-selected")).to_contain_text("2 alerts selected")
    page.get_by_role("button", name="Acknowledge", exact=True).click()
    expect(page.locator(ROWS).filter(has_text="sweep")).to_have_count(0)
    expect(page.locator(".toast")).to_contain_text("Acknowledged 2 alerts")
    done = [a for a in words_of(attacked) if a["status"] == "acknowledged"]
    assert {a["kind"] for a in done} == {"ping_sweep", "host_sweep"}
    assert {a["acknowledged_by"] for a in done} == {"otto"}
    words.mark_all(attacked.lake, [a["incident_id"] for a in done], "otto", done=False)


@pytest.mark.browser
def test_operator__notes_and_mutes(attacked, inbox, expect):
    page = inbox(user="otto")
    of_kind(page, "Slowloris").locator("td").last.click()
    drawer = page.locator(".alert-drawer[open]")
    drawer.get_by_label("Note").fill(EVIL)
    later(attacked)
    drawer.get_by_role("button", name="Add note").click()
    expect(drawer.locator(".alert-history")).to_contain_text(EVIL)
    assert drawer.locator("img").count() == 0
    drawer.get_by_role("button", name="Mute 24 h").click()
    page.get_by_role("menuitem", name="Slowloris from 198.18.66.6", exact=True).click()
    expect(page.locator(".toast")).to_contain_text("muted for 24 hours")
    [muted] = words.mutes(attacked.lake)
    assert (muted["kind"], muted["src_ip"], muted["dst_ip"]) == ("slowloris", "198.18.66.6", None)
    page.keyboard.press("Escape")
    later(attacked)
    expect(page.locator("#alerts-muted")).to_have_text("Muted 1")
    page.locator("#alerts-muted").click()
    page.get_by_role("button", name="Unmute").click()
    later(attacked)
    expect(page.locator("#alerts-muted")).to_have_text("Muted")
    assert words.mutes(attacked.lake) == []


@pytest.mark.browser
def test_operator__enters_an_alert(attacked, inbox, expect):
    page = inbox("/alerts?range=20m&filter=src%3D10.21.0.66", user="otto")
    page.locator("#alerts-new").click()
    modal = page.locator("dialog.modal")
    expect(modal.locator("#alerts-new-src")).to_have_value("10.21.0.66")
    modal.locator("#alerts-new-kind").fill("stolen laptop")
    modal.get_by_role("button", name="Create").click()
    expect(modal.locator(".problem")).to_contain_text("what happened")
    modal.locator("#alerts-new-why").fill(f"=cmd {EVIL}")
    modal.get_by_role("button", name="Create").click()
    expect(modal).to_have_count(0)
    [made] = [a for a in words_of(attacked) if a["kind"] == "stolen_laptop"]
    attacked.now = (
        max(attacked.now, made["last_seen"].replace(tzinfo=UTC).timestamp()) + 30
    )  # ranges end on whole steps
    assert (made["why"], made["reported_by"]) == (f"=cmd {EVIL}", "otto")
    expect(of_kind(page, "Stolen laptop")).to_contain_text(EVIL)
    assert page.locator("main img").count() == 0
    page.get_by_role("button", name="Export or explain Inbox").click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="Export CSV").click()
    rows = list(csv.DictReader(download.value.path().read_text(encoding="utf-8-sig").splitlines()))
    assert {row["src_ip"] for row in rows} == {"10.21.0.66"}
    assert "'=cmd" in next(row for row in rows if row["kind"] == "stolen_laptop")["why"]
    page.get_by_role("button", name="Export or explain Inbox").click()
    page.get_by_role("menuitem", name="Show the SQL").click()
    expect(page.locator(".drawer pre")).to_contain_text("alerts_between")


@pytest.mark.browser
def test_viewer__may_look_and_nothing_else(attacked, inbox, expect):
    page = inbox(user="vera")
    assert page.locator("#alerts-new, #alerts-list input").count() == 0
    of_kind(page, "Cleartext shell").locator("td").last.click()
    drawer = page.locator(".alert-drawer[open]")
    expect(drawer.locator(".alert-why")).to_contain_text("Root prompt")
    expect(drawer).not_to_contain_text("uid=0")
    assert drawer.locator(".dialog-foot, textarea").count() == 0
    page.locator("body").press("e")
    client = attacked.app.test_client()
    client.set_cookie("packetlake_session", attacked.cookie("vera")["value"], domain="127.0.0.1")
    one = words_of(attacked)[0]["incident_id"]
    from_here = {"Host": "127.0.0.1", "Sec-Fetch-Site": "same-origin"}
    for path, body in (("ack", {"ids": [one]}), (f"{one}/note", {"note": "x"}), ("reopen", {"ids": [one]})):
        assert client.post(f"/api/v1/alerts/{path}", json=body, headers=from_here).status_code == 403
    assert all(a["status"] == "open" for a in words_of(attacked))


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_accessible__list_and_drawer(inbox, expect, theme):
    page = inbox(color_scheme=theme)
    of_kind(page, "UDP flood").get_by_role("checkbox").check()
    axe.check(page)
    of_kind(page, "Port scan").locator("td").last.click()
    expect(page.locator(".alert-history")).to_be_visible()
    axe.check(page)


@pytest.mark.browser
def test_size__nothing_sticks_out(inbox):
    page = inbox(viewport={"width": 1024, "height": 768})
    assert page.evaluate("document.documentElement.scrollWidth") <= 1024
    for box in ("#alerts-list", ".alerts-bar"):
        assert (
            page.evaluate("s => { const n = document.querySelector(s); return n.scrollWidth - n.clientWidth; }", box)
            <= 0
        )
