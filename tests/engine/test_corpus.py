"""Real captures against tshark's answers, and damaged copies of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine import jit
from engine.capture.savefile import SavefileSource
from engine.capture.source import ReadResult
from engine.columns import Columns
from engine.decode import Decoder
from engine.errors import CorruptFile, EngineError
from engine.kernels import address, decode, walk
from engine.packets import F_LINK_TYPE, FrameBatch, PacketBatch
from tests.builders import decoder, fill, plain_schema
from tests.savefiles import Frames, read_file

CORPUS = Path(__file__).parents[3] / "shared" / "corpus"
pytestmark = [pytest.mark.corpus, pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no captures at {CORPUS}")]
KERNELS = [
    decode.decode_frames, walk.walk_pcap, walk.walk_pcapng, address.index_ips, address.index_rare_ips,
    address.index_macs, address.mark_new, address.format_addresses, address.pack_bits,
]  # fmt: skip
# Where tshark's opinion or a crafted file differs from us; a file that is not here must be equal in every column.
DIFFERENT = {
    "PcapPlusPlus--crash-exception-cast-constructed-record": "record header damaged on purpose; tshark reads another",
    "PcapPlusPlus--igmplayer": "tshark takes it for the Nokia variant of pcap, with longer record headers",
    "nfstream--dhcp_big_endian.pcapng": "a time 150,000 years from now: beyond 64-bit nanoseconds",
    "nfstream--dhcp_little_endian.pcapng": "a time 150,000 years from now: beyond 64-bit nanoseconds",
    "suricata-verify--detect-ipopts__input.pcap": "source route option: tshark shows its last hop as the destination",
    "tcpdump--bgp-addpath.pcap": "IP total length beyond the frame; tshark counts the captured bytes",
    "tcpdump--ipv6-rthdr-oobr.pcap": "routing header cut: tshark shows the next protocol, we the last whole one",
    "tcpdump--tests__ipv6-rthdr-oobr.pcap": "routing header cut: tshark shows the next protocol, we the last whole one",
    "tcpreplay--test.rewrite_efcs": "tshark takes the last 4 bytes for a frame check sequence, we the IPv6 length",
    "tcpreplay--test2.rewrite_efcs": "tshark takes the last 4 bytes for a frame check sequence, we the IPv6 length",
    "zeek--cisco-fabric-path.pcap": "Cisco FabricPath is not decoded",
    "zeek--ip6-trunc.pcap": "IPv6 header cut: tshark shows the half it has",
    "zeek--ipv4-internally-truncated-header.pcap": "IPv4 header cut: tshark shows the half it has",
}


class Tables:
    """Decodes savefiles to tables as the lake would have them."""

    def __init__(self) -> None:
        self.frames, self.rows, self.decoder, self.columns = FrameBatch(), PacketBatch(), Decoder(), Columns()
        self.schema = plain_schema(self.columns.schema)

    def read(self, path: Path) -> tuple[pa.Table, EngineError | None]:
        source, tables, number = SavefileSource(str(path)), [self.schema.empty_table()], 1
        try:
            source.open()
            result = ReadResult.MORE
            while result is not ReadResult.END:
                self.frames.clear()
                self.frames.first_frame_no = number
                result = source.read(self.frames)
                number += self.frames.count
                tables.append(self.decode())
        except EngineError as error:
            return pa.concat_tables(tables), error
        finally:
            source.close()
        return pa.concat_tables(tables), None

    def decode(self) -> pa.Table:
        """The rows of the batch, copied out of its memory."""
        batch = self.columns.to_arrow(self.decoder.decode(self.frames, self.rows))
        batch.validate(full=True)
        self.columns.new_addresses(0)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        return pa.ipc.open_stream(sink.getvalue()).read_all().cast(self.schema)


def for_checking(table: pa.Table) -> pa.Table:
    """With the columns that check.py compares under the names it knows."""
    ns = table["ts"].cast(pa.int64()).to_numpy() * 1000 + table["ts_nanos"].to_numpy()
    return table.append_column("ts_ns", pa.array(ns)).append_column("protocol", table["proto"])


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """check.py's verdict on our tables, and the error of each capture that had one."""
    out = tmp_path_factory.mktemp("tables")
    tables, errors = Tables(), {}
    for path in sorted((CORPUS / "captures").iterdir()):
        table, error = tables.read(path)
        if error is not None:
            errors[path.name] = error
        assert table["frame_no"].to_pylist() == list(range(1, len(table) + 1))
        if error is None or len(table):
            pq.write_table(for_checking(table), out / f"{path.name}.parquet", compression="none")
    command = [sys.executable, CORPUS / "check.py", "--truth", CORPUS / "truth", "--got", out, "--json", out / "r.json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    return {**json.loads((out / "r.json").read_text()), "errors": errors}


def test_corpus__as_tshark_reads_it(report: dict[str, Any]) -> None:
    assert report["packets"] > 250_000
    assert report["ok"] / report["packets"] >= 0.999
    equal = [name for name, bad in report["files"].items() if not bad and name not in report["count_diff"]]
    print(f"packets {report['ok'] / report['packets']:.4%}, files {len(equal)} of {len(report['files'])}")
    assert len(equal) / len(report["files"]) >= 0.98
    assert {name for name, bad in report["files"].items() if bad} <= set(DIFFERENT)


def test_corpus__captures_without_rows_were_refused_in_one_line(report: dict[str, Any]) -> None:
    for name, error in report["errors"].items():
        assert type(error) in (CorruptFile, *CorruptFile.__subclasses__()), name
        assert name in str(error)
        assert "\n" not in str(error)
    without_rows = {name for name, _ in report["missing"]}
    assert without_rows <= set(report["errors"])
    unknown = [name for name in without_rows if "has no decoder" not in str(report["errors"][name])]
    assert len(unknown) <= 3, unknown


def test_kernels__one_array_layout(report: dict[str, Any]) -> None:
    """A second layout would compile again in the middle of a capture."""
    if not jit.is_compiled():
        pytest.skip("nothing is compiled")
    assert [(k.__name__, len(k.signatures)) for k in KERNELS] == [(k.__name__, 1) for k in KERNELS]


def rows_of(frames: Frames, poison: int, gap: int) -> dict[str, Any]:
    """All frames decoded in an arena of poison, into a batch that an earlier one left full of it."""
    work, rows, columns = decoder()
    batch = fill([f for _, f, _, _ in frames], wirelens=[w for _, _, w, _ in frames], poison=poison, gap=gap)
    batch.frames[F_LINK_TYPE, : len(frames)] = [link for _, _, _, link in frames]
    for array in (rows.short, rows.int_, rows.long, rows.address):
        array[..., : len(frames)] = poison & 0x7F
    return columns.to_arrow(work.decode(batch, rows)).to_pydict()


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Frames, EngineError | None]]:
    """400 damaged captures: the frames that came out of each, and how it ended."""
    out: list[tuple[str, Frames, EngineError | None]] = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp(f"damaged{seed}")
        command = [sys.executable, CORPUS / "mutate.py", str(seed), folder, "--src", CORPUS / "captures"]
        subprocess.run(command, check=True, capture_output=True)
        batch = FrameBatch()
        out += [(p.name, *read_file(SavefileSource(str(p)), batch)) for p in sorted(folder.glob("mut-*"))]
    return out


