"""The row's one definition: storage, schema and the document made from it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from engine import packets as k
from engine import tables
from engine.flow_row import N_OUT
from engine.schema import SQL_TYPES

ROOT = Path(__file__).parents[2]
# fmt: off
DESIGN = [
    "ts", "ts_nanos", "source", "frame_no", "wirelen", "caplen", "src_mac", "dst_mac", "ethertype", "vlan",
    "vlan_inner", "ip_version", "src_ip", "dst_ip", "proto", "ttl", "is_fragment", "src_port", "dst_port", "tcp_flags",
    "tcp_seq", "tcp_ack", "tcp_window", "icmp_type", "icmp_code", "payload_len", "entropy", "encap", "inner_src_ip",
    "inner_dst_ip", "inner_proto", "inner_src_port", "inner_dst_port", "arp_op", "arp_src_ip", "arp_dst_ip", "status",
    "app", "server_name", "encrypted", "flow_id", "frame_file", "frame_offset", "anomaly",
]
# fmt: on


def test_dictionary__document_is_up_to_date() -> None:
    text = (ROOT / "docs" / "data-dictionary.md").read_text(encoding="utf-8")
    assert text == tables.data_dictionary(), "run: python -m engine.tables > docs/data-dictionary.md"


def test_packets__every_column_of_the_design_in_order() -> None:
    assert [c.name for c in k.PACKETS] == DESIGN
    assert tables.arrow_schema("packets").names == [c.name for c in k.PACKETS if c.stored]


@pytest.mark.parametrize("table", tables.TABLES)
def test_schema__names_types_and_nulls(table: str) -> None:
    schema = tables.arrow_schema(table)
    assert len(set(schema.names)) == len(schema.names)
    for column in tables.TABLES[table]:
        assert column.meaning
        assert column.source
        assert column.type in SQL_TYPES
        if column.stored:
            field = schema.field(column.name)
            assert field.nullable == column.may_be_null
            assert not pa.types.is_unsigned_integer(field.type)


def test_storage__one_column_per_row_of_each_array() -> None:
    used = [(c.storage, c.index) for c in k.PACKETS if c.stored]
    assert len(set(used)) == len(used)
    # Behind the columns each array has rows that only later stages read.
    sizes = {"short": k.S_INNER_TCP_FLAGS, "int": k.I_PAYLOAD, "long": k.L_INNER_SEQ, "float": 2}
    for storage, size in sizes.items():
        assert sorted(i for s, i in used if s == storage) == list(range(size)), storage


def test_groups__one_bit_each() -> None:
    groups = {name: value for name, value in vars(k).items() if name.startswith(("HAS_", "IS_"))}
    assert len(set(groups.values())) == len(groups)
    assert all(value.bit_count() == 1 for value in groups.values())
    bitmaps = {c.group for c in k.PACKETS if c.group} | {k.IS_FRAGMENT, k.IS_ENCRYPTED}
    assert max(bitmaps).bit_length() <= k.N_GROUPS


def test_status__names_are_unique_and_only_two_are_complete() -> None:
    assert len(set(k.STATUS_NAMES)) == len(k.STATUS_NAMES) == k.TOO_DEEP + 1
    assert (k.STATUS_NAMES[k.OK], k.STATUS_NAMES[k.NOT_IP]) == ("ok", "not_ip")
    assert k.STATUS_NAMES[k.TRUNCATED_TRANSPORT] == "truncated_transport"
    assert k.ENCAP_NAMES[k.ENCAP_GTPU] == "gtpu"


def test_flows__every_gathered_row_is_a_column_once() -> None:
    flows = [c for c in tables.TABLES["flows"] if c.stored]
    words = [c.index for c in flows if c.storage == "word"]
    named = [c.index for c in flows if c.storage in ("source", "app", "name")]
    assert sorted(words + named) == list(range(N_OUT))


def test_names__need_no_quotes_in_sql() -> None:
    import duckdb

    words = "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'"
    reserved = {row[0] for row in duckdb.sql(words).fetchall()}
    names = {*tables.TABLES, *(c.name for columns in tables.TABLES.values() for c in columns)}
    assert not names & reserved
