"""Views that answer questions: known rows in, exact answers out."""

from __future__ import annotations

import random
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import analytics
from analytics.geoip import use
from analytics.question_columns import COLUMNS, QUESTIONS
from analytics.questions import columns_text
from engine.flow_row import FLOWS
from engine.tables import arrow_schema
from tests.analytics.small_lake import FLOW_DEFAULTS, NESTED, NOON, make_lake, segment, write_mmdb
from tests.commands import ROOT

HOSTILE = "<script>alert('x')</script>\"; DROP VIEW hosts; -- \x1b[2J\n%s {} '"
A, B, SERVER = "10.0.0.1", "10.0.0.2", "93.184.216.34"


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def flow(seconds: float = 0, duration: float = 1, **columns: Any) -> dict[str, Any]:
    """A row of `flows`; each has a flow_id of its own unless one is given."""
    flow.count += 1  # type: ignore[attr-defined]
    at = after(seconds)
    return {"flow_id": flow.count, "ts": at, "end_ts": at + timedelta(seconds=duration), **columns}  # type: ignore[attr-defined]


flow.count = 0  # type: ignore[attr-defined]


def ask(lake: Path, sql: str) -> list[tuple[Any, ...]]:
    with analytics.connect(lake, threads=1) as con:
        return con.execute(sql).fetchall()


def ask_one(lake: Path, sql: str) -> dict[str, Any]:
    with analytics.connect(lake, threads=1) as con:
        con.execute(sql)
        names = [d[0] for d in con.description]
        rows = con.fetchall()
    assert len(rows) == 1, rows
    return dict(zip(names, rows[0], strict=True))


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return make_lake(tmp_path / "lake")


# --- all of them ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", QUESTIONS)
def test_empty_lake__gives_no_rows_of_the_stated_columns(lake: Path, view: str) -> None:
    with analytics.connect(lake, threads=1, untrusted=True) as con:
        stated = [(c.name, c.type) for c in COLUMNS[view]]
        for source in (view, f"{view}_between('2026-11-24', now())"):
            assert con.execute(f"FROM {source}").fetchall() == []
            # Planned anew, not as the view remembers it.
            assert [r[:2] for r in con.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()] == stated


@pytest.mark.parametrize("view", QUESTIONS)
def test_lake_of_an_older_version__has_no_such_tables(tmp_path: Path, view: str) -> None:
    segment(tmp_path, "packets", [{"src_ip": A, "dst_ip": B}])
    assert ask(tmp_path, f"FROM {view}") == []


@pytest.mark.parametrize("view", QUESTIONS)
def test_range__leaves_segments_of_other_hours_unopened(lake: Path, view: str) -> None:
    whole_history = view.startswith("new_")
    for hour in (10, 11, 12, 13):
        at = NOON.replace(hour=hour)
        for table in ("flows", "dns", "tls", "quic", "dhcp"):
            segment(lake, table, [{"ts": at, "end_ts": at}], at=at)
        segment(lake, "addresses", [{"ip": A, "first_seen": at}], at=at)
    for hour in (10, 13):  # whoever opens these fails
        for path in lake.glob(f"*/*/*/hour={hour}/*.parquet"):
            if not (whole_history and hour == 10):
                path.write_bytes(b"damaged")
    ask(lake, f"FROM {view}_between(TIMESTAMP '2026-11-24 11:00', TIMESTAMP '2026-11-24 13:00' - INTERVAL 1 SECOND)")
    if not whole_history:
        ask(lake, f"FROM {view}_between(now() + INTERVAL '100 years', NULL)")  # constant too
        ask(lake, f"FROM {view}_between(NULL, '2026-11-24 09:59')")


def test_range__begins_and_ends_exactly(lake: Path) -> None:
    segment(lake, "flows", [flow(-1), flow(0), flow(59), flow(60)])
    sql = "SELECT ts FROM connections_between('2026-11-24 12:00', '2026-11-24 12:01') ORDER BY 1"
    assert ask(lake, sql) == [(after(0),), (after(59),)]
    assert len(ask(lake, "FROM connections_between(since := '2026-11-24 12:00')")) == 3
    assert len(ask(lake, "FROM connections_between(NULL, DATE '2026-11-24')")) == 0
    assert len(ask(lake, "FROM connections_between(NULL, now())")) == (4 if datetime.now() > after(60) else 0)  # noqa: DTZ005


