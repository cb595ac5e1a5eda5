"""SSH: banners and KEXINITs built here, and the real captures against tshark's answers."""

from __future__ import annotations

import random
import subprocess
from hashlib import md5
from shutil import which

import pytest

from engine.dissect.base import Verdict
from engine.dissect.ssh import APPLICATION
from tests.dissecting import matches
from tests.engine.dissect.agreement import CORPUS, compare, flows_of, truths
from tests.engine.dissect.hellos import Talk, check_columns, vector

CLIENT = [
    b"curve25519-sha256,ecdh-sha2-nistp256,ext-info-c,kex-strict-c-v00@openssh.com", b"ssh-ed25519,rsa-sha2-512",
    b"chacha20-poly1305@openssh.com,aes128-ctr", b"aes128-ctr", b"umac-64@openssh.com", b"hmac-sha2-256",
    b"none,zlib@openssh.com", b"none",
]  # fmt: skip
SERVER = [
    b"sntrup761x25519-sha512,ecdh-sha2-nistp256,curve25519-sha256,kex-strict-s-v00@openssh.com",
    b"rsa-sha2-512,ssh-ed25519", b"aes256-gcm@openssh.com,aes128-ctr", b"aes256-ctr", b"hmac-sha1", b"hmac-sha2-512",
    b"none", b"zlib@openssh.com",
]  # fmt: skip
# OpenSSH 7.6; 7.9 has one key exchange less.
OPENSSH = [
    b"curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,"
    b"diffie-hellman-group-exchange-sha256,diffie-hellman-group16-sha512,diffie-hellman-group18-sha512,"
    b"diffie-hellman-group-exchange-sha1,diffie-hellman-group14-sha256,diffie-hellman-group14-sha1,ext-info-c",
    b"ssh-ed25519",
    b"chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr,aes128-gcm@openssh.com,aes256-gcm@openssh.com",
    b"",
    b"umac-64-etm@openssh.com,umac-128-etm@openssh.com,hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,"
    b"hmac-sha1-etm@openssh.com,umac-64@openssh.com,umac-128@openssh.com,hmac-sha2-256,hmac-sha2-512,hmac-sha1",
    b"",
    b"none,zlib@openssh.com,zlib",
    b"",
]


def kexinit(lists: list[bytes]) -> bytes:
    """RFC 4253 7.1 in a packet of RFC 4253 6."""
    message = b"\x14" + b"c" * 16 + b"".join(vector(n, 4) for n in [*lists, b"", b""]) + bytes(5)
    return vector(b"\x06" + message + bytes(6), 4)


def fingerprint(lists: list[bytes], *which: int) -> str:
    return md5(b";".join(lists[i] for i in which)).hexdigest()


HELLO = b"SSH-2.0-OpenSSH_9.6 a comment\r\n" + kexinit(CLIENT)
ANSWER = b"SSH-2.0-dropbear_2022.83\r\n" + kexinit(SERVER)


def test_both_sides__row() -> None:
    talk = Talk(APPLICATION).client(HELLO)
    assert (talk.verdict, talk.flow.app) == (Verdict.MORE, "ssh")
    assert talk.server(ANSWER).verdict is Verdict.DONE
    row = talk.row()
    check_columns(APPLICATION, row)
    assert row == {
        "version": "2.0",
        "client_banner": "SSH-2.0-OpenSSH_9.6 a comment",
        "client_software": "OpenSSH_9.6",
        "server_banner": "SSH-2.0-dropbear_2022.83",
        "server_software": "dropbear_2022.83",
        "hassh": fingerprint(CLIENT, 0, 2, 4, 6),
        "hassh_server": fingerprint(SERVER, 0, 3, 5, 7),
        "kex": "curve25519-sha256",
        "host_key": "ssh-ed25519",
        "cipher": "aes128-ctr",
    }


