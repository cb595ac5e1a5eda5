"""Export: exactly the frames of the selected rows, byte for byte, as other programs read them."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import struct
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import analytics
from analytics.pcap_export import export
from analytics.selection import Selection, parse_time
from engine.capture.savefile import SavefileSource
from engine.config import FramesConfig
from engine.errors import ConfigError, EngineError, StoreError
from engine.packets import F_TS_NS, F_WIRELEN, FrameBatch
from tests.builders import ethernet, fill, ipv4, sll, tcp, udp
from tests.commands import ENGINE, ROOT, engine
from tests.framelake import FrameLake
from tests.savefiles import Frames, pcap_bytes, read_file

CORPUS = ROOT.parent / "shared" / "corpus" / "captures"
START_NS = 1_700_000_000_123_456_789
HOUR_NS = 3_600 * 10**9
NOW = datetime(2026, 11, 25, 12)  # noqa: DTZ001 — UTC by contract


def frame(i: int, size: int = 100) -> bytes:
    return ethernet(
        ipv4(udp(bytes([i % 256]) * (size - 42), 1000 + i % 5000, 53), src=bytes([10, 0, i >> 8 & 255, i & 255]))
    )


def batch(frames: list[bytes], times: list[int] | None = None, source: str = "eth0", link_type: int = 1) -> FrameBatch:
    made = fill(frames, link_type)
    made.source = source
    if times is not None:
        made.frames[F_TS_NS, : len(times)] = times
    return made


def lake_of(path: Path, *batches: FrameBatch, config: FramesConfig | None = None) -> Path:
    made = FrameLake(path, config)
    for one in batches:
        made.take(one)
    made.close()
    return path


def exported(lake: Path, out: Path, **options: Any) -> Frames:
    """Export and read back: (ts_ns, bytes, wirelen, link type) in the order of the file."""
    selection = {k: options.pop(k) for k in ("where", "flows", "since", "until") if k in options}
    written = export(lake, Selection(**selection), str(out), **options)
    frames, error = read_file(SavefileSource(str(out)))
    assert error is None
    assert len(frames) == written
    return frames


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """100 frames of different lengths, a microsecond and a nanosecond apart."""
    frames = [frame(i, 60 + i) for i in range(100)]
    return lake_of(tmp_path / "lake", batch(frames, [START_NS + 1001 * i for i in range(100)]))


# --- what is written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_export__all_frames_with_time_and_length(lake: Path, tmp_path: Path, suffix: str) -> None:
    assert exported(lake, tmp_path / f"out.{suffix}") == [
        (START_NS + 1001 * i, frame(i, 60 + i), 60 + i, 1) for i in range(100)
    ]


def test_export__only_what_the_condition_selects(lake: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    for where, expected in (
        ("src_ip = '10.0.0.7'", [7]),
        ("src_ip <<= '10.0.0.96/30'", [96, 97, 98, 99]),
        ("wirelen > 150 AND NOT src_port = 1095 -- comment", [i for i in range(91, 100) if i != 95]),
        ("src_port IN (SELECT max(src_port) FROM packets)", [99]),
        ("src_port = 1001 OR src_port = 1003", [1, 3]),
    ):
        assert [f for _, f, _, _ in exported(lake, out, where=where)] == [frame(i, 60 + i) for i in expected], where


def test_export__ordered_by_time_then_number(tmp_path: Path) -> None:
    """Also across batches, sources and segments; equal times in the order of capture."""
    rng = random.Random(3)
    times = [START_NS + rng.randrange(50) for _ in range(400)]
    batches = [
        batch([frame(i) for i in range(a, a + 100)], times[a : a + 100], f"eth{a // 100 % 2}")
        for a in (0, 100, 200, 300)
    ]
    lake = lake_of(tmp_path / "lake", *batches)
    con = analytics.connect(lake)
    expected = con.execute(
        "SELECT src_port - 1000 FROM packets ORDER BY epoch_ns(ts) + ts_nanos, frame_no, source"
    ).fetchall()
    con.close()
    got = exported(lake, tmp_path / "out.pcapng")
    assert [f for _, f, _, _ in got] == [frame(i) for (i,) in expected]
    assert [t for t, _, _, _ in got] == sorted(times)


def test_export__flow_and_limit(tmp_path: Path, lake: Path) -> None:
    assert len(exported(lake, tmp_path / "out.pcap", limit=7)) == 7
    assert [f for _, f, _, _ in exported(lake, tmp_path / "out.pcap", limit=3, where="src_port >= 1050")] == [
        frame(i, 60 + i) for i in (50, 51, 52)
    ]
    with pytest.raises(ConfigError, match="no packet"):
        exported(lake, tmp_path / "out.pcap", flows=(12, 13))


def test_export__mixed_link_types_need_pcapng(tmp_path: Path) -> None:
    lake = lake_of(
        tmp_path / "lake",
        batch([frame(i) for i in range(5)], [START_NS + 10 * i for i in range(5)], "eth0"),
        batch([sll(ipv4(tcp(), 6))] * 5, [START_NS + 10 * i + 5 for i in range(5)], "any", 113),
        batch([frame(i) for i in range(5, 8)], [START_NS + 100 + i for i in range(3)], "eth1"),
    )
    with pytest.raises(ConfigError, match=r"Ethernet \(1\), Linux SLL \(113\).*\.pcapng") as caught:
        exported(lake, tmp_path / "out.pcap")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.pcap").exists()
    assert [link for *_, link in exported(lake, tmp_path / "out.pcapng")] == [1, 113] * 5 + [1] * 3
    assert len(exported(lake, tmp_path / "out.pcap", where="source = 'any'")) == 5
    if shutil.which("tshark"):
        command = ["tshark", "-r", tmp_path / "out.pcapng", "-T", "fields", "-e", "frame.interface_name"]
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert names == ["eth0", "any"] * 5 + ["eth1"] * 3


def test_export__times_that_pcap_cannot_hold(tmp_path: Path) -> None:
    """The ring clamps them; the export takes them from the row, as far as the format goes."""
    times = [-(2**63), -1, 0, 2**32 * 10**9 + 5, 2**63 - 1]
    lake = lake_of(tmp_path / "lake", batch([frame(i) for i in range(5)], times))
    clamped = (2**32 - 1) * 10**9 + 999_999_999
    assert [t for t, *_ in exported(lake, tmp_path / "out.pcap")] == [0, 0, 0, clamped, clamped]
    assert [t for t, *_ in exported(lake, tmp_path / "out.pcapng")] == [0, 0, 0, 2**32 * 10**9 + 5, 2**63 - 1]


def test_export__head_mode_keeps_the_wire_length(tmp_path: Path) -> None:
    lake = lake_of(
        tmp_path / "lake", batch([frame(1, 50), frame(2, 500)]), config=FramesConfig(mode="head", head_bytes=64)
    )
    got = exported(lake, tmp_path / "out.pcap")
    assert [(f, w) for _, f, w, _ in got] == [(frame(1, 50), 50), (frame(2, 500)[:64], 500)]


def test_export__lengths_that_differ_from_the_frame(tmp_path: Path) -> None:
    """Empty frames, wirelen below and far above caplen."""
    made = batch([b"", frame(1), frame(2)])
    made.frames[F_WIRELEN, :3] = [60, 10, 2**31]
    lake = lake_of(tmp_path / "lake", made)
    for suffix in ("pcap", "pcapng"):
        got = exported(lake, tmp_path / f"out.{suffix}")
        assert [(f, w) for _, f, w, _ in got] == [(b"", 60), (frame(1), 10), (frame(2), 2**31)]


def test_export__while_more_is_captured(tmp_path: Path) -> None:
    made = FrameLake(tmp_path / "lake")
    for i in range(5):
        made.take(batch([frame(i)] * 10))
        made.publish()
        assert len(exported(made.path, tmp_path / "out.pcap")) == 10 * (i + 1)
    made.close()


# --- frames that are missing -----------------------------------------------------------------------------------------


def test_missing__are_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Never stored, deleted with their segment, and lost from the end of one (a power cut)."""
    lake, frames = tmp_path / "lake", [frame(i) for i in range(40)]
    off = FrameLake(lake, FramesConfig(mode="off"))
    off.take(batch(frames[:10]))
    off.close()
    for first in (10, 20, 30):
        lake_of(lake, batch(frames[first : first + 10], source=f"eth{first}"))
    segments = sorted((lake / "frames").rglob("*.pcap"), key=lambda p: p.name.rpartition("-")[2])
    segments[0].unlink()
    os.truncate(segments[1], segments[1].stat().st_size - 150)  # two of ten
    got = exported(lake, tmp_path / "out.pcapng")
    assert sorted(f for _, f, _, _ in got) == sorted(frames[20:28] + frames[30:])
    said = capsys.readouterr().err
    for part in ("18 frames written", "10 never stored", "10 already deleted", "2 no longer readable"):
        assert part in said
    with segments[2].open("r+b") as file:  # zeros, as after a power cut
        file.seek(24 + 116)
        file.write(bytes(116 * 3))
    assert len(exported(lake, tmp_path / "out.pcapng", where="source = 'eth30'")) == 7


