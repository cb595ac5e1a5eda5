"""Snapshots against real lakes; what is expected is computed with numpy from the rows that were written."""

from __future__ import annotations

import gzip
import json
import os
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from analytics.countries import COUNTRIES
from analytics.queries import RANGES_S, Snapshots, step_for
from analytics.recent import info_text, protocol_name
from analytics.segments import SegmentIndex
from engine.tables import arrow_schema
from tests.lakes import (
    GEOIP_COUNTRIES,
    Lake,
    packets_table,
    write_empty_lake,
    write_geoip,
    write_lake,
    write_segment,
)

END = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)  # on the hour, so that the lake spans two partitions
NOW = END.timestamp() + 0.25


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return write_lake(tmp_path_factory.mktemp("lake"), 30_000, 400, END, kernel_drops=150)


@pytest.fixture(scope="module")
def rows(lake: Lake) -> dict[str, np.ndarray]:
    table = lake.packets
    columns = {n: np.asarray(table[n].to_pylist(), object) for n in
               ("proto", "ethertype", "src_ip", "dst_ip", "src_port", "dst_port", "status")}  # fmt: skip
    columns["t"] = table["ts"].cast(pa.int64()).to_numpy() / 1e6
    columns["wirelen"] = table["wirelen"].to_numpy()
    names = {6: "TCP", 17: "UDP", 1: "ICMP", 58: "ICMP"}
    kinds = zip(columns["proto"], columns["ethertype"], strict=True)
    columns["class"] = np.array([names.get(p, "ARP" if e == 0x0806 else "Other") for p, e in kinds])
    return columns


def at(lake: Lake | Path, now: float = NOW) -> Snapshots:
    return Snapshots(lake.path if isinstance(lake, Lake) else lake, clock=lambda: now, read_s=60)


def test_snapshot__mix_and_totals_are_exact(lake, rows):
    snapshot = at(lake).snapshot(300)
    assert snapshot["start"] == int(NOW - 300) // 10 * 10
    inside = rows["t"] >= snapshot["start"]
    assert 0 < inside.sum() < len(inside)
    for i, name in enumerate(snapshot["mix"]["name"]):
        mine = inside & (rows["class"] == name)
        assert snapshot["mix"]["packets"][i] == mine.sum()
        assert snapshot["mix"]["bytes"][i] == rows["wirelen"][mine].sum()
    kpi = snapshot["kpi"]
    assert kpi["packets"] == inside.sum()
    assert kpi["bytes"] == rows["wirelen"][inside].sum()
    assert kpi["undecodable"] == (inside & ~np.isin(rows["status"], ["ok", "not_ip"])).sum() > 0


def test_snapshot__timeline_counts_every_packet_of_every_whole_bucket(lake, rows):
    for range_s in RANGES_S:
        timeline = at(lake).snapshot(range_s)["timeline"]
        count, step = len(timeline["bits"]), timeline["step"]
        assert count <= 181
        assert timeline["start"] + count * step <= NOW - 1.5  # the last partial bucket is left out
        bucket = (rows["t"] - timeline["start"]) // step
        for name, values in timeline["series"].items():
            mine = bucket[(rows["class"] == name) & (bucket >= 0) & (bucket < count)].astype(int)
            np.testing.assert_allclose(values, np.bincount(mine, minlength=count) / step)
        inside = (bucket >= 0) & (bucket < count)
        bits = np.bincount(bucket[inside].astype(int), rows["wirelen"][inside] * 8, minlength=count) // step
        np.testing.assert_allclose(timeline["bits"], bits, atol=8)


