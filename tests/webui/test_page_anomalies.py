"""Anomalies in a real browser, over labelled attacks; and what its questions answer, against the engine's own."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from analytics import connect
from engine import settings
from engine.detect.anomaly.columns import COLUMNS, matrix
from engine.detect.anomaly.model import scorers_of
from engine.kernels import window_layout as w
from engine.models import ModelStore
from tests.webui import axe
from tests.webui.conftest import Site

READY = "[data-painted=true]"


@pytest.fixture
def anomalies(attacked, open_page, expect):
    """The page, painted."""

    def open_(path="/anomalies?range=20m", **options):
        attacked.now += 10
        page = open_page(path, at=attacked, **options)
        expect(page.locator(READY)).to_have_count(1)
        return page

    return open_


def ask(site: Site, name: str, filter_text: str = "", **params: Any) -> Any:
    site.now += 6
    return site.watch.answer(name, range_text="20m", filter_text=filter_text, role="viewer", params=params)


def rows_of(site: Site, sql: str) -> list[dict[str, Any]]:
    with connect(site.lake) as con:
        return con.sql(sql).to_arrow_table().to_pylist()


# --- answers ----------------------------------------------------------------------------------------------------


def test_quantiles__are_those_of_the_packets(attacked):
    minutes = ask(attacked, "anomalies")["minutes"]
    want = rows_of(
        attacked,
        "SELECT epoch_us(time_bucket(INTERVAL 1 MINUTE, ts)) AS ts, count(anomaly) AS n, max(anomaly) AS highest, "
        "quantile_disc(anomaly, 0.5) AS p50, quantile_disc(anomaly, 0.99) AS p99 "
        "FROM packets WHERE anomaly IS NOT NULL GROUP BY 1 ORDER BY 1",
    )
    assert minutes["ts"] == [row["ts"] for row in want]
    assert minutes["scored"] == [row["n"] for row in want]
    assert minutes["highest"] == [row["highest"] for row in want]
    bounds = np.array(ask(attacked, "anomalies")["thresholds"]["threshold"])
    for name in ("p50", "p99"):
        exact = np.array([row[name] for row in want])
        assert minutes[name] == bounds[np.searchsorted(bounds, exact, "right") - 1].tolist()


@pytest.mark.parametrize("threshold", [0.9, 0.98, 0.995])
def test_alerts__as_the_rule_would_have_raised_them(attacked, threshold):
    """Packet by packet: ten sources an hour may, one alert of each until an hour without."""
    packets = rows_of(
        attacked,
        f"SELECT ts, src_ip FROM packets WHERE anomaly >= {threshold} AND src_ip IS NOT NULL ORDER BY ts, frame_no",
    )
    hours: dict[Any, dict[str, None]] = defaultdict(dict)
    last: dict[str, Any] = {}
    alerts, untold = 0, set()
    for packet in packets:
        told, source = hours[packet["ts"].replace(minute=0, second=0, microsecond=0)], packet["src_ip"]
        if source not in told and len(told) >= 10:
            untold.add(source)
            continue
        told[source] = None
        alerts += source not in last or packet["ts"] - last[source] > timedelta(hours=1)
        last[source] = packet["ts"]
    answer = ask(attacked, "anomaly_alerts", threshold=threshold)
    assert (answer["packets"], answer["alerts"]) == (len(packets), alerts)
    assert answer["sources_not_told"] == len(untold) > 0


def test_windows__score_as_the_engine_scores_them(attacked):
    answer = ask(attacked, "unusual_windows", limit=500)
    store = ModelStore(attacked.lake, "office.replay", "window")
    scorers = scorers_of(store.load(store.newest_first()[0]))
    rows = answer["rows"]
    assert len(rows["ts"]) > 5
    assert rows["score"] == sorted(rows["score"], reverse=True) or len(set(rows["window_s"])) > 1
    for n, (ts, length, ip) in enumerate(zip(rows["ts"], rows["window_s"], rows["ip"], strict=True)):
        [row] = rows_of(
            attacked,
            f"SELECT * FROM windows WHERE epoch_us(ts) = {ts} AND window_s = {length} AND ip = '{ip}'",
        )
        x = matrix(_counters(row))
        score = float(scorers[length].scores(x)[0])
        assert rows["score"][n] == pytest.approx(score, abs=0.02)
        assert score > scorers[length].threshold
        told = rows["reasons"][n][0]
        reason = scorers[length].reasons(x[0])[0]
        assert (told["name"], told["usual"], told["high"]) == (COLUMNS[reason.column].name, reason.usual, reason.high)
        assert told["value"] == pytest.approx(reason.value, rel=0.02, abs=0.02)
    told = set(zip(rows["ip"], rows["kind"], strict=True))
    assert {("10.21.0.66", "port_scan"), ("10.21.0.10", "syn_flood"), ("10.21.0.10", "udp_flood")} <= told


def _counters(row: dict[str, Any]) -> Any:
    c = np.zeros((1, w.N_COUNTERS), np.int64)
    for column in COLUMNS:
        if column.counter >= 0:
            c[0, column.counter] = row[column.name] or 0
    c[0, w.C_IN_PAYLOAD] = row["in_payload"]
    for mean, total, count in (
        ("dns_entropy", w.C_DNS_ENTROPY, w.C_DNS_LABELS),
        ("entropy", w.C_OUT_ENTROPY, w.C_OUT_ENTROPY_N),
    ):
        c[0, count] = max(1, c[0, count])
        c[0, total] = round((row[mean] or 0) * int(c[0, count]) * w.ENTROPY_UNIT)
    c[0, w.C_DNS_LABELS] = row["dns_names"] or 0
    return c


def test_packets__are_grouped_explained_and_filtered(attacked):
    rows = ask(attacked, "unusual_packets", threshold=0.98, limit=100)["rows"]
    assert sum(rows["packets"]) <= len(rows_of(attacked, "SELECT 1 AS n FROM packets WHERE anomaly >= 0.98"))
    assert rows["anomaly"] == sorted(rows["anomaly"], reverse=True)
    names = {"wirelen", "payload_len", "entropy", "src_port", "dst_port", "proto", "ttl", "tcp_flags"}
    assert all({f["name"] for f in features} == names for features in rows["features"])
    assert all(features[0]["contribution"] > 0 for features in rows["features"])
    one = rows["src"][0]
    only = ask(attacked, "unusual_packets", f"src={one}", threshold=0.98, limit=100)["rows"]
    assert set(only["src"]) == {one}
    assert only["ts"] != []


# --- the page ---------------------------------------------------------------------------------------------------


@pytest.mark.browser
def test_page__shows_scores_windows_and_packets(attacked, anomalies, expect):
    page = anomalies()
    expect(page.locator("#anomalies-scored .value")).to_have_text("196")
    expect(page.locator("#anomalies-chart .scatterlayer .trace")).to_have_count(4)
    expect(page.locator("[data-graph=anomalies-chart]")).to_have_attribute("aria-label", re.compile("threshold 0.99, "))
    first = page.locator("#anomalies-windows tbody tr").first
    expect(first).to_contain_text("hosts that asked it")
    expect(first).to_contain_text(re.compile("usual 0 – "))
    expect(page.locator("#anomalies-packets tbody tr").first).to_contain_text("TTL 255")
    link = page.locator("#anomalies-windows a").first
    kind = link.inner_text()
    link.click()
    expect(page.locator(".alert-drawer h2")).to_have_text(kind)
    page.go_back()
    page.locator("#anomalies-windows .value", has_text="10.21.0.66").first.click()
    expect(page.locator(".chip")).to_have_text("host=10.21.0.66×")
    expect(page.locator("#anomalies-windows")).not_to_contain_text("10.21.0.11")


@pytest.mark.browser
def test_threshold__by_key_and_by_hand(attacked, anomalies, expect):
    alerts = ask(attacked, "anomaly_alerts", threshold=0.99)["alerts"]
    page = anomalies()
    would = page.locator("#anomalies-would")
    expect(would).to_contain_text(f"Would have raised {alerts} alerts in this range")
    expect(would).to_contain_text("388 packets in")
    page.locator("#anomalies-slider").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#anomalies-value")).to_have_text("0.98")
    expect(would).to_contain_text("1,790 packets in")
    expect(would).to_contain_text(re.compile("Would have raised .* alerts"))
    expect(page.locator("#anomalies-packets-note")).to_have_text("at 0.98 or more")
    assert "threshold=0.98" in page.url
    grip = page.locator(".anomalies-grip")
    box = grip.bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 7)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] - 200, steps=5)
    page.mouse.up()
    expect(page.locator("#anomalies-value")).to_have_text("1")
    expect(would).to_contain_text("Would have raised 0 alerts")
    expect(page.locator("#anomalies-packets")).to_contain_text("No packet scored 1 or more")
    page.reload()
    expect(page.locator("#anomalies-value")).to_have_text("1")


@pytest.mark.browser
def test_chart__brush_sets_the_range(anomalies, expect):
    page = anomalies()
    box = page.locator("#anomalies-chart .nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] - 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] - 20, steps=4)
    page.mouse.up()
    expect(page.locator("#shell-live")).to_have_attribute("aria-pressed", "false")
    start, end = (int(v) for v in re.search(r"range=(\d+)%2C(\d+)", page.url).groups())
    assert 200e6 < end - start < 280e6


@pytest.mark.browser
def test_threshold__is_saved_by_admins_only(attacked, anomalies, expect):
    page = anomalies("/anomalies?range=20m&threshold=0.995")
    page.get_by_role("button", name="Save threshold").click()
    expect(page.locator(".toast")).to_contain_text("Threshold 0.995 saved")
    assert "threshold = 0.995" in settings.of_lake(attacked.lake).read_text()
    attacked.now += 10
    expect(page.get_by_role("button", name="Save threshold")).to_be_disabled()
    expect(page.locator("#anomalies-configured")).to_contain_text("as configured")
    settings.of_lake(attacked.lake).unlink()
    page = anomalies("/anomalies?range=20m&threshold=0.98", user="otto")
    expect(page.locator("#anomalies-value")).to_have_text("0.98")
    expect(page.get_by_role("button", name="Save threshold")).to_be_hidden()


@pytest.mark.browser
def test_cards__export_what_they_show(attacked, anomalies, expect):
    page = anomalies("/anomalies?range=20m&filter=host%3D10.21.0.66")
    shown = page.locator("#anomalies-windows tbody tr")
    expect(shown).not_to_have_count(0)
    page.get_by_role("button", name="Export or explain Unusual windows of hosts").click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="Export CSV").click()
    rows = list(csv.DictReader(download.value.path().read_text(encoding="utf-8-sig").splitlines()))
    assert len(rows) == shown.count()
    assert {row["ip"] for row in rows} == {"10.21.0.66"}
    page.get_by_role("button", name="Export or explain Unusual windows of hosts").click()
    page.get_by_role("menuitem", name="Show the SQL").click()
    expect(page.locator(".drawer pre")).to_contain_text("list_max(spreads)")


@pytest.mark.browser
def test_empty__says_so_and_offers_a_way_out(attacked, anomalies, expect):
    page = anomalies("/anomalies?range=1000000000,60000000000000")
    expect(page.locator("[data-graph=anomalies-chart] .empty")).to_contain_text("No packets were scored in this range")
    expect(page.locator("#anomalies-packets")).to_contain_text("No packet scored")


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_accessible__and_nothing_sticks_out(anomalies, expect, theme):
    page = anomalies(color_scheme=theme, viewport={"width": 1024, "height": 768})
    expect(page.locator("#anomalies-packets tbody tr")).not_to_have_count(0)
    axe.check(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1024
