"""Who may look, and who may not: tokens, sessions, the gate, the headers."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.lakes import write_empty_lake
from webui import auth
from webui.app import create_app
from webui.security import COOKIE


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    write_empty_lake(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, object]:
    path = tmp_path_factory.mktemp("lake")
    write_empty_lake(path)
    return path, create_app(path).server


@pytest.fixture
def client(served) -> FlaskClient:
    return served[1].test_client()


def sign_in(served) -> FlaskClient:
    client = served[1].test_client()
    assert client.get(f"/?token={auth.issue_token(served[0])}").status_code == 303
    return client


def files(lake: Path, name: str) -> list[Path]:
    return sorted((lake / ".dashboard" / name).iterdir())


def age(path: Path, seconds: float) -> None:
    at = time.time() - seconds
    os.utime(path, (at, at))


# --- tokens and sessions ----------------------------------------------------------------------------------------


def test_token__works_once(lake):
    token = auth.issue_token(lake)
    assert auth.consume(lake, token)
    assert not auth.consume(lake, token)


def test_token__is_on_disk_only_as_a_hash_in_closed_directories(lake):
    token = auth.issue_token(lake)
    (path,) = files(lake, "tokens")
    assert token not in path.name
    assert path.read_bytes() == b""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700


def test_token__expires_after_15_minutes(lake):
    token = auth.issue_token(lake)
    age(files(lake, "tokens")[0], 15 * 60 + 5)
    assert not auth.consume(lake, token)
    auth.issue_token(lake)
    assert len(files(lake, "tokens")) == 1


def test_token__of_twenty_at_once_exactly_one_succeeds(lake):
    token = auth.issue_token(lake)
    won: list[bool] = []
    threads = [threading.Thread(target=lambda: won.append(auth.consume(lake, token))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 19 + [True]


@pytest.mark.parametrize("token", ["", "x", "../../etc/passwd", "a" * 5000, "\x00", "ü"])
def test_token__garbage_is_refused(lake, token):
    auth.issue_token(lake)
    assert not auth.consume(lake, token)
    assert not auth.check_session(lake, token)
    assert len(files(lake, "tokens")) == 1


def test_session__ends_after_8_idle_hours_and_after_7_days(lake):
    session = auth.start_session(lake)
    (path,) = files(lake, "sessions")
    assert auth.check_session(lake, session)
    age(path, 7 * 3600)
    assert auth.check_session(lake, session)  # and counts as used now
    assert time.time() - path.stat().st_mtime < 60
    age(path, 8 * 3600 + 5)
    assert not auth.check_session(lake, session)
    age(path, 0)
    path.write_text(str(int(time.time()) - 7 * 86400 - 5))
    assert not auth.check_session(lake, session)


def test_session__another_process_knows_it(lake):
    session = auth.start_session(lake)
    code = "import sys; from webui import auth; sys.exit(0 if auth.check_session(sys.argv[1], sys.argv[2]) else 1)"
    assert subprocess.run([sys.executable, "-c", code, str(lake), session], timeout=60).returncode == 0


def test_auth__import_needs_the_standard_library_only():
    code = "import sys, webui.auth; sys.exit(any(m in sys.modules for m in ('dash', 'flask', 'duckdb', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# --- the gate ---------------------------------------------------------------------------------------------------


def test_gate__every_route_but_health_is_closed(served, client):
    rules = list(served[1].url_map.iter_rules())
    assert len(rules) > 8
    for rule in rules:
        url = re.sub(r"<[^>]+>", "x", rule.rule)
        for method in sorted(rule.methods):
            headers = {"Sec-Fetch-Site": "same-origin"}
            response = client.open(url, method=method, headers=headers)
            expected = 200 if url == "/healthz" else 401
            assert response.status_code == expected, (method, url)
    others = ("/assets/10-app.css", "/assets/boot/theme.js", "/no-such-page", "/_dash-layout?token=x", "//")
    for url in others:
        assert client.get(url).status_code == 401, url


def test_gate__page_says_how_to_get_in_and_shows_nothing(client):
    response = client.get("/")
    assert response.status_code == 401
    assert "engine link" in response.text
    assert len(response.data) < 5_000
    assert response.headers["Cache-Control"] == "no-store"
    json = client.get("/_dash-layout")
    assert json.status_code == 401
    assert "engine link" in json.json["error"]


def test_sign_in__sets_a_strict_cookie_and_drops_the_token_from_the_address(served, client):
    token = auth.issue_token(served[0])
    response = client.get(f"/?token={token}")
    assert response.status_code == 303
    assert response.headers["Location"] == "/"
    cookie = response.headers["Set-Cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    for flag in ("HttpOnly", "SameSite=Strict", "Path=/"):
        assert flag in cookie
    assert client.get("/").status_code == 200
    assert client.get("/_dash-layout").status_code == 200
    again = served[1].test_client().get(f"/?token={token}")
    assert again.status_code == 401
    assert "used already" in again.text
    # The same link in the browser that is signed in already just shows the page.
    assert client.get(f"/?token={token}").status_code == 303


def test_sign_in__a_head_request_does_not_use_up_the_token(served, client):
    token = auth.issue_token(served[0])
    assert client.head(f"/?token={token}").status_code == 401
    assert client.get(f"/?token={token}").status_code == 303


def test_session__survives_a_restart(served):
    client = sign_in(served)
    again = create_app(served[0]).server.test_client()
    again.set_cookie(COOKIE, client.get_cookie(COOKIE).value)
    assert again.get("/").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil:8050", "10.0.0.1:8050", ""])
def test_host__another_name_is_refused(served, host):
    client = sign_in(served)
    for url in ("/", "/healthz", "/_dash-layout"):
        assert client.get(url, headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1:8050", "localhost:8050", "[::1]:8050", "LOCALHOST"])
def test_host__this_machine_is_served(client, host):
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


UPDATE = {
    "output": "snapshot.data",
    "outputs": {"id": "snapshot", "property": "data"},
    "inputs": [
        {"id": "tick", "property": "n_intervals", "value": 0},
        {"id": "range", "property": "data", "value": {"range_s": 300}},
    ],
    "changedPropIds": ["tick.n_intervals"],
}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Origin": "http://localhost"}, 200),
        ({"Origin": "http://localhost:9999"}, 403),
        ({"Origin": "null"}, 403),
        ({}, 403),
    ],
)
def test_origin__unsafe_requests_come_from_our_own_page(served, headers, status):
    response = sign_in(served).post("/_dash-update-component", json=UPDATE, headers=headers)
    assert response.status_code == status
    if status == 200:
        assert response.json["response"]["snapshot"]["data"]["kpi"]["packets"] == 0
        assert response.headers["Cache-Control"] == "no-store"


def test_headers__strict_on_every_answer(served, client):
    inside = sign_in(served)
    for who, url in ((client, "/"), (client, "/healthz"), (inside, "/"), (inside, "/assets/10-app.css")):
        response = who.get(url)
        response.close()
        policy = response.headers["Content-Security-Policy"]
        script = next(p for p in policy.split("; ") if p.startswith("script-src"))
        assert "unsafe" not in script
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "same-origin"
        assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
