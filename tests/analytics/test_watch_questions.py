"""Every question on a lake of real captures, against plain SQL."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import analytics
from analytics.watch import registry
from analytics.watch.answers import incidents
from analytics.watch.filters import parse
from analytics.watch.info import info_text, protocol_name
from analytics.watch.watch import NotAllowed, NotFound, Watch
from engine.errors import ConfigError
from tests.analytics.small_lake import make_lake, segment

ROWS = (
    "ts",
    "src",
    "dst",
    "proto",
    "app",
    "sport",
    "dport",
    "len",
    "info",
    "flow",
    "anomaly",
    "sensor",
    "source",
    "frame",
)


@pytest.fixture(scope="module")
def watch(real_lake: Path) -> Iterator[Watch]:
    watch = Watch(real_lake)
    yield watch
    watch.close()


@pytest.fixture(scope="module")
def con(real_lake: Path) -> Iterator[Any]:
    with analytics.connect(real_lake, threads=1) as con:
        yield con


def _ask(
    watch: Watch, name: str, filter_text: str = "", range_text: str = "all", role: str = "operator", **params: Any
) -> Any:
    return watch.answer(name, range_text=range_text, filter_text=filter_text, role=role, params=params)


def _one(con: Any, sql: str) -> Any:
    return con.execute(sql).fetchall()[0]


def test_overview_adds_up_to_the_packets(watch: Watch, con: Any) -> None:
    answer = _ask(watch, "overview", top=50)
    packets, size = _one(con, "SELECT count(*), sum(wirelen)::BIGINT FROM packets")
    assert (answer["kpi"]["packets"], answer["kpi"]["bytes"]) == (packets, size)
    assert sum(answer["mix"]["packets"]) == packets
    assert answer["basis"] == {"timeline": "rollup", "lists": "rollup"}
    want = con.execute(
        "SELECT src_ip, count(*), sum(wirelen)::BIGINT FROM packets WHERE src_ip IS NOT NULL "
        "GROUP BY 1 ORDER BY 3 DESC, 1"
    ).fetchall()
    found = answer["sources"]
    assert list(zip(found["key"], found["packets"], found["bytes"], strict=True)) == want[:50]
    assert answer["recent"]["ts"] == sorted(answer["recent"]["ts"], reverse=True)
    assert len(answer["recent"]["ts"]) == 40


@pytest.mark.parametrize("text", ["proto=udp", "app=dns,tls", "host=0.0.0.0/1 -port=53000", "len>200", "sni=*.com"])
def test_filtered_overview_counts_what_passes(watch: Watch, con: Any, text: str) -> None:
    answer = _ask(watch, "overview", text)
    where = parse(text).where("packets")
    [(packets, size)] = con.execute(
        f"SELECT count(*), coalesce(sum(wirelen), 0)::BIGINT FROM packets WHERE {where.sql}", where.values
    ).fetchall()
    assert (answer["kpi"]["packets"], answer["kpi"]["bytes"]) == (packets, size)
    assert sum(answer["mix"]["packets"]) == packets
    assert answer["filter"]["text"] == parse(text).text


def test_flows_stand_in_for_packets_that_are_too_many(watch: Watch, con: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from analytics.watch.answers import traffic

    monkeypatch.setattr(traffic, "MOST_PACKETS", 0)
    answer = _ask(watch, "overview", "dport=53000")
    assert answer["basis"]["timeline"] == "flows"
    want = _one(con, "SELECT sum(packets)::BIGINT, sum(bytes)::BIGINT FROM flows WHERE dst_port = 53000")
    assert abs(answer["kpi"]["packets"] - want[0]) <= len(answer["timeline"]["total_pps"])  # each bucket is rounded
    assert (
        answer["conversations"]["bytes"][0]
        == _one(
            con,
            "SELECT max(b) FROM (SELECT sum(bytes)::BIGINT AS b FROM flows WHERE dst_port = 53000 "
            "GROUP BY least(src_ip, dst_ip), greatest(src_ip, dst_ip))",
        )[0]
    )


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("text", ["", "proto=tcp", "app=dns"])
def test_pages_by_cursor_hold_every_packet_once(watch: Watch, con: Any, text: str, order: str) -> None:
    seen: list[tuple[Any, ...]] = []
    cursor, pages = "", 0
    while cursor is not None:
        answer = _ask(watch, "packets", text, limit=777, order=order, cursor=cursor)
        seen += zip(answer["rows"]["ts"], answer["rows"]["source"], answer["rows"]["frame"], strict=True)
        cursor, pages = answer["next"], pages + 1
        assert pages < 200
    where = parse(text).where("packets")
    want = con.execute(
        f"SELECT epoch_us(ts), source, frame_no FROM packets WHERE {where.sql}", where.values or None
    ).fetchall()
    assert Counter(seen) == Counter(want)
    assert [s[0] for s in seen] == sorted((s[0] for s in seen), reverse=order == "desc")
    assert _ask(watch, "packet_count", text)["count"] == len(want)


def test_pages_by_number_hold_every_packet_once(watch: Watch, con: Any) -> None:
    [(low, high)] = con.execute(
        "SELECT quantile_disc(epoch_us(ts), [0.2, 0.9])[1], quantile_disc(epoch_us(ts), [0.2, 0.9])[2] FROM packets"
    ).fetchall()
    for range_text, condition in (
        ("all", "true"),
        (f"{low},{high}", f"epoch_us(ts) >= {low} AND epoch_us(ts) < {high}"),
    ):
        want = con.execute(f"SELECT source, frame_no FROM packets WHERE {condition}").fetchall()
        seen: list[tuple[Any, ...]] = []
        for row in range(0, len(want) + 500, 500):
            answer = _ask(watch, "packets", range_text=range_text, row=row, limit=500)
            assert answer["total"] == len(want)
            seen += zip(answer["rows"]["source"], answer["rows"]["frame"], strict=True)
        assert len(seen) == len(want)
        assert Counter(seen) == Counter(want)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("text", ["", "app=dns", "len>100 -proto=udp"])
def test_any_page_by_number_is_where_it_belongs(watch: Watch, con: Any, text: str, order: str) -> None:
    where = parse(text).where("packets")
    want = [t for (t,) in con.execute(
        f"SELECT epoch_us(ts) FROM packets WHERE {where.sql} ORDER BY ts {order}", where.values or None
    ).fetchall()]  # fmt: skip
    seen: set[tuple[Any, ...]] = set()
    for row in reversed(range(0, len(want), 300)):
        answer = _ask(watch, "packets", text, row=row, limit=300, order=order)
        assert answer["total"] == len(want)
        if text:
            assert answer["rows"]["ts"] == want[row : row + 300]
        else:  # without a filter as captured: a few frames have an earlier time than the one before
            pairs = zip(answer["rows"]["ts"], want[row : row + 300], strict=True)
            assert all(abs(a - b) < 100_000 for a, b in pairs)
        seen |= set(zip(answer["rows"]["source"], answer["rows"]["frame"], strict=True))
    assert len(seen) == len(want)
    assert _ask(watch, "packets", text, row=len(want), order=order)["rows"]["ts"] == []


def test_packets_of_two_sensors_are_in_the_order_of_time(tmp_path: Path) -> None:
    lake = make_lake(tmp_path / "lake")
    start = datetime(2026, 1, 2, 3, tzinfo=UTC)
    for sensor, shift in (("a", 0.0), ("b", 0.5)):
        rows = [{"ts": start + timedelta(seconds=i + shift), "frame_no": i} for i in range(40)]
        segment(lake, "packets", rows, sensor=sensor, at=start, name=f"{int(start.timestamp() * 1e6):016d}-0")
    watch = Watch(lake)
    try:
        answer = _ask(watch, "packets", row=10, limit=20)
        assert answer["total"] == 80
        assert answer["rows"]["sensor"] == ["b", "a"] * 10
        assert answer["rows"]["ts"] == sorted(answer["rows"]["ts"], reverse=True)
    finally:
        watch.close()


def test_a_viewer_sees_headers_and_no_payload(watch: Watch) -> None:
    rows = _ask(watch, "packets", "app=dns len>150", limit=5, payload="true")["rows"]
    assert all(rows["payload"])
    assert "payload" not in _ask(watch, "packets", "app=dns len>150", role="viewer", limit=5, payload="true")["rows"]
    which = {name: rows[name][0] for name in ("sensor", "source", "frame", "ts")}
    whole = _ask(watch, "packet", **which)
    shown = _ask(watch, "packet", role="viewer", **which)
    assert len(whole["bytes"]) == 2 * whole["captured"]
    last = next(layer for layer in reversed(whole["layers"]) if layer["name"] in ("tcp", "udp"))
    assert shown["bytes"] == whole["bytes"][: 2 * last["end"]]
    assert [layer["name"] for layer in shown["layers"]] == [layer["name"] for layer in whole["layers"]]
    for layer in shown["layers"]:
        assert not layer["fields"] or layer["end"] <= last["end"]
    assert rows["payload"][0] not in json.dumps(shown)


def test_evidence_that_cannot_be_read_is_not_for_a_viewer() -> None:
    assert incidents._told('{"payload": "secret', payload=True) == {"text": '{"payload": "secret'}
    assert incidents._told('{"payload": "secret', payload=False) == {}
    assert incidents._told('{"port": 1, "first": {"payload": "x"}}', payload=False) == {"port": 1, "first": {}}


def test_a_packet_that_is_not_there(watch: Watch) -> None:
    with pytest.raises(NotFound):
        _ask(watch, "packet", sensor="s1", source="x", frame=1, ts=5)


def test_flows_are_sorted_and_counted(watch: Watch, con: Any) -> None:
    answer = _ask(watch, "flows", sort="bytes", limit=1000)
    want = con.execute("SELECT bytes FROM connections ORDER BY bytes DESC").fetchall()
    assert answer["rows"]["bytes"] == [row[0] for row in want]
    assert answer["total"] == len(want)
    assert answer["bytes"] == sum(row[0] for row in want)
    assert _ask(watch, "flows", sort="bytes", limit=5, offset=7)["rows"]["bytes"] == answer["rows"]["bytes"][7:12]


def test_one_flow_has_its_packets_and_application_rows(watch: Watch, con: Any) -> None:
    [(flow_id, packets)] = con.execute(
        "SELECT flow_id, sum(packets)::BIGINT FROM flows WHERE app = 'tls' GROUP BY 1 ORDER BY 2 DESC LIMIT 1"
    ).fetchall()
    answer = _ask(watch, "flow", flow_id=flow_id, limit=1000)
    assert answer["parts"]["flow_id"][0] == str(flow_id)  # more than a JavaScript number holds
    assert len(answer["packets"]["ts"]) == packets
    assert set(answer["packets"]["flow"]) == {str(flow_id)}
    assert answer["applications"]["tls"]["ts"]
    assert "src_head" in answer["parts"]
    assert "src_head" not in _ask(watch, "flow", role="viewer", flow_id=flow_id)["parts"]


def test_hosts_and_one_of_them(watch: Watch, con: Any) -> None:
    rows = _ask(watch, "hosts", limit=1000)["rows"]
    want = con.execute("SELECT ip, bytes_sent, bytes_received, packets, flows FROM hosts WHERE flows > 0").fetchall()
    assert sorted(
        zip(*(rows[n] for n in ("ip", "bytes_sent", "bytes_received", "packets", "flows")), strict=True)
    ) == sorted(want)
    ip = rows["ip"][0]
    answer = _ask(watch, "host", ip=ip)
    assert (answer["totals"]["bytes_sent"], answer["totals"]["bytes_received"]) == (
        rows["bytes_sent"][0],
        rows["bytes_received"][0],
    )
    assert min(answer["totals"]["peers"], 20) == len(answer["peers"]["ip"])
    assert answer["verdict"].endswith(".")
    with pytest.raises(NotFound):
        _ask(watch, "host", ip="203.0.113.77")
    with pytest.raises(ConfigError):
        _ask(watch, "host", ip="x")


def test_graph_has_the_heaviest_edges(watch: Watch, con: Any) -> None:
    answer = _ask(watch, "graph", limit=3)
    want = con.execute("SELECT a_ip, b_ip, bytes FROM top_conversations ORDER BY bytes DESC, a_ip, b_ip").fetchall()
    assert list(zip(*(answer["edges"][n] for n in ("a", "b", "bytes")), strict=True)) == want[:3]
    assert answer["hidden"] == len(want) - 3
    assert set(answer["nodes"]["ip"]) == {ip for row in want[:3] for ip in row[:2]}


@pytest.mark.parametrize(("name", "column"), [("dns", "query"), ("tls", "sni"), ("quic", "sni"), ("http", "host")])
def test_application_views(watch: Watch, con: Any, name: str, column: str) -> None:
    answer = _ask(watch, name, limit=1000, top=100)
    assert answer["totals"]["count"] == _one(con, f"SELECT count(*) FROM {name}")[0] == len(answer["rows"]["ts"]) > 0
    names = answer["hosts" if name == "http" else "names"]
    key = next(k for k in names if k in ("name", "host"))
    want = con.execute(
        f"SELECT lower({column}), count(*) FROM {name} WHERE {column} IS NOT NULL "
        "GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 100"
    ).fetchall()
    assert list(zip(names[key], names["count"], strict=True)) == want
    assert sum(map(sum, answer["timeline"]["series"].values())) == answer["totals"]["count"]


def test_alerts_in_the_inbox(tmp_path: Path, real_lake: Path) -> None:
    from analytics import alerts as words

    lake = make_lake(tmp_path / "lake")
    first = words.add(lake, "ann", kind="phishing", severity="high", src="10.0.0.7", why="a user called")
    words.add(lake, "ann", kind="phishing", severity="low", src="10.0.0.7", why="<img src=x onerror=alert(1)>")
    watch = Watch(lake)
    try:
        answer = _ask(watch, "alerts", range_text="1h")
        assert (answer["total"], answer["states"], answer["severities"]["high"]) == (
            2,
            {"open": 2, "acknowledged": 0},
            1,
        )
        assert (answer["groups"]["alerts"], answer["groups"]["severity"]) == ([2], ["high"])
        assert _ask(watch, "state")["alerts"] == {"critical": 0, "high": 1, "medium": 0, "low": 1}
        words.acknowledge(lake, first, "bob", "seen")
        watch.snapshots._kept.clear()
        assert _ask(watch, "alerts", range_text="1h", state="acknowledged")["rows"]["id"] == [first]
        one = _ask(watch, "alert", id=first)
        assert one["history"]["event"] == ["manual", "acknowledged"]
        assert one["alert"]["acknowledged_by"] == "bob"
        assert _ask(watch, "alerts", "host=10.0.0.8", range_text="1h", state="all")["total"] == 0
        body = watch.ask("alerts", range_text="1h", params={"state": "all"}).body
        assert b"<img" not in __import__("gzip").decompress(body)
    finally:
        watch.close()


def test_health_and_configuration(watch: Watch, con: Any) -> None:
    answer = _ask(watch, "health", range_text="1h")  # counters have the engine's clock, not the packets'
    want = _one(con, "SELECT sum(received)::BIGINT, sum(wire_bytes)::BIGINT FROM capture_stats")
    assert (answer["totals"]["received"], answer["totals"]["wire_bytes"]) == want
    assert answer["drops"]["lost"] == 0
    assert answer["disk"]["tables"]["packets"] > 0
    config = _ask(watch, "config", role="admin")
    assert config["sections"]["capture"]["driver"] == "libpcap"
    with pytest.raises(NotAllowed):
        _ask(watch, "config")


def test_anomalies_come_from_the_counts_of_each_minute(watch: Watch, con: Any) -> None:
    answer = _ask(watch, "anomalies", threshold=0.9)
    scored = _one(con, "SELECT coalesce(sum(scored), 0)::BIGINT FROM model_stats")[0]
    assert sum(answer["minutes"]["scored"]) == scored
    if scored:
        assert answer["thresholds"]["packets"][0] == scored
        assert answer["would"]["packets"] <= scored


def test_completion(watch: Watch) -> None:
    assert _ask(watch, "complete", text="proto=tcp ho")["suggestions"]["text"] == ["host="]
    answer = _ask(watch, "complete", text="-proto=ud")
    assert (answer["start"], answer["end"], answer["suggestions"]["text"]) == (7, 9, ["udp"])
    assert _ask(watch, "complete", text="status=op")["suggestions"]["text"] == ["open"]


@pytest.mark.parametrize("name", sorted(q.name for q in registry.every() if q.statements is not None))
@pytest.mark.parametrize("text", ["", 'host=10.0.0.1 sni="o\'x"'])
def test_shown_sql_runs_and_has_the_rows_of_the_table(watch: Watch, con: Any, name: str, text: str) -> None:
    needed = {"host": {"ip": "10.0.0.1"}, "flow": {"flow_id": "5"}}.get(name, {})
    how: dict[str, Any] = {"range_text": "all", "filter_text": text, "params": needed, "role": "admin"}
    for part, sql in watch.explain(name, **how).items():
        assert "$" not in sql.replace("'$'", "")
        rows = con.execute(f"SELECT count(*) FROM ({sql})").fetchall()[0][0]
        assert watch.table(name, part, lambda reader: reader.read_all().num_rows, **how) == rows


def test_questions_know_their_parameters(watch: Watch) -> None:
    for name, params, said in (
        ("overview", {"nope": 1}, "has no parameter 'nope'"), ("overview", {"top": 9999}, "out of range: use 1 to 50"),
        ("packets", {"cursor": "a:b"}, "cursor 'a:b'"), ("packets", {"order": "up"}, "use desc, asc"),
        ("packet", {}, "parameter sensor is missing"), ("flows", {"sort": "1; DROP TABLE x"}, "is unknown"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
            _ask(watch, name, **params)
    with pytest.raises(NotFound):
        _ask(watch, "nope")
    with pytest.raises(NotAllowed):
        _ask(watch, "overview", role="")


def test_an_empty_lake_answers_everything(tmp_path: Path) -> None:
    watch = Watch(make_lake(tmp_path / "lake"))
    try:
        for q in registry.every():
            if any(p.required for p in q.params):
                continue
            for range_text in ("5m", "24h", "5m@newest", "all"):
                watch.ask(q.name, range_text=range_text, role="admin")
    finally:
        watch.close()


def test_hostile_texts_stay_data(tmp_path: Path) -> None:
    lake = make_lake(tmp_path / "lake")
    name = "</script><script>alert(1)</script>\u2028'\";--"
    segment(
        lake, "packets", [{"src_ip": "10.0.0.1", "dst_ip": "10.0.0.2", "server_name": name, "app": "tls", "proto": 6}]
    )
    watch = Watch(lake)
    try:
        rows = _ask(watch, "packets")["rows"]
        assert name in rows["info"][0]
        import gzip

        assert b"<script" not in gzip.decompress(watch.ask("packets", range_text="all").body)
    finally:
        watch.close()


def test_words_about_a_packet() -> None:
    names = ("tcp_flags", "icmp_type", "icmp_code", "arp_op", "server_name", "payload_len", "is_fragment", "encap",
             "inner_src_ip", "inner_dst_ip", "proto")  # fmt: skip
    row: dict[str, Any] = dict.fromkeys(names) | {"status": "ok"}
    assert info_text(row | {"tcp_flags": 18}) == "SYN ACK"
    assert info_text(row | {"tcp_flags": 0}) == "no flags"
    assert info_text(row | {"proto": 1, "icmp_type": 3, "icmp_code": 1}) == "destination unreachable, code 1"
    assert info_text(row | {"proto": 58, "icmp_type": 135, "icmp_code": 0}) == "neighbor solicitation"
    assert info_text(row | {"arp_op": 1, "status": "not_ip"}) == "who has"
    assert info_text(row | {"encap": "vxlan", "inner_src_ip": "::1", "inner_dst_ip": "::2"}) == "vxlan ::1 → ::2"
    assert info_text(row | {"status": "truncated_transport"}) == "truncated transport"
    assert [protocol_name(6, 2048), protocol_name(99, 2048), protocol_name(None, 0x0806)] == ["TCP", "IP 99", "ARP"]
    assert [protocol_name(None, 0x1234), protocol_name(None, None)] == ["0x1234", "802.3"]
