"""One capturing engine for each sensor of a lake, and where the others learn of it.

    <lake>/.engines/sensor=<name>       locked while the engine runs; JSON: pid, since, sources, what is wrong, counters

The lock goes with the process, whatever ends it. Replays take none: their files have names of their own.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine.errors import StoreError
from engine.metrics import TOTAL_FIELDS, SourceTotals
from engine.segment_file import store_error

FOLDER: Final = ".engines"
_PREFIX: Final = "sensor="
_PATIENCE_S: Final = 0.5  # somebody may just be looking


class SensorLock:
    """Taken where it is made. Raises StoreError, one line, when another engine has it."""

    def __init__(self, lake: Path, sensor: str, sources: Sequence[str]) -> None:
        self._path = lake / FOLDER / f"{_PREFIX}{sensor}"
        self._state: dict[str, Any] = {"pid": os.getpid(), "since": time.time(), "sources": list(sources), "wrong": []}
        self._fd = self._take()
        self._write()

    def _take(self) -> int:
        """Make and lock the file. Returns its descriptor."""
        try:
            self._path.parent.mkdir(exist_ok=True)
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise store_error(self._path, error) from None
        deadline = time.monotonic() + _PATIENCE_S
        while not _locked(fd, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                pid, sensor = _state(fd).get("pid", "unknown"), self._path.name.removeprefix(_PREFIX)
                os.close(fd)
                lake = self._path.parents[1]
                raise StoreError(
                    f"lake {lake}: process {pid} captures as sensor {sensor} already; stop it, or give --sensor NAME"
                )
            time.sleep(0.02)
        return fd

    def is_there(self) -> bool:
        """False when the file, most likely with the lake, was deleted underneath."""
        try:
            return os.stat(self._path).st_ino == os.fstat(self._fd).st_ino
        except OSError:
            return False

    def take_again(self) -> None:
        """After it was deleted. Raises StoreError when another engine was faster, or it cannot be made."""
        fd = self._take()
        os.close(self._fd)
        self._fd = fd
        self._write()

    def tell(self, wrong: list[str], totals: Mapping[str, SourceTotals]) -> None:
        """What is wrong just now, and the totals by source since the start, for `engine status`."""
        counters = {source: {n: getattr(t, n) for n in TOTAL_FIELDS} for source, t in totals.items()}
        self._state |= {"wrong": wrong, "counters": counters}
        self._write()

    def close(self) -> None:
        """An orderly end."""
        self._state["ended"] = time.time()
        self._write()
        os.close(self._fd)

    def _write(self) -> None:
        data = json.dumps(self._state).encode()
        with contextlib.suppress(OSError):  # a full disk is no reason to stop
            os.pwrite(self._fd, data, 0)
            os.ftruncate(self._fd, len(data))


@dataclass(frozen=True, slots=True)
class Engine:
    """A sensor's engine, running or the last one. Times are seconds since the epoch; `ended` only of an orderly end.
    `counters`: by source, the fields of SourceTotals since its start."""

    sensor: str
    running: bool
    pid: int
    since: float
    sources: tuple[str, ...]
    wrong: tuple[str, ...]
    ended: float | None
    counters: dict[str, dict[str, int]]


def engines(lake: Path) -> list[Engine]:
    """Every sensor's engine of a lake."""
    found = []
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(lake / FOLDER)):
            if not name.startswith(_PREFIX):
                continue
            with contextlib.suppress(OSError), open(lake / FOLDER / name, "rb") as file:
                running = not _locked(file.fileno(), fcntl.LOCK_SH)
                found.append(_engine(name.removeprefix(_PREFIX), running, _state(file.fileno())))
    return found


def _engine(sensor: str, running: bool, state: dict[str, Any]) -> Engine:
    """What stands there, as far as it makes sense."""
    numbers = {n: v for n, v in state.items() if isinstance(v, int | float)}
    texts = {n: tuple(t for t in v if isinstance(t, str)) for n, v in state.items() if isinstance(v, list)}
    told = state.get("counters")
    counters = {
        source: {name: value for name in TOTAL_FIELDS if isinstance(value := of.get(name), int)}
        for source, of in (told.items() if isinstance(told, dict) else ())
        if isinstance(of, dict)
    }
    return Engine(
        sensor, running, int(numbers.get("pid", 0)), float(numbers.get("since", 0.0)), texts.get("sources", ()),
        texts.get("wrong", ()), numbers.get("ended"), counters,
    )  # fmt: skip


def _locked(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _state(fd: int) -> dict[str, Any]:
    try:
        state = json.loads(os.pread(fd, 1 << 20, 0), parse_constant=lambda _: None)
    except (OSError, ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) else {}
