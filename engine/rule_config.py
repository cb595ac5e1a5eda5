"""What the operator sets about rules, `[rules.NAME]` in the TOML file: any parameters of any rule.

Which rules and parameters there are is known above, in `engine.detect.rules`: `parameters_of` checks it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from engine.errors import ConfigError

_KINDS: Final = (bool, int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesConfig:
    """Parameters by rule, as given: {"port_scan": {"distinct_ports": 20}}."""

    given: Mapping[str, Mapping[str, bool | int | float]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The sections as TOML."""
        lines = []
        for rule, values in self.given.items():
            lines += [f"[rules.{rule}]", *(f"{key} = {_toml(value)}" for key, value in values.items()), ""]
        return lines


def _toml(value: bool | int | float) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def rules_of(path: str, values: Mapping[str, Any]) -> RulesConfig:
    """The sections of a TOML file. Raises ConfigError naming rule, key and value."""
    for rule, parameters in values.items():
        if not isinstance(parameters, dict) or not rule.isidentifier():
            raise ConfigError(f"configuration file {path}: rules.{rule} must be a section, [rules.{rule}]")
        for key, value in parameters.items():
            if type(value) not in _KINDS or not key.isidentifier():
                raise ConfigError(
                    f"configuration file {path}: rules.{rule}.{key} = {value!r} must be a number, true or false"
                )
    return RulesConfig(given=values)
