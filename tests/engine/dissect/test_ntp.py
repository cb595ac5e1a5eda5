from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dissect.base import Malformed, Message, Verdict
from engine.dissect.ntp import APPLICATION
from tests.engine.dissect.names_feeding import make_flow, one, run


def packet(mode: int, version: int = 4, stratum: int = 2, reference: bytes = bytes([192, 0, 2, 1])) -> bytes:
    return (
        struct.pack(">4B", version << 3 | mode, stratum, 6, 0xEC)
        + struct.pack(">iI", 65536, 32768)
        + reference
        + bytes(32)
    )


PRIVATE = bytes([0x17, 0, 3, 42]) + bytes(4)  # monlist
CONTROL = bytes([0x16, 2]) + bytes(8) + struct.pack(">H", 4) + b"abcd"


def test_server() -> None:
    flow = make_flow(40000, 123)
    assert one(APPLICATION, flow, packet(4)) == [
        {
            "ts": 1000, "version": 4, "mode": "server", "stratum": 2, "root_delay_ms": 1000.0,
            "root_dispersion_ms": 500.0, "reference": "192.0.2.1",
        }
    ]  # fmt: skip
    assert flow.app == "ntp"


def test_reference__is_text_at_stratum_0_and_1() -> None:
    assert one(APPLICATION, make_flow(40000, 123), packet(4, stratum=1, reference=b"GPS\0"))[0]["reference"] == "GPS"
    assert one(APPLICATION, make_flow(40000, 123), packet(4, stratum=0, reference=b"RA\x1b\xff"))[0][
        "reference"
    ].isprintable()


@pytest.mark.parametrize(("data", "mode"), [(PRIVATE, "private"), (CONTROL, "control"), (packet(3, 1), "client")])
def test_modes(data: bytes, mode: str) -> None:
    assert one(APPLICATION, make_flow(40000, 123), data)[0]["mode"] == mode


@pytest.mark.parametrize(
    "data",
    [
        b"", bytes(48), packet(0), packet(3, version=5), packet(3, stratum=17), packet(3)[:47],
        PRIVATE[:7], bytes([0x17, 0, 9, 42]) + bytes(4), bytes([0x17, 0, 3, 42, 0, 6, 0, 72]),
        CONTROL[:11], CONTROL[:-1],
    ],
)  # fmt: skip
def test_packet__of_something_else_is_foreign_only_at_first(data: bytes) -> None:
    assert run(APPLICATION, make_flow(40000, 123), [Message(data, 1, True)]) == [Verdict.FOREIGN]
    flow = make_flow(40000, 123)
    parser = APPLICATION.parser(flow)
    parser.feed(Message(packet(3), 1, True))
    with pytest.raises((Malformed, IndexError, struct.error)):
        parser.feed(Message(data, 2, True))


@pytest.mark.parametrize("data", [packet(3), PRIVATE, CONTROL])
@pytest.mark.parametrize("whole", [True, False])
def test_truncated__at_every_length(data: bytes, whole: bool) -> None:
    for size in range(len(data)):
        one(APPLICATION, make_flow(40000, 123), data[:size], whole)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=80), max_size=4), st.booleans())
def test_any_bytes(data: list[bytes], whole: bool) -> None:
    run(APPLICATION, make_flow(40000, 123), [Message(d, 1, True, 0, whole) for d in data])
