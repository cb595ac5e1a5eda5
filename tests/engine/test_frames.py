"""The ring of raw frames on a real disk: every row's file and offset lead to its bytes, whatever goes wrong."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import cli, jit
from engine.capture.savefile import SavefileSource
from engine.config import FramesConfig
from engine.constants import MAX_CAPLEN
from engine.errors import ConfigError
from engine.frames import FrameRing
from engine.kernels import frames as kernel
from engine.packets import (
    F_CAPLEN,
    F_LINK_TYPE,
    F_OFFSET,
    F_TS_NS,
    F_WIRELEN,
    HAS_FRAME,
    HAS_IP,
    I_FRAME_FILE,
    L_FRAME_OFFSET,
    FrameBatch,
    PacketBatch,
)
from engine.writer import run_name
from tests.builders import ethernet, fill, ipv4, udp
from tests.netns import usable
from tests.savefiles import read_file

MIB = 1 << 20
SMALLEST = FramesConfig(limit_bytes=16 * MIB)  # 16 segments of 1 MiB
START_NS = 1_700_000_000_123_456_789


def ring(lake: Path, config: FramesConfig | None = None, failures: list[str] | None = None) -> FrameRing:
    report = pytest.fail if failures is None else lambda error: failures.append(str(error))
    return FrameRing(lake, config or FramesConfig(), "s1", run_name(), report)


def frame(size: int, fill_byte: int = 0) -> bytes:
    return ethernet(ipv4(udp(bytes([fill_byte]) * (size - 42)), 17))


def stored(lake: Path, batch: PacketBatch, count: int) -> list[tuple[int, int, bytes, int] | None]:
    """What each row's file and offset lead to: (seconds, nanoseconds, bytes, wirelen); None without a frame."""
    out: list[tuple[int, int, bytes, int] | None] = []
    contents = [(lake / "frames" / name).read_bytes() for name in batch.frame_files]
    for i in range(count):
        if not batch.present[i] & HAS_FRAME:
            out.append(None)
            continue
        data = contents[batch.int_[I_FRAME_FILE, i]]
        at = int(batch.long[L_FRAME_OFFSET, i])
        seconds, fraction, caplen, wirelen = struct.unpack_from("<IIII", data, at)
        assert at + 16 + caplen <= len(data)
        out.append((seconds, fraction, data[at + 16 : at + 16 + caplen], wirelen))
    return out


def files(lake: Path) -> list[Path]:
    return sorted((lake / "frames").glob("sensor=*/*"))


def in_order(paths: list[Path]) -> list[Path]:
    """As they were written: by run and number."""
    return sorted(paths, key=lambda path: path.name.rpartition("-")[2])


def size_of(lake: Path) -> int:
    return sum(path.stat().st_size for path in files(lake))


# --- what is stored ------------------------------------------------------------------------------------------------


def test_store__every_row_leads_to_its_frame(tmp_path: Path) -> None:
    frames = [frame(60 + i, i) for i in range(100)]
    batch, rows = fill(frames, wirelens=[len(f) + 9 for f in frames], poison=0xEE), PacketBatch()
    rows.present[:] = HAS_IP | HAS_FRAME
    out = ring(tmp_path)
    assert out.store(batch, rows) == 100
    assert (out.stored, out.not_stored) == (100, 0)
    expected = [(1_700_000_000, 123_456_789 + i, f, len(f) + 9) for i, f in enumerate(frames)]
    assert stored(tmp_path, rows, 100) == expected  # already before close
    assert (rows.present[:100] == HAS_IP | HAS_FRAME).all()
    out.close()
    (path,) = files(tmp_path)
    assert rows.frame_files == [f"sensor=s1/{path.name}"]
    assert path.name.startswith(f"{START_NS:019d}-")
    assert read_file(SavefileSource(str(path)))[0] == [(START_NS + i, f, len(f) + 9, 1) for i, f in enumerate(frames)]


