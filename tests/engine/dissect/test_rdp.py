"""RDP connection requests and confirms to rows."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dissect.base import Verdict
from engine.dissect.rdp import APPLICATION
from tests.engine.dissect.feeding import C, S, Talk, begins, check_patterns, survives_truncation, talk


def tpdu(kind: int, variable: bytes) -> bytes:
    return struct.pack(">BBHBBHHB", 3, 0, 11 + len(variable), 6 + len(variable), kind, 0, 0, 0) + variable


def request(text: bytes = b"", protocols: int | None = 3, flags: int = 0) -> bytes:
    negotiation = b"" if protocols is None else struct.pack("<BBHI", 1, flags, 8, protocols)
    return tpdu(0xE0, text + negotiation)


def confirm(kind: int, value: int) -> bytes:
    return tpdu(0xD0, struct.pack("<BBHI", kind, 0, 8, value))


COOKIE = b"Cookie: mstshash=EXAMPLE\\anna\r\n"


def rows_of(*messages: tuple[bool, bytes]) -> list[dict[str, Any]]:
    return talk(APPLICATION, *messages, port=3389).rows()


def test_patterns__request_and_confirm_are_handed_over() -> None:
    check_patterns(APPLICATION.patterns)
    for data in (request(COOKIE), request(), confirm(2, 1), confirm(3, 5), tpdu(0xD0, b"")):
        assert begins(APPLICATION, data)


def test_connection__releases_when_tls_follows() -> None:
    one = talk(APPLICATION, (C, request(COOKIE, 0x0B, 1)), (S, confirm(2, 8)), port=3389)
    assert one.verdict is Verdict.RELEASE
    assert one.rows() == [{
        "ts": 10, "user": "EXAMPLE\\anna", "routing_token": None,
        "requested_protocols": ["tls", "credssp", "credssp_ex"], "restricted_admin": True,
        "selected_protocol": "credssp_ex",
    }]  # fmt: skip


def test_connection__own_encryption_ends_the_reading() -> None:
    for answer in (confirm(2, 0), tpdu(0xD0, b"")):
        one = talk(APPLICATION, (C, request(COOKIE, None)), (S, answer), port=3389)
        assert one.verdict is Verdict.DONE
        (row,) = one.rows()
        assert (row["requested_protocols"], row["selected_protocol"]) == (["rdp"], "rdp")


def test_failure__reason_is_kept() -> None:
    one = talk(APPLICATION, (C, request(b"", 0)), (S, confirm(3, 5)), port=3389)
    assert one.verdict is Verdict.DONE
    assert one.rows()[0]["failure"] == "credssp required by server"


def test_routing_token__is_kept() -> None:
    (row,) = rows_of((C, request(b"Cookie: msts=3640205228.15629.0000\r\n")))
    assert (row["routing_token"], row["user"]) == ("Cookie: msts=3640205228.15629.0000", None)


def test_correlation__identifier_after_the_negotiation() -> None:
    body = COOKIE + struct.pack("<BBHI", 1, 8, 8, 2) + b"\x06\0\x24\0" + b"i" * 32
    (row,) = rows_of((C, tpdu(0xE0, body)))
    assert (row["user"], row["requested_protocols"]) == ("EXAMPLE\\anna", ["credssp"])


def test_again__a_retransmitted_request_is_one_row() -> None:
    one = Talk(APPLICATION, 3389)
    one.say(C, request(COOKIE), 1000)
    one.say(C, request(COOKIE), 1000)
    one.say(S, confirm(2, 1))
    assert len(one.rows()) == 1


@pytest.mark.parametrize(
    "data",
    [
        tpdu(0xE0, b"\xc0\x01\x0a\xc1\x02\x01\0\xc2\x02\x01\x02"),  # S7 over ISO-TSAP
        tpdu(0xE0, b""), tpdu(0xD0, b""), b"\x03\0\0\x0b\x05\xe0\0\0\0\0\0", b"\x03\0\0\x20\x1b\xe0\0\0\0\0\0", b"\x03",
    ],
)  # fmt: skip
def test_foreign__other_protocols_over_x224(data: bytes) -> None:
    one = talk(APPLICATION, (C, data), port=102)
    assert (one.verdict, one.flow.app, one.rows()) == (Verdict.FOREIGN, "", [])


def test_truncation__raises_only_what_is_allowed() -> None:
    survives_truncation(APPLICATION, [(C, request(COOKIE)), (S, confirm(2, 1))], 3389)


parts = st.one_of(st.binary(max_size=60), st.sampled_from([COOKIE, b"\x01\0\x08\0\x03\0\0\0", b"\x02\0\x08\0\1\0\0\0"]))
pieces = st.one_of(st.binary(min_size=1, max_size=60), st.builds(tpdu, st.sampled_from([0xE0, 0xD0]), parts))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.booleans(), pieces, st.booleans()), max_size=10))
def test_any_bytes__rows_are_valid(says: list[tuple[bool, bytes, bool]]) -> None:
    one = Talk(APPLICATION, 3389)
    for side, data, whole in says:
        if one.say(side, data, whole=whole) is not Verdict.MORE:
            break
    one.rows()
