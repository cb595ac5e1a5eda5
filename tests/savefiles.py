"""Savefiles made byte by byte: pcap and pcapng in every form the formats allow."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

from engine.capture.savefile import SavefileSource
from engine.capture.source import ReadResult
from engine.errors import EngineError
from engine.packets import FrameBatch

Frames = list[tuple[Any, ...]]


def pcap_bytes(
    frames: Iterable[bytes],
    *,
    big_endian: bool = False,
    nanoseconds: bool = False,
    modified: bool = False,
    link_type: int = 1,
    start: int = 1_700_000_000,
    wirelens: Sequence[int] | None = None,
    version: tuple[int, int] = (2, 4),
) -> bytes:
    """A pcap file; frame i is at `start` seconds and 1000 * i + 7 microseconds (or nanoseconds)."""
    end = ">" if big_endian else "<"
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2CD34 if modified else 0xA1B2C3D4
    out = [struct.pack(end + "IHHiIII", magic, *version, 0, 0, 262_144, link_type)]
    for i, frame in enumerate(frames):
        wirelen = len(frame) if wirelens is None else wirelens[i]
        out.append(struct.pack(end + "IIII", start + i // 900, 1000 * (i % 900) + 7, len(frame), wirelen))
        out += [bytes(8)] if modified else []
        out.append(frame)
    return b"".join(out)


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def block(kind: int, body: bytes, end: str = "<") -> bytes:
    """One pcapng block."""
    size = struct.pack(end + "I", 12 + len(_pad(body)))
    return struct.pack(end + "I", kind) + size + _pad(body) + size


def section(end: str = "<", version: tuple[int, int] = (1, 0)) -> bytes:
    return block(0x0A0D0D0A, struct.pack(end + "IHHq", 0x1A2B3C4D, *version, -1), end)


def interface(
    link_type: int = 1, *, snaplen: int = 0, tsresol: int | None = None, tsoffset: int | None = None, end: str = "<"
) -> bytes:
    options = b"" if tsresol is None else struct.pack(end + "HHB3x", 9, 1, tsresol)
    options += b"" if tsoffset is None else struct.pack(end + "HHq", 14, 8, tsoffset)
    options += bytes(4) if options else b""
    return block(1, struct.pack(end + "HHI", link_type, 0, snaplen) + options, end)


def enhanced(frame: bytes, ticks: int, number: int = 0, end: str = "<", wirelen: int | None = None) -> bytes:
    head = struct.pack(end + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), wirelen or len(frame))
    return block(6, head + frame, end)


def simple(frame: bytes, end: str = "<", wirelen: int | None = None) -> bytes:
    return block(3, struct.pack(end + "I", wirelen or len(frame)) + frame, end)


def old_packet(frame: bytes, ticks: int, number: int = 0, end: str = "<") -> bytes:
    head = struct.pack(end + "HHIIII", number, 7, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
    return block(2, head + frame, end)


def pcapng_bytes(frames: Iterable[bytes], *, link_type: int = 1, big_endian: bool = False) -> bytes:
    """One section, one interface with nanoseconds; frame i is at 1 700 000 000 s + i us + 5 ns."""
    end = ">" if big_endian else "<"
    packets = [enhanced(f, 1_700_000_000 * 10**9 + 1000 * i + 5, end=end) for i, f in enumerate(frames)]
    return b"".join([section(end), interface(link_type, tsresol=9, end=end), *packets])


def read_file(source: SavefileSource, batch: FrameBatch | None = None) -> tuple[Frames, EngineError | None]:
    """All frames of a source as (ts_ns, bytes, wirelen, link type), and the error that ended it."""
    batch = batch or FrameBatch()
    out: Frames = []
    try:
        source.open()
        while True:
            batch.clear()
            result = source.read(batch)
            for ts, at, caplen, wirelen, link in batch.frames[:, : batch.count].T.tolist():
                out.append((ts, batch.arena[at : at + caplen].tobytes(), wirelen, link))
            if result is ReadResult.END:
                return out, None
    except EngineError as error:
        return out, error
    finally:
        source.close()
