"""Views over a lake that is being written, incomplete, old, damaged, or not there."""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
import shutil
import subprocess
import sys
import threading
import time
from datetime import date, datetime
from pathlib import Path

import duckdb
import pytest

import analytics
from analytics.readonly import check
from analytics.store import register_listing, view_sql
from engine.errors import ConfigError, StoreError
from engine.schema import SQL_TYPES
from engine.tables import TABLES
from tests.analytics.small_lake import NOON, make_lake, segment


def test_columns__are_those_of_the_contract_then_the_partitions(tmp_path: Path) -> None:
    with analytics.connect(make_lake(tmp_path)) as con:
        for table, columns in TABLES.items():
            described = [row[:2] for row in con.execute(f"DESCRIBE {table}").fetchall()]
            expected = [(c.name, SQL_TYPES[c.type]) for c in columns]
            expected += [("sensor", "VARCHAR"), ("date", "DATE"), ("hour", "INTEGER")]
            assert described == expected
            planned = con.execute(f"DESCRIBE SELECT * FROM {table}").fetchall()  # not as the view remembers it
            assert [row[:2] for row in planned] == expected


def test_view__is_created_without_a_look_at_the_segments(tmp_path: Path) -> None:
    sql = view_sql("packets")
    make_lake(tmp_path, "10.0.0.1")
    (tmp_path / "packets").rename(tmp_path / "away")
    with duckdb.connect() as con:
        register_listing(con, tmp_path)
        con.execute(sql)
        (tmp_path / "away").rename(tmp_path / "packets")
        assert con.execute("SELECT src_ip FROM packets").fetchall() == [("10.0.0.1",)]


def test_rows__come_with_their_partition(tmp_path: Path) -> None:
    segment(make_lake(tmp_path), "packets", [{"src_ip": "10.0.0.1"}], sensor="007", at=datetime(2026, 3, 1, 8))  # noqa: DTZ001 — UTC by contract
    with analytics.connect(tmp_path) as con:
        rows = con.execute("SELECT sensor, date, hour, src_ip, app FROM packets").fetchall()
    assert rows == [("007", date(2026, 3, 1), 8, "10.0.0.1", None)]


def test_text_equality__finds_the_address(tmp_path: Path) -> None:
    with analytics.connect(make_lake(tmp_path, "10.0.0.1", "2001:db8::1")) as con:
        assert con.execute("SELECT dst_ip FROM packets WHERE src_ip = '10.0.0.1'").fetchall() == [("2001:db8::1",)]
        assert con.execute("SELECT count(*) FROM packets WHERE src_ip = '2001:db8::1'").fetchone() == (1,)


def test_absent__is_null(tmp_path: Path) -> None:
    segment(make_lake(tmp_path), "packets", [{"status": "not_ip"}])
    with analytics.connect(tmp_path) as con:
        row = con.execute("SELECT src_ip, src_port, tcp_flags, entropy FROM packets").fetchone()
    assert row == (None, None, None, None)


def test_older_segment__lacks_a_column(tmp_path: Path) -> None:
    make_lake(tmp_path, "10.0.0.1")
    segment(tmp_path, "packets", [{"src_ip": "10.0.0.9"}], name="1-0", without=("ttl", "entropy", "arp_op"))
    with analytics.connect(tmp_path) as con:
        assert con.execute("SELECT count(*), count(ttl), count(entropy) FROM packets").fetchone() == (2, 0, 0)


def test_unfinished_file__is_not_seen(tmp_path: Path) -> None:
    make_lake(tmp_path, "10.0.0.1")
    finished = next((tmp_path / "packets/sensor=s1").rglob("*.parquet"))
    finished.with_name("9-9.parquet.inprogress").write_bytes(b"PAR1 half a segm")
    with analytics.connect(tmp_path) as con:
        assert con.execute("SELECT count(*) FROM packets").fetchone() == (1,)


def test_new_segment__is_seen_by_an_open_connection(tmp_path: Path) -> None:
    with analytics.connect(make_lake(tmp_path)) as con:
        assert con.execute("SELECT count(*) FROM packets").fetchone() == (0,)
        segment(tmp_path, "packets", [{}, {}])
        assert con.execute("SELECT count(*) FROM packets").fetchone() == (2,)


