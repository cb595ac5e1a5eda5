"""Messages read by kernels: the rows, names and applications are those of the parsers in Python, whatever is said."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.applications import Applications
from engine.config import FlowsConfig
from engine.jit import kernel
from engine.kernels import app_aes, app_hash
from engine.message_rows import AppRows, merged
from engine.packets import PacketBatch
from engine.tables import arrow_schema
from tests import builders as b
from tests.engine.dissect.hellos import alpn, chrome, client_hello, handshake, record, server_hello
from tests.engine.dissect.test_quic import ANSWER, RFC_SERVER, crypto, hello, seal
from tests.flowing import Run, batches

CAPTURES = sorted((Path(__file__).parents[3] / "shared" / "corpus" / "captures").glob("*"))
CLIENT, SERVER = bytes([10, 0, 0, 9]), bytes([192, 0, 2, 1])
Say = tuple[bool, bytes]  # from the client, payload


class Pair:
    """The same packets with and without kernels."""

    def __init__(self) -> None:
        self.runs = [Run(FlowsConfig(max_flows=4096), Applications(kernels=kernels)) for kernels in (True, False)]
        self.read: Counter[str] = Counter()  # rows that kernels made, by table

    def compare(self, about: object) -> None:
        """End the flows; what both found must be the same."""
        found = []
        for run in self.runs:
            run.close()
            assert run.table.applications is not None
            tables = run.table.applications.take_rows()
            self.read.update({table: sum(map(len, rows.read)) for table, rows in tables.items()})
            packets = [(p["flow_id"], p["app"], p["server_name"]) for p in run.packets]
            counts = run.table.applications.take_counts()
            found.append((counts, packets, run.flows, {name: plain(name, rows) for name, rows in tables.items()}))
            run.packets, run.flows = [], []
        for ours, theirs in zip(*found, strict=True):
            assert ours == theirs, about


def plain(table: str, rows: AppRows) -> list[str]:
    """Rows as the lake has them, sorted."""
    try:
        schema = arrow_schema(table)
    except KeyError:  # an application without a table
        return []
    whole = [pa.RecordBatch.from_pylist(rows.parsed, schema=schema), *(part.to_arrow() for part in merged(rows.read))]
    return sorted(repr(row) for part in whole for row in part.to_pylist())


# --- real captures ------------------------------------------------------------------------------------------------
@pytest.mark.skipif(not CAPTURES, reason="needs ../shared")
@pytest.mark.timeout(600)
def test_corpus__kernels_say_what_parsers_say() -> None:
    pair = Pair()
    for path in CAPTURES:
        for run in pair.runs:
            for frames in batches(path):
                run.take(frames, PacketBatch(), keep=False)
        pair.compare(path.name)
    assert all(pair.read[table] >= least for table, least in (("dns", 700), ("http", 200), ("tls", 60), ("quic", 40)))


# --- conversations, whole and damaged -----------------------------------------------------------------------------
def answer(name: str, number: int, *records: tuple[int, bytes], kind: int = 1, flags: int = 0x8180) -> bytes:
    """An answer to `b.dns_query`, whose records are about the name asked for, with EDNS behind them."""
    question = b.dns_query(name, number, kind)
    body = b"".join(
        b"\xc0\x0c" + t.to_bytes(2, "big") + b"\0\1\0\0\1\x2c" + len(d).to_bytes(2, "big") + d for t, d in records
    )
    counts = b"\0\1" + len(records).to_bytes(2, "big") + b"\0\0\0\1"
    edns = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
    return question[:2] + flags.to_bytes(2, "big") + counts + question[12:] + body + edns


BINDING = b"\0\1\0" + b"\0\1\0\x06\2h2\2h3" + b"\0\4\0\4\xc0\0\2\1" + b"\0\6\0\x10\x20\1\x0d\xb8" + bytes(11) + b"\1"
DNS: list[list[Say]] = [
    [(True, b.dns_query("www.example.org", 7)), (True, b.dns_query("www.example.org", 8, 28)),
     (False, answer("www.example.org", 8, (28, b"\x20\1\x0d\xb8" + bytes(12)), kind=28)),
     (False, answer("www.example.org", 7, (5, b"\3cdn\xc0\x10"), (1, b"\xc0\0\2\7"), (1, b"\xc0\0\2\x08")))],
    [(True, b.dns_query("Example.ORG", 9, 15)), (True, b.dns_query("example.org", 9, 15)),
     (False, answer("eXample.org", 9, (15, b"\0\x0a\4mail\xc0\x0c"), kind=15)),
     (True, b.dns_query("later.example", 1))],
    [(True, b.dns_query("_sip._udp.example", 2, 33)),
     (False, answer("_sip._udp.example", 2, (33, b"\0\1\0\2\x13\xc4\3sip\xc0\x16"), kind=33)),
     (True, b.dns_query("t.example", 3, 16)), (False, answer("t.example", 3, (16, b"\5v=spf\1 \2-a"), kind=16)),
     (True, b.dns_query("h.example", 4, 65)), (False, answer("h.example", 4, (65, BINDING), kind=65)),
     (False, answer("unasked.example", 5, flags=0x8583))],
]  # fmt: skip
HELLO_13 = record(client_hello(chrome()))
SERVED_13 = record(server_hello([(0x0033, bytes(36)), (0x002B, b"\3\4")]), version=0x0303)
LARGE = record(client_hello([*chrome(), (0x0033, bytes(1200))]))
TLS: list[list[Say]] = [
    [(True, HELLO_13), (False, SERVED_13 + b"\x14\3\3\0\1\1" + record(b"x" * 600, 23, 0x0303)),
     (True, record(b"y" * 80, 23, 0x0303))],
    [(True, record(client_hello([alpn(b"~~"), (0x002B, b"\2\3\4"), (0x000B, b"\2\0\1")], session=b""))),
     (False, record(server_hello([(0x002B, b"\3\4"), alpn(b"h2"), (0x0029, b"\0\0")], session=b""), version=0x0303))],
    [(True, LARGE[:1400]), (True, LARGE[1400:]), (False, SERVED_13)],
    [(True, HELLO_13), (False, record(server_hello([]) + handshake(14, b""), version=0x0303))],
]  # fmt: skip
GET = (
    b"GET /a?b=c HTTP/1.1\r\nHost: www.example.org:8080\r\nUser-Agent: x/1 (y)\r\nReferer:  http://r.example/ \r\n\r\n"
)
TYPED = b"Server: s\r\nContent-Type: Text/HTML; charset=x\r\n"
HTTP: list[list[Say]] = [
    [(True, GET), (False, b"HTTP/1.1 200 OK\r\n" + TYPED + b"Content-Length: 900\r\n\r\n" + b"<" * 500),
     (False, b"body" * 100), (True, b"HEAD / HTTP/1.0\r\nhost:\r\n\r\n"),
     (False, b"HTTP/1.1 404 No\r\nContent-Length: 5\r\n\r\n")],
    [(True, b"POST /up HTTP/1.1\r\nHost: a.example\r\nContent-Length: 12\r\n\r\nhello"), (True, b"GET /HTTP"[:7]),
     (False, b"HTTP/1.1 100 Continue\r\n\r\n"),
     (False, b"HTTP/1.1 201 Made\r\nTransfer-Encoding: Chunked\r\n\r\n5;x\r\nabcde\r\n0\r\n\r\n"), (True, GET),
     (False, b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nHTTP/1.1 is not a head here"),
     (False, b"more of it")],
    [(True, GET), (False, b"HTTP/1.1 200 OK\n\nuntil the end"), (False, b"<p>of the connection"), (True, GET)],
]  # fmt: skip
QUIC: list[list[Say]] = [
    [(True, seal(crypto(hello()))), (False, ANSWER)],
    [(True, seal(crypto(hello()[100:], 100) + b"\1" + crypto(hello()[:100]), scid=b"abcd", token=b"t" * 70)),
     (False, b"\xc9" + RFC_SERVER[1:5] + bytes(1200))],
    [(True, seal(crypto(hello(b"q.example"), 0) + bytes(3))), (False, RFC_SERVER)],
]  # fmt: skip
PORTS = {"dns": (17, 53), "tls": (6, 443), "http": (6, 80), "quic": (17, 443)}
TALKS = {"dns": DNS, "tls": TLS, "http": HTTP, "quic": QUIC}


def frames_of(kind: str, said: list[Say], port: int, chance: random.Random, damage: bool) -> list[bytes]:
    """A conversation as frames, with what can happen to one: cut, split, lost, twice, out of order, a byte changed."""
    proto, server = PORTS[kind]
    seq = {True: chance.getrandbits(32), False: chance.getrandbits(32)}
    frames = []
    for up, data in said:
        pieces = [data]
        what = chance.randrange(14) if damage else -1
        if what == 0:
            changed = bytearray(data)
            for _ in range(chance.randrange(1, 4)):
                changed[chance.randrange(len(data))] = chance.choice(
                    (0, 1, 10, 32, 64, 0x80, 0xC0, 0xFF, chance.randrange(256))
                )
            pieces = [bytes(changed)]
        elif what == 1 and proto == 6 and len(data) > 1:
            at = chance.randrange(1, len(data))
            pieces = [data[:at], data[at:]]
        elif what == 2:
            pieces = [data, data]
        elif what == 3:
            pieces = [data[: chance.randrange(1, len(data) + 1)]]
        for n, piece in enumerate(pieces):
            again = what == 2 and n == 1
            ports = (port, server) if up else (server, port)
            src, dst = (CLIENT, SERVER) if up else (SERVER, CLIENT)
            at = (seq[up] - (len(piece) if again else 0)) & 0xFFFF_FFFF
            packet = b.tcp(piece, *ports, seq=at, flags=0x18) if proto == 6 else b.udp(piece, *ports)
            frame = b.ethernet(b.ipv4(packet, proto, src=src, dst=dst))
            frames.append(frame[: -chance.randrange(1, 9)] if what == 4 and len(piece) > 20 else frame)
            seq[up] = (at + len(piece)) & 0xFFFF_FFFF
        if what == 5:
            frames.pop()
        elif what == 6 and len(frames) > 1:
            frames[-1], frames[-2] = frames[-2], frames[-1]
    return frames


def interleaved(seed: int, damage: bool, count: int = 60) -> list[tuple[float, bytes]]:
    """Conversations at the same time, in their own order."""
    chance = random.Random(seed)
    waiting = []
    for n in range(count):
        kind = chance.choice(list(TALKS))
        waiting.append(frames_of(kind, chance.choice(TALKS[kind]), 20_000 + n, chance, damage))
    timed: list[tuple[float, bytes]] = []
    while any(waiting):
        frames = chance.choice([w for w in waiting if w])
        timed.append((len(timed) / 1000, frames.pop(0)))
    return timed


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 40), damage=st.booleans(), cut=st.integers(1, 200))
@example(seed=1417, damage=True, cut=1)  # a piece of a body again, after the answer, that looks like a request
def test_conversations__kernels_say_what_parsers_say(pair: Pair, seed: int, damage: bool, cut: int) -> None:
    timed = interleaved(seed, damage)
    for run in pair.runs:
        for first in range(0, len(timed), cut):
            run.send(timed[first : first + cut])
    pair.compare(seed)


def test_conversations__whole_ones_need_no_python() -> None:
    """Only those that are made to need it go to a parser: an earlier version, an answer that nobody can open."""
    pair = Pair()
    alone = [DNS[0], DNS[1], DNS[2], TLS[0], TLS[1], TLS[2], HTTP[0], QUIC[0], QUIC[1]]
    kinds = ["dns"] * 3 + ["tls"] * 3 + ["http"] + ["quic"] * 2
    for n, (kind, said) in enumerate(zip(kinds, alone, strict=True)):
        frames = frames_of(kind, said, 30_000 + n, random.Random(n), damage=False)
        for run in pair.runs:
            run.send([(n + i / 100, frame) for i, frame in enumerate(frames)])
    run = pair.runs[0]
    assert run.table.applications is not None
    assert not run.table.applications._open
    pair.compare("whole")
    assert pair.read == {"dns": 9, "tls": 3, "http": 2, "quic": 2}


def test_entries__without_room_parsers_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.messages._ENTRIES", 3)
    pair = Pair()
    timed = interleaved(1, damage=False)
    for run in pair.runs:
        run.send(timed)
    pair.compare("few entries")
    assert sum(pair.read.values()) > 0


def test_rows__come_in_the_order_of_their_messages() -> None:
    """Those of kernels among those of parsers."""
    run = Run(applications=(applications := Applications()))
    asked = [(n / 100, n % 2) for n in range(40)]
    frames = []
    for n, (at, odd) in enumerate(asked):
        name = f"n{n}.ex\xe4mple" if odd else f"n{n}.example"
        question = b.dns_query("a.b", n)[:12] + b"".join(
            bytes([len(part)]) + part for part in name.encode("latin-1").split(b".")
        ) + b"\0\0\1\0\1"  # fmt: skip
        for up, flags in ((True, 0x01), (False, 0x81)):
            data = question[:2] + bytes([flags]) + question[3:]
            ports = (4000 + n, 53) if up else (53, 4000 + n)
            src, dst = (CLIENT, SERVER) if up else (SERVER, CLIENT)
            frames.append((at, b.ethernet(b.ipv4(b.udp(data, *ports), 17, src=src, dst=dst))))
    run.send(frames)
    rows = dict(applications.new_rows())["dns"]
    assert rows.parsed
    assert sum(map(len, rows.read)) == 20
    assert [row["id"] for row in rows] == list(range(40))
    assert rows[0]["query"] == "n0.example"
    assert rows[1].get("answered") is True
    assert rows[2].get("no such column") is None
    columns = ("id", "query", "src_ip", "dst_ip", "src_port", "dst_port", "flow_id", "ts")
    assert [[row[c] for c in columns] for row in rows.with_columns(columns)] == [[r[c] for c in columns] for r in rows]
    for part in rows.read:
        written = part.to_arrow()
        for name in set(written.schema.names) - {"ts"}:
            assert part.column(name) == written.column(name).to_pylist(), name


# --- digests and ciphers ------------------------------------------------------------------------------------------
@kernel
def digests(buf, n, w, text):  # type: ignore[no-untyped-def]
    at = app_hash.put_md5(buf, np.int64(0), n, w, text, np.int64(0))
    return app_hash.put_sha256_12(buf, np.int64(0), n, w, text, at)


@kernel
def opened(buf, n, scratch, aad_n, iv, q, tables):  # type: ignore[no-untyped-def]
    app_aes.aes_key(q, 0, 8, tables)
    return app_aes.open_gcm(buf, np.int64(0), n, scratch, np.int64(0), aad_n, iv[0], iv[1], iv[2], 1024, q, 8, tables)


@settings(deadline=None)
@given(data=st.binary(max_size=300))
def test_digests__equal_the_library(data: bytes) -> None:
    buf = np.zeros(len(data) + 80, np.uint8)
    buf[: len(data)] = list(data)
    text = np.zeros(64, np.uint8)
    end = digests(buf, len(data), np.zeros(app_hash.N_HASH, np.int64), text)
    wanted = hashlib.md5(data, usedforsecurity=False).hexdigest()
    wanted += hashlib.sha256(data).hexdigest()[:12] if data else "0" * 12  # JA4 writes so
    assert text[:end].tobytes().decode() == wanted


@settings(deadline=None)
@given(
    key=st.binary(min_size=16, max_size=16), nonce=st.binary(min_size=12, max_size=12), aad=st.binary(max_size=60),
    data=st.binary(max_size=200), flip=st.integers(0, 7),
)  # fmt: skip
def test_aes_gcm__equals_the_library(key: bytes, nonce: bytes, aad: bytes, data: bytes, flip: int) -> None:
    sealed = AESGCM(key).encrypt(nonce, data, aad)
    scratch, q = np.zeros(4096, np.uint8), np.zeros(8 + app_aes.N_KEY, np.int64)
    scratch[: len(aad)] = list(aad)
    q[:4] = np.frombuffer(key, ">u4")
    buf: Any = np.frombuffer(sealed, np.uint8).copy()
    iv, tables = np.frombuffer(nonce, ">u4").astype(np.int64), app_aes.make_tables()
    assert opened(buf, len(data), scratch, len(aad), iv, q, tables)
    assert scratch[1024 : 1024 + len(data)].tobytes() == data
    buf[len(sealed) - 1 - flip] ^= 1 << flip
    assert not opened(buf, len(data), scratch, len(aad), iv, q, tables)
