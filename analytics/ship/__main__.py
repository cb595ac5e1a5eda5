"""`python -m analytics.ship --lake DIR [--with-parent PID]`: what `engine run --ship` starts.

The section `ship` of the configuration comes as JSON on standard input, so that the URL stands in no list of processes.
Lowest priority. It needs to connect to the store, to read ~/.aws, and to write in `<lake>/.ship`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final, NoReturn

from analytics.ship.destination import use_own_home
from analytics.ship.shipper import Shipper
from analytics.system import lowest_priority, stop_with_parent
from engine.errors import EngineError
from engine.log import report
from engine.ship_config import ShipConfig

AGAIN_S: Final = 5.0


def main(arguments: list[str] | None = None) -> NoReturn:
    """Ship for as long as the parent lives."""
    parser = argparse.ArgumentParser(prog="python -m analytics.ship", description="Ships a lake's segments.")
    parser.add_argument("--lake", type=Path, required=True)
    parser.add_argument("--with-parent", type=int, metavar="PID", help="stop when this process, our parent, ends")
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))  # it may be killed at any moment
    if options.with_parent is not None:
        stop_with_parent(options.with_parent)
    lowest_priority()
    given = json.load(sys.stdin)
    config = ShipConfig(**given | {"tables": tuple(given["tables"])})
    use_own_home()
    said = ""
    while True:
        try:
            with Shipper(options.lake, config, say) as shipper:
                shipper.run()
        except (EngineError, OSError) as error:  # another process ships this lake; or a full disk
            if str(error) != said:
                said = str(error)
                say(said)
        time.sleep(AGAIN_S)


def say(text: str) -> None:
    report("warning", f"ship: {text}")


if __name__ == "__main__":
    main()
