"""Passwords in clear: who sent one, and never the password itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.dissect import imap, ldap, pop3
from engine.dissect.base import Application, Verdict
from tests.detecting import Rig
from tests.engine.dissect.feeding import C, S, Talk

BIND = bytes.fromhex("30 18 02 01 01 60 13 02 01 03 04 07") + b"cn=ann." + b"\x80\x05s3cr!"
SECRET = "s3cr!"
CAPTURES = Path(__file__).parents[4] / "shared" / "corpus" / "captures"


def said(application: Application, port: int, *lines: tuple[bool, bytes]) -> list[tuple[str | None, bool]]:
    talk = Talk(application, port)
    for side, data in lines:
        if talk.say(side, data) is Verdict.DONE:
            break
    rows = talk.rows()
    assert SECRET not in repr(rows)
    return [(row["user"], row["password_sent"]) for row in rows]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([(S, b"+OK POP3 ready\r\n"), (C, b"USER ann\r\n"), (S, b"+OK\r\n"), (C, b"PASS s3cr!\r\n")], [("ann", True)]),
        ([(S, b"+OK POP3 ready\r\n"), (C, b"PASS s3cr!\r\n")], [(None, True)]),
        ([(S, b"+OK POP3 ready\r\n"), (C, b"AUTH PLAIN\r\n")], [(None, True)]),
        ([(S, b"+OK POP3 ready\r\n"), (C, b"AUTH CRAM-MD5\r\n")], []),
        ([(S, b"+OK POP3 ready\r\n"), (C, b"APOP ann 0123456789abcdef0123456789abcdef\r\n")], []),
        ([(S, b"+OK POP3 ready\r\n"), (C, b"STLS\r\n"), (S, b"+OK\r\n")], []),
        ([(C, b"STAT\r\n"), (S, b"PASS s3cr!\r\n")], []),  # the server does not log in
    ],
)
def test_pop3(lines: list[tuple[bool, bytes]], expected: list[tuple[str | None, bool]]) -> None:
    assert said(pop3.APPLICATION, 110, *lines) == expected


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (b'a LOGIN "ann" "s3cr!"\r\n', [("ann", True)]),
        (b"a login ann s3cr!\r\n", [("ann", True)]),
        (b"a LOGIN {3}\r\n", [(None, True)]),
        (b"a AUTHENTICATE PLAIN\r\n", [(None, True)]),
        (b"a AUTHENTICATE GSSAPI\r\n", []),
        (b"a SELECT INBOX\r\n", []),
        (b"a STARTTLS\r\n", []),
    ],
)
def test_imap(command: bytes, expected: list[tuple[str | None, bool]]) -> None:
    assert said(imap.APPLICATION, 143, (S, b"* OK IMAP4rev1\r\n"), (C, command)) == expected


def test_ldap__simple_bind_with_a_password() -> None:
    assert said(ldap.APPLICATION, 389, (C, BIND)) == [("cn=ann.", True)]


def test_ldap__anonymous_and_unauthenticated_binds_send_none() -> None:
    anonymous = bytes.fromhex("30 0c 02 01 01 60 07 02 01 03 04 00 80 00")
    assert said(ldap.APPLICATION, 389, (C, anonymous)) == []


@pytest.mark.parametrize(
    ("name", "user"),  # as tshark's pop.request.parameter and imap.request.username say
    [
        ("suricata-verify--pop3__input.pcap", "moises.nunez@ingenierianumar.com"),
        ("arkime--imap.pcap", "neulingern"),
    ],
)
def test_user__is_what_tshark_reads_and_makes_a_finding(name: str, user: str) -> None:
    path = CAPTURES / name
    if not path.exists():
        pytest.skip(f"no capture {path}")
    found = [f for f in Rig().read(path) if f.kind == "cleartext_credentials"]
    assert [f.evidence["user"] for f in found] == [user]
    assert found[0].why.endswith(f"({found[0].evidence['application'].upper()})")
