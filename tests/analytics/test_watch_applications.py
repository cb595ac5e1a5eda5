"""Lists of applications, filters about them, and hosts under a filter, against plain SQL on a lake of real captures."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest

import analytics
from analytics.watch.answers import applications
from analytics.watch.answers.application_lists import APPLICATIONS
from analytics.watch.application_fields import APPLICATION_FIELDS
from analytics.watch.filters import parse
from analytics.watch.watch import Watch
from engine.tables import TABLES
from tests.analytics.small_lake import NOON, make_lake, segment


@pytest.fixture(scope="module")
def watch(real_lake: Path) -> Iterator[Watch]:
    watch = Watch(real_lake)
    yield watch
    watch.close()


@pytest.fixture(scope="module")
def con(real_lake: Path) -> Iterator[Any]:
    with analytics.connect(real_lake, threads=1) as con:
        yield con


def _ask(watch: Watch, name: str, filter_text: str = "", **params: Any) -> Any:
    return watch.answer(name, range_text="all", filter_text=filter_text, role="operator", params=params)


@pytest.mark.parametrize("table", sorted(APPLICATIONS))
def test_lists_and_series_add_up(watch: Watch, con: Any, table: str) -> None:
    answer = _ask(watch, table, limit=0, top=100)
    assert sum(map(sum, answer["timeline"]["series"].values())) == answer["totals"]["count"] > 0
    for name, counted in APPLICATIONS[table].lists.items():
        also = f" AND {counted.where}" if counted.where else ""
        [want] = con.execute(
            f"SELECT count(*), count(DISTINCT {counted.expression}) FROM {table} "
            f"WHERE {counted.expression} IS NOT NULL{also}"
        ).fetchall()
        found = answer[name]
        assert len(found["count"]) == min(want[1], 100)
        if want[1] <= 100:
            assert sum(found["count"]) == want[0]
        if counted.order == "count DESC":
            assert found["count"] == sorted(found["count"], reverse=True)


def test_latency_over_time_is_that_of_the_rows(watch: Watch, con: Any) -> None:
    answer = _ask(watch, "dns")
    assert max(v for v in answer["timeline"]["latency"]["p99_us"] if v is not None) > 0
    [want] = con.execute("SELECT quantile_cont(latency_us, 0.5)::BIGINT FROM dns").fetchall()
    assert answer["totals"]["latency_p50_us"] == want[0]


def test_doubtful_certificates_come_first(tmp_path: Path) -> None:
    lake = make_lake(tmp_path / "lake")
    row = {"src_ip": "10.0.0.1", "dst_ip": "10.0.0.2", "cert_self_signed": False}
    # Seen by the first of them at noon: ended, ends in 20 days, self-signed, ends in 90 days.
    ends = {"old": -1, "soon": 20, "own": 900, "fine": 90}
    segment(
        lake, "tls",
        [row | {"cert_sha256": name, "cert_not_after": NOON + timedelta(days=days), "cert_self_signed": name == "own"}
         for name, days in reversed(ends.items())],
    )  # fmt: skip
    watch = Watch(lake)
    try:
        answer = watch.answer("tls", range_text="2026-11-24T11:00,2026-11-24T13:00", params={})
        assert answer["certificates"]["sha256"] == ["old", "soon", "own", "fine"]
        assert answer["certificates"]["ends_soon"] == [True, True, False, False]
        told = ("certificates", "expired", "ends_soon", "self_signed", "questionable")
        assert [answer["totals"][name] for name in told] == [4, 1, 2, 1, 3]
    finally:
        watch.close()


@pytest.mark.parametrize(
    ("table", "column", "field"),
    [("tls", "ja3", "ja3"), ("tls", "ja4", "ja4"), ("dns", "rcode", "rcode"), ("http", "user_agent", "agent"),
     ("http", "status", "code"), ("tls", "cert_sha256", "cert")],
)  # fmt: skip
def test_a_value_filters_its_table_and_the_flows_behind_it(
    watch: Watch, con: Any, table: str, column: str, field: str
) -> None:
    [[value, rows]] = con.execute(
        f"SELECT {column}, count(*) FROM {table} WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 1"
    ).fetchall()
    text = f'{field}="{value}"'
    assert _ask(watch, table, text)["totals"]["count"] == rows
    assert _ask(watch, table, f"-{text}")["totals"]["count"] == _ask(watch, table)["totals"]["count"] - rows
    tables = [t for t in APPLICATION_FIELDS[field][2] if column in {c.name for c in TABLES[t]}]
    ids = " UNION ALL ".join(f"SELECT flow_id FROM {t} WHERE {column}::VARCHAR = '{value}'" for t in tables)
    [[flows]] = con.execute(f"SELECT count(DISTINCT flow_id) FROM flows WHERE flow_id IN ({ids})").fetchall()
    assert _ask(watch, "flows", text)["total"] == flows > 0
    [[size]] = con.execute(f"SELECT count(*) FROM packets WHERE flow_id IN ({ids})").fetchall()
    assert _ask(watch, "overview", text)["kpi"]["packets"] == size


def test_every_field_knows_its_tables() -> None:
    for name, (_, column, tables) in APPLICATION_FIELDS.items():
        assert all(column in {c.name for c in TABLES[t]} for t in tables), name
        assert parse(f"{name}=x").where("packets").ignored == ()
        assert parse(f"{name}=x").where("alerts").ignored == (f"{name}=x",)


def test_one_host_obeys_the_filter(watch: Watch, con: Any) -> None:
    [[ip]] = con.execute(
        "SELECT src_ip FROM flows WHERE app = 'tls' AND src_ip <> dst_ip GROUP BY 1 ORDER BY count(*) DESC LIMIT 1"
    ).fetchall()
    whole, part = _ask(watch, "host", ip=ip), _ask(watch, "host", "app=tls", ip=ip)
    assert part["protocols"]["class"] == ["TLS"]
    assert 0 < part["totals"]["flows"] <= whole["totals"]["flows"]
    assert sum(part["protocols"]["bytes"]) == part["totals"]["bytes_sent"] + part["totals"]["bytes_received"]
    nothing = _ask(watch, "host", "app=nonsense", ip=ip)
    assert "no connection that began" in nothing["verdict"]


def test_places_hold_every_host_once(watch: Watch) -> None:
    found = _ask(watch, "places")
    hosts = sum(found["countries"]["hosts"]) + found["unlocated"]["hosts"] + found["internal"]["hosts"]
    assert hosts == _ask(watch, "hosts")["total"] > 0
    assert not found["database"]


def test_more_rows_than_can_be_listed__the_newest_and_since_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applications, "MOST_ROWS", 250)
    lake = make_lake(tmp_path / "lake")
    segment(lake, "packets", [{"ts": NOON}, {"ts": NOON + timedelta(seconds=599)}])
    for n in range(10):
        at = NOON + timedelta(seconds=60 * n)
        rows = [
            {"ts": at + timedelta(milliseconds=i), "query": f"n{n}.example", "rcode": "NOERROR"} for i in range(100)
        ]
        segment(lake, "dns", rows, name=f"{int(at.replace(tzinfo=UTC).timestamp() * 1e6)}-0")
    watch = Watch(lake)
    try:
        answer = _ask(watch, "dns")
        start = NOON + timedelta(seconds=60 * 7)  # the segment with which it became too many is in
        assert answer["since_us"] == int(start.replace(tzinfo=UTC).timestamp() * 1e6)
        assert answer["totals"]["count"] == sum(map(sum, answer["timeline"]["series"].values())) == 300
        assert sorted(answer["names"]["name"]) == ["n7.example", "n8.example", "n9.example"]
        monkeypatch.setattr(applications, "MOST_ROWS", 1000)
        answer = _ask(watch, "dns", limit=1)
        assert (answer["since_us"], answer["totals"]["count"]) == (None, 1000)
    finally:
        watch.close()
