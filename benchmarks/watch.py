"""What the dashboard's answers cost on a large lake that grows while it is watched.

    python -m benchmarks.watch [--rows 100000000] [--pps 100000] [--lake DIR]

Builds a lake of a day (hours as the merger leaves them, the last minutes a segment a second), has another process
publish a second's segments each second, and prints CPU times of the answers, their size, and the CPU of the server
with 20 viewers that ask once a second over HTTP. CPU times are those of this process; medians of --times answers.
The lake is made of one template of packets that repeats, so file sizes are those of real columns, and contents repeat.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import shutil
import statistics
import tempfile
import threading
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.packets import ROWS_PER_BATCH
from engine.schema import parquet_options
from engine.tables import TABLES, arrow_schema
from engine.writer import init_lake

US = 1_000_000
FILE_ROWS = 1_000_000
RECENT_S = 300  # the last seconds, a segment a second
CLASSES = (
    (6, 0x0800, "tls"),
    (6, 0x0800, "http"),
    (6, 0x0800, None),
    (17, 0x0800, "dns"),
    (17, 0x0800, "quic"),
    (17, 0x0800, None),
    (1, 0x0800, None),
    (None, 0x0806, None),
    (6, 0x0800, "ssh"),
    (58, 0x86DD, None),
)


def publish(lake: Path, table: str, rows: pa.Table, start_us: int, name: str, written_us: int) -> None:
    """One segment, with the modification time that it would have."""
    moment = datetime.fromtimestamp(start_us // US, UTC)
    folder = lake / table / "sensor=s1" / f"date={moment:%Y-%m-%d}" / f"hour={moment:%H}"
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{start_us:016d}-{name}.parquet"
    partial = final.with_suffix(".inprogress")
    groups = 122_880 if name.startswith("m") else ROWS_PER_BATCH  # as the merger, and as the engine
    pq.write_table(rows, partial, row_group_size=groups, **parquet_options(TABLES[table]))
    os.utime(partial, ns=(written_us * 1000, written_us * 1000))
    partial.rename(final)


class Template:
    """Packets of one second's worth of addresses, to be moved in time."""

    def __init__(self, rows: int) -> None:
        from tests.lakes import packets_table

        self.table = packets_table(rows, 1, datetime(2026, 1, 2, tzinfo=UTC))
        self.share = np.linspace(0, 1, rows, endpoint=False)

    def at(self, start_us: int, span_us: int, rows: int, number: int) -> pa.Table:
        part = self.table.slice(0, rows)
        times = start_us + (self.share[:rows] / self.share[rows - 1] * (span_us - 1)).astype(np.int64)
        columns = {"ts": pa.array(times, pa.timestamp("us")), "frame_no": pa.array(np.arange(number, number + rows))}
        return pa.table([columns.get(f.name, part[f.name]) for f in part.schema], schema=part.schema)


def table(name: str, count: int, **columns: Any) -> pa.Table:
    """Rows of a table; columns that are not given are NULL, or 0 where NULL is not allowed."""
    arrays = []
    for field in arrow_schema(name):
        plain = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        given = columns.get(field.name)
        if given is None:
            zero: Any = "" if pa.types.is_string(plain) else 0
            given = pa.nulls(count, plain) if field.nullable else pa.array([zero] * count).cast(plain)
        elif not isinstance(given, (pa.Array, list, np.ndarray)):
            given = [given] * count
        arrays.append(
            pa.array(given, plain).cast(field.type) if not isinstance(given, pa.Array) else given.cast(field.type)
        )
    return pa.table(arrays, schema=arrow_schema(name))


