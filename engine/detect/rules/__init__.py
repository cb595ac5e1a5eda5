"""The rules, each in a small file: parameters with the reason for each default, and what they find."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from engine.detect.rules.arp_spoof import ArpSpoofRule
from engine.detect.rules.base import Parameters, Rule
from engine.detect.rules.beacon import BeaconRule
from engine.detect.rules.brute_force import FtpBruteforceRule, HttpBruteforceRule, SshBruteforceRule
from engine.detect.rules.cleartext_credentials import CleartextCredentialsRule
from engine.detect.rules.dhcp_starvation import DhcpStarvationRule
from engine.detect.rules.dns_flood import DnsFloodRule
from engine.detect.rules.dns_tunnel import DnsTunnelRule
from engine.detect.rules.exfiltration import ExfiltrationRule
from engine.detect.rules.floods import AckFloodRule, IcmpFloodRule, SynFloodRule, UdpFloodRule
from engine.detect.rules.host_sweep import ArpScanRule, HostSweepRule, PingSweepRule
from engine.detect.rules.icmp_tunnel import IcmpTunnelRule
from engine.detect.rules.new_service import NewServiceRule
from engine.detect.rules.port_scan import PortScanRule
from engine.detect.rules.python_files import Guarded, load
from engine.detect.rules.slowloris import SlowlorisRule
from engine.detect.rules.spikes import PpsSpikeRule
from engine.detect.rules.unusual import HighEntropyRule, NewHostRule, SourceFloodRule, TooLittleTrafficRule
from engine.detect.rules.unusual_upload import UnusualUploadRule
from engine.detect.rules.web_scan import WebScanRule
from engine.errors import ConfigError

RULES: Final[tuple[type[Rule[Any]], ...]] = (
    SynFloodRule, AckFloodRule, UdpFloodRule, IcmpFloodRule, DnsFloodRule,
    PortScanRule, HostSweepRule, PingSweepRule, ArpScanRule,
    DnsTunnelRule, ExfiltrationRule, SshBruteforceRule, HttpBruteforceRule, FtpBruteforceRule, SlowlorisRule,
    ArpSpoofRule, IcmpTunnelRule, BeaconRule, WebScanRule, DhcpStarvationRule, CleartextCredentialsRule,
    HighEntropyRule, SourceFloodRule, NewHostRule, TooLittleTrafficRule,
    UnusualUploadRule, PpsSpikeRule, NewServiceRule,
)  # fmt: skip


def parameters_of(
    overrides: Mapping[str, Mapping[str, Any]], further: Sequence[type[Rule[Any]]] = ()
) -> dict[str, Parameters]:
    """The parameters of every rule, with what the configuration overrides. Raises ConfigError in one clear line."""
    known: dict[str, type[Rule[Any]]] = {}
    for rule in (*RULES, *further):
        if rule.name in known:
            raise ConfigError(f"rule {rule.name} is there twice; give the one of your file another name")
        known[rule.name] = rule
    for name in overrides:
        if name not in known:
            raise ConfigError(f"unknown rule [rules.{name}]; known are {', '.join(sorted(known))}")
    return {name: _overridden(rule, overrides.get(name, {})) for name, rule in known.items()}


def _overridden(rule: type[Rule[Any]], given: Mapping[str, Any]) -> Parameters:
    default = rule.parameters()
    names = [f.name for f in fields(default)]
    values: dict[str, Any] = {}
    for key, raw in given.items():
        if key not in names:
            raise ConfigError(f"unknown parameter rules.{rule.name}.{key}; known are {', '.join(names)}")
        usual = getattr(default, key)
        value = float(raw) if isinstance(usual, float) and type(raw) is int else raw
        if type(value) is not type(usual):
            raise ConfigError(f"rules.{rule.name}.{key} = {value!r} must be {type(usual).__name__}")
        if not isinstance(value, bool) and not 0 <= value < float("inf"):
            raise ConfigError(f"rules.{rule.name}.{key} = {value!r} is out of range: use 0 or more")
        values[key] = value
    return rule.parameters(**values)


def make_rules(
    overrides: Mapping[str, Mapping[str, Any]], files: Sequence[str] = (),
    report: Callable[[str, str], None] = lambda _level, _text: None,
) -> list[Rule[Any]]:  # fmt: skip
    """The rules that are enabled, those of the operator's files (`python_files`) last. Raises ConfigError."""
    own = [(path, rule) for path in files for rule in load(path)]
    parameters = parameters_of(overrides, [rule for _, rule in own])
    rules: list[Rule[Any]] = [rule(parameters[rule.name]) for rule in RULES if parameters[rule.name].enabled]
    for path, kind in own:
        if parameters[kind.name].enabled:
            try:
                rules.append(Guarded(kind(parameters[kind.name]), path, report))
            except Exception as error:  # noqa: BLE001 — whatever its constructor does
                raise ConfigError(f"rule {kind.name} ({path}): {type(error).__name__}: {error}") from None
    return rules
