"""tshark's values of DNS and DHCP beside ours, frame by frame, each difference put into a class."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pyarrow.parquet as pq

from engine.capture.savefile import SavefileSource
from engine.dissect import APPLICATIONS, dns
from engine.dissect._dns_message import TYPES
from engine.dissect.base import Flow, Message, Verdict
from engine.errors import CorruptFile
from tests import dissecting
from tests.dissecting import Payload

CORPUS = Path(__file__).parents[4] / "shared" / "corpus"
NUMBERS = {text: number for number, text in TYPES.items()}

NO_DECODER = "link type without a decoder"
NOT_REACHED = "no TCP or UDP that the decoder reaches: quoted in an ICMP error, PPP in GRE, damaged IP header"
CARRIED = "carried in HTTP/2, QUIC or WireGuard, which tshark opens"
AGAIN = "TCP: these sequence numbers were there before"
MIDDLE = "TCP: the first segment begins in the middle of a message"
ESCAPES = "bytes that are not text: tshark shows U+FFFD and octal, we decimal as in zone files"
NO_NAME = "name that cannot be read: a text of tshark's instead, NULL here"
DAMAGED = "malformed, says tshark: it shows what it read before the fault"
NOT_DNS = "port 53 or a guess of tshark's, bytes that are not DNS"
OUT_OF_REACH = (NO_DECODER, NOT_REACHED, CARRIED)
NOT_DHCP = "fuzzed: neither request nor reply"
# No rule tells these: looked at one by one.
SINGLE = {
    ("PcapPlusPlus--dns_over_tcp.pcapng", 4): AGAIN,
    ("wireshark--dns-ooo.pcap", 3): MIDDLE,
    ("suricata-verify--detect-uricontent-04__input.pcap", 1): NOT_DNS,
    ("zeek--vector-max-size-crash.pcap", 1): NOT_DNS,
    ("tcpdump--bootp_asan-2.pcap", 1): NOT_DHCP,
    ("tcpdump--rx_serviceid_oobr.pcap", 1): NOT_DHCP,
    ("tcpdump--tests__rx_serviceid_oobr.pcap", 1): NOT_DHCP,
}


class Read(NamedTuple):
    """What the DNS parser read of a message: names and types of its questions."""

    response: bool
    questions: tuple[tuple[str | None, str | None], ...]


@dataclass
class Comparison:
    total: Counter[str] = field(default_factory=Counter)
    equal: Counter[str] = field(default_factory=Counter)
    classes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    rest: list[tuple[Any, ...]] = field(default_factory=list)  # in no class

    def reachable(self, column: str) -> int:
        return self.total[column] - sum(self.classes[column][c] for c in OUT_OF_REACH)

    def report(self) -> str:
        lines = []
        for column in self.total:
            lines.append(
                f"{column}: {self.total[column]} values, {self.reachable(column)} in reach, {self.equal[column]} equal"
            )
            lines += [f"    {n} {name}" for name, n in self.classes[column].most_common()]
        return "\n".join([*lines, *(f"  {r}" for r in self.rest)])


class _Spy:
    """A parser of DNS that notes what each message said."""

    def __init__(self, flow: Flow, notes: list[Read]) -> None:
        self._flow, self._notes, self._parser = flow, notes, dns.APPLICATION.parser(flow)
        self._inner: Any = self._parser
        self._take = self._inner._take

    def feed(self, message: Message) -> Verdict:
        with patch.object(type(self._inner), "_take", lambda _, *args: self._note(*args)):
            return self._parser.feed(message)

    def finish(self) -> None:
        self._parser.finish()

    def _note(self, data: bytes, ts: int, whole: bool) -> Verdict:
        flow, waiting, rows = self._flow, list(self._inner._pending.values()), len(self._flow.rows)
        try:
            return self._take(data, ts, whole)  # type: ignore[no-any-return]
        finally:
            asked = [q for q in self._inner._pending.values() if not any(q is w for w in waiting)]
            told = [r for r in flow.rows[rows:] if r.get("rcode") or r["answered"] is None]
            questions = [(q.name, None if q.qtype is None else dns.type_text(q.qtype)) for q in asked]
            if not (flow.app == "mdns" and any(r.get("rcode") for r in told)):
                questions += [(r["query"], r["qtype"]) for r in told]
            if asked or told:
                self._notes.append(Read(bool(data[2] & 0x80), tuple(questions)))


def read_dns(path: Path) -> tuple[dict[int, list[Read]], dict[int, Payload]]:
    """What was read of each frame, and the payloads that the decoder reached. CorruptFile without a decoder."""
    found: dict[int, list[Read]] = defaultdict(list)
    reached: dict[int, Payload] = {}
    notes: list[Read] = []
    hand_over = dissecting._hand_over

    def follow(seen: Any, payload: Payload, applications: Any) -> None:
        reached[payload.frame] = payload
        hand_over(seen, payload, applications)
        found[payload.frame] += notes
        notes.clear()

    spied = tuple(replace(a, parser=lambda f: _Spy(f, notes)) if a.name == "dns" else a for a in APPLICATIONS)
    with patch.object(dissecting, "_hand_over", follow), patch.object(dissecting, "APPLICATIONS", spied):
        _dissect(path, "dns")
    return found, reached


def _dissect(path: Path, application: str) -> dict[str, list[dict[str, Any]]]:
    """Rows by table; the file is closed also if it is damaged."""
    with ExitStack() as opened:

        def opening(name: str) -> SavefileSource:
            source = SavefileSource(name)
            opened.callback(source.close)
            return source

        with patch.object(dissecting, "SavefileSource", opening):
            return dissecting.dissect(path, application)[0]


def _tables(columns: list[str], suffix: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Captures with the rows of truth that have a value in one of the columns."""
    for path in sorted((CORPUS / "truth").glob(f"*.{suffix}.parquet")):
        rows = [r for r in pq.read_table(path, columns=["frame", *columns]).to_pylist() if any(r[c] for c in columns)]
        if rows:
            yield path.name.removesuffix(f".{suffix}.parquet"), rows


