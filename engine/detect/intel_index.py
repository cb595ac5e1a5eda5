"""Entries of intel lists, ready to be looked up: addresses for the kernel, names and fingerprints as dictionaries."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from engine.detect.intel_lists import Entry
from engine.kernels import intel as kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LABELS = 12  # of a name, looked at from the right


class IntelIndex:
    """Finds entries. `entries`: all of them, numbered."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = list(entries)
        self._names: dict[str, int] = {}
        self._hashes: dict[str, int] = {}
        v4: list[tuple[int, int, int]] = []
        v6: list[tuple[int, int, int]] = []
        for number, entry in enumerate(self.entries):
            if entry.kind == "domain":
                self._names.setdefault(entry.value, number)
            elif entry.kind in ("ja3", "ja4"):
                self._hashes.setdefault(entry.value, number)
            else:
                network = ipaddress.ip_network(entry.value)
                first, last = int(network.network_address), int(network.broadcast_address)
                (v4 if network.version == 4 else v6).append((first, last, number))
        self._fill_v4(_flatten(v4))
        self._fill_v6(_flatten(v6))
        self.has_addresses = bool(v4 or v6)

    def find_addresses(
        self, short: NDArray[np.int16], address: NDArray[np.uint64], present: NDArray[np.uint32], first: int,
        count: int, hits: NDArray[np.int64],
    ) -> tuple[int, int]:  # fmt: skip
        """See `kernels.intel.match_addresses`."""
        found, row = kernel.match_addresses(
            short, address, present, first, count, self._bits4, self._index4, self._starts4, self._ends4,
            self._entries4, self._bits6, self._ranges6, self._entries6, hits,
        )  # fmt: skip
        return int(found), int(row)

    def find_name(self, name: str) -> int | None:
        """The entry of a name or of a parent of it, the longest one."""
        labels = name.lower().rstrip(".").split(".")
        for at in range(max(0, len(labels) - _LABELS), len(labels) - 1):
            number = self._names.get(".".join(labels[at:]))
            if number is not None:
                return number
        return None

    def find_hash(self, value: str) -> int | None:
        """The entry of a JA3 or JA4."""
        return self._hashes.get(value)

    def _fill_v4(self, ranges: list[tuple[int, int, int]]) -> None:
        table = np.array(ranges, np.int64).reshape(-1, 3)
        self._starts4, self._ends4 = np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1])
        self._entries4 = table[:, 2].astype(np.int32)
        self._index4 = np.searchsorted(self._starts4, np.arange(65_537, dtype=np.int64) << 16).astype(np.int32)
        bits = np.zeros(kernel.BITS_V4 + 1, np.int32)
        np.add.at(bits, self._starts4 >> 8, 1)
        np.add.at(bits, (self._ends4 >> 8) + 1, -1)
        self._bits4 = np.packbits(np.cumsum(bits[:-1]) > 0, bitorder="little")

    def _fill_v6(self, ranges: list[tuple[int, int, int]]) -> None:
        mask = (1 << 64) - 1
        self._ranges6 = np.array(
            [[a >> 64 for a, _, _ in ranges], [a & mask for a, _, _ in ranges],
             [b >> 64 for _, b, _ in ranges], [b & mask for _, b, _ in ranges]], np.uint64,
        ).reshape(4, len(ranges))  # fmt: skip
        self._entries6 = np.array([n for _, _, n in ranges], np.int32)
        self._bits6: NDArray[np.uint8] = np.zeros(kernel.BITS_V6 // 8, np.uint8)
        for first, last, _ in ranges:
            low, high = first >> 96, last >> 96
            if high - low >= kernel.BITS_V6:
                self._bits6[:] = 255
                break
            cells = np.arange(low, high + 1, dtype=np.int64) * 0x5851F42D >> 11 & 0xFFFFF
            np.bitwise_or.at(self._bits6, cells >> 3, _BIT[cells & 7])


_BIT = np.array([1 << n for n in range(8)], np.uint8)


def _flatten(ranges: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Nested or equal networks as disjoint intervals in order: the smallest network that holds an address wins."""
    unique: dict[tuple[int, int], int] = {}
    for first, last, number in ranges:
        unique.setdefault((first, last), number)
    out: list[tuple[int, int, int]] = []
    around: list[tuple[int, int]] = []  # last address and entry of the networks around, widest first
    at = 0  # first address that is not yet given to anybody
    for (first, last), number in sorted(unique.items(), key=lambda item: (item[0][0], -item[0][1])):
        while around and around[-1][0] < first:
            at = _give(out, at, *around.pop())
        if around:
            at = _give(out, at, first - 1, around[-1][1])
        at = max(at, first)
        around.append((last, number))
    while around:
        at = _give(out, at, *around.pop())
    return out


def _give(out: list[tuple[int, int, int]], at: int, last: int, number: int) -> int:
    """Give the addresses from `at` to `last` to an entry; returns the next address."""
    if at <= last:
        out.append((at, last, number))
    return max(at, last + 1)
