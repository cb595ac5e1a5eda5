"""HTTP/1 heads to rows: pairs, splits, bodies that look like heads, what must not be kept; and tshark's answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dissect.base import UDP, Verdict
from engine.dissect.http import APPLICATION
from tests.engine.dissect.by_frame import CORPUS, OF_REQUEST, compare
from tests.engine.dissect.feeding import C, S, Talk, begins, check_patterns, survives_truncation, talk

GET = (
    b"GET /a/b?c=d HTTP/1.1\r\nHost: www.example.org:8080\r\nUser-Agent: probe/1.0\r\nReferer: http://x.example/\r\n"
    b"Accept: */*\r\n\r\n"
)
OK = b"HTTP/1.1 200 OK\r\nServer: unit/2\r\nContent-Type: Text/HTML; charset=utf-8\r\nContent-Length: 5\r\n\r\nhello"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def rows_of(*messages: tuple[bool, bytes], **kind: Any) -> list[dict[str, Any]]:
    return talk(APPLICATION, *messages, **kind).rows()


def pairs(rows: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
    return [(row.get("path"), row.get("status")) for row in rows]


def get(path: str, fields: bytes = b"") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\n".encode() + fields + b"\r\n"


def test_patterns__are_what_the_kernel_compares() -> None:
    check_patterns(APPLICATION.patterns)


@pytest.mark.parametrize("method", ["GET", "POST", "PROPFIND", "PROPPATCH", "OPTIONS", "RPC_IN_DATA", "M-SEARCH"])
def test_patterns__methods_are_handed_over_on_any_port(method: str) -> None:
    assert begins(APPLICATION, f"{method} / HTTP/1.1\r\n".encode(), proto=UDP if method == "M-SEARCH" else 6)


def test_patterns__unknown_method_is_handed_over_where_http_is_usual() -> None:
    assert begins(APPLICATION, b"FROBNICATE / HTTP/1.1\r\n", port=8080)
    assert not begins(APPLICATION, b"FROBNICATE / HTTP/1.1\r\n", port=9999)


def test_pair__all_columns() -> None:
    one = talk(APPLICATION, (C, GET), (S, OK))
    (row,) = one.rows()
    assert row == {
        "ts": 10, "method": "GET", "host": "www.example.org:8080", "path": "/a/b?c=d", "user_agent": "probe/1.0",
        "referer": "http://x.example/", "status": 200, "content_type": "text/html", "request_bytes": None,
        "content_length": 5, "version": "1.1", "server": "unit/2", "auth_scheme": None, "has_credentials": False,
        "latency_us": 10,
    }  # fmt: skip
    assert (one.flow.app, one.flow.server_name) == ("http", "www.example.org")


def test_keep_alive__each_request_is_a_row() -> None:
    rows = rows_of((C, get("/1")), (S, OK), (C, get("/2")), (S, NOT_FOUND), (C, get("/3")))
    assert pairs(rows) == [("/1", 200), ("/2", 404), ("/3", None)]


def test_pipelined__answers_are_matched_in_order() -> None:
    post = b"POST /2 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
    rows = rows_of((C, get("/1") + post + get("/3")), (S, OK + NOT_FOUND + OK))
    assert pairs(rows) == [("/1", 200), ("/2", 404), ("/3", 200)]
    assert rows[1]["request_bytes"] == 3


def test_queue__is_bounded_and_the_oldest_goes_unanswered() -> None:
    one = Talk(APPLICATION)
    for i in range(100):
        one.say(C, get(f"/{i}"))
    assert len(one.flow.rows) == 36
    one.say(S, OK)
    assert pairs(one.rows())[36] == ("/36", 200)
    assert len(one.flow.rows) == 100


def test_response__without_request_is_a_row() -> None:
    (row,) = rows_of((S, OK))
    assert (row["status"], row["version"], row.get("method")) == (200, "1.1", None)


def test_head__answer_has_a_length_but_no_body() -> None:
    head = b"HEAD / HTTP/1.1\r\n\r\n"
    rows = rows_of((C, head), (S, b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"), (C, get("/2")), (S, NOT_FOUND))
    assert pairs(rows) == [("/", 200), ("/2", 404)]


def test_interim__continue_is_not_the_answer() -> None:
    post = b"PUT /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    rows = rows_of((C, post), (S, b"HTTP/1.1 100 Continue\r\n\r\n"), (C, b"data"), (S, OK))
    assert pairs(rows) == [("/x", 200)]


def test_body__text_of_a_head_in_it_is_no_request() -> None:
    body = get("/not-one")
    post = b"POST /x HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (len(body) + 10)
    rows = rows_of((C, post), (C, body), (C, b"0123456789"), (C, get("/2")), (S, OK), (S, NOT_FOUND))
    assert pairs(rows) == [("/x", 200), ("/2", 404)]


def test_body__status_line_in_a_download_is_no_response() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(NOT_FOUND) + 3)
    rows = rows_of((C, get("/1")), (S, answer), (S, NOT_FOUND), (S, b"end"), (C, get("/2")), (S, OK))
    assert pairs(rows) == [("/1", 200), ("/2", 200)]


def test_body__request_after_an_early_answer_counts() -> None:
    post = b"POST /x HTTP/1.1\r\nContent-Length: 5000\r\n\r\n"
    rows = rows_of((C, post), (S, NOT_FOUND), (C, get("/2")), (S, OK))
    assert pairs(rows) == [("/x", 404), ("/2", 200)]


def test_body__chunks_before_the_next_request_are_passed() -> None:
    chunked = b"POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nGET\r\n0\r\nTrailer: t\r\n\r\n"
    assert pairs(rows_of((C, chunked + get("/2")), (S, OK + NOT_FOUND))) == [("/1", 200), ("/2", 404)]


def test_lost_answer__the_next_one_is_not_taken_for_it() -> None:
    one = Talk(APPLICATION)
    one.say(C, get("/1") + get("/2") + get("/3"))
    one.say(S, OK)
    one.seq[S] += 500  # an answer that was not captured
    one.say(S, NOT_FOUND)
    assert pairs(one.rows()) == [("/1", 200), ("/2", None), ("/3", 404)]


def test_connect__releases_the_flow_when_accepted() -> None:
    connect = b"CONNECT mail.example:443 HTTP/1.1\r\nHost: mail.example:443\r\n\r\n"
    one = talk(APPLICATION, (C, connect), (S, b"HTTP/1.0 200 Connection established\r\n\r\n"))
    assert one.verdict is Verdict.RELEASE
    assert one.flow.server_name == "mail.example"
    assert [(r["method"], r["path"], r["host"], r["status"]) for r in one.rows()] == [
        ("CONNECT", "mail.example:443", "mail.example:443", 200)
    ]
    refused = talk(APPLICATION, (C, connect), (S, b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"))
    assert refused.verdict is Verdict.MORE


def test_upgrade__releases_the_flow() -> None:
    one = talk(APPLICATION, (C, get("/ws")), (S, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"))
    assert one.verdict is Verdict.RELEASE
    assert pairs(one.rows()) == [("/ws", 101)]


def test_proxy__host_comes_from_an_absolute_target() -> None:
    one = talk(APPLICATION, (C, b"GET http://user:pw@far.example:81/p HTTP/1.0\r\n\r\n"))
    (row,) = one.rows()
    assert (row["host"], row["path"], row["version"]) == ("far.example:81", "http://***@far.example:81/p", "1.0")
    assert row["has_credentials"] is True
    assert one.flow.server_name == "far.example"


@pytest.mark.parametrize(
    ("value", "scheme", "readable"),
    [
        (b"Basic dXNlcjpzZWNyZXQ=", "Basic", True), (b"basic dXNlcjpzZWNyZXQ=", "Basic", True),
        (b"Bearer dXNlcjpzZWNyZXQ=", "Bearer", False), (b"Digest username=dXNlcjpzZWNyZXQ=", "Digest", False),
        (b"dXNlcjpzZWNyZXQ=", "other", False), (b"dXNlcjpzZWNyZXQ= x", "other", False), (b"Basic", "Basic", False),
    ],
)  # fmt: skip
def test_authorization__scheme_is_kept_and_never_the_credential(value: bytes, scheme: str, readable: bool) -> None:
    for name in (b"Authorization: ", b"Proxy-Authorization:"):
        (row,) = rows_of((C, get("/", name + value + b"\r\n")))
        assert (row["auth_scheme"], row["has_credentials"]) == (scheme, readable)
        assert "dXNlcjpz" not in repr(row)


def test_ssdp__each_datagram_is_a_row() -> None:
    search = b'M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: "ssdp:discover"\r\nMX: 1\r\n\r\n'
    notify = b"NOTIFY * HTTP/1.1\r\nHOST: [FF02::C]:1900\r\nSERVER: os/1 UPnP/2.0 p/1\r\n\r\n"
    one = talk(APPLICATION, (C, search), (C, notify), (S, OK), port=1900, proto=UDP)
    assert one.flow.app == "ssdp"
    rows = [(r.get("method"), r.get("host"), r.get("server"), r.get("status")) for r in one.rows()]
    assert rows == [
        ("M-SEARCH", "239.255.255.250:1900", None, None), ("NOTIFY", "[FF02::C]:1900", "os/1 UPnP/2.0 p/1", None),
        (None, None, "unit/2", 200),
    ]  # fmt: skip


def test_http2__prior_knowledge_is_named_only() -> None:
    one = talk(APPLICATION, (C, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"))
    assert (one.flow.app, one.verdict, one.rows()) == ("http2", Verdict.DONE, [])


@pytest.mark.parametrize(
    "data",
    [
        b"OPTIONS sip:a@b SIP/2.0\r\nVia: x\r\n\r\n", b"OPTIONS rtsp://a/b RTSP/1.0\r\nCSeq: 1\r\n\r\n",
        b"OPTIONS * RTSP/1.0\r\n\r\n", b"GET the tea\r\n\r\n", b"RETR file\r\n", b"SSH-2.0-x\r\n",
        b"\x16\x03\x01\0\5hello",
        b"HTTP/x.1 200\r\n\r\n", b"HTTP/1.1 20 OK\r\n\r\n", b"MOVE it HTTPS\r\n\r\n",
    ],
)  # fmt: skip
def test_foreign__other_protocols_are_not_http(data: bytes) -> None:
    one = talk(APPLICATION, (C, data))
    assert (one.flow.app, one.verdict, one.rows()) == ("", Verdict.FOREIGN, [])


def test_tolerance__odd_heads_that_servers_accept() -> None:
    odd = b"\r\nFROB   /x y z   HTTP/1.1 \nhost :h\nUser-Agent: a\n b\nHOST: second\n\n"
    (row,) = rows_of((C, odd))
    assert (row["method"], row["path"], row["host"], row["user_agent"]) == ("FROB", "/x y z", "h", "a b")
    (row,) = rows_of((C, b"GET /malware HTTTP/1.1\r\nHost: h\r\n\r\n"))
    assert (row["path"], row["version"], row["host"]) == ("/malware", None, "h")
    (row,) = rows_of((C, b"GET /\r\n\r\n"))
    assert (row["path"], row["version"]) == ("/", "0.9")


def test_bounds__long_heads_and_values_are_cut() -> None:
    one = talk(APPLICATION, (C, b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nUser-Agent: " + b"\xff" * 5000 + b"\r\n\r\n"))
    (row,) = one.rows()
    assert (len(row["path"]), len(row["user_agent"])) == (2048, 4 * 512)
    endless = Talk(APPLICATION)
    for _ in range(40):
        endless.say(C, b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"y" * 1400)
    assert endless.rows()[0]["host"] == "h"
    assert all(len(side.buffer) < 20_000 for side in endless.parser._sides)


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (0, 0, 1, 2), (0, 2, 2, 1), (0, 1, 0, 1, 2)])
def test_segments__heads_split_anywhere_give_the_same_rows(order: tuple[int, ...]) -> None:
    plain = pairs(rows_of((C, get("/0")), (S, NOT_FOUND), (C, GET), (S, OK)))
    for side, data in ((C, GET), (S, OK)):
        for at in range(1, len(data) - 1):
            for middle in {at + 1, (at + len(data)) // 2}:
                one = Talk(APPLICATION)
                one.say(C, get("/0"))
                one.say(S, NOT_FOUND)
                if side is S:
                    one.say(C, GET)
                begin = one.seq[side]
                parts = [(begin, data[:at]), (begin + at, data[at:middle]), (begin + middle, data[middle:])]
                for i in order:
                    one.say(side, parts[i][1], parts[i][0] & 0xFFFF_FFFF)
                if side is C:
                    one.say(S, OK)
                assert pairs(one.rows()) == plain
                assert one.flow.rows[-1]["server"] == "unit/2"
                assert one.flow.rows[-1]["user_agent"] == "probe/1.0"


def test_segments__rest_of_a_head_may_come_before_its_start() -> None:
    one = Talk(APPLICATION)
    one.say(C, get("/0"))
    one.say(S, NOT_FOUND)
    begin = one.seq[C]
    one.say(C, GET[30:], begin + 30)
    one.say(C, GET[:30], begin)
    one.say(S, OK)
    assert pairs(one.rows()) == [("/0", 404), ("/a/b?c=d", 200)]


def test_segments__a_lost_part_does_not_stop_the_connection() -> None:
    one = Talk(APPLICATION)
    one.say(C, GET[:60])
    one.seq[C] += 50
    one.say(S, OK)  # the server had the whole head
    one.say(C, get("/2"))
    one.say(S, NOT_FOUND)
    assert pairs(one.rows()) == [("/a/b?c=d", 200), ("/2", 404)]
    alone = Talk(APPLICATION)
    alone.say(C, GET[:60])
    alone.seq[C] += 50
    for i in range(12):
        alone.say(C, get(f"/{i}"))
    assert [r["path"] for r in alone.rows()] == ["/a/b?c=d", *(f"/{i}" for i in range(12))]


def test_snaplen__whole_lines_of_a_cut_head_are_kept() -> None:
    one = Talk(APPLICATION)
    one.say(C, GET[:60], whole=False)
    one.seq[C] += 500
    one.say(S, OK[:40], whole=False)
    (row,) = one.rows()
    assert (row["host"], row["user_agent"], row["status"], row["server"]) == (
        "www.example.org:8080",
        None,
        200,
        "unit/2",
    )


def test_truncation__raises_only_what_is_allowed() -> None:
    survives_truncation(APPLICATION, [(C, GET), (S, OK), (C, GET), (S, NOT_FOUND)], 80)
    survives_truncation(APPLICATION, [(C, b"M-SEARCH * HTTP/1.1\r\nHOST: h\r\n\r\n")], 1900, UDP)


pieces = st.one_of(
    st.binary(min_size=1, max_size=80),
    st.sampled_from([GET, OK, NOT_FOUND, b"HTTP/1.1 ", b"\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n"]),
    st.sampled_from(
        [b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n", b"Content-Length: 99999999999999999999\r\n\r\n"]
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.booleans(), pieces, st.integers(-300, 300), st.booleans()), max_size=30), st.booleans())
def test_any_bytes__rows_are_valid_and_buffers_bounded(says: list[tuple[bool, bytes, int, bool]], udp: bool) -> None:
    one = Talk(APPLICATION, proto=UDP if udp else 6)
    for side, data, shift, whole in says:
        one.seq[side] = (one.seq[side] + shift) & 0xFFFF_FFFF
        if one.say(side, data, whole=whole) is not Verdict.MORE:
            break
    one.rows()
    assert all(len(side.buffer) < 20_000 for side in one.parser._sides)


# Frames whose values differ from tshark's for a reason of their own.
KNOWN = {
    ("suricata-verify--DetectEngineHttpRawUriTest08__test.fpc.pcap", 4, "http_uri"): "request line in two segments: "
    "tshark without reassembly shows the first part, we the whole",
    ("suricata-verify--transform-base64-7296__input.pcap", 31, "http_status"): "a damaged status line, which tshark "
    "shows as status 0",
    (
        "wireshark--http-ooo.pcap",
        10,
        "http_uri",
    ): "a body that comes after the next request: we have the row, at its head",
}


@pytest.mark.corpus
@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no captures at {CORPUS}")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["l7", "l7reasm"])
def test_corpus__equals_tshark(kind: str) -> None:
    found = compare(kind)
    assert [r for r in found.rest if r[2] != "sip_method" and r[:3] not in KNOWN] == [], found.report()
    for column in (*OF_REQUEST, "http_status"):
        assert found.same(column) >= 0.99 * found.comparable(column) > 0, found.report()
    if kind == "l7":  # classes of difference must not grow unseen
        assert [found.equal[c] for c in (*OF_REQUEST, "http_status")] >= [1563, 1585, 1583, 490, 382], found.report()
