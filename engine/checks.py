"""`engine doctor`: what of this machine keeps a capture from being complete, and the command that mends it."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import platform
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engine import __version__, sandbox
from engine.capture import ethtool, interfaces, privileges
from engine.sensor_lock import engines

if TYPE_CHECKING:
    from engine.config import EngineConfig

OK, ADVICE, PROBLEM = "ok", "advice", "problem"
_NET: Final = Path("/sys/class/net")
_TIME_ERROR, _STA_UNSYNC = 5, 0x40  # linux/timex.h: the clock is not synchronised
_BUILT_IN: Final = 2026  # no clock is right that says less
_MEMORY: Final = 2 << 30  # flows, batches, the dashboard: an engine under load takes 1.4 GiB


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at and found; `remedy` is a command, or empty when nothing is wrong."""

    what: str
    level: str
    found: str
    remedy: str = ""


def machine(config: EngineConfig, lake: Path) -> Iterator[Check]:
    """Everything that needs no database."""
    packages = " ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "pyarrow", "duckdb"))
    yield Check("version", OK, f"packetlake {__version__}, Python {platform.python_version()}, {packages}")
    if privileges.can_capture():
        yield Check("right to capture", OK, "yes")
    else:
        yield Check("right to capture", PROBLEM, "no: this account may open no packet socket", "sudo engine doctor")
    for name in config.capture.interfaces or _default():
        yield from _interface(name)
    yield from _processor()
    yield _memory()
    yield _clock()
    yield _kernels()
    yield _confinement()
    yield _expressions()
    if config.web.enabled:
        yield _port(config.web.host, config.web.port, lake)


def _default() -> tuple[str, ...]:
    from engine.errors import CaptureError

    try:
        return (interfaces.default_interface(),)
    except CaptureError:
        return ()


# --- interfaces ----------------------------------------------------------------------------------------------------


def _interface(name: str) -> Iterator[Check]:
    what = f"interface {name}"
    if name == "any":
        yield Check(what, OK, "all interfaces")
        return
    known = [known for _, known in socket.if_nameindex()]
    if name not in known:
        yield Check(what, PROBLEM, f"does not exist; there are {', '.join(known)}", "engine interfaces")
        return
    flags = int(_text(_NET / name / "flags") or "0", 16)
    if not flags & 1:
        yield Check(what, PROBLEM, "is down", f"ip link set {name} up")
        return
    speed = _text(_NET / name / "speed")
    yield Check(what, OK, f"up{f', {speed} Mbit/s' if speed.isdecimal() else ''}")
    on = ethtool.offloads(name)
    if on and not flags & 8:  # on loopback nothing is ever cut into frames
        words = " ".join(f"{word} off" for word in on)
        yield Check(
            f"{what}: offloads", ADVICE, f"{', '.join(on)} on: frames are put together before they are captured",
            f"ethtool -K {name} {words}",
        )  # fmt: skip
    ring = ethtool.receive_ring(name)
    if ring is not None and ring[0] < ring[1]:
        found = f"{ring[0]:,} of {ring[1]:,} entries"
        yield Check(f"{what}: ring of the card", ADVICE, found, f"ethtool -G {name} rx {ring[1]}")
    lost = {c: int(_text(_NET / name / "statistics" / c) or 0) for c in ("rx_missed_errors", "rx_fifo_errors")}
    for counter, frames in lost.items():
        if frames:
            yield Check(
                f"{what}: {counter}", ADVICE, f"{frames:,} frames lost before capture since it is up",
                f"ethtool -S {name}",
            )  # fmt: skip


# --- the machine ---------------------------------------------------------------------------------------------------


def _processor() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0))
    found = f"{cores} cores, load {os.getloadavg()[0]:.1f}"
    if cores > 1:
        yield Check("processor", OK, found)
    else:
        yield Check(
            "processor", ADVICE, f"{found}: capturing has none for itself", "engine run --frames off --no-packets"
        )
    if _text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")) == "powersave":
        yield Check("frequency", ADVICE, "governor powersave", "cpupower frequency-set -g performance")


