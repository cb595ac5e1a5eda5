"""The packet row: the one definition that batches, Arrow schemas, SQL views and docs/data-dictionary.md come from.

A *frame* is the bytes a link carried; a *packet* is the decoded row. Every frame becomes exactly one row, whose
`status` says how far decoding got. A `PacketBatch` keeps rows as columns: one 2-D array per numpy dtype, one row of
that array per column, so each column is contiguous and becomes an Arrow buffer without a copy. Validity (NULL or not)
is kept as one 32-bit set of *groups* per packet, because fields come and go together: a packet has both ports or none.

    python -m engine.packets > docs/data-dictionary.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

# Not a power of two: columns would then lie a multiple of 4096 bytes apart and evict each other from the first-level
# cache while a row is stored (150 instead of 140 ns a frame).
ROWS_PER_BATCH: Final = 32_800
ARENA_BYTES: Final = 8 << 20

# --- validity groups (bits of PacketBatch.present) -------------------------------------------------------------
HAS_MAC: Final = 1 << 0
HAS_ETHERTYPE: Final = 1 << 1
HAS_VLAN: Final = 1 << 2
HAS_VLAN_INNER: Final = 1 << 3
HAS_IP: Final = 1 << 4
HAS_PROTO: Final = 1 << 5
HAS_PORTS: Final = 1 << 6
HAS_TCP: Final = 1 << 7
HAS_ICMP: Final = 1 << 8
HAS_PAYLOAD: Final = 1 << 9
HAS_ENTROPY: Final = 1 << 10
HAS_ENCAP: Final = 1 << 11
HAS_INNER_IP: Final = 1 << 12
HAS_INNER_PORTS: Final = 1 << 13
HAS_ARP: Final = 1 << 14
HAS_INNER_PROTO: Final = 1 << 15
IS_FRAGMENT: Final = 1 << 16  # a value, not a validity: bit-packed into the boolean column
N_GROUPS: Final = 17  # groups that become bitmaps
IS_INNER_IPV6: Final = 1 << 17  # how to read the inner addresses

# --- status: how far decoding got. Only the first two are complete; the rest count as undecodable ----------------
STATUS: Final = (
    ("ok", "decoded to the transport header, or as far as its protocol is known"),
    ("not_ip", "a whole frame that carries no IP (ARP, LLDP, STP, ...)"),
    ("unsupported_link", "the interface's link type has no decoder; times and lengths only"),
    ("truncated_link", "the captured bytes end inside the link-layer headers"),
    ("truncated_network", "the captured bytes end inside the IP header or its extensions"),
    ("truncated_transport", "the captured bytes end inside the transport header; addresses are valid"),
    ("bad_network", "the IP header contradicts itself (version, header length, total length)"),
    ("bad_transport", "the transport header contradicts itself or the IP length"),
    ("too_deep", "more stacked headers than the decoder follows"),
)
STATUS_NAMES: Final = tuple(name for name, _ in STATUS)
(
    OK, NOT_IP, UNSUPPORTED_LINK, TRUNCATED_LINK, TRUNCATED_NETWORK,
    TRUNCATED_TRANSPORT, BAD_NETWORK, BAD_TRANSPORT, TOO_DEEP,
) = range(len(STATUS))  # fmt: skip

ENCAP_NAMES: Final = ("ipip", "6in4", "gre", "vxlan", "geneve", "gtpu")
ENCAP_IPIP, ENCAP_6IN4, ENCAP_GRE, ENCAP_VXLAN, ENCAP_GENEVE, ENCAP_GTPU = range(len(ENCAP_NAMES))

# --- storage: row numbers inside the arrays of a PacketBatch, one array per dtype --------------------------------
# Integers are signed and wide enough, because SQL users subtract columns and DuckDB's unsigned types overflow there.
(
    S_STATUS, S_TS_NANOS, S_VLAN, S_VLAN_INNER, S_IP_VERSION, S_PROTO, S_TTL, S_TCP_FLAGS, S_ICMP_TYPE, S_ICMP_CODE,
    S_ENCAP, S_INNER_PROTO, S_ARP_OP, N_SHORT,
) = range(14)  # fmt: skip
(
    I_CAPLEN, I_ETHERTYPE, I_SRC_PORT, I_DST_PORT, I_TCP_WINDOW, I_INNER_SRC_PORT, I_INNER_DST_PORT,
    I_SRC_IP, I_DST_IP, I_INNER_SRC_IP, I_INNER_DST_IP, I_ARP_SRC_IP, I_ARP_DST_IP, I_SRC_MAC, I_DST_MAC, N_INT,
) = range(16)  # fmt: skip
L_TS, L_FRAME_NO, L_WIRELEN, L_PAYLOAD_LEN, L_TCP_SEQ, L_TCP_ACK, N_LONG = range(7)
# Addresses as numbers: 128 bits in two rows (an IPv4 address has hi == 0), a MAC in one.
(
    A_SRC_HI, A_SRC_LO, A_DST_HI, A_DST_LO, A_INNER_SRC_HI, A_INNER_SRC_LO, A_INNER_DST_HI, A_INNER_DST_LO,
    A_ARP_SRC, A_ARP_DST, A_SRC_MAC, A_DST_MAC, N_ADDRESS,
) = range(13)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table of the lake.

    `storage` names the array of a PacketBatch that holds it ("short" int16, "int" int32, "long" int64, "float"
    float32, "bit" one validity bit) and `index` its row there (the bit's value for "bit"). `group` is the validity
    group, 0 for a column that is never NULL. `labels` turns small integers into text; "ip" and "mac" columns hold
    indexes into the batch's dictionary of formatted addresses. A `reserved` column has no storage yet: SQL shows
    it as NULL of its type, so that queries written today keep working when it is filled.
    """

    name: str
    type: str
    unit: str
    meaning: str
    source: str
    storage: str = ""
    index: int = 0
    group: int = 0
    labels: tuple[str, ...] | str = ()
    reserved: bool = False


