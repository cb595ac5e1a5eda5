"""The whole engine live: `engine run` at one end of a private veth pair, the fast sender at the other.

Sender and engine share the machine, and a veth pair lets the sender's core do the kernel's receiving work. A rate
counts as held when less than 0.1 % of the frames that arrived are missing from the lake and the engine has caught up
with them within half a second of the last one: buffers alone cannot hold a rate.

    python -m benchmarks.online FILE [--pps N ...] [--seconds N] [--frames full|off]    as root

sends the file's frames at each rate (0: flat out) and says what became of all of them. With --nfstream PYTHON, an
interpreter that has nfstream gets the same: how many of the packets its flows hold.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import HIGHER, LOWER, Figure, figure, process_cpu_s, run, tree_bytes, wait
from benchmarks.offline import ENGINE
from benchmarks.wire import Wire, usable, wire
from engine.errors import CaptureError
from engine.metrics import TOTAL_FIELDS

# Flows end after a second, so that soon after the last packet all are counted.
_NFSTREAM = """
import sys
from nfstream import NFStreamer
if __name__ == "__main__":
    short = {"idle_timeout": 1, "active_timeout": 1}
    flows = NFStreamer(source=sys.argv[1], n_meters=1, statistical_analysis=True, **short)
    print("listening on", file=sys.stderr, flush=True)
    packets = 0
    for flow in flows:
        packets += flow.bidirectional_packets
        print(packets, flush=True)
"""
ALLOWED_LOSS = 0.001
ALLOWED_LAG_S = 0.5
_LOWEST_PPS = 5_000
_IDLE_SHARE = 0.5  # of one core: below it, the engine is not catching up any more
_WINDOW_S = 0.1


@dataclass(slots=True)
class Step:
    """What became of the frames of one sending. `offered_pps` is 0 for flat out; `lag_s` is how long it caught up."""

    offered_pps: float
    sent: int
    seconds: float
    bytes: int
    arrived: int
    lag_s: float
    cpu_s: float
    rss_bytes: int
    disk_bytes: int
    sender_cpu_s: float
    counts: dict[str, int]  # of `capture_stats`

    @property
    def rows(self) -> int:
        return self.counts["rows"]

    @property
    def pps(self) -> float:
        return self.sent / self.seconds

    @property
    def loss(self) -> float:
        return max(0.0, 1 - self.rows / self.arrived) if self.arrived else 1.0

    @property
    def unaccounted(self) -> int:
        """Frames that arrived and are neither rows nor drops of a cause: 0, or the books do not balance."""
        counts = self.counts
        drops = sum(counts[name] for name in counts if name.startswith("drop_") or name == "kernel_drops")
        return self.arrived - self.rows - drops

    @property
    def held(self) -> bool:
        return self.loss < ALLOWED_LOSS and self.lag_s <= ALLOWED_LAG_S


def _inside(namespace: str, *words: str | Path) -> list[str]:
    return ["ip", "netns", "exec", namespace, *map(str, words)]


def _arrived(wire: Wire) -> int:
    """Frames that the capturing end has received."""
    done = run(["ip", "-n", wire.here, "-s", "-j", "link", "show", wire.capture], 10)
    return int(json.loads(done.out)[0]["stats64"]["rx"]["packets"])


def _send(wire: Wire, capture: Path, pps: float, seconds: float) -> dict[str, Any]:
    words = _inside(
        wire.there, sys.executable, "-m", "benchmarks.sender", "--iface", wire.send, "--file", capture, "--json",
        "--pps", str(pps), "--seconds", str(seconds),
    )  # fmt: skip
    done = run(words, seconds + 60)
    if done.code:
        raise CaptureError(f"benchmark: the sender ended with code {done.code}: {done.err.strip()[-300:]}")
    return dict(json.loads(done.out))


@contextmanager
def _started(words: list[str], log: Path, sign: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command that has said `sign` on standard error; killed at the end if it still runs."""
    with log.open("wb") as file:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + 120  # a first start compiles
        while sign not in log.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise CaptureError(f"benchmark: {words[4]} did not start: {log.read_text(errors='replace')[-300:]}")
            time.sleep(0.02)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()


def _catch_up(pid: int) -> float:
    """Seconds until the process needs less than half a core; at most 10."""
    began = time.monotonic()
    before, at = process_cpu_s(pid), began
    while at - began < 10:
        time.sleep(_WINDOW_S)
        now, cpu_s = time.monotonic(), process_cpu_s(pid)
        if cpu_s - before < _IDLE_SHARE * (now - at):
            return at - began
        before, at = cpu_s, now
    return at - began


