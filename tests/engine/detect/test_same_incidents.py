"""The same capture raises the same incidents: whatever the batches and threads, from a file or from a wire.

The live run is also shown an alert that a person enters, and must pass it on.
"""

from __future__ import annotations

import json
import random
import signal
import struct
import time
from pathlib import Path
from typing import Any

import pytest

import analytics
from engine import pipeline as pipeline_module
from engine.capture.pacing import Pace
from engine.capture.savefile import SavefileSource
from engine.config import EngineConfig, FramesConfig, LakeConfig, PipelineConfig, ScoringConfig, load_config
from engine.packets import FrameBatch
from engine.pipeline import Pipeline
from engine.writer import init_lake
from tests.builders import dns_query
from tests.commands import Running, engine
from tests.detecting import PSH_ACK, RST_ACK, SYN, Talk, arp_frame, echo, handshake, tcp_frame, udp_frame
from tests.flowing import Timed
from tests.netns import Wire, ip, wire_fixture  # noqa: F401 — a fixture
from tests.receivers import Web, wait_for

START = 1_700_000_045
FOUND = {  # kind, source, victim
    ("port_scan", "10.0.0.66", "10.0.0.10"), ("syn_flood", None, "10.0.0.11"), ("icmp_flood", None, "10.0.0.12"),
    ("host_sweep", "10.0.0.67", None), ("arp_scan", "10.0.0.68", None), ("dns_tunnel", "10.0.0.69", "10.0.0.53"),
    ("sql_injection", "10.0.0.70", "10.0.0.80"), ("udp_flood", None, "10.0.0.13"),
}  # fmt: skip