def test_store__several_batches_append_to_one_segment(tmp_path: Path) -> None:
    out, rows = ring(tmp_path), PacketBatch()
    for i in range(5):
        assert out.store(fill([frame(100, i)] * 10), rows) == 10
        assert all(r is not None and r[2] == frame(100, i) for r in stored(tmp_path, rows, 10))
    out.close()
    assert len(files(tmp_path)) == 1


def test_store__one_file_per_link_type(tmp_path: Path) -> None:
    frames = [bytes([i]) * 40 for i in range(30)]
    batch, rows = fill(frames), PacketBatch()
    kinds = [(1, 113, 101)[i % 3] for i in range(30)]
    batch.frames[F_LINK_TYPE, :30] = kinds
    out = ring(tmp_path)
    assert out.store(batch, rows) == 30
    assert [r[2] for r in stored(tmp_path, rows, 30) if r] == frames
    out.close()
    for path in files(tmp_path):
        read, error = read_file(SavefileSource(str(path)))
        assert error is None
        link = {kind for *_, kind in read}
        assert len(link) == 1
        assert [f for _, f, _, _ in read] == [f for f, kind in zip(frames, kinds, strict=True) if kind in link]


def test_store__unknown_link_types_are_left_out(tmp_path: Path) -> None:
    batch, rows = fill([frame(60)] * 4), PacketBatch()
    rows.present[:] = HAS_FRAME
    batch.frames[F_LINK_TYPE, :4] = [1, -1, 70_000, 1]
    out = ring(tmp_path)
    assert out.store(batch, rows) == 2
    assert [r is None for r in stored(tmp_path, rows, 4)] == [False, True, True, False]
    assert out.not_stored == 2


def test_store__many_link_types_do_not_become_many_files(tmp_path: Path) -> None:
    batch, rows = fill([frame(60)] * 1000), PacketBatch()
    out = ring(tmp_path)
    for first in (0, 500):
        batch.frames[F_LINK_TYPE, :1000] = np.arange(first, first + 1000)
        out.store(batch, rows)
        assert len(files(tmp_path)) == 16
    assert out.stored == 16
    assert out.not_stored == 1984


def test_head__keeps_the_first_bytes(tmp_path: Path) -> None:
    batch, rows = fill([frame(60, 1), frame(200, 2), frame(100, 3)]), PacketBatch()
    out = ring(tmp_path, FramesConfig(mode="head", head_bytes=64))
    assert out.store(batch, rows) == 3
    kept = [(r[2], r[3]) for r in stored(tmp_path, rows, 3) if r]
    assert kept == [(frame(60, 1), 60), (frame(200, 2)[:64], 200), (frame(100, 3)[:64], 100)]


def test_off__stores_nothing_and_touches_nothing(tmp_path: Path) -> None:
    rows = PacketBatch()
    rows.frame_files.append("sensor=x/1-1.pcap")
    out = ring(tmp_path, FramesConfig(mode="off"))
    assert not out.enabled
    assert out.store(fill([frame(60)] * 3), rows) == 0
    out.sync()
    out.close()
    assert rows.frame_files == []
    assert out.not_stored == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ns", "header"),
    [
        (-1, (0, 0)),
        (-(2**63), (0, 0)),
        (0, (0, 0)),
        ((2**32 - 1) * 10**9 + 7, (2**32 - 1, 7)),
        (2**32 * 10**9, (2**32 - 1, 999_999_999)),
        (2**63 - 1, (2**32 - 1, 999_999_999)),
    ],
)
def test_store__hostile_times_are_clamped(tmp_path: Path, ns: int, header: tuple[int, int]) -> None:
    batch, rows = fill([frame(60)]), PacketBatch()
    batch.frames[F_TS_NS, 0] = ns
    out = ring(tmp_path)
    assert out.store(batch, rows) == 1
    (row,) = stored(tmp_path, rows, 1)
    assert row is not None
    assert row[:2] == header


def test_skip__counts_and_stores_nothing(tmp_path: Path) -> None:
    out, rows = ring(tmp_path), PacketBatch()
    out.store(fill([frame(60)]), rows)
    out.skip(fill([frame(60)] * 3), rows)
    assert (out.stored, out.not_stored, rows.frame_files) == (1, 3, [])
    out.close()


