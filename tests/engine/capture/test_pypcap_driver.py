"""The portable driver gives the same frames as the compiled one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from engine.capture.live import LiveSource
from engine.capture.pypcap_driver import PypcapSource
from engine.capture.source import ReadResult
from engine.config import CaptureConfig
from engine.errors import CaptureError, ConfigError
from engine.jit import is_compiled
from engine.packets import F_CAPLEN, F_TS_NS, F_WIRELEN, FrameBatch
from tests import netns
from tests.engine.capture.test_live import collect, frames_of, udp
from tests.netns import Wire, wire_fixture  # noqa: F401 — a fixture

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not is_compiled(), reason="the capture callback exists only compiled"),
]

CONFIG = CaptureConfig(snaplen=2048, buffer_bytes=4 << 20, driver="pypcap")


def test_pypcap__same_frames_and_times_as_the_compiled_driver(wire: Wire) -> None:
    sent = [udp(60 + i % 1400, i, port=50 + i % 3) for i in range(900)]
    config = CaptureConfig(snaplen=2048, buffer_bytes=4 << 20, bpf_filter="not udp dst port 52")
    one, two = PypcapSource(wire.capture, config), LiveSource(wire.capture, config)
    with wire.inside():
        one.open()
        two.open()
    wire.transmit(sent)
    a, b = FrameBatch(), FrameBatch()
    end = time.monotonic() + 3
    while min(a.count, b.count) < 600 and time.monotonic() < end:
        one.read(a)
        two.read(b)
    assert a.count == b.count == 600
    assert frames_of(a) == frames_of(b)
    for row in (F_TS_NS, F_CAPLEN, F_WIRELEN):
        assert a.frames[row, :600].tolist() == b.frames[row, :600].tolist()
    assert one.counters() == two.counters()
    assert one.unread() == 0
    one.close()
    two.close()
    one.close()
    assert one.counters().received == 600


def test_pypcap__tiny_batches_lose_nothing(wire: Wire) -> None:
    source = PypcapSource(wire.capture, CONFIG)
    with wire.inside():
        source.open()
    sent = [udp(60 + i % 1400, i) for i in range(300)]
    wire.transmit(sent)
    assert collect(source, FrameBatch(rows=7, arena_bytes=5000), 300) == sent  # type: ignore[arg-type]
    wire.transmit(sent[:20])
    time.sleep(0.3)
    batch = FrameBatch(rows=8, arena_bytes=1 << 20)
    assert source.read(batch) is ReadResult.MORE
    assert source.read(batch) is ReadResult.FULL
    source.close()


def test_pypcap__errors(wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with wire.inside():
        with pytest.raises(CaptureError, match="no interface 'nope0'; present are cap0, lo"):
            PypcapSource("nope0", CONFIG).open()
        with pytest.raises(ConfigError, match="BPF filter 'tcp porx' is wrong"):
            PypcapSource(wire.capture, CaptureConfig(bpf_filter="tcp porx")).open()
        (tmp_path / wire.capture).touch()
        with pytest.raises(CaptureError, match="a file 'cap0' lies in this directory"):
            PypcapSource(wire.capture, CONFIG).open()


def test_pypcap__interface_removed(wire: Wire) -> None:
    source = PypcapSource(wire.capture, CONFIG)
    with wire.inside():
        source.open()
    netns.ip("-n", wire.here, "link", "del", wire.capture)
    with pytest.raises(CaptureError, match="cap0: The interface disappeared; check"):  # noqa: PT012
        for _ in range(100):
            source.read(FrameBatch(rows=8, arena_bytes=1 << 16))
            time.sleep(0.01)
    source.close()
