"""A lake of labelled attacks by real tools beside ordinary use, moved to the minutes before now: five minutes without
an attack, from which models learn, and five with sixteen. For the pages about alerts and anomalies.

    python -m tests.webui.attacks DIR       and then: python -m tests.webui.screenshots alerts --lake DIR
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from tests.commands import ROOT, engine
from tests.webui.traffic import Recorded

DATA: Final = ROOT.parent / "shared" / "detect" / "data"
SETS: Final = (("train", 360), ("test1", 0))  # and how many seconds before the end it ends, or up to a minute more
CONFIG: Final = """
[scoring]
first_after_rows = 5000
[anomaly]
learn_minutes = 2
"""


def record(directory: Path) -> Recorded:
    """Replay into a new lake. Skips where the captures or zstd are not there."""
    if not DATA.exists() or shutil.which("zstd") is None:
        pytest.skip("the labelled captures are not beside the project, or zstd is not installed")
    end, packets = int(time.time()) - 3, 0
    config, lake = directory / "engine.toml", directory / "lake"
    config.write_text(CONFIG)
    for name, before in SETS:
        path = directory / f"{name}.pcap"
        packets += _moved(DATA / f"{name}.pcap.zst", path, end - before)
        done = engine("replay", path, "--lake", lake, "--sensor", "office", "--config", config, timeout=300)
        assert done.returncode == 0, done.stderr
    return Recorded(lake, packets, time.time() + 1)


def _moved(packed: Path, path: Path, end: int) -> int:
    """Unpack a capture so that its last frame was in the minute before `end`. Returns how many frames it has.

    It moves by whole minutes: windows end with the clock's minutes, and what they count depends on where those cut it.
    """
    unpack = ["zstd", "-dc", "--long=27", str(packed)]
    data = bytearray(subprocess.run(unpack, check=True, capture_output=True).stdout)
    at, places = 24, []
    while at + 16 <= len(data):
        places.append(at)
        at += 16 + struct.unpack_from("<I", data, at + 8)[0]
    shift = end - struct.unpack_from("<I", data, places[-1])[0]
    shift -= shift % 60
    for place in places:
        struct.pack_into("<I", data, place, struct.unpack_from("<I", data, place)[0] + shift)
    path.write_bytes(data)
    return len(places)


def main(directory: Path) -> None:
    from tests.webui.screenshots import dress

    directory.mkdir(parents=True, exist_ok=True)
    recorded = record(directory)
    dress(recorded.lake, recorded.now, None)
    (directory / "recorded.json").write_text(json.dumps(recorded.now))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
