"""CPU time from savefile to decoded batch with entropy, beside dpkt, pypcap's bare loop and entropy in C.

    python -m benchmarks.decode [--json FILE]

One thread; CPU time, median of the runs; kernels are compiled before the clock starts.
"""

from __future__ import annotations

import argparse
import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import dpkt
import numpy as np

from benchmarks.data import SIZES, write_pcap
from benchmarks.measure import cpu_ns, load, machine, write_json
from engine.capture.pypcap_driver import pcap_module
from engine.capture.savefile import SavefileSource
from engine.capture.source import ReadResult
from engine.decode import Decoder
from engine.kernels.entropy import entropies, log_tables
from engine.packets import FrameBatch, PacketBatch

FRAMES = {64: 400_000, 1514: 40_000}
TARGET_NS = {64: 150, 1514: 1800}


class Ours:
    """The engine's path: chunks into the arena, record walk, decode, entropy."""

    def __init__(self) -> None:
        self.frames, self.packets, self.decoder = FrameBatch(), PacketBatch(), Decoder()

    def __call__(self, path: Path, decode: bool = True) -> int:
        source, total = SavefileSource(str(path)), 0
        source.open()
        while True:
            self.frames.clear()
            result = source.read(self.frames)
            if decode:
                self.decoder.decode(self.frames, self.packets)
            total += self.frames.count
            if result is ReadResult.END:
                source.close()
                return total


def dpkt_parse(path: Path, limit: int, entropy: bool = False) -> int:
    """dpkt: read and parse to the transport layer; with `entropy` of the payload by numpy, the work that we do."""
    with path.open("rb") as file:
        for number, (_, frame) in enumerate(dpkt.pcap.Reader(file)):
            if number == limit:
                return limit
            try:
                packet = dpkt.ethernet.Ethernet(frame)
            except dpkt.UnpackError:
                continue
            if entropy and (payload := bytes(getattr(getattr(packet.data, "data", None), "data", b""))):
                numpy_entropy(payload)
    return limit


def numpy_entropy(payload: bytes) -> float:
    """Entropy the usual way in Python."""
    counts = np.bincount(np.frombuffer(payload, np.uint8), minlength=256)
    share = counts[counts > 0] / len(payload)
    return float(-(share * np.log2(share)).sum())


def pypcap_loop(path: Path, limit: int) -> int:
    """The pypcap API's bare loop: nothing is parsed."""
    number = 0
    for _ in pcap_module().pcap(str(path)):
        number += 1
        if number == limit:
            break
    return number


def c_entropy(folder: Path) -> Callable[..., None] | None:
    """The C loop, when a compiler is here."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "entropy.so"
    source = Path(__file__).with_name("entropy.c")
    subprocess.run([compiler, "-O3", "-march=native", "-shared", "-fPIC", "-o", library, source, "-lm"], check=True)
    function = ctypes.CDLL(str(library)).entropies
    function.restype = None

    def call(*arrays: np.ndarray) -> None:
        buf, start, end, clog, out = arrays
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in (buf, start, end)]
        function(
            *pointers, ctypes.c_int64(len(start)), ctypes.c_void_p(clog.ctypes.data), ctypes.c_void_p(out.ctypes.data)
        )

    return call


def measure_entropy(size: int, folder: Path) -> dict[str, float]:
    """Entropy alone, per payload: our kernel and the C loop over the same bytes."""
    payload, n = size - 42, 5000
    buf = np.random.default_rng(1).integers(0, 256, payload * n, dtype=np.uint8)
    start = np.arange(n, dtype=np.int64) * payload
    end = start + payload
    out, reference = np.empty(n, np.float32), np.empty(n, np.float32)
    logs, histogram = log_tables(), np.zeros(1024, np.uint32)

    def ours() -> int:
        entropies(buf, start, end, logs, histogram, out)
        return n

    result = {"entropy_ns": cpu_ns(ours)}
    c_loop = c_entropy(folder)
    if c_loop is not None:
        clog = np.ascontiguousarray(logs[0])

        def in_c() -> int:
            c_loop(buf, start, end, clog, reference)
            return n

        result["entropy_c_ns"] = cpu_ns(in_c)
        if not np.allclose(out, reference, atol=1e-6):
            raise SystemExit("the kernel's entropy differs from C's")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Savefile to decoded batch, CPU time per frame.")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    ours, figures = Ours(), {"machine": machine(), "load": load()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in SIZES:
            path = write_pcap(folder / f"{size}.pcap", size, FRAMES[size])
            row = {
                "engine_ns": cpu_ns(partial(ours, path)),
                "engine_read_ns": cpu_ns(partial(ours, path, decode=False)),
                "dpkt_ns": cpu_ns(partial(dpkt_parse, path, 3000), 3),
                "dpkt_entropy_ns": cpu_ns(partial(dpkt_parse, path, 3000, entropy=True), 3),
                "pypcap_loop_ns": cpu_ns(partial(pypcap_loop, path, 3000), 3),
                **measure_entropy(size, folder),
            }
            figures[str(size)] = row
            report(size, row)
    if options.json:
        write_json(options.json, figures)


def report(size: int, row: dict[str, float]) -> None:
    print(f"{size}-byte frames, CPU ns a frame (load {load():.1f})")
    print(f"  engine, savefile to decoded batch with entropy  {row['engine_ns']:8.0f}   (goal {TARGET_NS[size]})")
    print(f"    of which reading and walking the records      {row['engine_read_ns']:8.0f}")
    for name, key in (("dpkt, read and parse", "dpkt_ns"), ("the same with entropy by numpy", "dpkt_entropy_ns")):
        print(f"  {name:<47} {row[key]:8.0f}   {row[key] / row['engine_ns']:.0f} times ours")
    print(f"  pypcap API, bare loop                           {row['pypcap_loop_ns']:8.0f}")
    print(f"  entropy alone, our kernel                       {row['entropy_ns']:8.0f}")
    if "entropy_c_ns" in row:
        print(f"  entropy alone, C loop                           {row['entropy_c_ns']:8.0f}")


if __name__ == "__main__":
    main()