def _layers(capture: str) -> dict[int, tuple[str, bool]]:
    table = pq.read_table(CORPUS / "truth" / f"{capture}.parquet", columns=["frame", "protocols", "malformed"])
    return {r["frame"]: (r["protocols"] or "", bool(r["malformed"])) for r in table.to_pylist()}


@cache
def compare_dns(kind: str = "l7") -> Comparison:
    """`kind` is l7, or l7reasm for tshark with reassembly."""
    result = Comparison()
    columns = ["dns_qry_name", "dns_qry_type", "dns_response"]
    for capture, rows in _tables(columns, kind):
        layers = _layers(capture)
        try:
            found, reached = read_dns(CORPUS / "captures" / capture)
        except CorruptFile:
            found, reached = {}, {}
            for row in rows:
                for column in columns:
                    result.total[column] += bool(row[column])
                    result.classes[column][NO_DECODER] += bool(row[column])
            continue
        for row in rows:
            ours = dict(zip(columns, _as_tshark(found.get(row["frame"], [])), strict=True))
            for column in columns:
                if not row[column]:
                    continue
                result.total[column] += 1
                if ours[column] == row[column]:
                    result.equal[column] += 1
                    continue
                why = _class(capture, row, row[column], ours[column], reached, layers)
                if why:
                    result.classes[column][why] += 1
                else:
                    result.rest.append((capture, row["frame"], column, row[column], ours[column]))
    return result


def _as_tshark(read: list[Read]) -> tuple[str, str, str]:
    names = [n for r in read for n, _ in r.questions if n is not None]
    types = [t for r in read for n, t in r.questions if n is not None and t is not None]
    return (
        "|".join("<Root>" if n == "." else n for n in names),
        "|".join(str(NUMBERS.get(t) or t.removeprefix("TYPE")) for t in types),
        "|".join("1" if r.response else "0" for r in read),
    )


def _class(
    capture: str,
    row: dict[str, Any],
    told: str,
    ours: str,
    reached: dict[int, Payload],
    layers: dict[int, tuple[str, bool]],
) -> str:
    frame, name = row["frame"], row["dns_qry_name"] or ""
    protocols, malformed = layers[frame]
    if frame not in reached:
        return NOT_REACHED
    if {"http2", "quic", "wg"} & set(protocols.split(":")):
        return CARRIED
    if (capture, frame) in SINGLE:
        return SINGLE[capture, frame]
    if ours and _plain(told) == _plain(ours):
        return ESCAPES
    if "<Name contains" in name or "<Unknown extended label>" in name:
        return NO_NAME
    return DAMAGED if malformed else ""


def _plain(name: str) -> str:
    return re.sub(r"\\\d{3}|\\[a-z]|\ufffd", "?", name)


@cache
def compare_dhcp() -> Comparison:
    """The host names, and under `message` whether each frame that tshark takes for DHCP is a row."""
    result = Comparison()
    for path in sorted((CORPUS / "truth").glob("*.parquet")):
        if path.name.endswith((".l7.parquet", ".l7reasm.parquet")):
            continue
        capture = path.name.removesuffix(".parquet")
        layers = _layers(capture)
        wanted = {f for f, (p, _) in layers.items() if {"dhcp", "dhcpv6"} & set(p.split(":"))}
        if not wanted:
            continue
        named = path.with_name(f"{capture}.l7.parquet")
        names = {r["frame"]: r["dhcp_hostname"] for r in pq.read_table(named).to_pylist()} if named.exists() else {}
        try:
            tables = _dissect(CORPUS / "captures" / capture, "dhcp")
            rows = {r["frame"]: r for r in tables.get("dhcp", [])}
        except CorruptFile:
            rows = None
        for frame in wanted:
            kind = NO_DECODER if rows is None else SINGLE.get((capture, frame), "")
            _dhcp_frame(result, (capture, frame), names.get(frame), (rows or {}).get(frame), kind)
    return result


def _dhcp_frame(
    result: Comparison, at: tuple[str, int], name: str | None, row: dict[str, Any] | None, kind: str
) -> None:
    for column, told in (("message", "yes"), ("dhcp_hostname", name)):
        if not told:
            continue
        result.total[column] += 1
        ours = None if row is None else "yes" if column == "message" else row["host_name"]
        if ours == told:
            result.equal[column] += 1
        elif kind:
            result.classes[column][kind] += 1
        else:
            result.rest.append((*at, column, told, ours))
