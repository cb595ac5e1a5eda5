"""What `engine run` would have counted while the recorded traffic went by: replayed, all of it falls into one second.

A burst loses frames at every place where some can be lost, so that the page about losses has some to show.
"""

from __future__ import annotations

import shutil
from collections import Counter
from datetime import UTC
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from engine.segment_file import add_segment
from engine.tables import CAPTURE_STATS
from tests.webui.traffic import SPAN_S

BURST: Final = range(96, 106)  # seconds after the first packet
# Frames lost each second of the burst.
LOST: Final = {"eth0": {"kernel_drops": 22, "drop_rows_shed": 9}, "eth1": {"interface_drops": 6, "drop_not_written": 2}}


def write_counters(lake: Path, now: float) -> dict[str, int]:
    """Replace the lake's `capture_stats` by rows a second of two interfaces. Returns the losses by cause."""
    rows, sizes = _by_second(lake)
    first = int(now) - 2 - SPAN_S
    written: list[dict[str, Any]] = []
    losses: Counter[str] = Counter()
    for at in range(SPAN_S + 2):
        for source, share in (("eth0", 0.75), ("eth1", 0.25)):
            n, size = int(rows[first + at] * share), int(sizes[first + at] * share)
            row = dict.fromkeys((c.name for c in CAPTURE_STATS if c.type == "int64"), 0)
            lost = LOST[source] if at in BURST else {}
            losses.update(lost)
            kept = n + (100 if lost else 0)
            busy = kept + sum(lost.values())
            whole = source == "eth0"
            row |= {
                "ts": (first + at + 1) * 1_000_000, "source": source, "interval_s": 1.0, "rows": kept, **lost,
                "received": busy - lost.get("interface_drops", 0), "wire_bytes": size, "undecodable": kept // 200,
                "flows": kept // 9, "messages": kept // 4, "messages_missed": kept // 10 if lost else 0,
                "frames_stored": kept if not lost else kept // 2, "frames_not_stored": kept - kept // 2 if lost else 0,
                "scored": kept, "scores_shed": kept // 20 if lost else 0, "ring_frames": busy // 3 + 12000 * bool(lost),
                "pool_fill": 100 if lost else 6 + kept % 13,
                "cpu_capture_us": whole * (3_000 + 8 * busy), "cpu_decode_us": whole * (8_000 + 25 * busy),
                "cpu_analyse_us": whole * (30_000 + 110 * busy), "cpu_publish_us": whole * (52_000 + 30 * busy),
                "cpu_other_us": whole * 9_000,
            }  # fmt: skip
            written.append(row)
    shutil.rmtree(lake / "capture_stats")
    add_segment(lake, "capture_stats", "s1", written)
    return dict(losses)


def last_second(lake: Path) -> int:
    """The last second with packets, since the epoch."""
    return max(_by_second(lake)[0])


def _by_second(lake: Path) -> tuple[Counter[int], Counter[int]]:
    packets: Counter[int] = Counter()
    sizes: Counter[int] = Counter()
    for path in (lake / "rollup_1s").rglob("*.parquet"):
        for row in pq.ParquetFile(path).read(columns=["ts", "packets", "bytes"]).to_pylist():
            second = int(row["ts"].replace(tzinfo=UTC).timestamp())
            packets[second] += row["packets"]
            sizes[second] += row["bytes"]
    return packets, sizes
