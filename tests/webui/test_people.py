"""Users, passwords, sessions, one-time links, tokens, the login limit, the audit log."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engine.errors import ConfigError
from tests.commands import engine
from tests.webui.conftest import PASSWORD, add_people
from webui import audit, auth, users
from webui.limits import FORGET_S, FREE, MAX_KEYS, LoginLimit


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def peopled(lake: Path) -> Path:
    add_people(lake)
    return lake


def files(lake: Path, name: str) -> list[Path]:
    return sorted((lake / ".dashboard" / name).iterdir())


def age(path: Path, seconds: float) -> None:
    at = time.time() - seconds
    os.utime(path, (at, at))


# --- one-time links ---------------------------------------------------------------------------------------------


def test_token__works_once_and_says_for_whom(lake):
    setup, ada = auth.issue_token(lake), auth.issue_token(lake, "ada")
    assert auth.peek(lake, setup) == ""
    assert auth.consume(lake, setup) == ""
    assert auth.consume(lake, setup) is None
    assert auth.consume(lake, ada) == "ada"


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
    assert auth.peek(lake, token) is None
    assert auth.consume(lake, token) is None
    old = auth.issue_token(lake)
    age(files(lake, "tokens")[0], 15 * 60 + 5)
    assert auth.issue_token(lake) != old
    assert len(files(lake, "tokens")) == 1


def test_token__of_twenty_at_once_exactly_one_succeeds(lake):
    token = auth.issue_token(lake)
    won: list[bool] = []
    threads = [threading.Thread(target=lambda: won.append(auth.consume(lake, token) is not None)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 19 + [True]


@pytest.mark.parametrize("token", ["", "x", "../../etc/passwd", "a" * 5000, "\x00", "ü"])
def test_token__garbage_is_refused(lake, token):
    auth.issue_token(lake)
    assert auth.consume(lake, token) is None
    assert auth.read_session(lake, token) is None
    auth.end_session(lake, token)
    assert len(files(lake, "tokens")) == 1


# --- sessions ---------------------------------------------------------------------------------------------------


def test_session__ends_after_8_idle_hours_and_after_7_days(lake):
    session = auth.start_session(lake, "ada")
    (path,) = files(lake, "sessions")
    age(path, 7 * 3600)
    assert auth.read_session(lake, session).user == "ada"
    assert time.time() - path.stat().st_mtime < 60  # it counts as used now
    age(path, 8 * 3600 + 5)
    assert auth.read_session(lake, session) is None
    age(path, 0)
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"begun": int(time.time()) - 7 * 86400 - 5}))
    assert auth.read_session(lake, session) is None


def test_session__can_be_listed_and_revoked_and_is_bounded(lake, monkeypatch):
    one = auth.start_session(lake, "ada", "192.0.2.1", "browser")
    two = auth.start_session(lake, "vera")
    (ada,) = [s for s in auth.sessions(lake) if s.user == "ada"]
    assert (ada.address, ada.agent) == ("192.0.2.1", "browser")
    assert ada.identity not in one
    assert auth.revoke(lake, identity=ada.identity) == 1
    assert auth.read_session(lake, one) is None
    assert auth.read_session(lake, two) is not None
    monkeypatch.setattr(auth, "MAX_SESSIONS", 3)
    for _ in range(6):
        auth.start_session(lake, "vera")
    assert len(auth.sessions(lake)) == 3
    assert auth.revoke(lake) == 3


@pytest.mark.parametrize("content", [b"", b"7", b"[]", b"{}", b'{"user": "ada"}', b"\xff\xfe"])
def test_session__damaged_file_is_no_session(lake, content):
    session = auth.start_session(lake, "ada")
    files(lake, "sessions")[0].write_bytes(content)
    assert auth.read_session(lake, session) is None
    assert auth.sessions(lake) == []


@pytest.mark.parametrize("name", [".dashboard", ".dashboard/tokens"])
def test_directory__a_link_leads_nobody_elsewhere(lake, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (lake / name).parent.mkdir(exist_ok=True)
    (lake / name).symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic link"):
        auth.issue_token(lake)
    if name == ".dashboard":
        done = engine("user", "add", "eve", "--lake", lake, input=f"{PASSWORD}\n")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "symbolic link" in done.stderr
    assert list(elsewhere.iterdir()) == []


def test_auth__import_needs_the_standard_library_only():
    heavy = ("dash", "flask", "duckdb", "numpy", "argon2")
    code = f"import sys, webui.auth; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# --- users ------------------------------------------------------------------------------------------------------


def test_user__password_is_kept_as_argon2id_in_a_closed_file(peopled):
    path = peopled / ".dashboard" / "users.json"
    assert PASSWORD not in path.read_text()
    assert "$argon2id$" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert users.verify(peopled, "ada", PASSWORD)
    assert not users.verify(peopled, "ada", PASSWORD + "x")
    assert not users.verify(peopled, "nobody", PASSWORD)
    assert not users.verify(peopled, "ada", "x" * 100_000)


@pytest.mark.parametrize(
    ("name", "password", "role"),
    [
        ("bob", "short", "viewer"),
        ("bob", "aaaaaaaaaaaaaaaa", "viewer"),
        ("bobbob", "bobbobbobbob1", "viewer"),
        ("bob", "x" * 300, "viewer"),
        ("bob", PASSWORD, "root"),
        ("", PASSWORD, "viewer"),
        ("../bob", PASSWORD, "viewer"),
        ("b\nb", PASSWORD, "viewer"),
        ("ada", PASSWORD, "viewer"),
    ],
)
def test_user__bad_ones_are_refused_in_one_line(peopled, name, password, role):
    with pytest.raises(ConfigError) as caught:
        users.add(peopled, name, password, role)
    assert "\n" not in str(caught.value)
    assert password not in str(caught.value) or len(password) < 6
    assert set(users.listing(peopled)) == {"vera", "otto", "ada"}


def test_user__last_admin_stays(peopled):
    for act in (lambda: users.remove(peopled, "ada"), lambda: users.set_role(peopled, "ada", "viewer")):
        with pytest.raises(ConfigError, match="last admin"):
            act()
    assert users.role_of(peopled, "ada") == "admin"


def test_user__removal_and_a_new_password_end_sessions(peopled):
    otto, vera = auth.start_session(peopled, "otto"), auth.start_session(peopled, "vera")
    users.remove(peopled, "otto")
    assert auth.read_session(peopled, otto) is None
    users.set_password(peopled, "vera", "another long password")
    assert auth.read_session(peopled, vera) is None
    assert users.verify(peopled, "vera", "another long password")


def test_user__many_processes_may_change_at_once(peopled):
    def change(role: str) -> None:
        for _ in range(10):
            users.set_role(peopled, "vera", role)
            users.add_token(peopled, "otto", "viewer", 1, role)

    threads = [threading.Thread(target=change, args=(role,)) for role in ("viewer", "operator")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(users.tokens(peopled)) == 20
    assert not list((peopled / ".dashboard").glob("*.part"))


def test_token__is_bound_to_the_lesser_role_and_to_its_time(peopled, monkeypatch):
    token = users.add_token(peopled, "otto", "admin", 1, "backup")
    assert users.bearer(peopled, token) == users.Identity("otto", "operator")
    users.set_role(peopled, "otto", "viewer")
    assert users.bearer(peopled, token).role == "viewer"
    assert token not in (peopled / ".dashboard" / "users.json").read_text()
    assert users.bearer(peopled, token + "x") is None
    (told,) = users.tokens(peopled)
    assert told["label"] == "backup"
    later = time.time() + 86400 + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert users.bearer(peopled, token) is None
    monkeypatch.undo()
    users.remove_token(peopled, told["id"])
    assert users.bearer(peopled, token) is None
    with pytest.raises(ConfigError):
        users.add_token(peopled, "nobody", "viewer", 1, "")


def test_user__damaged_file_is_one_line(peopled):
    (peopled / ".dashboard" / "users.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        users.listing(peopled)


def test_password_file__makes_and_updates_the_admin(lake, tmp_path):
    path = tmp_path / "password"
    path.write_text("a fine long password\n")
    users.from_password_file(lake, str(path))
    assert users.verify(lake, "admin", "a fine long password")
    path.write_text("another long password\n")
    users.from_password_file(lake, str(path))
    assert users.verify(lake, "admin", "another long password")
    with pytest.raises(ConfigError, match="ENGINE_PASSWORD_FILE"):
        users.from_password_file(lake, str(tmp_path / "none"))


# --- limit and log ----------------------------------------------------------------------------------------------


def test_limit__waits_double_and_are_forgotten():
    now = [0.0]
    limit = LoginLimit(lambda: now[0])
    for _ in range(FREE):
        assert limit.wait_s("a", "b") == 0
        limit.failed("a", "b")
    waits = []
    for _ in range(12):
        waits.append(limit.wait_s("a"))
        now[0] += waits[-1]
        limit.failed("a")
    assert waits[:4] == [1, 2, 4, 8]
    assert waits[-1] == FORGET_S
    assert limit.wait_s("c") == 0
    limit.passed("a")
    assert limit.wait_s("a") == 0
    now[0] += FORGET_S + 1
    assert limit.wait_s("b") == 0


def test_limit__memory_is_bounded():
    limit = LoginLimit()
    for i in range(MAX_KEYS + 500):
        limit.failed(f"address {i}")
    assert len(limit._failed) == MAX_KEYS


def test_audit__lines_are_appended_bounded_and_read_newest_first(lake, monkeypatch):
    for i in range(5):
        audit.append(lake, "export", user="ada", question=f"q{i}", text="x" * 100_000 + "\n\u2028")
    told = audit.read(lake, limit=2, before=1)
    assert [t["question"] for t in told] == ["q3", "q2"]
    path = lake / ".dashboard" / "audit.jsonl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().count(b"\n") == 5
    monkeypatch.setattr(audit, "LIMIT_BYTES", 1000)
    audit.append(lake, "login", user="ada")
    audit.append(lake, "logout", user="ada")
    assert [t["event"] for t in audit.read(lake, limit=2)] == ["logout", "login"]


# --- engine user ------------------------------------------------------------------------------------------------


def test_command__manages_users_sessions_and_tokens(lake):
    def say(*words: str, **options: object) -> str:
        done = engine("user", *words, "--lake", lake, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    say("add", "ada", "--role", "admin", input=PASSWORD + "\n")
    assert say("list") == "ada\tadmin\n"
    token = say("token", "ada", "--role", "viewer", "--days", "2", "--label", "cron\x1b[2J").strip()
    assert users.bearer(lake, token) == users.Identity("ada", "viewer")
    told = say("token").rstrip("\n").split("\t")
    assert (told[1:3], told[4]) == (["ada", "viewer"], "cron·[2J")
    session = auth.start_session(lake, "ada")
    assert say("sessions", "--revoke", "all") == "1 ended\n"
    assert auth.read_session(lake, session) is None
    assert [t["event"] for t in audit.read(lake)] == ["sessions revoked", "token added", "user added"]


def test_command__errors_are_one_line_and_exit_code_2(lake):
    for words in (("add", "ada"), ("role", "ada"), ("remove", "nobody"), ("set-password",), ("token", "--revoke", "x")):
        done = engine("user", *words, "--lake", lake, input="short\n")
        assert done.returncode == 2, words
        assert done.stderr.count("\n") == 1
