"""Real lakes for tests and screenshots: seeded, plausible traffic as Parquet segments of every table.

    python -m tests.lakes DIR [ROWS] [SECONDS]

The traffic is made up (a small office behind one router), but the files are what the engine writes: the
directories, the schema of `engine.packets`, one segment per `segment_s`, the init segment, and the modification
time of each file is the moment its last row was captured.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.packets import STATUS_NAMES
from engine.tables import arrow_schema

INTERNAL = [f"10.20.{net}.{host}" for net in range(3) for host in range(10, 26)]
INTERNAL6 = [f"fd20::{net}:{host:x}" for net in range(2) for host in range(16, 24)]
# Public ranges of well-known operators, so that a GeoIP database has something to say about them.
OPERATORS = ("8.8", "1.1", "17.253", "52.95", "91.198", "103.21", "133.11", "139.130", "185.15", "196.25", "200.160")
PUBLIC = [f"{net}.{(17 * n + 5) % 250 + 1}.{(91 * n + 7) % 250 + 1}" for n in range(24) for net in OPERATORS]
PUBLIC6 = [f"2001:4860:{n:x}::8888" for n in range(12)] + [f"2606:4700:{n:x}::1111" for n in range(12)]
POOL = INTERNAL + INTERNAL6 + PUBLIC + PUBLIC6
MACS = [f"02:00:00:00:00:{n:02x}" for n in range(len(INTERNAL) + 1)]
KINDS = ("tcp", "udp", "icmp", "icmp6", "arp", "igmp", "lldp")
SHARES = (0.685, 0.24, 0.028, 0.007, 0.02, 0.015, 0.005)
TCP_PORTS = ((443, 0.7), (80, 0.1), (22, 0.06), (8080, 0.05), (5432, 0.05), (25, 0.04))
UDP_PORTS = ((443, 0.55), (53, 0.3), (123, 0.05), (5353, 0.05), (51820, 0.05))
TCP_FLAGS = ((16, 0.55), (24, 0.3), (2, 0.05), (18, 0.05), (17, 0.04), (4, 0.01))


@dataclass(frozen=True)
class Lake:
    """What was written, for expectations computed without the code under test."""

    path: Path
    packets: pa.Table
    stats: pa.Table


def _zipf(rng: np.random.Generator, n: int, size: int) -> np.ndarray:
    weights = 1 / np.arange(1, n + 1) ** 0.9
    return rng.choice(n, size, p=weights / weights.sum())


def _pick(rng: np.random.Generator, choices: tuple[tuple[int, float], ...], size: int) -> np.ndarray:
    values, shares = zip(*choices, strict=True)
    return rng.choice(np.array(values), size, p=shares)


def _times(rng: np.random.Generator, rows: int, seconds: int, end_us: int) -> np.ndarray:
    """Sorted microseconds: a slow wave, noise from second to second, one burst; the last row is 1 us before `end`."""
    second = np.arange(seconds)
    rate = 1 + 0.35 * np.sin(second / max(seconds, 1) * 11) + rng.gamma(2.0, 0.15, seconds)
    rate[int(seconds * 0.72) : int(seconds * 0.72) + max(1, seconds // 40)] *= 2.6
    at = rng.choice(seconds, rows, p=rate / rate.sum()) + rng.random(rows)
    times = np.sort((at * 1e6).astype(np.int64)) + (end_us - seconds * 1_000_000)
    times[-1:] = end_us - 1
    return times


def packets_table(rows: int, seconds: int, end: datetime, seed: int = 7, source: str = "eth0") -> pa.Table:
    """The packets as one Arrow table in the schema of `packets`."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(len(KINDS), rows, p=SHARES)
    is_tcp, is_udp, is_icmp, is_icmp6, is_arp, is_igmp, _ = (kind == k for k in range(len(KINDS)))
    ported = is_tcp | is_udp
    six = is_icmp6 | (ported & (rng.random(rows) < 0.08))
    ip = ported | is_icmp | is_icmp6 | is_igmp
    # Every packet goes between an inside host and, four times in five, an outside one; then a direction is drawn.
    inside = np.where(six, len(INTERNAL) + _zipf(rng, len(INTERNAL6), rows), _zipf(rng, len(INTERNAL), rows))
    public = np.where(six, len(PUBLIC) + _zipf(rng, len(PUBLIC6), rows), _zipf(rng, len(PUBLIC), rows))
    neighbour = np.where(six, len(INTERNAL) + _zipf(rng, len(INTERNAL6), rows), _zipf(rng, len(INTERNAL), rows))
    outside = np.where(rng.random(rows) < 0.8, len(INTERNAL) + len(INTERNAL6) + public, neighbour)
    inbound = rng.random(rows) < 0.55
    src, dst = np.where(inbound, outside, inside), np.where(inbound, inside, outside)
    service = np.where(is_tcp, _pick(rng, TCP_PORTS, rows), _pick(rng, UDP_PORTS, rows))
    client = rng.integers(32768, 60999, rows)
    cut = ip & ported & (rng.random(rows) < 0.001)  # captured bytes end inside the transport header
    flags = _pick(rng, TCP_FLAGS, rows)
    data = (ported & ~cut) & (~is_tcp | (flags == 24) | (inbound & (flags == 16)))
    payload = np.where(data, np.clip(rng.gamma(1.6, 420, rows).astype(np.int64), 1, 1446), 0)
    header = np.select([is_tcp, is_udp, is_arp], [54, 42, 42], 60) + np.where(six, 20, 0)
    wirelen = np.maximum(60, header + payload + np.where(is_icmp | is_icmp6, 38, 0))
    ports_known, tcp_known = ported & ~cut, is_tcp & ~cut
    status = np.select([cut, ~ip], [STATUS_NAMES.index("truncated_transport"), STATUS_NAMES.index("not_ip")], 0)

    def numbers(values: Any, dtype: pa.DataType, valid: np.ndarray | None = None) -> pa.Array:
        mask = None if valid is None else ~valid
        return pa.array(np.broadcast_to(values, rows).astype(dtype.to_pandas_dtype()), dtype, mask=mask)

    def labels(index: Any, names: list[str], small: bool, valid: np.ndarray | None = None) -> pa.Array:
        at = numbers(index, pa.int16() if small else pa.int32(), valid)
        return pa.DictionaryArray.from_arrays(at, pa.array(names))

    arp_target = _zipf(rng, len(INTERNAL), rows)
    columns: dict[str, pa.Array] = {
        "ts": pa.array(_times(rng, rows, seconds, int(end.timestamp() * 1_000_000)), pa.timestamp("us")),
        "ts_nanos": numbers(rng.integers(0, 1000, rows), pa.int16()),
        "source": labels(0, [source], small=False),
        "frame_no": numbers(np.arange(1, rows + 1), pa.int64()),
        "wirelen": numbers(wirelen, pa.int64()),
        "caplen": numbers(np.where(cut, 40, wirelen), pa.int32()),
        "src_mac": labels(np.where(inbound, 0, 1 + inside % len(INTERNAL)), MACS, small=False),
        "dst_mac": labels(np.where(inbound, 1 + inside % len(INTERNAL), 0), MACS, small=False),
        "ethertype": numbers(np.select([is_arp, six, ip], [0x0806, 0x86DD, 0x0800], 0x88CC), pa.int32()),
        "ip_version": numbers(np.where(six, 6, 4), pa.int16(), ip),
        "src_ip": labels(src, POOL, False, ip),
        "dst_ip": labels(dst, POOL, False, ip),
        "proto": numbers(np.select([is_tcp, is_udp, is_icmp, is_icmp6], [6, 17, 1, 58], 2), pa.int16(), ip),
        "ttl": numbers(np.where(inbound, 52, 64), pa.int16(), ip),
        "is_fragment": pa.array(np.zeros(rows, bool), pa.bool_(), mask=~ip),
        "src_port": numbers(np.where(inbound, service, client), pa.int32(), ports_known),
        "dst_port": numbers(np.where(inbound, client, service), pa.int32(), ports_known),
        "tcp_flags": numbers(flags, pa.int16(), tcp_known),
        "tcp_seq": numbers(rng.integers(0, 1 << 32, rows), pa.int64(), tcp_known),
        "tcp_ack": numbers(rng.integers(0, 1 << 32, rows), pa.int64(), tcp_known),
        "tcp_window": numbers(rng.integers(0, 65536, rows), pa.int32(), tcp_known),
        "icmp_type": numbers(np.where(is_icmp6, np.where(inbound, 129, 128), np.where(inbound, 0, 8)), pa.int16(),
                             is_icmp | is_icmp6),
        "icmp_code": numbers(0, pa.int16(), is_icmp | is_icmp6),
        "payload_len": numbers(payload, pa.int64(), ports_known),
        "entropy": pa.array(rng.uniform(3, 8, rows).astype(np.float32), pa.float32(), mask=~data),
        "arp_op": numbers(1 + inbound, pa.int16(), is_arp),
        "arp_src_ip": labels(inside % len(INTERNAL), POOL, False, is_arp),
        "arp_dst_ip": labels(arp_target, POOL, False, is_arp),
        "status": labels(status, list(STATUS_NAMES), small=True),
    }  # fmt: skip
    schema = arrow_schema("packets")

    def column(f: pa.Field) -> pa.Array:
        return columns[f.name] if f.name in columns else pa.nulls(rows, f.type)

    return pa.table([column(f) for f in schema], schema=schema)


