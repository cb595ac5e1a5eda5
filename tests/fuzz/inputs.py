"""The inputs: what each target does with one, what it may raise, and where to start from."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from tests.commands import ROOT


@dataclass
class Target:
    """`run(data)` raises only `allowed`; `below` are the files whose lines guide."""

    name: str
    run: Callable[[bytes], object]
    seeds: Sequence[bytes]
    below: tuple[str, ...]
    allowed: tuple[type[BaseException], ...] = ()
    words: Sequence[bytes] = field(default_factory=tuple)
    most_s: float = 5.0  # an input that takes longer is a finding
    close: Callable[[], object] = lambda: None


def _below(*parts: str) -> tuple[str, ...]:
    return tuple(str(ROOT / part) for part in parts)


def one_line(error: BaseException) -> None:
    """What a user reads must be one line."""
    if isinstance(error, EngineError) and "\n" in str(error):
        raise AssertionError(f"a message of several lines: {error!r}")


# --- what arrives on the wire -------------------------------------------------------------------------------------


def decoding(_: Path | None) -> Target:
    """One frame through the decoder. Without the compiler (NUMBA_DISABLE_JIT) the kernel's own lines guide."""
    from tests.builders import decode
    from tests.engine.test_decode import CASES

    links = sorted({link for _, link, _, _ in CASES})

    def run(data: bytes) -> None:
        if not data:
            return
        [row] = decode([data[1:]], links[data[0] % len(links)])
        if row["entropy"] is not None and not 0 <= row["entropy"] <= 8:
            raise AssertionError(f"entropy {row['entropy']}")
        if row["caplen"] != len(data) - 1:
            raise AssertionError("caplen")

    seeds = [bytes([links.index(link)]) + frame for _, link, frame, _ in CASES]
    return Target("decode", run, seeds, _below("engine/kernels"))


def savefile(corpus: Path | None) -> Target:
    """A whole savefile, in two sizes of pieces, which must not matter."""
    from tests.engine import test_fuzz as known

    def run(data: bytes) -> None:
        frames, error = known.read(data)
        again, second = known.read(data, 7 if len(data) < 3000 else 997)
        if frames != again or str(error) != str(second):
            raise AssertionError("pieces change what is read")
        if error is not None:
            one_line(error)

    seeds = [*known.VALID]
    files = sorted(corpus.iterdir())[::7] if corpus else []
    seeds += [path.read_bytes() for path in files if path.stat().st_size < 20_000]
    return Target(
        "savefile", run, seeds, _below("engine/capture", "engine/kernels"), words=[b"\n\r\r\n", b"\xd4\xc3\xb2\xa1"]
    )


