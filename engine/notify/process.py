"""The process that sends: a thread per target, so that a slow endpoint keeps nobody else waiting.

    python -m engine.notify.process LAKE     the targets, with their secrets, as one line of JSON on standard input

It ends when standard input does, that is with the engine, after a last try to send what waits.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

from engine.alert_config import NotifyConfig
from engine.log import report
from engine.notify.outbox import FOLDER
from engine.notify.sender import POLL_S, TargetSender

LAST_TRY_S: Final = 8.0


def start(lake: Path, config: NotifyConfig) -> subprocess.Popen[bytes]:
    """Start it. Closing its standard input ends it."""
    targets = [{"name": t.name, "url": t.url, "burst": t.burst} for t in config.targets]
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.notify.process", str(lake.absolute())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is the engine's to handle
        cwd=Path(__file__).resolve().parents[2],
    )
    assert process.stdin is not None
    settings = {"targets": targets, "give_up_s": config.give_up_h * 3600, "last_try_s": LAST_TRY_S}
    line = json.dumps(settings).encode() + b"\n"
    try:
        process.stdin.write(line)
        process.stdin.flush()
    except OSError:  # it has ended already, which whoever watches it will see
        pass
    return process


def main(lake: Path) -> None:
    """Send until standard input ends."""
    settings = json.loads(sys.stdin.buffer.readline() or b'{"targets": [], "last_try_s": 0}')
    ending = threading.Event()
    threads = [
        threading.Thread(target=_serve, args=(lake, target, settings["give_up_s"], ending), daemon=True)
        for target in settings["targets"]
    ]
    for thread in threads:
        thread.start()
    while sys.stdin.buffer.read(1):
        pass
    ending.set()
    deadline = time.monotonic() + settings["last_try_s"]
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    os._exit(0)  # a thread may hang in a look-up of a name


def _serve(lake: Path, target: dict[str, Any], give_up_s: float, ending: threading.Event) -> None:
    from engine.notify.apprise_sender import AppriseSender

    folder = lake / FOLDER / target["name"]
    sender = TargetSender(
        folder, target["name"], AppriseSender(target["url"]), target["burst"], give_up_s, partial(report, "warning")
    )
    turn = Turn(folder)
    while True:
        try:
            ended = ending.is_set()  # looked at before: what came until then is still sent
            busy = turn.ours() and sender.step(ended)
        except OSError as error:
            report("warning", f"notify target {target['name']}: {folder}: {error.strerror}; waiting")
            busy, ended = False, ending.wait(10)
        if busy:
            continue
        if ended:
            return
        ending.wait(POLL_S)


class Turn:
    """Of several engines that share a lake, one sends a target's messages: the next one when it has ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = -1

    def ours(self) -> bool:
        """Whether it is ours; once it is, it stays so. Raises OSError."""
        if self._lock < 0:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._folder / ".sending", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                return False
            self._lock = lock
        return True


if __name__ == "__main__":
    main(Path(sys.argv[1]))
