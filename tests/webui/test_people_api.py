"""People, sessions, tokens and the audit log over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.webui.conftest import PASSWORD, add_people
from webui import auth, users
from webui.app import create_app
from webui.limits import FREE
from webui.security import COOKIE

SAME = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    add_people(tmp_path)
    return tmp_path


def client(lake: Path, name: str = "ada") -> FlaskClient:
    made = create_app(lake).server.test_client()
    made.set_cookie(COOKIE, auth.start_session(lake, name))
    return made


def post(who: FlaskClient, path: str, **body: object):
    return who.post(f"/api/v1/{path}", json=body, headers=SAME)


@pytest.mark.parametrize("name", ["vera", "otto"])
def test_people__are_for_admins(lake, name):
    who = client(lake, name)
    for path in ("users", "sessions", "tokens", "audit"):
        assert who.get(f"/api/v1/{path}").status_code == 403
    changes = ("users", "users/vera/role", "users/vera/password", "users/vera/remove", "sessions/revoke", "tokens",
               "tokens/x/remove")  # fmt: skip
    for path in changes:
        answer = post(who, path, name="eve", user="vera", password=PASSWORD, role="admin", days=1, id="x")
        assert answer.status_code == 403, path
    assert users.listing(lake) == {"vera": "viewer", "otto": "operator", "ada": "admin"}


def test_people__are_added_changed_removed_and_it_is_written_down(lake):
    ada = client(lake)
    assert post(ada, "users", name="eve", password=PASSWORD, role="viewer").status_code == 200
    eve = auth.start_session(lake, "eve")
    assert post(ada, "users/eve/role", role="operator").status_code == 200
    assert {"name": "eve", "role": "operator"} in ada.get("/api/v1/users").json["users"]
    told = [s for s in ada.get("/api/v1/sessions").json["sessions"] if s["user"] == "eve"]
    assert [s["own"] for s in told] == [False]
    assert eve not in str(told)
    assert post(ada, "sessions/revoke", id=told[0]["id"]).json == {"ended": 1}
    token = post(ada, "tokens", user="eve", role="viewer", days=1, label="x").json["token"]
    listed = ada.get("/api/v1/tokens").json["tokens"]
    assert users.bearer(lake, token) is not None
    assert post(ada, f"tokens/{listed[0]['id']}/remove").status_code == 200
    assert users.bearer(lake, token) is None
    assert post(ada, "users/eve/remove").status_code == 200
    lines = ada.get("/api/v1/audit?limit=3").json["lines"]
    assert [(t["event"], t["user"]) for t in lines] == [
        ("user remove", "ada"),
        ("token revoked", "ada"),
        ("token added", "ada"),
    ]
    assert PASSWORD not in str(ada.get("/api/v1/audit").json)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("users", {}),
        ("users", {"name": "eve", "password": "short", "role": "viewer"}),
        ("users", {"name": ["eve"], "password": PASSWORD, "role": "viewer"}),
        ("users/ada/role", {"role": "viewer"}),
        ("users/ada/remove", {}),
        ("users/nobody/remove", {}),
        ("users/vera/promote", {}),
        ("sessions/revoke", {}),
        ("sessions/revoke", {"id": 7}),
        ("tokens", {"user": "ada", "role": "root", "days": 1}),
        ("tokens", {"user": "ada", "role": "admin", "days": "x"}),
        ("tokens", {"user": "ada", "role": "admin", "days": 1e9}),
        ("tokens/x/remove", {}),
        ("password", {"old": "wrong", "new": PASSWORD}),
    ],
)
def test_people__errors_are_one_line(lake, path, body):
    answer = post(client(lake), path, **body)
    assert answer.status_code == 400
    assert "\n" not in answer.json["error"]


def test_password__own_one_needs_the_present_one_and_guessing_is_limited(lake):
    vera = client(lake, "vera")
    other = auth.start_session(lake, "vera")
    assert post(vera, "password", old=PASSWORD, new="another long password").status_code == 200
    assert auth.read_session(lake, other) is None
    again = client(lake, "vera")
    for _ in range(FREE):
        assert "not right" in post(again, "password", old="wrong", new=PASSWORD).json["error"]
    assert "too many" in post(again, "password", old="another long password", new=PASSWORD).json["error"]
