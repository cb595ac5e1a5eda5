"""What every benchmark here uses: CPU clocks, figures with their spread, costs of commands, the machine."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOWER, HIGHER, NEUTRAL = "lower", "higher", ""  # which direction of a figure is better
Figure = dict[str, Any]
_TICK_S = 0.01


def figure(values: Iterable[float], unit: str, better: str = NEUTRAL) -> Figure:
    """The values of several runs as one figure: median, smallest, largest."""
    taken = sorted(values)
    return {
        "unit": unit,
        "better": better,
        "median": statistics.median(taken),
        "min": taken[0],
        "max": taken[-1],
        "runs": len(taken),
    }


def is_figure(value: object) -> bool:
    """True for what `figure` made, also when it was read from a file."""
    return isinstance(value, dict) and {"unit", "better", "median", "min", "max", "runs"} <= value.keys()


def cpu_costs(work: Callable[[], int], runs: int = 5) -> list[float]:
    """CPU nanoseconds per item, of each run after a first one that does not count; `work` returns its items."""
    work()
    costs = []
    for _ in range(runs):
        started = time.process_time_ns()
        items = work()
        costs.append((time.process_time_ns() - started) / items)
    return costs


def cpu_ns(work: Callable[[], int], runs: int = 5) -> float:
    """The median of `cpu_costs`."""
    return statistics.median(cpu_costs(work, runs))


# --- commands --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ended:
    """What a process took. `helpers_cpu_s` is the part of `cpu_s` of processes that it started and waited for."""

    code: int
    cpu_s: float
    helpers_cpu_s: float
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Cost(Ended):
    """The same of a command, with its time and what it said."""

    wall_s: float
    out: str
    err: str


def run(words: Sequence[str | Path], timeout_s: float = 600, **options: Any) -> Cost:
    """Run a command to its end, or kill it after `timeout_s` (then `code` is negative)."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.monotonic()
        process = subprocess.Popen(words, stdout=out, stderr=err, stdin=subprocess.DEVNULL, **options)
        ended = wait(process, began + timeout_s)
        wall_s = time.monotonic() - began
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Cost(ended.code, ended.cpu_s, ended.helpers_cpu_s, ended.rss_bytes, wall_s, *texts)


def wait(process: subprocess.Popen[Any], deadline: float) -> Ended:
    """Wait for a child until the clock `time.monotonic` shows `deadline`, then kill it.

    The peak of its memory is watched from outside: the kernel's own figure for a child begins with its parent's size.
    """
    peak = 0
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        peak = max(peak, resident_peak(process.pid))
        if time.monotonic() > deadline:
            process.kill()
        time.sleep(_TICK_S)
    helpers_cpu_s = _stat_s(process.pid, 13, 14)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    cpu_s = usage.ru_utime + usage.ru_stime
    return Ended(process.returncode, cpu_s, helpers_cpu_s, peak or usage.ru_maxrss * 1024)


def resident_peak(pid: int) -> int:
    """Most bytes that a process has had resident; 0 when it cannot be told."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def process_cpu_s(pid: int) -> float:
    """User and system seconds of a living process, all threads, without processes that it started."""
    return _stat_s(pid, 11, 12)


def _stat_s(pid: int, *fields: int) -> float:
    """Fields of /proc/PID/stat that are clock ticks, counted from the one after the name, in seconds."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(words[field]) for field in fields) / os.sysconf("SC_CLK_TCK")


def tree_bytes(folder: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# --- where it was measured -------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """The processor, the kernel, the memory."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model,
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": memory >> 20,
        "kernel": platform.release(),
    }


def versions() -> dict[str, str]:
    """Of everything that the figures depend on."""
    from engine.capture.libpcap import library

    found = {"python": platform.python_version()}
    for name in ("numpy", "numba", "pyarrow", "duckdb", "dpkt", "packetlake"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    with contextlib.suppress(AttributeError):
        import ctypes

        version = library().pcap_lib_version
        version.restype = ctypes.c_char_p
        found["libpcap"] = version().decode().removeprefix("libpcap version ")
    return found


def commit() -> dict[str, Any]:
    """The git commit of the tree that runs, and whether it was changed since; None for an installed package."""
    try:
        words = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
        head = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
        words = ["git", "-C", str(ROOT), "status", "--porcelain", "engine", "benchmarks"]
        changed = bool(subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip())
    except (OSError, subprocess.CalledProcessError):
        return {"id": None, "changed": None}
    return {"id": head, "changed": changed}


def load() -> float:
    """The machine's load average over the last minute."""
    return os.getloadavg()[0]


def write_json(path: Path, document: object) -> None:
    """As indented JSON, complete or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(document, indent=1) + "\n")
    partial.replace(path)