@pytest.mark.parametrize(("which", "column"), [("sources", "src_ip"), ("destinations", "dst_ip")])
def test_snapshot__talkers_are_exact(lake, rows, which, column):
    snapshot = at(lake).snapshot(300)
    inside = (rows["t"] >= snapshot["start"]) & (rows[column] != None)  # noqa: E711 — compares an object array
    sizes: Counter[str] = Counter()
    for key, size in zip(rows[column][inside], rows["wirelen"][inside], strict=True):
        sizes[key] += int(size)
    packets = Counter(rows[column][inside])
    best = sorted(sizes, key=lambda k: (-sizes[k], k))[:10]
    talkers = snapshot["talkers"][which]
    assert talkers["key"] == best
    assert talkers["bytes"] == [sizes[k] for k in best]
    assert talkers["packets"] == [packets[k] for k in best]


def test_snapshot__ports_are_the_service_side(lake, rows):
    snapshot = at(lake).snapshot(300)
    ports = snapshot["talkers"]["ports"]
    assert ports["key"][0] == "443 tcp"
    https = (rows["src_port"] == 443) | (rows["dst_port"] == 443)
    mine = (rows["t"] >= snapshot["start"]) & (rows["proto"] == 6) & https
    assert ports["bytes"][0] == rows["wirelen"][mine].sum()


def test_snapshot__countries_are_exact(tmp_path):
    pytest.importorskip("mmdb_writer")
    lake = write_lake(tmp_path, 5_000, 60, END)
    assert at(lake).snapshot(300)["countries"]["database"] is False
    write_geoip(tmp_path)
    countries = at(lake).snapshot(300)["countries"]
    sizes: Counter[str] = Counter()
    for ip, size in zip(lake.packets["dst_ip"].to_pylist(), lake.packets["wirelen"].to_pylist(), strict=True):
        if ip is not None:
            private = ip.startswith(("10.20.", "fd20:"))
            sizes["private" if private else GEOIP_COUNTRIES.get(".".join(ip.split(".")[:2]), "unlocated")] += size
    assert (countries["private"], countries["unlocated"]) == (sizes.pop("private"), sizes.pop("unlocated"))
    assert countries["bytes"] == [size for _, size in sizes.most_common()]
    assert countries["located"] == sum(sizes.values())
    assert countries["name"][0] == COUNTRIES[sizes.most_common(1)[0][0]][1]
    assert countries["attribution"] == "IP Geolocation by DB-IP"


def test_snapshot__recent_is_the_newest_sixty(lake, rows):
    recent = at(lake).snapshot(300)["recent"]
    assert len(recent["ts"]) == 60
    assert recent["ts"] == [int(t * 1000) for t in (rows["t"][::-1][:60] * 1e6).round() / 1e6]
    assert recent["len"] == rows["wirelen"][::-1][:60].tolist()


def test_snapshot__drops_are_split_by_cause(lake):
    snapshot = at(lake).snapshot(300)
    drops = snapshot["kpi"]["drops"]
    assert (drops["kernel"], drops["interface"], drops["own"], drops["lost"]) == (150, 0, 0, 150)
    assert drops["pct"] == pytest.approx(100 * 150 / drops["seen"], abs=1e-3)
    assert snapshot["capture"]["minute"]["lost"] == 150


def test_snapshot__rate_is_that_of_the_running_capture(lake):
    stats = lake.stats.slice(lake.stats.num_rows - 8).to_pylist()
    recent = [r for r in stats if r["ts"].replace(tzinfo=UTC).timestamp() > NOW - 8]
    kpi = at(lake).snapshot(300)["kpi"]
    assert kpi["pps"] == pytest.approx(sum(r["received"] for r in recent) / len(recent), abs=0.1)
    assert kpi["bps"] == pytest.approx(sum(r["wire_bytes"] for r in recent) * 8 / len(recent), abs=1)
    assert at(lake, NOW + 60).snapshot(300)["kpi"]["pps"] == 0


