"""Alerts that people enter: a running engine tells EVE and notifications of each, once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from analytics import alerts
from engine.alert_config import EveConfig, NotifyConfig, TargetConfig
from engine.config import EngineConfig, LakeConfig
from engine.detect.alert_stage import AlertStage
from engine.detect.manual import LEDGER, ManualAlerts
from engine.notify.outbox import FOLDER, Outbox
from engine.segment_file import add_segment
from engine.writer import init_lake
from tests.receivers import Web, wait_for


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    root = tmp_path / "lake"
    init_lake(root)
    return root


@pytest.fixture
def web() -> Iterator[Web]:
    endpoint = Web()
    yield endpoint
    endpoint.close()


def stage(lake: Path, *targets: TargetConfig, sensor: str = "s1", live: bool = True, **given: Any) -> AlertStage:
    config = EngineConfig(lake=LakeConfig(sensor=sensor), notify=NotifyConfig(targets=targets), **given)
    made = AlertStage(lake, config, f"run of {sensor}", lambda _: None, poll_s=0.05)
    made.live = live
    made.tick(0)
    return made


def enter(lake: Path, **given: Any) -> str:
    return alerts.add(lake, "ann", **({"kind": "phishing", "severity": "high", "why": "a user called"} | given))


def told(path: Path) -> list[str]:
    if not path.exists():
        return []
    return [json.loads(line)["packetlake"]["incident_id"] for line in path.read_text().splitlines()]


def test_manual_alert__reaches_webhook_and_eve_once_across_restarts(lake: Path, web: Web, tmp_path: Path) -> None:
    eve = tmp_path / "eve.json"
    hook = TargetConfig(name="hook", url=f"json://127.0.0.1:{web.port}/")
    quiet = TargetConfig(name="quiet", url=f"json://127.0.0.1:{web.port}/quiet", min_severity="critical")
    before = enter(lake, src="10.0.0.7", flow_ids=[7])
    running = stage(lake, hook, quiet, eve=EveConfig(file=str(eve)))
    wait_for(lambda: len(web.got) == 1)  # entered while nothing ran
    during = enter(lake, kind="leak", severity="critical")
    wait_for(lambda: len(web.got) == 3)
    running.close()
    again = stage(lake, hook, quiet, eve=EveConfig(file=str(eve)))
    later = enter(lake, kind="third")
    wait_for(lambda: len(web.got) == 4)
    again.close()
    assert [m["incidents"][0]["incident_id"] for m in web.got if m["path"] == "/"] == [before, during, later]
    assert [m["incidents"][0]["kind"] for m in web.got if m["path"] == "/quiet"] == ["leak"]
    first = web.got[0]
    assert first["title"] == "HIGH phishing 10.0.0.7 -> many"
    assert "entered by ann" in first["message"]
    assert first["incidents"][0]["flow_ids"] == [7]
    assert told(eve) == [before, during, later]
    assert json.loads(eve.read_text().splitlines()[0])["alert"]["signature"] == "PacketLake phishing"


def test_two_engines_of_a_lake__send_one_message_and_write_an_eve_each(lake: Path, web: Web, tmp_path: Path) -> None:
    hook = TargetConfig(name="hook", url=f"json://127.0.0.1:{web.port}/")
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    both = [stage(lake, hook, sensor=p.stem, eve=EveConfig(file=str(p))) for p in files]
    known = [enter(lake, kind=f"kind {n}") for n in range(5)]
    wait_for(lambda: all(len(told(path)) == 5 for path in files) and sum(len(m["incidents"]) for m in web.got) >= 5)
    for running in both:
        running.close()
    assert [told(path) for path in files] == [known, known]
    assert sorted(i["incident_id"] for m in web.got for i in m["incidents"]) == sorted(known)


def test_replay__tells_nobody(lake: Path, tmp_path: Path) -> None:
    enter(lake)
    eve = tmp_path / "eve.json"
    running = stage(lake, live=False, eve=EveConfig(file=str(eve)))
    time.sleep(0.3)
    running.close()
    assert told(eve) == []
    assert not (lake / FOLDER).exists()


def test_outlet_that_fails__is_asked_again_and_others_are_not(lake: Path) -> None:
    got: dict[str, list[str]] = {"good": [], "full": []}
    full = True

    def refuse(row: dict[str, Any]) -> None:
        if full:
            raise OSError(28, "No space left on device")
        got["full"].append(row["incident_id"])

    manual = ManualAlerts(lake, {"good": lambda row: got["good"].append(row["incident_id"]), "full": refuse})
    known = enter(lake)
    assert manual.poll() == 1
    assert manual.poll() == 1
    full = False
    assert manual.poll() == 0
    assert got == {"good": [known], "full": [known]}
    assert manual.poll() == 0


def test_outbox_that_cannot_be_written__is_said_once_and_the_alert_is_told_later(lake: Path, tmp_path: Path) -> None:
    said: list[str] = []
    hook = TargetConfig(name="hook", url="json://127.0.0.1:9/")
    (lake / FOLDER).mkdir()
    (lake / FOLDER / "hook").write_text("in the way")
    config = EngineConfig(lake=LakeConfig(sensor="s1"), notify=NotifyConfig(targets=(hook,)))
    running = AlertStage(lake, config, "run", lambda _: None, lambda level, text: said.append(f"{level} {text}"), 0.05)
    running.live = True
    running.tick(0)
    enter(lake)
    wait_for(lambda: said)
    time.sleep(0.3)
    (lake / FOLDER / "hook").unlink()
    wait_for(lambda: list((lake / FOLDER / "hook").glob("*.json")))
    running.close()
    assert [text for text in said if "cannot be kept" in text] == said[:1]
    assert f"{lake}/.notify" in said[0]


def test_what_is_told__is_young_and_whole(lake: Path) -> None:
    got: list[str] = []
    now = time.time_ns() // 1000
    old = datetime.now(UTC) - timedelta(days=2)
    whole = {
        "ts": now, "event": "manual", "actor": "x", "revision": 1, "kind": "k", "severity": "low", "why": "w",
        "first_seen": now, "last_seen": now, "count": 1,
    }  # fmt: skip
    add_segment(lake, "alert_events", "operator", [
        whole | {"incident_id": "good"}, whole | {"incident_id": None}, whole | {"incident_id": "a", "severity": "odd"},
        whole | {"incident_id": "b c"}, whole | {"incident_id": "c", "count": None},
        whole | {"incident_id": "d", "event": "acknowledged"},
    ])  # fmt: skip
    add_segment(lake, "alert_events", "operator", [whole | {"incident_id": "e", "ts": int(old.timestamp() * 1e6)}])
    (next((lake / "alert_events" / "sensor=operator").rglob("*.parquet")).parent / f"{now}-bad.parquet").write_bytes(
        b"PAR1 not really"
    )
    manual = ManualAlerts(lake, {"notify": lambda row: got.append(row["incident_id"])})
    manual.poll()
    assert got == ["good"]


def test_ledger__is_bounded_and_old_lines_go(lake: Path) -> None:
    now = time.time_ns() // 1000
    (lake / FOLDER).mkdir()
    old = now - 3 * 86_400_000_000
    lines = [f"{old} notify m{n}-1" for n in range(1500)] + [f"{now} notify n{n}-1" for n in range(20)] + ["damaged"]
    (lake / FOLDER / LEDGER).write_text("\n".join(lines) + "\n")
    known = enter(lake)
    config = NotifyConfig(targets=(TargetConfig(name="hook", url="json://127.0.0.1:9/"),))
    ManualAlerts(lake, {"notify": Outbox(lake, config, "s1").put}).poll()
    kept = (lake / FOLDER / LEDGER).read_text().splitlines()
    assert len(kept) == 21
    assert kept[-1].endswith(f" notify {known}")
    assert len(list((lake / FOLDER / "hook").glob("*.json"))) == 1
