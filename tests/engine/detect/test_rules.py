"""Parameters of rules: every rule has them, the configuration overrides them, mistakes are one clear line."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from engine.config import load_config
from engine.detect.rules import RULES, make_rules, parameters_of
from engine.errors import ConfigError
from tests.detecting import SYN, find, tcp_frame


def test_rules__names_and_reasons() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES) >= 21
    for rule in RULES:
        p = rule.parameters()
        assert p.enabled
        assert len(rule.parameters.__doc__ or "") > 60, rule.name
        assert all(isinstance(getattr(p, f.name), bool | int | float) for f in fields(p))


def test_override__from_toml(tmp_path: Path) -> None:
    file = tmp_path / "engine.toml"
    file.write_text("[rules.port_scan]\ndistinct_ports = 5\n[rules.beacon]\nenabled = false\nfor_s = 90\n")
    config = load_config(str(file))
    parameters = parameters_of(config.rules.given)
    assert parameters["port_scan"] == type(parameters["port_scan"])(distinct_ports=5)  # type: ignore[call-arg]
    assert parameters["beacon"].for_s == 90.0  # type: ignore[attr-defined]
    assert len(make_rules(config.rules.given)) == len(RULES) - 1
    file.write_text(config.to_toml())
    assert load_config(str(file)) == config
    frames = [(i * 0.1, tcp_frame("10.0.0.1", "10.0.0.2", 40000, 1 + i, SYN)) for i in range(30)]
    assert find([*frames[:8], (3.0, frames[9][1])], config.rules.given)
    assert not find(frames, {"port_scan": {"enabled": False}})


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[rules.port_scam]\nenabled = true", ["unknown rule [rules.port_scam]", "port_scan"]),
        ("[rules.port_scan]\nports = 3", ["unknown parameter rules.port_scan.ports", "distinct_ports"]),
        ("[rules.port_scan]\ndistinct_ports = true", ["rules.port_scan.distinct_ports", "True", "int"]),
        ("[rules.port_scan]\ndistinct_ports = 1.5", ["rules.port_scan.distinct_ports", "1.5", "int"]),
        ("[rules.port_scan]\ndistinct_ports = -1", ["rules.port_scan.distinct_ports", "-1"]),
        ("[rules.beacon]\ndeviation = nan", ["rules.beacon.deviation", "nan"]),
        ('[rules.port_scan]\ndistinct_ports = "x"', ["rules.port_scan.distinct_ports", "'x'"]),
        ("[rules]\nport_scan = 3", ["rules.port_scan", "section"]),
    ],
)
def test_error__one_line(tmp_path: Path, text: str, parts: list[str]) -> None:
    file = tmp_path / "engine.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        parameters_of(load_config(str(file)).rules.given)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)