def engine_step(wire: Wire, capture: Path, pps: float, seconds: float, frames: str = "off") -> Step:
    """Run the engine, send for some seconds, stop it, and account for every frame."""
    with tempfile.TemporaryDirectory(prefix="packetlake-bench-") as name:
        Path(name).chmod(0o755)
        lake = Path(name) / "lake"
        words = [*ENGINE, "run", "--iface", wire.capture, "--lake", str(lake), "--no-dashboard", "--frames", frames]
        with _started(_inside(wire.here, *words), Path(name) / "log", "Ctrl-C stops") as process:
            arrived, cpu_s = _arrived(wire), process_cpu_s(process.pid)
            sent = _send(wire, capture, pps, seconds)
            lag_s = _catch_up(process.pid)
            process.send_signal(signal.SIGINT)
            ended = wait(process, time.monotonic() + 30)
            arrived = _arrived(wire) - arrived
            if ended.code:
                raise CaptureError(f"benchmark: engine run ended with code {ended.code}")
        own_cpu_s = ended.cpu_s - ended.helpers_cpu_s - cpu_s
        return Step(
            pps, sent["frames"], sent["seconds"], sent["bytes"], arrived, lag_s, own_cpu_s, ended.rss_bytes,
            tree_bytes(lake), sent["cpu_s"], _counts(lake),
        )  # fmt: skip


def _counts(lake: Path) -> dict[str, int]:
    """What the engine says became of the frames: every counter of `capture_stats`."""
    import analytics

    sums = ", ".join(f"coalesce(sum({name}), 0)::BIGINT" for name in TOTAL_FIELDS)
    con = analytics.connect(lake)
    row = con.sql(f"SELECT {sums} FROM capture_stats").fetchall()[0]
    con.close()
    return dict(zip(TOTAL_FIELDS, row, strict=True))


def search(wire: Wire, capture: Path, seconds: float, steps: int, frames: str = "off") -> dict[str, Any]:
    """The highest rate that is held, between flat out and the lowest, in a bounded number of sendings."""
    tried = [engine_step(wire, capture, 0, seconds, frames)]
    low, high = float(_LOWEST_PPS), tried[0].pps
    best = tried[0] if tried[0].held else None
    while best is not tried[0] and len(tried) < steps and high / low > 1.03:
        # Half of what was too much at first; then the middle.
        pps = _guess(tried[0]) if len(tried) == 1 else (low * high) ** 0.5 if best else max(low, high / 2)
        step = engine_step(wire, capture, pps, seconds, frames)
        tried.append(step)
        if not step.held:
            high = pps
        elif step.pps > low:  # less than was asked for when the machine had no time for the sender: asked for again
            best, low = step, step.pps
    return _report(tried, best)


def _guess(flat_out: Step) -> float:
    """What the engine wrote per second while it was offered too much, but no less than a third of that."""
    return max(_LOWEST_PPS, flat_out.pps / 3, 0.9 * flat_out.rows / (flat_out.seconds + flat_out.lag_s))


def _report(tried: list[Step], best: Step | None) -> dict[str, Any]:
    """The highest rate held and what it took; the sending flat out; every step."""
    flat = tried[0]
    at_rate = best or min(tried, key=lambda step: step.loss)
    return {
        "held_pps": figure([best.pps if best else 0.0], "packets/s", HIGHER),
        "held_is_all_the_sender_gives": best is flat,
        "held_gbit_per_s": figure([best.bytes * 8 / best.seconds / 1e9 if best else 0.0], "Gbit/s", HIGHER),
        "cpu_ns_per_packet": figure([at_rate.cpu_s / max(1, at_rate.rows) * 1e9], "CPU ns/packet", LOWER),
        "packets_per_cpu_s": figure([at_rate.rows / max(1e-9, at_rate.cpu_s)], "packets/CPU s", HIGHER),
        "rss_mib": figure([step.rss_bytes / 2**20 for step in tried], "MiB", LOWER),
        "disk_bytes_per_packet": figure([at_rate.disk_bytes / max(1, at_rate.rows)], "bytes/packet", LOWER),
        "lag_s": figure([at_rate.lag_s], "s", LOWER),
        "flat_out_pps": figure([flat.pps], "packets/s"),
        "flat_out_loss": figure([flat.loss], "share of the frames", LOWER),
        "flat_out_rows_per_s": figure([flat.rows / (flat.seconds + flat.lag_s)], "rows/s", HIGHER),
        "steps": [asdict(step) | {"pps": step.pps, "loss": step.loss, "held": step.held} for step in tried],
    }