@pytest.mark.parametrize("untrusted", [False, True])
def test_table_without_a_segment__is_empty_until_one_comes(tmp_path: Path, untrusted: bool) -> None:
    (tmp_path / "packets").mkdir()
    with analytics.connect(tmp_path, untrusted=untrusted) as con:
        assert con.execute("SELECT count(*) FROM packets").fetchone() == (0,)
        assert con.execute("SELECT * FROM capture_stats").fetchall() == []
        assert con.execute("SELECT * FROM geo").fetchall() == []
        segment(tmp_path, "packets", [{"src_ip": "10.0.0.1"}], sensor="late")
        segment(tmp_path, "addresses", [{"ip": "10.0.0.1"}])
        assert con.execute("SELECT sensor, src_ip FROM packets").fetchall() == [("late", "10.0.0.1")]
        assert con.execute("SELECT ip FROM geo").fetchall() == [("10.0.0.1",)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["addresses", "packets"]  # a reader writes nothing


@pytest.mark.parametrize("name", ["with space", "q'uote", "glob[1]*?", "ünï", "sensor=x"])
def test_lake_path__may_hold_any_character(tmp_path: Path, name: str) -> None:
    with analytics.connect(make_lake(tmp_path / name, "10.0.0.1"), untrusted=True) as con:
        assert con.execute("SELECT sensor FROM packets").fetchall() == [("s1",)]
    with analytics.connect(str(tmp_path / name)) as con:
        assert con.execute("SELECT count(*) FROM geo").fetchone() == (1,)


def test_missing_lake__is_one_line_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere does not exist; .*--lake DIR") as caught:
        analytics.connect(tmp_path / "nowhere")
    assert "\n" not in str(caught.value)


def test_not_a_lake__is_one_line_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(StoreError, match="is not a lake"):
        analytics.connect(tmp_path)
    with pytest.raises(StoreError, match="cannot be read"):
        analytics.connect(tmp_path / "holiday.jpg")


def test_damaged_segment__is_named_and_the_others_stay_readable(tmp_path: Path) -> None:
    make_lake(tmp_path, "10.0.0.1")
    damaged = segment(tmp_path, "packets", [{}], name="1-0", at=datetime(2026, 11, 24, 13))  # noqa: DTZ001 — UTC by contract
    damaged.write_bytes(damaged.read_bytes()[:100])
    with analytics.connect(tmp_path) as con:
        with pytest.raises(duckdb.Error, match=r"hour=13/1-0\.parquet"):
            con.execute("SELECT sum(wirelen) FROM packets").fetchall()
        query = "SELECT sum(wirelen) FROM packets WHERE date = '2026-11-24' AND hour = 12"
        assert con.execute(query).fetchone() == (100,)
        damaged.unlink()
        assert con.execute("SELECT sum(wirelen) FROM packets").fetchone() == (100,)


def test_threads_and_memory__are_set(tmp_path: Path) -> None:
    with analytics.connect(make_lake(tmp_path), threads=1, memory_limit="512MB") as con:
        row = con.execute("SELECT current_setting('threads'), current_setting('memory_limit')").fetchone()
    assert row == (1, "488.2 MiB")


def test_cursors__work_in_other_threads(tmp_path: Path) -> None:
    counts: list[object] = []
    with analytics.connect(make_lake(tmp_path, "10.0.0.1", "8.8.8.8")) as con:

        def work() -> None:
            with con.cursor() as cursor:
                query = "SELECT count(*) FROM packets p JOIN geo g ON g.ip = p.src_ip WHERE src_ip <<= '10.0.0.0/8'"
                counts.extend(cursor.execute(query).fetchall() * 1 for _ in range(20))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counts == [[(1,)]] * 80


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/hostname')",
        "COPY (SELECT 1) TO '{outside}/x.csv'",
        "ATTACH '{outside}/x.db'",
        "SET threads = 64",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "SELECT * FROM read_csv('https://example.org/x.csv')",
        "CALL enable_logging(storage = 'file', storage_path = '{outside}/log')",
    ],
)
def test_untrusted__reaches_nothing_but_the_lake(tmp_path: Path, sql: str) -> None:
    (tmp_path / "outside").mkdir()
    with analytics.connect(make_lake(tmp_path / "lake"), untrusted=True) as con:
        with pytest.raises(duckdb.Error):
            con.execute(sql.format(outside=tmp_path / "outside"))
        assert con.execute("SELECT count(*) FROM packets").fetchone() == (0,)
    assert list((tmp_path / "outside").iterdir()) == []


def test_listing__makes_nothing_for_a_name_that_sql_made_up(tmp_path: Path) -> None:
    with analytics.connect(make_lake(tmp_path / "lake"), untrusted=True) as con:
        assert con.execute("SELECT lake_segments(?)", [str(tmp_path / "made")]).fetchone() == ([],)
        assert con.execute("SELECT lake_segments('../../made')").fetchone() == ([],)
    assert not (tmp_path / "made").exists()


REFUSED = [
    "COPY (SELECT 1) TO 'x.csv'",
    "COPY packets FROM 'x.csv'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO 'x.csv'",
    "EXPLAIN (ANALYZE) COPY (SELECT 1) TO 'x.csv'",
    "EXPLAIN /* */ ANALYZE COPY (SELECT 1) TO 'x.csv'",
    "SELECT 1; ATTACH 'x.db'",
    "EXPORT DATABASE 'x'",
    "IMPORT DATABASE 'x'",
    "COPY FROM DATABASE a TO b",
    "INSTALL httpfs",
    "LOAD httpfs",
    "PREPARE p AS COPY (SELECT 1) TO 'x.csv'",
    "SET threads = 1",
    "CALL enable_logging()",
    "UPDATE EXTENSIONS",
    "COPY (PIVOT (SELECT 1 AS a, 2 AS b) ON a USING sum(b)) TO 'x.csv'",  # DuckDB calls it MULTI, as a PIVOT alone
    "-- x\rCOPY (\nPIVOT (SELECT 1 AS a, 2 AS b) ON a USING sum(b)) TO 'x.csv'",
    "/* */ EXPLAIN ANALYZE COPY (PIVOT (SELECT 1 AS a, 2 AS b) ON a USING sum(b)) TO 'x.csv'",
    "-- x\nEXPLAIN ANALYZE COPY (SELECT 1) TO 'x.csv'",
]


