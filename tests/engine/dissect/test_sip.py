"""SIP messages to rows, over UDP and TCP; and tshark's answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dissect.base import TCP, UDP, Verdict
from engine.dissect.sip import APPLICATION
from tests.engine.dissect.by_frame import CORPUS, compare
from tests.engine.dissect.feeding import C, S, Talk, begins, check_patterns, survives_truncation, talk

INVITE = (
    b"INVITE sip:bob@b.example SIP/2.0\r\nVia: SIP/2.0/UDP a\r\n"
    b"f: A <sip:a@a.example>\r\n ;tag=1\r\nTo: <sip:bob@b.example>\r\n"
    b"i: call-1\r\nCSeq: 7 INVITE\r\nUser-Agent: unit\r\nc: application/sdp\r\nl: 5\r\n\r\nv=0\r\n"
)
RINGING = (
    b"SIP/2.0 180 Ringing\r\nFrom: x\r\nTo: y\r\nCall-ID: call-1\r\nCSeq: 7 INVITE\r\nServer: s\r\n"
    b"Content-Length: 0\r\n\r\n"
)


def short(rows: list[dict[str, Any]]) -> list[tuple[Any, Any, Any]]:
    return [(r["method"], r["status"], r["call_id"]) for r in rows]


def test_patterns__requests_and_responses_are_handed_over() -> None:
    check_patterns(APPLICATION.patterns)
    for proto in (TCP, UDP):
        for data in (INVITE, RINGING, b"BYE sip:x SIP/2.0\r\n", b"OPTIONS sip:x SIP/2.0\r\n"):
            assert begins(APPLICATION, data, proto=proto)


def test_udp__all_columns() -> None:
    one = talk(APPLICATION, (C, INVITE), (S, RINGING), port=5060, proto=UDP)
    request, reply = one.rows()
    assert request == {
        "ts": 10, "method": "INVITE", "request_uri": "sip:bob@b.example", "status": None,
        "from_uri": "A <sip:a@a.example> ;tag=1", "to_uri": "<sip:bob@b.example>", "call_id": "call-1",
        "cseq": "7 INVITE", "user_agent": "unit", "content_type": "application/sdp",
    }  # fmt: skip
    assert (reply["status"], reply["method"], reply["user_agent"]) == (180, None, "s")
    assert one.flow.app == "sip"


def test_tcp__several_messages_and_keep_alives_of_a_stream() -> None:
    one = talk(APPLICATION, (C, INVITE + b"\r\n\r\n" + INVITE), (S, RINGING), proto=TCP)
    assert short(one.rows()) == [("INVITE", None, "call-1")] * 2 + [(None, 180, "call-1")]


def test_tcp__split_at_every_byte_in_any_order_gives_the_same_row() -> None:
    for at in range(1, len(INVITE) - 6):
        for turned in (False, True):
            one = Talk(APPLICATION, 5060)
            one.say(C, INVITE)
            begin = one.seq[C]
            parts = [(INVITE[:at], begin), (INVITE[at : at + 5], begin + at), (INVITE[at + 5 :], begin + at + 5)]
            for data, seq in [parts[0], parts[2], parts[1]] if turned else parts:
                one.say(C, data, seq)
            assert short(one.rows()) == [("INVITE", None, "call-1")] * 2


@pytest.mark.parametrize(
    "data",
    [
        b"OPTIONS / HTTP/1.1\r\n\r\n", b"OPTIONS rtsp://x RTSP/1.0\r\n\r\n", b"SIP/2.0 2\r\n\r\n", b"\0\1",
        b"NOTIFY * HTTP/1.1\r\n\r\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("proto", [TCP, UDP])
def test_foreign__other_texts(data: bytes, proto: int) -> None:
    one = talk(APPLICATION, (C, data), proto=proto)
    assert (one.verdict, one.rows()) == (Verdict.FOREIGN, [])


def test_bounds__long_values_are_cut() -> None:
    one = talk(APPLICATION, (C, INVITE.replace(b"call-1", b"c" * 9000)), proto=UDP)
    assert len(one.rows()[0]["call_id"]) == 512


@pytest.mark.parametrize("proto", [TCP, UDP])
def test_truncation__raises_only_what_is_allowed(proto: int) -> None:
    survives_truncation(APPLICATION, [(C, INVITE), (S, RINGING)], 5060, proto)


pieces = st.one_of(st.binary(min_size=1, max_size=60), st.sampled_from([INVITE, RINGING, b"\r\n\r\n", INVITE[:50]]))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.booleans(), pieces, st.integers(-100, 100), st.booleans()), max_size=30), st.booleans())
def test_any_bytes__rows_are_valid(says: list[tuple[bool, bytes, int, bool]], udp: bool) -> None:
    one = Talk(APPLICATION, 5060, UDP if udp else TCP)
    for side, data, shift, whole in says:
        one.seq[side] = (one.seq[side] + shift) & 0xFFFF_FFFF
        if one.say(side, data, whole=whole) is not Verdict.MORE:
            break
    one.rows()


# Messages with damaged first lines in a fuzzed capture: tshark takes them all the same.
KNOWN = {
    ("nDPI--fuzz-2006-06-26-2594.pcap", 107, "sip_method"): "method `REGIStER`",
    ("nDPI--fuzz-2006-06-26-2594.pcap", 247, "sip_method"): "the first line ends with CR and `7`",
}


@pytest.mark.corpus
@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no captures at {CORPUS}")
def test_corpus__equals_tshark() -> None:
    found = compare()
    assert [r for r in found.rest if r[2] == "sip_method" and r[:3] not in KNOWN] == [], found.report()
    assert found.same("sip_method") == found.comparable("sip_method") - len(KNOWN) == 47, found.report()
