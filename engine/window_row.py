"""The window row: what one host did in a second, five seconds or a minute, when that was enough to be worth a row."""

from __future__ import annotations

from typing import Final

from engine.schema import Column

# A window becomes a row when it has so many packets (both directions) or attempts: a busy host has one row a minute,
# a second or five only when something is going on, and the thousands of forged sources of a flood have none.
LEAST_PACKETS: Final = {1: 1000, 5: 2500, 60: 50}
LEAST_ATTEMPTS: Final = {1: 50, 5: 100, 60: 25}
MOST_ROWS: Final = 1000  # of one window: the busiest


def _c(
    name: str, unit: str, meaning: str, source: str = "flow table", kind: str = "int64", nullable: bool = False
) -> Column:
    return Column(name, kind, unit, meaning, source, nullable=nullable)


WINDOWS: Final[tuple[Column, ...]] = (
    _c("ts", "UTC", "Start of the window, by the packets' clock; packets that come late count as now", "libpcap ts", "timestamp"),
    _c("window_s", "s", "Its length: 1, 5 or 60. A row needs 1000, 2500 or 50 packets, or 50, 100 or 25 attempts", "engine", "int16"),
    _c("source", "", "Interface, or the savefile's path", "capture", "text"),
    _c("ip", "", "The host", "decoder", "text"),
    _c("out_packets", "packets", "Packets that it sent", "decoder"),
    _c("out_bytes", "bytes", "Sum of wirelen of those", "decoder"),
    _c("out_payload", "bytes", "Sum of payload_len of those", "decoder"),
    _c("in_packets", "packets", "Packets to it", "decoder"),
    _c("in_bytes", "bytes", "Sum of wirelen of those", "decoder"),
    _c("in_payload", "bytes", "Sum of payload_len of those", "decoder"),
    _c("attempts", "flows", "Flows that it began by asking for something (SYN, UDP, echo request, probe)"),
    _c("answered", "flows", "Attempts that came out in this window: answered"),
    _c("refused", "flows", "RST or an ICMP error came back"),
    _c("unanswered", "flows", "Nothing came back within a second"),
    _c("in_attempts", "flows", "Flows that others began with it"),
    _c("in_failed", "flows", "Of those: refused or unanswered"),
    _c("peers", "hosts", "Hosts that it asked for something, for the first time in this minute"),
    _c("new_peers", "hosts", "Of those: not known before"),
    _c("ports", "ports", "Protocols and ports that it asked for, for the first time in this minute"),
    _c("in_peers", "hosts", "Hosts that asked it for something, for the first time in this minute"),
    _c("out_syn", "packets", "SYNs that it sent", "RFC 9293 3.1"),
    _c("in_syn", "packets", "SYNs to it", "RFC 9293 3.1"),
    _c("out_syn_ack", "packets", "SYN-ACKs that it sent", "RFC 9293 3.1"),
    _c("in_completed", "connections", "Handshakes with it that were completed", "RFC 9293 3.5"),
    _c("in_stray", "packets", "Empty segments to it of no connection", "RFC 9293 3.1"),
    _c("out_rst", "packets", "RSTs that it sent", "RFC 9293 3.1"),
    _c("out_udp", "packets", "UDP datagrams that it sent", "RFC 768"),
    _c("in_udp", "packets", "UDP datagrams to it", "RFC 768"),
    _c("in_dns", "packets", "Those to port 53", "RFC 1035"),
    _c("in_echo", "packets", "Echo requests to it", "RFC 792, 4443"),
    _c("out_icmp_errors", "packets", "ICMP unreachable messages that it sent", "RFC 792, 4443"),
    _c("entropy", "bits per byte", "Mean entropy of what it sent", "Shannon 1948", "float32", True),
    _c("dns_names", "names", "Names that it asked DNS for, at most 200 a second", "RFC 1035 4.1.2", "int64", True),
    _c("dns_entropy", "bits per character", "Mean entropy of the first labels of those", "Shannon 1948", "float32", True),
)  # fmt: skip

# The same for pairs of hosts and for what one host asks of many; which lengths are written is `[windows]`.
LEAST_PAIR_PACKETS: Final = {1: 500, 5: 1000, 60: 50}
LEAST_PAIR_ATTEMPTS: Final = {1: 20, 5: 40, 60: 10}
LEAST_PORT_HOSTS: Final = {1: 5, 5: 8, 60: 10}

_START: Final = _c("ts", "UTC", "Start of the window, by the packets' clock", "libpcap ts", "timestamp")
_LENGTH: Final = _c("window_s", "s", "Its length: 1, 5 or 60", "engine", "int16")
_SOURCE: Final = _c("source", "", "Interface, or the savefile's path", "capture", "text")

PAIR_WINDOWS: Final[tuple[Column, ...]] = (
    _START, _LENGTH, _SOURCE,
    _c("src_ip", "", "The client: who asks", "flow table", "text"),
    _c("dst_ip", "", "The server or victim", "flow table", "text"),
    _c("dst_port", "", "Port of the newest TCP connection", "flow table", "int32", True),
    _c("packets", "packets", "Sent by the client", "decoder"),
    _c("packets_back", "packets", "Sent by the server", "decoder"),
    _c("bytes", "bytes", "Sum of wirelen of the client's", "decoder"),
    _c("bytes_back", "bytes", "Of the server's", "decoder"),
    _c("payload", "bytes", "Sum of payload_len of the client's", "decoder"),
    _c("payload_back", "bytes", "Of the server's", "decoder"),
    _c("attempts", "flows", "Flows that the client began by asking for something"),
    _c("answered", "flows", "Attempts that came out in this window: answered"),
    _c("refused", "flows", "RST or an ICMP error came back"),
    _c("unanswered", "flows", "Nothing came back within a second"),
    _c("failed_ports", "ports", "Ports that were refused or unanswered, for the first time in this minute"),
    _c("entropy", "bits per byte", "Mean entropy of what the client sent in no known application; NULL: nothing of 256 bytes", "Shannon 1948", "float32", True),
    _c("gap_s", "s", "Mean time between TCP connections of the pair, over its run of them; NULL below 3", "flow table", "float32", True),
    _c("gap_variation", "", "Standard deviation of those times over their mean: 0 is a clock, 1 is chance", "flow table", "float32", True),
)  # fmt: skip

PORT_WINDOWS: Final[tuple[Column, ...]] = (
    _START, _LENGTH, _SOURCE,
    _c("src_ip", "", "Who asks", "flow table", "text"),
    _c("proto", "", "Protocol number; NULL: ARP requests", "IANA protocol numbers", "int16", True),
    _c("dst_port", "", "Port; NULL where there are none", "flow table", "int32", True),
    _c("hosts", "hosts", "Hosts that it asked there and that came out, for the first time in this minute"),
    _c("failed_hosts", "hosts", "Of those: refused or unanswered; of ARP the addresses asked for"),
)  # fmt: skip