def seconds_table(start_s: int, seconds: int, pps: int) -> pa.Table:
    n = len(CLASSES)
    ts = np.repeat(np.arange(start_s, start_s + seconds), n) * US
    share = np.tile(pps * np.array((30, 8, 25, 4, 12, 15, 2, 1, 2, 1)) // 100, seconds)
    proto, ethertype, app = ([c[i] for c in CLASSES] * seconds for i in range(3))
    return table(
        "rollup_1s",
        n * seconds,
        ts=pa.array(ts, pa.timestamp("us")),
        source="eth0",
        ip_version=4,
        proto=proto,
        ethertype=ethertype,
        app=app,
        packets=share,
        bytes=share * 700,
        payload=share * 640,
    )


def talkers_table(minutes: list[int], pps: int, rng: np.random.Generator) -> pa.Table:
    ts, dimension, key, packets = [], [], [], []
    for minute in minutes:
        for name in ("src_ip", "dst_ip", "port"):
            chosen = rng.choice(400, 100, replace=False)
            ts += [minute * US] * 101
            dimension += [name] * 101
            key += [f"{c + 20} tcp" if name == "port" else f"198.{c // 200 + 18}.{c % 200}.7" for c in chosen]
            key.append(None)
            packets += [*(pps * 60 // (chosen + 20)).tolist(), pps]
    return table(
        "rollup_1m",
        len(ts),
        ts=pa.array(ts, pa.timestamp("us")),
        source="eth0",
        dimension=dimension,
        key=key,
        keys=1,
        packets=packets,
        bytes=[p * 700 for p in packets],
    )


def flows_table(start_us: int, span_us: int, rows: int, rng: np.random.Generator, number: int) -> pa.Table:
    ts = start_us + np.sort(rng.integers(0, span_us, rows))
    return table(
        "flows",
        rows,
        ts=pa.array(ts, pa.timestamp("us")),
        end_ts=pa.array(ts + 5000, pa.timestamp("us")),
        flow_id=np.arange(number, number + rows),
        part=1,
        source="eth0",
        ip_version=4,
        community_id="1:x",
        src_ip=[f"10.20.{n % 3}.{n // 3 % 60}" for n in rng.integers(0, 180, rows)],
        dst_ip=[f"198.18.{n // 200}.{n % 200}" for n in rng.integers(0, 2000, rows)],
        src_port=40_000,
        dst_port=443,
        proto=6,
        src_packets=20,
        dst_packets=30,
        src_bytes=4_000,
        dst_bytes=30_000,
        outcome="established",
        end_reason="closed",
        app="tls",
    )


def stats_table(start_s: int, seconds: int, pps: int) -> pa.Table:
    ts = pa.array((np.arange(start_s, start_s + seconds) + 1) * US, pa.timestamp("us"))
    return table(
        "capture_stats",
        seconds,
        ts=ts,
        source="eth0",
        interval_s=1.0,
        received=pps,
        rows=pps,
        wire_bytes=pps * 700,
        flows=pps // 50,
    )


def build(lake: Path, rows: int, pps: int, recent_s: int) -> int:
    """A day that ends now. Returns the second at which it ends."""
    init_lake(lake)
    rng = np.random.default_rng(1)
    end = int(time.time())
    recent, first = end - recent_s, end - 86_400
    template = Template(max(FILE_ROWS, pps))
    old_rows = max(0, rows - recent_s * pps)
    files = max(1, old_rows // FILE_ROWS)
    span = (recent - first) * US // files
    for i in range(files):
        start = first * US + i * span
        publish(
            lake,
            "packets",
            template.at(start, span, min(FILE_ROWS, old_rows), i * FILE_ROWS),
            start,
            "m9-1",
            start + span,
        )
    for hour in range(first // 3600, recent // 3600 + 1):
        start, stop = max(first, hour * 3600), min(recent, hour * 3600 + 3600)
        if start >= stop:
            continue
        written = min(stop, end) * US
        publish(lake, "rollup_1s", seconds_table(start, stop - start, pps), start * US, "m9-1", written)
        minutes = list(range(start // 60 * 60, stop, 60))
        publish(lake, "rollup_1m", talkers_table(minutes, pps, rng), start * US, "m9-1", written)
        publish(
            lake,
            "flows",
            flows_table(start * US, (stop - start) * US, 200_000, rng, hour << 24),
            start * US,
            "m9-1",
            written,
        )
        publish(lake, "capture_stats", stats_table(start, stop - start, pps), start * US, "m9-1", written)
    for second in range(recent, end):
        grow(lake, second, pps, template, rng)
    return end


def grow(lake: Path, second: int, pps: int, template: Template, rng: np.random.Generator) -> None:
    """What the engine publishes in a second."""
    start, written, name = second * US, (second + 1) * US, f"r{second}"
    publish(lake, "packets", template.at(start, US, pps, second * pps), start, name, written)
    publish(lake, "rollup_1s", seconds_table(second, 1, pps), start, name, written)
    publish(lake, "flows", flows_table(start, US, max(1, pps // 50), rng, second << 24), start, name, written)
    publish(lake, "capture_stats", stats_table(second, 1, pps), start, name, written)
    if second % 10 == 0:
        publish(lake, "rollup_1m", talkers_table([second // 60 * 60], pps // 6, rng), start, name, written)


def feed(lake: Path, second: int, pps: int, stop: Any) -> None:
    """Another process: the capture."""
    template, rng = Template(pps), np.random.default_rng(2)
    while not stop.is_set():
        while second < int(time.time()) and not stop.is_set():
            grow(lake, second, pps, template, rng)
            second += 1
        time.sleep(0.05)


# --- measuring -------------------------------------------------------------------------------------------------------


def snapshots(lake: Path, times: int) -> dict[str, Any]:
    """CPU of answers made anew each second, in ms, and their size."""
    from analytics.watch.watch import Watch

    watch = Watch(lake)
    cases: list[tuple[str, str, str, dict[str, Any]]] = [
        ("overview", range_text, "", {}) for range_text in ("5m", "15m", "1h", "24h")
    ]
    cases += [
        ("state", "5m", "", {}),
        ("overview", "5m", "proto=udp", {}),
        ("packets", "24h", "", {"row": 50_000_000}),
        ("packets", "24h", "", {"row": 1_000}),
        ("packets", "1h", "", {}),
        ("packets", "1h", "port=53", {}),
        ("packets", "24h", "host=10.20.0.11 dport=5432", {}),
        ("flows", "5m", "", {}),
        ("hosts", "5m", "", {}),
    ]
    found: dict[str, Any] = {}
    for name, range_text, text, params in cases:
        cpu, gz = [], []
        for _ in range(times + 1):
            try:
                watch.snapshots._kept.clear()
                before = time.process_time()
                answer = watch.ask(name, range_text=range_text, filter_text=text, params=params)
                cpu.append((time.process_time() - before) * 1000)
                gz.append(len(answer.body))
            except Exception as error:  # noqa: BLE001 — a figure that cannot be had is said
                found[f"{name} {range_text} {text} {params or ''}".strip()] = str(error)
                break
            time.sleep(max(0.0, 1 - (time.time() % 1)) if not params else 0.05)
        if len(cpu) > 1:
            found[f"{name} {range_text} {text} {params or ''}".strip()] = {
                "cpu_ms": round(statistics.median(cpu[1:]), 1), "first_ms": round(cpu[0], 1), "gzip_bytes": gz[-1],
            }  # fmt: skip
    watch.close()
    return found


def serve(lake: Path, port: Any, stop: Any, cpu: Any) -> None:
    """The API alone, as the dashboard serves it; says what CPU it used."""
    import waitress
    from flask import Flask, g

    from webui import api

    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    server = Flask("bench")

    @server.before_request
    def role() -> None:
        g.user, g.role = "bench", "operator"

    api.register(server, lake)
    listening: Any = waitress.create_server(server, host="127.0.0.1", port=0, threads=8)
    threading.Thread(target=listening.run, daemon=True).start()
    port.value = int(listening.effective_port)
    while not stop.is_set():
        cpu.value = time.process_time()
        time.sleep(0.05)


def viewers(lake: Path, count: int, seconds: int) -> dict[str, Any]:
    """CPU of the server, in percent of a core, and times of the answers."""
    port, cpu, stop = multiprocessing.Value("i", 0), multiprocessing.Value("d", 0.0), multiprocessing.Event()
    process = multiprocessing.Process(target=serve, args=(lake, port, stop, cpu))
    process.start()
    while not port.value and process.is_alive():
        time.sleep(0.05)
    took: list[float] = []
    ended = threading.Event()

    def view(i: int) -> None:
        time.sleep(i / count)
        while not ended.is_set():
            began = time.monotonic()
            for question in ("overview?range=5m", "state"):
                asked = urllib.request.Request(
                    f"http://127.0.0.1:{port.value}/api/v1/{question}", headers={"Accept-Encoding": "gzip"}
                )
                urllib.request.urlopen(asked).read()
            took.append(time.monotonic() - began)
            ended.wait(max(0.0, 1 - (time.monotonic() - began)))

    threads = [threading.Thread(target=view, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    time.sleep(8)
    took.clear()
    before, began = cpu.value, time.monotonic()
    time.sleep(seconds)
    used, passed = cpu.value - before, time.monotonic() - began
    ended.set()
    for thread in threads:
        thread.join()
    stop.set()
    process.join(10)
    order = sorted(took)
    return {
        "viewers": count,
        "percent_of_a_core": round(100 * used / passed, 1),
        "answers_per_s": round(2 * len(took) / passed, 1),
        "p50_ms": round(1000 * order[len(order) // 2]),
        "p95_ms": round(1000 * order[int(len(order) * 0.95)]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument(
        "--pps", type=int, default=100_000, help="packets a second of the last minutes and while measuring"
    )
    parser.add_argument("--recent", type=int, default=RECENT_S, help="last seconds that are a segment each")
    parser.add_argument("--times", type=int, default=9)
    parser.add_argument("--lake", type=Path, help="where to build it; deleted afterwards")
    options = parser.parse_args()
    lake = options.lake or Path(tempfile.mkdtemp(prefix="packetlake-watch-"))
    multiprocessing.set_start_method("spawn")
    stop = multiprocessing.Event()
    feeder = None
    try:
        began = time.process_time()
        end = build(lake, options.rows, options.pps, options.recent)
        size = sum(p.stat().st_size for p in lake.rglob("*.parquet"))
        print(json.dumps({"built_cpu_s": round(time.process_time() - began), "bytes": size}), flush=True)
        feeder = multiprocessing.Process(target=feed, args=(lake, end, options.pps, stop))
        feeder.start()
        time.sleep(5)
        print(json.dumps(snapshots(lake, options.times), indent=1), flush=True)
        print(json.dumps(viewers(lake, 20, 20)), flush=True)
    finally:
        stop.set()
        if feeder is not None:
            feeder.join(30)
        shutil.rmtree(lake, ignore_errors=True)


if __name__ == "__main__":
    main()
