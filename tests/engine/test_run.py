"""`engine run` over a real veth pair: what is on the wire is in the lake, whatever happens to the process."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import re
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import analytics
from engine.sensor_lock import engines
from engine.synth import GeneratedCapture
from tests import builders
from tests.commands import ROOT, Running, engine
from tests.netns import Wire

pytestmark = pytest.mark.root
CAPTURES = ROOT.parent / "shared" / "corpus" / "captures"
COLUMNS = "* EXCLUDE (ts, ts_nanos, source, date, hour, sensor)"


def records(path: Path) -> Iterator[bytes]:
    """Frames of a little-endian microsecond pcap that a veth with MTU 1500 can carry whole."""
    data = path.read_bytes()
    if data[:4] != b"\xd4\xc3\xb2\xa1" or struct.unpack_from("<I", data, 20)[0] & 0xFFFF != 1:
        return
    at = 24
    while at + 16 <= len(data):
        caplen, wirelen = struct.unpack_from("<II", data, at + 8)
        if at + 16 + caplen > len(data) or caplen > 262_144:
            return
        if caplen == wirelen and 60 <= caplen <= 1500:
            yield data[at + 16 : at + 16 + caplen]
        at += 16 + caplen


def write_pcap(path: Path, frames: list[bytes]) -> Path:
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1))
        for i, frame in enumerate(frames):
            file.write(struct.pack("<IIII", 1_700_000_000, i % 1_000_000, len(frame), len(frame)) + frame)
    return path


# Columns that differ between a live run and a replay of the same frames: what belongs to the run or its model.
LIVE_ONLY = ("ts", "ts_nanos", "source", "flow_id", "frame_file", "frame_offset", "anomaly")


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """200,000 frames of real captures where the shared ones are present, else 20,000 generated ones."""
    path = tmp_path_factory.mktemp("traffic") / "traffic.pcap"
    if CAPTURES.is_dir():
        real = [frame for file in sorted(CAPTURES.iterdir()) for frame in records(file)]
        frames = list(itertools.islice(itertools.cycle(real), 200_000))
        return write_pcap(path, frames), len(frames)
    generated = path.with_name("generated.pcap")
    stream, buffer = GeneratedCapture(pps=2000, start_ns=1_700_000_000 * 10**9), bytearray(1 << 20)
    with generated.open("wb") as file:
        while file.tell() < 16 << 20:
            file.write(buffer[: stream.readinto(memoryview(buffer))])
    frames = [frame for _, frame in _pcap_ns(generated) if len(frame) <= 1500][:20_000]
    return write_pcap(path, frames), len(frames)


def _pcap_ns(path: Path) -> Iterator[tuple[int, bytes]]:
    data, at = path.read_bytes(), 24
    while at + 16 <= len(data):
        size = struct.unpack_from("<I", data, at + 8)[0]
        if at + 16 + size > len(data):
            return
        yield at, data[at + 16 : at + 16 + size]
        at += 16 + size


def start(wire: Wire, lake: Path, *words: str) -> Running:
    log = lake.with_suffix(".log")
    prefix = ["ip", "netns", "exec", wire.here]
    running = Running(prefix, ["run", "--iface", wire.capture, "--lake", lake, "--no-dashboard", *words], log)
    running.wait_for("Ctrl-C stops")
    return running


def stats(lake: Path) -> dict[str, int]:
    with analytics.connect(lake) as con:
        names = "received, rows, kernel_drops, drop_unread_at_stop, drop_not_written, drop_rows_shed"
        row = con.execute(
            "SELECT " + ", ".join(f"sum({n.strip()})::BIGINT" for n in names.split(",")) + " FROM capture_stats"
        )
        return dict(zip([n.strip() for n in names.split(",")], row.fetchone() or (), strict=True))


@pytest.mark.timeout(600)
def test_run__live_rows_equal_offline_rows(wire: Wire, tmp_path: Path, traffic: tuple[Path, int]) -> None:
    path, count = traffic
    running = start(wire, tmp_path / "live")
    wire.replay(str(path), "-K", "--pps", "60000")
    time.sleep(0.5)
    assert running.stop(signal.SIGINT) == 0
    assert engine("replay", path, "--lake", tmp_path / "offline").returncode == 0
    live = stats(tmp_path / "live")
    assert live["received"] == live["rows"] + live["kernel_drops"]
    assert live["received"] == count
    assert live["kernel_drops"] == 0
    with analytics.connect(tmp_path / "live") as con:
        con.execute("SET threads = 2")
        offline = str(tmp_path / "offline" / "packets" / "*" / "*" / "*" / "*.parquet")
        con.execute(f"CREATE VIEW offline AS SELECT * FROM read_parquet('{offline}', hive_partitioning = false)")
        # entropy of empty payloads is NULL on both sides; EXCEPT ALL treats NULLs as equal.
        live_columns = [c[0] for c in con.execute("DESCRIBE offline").fetchall() if c[0] not in LIVE_ONLY]
        names = ", ".join(live_columns)
        for one, other in (("packets", "offline"), ("offline", "packets")):
            differing = con.execute(
                f"SELECT count(*) FROM (SELECT {names} FROM {one} EXCEPT ALL SELECT {names} FROM {other})"
            )
            assert differing.fetchone() == (0,)


@pytest.mark.timeout(300)
def test_run__under_overload_every_frame_is_a_row_or_a_counted_drop(
    wire: Wire, tmp_path: Path, traffic: tuple[Path, int]
) -> None:
    path, count = traffic
    running = start(wire, tmp_path / "lake", "--buffer", "1")
    running.process.send_signal(signal.SIGSTOP)  # the engine stands still: a 1 MiB buffer overflows at once
    wire.replay(str(path), "-K", "--pps", "100000", "--limit", "20000")
    running.process.send_signal(signal.SIGCONT)
    wire.replay(str(path), "-K", "--topspeed", "--limit", "20000")
    time.sleep(0.3)
    assert running.stop(signal.SIGTERM) == 0
    got = stats(tmp_path / "lake")
    assert got["received"] == 40_000 if count >= 40_000 else 2 * count
    assert got["kernel_drops"] > 1000
    own = got["drop_unread_at_stop"] + got["drop_not_written"] + got["drop_rows_shed"]
    assert got["received"] == got["rows"] + got["kernel_drops"] + own
    with analytics.connect(tmp_path / "lake") as con:
        assert con.execute("SELECT count(*) FROM packets").fetchone() == (got["rows"],)
    assert "kernel" in running.log.read_text()


@pytest.mark.timeout(300)
def test_run__at_three_times_what_it_can_do_gives_up_in_order_and_counts_all(
    wire: Wire, tmp_path: Path, traffic: tuple[Path, int]
) -> None:
    lake = tmp_path / "lake"
    running = start(wire, lake, "--buffer", "2")
    sender = background_traffic(wire, traffic[0], 1_000_000)  # more than anything here takes
    for _ in range(50):  # the engine gets a third of the time
        running.process.send_signal(signal.SIGSTOP)
        time.sleep(0.04)
        running.process.send_signal(signal.SIGCONT)
        time.sleep(0.02)
    sender.kill()
    sender.wait()
    time.sleep(0.5)
    assert running.process.poll() is None
    assert running.stop(signal.SIGTERM) == 0
    got = stats(lake)
    own = got["drop_unread_at_stop"] + got["drop_not_written"] + got["drop_rows_shed"]
    assert got["received"] == got["rows"] + got["kernel_drops"] + own
    assert got["kernel_drops"] + own > 0
    with analytics.connect(lake) as con:
        assert con.execute("SELECT count(*) FROM packets").fetchone() == (got["rows"],)
        frames, scores = con.execute(
            "SELECT sum(frames_not_stored)::BIGINT, sum(scores_shed)::BIGINT FROM capture_stats"
        ).fetchone() or (0, 0)  # fmt: skip
        assert frames >= got["drop_rows_shed"] >= scores
        fill, waiting, capture, analyse, wall = con.execute(
            "SELECT max(pool_fill), max(ring_frames), sum(cpu_capture_us), sum(cpu_analyse_us), 1e6 * sum(interval_s) "
            "FROM capture_stats"
        ).fetchone() or (0, 0, 0, 0, 0)
        assert 0 < fill <= 100
        assert fill > 50 or got["drop_rows_shed"] == 0  # below that nothing is given up
        assert 0 < waiting < got["received"]
        assert 0 < capture < wall
        assert 0 < analyse < wall
        undecoded = con.execute("SELECT count(*) FROM packets WHERE flow_id IS NULL").fetchone() or (0,)
        in_flows = con.execute("SELECT sum(packets)::BIGINT FROM flows").fetchone() or (0,)
        seen = got["rows"] + got["drop_rows_shed"]
        assert got["rows"] - undecoded[0] <= in_flows[0] <= seen  # rows that were given up are in flows all the same


def test_run__stops_within_5_s_with_a_summary(wire: Wire, tmp_path: Path, traffic: tuple[Path, int]) -> None:
    running = start(wire, tmp_path / "lake")
    sender = background_traffic(wire, traffic[0], 20_000)
    time.sleep(1.5)
    began = time.monotonic()
    assert running.stop(signal.SIGTERM) == 0
    assert time.monotonic() - began < 5
    sender.kill()
    sender.wait()
    said = running.log.read_text()
    assert re.search(r"[\d,]+ packets, [\d,]+ bytes on the wire in .* packets/s", said)
    assert "drops: kernel" in said
    assert str(tmp_path / "lake") in said


def background_traffic(wire: Wire, path: Path, pps: int) -> subprocess.Popen[bytes]:
    words = [
        "ip",
        "netns",
        "exec",
        wire.there,
        "tcpreplay",
        "-q",
        "-K",
        "--loop",
        "50",
        "--pps",
        str(pps),
        "-i",
        wire.send,
    ]
    return subprocess.Popen([*words, str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _poll(lake: str, seconds: float, result: Any) -> None:
    """Query as another process would, again and again; what goes wrong is the result."""
    seen, deadline, problems = 0, time.monotonic() + seconds, []
    with analytics.connect(lake) as con:
        while time.monotonic() < deadline:
            try:
                now = con.execute("SELECT count(*), count(DISTINCT src_ip) FROM packets WHERE proto = 6").fetchone()
            except Exception as error:  # noqa: BLE001 — whatever it is fails the test
                problems.append(str(error))
                break
            if now[0] < seen:
                problems.append(f"rows went from {seen} to {now[0]}")
            seen = now[0]
    result.put((seen, problems))


@pytest.mark.timeout(300)
def test_run__two_processes_and_the_dashboard_read_while_it_captures(
    wire: Wire, tmp_path: Path, traffic: tuple[Path, int]
) -> None:
    from analytics.watch.watch import Watch

    lake = tmp_path / "lake"
    running = start(wire, lake)
    sender = background_traffic(wire, traffic[0], 5000)
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    readers = [context.Process(target=_poll, args=(str(lake), 6.0, results)) for _ in range(2)]
    for reader in readers:
        reader.start()
    watch = Watch(lake)
    packets = []
    for _ in range(6):
        time.sleep(1)
        packets.append(watch.answer("overview", range_text="5m")["kpi"]["packets"])
    watch.close()
    [told] = engines(lake)
    outcomes = [results.get(timeout=60) for _ in readers]
    for reader in readers:
        reader.join(30)
    sender.kill()
    sender.wait()
    assert running.stop(signal.SIGINT) == 0
    assert [problems for _, problems in outcomes] == [[], []]
    assert all(seen > 1000 for seen, _ in outcomes)
    assert packets == sorted(packets)
    assert packets[-1] > packets[0]
    assert told.running
    assert told.counters[wire.capture]["received"] >= told.counters[wire.capture]["rows"] > 1000


@pytest.mark.timeout(600)
def test_run__kill_9_at_random_moments_loses_at_most_2_s(wire: Wire, tmp_path: Path, traffic: tuple[Path, int]) -> None:
    """Twenty engines in four groups capture the same wire, each into its own lake, and die at random moments."""
    sender = background_traffic(wire, traffic[0], 2000)
    chance = random.Random(os.environ.get("PACKETLAKE_SEED", "1"))
    worst = 0.0
    try:
        for group in range(4):
            engines = [start(wire, tmp_path / f"lake{group}-{i}", "--buffer", "8") for i in range(5)]
            began = time.monotonic()
            for running, moment in zip(engines, sorted(chance.uniform(2.1, 5.0) for _ in engines), strict=True):
                time.sleep(max(0.0, moment - (time.monotonic() - began)))
                killed = time.time()
                running.kill()
                lake = running.log.with_suffix("")
                with analytics.connect(lake) as con:
                    last = con.execute(
                        "SELECT epoch(max(ts)), count(*), count(DISTINCT frame_no) FROM packets"
                    ).fetchone()
                assert last is not None
                assert last[1] == last[2] > 0
                worst = max(worst, killed - last[0])
    finally:
        sender.kill()
        sender.wait()
    print(f"newest row was at most {worst:.2f} s old when its engine was killed")
    assert worst <= 2.0


@pytest.mark.timeout(120)
def test_run__threads_that_share_an_interface_see_every_frame_once(wire: Wire, tmp_path: Path) -> None:
    """Both directions of a flow go to the same thread; numbers and books are one interface's."""
    frames = []
    for i in range(3000):
        ports = (1000 + i % 250, 53)
        src, dst = bytes([10, 1, 0, 1]), bytes([10, 1, 0, 2])
        if i // 250 % 2:
            src, dst, ports = dst, src, ports[::-1]
        frames.append(builders.ethernet(builders.ipv4(builders.udp(b"x" * 20, *ports), 17, src=src, dst=dst)))
    running = start(wire, tmp_path / "lake", "--fanout", "3")
    wire.transmit(frames)
    time.sleep(0.5)
    assert running.stop(signal.SIGINT) == 0
    got = stats(tmp_path / "lake")
    assert (got["received"], got["rows"]) == (3000, 3000)
    with analytics.connect(tmp_path / "lake") as con:
        numbers = con.execute("SELECT count(DISTINCT frame_no), min(frame_no), max(frame_no) FROM packets").fetchone()
        flows = con.execute(
            "SELECT count(*), min(src_packets), max(src_packets), min(dst_packets) FROM flows"
        ).fetchone()
    assert numbers == (3000, 1, 3000)
    assert flows == (250, 6, 6, 6)
