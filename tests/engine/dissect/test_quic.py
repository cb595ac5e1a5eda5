"""QUIC: the vectors of RFC 9001 and RFC 9369, packets sealed here, and the real captures against tshark's answers."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from typing import Any

import pytest

from engine.dissect._quic_initial import Keys, crypto_frames, initial_secret, read_long_header, version_text
from engine.dissect.base import UDP, Malformed, Verdict
from engine.dissect.quic import APPLICATION
from tests.dissecting import READ_ERRORS, matches
from tests.engine.dissect.agreement import CORPUS, UNREADABLE, Truth, compare
from tests.engine.dissect.hellos import Talk, check_columns, chrome, client_hello, server_hello, vector

V1, V2, DRAFT29 = 1, 0x6B3343CF, 0xFF00001D
DCID = bytes.fromhex("8394c8f03e515708")
# RFC 9001 A.2 and A.3
RFC_CLIENT_CRYPTO = bytes.fromhex(
    "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c00000413011302010000c0000000"
    "10000e00000b6578616d706c652e636f6dff01000100000a00080006001d0017001800100007000504616c706e0005000501000000000033"
    "00260024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b0003020304000d0010000e040305"
    "0306030203080408050806002d00020101001c00024001003900320408ffffffffffffffff05048000ffff07048000ffff08011001048000"
    "75300901100f088394c8f03e51570806048000ffff"
)
RFC_SERVER = bytes.fromhex(
    "cf000000010008f067a5502a4262b5004075c0d95a482cd0991cd25b0aac406a5816b6394100f37a1c69797554780bb38cc5a99f5ede4cf7"
    "3c3ec2493a1839b3dbcba3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b562bfb19fb84022f8ef4cdd93795d77d06edbb7aaf2f"
    "58891850abbdca3d20398c276456cbc42158407dd074ee"
)


def expand(secret: bytes, label: bytes, size: int) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

    info = struct.pack(">H", size) + vector(b"tls13 " + label, 1) + b"\0"
    return HKDFExpand(SHA256(), size, info).derive(secret)


def varint(number: int) -> bytes:
    return struct.pack(">I", number | 0x8000_0000) if number > 63 else bytes((number,))


def seal(
    frames: bytes, number: int = 0, version: int = V1, from_client: bool = True, dcid: bytes = DCID,
    key_dcid: bytes | None = None, scid: bytes = b"", token: bytes = b"", size: int = 1162, length: int = 4,
) -> bytes:  # fmt: skip
    """An Initial packet, sealed as RFC 9001 5 describes with the library's own HKDF."""
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import ECB

    secret = initial_secret(version, dcid if key_dcid is None else key_dcid, from_client)
    prefix = b"quicv2 " if version == V2 else b"quic "
    first = (0xD0 if version == V2 else 0xC0) | length - 1
    sealed = frames.ljust(size, b"\0")
    header = struct.pack(">BI", first, version) + vector(dcid, 1) + vector(scid, 1)
    header += varint(len(token)) + token + struct.pack(">H", 0x4000 | len(sealed) + 16 + length)
    header += number.to_bytes(length, "big")
    nonce = int.from_bytes(expand(secret, prefix + b"iv", 12), "big") ^ number
    body = AESGCM(expand(secret, prefix + b"key", 16)).encrypt(nonce.to_bytes(12, "big"), sealed, header)
    sample = (header[-length:] + body)[4:20] if length == 4 else body[4 - length : 20 - length]
    mask = Cipher(AES(expand(secret, prefix + b"hp", 16)), ECB()).encryptor().update(sample)
    protected = bytearray(header)
    protected[0] ^= mask[0] & 0x0F
    for i in range(length):
        protected[-length + i] ^= mask[1 + i]
    return bytes(protected) + body


def crypto(data: bytes, offset: int = 0) -> bytes:
    return b"\x06" + varint(offset) + varint(len(data)) + data


def hello(name: bytes = b"www.example.org", agent: bytes = b"Chrome/130 Linux") -> bytes:
    parameters = b"\x01\x04\x80\0\x75\x30" + b"\x71\x29" + vector(agent, 1) + b"\x0f\0"
    return client_hello([*chrome(name, b"h3")[1:-2], (0x39, parameters)], session=b"")


ANSWER = seal(b"\x02\0\0\0\0" + crypto(server_hello(session=b"")), 0, V1, False, b"", DCID, b"server!!", size=300)


def talk(*datagrams: bytes) -> Talk:
    one = Talk(APPLICATION, UDP)
    for datagram in datagrams:
        one.client(datagram)
    return one