# --- the kernel ----------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-5, 600)),
            st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-5, 600)),
            st.integers(-(2**63), 2**63 - 1),
        ),
        max_size=12,
    ),
    st.integers(14, 300),
    st.integers(0, 1200),
)
def test_kernel__copies_nothing_from_outside(frames: list[tuple[int, int, int]], keep: int, room: int) -> None:
    """Any offset, caplen and wirelen: what is stored lies in the arena, what is written lies in the room."""
    batch, rows = FrameBatch(12, 512), PacketBatch(12)
    batch.arena[:] = np.arange(512) % 251
    for i, (offset, caplen, wirelen) in enumerate(frames):
        batch.frames[:, i] = (START_NS, offset, caplen, wirelen, 1)
    out, state, found = np.full(1300, 0xAA, np.uint8), np.zeros(4, np.int64), np.zeros(4, np.int64)
    kernel.find_link_types(batch.arena, batch.frames, len(frames), rows.present, found)
    kernel.build_records(
        batch.arena, batch.frames, 0, len(frames), 1, keep, 24, 0, room, out, rows.long, rows.int_, rows.present, state
    )
    used, seen = 0, 0
    for i, (offset, caplen, wirelen) in enumerate(frames[: state[kernel.NEXT]]):
        whole = caplen >= 0 and offset >= 0 and offset + caplen <= 512
        assert bool(rows.present[i] & HAS_FRAME) == whole
        if not whole:
            continue
        assert rows.long[L_FRAME_OFFSET, i] == 24 + used
        header = struct.unpack_from("<IIII", out.tobytes(), used)
        assert header[2:] == (min(caplen, keep), min(max(wirelen, 0), 2**32 - 1))
        data = batch.arena[offset : offset + header[2]]
        assert (out[used + 16 : used + 16 + header[2]] == data).all()
        used, seen = used + 16 + header[2], seen + 1
    assert (state[kernel.USED], state[kernel.STORED]) == (used, seen)
    assert used <= room
    assert (out[used:] == 0xAA).all()
    kernel.forget_records(batch.frames, 0, len(frames), 1, rows.present)
    assert not (rows.present & HAS_FRAME).any()


def test_kernel__longer_than_any_snaplen_is_cut(tmp_path: Path) -> None:
    batch, rows = FrameBatch(1, MAX_CAPLEN + 100), PacketBatch(1)
    batch.frames[:, 0] = (START_NS, 0, MAX_CAPLEN + 100, MAX_CAPLEN + 100, 1)
    batch.arena[:] = 5
    batch.count = 1
    out = ring(tmp_path)
    assert out.store(batch, rows) == 1
    (row,) = stored(tmp_path, rows, 1)
    assert row is not None
    assert (len(row[2]), row[3]) == (MAX_CAPLEN, MAX_CAPLEN + 100)


def test_kernels__one_array_layout(tmp_path: Path) -> None:
    if not jit.is_compiled():
        pytest.skip("nothing is compiled")
    from engine.warmup import warm_up

    warm_up()
    ring(tmp_path).store(fill([frame(60)] * 3), PacketBatch())
    kernels = (kernel.find_link_types, kernel.build_records, kernel.forget_records)
    assert [len(k.signatures) for k in kernels] == [1, 1, 1]


# --- the ring ------------------------------------------------------------------------------------------------------


def big_batch(n: int = 2000, size: int = 1400) -> FrameBatch:
    return fill([frame(size, i % 256) for i in range(n)])