def test_missing__none_stored_is_one_line(tmp_path: Path) -> None:
    lake = lake_of(tmp_path / "lake", batch([frame(1)] * 3), config=FramesConfig(mode="off"))
    with pytest.raises(StoreError, match=r"none of 3 matching packets .*3 never stored.*--frames") as caught:
        exported(lake, tmp_path / "out.pcap")
    assert "\n" not in str(caught.value)
    lake = lake_of(tmp_path / "other", batch([frame(1)] * 3))
    (segment,) = (lake / "frames").rglob("*.pcap")
    segment.write_bytes(segment.read_bytes()[:24])
    with pytest.raises(StoreError, match="none of the selected frames could be read"):
        exported(lake, tmp_path / "out.pcap")
    segment.unlink()
    with pytest.raises(StoreError, match="already deleted"):
        exported(lake, tmp_path / "out.pcap")
    assert [p.name for p in tmp_path.iterdir() if "out" in p.name] == []


def test_missing__ring_that_moved_on(tmp_path: Path) -> None:
    """What the ring still has is exported, however far it went."""
    made, rng = FrameLake(tmp_path / "lake", FramesConfig(limit_bytes=16 << 20)), np.random.default_rng(1)
    for i in range(12):
        one = batch([frame(j, 1400) for j in range(2000)], (START_NS + i * 10**9 + np.arange(2000)).tolist())
        one.arena[60:] = rng.integers(0, 255, len(one.arena) - 60)
        made.take(one)
    made.close()
    got = exported(made.path, tmp_path / "out.pcap")
    assert 9_000 < len(got) < 12_000
    assert [t for t, *_ in got] == [START_NS + i * 10**9 + j for i in range(12) for j in range(2000)][-len(got) :]


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "part"),
    [
        ("true) UNION SELECT (true", "syntax error"),
        ("true); COPY packets TO 'x.csv'; SELECT (true", "syntax error"),
        ("true; SELECT 1", "more than one condition"),
        ("true ORDER BY ts", "syntax error"),
        ("true LIMIT 1", "syntax error"),
        ("true UNION SELECT 1", "syntax error"),
        ("true GROUP BY ts", "syntax error"),
        ("true /*", ""),
        ("src_ip = 'a", ""),
        ("src_ip = ", "syntax error"),
        ("nocolumn = 1", "nocolumn"),
        ("count(*) > 1", ""),
        ("src_port = 'x'", "x"),
        ("  ", "--where ''"),
        ("a\0b", ""),
        ("1 = 1 -- )", None),
    ],
)
def test_where__is_one_condition_or_one_line(lake: Path, tmp_path: Path, where: str, part: str | None) -> None:
    if part is None:
        assert len(exported(lake, tmp_path / "out.pcap", where=where)) == 100
        return
    with pytest.raises(ConfigError) as caught:
        exported(lake, tmp_path / "out.pcap", where=where)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.pcap").exists()


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("out.cap", {}, "neither .pcap nor .pcapng"),
        ("out.pcap", {"limit": 0}, "--limit 0"),
        ("out.pcap", {"max_bytes": 1 << 20, "where": "true"}, "--max-size 1 MiB"),
        ("none/out.pcap", {}, "No such file"),
    ],
)
def test_refusal__one_line_and_no_file(tmp_path: Path, name: str, options: dict[str, Any], part: str) -> None:
    lake = lake_of(tmp_path / "lake", batch([frame(i, 1000) for i in range(1100)]))
    with pytest.raises(EngineError, match=part) as caught:
        exported(lake, tmp_path / name, **options)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["lake"]