def traffic() -> list[Timed]:
    """Seven seconds: ordinary connections and eight attacks among them."""
    rng = random.Random(7)
    out: list[Timed] = []
    for n in range(150):
        client, at = f"10.0.1.{n % 20}", n * 0.04
        out += handshake(at, client, "10.0.0.80", 20_000 + n, 443)
        for k in range(4):
            segment = tcp_frame("10.0.0.80", client, 443, 20_000 + n, PSH_ACK, bytes(900), 1001 + 900 * k)
            out.append((at + 0.003 + k * 0.002, segment))
    for n in range(60):
        out.append((0.5 + n * 0.02, tcp_frame("10.0.0.66", "10.0.0.10", 40_000, 1 + n, SYN)))
        out.append((0.501 + n * 0.02, tcp_frame("10.0.0.10", "10.0.0.66", 1 + n, 40_000, RST_ACK)))
        out.append((0.3 + n * 0.05, tcp_frame("10.0.0.67", f"10.0.2.{n + 1}", 40_000, 445, SYN)))
        out.append((0.2 + n * 0.02, arp_frame("10.0.0.68", f"10.0.3.{n + 1}")))
    for n in range(700):
        forged = f"{rng.randrange(20, 200)}.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
        out.append((1 + n * 0.003, tcp_frame(forged, "10.0.0.11", 1024 + n, 80, SYN)))
        out.append((2 + n * 0.004, echo("10.0.0.71", "10.0.0.12")))
        out.append((3 + n * 0.004, udp_frame("10.0.0.72", "10.0.0.13", 1024 + n, 9, bytes(400))))
    for n in range(40):
        name = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(50)) + ".t.evil.test"
        out.append((1 + n * 0.08, udp_frame("10.0.0.69", "10.0.0.53", 30_000 + n, 53, dns_query(name, n))))
    request = b"GET /item?id=1%20UNION%20SELECT%20name,password%20FROM%20users-- HTTP/1.1\r\nHost: shop.test\r\n\r\n"
    out += Talk(4.0, "10.0.0.70", "10.0.0.80", 50_000, 80).say(request).say(b"HTTP/1.1 200 OK\r\n\r\n", False).frames
    out.append((7.0, udp_frame("10.0.1.1", "10.0.0.53", 29_000, 53, dns_query("www.example.com"))))
    return sorted(out, key=lambda timed: timed[0])


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("capture") / "attacks.pcap"
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1))
        for at, frame in traffic():
            us = START * 1_000_000 + round(at * 1e6)
            file.write(struct.pack("<IIII", us // 1_000_000, us % 1_000_000, len(frame), len(frame)) + frame)
    return path


def incidents(lake: Path) -> list[dict[str, Any]]:
    with analytics.connect(lake) as con:
        result = con.execute("SELECT * FROM alerts WHERE kind <> 'anomaly' ORDER BY kind, src_ip, dst_ip, first_seen")
        names = [column[0] for column in result.description or ()]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def replay(capture: Path, lake: Path, threads: int, publish_s: float, **given: Any) -> list[dict[str, Any]]:
    config = EngineConfig(
        lake=LakeConfig(sensor="s1", publish_s=publish_s), pipeline=PipelineConfig(decode_threads=threads),
        frames=FramesConfig(mode="off"), scoring=ScoringConfig(enabled=False), **given,
    ).override("applications", budget=1.0)  # fmt: skip
    init_lake(lake)
    running = Pipeline(lake, config, lambda _level, text: pytest.fail(text))
    running.start_replay([SavefileSource(str(capture))], Pace("max"))
    assert running.wait(60)
    return incidents(lake)


def batches_of(rows: int) -> type[FrameBatch]:
    class Small(FrameBatch):
        def __init__(self) -> None:
            super().__init__(rows=rows)

    return Small


BY_RUN = ("incident_id", "sensor", "flow_ids")


def test_file__same_incidents_whatever_batches_and_threads(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for n, (threads, rows, publish_s) in enumerate([(1, None, 0.7), (2, 97, 0.1), (4, 1000, 5.0)]):
        if rows is not None:
            monkeypatch.setattr(pipeline_module, "FrameBatch", batches_of(rows))
        found = replay(capture, tmp_path / str(n), threads, publish_s)
        said.append([{name: value for name, value in row.items() if name not in BY_RUN} for row in found])
    assert {(row["kind"], row["src_ip"], row["dst_ip"]) for row in said[0] if row["severity"] != "low"} == FOUND
    for other in said[1:]:
        assert other == said[0]


def test_suppressions__each_condition_holds_back_its_incident(capture: Path, tmp_path: Path) -> None:
    path = tmp_path / "engine.toml"
    entries = (  # the capture is of 22:14 UTC
        "kinds = ['arp_scan']", "src = ['10.0.0.67']", "dst = ['10.0.0.12/31']", "address = ['10.0.0.66/32']",
        "ports = [80]\nkinds = ['sql_injection']", "domains = ['evil.test']",
        "time = '22:14-22:15'\ndst = ['10.0.0.11']",
        "kinds = ['cleartext_credentials']\ntime = '03:00-04:00'",
    )  # fmt: skip
    path.write_text("".join(f"[[alerts.suppress]]\n{entry}\n" for entry in entries))
    found = replay(capture, tmp_path / "lake", 1, 0.7, alerts=load_config(str(path)).alerts)
    assert [row["kind"] for row in found if row["severity"] != "low"] == []
    with analytics.connect(tmp_path / "lake") as con:
        told = con.execute("SELECT DISTINCT kind, why FROM alert_events WHERE event = 'suppressed'").fetchall()
    held = {(kind, int(why.rsplit(" ", 1)[1])) for kind, why in told}
    assert held >= {
        ("arp_scan", 1), ("host_sweep", 2), ("icmp_flood", 3), ("udp_flood", 3), ("port_scan", 4), ("sql_injection", 5),
        ("dns_tunnel", 6), ("syn_flood", 7),
    }  # fmt: skip
    assert 8 not in {number for _, number in held}


@pytest.mark.root
@pytest.mark.timeout(300)
def test_wire__same_incidents_as_the_file_and_a_manual_alert_is_passed_on(
    wire: Wire, capture: Path, tmp_path: Path
) -> None:
    ip("-n", wire.here, "link", "set", "lo", "up")
    with wire.inside():
        web = Web()
    lake, eve = tmp_path / "live", tmp_path / "eve.json"
    config = tmp_path / "engine.toml"
    config.write_text(
        f'[eve]\nfile = "{eve}"\n[[notify.targets]]\nname = "hook"\nurl = "json://127.0.0.1:{web.port}/"\n'
    )
    words: list[str | Path] = [
        "run",
        "--iface",
        wire.capture,
        "--lake",
        lake,
        "--no-dashboard",
        "--user",
        "root",
        "--config",
        config,
    ]
    running = Running(["ip", "netns", "exec", wire.here], words, tmp_path / "log")
    try:
        running.wait_for("Ctrl-C stops", 200)  # it may have to compile the kernels first
        wire.replay(str(capture))
        time.sleep(1.5)
        made = engine("alerts", "add", "--kind", "phishing", "--severity", "high", "--why", "a call", "--lake", lake)
        assert made.returncode == 0
        known = made.stdout.strip()
        wait_for(lambda: any(i["incident_id"] == known for m in web.got for i in m["incidents"]))
        assert running.stop(signal.SIGINT) == 0
    finally:
        running.kill()
        web.close()
    live = [row for row in incidents(lake) if row["kind"] != "phishing"]
    offline = replay(capture, tmp_path / "offline", 1, 0.7)
    for name in ("kind", "severity", "src_ip", "dst_ip", "dst_port", "domain"):
        assert [row[name] for row in live] == [row[name] for row in offline], name
    shift = live[0]["first_seen"] - offline[0]["first_seen"]
    for one, other in zip(live, offline, strict=True):
        assert abs((one["first_seen"] - other["first_seen"] - shift).total_seconds()) < 5  # a loaded machine sends late
    written = [json.loads(line)["packetlake"]["incident_id"] for line in eve.read_text().splitlines()]
    assert sorted(written) == sorted([known, *(row["incident_id"] for row in live)])
