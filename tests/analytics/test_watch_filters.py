"""The filter box: reading, writing back, and that its SQL means what it says."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import analytics
from analytics.watch.fields import FIELDS, NONE, PROTOS, Span
from analytics.watch.filters import Filter, FilterError, Term, parse
from engine.tables import APPLICATION_TABLES
from tests.analytics.small_lake import NOON, make_lake, segment

TABLES = ("packets", "flows", "alerts", "windows", "rollup_1s", "rollup_1m", *APPLICATION_TABLES)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        ("  proto=TCP   10.0.0.7 ", "host=10.0.0.7 proto=tcp"),
        ("10.1.2.3/8", "net=10.0.0.0/8"),
        ("-fe80::1", "-host=fe80::1"),
        ("!dport=443 sport!=80", "-dport=443 -sport=80"),
        ("port=8000-8999,443", "port=443,8000-8999"),
        ("-len>100", "len<=100"),
        ("len:100", "len=100"),
        ('sni="*.Example.org"', "sni=*.example.org"),
        ('sensor="a ""b"", c"', 'sensor="a ""b"", c"'),
        ("country=deu,private", "country=DE,private"),
        ("proto=6,tcp", "proto=tcp"),
        ("proto=tcp proto=tcp", "proto=tcp"),
    ],
)
def test_text_in_its_usual_form(text: str, canonical: str) -> None:
    assert parse(text).text == canonical
    assert parse(canonical).text == canonical


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tcp", "'tcp' at 1 is no term"),
        ("proto=tcp nope=1", "field 'nope' of 'nope=1' at 11 is unknown"),
        ("host=1.2.3", "'1.2.3' in 'host=1.2.3' at 1 is not an address"),
        ("host=fe80::1%eth0", "is not an address without a zone"),
        ("port=70000", "is not a number up to 65535"),
        ("port=9-1", "first port is the lower"),
        ("proto>6", "proto takes =, not >"),
        ("len>1,2", "> takes one value"),
        ("sni=", "'sni=' at 1 lacks a value"),
        ('sni=""', "has an empty value"),
        ('sni="a', "a quote is not closed"),
        ('sni="a"b', "expected a comma or a space"),
        ("anomaly>2", "is not a number from 0 to 1"),
        ("flow=9" + "9" * 30, "is not a number up to"),
        ("sensor=a\x00", "U+0000 at 9 cannot be printed"),
        ("a" * 3000, "has 3000 characters"),
        (" ".join(f"port={n}" for n in range(40)), "more than 32 terms"),
        ("port=" + ",".join(map(str, range(100))), "more than 64 values"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_with_its_place(text: str, said: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_chips_hold_the_opposite() -> None:
    chips = parse("proto=tcp -port=53").chips()
    assert [c["opposite"] for c in chips] == ["-proto=tcp", "port=53"]
    assert [parse(c["opposite"]).chips()[0]["opposite"] for c in chips] == [c["text"] for c in chips]


def test_terms_that_a_table_cannot_apply_are_named() -> None:
    assert parse("len>5 proto=udp anomaly>0.5").where("dns").ignored == ("len>5", "proto=udp", "anomaly>0.5")
    assert parse("host=10.0.0.1").where("dns").ignored == ()


# --- against a check of each row in Python ----------------------------------------------------------------------------

ADDRESSES = ("10.0.0.7", "10.9.9.9", "192.168.1.1", "2001:db8::1", "fe80::5")
NAMES = (
    "www.example.org",
    "Example.org",
    "example.org.",
    "notexample.org",
    "o'brien\"; DROP TABLE packets --",
    "a b,c",
)


def _rows() -> list[dict[str, Any]]:
    rows = []
    for i in range(60):
        src, dst = ADDRESSES[i % 5], ADDRESSES[(i * 3 + 1) % 5]
        ip = i % 7 != 0
        rows.append({
            "frame_no": i, "src_ip": src if ip else None, "dst_ip": dst if ip else None,
            "arp_src_ip": None if ip else src, "proto": (6, 17, 1)[i % 3] if ip else None,
            "ethertype": 0x0800 if ip else 0x0806, "src_port": (53, 443, 8080)[i % 3] if ip and i % 3 < 2 else None,
            "dst_port": 40000 + i if ip and i % 3 < 2 else None, "app": (None, "dns", "tls")[i % 3],
            "server_name": (None, *NAMES)[i % 7], "flow_id": i // 4 if ip else None, "wirelen": 60 + i * 20,
            "anomaly": None if i % 4 == 0 else i / 60, "status": ("ok", "bad_network")[i % 11 == 0],
            "inner_src_ip": ADDRESSES[(i + 2) % 5] if i % 13 == 0 and ip else None,
        })  # fmt: skip
    return rows


def _matches(term: Term, row: dict[str, Any]) -> bool:
    """What a term means for a packet, said without SQL."""
    name = term.field
    sides = {"src": ("src",), "sport": ("src",), "dst": ("dst",), "dport": ("dst",)}.get(name, ("src", "dst"))

    def one(value: Any) -> bool:
        if name in ("host", "src", "dst", "net"):
            columns = [f"{p}{s}_ip" for s in sides for p in ("", "inner_", "arp_")]
            found = [ipaddress.ip_address(row[c]) for c in columns if row.get(c)]
            return any(a in value if hasattr(value, "prefixlen") else a == value for a in found)
        if name in ("port", "sport", "dport"):
            ports = [row[f"{s}_port"] for s in sides if row[f"{s}_port"] is not None]
            return isinstance(value, Span) and any(value.low <= p <= value.high for p in ports)
        if name == "proto":
            return row["ethertype"] == 0x0806 if value == "arp" else row["proto"] == value
        if name == "sni":
            have = row["server_name"]
            if value is None or have is None:
                return value is None and have is None
            have = have.lower().rstrip(".")
            return (
                have == value[2:] or have.endswith(value[1:]) if value.startswith("*.") else have == value.rstrip(".")
            )
        column = {"app": "app", "flow": "flow_id", "status": "status", "len": "wirelen", "anomaly": "anomaly"}[name]
        have = row[column]
        if value is None or have is None:
            return value is None and have is None
        compare = {"=": have == value, ">": have > value, ">=": have >= value, "<": have < value, "<=": have <= value}
        return bool(compare[term.operator])

    return any(map(one, term.values)) != term.negated


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    lake = make_lake(tmp_path_factory.mktemp("small"))
    rows = _rows()
    for row in rows:  # what Parquet keeps of a 32-bit number
        if row["anomaly"] is not None:
            row["anomaly"] = float(__import__("numpy").float32(row["anomaly"]))
    segment(lake, "packets", rows, at=NOON)
    con = analytics.connect(lake, threads=1)
    con.execute("CREATE TABLE copied AS FROM packets WHERE date > DATE '1970-01-01'")
    yield con, rows
    con.close()


def _term_texts() -> st.SearchStrategy[str]:
    values = {
        "host": st.sampled_from(
            (
                *ADDRESSES,
                "10.0.0.0/8",
                "fe80::/10",
                "fe80::4/127",
                "2001:db8::/29",
                "::/0",
                "::1/128",
                "0.0.0.0/0",
                "192.0.0.0/9",
                "10.0.0.6/31",
            )
        ),
        "port": st.one_of(st.sampled_from(("53", "443", "8000-8999", "0-65535")), st.integers(0, 65535).map(str)),
        "proto": st.sampled_from(("tcp", "udp", "icmp", "arp", "17", "255")),
        "app": st.sampled_from((NONE, "dns", "TLS", "nothing")),
        "sni": st.sampled_from((NONE, "*.example.org", "example.org", *NAMES)),
        "flow": st.integers(-2, 20).map(str),
        "status": st.sampled_from(("ok", "bad_network", "open")),
        "len": st.integers(0, 1400).map(str),
        "anomaly": st.integers(0, 100).map(lambda n: str(n / 100)),
    }
    values |= dict.fromkeys(("src", "dst", "net"), values["host"]) | dict.fromkeys(("sport", "dport"), values["port"])

    def term(name: str) -> st.SearchStrategy[str]:
        most = 1 if name in ("len", "anomaly") else 3
        quoted = values[name].map(lambda v: '"' + v.replace('"', '""') + '"')
        return st.tuples(
            st.sampled_from(("", "-", "!")), st.sampled_from(FIELDS[name].operators),
            st.lists(quoted, min_size=1, max_size=most),
        ).map(lambda t: f"{t[0]}{name}{t[1]}{','.join(t[2])}")  # fmt: skip

    return st.sampled_from(sorted(values)).flatmap(term)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(_term_texts(), max_size=4))
def test_sql_means_what_python_says(small: Any, texts: list[str]) -> None:
    con, rows = small
    asked = parse(" ".join(texts))
    where = asked.where("packets")
    assert not where.ignored
    sql = f"SELECT frame_no FROM copied WHERE {where.sql} ORDER BY frame_no"
    found = [row[0] for row in con.execute(sql, where.values or None).fetchall()]
    assert found == [r["frame_no"] for r in rows if all(_matches(t, r) for t in asked.terms)]
    assert parse(asked.text).text == asked.text


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=80))
def test_any_text_is_a_filter_or_one_line(text: str) -> None:
    try:
        found = parse(text)
    except FilterError as error:
        said = str(error)
    else:
        assert parse(found.text).text == found.text
        return
    assert said.startswith("filter")
    assert "\n" not in said


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        st.one_of(_term_texts(), st.sampled_from(("country=DE", "-country=none", "country=private"))), max_size=3
    )
)
def test_never_an_error_of_duckdb_on_any_table(small: Any, texts: list[str]) -> None:
    con, _ = small
    asked = parse(" ".join(texts))
    for table in TABLES:
        where = asked.where(table)
        con.execute(f"EXPLAIN SELECT 1 FROM {table} WHERE {where.sql}", where.values or None).fetchall()


def test_real_packets(real_lake: Path) -> None:
    con = analytics.connect(real_lake, threads=1)

    def count(text: str) -> int:
        where = parse(text).where("packets")
        return int(
            con.execute(f"SELECT count(*) FROM packets WHERE {where.sql}", where.values or None).fetchall()[0][0]
        )

    total = count("")
    assert count("proto=udp") + count("-proto=udp") == total
    ask = "SELECT count(*) FROM packets WHERE app = 'dns' AND (src_port = 53000 OR dst_port = 53000)"
    assert count("app=dns port=53000") == con.execute(ask).fetchall()[0][0] > 0
    # A tunnel's inner packet is found by its own addresses and protocol.
    [(inner, number)] = con.execute(
        "SELECT inner_src_ip, count(*) FROM packets WHERE inner_src_ip IS NOT NULL GROUP BY 1 ORDER BY 2 DESC LIMIT 1"
    ).fetchall()
    assert count(f"src={inner}") >= number > 0
    con.close()


def test_every_protocol_name_is_taken() -> None:
    for name in PROTOS:
        assert parse(f"proto={name}").terms[0].values == (PROTOS[name],)
    assert Filter().where("packets").sql == "true"
