"""Merging of small segments, so that a lake that captures for days does not become a million files.

    python -m analytics.compaction --lake DIR [--with-parent PID]     what `engine run` starts; lowest priority
    engine compact [--lake DIR]                                        the same once, in the foreground

How readers never notice is told in `analytics.merge_jobs`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from analytics.merge_jobs import Compactor, Done, Plan
from analytics.system import lowest_priority, stop_with_parent
from engine.errors import EngineError

JOBS: Final = 16  # at once in the background: their segments take their room twice


def compact(lake: Path, plan: Plan, report: Callable[[str], None]) -> Done:
    """Merge what is due, once, and wait until every job is finished: twice `grace_s`."""
    with Compactor(lake, plan, report) as compactor:
        compactor.begin()
        while compactor.advance():
            time.sleep(min(1.0, plan.grace_s / 4 + 0.01))
        return compactor.done


def main(arguments: list[str] | None = None) -> int:
    """Merge for as long as the parent lives."""
    parser = argparse.ArgumentParser(prog="python -m analytics.compaction", description="Merge small segments.")
    parser.add_argument("--lake", type=Path, required=True)
    parser.add_argument("--with-parent", type=int, metavar="PID", help="stop when this process, our parent, ends")
    parser.add_argument("--every", type=float, default=30.0, metavar="SECONDS", help="how often to look (30)")
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))  # it may be killed at any moment
    if options.with_parent is not None:
        stop_with_parent(options.with_parent)
    lowest_priority()
    try:
        with Compactor(options.lake, Plan(), _say) as compactor:
            while True:
                compactor.advance()
                compactor.begin(most=JOBS - len(compactor.jobs))
                time.sleep(options.every)
    except EngineError as error:
        _say(str(error))
        return 2


def _say(text: str) -> None:
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(f"engine: {text}", file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
