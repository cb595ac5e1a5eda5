"""What tshark says about the real captures, value by value beside our rows."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.dissecting import dissect, payloads

CORPUS = Path(__file__).parents[4] / "shared" / "corpus"
# A link type without a decoder, and damaged files, of which the driver gives nothing.
UNREADABLE = (
    "nDPI--dlt_ppp.pcap",
    "suricata-verify--bug-1450-04__tls_DER-incomplete-header.pcap",
    "suricata-verify--bug-1450-05__tls_DER-incomplete-content.pcap",
)
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Truth:
    """One value of tshark's, and the rows that we have of the same addresses and ports."""

    capture: str
    frame: int
    value: str
    types: str  # of handshake messages in the frame
    rows: Rows


def truths(column: str, kind: str = "l7") -> Iterator[Truth]:
    """Every value of a column; `kind` is l7, or l7reasm for tshark with reassembly."""
    for path in sorted((CORPUS / "truth").glob(f"*.{kind}.parquet")):
        table = pq.read_table(path)
        if column not in table.column_names:
            continue
        found = [r for r in table.to_pylist() if r[column]]
        if found:
            capture = path.name.removesuffix(f".{kind}.parquet")
            keys, rows = flows_of(capture)
            for r in found:
                yield Truth(capture, r["frame"], r[column], r["tls_hs_types"] or "", rows.get(keys.get(r["frame"]), []))


@cache
def flows_of(capture: str) -> tuple[dict[int, Any], dict[Any, Rows]]:
    """The flow of each frame of TCP or UDP, and the rows of each flow, of tls, quic and ssh."""
    path = CORPUS / "captures" / capture
    if capture in UNREADABLE:
        return {}, {}
    keys = {p.frame: (p.vlan, p.proto, *sorted((p.src, p.dst))) for p in payloads(path)}
    rows: dict[Any, Rows] = defaultdict(list)
    for application in ("tls", "quic", "ssh"):
        for seen in dissect(path, only=application)[1]:
            assert not seen.errors, (capture, seen.errors)
            flow = seen.flow
            ends = sorted(((flow.src_ip, flow.src_port), (flow.dst_ip, flow.dst_port)))
            for key in [k for k in set(keys.values()) if k[1:] == (flow.proto, *ends)] if seen.rows else ():
                rows[key] += [row for _, row in seen.rows]
    return keys, rows


def compare(column: str, ours: Callable[[Truth], set[str | None]], kind: str = "l7") -> tuple[int, list[Truth]]:
    """How many values there are, and those that are not ours."""
    values = list(truths(column, kind))
    return len(values), [t for t in values if not set(t.value.split("|")) <= ours(t)]


def column_of(name: str) -> Callable[[Truth], set[str | None]]:
    """The values of one of our columns in the rows of a flow."""
    return lambda truth: {row.get(name) for row in truth.rows}


def published(name: str) -> Iterator[Truth]:
    """JA4 or JA4S values of FoxIO's test data that at least two of its three implementations give for a flow."""
    for path in sorted((CORPUS / "expected" / "ja4_python").glob("*.json")):
        capture = path.name.removesuffix(".json")
        keys, rows = flows_of(capture)
        short = {key: key[2:] for key in keys.values()}
        votes: dict[Any, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for source, ends, value in _published(capture, name, keys):
            votes[ends][value].add(source)
        for ends, values in votes.items():
            ours = [row for key, found in rows.items() if short.get(key) == ends for row in found]
            for value, sources in values.items():
                if len(sources) > 1:
                    yield Truth(capture, 0, value, str(ends), ours)


def _published(capture: str, name: str, keys: dict[int, Any]) -> Iterator[tuple[str, Any, str]]:
    """Implementation, sorted ends of the flow, and value."""
    folder = CORPUS / "expected"
    for flow in json.loads((folder / "ja4_python" / f"{capture}.json").read_text()):
        ends = _ends(flow["src"], flow.get("srcport"), flow["dst"], flow.get("dstport"))
        for key, value in flow.items():
            if key == name.upper() or key.startswith(f"{name.upper()}."):
                yield "python", ends, value
    for block in (folder / "ja4_rust" / f"{capture}.yaml").read_text().split("\n- ")[1:]:
        found = dict(re.findall(r"^\s*(\w+): (\S+)$", block, re.MULTILINE))
        if name in found:
            ends = _ends(found["src"], found["src_port"], found["dst"], found["dst_port"])
            yield "rust", ends, found[name].strip("'\"")
    for packet in json.loads((folder / "ja4_wireshark" / f"{capture}.json").read_text()):
        layers = packet["_source"]["layers"]
        for value in layers.get(f"ja4.{name}", ()):
            key = keys.get(int(layers["frame.number"][0]))
            if key is not None:
                yield "wireshark", key[2:], value


def _ends(src: str, src_port: str | None, dst: str, dst_port: str | None) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(((src, int(src_port or 0)), (dst, int(dst_port or 0)))))
