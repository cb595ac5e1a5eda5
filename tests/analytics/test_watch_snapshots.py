"""Many viewers, one question to the lake; time limits; live lakes that are merged while they are watched."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from analytics.compaction import compact
from analytics.merge_jobs import Plan
from analytics.watch import mirror
from analytics.watch.context import Stopped
from analytics.watch.snapshots import Flight, Snapshots
from analytics.watch.timerange import to_us
from analytics.watch.watch import Watch
from tests.analytics.small_lake import NOON, make_lake, segment


def _together(n: int, act: Callable[[], Any]) -> list[Any]:
    results: list[Any] = [None] * n

    def work(i: int) -> None:
        try:
            results[i] = act()
        except Exception as error:  # noqa: BLE001 — it is what the test looks at
            results[i] = error

    threads = [threading.Thread(target=work, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_twenty_viewers_ask_once() -> None:
    snapshots = Snapshots()
    asked = threading.Event()

    def make(_: Flight) -> bytes:
        assert not asked.is_set()
        asked.set()
        time.sleep(0.2)
        return b"{}"

    answers = _together(20, lambda: snapshots.get("key", make))
    assert len({id(a) for a in answers}) == 1
    assert snapshots.get("key", make) is answers[0]
    assert snapshots.made == 1
    snapshots.close()


def test_an_error_reaches_everybody_and_is_not_kept() -> None:
    snapshots = Snapshots()

    def fail(_: Flight) -> bytes:
        time.sleep(0.1)
        raise ValueError("broken")

    assert {type(a) for a in _together(3, lambda: snapshots.get("key", fail))} == {ValueError}
    assert snapshots.get("key", lambda _: b"1").size == 1
    snapshots.close()


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from analytics.watch import snapshots as module

    monkeypatch.setattr(module, "KEPT_BYTES", 5_000)
    snapshots = Snapshots()
    import os

    for i in range(100):
        snapshots.get(i, lambda _: os.urandom(500))
    assert snapshots._bytes <= 5_000
    assert snapshots._bytes == sum(len(a.body) for a in snapshots._kept.values())
    assert snapshots.get(99, lambda _: b"").size == 500
    snapshots.close()


ENDLESS = "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE a.range + b.range = -1"


def _endless(watch: Watch) -> Callable[[Flight], bytes]:
    def make(flight: Flight) -> bytes:
        with watch.lake.cursor() as con:
            flight.con = con
            con.execute(ENDLESS).fetchall()
        return b"{}"

    return make


@pytest.fixture
def watch(tmp_path: Path) -> Any:
    watch = Watch(make_lake(tmp_path / "lake"))
    yield watch
    watch.close()


def test_an_answer_that_takes_too_long_is_given_up(watch: Watch) -> None:
    snapshots = Snapshots(limit_s=0.5)
    with pytest.raises(Exception, match=r"INTERRUPT|Interrupt|took longer"):
        snapshots.get("endless", _endless(watch))
    assert not snapshots._flights
    snapshots.close()


def test_an_answer_that_nobody_waits_for_is_given_up(watch: Watch) -> None:
    snapshots = Snapshots(workers=1, limit_s=60)
    began = time.monotonic()
    with pytest.raises(Stopped, match="nobody waits"):
        snapshots.get("endless", _endless(watch), alive=lambda: time.monotonic() - began < 0.5)
    assert snapshots.get("next", lambda _: b"1").size == 1  # the only worker is free again
    snapshots.close()


def test_one_that_still_waits_keeps_it_alive() -> None:
    snapshots = Snapshots()
    began = time.monotonic()

    def make(flight: Flight) -> bytes:
        time.sleep(1)
        return (flight.reason or "fine").encode()

    def impatient() -> bool:
        return time.monotonic() - began < 0.2

    alive = iter((impatient, lambda: True))
    answers = _together(2, lambda: snapshots.get("key", make, alive=next(alive)))
    assert sorted(type(a).__name__ for a in answers) == ["Encoded", "Stopped"]
    snapshots.close()


# --- a lake that grows and is merged ----------------------------------------------------------------------------------


class Clock:
    now = to_us(NOON + timedelta(minutes=30)) / 1e6

    def __call__(self) -> float:
        return self.now


def _second(lake: Path, n: int) -> None:
    """Rollups and flows of one second, as the engine publishes them."""
    at = NOON + timedelta(minutes=20, seconds=n)
    start = to_us(at)
    name = f"{start:016d}-{n:06d}"
    segment(lake, "rollup_1s", [
        {"ts": at, "source": "eth0", "proto": 6, "ip_version": 4, "app": "tls", "packets": 10, "bytes": 1000,
         "payload": 0, "fragments": 0, "undecodable": 1, "syns": 0},
        {"ts": at, "source": "eth0", "proto": 17, "ip_version": 4, "app": None, "packets": n, "bytes": 100 * n,
         "payload": 0, "fragments": 0, "undecodable": 0, "syns": 0},
    ], name=name)  # fmt: skip
    minute = at.replace(second=0)
    segment(lake, "rollup_1m", [
        {"ts": minute, "source": "eth0", "dimension": d, "key": k, "keys": 1, "packets": 1 + n, "bytes": 10 + n}
        for d, k in (("src_ip", "10.0.0.1"), ("dst_ip", f"10.0.1.{n % 3}"), ("port", "443 tcp"))
    ], name=name)  # fmt: skip
    segment(lake, "flows", [{"ts": at, "end_ts": at, "flow_id": n, "src_bytes": 7, "dst_bytes": 3}], name=name)


def _sums(watch: Watch, range_text: str) -> tuple[Any, ...]:
    while True:  # until everything is read
        answer = watch.answer("overview", range_text=range_text)
        if answer["loaded"] == 1:
            break
    lists = [dict(zip(answer[n]["key"], answer[n]["bytes"], strict=True)) for n in ("sources", "destinations", "ports")]
    conversations = answer["conversations"]["bytes"]
    return answer["kpi"]["packets"], answer["kpi"]["bytes"], answer["kpi"]["undecodable"], lists, conversations


@pytest.mark.parametrize("range_text", ["1h", "6h"])
def test_rollups_in_memory_count_each_row_once_whatever_is_merged(
    tmp_path: Path, range_text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "FOLD_ROWS", 20)
    lake = make_lake(tmp_path / "lake")
    clock = Clock()
    watch = Watch(lake, clock)
    for n in range(90):
        _second(lake, n)
        if n % 15 == 0:
            clock.now += 10
            _sums(watch, range_text)
    clock.now += 10

    def expected(upto: int) -> tuple[Any, ...]:
        numbers = range(upto)
        by_peer = {f"10.0.1.{i}": sum(10 + n for n in numbers if n % 3 == i) for i in range(3)}
        each = sum(10 + n for n in numbers)
        lists = [{"10.0.0.1": each}, by_peer, {"443 tcp": each}]
        return sum(10 + n for n in numbers), sum(1000 + 100 * n for n in numbers), upto, lists, [10 * upto]

    assert _sums(watch, range_text) == expected(90)
    merged = compact(lake, Plan(older_s=0, least=2, grace_s=0.05), print)
    assert merged.segments > 200
    for n in range(90, 95):
        _second(lake, n)
    clock.now += 40  # all partitions are looked at again
    assert _sums(watch, range_text) == expected(95)
    fresh = Watch(lake, clock)
    assert _sums(fresh, range_text) == expected(95)
    fresh.close()
    watch.close()


def test_damaged_segments_are_passed_over(tmp_path: Path) -> None:
    lake = make_lake(tmp_path / "lake")
    clock = Clock()
    _second(lake, 1)
    _second(lake, 2)
    broken = next(p for p in (lake / "rollup_1s").rglob("*000001.parquet"))
    broken.write_bytes(b"PAR1 not")
    watch = Watch(lake, clock)
    assert watch.answer("overview", range_text="1h")["kpi"]["packets"] == 12
    watch.close()
