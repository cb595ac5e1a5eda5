"""Taking a changed configuration over while capturing: on SIGHUP, what can be; the rest waits for the next start.

What became of it is said, and left in `<lake>/.settings/reload.json` for whoever sent the signal.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from engine import settings
from engine.config import EngineConfig
from engine.errors import EngineError

Load = Callable[[], EngineConfig]


class Configured(Protocol):
    """What captures."""

    def configure(self, config: EngineConfig) -> None: ...


class Reload:
    """For one run.

    Args:
        load: reads file and flags again. path: of the file, "" for none.
        config: that it runs with.
        report: told level and line of what became of it. leave: left the configuration in use.
    """

    def __init__(
        self, load: Load, path: str, config: EngineConfig, lake: Path, report: Callable[[str, str], None],
        leave: Callable[[EngineConfig], None],
    ) -> None:  # fmt: skip
        self._load, self._path, self._lake, self._report, self._leave = load, path, lake, report, leave
        self._config = config
        self._number = 0
        self._terminal = _has_terminal()
        self._ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        self.asked = False

    def listen(self, stop: Callable[[], None]) -> None:
        """Take SIGHUP from now on. The end of the terminal still stops a run that was started in one."""

        def on_signal(_number: int, _frame: Any) -> None:
            if self._terminal and not self._ignored and not _has_terminal():
                stop()
            else:
                self.asked = True

        signal.signal(signal.SIGHUP, on_signal)
        with contextlib.suppress(OSError):  # the lake is full: then nobody will find us, and capture goes on
            (self._lake / settings.FOLDER / "reload.json").unlink(missing_ok=True)
            settings.announce(self._lake, self._path)

    def take(self, into: Configured) -> None:
        """Do what was asked for."""
        self.asked = False
        try:
            new = self._load()
            live, later = settings.difference(self._config, new)
            used = _taken(self._config, new)
            if live:
                into.configure(used)
        except EngineError as error:
            self._report("warning", f"the configuration of before goes on: {error}")
            self._tell(applied=[], waits=[], error=str(error))
            return
        self._config = used
        self._leave(used)
        if live and (new.sigma.files or new.rules.files.sql) and any(n.startswith(("alerts", "notify")) for n in live):
            later.append("alerts and notify of rules over the lake")
        now = f"{', '.join(live)} in use now" if live else "nothing to take over"
        wait = f"; {', '.join(later)} from the next start" if later else ""
        self._report("info", f"configuration read again: {now}{wait}")
        self._tell(applied=live, waits=later, error=None)

    def _tell(self, **outcome: Any) -> None:
        self._number += 1
        with contextlib.suppress(OSError):
            told = json.dumps({"number": self._number, **outcome})
            settings.write(self._lake / settings.FOLDER / "reload.json", told)


def _taken(old: EngineConfig, new: EngineConfig) -> EngineConfig:
    """The old one with what can change while capturing."""
    for section, keys in settings.LIVE.items():
        old = old.override(section, **{key: getattr(getattr(new, section), key) for key in keys})
    return old


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK))
    except OSError:
        return False
    return True