def test_snapshot__capture_state(lake, tmp_path):
    assert at(lake).snapshot(300)["capture"] | {"minute": None} == {
        "state": "live", "sources": ["eth0"], "last": int(END.timestamp() * 1000), "age_s": 0.2, "minute": None,
    }  # fmt: skip
    later = at(lake, NOW + 9_000).snapshot(300)
    assert later["capture"]["state"] == "stopped"
    assert later["capture"]["sources"] == ["eth0"]
    write_empty_lake(tmp_path)
    assert at(tmp_path).snapshot(300)["capture"]["state"] == "none"


def test_snapshot__newest_shows_an_old_lake(lake, rows):
    snapshots = at(lake, NOW + 90 * 86400)
    old = snapshots.snapshot(300)
    assert old["kpi"]["packets"] == 0
    assert old["recent"]["ts"] == []
    assert old["last_packet"] == pytest.approx(rows["t"][-1])
    newest = snapshots.snapshot(300, newest=True)
    assert newest["kpi"]["packets"] == (rows["t"] >= newest["start"]).sum() > 0
    assert len(newest["recent"]["ts"]) == 60


def test_snapshot__replay_from_a_clock_ahead_is_found(tmp_path):
    write_empty_lake(tmp_path)
    path = write_segment(tmp_path, "packets", packets_table(500, 20, END + timedelta(days=400)), 1)
    os.utime(path, (NOW, NOW))
    assert at(tmp_path).snapshot(300, newest=True)["kpi"]["packets"] == 500


@pytest.mark.parametrize("make", [write_empty_lake, lambda path: None])
def test_snapshot__empty_lake_has_the_same_shape(lake, tmp_path, make):
    make(tmp_path)
    full, empty = at(lake).snapshot(300), at(tmp_path).snapshot(300)
    assert full.keys() == empty.keys()
    assert empty["kpi"]["packets"] == 0
    assert empty["last_packet"] is None
    assert empty["kpi"]["drops"]["pct"] is None


def test_snapshot__new_segments_are_added_once(tmp_path):
    write_empty_lake(tmp_path)
    table = packets_table(3_000, 30, END)
    clock = [NOW]
    snapshots = Snapshots(tmp_path, clock=lambda: clock[0])
    for seq in range(6):
        write_segment(tmp_path, "packets", table.slice(seq * 500, 500), seq)
        clock[0] += 1
        assert snapshots.snapshot(300)["kpi"]["packets"] == (seq + 1) * 500
    clock[0] += 30  # slots are folded meanwhile
    assert snapshots.snapshot(300)["kpi"]["packets"] == 3_000
    assert snapshots.snapshot(3600)["kpi"]["packets"] == 3_000


def test_snapshot__merged_segments_are_not_counted_twice(tmp_path):
    write_empty_lake(tmp_path)
    table = packets_table(2_000, 20, END)
    parts = [write_segment(tmp_path, "packets", table.slice(i * 500, 500), i) for i in range(4)]
    clock = [NOW]
    snapshots = Snapshots(tmp_path, clock=lambda: clock[0])
    before = snapshots.snapshot(300)
    write_segment(tmp_path, "packets", table, 9)
    for part in parts:
        part.unlink()
    clock[0] += 2
    after = snapshots.snapshot(300)
    assert after["kpi"]["packets"] == before["kpi"]["packets"] == 2_000
    assert after["talkers"]["sources"] == before["talkers"]["sources"]


def test_snapshot__damaged_segment_is_named_and_the_rest_counted(tmp_path):
    write_empty_lake(tmp_path)
    table = packets_table(1_000, 20, END)
    write_segment(tmp_path, "packets", table.slice(0, 600), 1)
    bad = write_segment(tmp_path, "packets", table.slice(600, 400), 2)
    times = bad.stat()
    bad.write_bytes(b"PAR1 this is not Parquet PAR1")
    os.utime(bad, (times.st_atime, times.st_mtime))
    snapshot = at(tmp_path).snapshot(300)
    assert snapshot["kpi"]["packets"] == 600
    assert [path for path, _ in snapshot["unreadable"]] == [str(bad)]


