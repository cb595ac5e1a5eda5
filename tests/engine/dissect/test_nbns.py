from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dissect.base import Message, Verdict
from engine.dissect.nbns import APPLICATION
from tests.engine.dissect.names_feeding import check_rows, make_flow, one, run

NB, NBSTAT = 0x20, 0x21


def encoded(name: bytes, suffix: int) -> bytes:
    raw = name.ljust(15, b" ") + bytes([suffix])
    return b"\x20" + b"".join(bytes([0x41 + (b >> 4), 0x41 + (b & 15)]) for b in raw) + b"\0"


def header(flags: int, *counts: int) -> bytes:
    return struct.pack(">6H", 513, flags, *counts)


def record(kind: int, data: bytes, owner: bytes = b"\xc0\x0c") -> bytes:
    return owner + struct.pack(">HHIH", kind, 1, 300, len(data)) + data


HOST = encoded(b"FILESERVER", 0x20)
QUERY = header(0x0110, 1, 0, 0, 0) + HOST + struct.pack(">HH", NB, 1)
REGISTRATION = header(0x2910, 1, 0, 0, 1) + HOST + struct.pack(">HH", NB, 1) + record(NB, b"\x60\0\x0a\0\0\x05")
ANSWER = header(0x8500, 0, 1, 0, 0) + record(NB, b"\0\0\x0a\0\0\x05\x80\0\x0a\0\0\x06", HOST)
STATUS = header(0x8400, 0, 1, 0, 0) + record(
    NBSTAT,
    b"\x02" + b"FILESERVER".ljust(15) + b"\0\x04\0" + b"CORP".ljust(15) + b"\x1e\x84\0"
    + bytes.fromhex("020000000a01") + bytes(40),
    encoded(b"*" + bytes(14), 0),
)  # fmt: skip


def row(data: bytes) -> dict[str, Any]:
    flow = make_flow(137, 137)
    rows = one(APPLICATION, flow, data)
    assert flow.app == "nbns"
    assert len(rows) == 1
    return {k: v for k, v in rows[0].items() if v is not None and k not in ("ts", "id")}


def test_query() -> None:
    assert row(QUERY) == {"name": "FILESERVER", "suffix": 32, "op": "query", "response": False}


def test_registration__tells_the_address() -> None:
    assert row(REGISTRATION) == {
        "name": "FILESERVER", "suffix": 32, "op": "registration", "response": False, "addresses": ["10.0.0.5"],
        "is_group": False,
    }  # fmt: skip


def test_answer() -> None:
    found = row(ANSWER)
    assert (found["rcode"], found["addresses"]) == ("NOERROR", ["10.0.0.5", "10.0.0.6"])
    assert row(header(0x8583, 0, 1, 0, 0) + record(0x0A, b"", HOST))["rcode"] == "NXDOMAIN"


def test_status__tells_names_and_station() -> None:
    assert row(STATUS) == {
        "name": "*", "suffix": 0, "op": "status", "response": True, "rcode": "NOERROR",
        "names": ["FILESERVER<00>", "CORP<1e>"], "mac": "02:00:00:00:0a:01",
    }  # fmt: skip


def test_lists__are_bounded() -> None:
    assert len(row(header(0x8500, 0, 1, 0, 0) + record(NB, b"\0\0\x0a\0\0\x05" * 200, HOST))["addresses"]) == 32
    many = record(NBSTAT, b"\xff" + b"NAME".ljust(15, b"\x1b") * 400, HOST)
    assert len(row(header(0x8400, 0, 1, 0, 0) + many)["names"]) == 32


@pytest.mark.parametrize(
    "data",
    [
        b"", bytes(50), QUERY.replace(b"C", b"Z"), QUERY[:-4] + b"\0\x01\0\x01",
        header(0x0110, 2, 0, 0, 0) + QUERY[12:],
        header(0x1110, 1, 0, 0, 0) + QUERY[12:], QUERY[:40],
    ],
)  # fmt: skip
def test_message__of_something_else_is_foreign(data: bytes) -> None:
    assert run(APPLICATION, make_flow(137, 137), [Message(data, 1, True)]) == [Verdict.FOREIGN]


@pytest.mark.parametrize("data", [QUERY, REGISTRATION, ANSWER, STATUS])
def test_truncated__at_every_length(data: bytes) -> None:
    for size in range(len(data)):
        one(APPLICATION, make_flow(137, 137), data[:size])


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([QUERY, REGISTRATION, ANSWER, STATUS]), st.data(), st.binary(max_size=90))
def test_any_damage(data: bytes, draw: st.DataObject, junk: bytes) -> None:
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        damaged[draw.draw(st.integers(0, len(damaged) - 1))] = draw.draw(st.integers(0, 255))
    flow = make_flow(137, 137)
    run(APPLICATION, flow, [Message(d, 1, True) for d in (data, bytes(damaged), junk)])
    check_rows(APPLICATION, flow.rows)
