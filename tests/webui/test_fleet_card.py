"""The card of the health page that shows a lake's sensors, when it has several."""

from __future__ import annotations

import json
import os
import time

import pytest

from engine.segment_file import add_segment
from engine.tables import CAPTURE_STATS
from tests.lakes import write_empty_lake
from tests.webui.conftest import Site, add_people

pytestmark = pytest.mark.browser


def add_sensor(lake, name, rate, lost, now):
    zero = dict.fromkeys((c.name for c in CAPTURE_STATS if c.type == "int64"), 0)
    rows = [
        zero | {"ts": (int(now) - 60 + n) * 1_000_000, "source": "eth0", "interval_s": 1.0, "received": rate,
                "rows": rate - lost, "kernel_drops": lost}
        for n in range(60)
    ]  # fmt: skip
    add_segment(lake, "capture_stats", name, rows)


def test_fleet__a_row_for_each_sensor_with_what_is_wrong(tmp_path, open_page, expect):
    lake, now = tmp_path / "lake", time.time()
    write_empty_lake(lake)
    add_people(lake)
    add_sensor(lake, "berlin", 100, 0, now)
    add_sensor(lake, "paris", 50, 5, now)
    (lake / ".fleet/lakes").mkdir(parents=True)
    state = {"sensors": ["paris"], "version": "0.9.9", "at": now + 60, "lag_s": 500.0, "waiting_bytes": 4096,
             "lost_rows": 1234, "problem": "the store cannot be reached", "dates": {}}  # fmt: skip
    (lake / ".fleet/lakes/x.json").write_text(json.dumps(state))
    os.utime(lake / ".fleet/lakes/x.json", (now, now))  # the store's clock
    site = Site(lake, now)
    answer = site.watch.answer("health", range_text="5m")["fleet"]
    assert answer["sensor"] == ["berlin", "paris"]
    assert answer["pps"] == [pytest.approx(100, rel=0.1), pytest.approx(50, rel=0.1)]
    assert answer["lost"] == [0, 5 * answer["received"][1] // 50]
    assert answer["lag_s"] == [None, 500.0]
    page = open_page("/health?range=5m", at=site)
    expect(page.locator("#health-fleet tbody tr")).to_have_count(2)
    row = page.locator("#health-fleet tbody tr", has_text="paris")
    for text in ("0.9.9", "500 s", "1.23", "+60.0", "10.0 %"):
        expect(row).to_contain_text(text)
    expect(row.locator(".loss")).to_have_count(4)


def test_fleet__one_sensor_needs_no_card(tmp_path, open_page, expect):
    lake, now = tmp_path / "lake", time.time()
    write_empty_lake(lake)
    add_people(lake)
    add_sensor(lake, "berlin", 100, 0, now)
    page = open_page("/health?range=5m", at=Site(lake, now))
    expect(page.locator("#health-sources tbody tr")).to_have_count(1)
    expect(page.locator("#health-fleet-card")).to_be_hidden()