def test_table_between__reads_any_table(lake: Path) -> None:
    segment(lake, "packets", [{"ts": after(0)}, {"ts": after(10)}])
    assert len(ask(lake, "FROM table_between('packets', '2026-11-24 12:00:05', NULL)")) == 1
    assert ask(lake, "SELECT sensor, hour FROM table_between('packets', NULL, '2026-11-24 12:00:05')") == [("s1", 12)]


def test_columns__are_documented() -> None:
    assert columns_text() in (ROOT / "docs/queries.md").read_text(), "python -m analytics.questions"


def test_hostile_text__is_data(lake: Path) -> None:
    segment(lake, "flows", [flow(i * 60, server_name=HOSTILE, app="tls", dst_ip=SERVER) for i in range(10)])
    segment(lake, "dns", [{"query": HOSTILE + ".example.com", "qtype": "A", "answers": [SERVER, HOSTILE]}])
    segment(lake, "dhcp", [{"client_mac": HOSTILE, "assigned_ip": SERVER, "message_type": "ACK", "host_name": HOSTILE}])
    segment(lake, "tls", [{"sni": HOSTILE, "ja4": HOSTILE, "cert_sha256": HOSTILE, "cert_subject": HOSTILE}])
    host = ask_one(lake, f"FROM hosts WHERE ip = '{SERVER}'")
    assert host["names"] == [HOSTILE.lower() + ".example.com"]
    assert host["server_names"] == [HOSTILE]
    assert host["dhcp_name"] == HOSTILE
    for view in QUESTIONS:
        ask(lake, f"FROM {view}")
    assert ask(lake, "SELECT server_name FROM beacons") == [(HOSTILE,)]
    assert ask(lake, "SELECT cert_sha256, subject, server_names FROM rare_certificates") == [
        (HOSTILE, HOSTILE, [HOSTILE])
    ]


# --- connections ---------------------------------------------------------------------------------------------------


