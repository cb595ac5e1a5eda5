"""What the operator sets about rules: `[rules.NAME]` in the TOML file, any parameters of any rule; and rules of their
own, `[rules] python` and `[[rules.sql]]`.

Which rules and parameters there are is known above, in `engine.detect.rules`: `parameters_of` checks it there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from engine.alert_row import SEVERITIES
from engine.errors import ConfigError
from engine.toml_values import check, section_lines, tables, values_of

_KINDS: Final = (bool, int, float)
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlRuleConfig:
    """A question to the lake, whose rows become alerts: the SELECT in `file`, asked every `every_s` about what is new.
    `kind` is the alerts', by default the rule's name; `why` is said when a row has no column `why`."""

    name: str = ""
    file: str = ""
    kind: str = ""
    severity: str = "medium"
    every_s: float = 60.0
    late_s: float = 0.0
    why: str = ""

    def __post_init__(self) -> None:
        check(_NAME.fullmatch(self.name) is not None, "rules.sql.name", self.name, "use letters, digits, . _ and -")
        check(bool(self.file), "rules.sql.file", self.file, "name the file that holds the query")
        named = not self.kind or _NAME.fullmatch(self.kind) is not None
        check(named, "rules.sql.kind", self.kind, "use letters, digits, . _ and -")
        check(self.severity in SEVERITIES, "rules.sql.severity", self.severity, f"use {', '.join(SEVERITIES)}")
        check(1 <= self.every_s <= 86_400, "rules.sql.every_s", self.every_s, "use 1 to 86400 seconds")
        check(0 <= self.late_s <= 86_400, "rules.sql.late_s", self.late_s, "use 0 to 86400 seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleFilesConfig:
    """Rules of the operator's own: files of Python that run inside the engine, and queries that run beside it."""

    python: tuple[str, ...] = ()
    sql: tuple[SqlRuleConfig, ...] = field(default=(), metadata=tables(SqlRuleConfig))

    def __post_init__(self) -> None:
        names = [rule.name for rule in self.sql]
        twice = next((name for name in names if names.count(name) > 1), None)
        check(twice is None, "rules.sql.name", twice, "give each rule a name of its own")


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesConfig:
    """Parameters by rule, as given: {"port_scan": {"distinct_ports": 20}}; and further rules."""

    given: Mapping[str, Mapping[str, bool | int | float]] = field(default_factory=dict)
    files: RuleFilesConfig = field(default_factory=RuleFilesConfig)

    def lines(self) -> list[str]:
        """The sections as TOML."""
        lines = [*section_lines("rules", self.files), ""]
        for rule, values in self.given.items():
            lines += [f"[rules.{rule}]", *(f"{key} = {_toml(value)}" for key, value in values.items()), ""]
        return lines


def _toml(value: bool | int | float) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def rules_of(path: str, values: Mapping[str, Any]) -> RulesConfig:
    """The sections of a TOML file. Raises ConfigError naming rule, key and value."""
    own = {key: values[key] for key in ("python", "sql") if key in values}
    given = {key: value for key, value in values.items() if key not in own}
    for rule, parameters in given.items():
        if not isinstance(parameters, dict) or not rule.isidentifier():
            raise ConfigError(f"configuration file {path}: rules.{rule} must be a section, [rules.{rule}]")
        for key, value in parameters.items():
            if type(value) not in _KINDS or not key.isidentifier():
                raise ConfigError(
                    f"configuration file {path}: rules.{rule}.{key} = {value!r} must be a number, true or false"
                )
    files = RuleFilesConfig()
    return RulesConfig(given=given, files=replace(files, **values_of(path, "rules", files, own)))
