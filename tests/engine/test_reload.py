"""SIGHUP: what a running capture takes over from its changed configuration, and what it leaves for the next start."""

from __future__ import annotations

import json
import os
import pty
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

import analytics
from engine import settings
from engine.config import EngineConfig, parse_config
from engine.detect.alert_stage import AlertStage
from engine.detect.finding import Finding
from tests.builders import ethernet, ipv4, tcp
from tests.commands import Running
from tests.engine.test_run import write_pcap
from tests.netns import Wire
from webui import settings as page_settings

ME, HIM = b"\x0a\x63\0\x01", b"\x0a\x63\0\x02"


def scan(first: int) -> list[bytes]:
    """SYNs to sixty ports of one host, which do not answer."""
    return [
        ethernet(
            ipv4(tcp(b"", 50_000, first + i, flags=2), 6, src=ME, dst=HIM), src=b"\x02" + bytes(5), dst=b"\x02" * 6
        )
        for i in range(60)
    ]


def alerts(lake: Path) -> list[str]:
    with analytics.connect(lake) as con:
        return [kind for (kind,) in con.execute("SELECT kind FROM alerts ORDER BY ALL").fetchall()]


def until(what: Any, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.2)
    return False


@pytest.fixture
def endpoint() -> Any:
    got: list[bytes] = []

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"json://127.0.0.1:{server.server_port}/", got
    server.shutdown()
    server.server_close()


@pytest.mark.root
@pytest.mark.timeout(180)
def test_reload__a_saved_change_reaches_the_engine_that_captures(wire: Wire, tmp_path: Path) -> None:
    lake, config = tmp_path / "lake", tmp_path / "own.toml"
    config.write_text("# ours\n[rules.port_scan]\ndistinct_ports = 500  # none\nodd_ports = 500\n")
    words = ["run", "--iface", wire.capture, "--lake", lake, "--no-dashboard", "--config", config, "--user", "root"]
    running = Running(["ip", "netns", "exec", wire.here], words, tmp_path / "log")
    try:
        running.wait_for("Ctrl-C stops")
        assert until(lambda: settings.running(lake) is not None)
        wire.replay(str(write_pcap(tmp_path / "a.pcap", scan(1000))), "--pps", "200")
        time.sleep(3)
        assert "port_scan" not in alerts(lake)
        etag = page_settings.read(lake)["etag"]
        changes = {"rules.port_scan": {"distinct_ports": 20}, "scoring": {"threshold": 0.9}, "flows": {"idle_s": 30.0},
                   "alerts": {"kind": [{"name": "port_scan", "severity": "critical"}]}}  # fmt: skip
        done = page_settings.save(lake, changes, etag)
        assert done["applied"] == ["scoring.threshold", "rules.port_scan", "alerts.kind"]
        assert done["waits"] == ["flows.idle_s"]
        assert "distinct_ports = 20  # none" in config.read_text()
        said = running.wait_for("configuration read again")
        assert "flows.idle_s from the next start" in said
        used = parse_config((lake / ".settings" / "running.toml").read_text(), "running.toml")
        assert (used.scoring.threshold, used.flows.idle_s) == (0.9, 60.0)
        wire.replay(str(write_pcap(tmp_path / "b.pcap", scan(3000))), "--pps", "200")
        assert until(lambda: "port_scan" in alerts(lake))
        with analytics.connect(lake) as con:
            row = con.execute("SELECT severity FROM alerts WHERE kind = 'port_scan'").fetchone()
        assert row == ("critical",)

        config.write_text("[rules.port_scan]\nnope = 1\n")
        os.kill(running.process.pid, signal.SIGHUP)
        assert "unknown parameter rules.port_scan.nope" in running.wait_for("the configuration of before goes on")
        assert "nope" in settings.last_reload(lake)["error"]
        assert running.stop(signal.SIGINT) == 0
    finally:
        running.kill()
    assert settings.running(lake) is None
    assert page_settings.read(lake)["running"] is None


def test_reload__in_a_terminal_whose_end_stops_it(tmp_path: Path) -> None:
    """Generated traffic, without --config: the lake's own file, as the dashboard of what is shown sees it."""
    words = ["run", "--lake", tmp_path / "lake", "--no-dashboard", "--no-applications"]
    unable = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    main, other = pty.openpty()
    running = Running(["setsid", "--ctty", *unable], words, tmp_path / "log", stdin=other)
    os.close(other)
    try:
        assert "showing generated traffic" in running.wait_for("Ctrl-C stops")
        shown = tmp_path / "lake-generated"
        assert until(lambda: settings.running(shown) is not None)
        told = page_settings.read(shown)
        assert told["file"] == str(settings.of_lake(tmp_path / "lake"))
        done = page_settings.save(shown, {"alerts": {"cooldown_s": 5.5}}, told["etag"])
        assert (done["applied"], done["waits"]) == (["alerts.cooldown_s"], [])
        assert page_settings.save(shown, {"alerts": {"cooldown_s": 5.5}}, done["etag"])["changed"] == []
        os.close(main)
        assert running.process.wait(60) == 0
    finally:
        running.kill()


def test_configure__targets_of_notifications_and_what_is_suppressed(tmp_path: Path, endpoint: Any) -> None:
    url, got = endpoint
    rows: list[dict[str, Any]] = []
    stage = AlertStage(tmp_path, EngineConfig(), "run", rows.extend, poll_s=0.1)
    stage.live = True

    def find(kind: str) -> None:
        now = time.time_ns() // 1000
        stage.take([Finding(ts=now, kind=kind, severity="high", why=kind, source="eth0", first_ts=now)], now)

    try:
        find("first")
        text = f"[[notify.targets]]\nname = 'a'\nurl = '{url}'\n[[alerts.suppress]]\nkinds = ['quiet']"
        stage.configure(parse_config(text, "x"))
        time.sleep(0.3)
        find("quiet")
        find("second")
        assert until(lambda: got)
    finally:
        stage.close()
    assert len(got) == 1
    assert b"second" in got[0]
    assert [row["kind"] for row in rows if row["event"] == "opened"] == ["first", "second"]
    assert stage.counts.suppressed == 1


def test_difference__tells_what_can_be_taken_over() -> None:
    new = parse_config("[rules.beacon]\nenabled = false\n[alerts]\nmax_open = 9\nupdate_s = 9.0\n[web]\nport = 1", "x")
    assert settings.difference(EngineConfig(), new) == (
        ["rules.beacon", "alerts.update_s"],
        ["web.port", "alerts.max_open"],
    )
    assert settings.difference(new, new) == ([], [])
    assert json.loads(json.dumps(settings.EDITABLE)).keys() >= settings.LIVE.keys() - {"rules"}
