"""Giving up work in order: what is asked for at which fill, and that the books and flows stay exact."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.analyse import Analyser
from engine.config import EngineConfig
from engine.metrics import Books
from engine.packets import PacketBatch
from engine.pressure import MEANINGS, Level, Pressure
from engine.publish import Publisher
from engine.writer import init_lake, run_name
from tests.builders import decoder, ethernet, fill, ipv4, udp


def test_pressure__follows_the_fill_batch_by_batch() -> None:
    p = Pressure()
    levels = [p.update(fill) for fill in (0.2, 0.5, 0.45, 0.75, 0.6, 0.5, 0.9, 0.72, 0.5, 0.3, 0.1)]
    n, f, r, x = Level.NONE, Level.FRAMES, Level.ROWS, Level.SCORES
    assert levels == [n, f, f, r, r, f, x, x, f, n, n]


def test_pressure__tells_what_is_new_and_not_every_batch() -> None:
    p, said = Pressure(), []
    for second, share in enumerate([0.1, 0.6, 0.9, 0.1, 0.9, 0.1, 0.6, *[0.1] * 30, 0.6]):
        p.update(share)
        line = p.news(float(second))
        if line:
            said.append((second, line))
    assert [line for _, line in said] == [
        MEANINGS[level] for level in (Level.FRAMES, Level.SCORES, Level.NONE, Level.FRAMES)
    ]
    assert said[0][0] == 1
    assert said[2][0] >= 12
    assert set(MEANINGS) == set(Level)


def rows_of(lake: Path, table: str) -> list[dict[str, object]]:
    files = (lake / table).glob("sensor=s/*/*/*.parquet")
    return [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]


@pytest.mark.parametrize("level", list(Level))
def test_publish__gives_up_what_the_level_says(level: Level, tmp_path: Path) -> None:
    init_lake(tmp_path)
    config, books, run = EngineConfig().override("lake", sensor="s"), Books(), run_name()
    publisher = Publisher(tmp_path, config.lake, run, books, pytest.fail)
    analyser = Analyser(tmp_path, config, run, books, publisher.take_side, lambda *line: pytest.fail(str(line)))
    frames = fill([ethernet(ipv4(udp(sport=port), 17)) for port in (1, 2, 3, 1)])
    for give_up in (Level.NONE, level):
        rows = decoder()[0].decode(frames, PacketBatch(rows=8))
        if analyser.take(frames, rows, give_up):
            publisher.take(rows)
    publisher.observe("test", 8, 0, 0)
    analyser.finish()
    publisher.finish()
    totals = books.of("test")
    shed = 4 if level >= Level.ROWS else 0
    assert (totals.rows, totals.drop_rows_shed) == (8 - shed, shed)
    assert totals.received == totals.rows + totals.own_drops
    stored = 4 if level >= Level.FRAMES else 8
    assert (totals.frames_stored, totals.frames_not_stored) == (stored, 8 - stored)
    assert len(rows_of(tmp_path, "packets")) == 8 - shed
    assert sorted(f["src_packets"] for f in rows_of(tmp_path, "flows")) == [2, 2, 4]  # exact at every level
    assert sum(row["drop_rows_shed"] for row in rows_of(tmp_path, "capture_stats")) == shed
