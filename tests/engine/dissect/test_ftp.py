"""FTP control connections to rows: logins, files, AUTH TLS; what is not FTP; passwords are not kept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dissect.base import Verdict
from engine.dissect.ftp import APPLICATION
from tests.engine.dissect.feeding import C, S, Talk, begins, check_patterns, survives_truncation, talk

WHOLE = [
    (S, b"220-Welcome\r\n to nothing\r\n220 unit FTP ready\r\n"), (C, b"USER anna\r\n"), (S, b"331 Password?\r\n"),
    (C, b"PASS hunter2\r\n"), (S, b"230 In\r\n"), (C, b"PASV\r\n"), (S, b"227 Entering (1,2,3,4,5,6)\r\n"),
    (C, b"RETR a b.zip\r\n"), (S, b"150 Opening\r\n"), (S, b"226 Done\r\n"), (C, b"stor c\r\n"), (S, b"550 No\r\n"),
    (C, b"QUIT\r\n"), (S, b"221 Bye\r\n"),
]  # fmt: skip


def rows_of(*messages: tuple[bool, bytes], port: int = 21) -> list[dict[str, Any]]:
    return talk(APPLICATION, *messages, port=port).rows()


def short(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(r.get("command"), r.get("argument"), r.get("reply_code")) for r in rows]


def test_patterns__commands_and_replies_are_handed_over() -> None:
    check_patterns(APPLICATION.patterns)
    for data in (b"220 x\r\n", b"user x\r\n", b"AUTH TLS\r\n", b"RETR x\r\n", b"226 ok\r\n"):
        assert begins(APPLICATION, data)
    for data in (b"XMKD d\r\n", b"pwd\r\n", b"502 no\r\n"):
        assert begins(APPLICATION, data, port=21)


def test_session__a_row_per_command_of_interest() -> None:
    rows = rows_of(*WHOLE)
    assert short(rows) == [("PASS", None, 230), ("RETR", "a b.zip", 226), ("STOR", "c", 550)]
    assert {(r["user"], r["password_sent"], r["banner"]) for r in rows} == {("anna", True, "Welcome")}
    assert rows[1]["latency_us"] == 20
    assert "hunter2" not in repr(rows)


def test_session__without_commands_is_one_row() -> None:
    rows = rows_of(*WHOLE[:3])
    assert short(rows) == [(None, None, None)]
    assert (rows[0]["user"], rows[0]["password_sent"]) == ("anna", False)


def test_auth_tls__releases() -> None:
    one = talk(APPLICATION, WHOLE[0], (C, b"AUTH TLS\r\n"), (S, b"234 Go\r\n"), port=21)
    assert one.verdict is Verdict.RELEASE
    assert short(one.rows()) == [("AUTH", "TLS", 234)]
    refused = talk(APPLICATION, WHOLE[0], (C, b"AUTH TLS\r\n"), (S, b"502 No\r\n"), *WHOLE[1:], port=21)
    assert refused.verdict is Verdict.MORE
    assert len(refused.rows()) == 4


def test_other_port__greeting_that_names_ftp_is_enough() -> None:
    assert talk(APPLICATION, (S, b"220 ProFTPD\r\n"), port=40002).flow.app == "ftp"


def test_other_port__user_needs_the_servers_answer() -> None:
    unsure = talk(APPLICATION, (C, b"USER x\r\n"), port=40002)
    assert (unsure.flow.app, unsure.verdict, unsure.rows()) == ("", Verdict.MORE, [])
    sure = talk(APPLICATION, (C, b"USER x\r\n"), (S, b"331 ok\r\n"), (C, b"PASS y\r\n"), (S, b"530 no\r\n"), port=40002)
    assert short(sure.rows()) == [("PASS", None, 530)]
    assert talk(APPLICATION, (C, b"USER x\r\n"), (S, b"+OK\r\n"), port=40002).verdict is Verdict.FOREIGN


@pytest.mark.parametrize(
    ("side", "data", "port"),
    [
        (S, b"220 mx ESMTP\r\n", 21), (S, b"220 hello\r\n", 40002), (C, b"USER x\r\n", 110), (C, b"PASS x\r\n", 40002),
        (C, b"USER a b c :d\r\n", 40002), (S, b"250 ok\r\n", 40002), (C, b"AUTH PLAIN\r\n", 40002), (C, b"@@@@", 21),
        (C, b"EHLO x\r\n", 21),
    ],
)  # fmt: skip
def test_foreign__mail_and_chat(side: bool, data: bytes, port: int) -> None:
    one = talk(APPLICATION, (side, data), port=port)
    assert (one.verdict, one.rows()) == (Verdict.FOREIGN, [])


def test_pipelined__replies_go_to_their_commands() -> None:
    rows = rows_of(WHOLE[0], (C, b"MKD a\r\nSTOR b\r\nDELE c\r\n"), (S, b"257 a\r\n150 go\r\n226 ok\r\n550 no\r\n"))
    assert short(rows) == [("MKD", "a", 257), ("STOR", "b", 226), ("DELE", "c", 550)]


def test_queue__is_bounded() -> None:
    one = talk(APPLICATION, WHOLE[0], *[(C, b"DELE %d\r\n" % i) for i in range(100)], port=21)
    assert len(one.flow.rows) == 36
    assert len(one.rows()) == 100


def test_split__at_every_byte_gives_the_same_rows() -> None:
    expected = short(rows_of(*WHOLE))
    for i, (side, data) in enumerate(WHOLE[1:], 1):
        for at in range(1, len(data)):
            assert short(rows_of(*WHOLE[:i], (side, data[:at]), (side, data[at:]), *WHOLE[i + 1 :])) == expected


def test_truncation__raises_only_what_is_allowed() -> None:
    survives_truncation(APPLICATION, WHOLE, 21)
    survives_truncation(APPLICATION, WHOLE[1:], 40002)


PIECES = [data for _, data in WHOLE] + [b"AUTH TLS\r\n234 x\r\n", b"\r\n", b"220-"]
pieces = st.one_of(st.binary(min_size=1, max_size=60), st.sampled_from(PIECES))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.booleans(), pieces, st.integers(-100, 100), st.booleans()), max_size=40), st.booleans())
def test_any_bytes__rows_are_valid(says: list[tuple[bool, bytes, int, bool]], usual: bool) -> None:
    one = Talk(APPLICATION, 21 if usual else 40002)
    for side, data, shift, whole in says:
        one.seq[side] = (one.seq[side] + shift) & 0xFFFF_FFFF
        if one.say(side, data, whole=whole) is not Verdict.MORE:
            break
    one.rows()
