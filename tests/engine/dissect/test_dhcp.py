from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dissect.base import Flow, Message, Verdict
from engine.dissect.dhcp import APPLICATION
from tests.engine.dissect.names_corpus import CORPUS, compare_dhcp
from tests.engine.dissect.names_feeding import check_rows, labels, make_flow, one, run

MAC = bytes.fromhex("020000000a01")


def option(code: int, value: bytes) -> bytes:
    return bytes([code, len(value)]) + value


def message(
    *options: bytes, operation: int = 1, yours: str = "0.0.0.0", relay: bytes = bytes(4), sname: bytes = b"",
    file: bytes = b"", cookie: bytes = b"\x63\x82\x53\x63",
) -> bytes:  # fmt: skip
    head = struct.pack(">4BIHH", operation, 1, 6, 0, 0xDEADBEEF, 0, 0)
    addresses = bytes(4) + bytes(map(int, yours.split("."))) + bytes(4) + relay
    rest = MAC.ljust(16, b"\0") + sname.ljust(64, b"\0") + file.ljust(128, b"\0")
    return head + addresses + rest + cookie + b"".join(options) + b"\xff"


REQUEST = message(
    option(53, b"\x03"), option(61, b"\x01" + MAC), option(50, bytes([10, 0, 0, 77])), option(12, b"laptop-1"),
    option(60, b"MSFT 5.0"), option(55, bytes([1, 3, 6, 15])), option(81, b"\0\0\0laptop-1.example.com"),
)  # fmt: skip
ACK = message(
    option(53, b"\x05"), option(54, bytes([10, 0, 0, 1])), option(51, struct.pack(">I", 86400)),
    option(3, bytes([10, 0, 0, 1, 10, 0, 0, 2])), option(15, b"example.com\0"),
    option(6, bytes([10, 0, 0, 3, 10, 0, 0, 4])), operation=2, yours="10.0.0.77", relay=bytes([10, 9, 9, 9]),
)  # fmt: skip


def row(data: bytes, ports: tuple[int, int] = (68, 67), whole: bool = True) -> dict[str, Any]:
    rows = one(APPLICATION, make_flow(*ports), data, whole)
    assert len(rows) == 1
    return rows[0]


def known(found: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in found.items() if v is not None and k != "ts"}


def test_request() -> None:
    flow = make_flow(68, 67)
    rows = one(APPLICATION, flow, REQUEST)
    assert flow.app == "dhcp"
    assert [known(r) for r in rows] == [
        {
            "message_type": "REQUEST", "transaction_id": 0xDEADBEEF, "client_mac": "02:00:00:00:0a:01",
            "client_id": "01020000000a01", "requested_ip": "10.0.0.77", "host_name": "laptop-1",
            "vendor_class": "MSFT 5.0", "parameter_request_list": "1,3,6,15",
        }
    ]  # fmt: skip


def test_acknowledgement() -> None:
    assert known(row(ACK, (67, 68))) == {
        "message_type": "ACK", "transaction_id": 0xDEADBEEF, "client_mac": "02:00:00:00:0a:01",
        "assigned_ip": "10.0.0.77", "relay_ip": "10.9.9.9", "server_id": "10.0.0.1", "lease_s": 86400,
        "router": "10.0.0.1", "domain_name": "example.com", "dns_servers": ["10.0.0.3", "10.0.0.4"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"\0\0\0host.example", "host.example"),
        (b"\x04\0\0" + labels("host.example"), "host.example"),
        (b"\x04\0\0\x04host", "host"),  # not qualified: no empty label
        (b"\x04\0\0\xc0\x00", None),
        (b"\x04\0\0", None),
        (b"\0", None),
    ],
)
def test_host_name__from_the_fqdn_option(value: bytes, name: str | None) -> None:
    assert row(message(option(53, b"\x01"), option(81, value)))["host_name"] == name


def test_options__split_are_joined() -> None:
    assert (
        row(message(option(53, b"\1"), option(12, b"left-"), b"\0\0", option(12, b"right")))["host_name"]
        == "left-right"
    )


def test_options__in_overloaded_fields() -> None:
    data = message(
        option(53, b"\2"), option(52, b"\3"), sname=option(12, b"here") + b"\xff", file=option(60, b"v") + b"\xff"
    )
    assert (row(data)["host_name"], row(data)["vendor_class"]) == ("here", "v")


def test_bootp__has_no_options() -> None:
    assert row(message(cookie=bytes(4)))["message_type"] == "BOOTREQUEST"
    assert row(message(cookie=bytes(4), operation=2), (67, 68))["message_type"] == "BOOTREPLY"
    assert row(message(option(53, b"\x63")))["message_type"] == "TYPE99"


def test_values__are_bounded_and_printable() -> None:
    found = row(
        message(*[option(c, b"\x1b\xff" * 127) for c in (12, 15, 55, 60, 61, 6) for _ in range(20)], option(53, b"\1"))
    )
    assert found["host_name"].isprintable()
    assert len(found["client_id"]) == 128
    assert len(found["dns_servers"]) == 16
    assert len(found["parameter_request_list"]) < 5000


def test_message__of_something_else_is_foreign() -> None:
    for data in (bytes(300), b"\x01\x01\x20\x00" + bytes(300), REQUEST[:200], b""):
        assert run(APPLICATION, make_flow(68, 67), [Message(data, 1, True)]) == [Verdict.FOREIGN]


def option6(code: int, value: bytes) -> bytes:
    return struct.pack(">HH", code, len(value)) + value


