"""The alerts held in memory for a dashboard are those of the lake, whatever is written, merged or removed."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import analytics
from analytics import alerts
from analytics.alert_state import AlertState
from analytics.compaction import compact
from analytics.merge_jobs import EAGER, Compactor, Plan
from engine.alert_config import AlertsConfig
from engine.detect.finding import Finding
from engine.detect.incidents import Incidents
from engine.errors import StoreError
from engine.segment_file import add_segment
from engine.writer import init_lake

S = 1_000_000
QUESTIONS = (
    "SELECT * FROM alerts ORDER BY ALL",
    "SELECT * FROM mutes ORDER BY ALL",
    "SELECT kind, status, count(*) FROM alerts_between(now() - INTERVAL 59 MINUTE, NULL) GROUP BY ALL ORDER BY ALL",
)  # fmt: skip


class Writer:
    """Incidents as an engine writes them, a segment each time."""

    def __init__(self, lake: Path, seed: int) -> None:
        init_lake(lake)
        self.lake = lake
        self._rng = random.Random(seed)
        self._rows: list[dict[str, Any]] = []
        self._incidents = Incidents(AlertsConfig(cooldown_s=5), self._rows.extend, f"run{seed}")
        self._now = time.time_ns() // 1000 - 3600 * S

    def step(self) -> None:
        self._now += self._rng.randrange(1, 4) * S
        self._incidents._looked_at = 0.0
        found = [
            Finding(ts=self._now, kind=self._rng.choice("ab"), severity=self._rng.choice(["low", "high"]), why="w",
                    src_ip=f"10.0.0.{self._rng.randrange(6)}", evidence={"n": self._now})
            for _ in range(self._rng.randrange(3))
        ]  # fmt: skip
        self._incidents.take(found, self._now)
        if self._rows:
            add_segment(self.lake, "alert_events", "s1", self._rows)
            self._rows.clear()


def agree(state: AlertState, lake: Path) -> int:
    """Compares every answer; returns the number of alerts."""
    with analytics.connect(lake) as con, state.connection() as held:
        answers = [con.execute(sql).fetchall() for sql in QUESTIONS]
        assert [held.execute(sql).fetchall() for sql in QUESTIONS] == answers
    return len(answers[0])


def test_state__is_the_lakes_whatever_happens(tmp_path: Path) -> None:
    lake = tmp_path / "a [lake]*"
    writer = Writer(lake, 1)
    state = AlertState(lake)
    assert agree(state, lake) == 0
    for _ in range(15):
        writer.step()
    known = agree(state, lake)
    assert known > 3
    with state.connection() as con:
        ids = [row[0] for row in con.execute("SELECT incident_id FROM alerts").fetchall()]
    alerts.acknowledge(lake, ids[0], "ann", "mine")
    alerts.note(lake, ids[1], "bob", "odd")
    alerts.mute(lake, "ann", kind="a")
    alerts.add(lake, "ann", kind="phishing", severity="low", why="a call")
    assert agree(state, lake) == known + 1
    alerts.reopen(lake, ids[0], "ann")
    alerts.unmute(lake, "ann", kind="a")
    for _ in range(5):
        writer.step()
    before = agree(state, lake)
    done = compact(lake, Plan(older_s=0, least=2, grace_s=0), pytest.fail)
    assert done.segments > 15
    assert agree(state, lake) == before
    writer.step()
    agree(state, lake)
    for path in (lake / "alert_events" / "sensor=operator").rglob("*.parquet"):
        path.unlink()  # retention
    assert agree(state, lake) >= known
    state.close()


def test_state__while_a_merge_goes_on(tmp_path: Path) -> None:
    writer = Writer(tmp_path, 2)
    state = AlertState(tmp_path)
    for _ in range(12):
        writer.step()
    with Compactor(tmp_path, Plan(older_s=0, least=2, grace_s=0.2), pytest.fail) as compactor:
        assert compactor.begin() >= 1
        steps = 0
        while compactor.jobs:
            agree(state, tmp_path)
            compactor.advance()
            writer.step()
            time.sleep(0.05)
            steps += 1
        assert steps >= 2  # before the swap, after it
    agree(state, tmp_path)
    state.close()


def test_state__reads_only_what_is_new(tmp_path: Path) -> None:
    writer = Writer(tmp_path, 3)
    for _ in range(40):
        writer.step()
    state = AlertState(tmp_path)
    before = agree(state, tmp_path)
    for path in (tmp_path / "alert_events" / "sensor=s1").rglob("*.parquet"):
        path.write_bytes(b"not looked at again")
    alerts.add(tmp_path, "ann", kind="new", severity="low", why="w")
    with state.connection() as con:
        assert con.execute("SELECT count(*) FROM alerts").fetchone() == (before + 1,)
        held = con.execute("SELECT count(*), count(DISTINCT incident_id) FROM alert_events").fetchone()
    assert held == (before + 1, before + 1)  # older states are not kept
    state.close()


def test_state__many_threads(tmp_path: Path) -> None:
    writer = Writer(tmp_path, 4)
    state = AlertState(tmp_path)
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            for _ in range(10):
                with state.connection() as con:
                    con.execute("SELECT count(*) FROM alerts").fetchall()
        except BaseException as error:  # noqa: BLE001 — told by the test
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        writer.step()
    for thread in threads:
        thread.join()
    assert failed == []
    agree(state, tmp_path)
    state.close()
    with pytest.raises(StoreError):
        AlertState(tmp_path / "nosuch")


def test_merging__takes_alerts_early(tmp_path: Path) -> None:
    writer = Writer(tmp_path, 5)
    least, older_s = EAGER["alert_events"]
    while len(list((tmp_path / "alert_events" / "sensor=s1").rglob("*.parquet"))) < least + 30:
        writer.step()
    clock = time.time() + older_s + 1  # long before the plan's ten minutes are over
    with Compactor(tmp_path, Plan(grace_s=0), pytest.fail, lambda: clock) as compactor:
        assert compactor.begin() >= 1
        while compactor.advance():
            pass
        assert compactor.done.segments >= least
