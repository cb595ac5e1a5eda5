"""The process beside the engine that runs rules over the lake as it grows.

    python -m analytics.rule_process --lake DIR --with-parent PID     the configuration, pickled, on standard input

`engine.companions` starts it with the engine's own rights when rules are configured. On standard input, because that
holds the secrets of notification targets, and flags of the command line that no file has.
"""

from __future__ import annotations

import argparse
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from analytics.rule_runner import LakeRule, Runner
from analytics.system import stop_with_parent, yield_to_others
from engine.config import EngineConfig
from engine.errors import EngineError
from engine.log import report

_LOOK_S: Final = 1.0
_RETRY_S: Final = 30.0


def configured(config: EngineConfig) -> tuple[list[LakeRule], list[str]]:
    """The rules that the configuration names, and a line for each that is refused. Raises ConfigError."""
    rules: list[LakeRule] = []
    refused: list[str] = []
    if config.sigma.files:
        from analytics.sigma import load

        late_s = config.flows.active_s + config.flows.idle_s + 60
        found, without = load(config.sigma.files, every_s=config.sigma.every_s, late_s=late_s)
        rules += found
        refused += map(str, without)
    if config.rules.files.sql:
        from analytics.sql_rules import rules_of

        rules += rules_of(config.rules.files.sql)
    return rules, refused


def serve(lake: Path, config: EngineConfig, ending: threading.Event, report: Callable[[str, str], None]) -> None:
    """Run the rules until `ending` is set. A lake that cannot be written for a while is said, and tried again."""
    rules, refused = configured(config)
    for line in refused:
        report("warning", line)
    if not rules:
        return
    runner = Runner(lake, config, rules, report)
    said = ""
    while not ending.wait(_LOOK_S):
        try:
            runner.step()
            said = ""
        except EngineError as error:
            if str(error) != said:
                said = str(error)
                report("error", said)
            ending.wait(_RETRY_S)
    runner.close()


def main(arguments: list[str] | None = None) -> int:
    """Run rules for as long as the parent lives."""
    parser = argparse.ArgumentParser(prog="python -m analytics.rule_process", description="Run rules over the lake.")
    parser.add_argument("--lake", type=Path, required=True)
    parser.add_argument("--with-parent", type=int, required=True, metavar="PID", help="stop when this process ends")
    options = parser.parse_args(arguments)
    config = pickle.load(sys.stdin.buffer)  # noqa: S301 — from our parent, through a pipe nobody else has
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    stop_with_parent(options.with_parent)
    yield_to_others(10)
    try:
        serve(options.lake, config, ending, report)
    except EngineError as error:
        report("error", f"rules over the lake do not run: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
