"""`engine doctor`, `selftest`, `service`, `backup`, `restore`: before a capture runs, and so that it lasts."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from engine.log import say

Load = Callable[[argparse.Namespace], Any]
Place = Callable[[Any], Path]
_CONFIG: Final = "TOML file, see `engine config`"


def add_commands(command: Callable[..., argparse.ArgumentParser], load: Load, lake: Place) -> None:
    """Declare them. `load` gives the configuration of the options, `lake` where its lake is."""

    def doctor(options: argparse.Namespace) -> int:
        from analytics import lake_checks
        from engine import checks

        config = load(options)
        place, frames = lake(config), config.frames.mode != "off"
        found = [*checks.machine(config, place), *lake_checks.lake(place, config.retention, frames)]
        return checks.show(found, options.json)

    def selftest(options: argparse.Namespace) -> int:
        from benchmarks import selftest

        load(options)  # what is wrong with it is said in one line
        return selftest.run(options.live, Path(options.config).absolute() if options.config else None)

    def service(options: argparse.Namespace) -> int:
        from engine import service

        load(options)  # what is wrong with it is said now, not at the next boot
        unit = service.unit(options.iface or (), options.config, options.port, not options.no_dashboard)
        print(unit, end="")  # noqa: T201
        return 0

    def backup(options: argparse.Namespace) -> int:
        from analytics import backup

        return backup.run_backup(lake(load(options)), Path(options.target), not options.no_frames, say)

    def restore(options: argparse.Namespace) -> int:
        from analytics import backup

        return backup.run_restore(Path(options.source), lake(load(options)), say)

    parser = command("doctor", doctor, "say what keeps captures from being complete here, and what mends it")
    parser.add_argument("--iface", action="append", metavar="NAME", help="interface; repeat for several")
    parser.add_argument("--json", action="store_true", help="for programs; exit code 1 when something wants attention")
    parser.add_argument("--config", metavar="FILE", help=_CONFIG)
    parser.add_argument("--lake", metavar="DIR", help="where the data is or is to go")

    parser = command("selftest", selftest, "send known attacks through the whole engine, and say what was found")
    parser.add_argument("--live", action="store_true", help="over a private wire (root), 30 s; default: a savefile")
    parser.add_argument("--config", metavar="FILE", help=f"{_CONFIG}: does yours find them?")

    parser = command("service", service, "print a systemd unit that captures from boot on")
    parser.add_argument("--iface", action="append", metavar="NAME", help="interface; repeat for several")
    parser.add_argument("--config", metavar="FILE", help=f"{_CONFIG}; the service reads it")
    parser.add_argument("--port", type=int, metavar="N", help="of the dashboard (default 8050)")
    parser.add_argument("--no-dashboard", action="store_true", help="capture only")

    parser = command("backup", backup, "copy the lake while it is in use; again, only what is new")
    parser.add_argument("target", metavar="DIR", help="an empty directory, or an earlier backup")
    parser.add_argument("--no-frames", action="store_true", help="without the raw frames")
    parser.add_argument("--lake", metavar="DIR", help="where the data is")

    parser = command("restore", restore, "make a lake of a backup")
    parser.add_argument("source", metavar="DIR", help="made by `engine backup`")
    parser.add_argument("--lake", metavar="DIR", help="the lake that is made")
