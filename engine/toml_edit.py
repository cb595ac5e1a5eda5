"""Changing values in a TOML text and leaving the rest, comments too, as it is.

    edit(text, {"alerts": {"cooldown_s": 30.0}}, {"notify.targets": [{"name": "ops", "url": "json://localhost"}]})

Lists of tables are written anew as a whole. What comes out is parsed and compared with what was meant: a text written
in a way that this does not follow (dotted keys, inline tables) is refused, never damaged.
"""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from engine.errors import ConfigError
from engine.toml_values import toml

_HEADER: Final = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_.\-]+)\s*\]\]?\s*(#.*)?$")
_KEY: Final = re.compile(r"\s*([A-Za-z0-9_\-]+)\s*=")
Changes = Mapping[str, Mapping[str, Any]]  # a value of None takes the key away
Tables = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(slots=True)
class _Part:
    """Lines `first` to `last` of the text: a header (no key) or a key with its value."""

    section: str
    table: bool
    key: str
    first: int
    last: int


def edit(text: str, changes: Changes, tables: Tables | None = None) -> str:
    """The text with the changes. Raises ConfigError when it is not TOML, or cannot be changed without damage."""
    tables = tables or {}
    meant = _meant(_parsed(text), changes, tables)
    lines = text.split("\n")  # TOML knows no other ends of lines
    for name, entries in tables.items():
        lines = _replace_tables(lines, name, entries)
    for section, values in changes.items():
        for key, value in values.items():
            lines = _set(lines, section, key, value)
    made = "\n".join(lines).strip("\n") + "\n"
    try:
        same = _without_empty(tomllib.loads(made)) == _without_empty(meant)
    except tomllib.TOMLDecodeError:
        same = False
    if not same:
        names = ", ".join([*(f"[{name}]" for name in changes), *(f"[[{name}]]" for name in tables)])
        raise ConfigError(f"{names} of the file cannot be changed without damage; edit the file by hand")
    return made


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the configuration file is not TOML: {error}") from None


def _meant(document: dict[str, Any], changes: Changes, tables: Tables) -> dict[str, Any]:
    made = copy.deepcopy(document)
    for section, values in changes.items():
        part = made
        for name in section.split("."):
            part = part.setdefault(name, {})
        for key, value in values.items():
            if value is None:
                part.pop(key, None)
            else:
                part[key] = list(value) if isinstance(value, tuple) else value
    for name, entries in tables.items():
        section, _, key = name.rpartition(".")
        made.setdefault(section, {})[key] = [
            {k: list(v) if isinstance(v, tuple) else v for k, v in entry.items()} for entry in entries
        ]
    return made


def _without_empty(value: Any) -> Any:
    """Sections without keys and lists without entries are the same as none."""
    if not isinstance(value, dict):
        return value
    inside = {k: _without_empty(v) for k, v in value.items()}
    return {k: v for k, v in inside.items() if v != {} and not (v == [] and isinstance(value[k], list))}


def _parts(lines: list[str]) -> list[_Part]:
    found: list[_Part] = []
    section, table, at = "", False, 0
    while at < len(lines):
        line = lines[at]
        if not line.strip() or line.lstrip().startswith("#"):
            at += 1
            continue
        header = _HEADER.match(line)
        if header is not None:
            section, table = header[2], header[1] == "[["
            found.append(_Part(section, table, "", at, at))
            at += 1
            continue
        key = _KEY.match(line)
        last = _end_of_value(lines, at)
        found.append(_Part(section, table, key[1] if key else "?", at, last))
        at = last + 1
    return found


def _end_of_value(lines: list[str], at: int) -> int:
    for last in range(at, min(len(lines), at + 1_000)):
        try:
            tomllib.loads("\n".join(lines[at : last + 1]))
        except tomllib.TOMLDecodeError:
            continue
        return last
    return at


def _set(lines: list[str], section: str, key: str, value: Any) -> list[str]:
    parts = [p for p in _parts(lines) if p.section == section and not p.table]
    known = next((p for p in parts if p.key == key), None)
    new = [] if value is None else [f"{key} = {toml(value)}"]
    if known is not None:
        if new and known.first == known.last:
            new = [new[0] + _comment(lines[known.first])]
        return lines[: known.first] + new + lines[known.last + 1 :]
    if not new:
        return lines
    if parts:
        return lines[: parts[-1].last + 1] + new + lines[parts[-1].last + 1 :]
    return [*lines, *([""] if lines and lines[-1].strip() else []), f"[{section}]", *new]


def _comment(line: str) -> str:
    """What stands behind the value, with the space before it."""
    for at in (m.start() for m in re.finditer("#", line)):
        try:
            tomllib.loads(line[:at])
        except tomllib.TOMLDecodeError:
            continue
        code = line[:at].rstrip()
        return line[len(code) :]
    return ""


def _replace_tables(lines: list[str], name: str, entries: Sequence[Mapping[str, Any]]) -> list[str]:
    section, _, key = name.rpartition(".")
    for part in reversed(_parts(lines)):
        ours = part.table and part.section == name
        inline = part.section == section and part.key == key and not part.table
        if ours or inline:
            lines = lines[: part.first] + lines[part.last + 1 :]
    while lines and not lines[-1].strip():
        lines.pop()
    for entry in entries:
        lines = [*lines, "", f"[[{name}]]", *(f"{k} = {toml(v)}" for k, v in entry.items() if v is not None)]
    return lines