def dissectors(corpus: Path | None) -> Target:
    """Messages of one flow, one after the other, to each parser whose pattern fits the first (or the one named)."""
    import dpkt

    from benchmarks import sessions
    from engine.dissect import APPLICATIONS
    from engine.dissect.base import Flow, Message, Verdict
    from tests.dissecting import READ_ERRORS, payloads
    from tests.savefiles import pcap_bytes

    allowed = (*READ_ERRORS, dpkt.UnpackError)

    def run(data: bytes) -> None:
        if len(data) < 2:
            return
        application = APPLICATIONS[data[0] % len(APPLICATIONS)]
        proto = application.patterns[0].transport if application.patterns else 6
        flow = Flow(proto, "192.0.2.1", "192.0.2.2", 40_000, (443, 80, 53, 25)[data[1] & 3], 1)
        parser = application.parser(flow)
        at, ts, seq = 2, 0, [1000, 1000]
        while at + 3 <= len(data):
            how, size = data[at], int.from_bytes(data[at + 1 : at + 3], "big")
            part = data[at + 3 : at + 3 + size]
            at += 3 + size
            ts += 10
            side = bool(how & 1)
            number = seq[side] + (0, 0, 0, -5, 7, 70_000, 1 << 31, 0)[how >> 1 & 7]
            seq[side] = (number + len(part)) & 0xFFFFFFFF
            verdict = Verdict.MORE
            with contextlib.suppress(*allowed):
                verdict = parser.feed(Message(part, ts, side, number & 0xFFFFFFFF, not how & 16))
            if flow.app not in ("", *application.names):
                raise AssertionError(f"{application.name} says {flow.app}")
            if verdict is not Verdict.MORE:
                break
        with contextlib.suppress(*allowed):
            parser.finish()
        if len(flow.rows) > 2 * len(data) + 10:
            raise AssertionError(f"{len(flow.rows)} rows of {len(data)} bytes")

    names = [a.name for a in APPLICATIONS]
    seeds: list[bytes] = []

    def add(parts: dict[Any, list[tuple[bool, bytes]]], first: int) -> None:
        for said in list(parts.values())[:30]:
            body = b"".join(bytes([side]) + len(d).to_bytes(2, "big") + d for side, d in said[:6])
            seeds.append(bytes([first, 0]) + body[:6000])

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sessions.pcap"
        path.write_bytes(pcap_bytes([frame for _, frame in sessions.frames(3_000)]))
        files = [path, *(sorted(corpus.iterdir())[::3] if corpus else ())]
        for file in files:
            talks: dict[Any, list[tuple[bool, bytes]]] = {}
            with contextlib.suppress(EngineError, ValueError):
                for n, p in enumerate(payloads(file)):
                    if n > 400:
                        break
                    ends = tuple(sorted((p.src, p.dst)))
                    if p.data:
                        talks.setdefault((p.proto, ends), []).append((p.src[1] > p.dst[1], p.data))
            for n, name in enumerate(names):
                if file is path or name in file.name.lower():
                    add(talks, n)
    return Target("dissect", run, seeds or [b"\0\0\1\0\1x"], _below("engine/dissect"))


# --- what operators and visitors write ----------------------------------------------------------------------------


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def signature_rules(_: Path | None) -> Target:
    """Suricata's rules, and plain patterns."""
    from engine.config import SignaturesConfig
    from engine.detect.signatures.loader import STARTER, RuleSet, variables_of

    variables = variables_of(SignaturesConfig())

    def run(data: bytes) -> None:
        found = RuleSet()
        text = _text(data)
        found.add_rules(text, "fuzz.rules", variables)
        found.add_patterns(text, "fuzz.patterns")
        for refusal in found.refused:
            if "\n" in str(refusal):
                raise AssertionError(f"a message of several lines: {refusal}")

    text = STARTER.read_bytes()
    lines = [line for line in text.split(b"\n") if line and not line.startswith(b"#")]
    words = [
        b"content:",
        b"|00 01|",
        b"pcre:",
        b"distance:",
        b"within:-1;",
        b"byte_test:",
        b"!",
        b"$HOME_NET",
        b";)",
        b"\\",
        b"threshold:",
    ]
    return Target("rules", run, lines, _below("engine/detect/signatures"), words=words)


def sigma_rules(_: Path | None) -> Target:
    """Sigma: YAML, and from there SQL."""
    from analytics.sigma import load

    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "rule.yml"

    def run(data: bytes) -> None:
        path.write_bytes(data)
        _, refused = load([str(path)])
        for refusal in refused:
            if "\n" in str(refusal):
                raise AssertionError(f"a message of several lines: {refusal}")

    seed = b"""title: A name
id: 11111111-1111-4111-8111-111111111111
logsource:
  category: dns
detection:
  one:
    query|contains|all:
      - evil
      - '*.example'
    record_type: TXT
  two:
    - dst_ip|cidr: 10.0.0.0/8
    - dst_port|gte: 1024
  condition: one and not two
level: high
"""
    words = [
        b"|re",
        b"|base64offset",
        b"|endswith",
        b"1 of them",
        b"all of o*",
        b"null",
        b"&a",
        b"*a",
        b"!!python/object",
        b"count() by x > 5",
    ]
    return Target(
        "sigma",
        run,
        [seed, seed.replace(b"dns", b"firewall")],
        _below("analytics/sigma"),
        (EngineError,),
        words,
        close=folder.cleanup,
    )


