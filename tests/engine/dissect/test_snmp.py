from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dissect.base import UDP, Message, Verdict
from engine.dissect.snmp import APPLICATION
from tests.dissecting import matches
from tests.engine.dissect.names_feeding import check_rows, make_flow, one, run


def element(tag: int, *parts: bytes, long: int = 0) -> bytes:
    """An element; `long` says in how many bytes its length is written, 0 for the shortest."""
    content = b"".join(parts)
    size = len(content)
    if not long and size < 0x80:
        return bytes([tag, size]) + content
    count = long or (1 if size < 256 else 2)
    return bytes([tag, 0x80 | count]) + size.to_bytes(count) + content


def number(value: int) -> bytes:
    return element(2, value.to_bytes(max(1, (value.bit_length() + 8) // 8), signed=True))


def oid(text: str) -> bytes:
    first, second, *rest = map(int, text.split("."))
    out = b""
    for n in (first * 40 + second, *rest):
        digits = [n & 0x7F]
        while n := n >> 7:
            digits.append(n & 0x7F | 0x80)
        out += bytes(reversed(digits))
    return element(6, out)


def variables(*names: str) -> bytes:
    return element(0x30, *(element(0x30, oid(n), element(5)) for n in names))


def pdu(tag: int, *names: str, ident: int = 77, status: int = 0) -> bytes:
    return element(tag, number(ident), number(status), number(0), variables(*names))


def message(body: bytes, version: int = 1, community: bytes = b"public", long: int = 0) -> bytes:
    return element(0x30, number(version), element(4, community), body, long=long)


DESCR, UPTIME = "1.3.6.1.2.1.1.1.0", "1.3.6.1.2.1.1.3.0"
GET = message(pdu(0xA0, DESCR, UPTIME))
TRAP1 = message(
    element(
        0xA4, oid("1.3.6.1.4.1.9"), element(0x40, bytes([10, 0, 0, 1])), number(6), number(1), element(0x43, b"\x05"),
        variables(UPTIME),
    ),
    version=0,
)  # fmt: skip


def message3(flags: int, body: bytes, user: bytes = b"admin", model: int = 3) -> bytes:
    head = element(0x30, number(4242), number(65507), element(4, bytes([flags])), number(model))
    security = element(
        0x30, element(4, b"\x80\0\x1f\x88\x04"), number(1), number(2), element(4, user), element(4), element(4)
    )
    return element(0x30, number(3), head, element(4, security), body)


PLAIN3 = message3(4, element(0x30, element(4, b"\x80\0\x1f\x88\x04"), element(4), pdu(0xA0, DESCR)))
PRIVATE3 = message3(3, element(4, bytes(range(60))))


def row(data: bytes, whole: bool = True) -> dict[str, Any]:
    rows = one(APPLICATION, make_flow(50000, 161), data, whole)
    assert len(rows) == 1
    return {k: v for k, v in rows[0].items() if v is not None and k != "ts"}


def test_get() -> None:
    flow = make_flow(50000, 161)
    one(APPLICATION, flow, GET)
    assert flow.app == "snmp"
    assert row(GET) == {
        "version": "2c", "community": "public", "pdu": "get", "request_id": 77, "oids": [DESCR, UPTIME],
    }  # fmt: skip


def test_response__says_its_error() -> None:
    assert row(message(pdu(0xA2, DESCR, status=2), version=0))["error_status"] == "noSuchName"
    assert row(message(pdu(0xA2, DESCR, status=99)))["error_status"] == "99"


@pytest.mark.parametrize(
    ("tag", "name"),
    [(0xA1, "getnext"), (0xA3, "set"), (0xA5, "bulk"), (0xA6, "inform"), (0xA7, "trap"), (0xA8, "report")],
)
def test_kinds(tag: int, name: str) -> None:
    assert row(message(pdu(tag, DESCR)))["pdu"] == name


def test_trap_of_version_1() -> None:
    assert row(TRAP1) == {"version": "1", "community": "public", "pdu": "trap", "oids": ["1.3.6.1.4.1.9", UPTIME]}


def test_version_3__in_clear_and_encrypted() -> None:
    common = {"version": "3", "message_id": 4242, "engine_id": "80001f8804", "user_name": "admin"}
    assert row(PLAIN3) == {
        **common, "security": "noAuthNoPriv", "pdu": "get", "request_id": 77, "oids": [DESCR],
    }  # fmt: skip
    assert row(PRIVATE3) == {**common, "security": "authPriv"}
    assert "user_name" not in row(message3(3, element(4, b"x" * 20), user=b""))


def test_lengths__in_any_form() -> None:
    for long in (1, 2, 3, 4):
        assert row(message(pdu(0xA0, DESCR), long=long))["oids"] == [DESCR]


def test_oids__are_bounded() -> None:
    assert len(row(message(pdu(0xA2, *[DESCR] * 100)))["oids"]) == 32
    long = ".".join(["1.3", *["4294967295"] * 200])
    assert len(row(message(pdu(0xA0, long)))["oids"][0]) < 1024
    assert row(message(pdu(0xA0, "1.3.4294967296.5")))["oids"] == ["1.3"]
    assert row(message(pdu(0xA0, "2.999.3")))["oids"] == ["2.999.3"]


def test_community__is_text() -> None:
    assert row(message(pdu(0xA0, DESCR), community=b"\x1b\xffx"))["community"] == "\\x1b\\xffx"
    assert len(row(message(pdu(0xA0, DESCR), community=b"c" * 5000))["community"]) == 255


def test_cut_by_the_capture__says_what_there_is() -> None:
    cut = message(pdu(0xA2, *[DESCR] * 20))[:80]
    found = row(cut, whole=False)
    assert found["pdu"] == "response"
    assert found["oids"]
    assert run(APPLICATION, make_flow(50000, 161), [Message(cut, 1, True)]) == [Verdict.FOREIGN]


@pytest.mark.parametrize("ports", [(50000, 161), (50000, 9999)])
def test_patterns__hand_over_all_forms(ports: tuple[int, int]) -> None:
    for data in (GET, TRAP1, PLAIN3, PRIVATE3, message(pdu(0xA2, *[DESCR] * 12)), message(pdu(0xA2, *[DESCR] * 50))):
        assert any(matches(p, UDP, ports, data, len(data)) for p in APPLICATION.patterns)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x30", bytes(60), b"\x30\x80" + GET[2:], b"\x30\x85" + bytes(50),
        message(pdu(0xA0, DESCR), version=2),
        message(element(0xA9, b"abc")),
        element(0x30, number(1), element(0x30, b"x")),
        element(0x30, number(1), element(0x60, number(3))),  # LDAP
    ],
)  # fmt: skip
def test_message__of_something_else_is_foreign(data: bytes) -> None:
    assert run(APPLICATION, make_flow(50000, 161), [Message(data, 1, True)]) == [Verdict.FOREIGN]


@pytest.mark.parametrize("data", [GET, TRAP1, PLAIN3, PRIVATE3])
@pytest.mark.parametrize("whole", [True, False])
def test_truncated__at_every_length(data: bytes, whole: bool) -> None:
    for size in range(len(data)):
        one(APPLICATION, make_flow(50000, 161), data[:size], whole)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from([GET, TRAP1, PLAIN3, PRIVATE3]), st.data(), st.booleans())
def test_any_damage(data: bytes, draw: st.DataObject, whole: bool) -> None:
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 5))):
        damaged[draw.draw(st.integers(0, len(damaged) - 1))] = draw.draw(st.integers(0, 255))
    flow = make_flow(50000, 161)
    run(APPLICATION, flow, [Message(bytes(damaged), 1, True, 0, whole), Message(data, 2, True)])
    check_rows(APPLICATION, flow.rows)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", GET[:12], PLAIN3[:20]]), st.booleans())
def test_any_bytes(tail: bytes, start: bytes, whole: bool) -> None:
    one(APPLICATION, make_flow(50000, 161), start + tail, whole)
