"""The questions on Spark and ClickHouse, and batch jobs: the same rows as DuckDB's, on real engines.

What needs them is skipped where they are not installed: pip install -e '.[engines]', and Java 17 for Spark. Each runs
in a process of its own, since both bring threads and signal handlers that no other test should meet.
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from analytics import jobs
from analytics.dialects import catalogue, lake_sql
from analytics.dialects.clickhouse import ClickHouseSql
from analytics.dialects.spark import SparkSql
from analytics.question_columns import QUESTIONS
from analytics.watch import registry
from benchmarks.engines import NOT_ASKED, queries
from benchmarks.pages import Asked, texts
from engine.config import load_config
from engine.detect.anomaly.columns import COLUMNS, VERSION
from engine.errors import StoreError
from engine.model_file import Model
from engine.models import ModelStore
from engine.tables import TABLES
from tests.analytics.small_lake import NOON, make_lake, segment
from tests.commands import ROOT, engine
from tests.s3 import BUCKET, serving

needs_clickhouse = pytest.mark.skipif(
    importlib.util.find_spec("chdb") is None, reason="no ClickHouse here: pip install -e '.[engines]'"
)
needs_spark = pytest.mark.skipif(
    importlib.util.find_spec("pyspark") is None or importlib.util.find_spec("chdb") is None or not shutil.which("java"),
    reason="no Spark here: pip install -e '.[engines]', and Java 17",
)
NO_SQL = {"config", "complete"}  # questions that read a file, and what the dashboard has in memory
NAMES = ("www.example.com", "a.b.example.co.uk", "o'brien.example", 'back\\slash "quoted".example', "münchen.example")

KEYS = (
    "src_ip", "dst_ip", "src_port", "dst_port", "proto", "ip_version", "vlan", "icmp_type", "icmp_code", "encap",
    "community_id",
)  # fmt: skip


def made(rng: random.Random, table: str, rows: int, sensor: str) -> list[dict[str, Any]]:
    """Seeded rows of any table, a third of what may be NULL being NULL; of ten rows each, times are the same.

    Sensor s1 says that it saw far more than is there, so that pages go by rollups and flows, for s2 by packets.
    """
    many = 10**6 if sensor == "s1" else 100
    hosts = [f"10.0.{sensor[-1]}.{n}" for n in range(6)] + ["93.184.216.34", "2001:db8::7", "224.0.0.251", "192.0.2.9"]
    texts: dict[str, tuple[Any, ...]] = {
        "outcome": ("established", "refused", "unanswered", "reset", "half-open", "answered"),
        "end_reason": ("closed", "active", "idle"), "app": ("tls", "dns", "http", "quic"),
        "event": ("opened", "updated", "closed", "acknowledged", "muted", "note"), "qtype": ("A", "AAAA", "TXT"),
        "rcode": ("NOERROR", "NXDOMAIN"), "message_type": ("ACK", "REQUEST"), "status": ("ok", "not_ip", "truncated"),
        "ja4": ("t13d1", "q13d2", "t12d3"), "cert_sha256": ("aa", "bb"), "query": NAMES, "sni": NAMES,
        "server_name": NAMES, "source": ("eth0",), "sensor": (sensor,), "kind": ("port_scan", "beacon"),
    }  # fmt: skip
    kinds: dict[str, Any] = {
        "timestamp": lambda: NOON + timedelta(seconds=rng.uniform(0, 1800)),
        "int16": lambda: rng.randrange(200), "int32": lambda: rng.randrange(60_000),
        "int64": lambda: rng.randrange(10**6), "count": lambda: rng.randrange(many),
        "float32": lambda: rng.randrange(1000) / 1000, "bool": lambda: rng.random() < 0.5,
        "texts": lambda: rng.sample(hosts, 2), "int64s": lambda: [rng.randrange(many) // 2 for _ in range(20)],
        "bytes": lambda: rng.randbytes(5),
    }  # fmt: skip

    def value(name: str, kind: str) -> Any:
        if kind != "text":
            return kinds["count" if table.startswith("rollup") and kind == "int64" else kind]()
        return rng.choice(hosts if name.endswith("ip") else texts.get(name, ("x", "y", "z")))

    found = []
    for n in range(rows):
        row = {
            c.name: None if c.may_be_null and rng.random() < 0.3 else value(c.name, c.type)
            for c in TABLES[table] if c.stored
        }  # fmt: skip
        at = NOON + timedelta(seconds=n // 10 * 18000 / rows, microseconds=n // 10)
        row |= {"ts": at, "end_ts": at + timedelta(seconds=30), "frame_no": n, "part": 1 + n % 2}
        row |= {"flow_id": n // 2 + 10**6 * (sensor == "s2"), "incident_id": f"{sensor}-{n // 2}", "revision": n % 2}
        row |= {"src_port": 1024 + n, "dst_port": rng.choice((22, 53, 443)), "proto": rng.choice((6, 17))}
        # Parts of a flow share what names it, and so do the revisions of an incident; a certificate is what it is.
        row |= {name: found[-1][name] for name in KEYS if n % 2 and name in row}
        certificate = {"cert_issuer": "bb", "cert_not_before": NOON, "cert_not_after": NOON, "cert_self_signed": True}
        found.append(row | certificate | {"cert_subject": row.get("cert_sha256"), "window_s": rng.choice((1, 5, 60))})
    if table == "flows":  # somebody calls home, each half minute
        for n in range(19):
            at = NOON + timedelta(seconds=660 + 30 * n, microseconds=rng.randrange(1000))
            ends = {"src_ip": "10.0.0.77", "dst_ip": hosts[6], "src_bytes": 500 + n % 3}
            again = {"ts": at, "end_ts": at + timedelta(seconds=1), "flow_id": 10**7 + n, "part": 1}
            found.append({**found[0], **ends, **again})
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sensors, every table, two segments of each, a model of windows."""
    root = make_lake(tmp_path_factory.mktemp("engines") / "it's a lake")
    for sensor in ("s1", "s2"):
        for table in TABLES:
            rng = random.Random(f"{sensor} {table}")
            rows = made(rng, table, 3000 if table == "packets" else 120, sensor)
            if table == "addresses":
                rows.append({"ip": "10.0.0.77", "first_seen": NOON + timedelta(minutes=11)})
            segment(root, table, rows[::2], sensor=sensor, name="0-0")
            segment(root, table, rows[1::2], sensor=sensor, name="0-1")
        usual = {"median": np.zeros(len(COLUMNS)), "high": np.ones(len(COLUMNS)), "threshold": np.array([1.5])}
        arrays = {f"{length}.{name}": values for length in (1, 5, 60) for name, values in usual.items()}
        features = tuple(c.name for c in COLUMNS)
        model = Model(kind="window", method="maxz", features=features, feature_version=VERSION, arrays=arrays)
        ModelStore(root, sensor, "window").add(model)
    return root