def test_hassh__published_values() -> None:
    """Of OpenSSH 7.6 and 7.9; the second is the example of Suricata's manual too."""
    later = [OPENSSH[0].replace(b"diffie-hellman-group-exchange-sha1,", b""), *OPENSSH[1:]]
    values = ("06046964c022c6407d15a27b12a6a4fb", "ec7378c1a92f5a8dde7e8b7a1ddf33d1")
    for lists, value in zip((OPENSSH, later), values, strict=True):
        assert Talk(APPLICATION).client(b"SSH-2.0-OpenSSH\r\n" + kexinit(lists)).row()["hassh"] == value


def test_nothing_in_common() -> None:
    talk = Talk(APPLICATION).client(b"SSH-2.0-a\r\n" + kexinit([b"x"] * 8)).server(b"SSH-2.0-b\n" + kexinit([b"y"] * 8))
    assert (talk.verdict, talk.row()["kex"], talk.row()["cipher"]) == (Verdict.DONE, None, None)


@pytest.mark.parametrize(("banner", "version"), [(b"SSH-1.5-1.2.26\n", "1.5"), (b"SSH-1.3-x\r\n", "1.3")])
def test_version_1__banners_are_all(banner: bytes, version: str) -> None:
    talk = Talk(APPLICATION).server(banner + b"keys").client(banner)
    row = talk.row()
    assert (talk.verdict, row["version"], row["client_banner"]) == (Verdict.DONE, version, row["server_banner"])


def test_version_1_99__speaks_2_too() -> None:
    talk = Talk(APPLICATION).server(b"SSH-1.99-Cisco-1.25\n" + kexinit(SERVER)).client(HELLO)
    row = talk.row()
    assert (row["version"], row["server_software"], row["kex"]) == ("1.99", "Cisco-1.25", "curve25519-sha256")


def test_roles__marks_tell_who_is_who() -> None:
    row = Talk(APPLICATION).client(ANSWER).server(HELLO).row()
    assert (row["client_software"], row["server_software"]) == ("OpenSSH_9.6", "dropbear_2022.83")
    assert row["hassh"] == fingerprint(CLIENT, 0, 2, 4, 6)


def test_one_sided__rows() -> None:
    row = Talk(APPLICATION).server(ANSWER).row()
    assert (row["server_software"], row.get("client_banner"), row.get("hassh")) == ("dropbear_2022.83", None, None)
    assert Talk(APPLICATION).client(b"SSH-2.0-scan\r\n").row()["client_software"] == "scan"


def test_splits__at_every_byte_the_same_row() -> None:
    expected = Talk(APPLICATION).client(HELLO).server(ANSWER).row()
    for i in range(1, len(HELLO)):
        talk = Talk(APPLICATION).client(HELLO[:i]).server(ANSWER).client(HELLO[i:])
        assert (talk.verdict, talk.row()) == (Verdict.DONE, expected)
    for i in range(1, len(ANSWER)):
        assert Talk(APPLICATION).client(HELLO).server(ANSWER[:i]).server(ANSWER[i:]).row() == expected


def test_segments__late_twice_and_overlapping() -> None:
    expected = Talk(APPLICATION).client(HELLO).server(ANSWER).row()
    talk = Talk(APPLICATION)
    start = talk.seq[True]
    talk.client(HELLO[:40], seq=start).client(HELLO[90:], seq=start + 90 & 0xFFFF_FFFF).client(HELLO[:40], seq=start)
    talk.client(HELLO[20:100], seq=start + 20 & 0xFFFF_FFFF)
    assert talk.server(ANSWER).row() == expected


@pytest.mark.parametrize(
    "data", [b"SSH-", b"SSH-2.0\r\n", b"SSH-" + b"x" * 300, b"SSH-x.y-z\n", b"GET / HTTP/1.1\r\n", b"SSH--\n", b"S" * 9]
)
def test_foreign__no_name_without_evidence(data: bytes) -> None:
    talk = Talk(APPLICATION).client(data)
    assert talk.verdict is (Verdict.MORE if data == b"SSH-" else Verdict.FOREIGN)
    assert (talk.flow.app, talk.rows()) == ("", [])


def test_text__control_characters_are_escaped() -> None:
    row = Talk(APPLICATION).client(b"SSH-2.0-a\x1b[2J\xff b\r\n").row()
    assert row["client_banner"] == "SSH-2.0-a\\x1b[2J\\xff b"