def stats_table(packets: pa.Table, kernel_drops: int, source: str = "eth0") -> pa.Table:
    """One row of capture_stats per second that ends at a whole second after the first packet."""
    schema = arrow_schema("capture_stats")
    if packets.num_rows == 0:
        return schema.empty_table()
    ts = packets["ts"].cast(pa.int64()).to_numpy()
    last = ts[-1] + 1
    second = (last - 1 - ts) // 1_000_000  # seconds before the end
    n = int(second[0]) + 1
    rows = np.bincount(second, minlength=n)
    wire = np.bincount(second, packets["wirelen"].to_numpy().astype(float), minlength=n).astype(np.int64)
    complete = np.isin(packets["status"].cast(pa.string()).to_numpy(), ["ok", "not_ip"])
    bad = np.bincount(second, ~complete, minlength=n).astype(np.int64)
    kernel = np.zeros(n, np.int64)
    kernel[: min(n, 1 if kernel_drops else 0)] = kernel_drops  # lost in the newest second
    values: dict[str, Any] = {
        "ts": (last - np.arange(n) * 1_000_000),
        "source": np.array([source] * n, object),
        "interval_s": np.ones(n, np.float32),
        "received": rows + kernel,
        "rows": rows,
        "kernel_drops": kernel,
        "undecodable": bad,
        "wire_bytes": wire,
    }
    zeros = np.zeros(n, np.int64)
    return pa.table([pa.array(values.get(f.name, zeros)[::-1], f.type) for f in schema], schema=schema)