def _c(name: str, kind: str, unit: str, meaning: str, source: str, at: tuple[str, int], group: int = 0,
       labels: tuple[str, ...] | str = ()) -> Column:  # fmt: skip
    return Column(name, kind, unit, meaning, source, at[0], at[1], group, labels)


PACKETS: Final[tuple[Column, ...]] = (
    _c("ts", "timestamp", "UTC", "When the frame was captured, to the microsecond", "libpcap ts", ("long", L_TS)),
    _c("ts_nanos", "int16", "ns", "Nanoseconds within that microsecond, 0 to 999", "libpcap ts", ("short", S_TS_NANOS)),
    Column("source", "text", "", "Interface name, or the savefile's path as given", "capture", "source"),
    _c("frame_no", "int64", "", "Number of the frame within its source, from 1", "capture", ("long", L_FRAME_NO)),
    _c("wirelen", "int64", "bytes", "Length of the frame on the wire", "libpcap len", ("long", L_WIRELEN)),
    _c("caplen", "int32", "bytes", "Bytes of it that were captured", "libpcap caplen", ("int", I_CAPLEN)),
    _c("src_mac", "text", "", "Ethernet source", "IEEE 802.3", ("int", I_SRC_MAC), HAS_MAC, "mac"),
    _c("dst_mac", "text", "", "Ethernet destination", "IEEE 802.3", ("int", I_DST_MAC), HAS_MAC, "mac"),
    _c("ethertype", "int32", "", "EtherType of the outermost header (33024 on a tagged frame); NULL for an 802.3 length",
       "IEEE 802.3", ("int", I_ETHERTYPE), HAS_ETHERTYPE),
    _c("vlan", "int16", "", "VLAN ID of the outer tag", "IEEE 802.1Q", ("short", S_VLAN), HAS_VLAN),
    _c("vlan_inner", "int16", "", "VLAN ID of the second tag", "IEEE 802.1ad", ("short", S_VLAN_INNER), HAS_VLAN_INNER),
    _c("ip_version", "int16", "", "4 or 6, of the outermost IP header", "RFC 791, 8200", ("short", S_IP_VERSION), HAS_IP),
    _c("src_ip", "text", "", "Source address of the outermost IP header", "RFC 791, 8200; text RFC 5952",
       ("int", I_SRC_IP), HAS_IP, "ip"),
    _c("dst_ip", "text", "", "Destination address of the outermost IP header", "RFC 791, 8200; text RFC 5952",
       ("int", I_DST_IP), HAS_IP, "ip"),
    _c("proto", "int16", "", "Protocol number after all IPv6 extension headers (AH stays 51)", "IANA protocol numbers",
       ("short", S_PROTO), HAS_PROTO),
    _c("ttl", "int16", "hops", "Time to live, or hop limit", "RFC 791, 8200", ("short", S_TTL), HAS_IP),
    _c("is_fragment", "bool", "", "Part of a fragmented packet (offset or more-fragments set)", "RFC 791, 8200 4.5",
       ("bit", IS_FRAGMENT), HAS_IP),
    _c("src_port", "int32", "", "Source port (TCP, UDP, UDP-Lite, SCTP, DCCP); NULL on later fragments", "RFC 9293, 768",
       ("int", I_SRC_PORT), HAS_PORTS),
    _c("dst_port", "int32", "", "Destination port", "RFC 9293, 768", ("int", I_DST_PORT), HAS_PORTS),
    _c("tcp_flags", "int16", "bits", "CWR ECE URG ACK PSH RST SYN FIN, 128 to 1", "RFC 9293 3.1", ("short", S_TCP_FLAGS),
       HAS_TCP),
    _c("tcp_seq", "int64", "", "Sequence number as sent", "RFC 9293 3.1", ("long", L_TCP_SEQ), HAS_TCP),
    _c("tcp_ack", "int64", "", "Acknowledgment number as sent", "RFC 9293 3.1", ("long", L_TCP_ACK), HAS_TCP),
    _c("tcp_window", "int32", "bytes", "Window as sent, not scaled", "RFC 9293 3.1", ("int", I_TCP_WINDOW), HAS_TCP),
    _c("icmp_type", "int16", "", "ICMP or ICMPv6 type", "RFC 792, 4443", ("short", S_ICMP_TYPE), HAS_ICMP),
    _c("icmp_code", "int16", "", "ICMP or ICMPv6 code", "RFC 792, 4443", ("short", S_ICMP_CODE), HAS_ICMP),
    _c("payload_len", "int64", "bytes", "Payload above the transport header as the headers claim it (padding excluded; "
       "an IP total length of 0 is read to the end of the frame)", "RFC 791, 768, 9293", ("long", L_PAYLOAD_LEN), HAS_PAYLOAD),
    _c("entropy", "float32", "bits per byte", "Shannon entropy of the captured payload bytes, 0 to 8; NULL without any",
       "Shannon 1948", ("float", 0), HAS_ENTROPY),
    _c("encap", "text", "", "The tunnel this packet carries: " + ", ".join(ENCAP_NAMES),
       "RFC 2003, 4213, 2784, 7348, 8926; TS 29.281", ("short", S_ENCAP), HAS_ENCAP, ENCAP_NAMES),
    _c("inner_src_ip", "text", "", "Source address inside the tunnel", "as src_ip", ("int", I_INNER_SRC_IP), HAS_INNER_IP, "ip"),
    _c("inner_dst_ip", "text", "", "Destination address inside the tunnel", "as dst_ip", ("int", I_INNER_DST_IP),
       HAS_INNER_IP, "ip"),
    _c("inner_proto", "int16", "", "Protocol number inside the tunnel", "as proto", ("short", S_INNER_PROTO), HAS_INNER_PROTO),
    _c("inner_src_port", "int32", "", "Source port inside the tunnel", "as src_port", ("int", I_INNER_SRC_PORT), HAS_INNER_PORTS),
    _c("inner_dst_port", "int32", "", "Destination port inside the tunnel", "as dst_port", ("int", I_INNER_DST_PORT),
       HAS_INNER_PORTS),
    _c("arp_op", "int16", "", "1 request, 2 reply", "RFC 826", ("short", S_ARP_OP), HAS_ARP),
    _c("arp_src_ip", "text", "", "Sender's IPv4 address", "RFC 826", ("int", I_ARP_SRC_IP), HAS_ARP, "ip"),
    _c("arp_dst_ip", "text", "", "Target's IPv4 address", "RFC 826", ("int", I_ARP_DST_IP), HAS_ARP, "ip"),
    _c("status", "text", "", "How far decoding got, see below", "decoder", ("short", S_STATUS), 0, STATUS_NAMES),
    Column("app", "text", "", "Application protocol, by content", "reserved, NULL in this version", reserved=True),
    Column("flow_id", "int64", "", "The flow the packet belongs to", "reserved, NULL in this version", reserved=True),
    Column("anomaly", "float32", "", "Isolation-forest score", "reserved, NULL in this version", reserved=True),
)  # fmt: skip