def test_truncation_and_damage__only_rows() -> None:
    chance = random.Random(4)
    for i in range(1, len(HELLO)):
        for whole in (True, False):
            rows = Talk(APPLICATION).client(HELLO[:i], whole=whole).server(ANSWER).rows()
            assert len(rows) == 1
            assert not rows[0].get("hassh")
    for _ in range(3000):
        damaged = bytearray(HELLO)
        for _ in range(chance.randrange(1, 5)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        talk = Talk(APPLICATION).client(bytes(damaged))
        if talk.verdict is Verdict.MORE:
            talk.server(ANSWER)
        for row in talk.rows():
            check_columns(APPLICATION, {k: v for k, v in row.items() if k != "ts"})


def test_bounds__endless_packet_is_given_up() -> None:
    talk = Talk(APPLICATION).client(b"SSH-2.0-x\r\n" + (34_000).to_bytes(4, "big"))
    sent = 0
    while talk.verdict is Verdict.MORE and sent < 100:
        talk.client(b"z" * 600)
        sent += 1
    assert sent < 45
    assert len(talk.rows()) == 1


def test_patterns__the_banner() -> None:
    (pattern,) = APPLICATION.patterns
    assert matches(pattern, 6, (1, 2), HELLO, len(HELLO))
    assert not matches(pattern, 17, (1, 22), HELLO, len(HELLO))
    assert not matches(pattern, 6, (1, 22), kexinit(CLIENT), 100)


# --- the real captures --------------------------------------------------------------------------------------------
corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no captures at {CORPUS}")
FIELDS = ["kex", *(f"{what}_{way}" for way in ("client_to_server", "server_to_client")
          for what in ("encryption", "mac", "compression"))]  # fmt: skip
TOO_LONG = {"zeek--kex-quadratic-1000.pcap.gz": "KEXINIT of 40,556 bytes; RFC 4253 6.1 has 35,000 at most"}


@pytest.mark.corpus
@corpus
@pytest.mark.parametrize("kind", ["l7", "l7reasm"])
def test_corpus__banners_as_tshark_reads_them(kind: str) -> None:
    total, missing = compare(
        "ssh_protocol", lambda t: {row.get(f"{side}_banner") for row in t.rows for side in ("client", "server")}, kind
    )
    print(f"ssh_protocol {kind}: {total - len(missing)} of {total}")
    assert total
    assert not missing


@pytest.mark.corpus
@corpus
@pytest.mark.skipif(which("tshark") is None, reason="no tshark")
def test_corpus__hassh_from_tsharks_lists() -> None:
    equal, different = 0, set()
    for capture in sorted({t.capture for t in truths("ssh_protocol")}):
        keys, rows = flows_of(capture)
        for frame, port, lists in _kexinits(capture):
            kex, *rest = lists
            ours = "hassh" if port == 22 else "hassh_server"
            value = md5(";".join((kex, *(rest[:3] if port == 22 else rest[3:]))).encode()).hexdigest()
            if value in {row.get(ours) for row in rows[keys[frame]]}:
                equal += 1
            else:
                different.add(capture)
    print(f"hassh and hassh_server: {equal} equal")
    assert equal >= 24
    assert different == set(TOO_LONG)


def _kexinits(capture: str) -> list[tuple[int, int, list[str]]]:
    """Frame, destination port and lists of each KEXINIT, as tshark has them."""
    names = ["frame.number", "tcp.dstport", *(f"ssh.{n}" for n in ["kex_algorithms", *_with_algorithms()])]
    command = ["tshark", "-n", "-r", str(CORPUS / "captures" / capture), "-Y", "ssh.kex_algorithms", "-T", "fields"]
    command += ["-E", "separator=;", *(part for name in names for part in ("-e", name))]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [(int(frame), int(port), lists) for frame, port, *lists in (line.split(";") for line in lines)]


def _with_algorithms() -> list[str]:
    return [n.replace("_", "_algorithms_", 1) for n in FIELDS[1:]]