def reference(wire: Wire, capture: Path, pps: float, seconds: float) -> dict[str, Figure]:
    """`tcpdump -w /dev/null` with our size of ring, offered the same: what the kernel and a plain copy take."""
    with tempfile.TemporaryDirectory(prefix="packetlake-bench-") as name:
        log = Path(name) / "log"
        words = _inside(wire.here, "tcpdump", "-i", wire.capture, "-B", "65536", "-w", "/dev/null")
        with _started(words, log, "listening on") as process:
            arrived, cpu_s = _arrived(wire), process_cpu_s(process.pid)
            sent = _send(wire, capture, pps, seconds)
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            ended = wait(process, time.monotonic() + 10)
            arrived = _arrived(wire) - arrived
        captured = int((re.findall(r"(\d+) packets? captured", log.read_text()) or ["0"])[0])
    return {
        "pps": figure([sent["frames"] / sent["seconds"]], "packets/s"),
        "loss": figure([max(0.0, 1 - captured / max(1, arrived))], "share of the frames", LOWER),
        "cpu_ns_per_packet": figure([(ended.cpu_s - cpu_s) / max(1, captured) * 1e9], "CPU ns/packet", LOWER),
    }


def nfstream(wire: Wire, capture: Path, pps: float, seconds: float, python: str) -> tuple[float, float]:
    """Packets a second that were sent, and the share of them that is in no flow of nfstream's."""
    with tempfile.TemporaryDirectory(prefix="packetlake-bench-") as name:
        log = Path(name) / "log"
        words = _inside(wire.here, python, "-c", _NFSTREAM, wire.capture)
        with _started(words, log, "listening on") as process:
            time.sleep(3)  # its meters start
            arrived = _arrived(wire)
            sent = _send(wire, capture, pps, seconds)
            arrived = _arrived(wire) - arrived
            last, deadline = "", time.monotonic() + 60
            while time.monotonic() < deadline:  # until it counts no more: a flow ends when later packets come
                _send(wire, capture, 100, 1)
                arrived += 100
                now = log.read_text(errors="replace").strip().rpartition("\n")[2]
                if now == last:
                    break
                last = now
            process.terminate()
        counted = int(last) if last.isdecimal() else 0
    return sent["frames"] / sent["seconds"], max(0.0, 1 - counted / max(1, arrived))


def accounts(step: Step) -> str:
    """What became of the frames of a sending, in one line."""
    c, n = step.counts, max(1, step.arrived)
    shares = {
        "rows": c["rows"], "rows given up": c["drop_rows_shed"], "kernel drops": c["kernel_drops"],
        "other drops": c["drop_not_written"] + c["drop_unread_at_stop"], "frames not stored": c["frames_not_stored"],
        "not scored": c["scores_shed"],
    }  # fmt: skip
    parts = ", ".join(f"{name} {count / n:.1%}" for name, count in shares.items())
    missed = c["messages_missed"] / max(1, c["messages"] + c["messages_missed"])
    return (
        f"{step.pps:,.0f} packets/s for {step.seconds:.1f} s, {step.sent:,} sent, {step.arrived:,} arrived: {parts}; "
        f"messages missed {missed:.1%}; unaccounted {step.unaccounted}; caught up in {step.lag_s:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="What the engine makes of frames sent at given rates.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--pps", type=float, nargs="+", default=[0.0], help="rates; 0: flat out (0)")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--frames", choices=("full", "off"), default="off", help="raw frames (off)")
    parser.add_argument("--nfstream", metavar="PYTHON", help="an interpreter that has nfstream, to be offered the same")
    options = parser.parse_args()
    reason = usable()
    if reason:
        raise SystemExit(f"benchmarks.online: {reason}")
    with wire() as pair:
        for pps in options.pps:
            print(accounts(engine_step(pair, options.file, pps, options.seconds, options.frames)), flush=True)
            if options.nfstream:
                rate, loss = nfstream(pair, options.file, pps, options.seconds, options.nfstream)
                print(f"nfstream: {rate:,.0f} packets/s, {loss:.1%} in no flow", flush=True)


if __name__ == "__main__":
    main()
