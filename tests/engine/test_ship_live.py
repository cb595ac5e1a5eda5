"""Two sensors in namespaces of their own ship to one S3 server in a third, which is killed and comes back.

PACKETLAKE_OUTAGE_S sets for how long (10; the documented longer form is 60).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import analytics
from benchmarks.wire import Wire, ip, usable, wire
from tests.commands import ENGINE, Running, engine
from tests.s3 import BUCKET, SECRET, S3Server, serving

pytestmark = pytest.mark.root
OUTAGE_S = float(os.environ.get("PACKETLAKE_OUTAGE_S", "10"))
URL = f"s3://{BUCKET}/site"
CONFIG = """
[frames]
mode = "off"
[retention]
enabled = false
[scoring]
enabled = false
[ship]
every_s = 1.0
"""


def frame(sensor: int, number: int) -> bytes:
    """A UDP datagram of its own flow; the two sensors' differ in length."""
    ends = bytes([10, sensor, number >> 8 & 255, number & 255, 10, 99, 0, 1])
    udp = (1024 + number % 60_000).to_bytes(2, "big") + bytes.fromhex("1388 0048 0000") + bytes(64 * sensor)
    head = bytes.fromhex("4500") + (20 + len(udp)).to_bytes(2, "big") + bytes.fromhex("0000 0000 4011 0000")
    return bytes.fromhex("020000000001 020000000002 0800") + head + ends + udp


def until(what: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@contextlib.contextmanager
def site() -> Iterator[tuple[str, list[Wire]]]:
    """A namespace for the store, two wires to capture from, and a link from each of these sensors to the store."""
    store = f"pls{os.getpid()}"
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(wire()) for _ in range(2)]
        stack.callback(subprocess.run, ["ip", "netns", "del", store], capture_output=True)
        ip("netns", "add", store)
        ip("-n", store, "link", "set", "lo", "up")
        ip("-n", store, "addr", "add", "10.91.0.1/32", "dev", "lo")
        for number, one in enumerate(wires, 1):
            ip("link", "add", "mgt0", "netns", one.here, "type", "veth", "peer", "name", f"to{number}", "netns", store)
            ip("-n", store, "addr", "add", f"10.91.{number}.1/30", "dev", f"to{number}")
            ip("-n", store, "link", "set", f"to{number}", "up")
            ip("-n", one.here, "link", "set", "lo", "up")
            ip("-n", one.here, "addr", "add", f"10.91.{number}.2/30", "dev", "mgt0")
            ip("-n", one.here, "link", "set", "mgt0", "up")
            ip("-n", one.here, "route", "add", "10.91.0.1/32", "via", f"10.91.{number}.1")
        yield store, wires


