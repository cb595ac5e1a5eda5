"""CIDR and address order in SQL against Python's ipaddress, and what kind of address an address is."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import analytics
from analytics.addresses import parse, scope
from tests.analytics.small_lake import make_lake

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@pytest.fixture(scope="module")
def con(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    lake = make_lake(tmp_path_factory.mktemp("lake"), "10.0.0.1", "10.200.0.1", "11.0.0.1", "2001:db8::1", "fe80::1")
    con = analytics.connect(lake)
    yield con
    con.close()


@st.composite
def networks_and_addresses(draw: st.DrawFn) -> tuple[Network, list[str]]:
    """A network and addresses of its family, many of them at its edges or with runs of zeros."""
    bits = draw(st.sampled_from((32, 128)))
    kind: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]
    kind = ipaddress.IPv4Address if bits == 32 else ipaddress.IPv6Address
    numbers = st.integers(0, 2**bits - 1) | st.integers(0, bits - 1).map(lambda n: 1 << n) | st.integers(0, 2**20)
    net = ipaddress.ip_network((kind(draw(numbers)), draw(st.integers(0, bits))), strict=False)
    edges = [int(net.network_address), int(net.broadcast_address)]
    near = st.tuples(st.sampled_from(edges), st.integers(-2, 2)).map(lambda e: (e[0] + e[1]) % 2**bits)
    return net, [str(kind(n)) for n in draw(st.lists(near | numbers, min_size=1, max_size=10))]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(networks_and_addresses())
def test_in_net__agrees_with_ipaddress(con: duckdb.DuckDBPyConnection, case: tuple[Network, list[str]]) -> None:
    net, ips = case
    rows = con.execute(f"SELECT ip, ip <<= '{net}' FROM (SELECT unnest($ips) AS ip)", {"ips": ips}).fetchall()
    assert rows == [(ip, ipaddress.ip_address(ip) in net) for ip in ips]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.ip_addresses(), min_size=1, max_size=20, unique=True))
def test_ip_key__sorts_as_addresses_do(con: duckdb.DuckDBPyConnection, ips: list[ipaddress.IPv4Address]) -> None:
    rows = con.execute("SELECT ip FROM (SELECT unnest($ips) AS ip) ORDER BY ip_key(ip)", {"ips": list(map(str, ips))})
    assert [r[0] for r in rows.fetchall()] == [str(ip) for ip in sorted(ips, key=lambda ip: (ip.version, int(ip)))]


@pytest.mark.parametrize(
    ("ip", "key"),
    [
        ("::ffff:192.0.2.1", "6" + "0" * 20 + "ffffc0000201"),
        ("::FFFF:192.0.2.1", "6" + "0" * 20 + "ffffc0000201"),
        ("1:2:3:4:5:6:7::", "600010002000300040005000600070000"),
        ("::", "6" + "0" * 32),
        ("1::2::3", None),
        ("1:2:3", None),
        ("12345::", None),
        ("256.0.0.1", None),
        ("1.2.3", None),
        ("", None),
        (None, None),
    ],
)
def test_ip_key__of_special_text(con: duckdb.DuckDBPyConnection, ip: str | None, key: str | None) -> None:
    assert con.execute("SELECT ip_key($ip)", {"ip": ip}).fetchone() == (key,)


@pytest.mark.parametrize(
    ("net", "rows"),
    [
        ("10.0.0.0/8", 2),
        ("10.128.0.0/9", 1),
        ("10.0.0.1/8", 2),  # host bits do not matter
        ("10.0.0.1", 1),  # an address is its own network
        ("0.0.0.0/0", 3),
        ("::/0", 2),
        ("2001:db8::/32", 1),
        ("2001:DB8::/32", 1),
        ("fe80::/10", 1),
    ],
)
def test_cidr__filters_packets(con: duckdb.DuckDBPyConnection, net: str, rows: int) -> None:
    assert con.execute(f"SELECT count(*) FROM packets WHERE src_ip <<= '{net}'").fetchone() == (rows,)
    assert con.execute("SELECT count(*) FROM packets WHERE in_net(src_ip, $net)", {"net": net}).fetchone() == (rows,)


def test_cidr__of_null_is_null(con: duckdb.DuckDBPyConnection) -> None:
    assert con.execute("SELECT NULL <<= '10.0.0.0/8', NULL <<= '::/0', '10.0.0.1' <<= NULL").fetchone() == (None,) * 3
    assert con.execute("SELECT count(*) FROM packets WHERE arp_src_ip <<= '0.0.0.0/0'").fetchone() == (0,)


@pytest.mark.parametrize(
    "net", ["ten", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/", "10.0.0.0/8/8", "2001:db8::/129", "2001:db8:::/32", "", "/8"]
)
def test_cidr__malformed_network_is_an_error_that_names_it(con: duckdb.DuckDBPyConnection, net: str) -> None:
    with pytest.raises(duckdb.Error, match=f"'{net}' is not a network"):
        con.execute(f"SELECT count(*) FROM packets WHERE src_ip <<= '{net}'")


def test_cidr__networks_from_a_table(con: duckdb.DuckDBPyConnection) -> None:
    rows = con.execute(
        "SELECT net, count(*) FROM packets JOIN (VALUES ('10.0.0.0/8'), ('2001:db8::/32')) n(net) "
        "ON src_ip <<= net GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert rows == [("10.0.0.0/8", 2), ("2001:db8::/32", 1)]


def test_cidr__a_constant_network_is_one_pattern_in_the_plan(con: duckdb.DuckDBPyConnection) -> None:
    plan = con.execute("EXPLAIN SELECT count(*) FROM packets WHERE src_ip <<= '172.16.0.0/14'").fetchall()[0][1]
    assert r"'172\.(?:16|17|18|19)\.[0-9]{1,3}\.[0-9]{1,3}'" in plan
    assert "list_transform" not in plan


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("8.8.8.8", "public"),
        ("9.255.255.255", "public"),
        ("10.0.0.0", "private"),
        ("10.255.255.255", "private"),
        ("11.0.0.0", "public"),
        ("100.64.0.1", "shared"),
        ("127.0.0.1", "loopback"),
        ("169.254.1.1", "link_local"),
        ("172.32.0.0", "public"),
        ("192.0.2.1", "documentation"),
        ("198.19.255.255", "benchmarking"),
        ("224.0.0.251", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.254", "reserved"),
        ("255.255.255.255", "broadcast"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::2", "reserved"),
        ("::ffff:10.0.0.1", "private"),
        ("2606:4700::1111", "public"),
        ("2001:db8::1", "documentation"),
        ("2001:db9::", "public"),
        ("fd00::1", "private"),
        ("fe80::1", "link_local"),
        ("ff02::fb", "multicast"),
        ("4000::", "reserved"),
        ("localhost", None),
    ],
)
def test_scope(ip: str, expected: str | None) -> None:
    address = parse(ip)
    assert (scope(address) if address else None) == expected


@given(st.ip_addresses())
def test_scope__private_by_ipaddress_is_never_public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if (
        ip.is_multicast
        or ip.is_loopback
        or ip.is_link_local
        or ip in ipaddress.ip_network("10.0.0.0/8" if ip.version == 4 else "fc00::/7")
    ):
        assert scope(ip) != "public"
