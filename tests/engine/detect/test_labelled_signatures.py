"""The starter set on labelled captures of real tools: every web attack and shell is named, nothing else is."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import pytest

from engine.applications import Applications
from engine.config import FlowsConfig, SignaturesConfig
from engine.decode import Decoder
from engine.detect.finding import Finding
from engine.detect.signatures.stage import Signatures
from engine.flows import FlowTable
from engine.packets import PacketBatch
from tests.flowing import batches

DATA = Path(__file__).parents[4] / "shared" / "detect" / "data"
KINDS = {"sqli": "sql_injection", "web_attack": "web_attack", "c2_shell": "cleartext_shell"}

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not DATA.is_dir(), reason="the labelled captures are not here"),
]


def _findings(name: str, directory: Path) -> list[Finding]:
    path = directory / f"{name}.pcap"
    subprocess.run(["zstd", "-q", "-d", "--long=27", DATA / f"{name}.pcap.zst", "-o", path], check=True)
    signatures, applications, decoder = Signatures(SignaturesConfig(), 1.0), Applications(), Decoder()
    table = FlowTable(FlowsConfig(), lambda rows: rows.release(), applications)
    found: list[Finding] = []
    packets = PacketBatch()
    for frames in batches(path):
        table.follow(frames, decoder.decode(frames, packets))
        found += signatures.take(frames, packets, table)
    table.close()
    for name_, rows in applications.take_rows().items():
        found += signatures.application_rows(name_, rows)
    return found


@pytest.mark.parametrize("name", ["val", "test1", "test2", "train", "benign"])
def test_labelled__attacks_are_named_and_nothing_else(name: str, tmp_path: Path) -> None:
    found = _findings(name, tmp_path)
    with (DATA / f"{name}.intervals.csv").open() as file:
        incidents = [row for row in csv.DictReader(file) if row["type"] in KINDS]
    explained = set()
    for incident in incidents:
        began, ended = float(incident["t_start"]), float(incident["t_end"])
        pair, kind = {incident["attackers"], incident["victims"]}, KINDS[incident["type"]]
        mine = [
            n for n, f in enumerate(found)
            if began - 0.5 <= f.ts / 1e6 <= ended + 10 and {f.src_ip, f.dst_ip} == pair and f.kind == kind
        ]  # fmt: skip
        assert mine, incident["attack_id"]
        assert min(found[n].ts for n in mine) / 1e6 - began < 3
        assert len({(found[n].src_ip, found[n].dst_ip) for n in mine}) == 1  # one incident
        explained.update(mine)
    assert [f for n, f in enumerate(found) if n not in explained] == []