# --- vectors ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("version", "client", "secret", "key", "iv", "hp"),
    [
        (V1, True, "c00cf151ca5be075ed0ebfb5c80323c42d6b7db67881289af4008f1f6c357aea",
         "1f369613dd76d5467730efcbe3b1a22d", "fa044b2f42a3fd3b46fb255c", "9f50449e04a0e810283a1e9933adedd2"),
        (V1, False, "3c199828fd139efd216c155ad844cc81fb82fa8d7446fa7d78be803acdda951b",
         "cf3a5331653c364c88f0f379b6067e37", "0ac1493ca1905853b0bba03e", "c206b8d9b9f0f37644430b490eeaa314"),
        (V2, True, "14ec9d6eb9fd7af83bf5a668bc17a7e283766aade7ecd0891f70f9ff7f4bf47b",
         "8b1a0bc121284290a29e0971b5cd045d", "91f73e2351d8fa91660e909f", "45b95e15235d6f45a6b19cbcb0294ba9"),
    ],
)  # fmt: skip
def test_keys__appendix_a(version: int, client: bool, secret: str, key: str, iv: str, hp: str) -> None:
    """RFC 9001 A.1, RFC 9369 A.1."""
    got = initial_secret(version, DCID, client)
    prefix = b"quicv2 " if version == V2 else b"quic "
    assert got.hex() == secret
    assert [expand(got, prefix + n, s).hex() for n, s in ((b"key", 16), (b"iv", 12), (b"hp", 16))] == [key, iv, hp]


def test_packets__appendix_a() -> None:
    """RFC 9001 A.2 and A.3: our sealing gives the RFC's client packet, and both are read."""
    packet = seal(RFC_CLIENT_CRYPTO, 2)
    assert packet.hex().startswith("c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11")
    assert packet.hex().endswith("e221af44860018ab0856972e194cd934")
    frames = Keys(V1, DCID, from_client=False).open(RFC_SERVER, read_long_header(RFC_SERVER, 0))
    assert frames is not None
    assert frames.hex().startswith(
        "02000000000600405a020000560303eefce7f7b37ba1d1632e96677825ddf73988cfc79825df566dc54"
    )
    one = talk(packet)
    row = one.server(RFC_SERVER).row()
    assert (one.verdict, row["sni"], row["cipher"], row["dcid"]) == (Verdict.DONE, "example.com", "0x1301", DCID.hex())
    assert (row["version"], row["alpn"], row["scid"]) == ("1", "alpn", "")


# --- rows ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("version", "text"), [(V1, "1"), (V2, "2"), (DRAFT29, "draft-29"), (0xFF00001B, "draft-27")])
def test_hello__row(version: int, text: str) -> None:
    one = talk(seal(crypto(hello()), version=version, scid=b"me", token=b"t" * 70))
    assert (one.flow.app, one.flow.server_name, one.verdict) == ("quic", "www.example.org", Verdict.MORE)
    answer = seal(crypto(server_hello(session=b"")), 0, version, False, b"me", DCID, b"server!!", size=200)
    assert one.server(answer).verdict is Verdict.DONE
    row = one.row()
    check_columns(APPLICATION, row)
    assert (row["version"], row["sni"], row["alpn"], row["alpn_offered"]) == (text, "www.example.org", "h3", ["h3"])
    assert (row["user_agent"], row["dcid"], row["scid"]) == ("Chrome/130 Linux", DCID.hex(), b"me".hex())
    assert row["ja4"].startswith("q13d1516h3_8daaf6152771_")
    assert row["ja4s"] == "q130200_1301_234ea6891581"


def pieces(data: bytes, size: int) -> list[bytes]:
    return [crypto(data[i : i + size], i) for i in range(0, len(data), size)]


@pytest.mark.parametrize("packets", [1, 2, 3])
def test_hello__split_and_shuffled_over_datagrams(packets: int) -> None:
    """As Chrome does, with PING and PADDING between the pieces, and a large key share."""
    expected, chance = talk(seal(crypto(hello()))).row(), random.Random(packets)
    for size in (4, 7, 50, 400):
        parts = pieces(hello(), size)
        chance.shuffle(parts)
        datagrams = []
        for i in range(packets):
            frames = b"".join(p + chance.choice((b"", b"\1", b"\0\0\0")) for p in parts[i::packets])
            datagrams.append(seal(frames, i, size=max(1162, len(frames)), length=1 + i))
        assert talk(*datagrams).row() == expected


def test_hello__at_every_byte_the_same_row() -> None:
    data = hello()
    expected = talk(seal(crypto(data))).row()
    for i in range(1, len(data), 5):
        assert talk(seal(crypto(data[i:], i)), seal(crypto(data[:i]), 1)).row() == expected


