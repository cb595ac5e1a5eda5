"""One frame of a savefile, by its number."""

from __future__ import annotations

import time

from engine.capture.savefile import SavefileSource
from engine.capture.source import ReadResult
from engine.errors import ConfigError
from engine.packets import F_CAPLEN, F_LINK_TYPE, F_OFFSET, F_TS_NS, F_WIRELEN, FrameBatch


def read_frame(path: str, number: int) -> tuple[bytes, int, int, int]:
    """Frame `number` (from 1) of a savefile: its bytes, link type, wirelen and ts_ns.

    Raises ConfigError when there is no such frame, CorruptFile or CaptureError when the file cannot be read so far.
    """
    if number < 1:
        raise ConfigError(f"frame {number} of savefile {path}: frames are numbered from 1")
    source, batch, before = SavefileSource(path), FrameBatch(), 0
    try:
        source.open()
        while True:
            batch.clear()
            result = source.read(batch)
            if number <= before + batch.count:
                ts_ns, at, caplen, wirelen, link_type = (
                    int(batch.frames[row, number - before - 1])
                    for row in (F_TS_NS, F_OFFSET, F_CAPLEN, F_WIRELEN, F_LINK_TYPE)
                )
                return batch.arena[at : at + caplen].tobytes(), link_type, wirelen, ts_ns
            before += batch.count
            if result is ReadResult.END:
                raise ConfigError(f"frame {number} of savefile {path}: it has {before} frames; give a smaller number")
            if result is ReadResult.IDLE:  # a pipe
                time.sleep(0.01)
    finally:
        source.close()