CAPTURE_STATS: Final[tuple[Column, ...]] = (
    Column("ts", "timestamp", "UTC", "End of the interval the counts are for (about one second)", "engine clock"),
    Column("source", "text", "", "Interface, or savefile path", "capture"),
    Column("interval_s", "float32", "s", "Length of the interval", "engine clock"),
    Column("received", "int64", "frames", "Frames seen for this source: rows + kernel_drops + own drops", "ps_recv, file records"),
    Column("rows", "int64", "frames", "Frames that became rows of `packets`", "writer"),
    Column("kernel_drops", "int64", "frames", "Lost because the kernel's capture buffer was full", "ps_drop"),
    Column("interface_drops", "int64", "frames", "Lost by the interface or its driver before capture", "ps_ifdrop"),
    Column("drop_unread_at_stop", "int64", "frames", "Own drop: still in the kernel's buffer when capture stopped", "engine"),
    Column("drop_not_written", "int64", "frames", "Own drop: could not be written to the lake (full or failing disk)", "engine"),
    Column("undecodable", "int64", "frames", "Rows whose status is neither ok nor not_ip", "decoder"),
    Column("wire_bytes", "int64", "bytes", "Sum of wirelen over the rows", "decoder"),
)
OWN_DROPS: Final = tuple(c.name for c in CAPTURE_STATS if c.name.startswith("drop_"))