@pytest.fixture(scope="module")
def lake(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with damaged segments of another hour: whoever asks for a range opens none of them."""
    root = tmp_path_factory.mktemp("damaged") / whole.name
    shutil.copytree(whole, root)
    for table in ("packets", "dns", "tls", "quic", "dhcp"):
        segment(root, table, [], at=NOON.replace(hour=23)).write_bytes(b"whoever opens this fails")
    return root


def compared(lake: Path, *options: str) -> str:
    """The short form of `python -m benchmarks.engines`; every answer was identical."""
    words = [sys.executable, "-m", "benchmarks.engines", str(lake), "--short", "--rows", "2000", *options]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    unlike = [line for line in done.stdout.splitlines() if "DIFFERENT" in line or "FAILED" in line]
    assert done.returncode == 0, "\n".join(unlike) + done.stderr[-2000:]
    return done.stdout


# --- the same rows ---------------------------------------------------------------------------------------------------


@needs_clickhouse
def test_clickhouse__gives_the_rows_of_duckdb(lake: Path) -> None:
    text = compared(lake, "--of", "questions", "--spark", "")
    assert f"{len(QUESTIONS) + 2} of {len(QUESTIONS) + 2} identical" in text
    empty = [line for line in text.splitlines() if " 0 rows " in line and not line.startswith(("mutes", "fleet"))]
    assert empty == [], "nothing to compare"


@needs_spark
@pytest.mark.timeout(1200)
def test_spark__in_two_executors_gives_the_rows_and_the_forest_of_duckdb(lake: Path) -> None:
    text = compared(lake, "--of", "questions")
    assert "3 processes" in text  # the driver and two executors
    assert f"{len(QUESTIONS) + 3} of {len(QUESTIONS) + 3} identical" in text


@needs_clickhouse
def test_queries_and_pages__on_clickhouse_with_every_filter(whole: Path) -> None:
    """Not the short form: every question of the dashboard with filters that lead it elsewhere."""
    words = [sys.executable, "-m", "benchmarks.engines", whole, "--of", "queries", "pages", "--spark", ""]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    _all_asked(done.stdout, queries() + texts(whole))
    assert done.returncode == 0, done.stdout


@needs_spark
@pytest.mark.timeout(1800)
def test_queries_and_pages__on_two_executors_of_spark(whole: Path) -> None:
    text = compared(whole, "--of", "queries", "pages")
    assert "3 processes" in text
    _all_asked(text, queries() + texts(whole, short=True))


def _all_asked(text: str, asked: list[Asked]) -> None:
    """Nothing was left out but what docs/scale.md says."""
    assert {asked_by.split()[0] for asked_by, _ in asked} >= {q.name for q in registry.every()} - NO_SQL
    left_out = {line.partition("  ")[0] for line in text.splitlines() if "not asked" in line}
    assert left_out == ({name for _, name in NOT_ASKED} if "spark" in text else set())
    assert "`unusual_windows`" in (ROOT / "docs/scale.md").read_text()
    assert {name.split()[0] for _, name in NOT_ASKED} == {"unusual_windows"}
    assert f"{len(asked)} of {len(asked)} identical" in text


@needs_clickhouse
def test_clickhouse_init__makes_every_table_and_question(lake: Path, tmp_path: Path) -> None:
    done = engine("lake", "clickhouse-init", "--lake", lake, "--geo", tmp_path / "geo.parquet")
    assert done.returncode == 0, done.stderr
    (tmp_path / "views.sql").write_text(done.stdout)
    code = (
        "import sys; from chdb.session import Session; s = Session(); s.query(open(sys.argv[1]).read())\n"
        "print(s.query(\"SELECT count() FROM flows WHERE sensor = 's1' AND date = '2026-11-24' AND hour = 12\"))\n"
        "print(s.query(\"SELECT count() > 0 FROM hosts_between(since = NULL, until = '2026-11-24 13:00:00')\"))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "views.sql"], capture_output=True, text=True)
    assert done.stdout.split() == ["139", "1"], done.stderr


@needs_clickhouse
def test_clickhouse__reads_what_was_shipped_to_an_object_store(tmp_path: Path) -> None:
    root = make_lake(tmp_path / "lake", "10.0.0.1", "93.184.216.34")
    with serving(tmp_path / "s3") as store:
        environment = dict(store.environment)
        url = f"s3://{BUCKET}/site"
        assert engine("ship", root, url, env=environment).returncode == 0
        done = engine("lake", "clickhouse-init", "--lake", url, env=environment)
        assert done.returncode == 0, done.stderr
        (tmp_path / "views.sql").write_text(done.stdout)
        code = (
            "import sys; from chdb.session import Session; s = Session(); s.query(open(sys.argv[1]).read())\n"
            "print(s.query('SELECT count() FROM packets'), s.query('SELECT count() FROM quic'))\n"
            "print(s.query('SELECT DISTINCT scope FROM geo ORDER BY ip'))\n"
        )
        words = [sys.executable, "-c", code, tmp_path / "views.sql"]
        done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["2", "0", '"private"', '"public"'], done.stderr


# --- what is written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", [SparkSql, ClickHouseSql])
def test_calls_that_an_engine_does_not_have__are_errors(dialect: Any) -> None:
    with pytest.raises(StoreError, match="in_net"):
        lake_sql.write(lake_sql.statement("SELECT count(*) FROM flows WHERE in_net(src_ip, '10.0.0.0/8')"), dialect)
    with pytest.raises(StoreError, match="cannot be rewritten"):
        lake_sql.statement("SELECT FROM WHERE")
    with pytest.raises(StoreError, match="no such table"):
        lake_sql.statement("FROM table_between('nosuch', NULL, NULL)")


def test_statements__keep_to_the_lake_whatever_its_name() -> None:
    for statements in (catalogue.of_spark("/l'ake", "/g'eo"), catalogue.of_clickhouse("/l'ake", "/g'eo")):
        assert not any("l'ake" in text.replace("\\'", "") for text in statements)
    assert "s3a://b/p/flows" in "".join(catalogue.of_spark("s3://b/p", "s3://b/p/geo"))
    made = "".join(catalogue.of_clickhouse("s3://b/p", "s3://b/p/geo", endpoint="http://store:8333"))
    assert "s3('http://store:8333/b/p/flows/*/*/*/*.parquet'" in made


def test_tables_that_were_never_shipped__have_no_rows() -> None:
    assert "WHERE false" in next(s for s in catalogue.spark_tables("/lake", {"packets"}) if " _flows " in s)


# --- jobs ------------------------------------------------------------------------------------------------------------


def test_sample__does_not_depend_on_segments(tmp_path: Path) -> None:
    rows = made(random.Random(1), "packets", 1500, "s1")
    one, other = make_lake(tmp_path / "one"), make_lake(tmp_path / "other")
    segment(one, "packets", rows)
    for n in range(5):
        segment(other, "packets", rows[::-1][n::5], name=f"{n}-0")
    models = []
    for root in (one, other):
        runner = jobs.Here(root)
        assert runner.ask(jobs.sample_sql("NULL, NULL", 100)).num_rows == 100
        models.append(jobs.train(runner, "NULL, NULL", 1200, load_config(None)))
        runner.close()
    assert all((values == models[1].arrays[name]).all() for name, values in models[0].arrays.items())


def test_job__rollups_add_up_and_train_makes_a_model_for_sensors(lake: Path, tmp_path: Path) -> None:
    bounds = ["--lake", lake, "--until", "2026-11-24T13:00"]
    assert engine("job", "rollups", *bounds, "--output", tmp_path / "days").returncode == 0
    assert sum(pq.read_table(tmp_path / "days/daily_traffic").column("packets").to_pylist()) == 6000
    again = engine("job", "rollups", *bounds, "--output", tmp_path / "days")
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    done = engine("job", "train", *bounds, "--rows", "2000", "--output", tmp_path / "model")
    assert done.returncode == 0, done.stderr
    assert engine("model", "import", tmp_path / "model", "--lake", make_lake(tmp_path / "sensor")).returncode == 0
    assert "10.0.0.77" in engine("job", "beacons", *bounds).stdout
    assert "q13d2" in engine("job", "rarity", *bounds).stdout


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["job", "rollups"], "--output"),
        (["job", "train", "--output", "x", "--rows", "5"], "--rows 5"),
        (["job", "rollups", "--output", "s3://b/p"], "s3://b/p"),
        (["job", "beacons", "--on", "http://x"], "--on http://x"),
        (["job", "beacons", "--since", "soon"], "--since"),
        (["job", "beacons", "--lake", "/nonexistent"], "/nonexistent"),
        (["lake", "spark-init", "--lake", "/nonexistent"], "/nonexistent"),
        (["lake", "clickhouse-init", "--geo", "/nonexistent/geo"], "/nonexistent/geo"),
    ],
)
def test_bad_input__is_one_line(lake: Path, words: list[str], part: str) -> None:
    done = engine(*words, *(() if "--lake" in words else ("--lake", lake)))
    assert done.returncode == 2
    assert part in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_spark__one_line_says_what_to_install(lake: Path, tmp_path: Path) -> None:
    (tmp_path / "pyspark.py").write_text("raise ImportError")
    words = [sys.executable, "-m", "engine", "job", "beacons", "--on", "local[1]", "--lake", lake]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.strip() == "engine: Spark is not installed: pip install 'packetlake[spark]', and Java 17"
