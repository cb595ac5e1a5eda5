"""The two forms of a capture file that are written: pcap and pcapng, both with nanoseconds.

A form says how long a record is and fills in everything of many records at once but the frames themselves.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from analytics.frame_files import FILE_HEADER, RECORD_HEADER, Rows, items
from engine.constants import MAX_CAPLEN, PCAP_MAGIC_NS, PCAPNG_BLOCK_SHB
from engine.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

_EPB_HEADER: Final = 28
_EPB_FIXED: Final = 32  # with the length that is repeated at the end
_U64: Final = np.uint64


class Format(Protocol):
    """`header_bytes` come before each frame; `size_sql` is the size of the records of a group of rows."""

    header_bytes: int
    size_sql: str

    def begin(self, sources: Sequence[str], link_types: Sequence[int], name: Callable[[int], str]) -> None:
        """Take note of the places that frames will come from. Raises ConfigError when the form cannot hold them."""

    def head(self) -> bytes:
        """What the file begins with."""

    def lengths(self, caplen: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bytes of each record."""

    def place_headers(
        self, out: NDArray[np.uint8], at: NDArray[np.int64], rows: Rows, kept: NDArray[np.int64],
        caplen: NDArray[np.int64], place: NDArray[np.int64],
    ) -> None:  # fmt: skip
        """Write all of the records that begin at `at` (rows `kept`) but their frames."""


class PcapFormat:
    """draft-ietf-opsawg-pcap, nanosecond magic. One link type for all; times are clamped to 32 bits of seconds."""

    header_bytes = RECORD_HEADER
    size_sql = f"sum({RECORD_HEADER} + caplen)::BIGINT"

    def __init__(self) -> None:
        self._link_type = 0

    def begin(self, sources: Sequence[str], link_types: Sequence[int], name: Callable[[int], str]) -> None:
        kinds = sorted(set(link_types))
        if len(kinds) > 1:
            raise ConfigError(
                f"the selection has several link types, {', '.join(map(name, kinds))}, and .pcap holds one; "
                "name the output .pcapng, or select one source"
            )
        self._link_type = kinds[0]

    def head(self) -> bytes:
        head = struct.pack("<IHHiIII", PCAP_MAGIC_NS, 2, 4, 0, 0, MAX_CAPLEN, self._link_type)
        assert len(head) == FILE_HEADER
        return head

    def lengths(self, caplen: NDArray[np.int64]) -> NDArray[np.int64]:
        return caplen + RECORD_HEADER

    def place_headers(
        self, out: NDArray[np.uint8], at: NDArray[np.int64], rows: Rows, kept: NDArray[np.int64],
        caplen: NDArray[np.int64], place: NDArray[np.int64],
    ) -> None:  # fmt: skip
        header = rows.header()[kept]
        header[:, 2] = caplen
        if len(at):
            items(out, RECORD_HEADER)[at] = header.view(f"V{RECORD_HEADER}")[:, 0]


class PcapngFormat:
    """draft-ietf-opsawg-pcapng: one section, one interface for each source and link type, nanoseconds."""

    header_bytes = _EPB_HEADER
    size_sql = f"sum({_EPB_FIXED} + (caplen + 3) // 4 * 4)::BIGINT"

    def __init__(self) -> None:
        self._interfaces: dict[tuple[str, int], int] = {}
        self._interface_of = np.empty(0, np.uint32)

    def begin(self, sources: Sequence[str], link_types: Sequence[int], name: Callable[[int], str]) -> None:
        pairs = list(zip(sources, link_types, strict=True))
        self._interfaces = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
        self._interface_of = np.array([self._interfaces[pair] for pair in pairs], np.uint32)

    def head(self) -> bytes:
        section = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + _option(4, b"PacketLake") + bytes(4)
        blocks = [_block(PCAPNG_BLOCK_SHB, section)]
        for source, link_type in self._interfaces:
            options = _option(2, source.encode()[:0xFFFF]) + _option(9, b"\x09") + bytes(4)
            blocks.append(_block(1, struct.pack("<HHI", link_type, 0, MAX_CAPLEN) + options))
        return b"".join(blocks)

    def lengths(self, caplen: NDArray[np.int64]) -> NDArray[np.int64]:
        return _EPB_FIXED + (caplen + 3) // 4 * 4

    def place_headers(
        self, out: NDArray[np.uint8], at: NDArray[np.int64], rows: Rows, kept: NDArray[np.int64],
        caplen: NDArray[np.int64], place: NDArray[np.int64],
    ) -> None:  # fmt: skip
        if not len(at):
            return
        out[:] = 0  # the padding
        length = self.lengths(caplen)
        ns = np.maximum(rows.ts_us[kept] * 1000 + rows.ts_nanos[kept], 0).view(_U64)
        header = np.empty((len(at), 7), np.uint32)
        header[:, 0] = 6
        header[:, 1] = length
        header[:, 2] = self._interface_of[place]
        header[:, 3] = ns >> _U64(32)
        header[:, 4] = ns & _U64(0xFFFFFFFF)
        header[:, 5] = caplen
        header[:, 6] = np.clip(rows.wirelen[kept], 0, 0xFFFFFFFF)
        items(out, _EPB_HEADER)[at] = header.view(f"V{_EPB_HEADER}")[:, 0]
        items(out, 4)[at + length - 4] = np.ascontiguousarray(header[:, 1]).view("V4")


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + size + body + size
