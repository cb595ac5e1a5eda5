"""What happens inside connections and messages: guessing, tunnels, exfiltration, slow requests, beacons."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

from engine.detect.finding import Finding
from tests.builders import dns_query
from tests.detecting import SYN, Rig, Talk, echo, find, handshake, kinds, seconds, tcp_frame, udp_frame
from tests.flowing import Timed

A, V, OUT = "10.0.0.66", "10.0.0.10", "198.51.100.7"
NEWKEYS = bytes.fromhex("0000000c0a15") + bytes(10)


# --- ssh --------------------------------------------------------------------------------------------------------
def ssh(at: float, sport: int, refusals: int, success: bool = False, port: int = 22, client: str = A) -> list[Timed]:
    """A session: banners, keys, the service, then `refusals` after the question for methods."""
    talk = Talk(at, client, V, sport, port)
    talk.say(b"SSH-2.0-OpenSSH_9.6\r\n").say(b"SSH-2.0-OpenSSH_9.2\r\n", False)
    kexinit = (800).to_bytes(4, "big") + b"\x06\x14" + os.urandom(798)
    talk.say(kexinit).say(kexinit, False).say(os.urandom(48)).say(os.urandom(524), False)
    talk.say(NEWKEYS).say(os.urandom(44)).say(os.urandom(44), False)
    for _ in range(refusals + 1):
        talk.say(os.urandom(76)).say(os.urandom(76), False, 0.1)
    if success:
        talk.say(os.urandom(84)).say(os.urandom(28), False)
        for _ in range(60):  # keystrokes and their echo
            talk.say(os.urandom(36)).say(os.urandom(36), False)
    return talk.frames


@pytest.mark.parametrize("port", [22, 902])
def test_ssh_bruteforce__refusals_within_sessions_on_any_port(port: int) -> None:
    found = find([f for i in range(2) for f in ssh(i * 3, 40000 + i, 6, port=port)])
    assert kinds(found) == [("ssh_bruteforce", A, V)]
    assert found[0].dst_port == port


def test_ssh_bruteforce__one_try_per_connection() -> None:
    assert kinds(find([f for i in range(31) for f in ssh(i, 40000 + i, 1)])) == [("ssh_bruteforce", A, V)]


def test_ssh_bruteforce__people_mistype() -> None:
    assert not find([f for i in range(8) for f in ssh(i * 5, 40000 + i, 3, success=i % 2 == 0)])
    assert not find(ssh(0, 40000, 5, success=True))  # an agent with many keys


# --- slowloris ----------------------------------------------------------------------------------------------------
def request(at: float, sport: int, data: bytes, more: bytes = b"") -> list[Timed]:
    talk = Talk(at, A, V, sport, 80).say(data, pause=3)
    return talk.say(more).frames if more else talk.frames


def test_slowloris__heads_that_do_not_end() -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\n"
    end: list[Timed] = [(10.0, udp_frame(A, "10.0.0.2", 53, 5353))]
    found = find([f for i in range(25) for f in request(i * 0.05, 40000 + i, head, b"X-a: b\r\n")] + end)
    assert kinds(found) == [("slowloris", A, V)]
    assert seconds(found[0]) <= 8
    assert not find([f for i in range(19) for f in request(i * 0.05, 40000 + i, head)] + end)
    waiting = [f for i in range(40) for f in request(i * 0.05, 40000 + i, head + b"\r\n")]  # a slow server
    assert not find(waiting + end)
    idle = [f for i in range(40) for f in handshake(i * 0.05, A, V, 40000 + i, 80)]  # opened ahead of need
    assert not find(idle + end)


# --- exfiltration -------------------------------------------------------------------------------------------------
def upload(to: str, data: bytes, port: int = 8899, greeting: bytes = b"") -> list[Timed]:
    talk = Talk(0, A, to, 40000, port)
    if greeting:
        talk.say(greeting)
    for at in range(0, len(data), 1400):
        talk.say(data[at : at + 1400], pause=0.02)
    return talk.frames


def test_exfiltration__random_bytes_of_no_known_protocol_to_the_outside() -> None:
    noise = random.Random(1).randbytes(400_000)
    found = find(upload(OUT, noise))
    assert kinds(found) == [("exfiltration", A, OUT)]
    assert seconds(found[0]) <= 4
    assert not find(upload(V, noise))  # a backup inside
    assert not find(upload(OUT, noise[:120_000]))
    assert not find(upload(OUT, b"CPU load 0.42 of sensor 17, all is well. " * 12_000))
    assert not find(upload(OUT, noise, 22, b"SSH-2.0-OpenSSH_9.6\r\n"))
    begun_before = [(at, f) for at, f in upload(OUT, noise)[3:]]  # its application cannot be known
    assert not find(begun_before)


# --- tunnels ------------------------------------------------------------------------------------------------------
def test_icmp_tunnel__content_changes() -> None:
    noise = random.Random(1)
    data = [(i * 0.2, echo(A, V, noise.randbytes(noise.randint(60, 900)))) for i in range(40)]
    found = find(data)
    assert kinds(found) == [("icmp_tunnel", A, V)]
    assert seconds(found[0]) <= 5
    fixed = [(i * 0.2, echo(A, V, noise.randbytes(64))) for i in range(40)]
    assert kinds(find(fixed)) == [("icmp_tunnel", A, V)]


def test_icmp_tunnel__ping_does_not() -> None:
    body = bytes(range(16, 56))
    pings = [(i * 0.2, echo(A, V, os.urandom(16) + body)) for i in range(60)]  # the time, then always the same
    answers = [(at + 0.001, echo(V, A, os.urandom(16) + body, reply=True)) for at, _ in pings]
    assert not find(pings + answers)


def queries(names: list[str], gap: float = 0.1) -> list[Timed]:
    out: list[Timed] = []
    for i, name in enumerate(names):
        query = dns_query(name, i, 16)
        out.append((i * gap, udp_frame(A, V, 40000, 53, query)))
        out.append((i * gap + 0.01, udp_frame(V, A, 53, 40000, query[:2] + b"\x81\x83" + query[4:])))
    return out


def test_dns_tunnel__many_long_random_names_below_a_domain() -> None:
    r = random.Random(1)
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    names = ["".join(r.choices(alphabet, k=40)) + ".t.example.com" for _ in range(60)]
    found = find(queries(names))
    assert kinds(found) == [("dns_tunnel", A, V)]
    assert found[0].domain == "example.com"
    assert not find(queries(names[:15] * 4))  # the same names again
    assert not find(queries([f"d{i:05x}.cdn.example.com" for i in range(100)]))
    assert not find(queries([f"{n}.example{i}.com" for i, n in enumerate(n.split(".")[0] for n in names)]))
    assert not find(queries([f"{i}.2.0.192.in-addr.arpa" for i in range(100)]))
    long = ["".join(r.choices(alphabet, k=60)) + "." + "".join(r.choices(alphabet, k=62)) + ".x.org" for _ in range(8)]
    assert kinds(find(queries(long, 2.0))) == [("dns_tunnel", A, V)]


def test_dns_tunnel__bytes_that_no_host_name_has() -> None:
    names = [{"ts": i, "query": rf"zdy{i}aA\208\209\210\21{i}end.tun.example", "rcode": "NOERROR"} for i in range(6)]
    assert kinds(rows_of("dns", names)) == [("dns_tunnel", A, V)]
    assert not rows_of("dns", names[:3] * 5)
    assert not rows_of(
        "dns", [row | {"query": rf"Peter\226s printer {i}._ipp._tcp.local"} for i, row in enumerate(names)]
    )


def test_dns_flood__names_that_do_not_exist() -> None:
    r = random.Random(1)
    names = ["".join(r.choices("abcdefghijklmnop", k=10)) + ".victim.example" for _ in range(160)]
    found = find(queries(names, 0.02))
    assert kinds(found) == [("dns_flood", None, V)]
    assert seconds(found[0]) <= 3
    assert not find(queries(names[:100] * 2, 0.02))


# --- beacon -------------------------------------------------------------------------------------------------------
def calls(gaps: list[float], client: str = A) -> list[Timed]:
    at, out = 0.0, []
    for i, gap in enumerate(gaps):
        out += handshake(at, client, OUT, 40000 + i, 8081)
        at += gap
    return out


def test_beacon__regular_and_alone() -> None:
    r = random.Random(1)
    steps = [10 * r.uniform(0.7, 1.3) for _ in range(20)]
    found = find(calls(steps))
    assert kinds(found) == [("beacon", A, OUT)]
    assert seconds(found[0]) <= 180
    people = [r.expovariate(0.1) for _ in range(40)]
    assert not find(calls(people))
    assert not find(calls(steps) + calls(steps, "10.0.0.67"))  # everybody's updater
    assert not find([f for i in range(20) for f in handshake(i * 10, A, V, 40000 + i, 80)])  # a monitor inside


def test_beacon__goes_on_and_begins_anew() -> None:
    """A finding follows its series to within a tenth, and after a pause of hours the next series is one again."""
    counts = [f.count for f in find(calls([10.0] * 100)) if f.kind == "beacon"]
    assert counts[0] == 10
    assert counts == sorted(set(counts))
    assert counts[-1] > 90
    again = [f.count for f in find(calls([10.0] * 59 + [7200.0] + [10.0] * 60)) if f.kind == "beacon"]
    assert again[again.index(max(again)) + 1] < 12


# --- what parsers make --------------------------------------------------------------------------------------------
def rows_of(table: str, rows: list[dict[str, Any]]) -> list[Finding]:
    own = {"flow_id": 1, "src_ip": A, "src_port": 40000, "dst_ip": V, "dst_port": 80}
    return Rig(apps=False).detector.application_rows(table, [own | row for row in rows])


def web(n: int, status: int, path: str, method: str = "GET", gap: float = 0.3) -> list[dict[str, Any]]:
    return [
        {"ts": int(i * gap * 1e6), "status": status, "path": path.format(i), "method": method, "host": "x"}
        for i in range(n)
    ]


def test_web_scan__many_paths_that_are_not_there() -> None:
    assert kinds(rows_of("http", web(30, 404, "/a{}"))) == [("web_scan", A, V)]
    assert not rows_of("http", web(14, 404, "/a{}"))
    assert not rows_of("http", web(60, 404, "/favicon.ico"))
    mixed = [r for pair in zip(web(20, 404, "/a{}"), web(20, 200, "/b{}"), strict=True) for r in pair]
    assert not rows_of("http", mixed)


def test_http_bruteforce__refusals_or_forms_for_one_path() -> None:
    for rows in (web(20, 401, "/admin"), web(20, 200, "/login", "POST"), web(20, 302, "/signin?user=a&pass={}")):
        assert kinds(rows_of("http", rows)) == [("http_bruteforce", A, V)]
    assert not rows_of("http", web(7, 401, "/admin"))
    assert not rows_of("http", web(40, 200, "/admin"))
    ntlm = [r for pair in zip(web(30, 401, "/share"), web(30, 200, "/share"), strict=True) for r in pair]
    assert not rows_of("http", ntlm)
    assert not rows_of("http", web(20, 401, "/admin", gap=30))  # a monitor without password


def test_ftp_bruteforce() -> None:
    bad = [{"ts": i * 10**6, "command": "PASS", "reply_code": 530, "user": "anonymous"} for i in range(12)]
    assert kinds(rows_of("ftp", bad)) == [("ftp_bruteforce", A, V)]
    assert not rows_of("ftp", bad[:7])
    assert not rows_of("ftp", [row | {"reply_code": 230} for row in bad])


def test_dhcp_starvation() -> None:
    asks = [{"ts": i * 10**5, "message_type": "DISCOVER", "client_mac": f"02:00:00:00:00:{i:02x}"} for i in range(80)]
    assert kinds(rows_of("dhcp", asks)) == [("dhcp_starvation", None, V)]
    assert not rows_of("dhcp", asks[:40])
    assert not rows_of("dhcp", [row | {"client_mac": "02:00:00:00:00:01"} for row in asks])


def test_cleartext_credentials__once_and_low() -> None:
    rows = [row | {"has_credentials": True, "auth_scheme": "Basic"} for row in web(50, 200, "/x", gap=20)]
    found = rows_of("http", rows)
    assert [(f.kind, f.severity) for f in found] == [("cleartext_credentials", "low")]
    assert not rows_of("ftp", [{"ts": 1, "password_sent": True, "user": "anonymous"}])


def test_names__unhashed_rows_without_columns_do_no_harm() -> None:
    for table in ("http", "ftp", "dns", "dhcp", "tls"):
        assert not rows_of(table, [{"ts": 1}])


def test_half_open__syn_without_answer_is_no_slow_request() -> None:
    assert not find([(i * 0.2, tcp_frame(A, V, 40000 + i, 80, SYN)) for i in range(60)])
