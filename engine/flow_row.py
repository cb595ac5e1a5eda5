"""The flow row: how a flow is kept while it lives (one record of 48 words), and the columns it becomes.

A record is a row of one int64 array, so that all of it lies in six neighbouring cache lines: two that both directions
share, then two for what endpoint A sent and two for B. Of a packet without payload only the first line of the record and
the first of its direction are touched.
"""

from __future__ import annotations

from typing import Final

from engine.packets import ENCAP_NAMES
from engine.schema import Column

# --- words of a record -------------------------------------------------------------------------------------------
(
    # First line: the key in canonical order (the lower endpoint is A), and what every packet reads.
    R_A_HI, R_A_LO, R_B_HI, R_B_LO,  # addresses
    R_REST,   # ports, protocol, VLAN, IP version and source, see REST_*
    R_FLOW_ID,  # 0: the record is free
    R_STATE,  # bits STATE_*
    R_LAST,   # ns, newest packet
    # Second line.
    R_START,  # ns, first packet of this part
    R_PART,   # from 1
    R_SYN_NS,  # time of the newest SYN before its answer
    R_RTT_NS,  # handshake round trip, or MISSING
    R_NAME,   # number of the server name, 0 none
    R_NAME_SINCE,
    R_APP_SINCE,  # number of the packet (of this table) from which rows carry the name, the application
    R_ISN,    # sequence number of the SYN
) = range(16)  # fmt: skip
N_COMMON: Final = 16
(
    # First line.
    D_PACKETS, D_BYTES,
    D_SIZES,   # smallest << 32 | largest wirelen
    D_FIRST, D_LAST,  # ns
    D_GAPS,    # smallest << 32 | largest inter-arrival time, in us
    D_FLAGS,   # TCP flags seen, retransmits << 8
    D_NEXT_SEQ,  # sequence number after the highest byte seen, or MISSING
    # Second line.
    D_PAYLOAD,
    D_ENTROPY,  # sum of entropy, in units of 2**-20 bits per byte
    D_COUNTS,  # packets with entropy << 16 | payload packets still to hand to a parser << 8 | bytes in the head
    D_MAC,     # of the sender, or MISSING
    D_HEAD,    # first payload bytes, four words
    _D1, _D2, _D3,
) = range(16)  # fmt: skip
N_DIRECTION: Final = 16
N_WORDS: Final = N_COMMON + 2 * N_DIRECTION
HEAD_BYTES: Final = 32
MISSING: Final = -(1 << 63)

# R_REST: port of A, port of B (both 16 bits), protocol 8, VLAN 13 (4096 none), version 6 1, source 8.
REST_PORT_B: Final = 16
REST_PROTO: Final = 32
REST_VLAN: Final = 40
REST_V6: Final = 53
REST_SOURCE: Final = 54
NO_VLAN: Final = 4096

# R_STATE
STATE_CLIENT_B: Final = 1 << 0  # the client is endpoint B
STATE_SYN: Final = 1 << 1  # the client's SYN was seen
STATE_SYN_ACK: Final = 1 << 2
STATE_ACKED: Final = 1 << 3  # the handshake was completed
STATE_FIN_CLIENT: Final = 1 << 4
STATE_FIN_SERVER: Final = 1 << 5
STATE_RST_CLIENT: Final = 1 << 6
STATE_RST_SERVER: Final = 1 << 7
STATE_ANSWERED: Final = 1 << 8  # the server sent something
STATE_UNREACHABLE: Final = 1 << 9  # an ICMP error answered for the server
STATE_PORTS: Final = 1 << 10  # the ports are ports (not ICMP types, not absent)
STATE_ICMP: Final = 1 << 11
STATE_ENCAP: Final = 12  # tunnel + 1, 4 bits
STATE_ICMP_TYPE: Final = 16  # 8 bits; the code in the next 8
STATE_ENDED: Final = 32  # reason + 1, 4 bits
STATE_APP_DONE: Final = 1 << 36  # no parser wants more
STATE_APP: Final = 40  # number in APP_NAMES, 16 bits

