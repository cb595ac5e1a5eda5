"""`engine model` and what it needs, on a lake that the engine made: versions, training, drift, anomalies in SQL."""

from __future__ import annotations

import json
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import analytics
from analytics import model_commands
from analytics.anomalies import top_packets
from analytics.packet_features import COLUMNS, features_of
from engine.cli import _parser
from engine.config import EngineConfig, load_config
from engine.errors import ConfigError
from engine.forest import Forest
from engine.model_row import EDGES
from engine.models import Model, ModelStore
from engine.scoring import Scorer
from tests.builders import ethernet, ipv6, udp
from tests.commands import Running, engine
from tests.detecting import RST_ACK, SYN, arp_frame, echo, tcp_frame, udp_frame
from tests.flowing import Timed

START = 1_700_000_040  # a whole minute
SENSOR = "s"
CONFIG = """
[lake]
sensor = "s"
[scoring]
trees = 20
training_rows = 4000
first_after_rows = 2000
threshold = 0.98
"""


def usual(seconds: float, seed: int = 1) -> list[Timed]:
    """Clients that ask a server, 25 times a second, with pings, IPv6 and ARP in between."""
    r, made = random.Random(seed), list[Timed]()
    for n in range(int(seconds * 25)):
        at, client, port = n / 25, f"10.0.0.{r.randint(1, 20)}", r.randint(32_768, 60_000)
        made.append((at, udp_frame(client, "10.0.0.250", port, 4433, bytes(r.randbytes(r.choice([20, 40, 200]))))))
        made.append((at + 0.001, udp_frame("10.0.0.250", client, 4433, port, r.randbytes(r.choice([400, 1200])))))
        if n % 50 == 0:
            made.append((at + 0.002, echo(client, "10.0.0.250")))
            made.append((at + 0.003, arp_frame(client, "10.0.0.250")))
            made.append((at + 0.004, ethernet(ipv6(udp()), 0x86DD)))
    return made


def scan(at: float, ports: int = 300) -> list[Timed]:
    made = list[Timed]()
    for n in range(ports):
        made.append((at + n / 50, tcp_frame("10.9.9.9", "10.0.0.250", 50_000, 1000 + n, SYN)))
        made.append((at + n / 50 + 0.001, tcp_frame("10.0.0.250", "10.9.9.9", 1000 + n, 50_000, RST_ACK)))
    return made


