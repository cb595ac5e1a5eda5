"""All tables of the lake: what writers and readers share.

python -m engine.tables > docs/data-dictionary.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from engine.alert_row import ALERT_EVENTS, EVENT_MEANINGS
from engine.dissect import APPLICATIONS
from engine.dissect.base import FLOW_COLUMNS
from engine.flow_row import END_REASON_MEANINGS, FLOWS, OUTCOME_MEANINGS
from engine.model_row import MODEL_STATS
from engine.packets import PACKETS, STATUS
from engine.schema import SQL_TYPES, Column, schema_of
from engine.window_row import PAIR_WINDOWS, PORT_WINDOWS, WINDOWS

if TYPE_CHECKING:
    import pyarrow as pa

CAPTURE_STATS: Final[tuple[Column, ...]] = (
    Column("ts", "timestamp", "UTC", "End of the interval the counts are for (about one second)", "engine clock"),
    Column("source", "text", "", "Interface, or savefile path", "capture"),
    Column("interval_s", "float32", "s", "Length of the interval", "engine clock"),
    Column("received", "int64", "frames", "Frames seen for this source: rows + rows_off + kernel_drops + own drops", "ps_recv, file records"),
    Column("rows", "int64", "frames", "Frames that became rows of `packets`", "writer"),
    Column("rows_off", "int64", "frames", "Frames accounted to flows and rollups whose rows are not kept: `[lake] packets = false`", "engine", nullable=True),
    Column("kernel_drops", "int64", "frames", "Lost because the kernel's capture buffer was full", "ps_drop"),
    Column("interface_drops", "int64", "frames", "Lost by the interface or its driver before capture", "ps_ifdrop"),
    Column("drop_unread_at_stop", "int64", "frames", "Own drop: still in the kernel's buffer when capture stopped", "engine"),
    Column("drop_not_written", "int64", "frames", "Own drop: could not be written to the lake (full or failing disk)", "engine"),
    Column("drop_rows_shed", "int64", "frames", "Own drop: decoded and accounted to flows, but the row was given up under pressure",
           "engine", nullable=True),
    Column("undecodable", "int64", "frames", "Rows whose status is neither ok nor not_ip", "decoder"),
    Column("wire_bytes", "int64", "bytes", "Sum of wirelen over the rows", "decoder"),
    Column("flows", "int64", "flows", "Flows that began", "flow table", nullable=True),
    Column("flows_evicted", "int64", "flows", "Flows that ended early because the flow table was full", "flow table", nullable=True),
    Column("flows_not_written", "int64", "rows", "Rows of `flows` and application tables that could not be written", "writer", nullable=True),
    Column("messages", "int64", "messages", "Payloads handed to application parsers", "dissectors", nullable=True),
    Column("messages_missed", "int64", "messages", "Payloads not parsed because the CPU budget was used up", "dissectors", nullable=True),
    Column("messages_bad", "int64", "messages", "Payloads of a recognised application that its parser could not read", "dissectors", nullable=True),
    Column("frames_stored", "int64", "frames", "Frames whose bytes went to the ring of raw frames", "frame ring", nullable=True),
    Column("frames_not_stored", "int64", "frames", "Frames whose bytes could not be written to the ring", "frame ring", nullable=True),
    Column("scored", "int64", "packets", "Packets that a model gave an anomaly score", "scoring", nullable=True),
    Column("candidates_missed", "int64", "packets", "Packets that a signature may have matched, not looked at beyond the CPU budget",
           "signatures", nullable=True),
    Column("scores_shed", "int64", "packets", "Packets not scored under pressure, although there is a model", "scoring", nullable=True),
    Column("pool_fill", "int64", "%", "Highest part of the engine's batches in use within the interval; work is given up from 50 % on", "engine", nullable=True),
    Column("ring_frames", "int64", "frames", "Most frames that waited in the kernel's buffer, of five looks a second", "ps_recv", nullable=True),
    Column("cpu_capture_us", "int64", "us", "CPU time of the threads that capture. This and the next four are of the whole engine; one row of an interval has them, other sources have 0, so they add up", "thread clock", nullable=True),
    Column("cpu_decode_us", "int64", "us", "CPU time of the threads that decode", "thread clock", nullable=True),
    Column("cpu_analyse_us", "int64", "us", "CPU time of the thread that follows flows, reads applications, scores and detects", "thread clock", nullable=True),
    Column("cpu_publish_us", "int64", "us", "CPU time of the thread that writes segments", "thread clock", nullable=True),
    Column("cpu_other_us", "int64", "us", "CPU time of all other threads of the engine's process", "process clock", nullable=True),
)  # fmt: skip
OWN_DROPS: Final = tuple(c.name for c in CAPTURE_STATS if c.name.startswith("drop_"))

ADDRESSES: Final[tuple[Column, ...]] = (
    Column("ip", "text", "", "An address seen in src_ip, dst_ip, inner or ARP columns", "decoder"),
    Column("first_seen", "timestamp", "UTC", "Start of the batch in which this run first saw it; an address may repeat between runs", "decoder"),
)  # fmt: skip

ROLLUP_1S: Final[tuple[Column, ...]] = (
    Column("ts", "timestamp", "UTC", "Start of the second", "libpcap ts"),
    Column("source", "text", "", "Interface, or savefile path", "capture"),
    Column("ip_version", "int16", "", "4 or 6; NULL without an IP header", "RFC 791, 8200", nullable=True),
    Column("proto", "int16", "", "Protocol number; NULL without one", "IANA protocol numbers", nullable=True),
    Column("ethertype", "int32", "", "EtherType of frames without an IP header", "IEEE 802.3", nullable=True),
    Column("app", "text", "", "Application protocol, as in `packets`", "dissectors", nullable=True),
    Column("packets", "int64", "packets", "Packets of these values in this second. A second may have several such rows: they add up; the sum over all is the number of rows of `packets`", "decoder"),
    Column("bytes", "int64", "bytes", "Sum of wirelen", "decoder"),
    Column("payload", "int64", "bytes", "Sum of payload_len", "decoder"),
    Column("fragments", "int64", "packets", "Those that are fragments", "decoder"),
    Column("undecodable", "int64", "packets", "Those whose status is neither ok nor not_ip", "decoder"),
    Column("syns", "int64", "packets", "TCP segments with SYN and without ACK", "RFC 9293 3.1"),
)  # fmt: skip

ROLLUP_1M: Final[tuple[Column, ...]] = (
    Column("ts", "timestamp", "UTC", "Start of the minute", "libpcap ts"),
    Column("source", "text", "", "Interface, or savefile path", "capture"),
    Column("dimension", "text", "", "What `key` is: src_ip, dst_ip, or port (the lower of the two)", "engine"),
    Column("key", "text", "", "An address, or a port as in `443 tcp`. NULL: all packets of the minute that no other row counts, so that the sum over a dimension is the number of rows of `packets`", "decoder", nullable=True),
    Column("keys", "int64", "", "How many keys the row is of: 1, of a rest at least 1, 0 for packets that have none", "engine"),
    Column("packets", "int64", "packets", "Packets. A minute may have several rows of a key: they add up", "decoder"),
    Column("bytes", "int64", "bytes", "Sum of wirelen", "decoder"),
)  # fmt: skip

APPLICATION_TABLES: Final = {a.name: (*FLOW_COLUMNS, *a.columns) for a in APPLICATIONS if a.columns}
TABLES: Final[dict[str, tuple[Column, ...]]] = {
    "packets": PACKETS,
    "flows": FLOWS,
    "capture_stats": CAPTURE_STATS,
    "addresses": ADDRESSES,
    "rollup_1s": ROLLUP_1S,
    "rollup_1m": ROLLUP_1M,
    "windows": WINDOWS,
    "pair_windows": PAIR_WINDOWS,
    "port_windows": PORT_WINDOWS,
    "alert_events": ALERT_EVENTS,
    "model_stats": MODEL_STATS,
    **APPLICATION_TABLES,
}
_DICTIONARIES: Final = ("packets", "flows", "rollup_1s", "rollup_1m")  # tables whose text columns are dictionary-encoded in memory


def arrow_schema(table: str) -> pa.Schema:
    """The Arrow schema of a table's segments: the stored columns, in order."""
    return schema_of(TABLES[table], table in _DICTIONARIES)


