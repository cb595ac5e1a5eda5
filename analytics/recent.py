"""The newest packets of a window as rows to show, each with one line of text that says what it is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import duckdb

from analytics.segments import Segment
from engine.constants import ETHERTYPE_ARP, PROTO_NAMES

ROWS: Final = 60
NEWEST_FILES: Final = (4, 32)  # enough on a busy and on a quiet lake; more are never opened

# Two steps, because a wide ORDER BY ... LIMIT over Parquet reads every column of every row (800 times slower).
FLOOR: Final = f"""
SELECT count(*), min(ts) FROM (
    SELECT ts FROM read_parquet($files, hive_partitioning = false) ORDER BY ts DESC LIMIT {ROWS}
)
"""  # noqa: S608 — only this module's own numbers are put in
NEWEST: Final = f"""
SELECT epoch_us(ts), coalesce(src_ip, arp_src_ip, src_mac), coalesce(dst_ip, arp_dst_ip, dst_mac), proto, ip_version,
       ethertype, src_port, dst_port, wirelen, tcp_flags, icmp_type, icmp_code, arp_op, is_fragment, payload_len, encap,
       inner_src_ip, inner_dst_ip, status
FROM read_parquet($files, hive_partitioning = false) WHERE ts >= $floor
ORDER BY ts DESC, ts_nanos DESC, frame_no DESC LIMIT {ROWS}
"""  # noqa: S608 — only this module's own numbers are put in
COLUMNS: Final = ("ts", "src", "dst", "proto", "class", "sport", "dport", "len", "info")

FLAG_NAMES: Final = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")  # RFC 9293 3.1, bit 0 to 7
ETHERTYPE_NAMES: Final = {ETHERTYPE_ARP: "ARP", 0x88CC: "LLDP", 0x888E: "EAPOL", 0x88F7: "PTP", 0x8809: "LACP"}
ICMP_NAMES: Final = {  # IANA ICMP type numbers
    0: "echo reply", 3: "destination unreachable", 5: "redirect", 8: "echo request", 11: "time exceeded",
    12: "parameter problem", 13: "timestamp request", 14: "timestamp reply",
}  # fmt: skip
ICMPV6_NAMES: Final = {  # IANA ICMPv6 type numbers
    1: "destination unreachable", 2: "packet too big", 3: "time exceeded", 4: "parameter problem", 128: "echo request",
    129: "echo reply", 130: "listener query", 131: "listener report", 133: "router solicitation",
    134: "router advertisement", 135: "neighbor solicitation", 136: "neighbor advertisement", 137: "redirect",
    143: "listener report v2",
}  # fmt: skip
CLASS_OF: Final = {6: 0, 17: 1, 1: 2, 58: 2}


def protocol_name(proto: int | None, ethertype: int | None) -> str:
    """What the packet is called: the transport protocol, or what the frame carries instead of IP."""
    if proto is not None:
        return PROTO_NAMES.get(proto, f"IP {proto}")
    if ethertype is None:
        return "802.3"
    return ETHERTYPE_NAMES.get(ethertype, f"0x{ethertype:04x}")


def info_text(row: dict[str, Any]) -> str:
    """One line about a packet: flags, type, tunnel, and how far decoding got when it did not get to the end."""
    parts = []
    if row["tcp_flags"] is not None:
        parts.append(" ".join(n for bit, n in enumerate(FLAG_NAMES) if row["tcp_flags"] >> bit & 1) or "no flags")
    if row["icmp_type"] is not None:
        names = ICMPV6_NAMES if row["proto"] == 58 else ICMP_NAMES
        code = f", code {row['icmp_code']}" if row["icmp_code"] else ""
        parts.append(names.get(row["icmp_type"], f"type {row['icmp_type']}") + code)
    if row["arp_op"] is not None:
        parts.append({1: "who has", 2: "reply"}.get(row["arp_op"], f"operation {row['arp_op']}"))
    if row["payload_len"]:
        parts.append(f"{row['payload_len']} B payload")
    if row["is_fragment"]:
        parts.append("fragment")
    if row["encap"] is not None:
        inner = f" {row['inner_src_ip']} → {row['inner_dst_ip']}" if row["inner_src_ip"] is not None else ""
        parts.append(row["encap"] + inner)
    if row["status"] not in ("ok", "not_ip"):
        parts.append(row["status"].replace("_", " "))
    return ", ".join(parts)


class RecentPackets:
    """Keeps the newest rows until a newer segment appears. Not thread-safe: the caller holds a lock."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self.con = con
        self._of: tuple[str, ...] = ()
        self._columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        self._last: tuple[Segment | None, float | None] = (None, None)

    def columns(self, newest_first: list[Segment]) -> dict[str, list[Any]]:
        """The newest ROWS packets of these segments, newest first, as columns."""
        of = tuple(s.path for s in newest_first[: NEWEST_FILES[-1]])
        if of != self._of:
            self._columns = self._read(of)
            self._of = of
        return self._columns

    def newest_time(self, segment: Segment | None) -> float | None:
        """When the last packet of the lake's newest segment was captured, seconds since the epoch."""
        if segment is None:
            return None
        if self._last[0] != segment:
            sql = "SELECT epoch_us(max(ts)) / 1e6 FROM read_parquet($files, hive_partitioning = false)"
            try:
                row = self.con.execute(sql, {"files": [segment.path]}).fetchone()
            except duckdb.Error:  # retired or compacted a moment ago, or damaged: its first row is near enough
                row = None
            self._last = segment, row[0] if row and row[0] is not None else segment.start
        return self._last[1]

    def _read(self, paths: tuple[str, ...]) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        rows: list[tuple[Any, ...]] = []
        for count in NEWEST_FILES:
            files = list(paths[:count])
            if not files:
                break
            try:
                found, floor = self.con.execute(FLOOR, {"files": files}).fetchone() or (0, None)
                if found < ROWS and len(files) < len(paths):
                    continue
                floor = floor or datetime.fromtimestamp(0, UTC).replace(tzinfo=None)
                rows = self.con.execute(NEWEST, {"files": files, "floor": floor}).fetchall()
                break
            except duckdb.Error:  # a file went away between listing and reading: the next snapshot sees the new list
                return self._columns
        names = ("ts", "src", "dst", "proto", "ip_version", "ethertype", "src_port", "dst_port", "wirelen", "tcp_flags",
                 "icmp_type", "icmp_code", "arp_op", "is_fragment", "payload_len", "encap", "inner_src_ip",
                 "inner_dst_ip", "status")  # fmt: skip
        for values in rows:
            row = dict(zip(names, values, strict=True))
            arp = row["proto"] is None and row["ethertype"] == ETHERTYPE_ARP
            shown = (
                row["ts"] // 1000, row["src"], row["dst"], protocol_name(row["proto"], row["ethertype"]),
                3 if arp else CLASS_OF.get(row["proto"], 4), row["src_port"], row["dst_port"], row["wirelen"],
                info_text(row),
            )  # fmt: skip
            for name, value in zip(COLUMNS, shown, strict=True):
                columns[name].append(value)
        return columns
