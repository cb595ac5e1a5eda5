"""What programs that watch the engine are answered: /metrics, /api/v1/status, /healthz."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from engine.metrics import SourceTotals
from engine.sensor_lock import SensorLock
from tests.analytics.small_lake import make_lake
from webui import status_api, users
from webui.app import create_app


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    make_lake(tmp_path)
    users.add(tmp_path, "ada", "correct horse battery", "viewer")
    return tmp_path


def bearer(lake: Path) -> dict[str, str]:
    return {"Authorization": f"Bearer {users.add_token(lake, 'ada', 'viewer', 1, 'prometheus')}"}


def test_metrics__a_token_is_asked_for_and_engines_are_told_apart(lake: Path) -> None:
    client: FlaskClient = create_app(lake).server.test_client()
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers={"Authorization": "Bearer plk_x"}).status_code == 401
    lock = SensorLock(lake, "s1", ["eth0"])
    lock.tell([], {"eth0": SourceTotals(received=12)})
    answer = client.get("/metrics", headers=bearer(lake))
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found = {family.name: family for family in text_string_to_metric_families(answer.text)}
    [received] = found["packetlake_received"].samples
    assert (received.labels, received.value) == ({"sensor": "s1", "source": "eth0"}, 12)
    lock.close()


def test_status__says_by_its_code_whether_something_captures(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_api, "FRESH_S", 0.0)
    client: FlaskClient = create_app(lake).server.test_client()
    token = bearer(lake)
    answer = client.get("/api/v1/status", headers=token)
    assert (answer.status_code, answer.json["exit_code"]) == (503, 2)
    lock = SensorLock(lake, "s1", ["eth0"])
    answer = client.get("/api/v1/status", headers=token)
    assert (answer.status_code, answer.json["problems"]) == (200, [])
    lock.close()
    assert client.get("/healthz").text == "ok\n"