def test_damaged__each_ends_in_rows_or_one_error(damaged: list[tuple[str, Frames, EngineError | None]]) -> None:
    assert len(damaged) == 400
    for name, _, error in damaged:
        if error is not None:
            assert isinstance(error, CorruptFile), name
            assert "\n" not in str(error), name
    assert sum(error is not None for _, _, error in damaged) > 50
    assert sum(bool(frames) for _, frames, _ in damaged) > 250


def test_damaged__nothing_outside_a_frame_is_read(damaged: list[tuple[str, Frames, EngineError | None]]) -> None:
    """The same rows whatever lies around the frames, and whatever earlier rows left in the batch."""
    for name, frames, _ in damaged:
        some = frames[:: max(1, len(frames) // 400)]
        assert rows_of(some, 0x00, 64) == rows_of(some, 0x45, 1) == rows_of(some, 0xFF, 8), name


def test_damaged__decoded_values_are_in_range(damaged: list[tuple[str, Frames, EngineError | None]]) -> None:
    work, rows, columns = decoder()
    for name, frames, _ in damaged:
        some = frames[:2000]
        batch = fill([f for _, f, _, _ in some], wirelens=[w for _, _, w, _ in some])
        arrow = columns.to_arrow(work.decode(batch, rows))
        arrow.validate(full=True)
        entropy = np.array([e for e in arrow.column("entropy").to_pylist() if e is not None])
        assert ((entropy >= 0) & (entropy <= 8)).all(), name
        assert min((p for p in arrow.column("payload_len").to_pylist() if p is not None), default=0) >= 0, name
