"""tshark's values of HTTP and SIP beside ours, frame by frame, each difference put into a class."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from engine.capture.savefile import SavefileSource
from engine.errors import CorruptFile
from tests.dissecting import Payload, dissect, payloads

CORPUS = Path(__file__).parents[4] / "shared" / "corpus"
OF_REQUEST = {"http_host": "host", "http_method": "method", "http_uri": "path", "http_user_agent": "user_agent"}
COLUMNS = (*OF_REQUEST, "http_status", "sip_method")
# Classes of difference that are not errors of a parser; what is in none of them is listed.
NO_DECODER = "link type without decoder"
NOT_REACHED = "the decoder does not reach the frame's TCP or UDP"
DEEPER = "in a tunnel in a tunnel: the decoder opens one"
DECRYPTED = "inside TLS, which tshark decrypts with keys from the capture"
AGAIN = "a retransmission: tshark counts it again"
INTERIM = "interim response (100 Continue): no row"
ECHO = "Host field of a response"
LATER = "value in a later segment of a head: the row has it, at the first segment's time"
NO_TEXT = "bytes that are not text: tshark ends at NUL and shows U+FFFD, we escape"


@dataclass
class Comparison:
    """Counts by column, differences by column and class, and the differences that are in no class."""

    total: Counter[str] = field(default_factory=Counter)
    equal: Counter[str] = field(default_factory=Counter)
    classes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    rest: list[tuple[str, int, str, str, list[Any]]] = field(default_factory=list)

    def comparable(self, column: str) -> int:
        """Values that a row should have: the frame is reached, and tshark counts what we count."""
        out = (NO_DECODER, NOT_REACHED, DEEPER, DECRYPTED, AGAIN, INTERIM, ECHO)
        return self.total[column] - sum(self.classes[column][c] for c in out)

    def same(self, column: str) -> int:
        """Values that a row has."""
        return self.equal[column] + self.classes[column][LATER]

    def report(self) -> str:
        lines = []
        for column in COLUMNS:
            lines.append(f"{column}: {self.total[column]} values, {self.equal[column]} equal")
            lines += [f"    {n} {name}" for name, n in self.classes[column].most_common()]
        return "\n".join([*lines, *(f"  {r}" for r in self.rest)])


@cache
def compare(kind: str = "l7") -> Comparison:
    """The whole corpus, about 15 s; `kind` is l7, or l7reasm for tshark with reassembly."""
    result = Comparison()
    for path in sorted((CORPUS / "truth").glob(f"*.{kind}.parquet")):
        table = pq.read_table(path, columns=["frame", *COLUMNS])
        values = [r for r in table.to_pylist() if any(r[c] for c in COLUMNS)]
        if values:
            _capture(result, path.name.removesuffix(f".{kind}.parquet"), values)
    return result


def _capture(result: Comparison, name: str, values: list[dict[str, Any]]) -> None:
    packets = pq.read_table(CORPUS / "truth" / f"{name}.parquet", columns=["frame", "protocols"]).to_pylist()
    protocols = {r["frame"]: r["protocols"] for r in packets}
    path = CORPUS / "captures" / name
    if not _has_decoder(path):
        for value in values:
            for column in COLUMNS:
                if value[column]:
                    result.total[column] += 1
                    result.classes[column][NO_DECODER] += 1
        return
    frames = {p.frame: p for p in payloads(path)}
    again, rows = _retransmitted(frames), _Rows(path)
    for value in values:
        packet = frames.get(value["frame"])
        for column in COLUMNS:
            if not value[column]:
                continue
            result.total[column] += 1
            got = rows.at(packet, column) if packet else []
            if value[column] in got or "|".join(got) == value[column]:
                result.equal[column] += 1
                continue
            kind = _class(value, column, packet, protocols[value["frame"]], got)
            if not kind and packet and packet.frame in again:
                kind = AGAIN
            if not kind and packet and value[column] in rows.before(packet, column):
                kind = LATER
            if kind:
                result.classes[column][kind] += 1
            else:
                result.rest.append((name, value["frame"], column, value[column], got))


def _has_decoder(path: Path) -> bool:
    source = SavefileSource(str(path))
    try:
        source.open()
    except CorruptFile:
        return False
    finally:
        source.close()
    return True


def _class(value: dict[str, Any], column: str, packet: Payload | None, layers: str, got: list[str]) -> str:
    """The class that can be told from the frame alone."""
    told = value[column]
    if ":tls:http" in layers:
        return DECRYPTED
    if packet is None:
        return NOT_REACHED
    if (layers + ":").count(":ip:") + (layers + ":").count(":ipv6:") > 2:
        return DEEPER
    if column == "http_status" and len(told) == 3 and told[0] == "1" and told != "101":
        return INTERIM
    if column == "http_host" and value["http_status"] and not value["http_method"]:
        return ECHO
    if any("\\x" in g and (g.split("\\x00")[0] == told or "�" in told) for g in got):
        return NO_TEXT
    return ""


def _retransmitted(frames: dict[int, Payload]) -> set[int]:
    """Frames whose first byte was sent before."""
    seen: set[tuple[Any, ...]] = set()
    again: set[int] = set()
    for frame, p in frames.items():
        if p.proto == 6 and p.length:
            key = (p.src, p.dst, p.seq)
            if key in seen:
                again.add(frame)
            seen.add(key)
    return again


class _Rows:
    """Rows of a capture by the time of their request, response or message."""

    def __init__(self, path: Path) -> None:
        self._requests: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        self._replies: dict[Any, list[str]] = defaultdict(list)
        self._messages: dict[Any, list[str]] = defaultdict(list)
        _, flows = dissect(path)
        for seen in flows:
            sides = frozenset((seen.client, (seen.flow.dst_ip, seen.flow.dst_port)))
            for table, row in seen.rows:
                if table == "sip" and row["method"]:
                    self._messages[sides, row["ts"]].append(row["method"])
                if table != "http":
                    continue
                if row.get("method"):
                    self._requests[sides, row["ts"]].append(row)
                if row.get("status"):
                    self._replies[sides, row["ts"] + (row.get("latency_us") or 0)].append(str(row["status"]))

    def at(self, packet: Payload, column: str) -> list[str]:
        """Our values that begin with this packet."""
        key = frozenset((packet.src, packet.dst)), packet.ts
        if column == "sip_method":
            return self._messages.get(key, [])
        if column == "http_status":
            return self._replies.get(key, [])
        return [row[OF_REQUEST[column]] or "" for row in self._requests.get(key, [])]

    def before(self, packet: Payload, column: str) -> list[str]:
        """Our values of the last request of the flow that began before this packet."""
        sides = frozenset((packet.src, packet.dst))
        began = [ts for s, ts in self._requests if s == sides and ts < packet.ts]
        if column == "http_status":
            times = [ts for s, ts in self._replies if s == sides and ts < packet.ts]
            return self._replies[sides, max(times)] if times else []
        if column not in OF_REQUEST or not began:
            return []
        return [row[OF_REQUEST[column]] or "" for row in self._requests[sides, max(began)]]


if __name__ == "__main__":
    for truth in ("l7", "l7reasm"):
        print(truth, compare(truth).report(), sep="\n")
