"""The Configuration page in a real browser: what an admin changes is in the file; an operator reads; secrets stay."""

from __future__ import annotations

import re
import tomllib

import pytest

from engine import settings
from tests.webui import axe
from tests.webui.conftest import PASSWORD, Site
from tests.webui.traffic import EVIL
from webui import audit, auth, users

pytestmark = pytest.mark.browser
READY = "[data-painted=true]"


@pytest.fixture
def conf(open_page, expect, site):
    """The page; what it wrote is gone afterwards."""

    def open_(user="ada", at: Site | None = None, **options):
        page = open_page("/configuration", user=user, at=at, **options)
        expect(page.locator(READY)).to_have_count(1)
        return page

    yield open_
    settings.of_lake(site.lake).unlink(missing_ok=True)


def written(site):
    return tomllib.loads(settings.of_lake(site.lake).read_text())


def save(page, expect):
    page.locator("#configuration-save").click()
    expect(page.locator("#configuration-bar")).to_be_hidden()


def test_rules__switch_parameter_and_severity_are_saved_together(conf, site, expect):
    page = conf()
    page.get_by_role("switch", name="Rule beacon").click()
    page.locator("[data-rule=port_scan] .conf-rule-name").click()
    page.locator("#configuration-rule-port_scan-distinct_ports").fill("25")
    page.get_by_label("Severity of port_scan").select_option("critical")
    expect(page.locator("#configuration-bar")).to_contain_text("3 changes not saved")
    expect(page.locator("#configuration-bar")).to_contain_text("from the engine's next start")
    save(page, expect)
    assert written(site) == {
        "rules": {"beacon": {"enabled": False}, "port_scan": {"distinct_ports": 25}},
        "alerts": {"kind": [{"name": "port_scan", "cooldown_s": 0, "severity": "critical"}]},
    }
    expect(page.locator("[data-rule=beacon]")).to_contain_text("off")
    expect(page.locator("[data-rule=port_scan]")).to_contain_text("usual: 12")
    page.reload()
    expect(page.get_by_role("switch", name="Rule beacon")).to_have_attribute("aria-checked", "false")
    assert audit.read(site.lake)[0]["event"] == "configuration"


def test_rules__say_how_often_each_fires(conf, expect):
    page = conf()
    expect(page.locator("[data-rule=port_scan] .conf-fires")).to_have_text(re.compile(r"^[\d.]+ a day$"))
    expect(page.locator("[data-rule=port_scan] .conf-fires")).to_have_attribute("title", re.compile("in the last day"))
    expect(page.locator("[data-rule=arp_spoof] .conf-fires")).to_have_text("none")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export the rules as CSV").click()
    assert "port_scan,true," in download.value.path().read_text()


