"""Alerts in the lake: the view over what engine and operators write at once, the command, and hostile text in it."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import analytics
from analytics import alerts
from engine.alert_config import AlertsConfig
from engine.cli import main
from engine.config import EngineConfig, LakeConfig, load_config
from engine.detect.alert_stage import AlertStage
from engine.detect.finding import Finding
from engine.errors import ConfigError, StoreError
from engine.metrics import Books
from engine.publish import Publisher
from engine.segment_file import add_segment
from engine.writer import init_lake, run_name

NOON = 1_795_521_600_000_000
S = 1_000_000
NASTY = "=cmd|' /C calc'!A0 <img src=x onerror=alert(1)> \"quoted\", \x1b[2J\n;DROP"


def finding(seconds: float = 0, **given: Any) -> Finding:
    values = {"kind": "port_scan", "severity": "high", "why": "40 ports", "src_ip": "10.0.0.1", "dst_ip": "10.0.0.2"}
    return Finding(ts=NOON + int(seconds * S), **(values | given))


class Engine:
    """What a run does with findings: incidents, and a publisher that writes their rows."""

    def __init__(self, lake: Path, sensor: str = "s1", **given: Any) -> None:
        config = EngineConfig(lake=LakeConfig(sensor=sensor), **given)
        init_lake(lake)
        self.published = 0
        run = run_name()
        self._publisher = Publisher(lake, config.lake, run, Books(), self._failed)
        self.stage = AlertStage(lake, config, run, self._emit, poll_s=0.05)

    def _failed(self, error: StoreError) -> None:
        raise error

    def _emit(self, rows: list[dict[str, Any]]) -> None:
        from engine.analyse import SideRows

        self._publisher.take_side(SideRows("alert_events", rows, "", publish=True))
        self.published += 1

    def take(self, *findings: Finding) -> None:
        self.stage.take(list(findings), max(f.ts for f in findings))

    def close(self) -> None:
        self.stage.close()
        self._publisher.finish()


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    root = tmp_path / "lake"
    running = Engine(root)
    running.take(
        finding(0, flow_ids=(7, 9), packets=(1, 2), source="eth0", dst_port=22, proto=6, evidence={"ports": 40})
    )
    running.take(finding(5, kind="syn_flood", src_ip=None, severity="critical", why=NASTY))
    running.take(finding(9, kind="anomaly", dst_ip=None, severity="low"), finding(20, count=5, why="60 ports"))
    running.close()
    return root


def rows(lake: Path, sql: str) -> list[tuple[Any, ...]]:
    with analytics.connect(lake) as con:
        return con.execute(sql).fetchall()


def one(lake: Path, incident_id: str) -> dict[str, Any]:
    return alerts.find(lake, incident_id)


def ids(lake: Path) -> dict[str, str]:
    return dict(rows(lake, "SELECT kind, incident_id FROM alerts"))


def test_view__newest_state_of_each_incident(lake: Path) -> None:
    found = rows(lake, "SELECT kind, severity, src_ip, dst_ip, count, why, status, active FROM alerts ORDER BY kind")
    assert [row[0] for row in found] == ["anomaly", "port_scan", "syn_flood"]
    assert found[1] == ("port_scan", "high", "10.0.0.1", "10.0.0.2", 6, "60 ports", "open", False)
    assert found[2][2] is None
    scan = one(lake, ids(lake)["port_scan"])
    assert (scan["flow_ids"], scan["packets"], scan["sensor"], scan["source"]) == ([7, 9], [1, 2], "s1", "eth0")
    assert (scan["first_seen"], scan["last_seen"]) == (datetime(2026, 11, 24, 12), datetime(2026, 11, 24, 12, 0, 20))  # noqa: DTZ001 — UTC by contract
    assert rows(lake, "SELECT (evidence->>'ports')::INT FROM alerts WHERE kind = 'port_scan'") == [(40,)]
    joined = "SELECT count(*) FROM flows f JOIN alerts a ON list_contains(a.flow_ids, f.flow_id)"
    assert rows(lake, joined) == [(0,)]


def test_view__range_takes_what_overlaps(lake: Path) -> None:
    def kinds(since: str, until: str) -> set[str]:
        return {row[0] for row in rows(lake, f"SELECT kind FROM alerts_between({since}, {until})")}

    assert kinds("'2026-11-24 12:00:10'", "NULL") == {"port_scan"}
    assert kinds("NULL", "'2026-11-24 12:00:05'") == {"port_scan"}
    assert kinds("'2026-11-24'", "'2026-11-25'") == {"port_scan", "syn_flood", "anomaly"}
    assert kinds("now() - INTERVAL 1 MINUTE", "NULL") == set()


def test_operators__acknowledge_note_reopen(lake: Path) -> None:
    scan = ids(lake)["port_scan"]
    alerts.note(lake, scan, "ann", "looking at it")
    alerts.acknowledge(lake, scan, "bob", "the auditor")
    state = one(lake, scan)
    assert (state["status"], state["acknowledged_by"], state["note"], state["notes"]) == (
        "acknowledged",
        "bob",
        "the auditor",
        2,
    )
    assert state["acknowledged_at"] is not None
    alerts.reopen(lake, scan, "ann")
    state = one(lake, scan)
    assert (state["status"], state["acknowledged_by"], state["note"]) == ("open", None, "the auditor")
    said = [(row["event"], row["actor"]) for row in alerts.history(lake, scan)]
    assert said[:2] == [("opened", "engine"), ("closed", "engine")]
    assert said[2:] == [("note", "ann"), ("acknowledged", "bob"), ("reopened", "ann")]


def test_operators__enter_an_alert(lake: Path) -> None:
    made = alerts.add(lake, "ann", kind="phishing", severity="medium", why="a user called", src="10.0.0.7")
    state = one(lake, made)
    assert (state["kind"], state["src_ip"], state["reported_by"], state["status"]) == (
        "phishing",
        "10.0.0.7",
        "ann",
        "open",
    )
    alerts.acknowledge(lake, made, "bob")
    assert one(lake, made)["status"] == "acknowledged"


def test_operators__mistakes_are_one_line(lake: Path) -> None:
    later = datetime.now(UTC).replace(tzinfo=None)
    for act in (
        lambda: alerts.acknowledge(lake, "nosuch", "ann"),
        lambda: alerts.find(lake, ""),
        lambda: alerts.mute(lake, "ann"),
        lambda: alerts.mute(lake, "ann", src="10.0.0.300"),
        lambda: alerts.mute(lake, "ann", kind="x", until=later - timedelta(hours=1)),
        lambda: alerts.unmute(lake, "ann", kind="nosuch"),
        lambda: alerts.add(lake, "ann", kind="x", severity="bad", why="y"),
        lambda: alerts.add(lake, "ann", kind=" ", severity="low", why="y"),
        lambda: alerts.add(lake, "ann", kind="x", severity="low", why=""),
        lambda: alerts.note(lake, ids(lake)["port_scan"], "ann", " "),
        lambda: alerts.mute(lake, "", kind="x"),
    ):
        with pytest.raises(ConfigError) as caught:
            act()
        assert "\n" not in str(caught.value)
    with pytest.raises(StoreError):
        alerts.mute(lake / "nosuch", "ann", kind="x")


def test_suppression__from_the_file_to_the_view(tmp_path: Path) -> None:
    path = tmp_path / "engine.toml"
    path.write_text(
        "[[alerts.suppress]]\nkinds = ['port_scan']\nsrc = ['10.0.0.0/24', '2001:db8::/32']\nreason = 'monitoring'\n"
        "[[alerts.suppress]]\ndst = ['10.0.0.2']\ntime = '12:00-12:30'\n"
        "[[alerts.suppress]]\ndomains = ['*.cdn.example']\nports = [53]\n"
    )
    running = Engine(tmp_path / "lake", alerts=load_config(str(path)).alerts)
    running.take(
        finding(0, src_ip="10.0.0.200"), finding(0, src_ip="2001:db8::7"), finding(1, kind="other"),
        finding(2, kind="dns_tunnel", dst_ip=None, domain="a.cdn.example", dst_port=53),
        finding(3, kind="dns_tunnel", dst_ip=None, domain="cdn.example", dst_port=53),
        finding(1801, kind="other"), finding(1802, src_ip="10.0.1.1"),
    )  # fmt: skip
    running.close()
    found = rows(tmp_path / "lake", "SELECT kind, src_ip FROM alerts ORDER BY ALL")
    assert found == [("dns_tunnel", "10.0.0.1"), ("other", "10.0.0.1"), ("port_scan", "10.0.1.1")]
    told = rows(tmp_path / "lake", "SELECT kind, count, why FROM alert_events WHERE event = 'suppressed' ORDER BY ALL")
    assert told == [
        ("dns_tunnel", 1, "by alerts.suppress number 3"),
        ("other", 1, "by alerts.suppress number 2"),
        ("port_scan", 2, "by alerts.suppress number 1 (monitoring)"),
    ]


def test_mute__a_running_engine_follows_within_seconds(tmp_path: Path) -> None:
    running = Engine(tmp_path)
    running.take(finding(0, kind="before"))
    until = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=2)
    alerts.mute(tmp_path, "ann", kind="port_scan", src="10.0.0.0/24", until=until, reason="the auditor")
    deadline = time.monotonic() + 5
    while not running.stage._incidents.mutes and time.monotonic() < deadline:
        time.sleep(0.02)
        running.stage.tick(NOON)
    running.take(finding(1), finding(1, src_ip="10.0.9.1"), finding(1, kind="syn_flood"))
    assert running.stage.counts.suppressed == 1
    while running.stage._incidents.mutes and time.monotonic() < deadline + 9:
        time.sleep(0.02)
        running.stage.tick(NOON)
    running.take(finding(2))  # its time is over
    alerts.mute(tmp_path, "ann", kind="third")
    alerts.unmute(tmp_path, "ann", kind="third")
    running.close()
    assert alerts.mutes(tmp_path) == []
    found = rows(tmp_path, "SELECT kind, src_ip FROM alerts ORDER BY kind, src_ip")
    assert found == [
        ("before", "10.0.0.1"),
        ("port_scan", "10.0.0.1"),
        ("port_scan", "10.0.9.1"),
        ("syn_flood", "10.0.0.1"),
    ]
    assert rows(tmp_path, "SELECT count, why FROM alert_events WHERE event = 'suppressed'") == [
        (1, "by mute of port_scan 10.0.0.0/24 any")
    ]
    other = Engine(tmp_path / "other")
    alerts.mute(tmp_path / "other", "ann", dst="10.0.0.2")
    other.take(finding(0))  # a run sees what was muted before it began
    assert other.stage.counts.suppressed == 1
    other.close()


def _acknowledge(lake: str, user: str, names: list[str]) -> None:
    for name in names:
        alerts.acknowledge(lake, name, user)


def test_two_processes__acknowledge_while_the_engine_writes(tmp_path: Path) -> None:
    began = time.monotonic()
    running = Engine(tmp_path, alerts=AlertsConfig(budget_per_hour=1000))
    running.take(*(finding(n, src_ip=f"10.0.1.{n}") for n in range(8)))
    known = [row[0] for row in rows(tmp_path, "SELECT incident_id FROM alerts ORDER BY 1")]
    assert len(known) == 8
    context = multiprocessing.get_context("spawn")
    users = [context.Process(target=_acknowledge, args=(str(tmp_path), user, known)) for user in ("ann", "bob")]
    for process in users:
        process.start()
    n = 8
    while any(process.is_alive() for process in users):
        running.take(finding(n, src_ip=f"10.0.2.{n % 250}"), finding(n, src_ip=f"10.0.1.{n % 8}"))
        n += 1
        time.sleep(0.05)
    assert [process.exitcode for process in users] == [0, 0]
    running.close()
    with analytics.connect(tmp_path) as con:
        done = con.execute("SELECT count(*) FROM alerts WHERE status = 'acknowledged' AND count > 1").fetchone()
        words = con.execute(
            "SELECT actor, count(*) FROM alert_events WHERE event = 'acknowledged' GROUP BY 1 ORDER BY 1"
        )
        assert words.fetchall() == [("ann", 8), ("bob", 8)]
        total = con.execute("SELECT sum(count) FROM alerts").fetchone()
    assert done == (8,)
    assert total == (running.stage.counts.findings,)
    files = list((tmp_path / "alert_events" / "sensor=s1").rglob("*.parquet"))
    assert len(files) == running.published <= time.monotonic() - began + 3  # one a second, however many changes
    assert not list(tmp_path.rglob("*.inprogress"))


def test_killed_run__what_it_left_open_is_closed_by_the_next(tmp_path: Path) -> None:
    now = time.time_ns() // 1000
    first = Engine(tmp_path)
    first.stage.take([Finding(ts=now, kind="port_scan", severity="high", why="x")], now)
    assert rows(tmp_path, "SELECT active FROM alerts") == [(True,)]
    second = Engine(tmp_path)
    second.stage.live = True
    deadline = time.monotonic() + 10
    while rows(tmp_path, "SELECT active FROM alerts") == [(True,)] and time.monotonic() < deadline:
        second.stage.tick(now)
        time.sleep(0.1)
    assert rows(tmp_path, "SELECT active, count FROM alerts") == [(False, 1)]
    first.stage.take(
        [Finding(ts=now + 11 * S, kind="port_scan", severity="critical", why="x")], now + 11 * S
    )  # it lives
    first.stage.tick(now + 12 * S)
    time.sleep(1.1)
    first.stage.tick(now + 12 * S)
    assert rows(tmp_path, "SELECT active, count FROM alerts") == [(True, 2)]
    first.close()
    second.close()


def test_segment__damaged_one_among_the_operators_is_passed_over(tmp_path: Path) -> None:
    running = Engine(tmp_path)
    alerts.mute(tmp_path, "ann", kind="port_scan")
    folder = next((tmp_path / "alert_events" / "sensor=operator").rglob("*.parquet")).parent
    (folder / "0000000000000001-bad.parquet").write_bytes(b"PAR1 not really")
    add_segment(tmp_path, "alert_events", "operator", [
        {"ts": NOON, "event": "muted", "actor": "x", "src_ip": "not an address"},
        {"ts": NOON, "event": "muted", "actor": "x"},
    ])  # fmt: skip
    running.take(finding(0))
    assert running.stage.counts.suppressed == 1
    running.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root__leaves_what_it_writes_to_the_owner(lake: Path) -> None:
    os.chown(lake, 65534, 65534)
    alerts.mute(lake, "root", kind="x")
    for path in (lake / "alert_events" / "sensor=operator").rglob("*"):
        assert path.stat().st_uid == 65534


def test_ids__are_unique_across_runs_and_sensors(tmp_path: Path) -> None:
    for sensor in ("s1", "s1", "s2"):
        running = Engine(tmp_path, sensor)
        running.take(finding(0), finding(0, kind="x"))
        running.close()
    assert rows(tmp_path, "SELECT count(*), count(DISTINCT incident_id) FROM alerts") == [(6, 6)]


# --- the command ------------------------------------------------------------------------------------------------


@pytest.fixture
def say(lake: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `engine alerts` on the lake, in this process; returns what it printed."""

    def run(*words: str | Path) -> str:
        capfd.readouterr()
        code = main(["alerts", *map(str, words), "--lake", str(lake)])
        out, err = capfd.readouterr()
        assert code == 0, err
        return out

    return run