def write_segment(lake: Path, table: str, rows: pa.Table, seq: int, sensor: str = "test") -> Path:
    """Publish rows as one segment; its age on disk is that of its last row."""
    column = "first_seen" if table == "addresses" else "ts"
    times = rows[column].cast(pa.int64()).to_numpy()
    start = int(times[0]) if len(times) else 0
    last = int(times[-1]) if len(times) else 0
    at = datetime.fromtimestamp(start / 1e6, UTC)
    directory = lake / table / f"sensor={sensor}" / f"date={at:%Y-%m-%d}" / f"hour={at:%H}"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{start:016d}-{seq:06d}.parquet"
    pq.write_table(rows, path, compression="zstd", compression_level=1)
    os.utime(path, (last / 1e6, last / 1e6))
    return path


def write_empty_lake(path: Path) -> None:
    """What the engine leaves at its start: a segment without rows for every table, so that views can be made."""
    for table in ("packets", "capture_stats", "addresses"):
        write_segment(path, table, arrow_schema(table).empty_table(), 0, sensor="none")


def write_lake(
    path: Path | str,
    rows: int = 200_000,
    seconds: int = 300,
    end: datetime | None = None,
    *,
    seed: int = 7,
    segment_s: float = 1.0,
    kernel_drops: int = 0,
) -> Lake:
    """Write a lake of `rows` packets over the `seconds` before `end` (now); the same arguments give the same lake."""
    lake = Path(path)
    end = end or datetime.now(UTC)
    write_empty_lake(lake)
    packets = packets_table(rows, seconds, end, seed)
    stats = stats_table(packets, kernel_drops)
    ts = packets["ts"].cast(pa.int64()).to_numpy()
    seen: set[str] = set()
    end_us = int(end.timestamp() * 1_000_000)
    edges = np.arange(end_us - seconds * 1_000_000, end_us + 1, int(segment_s * 1e6))
    cuts = [*np.searchsorted(ts, edges).tolist(), rows]
    stats_ts = stats["ts"].cast(pa.int64()).to_numpy()
    stats_cuts = [0, *np.searchsorted(stats_ts, edges[1:], side="right").tolist(), stats.num_rows]
    for seq, (a, b, c, d) in enumerate(zip(cuts, cuts[1:], stats_cuts, stats_cuts[1:], strict=False), 1):
        if b > a:
            part = packets.slice(a, b - a)
            write_segment(lake, "packets", part, seq)
            present = {*part["src_ip"].unique().to_pylist(), *part["dst_ip"].unique().to_pylist()} - {None}
            new = sorted(present - seen)
            seen |= present
            if new:
                columns = [pa.array(new), pa.array(np.full(len(new), ts[a]), pa.timestamp("us"))]
                write_segment(lake, "addresses", pa.table(columns, schema=arrow_schema("addresses")), seq)
        if d > c:
            write_segment(lake, "capture_stats", stats.slice(c, d - c), seq)
    return Lake(lake, packets, stats)


GEOIP_COUNTRIES: dict[str, str] = dict(
    zip(OPERATORS, ("US", "AU", "US", "IE", "NL", "SG", "JP", "AU", "DE", "ZA", "BR"), strict=True)
)


def write_geoip(lake: Path) -> None:
    """Make a small GeoIP database that knows the public IPv4 addresses of the lake, and have the lake use it."""
    import netaddr
    from mmdb_writer import MMDBWriter

    from analytics import geoip

    writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type="DBIP-Country-Lite", description="made up")
    for prefix, code in GEOIP_COUNTRIES.items():
        writer.insert_network(netaddr.IPSet([f"{prefix}.0.0/16"]), {"country": {"iso_code": code}})
    writer.to_db_file(str(lake / "test.mmdb"))
    geoip.use(lake, lake / "test.mmdb")


if __name__ == "__main__":
    made = write_lake(sys.argv[1], *(int(value) for value in sys.argv[2:4]))
    print(f"{made.packets.num_rows} packets in {made.path}")
