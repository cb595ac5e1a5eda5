"""The packet row: the one definition that batches, Arrow schemas and SQL views come from.

A *frame* is the bytes a link carried; a *packet* is the decoded row. Every frame becomes exactly one row, whose
`status` says how far decoding got. A `PacketBatch` keeps rows as columns: one 2-D array per numpy dtype, one row of
that array per column, so each column is contiguous and becomes an Arrow buffer without a copy. Validity (NULL or not)
is kept as one 32-bit set of *groups* per packet, because fields come and go together: a packet has both ports or none.

For a column of PACKETS, `storage` names the array of a PacketBatch that holds it ("short" int16, "int" int32, "long"
int64, "float" float32, "bit" one validity bit) and `index` its row there (the bit's value for "bit"). `group` is the
validity group, 0 for a column that is never NULL. Text is `labels` by an int16 index, or an index into the dictionary
of the batch that `labels` names ("ip", "rare_ip", "mac", "app", "name", "frame_file").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from engine.schema import Column

if TYPE_CHECKING:
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
HAS_FLOW: Final = 1 << 17
HAS_APP: Final = 1 << 18
HAS_NAME: Final = 1 << 19
HAS_FRAME: Final = 1 << 20
IS_ENCRYPTED: Final = 1 << 21  # a value
HAS_ANOMALY: Final = 1 << 22
N_GROUPS: Final = 23  # groups that become bitmaps
IS_INNER_IPV6: Final = 1 << 23  # how to read the inner addresses
HAS_INNER_TCP: Final = 1 << 24
HAS_INNER_ICMP: Final = 1 << 25
HAS_INNER_PAYLOAD: Final = 1 << 26
IS_LATER_FRAGMENT: Final = 1 << 27  # the transport header is in another frame

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
    S_ENCAP, S_INNER_PROTO, S_ARP_OP, S_APP,
    S_INNER_TCP_FLAGS, S_INNER_ICMP_TYPE, S_INNER_ICMP_CODE,  # for the flow table, no columns
    N_SHORT,
) = range(18)  # fmt: skip
(
    I_CAPLEN, I_ETHERTYPE, I_SRC_PORT, I_DST_PORT, I_TCP_WINDOW, I_INNER_SRC_PORT, I_INNER_DST_PORT,
    I_SRC_IP, I_DST_IP, I_INNER_SRC_IP, I_INNER_DST_IP, I_ARP_SRC_IP, I_ARP_DST_IP, I_SRC_MAC, I_DST_MAC,
    I_NAME, I_FRAME_FILE,  # entries in the batch's dictionaries
    I_PAYLOAD, I_PAYLOAD_END,  # arena: first byte of the (inner) payload, one past its last captured byte
    I_FRAGMENT,  # IP identification of a fragment
    N_INT,
) = range(21)  # fmt: skip
(
    L_TS, L_FRAME_NO, L_WIRELEN, L_PAYLOAD_LEN, L_TCP_SEQ, L_TCP_ACK, L_FLOW_ID, L_FRAME_OFFSET,
    L_INNER_SEQ, L_INNER_ACK, L_INNER_PAYLOAD_LEN,  # for the flow table, no columns
    N_LONG,
) = range(12)  # fmt: skip
# Addresses as numbers: 128 bits in two rows (an IPv4 address has hi == 0), a MAC in one.
(
    A_SRC_HI, A_SRC_LO, A_DST_HI, A_DST_LO, A_INNER_SRC_HI, A_INNER_SRC_LO, A_INNER_DST_HI, A_INNER_DST_LO,
    A_ARP_SRC, A_ARP_DST, A_SRC_MAC, A_DST_MAC, N_ADDRESS,
) = range(13)  # fmt: skip


# --- how each column lies in Parquet, chosen by measurement (docs/performance.md); see `engine.schema` for the words ---
# No BYTE_STREAM_SPLIT: a sixth smaller at the same cost, but Spark before 4.3 refuses it. Statistics cost 1 ns a number,
# 5 to 20 ns a text, so only columns have them by which whole row groups can be passed over.
_ENCODINGS: Final = {
    "ts": "delta stats", "ts_nanos": "delta", "source": "dict zstd", "frame_no": "delta snappy stats",
    "wirelen": "delta snappy", "caplen": "delta snappy", "src_mac": "dict zstd", "dst_mac": "dict zstd",
    "ethertype": "plain snappy stats", "vlan": "plain snappy stats", "vlan_inner": "plain snappy stats",
    "ip_version": "plain snappy stats", "src_ip": "dict zstd", "dst_ip": "dict zstd", "proto": "dict snappy stats",
    "ttl": "dict snappy", "is_fragment": "plain snappy stats", "src_port": "plain zstd stats",
    "dst_port": "plain zstd stats", "tcp_flags": "dict snappy stats", "tcp_seq": "delta", "tcp_ack": "delta",
    "tcp_window": "plain zstd", "icmp_type": "plain snappy stats", "icmp_code": "plain snappy stats",
    "payload_len": "delta snappy", "entropy": "plain zstd", "encap": "dict snappy stats",
    "inner_src_ip": "dict zstd", "inner_dst_ip": "dict zstd", "inner_proto": "plain snappy stats",
    "inner_src_port": "plain snappy stats", "inner_dst_port": "plain snappy stats", "arp_op": "plain snappy stats",
    "arp_src_ip": "dict zstd", "arp_dst_ip": "dict zstd", "status": "dict zstd stats", "app": "dict zstd",
    "server_name": "dict zstd", "encrypted": "plain snappy stats", "flow_id": "plain zstd stats",
    "frame_file": "dict zstd", "frame_offset": "delta zstd", "anomaly": "plain zstd",
}  # fmt: skip


def _c(name: str, kind: str, unit: str, meaning: str, source: str, at: tuple[str, int], group: int = 0,
       labels: tuple[str, ...] | str = ()) -> Column:  # fmt: skip
    return Column(name, kind, unit, meaning, source, at[0], at[1], group, labels, encoding=_ENCODINGS[name])


PACKETS: Final[tuple[Column, ...]] = (
    _c("ts", "timestamp", "UTC", "When the frame was captured, to the microsecond", "libpcap ts", ("long", L_TS)),
    _c("ts_nanos", "int16", "ns", "Nanoseconds within that microsecond, 0 to 999", "libpcap ts", ("short", S_TS_NANOS)),
    Column("source", "text", "", "Interface name, or the savefile's path as given", "capture", "source",
           encoding=_ENCODINGS["source"]),
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
    _c("inner_src_ip", "text", "", "Source address inside the tunnel", "as src_ip", ("int", I_INNER_SRC_IP), HAS_INNER_IP, "rare_ip"),
    _c("inner_dst_ip", "text", "", "Destination address inside the tunnel", "as dst_ip", ("int", I_INNER_DST_IP),
       HAS_INNER_IP, "rare_ip"),
    _c("inner_proto", "int16", "", "Protocol number inside the tunnel", "as proto", ("short", S_INNER_PROTO), HAS_INNER_PROTO),
    _c("inner_src_port", "int32", "", "Source port inside the tunnel", "as src_port", ("int", I_INNER_SRC_PORT), HAS_INNER_PORTS),
    _c("inner_dst_port", "int32", "", "Destination port inside the tunnel", "as dst_port", ("int", I_INNER_DST_PORT),
       HAS_INNER_PORTS),
    _c("arp_op", "int16", "", "1 request, 2 reply", "RFC 826", ("short", S_ARP_OP), HAS_ARP),
    _c("arp_src_ip", "text", "", "Sender's IPv4 address", "RFC 826", ("int", I_ARP_SRC_IP), HAS_ARP, "rare_ip"),
    _c("arp_dst_ip", "text", "", "Target's IPv4 address", "RFC 826", ("int", I_ARP_DST_IP), HAS_ARP, "rare_ip"),
    _c("status", "text", "", "How far decoding got, see below", "decoder", ("short", S_STATUS), 0, STATUS_NAMES),
    _c("app", "text", "", "Application protocol of the flow, by content, as far as it was known at this packet",
       "dissectors", ("short", S_APP), HAS_APP, "app"),
    _c("server_name", "text", "", "The server as the client named it: SNI, Host, query", "dissectors", ("int", I_NAME),
       HAS_NAME, "name"),
    _c("encrypted", "bool", "", "The application encrypts its payload: high entropy is expected", "dissectors",
       ("bit", IS_ENCRYPTED), HAS_APP),
    _c("flow_id", "int64", "", "The flow the packet belongs to; NULL without an IP header", "flow table",
       ("long", L_FLOW_ID), HAS_FLOW),
    _c("frame_file", "text", "", "The segment of raw frames that holds its bytes, below the lake's `frames/`", "frame ring",
       ("int", I_FRAME_FILE), HAS_FRAME, "frame_file"),
    _c("frame_offset", "int64", "bytes", "Where its record begins there", "frame ring", ("long", L_FRAME_OFFSET), HAS_FRAME),
    _c("anomaly", "float32", "", "How unusual the packet is by itself: the share of the packets its model learned from that "
       "are less unusual, 0 to 1; NULL while there is no model", "isolation forest (Liu, Ting, Zhou 2008)", ("float", 1), HAS_ANOMALY),
)  # fmt: skip

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
        entropy, anomaly: float32[n]. present: uint32[n], the validity groups of each packet.
        count: rows present. source: where they were captured. undecodable, wire_bytes: totals over the rows.
        names, frame_files: dictionaries of the server_name and frame_file columns.

    A slot whose group is absent holds whatever an earlier packet left there.
    """

    __slots__ = (
        "address", "anomaly", "count", "entropy", "frame_files", "int_", "long", "names", "present", "short", "source",
        "undecodable", "wire_bytes",
    )  # fmt: skip

    def __init__(self, rows: int = ROWS_PER_BATCH) -> None:
        self.short: NDArray[np.int16] = np.zeros((N_SHORT, rows), np.int16)
        self.int_: NDArray[np.int32] = np.zeros((N_INT, rows), np.int32)
        self.long: NDArray[np.int64] = np.zeros((N_LONG, rows), np.int64)
        self.address: NDArray[np.uint64] = np.zeros((N_ADDRESS, rows), np.uint64)
        self.entropy: NDArray[np.float32] = np.zeros(rows, np.float32)
        self.anomaly: NDArray[np.float32] = np.zeros(rows, np.float32)
        self.present: NDArray[np.uint32] = np.zeros(rows, np.uint32)
        self.count = 0
        self.source = ""
        self.names: list[str] = []
        self.frame_files: list[str] = []
        self.undecodable = 0
        self.wire_bytes = 0
