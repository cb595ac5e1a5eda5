"""`engine selftest`: a made-up capture with known attacks through the whole engine, and whether each was found.

    engine selftest [--live] [--config FILE]

25 s of ordinary sessions, and nine kinds of attack between addresses of RFC 5737, go through a savefile or live
through a private wire between two network namespaces (`--live`, as root); nothing is sent anywhere else. Each attack
must become an incident of its kind that names its addresses; every frame must be a row, or counted; names and methods
must be read from DNS, TLS and HTTP; and the frames exported again must be those that went in.
"""

from __future__ import annotations

import random
import shlex
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import dpkt

from analytics.store import connect
from benchmarks import sessions
from benchmarks.wire import usable, wire
from engine.errors import CaptureError
from engine.tables import OWN_DROPS

ATTACKER, VICTIM, RESOLVER, ROUTER = "203.0.113.66", "198.51.100.10", "198.51.100.53", "198.51.100.1"
Timed = tuple[float, bytes]  # seconds after the start, Ethernet frame
_START_S: Final = 1_790_000_000
_SECONDS: Final = 25
_ACK, _PSH, _RST, _SYN, _FIN = dpkt.tcp.TH_ACK, dpkt.tcp.TH_PUSH, dpkt.tcp.TH_RST, dpkt.tcp.TH_SYN, dpkt.tcp.TH_FIN


@dataclass(frozen=True, slots=True)
class Scene:
    """An attack: what it must be called, its addresses ("" for either or many), when it begins, what is sent."""

    kind: str
    src: str
    dst: str
    at_s: float
    frames: Sequence[Timed]


# --- frames --------------------------------------------------------------------------------------------------------


def _mac(address: str) -> bytes:
    return b"\x02\x00" + _packed(address)


def _packed(address: str) -> bytes:
    return bytes(map(int, address.split(".")))


def _ip(src: str, dst: str, proto: int, body: bytes) -> bytes:
    packet = dpkt.ip.IP(src=_packed(src), dst=_packed(dst), p=proto, ttl=64, len=20 + len(body), data=body)
    frame = dpkt.ethernet.Ethernet(src=_mac(src), dst=_mac(dst), type=0x0800, data=bytes(packet))
    return bytes(frame).ljust(60, b"\0")


def _tcp(src: str, dst: str, ports: tuple[int, int], flags: int, seq: int, ack: int, data: bytes = b"") -> bytes:
    head = dpkt.tcp.TCP(sport=ports[0], dport=ports[1], seq=seq, ack=ack, flags=flags, win=512, data=data)
    return _ip(src, dst, 6, bytes(head))


def _udp(src: str, dst: str, ports: tuple[int, int], data: bytes) -> bytes:
    return _ip(src, dst, 17, struct.pack(">HHHH", *ports, 8 + len(data), 0) + data)


def _talk(at_s: float, src: str, dst: str, ports: tuple[int, int], said: Iterable[tuple[bool, bytes]]) -> list[Timed]:
    """A TCP connection: handshake, what each side says (True: the client), end."""
    frames: list[Timed] = []
    now, numbers = at_s, {True: 1000, False: 9000}

    def send(client: bool, flags: int, data: bytes = b"") -> None:
        nonlocal now
        ends = (src, dst, ports) if client else (dst, src, ports[::-1])
        frames.append((now, _tcp(*ends, flags, numbers[client], numbers[not client], data)))
        numbers[client] += len(data) + (1 if flags & (_SYN | _FIN) else 0)
        now += 0.002

    send(True, _SYN)
    send(False, _SYN | _ACK)
    send(True, _ACK)
    for client, data in said:
        send(client, _PSH | _ACK, data)
        send(not client, _ACK)
    send(True, _FIN | _ACK)
    send(False, _FIN | _ACK)
    send(True, _ACK)
    return frames


# --- attacks -------------------------------------------------------------------------------------------------------


def _port_scan(at_s: float) -> list[Timed]:
    out: list[Timed] = []
    for n in range(60):
        ports = (40_000 + n, 1 + 13 * n)
        out.append((at_s + n * 0.01, _tcp(ATTACKER, VICTIM, ports, _SYN, n, 0)))
        out.append((at_s + n * 0.01 + 0.001, _tcp(VICTIM, ATTACKER, ports[::-1], _RST | _ACK, 0, n + 1)))
    return out


def _syn_flood(at_s: float) -> list[Timed]:
    rng = random.Random(5)
    forged = (f"192.0.2.{rng.randrange(1, 255)}" for _ in range(1500))
    return [
        (at_s + n / 600, _tcp(src, VICTIM, (rng.randrange(1024, 65_000), 443), _SYN, n, 0))
        for n, src in enumerate(forged)
    ]