def test_connections__add_the_parts_up(lake: Path) -> None:
    parts = [
        flow(0, 60, flow_id=7, part=1, end_reason="active", src_head=b"first", rtt_us=900, src_tcp_flags=2,
             src_gap_min=5, src_gap_max=9, src_gap_mean=6.0, src_packets=3, src_size_min=60, src_size_max=99,
             src_entropy=2.0),
        flow(60, 60, flow_id=7, part=2, end_reason="active", app="tls", server_name="a.example", src_head=b"more",
             src_tcp_flags=16, src_gap_min=2, src_gap_max=7, src_gap_mean=4.0, src_packets=1, src_size_min=70,
             src_size_max=1500, src_entropy=6.0, encrypted=True),
        flow(120, 5, flow_id=7, part=3, end_reason="reset", outcome="reset", src_bytes=1, src_packets=1),
    ]  # fmt: skip
    segment(lake, "flows", [parts[2], parts[0]])
    segment(lake, "flows", [parts[1], flow(0, flow_id=8)], name="1-0")
    row = ask_one(lake, "FROM connections WHERE flow_id = 7")
    expected = {
        "ts": after(0), "end_ts": after(125), "duration_s": 125.0, "parts": 3, "src_bytes": 201, "dst_bytes": 300,
        "bytes": 501, "packets": 8, "outcome": "reset", "end_reason": "reset", "app": "tls", "server_name": "a.example",
        "src_head": b"first", "dst_head": None, "rtt_us": 900, "src_tcp_flags": 18, "src_gap_min": 2, "src_gap_max": 9,
        "src_gap_mean": 5.5, "dst_gap_mean": None, "src_size_min": 60, "src_size_max": 1500, "src_entropy": 3.0,
        "encrypted": True, "sensor": "s1",
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert ask(lake, "SELECT count(*), sum(bytes) FROM connections") == [(2, 701)]
    assert ask(lake, "SELECT parts, bytes FROM connections_between('2026-11-24 12:01', NULL)") == [(2, 301)]


def test_connections__of_two_sensors_stay_apart(lake: Path) -> None:
    for sensor in ("s1", "s2"):
        segment(lake, "flows", [flow(0, flow_id=7)], sensor=sensor)
    assert ask(lake, "SELECT sensor, parts FROM connections ORDER BY 1") == [("s1", 1), ("s2", 1)]


def test_top_conversations__whoever_began(lake: Path) -> None:
    segment(lake, "flows", [
        flow(0, src_ip=A, dst_ip=B, src_bytes=10, dst_bytes=1000, app="http"),
        flow(5, src_ip=B, dst_ip=A, src_bytes=7, dst_bytes=70, app="ssh"),
        flow(9, src_ip=A, dst_ip=SERVER, src_bytes=1, dst_bytes=2),
    ])  # fmt: skip
    assert ask(lake, "FROM top_conversations") == [
        (A, B, 1087, 80, 1007, 4, 2, ["http", "ssh"], after(0), after(6)),
        (A, SERVER, 3, 1, 2, 2, 1, [], after(9), after(10)),
    ]


def test_failed_connections__by_kind_with_the_width_of_a_scan(lake: Path) -> None:
    rows = [
        flow(i, src_ip=A, dst_ip=f"10.0.1.{i}", dst_port=445, outcome="unanswered", dst_packets=0) for i in range(5)
    ]
    rows += [
        flow(10 + i, src_ip=B, dst_ip=SERVER, dst_port=port, outcome="refused") for i, port in enumerate((21, 22, 23))
    ]
    rows += [
        flow(20, src_ip=B, dst_ip=SERVER, dst_port=22),
        flow(21, src_ip=B, dst_ip=SERVER, dst_port=22, outcome="half-open"),
        flow(22, src_ip=B, dst_ip=SERVER, dst_port=25, outcome="reset", dst_payload=0),
        flow(23, src_ip=B, dst_ip=SERVER, dst_port=80, outcome="reset"),  # after data: how programs hang up
        flow(24, src_ip=A, dst_ip="224.0.0.251", dst_port=5353, proto=17, outcome="unanswered"),
        flow(24, src_ip=A, dst_ip="ff02::fb", dst_port=5353, proto=17, outcome="unanswered"),
        flow(25, src_ip=A, dst_ip="10.0.9.9", dst_port=None, src_port=None, proto=1, outcome="unanswered"),
        # One flow of several parts is one attempt.
        *(flow(30 + i, src_ip=A, dst_ip="10.0.9.8", dst_port=9, proto=17, outcome="unanswered", flow_id=99, part=i + 1)
          for i in range(3)),
    ]  # fmt: skip
    segment(lake, "flows", rows)
    found = ask(
        lake, "SELECT * EXCLUDE (first_seen, last_seen) FROM failed_connections ORDER BY src_ip, dst_ip, dst_port"
    )
    scan = [(A, f"10.0.1.{i}", 445, 6, 1, 0, 1, 0, 0, 0, 5, 1) for i in range(5)]
    assert found == [
        *scan,
        (A, "10.0.9.8", 9, 17, 1, 0, 1, 0, 0, 0, 1, 1),
        (A, "10.0.9.9", None, 1, 1, 0, 1, 0, 0, 0, 1, 1),
        (B, SERVER, 21, 6, 1, 1, 0, 0, 0, 0, 1, 4),
        (B, SERVER, 22, 6, 2, 1, 0, 1, 0, 1, 1, 4),
        (B, SERVER, 23, 6, 1, 1, 0, 0, 0, 0, 1, 4),
        (B, SERVER, 25, 6, 1, 0, 0, 0, 1, 0, 1, 4),
    ]
    first = ask(lake, "SELECT failed, first_seen, last_seen FROM failed_connections LIMIT 1")
    assert first == [(2, after(11), after(21))]


def test_long_connections__are_as_long_as_all_parts(lake: Path) -> None:
    segment(lake, "flows", [
        flow(0, 100, flow_id=1, part=1, end_reason="active"), flow(100, 100, flow_id=1, part=2, end_reason="active"),
        flow(0, 150, flow_id=2),
    ])  # fmt: skip
    assert ask(lake, "SELECT flow_id, duration_s, parts, open FROM long_connections") == [
        (1, 200, 2, True),
        (2, 150, 1, False),
    ]


# --- services ------------------------------------------------------------------------------------------------------


def test_services__take_flows_too_short_to_tell_for_the_port_s_application(lake: Path) -> None:
    segment(lake, "flows", [
        flow(0, src_ip=A, dst_ip=SERVER, app="tls", server_name="b.example", src_bytes=10, dst_bytes=90),
        flow(1, src_ip=B, dst_ip=SERVER, app="tls", server_name="a.example"),
        flow(2, src_ip="10.0.0.3", dst_ip=SERVER, src_bytes=1, dst_bytes=2),
        flow(3, src_ip=A, dst_ip=SERVER, app="http", src_bytes=1, dst_bytes=1),
        flow(4, src_ip=A, dst_ip=SERVER, dst_port=8443, src_bytes=1, dst_bytes=1),
        flow(5, src_ip=A, dst_ip=SERVER, dst_port=22, outcome="refused"),
        flow(6, src_ip=A, dst_ip=SERVER, dst_port=23, outcome="unanswered"),
        flow(7, src_ip=A, dst_ip=SERVER, dst_port=53, proto=17, app="dns", outcome="answered", server_name="x.example"),
        flow(8, src_ip=A, dst_ip=SERVER, dst_port=None, proto=1, outcome="answered"),
    ])  # fmt: skip
    assert ask(lake, "FROM services ORDER BY bytes DESC, port") == [
        (SERVER, "443/tcp tls", 443, 6, "tls", 3, 3, 303, 192, 111, ["a.example", "b.example"], after(0), after(3)),
        (SERVER, "53/udp dns", 53, 17, "dns", 1, 1, 200, 100, 100, [], after(7), after(8)),
        (SERVER, "443/tcp http", 443, 6, "http", 1, 1, 2, 1, 1, [], after(3), after(4)),
        (SERVER, "8443/tcp", 8443, 6, None, 1, 1, 2, 1, 1, [], after(4), after(5)),
    ]


DAY = 86400


def test_new_services__are_ports_and_applications_of_the_last_day(lake: Path) -> None:
    old = [flow(-3 * DAY, dst_ip=SERVER, app="tls"), flow(-3 * DAY, dst_ip=SERVER, dst_port=8080),
           flow(-3 * DAY, dst_ip=SERVER, dst_port=25, outcome="refused")]  # fmt: skip
    new = [
        flow(0, dst_ip=SERVER, app="tls"),
        flow(1, dst_ip=SERVER, app="ssh"),  # another application on a known port
        flow(2, dst_ip=SERVER, dst_port=8080, app="http"),  # known port, told for the first time: not new
        flow(3, dst_ip=SERVER, dst_port=25, app="smtp"),  # refused before
        flow(4, dst_ip=B, dst_port=9999),
    ]
    segment(lake, "flows", old, at=NOON - timedelta(days=3))
    segment(lake, "flows", new)
    assert ask(lake, "SELECT ip, service, known_as, watched_h FROM new_services") == [
        (B, "9999/tcp", [], 72.0), (SERVER, "25/tcp smtp", [], 72.0), (SERVER, "443/tcp ssh", ["tls"], 72.0),
    ]  # fmt: skip
    since = "'2026-11-21 00:00'"
    assert len(ask(lake, f"FROM new_services_between({since}, NULL)")) == 5
    assert len(ask(lake, f"FROM new_services_between({since}, '2026-11-22')")) == 2


# --- hosts ---------------------------------------------------------------------------------------------------------


def test_hosts__know_everything_of_an_address(lake: Path, tmp_path: Path) -> None:
    database = write_mmdb(tmp_path / "geo.mmdb", {"93.184.216.0/24": NESTED})
    use(lake, database)
    mac, router = "02:00:00:00:00:01", "02:00:00:00:00:fe"
    common = {"src_ip": A, "dst_ip": SERVER, "src_mac": mac, "dst_mac": router}
    segment(lake, "flows", [
        flow(0, **common, app="tls", server_name="www.example", src_bytes=100, dst_bytes=5000, dst_packets=4),
        flow(10, **common, app="tls", server_name="www.example"),
        flow(20, **common, app="tls", server_name="api.example"),
        flow(30, **common, dst_port=53, proto=17, app="dns", server_name="asked.example", outcome="answered"),
        flow(40, **common, dst_port=81, outcome="unanswered", dst_packets=0, dst_bytes=0),
        flow(50, src_ip="10.0.0.9", dst_ip=A, dst_mac="02:00:00:00:00:02", dst_port=22, app="ssh",
             src_bytes=1, dst_bytes=2),
    ])  # fmt: skip
    segment(lake, "dns", [
        {"query": "WWW.Example", "qtype": "A", "answers": ["cname.example", SERVER]},
        {"query": "www.example", "qtype": "A", "answers": [SERVER]},
        {"query": "alias.example", "qtype": "A", "answers": [SERVER, "93.184.216.35"]},
        {"query": "text.example", "qtype": "TXT", "answers": [SERVER]},
        {"query": "printer.local", "qtype": "A", "answers": [A], "src_port": 5353, "dst_port": 5353, "ts": after(5)},
        {"query": "older.local", "qtype": "A", "answers": [A], "src_port": 5353, "dst_port": 5353, "ts": after(4)},
    ])  # fmt: skip
    client = {"client_mac": "02:00:00:00:00:02", "src_ip": "0.0.0.0", "dst_ip": "255.255.255.255"}
    segment(lake, "dhcp", [
        {**client, "message_type": "REQUEST", "requested_ip": A, "host_name": "alices-laptop"},
        {**client, "message_type": "ACK", "assigned_ip": A, "ts": after(1)},
        {"client_mac": "02:00:00:00:00:03", "message_type": "NAK", "assigned_ip": A, "host_name": "x", "ts": after(2)},
    ])  # fmt: skip
    segment(
        lake, "tls", [{"src_ip": A, "ja4": "t13d_b"}, {"src_ip": A, "ja4": "t13d_a"}, {"src_ip": A, "ja4": "t13d_b"}]
    )
    segment(lake, "quic", [{"src_ip": A, "ja4": "q13d"}, {"src_ip": SERVER, "ja4": None}])
    segment(lake, "addresses", [{"ip": A, "first_seen": after(-1)}, {"ip": "10.0.0.77", "first_seen": after(3)}])
    local = ask_one(lake, f"FROM hosts WHERE ip = '{A}'")
    assert local == {
        "ip": A, "scope": "private", "first_seen": after(-1), "last_seen": after(51), "mac": "02:00:00:00:00:02",
        "dhcp_name": "alices-laptop", "mdns_name": "printer.local", "names": [], "server_names": [],
        "country": None, "city": None, "asn": None, "as_org": None, "roles": ["22/tcp ssh"], "clients": 1, "servers": 1,
        "bytes_sent": 502, "bytes_received": 5301, "packets": 14, "flows": 6, "failed": 1,
        "ja4s": ["t13d_b", "q13d", "t13d_a"],
    }  # fmt: skip
    remote = ask_one(lake, f"FROM hosts WHERE ip = '{SERVER}'")
    assert remote == {
        "ip": SERVER, "scope": "public", "first_seen": after(0), "last_seen": after(31), "mac": None,
        "dhcp_name": None, "mdns_name": None, "names": ["www.example", "alias.example"],
        "server_names": ["www.example", "api.example"], "country": "DE", "city": "Berlin", "asn": None, "as_org": None,
        "roles": ["443/tcp tls", "53/udp dns"], "clients": 1, "servers": 0, "bytes_sent": 5300, "bytes_received": 500,
        "packets": 12, "flows": 5, "failed": 0, "ja4s": [],
    }  # fmt: skip
    only_arp = ask_one(lake, "FROM hosts WHERE ip = '10.0.0.77'")
    assert (only_arp["first_seen"], only_arp["last_seen"], only_arp["flows"], only_arp["roles"]) == (
        after(3),
        after(3),
        0,
        [],
    )
    assert ask(lake, "SELECT ip, flows FROM hosts_between('2026-11-24 12:00:45', NULL) ORDER BY ip") == [
        ("10.0.0.1", 1),
        ("10.0.0.9", 1),
    ]
    assert ask(lake, "FROM bytes_by_country") == [("DE", "Germany", 1, 5, 5800, 500, 5300)]


def test_hosts__lists_are_bounded(lake: Path) -> None:
    segment(lake, "flows", [flow(i, dst_ip=SERVER, dst_port=1000 + i, server_name=f"n{i}") for i in range(40)])
    segment(lake, "dns", [{"query": f"q{i}", "qtype": "A", "answers": [SERVER]} for i in range(40)])
    segment(lake, "tls", [{"src_ip": SERVER, "ja4": f"j{i}"} for i in range(40)])
    sql = f"SELECT len(roles), len(server_names), len(names), len(ja4s) FROM hosts WHERE ip = '{SERVER}'"
    assert ask(lake, sql) == [(10, 20, 20, 10)]


def test_hosts__of_two_sensors_are_one(lake: Path) -> None:
    for sensor in ("s1", "s2"):
        segment(lake, "flows", [flow(0, src_ip=A)], sensor=sensor)
    assert ask(lake, f"SELECT flows FROM hosts WHERE ip = '{A}'") == [(2,)]


def test_new_hosts__were_at_no_time_before(lake: Path) -> None:
    days = timedelta(days=3)
    segment(lake, "flows", [flow(-3 * DAY, src_ip=A, dst_ip=SERVER)], at=NOON - days)
    segment(lake, "addresses", [{"ip": "10.0.0.50", "first_seen": NOON - days}], at=NOON - days)
    segment(lake, "flows", [flow(0, src_ip=A, dst_ip=B, dst_bytes=7), flow(5, src_ip="10.0.0.50", dst_ip=SERVER)])
    # A later run lists every address again.
    segment(lake, "addresses", [{"ip": ip, "first_seen": after(-5)} for ip in (A, "10.0.0.50", B, "10.0.0.60")])
    assert ask(lake, "SELECT ip, first_seen, scope, bytes_sent, bytes_received, watched_h FROM new_hosts") == [
        (B, after(-5), "private", 7, 100, 72.0), ("10.0.0.60", after(-5), "private", 0, 0, 72.0),
    ]  # fmt: skip
    assert ask(lake, "SELECT ip FROM new_hosts_between('2026-11-20', '2026-11-22') ORDER BY ip") == [
        (A,), ("10.0.0.50",), (SERVER,),
    ]  # fmt: skip


# --- beacons -------------------------------------------------------------------------------------------------------


def test_beacons__rank_a_clock_above_jitter_above_chance(lake: Path) -> None:
    chance = random.Random(7)
    rows = [
        flow(i * 60, src_ip=A, dst_ip="192.0.2.1", src_bytes=500, app="http", server_name=f"c{i}.example")
        for i in range(50)
    ]
    rows += [flow(i * 60 + chance.uniform(-12, 12), src_ip=A, dst_ip="192.0.2.2", src_bytes=500) for i in range(50)]
    rows += [flow(i * 60, src_ip=A, dst_ip="192.0.2.3", src_bytes=chance.randrange(100, 9000)) for i in range(50)]
    rows += [flow(chance.uniform(0, 3000), src_ip=A, dst_ip="192.0.2.4", src_bytes=500) for i in range(50)]
    rows += [flow(i * 60, src_ip=A, dst_ip="192.0.2.5") for i in range(9)]  # too few
    rows += [flow(i * 0.01, src_ip=A, dst_ip="192.0.2.6") for i in range(50)]  # a burst
    rows += [flow(i * 300 + j * 0.1, src_ip=A, dst_ip="192.0.2.7") for i in range(2) for j in range(10)]  # two bursts
    rows += [flow(i * 60 + j * 0.1, src_ip=A, dst_ip="192.0.2.8", src_bytes=500) for i in range(12) for j in range(3)]
    chance.shuffle(rows)
    segment(lake, "flows", rows)
    found = {
        row[0]: row[1:] for row in ask(lake, "SELECT dst_ip, score, flows, beats, round(interval_s, 1) FROM beacons")
    }
    assert next(iter(found)) == "192.0.2.1"
    assert found["192.0.2.1"] == (1.0, 50, 50, 60.0)
    assert found["192.0.2.8"] == (1.0, 36, 12, 59.8)  # three connections a beat are one beat
    assert 0.7 < found["192.0.2.2"][0] < 0.9
    assert 0.5 <= found["192.0.2.3"][0] < 0.9
    assert found["192.0.2.4"][0] < 0.3
    assert set(found) == {"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.8"}
    first = ask_one(lake, "FROM beacons WHERE dst_ip = '192.0.2.1'")
    assert (first["interval_mad_s"], first["coverage"]) == (0, 1)
    assert (first["size"], first["size_mad"], first["app"], first["server_name"]) == (500, 0, "http", "c49.example")
    assert (first["first_seen"], first["last_seen"], first["bytes"]) == (after(0), after(49 * 60), 30000)


def test_beacons__with_a_gap_keep_their_score_and_lose_coverage(lake: Path) -> None:
    segment(lake, "flows", [flow(i * 60 + (i > 10) * 3600) for i in range(21)])
    assert ask(lake, "SELECT score, coverage FROM beacons") == [(1.0, 0.25)]


def test_beacons__need_a_client_that_sends(lake: Path) -> None:
    segment(lake, "flows", [flow(i * 60, src_bytes=0, src_packets=0) for i in range(20)])
    assert ask(lake, "SELECT score, size_score FROM beacons") == [(0.5, 0.0)]


def test_beacons__count_a_flow_of_several_parts_once(lake: Path) -> None:
    segment(lake, "flows", [flow(i * 60, 60, flow_id=5, part=i + 1) for i in range(50)])
    assert ask(lake, "FROM beacons") == []


# --- names and fingerprints ----------------------------------------------------------------------------------------


def test_dns_tunnels__by_what_names_could_carry(lake: Path) -> None:
    alphabet, chance = "abcdefghijklmnopqrstuvwxyz234567", random.Random(3)
    rows = [
        {"query": "".join(chance.choices(alphabet, k=40)) + ".T.evil.CO.uk", "qtype": "TXT", "rcode": "NOERROR",
         "src_ip": A, "dst_port": 53, "request_bytes": 70, "response_bytes": 200} for _ in range(100)
    ]  # fmt: skip
    rows += [
        {"query": "www.example.com", "qtype": "A", "rcode": "NOERROR", "dst_port": 53, "src_ip": ip} for ip in (A, B, B)
    ]
    rows += [{"query": "no.example.com", "qtype": "A", "rcode": "NXDOMAIN", "dst_port": 53}]
    rows += [{"query": q, "dst_port": 53} for q in (None, ".", "localhost", "example.org", "4.3.2.1.in-addr.arpa")]
    rows += [{"query": "abcdefgh.printer.local", "dst_port": 5353}]
    segment(lake, "dns", rows)
    tunnel, plain = ask(lake, "SELECT * EXCLUDE (first_seen, last_seen) FROM dns_tunnels")
    domain, capacity, names, queries, mean, longest, entropy, txt, missing, request, response, clients = tunnel
    assert (domain, names, queries, mean, longest) == ("evil.co.uk", 100, 100, 42.0, 42)
    assert 4 < entropy < 5
    assert 100 * 42 * 4 / 8 < capacity < 100 * 42 * 5 / 8
    assert (txt, missing, request, response, clients) == (1.0, 0.0, 7000, 20000, 1)
    assert plain == ("example.com", 0, 2, 4, 2.5, 3, 0.5, 0.0, 0.25, None, None, 2)


def test_rare__certificates_and_fingerprints_come_first(lake: Path) -> None:
    common = {
        "cert_sha256": "aa",
        "cert_subject": "CN=a",
        "cert_issuer": "CN=ca",
        "ja4": "t13_common",
        "dst_ip": SERVER,
    }
    rows = [{**common, "src_ip": f"10.0.0.{i}", "flow_id": i, "sni": "a.example"} for i in range(20)]
    rows += [
        {"cert_sha256": "bb", "cert_subject": "CN=x", "cert_issuer": "CN=x", "cert_not_after": NOON - timedelta(days=1),
         "ja4": "t10_odd", "src_ip": A, "dst_ip": B, "flow_id": i} for i in (50, 51)
    ]  # fmt: skip
    rows += [{"cert_sha256": None, "ja4": None}]
    segment(lake, "tls", rows)
    segment(lake, "quic", [{"ja4": "q13", "src_ip": A, "flow_id": 90, "sni": "q.example", "dst_ip": SERVER}])
    odd, usual = ask(lake, "SELECT * EXCLUDE (first_seen, last_seen) FROM rare_certificates")
    assert odd == (1, 1, 2, "CN=x", "CN=x", True, NOON - timedelta(days=1), True, [], [A], [B], "bb")
    assert usual[:9] == (20, 1, 20, "CN=a", "CN=ca", False, None, False, ["a.example"])
    assert len(usual[9]) == 10
    found = ask(lake, "SELECT ja4, hosts, flows, servers, server_names FROM rare_ja4")
    assert found == [
        ("q13", 1, 1, 1, ["q.example"]), ("t10_odd", 1, 2, 1, []), ("t13_common", 20, 20, 1, ["a.example"]),
    ]  # fmt: skip


# --- size ----------------------------------------------------------------------------------------------------------


MANY = """
SELECT TIMESTAMP '2026-11-24 12:00' + to_microseconds(pick(range, 1, 3600000000)) AS ts,
       ts + INTERVAL 2 SECOND AS end_ts, flow_id, range % 2 + 1 AS part,
       '10.0.' || pick(flow_id, 2, 4) || '.' || pick(flow_id, 3, 250) AS src_ip,
       pick(flow_id, 4, 90) + 11 || '.1.' || pick(flow_id, 5, 20) || '.' || pick(flow_id, 6, 250) AS dst_ip,
       [443, 80, 53, 22][pick(flow_id, 7, 4) + 1] AS dst_port, 1 AS src_packets, 1 AS dst_packets,
       100 + pick(range, 8, 5000) AS src_bytes, 300 AS dst_bytes,
       ['established', 'answered', 'unanswered', 'refused'][pick(flow_id, 9, 4) + 1] AS outcome,
       ['tls', 'http', NULL][pick(flow_id, 10, 3) + 1] AS app
FROM (SELECT range, range // 2 AS flow_id FROM range(200000))
"""


def test_two_hundred_thousand_parts__add_up_and_cost(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with duckdb.connect() as con:
        con.execute("CREATE MACRO pick(i, salt, n) AS (hash(i, salt) % n)::BIGINT")
        made = con.sql(MANY).to_arrow_table()
    rest = {c.name: FLOW_DEFAULTS.get(c.name, "eth0") for c in FLOWS if c.stored and not c.may_be_null}
    names = arrow_schema("flows").names
    columns = [
        made[n] if n in made.column_names else pa.array([rest[n]] * len(made)) if n in rest else pa.nulls(len(made))
        for n in names
    ]
    folder = lake / "flows/sensor=big/date=2026-11-24/hour=12"
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns, names=names), folder / "1-0.parquet")
    with analytics.connect(lake, threads=1) as con:
        for view in QUESTIONS:
            began = time.process_time()
            rows = con.sql(f"FROM {view}").to_arrow_table().num_rows
            with capsys.disabled():
                print(f"\n  {view}: {rows} rows, {(time.process_time() - began) * 1000:.0f} ms of CPU", end="")
        total = con.execute("SELECT sum(bytes), count(DISTINCT flow_id) FROM flows").fetchone()
        assert total is not None
        assert con.execute("SELECT sum(bytes), count(*) FROM connections").fetchone() == total
        assert con.execute("SELECT sum(bytes), sum(flows) FROM top_conversations").fetchone() == total
        assert con.execute("SELECT sum(bytes_sent), sum(bytes_received) FROM hosts").fetchone() == (total[0], total[0])
        answered = "WHERE outcome IN ('established', 'answered')"
        assert (
            con.execute("SELECT sum(bytes) FROM services").fetchone()
            == con.execute(f"SELECT sum(bytes) FROM connections {answered}").fetchone()
        )
        assert (
            con.execute("SELECT sum(failed) FROM failed_connections").fetchone()
            == con.execute("SELECT count(*) FROM connections WHERE outcome IN ('unanswered', 'refused')").fetchone()
        )