def test_command__list(lake: Path, say: Callable[..., str]) -> None:
    text = say("list")
    assert "\x1b" not in text
    assert text.count("\n") == 6
    whole = json.loads(say("list", "--format", "json"))
    assert [row["kind"] for row in whole] == ["port_scan", "anomaly", "syn_flood"]
    assert [r["kind"] for r in json.loads(say("list", "--severity", "high", "--format", "json"))] == [
        "port_scan",
        "syn_flood",
    ]
    assert len(json.loads(say("list", "--kind", "o'brien", "--format", "json"))) == 0
    assert len(json.loads(say("list", "--since", "1h", "--format", "json"))) == 0
    assert len(json.loads(say("list", "--since", "2026-11-24T12:00:10", "--format", "json"))) == 1


def test_command__show_ack_reopen_note(lake: Path, say: Callable[..., str]) -> None:
    scan = ids(lake)["port_scan"]
    say("ack", scan, "--note", "mine")
    assert "acknowledged" in say("show", scan)
    assert "engine export --flow 7 --flow 9" in say("show", scan)
    assert len(json.loads(say("list", "--open", "--format", "json"))) == 2
    say("reopen", scan)
    say("note", scan, "again\x07")
    shown = json.loads(say("show", scan, "--format", "json"))
    assert shown["evidence"] == {"ports": 40}
    assert [h["event"] for h in shown["history"]][-2:] == ["reopened", "note"]
    assert shown["note"] == "again·"


