"""Live capture over a private veth pair: nothing lost, nothing changed, every loss counted."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from engine.capture.live import LiveSource
from engine.capture.source import ReadResult
from engine.config import CaptureConfig
from engine.errors import CaptureError, ConfigError
from engine.jit import is_compiled
from engine.packets import F_CAPLEN, F_LINK_TYPE, F_OFFSET, F_TS_NS, F_WIRELEN, FrameBatch
from tests import netns
from tests.netns import Wire, wire_fixture  # noqa: F401 — a fixture

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not is_compiled(), reason="the capture callback exists only compiled"),
]

SMALL = {"snaplen": 2048, "buffer_bytes": 4 << 20}


def udp(size: int, mark: int, port: int = 9) -> bytes:
    """An Ethernet/IPv4/UDP frame of `size` bytes that carries `mark`."""
    payload = struct.pack(">I", mark) + bytes(size - 46)
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, size - 14, 0, 0, 64, 17, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
    udp_header = struct.pack(">HHHH", 1000, port, size - 34, 0)
    return b"\x02\0\0\0\0\1" + b"\x02\0\0\0\0\2" + b"\x08\0" + header + udp_header + payload


def frames_of(batch: FrameBatch) -> list[bytes]:
    offsets, caplens = batch.frames[F_OFFSET, : batch.count], batch.frames[F_CAPLEN, : batch.count]
    return [batch.arena[o : o + c].tobytes() for o, c in zip(offsets, caplens, strict=True)]


@contextmanager
def opened(wire: Wire, name: str = "", **options: object) -> Iterator[LiveSource]:
    source = LiveSource(name or wire.capture, CaptureConfig(**{**SMALL, **options}))  # type: ignore[arg-type]
    with wire.inside():
        source.open()
    try:
        yield source
    finally:
        source.close()


def collect(source: LiveSource, batch: FrameBatch, wanted: int, wait_s: float = 3.0) -> list[bytes]:
    """Read until `wanted` frames came, reusing one batch; then for a little longer, for frames too many."""
    found: list[bytes] = []
    end = time.monotonic() + wait_s
    while time.monotonic() < end:
        batch.clear()
        result = source.read(batch)
        found += frames_of(batch)
        if result is ReadResult.IDLE:
            if len(found) >= wanted:
                end = min(end, time.monotonic() + 0.25)
            time.sleep(0.005)
    return found


def test_live__every_frame_arrives_unchanged(wire: Wire) -> None:
    rng = random.Random(1)
    sent = [udp(rng.choice([60, 61, 100, 1514, rng.randrange(60, 1515)]), i) for i in range(3000)]
    batch = FrameBatch()
    with opened(wire) as source:
        before = time.time_ns()
        wire.transmit(sent)
        end = time.monotonic() + 3
        while batch.count < len(sent) and time.monotonic() < end:
            source.read(batch)
        assert frames_of(batch) == sent
        assert (batch.frames[F_WIRELEN, : batch.count] == [len(f) for f in sent]).all()
        assert (batch.frames[F_LINK_TYPE, : batch.count] == 1).all()
        stamps = batch.frames[F_TS_NS, : batch.count]
        assert (np.diff(stamps) >= 0).all()
        assert before <= stamps[0] <= stamps[-1] <= time.time_ns()
        assert (stamps % 1000).any(), "nanoseconds"
        assert source.counters().received == len(sent)
        assert source.unread() == 0


@pytest.mark.parametrize(("rows", "arena"), [(7, 1 << 20), (1, 2048), (1000, 2048), (1000, 5000), (13, 3 * 2048 + 1)])
def test_live__tiny_batches_lose_nothing(wire: Wire, rows: int, arena: int) -> None:
    sent = [udp(60 + i % 1400, i) for i in range(2000)]
    with opened(wire) as source:
        wire.transmit(sent)
        assert collect(source, FrameBatch(rows=rows, arena_bytes=arena), len(sent)) == sent
        assert source.unread() == 0


def test_live__full_batch_says_so_and_keeps_its_frames(wire: Wire) -> None:
    with opened(wire) as source:
        wire.transmit([udp(60, i) for i in range(20)])
        time.sleep(0.3)
        batch = FrameBatch(rows=8, arena_bytes=1 << 20)
        assert source.read(batch) is ReadResult.FULL
        kept = frames_of(batch)
        assert source.read(batch) is ReadResult.FULL
        assert frames_of(batch) == kept
        assert source.unread() == 12
        with pytest.raises(ConfigError, match="snaplen 2048 is more than a batch's 100 bytes"):
            source.read(FrameBatch(rows=8, arena_bytes=100))


def test_live__quiet_link_is_idle_at_once_and_polls(wire: Wire) -> None:
    with opened(wire) as source:
        started = time.monotonic()
        assert source.read(FrameBatch(rows=8, arena_bytes=4096)) is ReadResult.IDLE
        assert time.monotonic() - started < 0.05
        assert source.fileno() >= 0


def test_live__one_frame_is_readable_within_a_quarter_second(wire: Wire) -> None:
    with opened(wire) as source:
        wire.transmit([udp(60, 1)])
        started = time.monotonic()
        batch = FrameBatch(rows=8, arena_bytes=4096)
        while not batch.count and time.monotonic() - started < 2:
            source.read(batch)
            time.sleep(0.002)
        assert time.monotonic() - started < 0.25


def test_live__snaplen_cuts_and_wirelen_tells(wire: Wire) -> None:
    sent = [udp(n, n) for n in (60, 99, 100, 101, 1514)]
    with opened(wire, snaplen=100) as source:
        wire.transmit(sent)
        batch = FrameBatch(rows=100, arena_bytes=4096)
        end = time.monotonic() + 2
        while batch.count < len(sent) and time.monotonic() < end:
            source.read(batch)
    assert frames_of(batch) == [f[:100] for f in sent]
    assert batch.frames[F_WIRELEN, : batch.count].tolist() == [len(f) for f in sent]


def test_live__microseconds_when_asked(wire: Wire) -> None:
    with opened(wire, nanoseconds=False) as source:
        wire.transmit([udp(60, i) for i in range(50)])
        batch = FrameBatch(rows=100, arena_bytes=1 << 16)
        end = time.monotonic() + 2
        while batch.count < 50 and time.monotonic() < end:
            source.read(batch)
        stamps = batch.frames[F_TS_NS, :50]
        assert not (stamps % 1000).any()
        assert abs(int(stamps[0]) - time.time_ns()) < 5e9


def test_live__filter_selects_and_counts_from_its_attachment(wire: Wire) -> None:
    sent = [udp(60 + i % 900, i, port=(i % 3) + 50) for i in range(900)]
    with opened(wire, bpf_filter="udp dst port 51") as source:
        wire.transmit(sent)
        assert collect(source, FrameBatch(), 300) == [f for i, f in enumerate(sent) if i % 3 == 1]
        assert source.counters().received == 300
        assert source.unread() == 0


def test_live__filter_opened_under_traffic_still_balances(wire: Wire) -> None:
    """Frames that came before the filter was attached are neither delivered nor counted."""
    blast = wire_blast(wire, 1.5)
    try:
        time.sleep(0.3)
        with opened(wire, bpf_filter="udp port 53") as source:
            blast.wait()
            wire.transmit([udp(80, i, port=53) for i in range(10)])
            assert len(collect(source, FrameBatch(), 10)) == 10
            assert source.counters().received == 10
            assert source.unread() == 0
    finally:
        blast.kill()
        blast.wait()


def wire_blast(wire: Wire, seconds: float):
    """Another process that sends UDP frames to port 9 as fast as it can."""
    import subprocess
    import sys

    code = (
        "import socket, sys, time; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0); s.bind((sys.argv[1], 0))\n"
        f"f = {udp(60, 0)!r}; end = time.monotonic() + {seconds}\n"
        "while time.monotonic() < end: s.send(f)\n"
    )
    return subprocess.Popen(["ip", "netns", "exec", wire.there, sys.executable, "-S", "-c", code, wire.send])


def test_live__vlan_tag_is_put_back(wire: Wire) -> None:
    plain = udp(100, 1)
    tagged = plain[:12] + b"\x81\x00\x00\x07" + plain[12:]
    with opened(wire) as source, opened(wire, bpf_filter="vlan 7") as filtered:
        wire.transmit([tagged, plain])
        batch = FrameBatch(rows=8, arena_bytes=1 << 16)
        assert collect(source, batch, 2) == [tagged, plain]
        batch.clear()
        filtered.read(batch)
        assert frames_of(batch) == [tagged]
        assert batch.frames[F_WIRELEN, 0] == 104


def test_live__vlan_tag_at_the_snaplen(wire: Wire) -> None:
    plain = udp(100, 1)
    tagged = plain[:12] + b"\x81\x00\x00\x07" + plain[12:]
    with opened(wire, snaplen=100) as source:
        wire.transmit([tagged] * 30)
        assert collect(source, FrameBatch(rows=30, arena_bytes=250), 30) == [tagged[:100]] * 30


def test_live__two_interfaces_do_not_mix(wire: Wire) -> None:
    with netns.wire() as other, opened(wire) as one, opened(other) as two:
        a, b = [udp(60, i) for i in range(100)], [udp(90, i) for i in range(150)]
        wire.transmit(a)
        other.transmit(b)
        assert collect(one, FrameBatch(), 100) == a
        assert collect(two, FrameBatch(), 150) == b


@pytest.mark.parametrize("condition", ["", "udp"])
def test_live__overload_balances_exactly(wire: Wire, condition: str) -> None:
    """A full ring: what arrived = what was delivered + what the kernel says it dropped, at every moment."""
    with opened(wire, buffer_bytes=1 << 20, bpf_filter=condition) as source:
        sent = [udp(1514, i) for i in range(2500)]
        wire.transmit(sent)
        counted = source.counters()
        assert counted.received == len(sent)
        assert counted.kernel_drops > 0
        assert source.unread() == len(sent) - counted.kernel_drops
        found = collect(source, FrameBatch(rows=7, arena_bytes=1 << 20), source.unread())
        assert len(found) + source.counters().kernel_drops == source.counters().received == len(sent)
        assert set(found) <= set(sent)
        wire.transmit(sent[:100])  # the ring takes frames again
        assert collect(source, FrameBatch(), 100) == sent[:100]


def test_live__jumbo_frames_fit(wire: Wire) -> None:
    with netns.wire(mtu=65_000) as big, opened(big, snaplen=262_144) as source:
        sent = [udp(65_014, i) for i in range(20)]
        big.transmit(sent)
        assert collect(source, FrameBatch(rows=64, arena_bytes=600_000), 20) == sent


def test_live__loopback_counts_each_frame_once(wire: Wire) -> None:
    netns.ip("-n", wire.here, "link", "set", "lo", "up")
    with opened(wire, "lo") as source:
        with wire.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("127.0.0.1", 0))
            for i in range(50):
                sender.sendto(struct.pack(">I", i) * 10, sender.getsockname())
        found = collect(source, FrameBatch(), 50)
        assert [f[42:46] for f in found] == [struct.pack(">I", i) for i in range(50)]
        assert source.counters().received == 50
        assert source.unread() == 0


def test_live__any_hears_all_interfaces_and_loopback_once(wire: Wire) -> None:
    netns.ip("-n", wire.here, "link", "set", "lo", "up")
    with opened(wire, "any") as source:
        assert source.link_type == 276
        wire.transmit([udp(60, i) for i in range(10)])
        with wire.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("127.0.0.1", 0))
            for _ in range(5):
                sender.sendto(b"x", sender.getsockname())
        assert len(collect(source, FrameBatch(), 15)) == 15
        assert source.counters().received == 15


def expect_failure(source: LiveSource, wanted: int) -> tuple[str, int]:
    """Read until the source raises; returns the message and how many frames came before it."""
    batch, end = FrameBatch(), time.monotonic() + 3
    with pytest.raises(CaptureError) as raised:  # noqa: PT012 — it takes several reads
        while time.monotonic() < end:
            source.read(batch)
            time.sleep(0.005)
    return str(raised.value), batch.count


@pytest.mark.parametrize("renamed", [False, True])
def test_live__lost_interface_is_told_after_its_last_frames(wire: Wire, renamed: bool) -> None:
    """Renamed is lost, too: libpcap asks for it by its name once it has been down."""
    with opened(wire) as source:
        wire.transmit([udp(60, i) for i in range(25)])
        if renamed:
            netns.ip("-n", wire.here, "link", "set", wire.capture, "down")
            netns.ip("-n", wire.here, "link", "set", wire.capture, "name", "other0")
        else:
            netns.ip("-n", wire.here, "link", "del", wire.capture)
        message, count = expect_failure(source, 25)
        assert count == 25
        reason = "The interface disappeared"
        assert message.startswith(f"interface {wire.capture}: {reason}; check `ip link show {wire.capture}`")
        assert source.counters().received == 25
        assert source.counters().interface_drops == 0


def test_live__goes_on_when_the_interface_is_up_again(wire: Wire) -> None:
    with opened(wire) as source:
        wire.transmit([udp(60, 0)])
        netns.ip("-n", wire.here, "link", "set", wire.capture, "down")
        batch = FrameBatch()
        assert collect(source, batch, 1) == [udp(60, 0)]
        for _ in range(20):
            time.sleep(0.05)
            assert source.read(batch) is ReadResult.IDLE
        assert source.down
        netns.ip("-n", wire.here, "link", "set", wire.capture, "up")
        time.sleep(0.4)
        wire.transmit([udp(60, 1)])
        batch.clear()
        assert collect(source, batch, 1) == [udp(60, 1)]
        assert not source.down
        assert source.counters().received == 2


def test_live__errors_name_thing_and_remedy(wire: Wire) -> None:
    def refusal(name: str, kind: type[Exception], **options: object) -> str:
        with pytest.raises(kind) as raised, opened(wire, name, **options):
            pass
        assert "\n" not in str(raised.value)
        return str(raised.value)

    assert "no interface 'nope0'; present are cap0, lo: `engine interfaces`" in refusal("nope0", CaptureError)
    assert refusal("", ConfigError, bpf_filter="tcp porx 80").startswith("BPF filter 'tcp porx 80' is wrong: ")
    too_long = " or ".join(f"ether[{i}:4] = {i * 7}" for i in range(1600))
    assert "cannot run in the kernel (4" in refusal("", ConfigError, bpf_filter=too_long)
    netns.ip("-n", wire.here, "link", "set", wire.capture, "down")
    assert refusal("", CaptureError) == "interface cap0 is down: bring it up with `ip link set cap0 up`"


def test_live__unknown_link_type_is_refused(wire: Wire) -> None:
    try:
        netns.ip("-n", wire.here, "link", "add", "odd0", "type", "nlmon")
    except RuntimeError as error:
        pytest.skip(f"no interface of an unknown link type: {error}")
    netns.ip("-n", wire.here, "link", "set", "odd0", "up")
    with pytest.raises(CaptureError, match="odd0 has link type NETLINK, which has no decoder"), opened(wire, "odd0"):
        pass


def test_live__use_after_close_is_an_error_and_counters_stay(wire: Wire) -> None:
    with opened(wire) as source:
        wire.transmit([udp(60, 1)])
        assert len(collect(source, FrameBatch(), 1)) == 1
    source.close()
    assert source.counters().received == 1
    with pytest.raises(CaptureError, match="not open"):
        source.read(FrameBatch(rows=1, arena_bytes=4096))
    with pytest.raises(CaptureError, match="not open"):
        source.fileno()


def test_live__32_bit_totals_are_extended(wire: Wire) -> None:
    with opened(wire) as source:
        source._last.ps_recv = 0xFFFFFFF0  # as if that many had been counted
        wire.transmit([udp(60, i) for i in range(100)])
        time.sleep(0.2)
        assert source.counters().received == 100 + 16
