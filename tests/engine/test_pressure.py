"""Giving up work in order: what is asked for at which fill, and that the books and flows stay exact."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine import pressure
from engine.analyse import Analyser
from engine.config import EngineConfig
from engine.metrics import Books
from engine.packets import PacketBatch
from engine.pressure import MEANINGS, Level, Pressure
from engine.publish import Publisher
from engine.writer import init_lake, run_name
from tests.builders import decoder, ethernet, fill, ipv4, udp


def test_pressure__rises_at_once_and_falls_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(pressure.time, "monotonic", lambda: clock[0])
    p = Pressure()
    assert p.update(0.2) is Level.NONE
    assert p.update(0.9) is Level.SCORES
    clock[0] += 1.0
    assert p.update(0.1) is Level.SCORES  # not yet calm for long enough
    found = []
    for _ in range(8):
        clock[0] += 1.1
        found.append(p.update(0.1))
    assert found == [Level.ROWS] * 2 + [Level.FRAMES] * 2 + [Level.NONE] * 4
    assert p.update(0.55) is Level.FRAMES
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