OUTCOME_MEANINGS: Final = (
    ("established", "TCP: the handshake was completed, or both sides spoke in the middle of a connection"),
    ("answered", "the server sent something (UDP, ICMP, other protocols; TCP without a recognisable handshake)"),
    ("refused", "the server answered the SYN with RST, or an ICMP error said port or protocol unreachable or prohibited"),
    ("reset", "TCP: established, then ended by RST of either side"),
    ("unanswered", "only the client sent"),
    ("half-open", "TCP: the SYN was answered by SYN-ACK, the client never completed the handshake"),
)
OUTCOMES: Final = tuple(name for name, _ in OUTCOME_MEANINGS)
ESTABLISHED, ANSWERED, REFUSED, RESET, UNANSWERED, HALF_OPEN = range(len(OUTCOMES))
END_REASON_MEANINGS: Final = (
    ("idle", "no packet for the idle timeout"),
    ("active", "the part reached the active timeout; the flow went on in the next part"),
    ("closed", "both sides sent FIN, then nothing for the linger time"),
    ("reset", "RST, then nothing for the linger time"),
    ("reused", "a SYN with another sequence number began a new connection on the same ports"),
    ("evicted", "the flow table was full and this flow among the quietest"),
    ("stop", "the capture or the savefile ended"),
)
END_REASONS: Final = tuple(name for name, _ in END_REASON_MEANINGS)
END_IDLE, END_ACTIVE, END_CLOSED, END_RESET, END_REUSED, END_EVICTED, END_STOP = range(len(END_REASONS))

# --- what the gather kernel writes, one row of int64 per column; MISSING is NULL -----------------------------------
(
    O_TS, O_END_TS, O_FLOW_ID, O_PART, O_VLAN, O_VERSION, O_SRC_PORT, O_DST_PORT, O_PROTO, O_ICMP_TYPE, O_ICMP_CODE,
    O_ENCAP, O_RTT, O_OUTCOME, O_REASON, O_APP, O_NAME, O_SOURCE,
    O_SRC,  # first of N_OUT_DIRECTION rows
) = range(19)  # fmt: skip
(
    OD_PACKETS, OD_BYTES, OD_PAYLOAD, OD_FLAGS, OD_RETRANSMITS, OD_SIZE_MIN, OD_SIZE_MAX,
    OD_GAP_MIN, OD_GAP_MAX, N_OUT_DIRECTION,
) = range(10)  # fmt: skip
O_DST: Final = O_SRC + N_OUT_DIRECTION
N_OUT: Final = O_DST + N_OUT_DIRECTION


def _direction(side: str, at: int) -> tuple[Column, ...]:
    who, n = ("client", 0) if side == "src" else ("server", 1)

    def c(
        name: str, kind: str, unit: str, meaning: str, source: str, storage: str, index: int, nullable: bool
    ) -> Column:
        return Column(f"{side}_{name}", kind, unit, f"{meaning}, {who} side", source, storage, index, nullable=nullable)

    return (
        c("packets", "int64", "packets", "Packets", "decoder", "word", at + OD_PACKETS, False),
        c("bytes", "int64", "bytes", "Sum of wirelen", "decoder", "word", at + OD_BYTES, False),
        c("payload", "int64", "bytes", "Sum of payload_len", "decoder", "word", at + OD_PAYLOAD, False),
        c("tcp_flags", "int16", "bits", "All TCP flags seen", "RFC 9293 3.1", "word", at + OD_FLAGS, True),
        c("retransmits", "int64", "packets", "TCP segments whose first byte had been sent before (or came out of order)",
          "sequence numbers", "word", at + OD_RETRANSMITS, True),
        c("size_min", "int64", "bytes", "Smallest wirelen", "decoder", "word", at + OD_SIZE_MIN, True),
        c("size_max", "int64", "bytes", "Largest wirelen", "decoder", "word", at + OD_SIZE_MAX, True),
        c("gap_min", "int64", "us", "Smallest inter-arrival time", "decoder", "word", at + OD_GAP_MIN, True),
        c("gap_mean", "float32", "us", "Mean inter-arrival time", "decoder", "float", 2 * n, True),
        c("gap_max", "int64", "us", "Largest inter-arrival time", "decoder", "word", at + OD_GAP_MAX, True),
        c("entropy", "float32", "bits per byte", "Mean entropy of its packets with payload", "decoder", "float", 2 * n + 1, True),
        Column(f"{side}_head", "bytes", "", f"First {HEAD_BYTES} captured payload bytes of this part, {who} side", "decoder",
               "head", n, nullable=True, encoding="dict zstd"),
        Column(f"{side}_size_mean", "float32", "bytes", f"Mean wirelen, {who} side", "view", nullable=True,
               sql=f"(CASE WHEN {side}_packets > 0 THEN {side}_bytes / {side}_packets END)::FLOAT"),
    )  # fmt: skip


