"""`engine status`: the numbers are those of the lake, and the exit code is for monitoring."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from analytics.status import look
from analytics.status_text import lines
from engine.metrics import SourceTotals
from engine.sensor_lock import SensorLock
from tests.analytics.small_lake import make_lake, segment
from tests.commands import engine


def now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def counters(lake: Path, ago_s: float, **values: int | float | str) -> None:
    at = now() - timedelta(seconds=ago_s)
    names = ("flows", "frames_not_stored", "messages_missed", "scores_shed", "drop_rows_shed")
    row = dict.fromkeys(names, 0) | {"ts": at, "received": 1000, "wire_bytes": 125_000} | values
    segment(lake, "capture_stats", [row], name=f"{int(at.replace(tzinfo=UTC).timestamp() * 1e6)}-1", at=at)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    make_lake(tmp_path)
    for second in range(10):
        counters(tmp_path, second + 1)
    return tmp_path


def test_running__rates_drops_and_exit_code(lake: Path) -> None:
    assert look(lake)["exit_code"] == 2
    lock = SensorLock(lake, "s1", ["eth0"])
    found = look(lake)
    assert found["problems"] == []
    assert found["exit_code"] == 0
    [source] = found["sources"]
    assert (source["packets_per_s"], source["bits_per_s"], source["drops"]) == (1000.0, 1_000_000, {})
    counters(lake, 0.5, kernel_drops=7, pool_fill=80)
    lock.tell(["no packets on eth0 for 5 s or more"], {})
    found = look(lake)
    assert found["exit_code"] == 1
    assert found["sources"][0]["drops"] == {"kernel_drops": 7}
    assert len(found["problems"]) == 3
    assert sum(line.startswith("ATTENTION") for line in lines(found)) == 3
    lock.close()
    assert look(lake)["exit_code"] == 2


def test_tables__sizes_rows_ages_and_days_left(lake: Path) -> None:
    old = now() - timedelta(days=2)
    for n in range(4):
        at = old + timedelta(hours=12 * n)
        start = at.replace(tzinfo=UTC).timestamp()
        path = segment(lake, "packets", [{"ts": at, "frame_no": n}], name=f"{int(start * 1e6):016d}-{n}", at=at)
        os.utime(path, (start, start))
    size = sum(p.stat().st_blocks * 512 for p in (lake / "packets" / "sensor=s1").rglob("*.parquet"))
    (lake / ".settings").mkdir()
    (lake / ".settings" / "running.toml").write_text(f"[retention]\npackets_gib = {2 * size / (1 << 30)}\n")
    found = look(lake)
    packets = found["tables"]["packets"]
    assert (packets["files"], packets["rows"], packets["bytes"]) == (4, 4, size)
    assert packets["oldest"] == pytest.approx(old.replace(tzinfo=UTC).timestamp(), abs=0.01)
    assert packets["newest"] == pytest.approx((old + timedelta(hours=36)).replace(tzinfo=UTC).timestamp(), abs=0.01)
    assert packets["bytes_per_day"] == size // 4
    assert found["limits"]["packets"]["days_left"] == 4.0
    assert found["disk"]["wanted_free"] > 0


def test_upkeep__said_when_it_has_been_silent(lake: Path) -> None:
    lock = SensorLock(lake, "s1", ["eth0"])
    (lake / ".settings").mkdir()
    state: dict[str, Any] = {"at": time.time(), "pid": 1, "merged_segments": 9, "merged_into": 1, "jobs": 0}
    state |= {"retention": True, "deleted": {}, "last_deleted": "packets: 1 files"}
    path = lake / ".settings" / "upkeep.json"
    path.write_text(json.dumps(state))
    found = look(lake)
    assert found["exit_code"] == 0
    assert any("runs; 9 segments merged into 1; last deleted: packets: 1 files" in line for line in lines(found))
    path.write_text(json.dumps(state | {"at": time.time() - 1000}))
    found = look(lake)
    assert found["exit_code"] == 1
    assert "silent" in found["problems"][0]
    for text in ("{", "[]", '{"at": "x"}', '{"at": 1}'):
        path.write_text(text)
        assert look(lake)["upkeep"] == {"running": None}
    lock.close()


def test_damaged_segment__is_said_and_the_rest_is_there(lake: Path) -> None:
    path = lake / "flows" / "sensor=s1" / "date=2026-11-24" / "hour=12" / "1-1.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1 no")
    found = look(lake)
    assert found["tables"]["flows"]["rows"] is None
    assert any(text.startswith("flows:") and "\n" not in text for text in found["problems"])
    assert found["tables"]["capture_stats"]["rows"] == 10


@pytest.mark.parametrize("table", ["capture_stats", "alert_events"])
def test_damaged_segment__of_what_it_asks_itself(lake: Path, table: str) -> None:
    segment(lake, table, [], name="9-9", at=now()).write_bytes(b"PAR1 no")
    for words in ([], ["--json"], ["--metrics"]):
        done = engine("status", "--lake", lake, *words)
        assert (done.returncode, done.stderr) == (2, "")
    found = look(lake)
    assert [text.partition(":")[0] for text in found["problems"][1:]] == [table]


def test_command__json_text_and_no_lake(lake: Path) -> None:
    done = engine("status", "--lake", lake, "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["lake"] == str(lake)
    done = engine("status", "--lake", lake / "nowhere")
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, "")


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """By name and values of labels, as Prometheus' own client reads it."""
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation and family.type in ("counter", "gauge") for family in families)
    return {(s.name, tuple(s.labels.values())): s.value for family in families for s in family.samples}


def test_metrics__counters_since_the_start_and_gauges(lake: Path) -> None:
    lock = SensorLock(lake, "s1", ["eth0"])
    hostile = 'eth0"} 9\n\\'
    lock.tell(["no rows"], {hostile: SourceTotals(received=10**13, kernel_drops=7), "eth1": SourceTotals(rows=5)})
    done = engine("status", "--lake", lake, "--metrics")
    found = samples(done.stdout)
    assert done.returncode == 1
    assert found["packetlake_up", ("s1",)] == 1
    assert found["packetlake_received_total", ("s1", hostile)] == 10**13
    assert found["packetlake_kernel_drops_total", ("s1", hostile)] == 7
    assert found["packetlake_rows_total", ("s1", "eth1")] == 5
    assert found["packetlake_problems", ()] == 1
    assert found["packetlake_alerts_open", ("high",)] == 0
    assert found["packetlake_table_files", ("capture_stats",)] == 10
    assert found["packetlake_disk_free_bytes", ()] > 0
    lock.close()
    found = samples(engine("status", "--lake", lake, "--metrics").stdout)
    assert found["packetlake_up", ("s1",)] == 0
    assert not any(name == "packetlake_received_total" for name, _ in found)