@pytest.mark.parametrize("sql", REFUSED)
def test_check__refuses_what_can_write_files(sql: str) -> None:
    with duckdb.connect() as con, pytest.raises(ConfigError, match=r"^SQL: [^\n]*$"):
        check(con, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "FROM range(3)",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "EXPLAIN ANALYZE SELECT 1",
        "EXPLAIN (FORMAT json) SELECT 1",
        "DESCRIBE SELECT 1",
        "SUMMARIZE SELECT 1",
        "PIVOT (SELECT 1 AS a, 2 AS b) ON a USING sum(b)",
        "/* why */ -- and\n PIVOT (SELECT 1 AS a, 2 AS b) ON a USING sum(b)",
        "EXPLAIN PIVOT (SELECT 1 AS a, 2 AS b) ON a USING sum(b)",
        "/* why */ EXPLAIN SELECT 1",
        "CREATE TEMP TABLE t AS SELECT 1; INSERT INTO t VALUES (2); SELECT * FROM t",
        "SET VARIABLE since = '2026-11-24'",
        "-- only a comment",
    ],
)
def test_check__lets_pass_what_reads(sql: str) -> None:
    with duckdb.connect() as con:
        check(con, sql)


def _write(lake: str, segments: int, readers: multiprocessing.synchronize.Barrier) -> None:
    readers.wait(120)
    for i in range(segments):
        segment(Path(lake), "packets", [{"src_ip": f"10.0.{i % 5}.1", "frame_no": i}] * 10, name=f"{i}-0")
        segment(Path(lake), "addresses", [{"ip": f"10.0.{i % 5}.1"}], name=f"{i}-0")


def _read(
    lake: str,
    segments: int,
    answers: multiprocessing.queues.Queue[object],  # type: ignore[name-defined]
    readers: multiprocessing.synchronize.Barrier,
) -> None:
    try:
        with analytics.connect(lake, threads=1) as con:
            polls, last, deadline = 0, 0, time.monotonic() + 180
            while last < segments * 10 and time.monotonic() < deadline:
                row = con.execute("SELECT count(*), count(src_ip) FROM packets").fetchone()
                assert row is not None
                assert row[0] == row[1]
                assert row[0] >= last
                assert row[0] % 10 == 0
                last = row[0]
                con.execute(
                    "SELECT g.scope, sum(wirelen) FROM packets p JOIN geo g ON g.ip = p.src_ip GROUP BY 1"
                ).fetchall()
                polls += 1
                if polls == 1:
                    readers.wait(120)
        answers.put((last, polls))
    except BaseException as error:  # noqa: BLE001 — reported to the test
        answers.put(repr(error))


def test_two_readers__while_a_third_process_writes(tmp_path: Path) -> None:
    make_lake(tmp_path)
    context = multiprocessing.get_context("spawn")
    answers, readers = context.Queue(), context.Barrier(3)
    processes = [context.Process(target=_read, args=(str(tmp_path), 120, answers, readers)) for _ in range(2)]
    processes.append(context.Process(target=_write, args=(str(tmp_path), 120, readers)))
    for process in processes:
        process.start()
    results = [answers.get(timeout=240) for _ in range(2)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    for result in results:
        assert isinstance(result, tuple), result
        assert result[0] == 1200
        assert result[1] > 1


@pytest.mark.parametrize(
    "keep",
    [
        "con = analytics.connect(lake)",
        "con = analytics.connect(lake).cursor()",
        "con = analytics.connect(lake); con.close()",
    ],
)
def test_exit__of_an_interpreter_that_queried_geo_is_silent(tmp_path: Path, keep: str) -> None:
    make_lake(tmp_path, "10.0.0.1")
    query = "con.execute('SELECT * FROM geo').fetchall()" if "close" not in keep else "pass"
    code = (
        f"import analytics, sys\nlake = sys.argv[1]\n{keep}\n{query}\nglobals()['cycle'] = [con]\ncycle.append(cycle)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_import__of_analytics_loads_no_database() -> None:
    code = "import analytics, sys; sys.exit(sum(m in sys.modules for m in ('duckdb', 'pyarrow', 'maxminddb')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_vanished_segment__leaves_the_rest(tmp_path: Path) -> None:
    make_lake(tmp_path, "10.0.0.1")
    segment(tmp_path, "packets", [{}], name="1-0", at=NOON.replace(hour=13))
    with analytics.connect(tmp_path) as con:
        assert con.execute("SELECT count(*) FROM packets").fetchone() == (2,)
        shutil.rmtree(tmp_path / "packets/sensor=s1/date=2026-11-24/hour=13")
        assert con.execute("SELECT count(*) FROM packets").fetchone() == (1,)