def display_filter(_: Path | None) -> Target:
    """The dashboard's filter: parsed, shown again, made into SQL for every table."""
    from analytics.watch import filters

    def run(data: bytes) -> None:
        parsed = filters.parse(_text(data))
        again = filters.parse(parsed.text)
        if again.text != parsed.text:
            raise AssertionError(f"{parsed.text!r} is read as {again.text!r}")
        for table in ("packets", "flows", "dns", "alerts"):
            with contextlib.suppress(EngineError):
                parsed.where(table)

    seeds = [
        b"host=10.0.0.7 -app=dns port=443,8443 len>1000",
        b"net=10.0.0.0/8 sni=*.example.org",
        b'path="/a b\\"c" anomaly>=0.9 flow=77',
        b"fe80::1 -192.0.2.1 tcp ja4=t13d*",
        b"state!=established len<5 country=DE",
    ]
    words = [b"host=", b"-", b'"', b",", b"\\", b"net=::/0", b"len>", b"'", b"%", b"country="]
    return Target("filter", run, seeds, _below("analytics/watch"), (EngineError,), words)


def capture_filter(_: Path | None) -> Target:
    """libpcap's filter language, for two link types, and one batch through the program."""
    from engine.capture.bpf import compile_filter
    from tests.builders import ethernet, fill, ipv4, udp

    frames = fill([ethernet(ipv4(udp(bytes(n)))) for n in range(8)])

    def run(data: bytes) -> None:
        program = compile_filter(_text(data), 1, 65_535)
        program.apply(frames)
        program.close()

    seeds = [
        b"tcp port 80 and not host 10.0.0.1",
        b"udp[4:2] > 100 or icmp6",
        b"vlan 5 and ip net 10.0.0.0/8",
        b"ether host 00:11:22:33:44:55",
        b"(tcp[tcpflags] & (tcp-syn|tcp-fin) != 0)",
    ]
    words = [
        b" and ",
        b" or ",
        b"not ",
        b"(",
        b")",
        b"[",
        b"]",
        b"ip6 protochain 6",
        b"less 5",
        b"portrange 1-70000",
        b"gateway",
    ]
    return Target("bpf", run, seeds, _below("engine/capture"), (EngineError,), words)


def configuration(_: Path | None) -> Target:
    """TOML: read, written again, read again; and edited as the dashboard does."""
    from engine.config import EngineConfig, parse_config
    from engine.settings import check_editable

    def run(data: bytes) -> None:
        text = _text(data)
        config = parse_config(text, "fuzz.toml")
        again = parse_config(config.to_toml(), "again.toml")
        if again != config:
            raise AssertionError("the configuration that is written is not the one that was read")
        with contextlib.suppress(EngineError):
            check_editable(text, "fuzz.toml")

    whole = EngineConfig().to_toml().encode()
    parts = [b"[" + part for part in whole.split(b"\n[") if part]
    more = b'[rules.port_scan]\nports = 5\n[[rules.sql]]\nname = "a"\nsql = "SELECT 1"\n'
    more += b'[[notify.targets]]\nname = "x"\nurl = "json://localhost"\n'
    words = [b" = ", b"true", b"-1", b"nan", b"inf", b'""', b"[]", b"[[", b"1e400", b"9999999999999999999", b"'''"]
    return Target(
        "config",
        run,
        [*parts, more, whole],
        _below(
            "engine/config",
            "engine/toml",
            "engine/settings",
            "engine/rule_config",
            "engine/alert_config",
            "engine/retention",
            "engine/anomaly",
            "engine/companion",
        ),
        (EngineError,),
        words,
    )