def test_command__mute_and_add(lake: Path, say: Callable[..., str]) -> None:
    assert "until" in say("mute", "--kind", "port_scan", "--src", "10.0.0.9/8", "--for", "2h", "--note", "audit")
    held = json.loads(say("mutes", "--format", "json"))
    assert [(m["kind"], m["src_ip"], m["note"]) for m in held] == [("port_scan", "10.0.0.0/8", "audit")]
    say("unmute", "--kind", "port_scan", "--src", "10.0.0.0/8")
    assert json.loads(say("mutes", "--format", "json")) == []
    made = say("add", "--kind", "phishing", "--severity", "low", "--why", "a call", "--dst", "::1").strip()
    assert one(lake, made)["dst_ip"] == "::1"


def test_command__export_is_safe_in_a_spreadsheet(lake: Path, tmp_path: Path, say: Callable[..., str]) -> None:
    for n, text in enumerate(("+1+1", "-2", "@SUM(A1)", " =1+1", "plain", "|cmd")):
        alerts.add(lake, "=ann", kind=f"=k{n}", severity="low", why=text)
    for name in ("a.csv", "a.json", "a.parquet"):
        say("export", tmp_path / name)
    table = list(csv.reader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert len(table) == 10
    for row in table[1:]:
        for cell in row:
            assert cell == "" or cell[0] not in "=+-@|\t", cell
    texts = {row[table[0].index("why")] for row in table[1:]}
    assert {"'+1+1", "'-2", "'@SUM(A1)", "plain", "'|cmd"} <= texts
    assert any(text.startswith("'=cmd|' /C calc'!A0 <img src=x") for text in texts)
    assert len(json.loads((tmp_path / "a.json").read_text())) == 9
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 9


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["show", "nosuch"], ["nosuch", "alerts list"]),
        (["ack", "nosuch"], ["nosuch"]),
        (["mute"], ["a mute of everything"]),
        (["mute", "--src", "300.1.1.1"], ["--src", "300.1.1.1"]),
        (["mute", "--kind", "x", "--for", "soon"], ["--for", "soon"]),
        (["mute", "--kind", "x", "--for", "99999999999d"], ["--for"]),
        (["unmute", "--kind", "x"], ["no mute"]),
        (["list", "--since", "yesterday"], ["--since", "yesterday"]),
        (["export", "/tmp/x.xlsx"], [".csv, .json or .parquet"]),
        (["export", "/nonexistent/x.csv"], ["/nonexistent/x.csv", "no such file"]),
        (["add", "--kind", "x", "--severity", "low", "--why", "y", "--src", "me"], ["--src", "'me'"]),
    ],
)
def test_command__mistake_is_one_line_and_code_2(
    lake: Path, words: list[str], parts: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["alerts", *words, "--lake", str(lake)]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    for part in parts:
        assert part.lower() in lines[0].lower()