def data_dictionary() -> str:
    """docs/data-dictionary.md as text."""
    lines = [
        "# Data dictionary",
        "",
        "Generated by `python -m engine.tables` from `engine/tables.py` and the files it names; do not edit.",
        "Absent is NULL, never 0. Times are UTC in columns of type TIMESTAMP without a zone, which DuckDB, Spark and",
        "ClickHouse all read. Columns whose source is `view` are computed by DuckDB's views and stored nowhere.",
        "",
    ]
    about = {a.name: a.meaning for a in APPLICATIONS}
    for table, columns in TABLES.items():
        lines += [f"## {table}", ""]
        if table in about:
            lines += [f"{about[table]}.", ""]
        lines += ["| column | SQL type | unit | NULL | meaning | source |", "|---|---|---|---|---|---|"]
        lines += [
            f"| `{c.name}` | {SQL_TYPES[c.type]} | {c.unit} | {'yes' if c.may_be_null else 'never'} "
            f"| {c.meaning} | {c.source} |"
            for c in columns
        ]
        lines.append("")
    lines += ["## Values of `packets.status`", "", "| status | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in STATUS]
    lines += ["", "## Values of `flows.outcome`", "", "| outcome | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in OUTCOME_MEANINGS]
    lines += ["", "## Values of `flows.end_reason`", "", "| end_reason | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in END_REASON_MEANINGS]
    lines += ["", "## Values of `alert_events.event`", "", "| event | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in EVENT_MEANINGS]
    lines += ["", "## Values of `app`", "", "| app | encrypted | meaning |", "|---|---|---|"]
    lines += [
        f"| {', '.join(f'`{n}`' for n in a.names)} | {'yes' if a.encrypted else 'no'} | {a.meaning} |"
        for a in APPLICATIONS
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(data_dictionary(), end="")  # noqa: T201 — this is the command's output