def test_change__what_is_wrong_is_said_and_can_be_discarded(conf, site, expect):
    page = conf()
    page.locator("#configuration-capture-bpf_filter").fill("tcp port")
    page.locator("#configuration-save").click()
    expect(page.locator("#configuration-bar .conf-problem")).to_contain_text("BPF filter 'tcp port' is wrong")
    assert not settings.of_lake(site.lake).exists()
    page.get_by_role("button", name="Discard").click()
    expect(page.locator("#configuration-capture-bpf_filter")).to_have_value("")
    expect(page.locator("#configuration-bar")).to_be_hidden()
    page.locator("#configuration-scoring-threshold").fill("much")
    expect(page.locator("#configuration-scoring-threshold")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#configuration-bar")).to_be_hidden()


def test_change__of_somebody_else_is_not_overwritten(conf, site, expect):
    page = conf()
    page.locator("#configuration-alerts-cooldown_s").fill("30")
    settings.write(settings.of_lake(site.lake), "[alerts]\nupdate_s = 9.0\n")
    page.locator("#configuration-save").click()
    expect(page.locator("#configuration-bar .conf-problem")).to_contain_text("has changed meanwhile")


def test_notifications__a_target_is_added_tested_and_its_secret_is_gone(conf, site, expect):
    page = conf()
    page.get_by_role("button", name="Add a target").click()
    page.get_by_label("Name").fill("ops")
    page.get_by_label("URL").fill("json://127.0.0.1:9/hidden-words")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#configuration-notifications-body")).to_contain_text("save it to test it")
    save(page, expect)
    page.get_by_role("button", name="Send test").click()
    expect(page.locator(".conf-test")).to_contain_text("not sent", timeout=60_000)
    assert "hidden-words" not in page.content()
    assert written(site)["notify"]["targets"][0]["url"].endswith("hidden-words")
    page.get_by_role("button", name="Change ops").click()
    page.get_by_label("From severity").select_option("high")
    page.get_by_role("button", name="Change", exact=True).click()
    save(page, expect)
    target = written(site)["notify"]["targets"][0]
    assert (target["min_severity"], target["url"].endswith("hidden-words")) == ("high", True)


def test_suppression__is_added_and_removed(conf, site, expect):
    page = conf()
    page.get_by_role("button", name="Leave out …").click()
    page.get_by_label("Kinds").fill("port_scan, beacon")
    page.get_by_label("Source", exact=True).fill("10.20.0.99")
    page.get_by_label("Reason").fill(EVIL)
    page.get_by_role("button", name="Add", exact=True).click()
    save(page, expect)
    assert written(site)["alerts"]["suppress"] == [
        {"kinds": ["port_scan", "beacon"], "src": ["10.20.0.99"], "reason": EVIL}
    ]
    expect(page.locator("#configuration-alerts-body")).to_contain_text("onerror")
    assert page.locator("main img").count() == 0
    page.get_by_role("button", name="Remove: kinds port_scan, beacon").click()
    save(page, expect)
    assert written(site) == {}


def test_people__are_added_changed_and_removed(conf, site, expect):
    page = conf()
    body = page.locator("#configuration-users-body")
    page.get_by_role("button", name="Add a user").click()
    page.get_by_label("Name").fill("nora")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Add", exact=True).click()
    expect(body).to_contain_text("nora")
    page.get_by_label("Role of nora").select_option("operator")
    expect(page.locator(".toast")).to_contain_text("nora is operator now")
    assert users.listing(site.lake)["nora"] == "operator"
    auth.start_session(site.lake, "nora", "192.0.2.7", EVIL)
    row = body.locator("tr", has_text="nora")
    row.get_by_role("button", name="End sessions").click()
    expect(page.locator(".toast", has_text="1 session ended")).to_be_visible()
    row.get_by_role("button", name="Password …").click()
    page.get_by_label("New password").fill("another long password")
    page.get_by_role("button", name="Set", exact=True).click()
    expect(page.locator(".toast", has_text="has a new password")).to_be_visible()
    assert users.verify(site.lake, "nora", "another long password")
    row.get_by_role("button", name="Remove nora").click()
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(body).not_to_contain_text("nora")
    page.get_by_role("button", name="Load the audit log again").click()
    expect(page.locator("#configuration-audit-body tbody tr").first).to_contain_text("user remove")


def test_tokens__are_told_once_and_revoked(conf, site, expect):
    page = conf()
    page.get_by_role("button", name="New token").click()
    page.get_by_label("For", exact=True).fill("nightly")
    page.get_by_role("button", name="Make").click()
    token = page.locator("#conf-k-token").inner_text()
    assert users.bearer(site.lake, token) is not None
    page.get_by_role("button", name="Done").click()
    assert token not in page.content()
    page.get_by_role("button", name="Revoke the token nightly").click()
    expect(page.locator("#configuration-tokens-body")).to_contain_text("Scripts ask")
    assert users.bearer(site.lake, token) is None


def test_operator__reads_and_changes_nothing(conf, expect):
    page = conf("otto")
    expect(page.locator("#configuration-file")).to_contain_text("an admin may change it")
    expect(page.locator("#configuration-alerts-cooldown_s")).to_be_disabled()
    expect(page.get_by_role("switch", name="Rule beacon")).to_be_disabled()
    expect(page.get_by_role("button", name="Add a target")).to_have_count(0)
    expect(page.locator("#configuration-users")).to_have_count(0)
    expect(page.locator("#configuration-audit")).to_have_count(0)


def test_viewer__has_no_page(open_page, expect):
    page = open_page("/configuration", user="vera")
    expect(page.locator("h1")).to_have_text("Configuration needs the role operator")


def test_geoip_and_about__tell_what_there_is(conf, expect):
    page = conf()
    page.locator("#configuration-geoip-ip").fill("nowhere")
    page.locator("#configuration-geoip-check").click()
    expect(page.locator("#configuration-geoip-body")).to_contain_text("no address")
    expect(page.locator("#configuration-about-body")).to_contain_text("duckdb")


def test_sections__by_key_and_follow_the_scroll(conf, expect):
    page = conf()
    page.locator("[data-section=users]").press("Enter")
    expect(page.locator("#configuration-users")).to_be_focused()
    expect(page.locator("[data-section=users]")).to_have_attribute("aria-current", "true")
    expect(page.locator("#configuration-users h2")).to_be_in_viewport()
    assert page.locator("h1").count() == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page__is_accessible(conf, theme):
    page = conf(color_scheme=theme)
    page.locator("[data-rule=port_scan] .conf-rule-name").click()
    page.locator("#configuration-alerts-cooldown_s").fill("31")
    axe.check(page)
