"""Between writers and `analytics.compaction`, which swaps a directory of segments for one where they are merged.

A segment is created and renamed by its path. Were the directory swapped between the compaction's last look at it and
the swap, the file would be in the wrong one of the two. So a writer holds a shared lock on the sensor's directory
for these two moments, and the compaction an exclusive one for its last look and the swap, some microseconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PATIENCE_S: Final = 0.05  # the compaction may be waiting for a processor: a capture does not wait longer for it
_PAUSE_S: Final = 0.001


@contextlib.contextmanager
def no_swap(sensor: Path) -> Iterator[None]:
    """No directory below `<lake>/<table>/sensor=NAME/` is swapped meanwhile. Raises OSError when there is none."""
    fd = os.open(sensor, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                break
            except OSError:  # taken; or a file system without locks, which has no swap either
                if time.monotonic() > deadline:
                    break
                time.sleep(_PAUSE_S)
        yield
    finally:
        os.close(fd)