def _memory() -> Check:
    lines = _text(Path("/proc/meminfo")).splitlines()
    free = next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable")), 0)
    found = f"{free / (1 << 30):.1f} GiB available"
    if free < _MEMORY:
        return Check("memory", ADVICE, f"{found}, {_MEMORY >> 30} are wanted", "engine run --max-flows 100000")
    return Check("memory", OK, found)


def _clock() -> Check:
    if time.gmtime().tm_year < _BUILT_IN:
        now = time.strftime("%Y-%m-%d", time.gmtime())
        return Check("clock", PROBLEM, f"says {now}", "timedatectl set-ntp true")
    state = ctypes.create_string_buffer(256)  # struct timex: `modes` 0 only reads; `status` follows five longs
    known = ctypes.CDLL(None).adjtimex(state)
    status = ctypes.c_int.from_buffer(state, 5 * ctypes.sizeof(ctypes.c_long)).value
    if known == _TIME_ERROR or status & _STA_UNSYNC:
        return Check("clock", ADVICE, "is not synchronised", "timedatectl set-ntp true")
    return Check("clock", OK, "synchronised")


def _kernels() -> Check:
    from engine import jit

    if not jit.is_compiled():
        return Check("kernels", PROBLEM, "NUMBA_DISABLE_JIT is set: no live capture", "unset NUMBA_DISABLE_JIT")
    if jit.CACHE_DIR is None:
        return Check(
            "kernels", ADVICE, "nowhere to keep them: compiled at each start, about a minute",
            "export XDG_CACHE_HOME=DIR  # of this account, closed to others",
        )  # fmt: skip
    if not jit.cache_is_warm():
        return Check("kernels", ADVICE, "not compiled yet: the first start takes about a minute", "engine selftest")
    return Check("kernels", OK, f"compiled, in {jit.CACHE_DIR}")


def _confinement() -> Check:
    abi = sandbox.landlock_abi()
    calls = "Seccomp" in sandbox.state()
    if abi and calls:
        return Check("sandbox", OK, f"Landlock ABI {abi}, seccomp")
    missing = " and ".join(name for name, there in (("Landlock", abi), ("seccomp", calls)) if not there)
    return Check("sandbox", ADVICE, f"no {missing}", "cat /sys/kernel/security/lsm  # add lsm=landlock at boot")


def _expressions() -> Check:
    for name in ("hyperscan", "re2"):
        if importlib.util.find_spec(name) is not None:
            return Check("signatures", OK, f"matched by {name}")
    return Check("signatures", PROBLEM, "neither hyperscan nor re2", "pip install hyperscan google-re2")


def _port(host: str, port: int, lake: Path) -> Check:
    what, family = f"port {port}", socket.AF_INET6 if ":" in host else socket.AF_INET
    if port == 0:
        return Check(what, OK, "any free one")
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError as error:
            if any(engine.running for engine in engines(lake)):
                return Check(what, OK, "in use while an engine runs on this lake")
            reason = os.strerror(error.errno or 0).lower()
            return Check(what, PROBLEM, f"{host}: {reason}", f"engine run --port {port + 1}")
    return Check(what, OK, "free")


def disk_speed(folder: Path) -> float | None:
    """MB/s of 32 MiB written and synced there; None where nothing can be written."""
    path, block = folder / f".probe-{os.getpid()}", os.urandom(1 << 20)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            began = time.monotonic()
            for _ in range(32):
                os.write(fd, block)
            os.fsync(fd)
            return 32 * 1.048576 / max(time.monotonic() - began, 1e-6)
        finally:
            os.close(fd)
    except OSError:
        return None
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def show(checks: Sequence[Check], as_json: bool) -> int:
    """Print them. Returns 1 when something wants attention."""
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=2))  # noqa: T201
    else:
        room = max(len(check.what) for check in checks)
        wide = max(60, shutil.get_terminal_size((120, 24)).columns)
        for check in checks:
            line = f"{check.level:<8} {check.what:<{room}}  {check.found}"
            print(line if len(line) <= wide or check.remedy else line[:wide])  # noqa: T201
            if check.remedy:
                print(f"{'':<8} {'':<{room}}  -> {check.remedy}")  # noqa: T201
    return int(any(check.level != OK for check in checks))


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
