"""`engine rules lists`: what intel lists hold and what they have found."""

from __future__ import annotations

import json
from pathlib import Path

from analytics.intel_hits import lines
from engine.config import IntelConfig
from engine.segment_file import add_segment
from tests.analytics.small_lake import make_lake
from tests.commands import engine


def test_lists__their_entries_and_hits_in_alerts(tmp_path: Path) -> None:
    lake, listed = make_lake(tmp_path / "lake"), tmp_path / "bad.txt"
    listed.write_text("192.0.2.1\n192.0.2.0/28\nevil.example\n")
    at = 1_795_651_200_000_000
    add_segment(lake, "alert_events", "s1", [
        {"ts": at, "incident_id": f"i-{n}", "event": "closed", "actor": "engine", "revision": 1, "kind": kind,
         "severity": "high", "count": n, "first_seen": at, "last_seen": at + n * 1_000_000,
         "evidence": json.dumps({"list": name}), "flow_ids": [], "packets": []}
        for n, (kind, name) in enumerate(
            (("intel", str(listed)), ("intel", str(listed)), ("intel", "old.txt"), ("port_scan", "no.txt")), 1)
    ])  # fmt: skip
    config = IntelConfig(lists=(str(listed), "https://feeds.example/x", str(tmp_path / "gone")))
    assert lines(lake, config) == [
        f"{listed}: 1 domain, 2 ip; 3 hits in alerts, the last 2026-11-26 00:00:02 UTC",
        "https://feeds.example/x: a URL, fetched by the running engine; 0 hits in alerts",
        f"{tmp_path}/gone: cannot be read (no such file or directory); 0 hits in alerts",
        "old.txt: not configured any more; 3 hits in alerts, the last 2026-11-26 00:00:03 UTC",
    ]
    done = engine("rules", "lists", "--lake", lake)
    assert (done.returncode, done.stdout.count("hits in alerts")) == (0, 2)
    assert lines(make_lake(tmp_path / "other"), IntelConfig()) == [
        "no intel list is configured: name some in [intel] lists"
    ]
