"""How many flows we count in a capture, beside independent meters where they are installed: argus, nfstream, nfpcapd.

    python -m benchmarks.meters CAPTURE.pcap [--nfstream-python PATH]

All get the same timeouts as far as they have them (idle 60 s, active 300 s). What they do differently on purpose: argus
tells RTP from UDP and reports a transaction in parts; nfpcapd meters each direction and is paired by nfdump; none of
them joins later fragments to their flow. `--nfstream-python` names an interpreter that can import nfstream.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from engine.capture.savefile import SavefileSource
from engine.capture.source import ReadResult
from engine.config import FlowsConfig
from engine.decode import Decoder
from engine.flows import FlowRows, FlowTable
from engine.packets import FrameBatch, PacketBatch

IDLE_S, ACTIVE_S = 60, 300
_NFSTREAM = f"""
import sys
from nfstream import NFStreamer
if __name__ == "__main__":
    flows = [f.bidirectional_packets for f in NFStreamer(
        source=sys.argv[1], idle_timeout={IDLE_S}, active_timeout={ACTIVE_S}, n_dissections=0, n_meters=1)]
    print(len(flows), sum(flows))
"""
Count = tuple[int, int]  # flows, packets in them


def ours(path: Path) -> Count:
    """Rows of the flow table: each part of a long flow is one, as the others report it."""
    rows: list[int] = []
    packets = 0

    def keep(ended: FlowRows) -> None:
        nonlocal packets
        batch = ended.to_arrow()
        rows.append(batch.num_rows)
        packets += sum(sum(batch.column(name).to_pylist()) for name in ("src_packets", "dst_packets"))
        ended.release()

    table = FlowTable(FlowsConfig(idle_s=IDLE_S, active_s=ACTIVE_S), keep)
    source, frames, batch, decoder = SavefileSource(str(path)), FrameBatch(), PacketBatch(), Decoder()
    source.open()
    result = None
    while result is not ReadResult.END:
        frames.clear()
        result = source.read(frames)
        frames.source = "file"
        table.follow(frames, decoder.decode(frames, batch))
    table.close()
    return sum(rows), packets


def argus(path: Path, folder: Path) -> Count:
    """IP transactions of argus, without its own records and ARP."""
    out = folder / "argus.out"
    subprocess.run(["argus", "-r", path, "-w", out, "-S", str(ACTIVE_S)], check=True, capture_output=True)
    words = ["ra", "-r", out, "-n", "-c", ",", "-s", "proto", "pkts"]
    lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
    rows = [line.split(",") for line in lines if line.count(",") == 1]
    rows = [row for row in rows if row[0] not in ("Proto", "man", "arp", "llc", "rarp") and row[1].isdigit()]
    return len(rows), sum(int(row[1]) for row in rows)


def nfpcapd(path: Path, folder: Path) -> Count:
    """Bidirectional flows that nfdump pairs from nfpcapd's records."""
    out = folder / "nf"
    out.mkdir()
    words = ["nfpcapd", "-r", path, "-w", out, "-e", f"{ACTIVE_S},{IDLE_S}"]
    subprocess.run(words, check=True, capture_output=True)
    text = subprocess.run(["nfdump", "-R", out, "-B", "-o", "json"], check=True, capture_output=True, text=True).stdout
    rows = json.loads(text)
    return len(rows), sum(row.get("in_packets", 0) + row.get("out_packets", 0) for row in rows)


def nfstream(path: Path, python: str) -> Count:
    done = subprocess.run([python, "-c", _NFSTREAM, path], check=True, capture_output=True, text=True)
    flows, packets = done.stdout.split()
    return int(flows), int(packets)


def main() -> None:
    parser = argparse.ArgumentParser(description="Flow counts of a capture beside other meters.")
    parser.add_argument("capture", type=Path)
    parser.add_argument("--nfstream-python", default=sys.executable, metavar="PATH", help="interpreter with nfstream")
    options = parser.parse_args()
    counts = {"packetlake": ours(options.capture)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if shutil.which("argus") and shutil.which("ra"):
            counts["argus"] = argus(options.capture, folder)
        if shutil.which("nfpcapd") and shutil.which("nfdump"):
            counts["nfpcapd"] = nfpcapd(options.capture, folder)
        probe = subprocess.run([options.nfstream_python, "-c", "import nfstream"], check=False, capture_output=True)
        if probe.returncode == 0:
            counts["nfstream"] = nfstream(options.capture, options.nfstream_python)
    for meter, (flows, packets) in counts.items():
        difference = 100 * (counts["packetlake"][0] / flows - 1)
        print(f"{meter:<12} {flows:>9,} flows {packets:>11,} packets   ours against it {difference:+.2f} %")


if __name__ == "__main__":
    main()