def intel(_: Path | None) -> Target:
    """Lists of addresses and names, of any format."""
    from engine.detect.intel_lists import read_entries

    def run(data: bytes) -> None:
        for n, entry in enumerate(read_entries(_text(data), "fuzz")):
            if not entry.value or n > 100_000:
                raise AssertionError(f"entry {n}: {entry}")

    seeds = [
        b"# list\n192.0.2.1\nevil.example\n10.0.0.0/8 ; text\n",
        b"ip,description,valid_until\n192.0.2.7,bad,2026-01-01\n",
        b'{"response":{"Attribute":[{"type":"ip-dst","value":"192.0.2.9"}]}}',
        b'{"objects":[{"type":"indicator","pattern":"[ipv4-addr:value = \'192.0.2.3\']",'
        b'"valid_until":"2027-01-01T00:00:00Z"}]}',
    ]
    return Target(
        "intel",
        run,
        seeds,
        _below("engine/detect/intel"),
        words=[b'"value":', b"[", b"{", b"0.0.0.0/0", b"::/0", b"\x00", b"xn--"],
    )


def model_file(_: Path | None) -> Target:
    """A model that claims to be whole: its checksum is made to fit."""
    import hashlib

    from engine.model_file import Model
    from tests.engine.test_models import quantiles

    whole = quantiles().to_bytes()
    magic = whole.partition(b"\n")[0][:-64]

    def run(data: bytes) -> None:
        Model.from_bytes(data)

    def fitting(data: bytes) -> None:
        Model.from_bytes(magic + hashlib.sha256(data).hexdigest().encode() + b"\n" + data)

    def both(data: bytes) -> None:
        with contextlib.suppress(EngineError):
            run(data)
        fitting(data)

    body = whole.partition(b"\n")[2]
    return Target(
        "model",
        both,
        [body],
        _below("engine/model_file"),
        (EngineError,),
        [b'"arrays"', b"1e999", b"-1", b"[[", b"null"],
    )


def web(_: Path | None) -> Target:
    """Every address of the API, with parameters of all kinds, as each role: never an answer of 500 or more."""
    from analytics.watch import openapi
    from analytics.watch.watch import Watch
    from tests.lakes import write_lake
    from webui import users
    from webui.app import create_app
    from webui.security import Access

    folder = tempfile.TemporaryDirectory()
    lake = Path(folder.name) / "lake"
    write_lake(lake, rows=3000, seconds=30)
    watch = Watch(lake)
    users.add(lake, "ann", "correct horse battery", "admin")
    tokens = [users.add_token(lake, "ann", role, 1, role) for role in ("viewer", "operator", "admin")]
    client = create_app(watch, Access(lake)).server.test_client()
    described = openapi.document()["paths"]

    def run(data: bytes) -> None:
        text = data.decode("latin-1")
        kind, _, rest = text.partition(" ")
        target, _, body = rest.partition(" ")
        headers = {"Host": "127.0.0.1", "Authorization": f"Bearer {tokens[len(data) % 3]}"}
        address = "/api/v1/" + urllib.parse.quote(target, safe="/?&=%+,.*:-_@<>!~'();")
        if "id=" not in address and "/sql" in address and kind != "POST":
            return
        posted = {"data": body.encode("latin-1"), "content_type": "application/json"} if kind == "POST" else {}
        answer = client.open(address, method="POST" if kind == "POST" else "GET", headers=headers, **posted)
        if answer.status_code >= 500 and answer.status_code not in (503, 504):
            raise AssertionError(f"{answer.status_code}: {answer.get_data(as_text=True)[:300]}")
        if answer.status_code >= 400 and answer.is_json and "\n" in answer.get_json().get("error", ""):
            raise AssertionError(f"an error of several lines: {answer.get_data(as_text=True)[:300]}")

    seeds = []
    for path, ways in described.items():
        for way, about in ways.items():
            names = [p["name"] for p in about.get("parameters", ()) if p["in"] == "query"]
            if way == "get":
                seeds.append(f"GET {path[1:]}?{'&'.join(f'{n}=1' for n in names)}".encode())
                seeds.append(f"GET {path[1:]}?range=5m&filter=host=10.0.0.1".encode())
            else:
                keys = about["requestBody"]["content"]["application/json"]["schema"].get("properties", {})
                seeds.append(f"POST {path[1:]} {json.dumps(dict.fromkeys(keys, 'a'))}".encode())
    words = [
        b"range=",
        b"all",
        b"5m@newest",
        b"1,2",
        b"filter=",
        b"limit=",
        b"-1",
        b"1e9",
        b"nan",
        b"format=csv",
        b"explain=sql",
        b"part=",
        b"%00",
        b"%ff",
        b"..",
        b"'",
        b'"',
        b"null",
        b"[]",
        b"\\ud800",
    ]

    def close() -> None:
        watch.close()
        folder.cleanup()

    return Target("web", run, seeds, _below("analytics/watch", "webui"), words=words, most_s=40.0, close=close)


