"""What is answered from memory or by number, against the plain query: hosts, connections, pages of several sensors."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import analytics
from analytics.compaction import compact
from analytics.merge_jobs import Plan
from analytics.watch import mirror
from analytics.watch.answers import packet_pages
from analytics.watch.timerange import to_us
from analytics.watch.watch import Watch
from tests.analytics.small_lake import NOON, make_lake, segment

NOW = NOON + timedelta(minutes=30)
OUTCOMES = ("established", "answered", "reset", "refused", "unanswered")


class Clock:
    def __init__(self) -> None:
        self.now = to_us(NOW) / 1e6

    def __call__(self) -> float:
        return self.now


def _flows(rng: random.Random, count: int, since_s: int, until_s: int) -> list[dict[str, Any]]:
    rows = []
    for n in range(count):
        at = NOW + timedelta(seconds=rng.randrange(since_s, until_s), microseconds=rng.randrange(1_000_000))
        client, server = rng.randrange(12), rng.randrange(12)
        rows.append({
            "ts": at, "end_ts": at + timedelta(milliseconds=rng.randrange(5000)), "flow_id": rng.randrange(10**12),
            "part": rng.choice((1, 1, 1, 1, 2)), "src_ip": f"10.0.0.{client}", "dst_ip": f"10.0.1.{server}",
            "src_bytes": rng.randrange(5000), "dst_bytes": rng.randrange(50_000),
            "src_packets": n % 7, "dst_packets": n % 5,
            "outcome": rng.choice(OUTCOMES), "app": rng.choice(("tls", "dns", None)), "rtt_us": rng.randrange(900),
        })  # fmt: skip
    return rows


def _whole(watch: Watch, name: str, range_text: str, **params: Any) -> dict[str, Any]:
    """The answer once everything is read."""
    while True:
        answer = watch.answer(name, range_text=range_text, params=params)
        if answer["loaded"] == 1:
            return answer


@pytest.mark.parametrize(("range_text", "grain_s"), [("15m", 60), ("6h", 3600)])
def test_hosts_and_graph_in_memory__are_those_of_the_flows_before_and_after_a_merge(
    tmp_path: Path, range_text: str, grain_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "FOLD_ROWS", 30)
    monkeypatch.setattr(mirror, "FOLD_FINE", 30)
    rng, lake, clock = random.Random(5), make_lake(tmp_path / "lake"), Clock()
    watch = Watch(lake, clock)
    for n in range(12):
        start = -20 * 3600 if n == 0 else -1500 + 120 * n
        rows = _flows(rng, 60, start, start + 120)
        at = min(row["ts"] for row in rows)
        segment(lake, "flows", rows, name=f"{to_us(at):016d}-{n:06d}", at=at, sensor=f"s{n % 2}")
        if n % 4 == 3:
            clock.now += 1
            _whole(watch, "hosts", range_text)
    for merged in (False, True):
        if merged:
            assert compact(lake, Plan(older_s=0, least=2, grace_s=0.05), print).segments >= 6
        clock.now += 40
        seconds = int(range_text[:-1]) * (60 if range_text.endswith("m") else 3600)
        since = (int(clock.now) + 1 - seconds) // grain_s * grain_s * 1_000_000
        absolute = f"{since},{int(clock.now + 60) * 1_000_000}"
        for sort in ("bytes", "failed", "peers", "first_seen", "last_seen", "flows"):
            kept = _whole(watch, "hosts", range_text, sort=sort, limit=50)
            plain = watch.answer("hosts", range_text=absolute, params={"sort": sort, "limit": 50})
            assert kept["rows"] == plain["rows"]
            assert (kept["total"], kept["bytes"]) == (plain["total"], plain["bytes"])
            assert kept["total"] > 15
        kept, plain = _whole(watch, "graph", range_text), watch.answer("graph", range_text=absolute)
        for column in ("a", "b", "bytes", "flows", "failed"):
            assert kept["edges"][column] == plain["edges"][column]
        with analytics.connect(lake, threads=1) as con:
            rows = con.execute(
                "SELECT least(src_ip, dst_ip), greatest(src_ip, dst_ip), app, count(*) FROM flows "
                "WHERE epoch_us(ts) >= ? AND app IS NOT NULL GROUP BY ALL", [since],
            ).fetchall()  # fmt: skip
        counts: dict[tuple[str, str], dict[str, int]] = {}
        for a, b, app, n in rows:
            counts.setdefault((a, b), {})[app] = n
        for a, b, app in zip(*(kept["edges"][name] for name in ("a", "b", "app")), strict=True):
            of = counts.get((a, b), {})
            assert app is None if not of else of[app] == max(of.values())
        places = _whole(watch, "places", range_text)
        assert places["internal"]["bytes"] == watch.answer("places", range_text=absolute)["internal"]["bytes"] > 0
    watch.close()


@pytest.mark.parametrize("text", ["", "app=tls", "host=10.0.0.3"])
def test_flows__parts_add_up_in_every_order(tmp_path: Path, text: str) -> None:
    rng, lake = random.Random(6), make_lake(tmp_path / "lake")
    rows = _flows(rng, 150, -600, -300)
    for row in rows[:40]:  # with a later part, some of which began before the range or is of another application
        rows.append(row | {"part": 3, "ts": row["ts"] + timedelta(seconds=9), "app": rng.choice((row["app"], "tls")),
                           "end_ts": row["end_ts"] + timedelta(seconds=9), "src_bytes": 70_000})  # fmt: skip
    for n, sensor in enumerate(("s1", "s2")):
        segment(lake, "flows", rows[n::2], name=f"{to_us(NOON):016d}-{n:06d}", sensor=sensor)
    watch = Watch(lake, Clock())
    where = {"": "true", "app=tls": "app = 'tls'", "host=10.0.0.3": "'10.0.0.3' IN (src_ip, dst_ip)"}[text]
    with analytics.connect(lake, threads=1) as con:
        sums = con.execute(
            f"SELECT count(*), sum(b), sum(p) FROM (SELECT sum(src_bytes + dst_bytes) AS b, "
            f"sum(src_packets + dst_packets) AS p FROM flows WHERE {where} GROUP BY flow_id, sensor)"
        ).fetchall()[0]
        for sort, sql in (
            ("ts", "min(ts)"), ("bytes", "sum(src_bytes + dst_bytes)"), ("rtt_us", "min(rtt_us)"),
            ("duration_s", "epoch_us(max(end_ts)) - epoch_us(min(ts))"), ("app", "arg_max(app, part)"),
        ):  # fmt: skip
            for order in ("desc", "asc"):
                want = con.execute(
                    f"SELECT flow_id::VARCHAR FROM flows WHERE {where} GROUP BY flow_id, sensor "
                    f"ORDER BY {sql} {order} NULLS LAST, flow_id LIMIT 30 OFFSET 5"
                ).fetchall()
                answer = watch.answer("flows", range_text="1h", filter_text=text,
                                      params={"sort": sort, "order": order, "limit": 30, "offset": 5})  # fmt: skip
                assert answer["rows"]["flow_id"] == [flow for (flow,) in want]
                assert (answer["total"], answer["bytes"], answer["packets"]) == sums
    watch.close()


def _overlapping(lake: Path) -> list[tuple[int, int, int, str]]:
    """Segments of three sensors at the same time; the keys of their rows in the order of time."""
    rng, keys = random.Random(7), []
    for sensor in ("s1", "s2", "s3"):
        times = sorted(rng.randrange(600_000) for _ in range(400))
        for n in range(4):
            rows = [
                {"ts": NOON + timedelta(milliseconds=t), "ts_nanos": rng.randrange(1000), "frame_no": n * 100 + i + 1}
                for i, t in enumerate(times[n * 100 : n * 100 + 100])
            ]
            segment(lake, "packets", rows, name=f"{to_us(rows[0]['ts']):016d}-{n:06d}", sensor=sensor)
            keys += [(to_us(r["ts"]), r["ts_nanos"], r["frame_no"], sensor) for r in rows]
    return sorted(keys)


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_by_number__of_sensors_that_overlap(tmp_path: Path, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = make_lake(tmp_path / "lake")
    keys = _overlapping(lake)
    watch = Watch(lake, Clock())
    monkeypatch.setattr("analytics.watch.answers.packet_counts.of", lambda ctx: pytest.fail("counted every packet"))
    since, until = to_us(NOON) + 100_000_000, to_us(NOON) + 500_000_000
    for range_text, want in (("all", keys), (f"{since},{until}", [k for k in keys if since <= k[0] < until])):
        shown = want if order == "asc" else want[::-1]
        got: list[tuple[int, int, str]] = []
        for row in range(0, len(shown) + 70, 70):
            answer = watch.answer("packets", range_text=range_text, params={"row": row, "limit": 70, "order": order})
            rows = answer["rows"]
            got += zip(rows["ts"], rows["frame"], rows["sensor"], strict=True)
            assert answer["total"] == len(want)
        assert got == [(ts, frame, sensor) for ts, _, frame, sensor in shown]
    watch.close()


def test_pages_by_number__too_many_to_put_in_order_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = make_lake(tmp_path / "lake")
    keys = _overlapping(lake)
    monkeypatch.setattr(packet_pages, "MOST_MERGED", 10)
    watch = Watch(lake, Clock())
    answer = watch.answer("packets", range_text="all", params={"row": 50, "limit": 20, "order": "asc"})
    assert answer["rows"]["ts"] == [key[0] for key in keys[50:70]]
    watch.close()


def test_names_of_hosts__of_a_live_range_are_found_once_a_minute(tmp_path: Path) -> None:
    lake, clock = make_lake(tmp_path / "lake"), Clock()
    at = NOW - timedelta(seconds=100)
    flow = {"ts": at, "end_ts": at, "flow_id": 1, "dst_ip": "10.0.1.9", "app": "tls", "server_name": "a.example"}
    segment(lake, "flows", [flow], name=f"{to_us(at):016d}-000001")
    watch = Watch(lake, clock)

    def name() -> str | None:
        rows = _whole(watch, "hosts", "15m")["rows"]
        return dict(zip(rows["ip"], rows["name"], strict=True))["10.0.1.9"]

    assert name() == "a.example"
    segment(lake, "flows", [flow | {"flow_id": n, "server_name": "b.example"} for n in (2, 3)],
            name=f"{to_us(at):016d}-000002")  # fmt: skip
    clock.now += 70
    assert name() == "b.example"
    watch.close()
