"""Every frame is a row that readers see, or counted as lost — also when the lake fails in the middle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine import metrics
from engine.config import LakeConfig
from engine.errors import StoreError
from engine.packets import F_TS_NS, FrameBatch, PacketBatch
from engine.publish import Publisher
from engine.writer import init_lake, run_name
from tests.builders import decoder, ethernet, fill, ipv4, udp

HOUR_NS = 3_600 * 10**9


def batch(source: str, hours: list[int]) -> FrameBatch:
    """One UDP frame for each entry, captured in that hour of the epoch."""
    frames = fill([ethernet(ipv4(udp(), 17))] * len(hours))
    frames.frames[F_TS_NS, : len(hours)] = [h * HOUR_NS for h in hours]
    frames.source = source
    return frames


def publisher_of(lake: Path, on_failure: Callable[[StoreError], object]) -> tuple[Publisher, metrics.Books]:
    books = metrics.Books()
    return Publisher(lake, LakeConfig(sensor="s"), run_name(), books, on_failure), books


def take(publisher: Publisher, frames: FrameBatch) -> None:
    publisher.take(decoder()[0].decode(frames, PacketBatch(rows=64)))


def visible(lake: Path) -> int:
    files = (lake / "packets").glob("sensor=s/*/*/*.parquet")
    return sum(pq.ParquetFile(file).metadata.num_rows for file in files)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    init_lake(tmp_path)
    return tmp_path


def test_publish__counts_what_readers_see(lake: Path) -> None:
    publisher, books = publisher_of(lake, pytest.fail)
    take(publisher, batch("a", [1, 1, 2]))
    take(publisher, batch("b", [2]))
    publisher.publish()
    assert {name: t.rows for name, t in books.all().items()} == {"a": 3, "b": 1}
    assert visible(lake) == 4


def test_publish__segment_that_fails_after_others_is_the_only_loss(lake: Path) -> None:
    failures: list[StoreError] = []
    publisher, books = publisher_of(lake, failures.append)
    take(publisher, batch("a", [1, 1, 2]))
    next((lake / "packets").glob("sensor=s/*/hour=02/*.inprogress")).unlink()  # its rename will fail
    publisher.publish()
    totals = books.of("a")
    assert len(failures) == 1
    assert (totals.rows, totals.drop_not_written) == (2, 1)
    assert visible(lake) == 2
    take(publisher, batch("a", [3]))
    publisher.publish()
    assert (totals.rows, totals.drop_not_written) == (3, 1)
    assert visible(lake) == 3


def test_publish__batch_that_cannot_be_appended_is_lost_with_what_was_open(lake: Path) -> None:
    failures: list[StoreError] = []
    publisher, books = publisher_of(lake, failures.append)
    take(publisher, batch("a", [1, 1]))
    blocked = lake / "packets" / "sensor=s" / "date=1970-01-01" / "hour=05"
    blocked.write_text("a file where a directory must be")
    take(publisher, batch("b", [5]))
    assert len(failures) == 1
    assert {n: (t.rows, t.drop_not_written) for n, t in books.all().items()} == {"a": (0, 2), "b": (0, 1)}
    assert visible(lake) == 0


def test_publish__counts_that_could_not_be_written_are_in_the_next_row(lake: Path) -> None:
    failures: list[StoreError] = []
    publisher, _ = publisher_of(lake, failures.append)
    blocked = lake / "capture_stats" / "sensor=s"
    blocked.write_text("a file where a directory must be")
    take(publisher, batch("a", [1, 1]))
    publisher.publish()
    assert len(failures) == 1
    blocked.unlink()
    take(publisher, batch("a", [1]))
    publisher.publish()
    rows = [pq.ParquetFile(f).read().to_pylist() for f in (lake / "capture_stats").glob("sensor=s/*/*/*.parquet")]
    assert [row["rows"] for file in rows for row in file] == [3]