class Sensor:
    """An engine that captures and ships."""

    def __init__(self, number: int, one: Wire, folder: Path, server: S3Server) -> None:
        self.number, self.wire, self.lake = number, one, folder / f"lake{number}"
        self.sent = 0
        self.environment = dict(server.environment)
        config = folder / "c.toml"
        config.write_text(CONFIG)
        words: list[str | Path] = ["run", "--iface", one.capture, "--lake", self.lake, "--no-dashboard"]
        words += ["--sensor", f"s{number}", "--ship", URL, "--config", config]
        prefix = ["ip", "netns", "exec", one.here]
        self.running = Running(prefix, words, folder / f"log{number}", env=self.environment)

    def send(self, count: int = 100) -> None:
        self.wire.transmit([frame(self.number, self.sent + n) for n in range(count)])
        self.sent += count

    def state(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self.lake / ".ship" / "state.json").read_text())
            return dict(found)
        return {}

    def rows(self) -> int:
        """In its own lake."""
        return int(totals(self.lake)[0])

    def there(self, sql: str) -> list[str]:
        """What the shared lake says to somebody at this sensor, one line a row."""
        done = self.wire.run(*ENGINE, "sql", "--lake", URL, "--format", "csv", sql, env=self.environment, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[1:]


SUMS = (
    "SELECT (SELECT count(*) FROM packets), (SELECT sum(wirelen) FROM packets), "
    "(SELECT sum(received) FROM capture_stats), (SELECT sum(rows) FROM capture_stats), "
    "(SELECT sum(packets) FROM rollup_1s)"
)


def totals(lake: Path) -> tuple[int, ...]:
    with analytics.connect(lake, threads=1) as con:
        return tuple(int(value or 0) for value in con.execute(SUMS).fetchall()[0])


@pytest.fixture
def place() -> Iterator[tuple[str, list[Wire]]]:
    if reason := usable():
        pytest.skip(f"no veth pair: {reason}")
    with site() as made:
        yield made


@pytest.mark.timeout(720 + 4 * OUTAGE_S)
def test_two_sensors__a_store_that_is_killed_under_load_loses_nothing(
    place: tuple[str, list[Wire]], tmp_path: Path
) -> None:
    store, wires = place
    with serving(tmp_path / "s3", ["ip", "netns", "exec", store], "10.91.0.1") as server:
        sensors = [Sensor(number, one, tmp_path, server) for number, one in enumerate(wires, 1)]
        try:
            for sensor in sensors:
                sensor.running.wait_for("Ctrl-C stops", 300)
            for _ in range(5):
                for sensor in sensors:
                    sensor.send()
            until(lambda: all(sensor.state().get("shipped_rows", 0) >= 500 for sensor in sensors))

            server.kill()
            gone_at = time.monotonic()
            while time.monotonic() < gone_at + OUTAGE_S:
                for sensor in sensors:
                    sensor.send(50)
                time.sleep(0.2)
            for sensor in sensors:
                sensor.running.wait_for("the store cannot be reached")
                until(lambda sensor=sensor: sensor.rows() == sensor.sent)  # type: ignore[misc]  # capture went on
                until(lambda sensor=sensor: sensor.state()["lag_s"] >= 0.5 * OUTAGE_S)  # type: ignore[misc]
            server.start()
            for sensor in sensors:
                sensor.send()
                sensor.running.wait_for("shipping goes on")
                until(lambda sensor=sensor: sensor.rows() == sensor.sent)  # type: ignore[misc]
                until(lambda sensor=sensor: sensor.state()["lag_s"] < 5 and not sensor.state()["problem"])  # type: ignore[misc]
            for sensor in sensors:
                assert sensor.running.stop(signal.SIGINT) == 0, sensor.running.log.read_text()
        finally:
            for sensor in sensors:
                sensor.running.kill()
        for sensor in sensors:  # what the last second published
            done = sensor.wire.run(*ENGINE, "ship", str(sensor.lake), URL, env=sensor.environment, timeout=120)
            assert done.returncode == 0, done.stderr
            said = sensor.running.log.read_text()
            assert SECRET not in said
            books = re.search(r"received ([\d,]+); drops: (.*); undecodable", said)
            assert books is not None
            assert int(books[1].replace(",", "")) == sensor.sent
            assert totals(sensor.lake)[:1] + totals(sensor.lake)[2:] == (sensor.sent,) * 4
            assert sensor.state()["lost_rows"] == sensor.state()["waiting_segments"] == 0
        expected = [sum(values) for values in zip(*(totals(sensor.lake) for sensor in sensors), strict=True)]
        assert sensors[0].there(SUMS) == [",".join(map(str, expected))]
        by_sensor = sensors[1].there("SELECT sensor, count(*) FROM packets GROUP BY ALL ORDER BY ALL")
        assert by_sensor == [f"s{sensor.number},{sensor.sent}" for sensor in sensors]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", ["keys", "bucket", "owner", "format"])
def test_fault__is_one_line_and_the_capture_goes_on(place: tuple[str, list[Wire]], tmp_path: Path, fault: str) -> None:
    store, (one, _) = place
    said = {
        "keys": "the keys are refused", "bucket": "the bucket does not exist", "format": "has format 99",
        "owner": "another lake ships as sensor s1 already",
    }[fault]  # fmt: skip
    with contextlib.ExitStack() as stack:
        if fault in ("keys", "bucket"):
            server = stack.enter_context(serving(tmp_path / "s3", ["ip", "netns", "exec", store], "10.91.0.1"))
            environment, url = dict(server.environment), URL if fault == "keys" else "s3://not-there/x"
        else:
            (tmp_path / "shared").mkdir()
            environment, url = dict(os.environ), str(tmp_path / "shared")
        if fault == "keys":
            environment["AWS_SECRET_ACCESS_KEY"] = "wrong-wrong"
        if fault == "format":
            (tmp_path / "shared" / "lake.json").write_text('{"format": 99}')
        if fault == "owner":
            from tests.analytics.small_lake import make_lake, segment

            other = make_lake(tmp_path / "other")
            segment(other, "packets", [{}], name="1795000000000000-1", sensor="s1")
            assert engine("ship", other, url).returncode == 0
        config = tmp_path / "c.toml"
        config.write_text(CONFIG)
        words: list[str | Path] = ["run", "--iface", one.capture, "--lake", tmp_path / "lake", "--no-dashboard"]
        words += ["--sensor", "s1", "--ship", url, "--config", config]
        running = Running(["ip", "netns", "exec", one.here], words, tmp_path / "log", env=environment)
        try:
            running.wait_for("Ctrl-C stops", 300)
            one.transmit([frame(1, n) for n in range(300)])
            running.wait_for(said)
            one.transmit([frame(1, n) for n in range(300, 600)])
            until(lambda: totals(tmp_path / "lake")[0] == 600)
            until(lambda: json.loads((tmp_path / "lake/.ship/state.json").read_text())["failures"] >= 2)
            assert running.stop(signal.SIGINT) == 0
        finally:
            running.kill()
        text = running.log.read_text()
        assert text.count(said) == 1
        assert "Traceback" not in text
        assert "wrong-wrong" not in text
        assert "capture goes on" in text