def test_dry_run__says_the_size_and_writes_nothing(
    lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(lake, Selection(), str(tmp_path / "out.pcap"), dry_run=True) == 100
    exact = 100 * 16 + sum(60 + i for i in range(100))
    assert f"selected: 100 frames, about {exact:,} bytes" in capsys.readouterr().err
    assert not (tmp_path / "out.pcap").exists()


# --- times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-24", datetime(2026, 11, 24)),  # noqa: DTZ001
        ("2026-11-24T12:30:00", datetime(2026, 11, 24, 12, 30)),  # noqa: DTZ001
        ("2026-11-24 12:30:00.5", datetime(2026, 11, 24, 12, 30, 0, 500_000)),  # noqa: DTZ001
        ("2026-11-24T12:30:00Z", datetime(2026, 11, 24, 12, 30)),  # noqa: DTZ001
        ("2026-11-24T12:30:00+02:00", datetime(2026, 11, 24, 10, 30)),  # noqa: DTZ001
        ("5m", datetime(2026, 11, 25, 11, 55)),  # noqa: DTZ001
        ("1.5h", datetime(2026, 11, 25, 10, 30)),  # noqa: DTZ001
        ("2d", datetime(2026, 11, 23, 12)),  # noqa: DTZ001
        ("yesterday", None), ("", None), ("5", None), ("-5m", None), ("99999999999999d", None), ("9e9m", None),
    ],
)  # fmt: skip
def test_time__iso_or_so_long_ago(text: str, expected: datetime | None) -> None:
    if expected is None:
        with pytest.raises(ConfigError, match="--since") as caught:
            parse_time("--since", text, NOW)
        assert "\n" not in str(caught.value)
    else:
        assert parse_time("--since", text, NOW) == expected