def test_hello__coalesced_with_other_packets() -> None:
    """RFC 9000 12.2: 0-RTT and a second Initial in one datagram."""
    data = hello()
    zero_rtt = b"\xd0\0\0\0\1" + vector(DCID, 1) + b"\0" + struct.pack(">H", 0x4000 | 100) + bytes(100)
    datagram = seal(crypto(data[:200]), size=300) + zero_rtt + seal(crypto(data[200:], 200), 1, size=500)
    assert talk(datagram).row() == talk(seal(crypto(data))).row()


def test_retry__keys_of_the_new_connection_id() -> None:
    """RFC 9001 5.2: the hello comes again under the name that the server chose."""
    data = hello()
    one = talk(seal(crypto(data[:100])), seal(crypto(data), 1, dcid=b"fromserver", token=b"retry" * 9))
    answer = seal(crypto(server_hello(session=b"")), 0, V1, False, b"", b"fromserver", b"fromserver", size=300)
    assert one.server(answer).verdict is Verdict.DONE
    assert (one.row()["sni"], one.row()["cipher"], one.row()["dcid"]) == ("www.example.org", "0x1301", DCID.hex())


def test_dcid__the_servers_choice_does_not_change_the_keys() -> None:
    data = hello()
    second = seal(crypto(data[100:], 100), 1, dcid=b"server!!", key_dcid=DCID)
    assert talk(seal(crypto(data[:100])), second).row()["sni"] == "www.example.org"


def test_version__the_server_changes_it() -> None:
    """RFC 9368: compatible version negotiation."""
    answer = seal(crypto(server_hello(session=b"")), 0, V2, False, b"", DCID, b"server!!", size=300)
    one = talk(seal(crypto(hello()))).server(answer)
    assert (one.verdict, one.row()["version"], one.row()["ja4s"][:7]) == (Verdict.DONE, "2", "q130200")


def test_roles__said_by_the_keys() -> None:
    one = Talk(APPLICATION, UDP).server(seal(crypto(hello()))).client(ANSWER)
    assert (one.verdict, one.row()["sni"]) == (Verdict.DONE, "www.example.org")


def test_one_sided__server_alone_or_unreadable_gives_the_version() -> None:
    for datagram in (ANSWER, seal(crypto(hello()))[:-1] + b"?"):
        row = talk(datagram).row()
        assert {k: v for k, v in row.items() if v is not None} == {"version": "1"}
    row = talk().say(True, seal(crypto(hello()))[:200], whole=False).row()
    assert row["version"] == "1"


def test_patience__ends() -> None:
    one = talk(*[ANSWER] * 32)
    assert (one.verdict, len(one.rows())) == (Verdict.DONE, 1)


# --- Google's QUIC before TLS -------------------------------------------------------------------------------------
def chlo(**tags: bytes) -> bytes:
    names = {"sni": b"SNI\0", "agent": b"UAID", "pad": b"PAD\0"}
    table, values = b"", b""
    for name, value in tags.items():
        values += value
        table += names[name] + struct.pack("<I", len(values))
    return b"CHLO" + struct.pack("<HH", len(tags), 0) + table + values


TAGS = chlo(pad=b"-" * 900, sni=b"g.example", agent=b"Chrome/74 Android")


@pytest.mark.parametrize(
    ("head", "text"),
    [(b"\x09" + b"c" * 8 + b"Q043\1", "Q043"), (b"\x0d" + b"c" * 8 + b"Q039\1" + b"n" * 20, "Q039"),
     (b"\xc3Q046\x50" + b"c" * 8 + b"\0\0\0\1", "Q046")],
)  # fmt: skip
def test_google__tags_in_clear(head: bytes, text: str) -> None:
    one = talk(head + b"h" * 12 + b"\xa4\1\0\0" + TAGS)
    row = one.row()
    check_columns(APPLICATION, row)
    assert (one.verdict, one.flow.server_name) == (Verdict.DONE, "g.example")
    assert (row["version"], row["sni"], row["user_agent"]) == (text, "g.example", "Chrome/74 Android")


def test_google__q050_is_sealed() -> None:
    version = int.from_bytes(b"Q050", "big")
    row = talk(seal(b"\x08\0\x44\0" + TAGS, version=version)).row()
    assert (row["version"], row["sni"]) == ("Q050", "g.example")


def test_google__damaged_tags() -> None:
    head = b"\xc3Q046\x50" + b"c" * 8 + bytes(16)
    for i in range(len(TAGS)):
        row = talk(head + b"h" * 20 + TAGS[:i]).row()
        assert row["version"] == "Q046"
        assert not row["sni"] or i > 940
    for bad in (b"CHLO\xff\xff\0\0" + b"SNI\0\xff\xff\xff\xff" * 300, b"CHLO" * 300):
        assert talk(head + bad).row()["sni"] is None