ADDRESSES: Final[tuple[Column, ...]] = (
    Column("ip", "text", "", "An address seen in src_ip, dst_ip, inner or ARP columns", "decoder"),
    Column("first_seen", "timestamp", "UTC", "Start of the batch in which this run first saw it; an address may repeat between runs", "decoder"),
)

TABLES: Final = {"packets": PACKETS, "capture_stats": CAPTURE_STATS, "addresses": ADDRESSES}


def arrow_schema(table: str) -> pa.Schema:
    """The Arrow schema of a table's segments (reserved columns left out). Text of packets is dictionary-encoded."""
    import pyarrow as pa

    types: dict[str, Any] = {
        "timestamp": pa.timestamp("us"), "int16": pa.int16(), "int32": pa.int32(), "int64": pa.int64(),
        "float32": pa.float32(), "bool": pa.bool_(), "text": pa.string(),
    }  # fmt: skip

    def arrow_type(column: Column) -> Any:
        if column.type == "text" and table == "packets":
            # Labels are indexed by the int16 column itself; addresses by int32 positions in the batch's dictionary.
            return pa.dictionary(pa.int16() if isinstance(column.labels, tuple) and column.labels else pa.int32(), pa.string())
        return types[column.type]

    return pa.schema(pa.field(c.name, arrow_type(c), nullable=c.group != 0) for c in TABLES[table] if not c.reserved)


