"""One target's messages: sent one by one, or as a digest when they come thick; retried, and given up in the end."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from engine.notify.message import Message, digest, single
from engine.notify.outbox import DROPPED, give_up

POLL_S: Final = 0.5
_MESSAGE: Final = re.compile(r"\d{20}-.*\.json")
_MINUTE_S: Final = 60.0
_AT_ONCE: Final = 500  # messages that one digest holds
_MAX_BACKOFF_S: Final = 300.0
_SETTLE_S: Final = 1.0  # a burst is over when nothing came for so long: then one digest holds it all,
_SETTLE_MAX_S: Final = 5.0  # but its first message does not wait longer than this
_REPORT_EVERY_S: Final = 300.0


class Sends(Protocol):
    """Sends a message; returns None, or why not."""

    def send(self, message: Message) -> str | None: ...


class TargetSender:
    """Empties the folder of one target. For one thread, which may block in it for as long as the endpoint does.

    Args:
        folder: see engine.notify.outbox. name: of the target.
        burst: messages a minute; more become one.
        give_up_s: a message that is older is given up.
        say: told in one line when sending fails, and when it works again.
        now: a clock that never goes back. settle_s: see _SETTLE_S.
    """

    def __init__(
        self, folder: Path, name: str, sends: Sends, burst: int, give_up_s: float, say: Callable[[str], None],
        now: Callable[[], float] = time.monotonic, settle_s: float = _SETTLE_S,
    ) -> None:  # fmt: skip
        self._folder = folder
        self._name = name
        self._sends = sends
        self._burst = burst
        self._give_up_ns = int(give_up_s * 1e9)
        self._say = say
        self._now = now
        self._settle_ns = int(settle_s * 1e9)
        self._sent: deque[float] = deque()
        self._digest_at = float("-inf")
        self._retry_at = float("-inf")
        self._said_at = float("-inf")
        self._failures = 0

    def step(self, last: bool = False) -> bool:
        """Send what is due; the `last` time, whatever waits. False when there was nothing to do."""
        now = self._now()
        if now < self._retry_at:
            return False
        names = self._waiting()
        while self._sent and self._sent[0] <= now - _MINUTE_S:
            self._sent.popleft()
        if not names:
            return False
        if len(names) <= self._burst - len(self._sent):
            return self._send(names[:1], now)
        if not last and (now < self._digest_at + _MINUTE_S or self._unsettled(names)):
            return False
        if self._send(names[:_AT_ONCE], now):
            self._digest_at = now
            return True
        return False

    def _unsettled(self, names: list[str]) -> bool:
        """Whether more of the same burst is to be expected. Names begin with the time, in nanoseconds."""
        now = time.time_ns()
        newest, oldest = (int(name.partition("-")[0]) for name in (names[-1], names[0]))
        return now - newest < self._settle_ns and now - oldest < _SETTLE_MAX_S * 1e9

    def _waiting(self) -> list[str]:
        """Names of the messages, oldest first; those that are too old are given up."""
        try:
            names = sorted(name for name in os.listdir(self._folder) if _MESSAGE.fullmatch(name))
        except FileNotFoundError:
            return []
        oldest = f"{time.time_ns() - self._give_up_ns:020d}"
        late = [name for name in names if name < oldest]
        for name in late:
            give_up(self._folder, name)
        if late:
            self._say(f"notify target {self._name}: {len(late)} messages given up, they waited too long")
        return names[len(late) :]

    def _send(self, names: list[str], now: float) -> bool:
        read = {name: item for name in names if (item := self._read(name)) is not None}
        if not read:
            return True
        items = list(read.values())
        dropped = self._dropped()
        message = digest(items, dropped) if len(items) > 1 else single(items[0], dropped)
        problem = self._sends.send(message)
        if problem is not None:
            self._back_off(problem, len(names))
            return False
        if self._failures:
            self._say(f"notify target {self._name}: works again")
        self._failures = 0
        self._said_at = float("-inf")
        self._sent.append(now)
        for name in (*read, *([DROPPED] if dropped else [])):
            with contextlib.suppress(OSError):
                os.unlink(self._folder / name)
        return True

    def _back_off(self, problem: str, waiting: int) -> None:
        self._failures += 1
        wait = min(_MAX_BACKOFF_S, 2.0**self._failures) * random.uniform(0.75, 1.0)  # noqa: S311 — spreads retries
        now = self._retry_at = self._now()
        self._retry_at += wait
        if now - self._said_at >= _REPORT_EVERY_S:
            self._said_at = now
            self._say(f"notify target {self._name}: {problem}; {waiting} waiting, tried again with growing pauses")

    def _read(self, name: str) -> dict[str, Any] | None:
        """A message; one that cannot be read is given up."""
        try:
            item = json.loads((self._folder / name).read_bytes())
            incident = item["incident"]
            for key in ("incident_id", "kind", "severity", "first_seen", "last_seen", "count"):
                incident[key]
            return dict(item) | {"event": str(item["event"])}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            give_up(self._folder, name)
            return None

    def _dropped(self) -> int:
        try:
            return os.stat(self._folder / DROPPED).st_size
        except OSError:
            return 0
