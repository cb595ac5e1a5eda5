"""Starting the `engine` command as a user does, and watching it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ENGINE = (sys.executable, "-m", "engine")


def engine(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    options.setdefault("timeout", 120)
    return subprocess.run([*ENGINE, *map(str, words)], capture_output=True, text=True, cwd=ROOT, **options)


class Running:
    """An `engine run` in the background; standard error goes to a file that `wait_for` watches."""

    def __init__(
        self,
        prefix: Sequence[str],
        words: Sequence[str | Path],
        log: Path,
        start: Sequence[str] = ENGINE,
        **options: Any,
    ) -> None:
        self.log = log
        with log.open("w") as file:
            command = [*prefix, *start, *map(str, words)]
            self.process = subprocess.Popen(command, stderr=file, stdout=file, cwd=ROOT, **options)

    def wait_for(self, text: str, timeout_s: float = 90) -> str:
        """Everything said so far, once `text` was."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            said = self.log.read_text()
            if text in said:
                return said
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"{text!r} was not said: {self.log.read_text()!r}")

    def stop(self, number: int, timeout_s: float = 10) -> int:
        """Send a signal and wait; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