def _dns_tunnel(at_s: float) -> list[Timed]:
    rng, out = random.Random(6), list[Timed]()
    for n in range(40):
        label = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(48))
        query = dpkt.dns.DNS(id=n, qd=[dpkt.dns.DNS.Q(name=f"{label}.tunnel.example", type=dpkt.dns.DNS_TXT)])
        out.append((at_s + n * 0.05, _udp(ATTACKER, RESOLVER, (5353 + n, 53), bytes(query))))
        query.qr = 1
        query.an = [dpkt.dns.DNS.RR(name=f"{label}.tunnel.example", type=dpkt.dns.DNS_TXT, ttl=1, text=[b"x" * 40])]
        out.append((at_s + n * 0.05 + 0.01, _udp(RESOLVER, ATTACKER, (53, 5353 + n), bytes(query))))
    return out


def _arp_spoof(at_s: float) -> list[Timed]:
    def arp(op: int, sender: bytes, claimed: str, target: str) -> bytes:
        body = dpkt.arp.ARP(op=op, sha=sender, spa=_packed(claimed), tha=_mac(target), tpa=_packed(target))
        frame = dpkt.ethernet.Ethernet(src=sender, dst=_mac(target), type=0x0806, data=bytes(body))
        return bytes(frame).ljust(60, b"\0")

    rightful = [(at_s + n, arp(2, _mac(ROUTER), ROUTER, VICTIM)) for n in (0, 0.5)]
    return rightful + [(at_s + 1 + n, arp(2, _mac(ATTACKER), ROUTER, VICTIM)) for n in range(6)]


def _host_sweep(at_s: float) -> list[Timed]:
    hosts = [f"198.51.100.{n}" for n in range(100, 160)]
    return [(at_s + n * 0.02, _tcp(ATTACKER, host, (50_000 + n, 445), _SYN, n, 0)) for n, host in enumerate(hosts)]


def _sql_injection(at_s: float) -> list[Timed]:
    request = (
        b"GET /item?id=1%27%20UNION%20SELECT%20user,password%20FROM%20users-- HTTP/1.1\r\nHost: shop.example\r\n\r\n"
    )
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    return _talk(at_s, ATTACKER, VICTIM, (41_000, 80), [(True, request), (False, answer)])


def _ftp_brute_force(at_s: float) -> list[Timed]:
    out: list[Timed] = []
    for n in range(14):
        said = [
            (False, b"220 ready\r\n"), (True, b"USER root\r\n"), (False, b"331 password\r\n"),
            (True, b"PASS guess%d\r\n" % n), (False, b"530 Login incorrect\r\n"),
        ]  # fmt: skip
        out += _talk(at_s + n * 0.3, ATTACKER, VICTIM, (42_000 + n, 21), said)
    return out


def _icmp_flood(at_s: float) -> list[Timed]:
    echo = bytes(dpkt.icmp.ICMP(type=8, data=dpkt.icmp.ICMP.Echo(id=1, seq=1, data=bytes(56))))
    return [(at_s + n / 400, _ip(ATTACKER, VICTIM, 1, echo)) for n in range(1000)]


def scenes() -> list[Scene]:
    """The attacks, one after the other."""
    made: list[tuple[str, str, str, float, Callable[[float], list[Timed]]]] = [
        ("arp_spoof", "", "", 0.5, _arp_spoof),
        ("port_scan", ATTACKER, VICTIM, 2.0, _port_scan),
        ("sql_injection", ATTACKER, VICTIM, 4.0, _sql_injection),
        ("ftp_bruteforce", ATTACKER, VICTIM, 5.0, _ftp_brute_force),
        ("cleartext_credentials", ATTACKER, VICTIM, 5.0, lambda _: []),  # the same passwords
        ("dns_tunnel", ATTACKER, "", 8.0, _dns_tunnel),
        ("host_sweep", ATTACKER, "", 11.0, _host_sweep),
        ("syn_flood", "", VICTIM, 14.0, _syn_flood),
        ("icmp_flood", "", VICTIM, 18.0, _icmp_flood),
    ]
    return [Scene(kind, src, dst, at, make(at)) for kind, src, dst, at, make in made]


def traffic(attacks: Sequence[Scene]) -> list[Timed]:
    """Everything, in order of time."""
    ordinary = [(ns / 1e9, frame) for ns, frame in sessions.frames(200 * _SECONDS, pps=200)]
    return sorted((*ordinary, *(timed for scene in attacks for timed in scene.frames)), key=lambda timed: timed[0])


# --- the run -------------------------------------------------------------------------------------------------------


def run(live: bool, config: Path | None) -> int:
    """The command. Returns 0 when everything was as it must be, else 1."""
    attacks = scenes()
    sent = traffic(attacks)
    with tempfile.TemporaryDirectory(prefix="packetlake-selftest-") as name:
        folder, options = Path(name), ["--log", "text", *(["--config", str(config)] if config else [])]
        began = _live(sent, folder, options) if live else _offline(sent, folder, options)
        wrong = _judge(attacks, sent, folder, began)
    _say("" if wrong else "everything was found, and nothing is missing")
    return int(wrong > 0)


