"""The whole engine on a savefile: every row, flow and message is the same however many threads decode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import analytics
from analytics.watch.watch import Watch
from engine.synth import GeneratedCapture
from tests.commands import engine

# What differs between runs: numbers and files of the run itself.
RUN_ONLY = {"flow_id", "frame_file", "frame_offset", "sensor", "source"}


def generated(path: Path, size: int) -> Path:
    """A savefile of the generator's traffic."""
    stream, buffer = GeneratedCapture(pps=5000, start_ns=1_700_000_000 * 10**9), bytearray(1 << 20)
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(buffer[: stream.readinto(memoryview(buffer))])
    return path


def contents(lake: Path) -> dict[str, list[Any]]:
    """Every table as sorted rows, without what belongs to the run."""
    out = {}
    with analytics.connect(lake, threads=1) as con:
        first = con.execute("SELECT min(flow_id) FROM flows").fetchone()[0]  # type: ignore[index]
        for table in ("packets", "flows", "dns", "tls", "http"):
            names = [c[0] for c in con.execute(f"DESCRIBE {table}").fetchall() if c[0] not in RUN_ONLY]
            columns = ", ".join(names)
            rows = con.execute(f"SELECT flow_id - {first}, {columns} FROM {table} ORDER BY ALL").fetchall()
            out[table] = [repr(row) for row in rows]
    return out


@pytest.mark.timeout(300)
def test_threads__change_no_row(tmp_path: Path) -> None:
    path = generated(tmp_path / "generated.pcap", 12 << 20)
    found = []
    for threads in (1, 2, 5):
        (tmp_path / "engine.toml").write_text(
            f"[pipeline]\ndecode_threads = {threads}\n[flows]\nidle_s = 2\nactive_s = 3\n"
        )
        lake = tmp_path / f"lake{threads}"
        done = engine("replay", path, path, "--lake", lake, "--config", tmp_path / "engine.toml")
        assert done.returncode == 2 or done.returncode == 0, done.stderr  # the generator's file ends inside a record
        found.append(contents(lake))
    assert len(found[0]["packets"]) > 20_000
    assert len(found[0]["flows"]) > 100
    assert found[0] == found[1] == found[2]
    with analytics.connect(lake) as con:
        flows, packets = (
            con.execute("SELECT sum(packets), sum(bytes) FROM flows").fetchone(),
            con.execute("SELECT count(*), sum(wirelen) FROM packets WHERE flow_id IS NOT NULL").fetchone(),
        )
        books = con.execute(
            "SELECT sum(received) - sum(rows), sum(frames_stored) - sum(rows) FROM capture_stats"
        ).fetchone()
        orphans = con.execute("SELECT count(*) FROM dns ANTI JOIN flows USING (flow_id)").fetchone()
    assert flows == packets
    assert books == (0, 0)
    assert orphans == (0,)


@pytest.mark.timeout(300)
def test_no_packets__the_same_flows_names_and_alerts_without_rows(tmp_path: Path) -> None:
    path = generated(tmp_path / "generated.pcap", 6 << 20)
    lakes = [tmp_path / "with", tmp_path / "without"]
    for lake, words in zip(lakes, ([], ["--no-packets"]), strict=True):
        engine("replay", path, "--lake", lake, "--frames", "off", *words)
    tables = [contents(lake) for lake in lakes]
    assert tables[1].pop("packets") == []
    assert len(tables[0].pop("packets")) > 10_000
    assert tables[0] == tables[1]
    sql = (
        "SELECT sum(received), sum(rows) + sum(rows_off), sum(wire_bytes), (SELECT sum(packets) FROM rollup_1s), "
        "(SELECT count(DISTINCT ip) FROM addresses), (SELECT count(*) FROM alerts), (SELECT count(*) FROM windows) "
        "FROM capture_stats"
    )
    books = []
    for lake in lakes:
        with analytics.connect(lake, threads=1) as con:
            books.append(con.execute(sql).fetchone())
    assert books[0] == books[1]
    assert books[0][0] == books[0][1] == books[0][3]
    watch = Watch(lakes[1])
    try:
        answer = watch.answer("overview", range_text="all")
        assert answer["kpi"]["packets"] == books[0][0]
    finally:
        watch.close()
