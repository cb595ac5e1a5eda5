"""Changing a configuration file without touching the rest of it."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.toml_edit import edit

FILE = """# ours
[alerts]
cooldown_s = 30.0   # a minute is too long here
# kept
min_severity = "low"
[[alerts.kind]]
name = "beacon"
severity = "high"

[signatures]
home = [
  "10.0.0.0/8",  # office
]

[rules.port_scan]
distinct_ports = 20
"""


def test_edit__changes_one_value_and_keeps_every_other_line() -> None:
    made = edit(FILE, {"alerts": {"cooldown_s": 45.5}})
    assert made == FILE.replace("30.0", "45.5")


def test_edit__new_keys_new_sections_lists_of_tables_and_removal() -> None:
    made = edit(
        FILE,
        {"rules.port_scan": {"distinct_ports": None, "enabled": False}, "signatures": {"home": ("fc00::/7",)},
         "notify": {"queue": 5}},
        {"alerts.kind": [{"name": "port_scan", "severity": "low"}], "notify.targets": [{"name": "a", "url": 'x://"q#'}]},
    )  # fmt: skip
    assert tomllib.loads(made) == {
        "alerts": {"cooldown_s": 30.0, "min_severity": "low", "kind": [{"name": "port_scan", "severity": "low"}]},
        "signatures": {"home": ["fc00::/7"]}, "rules": {"port_scan": {"enabled": False}},
        "notify": {"queue": 5, "targets": [{"name": "a", "url": 'x://"q#'}]},
    }  # fmt: skip
    assert "# ours" in made
    assert "# a minute is too long here" in made


@pytest.mark.parametrize(
    "text",
    ['alerts.cooldown_s = 3.0\n', 'alerts = {cooldown_s = 3.0}\n', '["alerts"]\ncooldown_s = 3.0\n'],
    ids=["dotted", "inline", "quoted"],
)  # fmt: skip
def test_edit__what_it_does_not_follow_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"\[alerts\] of the file cannot be changed"):
        edit(text, {"alerts": {"cooldown_s": 4.0}})


def test_edit__a_text_over_several_lines_is_no_header() -> None:
    text = '[eve]\nfile = """\n[alerts]\n"""\n'
    made = edit(text, {"alerts": {"cooldown_s": 4.0}})
    assert tomllib.loads(made) == {"eve": {"file": "[alerts]\n"}, "alerts": {"cooldown_s": 4.0}}


def test_edit__not_toml() -> None:
    with pytest.raises(ConfigError, match="not TOML"):
        edit("[alerts", {"alerts": {"cooldown_s": 4.0}})


@given(st.text(max_size=30), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_edit__any_value_comes_back(text: str, number: float, flag: bool) -> None:
    made = edit(FILE, {"capture": {"bpf_filter": text, "a": number}, "alerts": {"min_severity": text, "b": flag}})
    read = tomllib.loads(made)
    assert (read["capture"], read["alerts"]["min_severity"]) == ({"bpf_filter": text, "a": number}, text)
