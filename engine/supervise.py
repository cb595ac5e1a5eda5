"""Processes beside the engine, each started again when it ends: none may stop for good, or stop a capture."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Final

from engine.log import report

RESTART_S: Final = 10.0
REFUSED: Final = 2  # exit code: it has said what the operator must change, so starting it again would not help
_PATIENCE_S: Final = 3.0


class Companion:
    """Runs `python -m WORDS...` from now on, in a thread of ours.

    The thread lives as long as we do, and a process that asks for it (`--with-parent`, PR_SET_PDEATHSIG) ends with it.

    Args:
        what: begins the line that tells of an end.
        given: written to its standard input, where secrets and settings are in nobody's view.
        fds: descriptors that it inherits.
    """

    def __init__(self, what: str, words: Sequence[str], given: bytes = b"", fds: Sequence[int] = ()) -> None:
        self._what, self._words, self._given, self._fds = what, words, given, fds
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self.code = 0  # of its last end
        self._thread = threading.Thread(target=self._run, name=what, daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """False once it has refused to work."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End it and wait, for at most 3 s."""
        self._closing.set()
        with self._lock:
            if self._process is not None:
                self._process.terminate()
        self._thread.join(_PATIENCE_S)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                with self._lock:
                    self._process = process = subprocess.Popen(
                        [sys.executable, "-m", *self._words], stdin=subprocess.PIPE, pass_fds=self._fds,
                        start_new_session=True,  # Ctrl-C is ours to handle
                    )  # fmt: skip
            except OSError as error:  # no memory, too many processes
                report("warning", f"{self._what} cannot be started: {error.strerror}; trying again")
                self._closing.wait(RESTART_S)
                continue
            process.communicate(self._given)
            self.code = process.returncode
            if self._closing.is_set() or self.code == REFUSED:
                return
            report("warning", f"{self._what} ended with code {self.code}; starting it again")
            self._closing.wait(RESTART_S)
