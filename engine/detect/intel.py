"""The intel stage: who talks to an address, asks for a name or shows a fingerprint that a list holds.

Addresses are compared in a kernel over every packet, names and fingerprints where application rows are made. Lists are
read at the start; from the first batch on a thread of its own reads changed files again, and fetches URLs only where
the configuration asks for it. One `Intel` belongs to one thread.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engine import packets as k
from engine.config import IntelConfig
from engine.detect.finding import Finding
from engine.detect.intel_fetch import Version, fetch
from engine.detect.intel_index import IntelIndex
from engine.detect.intel_lists import MAX_ENTRIES, MAX_LIST, Entry, read_entries
from engine.detect.signatures.packet import address_text
from engine.errors import ConfigError
from engine.flows import FlowTable
from engine.kernels import intel as kernel
from engine.packets import FrameBatch, PacketBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HITS: Final = 16_384
_CHECK_S: Final = 10.0
_REMEMBERED: Final = 65_536
_MOST: Final = 4096  # findings of a batch: with forged addresses there may be any number
# Columns of application rows that hold names and fingerprints.
_NAMES: Final = {"dns": ("query",), "tls": ("sni",), "quic": ("sni",), "http": ("host",)}
_HASHES: Final = {"tls": ("ja3", "ja4"), "quic": ("ja3", "ja4")}


@dataclass(slots=True)
class _List:
    """One list: what was read of it, and when."""

    path: str
    entries: list[Entry] = field(default_factory=list)
    stamp: tuple[int, int] = (0, 0)  # mtime in ns and size of a file
    fetched: float = -1e18  # monotonic: when a URL was asked last,
    current: float = 0.0  # and when it answered
    version: Version = field(default_factory=Version)
    trouble: str = ""
    unreadable: bool = False

    @property
    def is_url(self) -> bool:
        return self.path.startswith(("http://", "https://"))


@dataclass(slots=True)
class _Told:
    """A pair that was reported."""

    ts: int
    src_ip: str
    dst_ip: str
    waiting: int = 0


class Intel:
    """Finds what the lists hold. Raises ConfigError for a list that cannot be read at the start."""

    def __init__(self, config: IntelConfig) -> None:
        self._config = config
        self._lists = [_List(path) for path in config.lists]
        self._hits: NDArray[np.int64] = np.zeros((kernel.N_HIT, _HITS), np.int64)
        self._told: dict[tuple[int, frozenset[str]], _Told] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.hits: Counter[str] = Counter()  # by list
        self.untold = 0  # pairs beyond the most of a batch
        self._index = IntelIndex([])
        self.refresh()
        for one in self._lists:
            if one.unreadable and not one.is_url:
                raise ConfigError(f"intel list {one.path}: {one.trouble}; give a readable file")

    # --- packets and rows -----------------------------------------------------------------------------------------

    def take(self, frames: FrameBatch, packets: PacketBatch, table: FlowTable) -> list[Finding]:
        """The findings of a batch's addresses."""
        if not self._lists:
            return []
        self._start()
        index, found = self._index, list[Finding]()
        row = 0 if index.has_addresses else packets.count
        while row < packets.count:
            n, row = index.find_addresses(
                packets.short, packets.address, packets.present, row, packets.count, self._hits
            )
            if n:
                self._take_hits(index, packets, self._hits[:, :n], found)
        return found

    def application_rows(self, table: str, rows: Sequence[dict[str, Any]], source: str = "") -> list[Finding]:
        """The findings of an application's rows."""
        found: list[Finding] = []
        if not self._lists or table not in _NAMES:
            return found
        index = self._index
        for row in rows:
            for column in (*_NAMES[table], *_HASHES.get(table, ())):
                value = row.get(column)
                if not isinstance(value, str) or not value:
                    continue
                name = value.rsplit(":", 1)[0] if column == "host" else value
                is_name = column in _NAMES[table]
                number = index.find_name(name) if is_name else index.find_hash(value)
                if number is not None:
                    self._tell_row(index.entries[number], number, table, column, row, source, found)
        return found

    def warm_up(self, packets: PacketBatch) -> None:
        """Compile what a batch needs."""
        self._index.find_addresses(packets.short, packets.address, packets.present, 0, packets.count, self._hits)

    def report(self) -> list[str]:
        """What each list holds, its hits, and what is wrong with it."""
        lines = []
        for one in self._lists:
            kinds = Counter(e.kind for e in one.entries)
            parts = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())) or "nothing"
            trouble = f" ({one.trouble})" if one.trouble else ""
            lines.append(f"intel list {one.path}: {parts}; {self.hits[one.path]} hits{trouble}")
        if self.untold:
            lines.append(f"intel: {self.untold} pairs of addresses were not reported, more than {_MOST} in a batch")
        return lines

    def close(self) -> None:
        """Stop reading lists."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)  # it may be waiting for a server

    # --- findings -------------------------------------------------------------------------------------------------

    def _take_hits(self, index: IntelIndex, p: PacketBatch, hits: NDArray[np.int64], found: list[Finding]) -> None:
        """One look per pair of addresses and entry, in the order of packets."""
        rows, entries, sides, inner = (
            hits[kernel.H_ROW],
            hits[kernel.H_ENTRY],
            hits[kernel.H_SIDE],
            hits[kernel.H_INNER],
        )
        a = np.where(inner, k.A_INNER_SRC_HI, k.A_SRC_HI)
        key = entries.astype(np.uint64) * np.uint64(2) + sides.astype(np.uint64)
        for word in range(4):
            key = (key ^ p.address[a + word, rows]) * np.uint64(0x9E3779B97F4A7C15)
            key ^= key >> np.uint64(29)
        _, first, counts = np.unique(key, return_index=True, return_counts=True)
        for at, count in sorted(zip(first.tolist(), counts.tolist(), strict=True)):
            self._tell_packet(index, p, hits[:, at].tolist(), count, found)

    def _tell_packet(self, index: IntelIndex, p: PacketBatch, hit: list[int], count: int, found: list[Finding]) -> None:
        row, number, side, inner = hit
        entry, ts, flags = index.entries[number], int(p.long[k.L_TS, row]), int(p.present[row])
        is_v6 = flags & k.IS_INNER_IPV6 != 0 if inner else int(p.short[k.S_IP_VERSION, row]) == 6
        a = k.A_INNER_SRC_HI if inner else k.A_SRC_HI
        words = [int(w) for w in p.address[a : a + 4, row]]
        src, dst = (address_text(words[n] << 64 | words[n + 1], is_v6) for n in (0, 2))
        port, has_ports = (
            (k.I_INNER_DST_PORT, k.HAS_INNER_PORTS) if inner else (k.I_DST_PORT, k.HAS_PORTS)
        )  # fmt: skip
        facts: dict[str, Any] = {"address": (src, dst)[side]}
        self._tell(
            entry, number, ts, src, dst, "medium" if side == 0 else "high", p.source, count, found, facts,
            dst_port=int(p.int_[port, row]) if flags & has_ports else None,
            flow=int(p.long[k.L_FLOW_ID, row]) if flags & k.HAS_FLOW else 0, frame=int(p.long[k.L_FRAME_NO, row]),
        )  # fmt: skip

    def _tell_row(
        self, entry: Entry, number: int, table: str, column: str, row: dict[str, Any], source: str,
        found: list[Finding],
    ) -> None:  # fmt: skip
        is_name = entry.kind == "domain"
        self._tell(
            entry, number, int(row["ts"]), str(row.get("src_ip")), str(row.get("dst_ip")), "high", source, 1, found,
            {"table": table, "column": column, column: row[column]}, dst_port=row.get("dst_port"),
            flow=int(row.get("flow_id") or 0), domain=str(row[column]) if is_name else None,
        )  # fmt: skip

    def _tell(
        self, entry: Entry, number: int, ts: int, src: str, dst: str, severity: str, source: str, count: int,
        found: list[Finding], facts: dict[str, Any], *, dst_port: int | None = None, flow: int = 0, frame: int = 0,
        domain: str | None = None,
    ) -> None:  # fmt: skip
        """A finding, unless the same pair was reported lately; who was seen first stays the source."""
        if entry.until and ts > entry.until * 1_000_000:
            return
        self.hits[entry.list_name] += count
        key = number, frozenset((src, dst))
        told = self._told.get(key)
        if told is not None and 0 <= ts - told.ts < self._config.repeat_s * 1_000_000:
            told.waiting += count
            return
        if len(found) >= _MOST:
            self.untold += 1
            return
        if told is None:
            if len(self._told) >= _REMEMBERED:
                del self._told[next(iter(self._told))]
            told = self._told[key] = _Told(ts, src, dst)
        turned = told.src_ip != src
        total, told.ts, told.waiting = count + told.waiting, ts, 0
        about = f": {entry.about}" if entry.about else ""
        what = {"ip": "address", "domain": "name", "ja3": "JA3", "ja4": "JA4"}[entry.kind]
        evidence = {
            "indicator": entry.value,
            "type": entry.kind,
            "list": entry.list_name,
            "about": entry.about,
            **facts,
        }
        found.append(Finding(
            ts=ts, kind="intel", severity=severity, src_ip=told.src_ip, dst_ip=told.dst_ip,
            dst_port=None if turned else dst_port, domain=domain, source=source, count=total,
            why=f"{what} {entry.value} is on the list {os.path.basename(entry.list_name)}{about}",
            evidence=evidence, flow_ids=(flow,) if flow else (), packets=(frame,) if frame else (),
        ))  # fmt: skip

    # --- lists ----------------------------------------------------------------------------------------------------

    def refresh(self) -> bool:
        """Read what has changed; True when anything has."""
        changed = [one for one in self._lists if self._read(one)]
        if changed:
            self._index = IntelIndex([e for one in self._lists for e in one.entries][:MAX_ENTRIES])
            self._told = {}  # entries have other numbers now
        return bool(changed)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="intel", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(_CHECK_S):
            self.refresh()

    def _read(self, one: _List) -> bool:
        """Read a list if it is new; keeps what there was when it cannot be read."""
        try:
            text = self._fetch(one) if one.is_url else self._load(one)
        except (OSError, ValueError) as error:
            one.trouble, one.unreadable = getattr(error, "strerror", None) or str(error), True
            return False
        one.unreadable = False
        if text is None:
            return False
        one.entries = list(read_entries(text, one.path)) if text else []
        return True

    def _load(self, one: _List) -> str | None:
        info = os.stat(one.path)
        age_s, most_s = time.time() - info.st_mtime, self._config.max_age_days * 86_400
        if most_s and age_s > most_s:
            was = one.trouble
            one.trouble = f"older than {self._config.max_age_days} days, not used"
            one.stamp = (0, 0)
            return None if was == one.trouble else ""
        if one.stamp == (info.st_mtime_ns, info.st_size):
            return None
        if info.st_size > MAX_LIST:
            raise ValueError(f"larger than {MAX_LIST >> 20} MiB")
        with open(one.path, "rb") as file:
            data = file.read()
        one.stamp, one.trouble = (info.st_mtime_ns, info.st_size), ""
        return data.decode("utf-8", "replace")

    def _fetch(self, one: _List) -> str | None:
        every = self._config.refresh_minutes * 60
        if not every:
            one.trouble = "not fetched: intel.refresh_minutes is 0"
            return None
        now = time.monotonic()
        if now - one.fetched >= every and self._thread is not None:  # never while the capture waits to start
            one.fetched = now
            try:
                text = self._answer(one)
            except (OSError, ValueError) as error:
                one.trouble = getattr(error, "strerror", None) or str(error)
            else:
                one.trouble, one.current = "", now
                if text is not None:
                    return text
        elif one.fetched < 0:
            one.trouble = "not fetched yet"
        days = self._config.max_age_days
        if one.entries and days and now - one.current > days * 86_400:
            one.trouble, one.version = f"not fetched for {days} days, not used ({one.trouble})", Version()
            return ""
        return None

    def _answer(self, one: _List) -> str | None:
        """What the server sends, None when it is what we have. Raises OSError or ValueError for no list."""
        answer = fetch(one.path, one.version)
        if answer is None:
            return None
        text, version = answer
        if next(read_entries(text, one.path), None) is None:
            raise ValueError("the answer holds no address, name or fingerprint")
        one.version = version
        return text