DUID = b"\0\1\0\1" + bytes(4) + MAC
ADDRESS = bytes.fromhex("20010db8" + "00" * 11 + "05")
SOLICIT = b"\x01\x12\x34\x56" + b"".join(
    (
        option6(1, DUID), option6(6, struct.pack(">2H", 23, 24)), option6(39, b"\0" + labels("pc.example.com")[:-1]),
        option6(16, struct.pack(">IH", 311, 8) + b"MSFT 5.0"), option6(3, bytes(12)),
    )
)  # fmt: skip
REPLY = b"\x07\x12\x34\x56" + b"".join(
    (
        option6(1, DUID), option6(2, b"\0\3\0\1" + MAC),
        option6(3, bytes(12) + option6(5, ADDRESS + struct.pack(">II", 600, 1200))),
        option6(23, ADDRESS), option6(24, labels("example.com") + labels("b.test")),
    )
)  # fmt: skip


def test_dhcp6__client() -> None:
    flow = make_flow(546, 547)
    rows = one(APPLICATION, flow, SOLICIT)
    assert flow.app == "dhcp6"
    assert [known(r) for r in rows] == [
        {
            "message_type": "SOLICIT", "transaction_id": 0x123456, "client_mac": "02:00:00:00:0a:01",
            "client_id": DUID.hex(), "host_name": "pc.example.com", "vendor_class": "MSFT 5.0",
            "parameter_request_list": "23,24",
        }
    ]  # fmt: skip


def test_dhcp6__server() -> None:
    assert known(row(REPLY, (547, 546))) == {
        "message_type": "REPLY", "transaction_id": 0x123456, "client_mac": "02:00:00:00:0a:01", "client_id": DUID.hex(),
        "assigned_ip": "2001:db8::5", "server_id": "00030001" + MAC.hex(), "lease_s": 1200,
        "domain_name": "example.com", "dns_servers": ["2001:db8::5"],
    }  # fmt: skip


def test_dhcp6__prefix() -> None:
    prefix = option6(26, struct.pack(">IIB", 1, 7200, 56) + ADDRESS)
    found = row(b"\x02\0\0\1" + option6(25, bytes(12) + prefix), (547, 546))
    assert (found["assigned_ip"], found["lease_s"]) == ("2001:db8::5/56", 7200)


def test_dhcp6__relays_are_opened_to_a_limit() -> None:
    data = SOLICIT
    for hop in range(8):
        if hop < 7:
            found = row(data, (547, 547))
            assert (found["message_type"], found["host_name"]) == ("SOLICIT", "pc.example.com")
        data = bytes([12, hop]) + ADDRESS + bytes(16) + option6(9, data)
    assert row(bytes([12, 0]) + ADDRESS + bytes(16) + option6(9, SOLICIT), (547, 547))["relay_ip"] == "2001:db8::5"
    assert run(APPLICATION, make_flow(547, 547), [Message(data, 1, True)]) == [Verdict.FOREIGN]


def test_dhcp6__of_something_else_is_foreign() -> None:
    for data in (bytes(40), b"\x01\0\0\1\0\1\xff\xff", b"\x0c" + bytes(50), b"\x01\0"):
        assert run(APPLICATION, make_flow(546, 547), [Message(data, 1, True)]) == [Verdict.FOREIGN]


@pytest.mark.parametrize(
    ("data", "ports"), [(REQUEST, (68, 67)), (ACK, (67, 68)), (SOLICIT, (546, 547)), (REPLY, (547, 546))]
)
@pytest.mark.parametrize("whole", [True, False])
def test_truncated__at_every_length(data: bytes, ports: tuple[int, int], whole: bool) -> None:
    for size in range(len(data)):
        one(APPLICATION, make_flow(*ports), data[:size], whole)


def test_cut_by_the_capture__says_what_there_is() -> None:
    assert row(REQUEST[:64], whole=False)["client_mac"] == "02:00:00:00:0a:01"


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.binary(max_size=120), min_size=1, max_size=3), st.sampled_from([(68, 67), (546, 547)]), st.booleans()
)
def test_any_bytes(tails: list[bytes], ports: tuple[int, int], whole: bool) -> None:
    flow = make_flow(*ports)
    starts = (b"", message()[:240], SOLICIT[:4], bytes([13, 1]) + bytes(32) + b"\0\x09")
    run(APPLICATION, flow, [Message(start + tail, 1, True, 0, whole) for tail in tails for start in starts])
    check_rows(APPLICATION, flow.rows)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([REQUEST, ACK, SOLICIT, REPLY]), st.data())
def test_any_damage(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        damaged[draw.draw(st.integers(0, len(damaged) - 1))] = draw.draw(st.integers(0, 255))
    flow: Flow = make_flow(*((68, 67) if len(data) > 236 else (546, 547)))
    run(APPLICATION, flow, [Message(data, 1, True), Message(bytes(damaged), 2, True)])
    assert len(flow.rows) >= 1


@pytest.mark.corpus
@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no captures at {CORPUS}")
def test_corpus__as_tshark_reads_it() -> None:
    """486 messages, of which 482 in reach, 479 are rows: 3 are fuzzed. 32 host names, 31 in reach, 31 equal."""
    found = compare_dhcp()
    print(found.report())
    assert not found.rest
    assert found.equal["message"] / found.reachable("message") >= 0.99
    assert found.equal["dhcp_hostname"] == found.reachable("dhcp_hostname") >= 31