# --- hostile bytes ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "data",
    [b"\xc0\0\0\0\1" + b"\xff" * 60, b"\xc0\0\0\0\1\x08" + bytes(50), b"\xc0\xff\0\0\1" + b"z" * 60, b"\xc0\0\0\0\1",
     b"\x09" + b"c" * 8 + b"QQQQ" + bytes(50), b"\x40" * 60, b"\xc0\xfa\xce\xb0\1" + b"\x15" * 60],
)  # fmt: skip
def test_foreign__no_name_without_evidence(data: bytes) -> None:
    one = talk(data)
    assert (one.verdict, one.flow.app, one.rows()) == (Verdict.FOREIGN, "", [])


def test_truncation__every_length() -> None:
    sound = seal(crypto(hello()))
    for i in range(1, len(sound), 3):
        assert talk(sound[:i]).flow.app == ""
        row = talk().say(True, sound[:i], whole=False).rows()
        assert not row or row[0]["sni"] is None
    for i in range(21):
        with pytest.raises((*READ_ERRORS, Malformed)):
            read_long_header(sound[:i], 0)


def test_damage__inside_what_was_sealed() -> None:
    """Anyone can seal anything: frames and hellos that lie."""
    chance, data = random.Random(2), b"\x02\3\4\1\0\0\0" + crypto(hello()[:300]) + crypto(hello()[300:], 300)
    for _ in range(500):
        damaged = bytearray(data[: chance.randrange(1, len(data) + 1)])
        for _ in range(chance.randrange(5)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        one = talk(seal(bytes(damaged))).server(ANSWER)
        for row in one.rows():
            check_columns(APPLICATION, {k: v for k, v in row.items() if k != "ts"})
    for frames in (b"\x02\0\0\xbf\xff\xff\xff" + b"\0" * 900, b"\x06\xff\xff\xff\xff\xff\xff\xff\xff\1a", b"\x1c" * 50):
        assert talk(seal(frames)).row()["sni"] is None


def test_frames__bounded() -> None:
    assert len(crypto_frames(crypto(b"x") * 2000)) <= 512
    assert crypto_frames(b"\0\1" * 30_000) == []


def test_versions__names() -> None:
    names = {1: "1", V2: "2", DRAFT29: "draft-29", 0x51303433: "Q043", 0x54303530: "T050", 0xFACEB002: "0xfaceb002"}
    assert {v: version_text(v) for v in names} == names


def test_patterns__initials_and_nothing_of_an_established_connection() -> None:
    def hit(data: bytes, ports: Sequence[int] = (1, 443)) -> bool:
        return any(matches(p, UDP, (ports[0], ports[1]), data, len(data)) for p in APPLICATION.patterns)

    for version in (V1, V2, DRAFT29, 0xFACEB002, 0x51303530, 0x54303531):
        assert hit(seal(crypto(hello()), version=version)), hex(version)
    assert hit(b"\x09" + b"c" * 8 + b"Q043" + bytes(50))
    for first in range(0x40, 0x80):  # short headers
        assert not hit(bytes((first,)) + b"\xff" * 1200)
    assert not hit(b"\xe0\0\0\0\1" + bytes(1200))  # Handshake


# --- the real captures --------------------------------------------------------------------------------------------
MISSING = {
    **dict.fromkeys(UNREADABLE, "not read at all"),
    "zeek--383379789-decrypt-crash.pcap": "fuzzed lengths: of UDP beyond IP, or of QUIC beyond the datagram",
}


def versions(truth: Truth) -> set[str | None]:
    """Ours, written as tshark's numbers."""
    numbers = (V1, V2, *(0xFF000000 + n for n in range(64)), *(0xFACEB000 + n for n in range(16)))
    ours = {row.get("version") for row in truth.rows}
    return {f"0x{n:08x}" for n in numbers if version_text(n) in ours}


@pytest.mark.corpus
@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no captures at {CORPUS}")
@pytest.mark.parametrize("kind", ["l7", "l7reasm"])
def test_corpus__as_tshark_reads_it(kind: str) -> None:
    total, missing = compare("quic_version", versions, kind)
    print(f"quic_version {kind}: {total - len(missing)} of {total}")
    assert total > 100
    assert {t.capture for t in missing} <= set(MISSING)


@pytest.mark.corpus
@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no captures at {CORPUS}")
def test_corpus__hellos_in_quic_are_read() -> None:
    """SNI, ALPN and fingerprints are compared with those of TLS in test_tls; here: that each hello was opened."""
    total, missing = compare("quic_version", versions)
    unread = {t.capture for t in _hellos() if not any(row.get("ja3") for row in t.rows)}
    assert total > len(missing)
    assert unread <= set(MISSING)


def _hellos() -> list[Any]:
    from tests.engine.dissect.agreement import truths

    return [t for t in truths("quic_version") if "1" in t.types.split("|")]
