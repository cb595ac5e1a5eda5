"""Protocols that are only recognised: by their first bytes, and by nothing that resembles them."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dissect import (
    bittorrent,
    ike,
    imap,
    irc,
    kerberos,
    ldap,
    mqtt,
    mysql,
    openvpn,
    pop3,
    postgres,
    redis,
    rtsp,
    smb,
    stun,
    telnet,
    wireguard,
)  # fmt: skip
from engine.dissect.base import TCP, UDP, Application, Flow, Message, Verdict
from tests.engine.dissect.feeding import C, S, Talk, begins, check_patterns, survives_truncation, talk

APPLICATIONS = {
    module.APPLICATION.name: module.APPLICATION
    for module in (
        bittorrent, ike, imap, irc, kerberos, ldap, mqtt, mysql, openvpn, pop3, postgres, redis, rtsp, smb, stun,
        telnet, wireguard,
    )
}  # fmt: skip
Messages = list[tuple[bool, bytes]]


def isakmp(version: int = 0x20, exchange: int = 34, length: int | None = None, spi: bytes = b"initiate") -> bytes:
    payload = b"\0\0\0\x08data"
    size = 28 + len(payload) if length is None else length
    return spi + bytes(8) + struct.pack(">BBBBII", 33, version, exchange, 8, 0, size) + payload


def ber(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes((tag, len(body))) + body


def ldap_message(operation: bytes) -> bytes:
    return ber(0x30, b"\x02\x01\x01", operation)


def kerberos_message(tag: int, kind: int, version: int = 5) -> bytes:
    first = 0xA1 if tag in (0x6A, 0x6C) else 0xA0
    fields = ber(first, bytes((2, 1, version))) + ber(first + 1, bytes((2, 1, kind))) + bytes(10)
    return ber(tag, ber(0x30, fields))


def greeting(version: bytes = b"8.0.36\0", size: int | None = None) -> bytes:
    body = b"\x0a" + version + bytes(range(1, 60))
    return struct.pack("<I", len(body) if size is None else size) + body


def wireguard_data(receiver: bytes, counter: int, length: int = 96) -> bytes:
    return b"\x04\0\0\0" + receiver + struct.pack("<Q", counter) + b"x" * (length - 16)


BIND = ldap_message(ber(0x60, b"\x02\x01\x03", ber(0x04, b"cn=admin"), ber(0x80, b"secret")))
SEARCH = ldap_message(ber(0x63, ber(0x04, b"dc=x"), b"\x0a\x01\x02\x0a\x01\0\x02\x01\0\x02\x01\0\x01\x01\0"))
AS_REQ = kerberos_message(0x6A, 10)
STARTUP = struct.pack(">II", 22, 0x30000) + b"user\0postgres\0"
RESET, SESSION = b"\x38", b"sessionA"
ANSWER = b"\x40sessionB\x01\0\0\0\0" + SESSION + b"\0\0\0\0"
USER = b"USER anna 0 * :Anna A\r\n"
STUN = b"\0\1\0\4\x21\x12\xa4\x42transaction!\x80\x22\0\0"
HANDSHAKE = b"\x13BitTorrent protocol" + bytes(48)

# Application, transport, server's port, messages; the flow is named by the last of them and not before.
RECOGNISED: list[tuple[str, int, int, Messages]] = [
    ("bittorrent", TCP, 50000, [(C, HANDSHAKE)]),
    ("bittorrent", UDP, 50000, [(C, b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe")]),
    ("ike", UDP, 500, [(C, isakmp())]),
    ("ike", UDP, 500, [(C, isakmp(0x10, 2))]),
    ("ike", UDP, 4500, [(C, b"\0\0\0\0" + isakmp())]),
    ("imap", TCP, 143, [(S, b"* OK ready\r\n")]),
    ("imap", TCP, 50000, [(S, b"* OK [CAPABILITY IMAP4rev1] hello\r\n")]),
    ("imap", TCP, 143, [(C, b"a001 LOGIN anna secret\r\n")]),
    ("irc", TCP, 50000, [(C, b"NICK anna\r\n" + USER)]),
    ("irc", TCP, 50000, [(C, b"NICK anna\r\n"), (C, USER)]),
    ("irc", TCP, 50000, [(C, b"CAP LS 302\r\nPASS x\r\nNICK anna\r\n" + USER)]),
    ("irc", TCP, 6667, [(S, b":irc.example NOTICE * :*** Looking up your hostname\r\n")]),
    ("kerberos", UDP, 88, [(C, AS_REQ)]),
    ("kerberos", TCP, 88, [(C, struct.pack(">I", len(AS_REQ)) + AS_REQ)]),
    ("kerberos", UDP, 88, [(S, kerberos_message(0x7E, 30))]),
    ("ldap", TCP, 50000, [(C, BIND)]),
    ("ldap", TCP, 389, [(C, SEARCH)]),
    ("ldap", UDP, 389, [(C, SEARCH)]),
    ("ldap", TCP, 389, [(S, ldap_message(ber(0x61, b"\x0a\x01\0\x04\0\x04\0")))]),
    ("ldap", TCP, 389, [(C, b"\x30\x84\0\0\0" + BIND[1:])]),
    ("mqtt", TCP, 50000, [(C, b"\x10\x10\0\x04MQTT\x04\2\0\x3c\0\4anna")]),
    ("mqtt", TCP, 50000, [(C, b"\x10\x90\x02\0\x04MQTT\x05" + bytes(265))]),
    ("mqtt", TCP, 50000, [(C, b"\x10\x12\0\x06MQIsdp\x03\2\0\x3c\0\4anna")]),
    ("mysql", TCP, 50000, [(S, greeting())]),
    ("mysql", TCP, 50000, [(S, greeting(b"5.5.5-10.6.16-MariaDB\0"))]),
    ("openvpn", UDP, 50000, [(C, RESET + SESSION + bytes(5)), (S, ANSWER)]),
    ("openvpn", TCP, 443, [(C, b"\0\x0e" + RESET + SESSION + bytes(5)), (S, b"\0\x1a" + ANSWER)]),
    ("pop3", TCP, 110, [(S, b"+OK ready\r\n")]),
    ("pop3", TCP, 50000, [(S, b"+OK POP3 server ready\r\n")]),
    ("pop3", TCP, 50000, [(S, b"+OK <1896.697170952@mx.example>\r\n")]),
    ("pop3", TCP, 50000, [(C, b"CAPA\r\n")]),
    ("pop3", TCP, 110, [(C, b"user anna\r\n")]),
    ("postgres", TCP, 50000, [(C, struct.pack(">II", 8, 80877103))]),
    ("postgres", TCP, 50000, [(C, STARTUP)]),
    ("redis", TCP, 50000, [(C, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n")]),
    ("redis", TCP, 50000, [(C, b"*12\r\n$4\r\nMSET\r\n$1\r\nk\r\n")]),
    ("rtsp", TCP, 50000, [(C, b"OPTIONS rtsp://a/b RTSP/1.0\r\nCSeq: 1\r\n\r\n")]),
    ("rtsp", TCP, 50000, [(S, b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n")]),
    ("smb", TCP, 445, [(C, b"\0\0\0\x40\xfeSMB" + bytes(60))]),
    ("smb", TCP, 139, [(C, b"\0\0\0\x40\xffSMB" + bytes(60))]),
    ("smb", TCP, 445, [(C, b"\0\0\0\x60\xfdSMB" + bytes(92))]),
    ("stun", UDP, 50000, [(C, STUN)]),
    ("stun", TCP, 3478, [(C, STUN)]),
    ("telnet", TCP, 23, [(S, b"\xff\xfd\x18login:")]),
    ("telnet", TCP, 50000, [(S, b"\xff\xfd\x18\xff\xfb\x01\xff\xfa\x18\x01\xff\xf0")]),
    ("wireguard", UDP, 50000, [(C, b"\x01\0\0\0" + b"x" * 144)]),
    ("wireguard", UDP, 50000, [(S, b"\x02\0\0\0" + b"x" * 88)]),
    ("wireguard", UDP, 50000, [(S, b"\x03\0\0\0" + b"x" * 60)]),
    ("wireguard", UDP, 50000, [(C, wireguard_data(b"abcd", 8)), (C, wireguard_data(b"abcd", 9))]),
]

# What resembles them.
FOREIGN: list[tuple[str, int, int, Messages]] = [
    ("bittorrent", TCP, 50000, [(C, b"\x13BitTorrent protocoX" + bytes(48))]),
    ("bittorrent", UDP, 50000, [(C, b"d1:ad2:id20:abc")]),
    ("ike", UDP, 500, [(C, isakmp(length=99))]),
    ("ike", UDP, 500, [(C, isakmp(0x30))]),
    ("ike", UDP, 500, [(C, isakmp(0x20, 2))]),
    ("ike", UDP, 500, [(C, isakmp(spi=bytes(8)))]),
    ("ike", UDP, 4500, [(C, b"\0\0\0\0" + bytes(40))]),
    ("imap", TCP, 50000, [(S, b"* OK ready\r\n")]),
    ("imap", TCP, 50000, [(C, b"a001 LOGIN anna secret\r\n")]),
    ("imap", TCP, 143, [(C, b"GET / HTTP/1.1\r\n")]),
    ("irc", TCP, 50000, [(C, b"USER anna\r\n")]),
    ("irc", TCP, 50000, [(C, b"NICK anna\r\n"), (C, b"hello\r\n")]),
    ("irc", TCP, 50000, [(S, b"NOTICE to all\r\n")]),
    ("kerberos", UDP, 88, [(C, kerberos_message(0x6A, 11))]),
    ("kerberos", UDP, 88, [(C, kerberos_message(0x6A, 10, 4))]),
    ("kerberos", UDP, 88, [(C, b"\x6a" + bytes(40))]),
    ("ldap", TCP, 389, [(C, ber(0x30, b"\x02\x01\x01\x04\x06public", ber(0xA0, bytes(10))))]),  # SNMP
    ("ldap", TCP, 389, [(C, ldap_message(ber(0x60, b"\x02\x01\x07", ber(0x04, b"cn"), ber(0x80, b"x"))))]),
    ("mqtt", TCP, 1883, [(C, b"\x10\x10\0\x04MQTT\x09\2\0\x3c\0\4anna")]),
    ("mysql", TCP, 3306, [(S, greeting(b"hello\0"))]),
    ("mysql", TCP, 3306, [(S, greeting(size=40))]),
    ("openvpn", UDP, 1194, [(S, ANSWER)]),
    ("openvpn", UDP, 1194, [(C, RESET + SESSION + bytes(5)), (S, ANSWER.replace(b"sessionA", b"sessionC"))]),
    ("openvpn", UDP, 1194, [(C, RESET + SESSION + bytes(5)), (C, ANSWER)]),
    ("pop3", TCP, 50000, [(S, b"+OK ready\r\n")]),
    ("pop3", TCP, 50000, [(C, b"USER anna\r\n")]),
    ("pop3", TCP, 110, [(C, b"220 x\r\n")]),
    ("postgres", TCP, 5432, [(C, STARTUP.replace(b"user", b"uzer"))]),
    ("postgres", TCP, 5432, [(C, STARTUP + b"more")]),
    ("redis", TCP, 6379, [(C, b"*2\r\n$4\r\nGET\r\n$1\r\nk\r\n")]),
    ("redis", TCP, 6379, [(C, b"*0\r\n$3\r\nGET\r\n")]),
    ("rtsp", TCP, 554, [(C, b"OPTIONS / HTTP/1.1\r\n\r\n")]),
    ("rtsp", TCP, 554, [(C, b"SETUP the table\r\n")]),
    ("smb", TCP, 445, [(C, b"\0\0\0\x02\xfeSMB")]),
    ("stun", UDP, 3478, [(C, STUN + b"x")]),
    ("stun", UDP, 3478, [(C, b"\x80" + STUN[1:])]),
    ("telnet", TCP, 50000, [(C, b"\xff\xfe\x0d\0\x0a\0")]),  # UTF-16
    ("telnet", TCP, 50000, [(C, b"\xff\xfb\x30\x40" + bytes(400))]),  # MPEG audio
    ("telnet", TCP, 50000, [(C, b"\xff\xfd\x18login:")]),
    ("wireguard", UDP, 51820, [(C, b"\x01\0\0\0" + b"x" * 145)]),
    ("wireguard", UDP, 51820, [(C, wireguard_data(b"abcd", 8)), (C, wireguard_data(b"abce", 9))]),
    ("wireguard", UDP, 51820, [(C, wireguard_data(b"abcd", 8)), (C, wireguard_data(b"abcd", 9000))]),
    ("wireguard", UDP, 51820, [(C, wireguard_data(b"abcd", 8, 97))]),
]


LOGINS = ("imap", "ldap", "pop3")  # rows of passwords in clear


@pytest.mark.parametrize("name", APPLICATIONS)
def test_application__has_no_table_but_for_logins(name: str) -> None:
    application = APPLICATIONS[name]
    assert [c.name for c in application.columns] == (["user", "password_sent"] if name in LOGINS else [])
    assert application.encrypted == (name in ("ike", "openvpn", "wireguard"))
    check_patterns(application.patterns)


@pytest.mark.parametrize(("name", "proto", "port", "messages"), RECOGNISED)
def test_recognised__by_the_last_message(name: str, proto: int, port: int, messages: Messages) -> None:
    application = APPLICATIONS[name]
    before = talk(application, *messages[:-1], port=port, proto=proto)
    assert before.flow.app == ""
    assert before.say(*messages[-1]) is not Verdict.FOREIGN
    assert before.flow.app == name
    assert before.rows() == [] or name in LOGINS  # see test_logins.py
    handed = dict(reversed(messages))  # the first of each side; the pattern of NICK lets another packet follow
    assert all(begins(application, data, port, proto) for data in handed.values())


@pytest.mark.parametrize(("name", "proto", "port", "messages"), FOREIGN)
def test_foreign__what_resembles_it(name: str, proto: int, port: int, messages: Messages) -> None:
    one = talk(APPLICATIONS[name], *messages, port=port, proto=proto)
    assert (one.verdict, one.flow.app) == (Verdict.FOREIGN, "")


@pytest.mark.parametrize(
    ("name", "port", "messages"),
    [
        ("imap", 143, [(S, b"* OK x\r\n"), (C, b"t1 STARTTLS\r\n"), (S, b"t1 OK go\r\n")]),
        ("pop3", 110, [(S, b"+OK x\r\n"), (C, b"STLS\r\n"), (S, b"+OK go\r\n")]),
        ("postgres", 5432, [(C, struct.pack(">II", 8, 80877103))]),
        ("mysql", 3306, [(S, greeting()), (C, b"\x20\0\0\1\x85\xae\xff\x19" + bytes(28))]),
        ("ldap", 389, [
            (C, ldap_message(ber(0x77, ber(0x80, b"1.3.6.1.4.1.1466.20037")))),
            (S, ldap_message(ber(0x78, b"\x0a\x01\0\x04\0\x04\0"))),
        ]),
    ],
)  # fmt: skip
def test_tls__flow_is_released_when_it_starts(name: str, port: int, messages: Messages) -> None:
    application: Application = APPLICATIONS[name]
    one = Talk(application, port)
    verdicts = [one.say(*message) for message in messages]
    assert verdicts == [Verdict.MORE] * (len(messages) - 1) + [Verdict.RELEASE]
    assert one.flow.app == name
    assert all(begins(application, data, port) for _, data in messages)


def test_stun__leaves_the_name_that_media_gave() -> None:
    flow = Flow(UDP, "192.0.2.1", "192.0.2.2", 40000, 50000, app="dtls")
    assert APPLICATIONS["stun"].parser(flow).feed(Message(STUN, 0, C)) is Verdict.RELEASE
    assert flow.app == "dtls"


@pytest.mark.parametrize(("name", "proto", "port", "messages"), RECOGNISED)
def test_truncation__raises_only_what_is_allowed(name: str, proto: int, port: int, messages: Messages) -> None:
    survives_truncation(APPLICATIONS[name], messages, port, proto)


def test_random_bytes__are_nothing() -> None:
    """Encrypted payloads that the patterns let through are refused by the parsers, at any port."""
    dice = random.Random(7)
    ports = {
        "ike": 500,
        "kerberos": 88,
        "imap": 143,
        "pop3": 110,
        "mysql": 3306,
        "irc": 6667,
        "telnet": 23,
        "ldap": 389,
    }
    named: list[Any] = []
    for _ in range(20_000):
        data = dice.randbytes(dice.choice((32, 64, 92, 148, 300)))
        for name, application in APPLICATIONS.items():
            for proto in (TCP, UDP):
                port = ports.get(name, 50000)
                if (
                    begins(application, data, port, proto)
                    and talk(application, (C, data), port=port, proto=proto).flow.app
                ):
                    named.append((name, data))
    assert named == []


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from(RECOGNISED),
    st.lists(st.tuples(st.booleans(), st.integers(0, 400), st.integers(0, 255), st.binary(max_size=20)), max_size=4),
)
def test_damaged__raises_only_what_is_allowed(case: Any, damage: list[tuple[bool, int, int, bytes]]) -> None:
    name, proto, port, messages = case
    one = Talk(APPLICATIONS[name], port, proto)
    for side, data in messages:
        spoilt = bytearray(data)
        for insert, at, value, extra in damage:
            if insert:
                spoilt[at % len(spoilt) : at % len(spoilt)] = extra
            else:
                spoilt[at % len(spoilt)] = value
        if one.say(side, bytes(spoilt)) is not Verdict.MORE:
            break
    assert one.rows() == [] or name in LOGINS
