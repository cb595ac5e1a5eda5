"""What Slack, Discord, custom webhooks and mail servers are sent, by the real plugins over real sockets here."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from apprise.plugins.discord import NotifyDiscord
from apprise.plugins.slack import NotifySlack

from engine.notify.apprise_sender import AppriseSender
from engine.notify.message import digest, single
from engine.notify.sender import TargetSender
from tests.receivers import Mailbox, Web, free_port

NOON = 1_795_521_600_000_000
NASTY = "@everyone <!channel> <http://evil.test|your bank>"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of apprise's plugins


@pytest.fixture
def web() -> Iterator[Web]:
    endpoint = Web()
    yield endpoint
    endpoint.close()


def item(n: int = 0, event: str = "opened", **given: Any) -> dict[str, Any]:
    incident = {
        "incident_id": f"i-{n}", "event": event, "kind": "port_scan", "severity": "high", "why": f"40 ports {NASTY}",
        "src_ip": "10.0.0.1", "dst_ip": None, "first_seen": NOON, "last_seen": NOON, "count": 1, "actor": "engine",
        "evidence": '{"ports":40}',
    }  # fmt: skip
    return {"event": "closed" if event == "closed" else "opened", "sensor": "s1", "incident": incident | given}


def test_slack__incoming_webhook(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NotifySlack, "webhook_url", f"http://127.0.0.1:{web.port}/services")  # only where it goes
    sender = AppriseSender("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#alerts")
    assert sender.send(single(item())) is None
    assert sender.send(digest([item(n) for n in range(3)])) is None
    assert [m["path"] for m in web.got] == ["/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"] * 2
    assert web.got[0]["channel"] == "#alerts"
    said = json.dumps(web.got[0])
    assert "HIGH port_scan 10.0.0.1" in said
    assert "ports: 40" in said
    assert "engine alerts show i-0" in said
    assert "3 incidents, the worst high" in json.dumps(web.got[1])
    for message in map(json.dumps, web.got):
        assert "<!channel" not in message
        assert "<http" not in message


def test_discord__webhook(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NotifyDiscord, "notify_url", f"http://127.0.0.1:{web.port}/api/webhooks")
    web.status = 204  # as Discord answers; nothing is remembered of others
    sender = AppriseSender(f"discord://{4 * '123456'}/{8 * 'abcdefgh'}")
    assert sender.send(single(item())) is None
    assert web.got[0]["path"].startswith(f"/api/webhooks/{4 * '123456'}/{8 * 'abcdefgh'}")
    said = json.dumps(web.got[0])
    assert "HIGH port_scan 10.0.0.1" in said
    assert "@everyone" not in said


def test_custom_webhook__headers_fields_and_incidents_as_objects(web: Web) -> None:
    sender = AppriseSender(f"json://127.0.0.1:{web.port}/hooks/soar?:team=blue")
    assert sender.send(single(item(event="closed"))) is None
    got = web.got[0]
    assert (got["path"].partition("?")[0], got["team"], got["type"]) == ("/hooks/soar", "blue", "success")
    assert got["title"].startswith("over: HIGH port_scan")
    incident = got["incidents"][0]
    assert (incident["event"], incident["sensor"], incident["evidence"]) == ("closed", "s1", {"ports": 40})


def test_mail__says_who_entered_a_manual_alert() -> None:
    box = Mailbox()
    port = free_port()
    mail = Controller(box, hostname="127.0.0.1", port=port)
    mail.start()
    try:
        url = f"mailto://127.0.0.1:{port}?from=engine@lake.test&to=ops@lake.test&mode=insecure"
        assert AppriseSender(url).send(single(item(event="manual", actor="ann"))) is None
    finally:
        mail.stop()
    assert box.mails[0]["to"] == "ops@lake.test"
    assert "HIGH port_scan" in box.mails[0]["subject"]
    assert "entered by ann" in box.mails[0].as_string()


def test_endpoint_that_fails__is_tried_again_with_growing_pauses(tmp_path: Path, web: Web) -> None:
    (tmp_path / f"{time.time_ns():020d}-1-1.json").write_text(json.dumps(item()))
    web.status = 500
    said: list[str] = []
    clock = itertools.count(step=0.5)
    times: list[float] = []
    now = 0.0

    def tick() -> float:
        return now

    sender = TargetSender(
        tmp_path, "t", AppriseSender(f"json://127.0.0.1:{web.port}/"), 3, 3600, said.append, tick, 0.0
    )
    for now in clock:
        before = web.refused
        sender.step()
        if web.refused > before:
            times.append(now)
        if len(times) == 4:
            break
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses == sorted(pauses)
    assert pauses[-1] >= 2 * pauses[0]
    web.status = 200
    now += 60
    sender.step()
    assert len(web.got) == 1
    assert not list(tmp_path.glob("*.json"))
    assert len(said) == 2
    assert said[1] == "notify target t: works again"
