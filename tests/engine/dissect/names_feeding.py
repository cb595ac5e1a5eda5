"""What the tests of names and management share: messages of one flow through one parser, and names in labels."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import dpkt

from engine.dissect.base import TCP, UDP, Application, Flow, Message, Verdict

# All that a parser may raise (engine/dissect/base.py); Malformed is a ValueError.
ALLOWED = (ValueError, IndexError, struct.error, dpkt.UnpackError)
CLIENT, SERVER = "10.0.0.1", "10.0.0.2"


def make_flow(src_port: int, dst_port: int, proto: int = UDP, src_ip: str = CLIENT, dst_ip: str = SERVER) -> Flow:
    return Flow(proto, src_ip, dst_ip, src_port, dst_port)


def run(application: Application, flow: Flow, messages: Iterable[Message]) -> list[Verdict]:
    """The verdict of each message; what a parser raises counts as FOREIGN before it is sure, as MORE after."""
    parser = application.parser(flow)
    verdicts = []
    for message in messages:
        named = flow.app
        try:
            verdict = parser.feed(message)
        except ALLOWED:
            verdict = Verdict.MORE if flow.app else Verdict.FOREIGN
        assert not (verdict is Verdict.FOREIGN and named), "FOREIGN after the flow has its name"
        verdicts.append(verdict)
        if verdict is Verdict.FOREIGN:
            return verdicts
    parser.finish()
    check_rows(application, flow.rows)
    return verdicts


def one(application: Application, flow: Flow, data: bytes, whole: bool = True) -> list[dict[str, Any]]:
    """The rows of a single message."""
    run(application, flow, [Message(data, 1000, True, 0, whole)])
    return flow.rows


def segments(data: bytes, cuts: Iterable[int], start: int = 1, from_client: bool = True) -> list[Message]:
    """`data` as TCP segments that end at `cuts`."""
    edges = [0, *cuts, len(data)]
    return [Message(data[a:b], 1000, from_client, (start + a) & 0xFFFF_FFFF) for a, b in pairwise(edges) if a < b]


def labels(name: str) -> bytes:
    """A name as on the wire, without compression."""
    parts = [p.encode() for p in name.split(".") if p]
    return b"".join(bytes([len(p)]) + p for p in parts) + b"\0"


_KINDS: dict[str, tuple[type, ...]] = {
    "text": (str,), "texts": (list,), "bool": (bool,), "int16": (int,), "int32": (int,), "int64": (int,),
    "float32": (float,), "timestamp": (int,),
}  # fmt: skip
_LIMITS = {"int16": 1 << 15, "int32": 1 << 31, "int64": 1 << 63}


def check_rows(application: Application, rows: Iterable[dict[str, Any]]) -> None:
    """Every value has the type of its column, is in its range, and texts can be stored and shown."""
    columns = {c.name: c.type for c in application.columns} | {"ts": "timestamp"}
    for row in rows:
        assert "ts" in row
        for name, value in row.items():
            kind = columns[name]
            if value is None:
                continue
            assert type(value) in _KINDS[kind], (name, value)
            if kind in _LIMITS:
                assert -_LIMITS[kind] <= value < _LIMITS[kind], (name, value)
            for text in [value] if kind == "text" else value if kind == "texts" else []:
                assert text.isprintable(), (name, text)
                assert len(text) <= 1024, name
                text.encode()


def tcp(src_port: int, dst_port: int) -> Flow:
    return make_flow(src_port, dst_port, TCP)
