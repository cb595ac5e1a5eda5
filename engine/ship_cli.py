"""`engine ship LAKE URL`, and what `engine run --ship` starts."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.errors import ConfigError
from engine.log import report, say
from engine.supervise import Companion

if TYPE_CHECKING:
    from engine.config import EngineConfig
    from engine.ship_config import ShipConfig

_RESTART_S: Final = 5.0


def add_command(command: Callable[..., argparse.ArgumentParser], load: Callable[[argparse.Namespace], Any]) -> None:
    """Declare the command."""

    def ship(options: argparse.Namespace) -> int:
        return run(options, load(options).ship)

    parser = command("ship", ship, "bring a lake's closed segments to a shared directory or an S3-compatible store")
    parser.add_argument("from_lake", metavar="LAKE", help="directory of the lake")
    parser.add_argument("url", metavar="URL", help="a directory, or s3://BUCKET/PREFIX")
    parser.add_argument("--patience", type=float, default=60.0, metavar="SECONDS", help="give up after so long (60)")
    parser.add_argument("--config", metavar="FILE", help="TOML file, for [ship]")


def run(options: argparse.Namespace, section: ShipConfig) -> int:
    """Ship what is on disk, once. Exit code 2 when it cannot be done; what is left goes with the next try."""
    from analytics.ship.destination import use_own_home
    from analytics.ship.shipper import FIRST_PAUSE_S, LONGEST_PAUSE_S, Shipper
    from analytics.store import require_lake
    from engine import run as runs
    from engine.errors import StoreError

    config = replace(section, url=absolute(options.url))
    if options.patience < 0:
        raise ConfigError(f"--patience {options.patience:g} is out of range: use 0 or more seconds")
    lake = require_lake(options.from_lake)
    runs.become_unprivileged(lake, None)()
    use_own_home()
    deadline, pause, arrived = time.monotonic() + options.patience, FIRST_PAUSE_S, 0
    with Shipper(lake, config, partial(report, "warning")) as shipper:
        before = shipper.state.shipped_rows
        while True:
            try:
                arrived += shipper.round()
                break
            except StoreError as error:
                if time.monotonic() + pause > deadline or type(error) is not StoreError:
                    raise
                report("warning", f"{error}; trying again in {pause:.0f} s")
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
        state = shipper.state
    rows = state.shipped_rows - before
    say(f"{arrived:,} objects with {rows:,} rows shipped to {config.url}")
    if state.lost_segments:
        report("warning", f"{state.lost_segments:,} segments with {state.lost_rows:,} rows were given up before")
    return 0


def absolute(url: str) -> str:
    """A directory by its absolute path; a URL as it is. Raises ConfigError."""
    from engine.ship_config import check_url

    if not url:
        raise ConfigError("--ship '' names no place; give a directory or s3://BUCKET/PREFIX")
    given = url if "://" in url else os.path.abspath(url)
    check_url(given, "--ship")
    return given


def start(lake: Path, config: EngineConfig) -> None:
    """What ships, as a process of its own of the lowest priority; it ends with us, and is started again if it ends."""
    if not config.ship.url:
        return
    given = json.dumps(asdict(config.ship)).encode()
    words = ["analytics.ship", "--lake", str(lake), "--with-parent", str(os.getpid())]
    Companion("what ships segments", words, given)


def check(config: EngineConfig, lake: Path) -> None:
    """What is wrong with [ship] whatever the network says, before the capture starts. Raises ConfigError."""
    from engine.tables import TABLES

    unknown = [table for table in config.ship.tables if table not in TABLES]
    if unknown:
        raise ConfigError(f"ship.tables: there is no table {unknown[0]!r}; known are {', '.join(TABLES)}")
    target = config.ship.url.removeprefix("file://")
    if target.startswith("/") and os.path.abspath(target) == str(lake):
        raise ConfigError(f"ship.url = {target!r}: that is the lake itself; name another place")
