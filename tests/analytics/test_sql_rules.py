"""Rules of the operator's own in SQL: checked before anything starts, and run over a lake by `engine detect`."""

from __future__ import annotations

from pathlib import Path

import pytest

import analytics
from analytics import sql_rules
from analytics.rule_process import configured
from engine.config import load_config
from engine.errors import ConfigError
from engine.rule_config import SqlRuleConfig
from tests.commands import engine
from tests.detecting import Talk, udp_frame
from tests.savefiles import pcap_bytes

QUERY = """SELECT ts, src_ip, dst_ip, dst_port, flow_id, src_bytes FROM connections_between($since, $until)
WHERE dst_port = 5555"""
CONFIG = """[[rules.sql]]
name = "port-5555"
file = "{file}"
kind = "odd_port"
severity = "high"
why = "nobody should ask for it"
every_s = 10
"""


def write(folder: Path, query: str = QUERY) -> Path:
    (folder / "q.sql").write_text(query)
    config = folder / "c.toml"
    config.write_text(CONFIG.format(file=folder / "q.sql"))
    return config


def test_configuration__is_read_printed_and_becomes_a_rule(tmp_path: Path) -> None:
    path = write(tmp_path)
    config = load_config(str(path))
    (rule,), refused = configured(config)
    assert (rule.name, rule.kind, rule.severity, rule.every_s, rule.sql) == ("port-5555", "odd_port", "high", 10, QUERY)
    assert not refused
    path.write_text(config.to_toml())
    assert load_config(str(path)).rules == config.rules


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT nothing_of_that_name FROM flows", "nothing_of_that_name"),
        ("SELECT 1; SELECT 2", "must be one SELECT"),
        ("DROP TABLE flows", "rule port-5555"),
        ("COPY flows TO '/tmp/x.csv'", "rule port-5555"),
        ("SELECT * FROM read_csv('/etc/passwd')", "rule port-5555"),
        ("SELECT $other", "$other is unknown"),
        ("", "is empty"),
    ],
)
def test_mistake__is_one_line_that_names_the_rule(tmp_path: Path, query: str, said: str) -> None:
    config = load_config(str(write(tmp_path, query)))
    with pytest.raises(ConfigError) as error:
        sql_rules.check_all(sql_rules.rules_of(config.rules.files.sql))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["name", "kind", "severity", "every_s", "file"])
def test_configuration__values_are_checked(tmp_path: Path, key: str) -> None:
    bad = {"every_s": 0.0}.get(key, "" if key in ("name", "file") else "a b")
    values = {"name": "a", "file": "q.sql"} | {key: bad}
    with pytest.raises(ConfigError, match=f"rules.sql.{key}"):
        SqlRuleConfig(**values)  # type: ignore[arg-type]


def test_check__names_files_of_both_kinds(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "bad.py").write_text("def x(:\n")
    (tmp_path / "bad.py").chmod(0o600)
    good = engine("rules", "check", tmp_path / "q.sql")
    assert (good.returncode, "a SELECT" in good.stdout) == (0, True)
    bad = engine("rules", "check", tmp_path / "q.sql", tmp_path / "bad.py")
    assert bad.returncode == 2
    assert "bad.py:1: invalid syntax" in bad.stdout


def test_detect__makes_alerts_of_the_rows_once(tmp_path: Path) -> None:
    talk = Talk(0.0, "10.0.0.7", "10.0.0.9", 4000, 5555).say(b"hello").say(b"yes", from_client=False)
    frames = [*(frame for _, frame in talk.frames), udp_frame("10.0.0.7", "10.0.0.8", 4001, 53)]
    capture = tmp_path / "c.pcap"
    capture.write_bytes(pcap_bytes(frames))
    config = write(tmp_path)
    lake = tmp_path / "lake"
    words = ("detect", "--lake", lake, "--sensor", "s", "--config", config, capture)
    first = engine(*words)
    assert (first.returncode, first.stdout.count("odd_port")) == (0, 1), first.stderr
    with analytics.connect(lake) as con:
        rows = con.execute("SELECT src_ip, dst_ip, dst_port, severity, why, active FROM alerts").fetchall()
    assert rows == [("10.0.0.7", "10.0.0.9", 5555, "high", "nobody should ask for it", False)]
    assert "odd_port" not in engine(*words[:7], tmp_path / "none.pcap").stdout
    config.write_text(config.read_text().replace(str(tmp_path / "q.sql"), str(tmp_path / "none.sql")))
    refused = engine(*words)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "none.sql: no such file" in refused.stderr
