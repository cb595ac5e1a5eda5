"""Lines for the operator, on standard error: standard output is for data. Every process of a run writes through here.

Text as it stands, or with ENGINE_LOG=json (`--log json`) an object a line: `time` (UTC, ISO 8601), `level` (error,
warning, info), `process` (the module that runs), `text`, and what else the line knows. To systemd's journal, text
begins with the priority, sd-daemon(3).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from datetime import UTC, datetime
from typing import Any, Final

FORMAT: Final = "ENGINE_LOG"  # an environment variable, so that the processes beside the engine have it, too
FORMATS: Final = ("text", "json")
_PRIORITY: Final = {"error": "<3>", "warning": "<4>", "info": "<6>"}


def say(text: str, level: str = "info", **facts: Any) -> None:
    """Text as a person reads it; may have several lines."""
    if sys.stderr is None:  # closed by whoever started us; print would take standard output instead
        return
    if os.environ.get(FORMAT) == "json":
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": now, "level": level, "process": _process(), "text": text.strip(), **facts}
        out = json.dumps(line, ensure_ascii=False, default=str)
    elif _is_journal():
        out = "\n".join(f"{_PRIORITY[level]}{line}" for line in text.split("\n"))
    else:
        out = text
    with contextlib.suppress(OSError, ValueError):  # a closed terminal or pipe is no reason to stop a capture
        print(out, file=sys.stderr, flush=True)  # noqa: T201


def report(level: str, text: str, **facts: Any) -> None:
    """What a part of the program has to tell: error, warning or info."""
    as_json = os.environ.get(FORMAT) == "json"
    prefix = "" if as_json else "engine: warning: " if level == "warning" else "engine: "
    say(f"{prefix}{text}", level, **facts)


def kept() -> bool:
    """Whether what is said goes to a log that others read: it must hold no one-time link."""
    return os.environ.get(FORMAT) == "json" or _is_journal()


def _process() -> str:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return "engine" if spec is None else str(spec.name).removesuffix(".__main__")


def _is_journal() -> bool:
    """Whether systemd reads standard error: JOURNAL_STREAM has its device and inode, systemd.exec(5)."""
    stream = os.environ.get("JOURNAL_STREAM", "")
    with contextlib.suppress(OSError):
        status = os.fstat(2)
        return bool(stream) and stream == f"{status.st_dev}:{status.st_ino}"
    return False
