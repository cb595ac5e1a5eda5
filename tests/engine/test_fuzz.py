"""Any bytes as a savefile end in frames or one EngineError; and the same rows without the compiler."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.capture.savefile import SavefileSource
from engine.capture.streams import ByteStream
from engine.errors import EngineError
from engine.packets import FrameBatch
from tests import savefiles as s
from tests.builders import decode, ethernet, ipv4, tcp, udp
from tests.engine.test_decode import CASES
from tests.savefiles import pcap_bytes, pcapng_bytes, read_file

ROOT = Path(__file__).parents[2]
FRAMES = [ethernet(ipv4(udp(bytes(20 * i)))) for i in range(6)]
VALID = [
    pcap_bytes(FRAMES),
    pcap_bytes(FRAMES, big_endian=True, nanoseconds=True),
    pcap_bytes(FRAMES, modified=True),
    pcapng_bytes(FRAMES),
    pcapng_bytes(FRAMES, big_endian=True),
    s.section() + s.interface(1, tsresol=6, tsoffset=3) + s.interface(101) + s.simple(b"a" * 60)
    + s.old_packet(b"b" * 61, 1) + s.block(77, bytes(33)) + s.section(">") + s.interface(113, end=">")
    + s.enhanced(b"c" * 70, 2**40, 0, ">") + s.simple(b"d" * 9, ">"),
]  # fmt: skip
WORDS = st.sampled_from([0, 1, 3, 4, 12, 16, 28, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 262_144, 262_145, 0x0A0D0D0A])
BATCH = FrameBatch(rows=64, arena_bytes=3 << 19)
fuzz = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Bytes:
    """A ByteStream of given bytes in pieces, with moments when nothing has arrived."""

    def __init__(self, data: bytes, piece: int = 1 << 20) -> None:
        self._data, self._at, self._piece, self._calls = data, 0, piece, 0

    def readinto(self, target: memoryview) -> int:
        self._calls += 1
        if self._calls % 3 == 0:
            return -1
        part = self._data[self._at : self._at + min(self._piece, len(target))]
        target[: len(part)] = part
        self._at += len(part)
        return len(part)

    def close(self) -> None:
        pass


def read(data: bytes, piece: int = 1 << 20, bpf: str = "") -> tuple[s.Frames, EngineError | None]:
    stream: ByteStream = Bytes(data, piece)
    return read_file(SavefileSource("fuzz", bpf, stream), BATCH)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid savefile with words and bytes overwritten, parts repeated, removed or cut off."""
    data = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, max(0, len(data) - 4)))
        how = draw(st.integers(0, 4))
        if how <= 1:
            at = at & ~3 if how else at
            data[at : at + 4] = struct.pack(draw(st.sampled_from("<>")) + "I", draw(WORDS))
        elif how == 2:
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif how == 3:
            del data[at : at + draw(st.integers(1, 40))]
        else:
            data[at:at] = data[at : at + draw(st.integers(1, 200))]
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@fuzz
@given(
    st.one_of(mutated(), mutated(), st.binary(max_size=300), st.binary(max_size=300).map(lambda b: VALID[3][:28] + b))
)
def test_savefile__any_bytes_end_in_frames_or_one_error(data: bytes) -> None:
    started = time.monotonic()
    frames, error = read(data)
    assert time.monotonic() - started < 5
    assert error is None or "\n" not in str(error)
    assert sum(len(f) for _, f, _, _ in frames) <= len(data)
    assert all(f in data for _, f, _, _ in frames)
    for link in {link for _, _, _, link in frames}:
        decode([f for _, f, _, at in frames if at == link], link, [w for _, _, w, at in frames if at == link])


@fuzz
@given(mutated(), st.sampled_from([1, 3, 16, 100]))
def test_savefile__pieces_change_nothing(data: bytes, piece: int) -> None:
    """However the bytes arrive, the same frames and the same error."""
    (frames, error), (again, second) = read(data), read(data, piece)
    assert frames == again
    assert (type(error), str(error)) == (type(second), str(second))


def test_savefile__given_stream_of_valid_bytes() -> None:
    for data in VALID:
        frames, error = read(data, 5)
        assert error is None
        assert len(frames) in (6, 4)


# --- without the compiler, and with its checks --------------------------------------------------------------------
def digest() -> str:
    """Of the rows of every encapsulation, whole, cut and with changed bytes."""
    out = hashlib.sha256()
    frames: dict[int, list[bytes]] = {}
    for i, (_, link, frame, _) in enumerate(CASES):
        changed = bytearray(frame)
        changed[i % len(frame)] ^= 0xFF
        changed[(7 * i + 30) % len(frame)] ^= 0x41
        frames.setdefault(link, []).extend([frame, frame[: 3 * i % len(frame)], bytes(changed)])
    frames[1].append(ethernet(ipv4(tcp(bytes(range(256)) * 5), 6)))
    for link, some in frames.items():
        out.update(
            repr([{**r, "entropy": r["entropy"] and round(r["entropy"], 5)} for r in decode(some, link)]).encode()
        )
    for data in VALID:
        for part in (data, data[: len(data) // 2], data[:-3]):
            out.update(repr(read(part)).replace(" object at", "").encode())
    return out.hexdigest()


@pytest.mark.parametrize("switch", ["NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK"])
def test_kernels__same_rows(switch: str) -> None:
    """As plain Python, and compiled with every index checked. The cache is empty: a warm one ignores the switch."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, switch: "1", "NUMBA_CACHE_DIR": cache}
        # Hashing wraps around, of which numpy warns where compiled code does not.
        code = "import numpy; numpy.seterr(over='ignore'); from tests.engine.test_fuzz import digest; print(digest())"
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == digest()
