"""TLS and DTLS: rows from handshakes built here, and the real captures against tshark's and FoxIO's answers."""

from __future__ import annotations

import datetime
import random
from functools import cache
from hashlib import sha256
from typing import Any

import pytest

from engine.dissect._fingerprint import ja3, ja3s, ja4, ja4s
from engine.dissect._handshake import Pieces, parse_client_hello, parse_server_hello
from engine.dissect.base import UDP, Malformed, Verdict
from engine.dissect.tls import APPLICATION
from tests.dissecting import READ_ERRORS, matches
from tests.engine.dissect.agreement import CORPUS, UNREADABLE, Truth, column_of, compare, published
from tests.engine.dissect.hellos import (
    Talk,
    alpn,
    check_columns,
    chrome,
    client_hello,
    handshake,
    record,
    server_hello,
    sni,
    u16s,
    vector,
)

NEW = record(client_hello(chrome()))
TLS13 = record(server_hello()) + record(b"\1", 20, 0x0303) + record(b"x" * 300, 23, 0x0303)
JA4_CHROME = "t13d1516h2_8daaf6152771_e5627efa2ab1"  # FoxIO's own example
RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


@cache
def certificate(names: int = 2, issuer: str = "An Issuer") -> bytes:
    """DER of a small certificate."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    start = datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]),
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a.example")]),
        key.public_key(), 4711, start, start + datetime.timedelta(days=90),
    )  # fmt: skip
    san = x509.SubjectAlternativeName([x509.DNSName(f"n{i}.example") for i in range(names)])
    from cryptography.hazmat.primitives.serialization import Encoding

    return builder.add_extension(san, False).sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def certificates(*ders: bytes) -> bytes:
    return handshake(11, vector(b"".join(vector(d, 3) for d in ders), 3))


def flight(*ders: bytes, cipher: int = 0xC02F, session: bytes = b"") -> bytes:
    """What a TLS 1.2 server says at first."""
    hello = server_hello([(0xFF01, b"\0"), alpn(b"h2")], cipher, session=session)
    return hello + certificates(*(ders or (certificate(), b"second"))) + handshake(12, b"k" * 99) + handshake(14, b"")


# --- fingerprints -------------------------------------------------------------------------------------------------
def test_ja3__examples_of_its_authors() -> None:
    old = [sni(b"a"), (10, vector(u16s(23, 24, 25))), (11, b"\1\0")]
    hello = client_hello(old, (47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4), 0x0301)
    assert ja3(parse_client_hello(hello[4:])) == "ada70206e40642a3e4461f35503241d5"
    bare = client_hello(None, (4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99), 0x0301)
    assert ja3(parse_client_hello(bare[4:])) == "de350869b8c85de67a350c8d186f11e6"
    answer = server_hello([(e, b"") for e in (65281, 0, 11, 35, 5, 16)], 47, 0x0301)
    assert ja3s(parse_server_hello(answer[4:])) == "836ce314215654b5b1f85f97c73e506f"  # 769,47,65281-0-11-35-5-16


def test_ja4__examples_of_its_authors() -> None:
    assert ja4(parse_client_hello(client_hello(chrome())[4:]), "t") == JA4_CHROME
    assert ja4s(parse_server_hello(server_hello()[4:]), "t") == "t130200_1301_234ea6891581"


@pytest.mark.parametrize(
    ("protocol", "ends"),
    [(b"h2", "h2"), (b"http/1.1", "h1"), (b"x", "xx"), (b"\xba\xad", "bd"), (b"\xab", "ab"), (b"0\xab", "3b"),
     (b"h\n", "6a"), (b"", "00")],
)  # fmt: skip
def test_ja4__ends_of_alpn(protocol: bytes, ends: str) -> None:
    hello = parse_client_hello(client_hello([alpn(protocol)])[4:])
    assert ja4(hello, "t")[8:10] == ends


def test_ja4__counts_and_absent_parts() -> None:
    bare = parse_client_hello(client_hello(None, (), 0x0300)[4:])
    assert ja4(bare, "t") == "ts3i000000_000000000000_000000000000"
    named = parse_client_hello(client_hello([sni(b"a")], range(200))[4:])
    assert ja4(named, "q").startswith("q12d990100_")
    many = parse_client_hello(client_hello([(1000 + i, b"") for i in range(120)])[4:])
    assert ja4(many, "t")[:8] == "t12i1599"


# --- rows ---------------------------------------------------------------------------------------------------------
def test_tls13__row_as_soon_as_both_hellos_are_there() -> None:
    talk = Talk(APPLICATION).client(NEW)
    assert (talk.flow.app, talk.flow.server_name, talk.verdict) == ("tls", "www.example.org", Verdict.MORE)
    assert talk.server(TLS13).verdict is Verdict.DONE
    row = talk.row()
    check_columns(APPLICATION, row)
    assert row["version"] == row["client_version"] == "TLS 1.3"
    assert (row["sni"], row["alpn"], row["alpn_offered"]) == ("www.example.org", "h2", ["h2", "http/1.1"])
    assert (row["ja4"], row["ja4s"], row["cipher"]) == (JA4_CHROME, "t130200_1301_234ea6891581", "0x1301")
    assert (row["resumed"], row["early_data"], row["alert"]) == (False, False, None)
    assert "cert_subject" not in row


def test_tls12__certificate_is_read() -> None:
    talk = Talk(APPLICATION).client(NEW).server(record(flight()))
    assert talk.verdict is Verdict.DONE
    row = talk.row()
    check_columns(APPLICATION, row)
    assert (row["version"], row["client_version"], row["resumed"]) == ("TLS 1.2", "TLS 1.3", False)
    assert (row["cert_subject"], row["cert_issuer"], row["cert_self_signed"]) == ("CN=a.example", "CN=An Issuer", False)
    assert (row["cert_not_before"], row["cert_not_after"]) == (1_704_164_645_000_000, 1_711_940_645_000_000)
    assert row["cert_san"] == ["n0.example", "n1.example"]
    assert row["cert_sha256"] == sha256(certificate()).hexdigest()
    assert (row["alpn"], row["alpn_offered"]) == ("h2", ["h2", "http/1.1"])


def test_tls12__self_signed_and_many_names() -> None:
    der = certificate(100, "a.example")
    row = Talk(APPLICATION).client(NEW).server(record(flight(der))).row()
    assert row["cert_self_signed"] is True
    assert len(row["cert_san"]) == 64


@pytest.mark.parametrize("der", [b"", b"0", b"0\x82\xff\xff", b"x" * 400, b"0" * 30_000])
def test_tls12__unreadable_certificate_costs_only_its_columns(der: bytes) -> None:
    talk = Talk(APPLICATION).client(NEW).server(record(flight(der)))
    row = talk.row()
    assert talk.verdict is Verdict.DONE
    assert (row["cipher"], row.get("cert_subject")) == ("0xc02f", None)
    assert row.get("cert_sha256") == (sha256(der).hexdigest() if der else None)


def test_tls12__damaged_certificate_never_raises() -> None:
    der, chance = certificate(), random.Random(7)
    for _ in range(300):
        damaged = bytearray(der)
        for _ in range(chance.randrange(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        row = Talk(APPLICATION).client(NEW).server(record(flight(bytes(damaged)))).row()
        assert row["cert_sha256"] == sha256(damaged).hexdigest()
        check_columns(APPLICATION, row)


def test_tls12__resumed() -> None:
    """The session comes back, and encrypted data instead of a certificate."""
    answer = record(server_hello([], 0xC02F)) + record(b"\1", 20, 0x0303)
    talk = Talk(APPLICATION).client(NEW).server(answer + record(b"f" * 40, 22, 0x0303))
    assert talk.verdict is Verdict.DONE
    assert talk.row()["resumed"] is True


def test_tls13__resumed_with_early_data() -> None:
    hello = client_hello([*chrome(), (0x2A, b""), (0x29, b"x" * 60)])
    talk = Talk(APPLICATION).client(record(hello) + record(b"early" * 20, 23, 0x0303))
    talk.server(record(server_hello([(0x2B, b"\3\4"), (0x33, b""), (0x29, b"\0\0")])))
    row = talk.row()
    assert (talk.verdict, row["resumed"], row["early_data"]) == (Verdict.DONE, True, True)


def test_tls13__hello_retry_request_waits_for_the_second_hello() -> None:
    retry = record(server_hello([(0x2B, b"\3\4"), (0x33, b"\0\x17")], random=RETRY)) + record(b"\1", 20, 0x0303)
    talk = Talk(APPLICATION).client(NEW).server(retry)
    assert talk.verdict is Verdict.MORE
    talk.client(record(b"\1", 20, 0x0303) + record(client_hello(chrome(b"second.example"))))
    assert talk.server(TLS13).verdict is Verdict.DONE
    assert (talk.row()["sni"], talk.row()["ja4s"]) == ("www.example.org", "t130200_1301_234ea6891581")


def test_alert__ends_the_handshake() -> None:
    talk = Talk(APPLICATION).client(NEW).server(b"\x15\x03\x01\0\2\2\x28")
    assert (talk.verdict, talk.row()["alert"], talk.row()["version"]) == (Verdict.DONE, "handshake_failure", "TLS 1.3")


def test_alert__warning_does_not() -> None:
    talk = Talk(APPLICATION).client(NEW).server(b"\x15\x03\x01\0\2\1\x70")
    assert talk.verdict is Verdict.MORE
    assert talk.server(TLS13).row()["alert"] is None


def test_roles__said_by_the_hellos() -> None:
    """A capture that began late may have taken the server for the client."""
    talk = Talk(APPLICATION).server(NEW).client(record(flight()))
    row = talk.row()
    assert (talk.verdict, row["sni"], row["cert_subject"]) == (Verdict.DONE, "www.example.org", "CN=a.example")


def test_one_sided__client_or_server_alone_gives_a_row() -> None:
    row = Talk(APPLICATION).client(NEW).row()
    assert (row["ja4"], row["version"], row.get("cipher")) == (JA4_CHROME, "TLS 1.3", None)
    row = Talk(APPLICATION).server(record(flight())).row()
    assert (row["cipher"], row["cert_subject"], row.get("sni")) == ("0xc02f", "CN=a.example", None)


def test_one_sided__patience_ends() -> None:
    talk = Talk(APPLICATION).client(NEW)
    for _ in range(8):
        assert talk.verdict is Verdict.MORE
        talk.client(record(b"d" * 100, 23, 0x0303))
    assert (talk.verdict, talk.row()["sni"]) == (Verdict.DONE, "www.example.org")


def test_names__control_characters_and_bytes_are_escaped() -> None:
    row = Talk(APPLICATION).client(record(client_hello([sni(b"a\n\xff\0b"), alpn(b"\xba\xad", b"h\x1b")]))).row()
    assert row["sni"] == "a\\x0a\\xff\\x00b"
    assert row["alpn_offered"] == ["\\xba\\xad", "h\\x1b"]


def test_starttls__flow_with_a_name_is_taken_over_or_released() -> None:
    talk = Talk(APPLICATION)
    talk.flow.app = "smtp"
    assert talk.client(NEW).flow.app == "tls"
    talk = Talk(APPLICATION)
    talk.flow.app = "smtp"
    assert talk.client(b"\x16\x03\x01 no record at all").verdict is Verdict.RELEASE
    assert (talk.flow.app, talk.rows()) == ("smtp", [])


# --- what is not a handshake --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "data",
    [b"\x15\x03\x03\0\2\2\x28", b"\x17\x03\x03\xff\xff" + b"x" * 40,
     b"\x16\x03\x01\0\0\1\0", b"\x14\x03\x03\0\1\1", record(b"\1\0\0\x20" + b"\x03\x09" * 16, 22, 0x0309),
     b"\x17\x03\x03\0\0"],
)  # fmt: skip
def test_foreign__no_name_without_evidence(data: bytes) -> None:
    talk = Talk(APPLICATION).client(data)
    assert talk.verdict is Verdict.FOREIGN
    assert (talk.flow.app, talk.rows()) == ("", [])


def test_mid_stream__records_that_fit_are_enough() -> None:
    talk = Talk(APPLICATION).server(record(b"d" * 900, 23, 0x0303))
    assert (talk.verdict, talk.flow.app, talk.rows()) == (Verdict.DONE, "tls", [])
    talk = Talk(APPLICATION).server(record(b"d" * 90, 23, 0x0303) + record(b"e" * 2000, 23, 0x0303)[:900])
    assert (talk.verdict, talk.flow.app) == (Verdict.DONE, "tls")


def test_mid_stream__one_header_needs_another() -> None:
    half = record(b"d" * 9000, 23, 0x0303)[:1400]
    talk = Talk(APPLICATION).server(half)
    assert (talk.verdict, talk.flow.app) == (Verdict.MORE, "")
    assert (talk.server(half).verdict, talk.flow.app) == (Verdict.DONE, "tls")
    assert Talk(APPLICATION).server(half).server(b"something else").verdict is Verdict.FOREIGN


# --- splits, order, truncation ------------------------------------------------------------------------------------
def test_splits__at_every_byte_the_same_row() -> None:
    answer = record(flight(), size=500)
    expected = Talk(APPLICATION).client(NEW).server(answer).row()
    for i in range(1, len(NEW)):
        assert Talk(APPLICATION).client(NEW[:i]).client(NEW[i:]).server(answer).row() == expected
    for i in range(1, len(answer), 3):
        talk = Talk(APPLICATION).client(NEW).server(answer[:i]).server(answer[i:])
        assert talk.row() == expected, i


@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_splits__tiny_records_and_segments(size: int) -> None:
    """RFC 8446 5.1 lets a message be spread over records in any way."""
    data = record(client_hello([sni(b"a.example")]), size=size)
    expected = Talk(APPLICATION).client(record(client_hello([sni(b"a.example")]))).row()
    assert Talk(APPLICATION).client(data).row() == expected
    talk = Talk(APPLICATION)
    for i in range(0, len(data), 13):
        talk.client(data[i : i + 13])
    assert talk.row() == expected


def test_segments__late_twice_and_overlapping() -> None:
    answer = record(flight())
    expected = Talk(APPLICATION).client(NEW).server(answer).row()
    talk = Talk(APPLICATION)
    start = talk.seq[True]
    talk.client(NEW[:100]).client(NEW[300:], seq=start + 300 & 0xFFFF_FFFF).client(NEW[:100], seq=start)
    talk.client(NEW[50:350], seq=start + 50 & 0xFFFF_FFFF)
    talk.server(answer[:200], seq=1000).server(answer[400:], seq=1400).server(answer[150:420], seq=1150)
    assert (talk.verdict, talk.row()) == (Verdict.DONE, expected)


def test_segments__the_servers_hello_is_overtaken() -> None:
    first, second = record(flight())[:300], record(flight())[300:]
    talk = Talk(APPLICATION).client(NEW).server(second, seq=1300)
    assert talk.verdict is Verdict.MORE
    assert (talk.server(first, seq=1000).verdict, talk.row()["cert_subject"]) == (Verdict.DONE, "CN=a.example")


def test_truncation__every_length_of_every_message() -> None:
    """A capture with a short snaplen, and messages whose inner lengths lie."""
    answer = record(flight())
    for i in range(1, len(NEW)):
        rows = Talk(APPLICATION).client(NEW[:i], whole=False).rows()
        assert len(rows) == (i > 10)
        assert not rows or rows[0]["ja3"] is None
    for i in range(1, len(answer)):
        row = Talk(APPLICATION).client(NEW).server(answer[:i], whole=False).row()
        assert row.get("cipher") == ("0xc02f" if i > 45 else None), i
    sound, reply = client_hello(chrome())[4:], server_hello()[4:]
    for read, data, bare in ((parse_client_hello, sound, 103), (parse_server_hello, reply, 70)):
        for i in range(len(data)):
            if i == bare:  # before the extensions, which need not be there
                assert not read(data[:i]).extensions
                continue
            with pytest.raises((*READ_ERRORS, Malformed)):
                read(data[:i])
    for i in range(len(sound)):
        Talk(APPLICATION).client(record(handshake(1, sound[:i]))).server(record(handshake(2, reply[:i]))).rows()


def test_damage__only_allowed_errors() -> None:
    chance = random.Random(1)
    sound = [(True, NEW), (False, record(flight()))]
    for _ in range(3000):
        talk = Talk(APPLICATION)
        for side, data in sound:
            damaged = bytearray(data)
            for _ in range(chance.randrange(4)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            cut = chance.randrange(1, len(damaged) + 1)
            for piece in (damaged[:cut], damaged[cut:]):
                if piece:
                    talk.say(side, bytes(piece), whole=chance.random() < 0.9)
        for row in talk.rows():
            check_columns(APPLICATION, {k: v for k, v in row.items() if k != "ts"})


def test_bounds__endless_handshake_is_given_up() -> None:
    talk = Talk(APPLICATION).client(record(handshake(1, b"\3\3" + bytes(30_000)), size=1000)[:1400])
    sent = 0
    while talk.verdict is Verdict.MORE:
        talk.client(b"z" * 1400)
        sent += 1
    assert sent < 70
    assert talk.rows() == talk.rows()


def test_pieces__any_order_any_overlap() -> None:
    data, chance = bytes(range(256)) * 4, random.Random(3)
    for _ in range(50):
        pieces, at = Pieces(), list(range(0, 1024, 32))
        chance.shuffle(at)
        for i in at:
            start = max(0, i - chance.randrange(40))
            pieces.add(start, data[start : i + 32])
        assert pieces.data == data
    small = Pieces(100)
    for i in range(1, 1000):
        small.add(i % 99 + 1, b"x" * 90)
    assert not small.data


# --- DTLS ---------------------------------------------------------------------------------------------------------
def dtls(message: bytes, number: int, size: int = 10_000, epoch: int = 0, version: int = 0xFEFD) -> list[bytes]:
    """Datagrams with the fragments of a handshake message (RFC 6347 4.2.2)."""
    body, found = message[4:], []
    for at in range(0, len(body), size):
        piece = body[at : at + size]
        fragment = message[:4] + u16s(number) + at.to_bytes(3, "big") + vector(piece, 3)
        found.append(b"\x16" + u16s(version, epoch) + bytes(6) + vector(fragment))
    return found


def test_dtls__cookie_and_fragments_in_any_order() -> None:
    hello = client_hello([*chrome()[2:-3], (0x002B, vector(u16s(0xFEFC, 0xFEFD), 1))], version=0xFEFD, cookie=b"")
    again = client_hello(chrome()[2:-3], version=0xFEFD, cookie=b"c" * 20)
    talk = Talk(APPLICATION, UDP).client(dtls(hello, 0)[0])
    talk.server(dtls(handshake(3, u16s(0xFEFF) + vector(b"c" * 20, 1)), 0, version=0xFEFF)[0])
    for datagram in reversed(dtls(again, 1, 100)):
        talk.client(datagram)
    answer = server_hello([(0xFF01, b"\0")], 0xC02B, 0xFEFD)
    for datagram in reversed(dtls(answer, 1, 30) + dtls(certificates(certificate()), 2, 200)):
        talk.server(datagram)
    row = talk.row()
    check_columns(APPLICATION, row)
    assert (talk.flow.app, talk.flow.server_name, talk.verdict) == ("dtls", "www.example.org", Verdict.DONE)
    assert (row["version"], row["client_version"], row["cert_subject"]) == ("DTLS 1.2", "DTLS 1.3", "CN=a.example")
    assert row["ja4"].startswith("dd3d1514h2_8daaf6152771_")


def test_dtls__encrypted_records_alone_are_dtls_without_a_row() -> None:
    data = b"\x17\xfe\xfd\0\1" + bytes(6) + vector(b"x" * 50)
    talk = Talk(APPLICATION, UDP).client(data)
    assert (talk.verdict, talk.flow.app, talk.rows()) == (Verdict.DONE, "dtls", [])
    assert Talk(APPLICATION, UDP).client(data + b"!").verdict is Verdict.FOREIGN


def test_dtls__truncation_and_damage() -> None:
    sound, chance = dtls(client_hello(chrome(), version=0xFEFD, cookie=b""), 0)[0], random.Random(5)
    for i in range(1, len(sound)):
        assert Talk(APPLICATION, UDP).client(sound[:i]).flow.app == ""
        Talk(APPLICATION, UDP).client(sound[:i], whole=False).rows()
        damaged = bytearray(sound)
        damaged[chance.randrange(len(sound))] = chance.randrange(256)
        Talk(APPLICATION, UDP).client(bytes(damaged)).rows()


# --- patterns -----------------------------------------------------------------------------------------------------
def test_patterns__handshakes_in_any_segment() -> None:
    def hit(data: bytes, proto: int = 6) -> bool:
        return any(matches(p, proto, (1, 2), data, len(data)) for p in APPLICATION.patterns)

    assert all(hit(NEW[:i]) for i in (1, 2, 3, 9, 100))
    assert hit(record(server_hello(), version=0x0303))
    assert hit(dtls(server_hello(), 0)[0], UDP)
    assert not hit(b"GET / HTTP/1.1\r\n")
    assert not hit(record(b"x" * 26, 21, 0x0303))
    assert not hit(dtls(server_hello(), 0)[0])


# --- the real captures --------------------------------------------------------------------------------------------
# Values of tshark's that we do not have, by capture, and why.
OTHER_CARRIER = "TLS inside EAP, RADIUS, OpenVPN or decrypted WireGuard"
MISSING = {
    "libtrace--8021x.pcap": OTHER_CARRIER,
    "libtrace--radius.pcap": OTHER_CARRIER,
    "nDPI--openvpn.pcap": OTHER_CARRIER,
    "nDPI--openvpn_nohmac.pcapng": OTHER_CARRIER,
    "nDPI--openvpn_nohmac_tcp.pcapng": OTHER_CARRIER,
    "wireshark--wireguard-ping-tcp-dsb.pcapng": OTHER_CARRIER,
    "wireshark--wpa3-suiteb-192.pcapng.gz": OTHER_CARRIER,
    **dict.fromkeys(UNREADABLE, "not read at all"),
}
SECOND_HELLO = "the ClientHello after a HelloRetryRequest; the row shows the first"
HEX_RULE = "ALPN BA AD: tshark replaces the bytes, FoxIO's data follow an older rule (99)"
corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no captures at {CORPUS}")


def protocols(truth: Truth) -> set[str | None]:
    return {p for row in truth.rows for p in [*(row.get("alpn_offered") or ()), row.get("alpn")]}


@pytest.mark.corpus
@corpus
@pytest.mark.parametrize("kind", ["l7", "l7reasm"])
@pytest.mark.parametrize(
    ("column", "ours", "reasons"),
    [
        ("tls_sni", column_of("sni"), {}),
        ("tls_ja3s", column_of("ja3s"), {}),
        ("tls_alpn", protocols, {"ja4--tls-non-ascii-alpn.pcapng": HEX_RULE}),
        (
            "tls_ja3",
            column_of("ja3"),
            dict.fromkeys(("ja4--tls-handshake.pcapng", "ja4--tls-sni.pcapng"), SECOND_HELLO),
        ),
    ],
)
def test_corpus__as_tshark_reads_it(column: str, ours: Any, kind: str, reasons: dict[str, str]) -> None:
    total, missing = compare(column, ours, kind)
    print(f"{column} {kind}: {total - len(missing)} of {total}")
    assert total > 200
    assert {t.capture for t in missing} <= {*MISSING, *reasons}
    second = [t for t in missing if reasons.get(t.capture) == SECOND_HELLO]
    assert len(second) == (10 if column == "tls_ja3" else 0)
    assert all(any(row["ja3"] not in (None, t.value) for row in t.rows) for t in second)


@pytest.mark.corpus
@corpus
@pytest.mark.parametrize("name", ["ja4", "ja4s"])
def test_corpus__ja4_as_foxio_has_it(name: str) -> None:
    """Values that two of its three implementations agree on."""
    values = list(published(name))
    missing = [t.capture for t in values if t.value not in {row.get(name) for row in t.rows}]
    print(f"{name}: {len(values) - len(missing)} of {len(values)}")
    assert len(values) > 100
    assert missing == (["ja4--tls-non-ascii-alpn.pcapng"] if name == "ja4" else [])  # HEX_RULE
