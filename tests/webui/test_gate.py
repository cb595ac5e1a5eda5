"""Who gets in, and who does not: the gate, roles, other sites, other names, floods, the headers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.webui.conftest import PASSWORD, PEOPLE, add_people
from webui import audit, auth, users
from webui.app import create_app
from webui.limits import FREE
from webui.security import COOKIE, Access

SAME = {"Sec-Fetch-Site": "same-origin"}
HTML = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, object]:
    lake = tmp_path_factory.mktemp("lake")
    add_people(lake)
    return lake, create_app(lake).server


@pytest.fixture
def client(served) -> FlaskClient:
    return served[1].test_client()


def signed_in(served, name: str = "ada") -> FlaskClient:
    client = served[1].test_client()
    client.set_cookie(COOKIE, auth.start_session(served[0], name))
    return client


def sign_in(client: FlaskClient, name: str, password: str, **headers: str):
    return client.post("/login", data={"name": name, "password": password}, headers=SAME | headers)


# --- the gate ---------------------------------------------------------------------------------------------------


def test_gate__every_route_is_closed_but_those_to_sign_in(served, client):
    rules = list(served[1].url_map.iter_rules())
    assert len(rules) > 15
    for rule in rules:
        url = re.sub(r"<[^>]+>", "x", rule.rule)
        for method in sorted(rule.methods):
            response = client.open(url, method=method, headers=SAME)
            response.close()
            if url in ("/healthz", "/login", "/setup"):
                assert response.status_code in (200, 401), (method, url)
                assert int(response.headers["Content-Length"]) < 20_000
            else:
                assert response.status_code == 401, (method, url)
    others = ("/assets/10-app.css", "/assets/icons/user.svg", "/no-such-page", "/_dash-layout?token=x", "//", "/login/",
              "/assets/boot/../10-app.css", "/assets/boot/%2e%2e/10-app.css", "/LOGIN")  # fmt: skip
    for url in others:
        assert client.get(url).status_code in (401, 404), url
    with client.get("/assets/boot/login.js") as response:
        assert response.status_code == 200


def test_gate__browser_is_sent_to_sign_in_and_back(client):
    response = client.get("/hosts?range=1h&filter=host%3D10.0.0.1", headers=HTML)
    assert response.status_code == 303
    assert response.headers["Location"] == "/login?next=/hosts%3Frange%3D1h%26filter%3Dhost%253D10.0.0.1"
    form = client.get(response.headers["Location"])
    assert form.status_code == 200
    assert "/hosts?range=1h&amp;filter=host%3D10.0.0.1" in form.text


@pytest.mark.parametrize(
    "onward", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/x\r\nY: z", "//[x"]
)
def test_login__never_leads_elsewhere(served, client, onward):
    response = client.post("/login", data={"name": "vera", "password": PASSWORD, "next": onward}, headers=SAME)
    assert response.status_code == 303
    assert response.headers["Location"] == "/"


def test_login__sets_a_strict_cookie_and_a_new_session_each_time(served, client):
    first = sign_in(client, "ada", PASSWORD)
    cookie = first.headers["Set-Cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    for flag in ("HttpOnly", "SameSite=Strict", "Path=/"):
        assert flag in cookie
    old = client.get_cookie(COOKIE).value
    assert client.get("/_dash-layout").status_code == 200
    sign_in(client, "ada", PASSWORD)
    assert client.get_cookie(COOKIE).value != old
    assert auth.read_session(served[0], old) is None


def test_login__fixation_a_cookie_brought_along_is_not_taken_over(served, client):
    client.set_cookie(COOKIE, "chosen-by-somebody-else")
    sign_in(client, "ada", PASSWORD)
    assert client.get_cookie(COOKIE).value != "chosen-by-somebody-else"


def test_logout__ends_the_session_for_good(served):
    client = signed_in(served)
    value = client.get_cookie(COOKIE).value
    assert client.post("/logout", headers=SAME).status_code == 303
    client.set_cookie(COOKIE, value)
    assert client.get("/_dash-layout").status_code == 401


def test_session__is_over_once_revoked_or_its_user_gone_and_roles_hold_at_once(served):
    lake = served[0]
    users.add(lake, "temp", PASSWORD, "viewer")
    client = signed_in(served, "temp")
    assert '"data-role": "viewer"'.replace(" ", "") in client.get("/_dash-layout").text.replace(" ", "")
    users.set_role(lake, "temp", "operator")
    assert '"data-role":"operator"' in client.get("/_dash-layout").text.replace(" ", "")
    users.remove(lake, "temp")
    assert client.get("/_dash-layout").status_code == 401
    other = signed_in(served, "vera")
    auth.revoke(lake, user="vera")
    assert other.get("/_dash-layout").status_code == 401


def test_session__survives_a_restart(served):
    client = signed_in(served)
    again = create_app(served[0]).server.test_client()
    again.set_cookie(COOKIE, client.get_cookie(COOKIE).value)
    assert again.get("/", headers=HTML).status_code == 200


# --- the first start and one-time links -------------------------------------------------------------------------


def test_setup__makes_the_first_admin_once(tmp_path):
    client = create_app(tmp_path).server.test_client()
    token = auth.issue_token(tmp_path)
    assert "engine link" in client.get("/login").text
    assert client.get("/setup").status_code == 200
    form = {"token": token, "name": "ada", "password": PASSWORD, "again": PASSWORD}
    for wrong in ({"again": "another long password"}, {"password": "short", "again": "short"}, {"name": "<b>"}):
        response = client.post("/setup", data=form | wrong, headers=SAME)
        assert response.status_code == 400
        assert token in response.text  # it is not used up by a slip
        assert "<b>" not in response.text.replace("<body>", "")
    assert client.post("/setup", data=form, headers=SAME).status_code == 303
    assert users.listing(tmp_path) == {"ada": "admin"}
    assert client.get("/_dash-layout").status_code == 200
    for again in (token, auth.issue_token(tmp_path), "x", ""):
        response = client.post("/setup", data=form | {"token": again, "name": "eve"}, headers=SAME)
        assert response.status_code == 401
    assert users.listing(tmp_path) == {"ada": "admin"}
    assert [t["event"] for t in audit.read(tmp_path)] == ["setup"]


def test_link__signs_in_once(served, client):
    token = auth.issue_token(served[0], "vera")
    assert client.post("/login", data={"token": token}, headers=SAME).status_code == 303
    assert '"data-user":"vera"' in client.get("/_dash-layout").text.replace(" ", "")
    again = served[1].test_client().post("/login", data={"token": token}, headers=SAME)
    assert again.status_code == 401
    assert "used already" in again.text


# --- floods -----------------------------------------------------------------------------------------------------


def test_flood__of_logins_is_slowed_down_by_user_and_by_address(tmp_path):
    add_people(tmp_path)
    client = create_app(tmp_path).server.test_client()
    answers = [sign_in(client, "ada", f"wrong password {i}").status_code for i in range(FREE + 3)]
    assert answers[:FREE] == [401] * FREE
    assert answers[FREE:] == [429] * 3
    right = sign_in(client, "ada", PASSWORD)  # not even the right one, so that guessing says nothing
    assert right.status_code == 429
    assert int(right.headers["Retry-After"]) >= 1
    assert sign_in(client, "vera", PASSWORD).status_code == 429  # another name from the same address
    elsewhere = client.post("/login", data={"name": "ada", "password": PASSWORD}, headers=SAME,
                            environ_overrides={"REMOTE_ADDR": "192.0.2.9"})  # fmt: skip
    assert elsewhere.status_code == 429
    fine = client.post("/login", data={"name": "vera", "password": PASSWORD}, headers=SAME,
                       environ_overrides={"REMOTE_ADDR": "192.0.2.9"})  # fmt: skip
    assert fine.status_code == 303
    events = [t["event"] for t in audit.read(tmp_path)]
    assert events == ["login", *["login failed"] * FREE]


def test_flood__big_bodies_are_refused(client):
    assert client.post("/login", data={"name": "a" * (3 << 20)}, headers=SAME).status_code == 413


# --- other names, other sites -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil:8050", "10.0.0.1:8050", "", "a b"]
)
def test_host__another_name_is_refused(served, host):
    for url in ("/", "/healthz", "/login", "/_dash-layout", "/api/v1/state"):
        assert signed_in(served).get(url, headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1:8050", "localhost:8050", "[::1]:8050", "LOCALHOST"])
def test_host__this_machine_is_served(client, host):
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_host__beyond_loopback_numbers_and_allowed_names_are_served(served):
    server = create_app(served[0], Access(served[0], loopback=False, hosts=("sensor.example",))).server
    for host, status in (
        ("192.0.2.4:8050", 200),
        ("Sensor.example", 200),
        ("evil.example", 400),
        ("[2001:db8::1]", 200),
    ):
        assert server.test_client().get("/healthz", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": "http://localhost"}, True),
        ({"Origin": "https://localhost"}, True),
        ({"Origin": "http://localhost:9999"}, False),
        ({"Origin": "http://localhost.evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://["}, False),
        ({}, False),
    ],
)
def test_origin__unsafe_requests_come_from_our_own_page(served, headers, passes):
    for rule in served[1].url_map.iter_rules():
        unsafe = sorted(rule.methods - {"GET", "HEAD", "OPTIONS"})
        if not unsafe or (passes and rule.rule == "/logout"):
            continue
        response = signed_in(served).open(
            re.sub(r"<[^>]+>", "x", rule.rule), method=unsafe[0], headers=headers, json={}
        )
        assert (response.status_code != 403) is passes, rule.rule


# --- roles and tokens -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
def test_role__reaches_the_api(served, role):
    client = signed_in(served, next(n for n, r in PEOPLE.items() if r == role))
    assert client.get("/api/v1/openapi.json").status_code == 200
    answer = client.post("/api/v1/sql", json={"sql": "SELECT 1"}, headers=SAME)
    assert (answer.status_code == 403) is (role == "viewer")


def test_token__opens_the_api_only(served, client):
    token = users.add_token(served[0], "vera", "admin", 1, "test")
    bearer = {"Authorization": f"Bearer {token}"}
    assert client.get("/api/v1/openapi.json", headers=bearer).status_code == 200
    assert client.post("/api/v1/sql", json={"sql": "SELECT 1"}, headers=bearer).status_code == 403  # vera is a viewer
    for url in ("/", "/_dash-layout", "/assets/10-app.css"):
        assert client.get(url, headers=bearer).status_code == 401
    assert client.get("/api/v1/openapi.json", headers={"Authorization": "Bearer plk_x"}).status_code == 401
    # A token that is refused is not made good by a cookie.
    assert signed_in(served).get("/api/v1/state", headers={"Authorization": "Bearer plk_x"}).status_code == 401


def test_no_login__lets_in_as_operator(tmp_path):
    client = create_app(tmp_path, Access(tmp_path, login=False)).server.test_client()
    layout = client.get("/_dash-layout").text.replace(" ", "")
    assert '"data-role":"operator"' in layout
    assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 400


# --- headers ----------------------------------------------------------------------------------------------------


def test_headers__strict_on_every_answer(served, client):
    inside = signed_in(served)
    for who, url in (
        (client, "/login"),
        (client, "/healthz"),
        (client, "/x"),
        (inside, "/"),
        (inside, "/assets/10-app.css"),
    ):
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
        assert ("no-store" in response.headers.get("Cache-Control", "")) is not url.startswith("/assets/")
