"""SMTP conversations to rows: mails, logins, STARTTLS; what is not SMTP; what must not be kept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dissect.base import Verdict
from engine.dissect.smtp import APPLICATION
from tests.engine.dissect.feeding import C, S, Talk, begins, check_patterns, survives_truncation, talk

BANNER = (S, b"220 mx.example ESMTP unit\r\n")
HELLO = [(C, b"EHLO client.example\r\n"), (S, b"250-mx.example\r\n250-PIPELINING\r\n250 STARTTLS\r\n")]
ENVELOPE = [
    (C, b"MAIL FROM:<a@x.example> SIZE=100\r\n"), (S, b"250 2.1.0 Ok\r\n"), (C, b"RCPT TO:<b@y.example>\r\n"),
    (S, b"250 2.1.5 Ok\r\n"), (C, b"RCPT TO:<c@y.example>\r\n"), (S, b"250 2.1.5 Ok\r\n"), (C, b"DATA\r\n"),
    (S, b"354 End data with <CR><LF>.<CR><LF>\r\n"),
]  # fmt: skip
MAIL = (
    C,
    b"Message-ID: <1@x>\r\nFrom: A <a@x.example>\r\nTo: b@y.example,\r\n c@y.example\r\n"
    b"Subject: =?utf-8?b?SMOpbGxv?=\r\n\r\nSubject: body\r\nhello\r\n.\r\n",
)
DONE = (S, b"250 2.0.0 Ok: queued as 1\r\n")
QUIT = [(C, b"QUIT\r\n"), (S, b"221 2.0.0 Bye\r\n")]
WHOLE = [BANNER, *HELLO, *ENVELOPE, MAIL, DONE, *QUIT]


def rows_of(*messages: tuple[bool, bytes]) -> list[dict[str, Any]]:
    return talk(APPLICATION, *messages, port=25).rows()


def test_patterns__commands_of_any_case_and_replies_are_handed_over() -> None:
    check_patterns(APPLICATION.patterns)
    for data in (b"220 x\r\n", b"ehlo x\r\n", b"Mail From:<a>\r\n", b"DATA\r\n", b"354 go\r\n", b"starttls\r\n"):
        assert begins(APPLICATION, data)
    for code in (b"221 bye", b"421-x", b"503 y", b"220-z"):
        assert begins(APPLICATION, code, port=587)


def test_mail__all_columns() -> None:
    (row,) = rows_of(*WHOLE)
    assert row == {
        "ts": 40, "banner": "mx.example ESMTP unit", "helo": "client.example", "mail_from": "a@x.example",
        "rcpt_to": ["b@y.example", "c@y.example"], "starttls": False, "subject": "Héllo",
        "header_from": "A <a@x.example>", "header_to": "b@y.example, c@y.example", "message_id": "<1@x>",
        "reply_code": 250, "enhanced_code": "2.0.0",
    }  # fmt: skip


def test_mails__one_row_each() -> None:
    second = [(side, data.replace(b"a@x", b"d@x")) for side, data in (*ENVELOPE, MAIL)]
    rows = rows_of(BANNER, *HELLO, *ENVELOPE, MAIL, DONE, *second, (S, b"554 5.7.1 spam\r\n"), *QUIT)
    assert [(r["mail_from"], r["reply_code"], r["enhanced_code"]) for r in rows] == [
        ("a@x.example", 250, "2.0.0"), ("d@x.example", 554, "5.7.1"),
    ]  # fmt: skip


def test_pipelining__commands_and_replies_in_one_segment() -> None:
    commands = (C, b"".join(data for side, data in ENVELOPE if side is C))
    replies = (S, b"".join(data for side, data in ENVELOPE if side is S))
    (row,) = rows_of(BANNER, *HELLO, commands, replies, MAIL, DONE, *QUIT)
    assert (row["rcpt_to"], row["subject"], row["reply_code"]) == (["b@y.example", "c@y.example"], "Héllo", 250)


def test_refused_recipient__row_has_the_last_code() -> None:
    (row,) = rows_of(BANNER, *HELLO, *ENVELOPE[:2], ENVELOPE[2], (S, b"550 5.1.1 unknown\r\n"), *QUIT)
    assert (row["mail_from"], row["rcpt_to"], row["reply_code"]) == ("a@x.example", ["b@y.example"], 221)


def test_starttls__releases_with_a_row() -> None:
    one = talk(APPLICATION, BANNER, *HELLO, (C, b"STARTTLS\r\n"), (S, b"220 2.0.0 Ready\r\n"), port=587)
    assert one.verdict is Verdict.RELEASE
    assert [(r["starttls"], r["helo"], r["reply_code"]) for r in one.rows()] == [(True, "client.example", 220)]
    refused = talk(APPLICATION, BANNER, *HELLO, (C, b"STARTTLS\r\n"), (S, b"454 4.7.0 no\r\n"), port=587)
    assert refused.verdict is Verdict.MORE
    assert refused.rows()[0]["starttls"] is False


@pytest.mark.parametrize(
    ("lines", "mechanism"),
    [
        ([b"AUTH PLAIN AHNlY3JldABzZWNyZXQ=\r\n"], "PLAIN"),
        ([b"auth login\r\n", b"c2VjcmV0\r\n", b"c2VjcmV0\r\n"], "LOGIN"),
        ([b"AUTH CRAM-MD5\r\n", b"DATA\r\n"], "CRAM-MD5"),  # a secret that looks like a command
    ],
)
def test_auth__mechanism_is_kept_and_never_the_secret(lines: list[bytes], mechanism: str) -> None:
    exchange = [m for line in lines for m in ((C, line), (S, b"334 VXNlcm5hbWU6\r\n"))][:-1]
    rows = rows_of(BANNER, *HELLO, *exchange, (S, b"235 2.7.0 ok\r\n"), *ENVELOPE, MAIL, DONE)
    assert [(r["auth"], r["auth_ok"], r["subject"]) for r in rows] == [(mechanism, True, "Héllo")]
    assert not any(s in repr(rows) for s in ("AHNlY3", "c2VjcmV0", "secret"))
    (row,) = rows_of(BANNER, *HELLO, *exchange, (S, b"535 5.7.8 bad\r\n"), *QUIT)
    assert (row["auth_ok"], "mail_from" in row) == (False, False)


def test_bdat__head_of_the_first_chunk_is_read() -> None:
    chunk = (C, b"BDAT 40\r\nSubject: chunked\r\nFrom: q@x\r\n\r\nMAIL FROM")
    rows = rows_of(BANNER, *HELLO, *ENVELOPE[:4], chunk, (S, b"250 ok\r\n"), (C, b"BDAT 3 LAST\r\nabc"), DONE, *QUIT)
    assert [(r["subject"], r["header_from"], r["reply_code"]) for r in rows] == [("chunked", "q@x", 250)]


def test_lost_reply__next_mail_is_a_row_of_its_own() -> None:
    rows = rows_of(BANNER, *HELLO, *ENVELOPE, MAIL, *[m for m in ENVELOPE if m[0] is C], MAIL)
    assert [r["subject"] for r in rows] == ["Héllo", "Héllo"]


def test_mail_in_parts__body_is_not_read() -> None:
    one = talk(
        APPLICATION, BANNER, *HELLO, *ENVELOPE, (C, b"Subject: one\r\nFrom: a"), (C, b"b@x\r\n\r\nbody"), port=25
    )
    one.seq[C] += 100_000  # body that is not handed over
    one.say(C, b"RCPT TO:<not@one>\r\nFrom: c\r\n")
    one.say(*DONE)
    (row,) = one.rows()
    assert (row["subject"], row["header_from"], len(row["rcpt_to"])) == ("one", "ab@x", 2)


@pytest.mark.parametrize(
    "data", [b"220 ftp.example FTP server\r\n", b"220 welcome\r\n", b"250 ok\r\n", b"USER x\r\n", b"\x16\x03"]
)
def test_foreign__ftp_and_unclear_greetings(data: bytes) -> None:
    one = talk(APPLICATION, (S, data), port=2100)
    assert (one.verdict, one.rows()) == (Verdict.FOREIGN, [])
    assert talk(APPLICATION, (S, b"220 ftp.example FTP server\r\n"), port=25).verdict is Verdict.FOREIGN


def test_unclear_greeting__client_decides() -> None:
    one = talk(APPLICATION, *HELLO, *ENVELOPE, MAIL, DONE, port=2100)
    assert one.flow.app == "smtp"
    assert one.rows()[0]["subject"] == "Héllo"


def test_roles__do_not_depend_on_who_is_called_client() -> None:
    turned = [(not side, data) for side, data in WHOLE]
    assert rows_of(*turned) == rows_of(*WHOLE)


def test_split__at_every_byte_gives_the_same_row() -> None:
    expected = rows_of(*WHOLE)[0] | {"ts": 0}
    for i, (side, data) in enumerate(WHOLE):
        for at in range(6 if i == 0 else 1, len(data)):
            parts = [*WHOLE[:i], (side, data[:at]), (side, data[at:]), *WHOLE[i + 1 :]]
            assert [r | {"ts": 0} for r in rows_of(*parts)] == [expected], (i, at)


def test_bounds__many_recipients_and_long_lines() -> None:
    one = talk(APPLICATION, BANNER, *HELLO, (C, b"MAIL FROM:<" + b"a" * 9000 + b">\r\n"), port=25)
    for i in range(300):
        one.say(C, b"RCPT TO:<%d@y>\r\n" % i)
    one.say(C, b"DATA\r\n")
    for _ in range(100):
        one.say(C, b"Subject: " + b"x" * 1400)
    assert all(len(side.buffer) < 8192 for side in one.parser._sides)
    (row,) = one.rows()
    assert (len(row["rcpt_to"]), len(row["mail_from"])) == (100, 320)


def test_truncation__raises_only_what_is_allowed() -> None:
    survives_truncation(APPLICATION, WHOLE, 25)
    survives_truncation(APPLICATION, [BANNER, (C, b"AUTH LOGIN\r\n"), (S, b"334 x\r\n"), (C, b"STARTTLS\r\n")], 25)


PIECES = [data for _, data in WHOLE] + [
    b"\r\n",
    b"STARTTLS\r\n",
    b"220 x\r\n",
    b"Subject: =?utf-8?b?!?=\r\n",
    b"=?x?q?=FF?=",
]
pieces = st.one_of(st.binary(min_size=1, max_size=60), st.sampled_from(PIECES))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.booleans(), pieces, st.integers(-100, 100), st.booleans()), max_size=40))
def test_any_bytes__rows_are_valid(says: list[tuple[bool, bytes, int, bool]]) -> None:
    one = Talk(APPLICATION, 25)
    for side, data, shift, whole in says:
        one.seq[side] = (one.seq[side] + shift) & 0xFFFF_FFFF
        if one.say(side, data, whole=whole) is not Verdict.MORE:
            break
    one.rows()
