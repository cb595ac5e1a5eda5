"""The way from a capture to parsed messages, slow and plain: what the kernels and the stage of the engine must equal.

    app_rows, flows = dissect(path)

`python -m tests.dissecting FILE` prints what every parser says about a capture.
"""

from __future__ import annotations

import contextlib
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine import packets as k
from engine.capture.savefile import SavefileSource
from engine.capture.source import ReadResult
from engine.dissect import APPLICATIONS
from engine.dissect.base import TCP, UDP, Application, Flow, Message, Pattern, Verdict
from engine.errors import CorruptFile
from tests.builders import decoder

READ_ERRORS: tuple[type[Exception], ...] = (ValueError, IndexError, KeyError, ArithmeticError, struct.error)


@dataclass
class Payload:
    """One packet's (inner) addresses and payload."""

    frame: int
    ts: int
    vlan: int | None
    src: tuple[str, int]
    dst: tuple[str, int]
    proto: int
    flags: int
    seq: int
    length: int
    data: bytes


def payloads(path: Path | str) -> Iterator[Payload]:
    """The TCP and UDP packets of a savefile, tunnels opened, in file order. Raises CorruptFile when it is refused."""
    work, rows, columns = decoder()
    source, frames = SavefileSource(str(path)), k.FrameBatch()
    number = 0
    with contextlib.closing(source):
        source.open()
        result = None
        while result is not ReadResult.END:
            frames.clear()
            try:
                result = source.read(frames)
            except CorruptFile:  # all whole frames before were delivered
                return
            work.decode(frames, rows)
            table = columns.to_arrow(rows).to_pylist()
            for i, row in enumerate(table):
                number += 1
                packet = _payload(frames, rows, i, row, number)
                if packet is not None:
                    yield packet


def _payload(frames: k.FrameBatch, rows: k.PacketBatch, i: int, row: dict[str, Any], number: int) -> Payload | None:
    present = int(rows.present[i])
    inner = bool(present & k.HAS_INNER_IP)
    if not present & (k.HAS_INNER_PORTS if inner else k.HAS_PORTS):
        return None
    proto = int(rows.short[k.S_INNER_PROTO if inner else k.S_PROTO, i])
    if proto not in (TCP, UDP) or not present & (k.HAS_INNER_PAYLOAD if inner else k.HAS_PAYLOAD):
        return None
    side = "inner_" if inner else ""
    start, stop = int(rows.int_[k.I_PAYLOAD, i]), int(rows.int_[k.I_PAYLOAD_END, i])
    has_tcp = present & (k.HAS_INNER_TCP if inner else k.HAS_TCP)
    return Payload(
        number, int(rows.long[k.L_TS, i]), row["vlan"],
        (row[f"{side}src_ip"], row[f"{side}src_port"]), (row[f"{side}dst_ip"], row[f"{side}dst_port"]), proto,
        int(rows.short[k.S_INNER_TCP_FLAGS if inner else k.S_TCP_FLAGS, i]) if has_tcp else 0,
        int(rows.long[k.L_INNER_SEQ if inner else k.L_TCP_SEQ, i]) if has_tcp else 0,
        int(rows.long[k.L_INNER_PAYLOAD_LEN if inner else k.L_PAYLOAD_LEN, i]),
        frames.arena[start:max(start, stop)].tobytes(),
    )  # fmt: skip


def matches(pattern: Pattern, proto: int, ports: tuple[int, int], data: bytes, length: int) -> bool:
    """What the kernel decides, from the definition of Pattern."""
    if pattern.transport != proto or (pattern.ports and not set(ports) & set(pattern.ports)):
        return False
    if not pattern.length[0] <= length <= pattern.length[1] or len(data) < len(pattern.value):
        return False
    mask = pattern.mask or b"\xff" * len(pattern.value)
    return all(d & m == v & m for d, m, v in zip(data, mask, pattern.value, strict=False))


@dataclass
class Seen:
    """A flow while it is followed."""

    flow: Flow
    client: tuple[str, int]
    isn: int
    application: Application | None = None
    parser: Any = None
    left: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    done: bool = False
    rejected: int = 0
    rows: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # table, row with its frame
    errors: list[str] = field(default_factory=list)