def test_snapshot__long_read_is_answered_in_parts(lake, rows):
    snapshots = Snapshots(lake.path, clock=lambda: NOW, read_s=0)
    first = snapshots.snapshot(300)
    assert 0 < first["loaded"] < 1
    assert 0 < first["kpi"]["packets"] < (rows["t"] >= first["start"]).sum()
    assert first["recent"]["ts"] == at(lake).snapshot(300)["recent"]["ts"]  # the newest come first
    for _ in range(10):
        last = snapshots.snapshot(300)
    assert last["loaded"] == 1
    assert last["kpi"]["packets"] == (rows["t"] >= first["start"]).sum()


def test_snapshot__unfinished_segments_are_invisible(tmp_path):
    write_empty_lake(tmp_path)
    path = write_segment(tmp_path, "packets", packets_table(100, 5, END), 1)
    path.rename(f"{path}.inprogress")
    assert at(tmp_path).snapshot(300)["kpi"]["packets"] == 0


def test_snapshot__many_viewers_ask_the_lake_once(lake):
    snapshots = at(lake)
    answers: list[dict] = []
    threads = [threading.Thread(target=lambda: answers.append(snapshots.snapshot(300))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert snapshots.asked == 1
    assert all(answer is answers[0] for answer in answers)


def test_snapshot__fits_in_8_kilobytes(lake):
    snapshot = at(lake).snapshot(300)
    assert len(gzip.compress(json.dumps(snapshot, separators=(",", ":"), allow_nan=False).encode())) < 8_000


def test_snapshot__range_is_one_of_three(lake):
    with pytest.raises(ValueError, match="range_s = 77"):
        at(lake).snapshot(77)


@pytest.mark.parametrize("range_s", RANGES_S)
def test_step__is_short_and_gives_few_buckets(range_s):
    assert 100 / 2 <= range_s / step_for(range_s) <= 180


def test_segments__files_outside_the_window_are_left_alone(lake):
    index = SegmentIndex(lake.path, "packets")
    end = END.timestamp()
    found = index.within(end - 10, end)
    assert 9 <= len(found) <= 11
    assert found == sorted(found, key=lambda s: s.start, reverse=True)
    assert index.newest() == found[0]
    assert index.within(end - 86400, end - 3 * 3600) == []


def test_recent__every_kind_of_packet_has_a_name_and_a_text():
    nothing = dict.fromkeys(("tcp_flags", "icmp_type", "icmp_code", "arp_op", "payload_len", "is_fragment", "encap",
                             "inner_src_ip", "inner_dst_ip", "proto"))  # fmt: skip
    row = nothing | {"status": "ok"}
    assert info_text(row | {"tcp_flags": 18}) == "SYN ACK"
    assert info_text(row | {"tcp_flags": 0}) == "no flags"
    assert info_text(row | {"proto": 1, "icmp_type": 3, "icmp_code": 1}) == "destination unreachable, code 1"
    assert info_text(row | {"proto": 58, "icmp_type": 135, "icmp_code": 0}) == "neighbor solicitation"
    assert info_text(row | {"arp_op": 1, "status": "not_ip"}) == "who has"
    assert info_text(row | {"encap": "vxlan", "inner_src_ip": "::1", "inner_dst_ip": "::2"}) == "vxlan ::1 → ::2"
    assert info_text(row | {"status": "truncated_transport"}) == "truncated transport"
    assert [protocol_name(6, 2048), protocol_name(99, 2048), protocol_name(None, 0x0806)] == ["TCP", "IP 99", "ARP"]
    assert [protocol_name(None, 0x1234), protocol_name(None, None)] == ["0x1234", "802.3"]


def test_lakes__are_what_the_schema_says(lake):
    assert lake.packets.schema.equals(arrow_schema("packets"))
    assert lake.stats["rows"].to_numpy().sum() == lake.packets.num_rows