def savefile(path: Path, timed: list[Timed]) -> Path:
    records = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1)]
    for at, frame in sorted(timed, key=lambda t: t[0]):
        us = round(at * 1e6)
        records += [struct.pack("<IIII", START + us // 1_000_000, us % 1_000_000, len(frame), len(frame)), frame]
    path.write_bytes(b"".join(records))
    return path


def replay(path: Path, lake: Path, config: str = CONFIG, *words: str) -> str:
    toml = path.with_suffix(".toml")
    toml.write_text(config)
    done = engine("replay", path, "--lake", lake, "--config", toml, "--frames", "off", *words)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of three minutes with a scan in the second, and the configuration beside it."""
    folder = tmp_path_factory.mktemp("models")
    replay(savefile(folder / "lake.pcap", usual(180) + scan(70)), folder / "lake")
    return folder / "lake"


@pytest.fixture
def lake(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "lake"))


def ask(lake: Path, sql: str) -> list[tuple[Any, ...]]:
    with analytics.connect(lake, threads=1) as con:
        return con.execute(sql).fetchall()


def command(lake: Path, *words: str | Path) -> int:
    """`engine model` without becoming another account."""
    options = _parser().parse_args(["model", *map(str, words), "--lake", str(lake)])
    config = load_config(options.config) if options.config else EngineConfig().override("lake", sensor=SENSOR)
    return model_commands.run(lake, options, config)


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what the engine wrote -----------------------------------------------------------------------------------------
def test_features__of_the_lake_are_those_of_the_engine(made: Path) -> None:
    with analytics.connect(made, threads=1) as con:
        rows = con.sql(f"SELECT anomaly, {', '.join(COLUMNS)} FROM packets ORDER BY frame_no").to_arrow_table()
    features = features_of(rows)
    stored = np.array(rows.column("anomaly").to_pylist(), np.float32)
    forest = Forest.of(ModelStore(made, f"{SENSOR}.replay", "packet").load(1))
    scorer, out = Scorer(forest, rows=len(features)), np.zeros(len(features), np.float32)
    scorer.score_features(np.ascontiguousarray(features.T), len(features), out)
    assert len(stored) > 9000
    assert np.array_equal(out, stored)
    assert len(np.unique(features, axis=0)) > 1000


def test_stats__add_up_to_the_packets(made: Path) -> None:
    (packets,) = ask(made, "SELECT count(*), count(anomaly), count(*) FILTER (anomaly >= 0.98::FLOAT) FROM packets")
    stats = ask(made, "SELECT sum(scored), sum(scored), sum(above) FROM model_stats")
    assert stats == [packets]
    minutes = ask(made, "SELECT date_trunc('minute', ts), count(*), max(anomaly) FROM packets GROUP BY 1 ORDER BY 1")
    assert ask(made, "SELECT ts, sum(scored), max(top_anomaly) FROM model_stats GROUP BY 1 ORDER BY 1") == minutes
    top = ask(
        made,
        "SELECT count(*) FROM model_stats s JOIN packets p ON p.source = s.source AND p.frame_no = s.top_frame_no "
        "WHERE p.anomaly = s.top_anomaly",
    )
    assert top == [(len(minutes),)]
    assert ask(made, "SELECT DISTINCT model_sensor, model FROM model_stats") == [("s.replay", 1)]


def test_learning__pauses_while_an_incident_above_low_is_open_and_alerts_are_few_and_low(
    made: Path, tmp_path: Path
) -> None:
    incidents = ask(made, "SELECT kind, severity FROM alerts WHERE kind = 'port_scan'")
    assert incidents
    assert incidents[0][1] != "low"
    one, toml = savefile(tmp_path / "one.pcap", usual(60) + scan(50)), tmp_path / "engine.toml"
    for learn, paused in (("false", True), ("true", False)):
        toml.write_text(f"{CONFIG}learn_during_incidents = {learn}\nalert = true\nalerts_per_hour = 4\n")
        # Of two savefiles: the scan at the end of the first still goes on when the second begins.
        done = engine("replay", one, one, "--lake", tmp_path / learn, "--config", toml, "--frames", "off")
        assert done.returncode == 0, done.stderr
        ((scored, not_learned),) = ask(tmp_path / learn, "SELECT sum(scored), sum(not_learned) FROM model_stats")
        assert not_learned == (scored // 2 if paused else 0)
    # Both runs had alerts on single packets, the first lake had not.
    assert ask(made, "SELECT count(*) FROM alerts WHERE kind = 'packet_score'") == [(0,)]
    found = ask(tmp_path / "true", "SELECT src_ip, severity, count FROM alerts WHERE kind = 'packet_score'")
    assert 1 <= len(found) <= 4
    assert len({row[0] for row in found}) == len(found)
    assert {row[1] for row in found} == {"low"}
    assert sum(row[2] for row in found) <= ask(tmp_path / "true", "SELECT sum(above) FROM model_stats")[0][0]


# --- anomalies in SQL ----------------------------------------------------------------------------------------------
def test_threshold__says_what_it_would_have_raised(made: Path) -> None:
    rows = ask(made, "FROM anomaly_threshold")
    assert [row[0] for row in rows] == [0.0, *EDGES]
    for threshold, packets, share, usual_share, minutes, per_hour in rows[::4]:
        counted = ask(
            made,
            "SELECT count(*), count(DISTINCT date_trunc('minute', ts)) FROM packets "
            f"WHERE anomaly >= {threshold}::FLOAT",
        )
        assert (packets, minutes) == counted[0], threshold
        assert share == pytest.approx(packets / rows[0][1])
        assert usual_share == pytest.approx(1 - threshold)
        assert per_hour == pytest.approx(packets * 20, abs=1)  # three minutes
    half = ask(
        made,
        "SELECT packets FROM anomaly_threshold_between('2023-11-14 22:14', '2023-11-14 22:15') WHERE threshold = 0",
    )
    assert half == ask(made, "SELECT count(*) FROM table_between('packets', '2023-11-14 22:14', '2023-11-14 22:15')")


def test_minutes__quantiles_are_those_of_the_packets(made: Path) -> None:
    bounds = [0.0, *EDGES]
    for ts, p50, p90, p99, scored in ask(made, "SELECT ts, p50, p90, p99, scored FROM anomaly_minutes"):
        of_minute = f"SELECT anomaly FROM packets WHERE date_trunc('minute', ts) = '{ts}' ORDER BY 1"
        values = np.array([row[0] for row in ask(made, of_minute)])
        assert len(values) == scored
        for share, bound in ((0.5, p50), (0.9, p90), (0.99, p99)):
            exact = values[max(0, int(np.ceil(share * len(values))) - 1)]
            assert bound == max(b for b in bounds if b <= exact)


def test_top_packets__come_with_the_features_that_made_them_so(made: Path) -> None:
    with analytics.connect(made, threads=1) as con:
        found = top_packets(con, made, limit=7)
        best = con.execute("SELECT anomaly FROM packets ORDER BY anomaly DESC LIMIT 7").fetchall()
        assert [(row["anomaly"],) for row in found] == best
        for row in found:
            assert [f["name"] for f in row["features"]] != list(COLUMNS)
            assert {f["name"]: f["value"] for f in row["features"]} == {name: row[name] for name in COLUMNS}
            contributions = [f["contribution"] for f in row["features"]]
            assert contributions == sorted(contributions, reverse=True)
            assert contributions[0] > 0.05
        part = top_packets(con, made, "2023-11-14 22:15:50", "2023-11-14 22:16:00", 50)
        assert len(part) == 50  # the minute's bins reach beyond the range, which does no harm
        assert top_packets(con, made, "2030-01-01", None) == []
        for path in ModelStore(made, f"{SENSOR}.replay", "packet").folder.iterdir():
            assert path.suffix == ".model"
        assert all(row["features"] == [] for row in top_packets(con, made / "nowhere", limit=3))


# --- the command ---------------------------------------------------------------------------------------------------
def listed(lake: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert command(lake, "list", "--format", "json") == 0
    return list(json.loads(capsys.readouterr().out))


def test_command__train_list_use_export_import(lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(lake, "train", "--where", "proto = 17", "--rows", "3000", "--note", "only UDP\n\x1b[2J")
    told = capsys.readouterr()
    assert "model 2 of sensor s.replay: learned from 2,700 packets" in told.out
    assert "training cpu s" in told.out
    rows = listed(lake, capsys)
    assert [(r["number"], r["in_use"], r["chosen"], r["rows"]) for r in rows] == [
        (1, False, False, rows[0]["rows"]), (2, True, False, 2700),
    ]  # fmt: skip
    assert rows[0]["made_by"] == "engine" != rows[1]["made_by"]
    assert rows[1]["note"].startswith("only UDP")
    model = ModelStore(lake, "s.replay", "packet").load(2)
    protocol = model.features.index("protocol")
    assert set(model.arrays["feature_edges"][protocol].tolist()) == {17, 18, 32_767}
    first = ask(lake, "SELECT min(epoch_us(ts)), max(epoch_us(ts)) FROM packets WHERE proto = 17")[0]
    assert first[0] <= model.first_us <= model.last_us <= first[1]

    command(lake, "use", "1")
    assert [(r["in_use"], r["chosen"]) for r in listed(lake, capsys)] == [(True, True), (False, False)]
    command(lake, "train", "--since", "2023-11-14 22:15")
    assert "model 1 stays in use" in capsys.readouterr().err
    command(lake, "use", "auto")
    assert [r["in_use"] for r in listed(lake, capsys)] == [False, False, True]

    out = tmp_path / "two.model"
    command(lake, "export", "2", out)
    assert json.loads(out.read_bytes().split(b"\n")[1])["rows"] == 2700
    command(lake, "import", out, "--sensor", "elsewhere")
    there = ModelStore(lake, "elsewhere", "packet").load(1)
    assert (there.rows, there.sensor, there.made_s) == (2700, "elsewhere", model.made_s)
    for name, array in model.arrays.items():
        assert np.array_equal(there.arrays[name], array)
    command(lake, "list")
    assert "elsewhere" in capsys.readouterr().out


def test_command__show_tells_everything(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(made, "show")
    told = capsys.readouterr().out
    for word in (
        "model            1 of sensor s.replay",
        "in use",
        "isolation_forest",
        "entropy",
        "held_out_rows",
        "psi",
    ):
        assert word in told, word
    command(made, "show", "1", "--format", "json")
    shown = json.loads(capsys.readouterr().out)
    assert (shown["number"], shown["in_use"], shown["sensor"]) == (1, True, "s.replay")
    assert [d["scored"] for d in shown["drift"]] == [
        row[0] for row in ask(made, "SELECT scored FROM model_stats WHERE psi IS NOT NULL ORDER BY ts DESC")
    ]


def test_command__what_is_wrong_is_one_line(lake: Path, tmp_path: Path) -> None:
    def said(*words: str | Path) -> str:
        return refused(lambda: command(lake, *words))

    assert "99" in said("use", "99")
    assert "auto" in said("use", "newest")
    assert "no such file" in said("show", "99")
    assert "--rows 5" in said("train", "--rows", "5")
    assert "0 packets match" in said("train", "--where", "proto = 99")
    assert "--since" in said("train", "--since", "yesterday")
    assert "selekt" in said("train", "--where", "selekt")
    assert "Conversion Error" in said("train", "--where", "wirelen > 'x'")
    assert "window" in said("train", "--kind", "window")
    assert "elsewhere" in said("show", "--sensor", "elsewhere")
    assert "no model of this format" in said("import", __file__)
    assert "no such file" in said("import", tmp_path / "missing")
    assert "exists already" in said("export", "1", __file__)
    assert "give another name" in said("export", "1", tmp_path / "no" / "where")
    store = ModelStore(lake, "s.replay", "packet")
    other = store.load(1)
    foreign = Model(**{n: getattr(other, n) for n in Model.__slots__} | {"features": ("a",), "where": ""})
    (tmp_path / "foreign.model").write_bytes(foreign.to_bytes())
    assert "does not have" in said("import", tmp_path / "foreign.model")
    (tmp_path / "window.model").write_bytes(Model(kind="window", method="maxz", features=("a",)).to_bytes())
    assert "--kind window" in said("import", tmp_path / "window.model")
    assert store.numbers() == [1]


def test_command__damaged_versions_are_listed_and_not_used(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ModelStore(lake, "s.replay", "packet")
    store.path(2).write_bytes(store.path(1).read_bytes()[:-5])
    rows = listed(lake, capsys)
    assert [(r["number"], r["in_use"]) for r in rows] == [(1, True), (2, False)]
    assert "damaged" in rows[1]["problem"]
    forest = store.load(1)
    odd = {"made_s": 1e300, "first_us": -(10**30), "made_by": "\x1b[2J\n", "metrics": {"\x1b": ["\n"]}, "where": ""}
    store.path(3).write_bytes(Model(**{n: getattr(forest, n) for n in Model.__slots__} | odd).to_bytes())
    command(lake, "list")
    command(lake, "show", "3")
    assert "\x1b" not in capsys.readouterr().out
    store.path(3).unlink()
    assert "damaged" in refused(lambda: command(lake, "use", "2"))
    assert "damaged" in refused(lambda: command(lake, "show", "2"))


def test_running_engine__follows_use_and_train_within_seconds(lake: Path, tmp_path: Path) -> None:
    """As an operator does it: two processes, one lake."""
    config = tmp_path / "engine.toml"
    config.write_text(CONFIG)
    path = savefile(tmp_path / "long.pcap", usual(60, seed=5))
    words = ["replay", path, "--speed", "recorded", "--lake", lake, "--config", config, "--frames", "off"]
    running = Running((), words, tmp_path / "log")
    try:
        deadline = time.monotonic() + 90
        before = len(list(lake.glob("packets/*/*/*/*.parquet")))
        while len(list(lake.glob("packets/*/*/*/*.parquet"))) == before:
            assert time.monotonic() < deadline, running.log.read_text()
            time.sleep(0.1)
        done = engine("model", "train", "--lake", lake, "--config", config, "--where", "proto = 17")
        assert done.returncode == 0, done.stderr
        assert "model 2" in done.stdout
        running.wait_for("anomaly model 2 is in use, in place of 1", 10)
        assert engine("model", "use", "1", "--lake", lake, "--config", config).returncode == 0
        running.wait_for("anomaly model 1 is in use, in place of 2", 10)
        running.stop(signal.SIGINT)
    finally:
        running.kill()
    assert {row[0] for row in ask(lake, "SELECT DISTINCT model FROM model_stats WHERE source LIKE '%long.pcap'")} == {
        1,
        2,
    }


def test_help__of_the_options_loads_nothing_heavy() -> None:
    code = "import sys, engine.model_cli; sys.exit(bool({'numpy', 'pyarrow', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