def sql(_: Path | None) -> Target:
    """SQL from the browser: refused, wrong, or an answer; never a file outside."""
    from analytics.readonly import check
    from analytics.store import connect
    from analytics.watch.context import Stopped
    from analytics.watch.sqlrun import SqlRunner
    from tests.lakes import write_lake

    folder = tempfile.TemporaryDirectory()
    lake = Path(folder.name) / "lake"
    write_lake(lake, rows=300, seconds=5)
    secret = Path(folder.name) / "secret.csv"
    secret.write_text("word\nabracadabra-4711\n")
    runner = SqlRunner(lake)
    con = connect(lake, untrusted=True, threads=1)

    def close() -> None:
        runner.close()
        con.close()
        folder.cleanup()

    def run(data: bytes) -> None:
        text = _text(data).replace("SECRET", str(secret))
        with contextlib.suppress(EngineError):
            check(con, text)  # again, here, where its branches are seen
        try:
            found = runner.show(text, "fuzz", rows=50)
        except Stopped:
            return
        if b"abracadabra-4711" in found.body:
            raise AssertionError("read a file outside")
        if sorted(os.listdir(folder.name)) != ["lake", "secret.csv"]:
            raise AssertionError(f"wrote a file: {os.listdir(folder.name)}")

    seeds = [
        b"SELECT src_ip, count(*) FROM packets GROUP BY 1",
        b"WITH a AS (SELECT * FROM flows) SELECT * FROM a LIMIT 3",
        b"SELECT * FROM read_csv('SECRET')",
        b"COPY packets TO 'SECRET'",
        b"ATTACH 'SECRET'",
        b"PRAGMA database_list",
        b"SELECT * FROM 'SECRET'",
        b"SET enable_external_access=true",
        b"DESCRIBE packets",
        b"SELECT content FROM read_text('SECRET')",
        b"SELECT getenv('HOME'), current_setting('temp_directory')",
    ]
    words = [
        b"SELECT ",
        b" FROM ",
        b"'",
        b'"',
        b"(",
        b")",
        b";",
        b"--",
        b"/*",
        b"*",
        b"SECRET",
        b"read_text(",
        b"glob(",
        b"query('",
        b"$$",
        b"::BLOB",
    ]
    return Target("sql", run, seeds, _below("analytics/"), (EngineError,), words, most_s=60.0, close=close)


def database(_: Path | None) -> Target:
    """A GeoIP database that is damaged."""
    from tests.analytics.small_lake import FLAT, NESTED, write_mmdb

    folder = tempfile.TemporaryDirectory()
    good = write_mmdb(Path(folder.name) / "good.mmdb", {"192.0.2.0/24": NESTED, "2001:db8::/32": FLAT}).read_bytes()
    path = Path(folder.name) / "fuzz.mmdb"

    def run(data: bytes) -> None:
        from analytics.geoip import DAMAGED, open_database

        path.write_bytes(data)
        with open_database(path) as reader:
            for address in ("192.0.2.1", "2001:db8::1", "0.0.0.0", "ffff::"):
                with contextlib.suppress(*DAMAGED):
                    reader.get(address)

    return Target("geoip", run, [good], _below("analytics/geo"), (EngineError,), close=folder.cleanup)


TARGETS: dict[str, Callable[[Path | None], Target]] = {
    "decode": decoding, "savefile": savefile, "dissect": dissectors, "rules": signature_rules, "sigma": sigma_rules,
    "filter": display_filter, "bpf": capture_filter, "config": configuration, "intel": intel, "model": model_file,
    "web": web, "sql": sql, "geoip": database,
}  # fmt: skip
