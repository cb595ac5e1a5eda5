"""Settings through the API: who may, what is refused, what is written, and that secrets never come back."""

from __future__ import annotations

import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from engine import settings as engine_settings
from engine.errors import ConfigError
from tests.lakes import write_empty_lake
from tests.webui.conftest import add_people
from webui import audit, auth
from webui.app import create_app
from webui.security import Access

SECRET = "json://127.0.0.1:9/hidden-words"


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    write_empty_lake(tmp_path / "lake")
    add_people(tmp_path / "lake")
    return tmp_path / "lake"


@pytest.fixture
def ask(lake):
    """`ask("ada", "settings", {...})` posts, without a body it gets."""
    server = create_app(lake, Access(lake)).server

    def ask_(user, path, body=None):
        client = server.test_client()
        client.set_cookie("packetlake_session", auth.start_session(lake, user))
        if body is None:
            return client.get(f"/api/v1/{path}")
        return client.post(f"/api/v1/{path}", json=body, headers={"Sec-Fetch-Site": "same-origin"})

    return ask_


def text_of(lake: Path) -> str:
    return engine_settings.of_lake(lake).read_text()


@pytest.mark.parametrize(
    ("user", "path", "body", "status"),
    [
        ("vera", "settings", None, 403), ("otto", "settings", None, 200), ("ada", "settings", None, 200),
        ("otto", "settings", {"etag": "", "changes": {"alerts": {"cooldown_s": 5}}}, 403),
        ("otto", "settings/test", {"target": "a"}, 403), ("vera", "settings/geoip", None, 403),
        ("vera", "settings/about", None, 403), ("otto", "users", None, 403), ("otto", "audit", None, 403),
        ("vera", "sql/schema", None, 403), ("vera", "sql/book", None, 403), ("vera", "sql/book/clear", {}, 403),
    ],
)  # fmt: skip
def test_roles(ask, user, path, body, status):
    assert ask(user, path, body).status_code == status


def test_change__is_written_audited_and_told_back(ask, lake):
    etag = ask("ada", "settings").json["etag"]
    changes = {"rules.port_scan": {"distinct_ports": 33}, "capture": {"interfaces": ["eth7"]}}
    done = ask("ada", "settings", {"etag": etag, "changes": changes}).json
    assert done["changed"] == ["rules.port_scan", "capture.interfaces"]
    assert (done["running"], done["applied"]) == (False, [])
    assert tomllib.loads(text_of(lake)) == {
        "rules": {"port_scan": {"distinct_ports": 33}},
        "capture": {"interfaces": ["eth7"]},
    }
    assert engine_settings.of_lake(lake).stat().st_mode & 0o777 == 0o600
    rule = next(r for r in ask("otto", "settings").json["rules"] if r["name"] == "port_scan")
    assert {"name": "distinct_ports", "value": 33, "default": 12} in rule["keys"]
    assert audit.read(lake)[0] | {"event": "configuration", "user": "ada"} == audit.read(lake)[0]
    again = ask("ada", "settings", {"etag": etag, "changes": changes})
    assert (again.status_code, "changed meanwhile" in again.json["error"]) == (400, True)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"web": {"host": "0.0.0.0"}}, "section 'web' cannot be changed here"),
        ({"rules": {"python": ["/x.py"]}}, "section 'rules' cannot be changed here"),
        ({"signatures": {"files": ["/etc/passwd"]}}, "signatures.files cannot be changed here"),
        ({"rules.port_scan": {"distinct_ports": -1}}, "rules.port_scan.distinct_ports = -1 is out of range"),
        ({"rules.port_scan": {"nope": 1}}, "unknown parameter rules.port_scan.nope"),
        ({"rules.nope": {"enabled": True}}, "unknown rule [rules.nope]"),
        ({"rules.a b": {"enabled": True}}, "cannot be changed here"),
        ({"scoring": {"threshold": 1.5}}, "scoring.threshold = 1.5 is out of range"),
        ({"scoring": {"threshold": "high"}}, "scoring.threshold = 'high' must be float"),
        ({"capture": {"bpf_filter": "tcp port"}}, "BPF filter 'tcp port' is wrong"),
        ({"alerts": {"suppress": [{"src": ["nowhere"]}]}}, "use an address or a network"),
        ({"notify": {"targets": [{"name": "a", "url_file": "/etc/shadow"}]}}, "url_file can only be set in the file"),
        ({"notify": {"targets": [{"name": "a", "url": "slack://T/A/B?%74emplate=/etc/shadow"}]}}, "names a file"),
        ({"notify": {"targets": [{"name": "a"}]}}, "give url"),
        ({"alerts": {"min_severity": "\ud800"}}, "half a character"),
        ({"alerts": 5}, "no object"), ({"alerts": {"kind": 5}}, "must be a list"), ({}, "missing"),
    ],
)  # fmt: skip
def test_change__what_is_wrong_is_one_line_and_nothing_is_written(ask, lake, changes, says):
    etag = ask("ada", "settings").json["etag"]
    refused = ask("ada", "settings", {"etag": etag, "changes": changes})
    assert refused.status_code == 400
    assert says in refused.json["error"]
    assert "\n" not in refused.json["error"]
    assert not engine_settings.of_lake(lake).exists()


