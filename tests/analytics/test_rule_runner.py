"""Rules over a growing lake: each event once, incidents in the lake, restarts, errors, and the process that does it."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import analytics
from analytics import alerts, rule_runner
from analytics.rule_runner import LakeRule, Runner, check, find, open_session
from engine.config import EngineConfig, load_config
from engine.errors import ConfigError
from engine.segment_file import add_segment
from tests.commands import ROOT, engine

NOW = datetime(2026, 11, 26, 12, 0, 0)  # noqa: DTZ001 — times of the lake are UTC without a zone
CONFIG = EngineConfig().override("lake", sensor="s1")
EVENTS = LakeRule(
    name="names", kind="odd_name", severity="high", late_s=300, apart=True, why="an odd name", every_s=0,
    sql="""SELECT ts, src_ip, dst_ip, query AS domain, flow_id FROM table_between('dns', $since, $until)
           WHERE query LIKE 'x%'""",
)  # fmt: skip
SUMS = LakeRule(
    name="many", kind="many_names", severity="low", every_s=0,
    sql="""SELECT src_ip, count(*) AS "count", count(DISTINCT query) AS names, 'so many: ' || count(*) AS why
           FROM table_between('dns', $since, $until) GROUP BY ALL HAVING count(*) >= 3""",
)  # fmt: skip


def micros(at: datetime) -> int:
    return int(at.replace(tzinfo=UTC).timestamp() * 1_000_000)


def ask(lake: Path, *queries: tuple[datetime, str], src: str = "10.0.0.7") -> None:
    """DNS rows as the engine writes them."""
    add_segment(lake, "dns", "s1", [
        {"ts": micros(at), "flow_id": 7, "src_ip": src, "dst_ip": "10.0.0.1", "src_port": 9, "dst_port": 53, "query": q,
         "answered": True}
        for at, q in queries
    ])  # fmt: skip


def seen(lake: Path) -> list[tuple[Any, ...]]:
    with analytics.connect(lake) as con:
        return con.execute(
            'SELECT kind, src_ip, dst_ip, "count", active, sensor FROM alerts ORDER BY kind, first_seen'
        ).fetchall()


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    ask(tmp_path / "lake", (NOW - timedelta(days=1), "xold"))
    return tmp_path / "lake"


def runner(lake: Path, *rules: LakeRule, said: list[str] | None = None) -> Runner:
    return Runner(lake, CONFIG, rules, lambda _, text: None if said is None else said.append(text))


def test_events__each_is_told_once_however_late(lake: Path) -> None:
    run = runner(lake, EVENTS)
    assert run.step(NOW) == 0  # what was before is not looked at, but for what may come late
    ask(lake, (NOW + timedelta(seconds=1), "x1"), (NOW + timedelta(seconds=1), "y1"))
    assert run.step(NOW + timedelta(seconds=5)) == 1
    ask(lake, (NOW + timedelta(seconds=2), "x2"), (NOW - timedelta(seconds=200), "x0"))
    assert run.step(NOW + timedelta(seconds=60)) == 2
    assert run.step(NOW + timedelta(seconds=120)) == 0
    assert [row[4] for row in seen(lake)] == [True]
    run.close()
    assert seen(lake) == [("odd_name", "10.0.0.7", "10.0.0.1", 3, False, "s1.rules")]


def test_sums__ranges_follow_each_other(lake: Path) -> None:
    run = runner(lake, SUMS)
    run.step(NOW)
    ask(lake, *((NOW + timedelta(seconds=n), f"n{n % 2}") for n in range(4)))
    assert run.step(NOW + timedelta(seconds=30)) == 1
    assert run.step(NOW + timedelta(seconds=60)) == 0
    run.close()
    with analytics.connect(lake) as con:
        row = con.execute("SELECT \"count\", why, dst_ip, evidence->>'names' FROM alerts").fetchone()
    assert row == (4, "so many: 4", None, "2")


def test_restart__goes_on_where_it_was_and_tells_nothing_twice(lake: Path) -> None:
    first = runner(lake, EVENTS)
    first.step(NOW)
    ask(lake, (NOW + timedelta(seconds=1), "x1"))
    assert first.step(NOW + timedelta(seconds=5)) == 1
    del first  # killed: its incident stays open
    ask(lake, (NOW + timedelta(seconds=8), "x2"))
    second = runner(lake, EVENTS)
    assert second.step(NOW + timedelta(minutes=4)) == 1  # asked in between, told now; the first is not told again
    second.close()
    rows = seen(lake)
    assert [row[3:5] for row in rows] == [(1, False), (1, False)]


def test_restart__a_damaged_cursor_begins_now(lake: Path) -> None:
    (lake / ".rules").mkdir()
    for text in ("[", "[]", '{"names": 7}'):
        (lake / ".rules" / "s1.json").write_text(text)
        run = runner(lake, EVENTS)
        assert run.step(NOW) == 0
        run.close()


def test_incidents__of_rules_are_apart_and_follow_mutes_and_suppressions(lake: Path) -> None:
    other = LakeRule(**{f: getattr(EVENTS, f) for f in EVENTS.__slots__} | {"name": "others"})
    alerts.mute(lake, "ann", kind="odd_name", src="10.0.0.9")
    run = runner(lake, EVENTS, other)
    run.step(NOW)
    ask(lake, (NOW + timedelta(seconds=1), "x1"))
    ask(lake, (NOW + timedelta(seconds=1), "x1"), src="10.0.0.9")
    assert run.step(NOW + timedelta(seconds=5)) == 4
    run.close()
    assert [row[1:4] for row in seen(lake)] == [("10.0.0.7", "10.0.0.1", 1)] * 2


def test_errors__one_line_each_and_the_rest_goes_on(lake: Path) -> None:
    bad = LakeRule(name="bad", kind="k", severity="low", sql="SELECT error('no') AS src_ip", every_s=0)
    said: list[str] = []
    run = runner(lake, bad, EVENTS, said=said)
    run.step(NOW)
    ask(lake, (NOW + timedelta(seconds=1), "x1"))
    assert run.step(NOW + timedelta(seconds=5)) == 1
    assert len(said) == 1
    assert said[0].startswith("rule bad: SQL:")
    run.close()


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT nothing FROM dns", "nothing"),
        ("SELECT 1; SELECT 2", "one SELECT"),
        ("DELETE FROM dns", "one SELECT"),
        ("COPY dns TO 'x'", "COPY is refused"),
        ("SELECT $when", "parameter $when is unknown"),
        ("SELECT 1 AS ts", "make it a TIMESTAMP"),
        ("SELECT * FROM read_text('/etc/passwd')", "disabled"),
        ("nonsense", "SQL:"),
    ],
)
def test_check__says_what_is_wrong(sql: str, said: str, lake: Path) -> None:
    con = open_session(lake)
    with pytest.raises(ConfigError) as raised:
        check(con, LakeRule(name="r", kind="k", severity="low", sql=sql))
    con.close()
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_find__takes_what_it_is_given(lake: Path) -> None:
    sql = "SELECT NULL::TIMESTAMP AS ts, 'nan'::DOUBLE AS dst_port, 'x' AS severity, [1, 2] AS list, 1e99 AS flow_id --"
    con = open_session(lake)
    found = find(con, LakeRule(name="r", kind="k", severity="low", sql=sql), None, NOW)
    con.close()
    assert [(f.ts, f.dst_port, f.severity, f.flow_ids, f.evidence) for f in found] == [
        (micros(NOW), None, "low", (), {"rule": "r", "list": [1, 2]})
    ]


def test_a_query_that_takes_too_long__is_broken_off(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_runner, "LIMIT_S", 0.3)
    endless = "SELECT sum(range % 7) AS n FROM range(100000000000)"
    con = open_session(lake)
    with pytest.raises(ConfigError, match="longer than"):
        find(con, LakeRule(name="r", kind="k", severity="low", sql=endless), None, None)
    con.close()


def test_process__runs_configured_sigma_rules_until_it_is_told_to_end(lake: Path, tmp_path: Path) -> None:
    rules, settings = tmp_path / "rules.yml", tmp_path / "packetlake.toml"
    rules.write_text(
        "title: Odd\nlogsource: {category: dns}\ndetection: {s: {query|startswith: x}, condition: s}\n---\n"
        "title: Bad\nlogsource: {category: dns}\ndetection: {s: {Image: x}, condition: s}\n"
    )
    settings.write_text(f'[lake]\nsensor = "s1"\n[sigma]\nfiles = ["{rules}"]\nevery_s = 1\n')
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "analytics.rule_process", "--lake", str(lake), "--with-parent", str(os.getpid())],
        stdin=subprocess.PIPE, stderr=log, cwd=ROOT,
    )  # fmt: skip
    try:
        assert process.stdin is not None
        with process.stdin:
            pickle.dump(load_config(str(settings)), process.stdin)
        state = lake / ".rules" / "s1.json"
        wait(state.exists, process)
        ask(lake, (datetime.now(UTC).replace(tzinfo=None), "x1"))
        wait(lambda: bool(seen(lake)), process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        log.close()
    assert seen(lake) == [("sigma", "10.0.0.7", "10.0.0.1", 1, False, "s1.rules")]
    assert (tmp_path / "log").read_text().splitlines() == [
        f"engine: warning: {rules}: rule 'Bad' refused: field Image has no column in dns"
    ]


def wait(until: Any, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_run__refuses_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[sigma]\nfiles = ["/nowhere/x.yml"]\n')
    done = engine("run", "--config", tmp_path / "a.toml", "--lake", tmp_path / "lake", "--no-dashboard")
    assert done.returncode == 2
    assert (
        done.stderr == "engine: sigma.files: /nowhere/x.yml does not exist; name a file or directory of Sigma rules\n"
    )