def test_span__opens_only_the_segments_of_its_hours(tmp_path: Path) -> None:
    """Ten hours across midnight; all segments outside of the span are damaged."""
    start = int(np.datetime64("2026-11-24T19:00:00", "ns").astype(np.int64))
    lake = lake_of(tmp_path / "lake", batch([frame(i) for i in range(10)], [start + i * HOUR_NS for i in range(10)]))
    out = tmp_path / "out.pcap"

    def hours(**span: str) -> list[int]:
        return [(t - start) // HOUR_NS for t, *_ in exported(lake, out, **span)]

    assert hours(since="2026-11-24T22:00:00", until="2026-11-25T02:00:00") == [3, 4, 5, 6]
    assert hours(since="2026-11-25") == [5, 6, 7, 8, 9]
    assert hours(until="2026-11-24T19:00:00.000001") == [0]
    for path in (lake / "packets").glob("sensor=s1/*/*/*.parquet"):
        day, hour = path.parts[-3], path.parts[-2]
        if (day, hour) not in {("date=2026-11-24", f"hour={h}") for h in (22, 23)} | {
            ("date=2026-11-25", f"hour=0{h}") for h in (0, 1, 2)
        }:
            path.write_bytes(b"damaged")
    assert hours(since="2026-11-24T22:00:00", until="2026-11-25T02:00:00") == [3, 4, 5, 6]
    with pytest.raises(StoreError, match=r"segment .* cannot be read"):
        hours()
    assert not out.with_name("none").exists()


# --- the command -----------------------------------------------------------------------------------------------------


def test_command__file_and_pipe(lake: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pcapng"
    done = engine("export", "--lake", lake, "--where", "src_port < 1010", out)
    assert done.returncode == 0, done
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "engine: selected: 10 frames, about 980 bytes",
        f"engine: 10 frames written to {out}",
    ]
    piped = subprocess.run(
        [*ENGINE, "export", "--lake", lake, "--where", "src_port < 1010", "-"], capture_output=True, cwd=ROOT
    )
    assert piped.stdout == out.read_bytes()
    for words, part in (
        (["--where", "src_port = 1", out], "no packet"),
        (["--since", "soon", out], "--since 'soon'"),
        (["--max-size", "0", out], "--max-size 0"),
        (["--flow", "5", out], "no packet"),
    ):
        done = engine("export", "--lake", lake, *words)
        assert done.returncode == 2
        assert part in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert "does not exist" in engine("export", "--lake", tmp_path / "no", out).stderr


def test_command__a_replayed_flow_as_a_capture(tmp_path: Path) -> None:
    """The whole way: replay, the flow of a row, its frames."""
    frames = [ethernet(ipv4(tcp(bytes([i]) * i, 40_000 + i % 3, 443), 6)) for i in range(60)]
    given = tmp_path / "in.pcap"
    given.write_bytes(pcap_bytes(frames))
    assert engine("replay", given, "--lake", tmp_path / "lake").returncode == 0
    con = analytics.connect(tmp_path / "lake")
    flows = con.execute("SELECT DISTINCT flow_id FROM packets WHERE src_port IN (40000, 40002)").fetchall()
    con.close()
    words = [w for (flow,) in flows for w in ("--flow", str(flow))]
    out = tmp_path / "out.pcap"
    done = engine("export", "--lake", tmp_path / "lake", *words, "--since", "2023-11-14T22:00", out)
    assert done.returncode == 0, done
    assert [f for _, f, _, _ in _read_back(out)] == [f for i, f in enumerate(frames) if i % 3 != 1]
    assert engine("replay", given, "--lake", tmp_path / "off", "--frames", "off").returncode == 0
    done = engine("export", "--lake", tmp_path / "off", out)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "60 never stored" in done.stderr


def test_command__ctrl_c_leaves_nothing_half(tmp_path: Path) -> None:
    made = FrameLake(tmp_path / "lake")
    one = batch([frame(i, 1400) for i in range(5000)])
    for _ in range(30):  # 210 MB
        made.take(one)
    made.close()
    out = tmp_path / "out" / "x.pcap"
    out.parent.mkdir()
    command = [*ENGINE, "export", "--lake", str(made.path), str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not list(out.parent.iterdir()) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert "Traceback" not in said
    assert (process.returncode, list(out.parent.iterdir())) in ((130, []), (0, [out]))


# --- the real thing --------------------------------------------------------------------------------------------------

FILTERS = (
    "proto = {proto}", "src_port = {src_port}", "dst_port = {dst_port}", "src_ip = '{src_ip}'", "dst_ip = '{dst_ip}'",
    "wirelen > {wirelen}", "caplen <= {caplen}", "frame_no % 7 = {frame_no} % 7", "status = '{status}'",
    "src_ip <<= '{src_ip}/{bits}'", "src_mac = '{src_mac}'", "ttl < {ttl}", "tcp_flags & 2 = 2", "entropy > {entropy}",
    "ts <= '{ts}'", "source = '{source}'", "random() < 2 AND hash(frame_no) % 3 = 0", "vlan IS NOT NULL",
)  # fmt: skip


@pytest.mark.corpus
@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no captures at {CORPUS}")
@pytest.mark.skipif(not shutil.which("tshark"), reason="needs tshark")
def test_corpus__random_selections_are_byte_equal_in_tshark(tmp_path: Path) -> None:
    """50 random filters over 25 real captures: tshark reads the file, and every frame is the original's."""
    rng = random.Random(2026)
    paths = [p for p in sorted(CORPUS.iterdir()) if p.stat().st_size < 400_000]
    chosen = rng.sample(paths, 25)
    originals: dict[tuple[str, int], tuple[Any, ...]] = {}
    for path in chosen:
        for i, one in enumerate(read_file(SavefileSource(str(path)))[0]):
            originals[str(path), i + 1] = one
    made = FrameLake(tmp_path / "lake")
    made.replay(chosen)
    made.close()
    con = analytics.connect(made.path)
    assert con.execute("SELECT count(*), count(frame_file) FROM packets").fetchall() == [(len(originals),) * 2]
    tried = 0
    while tried < 50:
        where = _filter(rng, con)
        rows = con.execute(
            f"SELECT source, frame_no FROM packets WHERE {where} ORDER BY ts, ts_nanos, frame_no, source"
        ).fetchall()
        if not rows:
            continue
        tried += 1
        expected = [originals[row] for row in rows]
        links = {one[3] for one in expected}
        out = tmp_path / f"{tried}.{'pcap' if len(links) == 1 and tried % 2 else 'pcapng'}"
        assert export(made.path, Selection(where=where), str(out)) == len(rows)
        assert sorted(_read_back(out)) == sorted(expected), where
        _compare_with_tshark(out, expected, where)
    con.close()


def _filter(rng: random.Random, con: Any) -> str:
    """A condition with values of a row, sometimes two."""
    names = [
        "proto",
        "src_port",
        "dst_port",
        "src_ip",
        "dst_ip",
        "wirelen",
        "caplen",
        "frame_no",
        "status",
        "src_mac",
        "ttl",
        "entropy",
        "ts",
        "source",
    ]
    (total,) = con.execute("SELECT count(*) FROM packets").fetchall()[0]
    row = con.execute(
        f"SELECT {', '.join(names)} FROM packets ORDER BY source, frame_no LIMIT 1 OFFSET {rng.randrange(total)}"
    ).fetchall()[0]
    values = {n: (0 if n in ("proto", "src_port", "dst_port", "ttl", "entropy") else "::") if v is None else v
              for n, v in zip(names, row, strict=True)}  # fmt: skip
    values["source"] = str(values["source"]).replace("'", "''")
    parts = [f.format(**values, bits=rng.choice([8, 16, 24])) for f in rng.sample(FILTERS, rng.choice([1, 1, 2]))]
    return rng.choice([" AND ", " OR "]).join(f"({p})" for p in parts)


def _read_back(out: Path) -> Frames:
    frames, error = read_file(SavefileSource(str(out)))
    assert error is None
    return frames


def _compare_with_tshark(out: Path, expected: list[tuple[Any, ...]], where: str) -> None:
    fields = ["frame.time_epoch", "frame.len", "frame.cap_len"]
    command = ["tshark", "-n", "-r", out, "-T", "fields", *(w for f in fields for w in ("-e", f))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (where, done.stderr)
    got = []
    for line in done.stdout.splitlines():
        epoch, wirelen, caplen = line.split("\t")
        seconds, _, fraction = epoch.partition(".")
        got.append((int(seconds) * 10**9 + int(fraction.ljust(9, "0")), int(wirelen), int(caplen)))
    assert got == [(ts, wirelen, len(data)) for ts, data, wirelen, _ in expected], where
    bytes_seen = subprocess.run(["tshark", "-n", "-r", out, "-x"], capture_output=True, text=True).stdout
    assert _bytes_of(bytes_seen) == b"".join(data for _, data, _, _ in expected), where


def _bytes_of(dump: str) -> bytes:
    """The frames' bytes of `tshark -x`; further data sources (reassembled, decompressed) have a title of their own."""
    out, in_frame = [], True
    for line in dump.splitlines():
        row = re.match(r"[0-9a-f]{4,8}  ((?:[0-9a-f]{2} ){1,16})", line + " ")
        if row is None:
            in_frame = not line or line.startswith(("Frame (", "Packet ("))
        elif in_frame:
            out.append(bytes.fromhex(row[1]))
    return b"".join(out)


def test_savefile__written_by_others_is_equal(tmp_path: Path) -> None:
    """A savefile with nanoseconds, through the lake and back: the same bytes."""
    given = tmp_path / "in.pcap"
    given.write_bytes(pcap_bytes([frame(i, 60 + i % 900) for i in range(3000)], nanoseconds=True))
    made = FrameLake(tmp_path / "lake")
    made.replay([given])
    made.close()
    export(made.path, Selection(), str(tmp_path / "out.pcap"))
    assert struct.unpack_from("<I", given.read_bytes())[0] == 0xA1B23C4D
    assert sorted(_read_back(tmp_path / "out.pcap")) == sorted(_read_back(given))