def test_ring__oldest_segments_go_first_and_offsets_stay_right(tmp_path: Path) -> None:
    out, rows, batch = ring(tmp_path, SMALLEST), PacketBatch(), big_batch()
    seen: list[str] = []
    for _ in range(20):  # 20 times 2.8 MB into 16 MiB
        assert out.store(batch, rows) == 2000
        assert size_of(tmp_path) <= SMALLEST.limit_bytes
        seen += [n for n in rows.frame_files if n not in seen]
    got = stored(tmp_path, rows, 2000)
    assert [r[2] for r in got if r] == [frame(1400, i % 256) for i in range(2000)]
    assert len(rows.frame_files) > 1
    out.close()
    left = [f"sensor=s1/{p.name}" for p in in_order(files(tmp_path))]
    assert left == seen[-len(left) :]
    assert 14 <= len(left) <= 16
    assert all(p.stat().st_size <= MIB for p in files(tmp_path))
    for path in files(tmp_path):
        assert read_file(SavefileSource(str(path)))[1] is None


def test_ring__segments_of_earlier_runs_count_and_go_first(tmp_path: Path) -> None:
    first, rows, batch = ring(tmp_path, SMALLEST), PacketBatch(), big_batch()
    batch.frames[F_TS_NS] += 10**18  # newer times do not make an older segment stay
    for _ in range(5):
        first.store(batch, rows)
    first.close()
    old = files(tmp_path)
    assert len(old) == 14
    second = ring(tmp_path, SMALLEST)
    for _ in range(3):
        second.store(big_batch(), rows)
        assert size_of(tmp_path) <= SMALLEST.limit_bytes
    remaining = [p for p in old if p.exists()]
    assert 0 < len(remaining) < len(old)
    assert in_order(remaining) == in_order(old)[-len(remaining) :]
    for _ in range(10):
        second.store(big_batch(), rows)
    assert not any(p.exists() for p in old)
    second.close()


def test_ring__a_lower_limit_at_the_next_start(tmp_path: Path) -> None:
    first, rows = ring(tmp_path, FramesConfig(limit_bytes=64 * MIB)), PacketBatch()
    for _ in range(12):
        first.store(big_batch(), rows)
    first.close()
    assert size_of(tmp_path) > 30 * MIB
    second = ring(tmp_path, SMALLEST)
    second.store(fill([frame(60)]), rows)
    assert size_of(tmp_path) <= SMALLEST.limit_bytes


def test_ring__many_link_types_share_the_limit(tmp_path: Path) -> None:
    out, rows, batch = ring(tmp_path, SMALLEST), PacketBatch(), big_batch(1600)
    batch.frames[F_LINK_TYPE, :1600] = np.arange(1600) % 16
    for _ in range(30):
        assert out.store(batch, rows) == 1600
        assert size_of(tmp_path) <= SMALLEST.limit_bytes
    assert len({path.read_bytes()[20] for path in files(tmp_path)}) == 16


def test_ring__crash_leftovers_and_foreign_files(tmp_path: Path) -> None:
    """A segment that ends inside a record counts like any other; what is not ours is not touched."""
    folder = tmp_path / "frames" / "sensor=s1"
    folder.mkdir(parents=True)
    cut = folder / "0000000000000000001-18aa000001.pcap"
    cut.write_bytes(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, MAX_CAPLEN, 1) + b"\x01" * 7)
    foreign = folder / "notes.txt"
    foreign.write_text("mine")
    out, rows = ring(tmp_path, SMALLEST), PacketBatch()
    for _ in range(8):
        out.store(big_batch(), rows)
    out.close()
    assert not cut.exists()
    assert foreign.read_text() == "mine"


def test_ring__deleted_by_the_operator_goes_on_in_a_new_segment(tmp_path: Path) -> None:
    out, rows = ring(tmp_path), PacketBatch()
    out.store(fill([frame(60)]), rows)
    (path,) = files(tmp_path)
    path.unlink()
    assert out.store(fill([frame(60, 7)]), rows) == 1
    (row,) = stored(tmp_path, rows, 1)
    assert row is not None
    assert row[2] == frame(60, 7)
    out.close()


