"""Between TOML and the frozen dataclasses of the configuration: types, lists of tables, secrets.

A field is typed by its default. `field(default=(), metadata=tables(Entry))` is a list of tables, `[[section.field]]` in
the file, each of them an `Entry`; `metadata=integers()` a list of whole numbers; `metadata=secret()` is printed masked,
and its value stands in no message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from engine.errors import ConfigError

MASK: Final = "***"


def check(ok: bool, name: str, value: object, rule: str) -> None:
    if not ok:
        raise ConfigError(f"{name} = {value!r} is out of range: {rule}")


def tables(entry: type) -> Mapping[str, Any]:
    return {"tables": entry}


def integers() -> Mapping[str, Any]:
    return {"items": int}


def secret() -> Mapping[str, Any]:
    return {"secret": True}


def masked(value: str) -> str:
    """A URL without anything that could let somebody in: slack://***."""
    scheme, colon, _ = value.partition("://")
    return f"{scheme}://{MASK}" if colon and scheme.isalnum() else MASK if value else ""


def values_of(path: str, section: str, part: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The values of a section of the file, with the types that the dataclass `part` has."""
    known = {f.name: f for f in fields(part)}
    result = {}
    for key, value in given.items():
        if key not in known:
            raise ConfigError(
                f"configuration file {path}: unknown key {section}.{key}; `engine config` prints the known ones"
            )
        result[key] = _typed(f"configuration file {path}: {section}.{key}", getattr(part, key), known[key], value)
    return result


def _typed(where: str, default: Any, known: Any, value: Any) -> Any:
    metadata = known.metadata
    if "tables" in metadata:
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise ConfigError(f"{where} must be a list of tables; write each as [[...]] with its keys below")
        return tuple(_entry(f"{where} number {n}", metadata["tables"], entry) for n, entry in enumerate(value, 1))
    kind = metadata.get("items", str)
    if isinstance(default, tuple) and isinstance(value, list) and all(type(v) is kind for v in value):
        return tuple(value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(value) is not type(default):
        shown = MASK if "secret" in metadata else repr(value)
        raise ConfigError(f"{where} = {shown} must be {_called(default, kind)}")
    return value


def _called(default: object, kind: type) -> str:
    if isinstance(default, tuple) and kind is int:
        return "a list of whole numbers"
    return type(default).__name__


def _entry(where: str, kind: Any, given: dict[str, Any]) -> Any:
    known = {f.name: f for f in fields(kind)}
    values = {}
    for key, value in given.items():
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}; known are {', '.join(known)}")
        values[key] = _typed(f"{where}: {key}", known[key].default, known[key], value)
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def section_lines(name: str, part: Any) -> list[str]:
    """A section as lines of TOML, its lists of tables after it."""
    lines = [f"[{name}]"]
    below: list[str] = []
    for f in fields(part):
        value = getattr(part, f.name)
        if "tables" in f.metadata:
            for entry in value:
                below += ["", *section_lines(f"[{name}.{f.name}]", entry)]
        else:
            lines.append(f"{f.name} = {toml(masked(value) if 'secret' in f.metadata else value)}")
    return lines + below


def toml(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(toml(v) for v in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML escapes as JSON does
    return repr(value)