def test_secrets__go_in_and_never_come_out(ask, lake):
    def save(targets):
        etag = ask("ada", "settings").json["etag"]
        return ask("ada", "settings", {"etag": etag, "changes": {"notify": {"targets": targets}}})

    assert save([{"name": "ops", "url": SECRET, "kinds": ["beacon"]}]).status_code == 200
    seen = ask("ada", "settings").get_data(as_text=True)
    assert "json://***" in seen
    assert "hidden-words" not in seen
    assert save([{"name": "night", "was": "ops", "min_severity": "high"}]).status_code == 200
    assert SECRET in text_of(lake)
    tested = ask("ada", "settings/test", {"target": "night"})
    assert tested.json["sent"] is False
    for text in (tested.get_data(as_text=True), *map(str, audit.read(lake))):
        assert "hidden-words" not in text


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of apprise's own parts
def test_test__reaches_the_endpoint(ask):
    got = []

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    Thread(target=server.serve_forever, daemon=True).start()
    etag = ask("ada", "settings").json["etag"]
    target = {"name": "hook", "url": f"json://127.0.0.1:{server.server_port}/"}
    ask("ada", "settings", {"etag": etag, "changes": {"notify": {"targets": [target]}}})
    assert ask("ada", "settings/test", {"target": "hook"}).json == {"sent": True, "problem": None}
    server.shutdown()
    server.server_close()
    assert b"PacketLake: test" in got[0]


def test_file__of_the_operators_own_is_changed_in_place(ask, lake, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text("# mine\n[web]\nport = 9000\n[alerts]\ncooldown_s = 30.0  # why\n")
    own.chmod(0o640)
    (lake / ".settings").mkdir(exist_ok=True)
    engine_settings.write(lake / ".settings" / "engine.json", f'{{"config": "{own}"}}')
    etag = ask("ada", "settings").json["etag"]
    assert ask("ada", "settings", {"etag": etag, "changes": {"alerts": {"cooldown_s": 9.5}}}).json["file"] == str(own)
    assert own.read_text() == "# mine\n[web]\nport = 9000\n[alerts]\ncooldown_s = 9.5  # why\n"
    assert own.stat().st_mode & 0o777 == 0o640
    own.write_text("[alerts\n")
    assert "not TOML" in ask("otto", "settings").json["error"]


def test_lake_file__may_hold_nothing_that_names_a_path():
    for text in (
        '[rules]\npython = ["x.py"]',
        '[web]\ntls_cert = "/c"\ntls_key = "/k"',
        '[geo]\ntoken_file = "/etc/shadow"',
        '[[notify.targets]]\nname = "a"\nurl_file = "/etc/shadow"',
        '[signatures]\nfiles = ["x"]',
    ):
        with pytest.raises(ConfigError, match="only be set in a file named with --config"):
            engine_settings.check_editable(text, "engine.toml")
    for url in ("discord://a/b?template=x", "fcm://p/k?keyfile=x", "mailto://a?x;pgppub=x", "vapid://a@b.example/c"):
        with pytest.raises(ConfigError, match="a url that names a file"):
            engine_settings.check_editable(f'[[notify.targets]]\nname = "a"\nurl = "{url}"', "engine.toml")
    config = engine_settings.check_editable("[rules.port_scan]\ndistinct_ports = 9", "engine.toml")
    assert config.rules.given == {"port_scan": {"distinct_ports": 9}}


def test_running__is_this_process_and_no_other_of_its_number(lake):
    assert engine_settings.running(lake) is None
    engine_settings.announce(lake, "")
    assert engine_settings.running(lake) is not None
    told = (lake / ".settings" / "engine.json").read_text()
    engine_settings.write(lake / ".settings" / "engine.json", told.replace('"born": "', '"born": "9'))
    assert engine_settings.running(lake) is None


def test_geoip__of_no_database_and_of_no_address(ask):
    told = ask("otto", "settings/geoip?ip=nonsense").json
    assert "no address" in told["problem"]
    assert "no GeoIP database" in told["advice"]
    assert ask("otto", "settings/geoip?ip=8.8.8.8").json["found"]["country"] is None


def test_about__names_what_is_installed(ask):
    parts = {p["name"]: p for p in ask("otto", "settings/about").json["parts"]}
    assert parts["duckdb"]["licence"].startswith("MIT")
    assert parts["ace-builds"]["licence"] == "BSD 3-Clause"
    assert all(p["version"] and p["licence"] for p in parts.values())
