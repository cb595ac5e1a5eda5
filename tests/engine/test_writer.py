"""Segments on a real disk: in the right hour, visible only when complete, never overwritten."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.config import LakeConfig
from engine.errors import StoreError
from engine.packets import F_TS_NS
from engine.tables import TABLES, arrow_schema
from engine.writer import TableWriter, init_lake, run_name
from tests.builders import decoder, ethernet, fill, ipv4, udp

CONFIG = LakeConfig(sensor="s1")
HOUR_NS = 3_600 * 10**9
NOON_NS = int(datetime(2024, 2, 29, 12, tzinfo=UTC).timestamp()) * 10**9


def packets(times: list[int], size: int = 30) -> pa.RecordBatch:
    """A batch of packets at these times (ns)."""
    work, rows, columns = decoder()
    frames = fill([ethernet(ipv4(udp(os.urandom(size)))) for _ in times])
    frames.frames[F_TS_NS, : len(times)] = times
    return columns.to_arrow(work.decode(frames, rows))


def addresses(n: int) -> pa.RecordBatch:
    """Rows that do not compress."""
    texts = [os.urandom(30).hex() for _ in range(n)]
    return pa.RecordBatch.from_arrays(
        [pa.array(texts), pa.array(np.full(n, NOON_NS // 1000), pa.timestamp("us"))], schema=arrow_schema("addresses")
    )


def writer(lake: Path, config: LakeConfig = CONFIG, table: str = "packets") -> TableWriter:
    return TableWriter(lake, table, config, run_name())


def segments(lake: Path, suffix: str = ".parquet") -> list[str]:
    return sorted(str(p.parent.relative_to(lake)) for p in lake.rglob(f"*{suffix}") if "sensor=none" not in str(p))


def test_init__each_table_is_readable_at_once(tmp_path: Path) -> None:
    lake = tmp_path / "a" / "b" / "lake"
    init_lake(lake)
    before = sorted(lake.rglob("*"))
    for table in TABLES:
        (path,) = (lake / table).rglob("*.parquet")
        assert pq.read_table(path, partitioning=None).num_rows == 0
        assert pq.read_schema(path).names == arrow_schema(table).names
    init_lake(lake)
    assert sorted(lake.rglob("*")) == before


def test_segment__columns_lie_as_the_schema_says(tmp_path: Path) -> None:
    """Encodings that every reader knows, and statistics only where row groups are passed over by them."""
    out = writer(tmp_path)
    out.append(packets([NOON_NS + i * 1000 for i in range(500)]))
    out.publish()
    group = pq.read_metadata(next(tmp_path.rglob("*.parquet"))).row_group(0)
    known = {"PLAIN", "RLE", "RLE_DICTIONARY", "DELTA_BINARY_PACKED"}
    columns = {c.name: c for c in TABLES["packets"] if c.stored}
    for i in range(group.num_columns):
        found = group.column(i)
        words = columns[found.path_in_schema].encoding.split()
        assert set(found.encodings) <= known, found.path_in_schema
        assert ("DELTA_BINARY_PACKED" in found.encodings) == ("delta" in words), found.path_in_schema
        assert found.has_dictionary_page == ("dict" in words), found.path_in_schema
        codec = next((w for w in words if w in ("snappy", "zstd")), "uncompressed")
        assert found.compression.lower() == codec, found.path_in_schema
        assert (found.statistics is not None) == ("stats" in words), found.path_in_schema
    assert [c.name for c in columns.values() if not c.encoding] == []


def test_append__rows_go_to_the_hour_of_their_time(tmp_path: Path) -> None:
    out = writer(tmp_path)
    times = [NOON_NS, NOON_NS + HOUR_NS, NOON_NS + HOUR_NS - 1, NOON_NS - 1]
    out.append(packets(times))
    assert out.pending == 4
    assert out.publish() == 4
    assert out.pending == 0
    day = "packets/sensor=s1/date=2024-02-29/hour="
    assert segments(tmp_path) == [f"{day}11", f"{day}12", f"{day}13"]
    rows = [
        t for f in sorted(tmp_path.rglob("*.parquet")) for t in pq.read_table(f, partitioning=None)["ts"].to_pylist()
    ]
    assert [t.hour for t in rows] == [11, 12, 12, 13]
    (middle,) = (tmp_path / f"{day}12").iterdir()
    assert middle.name.startswith(f"{NOON_NS // 1000:016d}-")


def test_publish__nothing_is_visible_before(tmp_path: Path) -> None:
    out = writer(tmp_path)
    for i in range(20):
        out.append(packets([NOON_NS + i] * 500))
    assert segments(tmp_path) == []
    assert len(segments(tmp_path, ".inprogress")) == 1
    assert out.publish() == 10_000
    assert segments(tmp_path, ".inprogress") == []
    (path,) = tmp_path.rglob("*.parquet")
    table = pq.read_table(path, partitioning=None)
    assert table.num_rows == 10_000
    assert set(table["src_ip"].to_pylist()) == {"10.1.2.3"}
    assert out.publish() == 0
    out.append(packets([]))
    assert out.pending == 0


def test_publish__names_never_overwrite(tmp_path: Path) -> None:
    for _ in range(3):
        out = writer(tmp_path)
        for _ in range(3):
            out.append(packets([NOON_NS]))
            out.publish()
    assert len(segments(tmp_path)) == 9


def test_due__by_age_or_rows(tmp_path: Path) -> None:
    out = writer(tmp_path, LakeConfig(sensor="s1", publish_s=0.1, segment_rows=1000))
    assert not out.due
    out.append(packets([NOON_NS] * 999))
    assert not out.due
    out.append(packets([NOON_NS]))
    assert out.due
    out.publish()
    out.append(packets([NOON_NS]))
    assert not out.due
    time.sleep(0.11)
    assert out.due
    out.discard()


def test_discard__leaves_no_file(tmp_path: Path) -> None:
    out = writer(tmp_path)
    out.append(packets([NOON_NS, NOON_NS + HOUR_NS]))
    assert out.discard() == 2
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    out.append(packets([NOON_NS]))
    assert out.publish() == 1


@pytest.mark.parametrize(
    ("ns", "folder"),
    [
        (-(2**63), "date=1970-01-01/hour=00"),
        (-1, "date=1970-01-01/hour=00"),
        (0, "date=1970-01-01/hour=00"),
        (2**32 * 10**9, "date=2106-02-07/hour=06"),
        (2**63 - 1, "date=2262-04-11/hour=23"),
    ],
)
def test_append__times_far_out(tmp_path: Path, ns: int, folder: str) -> None:
    out = writer(tmp_path)
    out.append(packets([ns]))
    out.publish()
    assert segments(tmp_path) == [f"packets/sensor=s1/{folder}"]
    (path,) = tmp_path.rglob("*.parquet")
    assert pq.read_table(path, partitioning=None)["ts"].cast(pa.int64()).to_pylist() == [ns // 1000]


def test_append__year_10000_and_later(tmp_path: Path) -> None:
    out = writer(tmp_path, table="addresses")
    times = pa.array([253_402_300_800_000_000, 2**63 - 1], pa.timestamp("us"))
    out.append(pa.RecordBatch.from_arrays([pa.array(["a", "b"]), times], schema=arrow_schema("addresses")))
    assert out.publish() == 2
    assert len(segments(tmp_path)) == 2


def test_append__hostile_times_do_not_make_thousands_of_files(tmp_path: Path) -> None:
    out = writer(tmp_path)
    out.append(packets([NOON_NS + i * HOUR_NS for i in range(1000)]))
    assert out.publish() == 1000
    assert len(segments(tmp_path)) == 1


def test_init__removes_leftovers_of_dead_processes_only(tmp_path: Path) -> None:
    out = writer(tmp_path)
    out.append(packets([NOON_NS, NOON_NS + HOUR_NS]))
    old, fresh = sorted(tmp_path.rglob("*.inprogress"))
    os.utime(old, (time.time() - 100, time.time() - 100))
    init_lake(tmp_path)
    assert not old.exists()
    assert fresh.exists()
    out.discard()


# --- disks that do not take it ------------------------------------------------------------------------------------
@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk]).returncode:
        pytest.skip("needs root to mount a small file system")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_full_disk__store_error_then_the_next_segment_works(small_disk: Path) -> None:
    init_lake(small_disk)
    out = writer(small_disk, table="addresses")

    def fill_up() -> None:
        for _ in range(100):
            out.append(addresses(500))
            out.publish()

    with pytest.raises(StoreError, match="no space left on device") as caught:
        fill_up()
    assert "\n" not in str(caught.value)
    assert "--lake" in str(caught.value)
    out.discard()
    whole = [p for p in small_disk.rglob("*.parquet") if "sensor=none" not in str(p)]
    assert whole
    assert {pq.read_table(p, partitioning=None).num_rows for p in whole} == {500}
    assert not list(small_disk.rglob("*.inprogress"))
    whole[0].unlink()
    whole[1].unlink()
    out.append(addresses(100))
    assert out.publish() == 100


def test_full_disk__init_says_so(small_disk: Path) -> None:
    (small_disk / "fill").write_bytes(bytes(256 << 10))
    with pytest.raises(StoreError, match="no space left"):
        init_lake(small_disk / "lake")


def test_unwritable__lake_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "lake"
    path.write_bytes(b"")
    for act in (lambda: init_lake(path), lambda: writer(path).append(packets([NOON_NS]))):
        with pytest.raises(StoreError, match=r"cannot write: (not a directory|file exists)"):
            act()


def test_unwritable__read_only_file_system(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StoreError, match="read-only file system"):
        init_lake(small_disk / "lake")


def test_lost_segment__store_error(tmp_path: Path) -> None:
    out = writer(tmp_path)
    out.append(packets([NOON_NS]))
    next(tmp_path.rglob("*.inprogress")).unlink()
    with pytest.raises(StoreError, match="no such file"):
        out.publish()
    assert out.discard() == 1
