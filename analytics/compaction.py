"""Upkeep of a lake: merging of small segments, so that it does not become a million files, and retention.

    python -m analytics.compaction --lake DIR [--with-parent PID]     what `engine run` starts; lowest priority
    engine compact [--lake DIR]                                        merging once, in the foreground
    engine retain [--lake DIR] [--dry-run]                             retention once

How readers never notice is told in `analytics.merge_jobs` and `analytics.retention`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

from analytics.merge_jobs import Compactor, Done, Plan
from analytics.retention import Cut, Retention
from analytics.system import lowest_priority, stop_with_parent
from engine.errors import EngineError, StoreError
from engine.log import report
from engine.retention_config import RetentionConfig, changed_settings, left_settings

JOBS: Final = 16  # at once in the background: their segments take their room twice
AGAIN_S: Final = 30.0
LOOK_S: Final = 2.0  # at the disk's free space: it may be filled within minutes
STATE: Final = "upkeep.json"  # in <lake>/.settings, for `engine status`


def compact(lake: Path, plan: Plan, report: Callable[[str], None]) -> Done:
    """Merge what is due, once, and wait until every job is finished: twice `grace_s`. What retention has begun to
    delete is deleted, and nothing else."""
    with Compactor(lake, plan, report) as compactor:
        begun = Retention(lake, RetentionConfig(enabled=False), plan.grace_s, report)
        begun.finish()
        compactor.begin()
        while compactor.advance() or (begun.waiting and not begun.problem):
            time.sleep(min(1.0, plan.grace_s / 4 + 0.01))
            begun.finish()
        return compactor.done


def retain(lake: Path, config: RetentionConfig, grace_s: float, report: Callable[[str], None]) -> list[Cut]:
    """Delete what is due, once, and wait until it is done: `grace_s`."""
    with Compactor(lake, Plan(), report):
        retention = Retention(lake, config, grace_s, report)
        cuts = retention.round()
        while retention.waiting:
            time.sleep(min(1.0, grace_s / 4 + 0.01))
            retention.finish()
            if retention.problem:
                raise StoreError(f"lake {lake}: {retention.problem}")
        return cuts


def main(arguments: list[str] | None = None) -> NoReturn:
    """Merge and delete for as long as the parent lives."""
    parser = argparse.ArgumentParser(prog="python -m analytics.compaction", description="Upkeep of a lake.")
    parser.add_argument("--lake", type=Path, required=True)
    parser.add_argument("--with-parent", type=int, metavar="PID", help="stop when this process, our parent, ends")
    parser.add_argument("--every", type=float, default=30.0, metavar="SECONDS", help="how often to look (30)")
    parser.add_argument("--retention", metavar="JSON", help="the section of the configuration; without it none")
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))  # it may be killed at any moment
    if options.with_parent is not None:
        stop_with_parent(options.with_parent)
    lowest_priority()
    given = json.loads(options.retention) if options.retention else {"enabled": False}
    said = ""
    while True:
        try:
            _keep(options.lake, RetentionConfig(**given), options.every)
        except (EngineError, OSError) as error:  # another engine's process does it, for as long as that lives; or worse
            text = str(error) if isinstance(error, EngineError) else f"upkeep of lake {options.lake}: {error}"
            if text != said:
                said = text
                report("warning", said)
            time.sleep(AGAIN_S)


def _keep(lake: Path, config: RetentionConfig, every_s: float) -> NoReturn:
    tell = partial(report, "info")
    with Compactor(lake, Plan(), tell) as compactor:
        retention = Retention(lake, config, Plan().grace_s, tell)
        merge_at, began = 0.0, time.time()
        while True:
            if changed_settings(lake) > began:  # the engine took another configuration
                began = changed_settings(lake)
                with contextlib.suppress(EngineError):
                    retention.config = left_settings(lake)
            retention.round()
            if time.monotonic() >= merge_at:
                merge_at = time.monotonic() + every_s
                compactor.advance()
                if not retention.space.acute:  # merging takes room
                    compactor.begin_apart(most=JOBS - len(compactor.jobs))
            _leave_state(lake, compactor, retention)
            _rest(every_s, retention)


def _rest(every_s: float, retention: Retention) -> None:
    """Until the next look is due, or the disk gets short."""
    until = time.monotonic() + every_s
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(LOOK_S, left))
        if retention.config.enabled and retention.space.short:
            return


def _leave_state(lake: Path, compactor: Compactor, retention: Retention) -> None:
    """What `engine status` says of us. A full disk is no reason to stop."""
    space, done = retention.space, compactor.done
    state = {
        "at": time.time(), "pid": os.getpid(), "merged_segments": done.segments, "merged_into": done.merged,
        "jobs": len(compactor.jobs), "retention": retention.config.enabled, "deleted": retention.deleted,
        "last_deleted": retention.last, "free": space.free, "wanted_free": space.wanted,
    }  # fmt: skip
    target = lake / ".settings" / STATE
    partial = target.with_name(f".{STATE}.inprogress")
    with contextlib.suppress(OSError):
        target.parent.mkdir(exist_ok=True)
        partial.write_text(json.dumps(state))
        partial.replace(target)


if __name__ == "__main__":
    main()
