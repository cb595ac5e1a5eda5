"""Bytes of packets from the ring of raw frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from analytics import inspector
from analytics.frame_files import FrameFiles, Rows, plan
from analytics.layers import layers
from engine.errors import StoreError

PREVIEW: Final = 32  # bytes of payload
HEADERS_END: Final = 512  # bytes of a frame in which the first of them is looked for

# Layers that carry no user's data; whatever is not named here is payload.
HEADERS: Final = frozenset({
    "ethernet", "llc", "vlan", "mpls", "control_word", "pppoe", "sll", "sll2", "null", "ipv4", "ipv6", "hop_by_hop",
    "routing", "destination_options", "mobility", "fragment", "ah", "esp", "tcp", "udp", "udplite", "icmp", "icmpv6", "igmp", "arp",
    "sctp", "gre", "vxlan", "geneve", "gtpu",
})  # fmt: skip


def one(lake: Path, row: dict[str, Any]) -> inspector.Frame:
    """Raises StoreError when it is not there."""
    names = ("ts", "ts_nanos", "frame_no", "wirelen", "caplen", "source", "frame_file", "frame_offset")
    return inspector._read(lake, tuple(row[name] for name in names))


def previews(lake: Path, rows: list[dict[str, Any]]) -> list[str | None]:
    """The first bytes of each payload in hexadecimal; None where there is none, or the frame is gone."""
    out: list[str | None] = [None] * len(rows)
    wanted = [i for i, row in enumerate(rows) if row["payload_len"] and row["frame_file"] is not None]
    if not wanted:
        return out
    names = sorted({rows[i]["frame_file"] for i in wanted})
    columns = [[names.index(rows[i]["frame_file"]) for i in wanted]]
    columns += [[rows[i][name] for i in wanted] for name in ("frame_offset", "ts", "ts_nanos", "wirelen", "caplen")]
    where = Rows(*(np.array(column, np.int64) for column in columns))
    files = FrameFiles(lake)
    try:
        kinds = [files.link_type(name) for name in names]
        records = files.read(names, where, plan(where))
        for n, i in enumerate(wanted):
            kind = kinds[columns[0][n]]
            if records.ok[n] and kind is not None:
                at = int(records.at[n])
                out[i] = _payload(records.data[at : at + min(int(records.caplen[n]), HEADERS_END)].tobytes(), kind)
    except StoreError:  # may not be read: the inspector says so
        return [None] * len(rows)
    finally:
        files.close()
    return out


def _payload(frame: bytes, link_type: int) -> str | None:
    start = next((la.start for la in layers(frame, link_type) if la.name not in HEADERS and la.name != "padding"), None)
    return None if start is None else frame[start : start + PREVIEW].hex()