SQL_TYPES: Final = {
    "timestamp": "TIMESTAMP", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT",
    "float32": "FLOAT", "bool": "BOOLEAN", "text": "VARCHAR",
}  # fmt: skip


class FrameBatch:
    """Captured frames: their bytes back to back in one arena, and where each lies.

    Attributes:
        arena: uint8[ARENA_BYTES]. Frame bytes, and whatever lies between them in a savefile.
        frames: int64[N_FRAME, ROWS_PER_BATCH]. Rows F_TS_NS (ns since the epoch), F_OFFSET (first byte in the
            arena), F_CAPLEN, F_WIRELEN (bytes), F_LINK_TYPE (link type, -1 when the interface has none we know).
        count: frames present. source: name of the interface or file. first_frame_no: number of frame 0, from 1.
    """

    __slots__ = ("arena", "count", "first_frame_no", "frames", "source")

    def __init__(self, rows: int = ROWS_PER_BATCH, arena_bytes: int = ARENA_BYTES) -> None:
        self.arena: NDArray[np.uint8] = np.empty(arena_bytes, np.uint8)
        self.frames: NDArray[np.int64] = np.empty((N_FRAME, rows), np.int64)
        self.clear()

    def clear(self) -> None:
        self.count = 0
        self.source = ""
        self.first_frame_no = 1


F_TS_NS, F_OFFSET, F_CAPLEN, F_WIRELEN, F_LINK_TYPE, N_FRAME = range(6)


class PacketBatch:
    """Decoded rows as columns; `engine.decode` fills it from a FrameBatch, `engine.columns` reads it as Arrow.

    Attributes (n = rows):
        short: int16[N_SHORT, n]. int_: int32[N_INT, n]. long: int64[N_LONG, n]. address: uint64[N_ADDRESS, n].
        entropy: float32[n]. present: uint32[n], the validity groups of each packet.
        count: rows present. source: where they were captured. undecodable, wire_bytes: totals over the rows.

    A slot whose group is absent holds whatever an earlier packet left there.
    """

    __slots__ = ("address", "count", "entropy", "int_", "long", "present", "short", "source", "undecodable", "wire_bytes")

    def __init__(self, rows: int = ROWS_PER_BATCH) -> None:
        self.short: NDArray[np.int16] = np.zeros((N_SHORT, rows), np.int16)
        self.int_: NDArray[np.int32] = np.zeros((N_INT, rows), np.int32)
        self.long: NDArray[np.int64] = np.zeros((N_LONG, rows), np.int64)
        self.address: NDArray[np.uint64] = np.zeros((N_ADDRESS, rows), np.uint64)
        self.entropy: NDArray[np.float32] = np.zeros(rows, np.float32)
        self.present: NDArray[np.uint32] = np.zeros(rows, np.uint32)
        self.count = 0
        self.source = ""
        self.undecodable = 0
        self.wire_bytes = 0


def data_dictionary() -> str:
    """docs/data-dictionary.md as text."""
    lines = [
        "# Data dictionary",
        "",
        "Generated by `python -m engine.packets` from `engine/packets.py`; do not edit. Absent is NULL, never 0.",
        "Times are UTC in columns of type TIMESTAMP without a zone, which DuckDB, Spark and ClickHouse all read.",
        "",
    ]
    for table, columns in TABLES.items():
        lines += [f"## {table}", "", "| column | SQL type | unit | NULL | meaning | source |", "|---|---|---|---|---|---|"]
        lines += [
            f"| `{c.name}` | {SQL_TYPES[c.type]} | {c.unit} | {'yes' if c.group or c.reserved else 'never'} | {c.meaning} | {c.source} |"
            for c in columns
        ]
        lines.append("")
    lines += ["## Values of `packets.status`", "", "| status | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in STATUS]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(data_dictionary(), end="")  # noqa: T201 — this is the command's output