def test_ring__sync_and_close_twice(tmp_path: Path) -> None:
    out, rows = ring(tmp_path), PacketBatch()
    out.store(fill([frame(60)]), rows)
    for call in (out.sync, out.sync, out.close, out.close, out.sync):
        call()
    assert out.store(fill([frame(60)]), rows) == 1
    out.close()
    assert len(files(tmp_path)) == 2
    held = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    assert not [name for name in held if name.startswith(str(tmp_path))]


# --- trouble -------------------------------------------------------------------------------------------------------


def test_failure__is_reported_once_and_rows_go_on(tmp_path: Path) -> None:
    failures: list[str] = []
    (tmp_path / "frames").write_text("a file where the directory should be")
    out, rows = ring(tmp_path, failures=failures), PacketBatch()
    rows.present[:] = HAS_IP
    for _ in range(3):
        assert out.store(fill([frame(60)] * 5), rows) == 0
    assert (rows.present[:5] == HAS_IP).all()
    assert out.not_stored == 15
    assert len(failures) == 1
    for part in (str(tmp_path / "frames"), "--frames off"):
        assert part in failures[0]
    assert "\n" not in failures[0]
    (tmp_path / "frames").unlink()
    assert out.store(fill([frame(60)] * 5), rows) == 5


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if usable():
        pytest.skip(usable())
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.root
def test_full_disk__gives_up_the_batch_keeps_offsets_and_recovers(small_disk: Path) -> None:
    failures: list[str] = []
    out, rows, batch = ring(small_disk, failures=failures), PacketBatch(), big_batch(1000)
    counts = [out.store(batch, rows) for _ in range(5)]
    assert counts[:2] == [1000, 1000]
    assert 0 < counts[2] < 1000  # the pieces that found room
    assert counts[3:] == [0, 0]
    assert out.stored + out.not_stored == 5000
    assert not (rows.present[:1000] & HAS_FRAME).any()
    assert len(failures) == 1
    assert "no space left on device" in failures[0]
    (path,) = files(small_disk)
    frames, error = read_file(SavefileSource(str(path)))
    assert error is None  # nothing half at the end
    assert len(frames) == out.stored
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert out.store(batch, rows) == 1000
    assert [r[2] for r in stored(small_disk, rows, 1000) if r] == [frame(1400, i % 256) for i in range(1000)]
    out.close()


# --- configuration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"mode": "some"}, ["frames.mode", "'some'", "full, head or off"]),
        ({"head_bytes": 13}, ["frames.head_bytes", "13"]),
        ({"head_bytes": MAX_CAPLEN + 1}, ["frames.head_bytes", str(MAX_CAPLEN)]),
        ({"limit_bytes": (16 << 20) - 1}, ["frames.limit_bytes", "16 MiB"]),
    ],
)
def test_config__one_line_naming_value_and_range(values: dict[str, object], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        FramesConfig(**values)  # type: ignore[arg-type]
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], FramesConfig()),
        (["--frames", "full"], FramesConfig()),
        (["--frames", "off"], FramesConfig(mode="off")),
        (["--frames", "96", "--frames-limit", "64"], FramesConfig(mode="head", head_bytes=96, limit_bytes=64 * MIB)),
        (["--frames", "some"], "--frames 'some'"),
        (["--frames", "0"], "frames.head_bytes"),
        (["--frames-limit", "15"], "frames.limit_bytes"),
    ],
)
def test_config__flags_of_run_and_replay(words: list[str], expected: FramesConfig | str) -> None:
    for command in (["run"], ["replay", "x.pcap"]):
        options = cli._parser().parse_args([*command, *words])
        if isinstance(expected, FramesConfig):
            assert cli._load(options).frames == expected
        else:
            with pytest.raises(ConfigError, match=expected):
                cli._load(options)


def test_store__unused_rows_of_the_batch_are_untouched(tmp_path: Path) -> None:
    batch, rows = fill([frame(60)] * 4), PacketBatch()
    batch.count = 2
    rows.present[:] = HAS_FRAME
    assert F_OFFSET < F_CAPLEN < F_WIRELEN
    assert ring(tmp_path).store(batch, rows) == 2
    assert (rows.present[2:10] == HAS_FRAME).all()