def _offline(sent: Sequence[Timed], folder: Path, options: Sequence[str]) -> float:
    path = folder / "selftest.pcap"
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262_144, 1))
        for at_s, frame in sent:
            ns = round(at_s * 1e9)
            size = len(frame)
            file.write(struct.pack("<IIII", _START_S + ns // 10**9, ns % 10**9, size, size) + frame)
    words = [sys.executable, "-m", "engine", "replay", str(path), "--lake", str(folder / "lake"), *options]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CaptureError(f"the replay ended with code {done.returncode}: {_last(done.stderr)}")
    return float(_START_S)


def _live(sent: Sequence[Timed], folder: Path, options: Sequence[str]) -> float:
    reason = usable()
    if reason:
        raise CaptureError(f"--live cannot be done: {reason}; leave it out to test with a savefile")
    log = folder / "log"
    with wire(mtu=9000) as pair, log.open("w") as file:
        words = [sys.executable, "-m", "engine", "run", "--iface", pair.capture, "--lake", str(folder / "lake")]
        process = pair.spawn(*words, "--no-dashboard", *options, stderr=file)
        try:
            deadline = time.monotonic() + 300
            while "Ctrl-C stops" not in log.read_text():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise CaptureError(f"the engine did not start: {_last(log.read_text())}")
                time.sleep(0.05)
            began = time.time()
            for second in range(_SECONDS + 1):
                time.sleep(max(0.0, began + second - time.time()))
                pair.transmit([frame for at_s, frame in sent if second <= at_s < second + 1])
            time.sleep(3)
            process.send_signal(signal.SIGINT)
            process.wait(15)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    return began


def _judge(attacks: Sequence[Scene], sent: Sequence[Timed], folder: Path, began: float) -> int:
    """Print what was expected and what was found. Returns how much is wrong."""
    lake, wrong = folder / "lake", 0
    _say(f"{'attack':<21} {'found':<8} {'severity':<9} {'after':>8}  why")
    with connect(lake) as con:
        for scene in attacks:
            row = con.execute(
                "SELECT severity, epoch(ts) - $at, why FROM alert_events WHERE event = 'opened' AND kind = $kind "
                "AND ($src = '' OR src_ip = $src) AND ($dst = '' OR dst_ip = $dst) ORDER BY ts LIMIT 1",
                {"kind": scene.kind, "at": began + scene.at_s, "src": scene.src, "dst": scene.dst},
            ).fetchone()
            severity, after, why = row or ("", None, "nothing of that kind with these addresses")
            wrong += row is None
            delay = "" if after is None else f"{max(0.0, float(after)):.1f} s"
            _say(f"{scene.kind:<21} {'MISSING' if row is None else 'yes':<8} {severity:<9} {delay:>8}  {why[:65]}")
        facts = {
            "frames": "SELECT sum(received) FROM capture_stats",
            "rows": "SELECT count(*) FROM packets",
            "lost": f"SELECT sum({' + '.join(('kernel_drops', *OWN_DROPS))}) FROM capture_stats",
            "flows": "SELECT count(*) FROM flows",
            "dns": "SELECT count(*) FROM dns WHERE query IS NOT NULL",
            "tls": "SELECT count(*) FROM tls WHERE sni IS NOT NULL",
            "http": "SELECT count(*) FROM http WHERE method IS NOT NULL",
        }
        found = {name: int((con.execute(sql).fetchone() or (0,))[0] or 0) for name, sql in facts.items()}
    again = _exported(folder)
    checks = {
        f"{len(sent):,} frames sent, {found['frames']:,} received": found["frames"] == len(sent),
        f"{found['rows']:,} rows, {found['lost']:,} counted as lost": found["rows"] + found["lost"] == found["frames"],
        f"{found['flows']:,} flows": found["flows"] > 0,
        f"messages read: {found['dns']:,} DNS, {found['tls']:,} TLS, {found['http']:,} HTTP": min(
            found["dns"], found["tls"], found["http"]
        ) > 0,
        f"{len(again):,} frames exported, byte for byte": sorted(again) == sorted(frame for _, frame in sent),
    }  # fmt: skip
    for text, good in checks.items():
        _say(f"{'ok' if good else 'WRONG':<8} {text}")
    return wrong + sum(not good for good in checks.values())


def _exported(folder: Path) -> list[bytes]:
    path = folder / "again.pcap"
    words = [sys.executable, "-m", "engine", "export", str(path), "--lake", str(folder / "lake")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        _say(f"WRONG    {shlex.join(words[2:])}: {_last(done.stderr)}")
        return []
    data, at, found = path.read_bytes(), 24, list[bytes]()
    while at + 16 <= len(data):
        (size,) = struct.unpack_from("<I", data, at + 8)
        found.append(data[at + 16 : at + 16 + size])
        at += 16 + size
    return found


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def _say(text: str) -> None:
    if text:
        print(text, flush=True)
