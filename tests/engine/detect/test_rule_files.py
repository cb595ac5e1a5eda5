"""Rules of the operator's own, in files of Python."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.config import load_config
from engine.detect.rules.python_files import ERRORS, load
from engine.errors import ConfigError
from tests.detecting import SYN, Rig, tcp_frame

RULE = """
from dataclasses import dataclass

from engine.detect.finding import Finding
from engine.detect.rules.base import Parameters, Rule
from engine.kernels import window_layout as w


@dataclass(frozen=True, slots=True, kw_only=True)
class Chatty(Parameters):
    attempts: int = 3


class ChattyRule(Rule[Chatty]):
    name = "chatty"
    parameters = Chatty

    def look(self, tick, second):
        for n, row in enumerate(tick.hosts):
            if row[w.C_ATTEMPTS] >= self.p.attempts:
                count = int(row[w.C_ATTEMPTS])
                yield Finding(ts=tick.ts, kind="chatty", severity="low", src_ip=tick.host(n), why="talks", count=count)
"""
TALK = [(n * 0.01, tcp_frame("10.0.0.7", "10.0.0.9", 4000 + n, 80, SYN)) for n in range(5)]


def write(folder: Path, text: str, mode: int = 0o600) -> str:
    path = folder / "mine.py"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def found(path: str, **parameters: int) -> list[str | None]:
    rig = Rig({"chatty": parameters} if parameters else {}, files=[path])
    return [f.src_ip for f in rig.send(TALK) if f.kind == "chatty"]


def test_rule__finds_and_takes_parameters(tmp_path: Path) -> None:
    path = write(tmp_path, RULE)
    assert found(path) == ["10.0.0.7"]
    assert found(path, attempts=50) == []


def test_configuration__names_files_and_parameters(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[rules]\npython = ["mine.py"]\n[rules.chatty]\nattempts = 4\n')
    rules = load_config(str(config)).rules
    assert (rules.files.python, rules.given) == (("mine.py",), {"chatty": {"attempts": 4}})
    again = tmp_path / "again.toml"
    again.write_text(load_config(str(config)).to_toml())
    assert load_config(str(again)).rules == rules


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def x(:\n", "mine.py:1: invalid syntax"),
        ("\nimport nothing_of_that_name\n", "mine.py:2: ModuleNotFoundError"),
        ("x = 1\n", "defines no rule"),
        (RULE.replace('name = "chatty"', "name = 7"), "ChattyRule needs a `name`"),
        (RULE.replace("parameters = Chatty", "parameters = int"), "needs `parameters`"),
        (RULE.replace("attempts: int = 3", "attempts: int"), "every parameter needs a default"),
    ],
)
def test_mistake__is_one_line_with_the_file(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(write(tmp_path, text))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_name_of_a_built_in_rule__is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="port_scan is there twice"):
        Rig(files=[write(tmp_path, RULE.replace('"chatty"', '"port_scan"', 1))])


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_file__that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match="chmod go-w"):
        load(write(tmp_path, RULE, mode))


def test_file__in_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, RULE)
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match="others can replace it"):
        load(path)
    tmp_path.chmod(0o1777)
    assert load(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_file__of_another_user_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, RULE)
    os.chown(path, 12345, 0)
    with pytest.raises(ConfigError, match="belongs to another user"):
        load(path)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise ValueError('no\\n luck')", "ValueError: no luck"),
        ("yield 7", "TypeError: int instead of a Finding"),
        ("yield Finding(ts=1, kind='x', severity='awful', why='')", "severity of low"),
        ("while True: yield Finding(ts=1, kind='x', severity='low', why='')", "OverflowError: more than"),
    ],
)
def test_rule_that_fails__is_said_once_and_given_up(tmp_path: Path, body: str, said: str) -> None:
    text = RULE[: RULE.index("        for n, row")] + f"        {body}\n        yield\n"
    path = write(tmp_path, text)
    told: list[tuple[str, str]] = []
    rig = Rig(files=[path], report=lambda level, line: told.append((level, line)))
    scan = [(n * 0.25, tcp_frame("10.0.0.7", "10.0.0.9", 4000, 100 + n, SYN)) for n in range(60)]
    assert "port_scan" in [f.kind for f in rig.send(scan)]  # the others go on
    assert [level for level, _ in told] == ["warning", "error"]
    assert said in told[0][1]
    assert ("mine.py:19)" in told[0][1]) == body.startswith("raise")
    assert rig.detector._rules[-1].errors == ERRORS  # type: ignore[attr-defined]
