"""`python -m tests.fuzz`: run targets, each in a process of its own, and say what was found."""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.commands import ROOT
from tests.fuzz.coverage import Coverage
from tests.fuzz.mutate import one

CHAIN = "chain"
PLAIN = {"decode"}  # kernels whose own lines guide: without the compiler
OFFLINE = {"bpf"}  # libpcap asks for the addresses of names: in a network namespace with nobody in it
HANG_S, COMPILE_S, GROWTH_MIB = 120, 900, 1500


def _resident_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def leave_network() -> bool:
    """Move this process into a network namespace of its own, where nobody answers."""
    new_user, new_net = 0x10000000, 0x40000000  # linux/sched.h
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.unshare(new_net) == 0 or libc.unshare(new_user | new_net) == 0


def alarm(cpu_s: float) -> None:
    """End this process, with a traceback, after so much CPU time: it hangs. 0: no more."""
    faulthandler.register(signal.SIGPROF, chain=True)
    signal.setitimer(signal.ITIMER_PROF, cpu_s)


class Report:
    """Lines for the log, and findings as files."""

    def __init__(self, name: str, findings: Path) -> None:
        self.name, self.findings, self.count = name, findings, 0
        self._began = self._told = time.monotonic()
        self._seen: set[str] = set()

    def tick(self, executions: int, known: int, every_s: float = 60.0) -> None:
        now = time.monotonic()
        if now - self._told >= every_s:
            self._told = now
            self.line(executions, known)

    def line(self, executions: int, known: int) -> None:
        seconds = time.monotonic() - self._began
        print(
            f"{time.strftime('%H:%M:%S')} {self.name:<9} {executions:>13,} executions {known:>7,} known "
            f"{seconds:7.0f} s {time.process_time():7.0f} CPU s {_resident_mib():6.0f} MiB {self.count} findings",
            flush=True,
        )

    def finding(self, error: BaseException) -> Path | None:
        """Where the input belongs, or None for a finding of a place that has one."""
        where = traceback.extract_tb(error.__traceback__)[-1]
        key = f"{type(error).__name__} {where.filename}:{where.lineno}"
        if key in self._seen or self.count >= 50:
            return None
        self._seen.add(key)
        self.count += 1
        self.findings.mkdir(parents=True, exist_ok=True)
        path = self.findings / f"{self.name}-{hashlib.sha256(key.encode()).hexdigest()[:10]}"
        path.with_suffix(".txt").write_text("".join(traceback.format_exception(error)))
        print(f"FOUND {self.name}: {key}: {str(error)[:200]} -> {path}", flush=True)
        return path


def run_batches(report: Report, seconds: float, seed: int, corpus: Path | None) -> int:
    """The chain. Returns findings."""
    from tests.fuzz.chain import Batches

    batches, until, start = Batches(seed, corpus), time.monotonic() + seconds, 0.0
    while time.monotonic() < until:
        alarm(HANG_S if batches.executions > 1_000_000 else COMPILE_S)
        try:
            batches.step()
        except Exception as error:  # noqa: BLE001 — whatever it is
            path = report.finding(error)
            batches.keep(path.with_suffix(".npz") if path else Path(os.devnull))
        start = start or (_resident_mib() if batches.executions > 3_000_000 else 0.0)
        if start and _resident_mib() > start + GROWTH_MIB:
            report.finding(MemoryError(f"{start:.0f} MiB became {_resident_mib():.0f}"))
            break
        report.tick(batches.executions, batches.known)
    alarm(0)
    batches.close()
    report.line(batches.executions, batches.known)
    return report.count


def run_inputs(report: Report, name: str, seconds: float, seed: int, corpus: Path | None, most: int) -> int:
    """One of the targets that take one input at a time. Returns findings."""
    from tests.fuzz.inputs import TARGETS, one_line

    target, rng = TARGETS[name](corpus), random.Random(seed)
    coverage = Coverage(*target.below)
    pool = list(target.seeds)
    until, executions, start = time.monotonic() + seconds, 0, 0.0
    while time.monotonic() < until and executions < most:
        fresh = executions < len(pool) and executions < len(target.seeds)
        base = pool[executions] if fresh else rng.choice(pool)
        data = base if fresh else one(base, pool, rng, target.words)
        executions += 1
        alarm(HANG_S if executions > 100 else COMPILE_S)
        began = time.process_time()
        try:
            coverage.run(lambda data=data: target.run(data))  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001 — whatever it is
            if isinstance(error, target.allowed):
                try:
                    one_line(error)
                except AssertionError as wrong:
                    error = wrong
            if not isinstance(error, target.allowed):
                path = report.finding(error)
                if path:
                    path.with_suffix(".bin").write_bytes(data)
        # Tracing costs about thirty times what it watches.
        if time.process_time() - began > 6 * target.most_s:
            path = report.finding(TimeoutError(f"{time.process_time() - began:.0f} s for {len(data)} bytes"))
            if path:
                path.with_suffix(".bin").write_bytes(data)
        if coverage.fresh():
            pool.append(data)
        if executions == 300:
            start = _resident_mib()
        if start and _resident_mib() > start + GROWTH_MIB:
            report.finding(MemoryError(f"{start:.0f} MiB became {_resident_mib():.0f}"))
            break
        report.tick(executions, coverage.size)
    alarm(0)
    report.line(executions, coverage.size)
    target.close()
    return report.count


def main() -> int:
    from tests.fuzz.inputs import TARGETS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz what reads others' bytes.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{CHAIN}, {', '.join(TARGETS)} (all in turn)")
    parser.add_argument("--seconds", type=float, default=60, help="for each target (60)")
    parser.add_argument("--most", type=int, default=1 << 62, help="inputs of a target at most")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--corpus", type=Path, help="directory of savefiles to start from")
    parser.add_argument("--findings", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.targets or [CHAIN, *TARGETS]
    for name in names:
        if name != CHAIN and name not in TARGETS:
            parser.error(f"unknown target {name}; choose from {CHAIN}, {', '.join(TARGETS)}")
    if options.inside:
        [name] = names
        if name in OFFLINE and not leave_network():
            print(f"{name}: no network namespace can be made here; left out", flush=True)
            return 0
        report = Report(name, options.findings)
        if name == CHAIN:
            return int(run_batches(report, options.seconds, options.seed, options.corpus) > 0)
        return int(run_inputs(report, name, options.seconds, options.seed, options.corpus, options.most) > 0)
    print(f"seed {options.seed}", flush=True)
    bad = 0
    for name in names:
        switch = "NUMBA_DISABLE_JIT" if name in PLAIN else "NUMBA_BOUNDSCHECK"
        cache = Path(tempfile.gettempdir()) / f"packetlake-fuzz-{os.getuid()}-{switch}"  # the usual one ignores it
        environment = {**os.environ, switch: "1", "NUMBA_CACHE_DIR": str(cache)}
        words = [
            sys.executable, "-W", "ignore", "-m", "tests.fuzz", "--inside", name, "--seconds", str(options.seconds),
            "--seed", str(options.seed), "--most", str(options.most), "--findings", str(options.findings),
        ]  # fmt: skip
        words += ["--corpus", str(options.corpus)] if options.corpus else []
        code = subprocess.run(words, cwd=ROOT, env=environment, check=False).returncode
        bad += code != 0
        if code not in (0, 1):
            print(f"FOUND {name}: ended with code {code}", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
