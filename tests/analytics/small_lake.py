"""Small lakes for the tests of analytics: real segments in the layout the engine writes."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from engine.tables import TABLES, arrow_schema

NOON = datetime(2026, 11, 24, 12)  # noqa: DTZ001 — UTC by contract
DEFAULTS: dict[str, Any] = {
    "ts": NOON, "ts_nanos": 0, "source": "eth0", "frame_no": 1, "wirelen": 100, "caplen": 100, "status": "ok",
    "interval_s": 1.0, "received": 1, "rows": 1, "kernel_drops": 0, "interface_drops": 0, "drop_unread_at_stop": 0,
    "drop_not_written": 0, "undecodable": 0, "wire_bytes": 100, "first_seen": NOON,
}  # fmt: skip
FLOW_DEFAULTS: dict[str, Any] = {
    "end_ts": NOON, "flow_id": 1, "part": 1, "community_id": "1:x", "ip_version": 4, "src_ip": "10.0.0.1",
    "dst_ip": "10.0.0.2", "src_port": 40000, "dst_port": 443, "proto": 6, "src_packets": 1, "dst_packets": 1,
    "src_bytes": 100, "dst_bytes": 100, "src_payload": 10, "dst_payload": 10, "outcome": "established",
    "end_reason": "closed",
}  # fmt: skip


def segment(
    lake: Path, table: str, rows: list[dict[str, Any]], *, name: str = "0-0", sensor: str = "s1",
    at: datetime = NOON, without: tuple[str, ...] = (),
) -> Path:  # fmt: skip
    """Publish one segment as the engine does: a hidden name first, then a rename. `without` leaves columns out."""
    schema = pa.schema([f for f in arrow_schema(table) if f.name not in without])
    defaults = DEFAULTS | ({} if table == "packets" else FLOW_DEFAULTS)
    columns = []
    for field in schema:
        values = [row.get(field.name, defaults.get(field.name)) for row in rows]
        plain = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        columns.append(pa.array(values, plain).cast(field.type))
    folder = lake / table / f"sensor={sensor}" / f"date={at:%Y-%m-%d}" / f"hour={at:%H}"
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"{name}.parquet.inprogress"
    pq.write_table(pa.table(columns, schema=schema), unfinished)
    return unfinished.rename(folder / f"{name}.parquet")


def make_lake(lake: Path, *addresses: str) -> Path:
    """A lake as the engine initialises it; with a packet from each address to the next, if any are given."""
    for table in TABLES:
        segment(lake, table, [], sensor="none", at=datetime(1970, 1, 1))  # noqa: DTZ001 — UTC by contract
    if addresses:
        following = (*addresses[1:], addresses[0])
        segment(lake, "packets", [
            {"src_ip": s, "dst_ip": d, "wirelen": 100 * (i + 1), "frame_no": i + 1, "ip_version": 6 if ":" in s else 4}
            for i, (s, d) in enumerate(zip(addresses, following, strict=True))
        ])  # fmt: skip
        segment(lake, "addresses", [{"ip": ip} for ip in addresses])
    return lake


def write_mmdb(path: Path, nets: dict[str, dict[str, Any]], kind: str = "DBIP-City-Lite") -> Path:
    """A database in MaxMind's format. Keys are networks."""
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type=kind, languages=["en"], float_type="f64")
    for net, record in nets.items():
        writer.insert_network(IPSet([net]), record)
    writer.to_db_file(str(path))
    return path


NESTED: dict[str, Any] = {
    "country": {"iso_code": "DE", "names": {"en": "Germany"}},
    "city": {"names": {"en": "Berlin"}},
    "location": {"latitude": 52.5, "longitude": 13.4},
}
FLAT: dict[str, Any] = {"country_code": "JP", "city": "Tokyo", "latitude": 35.7, "longitude": 139.7}
