"""Giving up work in order: what is asked for at which fill, and that the books and flows stay exact."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.data import write_many_flows
from engine.analyse import Analyser
from engine.applications import Applications
from engine.capture.savefile import SavefileSource
from engine.config import EngineConfig, FlowsConfig
from engine.flows import FlowTable
from engine.metrics import Books
from engine.packets import PacketBatch
from engine.pipeline import Pipeline
from engine.pressure import MEANINGS, Level, Pressure
from engine.publish import Publisher
from engine.writer import init_lake, run_name
from tests.builders import decoder, ethernet, fill, ipv4, udp


def shares(fill: float, batches: int = 1000) -> list[float]:
    """Which part of the batches is given up at each level or a higher one, at a fill that stays."""
    p = Pressure()
    given_up = [p.update(fill) for _ in range(batches)]
    return [sum(level >= least for level in given_up) / batches for least in (Level.FRAMES, Level.ROWS, Level.SCORES)]


def test_pressure__gives_up_a_share_that_grows_with_the_fill_level_after_level() -> None:
    assert shares(0.0) == shares(0.5) == [0, 0, 0]
    assert shares(0.65) == [1, 0, 0]
    assert shares(0.9) == [1, 1, 0]
    assert shares(1.0) == [1, 1, 1]
    assert shares(0.575) == pytest.approx([0.5, 0, 0], abs=0.01)
    assert shares(0.7) == pytest.approx([1, 0.2, 0], abs=0.01)
    assert shares(0.95) == pytest.approx([1, 1, 0.5], abs=0.01)
    assert shares(0.7, 20) == pytest.approx([1, 0.2, 0], abs=0.1)  # evenly: of few batches too


def test_pressure__cuts_budgets_before_the_first_row() -> None:
    p = Pressure()
    budgets = []
    for share in (0.0, 0.35, 0.45, 0.55, 0.65, 1.0, 0.1):
        p.update(share)
        budgets.append(p.budget)
    assert budgets == pytest.approx([1, 1, 0.7, 0.4, 0.1, 0.1, 1])
    assert shares(0.65)[1] == 0


def test_limit__parsers_and_signatures_get_a_part_of_their_budget_and_replays_all() -> None:
    assert messages_read(budget=0.5, part=1) == messages_read(budget=1, part=0) == 1
    assert messages_read(budget=0.5, part=0) == 0


def messages_read(budget: float, part: float) -> int:
    """Of one DNS query, after half a second of rest."""
    applications = Applications(budget, kernels=False)  # kernels read what they can whatever the budget
    table = FlowTable(FlowsConfig(max_flows=1000), lambda rows: rows.release(), applications)
    applications.limit(part)
    query = struct.pack(">HHHHHH", 1, 0x0100, 1, 0, 0, 0) + b"\x03www\x07example\x00\x00\x01\x00\x01"
    frames = fill([ethernet(ipv4(udp(query, dport=53), 17))])
    table.follow(frames, decoder()[0].decode(frames, PacketBatch(rows=8)))
    counts = applications.take_counts()
    assert counts.messages + counts.missed == 1
    return counts.messages


def test_pressure__tells_what_is_new_and_not_every_batch() -> None:
    p, said = Pressure(), []
    for second, share in enumerate([0.1, 0.6, 0.95, 0.1, 0.95, 0.1, 0.6, *[0.1] * 30, 0.6]):
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


class Torrent(SavefileSource):
    """A savefile in the place of an interface: it never has to wait, so there is always more than can be done."""

    down = False

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._ready = os.open(path, os.O_RDONLY)

    def fileno(self) -> int:
        return self._ready

    def unread(self) -> int:
        return 0

    def close(self) -> None:
        os.close(self._ready)
        super().close()


def test_overload__order_is_kept_and_every_frame_is_a_row_or_given_up(tmp_path: Path) -> None:
    count = 650_000  # more than all batches of a live capture hold
    path = write_many_flows(tmp_path / "torrent.pcap", count, 2000)
    lake = tmp_path / "lake"
    init_lake(lake)
    said: list[str] = []
    config = EngineConfig().override("lake", sensor="s").override("flows", max_flows=4000)
    pipeline = Pipeline(lake, config, lambda level, text: said.append(f"{level}: {text}"), live=True)
    source = Torrent(path)
    source.open()
    pipeline.start_live([source])
    assert pipeline.wait(100)
    (totals,) = pipeline.totals.values()
    assert totals.received == count
    assert (totals.kernel_drops, totals.drop_not_written, totals.drop_unread_at_stop) == (0, 0, 0)
    assert totals.rows + totals.drop_rows_shed == count
    assert 0 < totals.rows < count
    assert totals.frames_not_stored >= totals.drop_rows_shed >= totals.scores_shed
    assert totals.frames_stored + totals.frames_not_stored == count
    assert sum(int(str(f["src_packets"])) + int(str(f["dst_packets"])) for f in rows_of(lake, "flows")) == count
    assert len(rows_of(lake, "packets")) == totals.rows
    assert sum(int(str(row["drop_rows_shed"])) for row in rows_of(lake, "capture_stats")) == totals.drop_rows_shed
    assert f"warning: {MEANINGS[Level.SCORES]}" in said
