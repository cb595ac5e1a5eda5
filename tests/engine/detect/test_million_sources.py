"""A million forged sources through the whole engine: one incident, and memory that they cannot grow."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np

import analytics
from tests.builders import tcp
from tests.commands import ROOT
from tests.detecting import SYN, frame

START = 1_700_000_040
SOURCES = 1_000_000
SECONDS = 20
_STAMP = [("s", "<u4"), ("us", "<u4"), ("caplen", "<u4"), ("wirelen", "<u4")]
_RECORD = np.dtype([*_STAMP, ("head", "u1", 26), ("src", ">u4"), ("rest", "u1", 24)])


def flood(path: Path, sources: int) -> Path:
    """A million SYNs to one host within 20 s, from so many sources in turn."""
    one = np.frombuffer(frame("1.2.3.4", "10.0.0.11", tcp(b"", 1024, 80, flags=SYN), 6), np.uint8)
    assert one.size == 54
    n = np.arange(SOURCES, dtype=np.int64)
    records = np.zeros(SOURCES, _RECORD)
    us = n * SECONDS * 1_000_000 // SOURCES
    records["s"], records["us"] = START + us // 1_000_000, us % 1_000_000
    records["caplen"] = records["wirelen"] = 54
    records["head"], records["rest"] = one[:26], one[30:]
    records["src"] = 0x14000000 + n % sources * 7919  # from 20.0.0.0 on
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1))
        records.tofile(file)
    return path


def run(path: Path, lake: Path) -> tuple[list[tuple[object, ...]], int]:
    """(incidents above low, the engine's largest memory in bytes)."""
    config = lake.with_suffix(".toml")
    config.write_text('[frames]\nmode = "off"\n[scoring]\nenabled = false\n')
    code = (
        "import sys; from engine.cli import main; c = main(sys.argv[1:]); status = open('/proc/self/status').read(); "
    )
    # Not getrusage: its maximum is that of the process which started this one, when that is greater.
    code += "print('peak', status.partition('VmHWM:')[2].split()[0]); sys.exit(c)"
    words = [sys.executable, "-c", code, "replay", str(path), "--lake", str(lake), "--config", str(config)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=300, check=True)
    with analytics.connect(lake) as con:
        sql = "SELECT kind, severity, src_ip, dst_ip, evidence FROM alerts WHERE severity <> 'low'"
        return con.execute(sql).fetchall(), int(done.stdout.rsplit("peak ", 1)[1]) * 1024


def test_million_sources__one_incident_and_bounded_memory(tmp_path: Path) -> None:
    few, memory = run(flood(tmp_path / "few.pcap", 1000), tmp_path / "few")
    (tmp_path / "few.pcap").unlink()
    many, grown = run(flood(tmp_path / "many.pcap", SOURCES), tmp_path / "many")
    (tmp_path / "many.pcap").unlink()
    for found in (few, many):
        assert [row[:4] for row in found] == [("syn_flood", "high", None, "10.0.0.11")]
    assert json.loads(str(many[0][4]))["per_s"] > 20_000
    assert grown - memory < 700 << 20, (grown >> 20, memory >> 20)
    assert grown < 2 << 30
    with analytics.connect(tmp_path / "many") as con:
        assert con.execute("SELECT count(DISTINCT src_ip) FROM packets").fetchone() == (SOURCES,)
        assert con.execute("SELECT count(*) FROM alerts").fetchone()[0] < 10  # type: ignore[index]