FLOWS: Final[tuple[Column, ...]] = (
    Column("ts", "timestamp", "UTC", "First packet of this part", "libpcap ts", "word", O_TS),
    Column("end_ts", "timestamp", "UTC", "Last packet of this part", "libpcap ts", "word", O_END_TS),
    Column("flow_id", "int64", "", "Joins packets and application tables; unique over all runs", "engine", "word", O_FLOW_ID),
    Column("part", "int32", "", "A flow that outlives the active timeout has several rows, numbered from 1; they add up",
           "engine", "word", O_PART),
    Column("community_id", "text", "", "Community ID v1, seed 0, of the flow's (inner) addresses, protocol and ports",
           "Community ID 1.0", "community", encoding="plain zstd"),
    Column("source", "text", "", "Interface, or the savefile's path", "capture", "source", O_SOURCE),
    Column("vlan", "int16", "", "VLAN ID of the outer tag", "IEEE 802.1Q", "word", O_VLAN, nullable=True),
    Column("ip_version", "int16", "", "4 or 6 (inside a tunnel: of the inner packet, as all that follows)", "RFC 791, 8200",
           "word", O_VERSION),
    Column("src_ip", "text", "", "The client: who sent first, or who sent the SYN", "decoder", "ip", 0, encoding="dict zstd"),
    Column("dst_ip", "text", "", "The server", "decoder", "ip", 1, encoding="dict zstd"),
    Column("src_port", "int32", "", "The client's port", "decoder", "word", O_SRC_PORT, nullable=True),
    Column("dst_port", "int32", "", "The server's port", "decoder", "word", O_DST_PORT, nullable=True),
    Column("proto", "int16", "", "Protocol number", "IANA protocol numbers", "word", O_PROTO),
    Column("icmp_type", "int16", "", "ICMP type of the first packet", "RFC 792, 4443", "word", O_ICMP_TYPE, nullable=True),
    Column("icmp_code", "int16", "", "ICMP code of the first packet", "RFC 792, 4443", "word", O_ICMP_CODE, nullable=True),
    Column("encap", "text", "", "The tunnel that carried it", "decoder", "word", O_ENCAP, labels=ENCAP_NAMES, nullable=True),
    Column("src_mac", "text", "", "Sender of the client's frames", "IEEE 802.3", "mac", 0, nullable=True, encoding="dict zstd"),
    Column("dst_mac", "text", "", "Sender of the server's frames", "IEEE 802.3", "mac", 1, nullable=True, encoding="dict zstd"),
    *_direction("src", O_SRC),
    *_direction("dst", O_DST),
    Column("packets", "int64", "packets", "Both directions", "view", sql="src_packets + dst_packets"),
    Column("bytes", "int64", "bytes", "Sum of wirelen, both directions", "view", sql="src_bytes + dst_bytes"),
    Column("duration_s", "float32", "s", "From the first to the last packet of this part", "view",
           sql="(epoch_us(end_ts) - epoch_us(ts))::FLOAT / 1000000"),
    Column("rtt_us", "int64", "us", "Handshake round trip: from SYN to the client's ACK of the SYN-ACK", "RFC 9293 3.5",
           "word", O_RTT, nullable=True),
    Column("outcome", "text", "", ", ".join(OUTCOMES) + "; see below", "engine", "word", O_OUTCOME, labels=OUTCOMES),
    Column("end_reason", "text", "", ", ".join(END_REASONS) + "; see below", "engine", "word", O_REASON, labels=END_REASONS),
    Column("app", "text", "", "Application protocol, by content", "dissectors", "app", O_APP, nullable=True, encoding="dict zstd"),
    Column("server_name", "text", "", "The server as the client named it: TLS or QUIC SNI, HTTP Host, DNS query", "dissectors",
           "name", O_NAME, nullable=True, encoding="dict zstd"),
    Column("encrypted", "bool", "", "The application encrypts its payload: high entropy is expected; NULL when unknown",
           "dissectors", "encrypted", O_APP, nullable=True),
)  # fmt: skip