def dissect(path: Path | str, only: str = "") -> tuple[dict[str, list[dict[str, Any]]], list[Seen]]:
    """Rows by table, each with the frame that completed it under `frame`, and the flows in order of their start."""
    flows: dict[Any, Seen] = {}
    ended: list[Seen] = []
    applications = [a for a in APPLICATIONS if not only or a.name == only]
    for p in payloads(path):
        key = (p.vlan, p.proto, *sorted((p.src, p.dst)))
        if p.flags & 0x12 == 0x02 and key in flows and p.proto == TCP and p.seq != flows[key].isn:
            ended.append(flows.pop(key))  # a new connection on the same ports
        if key not in flows:
            client = p.src
            if (p.proto == TCP and p.flags & 0x12 == 0x12) or (
                p.proto == TCP and not p.flags & 0x02 and p.src[1] < 1024 and p.src[1] < p.dst[1]
            ):
                client = p.dst
            server = p.dst if client == p.src else p.src
            flow_id = len(ended) + len(flows) + 1
            flows[key] = Seen(Flow(p.proto, client[0], server[0], client[1], server[1], flow_id), client, p.seq)
        _hand_over(flows[key], p, applications)
    everything = [*ended, *flows.values()]
    tables: dict[str, list[dict[str, Any]]] = {}
    for seen in everything:
        _finish(seen, None)
        for name, row in seen.rows:
            tables.setdefault(name, []).append(row)
    return tables, everything


def _hand_over(seen: Seen, p: Payload, applications: list[Application]) -> None:
    from_client = p.src == seen.client
    if not p.data or seen.done:
        return
    ports = (p.src[1], p.dst[1])
    hits = [
        (a, max(q.follow for q in a.patterns if matches(q, p.proto, ports, p.data, p.length)))
        for a in applications
        if any(matches(q, p.proto, ports, p.data, p.length) for q in a.patterns)
    ]
    if hits:
        seen.left[from_client] = max(seen.left[from_client], 1 + max(follow for _, follow in hits))
    if not seen.left[from_client]:
        return
    seen.left[from_client] -= 1
    message = Message(p.data, p.ts, from_client, p.seq, len(p.data) == p.length)
    if seen.parser is not None:
        verdict = _feed(seen, seen.parser, message)
        _drain(seen, p.frame)
        if verdict is not Verdict.MORE:
            _finish(seen, p.frame)
        seen.done = verdict is Verdict.DONE
        return
    for application, _ in hits:
        seen.application, seen.parser = application, application.parser(seen.flow)
        verdict = _feed(seen, seen.parser, message)
        _drain(seen, p.frame)
        if verdict is not Verdict.MORE:
            _finish(seen, p.frame)
        if verdict is not Verdict.FOREIGN:
            seen.done = verdict is Verdict.DONE
            return
    seen.rejected += bool(hits)
    seen.done = seen.rejected >= 4 and not seen.flow.app


def _finish(seen: Seen, frame: int | None) -> None:
    if seen.parser is not None:
        seen.parser.finish()
        _drain(seen, frame)
        seen.parser = None


def _drain(seen: Seen, frame: int | None) -> None:
    if seen.application is not None:
        seen.rows += [(seen.application.name, row | {"frame": frame}) for row in seen.flow.rows]
        seen.flow.rows.clear()


def _feed(seen: Seen, parser: Any, message: Message) -> Verdict:
    import dpkt

    try:
        return parser.feed(message)
    except (*READ_ERRORS, dpkt.UnpackError) as error:
        seen.errors.append(repr(error))
        claimed = seen.application is not None and seen.flow.app in seen.application.names
        return Verdict.MORE if claimed else Verdict.FOREIGN


if __name__ == "__main__":
    np.seterr(all="raise")
    found, all_flows = dissect(sys.argv[1])
    for one in all_flows:
        print(one.flow.app or "-", one.flow.server_name, one.client, one.errors)
    for name, rows_ in found.items():
        for r in rows_:
            print(name, r)
